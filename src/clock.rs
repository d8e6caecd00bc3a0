//! From the monotonic time that everything runs on to the wall time that people read.
//!
//! Deadlines, durations and trips are [`Instant`]s; only what leaves the process (an API answer, a gauge) needs a
//! date. Nothing here may be used to decide anything: wall time jumps.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A pair of times taken at the same moment, kept until the wall clock is set.
///
/// Kept, because two conversions of one [`Instant`] should give the same date to the last digit (a scrape that
/// finds nothing new must say nothing new). Taken anew after a jump, because monotonic time stands still while a
/// machine is suspended: dates would be hours off for the rest of the process's life.
#[derive(Debug)]
pub struct Clock {
    anchor: Mutex<Anchor>,
}

/// The present, and the way from other moments to their dates.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The present.
    pub now: Instant,
    anchor: Anchor,
}

#[derive(Debug, Clone, Copy)]
struct Anchor {
    instant: Instant,
    wall: SystemTime,
}

/// How far wall time may stray from the anchor: far above what lies between reading the two clocks, far below
/// what a reader of a log would notice.
const STRAY_MAX: Duration = Duration::from_millis(250);

/// The last second that RFC 3339 can write, 9999-12-31T23:59:59Z.
const LAST_DATE: Duration = Duration::from_secs(253_402_300_799);

impl Clock {
    /// A clock anchored at the present.
    pub fn new() -> Self {
        let anchor = Anchor { instant: Instant::now(), wall: SystemTime::now() };
        Self { anchor: Mutex::new(anchor) }
    }

    /// The present.
    pub fn read(&self) -> Moment {
        self.read_at(Instant::now(), SystemTime::now())
    }

    fn read_at(&self, now: Instant, wall: SystemTime) -> Moment {
        let mut anchor = self.anchor.lock().unwrap_or_else(PoisonError::into_inner);
        let expected = anchor.wall_of(now);
        let stray = wall.duration_since(expected).unwrap_or_else(|behind| behind.duration());
        if stray > STRAY_MAX {
            *anchor = Anchor { instant: now, wall };
        }
        Moment { now, anchor: *anchor }
    }
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

impl Moment {
    /// The date of `at` in RFC 3339 with milliseconds, in UTC: `2025-01-31T12:00:00.250Z`.
    pub fn rfc3339(&self, at: Instant) -> String {
        humantime::format_rfc3339_millis(self.wall(at)).to_string()
    }

    /// The date of `at` in seconds since 1970, to the millisecond.
    pub fn unix_seconds(&self, at: Instant) -> f64 {
        let since = self.wall(at).duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_millis() as f64 / 1e3
    }

    /// The date of `at`, between 1970 and the year 9999: what can be written down.
    fn wall(&self, at: Instant) -> SystemTime {
        self.anchor.wall_of(at).clamp(UNIX_EPOCH, UNIX_EPOCH + LAST_DATE)
    }
}

impl Anchor {
    fn wall_of(&self, at: Instant) -> SystemTime {
        let wall = match at.checked_duration_since(self.instant) {
            Some(later) => self.wall.checked_add(later),
            None => self.wall.checked_sub(self.instant.saturating_duration_since(at)),
        };
        wall.unwrap_or(self.wall)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(instant: Instant, wall: SystemTime) -> Clock {
        Clock { anchor: Mutex::new(Anchor { instant, wall }) }
    }

    #[test]
    fn an_instant_keeps_its_date_while_the_clocks_run_alike() {
        let (start, epoch) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let clock = clock(start, epoch);
        let later = Duration::from_secs(10);
        let first = clock.read_at(start + later, epoch + later + Duration::from_micros(3));
        let second = clock.read_at(start + later * 2, epoch + later * 2 + Duration::from_millis(100));
        let at = start + Duration::from_millis(1_250);
        assert_eq!(first.unix_seconds(at), 1_700_000_001.25);
        assert_eq!(second.unix_seconds(at), 1_700_000_001.25);
        assert_eq!(second.rfc3339(at), "2023-11-14T22:13:21.250Z");
    }

    #[test]
    fn a_jump_of_the_wall_clock_moves_the_dates() {
        let (start, epoch) = (Instant::now(), UNIX_EPOCH + Duration::from_secs(1_700_000_000));
        let clock = clock(start, epoch);
        let hour = Duration::from_secs(3600);
        let awake = clock.read_at(start + Duration::from_secs(1), epoch + hour);
        assert_eq!(awake.unix_seconds(awake.now), 1_700_003_600.0);
        let set_back = clock.read_at(start + Duration::from_secs(2), epoch);
        assert_eq!(set_back.unix_seconds(set_back.now), 1_700_000_000.0);
    }

    #[test]
    fn dates_before_1970_and_after_9999_are_written_as_the_nearest_that_can_be() {
        let start = Instant::now();
        let past = clock(start, UNIX_EPOCH).read_at(start + Duration::from_secs(1), UNIX_EPOCH);
        let before = UNIX_EPOCH - Duration::from_secs(5);
        let set_wrong = clock(start, before).read_at(start, before);
        assert_eq!(set_wrong.rfc3339(start), "1970-01-01T00:00:00.000Z");
        let far = past.rfc3339(start + LAST_DATE + Duration::from_secs(9));
        assert_eq!(far, "9999-12-31T23:59:59.000Z");
    }
}
