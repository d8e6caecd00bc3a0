//! A session's answer to a slice of input: spans to forward or insert, the rest dropped or left.

use std::ops::Range;

/// What becomes of the bytes that a session was shown. Reused from read to read; building one allocates nothing
/// once it has grown to a connection's habits.
#[derive(Debug, Default)]
pub struct Plan {
    spans: Vec<Span>,
    inserted: Vec<u8>,
    consumed: usize,
}

/// A piece of output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Span {
    /// This range of the input.
    Forward(Range<usize>),
    /// This range of [`Plan::inserted`].
    Insert(Range<usize>),
}

impl Plan {
    /// Forgets everything, keeps the memory.
    pub fn clear(&mut self) {
        self.spans.clear();
        self.inserted.clear();
        self.consumed = 0;
    }

    /// Forwards the next `n` unconsumed bytes.
    #[inline]
    pub fn forward(&mut self, n: usize) {
        if n == 0 {
            return;
        }
        let (start, end) = (self.consumed, self.consumed + n);
        self.consumed = end;
        match self.spans.last_mut() {
            Some(Span::Forward(range)) if range.end == start => range.end = end,
            _ => self.spans.push(Span::Forward(start..end)),
        }
    }

    /// Drops the next `n` unconsumed bytes.
    #[inline]
    pub fn drop(&mut self, n: usize) {
        self.consumed += n;
    }

    /// Inserts bytes of the proxy's own.
    pub fn insert(&mut self, bytes: &[u8]) {
        let start = self.inserted.len();
        self.inserted.extend_from_slice(bytes);
        let end = self.inserted.len();
        match self.spans.last_mut() {
            // Whatever was inserted last is at the end of what was inserted.
            Some(Span::Insert(range)) => range.end = end,
            _ if start == end => {}
            _ => self.spans.push(Span::Insert(start..end)),
        }
    }

    /// How many bytes of the input have been forwarded or dropped; the rest is left for later.
    #[inline]
    pub fn consumed(&self) -> usize {
        self.consumed
    }

    /// The output, in order.
    #[inline]
    pub fn spans(&self) -> &[Span] {
        &self.spans
    }

    /// The bytes that [`Span::Insert`] refers to.
    pub fn inserted(&self) -> &[u8] {
        &self.inserted
    }

    /// The bytes of a span of this plan, given the input that it was made for.
    #[inline]
    pub fn bytes<'a>(&'a self, input: &'a [u8], span: &Span) -> &'a [u8] {
        match span {
            Span::Forward(range) => &input[range.clone()],
            Span::Insert(range) => &self.inserted[range.clone()],
        }
    }

    /// The whole output as one vector, for tests and for what could not be written at once.
    pub fn output(&self, input: &[u8]) -> Vec<u8> {
        self.spans.iter().flat_map(|span| self.bytes(input, span).iter().copied()).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn adjacent_forwards_become_one_span() {
        let mut plan = Plan::default();
        plan.forward(2);
        plan.forward(3);
        plan.drop(1);
        plan.forward(1);
        plan.insert(b"ab");
        plan.insert(b"c");
        assert_eq!(plan.spans(), [Span::Forward(0..5), Span::Forward(6..7), Span::Insert(0..3)]);
        assert_eq!((plan.output(b"0123456789"), plan.inserted()), (b"012346abc".to_vec(), &b"abc"[..]));
        assert_eq!(plan.consumed(), 7);
        plan.clear();
        assert_eq!((plan.consumed(), plan.spans(), plan.inserted()), (0, &[][..], &[][..]));
    }

    #[test]
    fn empty_pieces_leave_no_span() {
        let mut plan = Plan::default();
        plan.forward(0);
        plan.insert(b"");
        assert!(plan.spans().is_empty());
    }
}
