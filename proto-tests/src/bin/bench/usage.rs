//! What a process has cost so far, from /proc, and how many system calls it makes.

use std::fs;
use std::io::Read;
use std::process::{Command, Stdio};

use proto_tests::process::{Signal, send};

/// What a process has cost since its start.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Usage {
    /// Seconds on a CPU, user and system, all threads.
    pub(crate) cpu: f64,
    /// Context switches, voluntary or not.
    pub(crate) switches: f64,
    /// KiB resident at this moment.
    pub(crate) rss: f64,
}

impl Usage {
    /// Of a running process.
    pub(crate) fn of(pid: u32) -> Self {
        let mut usage = Self { rss: field(&read(pid, "status"), "VmRSS:"), ..Self::default() };
        for task in fs::read_dir(format!("/proc/{pid}/task")).expect("a running process").flatten() {
            // Nanoseconds on a CPU; `stat` would give hundredths of a second.
            let times = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
            let nanos: f64 = times.split(' ').next().and_then(|text| text.parse().ok()).unwrap_or(0.0);
            let status = fs::read_to_string(task.path().join("status")).unwrap_or_default();
            usage.cpu += nanos / 1e9;
            usage.switches +=
                field(&status, "voluntary_ctxt_switches:") + field(&status, "nonvoluntary_ctxt_switches:");
        }
        usage
    }

    /// What has been added to an earlier one.
    pub(crate) fn since(&self, before: &Self) -> Self {
        Self { cpu: self.cpu - before.cpu, switches: self.switches - before.switches, rss: self.rss }
    }
}

fn read(pid: u32, file: &str) -> String {
    fs::read_to_string(format!("/proc/{pid}/{file}")).expect("a running process")
}

fn field(text: &str, name: &str) -> f64 {
    let value = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
    value.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0.0)
}

/// System calls per operation of what `work` does, which says how many operations that was. None where the kernel or
/// its settings do not let perf(1) count; strace(1) could, but slows the process so much that it batches otherwise.
pub(crate) fn system_calls(pid: u32, work: impl FnOnce() -> f64) -> Option<f64> {
    let mut command = Command::new("perf");
    command.args(["stat", "-x", ",", "-e", "raw_syscalls:sys_enter", "-p", &pid.to_string()]);
    let mut perf = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().ok()?;
    // It says nothing when it has attached itself; a moment's load uncounted does not matter.
    std::thread::sleep(std::time::Duration::from_millis(150));
    let operations = work();
    send(perf.id(), Signal::INT);
    let mut text = String::new();
    perf.stderr.take()?.read_to_string(&mut text).ok()?;
    perf.wait().ok()?;
    let count: f64 = text.lines().find(|line| line.contains("sys_enter"))?.split(',').next()?.parse().ok()?;
    Some(count / operations)
}
