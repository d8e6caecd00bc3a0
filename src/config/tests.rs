mod patch;

use std::path::Path;
use std::time::Duration;

use clap::{CommandFactory, Parser};
use proptest::prelude::*;

use super::args::{Cli, Command};
use super::raw::Env;
use super::settings::{Group, Preset, SETTINGS, Scope, Setting, nearest};
use super::*;
use crate::breaker::{Factor, Mode, Rates, Share, Span};

/// A configuration file that exists for the length of a test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(text: &str) -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let nth = NEXT.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("fusewire-config-{}-{nth}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }

    fn path(&self) -> &str {
        self.0.to_str().unwrap()
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn inputs(args: &[&str]) -> Inputs {
    match Cli::try_parse_from(["fusewire"].iter().chain(args)).unwrap().into_command() {
        Command::Run(inputs) | Command::Check(inputs) => inputs,
        _ => panic!("no inputs in {args:?}"),
    }
}

fn env(variables: &[(&str, &str)]) -> Env {
    variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect()
}

fn load_from(args: &[&str], variables: &[(&str, &str)], file: Option<&str>) -> Result<Loaded, Vec<String>> {
    let file = file.map(TempFile::new);
    let mut args = args.to_vec();
    if let Some(file) = &file {
        args.extend(["--config", file.path()]);
    }
    load_all(&inputs(&args), &env(variables)).map_err(|problems| {
        let shown = |text: String| match &file {
            Some(file) => text.replace(file.path(), "f.toml"),
            None => text,
        };
        problems.iter().map(|problem| shown(problem.to_string())).collect()
    })
}

fn loaded(args: &[&str]) -> Config {
    load_from(args, &[], None).unwrap().config
}

fn problems(args: &[&str]) -> Vec<String> {
    load_from(args, &[], None).unwrap_err()
}

fn file_problems(text: &str) -> Vec<String> {
    load_from(&[], &[], Some(text)).unwrap_err()
}

#[test]
fn the_defaults_are_those_of_the_contract() {
    let config = loaded(&["--redis", "upstream=10.0.0.5:6379", "--postgres", "upstream=db.internal:5432"]);
    let [redis, postgres] = config.backends.as_slice() else { panic!("{config:?}") };
    assert_eq!((&*redis.name, &*postgres.name), ("redis", "postgres"));
    assert_eq!(redis.listen.to_string(), "127.0.0.1:6380");
    assert_eq!(postgres.listen.to_string(), "127.0.0.1:6432");
    assert_eq!(redis.upstream.to_string(), "10.0.0.5:6379");
    assert_eq!(redis.breaker, Policy::default());
    let seconds = Duration::from_secs;
    let timeouts = Timeouts {
        connect: seconds(3),
        response: Some(seconds(30)),
        handshake: seconds(30),
        tcp_user: seconds(30),
        keepalive: seconds(30),
    };
    assert_eq!(redis.timeouts, timeouts);
    assert_eq!(postgres.timeouts, Timeouts { response: None, ..timeouts });
    let verdicts = Overrides::default();
    assert_eq!(redis.protocol, Protocol::Redis(Redis::default()));
    let expected = Protocol::Postgres(Postgres {
        reject_connect_code: SqlState::CANNOT_CONNECT_NOW,
        reject_query_code: SqlState::OPERATOR_INTERVENTION,
        check_user: "fusewire_check".into(),
        answer_empty_queries: false,
        verdicts,
    });
    assert_eq!(postgres.protocol, expected);
    assert_eq!(config.admin.unwrap().to_string(), "127.0.0.1:9900");
    assert_eq!(config.drain_timeout, seconds(30));
    assert!(config.workers >= 1);
}

#[test]
fn every_default_can_be_read_as_its_own_setting() {
    use super::raw::Written;
    for setting in SETTINGS {
        let texts = match setting.preset {
            Preset::Same(text) => vec![text],
            Preset::Each { redis, postgres } => vec![redis, postgres],
            Preset::Required | Preset::Processors => vec![],
        };
        for text in texts {
            let value = super::value::read(setting, &Written::One(text.to_owned()), None);
            assert!(value.is_ok(), "{}: {text}: {value:?}", setting.name);
        }
    }
}

/// Each row: a setting, five values by nearness (spec, flag, environment, file, default), and how to see it.
type Row = (&'static str, [&'static str; 5], fn(&Config) -> String);

const PRECEDENCE: [Row; 5] = [
    ("failure_threshold", ["11", "12", "13", "14", "5"], |c| {
        c.backends[0].breaker.failure_threshold.map_or("off".to_owned(), |n| n.to_string())
    }),
    ("recovery_timeout", ["11s", "12s", "13s", "14s", "30s"], |c| {
        format!("{}s", c.backends[0].breaker.recovery_timeout.as_secs())
    }),
    ("response_timeout", ["11s", "off", "13s", "off", "30s"], |c| match c.backends[0].timeouts.response {
        Some(timeout) => format!("{}s", timeout.as_secs()),
        None => "off".to_owned(),
    }),
    ("reject_code", ["SPEC", "FLAG", "ENV", "FILE", "CIRCUITOPEN"], |c| match &c.backends[0].protocol {
        Protocol::Redis(redis) => redis.reject_code.to_string(),
        Protocol::Postgres(_) => panic!("not Redis"),
    }),
    ("ignored_errors", ["SPEC", "FLAG", "ENV", "FILE", ""], |c| match &c.backends[0].protocol {
        Protocol::Redis(redis) => redis.verdicts.ignored.join("+"),
        Protocol::Postgres(_) => panic!("not Redis"),
    }),
];

#[test]
fn the_nearest_word_wins() {
    for (name, values, see) in PRECEDENCE {
        let setting = Setting::find(name).unwrap();
        for nearest in 0..5 {
            let (mut spec, mut args) = ("upstream=h:1".to_owned(), Vec::new());
            let (flag, variable) = (format!("--{}", setting.dashed()), setting.variable());
            let (mut variables, mut file) = (Vec::new(), None);
            if nearest == 0 {
                spec = format!("{spec},{}={}", setting.dashed(), values[0]);
            }
            if nearest <= 1 {
                args.extend([flag.as_str(), values[1]]);
            }
            if nearest <= 2 {
                variables.push((variable.as_str(), values[2]));
            }
            if nearest <= 3 {
                let quote = if name == "failure_threshold" { "" } else { "\"" };
                file = Some(format!("[defaults]\n{name} = {quote}{}{quote}", values[3]));
            }
            args.extend(["--redis", spec.as_str()]);
            let config = load_from(&args, &variables, file.as_deref()).unwrap().config;
            assert_eq!(see(&config), values[nearest], "{name}, nearest source {nearest}");
        }
    }
}

#[test]
fn a_backend_table_is_nearer_than_the_defaults_and_farther_than_flag_and_environment() {
    let file = "[defaults]\nprobes = 2\n[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\n[backend.breaker]\nprobes = 3";
    let probes = |args: &[&str], variables: &[(&str, &str)]| {
        load_from(args, variables, Some(file)).unwrap().config.backends[0].breaker.probes
    };
    assert_eq!(probes(&[], &[]), 3);
    assert_eq!(probes(&[], &[("FUSEWIRE_PROBES", "4")]), 4);
    assert_eq!(probes(&["--probes", "5"], &[("FUSEWIRE_PROBES", "4")]), 5);
}

#[test]
fn a_spec_overrides_the_backend_table_of_its_name() {
    let file =
        "[[backend]]\nprotocol = 'redis'\nname = 'cache'\nupstream = 'h:1'\nprobes = 3\nkeepalive = '7s'";
    let args = ["--redis", "name=cache,probes=9"];
    let variables = [("FUSEWIRE_REDIS", "name=cache,upstream=env:2,probes=8")];
    let config = load_from(&args, &variables, Some(file)).unwrap().config;
    assert_eq!(config.backends.len(), 1);
    let cache = &config.backends[0];
    assert_eq!(cache.breaker.probes, 9);
    assert_eq!(cache.upstream.to_string(), "env:2");
    assert_eq!(cache.timeouts.keepalive, Duration::from_secs(7));
    let clash = load_from(&["--postgres", "name=cache,upstream=h:2"], &[], Some(file)).unwrap_err();
    assert_eq!(
        clash,
        [r#"f.toml:1: name: another backend is named "cache" as well; give each its own name=..."#]
    );
}

#[test]
fn settings_of_the_process_follow_the_same_order() {
    let file = "admin = { listen = '127.0.0.1:1' }\ndrain_timeout = '4s'\nworkers = 4\nlog_format = 'json'\n";
    let of = |args: &[&str], variables: &[(&str, &str)]| {
        let all: Vec<&str> = ["--redis", "upstream=h:1"].iter().chain(args).copied().collect();
        let loaded = load_from(&all, variables, Some(file)).unwrap();
        let admin = loaded.config.admin.map_or("off".to_owned(), |admin| admin.to_string());
        (admin, loaded.config.workers, loaded.config.drain_timeout.as_secs(), loaded.log.format)
    };
    assert_eq!(of(&[], &[]), ("127.0.0.1:1".to_owned(), 4, 4, LogFormat::Json));
    let variables =
        [("FUSEWIRE_ADMIN", "[::1]:2"), ("FUSEWIRE_WORKERS", "3"), ("FUSEWIRE_LOG_FORMAT", "text")];
    assert_eq!(of(&[], &variables), ("[::1]:2".to_owned(), 3, 4, LogFormat::Text));
    let args = ["--admin", "off", "--workers", "2", "--drain-timeout", "0s"];
    assert_eq!(of(&args, &variables), ("off".to_owned(), 2, 0, LogFormat::Text));
}

#[test]
fn specs_in_the_environment_are_separated_by_semicolons_or_white_space() {
    let variables = [
        (
            "FUSEWIRE_REDIS",
            "name=a,upstream=h:1,listen=h:2;name=b,upstream=h:1,listen=h:3\n name=c,upstream=h:1",
        ),
        ("FUSEWIRE_POSTGRES", "upstream=h:1"),
        ("FUSEWIRE_ADMIN", ""),
    ];
    let config = load_from(&[], &variables, None).unwrap().config;
    let names: Vec<&str> = config.backends.iter().map(|backend| &*backend.name).collect();
    assert_eq!(names, ["a", "b", "c", "postgres"]);
    assert!(config.admin.is_some(), "an empty variable counts as unset");
}

#[test]
fn run_is_the_default_subcommand() {
    let args = ["--redis", "upstream=h:1", "--probes", "2"];
    let with_run: Vec<&str> = ["run"].iter().chain(&args).copied().collect();
    assert_eq!(inputs(&args), inputs(&with_run));
    let cli = Cli::try_parse_from(["fusewire", "check", "-c", "f.toml"]).unwrap();
    assert!(matches!(cli.into_command(), Command::Check(inputs) if inputs.config.is_some()));
}

#[test]
fn codes_are_lists_with_the_nearer_list_winning_over_the_farther() {
    let config = loaded(&[
        "--redis",
        "upstream=h:1,failure-errors=READONLY+OOM|BUSY",
        "--postgres",
        "upstream=h:1,ignored_errors=53",
        "--ignored-errors",
        "READONLY+25006+TRYAGAIN",
    ]);
    let list = |codes: &[Arc<str>]| codes.join(" ");
    let Protocol::Redis(redis) = &config.backends[0].protocol else { panic!() };
    assert_eq!(list(&redis.verdicts.failure), "READONLY OOM BUSY");
    assert_eq!(list(&redis.verdicts.ignored), "25006 TRYAGAIN");
    let Protocol::Postgres(postgres) = &config.backends[1].protocol else { panic!() };
    assert_eq!(list(&postgres.verdicts.ignored), "53");
    let config = loaded(&["--postgres", "upstream=h:1", "--ignored-errors", "READONLY+25006+TRYAGAIN"]);
    let Protocol::Postgres(postgres) = &config.backends[0].protocol else { panic!() };
    assert_eq!(list(&postgres.verdicts.ignored), "25006", "a Redis code is not for Postgres");
}

/// A command line and the one line that it must yield.
const REFUSED: [(&[&str], &str); 60] = [
    (
        &[],
        "configuration: no backend; give --redis upstream=HOST:PORT, --postgres upstream=HOST:PORT or --config FILE",
    ),
    (&["--redis", "name=cache"], "--redis name=cache: upstream: it is required"),
    (&["--redis", ""], "--redis #1: upstream: it is required"),
    (
        &["--redis", "upstream=h:1,failure-treshold=3"],
        "--redis #1: failure-treshold: unknown key; did you mean failure-threshold?",
    ),
    (
        &["--redis", "upstream=h:1,conect_timeout=3s"],
        "--redis #1: conect_timeout: unknown key; did you mean connect-timeout?",
    ),
    (
        &["--redis", "upstream=h:1,reject-query-code=57000"],
        "--redis #1: reject-query-code: it is a setting of postgres backends",
    ),
    (
        &["--postgres", "upstream=h:1,reject-code=NO"],
        "--postgres #1: reject-code: it is a setting of redis backends",
    ),
    (
        &["--redis", "upstream=h:1,admin=off"],
        "--redis #1: admin: it belongs on the command line, in the environment or at the top of the file",
    ),
    (&["--redis", "upstream=h:1,probes=1,probes=2"], "--redis #1: probes: it is given twice"),
    (
        &["--redis", "upstream=h:1,probe-timeout=1s,probe_timeout=2s"],
        "--redis #1: probe_timeout: it is given twice",
    ),
    (&["--redis", "upstream=h:1,probes="], "--redis #1: probes: it has no value"),
    (
        &["--redis", "10.0.0.5:6379,upstream=h:1"],
        "--redis #1: \"10.0.0.5:6379\" is not key=value; an address is written upstream=host:port",
    ),
    (
        &["--redis", "upstream=h:1", "--recovery-timeout", "30"],
        "--recovery-timeout: 30 has no unit; write 30s or 30ms",
    ),
    (
        &["--redis", "upstream=h:1,recovery-timeout=1.5"],
        "--redis #1: recovery-timeout: 1.5 has no unit; write 1.5s or 1.5ms",
    ),
    (
        &["--redis", "upstream=h:1", "--recovery-timeout", "soon"],
        "--recovery-timeout: \"soon\" is not a duration such as 250ms, 30s or 1m30s",
    ),
    (
        &["--redis", "upstream=h:1", "--recovery-timeout=-5s"],
        "--recovery-timeout: \"-5s\" is not a duration such as 250ms, 30s or 1m30s",
    ),
    (
        &["--redis", "upstream=h:1", "--recovery-timeout", "0s"],
        "--recovery-timeout: \"0s\" is out of range: 1ms to 7days",
    ),
    (
        &["--redis", "upstream=h:1", "--recovery-timeout", "30M"],
        "--recovery-timeout: \"30M\" is out of range: 1ms to 7days",
    ),
    (
        &["--redis", "upstream=h:1", "--recovery-timeout", "off"],
        "--recovery-timeout: \"off\" is not a duration such as 250ms, 30s or 1m30s",
    ),
    (
        &["--redis", "upstream=h:1", "--keepalive", "500ms"],
        "--keepalive: \"500ms\" is out of range: 1s to 9h",
    ),
    (
        &["--redis", "upstream=h:1", "--failure-threshold", "0"],
        "--failure-threshold: \"0\" is out of range: 1 to 1000000, or off",
    ),
    (
        &["--redis", "upstream=h:1", "--failure-threshold", "-1"],
        "--failure-threshold: \"-1\" is out of range: 1 to 1000000, or off",
    ),
    (
        &["--redis", "upstream=h:1", "--failure-threshold", "99999999999"],
        "--failure-threshold: \"99999999999\" is out of range: 1 to 1000000, or off",
    ),
    (
        &["--redis", "upstream=h:1", "--failure-threshold", "five"],
        "--failure-threshold: \"five\" is not a whole number",
    ),
    (&["--redis", "upstream=h:1", "--mode", "on"], "--mode: \"on\" is not one of enforce, observe, disabled"),
    (
        &["--redis", "upstream=h:1,failure-rate=0"],
        "--redis #1: failure-rate: \"0\" is out of range: above 0 up to 1, above 0% up to 100%, or off",
    ),
    (
        &["--redis", "upstream=h:1", "--failure-rate", "50"],
        "--failure-rate: \"50\" is out of range: above 0 up to 1, above 0% up to 100%, or off",
    ),
    (
        &["--redis", "upstream=h:1", "--failure-rate", "100.1%"],
        "--failure-rate: \"100.1%\" is out of range: above 0 up to 1, above 0% up to 100%, or off",
    ),
    (
        &["--redis", "upstream=h:1", "--slow-call-rate", "half"],
        "--slow-call-rate: \"half\" is not a share such as 0.5 or 50%",
    ),
    (
        &["--redis", "upstream=h:1", "--slow-call-rate", "-0.5"],
        "--slow-call-rate: \"-0.5\" is not a share such as 0.5 or 50%",
    ),
    (
        &["--redis", "upstream=h:1", "--recovery-jitter", "off"],
        "--recovery-jitter: \"off\" is not a share such as 0.5 or 50%",
    ),
    (&["--redis", "upstream=h:1", "--window", "100"], "--window: 100 has no unit; write 100calls or 100s"),
    (
        &["--redis", "upstream=h:1", "--window", "0calls"],
        "--window: \"0calls\" is out of range: 1call to 100000calls, or 100ms to 1h",
    ),
    (
        &["--redis", "upstream=h:1", "--window", "2h"],
        "--window: \"2h\" is out of range: 1call to 100000calls, or 100ms to 1h",
    ),
    (
        &["--redis", "upstream=h:1", "--window", "many calls"],
        "--window: \"many calls\" is not a window such as 100calls or 10s",
    ),
    (
        &["--redis", "upstream=h:1", "--recovery-backoff", "0.5"],
        "--recovery-backoff: \"0.5\" is out of range: 1 to 10",
    ),
    (
        &["--redis", "upstream=h:1", "--recovery-backoff", "1.125"],
        "--recovery-backoff: \"1.125\" is not a number such as 1.5, with two decimals at most",
    ),
    (
        &["--redis", "upstream=h:1,recovery-timeout=1m", "--recovery-timeout-max", "30s"],
        "--redis #1: recovery_timeout_max: 30s is below recovery_timeout, which is 1m",
    ),
    (
        &["--redis", "upstream=h:1", "--slow-start", "2h"],
        "--slow-start: \"2h\" is out of range: 1ms to 1h, or off",
    ),
    (
        &["--redis", "upstream=h:1,name=my cache"],
        "--redis #1: name: \"my cache\" is not a name: it takes 1 to 64 of A-Z a-z 0-9 _ . -",
    ),
    (
        &["--redis", "upstream=h:1", "--redis", "upstream=h:2,listen=h:3"],
        "--redis #2: name: another backend is named \"redis\" as well; give each its own name=...",
    ),
    (
        &["--redis", "upstream=h:1", "--redis", "name=b,upstream=h:2"],
        "--redis name=b: listen: 127.0.0.1:6380 is also the listen address of backend 'redis'",
    ),
    (
        &["--redis", "upstream=h:1,listen=0.0.0.0:7000", "--postgres", "upstream=h:2,listen=localhost:7000"],
        "--postgres #1: listen: localhost:7000 is also the listen address of backend 'redis'",
    ),
    (
        &["--redis", "upstream=h:1,listen=h:9", "--admin", "H:9", "--admin-insecure", "true"],
        "--redis #1: listen: h:9 is also the listen address of the admin API",
    ),
    (
        &["--redis", "upstream=localhost:6380"],
        "--redis #1: listen: localhost:6380 is the backend's own listen address: it would dial itself",
    ),
    (
        &["--redis", "upstream=h:1,reject-code=closed"],
        "--redis #1: reject-code: \"closed\" is not a Redis error code: it takes 1 to 32 upper-case letters",
    ),
    (
        &["--redis", "upstream=h:1,reject-code=MOVED"],
        "--redis #1: reject-code: \"MOVED\" would send clients elsewhere instead of refusing them",
    ),
    (
        &["--postgres", "upstream=h:1", "--reject-query-code", "5700"],
        "--reject-query-code: \"5700\" is not an SQLSTATE: it takes five digits or upper-case letters",
    ),
    (
        &["--postgres", "upstream=h:1", "--reject-connect-code", "57p03"],
        "--reject-connect-code: \"57p03\" is not an SQLSTATE: it takes five digits or upper-case letters",
    ),
    (
        &["--postgres", "upstream=h:1", "--reject-query-code", "00000"],
        "--reject-query-code: \"00000\" is an SQLSTATE of success or warning, not of an error",
    ),
    (
        &["--postgres", "upstream=h:1,failure-errors=READONLY"],
        "--postgres #1: failure-errors: \"READONLY\" cannot be an error code of Postgres or the beginning of one",
    ),
    (
        &["--redis", "upstream=h:1,failure-errors=OOM+"],
        "--redis #1: failure-errors: \"\" cannot be an error code of Redis or the beginning of one",
    ),
    (
        &["--redis", "upstream=h:1,failure-errors=OOM,ignored-errors=BUSY+OOM"],
        "--redis #1: ignored-errors: \"OOM\" is also in failure_errors; a code has one verdict",
    ),
    (
        &["--redis", "upstream=h:1", "--log-level", "inof"],
        "--log-level: \"inof\" is not a log level (off, error, warn, info, debug, trace) or a list of filter directives",
    ),
    (
        &["--redis", "upstream=h:1", "--log-level", "info,a=loud"],
        "--log-level: \"info,a=loud\" is not a log level (off, error, warn, info, debug, trace) or a list of filter directives",
    ),
    (&["--redis", "upstream=h:1", "--log-format", "xml"], "--log-format: \"xml\" is not one of text, json"),
    (&["--redis", "upstream=h:1", "--workers", "0"], "--workers: \"0\" is out of range: 1 to 1024"),
    (&["--redis", "upstream=h:0"], "--redis #1: upstream: \"h:0\": nothing answers on port 0"),
    (
        &["--redis", "upstream=redis://:hunter2@h:1"],
        "--redis #1: upstream: the value (not shown: it may hold a credential): it takes host:port, not a URL",
    ),
    (
        &["--config", "/nonexistent/f.toml"],
        "/nonexistent/f.toml: cannot be read: No such file or directory (os error 2)",
    ),
];

#[test]
fn each_mistake_yields_one_clear_line() {
    for (args, line) in REFUSED {
        assert_eq!(problems(args), [line], "{args:?}");
    }
}

#[test]
fn load_returns_the_first_of_the_problems() {
    let inputs = inputs(&["--redis", "upstream=h:1,x=1", "--probes", "0"]);
    let error = load(&inputs, &Env::new()).unwrap_err();
    assert!(error.to_string().starts_with("--redis #1: x: unknown key"), "{error}");
    assert_eq!(load_all(&inputs, &Env::new()).unwrap_err().len(), 2);
}

#[test]
fn a_hidden_value_is_checked_too() {
    let lines = problems(&["--redis", "upstream=h:1,probes=2", "--probes", "none"]);
    assert_eq!(lines, ["--probes: \"none\" is not a whole number"]);
}

#[test]
fn mistakes_in_variables_name_the_variable() {
    let args = ["--redis", "upstream=h:1"];
    let lines = |variables: &[(&str, &str)]| load_from(&args, variables, None).unwrap_err();
    assert_eq!(lines(&[("FUSEWIRE_PROBES", "0")]), [r#"FUSEWIRE_PROBES: "0" is out of range: 1 to 10000"#]);
    assert_eq!(
        lines(&[("FUSEWIRE_RECOVERY_TIMOUT", "3s")]),
        ["FUSEWIRE_RECOVERY_TIMOUT: unknown variable; did you mean FUSEWIRE_RECOVERY_TIMEOUT?"]
    );
    assert_eq!(
        lines(&[("FUSEWIRE_POSTGRES", "upstream=h:1;name=b")]),
        ["FUSEWIRE_POSTGRES name=b: upstream: it is required"]
    );
}

#[test]
fn variables_of_a_kubernetes_service_called_fusewire_are_no_mistake() {
    let variables = [
        ("FUSEWIRE_PORT", "tcp://10.0.0.1:6380"),
        ("FUSEWIRE_SERVICE_HOST", "10.0.0.1"),
        ("FUSEWIRE_SERVICE_PORT", "6380"),
        ("FUSEWIRE_SERVICE_PORT_REDIS", "6380"),
        ("FUSEWIRE_PORT_6380_TCP", "tcp://10.0.0.1:6380"),
        ("FUSEWIRE_PORT_6380_TCP_ADDR", "10.0.0.1"),
        ("FUSEWIRE_REDIS_PORT", "tcp://10.0.0.1:6380"),
    ];
    let loaded = load_from(&["--redis", "upstream=h:1"], &variables, None).unwrap();
    assert_eq!(loaded.warnings, [""; 0]);
    let loaded = load_from(&["--redis", "upstream=h:1"], &[("FUSEWIRE_BANANAS", "1")], None).unwrap();
    assert_eq!(loaded.warnings, ["FUSEWIRE_BANANAS is not a setting and has no effect"]);
}

/// A file and the lines that it must yield.
const REFUSED_FILES: [(&str, &[&str]); 21] = [
    (
        "",
        &[
            "configuration: no backend; give --redis upstream=HOST:PORT, --postgres upstream=HOST:PORT or --config FILE",
        ],
    ),
    ("[[backend]]\nupstream = 'h:1'", &["f.toml:1: protocol: it is required"]),
    ("\n[[backend]]\nprotocol = 'redis'", &["f.toml:2: upstream: it is required"]),
    (
        "[[backend]]\nprotocol = 'mysql'",
        &["f.toml:2: protocol: \"mysql\" is not one of \"redis\", \"postgres\""],
    ),
    (
        "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\n[backend.breaker]\nfailure_treshold = 3",
        &["f.toml:5: failure_treshold: unknown key; did you mean failure_threshold?"],
    ),
    (
        "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\n[backend.breaker]\nkeepalive = '3s'",
        &["f.toml:5: keepalive: it belongs in the table around [breaker]"],
    ),
    (
        "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\nprobes = 2\n[backend.breaker]\nprobes = 3",
        &["f.toml:4: probes: it is given twice"],
    ),
    (
        "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\nrecovery_timeout = 30",
        &["f.toml:4: recovery_timeout: 30 has no unit; write 30s or 30ms"],
    ),
    (
        "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\nresponse_timeout = false",
        &["f.toml:4: response_timeout: it must be a string such as \"30s\", not boolean"],
    ),
    (
        "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\nfailure_errors = [53300]",
        &["f.toml:4: failure_errors: it must be an array of strings, not an array of something else"],
    ),
    (
        "[[backend]]\nprotocol = 'redis'\nupstream = ['h:1']",
        &["f.toml:3: upstream: it must be a string, not array"],
    ),
    (
        "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\nreject_query_code = '57000'",
        &["f.toml:4: reject_query_code: it is a setting of postgres backends"],
    ),
    ("failure_threshold = 3", &["f.toml:1: failure_threshold: it belongs in [defaults] or [[backend]]"]),
    ("[[backends]]\nprotocol = 'redis'", &["f.toml:1: backends: unknown key; did you mean backend?"]),
    (
        "[backend]\nprotocol = 'redis'",
        &["f.toml:1: backend: it must be an array of tables: [[backend]], not table"],
    ),
    ("[defaults]\nupstream = 'h:1'", &["f.toml:2: upstream: it belongs in [[backend]]"]),
    ("[defaults]\nworkers = 2", &["f.toml:2: workers: it belongs at the top of the file"]),
    ("[defaults]\nprobe = 2", &["f.toml:2: probe: unknown key; did you mean probes?"]),
    (
        "[admin]\nlisten = 'here'\nport = 3",
        &[
            "f.toml:3: port: unknown key; known are listen, token_file, insecure, hosts",
            "f.toml:2: admin.listen: \"here\": its port is missing",
        ],
    ),
    ("[defaults]\nprobes = 1\nprobes = 2", &["f.toml:3: not valid TOML: duplicate key"]),
    (
        "# first\nname = ",
        &["f.toml:2: not valid TOML: string values must be quoted, expected literal string"],
    ),
];

#[test]
fn each_mistake_in_a_file_names_its_line() {
    for (text, lines) in REFUSED_FILES {
        assert_eq!(file_problems(text), lines, "{text}");
    }
}

#[test]
fn a_file_may_define_everything() {
    let text = r#"
admin = { listen = "off" }
drain_timeout = "1m30s"
workers = 3
log_format = "json"
log_level = "warn,fusewire=debug"

[defaults]
connect_timeout = "500ms"
breaker = { probes = 2 }

[[backend]]
protocol = "redis"
name = "cache"
listen = "unix:/run/fusewire/cache.sock"
upstream = "[::1]:6379"
response-timeout = "off"
failure_errors = ["READONLY", "OOM"]
[backend.breaker]
failure_threshold = 3
recovery_timeout = "10s"

[[backend]]
protocol = "postgres"
upstream = "unix:/run/postgresql/.s.PGSQL.5432"
reject_query_code = "57P03"
"#;
    let loaded = load_from(&[], &[], Some(text)).unwrap();
    let config = &loaded.config;
    assert_eq!((config.admin.as_ref(), config.workers), (None, 3));
    assert_eq!(config.drain_timeout, Duration::from_secs(90));
    assert_eq!(loaded.log, Log { format: LogFormat::Json, level: "warn,fusewire=debug".to_owned() });
    let [cache, postgres] = config.backends.as_slice() else { panic!("{config:?}") };
    assert_eq!(cache.listen, Endpoint::Unix("/run/fusewire/cache.sock".into()));
    assert_eq!(cache.upstream, Endpoint::Tcp { host: "::1".into(), port: 6379 });
    assert_eq!(cache.timeouts.response, None);
    assert_eq!(cache.timeouts.connect, Duration::from_millis(500));
    assert_eq!((cache.breaker.failure_threshold, cache.breaker.probes), (Some(3), 2));
    assert_eq!(cache.breaker.recovery_timeout, Duration::from_secs(10));
    assert!(matches!(&cache.protocol, Protocol::Redis(redis) if redis.verdicts.failure.len() == 2));
    assert!(matches!(&postgres.protocol, Protocol::Postgres(p) if p.reject_query_code.as_str() == "57P03"));
}

#[test]
fn a_breaker_can_be_given_every_policy() {
    let spec = "upstream=h:1,mode=observe,failure-threshold=off,failure-rate=50%,slow-call-rate=0.333333,\
                slow-call-duration=250ms,window=10s,min-calls=7,recovery-timeout=1s,recovery-backoff=1.5,\
                recovery-timeout-max=1m,recovery-jitter=12.5%,slow-start=30s";
    let seconds = Duration::from_secs;
    let expected = Policy {
        mode: Mode::Observe,
        failure_threshold: None,
        rates: Rates {
            window: Span::Time(seconds(10)),
            min_calls: 7,
            failure_rate: Share::from_millionths(500_000),
            slow_call_rate: Share::from_millionths(333_333),
            slow_call_duration: Duration::from_millis(250),
        },
        recovery_timeout: seconds(1),
        recovery_backoff: Factor::from_hundredths(150).unwrap(),
        recovery_timeout_max: seconds(60),
        recovery_jitter: Share::from_millionths(125_000).unwrap(),
        slow_start: Some(seconds(30)),
        ..Policy::default()
    };
    assert_eq!(loaded(&["--redis", spec]).backends[0].breaker, expected);
    let file = "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\n[backend.breaker]\nmode = 'observe'\n\
                failure_threshold = 'off'\nfailure_rate = 0.5\nslow_call_rate = '33.3333%'\n\
                slow_call_duration = '250ms'\nwindow = '10s'\nmin_calls = 7\nrecovery_timeout = '1s'\n\
                recovery_backoff = 1.50\nrecovery_timeout_max = '1m'\nrecovery_jitter = 0.125\n\
                slow_start = '30s'";
    let from_file = load_from(&[], &[], Some(file)).unwrap();
    assert_eq!(from_file.config.backends[0].breaker, expected);
    assert_eq!(from_file.warnings, [""; 0]);
}

#[test]
fn a_rate_alone_takes_the_default_window() {
    let config = loaded(&["--redis", "upstream=h:1,failure-rate=1,recovery-backoff=10"]);
    let breaker = &config.backends[0].breaker;
    assert_eq!((breaker.rates.window, breaker.rates.min_calls), (Span::Calls(100), 20));
    assert_eq!(breaker.rates.failure_rate, Share::from_millionths(Share::WHOLE));
    assert_eq!(breaker.failure_threshold, Some(5));
    let config = loaded(&["--redis", "upstream=h:1,window=1call", "--failure-rate", "100%"]);
    assert_eq!(config.backends[0].breaker.rates.window, Span::Calls(1));
}

#[test]
fn the_longest_recovery_timeout_follows_a_longer_recovery_timeout_unless_it_was_given() {
    let config = loaded(&["--redis", "upstream=h:1,recovery-timeout=10m"]);
    assert_eq!(config.backends[0].breaker.recovery_timeout_max, Duration::from_secs(600));
}

#[test]
fn lists_of_commands_are_read_in_every_notation() {
    let redis = |config: &Config| match &config.backends[0].protocol {
        Protocol::Redis(redis) => redis.clone(),
        Protocol::Postgres(_) => panic!("not Redis"),
    };
    let config =
        loaded(&["--redis", "upstream=h:1,cures=config|set+bgsave,unbounded-commands=FT.*+graph.query"]);
    let read = redis(&config);
    assert_eq!(read.cures, ["CONFIG|SET".into(), "BGSAVE".into()]);
    assert_eq!(read.unbounded_commands, ["FT.*".into(), "GRAPH.QUERY".into()]);
    let file = "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\ncures = ['script kill', 'DEBUG']\n\
                unbounded_commands = []\nignore_script_errors = true";
    let read = redis(&load_from(&[], &[], Some(file)).unwrap().config);
    assert_eq!(read.cures, ["SCRIPT|KILL".into(), "DEBUG".into()]);
    assert!(read.ignore_script_errors && read.unbounded_commands.is_empty());
    assert!(redis(&loaded(&["--redis", "upstream=h:1,cures=off"])).cures.is_empty());
    for bad in ["*", "A|B|C", "A*|B", "GE T X", "|KILL", "A|", "A,B", "GE*T", "X\u{e9}"] {
        let file = format!("[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\ncures = ['{bad}']");
        let problems = load_from(&[], &[], Some(&file)).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.contains("is not the name of a Redis command")),
            "{bad}"
        );
    }
}

#[test]
fn the_environment_disables_every_breaker() {
    let args = ["--redis", "upstream=h:1", "--postgres", "upstream=h:1"];
    let config = load_from(&args, &[("FUSEWIRE_MODE", "disabled")], None).unwrap().config;
    assert!(config.backends.iter().all(|backend| backend.breaker.mode == Mode::Disabled));
}

#[test]
fn settings_of_a_rate_that_is_off_are_warned_of() {
    let warnings = |args: &[&str]| load_from(args, &[], None).unwrap().warnings;
    assert_eq!(
        warnings(&["--redis", "upstream=h:1,window=10s,min-calls=3,slow-call-duration=1s"]),
        [
            "backend 'redis': window has no effect without failure_rate or slow_call_rate",
            "backend 'redis': min_calls has no effect without failure_rate or slow_call_rate",
            "backend 'redis': slow_call_duration has no effect without slow_call_rate",
        ]
    );
    assert_eq!(
        warnings(&["--redis", "upstream=h:1,failure-threshold=off"]),
        ["backend 'redis': every trip condition is off"]
    );
    assert_eq!(warnings(&["--redis", "upstream=h:1,window=10s,failure-rate=50%"]), [""; 0]);
    assert_eq!(warnings(&["--redis", "upstream=h:1,failure-threshold=off,mode=disabled"]), [""; 0]);
}

/// An address and why it is refused.
const BAD_ADDRESSES: [(&str, &str); 16] = [
    ("", "it takes host:port, [v6]:port or unix:/path"),
    ("h", "its port is missing"),
    ("h:", "its port is missing"),
    (":6379", "its host is missing"),
    ("h:65536", "its port is not a number from 0 to 65535"),
    ("h:+1", "its port is not a number from 0 to 65535"),
    ("h:redis", "its port is not a number from 0 to 65535"),
    ("::1", "an IPv6 address needs brackets and a port, as in [::1]:6379"),
    ("::1:6379", "an IPv6 address needs brackets and a port, as in [::1]:6379"),
    ("[::1", "its bracket is never closed"),
    ("[::1]", "its port is missing"),
    ("[::g]:1", "what stands in brackets is not an IPv6 address"),
    ("[::1]:x", "its port is not a number from 0 to 65535"),
    ("a b:1", "its host is neither a name nor an address"),
    ("unix:run/x.sock", "a unix socket needs an absolute path, as in unix:/run/redis.sock"),
    ("http://h:1", "it takes host:port, not a URL"),
];

#[test]
fn bad_addresses_say_why() {
    for (text, expected) in BAD_ADDRESSES {
        match text.parse::<Endpoint>() {
            Err(Reason::Address { why, .. }) => assert_eq!(why, expected, "{text:?}"),
            other => panic!("{text:?}: {other:?}"),
        }
    }
    let long = format!("unix:/{}", "x".repeat(107));
    assert!(long.parse::<Endpoint>().is_err());
}

#[test]
fn messages_show_no_credentials() {
    for spec in [
        "upstream=u:hunter2@h:1",
        "upstream=h:1,redis://:hunter2@h",
        "upstream=h:1,name=x@hunter2",
        "password=hunter2",
    ] {
        let text = problems(&["--redis", spec]).join("\n");
        assert!(!text.contains("hunter2"), "{text}");
    }
    // Keys of every length, also that of the words which are shown in a key's place.
    for length in 8..80 {
        let text = problems(&["--redis", &format!("upstream=h:1,{:x<length$}=1", "hunter2@")]).join("\n");
        assert!(!text.contains("hunter2"), "{text}");
    }
}

#[test]
fn addresses_overlap_when_they_cannot_both_be_listened_on() {
    let overlap = |a: &str, b: &str| {
        let (a, b): (Endpoint, Endpoint) = (a.parse().unwrap(), b.parse().unwrap());
        assert_eq!(a.overlaps(&b), b.overlaps(&a), "{a} {b}");
        a.overlaps(&b)
    };
    assert!(overlap("127.0.0.1:1", "127.0.0.1:1"));
    assert!(overlap("0.0.0.0:1", "10.0.0.1:1"));
    assert!(overlap("[::]:1", "[::1]:1"));
    assert!(overlap("[::1]:1", "[0:0:0:0:0:0:0:1]:1"));
    assert!(overlap("unix:/a", "unix:/a"));
    assert!(!overlap("127.0.0.1:0", "127.0.0.1:0"), "port 0 is another port each time");
    assert!(!overlap("127.0.0.1:1", "127.0.0.2:1"));
    assert!(!overlap("127.0.0.1:1", "127.0.0.1:2"));
    assert!(!overlap("unix:/a", "127.0.0.1:1"));
}

#[test]
fn suggestions_are_near_or_absent() {
    let known = ["failure_threshold", "probes", "probe_timeout", "name"];
    assert_eq!(nearest("failure-treshhold", known), Some("failure_threshold"));
    assert_eq!(nearest("probe", known), Some("probes"));
    assert_eq!(nearest("NAME", known), Some("name"));
    assert_eq!(nearest("db", known), None);
    assert_eq!(nearest("", known), None);
}

#[test]
fn help_mentions_every_setting() {
    for command in ["fusewire", "run", "check"] {
        let mut cli = Cli::command();
        let command =
            if command == "fusewire" { &mut cli } else { cli.find_subcommand_mut(command).unwrap() };
        let help = command.render_long_help().to_string();
        for setting in SETTINGS {
            match setting.scope {
                Scope::Own => assert!(help.contains(setting.name), "{}", setting.name),
                _ => {
                    let flag = format!("--{} <", setting.dashed());
                    assert!(help.contains(&flag), "{flag}");
                    assert!(help.contains(&setting.variable()), "{}", setting.variable());
                    assert!(help.contains(&format!("[default: {}]", setting.default_words())), "{flag}");
                }
            }
        }
    }
    Cli::command().debug_assert();
}

const DOCUMENTATION: &str = include_str!("../../docs/CONFIGURATION.md");

fn documented(setting: &Setting) -> String {
    let dash = "\u{2013}".to_owned();
    let code = |text: String| format!("`{}`", text.replace('|', "\\|"));
    let global = |text: String| if setting.is_global() { code(text) } else { dash.clone() };
    let spec = if setting.is_per_backend() { code(setting.dashed()) } else { dash.clone() };
    let cell = |text: String| text.replace('|', "\\|");
    let default = cell(setting.default_words());
    format!(
        "| {} | {} | {spec} | {} | {default} | {} | {} |",
        code(setting.name.to_owned()),
        global(format!("--{} {}", setting.dashed(), setting.placeholder())),
        global(setting.variable()),
        cell(setting.range()),
        cell(setting.help.to_owned()),
    )
}

#[test]
fn the_documentation_lists_every_setting_as_it_is() {
    let missing: Vec<String> =
        SETTINGS.iter().map(documented).filter(|row| !DOCUMENTATION.contains(row.as_str())).collect();
    assert!(missing.is_empty(), "docs/CONFIGURATION.md lacks these rows:\n{}", missing.join("\n"));
    let rows = DOCUMENTATION.lines().filter(|line| line.starts_with("| `") && line.ends_with(" |")).count();
    assert_eq!(rows, SETTINGS.len(), "docs/CONFIGURATION.md has rows of settings that do not exist");
    for group in [Group::Breaker, Group::Timeouts, Group::Verdicts] {
        let word = group.heading().split_whitespace().next().unwrap();
        assert!(DOCUMENTATION.contains(&format!("## {word}")), "{word}");
    }
}

#[test]
fn the_documented_files_are_valid() {
    let files: Vec<&str> =
        DOCUMENTATION.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next()).collect();
    assert!(!files.is_empty());
    for text in files {
        let loaded = load_from(&[], &[], Some(text));
        assert!(loaded.is_ok(), "{loaded:?}\n{text}");
    }
}

proptest! {
    #[test]
    fn no_spec_makes_it_panic(text in ".*", name in "[a-z_-]{0,20}", value in ".{0,40}") {
        let mut problems = Vec::new();
        for text in [text.clone(), format!("upstream=h:1,{name}={value}"), format!("upstream={value}")] {
            raw::spec("--redis", 1, Speaks::Redis, &text, &mut problems);
            let inputs = Inputs { redis: vec![text.clone()], postgres: vec![text], ..Inputs::default() };
            if let Err(problems) = load_all(&inputs, &Env::new()) {
                for problem in problems {
                    prop_assert_eq!(problem.to_string().lines().count(), 1);
                }
            }
        }
    }

    #[test]
    fn every_setting_takes_or_refuses_any_text(value in ".{0,30}", n in any::<i64>(), unit in "(ms|s|m|h|M|y|)") {
        for setting in SETTINGS {
            for text in [value.clone(), n.to_string(), format!("{n}{unit}")] {
                let _ = super::value::read(setting, &raw::Written::One(text), None);
            }
        }
    }

    #[test]
    fn no_file_makes_it_panic(key in "[a-z_]{1,12}", value in ".{0,40}", text in ".*") {
        let path = Path::new("f.toml");
        for text in [text, format!("[[backend]]\n{key} = {value}"), format!("{key} = {value:?}")] {
            let mut problems = Vec::new();
            File::parse(path, &text, &mut problems);
            for problem in problems {
                prop_assert_eq!(problem.to_string().lines().count(), 1, "{:?}", problem);
            }
        }
    }

    #[test]
    fn endpoints_survive_being_printed(
        v4 in any::<std::net::Ipv4Addr>(), v6 in any::<std::net::Ipv6Addr>(), port in any::<u16>(),
        name in "[a-z][a-z0-9.-]{0,30}", path in "/[a-z0-9/._-]{1,60}",
    ) {
        for endpoint in [
            Endpoint::from(SocketAddr::from((v4, port))),
            Endpoint::from(SocketAddr::from((v6, port))),
            Endpoint::Tcp { host: name.into(), port },
            Endpoint::Unix(path.into()),
        ] {
            prop_assert_eq!(endpoint.to_string().parse::<Endpoint>(), Ok(endpoint));
        }
    }
}

const REDIS_TLS: &str = "upstream=cache.internal:6379,upstream-tls=verify-full";

/// Problems of one Postgres backend with these settings.
fn tls_problems(settings: &str) -> Vec<String> {
    problems(&["--postgres", &format!("upstream=db.internal:5432,{settings}")])
}

#[test]
fn tls_is_off_on_both_legs_by_default() {
    assert_eq!(loaded(&["--redis", "upstream=h:1"]).backends[0].tls, Tls::default());
    assert_eq!(Tls::default().upstream, tls::Upstream::Plain);
}

#[test]
fn each_word_of_upstream_tls_means_what_it_says_in_libpq() {
    use tls::{Upstream, Verify};
    let mode = |protocol: &str, word: &str| {
        let spec = format!("upstream=db.internal:5432,upstream-tls={word}");
        match loaded(&[protocol, &spec]).backends[0].tls.upstream.clone() {
            Upstream::Tls(tls) => Some((tls.optional, tls.verify)),
            Upstream::Plain => None,
            Upstream::Passthrough => panic!("passthrough"),
        }
    };
    for protocol in ["--redis", "--postgres"] {
        assert_eq!(mode(protocol, "disable"), None);
        assert_eq!(mode(protocol, "false"), None);
        assert_eq!(mode(protocol, "require"), Some((false, Verify::Nothing)));
        assert_eq!(mode(protocol, "verify-ca"), Some((false, Verify::Chain)));
        assert_eq!(mode(protocol, "verify-full"), Some((false, Verify::Name)));
        assert_eq!(mode(protocol, "true"), Some((false, Verify::Name)));
    }
    assert_eq!(mode("--postgres", "prefer"), Some((true, Verify::Nothing)));
}

#[test]
fn a_toml_boolean_is_a_tls_mode_and_a_switch() {
    let file = "[[backend]]\nprotocol = \"postgres\"\nupstream = \"h:1\"\nupstream_tls = true\n\
                tls_required = true\ntls_cert = \"c\"\ntls_key = \"k\"\n";
    let config = load_from(&[], &[], Some(file)).unwrap().config;
    let tls = &config.backends[0].tls;
    assert!(tls.required && tls.downstream.is_some());
    assert!(matches!(&tls.upstream, tls::Upstream::Tls(tls) if tls.verify == tls::Verify::Name));
    let wrong = file.replace("tls_cert = \"c\"", "tls_cert = true");
    assert_eq!(file_problems(&wrong), ["f.toml:6: tls_cert: it must be a string, not boolean"]);
}

#[test]
fn tls_settings_that_cannot_work_together_are_refused() {
    for (settings, key, why) in [
        ("tls-cert=c", "tls_key", "a certificate needs its key"),
        ("tls-key=k", "tls_cert", "a key needs its certificate"),
        ("tls-client-ca=a", "tls_client_ca", "cannot show a certificate without tls_cert"),
        ("tls-required=true", "tls_required", "cannot be offered TLS without tls_cert"),
        ("tls-cert=c,tls-key=k,listen=unix:/s", "tls_cert", "no TLS over a unix socket"),
        ("tls-cert=c,tls-key=k,upstream-tls=passthrough", "tls_cert", "its own certificate"),
        ("upstream-ca=a", "upstream_ca", "it has no effect"),
        ("upstream-tls=passthrough,upstream-server-name=n", "upstream_server_name", "it has no effect"),
        ("upstream-tls=require,upstream-ca=a", "upstream_ca", "unless upstream_tls is verify-ca"),
        ("upstream-tls=prefer,upstream-ca=a", "upstream_ca", "unless upstream_tls is verify-ca"),
        ("upstream-tls=require,upstream-cert=c", "upstream_key", "a certificate needs its key"),
        ("upstream-tls=require,upstream-key=k", "upstream_cert", "a key needs its certificate"),
        ("upstream-tls=true,upstream-server-name=a b", "upstream_server_name", "neither a DNS name"),
        ("upstream-tls=maybe", "upstream-tls", "is not one of disable, prefer"),
    ] {
        let found = tls_problems(settings);
        let [problem] = found.as_slice() else { panic!("{settings}: {found:?}") };
        assert!(problem.contains(&format!("{key}: ")) && problem.contains(why), "{settings}: {problem}");
    }
    let unix = problems(&["--postgres", "upstream=unix:/s,upstream-tls=require"]);
    assert!(unix[0].contains("no TLS over a unix socket"), "{unix:?}");
}

#[test]
fn redis_has_neither_prefer_nor_passthrough_nor_optional_tls() {
    for mode in ["prefer", "passthrough"] {
        let found = problems(&["--redis", &REDIS_TLS.replace("verify-full", mode)]);
        assert!(found[0].contains("upstream_tls: Redis has no TLS by agreement"), "{found:?}");
    }
    let found = problems(&["--redis", "upstream=h:1,tls-required=true"]);
    assert!(found[0].contains("setting of postgres backends"), "{found:?}");
    // A default for the Postgres backends does not concern the others.
    loaded(&["--tls-required", "true", "--redis", "upstream=h:1"]);
}

#[test]
fn off_takes_a_default_file_away() {
    let args = ["--upstream-ca", "ca.pem", "--upstream-tls", "verify-ca", "--redis", REDIS_TLS];
    let config = loaded(&args);
    let tls::Upstream::Tls(tls) = &config.backends[0].tls.upstream else { panic!("{config:?}") };
    assert_eq!((tls.ca.as_deref(), tls.verify), (Some(Path::new("ca.pem")), tls::Verify::Name));
    let plain =
        loaded(&[&args[..4], &["--redis", "upstream=h:1,upstream-tls=disable,upstream-ca=off"]].concat());
    assert_eq!(plain.backends[0].tls, Tls::default());
}

#[test]
fn an_admin_api_for_other_machines_needs_a_token_or_a_word_that_it_does_not() {
    let base = ["--redis", "upstream=h:1", "--admin"];
    let with = |more: &[&str]| load(&inputs(&[&base[..], more].concat()), &Env::new());
    for near in ["127.0.0.1:1", "localhost:1", "[::1]:1", "unix:/run/admin.sock", "off"] {
        assert!(with(&[near]).is_ok(), "{near}");
    }
    for far in ["0.0.0.0:1", "[::]:1", "10.0.0.1:1", "fusewire.internal:1"] {
        let error = with(&[far]).unwrap_err().to_string();
        let words = "can be reached from other machines; give admin_token_file, or admin_insecure = true";
        assert_eq!(error, format!("configuration: admin: {far} {words}"));
        assert!(with(&[far, "--admin-token-file", "token"]).is_ok());
        assert!(with(&[far, "--admin-insecure", "true"]).is_ok());
    }
    let config = with(&["127.0.0.1:1", "--admin-hosts", "a.internal+b"]).unwrap();
    assert_eq!(config.admin_access.hosts, ["a.internal".into(), "b".into()]);
    let error = with(&["127.0.0.1:1", "--admin-hosts", "http://a"]).unwrap_err().to_string();
    assert!(error.contains("is not a host name"), "{error}");
}

const EXAMPLE: &str = include_str!("../../deploy/fusewire.toml");

/// What a text says as the configuration file.
fn written(text: &str) -> Loaded {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fusewire.toml");
    std::fs::write(&path, text).unwrap();
    let args = ["--config", &path.to_string_lossy()];
    load_all(&inputs(&args), &Env::new()).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

#[test]
fn the_example_has_every_setting_with_its_range_its_default_and_a_reason() {
    for setting in SETTINGS {
        let (range, default) = (setting.range(), setting.default_words());
        let bounds = format!("# Range: {range}. Default: {default}.");
        let at = EXAMPLE.lines().position(|line| {
            let name = line.trim_start_matches('#').split_once(" = ").map(|(name, _)| name);
            name == Some(setting.name)
        });
        let at = at.unwrap_or_else(|| panic!("deploy/fusewire.toml lacks {}", setting.name));
        let lines: Vec<&str> = EXAMPLE.lines().take(at).collect();
        let comment = lines.rsplit(|line| line.is_empty()).next().unwrap_or_default();
        assert!(comment.contains(&bounds.as_str()), "{}: {bounds}\n{comment:#?}", setting.name);
        if setting.scope != Scope::Own {
            assert!(comment.iter().any(|line| line.starts_with("# Why: ")), "{}", setting.name);
        }
        let words: Vec<&str> = comment.iter().flat_map(|line| line[1..].split_whitespace()).collect();
        let help = format!("{}.", setting.help);
        let help: Vec<&str> = help.split_whitespace().collect();
        assert!(words.windows(help.len()).any(|some| some == help), "{}: {}", setting.name, setting.help);
    }
}

#[test]
fn what_the_example_has_commented_out_are_the_defaults() {
    let mut plain = written(EXAMPLE);
    let is_setting = |line: &str| {
        let name = line.strip_prefix('#').and_then(|rest| rest.split_once(" = ")).map(|(name, _)| name);
        name.is_some_and(|name| SETTINGS.iter().any(|setting| setting.name == name))
    };
    let lines = EXAMPLE.lines().map(|line| if is_setting(line) { &line[1..] } else { line });
    let said = written(&lines.collect::<Vec<_>>().join("\n"));
    assert_eq!(plain.warnings, Vec::<String>::new());
    // One for each processor of this machine.
    plain.config.workers = said.config.workers;
    assert_eq!((plain.config, plain.log), (said.config, said.log));
}
