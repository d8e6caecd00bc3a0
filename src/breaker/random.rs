//! The numbers behind jitter. Absent on purpose: their source. The seed comes from outside, and the same seed gives the
//! same numbers.

use std::time::Duration;

use super::policy::Share;

/// Steele, Lea and Flood's generator: eight bytes of state, and good enough to spread a fleet.
#[derive(Debug)]
pub(super) struct SplitMix64(pub(super) u64);

impl SplitMix64 {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Evenly from zero to `share` of `base`.
    pub(super) fn up_to(&mut self, base: Duration, share: Share) -> Duration {
        if share == Share::NONE {
            return Duration::ZERO;
        }
        let limit = base.as_nanos() * u128::from(share.millionths()) / u128::from(Share::WHOLE);
        let random = u128::from(self.next());
        // A week is fewer than 2^50 nanoseconds, so the product fits.
        let nanos = (limit.saturating_mul(random)) >> 64;
        Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::SplitMix64;

    #[test]
    fn the_generator_is_the_published_one() {
        let mut random = SplitMix64(1_234_567);
        let first = [(); 3].map(|()| random.next());
        let published = [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423];
        assert_eq!(first, published);
    }
}
