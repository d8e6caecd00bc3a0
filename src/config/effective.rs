//! A backend's settings written back, in the words that a file takes: what the admin API shows, and what a change of
//! some of them stands on.
//!
//! Absent on purpose: settings of the process, and where each value came from.

use indexmap::IndexMap;
use serde_json::Value as Json;

use super::proxy_protocol::Version;
use super::raw::Speaks;
use super::settings::{Key, SETTINGS};
use super::tls::{self, Upstream, Verify};
use super::value::{Value, Values};
use super::{Backend, Overrides, Protocol, units};
use crate::breaker::{Share, Span};

/// Every setting of a backend by its TOML key, in the order of the documentation.
pub fn settings(backend: &Backend) -> IndexMap<&'static str, Json> {
    SETTINGS.iter().filter_map(|setting| Some((setting.name, json(value(backend, setting.key)?)))).collect()
}

/// The same, as they are read.
pub(super) fn values(backend: &Backend) -> Values {
    SETTINGS.iter().filter_map(|setting| Some((setting.key, value(backend, setting.key)?))).collect()
}

/// A backend's protocol.
pub(super) fn speaks(backend: &Backend) -> Speaks {
    match backend.protocol {
        Protocol::Redis(_) => Speaks::Redis,
        Protocol::Postgres(_) => Speaks::Postgres,
    }
}

/// None: it is no setting of this backend.
fn value(backend: &Backend, key: Key) -> Option<Value> {
    let Backend { breaker, timeouts, tls, .. } = backend;
    let rates = &breaker.rates;
    let (redis, postgres) = match &backend.protocol {
        Protocol::Redis(redis) => (Some(redis), None),
        Protocol::Postgres(postgres) => (None, Some(postgres)),
    };
    let Overrides { failure, success, ignored } = match &backend.protocol {
        Protocol::Redis(redis) => &redis.verdicts,
        Protocol::Postgres(postgres) => &postgres.verdicts,
    };
    let downstream = tls.downstream.as_ref();
    let upstream = if let Upstream::Tls(upstream) = &tls.upstream { Some(upstream) } else { None };
    let identity = upstream.and_then(|upstream| upstream.identity.as_ref());
    Some(match key {
        Key::Name => Value::Text(backend.name.clone()),
        Key::Listen => Value::Address(Some(backend.listen.clone())),
        Key::Upstream => Value::Address(Some(backend.upstream.clone())),
        Key::ProxyProtocolFrom => Value::Networks(backend.proxy_protocol.from.clone()),
        Key::ProxyProtocolTo => Value::Word(Version::word(backend.proxy_protocol.to)),
        Key::Mode => Value::Mode(breaker.mode),
        Key::FailureThreshold => Value::Limit(breaker.failure_threshold),
        Key::FailureRate => Value::Share(rates.failure_rate),
        Key::SlowCallRate => Value::Share(rates.slow_call_rate),
        Key::SlowCallDuration => Value::Span(Some(rates.slow_call_duration)),
        Key::Window => Value::Window(rates.window),
        Key::MinCalls => Value::Count(rates.min_calls),
        Key::RecoveryTimeout => Value::Span(Some(breaker.recovery_timeout)),
        Key::RecoveryBackoff => Value::Factor(breaker.recovery_backoff),
        Key::RecoveryTimeoutMax => Value::Span(Some(breaker.recovery_timeout_max)),
        Key::RecoveryJitter => Value::Share(Some(breaker.recovery_jitter)),
        Key::SuccessThreshold => Value::Count(breaker.success_threshold),
        Key::Probes => Value::Count(breaker.probes),
        Key::ProbeTimeout => Value::Span(Some(breaker.probe_timeout)),
        Key::SlowStart => Value::Span(breaker.slow_start),
        Key::Check => Value::Word(breaker.checks.when.label()),
        Key::CheckInterval => Value::Span(Some(breaker.checks.interval)),
        Key::CheckMay => Value::Word(breaker.checks.may.label()),
        Key::CheckUser => Value::Text(postgres?.check_user.clone()),
        Key::MaxConnections => Value::Limit(breaker.bulkhead.connections),
        Key::MaxCalls => Value::Limit(breaker.bulkhead.calls),
        Key::BulkheadWait => Value::Span(Some(breaker.bulkhead.wait)),
        Key::ConnectTimeout => Value::Span(Some(timeouts.connect)),
        Key::ResponseTimeout => Value::Span(timeouts.response),
        Key::UnboundedCommands => Value::Commands(redis?.unbounded_commands.clone()),
        Key::HandshakeTimeout => Value::Span(Some(timeouts.handshake)),
        Key::TcpUserTimeout => Value::Span(Some(timeouts.tcp_user)),
        Key::Keepalive => Value::Span(Some(timeouts.keepalive)),
        Key::TlsCert => Value::Path(downstream.map(|tls| tls.identity.cert.clone())),
        Key::TlsKey => Value::Path(downstream.map(|tls| tls.identity.key.clone())),
        Key::TlsClientCa => Value::Path(downstream.and_then(|tls| tls.client_ca.clone())),
        Key::TlsRequired => postgres.map(|_| Value::Switch(tls.required))?,
        Key::UpstreamTls => Value::TlsMode(tls_mode(&tls.upstream)),
        Key::UpstreamCa => Value::Path(upstream.and_then(|tls| tls.ca.clone())),
        Key::UpstreamServerName => Value::Host(upstream.and_then(|tls| tls.server_name.clone())),
        Key::UpstreamCert => Value::Path(identity.map(|identity| identity.cert.clone())),
        Key::UpstreamKey => Value::Path(identity.map(|identity| identity.key.clone())),
        Key::RejectCode => Value::Text(redis?.reject_code.clone()),
        Key::Cures => Value::Commands(redis?.cures.clone()),
        Key::RejectConnectCode => Value::State(postgres?.reject_connect_code),
        Key::RejectQueryCode => Value::State(postgres?.reject_query_code),
        Key::AnswerEmptyQueries => Value::Switch(postgres?.answer_empty_queries),
        Key::FailureErrors => Value::Codes(failure.clone()),
        Key::SuccessErrors => Value::Codes(success.clone()),
        Key::IgnoredErrors => Value::Codes(ignored.clone()),
        Key::IgnoreScriptErrors => Value::Switch(redis?.ignore_script_errors),
        Key::Admin
        | Key::AdminTokenFile
        | Key::AdminInsecure
        | Key::AdminHosts
        | Key::DrainDelay
        | Key::DrainTimeout
        | Key::Workers
        | Key::LogFormat
        | Key::LogLevel => return None,
    })
}

fn tls_mode(upstream: &Upstream) -> tls::Mode {
    match upstream {
        Upstream::Plain => tls::Mode::Disable,
        Upstream::Passthrough => tls::Mode::Passthrough,
        Upstream::Tls(tls) if tls.optional => tls::Mode::Prefer,
        Upstream::Tls(tls) => match tls.verify {
            Verify::Nothing => tls::Mode::Require,
            Verify::Chain => tls::Mode::VerifyCa,
            Verify::Name => tls::Mode::VerifyFull,
        },
    }
}

fn json(value: Value) -> Json {
    let list = |texts: &[std::sync::Arc<str>]| texts.iter().map(|text| text.to_string()).collect();
    let text = match value {
        Value::Count(n) | Value::Limit(Some(n)) => return n.into(),
        Value::Factor(factor) => return (f64::from(factor.hundredths()) / 100.0).into(),
        Value::Switch(on) => return on.into(),
        Value::Hosts(texts) | Value::Codes(texts) | Value::Commands(texts) => return list(&texts),
        Value::Networks(networks) => return networks.iter().map(ToString::to_string).collect(),
        Value::Limit(None)
        | Value::Share(None)
        | Value::Span(None)
        | Value::Address(None)
        | Value::Path(None)
        | Value::Host(None) => "off".to_owned(),
        Value::Text(text) | Value::Host(Some(text)) => text.to_string(),
        Value::Share(Some(share)) => percent(share),
        Value::Window(Span::Calls(n)) => format!("{n}calls"),
        Value::Window(Span::Time(span)) | Value::Span(Some(span)) => units::words(span),
        Value::Mode(mode) => mode.label().to_owned(),
        Value::Word(word) => word.to_owned(),
        Value::Address(Some(address)) => address.to_string(),
        Value::Path(Some(path)) => path.display().to_string(),
        Value::TlsMode(mode) => mode.word().to_owned(),
        Value::State(state) => state.as_str().to_owned(),
        Value::Format(format) => format!("{format:?}").to_ascii_lowercase(),
    };
    text.into()
}

/// Exactly: `33.3333%`.
fn percent(share: Share) -> String {
    let (whole, part) = (share.millionths() / 10_000, share.millionths() % 10_000);
    match format!("{part:04}").trim_end_matches('0') {
        "" => format!("{whole}%"),
        part => format!("{whole}.{part}%"),
    }
}
