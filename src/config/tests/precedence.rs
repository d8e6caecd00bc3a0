//! Whose word counts where several say something: the nearest.

use std::time::Duration;

use super::super::settings::Setting;
use super::*;
use crate::breaker::Mode;

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
fn the_environment_disables_every_breaker() {
    let args = ["--redis", "upstream=h:1", "--postgres", "upstream=h:1"];
    let config = load_from(&args, &[("FUSEWIRE_MODE", "disabled")], None).unwrap().config;
    assert!(config.backends.iter().all(|backend| backend.breaker.mode == Mode::Disabled));
}

#[test]
fn run_is_the_default_subcommand() {
    let args = ["--redis", "upstream=h:1", "--probes", "2"];
    let with_run: Vec<&str> = ["run"].iter().chain(&args).copied().collect();
    assert_eq!(inputs(&args), inputs(&with_run));
    let cli = Cli::try_parse_from(["fusewire", "check", "-c", "f.toml"]).unwrap();
    assert!(matches!(cli.into_command(), Command::Check(inputs) if inputs.config.is_some()));
}
