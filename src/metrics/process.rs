//! What the operating system knows about this process, under the names that every Prometheus client uses.
//!
//! Read from `/proc`; elsewhere than on Linux, and where `/proc` is not mounted, there is nothing to show.

/// Figures of the process; each is none where it cannot be had.
#[derive(Debug, Default, Clone, Copy)]
pub(super) struct Process {
    /// Unix time of its start.
    pub(super) start_seconds: Option<f64>,
    /// User and system time.
    pub(super) cpu_seconds: Option<f64>,
    /// Resident set.
    pub(super) resident_bytes: Option<u64>,
    /// Open descriptors.
    pub(super) open_fds: Option<usize>,
    /// Soft limit of descriptors; infinite without a limit.
    pub(super) max_fds: Option<f64>,
}

impl Process {
    #[cfg(not(target_os = "linux"))]
    pub(super) fn read() -> Self {
        Self::default()
    }

    #[cfg(target_os = "linux")]
    pub(super) fn read() -> Self {
        use procfs::process::{LimitValue, Process};
        let Ok(process) = Process::myself() else { return Self::default() };
        let stat = process.stat().ok();
        let stat = stat.as_ref();
        let ticks = procfs::ticks_per_second() as f64;
        Self {
            start_seconds: stat.and_then(|stat| start(stat.starttime as f64 / ticks)),
            cpu_seconds: stat.map(|stat| (stat.utime + stat.stime) as f64 / ticks),
            resident_bytes: stat.map(|stat| stat.rss.saturating_mul(procfs::page_size())),
            open_fds: process.fd_count().ok(),
            max_fds: process.limits().ok().map(|limits| match limits.max_open_files.soft_limit {
                LimitValue::Value(limit) => limit as f64,
                LimitValue::Unlimited => f64::INFINITY,
            }),
        }
    }
}

/// The start, found once: the kernel's boot time moves whenever the wall clock is set, and a start time that
/// moves reads like a restart.
#[cfg(target_os = "linux")]
fn start(seconds_after_boot: f64) -> Option<f64> {
    static START: std::sync::OnceLock<Option<f64>> = std::sync::OnceLock::new();
    *START.get_or_init(|| procfs::boot_time_secs().ok().map(|boot| boot as f64 + seconds_after_boot))
}
