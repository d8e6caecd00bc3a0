//! Lets every fault happen to real servers while checkers work through fusewire, and says which promises broke.
//!
//! ```text
//! chaos [--for DURATION] [--seed N] [--span DURATION] [--only NAME] [--brief] [--sabotage]
//! ```
//!
//! The faults follow one another for that long (30 s), at least once around; each lasts for `--span` (1 s). The seed decides
//! on requests and faults. `--only` takes those with this in their name, `--brief` leaves out what takes long. `--sabotage`
//! damages the servers behind the checkers' backs instead, which must be seen.
//! proto-tests/chaos.sh runs it in a network namespace, where a network can be cut as well.

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime};

use proto_tests::chaos::judge::Figure;
use proto_tests::chaos::stage::Stage;
use proto_tests::tools::duration;

/// Between two things that a client does, so that the servers and not the processors are what is tried.
const PACE: Duration = Duration::from_millis(2);

/// Broken promises that are shown: the first ones say what is wrong. After sabotage all are, because each kind counts.
const SHOWN: usize = 100;

struct Options {
    lasting: Duration,
    seed: u64,
    span: Duration,
    only: Option<String>,
    brief: bool,
    sabotage: bool,
}

fn options() -> Result<Options, String> {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    let mut options = Options {
        lasting: Duration::from_secs(30),
        seed: now.as_secs(),
        span: Duration::from_secs(1),
        only: None,
        brief: false,
        sabotage: false,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or(format!("{arg} has no value"));
        match arg.as_str() {
            "--for" => options.lasting = duration(&value()?)?,
            "--span" => options.span = duration(&value()?)?,
            "--seed" => options.seed = value()?.parse().map_err(|_| "--seed takes a number".to_owned())?,
            "--only" => options.only = Some(value()?),
            "--brief" => options.brief = true,
            "--sabotage" => options.sabotage = true,
            _ => return Err(format!("unknown: {arg}")),
        }
    }
    Ok(options)
}

fn main() -> ExitCode {
    let options = match options() {
        Ok(options) => options,
        Err(mistake) => {
            eprintln!(
                "chaos: {mistake}; chaos [--for 30s] [--span 1s] [--seed N] [--only NAME] [--brief] [--sabotage]"
            );
            return ExitCode::from(2);
        }
    };
    println!("seed {} (repeat with --seed {0})", options.seed);
    let mut stage = Stage::start(options.seed, PACE);
    if stage.disk.is_none() {
        println!("NOT ROOT: a full disk is played by killing Redis");
    }
    if stage.island.is_none() {
        println!("NO NETWORK NAMESPACE of its own: no network is cut; use proto-tests/chaos.sh, as root");
    }
    if let Some(name) = &options.only {
        stage.only(name);
    }
    if options.brief {
        stage.brief();
    }
    stage.await_progress();
    if options.sabotage {
        // Enough for something of every kind to have been acknowledged, and confirmed by the replica.
        stage.await_answers(200);
        stage.await_increment();
        stage.finish_after_sabotage();
    } else {
        let (start, mut faults) = (Instant::now(), 0);
        while start.elapsed() < options.lasting || faults < stage.kinds() {
            let fault = stage.next_fault();
            println!("{:>6.1} s  {}", start.elapsed().as_secs_f64(), fault.name);
            fault.happen(&mut stage, options.span);
            stage.await_progress();
            faults += 1;
            if faults % 3 == 0 {
                stage.audit();
                if !stage.judge.violations().is_empty() {
                    println!("a promise is broken");
                    break;
                }
            }
        }
        stage.finish();
        println!("{faults} faults in {:.0} s", start.elapsed().as_secs_f64());
    }
    println!("{}", stage.judge);
    for backend in ["cache", "pair", "db", "bank"] {
        let trips = stage.proxy.metric("circuit_breaker_trips_total", &[("backend", backend)]);
        println!("'{backend}' tripped {trips} times");
    }
    let worked =
        stage.judge.figure(Figure::RedisWrites) > 0 && stage.judge.figure(Figure::PostgresCommits) > 0;
    let violations = stage.judge.violations();
    let shown = if options.sabotage { violations.len() } else { SHOWN };
    violations.iter().take(shown).for_each(|violation| println!("BROKEN: {violation}"));
    if worked && violations.is_empty() {
        println!("every promise was kept");
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
