//! Hours of mixed load with a fault a minute, and figures that must stay flat.
//!
//! ```text
//! soak [DURATION] [--every DURATION] [--pace DURATION] [--seed N]
//! ```
//!
//! One hour by default. The checkers of `chaos` are the load; each rests for `--pace` (50 ms) after what it has done, because
//! a soak is about time and faults. A fault is due every minute by the clock, counted from the start: one that comes late, because
//! the recovery from the one before or the machine took so long, does not put off those after it.
//! What fusewire takes is looked at before each fault. At the end, when all clients are gone, it must hold no connection, no
//! more descriptors and tasks than before the first client, and no more memory than the early minutes took, with a margin of a
//! tenth and 4 MiB: a leak of 100 bytes a request or of one connection a fault would show.

use std::io::{self, Write};
use std::process::ExitCode;
use std::thread;
use std::time::{Duration, Instant};

use proto_tests::chaos::sample::Sample;
use proto_tests::chaos::stage::Stage;
use proto_tests::tools::duration;
use proto_tests::until::{check, eventually};

/// How long a fault lasts, if it is one that lasts.
const SPAN: Duration = Duration::from_secs(2);
/// A fault that comes later than so is late.
const PUNCTUAL: Duration = Duration::from_secs(1);

#[derive(Debug)]
struct Options {
    lasting: Duration,
    every: Duration,
    pace: Duration,
    seed: u64,
}

fn options() -> Result<Options, String> {
    let mut options = Options {
        lasting: Duration::from_secs(3600),
        every: Duration::from_secs(60),
        pace: Duration::from_millis(50),
        seed: 1,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} has no value"));
        match arg.as_str() {
            "--every" => options.every = duration(&value()?)?,
            "--pace" => options.pace = duration(&value()?)?,
            "--seed" => options.seed = value()?.parse().map_err(|_| "--seed takes a number".to_owned())?,
            text => options.lasting = duration(text)?,
        }
    }
    if options.every.is_zero() { Err("--every is longer than nothing".to_owned()) } else { Ok(options) }
}

/// The least, the one in the middle, the most.
fn spread(mut figures: Vec<u64>) -> String {
    figures.sort_unstable();
    let at = |share: usize| figures.get(share * figures.len().saturating_sub(1) / 2).copied().unwrap_or(0);
    format!("{} / {} / {}", at(0), at(1), at(2))
}

/// What the faults were like.
#[derive(Debug, Default)]
struct Faults {
    count: usize,
    late: usize,
    latest: Duration,
    /// From the cure until every checker had got answers again.
    recoveries: Vec<Duration>,
}

/// A fault, and the recovery from it.
fn play(stage: &mut Stage, late: Duration, faults: &mut Faults) {
    let fault = stage.next_fault();
    print!("  {}", fault.name);
    io::stdout().flush().ok();
    faults.count += 1;
    faults.late += usize::from(late > PUNCTUAL);
    faults.latest = faults.latest.max(late);
    let begun = Instant::now();
    fault.happen(stage, SPAN);
    let cured = Instant::now();
    stage.await_progress();
    let recovery = cured.elapsed();
    faults.recoveries.push(recovery);
    stage.audit();
    println!(
        ": {:.1} s late, {:.1} s long, recovered in {:.2} s, audited in {:.1} s",
        late.as_secs_f64(),
        (cured - begun).as_secs_f64(),
        recovery.as_secs_f64(),
        (cured.elapsed() - recovery).as_secs_f64()
    );
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(mistake) => {
            eprintln!("soak: {mistake}; soak [1h] [--every 60s] [--pace 50ms] [--seed N]");
            return ExitCode::from(2);
        }
    };
    let mut stage = Stage::start(options.seed, options.pace);
    stage.await_progress();
    let fresh = stage.fresh;
    let (start, mut faults, mut samples) = (Instant::now(), Faults::default(), Vec::new());
    let (mut due, before) = (options.every, Sample::take(&stage.proxy));
    while due <= options.lasting {
        thread::sleep(due.saturating_sub(start.elapsed()));
        let late = start.elapsed() - due;
        let sample = Sample::take(&stage.proxy);
        samples.push(sample);
        print!(
            "{:>5.0} s {:>6} KiB {:>3} descriptors {:>3} tasks {:>3} clients {:>3} servers {:>2} in flight",
            start.elapsed().as_secs_f64(),
            sample.rss >> 10,
            sample.descriptors,
            sample.tasks,
            sample.clients,
            sample.servers,
            sample.in_flight
        );
        play(&mut stage, late, &mut faults);
        due += options.every;
    }
    let (lasted, after) = (start.elapsed(), Sample::take(&stage.proxy));
    stage.finish();
    eventually("every connection to end", || {
        let sample = Sample::take(&stage.proxy);
        let gone = sample.clients == 0 && sample.servers == 0 && sample.in_flight == 0;
        check(gone && sample.descriptors <= fresh.descriptors && sample.tasks <= fresh.tasks, (sample, fresh))
    });
    let last = Sample::take(&stage.proxy);
    println!("{}", stage.judge);
    let Faults { count, late, latest, mut recoveries } = faults;
    recoveries.sort_unstable();
    println!(
        "{count} faults in {:.1} minutes, {late} of them late, the latest by {:.1} s; recovery in {:.2} s as a rule, {:.2} s at most",
        lasted.as_secs_f64() / 60.0,
        latest.as_secs_f64(),
        recoveries.get(recoveries.len() / 2).map_or(0.0, Duration::as_secs_f64),
        recoveries.last().map_or(0.0, Duration::as_secs_f64)
    );
    println!(
        "fusewire used {:.1}% of a processor; descriptors, tasks, KiB of memory:",
        (after.cpu - before.cpu) / lasted.as_secs_f64() * 100.0
    );
    let (quarter, mut most) = (samples.len().div_ceil(4).max(1), Vec::new());
    // The first minutes are for allocators and tables to find their size.
    for (number, quarter) in samples.chunks(quarter).enumerate() {
        let of = |figure: fn(&Sample) -> u64| spread(quarter.iter().map(figure).collect());
        println!(
            "  part {} of the time: {}, {}, {} (least / median / most)",
            number + 1,
            of(|sample| sample.descriptors),
            of(|sample| sample.tasks),
            of(|sample| sample.rss >> 10)
        );
        most.push(quarter.iter().map(|sample| sample.rss).max().unwrap_or(0));
    }
    for (when, sample) in [("before the first client", fresh), ("after the last", last)] {
        println!("  {when}: {}, {}, {}", sample.descriptors, sample.tasks, sample.rss >> 10);
    }
    let mut faulty = stage.judge.violations();
    let early = most.first().copied().unwrap_or(0);
    let late = most.last().copied().unwrap_or(0).max(last.rss);
    if late > early + early / 10 + (4 << 20) {
        faulty.push(format!("memory has grown from {} to {} KiB", early >> 10, late >> 10));
    }
    faulty.iter().for_each(|what| println!("BROKEN: {what}"));
    if faulty.is_empty() {
        println!("flat, and every promise was kept");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
