//! The hot paths in instructions, which do not depend on how busy the machine is: run by `proto-tests/instructions.sh`
//! under valgrind, once for each path with no runs and once with many. The difference is what the runs took.

mod hot;

fn main() {
    let args: Vec<String> = std::env::args().skip(1).filter(|arg| !arg.starts_with("--")).collect();
    match &args[..] {
        [name, runs] => {
            let runs: u64 = runs.parse().expect("a number of runs");
            let path = hot::paths().into_iter().find(|path| path.name == name);
            let mut run = path.expect("a path").run;
            // What is allocated at first and kept is no part of the hot path.
            (0..16).for_each(|_| run());
            (0..runs).for_each(|_| run());
        }
        // One line each: the name, calls in a run, runs that are worth counting.
        _ => hot::paths().iter().for_each(|path| {
            let runs = (2_000_000 / (path.bytes + 200 * path.calls)).clamp(8, 2_000);
            println!("{} {} {runs}", path.name, path.calls);
        }),
    }
}
