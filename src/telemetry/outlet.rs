//! Lines on their way out, so that whoever logs never waits for whoever reads the log.
//!
//! A pipe whose reader has stopped (a log collector that hangs) blocks its writer. Were that a worker, every connection
//! on it would stand still, because of a log. So a thread of its own writes; when more than [`LINES_MAX`] lines wait for it,
//! new ones are lost, and so is a line that cannot be written (a full disk). The next one that can be is followed by one
//! that says how many were.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use tracing_subscriber::fmt::MakeWriter;

/// The most lines that wait to be written.
pub const LINES_MAX: usize = 1024;

/// How often [`Outlet::flush`] looks.
const LOOK_EVERY: Duration = Duration::from_millis(1);

/// Where lines go in.
#[derive(Debug, Clone)]
pub struct Outlet {
    lines: SyncSender<Vec<u8>>,
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Lines that have gone in.
    taken: AtomicU64,
    /// Those of them that have come out or could not.
    done: AtomicU64,
    /// Lines that nobody will read, since that was last said.
    lost: AtomicU64,
}

impl Outlet {
    /// One that writes to `out`.
    ///
    /// # Errors
    /// If the system refuses a thread.
    pub fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let (lines, waiting) = sync_channel(LINES_MAX);
        let counts = Arc::new(Counts::default());
        let theirs = counts.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || write_all(waiting, out, &theirs))?;
        Ok(Self { lines, counts })
    }

    /// Waits until every line has been written, for so long at most. To be called before the process ends.
    pub fn flush(&self, patience: Duration) {
        let deadline = Instant::now() + patience;
        let written =
            || self.counts.done.load(Ordering::Acquire) >= self.counts.taken.load(Ordering::Acquire);
        while !written() && Instant::now() < deadline {
            thread::sleep(LOOK_EVERY);
        }
    }

    fn put(&self, line: &[u8]) {
        // Counted first: the writer may be done with it before this thread goes on.
        self.counts.taken.fetch_add(1, Ordering::AcqRel);
        if self.lines.try_send(line.to_vec()).is_err() {
            self.counts.done.fetch_add(1, Ordering::AcqRel);
            self.counts.lost.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl Write for &Outlet {
    /// Takes a whole line. Never fails and never waits.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.put(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Outlet {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

fn write_all(lines: Receiver<Vec<u8>>, mut out: impl Write, counts: &Counts) {
    for line in lines {
        let written = out.write_all(&line).and_then(|()| out.flush()).is_ok();
        if !written {
            counts.lost.fetch_add(1, Ordering::Relaxed);
        } else if let lost @ 1.. = counts.lost.swap(0, Ordering::Relaxed) {
            // It takes its place in the queue like any other, and may itself be lost.
            tracing::warn!(
                lost,
                "{lost} lines of the log were lost: they could not be written, or not in time"
            );
        }
        counts.done.fetch_add(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;
    use std::sync::mpsc::{Sender, channel};

    use super::*;

    /// Writes when it is allowed to, or fails.
    struct Gated {
        allowed: Receiver<bool>,
        seen: Arc<Mutex<Vec<u8>>>,
    }

    impl Write for Gated {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            match self.allowed.recv() {
                Ok(true) => {
                    self.seen.lock().unwrap().extend_from_slice(bytes);
                    Ok(bytes.len())
                }
                _ => Err(io::ErrorKind::StorageFull.into()),
            }
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn gated() -> (Outlet, Sender<bool>, Arc<Mutex<Vec<u8>>>) {
        let (allow, allowed) = channel();
        let seen = Arc::<Mutex<Vec<u8>>>::default();
        let outlet = Outlet::start(Gated { allowed, seen: seen.clone() }).unwrap();
        (outlet, allow, seen)
    }

    #[test]
    fn nobody_waits_for_a_reader_that_has_stopped() {
        let (outlet, allow, seen) = gated();
        // One is in the writer's hands, LINES_MAX wait, the rest is lost; what is tested is that this ends at all.
        for n in 0..LINES_MAX + 100 {
            (&outlet).write_all(format!("{n}\n").as_bytes()).unwrap();
        }
        let lost = outlet.counts.lost.load(Ordering::Relaxed);
        assert!((99..=100).contains(&lost), "{lost}");
        (0..=LINES_MAX).for_each(|_| allow.send(true).unwrap());
        outlet.flush(Duration::from_secs(30));
        let text = String::from_utf8(seen.lock().unwrap().clone()).unwrap();
        let kept = LINES_MAX + 100 - lost as usize;
        assert_eq!(
            text.lines().map(|line| line.parse::<usize>().unwrap()).collect::<Vec<_>>(),
            (0..kept).collect::<Vec<_>>()
        );
    }

    #[test]
    fn a_line_that_cannot_be_written_is_counted_and_the_next_one_is_written() {
        let (outlet, allow, seen) = gated();
        allow.send(false).unwrap();
        (&outlet).write_all(b"lost\n").unwrap();
        outlet.flush(Duration::from_secs(30));
        assert_eq!(outlet.counts.lost.load(Ordering::Relaxed), 1);
        allow.send(true).unwrap();
        (&outlet).write_all(b"kept\n").unwrap();
        outlet.flush(Duration::from_secs(30));
        assert_eq!(*seen.lock().unwrap(), b"kept\n");
        assert_eq!(outlet.counts.lost.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn flushing_gives_up_on_a_reader_that_has_stopped() {
        let (outlet, _allow, _) = gated();
        (&outlet).write_all(b"stuck\n").unwrap();
        outlet.flush(Duration::from_millis(5));
        assert_eq!(outlet.counts.done.load(Ordering::Relaxed), 0);
    }
}
