//! TLS on both legs.

use std::path::Path;

use super::super::tls;
use super::*;

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
