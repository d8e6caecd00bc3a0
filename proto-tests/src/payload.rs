//! Long byte streams that can be made again, and checksums to compare them by.

/// A deterministic generator of pseudo-random numbers (SplitMix64): the same seed, the same test.
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator with this seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `n`.
    pub fn below(&mut self, n: usize) -> usize {
        (self.draw() % n.max(1) as u64) as usize
    }
}

/// A running checksum over a stream, whatever pieces it comes in. Sees swaps, losses and repetitions; it is no
/// defence against malice.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Checksum {
    state: u64,
    pending: [u8; 8],
    length: u64,
}

impl Default for Checksum {
    fn default() -> Self {
        Self { state: 0xcbf2_9ce4_8422_2325, pending: [0; 8], length: 0 }
    }
}

impl Checksum {
    /// Adds bytes.
    pub fn update(&mut self, mut bytes: &[u8]) {
        // Eight bytes at a time, so that a gigabyte takes well under a second; `pending` holds a started group.
        while !bytes.is_empty() {
            let at = (self.length % 8) as usize;
            if at == 0 && bytes.len() >= 8 {
                let whole = bytes.len() / 8 * 8;
                let (groups, rest) = bytes.split_at(whole);
                for group in groups.chunks_exact(8) {
                    self.mix(group.try_into().unwrap_or_default());
                }
                self.length += whole as u64;
                bytes = rest;
                continue;
            }
            self.pending[at] = bytes[0];
            self.length += 1;
            bytes = &bytes[1..];
            if at == 7 {
                self.mix(self.pending);
                self.pending = [0; 8];
            }
        }
    }

    /// Length and value of all so far.
    pub fn finish(&self) -> (u64, u64) {
        let mut last = self.clone();
        if !last.length.is_multiple_of(8) {
            last.mix(last.pending);
        }
        (last.length, last.state)
    }

    fn mix(&mut self, group: [u8; 8]) {
        let mixed = (self.state ^ u64::from_le_bytes(group)).wrapping_mul(0x0000_0100_0000_01b3);
        self.state = mixed.rotate_left(29) ^ (mixed >> 32);
    }
}

/// The checksum of one slice.
pub fn checksum(bytes: &[u8]) -> u64 {
    let mut sum = Checksum::default();
    sum.update(bytes);
    sum.finish().1
}

/// Calls `piece` with `n` reproducible bytes, a mebibyte at most at a time. Every byte value occurs, and no two
/// mebibytes are alike.
pub fn stream(seed: u64, n: u64, mut piece: impl FnMut(&[u8])) {
    const MIB: usize = 1 << 20;
    let mut random = Random::new(seed);
    let mut block = Vec::with_capacity(MIB);
    let mut left = n;
    while left > 0 {
        block.clear();
        while block.len() < MIB {
            block.extend_from_slice(&random.draw().to_le_bytes());
        }
        let take = left.min(MIB as u64) as usize;
        piece(&block[..take]);
        left -= take as u64;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_checksum_does_not_depend_on_the_pieces() {
        let mut whole = Vec::new();
        stream(1, 3_000_001, |piece| whole.extend_from_slice(piece));
        let mut pieces = Checksum::default();
        let mut random = Random::new(2);
        let mut rest = &whole[..];
        while !rest.is_empty() {
            let n = (1 + random.below(5000)).min(rest.len());
            pieces.update(&rest[..n]);
            rest = &rest[n..];
        }
        assert_eq!(pieces.finish(), (3_000_001, checksum(&whole)));
    }

    #[test]
    fn a_checksum_sees_swapped_and_changed_bytes() {
        let mut bytes: Vec<u8> = (0..=255).collect();
        let before = checksum(&bytes);
        bytes.swap(8, 16);
        assert_ne!(checksum(&bytes), before);
        bytes.swap(8, 16);
        bytes[255] ^= 1;
        assert_ne!(checksum(&bytes), before);
    }
}
