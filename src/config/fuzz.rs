//! What the fuzzer does to the configuration: whatever is written is settled or refused in one line a mistake, and what
//! is settled is read again as the same when it is written back.

use std::path::Path;

use super::effective::settings;
use super::file::File;
use super::raw::{self, Env, Layer, Speaks};
use super::resolve::{Sources, resolve};
use super::{Backend, Error, Loaded};

/// A file's text.
pub(crate) fn file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    settle(read(text));
}

/// Specs, one a line: of Redis and of Postgres backends by turns, then of the environment's.
pub(crate) fn specs(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let mut problems = Vec::new();
    let mut specs = Vec::new();
    for (at, line) in text.lines().enumerate() {
        let speaks = if at % 2 == 0 { Speaks::Redis } else { Speaks::Postgres };
        specs.push(raw::spec("--spec", at + 1, speaks, line, &mut problems));
    }
    let env = Env::from([(raw::REDIS_VARIABLE.to_owned(), text.to_owned())]);
    let env_specs = raw::specs(raw::REDIS_VARIABLE, Speaks::Redis, &env, &mut problems);
    for (specs, env_specs) in [(specs, Vec::new()), (Vec::new(), env_specs)] {
        let (flags, env, file) = (Layer::new(), Layer::new(), File::default());
        settle(resolve(&Sources { specs, env_specs, flags, env, file }, problems.clone()));
    }
}

fn read(text: &str) -> Result<Loaded, Vec<Error>> {
    let mut problems = Vec::new();
    let file = File::parse(Path::new("f.toml"), text, &mut problems);
    resolve(&Sources { file, ..Sources::default() }, problems)
}

fn settle(outcome: Result<Loaded, Vec<Error>>) {
    let loaded = match outcome {
        Ok(loaded) => loaded,
        Err(problems) => {
            assert!(!problems.is_empty(), "refused without a reason");
            for problem in problems.iter().map(ToString::to_string) {
                assert_eq!(problem.lines().count(), 1, "{problem:?}");
                assert!(!problem.contains(|c: char| c.is_control()), "{problem:?}");
            }
            return;
        }
    };
    assert!(!loaded.config.backends.is_empty());
    for backend in &loaded.config.backends {
        let text = written(backend);
        // JSON need not escape it, TOML must.
        if text.contains('\u{7f}') {
            continue;
        }
        match read(&text) {
            Ok(again) => assert_eq!(again.config.backends, std::slice::from_ref(backend), "{text}"),
            Err(problems) => panic!("{problems:?}\n{text}"),
        }
    }
}

/// As a `[[backend]]` table: strings, numbers and arrays are written in TOML as in JSON.
fn written(backend: &Backend) -> String {
    let lines = settings(backend).into_iter().map(|(key, value)| format!("{key} = {value}\n"));
    format!("[[backend]]\nprotocol = \"{}\"\n{}", backend.protocol.label(), lines.collect::<String>())
}
