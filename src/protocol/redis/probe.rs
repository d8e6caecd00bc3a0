//! The probes in a session's hands, which replies on its connection will decide.
//!
//! Absent on purpose: which call becomes a probe (`decide`), and which reply decides one (`upstream`).

use std::time::Instant;

use crate::gate::Permit;

/// The probes that a connection's replies will decide. Most connections never have one, so there is a hand only once one has
/// been held.
#[derive(Debug, Default)]
pub(super) struct Probes(Option<Box<Hand>>);

#[derive(Debug, Default)]
struct Hand {
    /// Oldest first; only the last may be unspent.
    held: Vec<Probe>,
    /// Numbers the probes, so that a reply decides none but its own.
    next: u32,
}

/// A probe in the session's hands.
#[derive(Debug)]
pub(super) struct Probe {
    pub(super) number: u32,
    pub(super) permit: Permit,
    /// A command whose reply will decide it has been sent.
    pub(super) spent: bool,
    /// What the breaker was last told of whose move it is.
    owed: bool,
}

impl Probes {
    #[inline]
    pub(super) fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|hand| hand.held.is_empty())
    }

    /// Takes a probe in hand; its number. `spent`: what will decide it is being sent; `owed`: the next move is the
    /// backend's.
    pub(super) fn hold(&mut self, permit: Permit, spent: bool, owed: bool) -> u32 {
        if !owed {
            permit.set_owed(false);
        }
        let hand = self.0.get_or_insert_default();
        let number = hand.next;
        hand.next = hand.next.wrapping_add(1);
        hand.held.push(Probe { number, permit, spent, owed });
        number
    }

    /// Gives out of hand the probe of this number, if it is still held.
    pub(super) fn release(&mut self, number: Option<u32>) -> Option<Permit> {
        let held = &mut self.0.as_mut()?.held;
        let at = held.iter().position(|probe| Some(probe.number) == number)?;
        Some(held.remove(at).permit)
    }

    /// Gives the oldest out of hand.
    pub(super) fn release_oldest(&mut self) -> Option<Permit> {
        let held = &mut self.0.as_mut()?.held;
        if held.is_empty() { None } else { Some(held.remove(0).permit) }
    }

    /// Gives all out of hand, undecided: their slots are free.
    pub(super) fn clear(&mut self) {
        if let Some(hand) = &mut self.0 {
            hand.held.clear();
        }
    }

    /// The probe in hand that nothing has been sent for yet, if its slot is still its own: a client that was silent
    /// for too long has lost it.
    pub(super) fn unspent(&mut self, now: Instant) -> Option<&mut Probe> {
        let held = &mut self.0.as_mut()?.held;
        let last = held.last().filter(|probe| !probe.spent)?;
        if !last.permit.is_live(now) {
            held.pop();
            return None;
        }
        held.last_mut()
    }

    /// Tells the breaker whose move it is, where that is news.
    pub(super) fn set_owed(&mut self, owed: bool) {
        let held = self.0.iter_mut().flat_map(|hand| &mut hand.held);
        for probe in held.filter(|probe| probe.owed != owed) {
            probe.owed = owed;
            probe.permit.set_owed(owed);
        }
    }
}
