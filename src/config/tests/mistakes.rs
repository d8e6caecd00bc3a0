//! Mistakes on the command line and in the environment, and how they are told.

use super::super::spelling::nearest;
use super::*;

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
fn suggestions_are_near_or_absent() {
    let known = ["failure_threshold", "probes", "probe_timeout", "name"];
    assert_eq!(nearest("failure-treshhold", known), Some("failure_threshold"));
    assert_eq!(nearest("probe", known), Some("probes"));
    assert_eq!(nearest("NAME", known), Some("name"));
    assert_eq!(nearest("db", known), None);
    assert_eq!(nearest("", known), None);
}
