//! The one way to wait for something.
//!
//! Tests await events; none asserts how long anything took. The deadline here only turns a hang into a failure
//! that says what was seen last.

use std::future::Future;
use std::sync::Once;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

/// How long an event may take before the test fails. Generous: a busy machine must not fail a test.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// How exact [`awake`] is.
const TICK: Duration = Duration::from_millis(20);

/// Time that goes by while this process runs, from its first use on: whoever was stopped together with all that it waits for
/// (a paused container, Ctrl-Z) has not waited. For waits that may fall into hours of a soak.
pub fn awake() -> Duration {
    static TICKS: AtomicU64 = AtomicU64::new(0);
    static TICKING: Once = Once::new();
    TICKING.call_once(|| {
        thread::spawn(|| {
            loop {
                thread::sleep(TICK);
                TICKS.fetch_add(1, Ordering::Relaxed);
            }
        });
    });
    TICK * u32::try_from(TICKS.load(Ordering::Relaxed)).unwrap_or(u32::MAX)
}

/// Polls until `look` succeeds, and returns what it found. Panics after [`PATIENCE`] with `what` was awaited and
/// the last error.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Result<T, String>) -> T {
    let deadline = awake() + PATIENCE;
    let mut pause = Duration::from_millis(1);
    loop {
        match look() {
            Ok(found) => return found,
            Err(seen) if awake() > deadline => {
                panic!("waited {PATIENCE:?} for {what}; last seen: {seen}")
            }
            Err(_) => thread::sleep(pause),
        }
        pause = (pause * 2).min(Duration::from_millis(50));
    }
}

/// Awaits `future`, panicking after [`PATIENCE`] if it hangs.
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(done) => done,
        Err(_) => panic!("waited {PATIENCE:?} for {what}"),
    }
}

/// `Ok` when `yes`, otherwise what was seen: for [`eventually`].
pub fn check(yes: bool, seen: impl std::fmt::Debug) -> Result<(), String> {
    if yes { Ok(()) } else { Err(format!("{seen:?}")) }
}
