//! Configuration files, and the mistakes in them.

use std::time::Duration;

use super::*;

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
