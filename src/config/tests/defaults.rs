//! What holds when nothing is said.

use std::time::Duration;

use super::super::raw::Written;
use super::super::settings::{Preset, SETTINGS};
use super::*;

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
    for setting in SETTINGS {
        let texts = match setting.preset {
            Preset::Same(text) => vec![text],
            Preset::Each { redis, postgres } => vec![redis, postgres],
            Preset::Required | Preset::Processors => vec![],
        };
        for text in texts {
            let value = super::super::value::read(setting, &Written::One(text.to_owned()), None);
            assert!(value.is_ok(), "{}: {text}: {value:?}", setting.name);
        }
    }
}
