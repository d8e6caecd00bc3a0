//! Settings that are written back, and changes of some of them.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::{Map, Value as Json, json};

use super::super::effective::settings;
use super::super::settings::{Key, Kind, SETTINGS, Scope};
use super::*;

fn backend(spec: &str) -> Backend {
    loaded(&["--redis", &format!("upstream=10.0.0.5:6379,{spec}")]).backends.remove(0)
}

fn changed(backend: &Backend, changes: Json) -> Result<Patched, Vec<String>> {
    let Json::Object(changes) = changes else { panic!("{changes} is no object") };
    patch(backend, &changes).map_err(|problems| problems.iter().map(ToString::to_string).collect())
}

/// As a `[[backend]]` table: strings, numbers and arrays are written in TOML as in JSON.
fn table(backend: &Backend) -> String {
    let protocol = backend.protocol.label();
    let lines = settings(backend).into_iter().map(|(key, value)| format!("{key} = {value}\n"));
    format!("[[backend]]\nprotocol = \"{protocol}\"\n{}", lines.collect::<String>())
}

#[test]
fn settings_that_are_written_back_are_read_as_the_same_backend() {
    let redis = "listen=[::1]:6390,mode=observe,failure-threshold=off,failure-rate=33.3333%,slow-call-rate=0.5,\
                 slow-call-duration=1m30s,window=90s,min-calls=7,recovery-timeout=250ms,recovery-backoff=1.5,\
                 recovery-timeout-max=1h,recovery-jitter=0.0001%,success-threshold=3,probes=2,probe-timeout=7s,\
                 slow-start=30s,response-timeout=off,reject-code=TRYLATER,failure-errors=WRONGTYPE+ERR,\
                 ignored-errors=READONLY,tls-cert=/c.pem,tls-key=/k.pem,tls-client-ca=/ca.pem,\
                 upstream-tls=verify-full,upstream-ca=/u.pem,upstream-server-name=redis.internal,\
                 upstream-cert=/uc.pem,upstream-key=/uk.pem";
    let plain = "upstream=unix:/run/redis.sock";
    let postgres = "upstream=db:5432,reject-query-code=57P03,reject-connect-code=53300,success-errors=57P03,\
                    upstream-tls=passthrough,connect-timeout=1500ms,tcp-user-timeout=1day,keepalive=9s";
    let optional = "upstream=db:5432,upstream-tls=prefer,tls-cert=/c.pem,tls-key=/k.pem,tls-required=true";
    let backends = [
        backend(redis),
        loaded(&["--redis", plain]).backends.remove(0),
        loaded(&["--postgres", postgres]).backends.remove(0),
        loaded(&["--postgres", optional]).backends.remove(0),
    ];
    for backend in backends {
        let text = table(&backend);
        let again = load_from(&[], &[], Some(&text)).unwrap().config.backends.remove(0);
        assert_eq!(again, backend, "{text}");
    }
}

#[test]
fn every_setting_of_a_backend_is_written_back() {
    for flag in ["--redis", "--postgres"] {
        let backend = loaded(&[flag, "upstream=10.0.0.5:6379"]).backends.remove(0);
        let other = if flag == "--redis" { Scope::Postgres } else { Scope::Redis };
        let all = SETTINGS.iter().filter(|setting| setting.is_per_backend() && setting.scope != other);
        let names: Vec<&str> = settings(&backend).keys().copied().collect();
        assert_eq!(names, all.map(|setting| setting.name).collect::<Vec<_>>());
    }
}

#[test]
fn every_number_of_a_breaker_can_be_changed_and_means_what_it_does_in_a_spec() {
    let before = backend("failure-rate=50%,slow-call-rate=50%");
    for setting in SETTINGS.iter().filter(|setting| setting.is_breaker() && setting.key != Key::Mode) {
        let (value, text) = match setting.kind {
            Kind::Count { .. } | Kind::Limit { .. } => (json!(7), "7"),
            Kind::Share { .. } => (json!(0.25), "0.25"),
            Kind::Factor { .. } => (json!(1.5), "1.5"),
            Kind::Window { .. } => (json!("50calls"), "50calls"),
            Kind::Span { .. } => (json!("2m"), "2m"),
            Kind::Choice(words) => {
                let last = words.rsplit('|').next().unwrap();
                (json!(last), last)
            }
            _ => panic!("a sample of {} is missing", setting.name),
        };
        let patched = changed(&before, json!({ setting.name: value })).unwrap();
        assert_eq!(patched.keys, [setting.name]);
        let spec = format!("failure-rate=50%,slow-call-rate=50%,{}={text}", setting.dashed());
        // The last of two values of one key would be a mistake.
        let spec = spec.replacen(&format!("{}=50%,", setting.dashed()), "", 1);
        let expected = backend(&spec).breaker;
        assert_eq!(patched.policy, expected, "{}", setting.name);
        assert_ne!(patched.policy, before.breaker, "{}", setting.name);
    }
}

#[test]
fn what_is_not_changed_stays_and_not_its_default() {
    let before = backend("failure-threshold=9,probes=3");
    let patched = changed(&before, json!({ "probes": 4, "recovery-timeout": "10m" })).unwrap();
    assert_eq!(patched.policy.failure_threshold, Some(9));
    assert_eq!(patched.policy.probes, 4);
    assert_eq!(patched.policy.recovery_timeout_max, Duration::from_secs(600));
    assert_eq!(patched.keys, ["recovery_timeout", "probes"]);
    assert_eq!(patched.warnings, ["backend 'redis': recovery_timeout_max follows, to 10m"]);
}

#[test]
fn mistakes_are_those_of_the_file_and_all_are_named() {
    let cases = [
        (json!({ "failure_treshold": 3 }), "failure_treshold: unknown key; did you mean failure_threshold?"),
        (json!({ "failure_threshold": 0 }), "failure_threshold: \"0\" is out of range: 1 to 1000000, or off"),
        (
            json!({ "failure_threshold": 1.5 }),
            "failure_threshold: it must be an integer or \"off\", not float",
        ),
        (
            json!({ "failure_threshold": null }),
            "failure_threshold: it must be an integer or \"off\", not null",
        ),
        (json!({ "probes": [1] }), "probes: it must be an integer, not array"),
        (json!({ "probes": true }), "probes: it must be an integer, not boolean"),
        (json!({ "recovery_timeout": 30 }), "recovery_timeout: 30 has no unit; write 30s or 30ms"),
        (
            json!({ "recovery_timeout_max": "1s" }),
            "recovery_timeout_max: 1s is below recovery_timeout, which is 30s",
        ),
        (
            json!({ "mode": "observe" }),
            "mode: it belongs in a POST to enforce/NAME, observe/NAME or disable/NAME",
        ),
        (
            json!({ "upstream": "10.0.0.6:6379" }),
            "upstream: it belongs in the configuration, for a reload or a restart",
        ),
        (json!({ "workers": 3 }), "workers: it belongs in the configuration, for a reload or a restart"),
        (json!({ "probes": 1, "success-threshold": 2, "success_threshold": 3 }), "it is given twice"),
    ];
    let backend = backend("");
    for (changes, expected) in cases {
        let problems = changed(&backend, changes.clone()).unwrap_err();
        assert_eq!(problems.len(), 1, "{changes}: {problems:?}");
        assert!(problems[0].starts_with("request: ") && problems[0].ends_with(expected), "{problems:?}");
    }
    let two = json!({ "probes": 0, "no": 1 });
    assert_eq!(changed(&backend, two).unwrap_err().len(), 2);
}

proptest! {
    #[test]
    fn no_change_makes_it_panic(key in "[a-z_]{1,12}", text in ".{0,20}", number in any::<f64>()) {
        let backend = backend("");
        for value in [json!(text), json!(number), json!({ &text: [number] })] {
            let changes: Map<String, Json> = [(key.clone(), value.clone())].into_iter().collect();
            let _ = patch(&backend, &changes);
            for setting in SETTINGS {
                let _ = changed(&backend, json!({ setting.name: value }));
            }
        }
    }
}
