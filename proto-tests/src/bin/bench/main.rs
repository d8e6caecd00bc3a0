//! fusewire beside other proxies: the same load through each of them in turn, for several rounds, and the ratios.
//!
//! Started by `proto-tests/bench.sh`, which builds everything and installs the peers. The table of workloads is in
//! `rows`, what they run through in `peer`, who makes the load in `load`; `usage` reads what a process has cost and
//! `report` does the sums. `relay` and `forwarder` are two proxies of our own that understand nothing.
//!
//! Absent on purpose: assertions. A figure is no test; what must be reached is printed beside what was.

mod forwarder;
mod idle;
mod load;
mod peer;
mod relay;
mod report;
mod rows;
mod usage;

use std::path::{Path, PathBuf};
use std::time::Instant;

use peer::{Kind, Servers};
use report::{Measured, Report};
use rows::{ROWS, Row, Work};

const USAGE: &str = "bench.sh [--rounds N] [--seconds S] [--only ROW]... [--beside FILE]... [--quick] [--list]
  --rounds N     rounds of each row (default 5)
  --seconds S    about how long one measurement takes (default 1.1)
  --only ROW     only this row; may be repeated
  --peers A,B    only these peers, beside haproxy and fusewire
  --beside FILE  another build of fusewire (or a script that becomes one by exec) as one more peer; may be repeated
  --into FILE    put the table between the lines <!-- bench --> and <!-- /bench --> of this file
  --quick        2 rounds of 0.4 s: whether it runs, not how fast
  --list         the rows";

/// What was asked for.
struct Options {
    rounds: usize,
    seconds: f64,
    only: Vec<String>,
    peers: Option<Vec<String>>,
    beside: Vec<Kind>,
    json: PathBuf,
    into: Option<PathBuf>,
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let words: Vec<&str> = args.iter().map(String::as_str).collect();
    // The proxies of our own are this program, called by itself.
    match words[..] {
        ["relay", ref legs @ ..] => return relay::run(legs),
        ["forwarder", ref legs @ ..] => return forwarder::run(legs),
        ["--list"] => return ROWS.iter().for_each(|row| println!("{:<14} {}", row.name, row.title)),
        _ => {}
    }
    let options = options(&words).unwrap_or_else(|wrong| {
        eprintln!("error: {wrong}\n{USAGE}");
        std::process::exit(2)
    });
    let rows: Vec<&Row> = ROWS
        .iter()
        .filter(|row| options.only.is_empty() || options.only.iter().any(|only| row.name == only))
        .collect();
    let servers = Servers::start(&rows);
    let started = Instant::now();
    let mut report = Report::new(options.rounds, options.seconds);
    for row in rows {
        eprintln!("{:>4} s  {}", started.elapsed().as_secs(), row.title);
        report.add(row, measure(row, &servers, &options));
        eprint!("{}", report.last());
        // Whatever happens later, this much is known.
        std::fs::write(&options.json, report.json().to_string()).expect("the JSON file");
    }
    println!("{}", report.markdown());
    if let Some(file) = &options.into {
        put(&report.markdown(), file);
    }
    println!("JSON: {}", options.json.display());
    eprintln!("{} s", started.elapsed().as_secs());
}

fn options(words: &[&str]) -> Result<Options, String> {
    let json = proto_tests::tools::profile_dir().parent().expect("target/").join("bench.json");
    let mut options = Options {
        rounds: 5,
        seconds: 1.1,
        only: Vec::new(),
        peers: None,
        beside: Vec::new(),
        json,
        into: None,
    };
    let mut words = words.iter();
    while let Some(word) = words.next() {
        let mut value = || words.next().copied().ok_or(format!("{word} wants a value"));
        let number =
            |text: &str| text.parse::<f64>().ok().filter(|n| *n > 0.0).ok_or(format!("{text} is no number"));
        match *word {
            "--rounds" => options.rounds = number(value()?)?.max(1.0) as usize,
            "--seconds" => options.seconds = number(value()?)?,
            "--only" => options.only.push(value()?.to_owned()),
            "--peers" => options.peers = Some(value()?.split(',').map(str::to_owned).collect()),
            "--beside" => {
                // Kept until the program ends: peers are named by it everywhere.
                let path = PathBuf::from(value()?).canonicalize().map_err(|error| error.to_string())?;
                options.beside.push(Kind::Build(Box::leak(path.into_boxed_path())));
            }
            "--into" => options.into = Some(value()?.into()),
            "--quick" => (options.rounds, options.seconds) = (2, 0.4),
            other => return Err(format!("what is {other}?")),
        }
    }
    match options.only.iter().find(|only| !ROWS.iter().any(|row| row.name == **only)) {
        Some(only) => Err(format!("there is no row {only}; --list shows them")),
        None => Ok(options),
    }
}

/// Replaces what is between the two marks of a file.
fn put(table: &str, file: &Path) {
    let text = std::fs::read_to_string(file).expect("the file");
    let (before, rest) = text.split_once("<!-- bench -->").expect("<!-- bench --> in the file");
    let (_, after) = rest.split_once("<!-- /bench -->").expect("<!-- /bench --> in the file");
    let text = format!("{before}<!-- bench -->\n{table}<!-- /bench -->{after}");
    std::fs::write(file, text).expect("the file");
}

/// Every round of a row: one measurement through each peer, another peer first each time.
fn measure(row: &Row, servers: &Servers, options: &Options) -> Vec<Measured> {
    let wanted = |kind: &Kind| match (&options.peers, kind) {
        (None, _) | (_, Kind::Haproxy | Kind::Fusewire) => true,
        (Some(peers), _) => peers.iter().any(|peer| peer == kind.name()),
    };
    let mut kinds: Vec<Kind> = row.peers.iter().copied().filter(Kind::is_installed).filter(wanted).collect();
    kinds.extend(&options.beside);
    if let Work::Idle { clients } = row.work {
        return kinds.into_iter().map(|kind| idle::measure(kind, servers, clients)).collect();
    }
    let peers: Vec<_> = kinds.iter().map(|kind| kind.start(servers, row)).collect();
    let mut measured: Vec<Measured> = kinds.iter().map(|kind| Measured::of(*kind)).collect();
    // The first run through each warms it up, and shows how many operations make a measurement.
    let run = |at: usize, amount| row.work.run(kinds[at], peers[at].addr(row.work.protocol()), amount);
    let pilots = (0..peers.len()).map(|at| run(at, row.work.pilot()).rate);
    let slowest = pilots.collect::<Vec<_>>().into_iter().fold(f64::INFINITY, f64::min);
    let amount = row.work.amount(slowest * options.seconds);
    for round in 0..row.work.rounds(options.rounds) {
        for turn in 0..peers.len() {
            let at = (round + turn) % peers.len();
            let before = peers[at].usage();
            let done = run(at, amount);
            measured[at]
                .add(&done, before.zip(peers[at].usage()).map(|(before, after)| after.since(&before)));
        }
    }
    for (at, (peer, measured)) in peers.iter().zip(&mut measured).enumerate() {
        measured.rss = peer.usage().map(|usage| usage.rss);
        measured.calls = peer.pid().and_then(|pid| {
            let some = row.work.amount(slowest * options.seconds.min(0.3));
            usage::system_calls(pid, || run(at, some).operations)
        });
    }
    measured
}
