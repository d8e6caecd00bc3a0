//! Changing the breaker of one backend without the file: until the next reload, which reads the file again.
//!
//! Keys are found and values are read by what reads the file, so what is a mistake there is one here. Absent on
//! purpose: anything but the breaker's numbers. Addresses, certificates and verdicts had better be written down.

use serde_json::{Map, Value as Json};

use super::error::{Error, Origin, Reason};
use super::raw::{Entry, Layer, Written, printable, unknown};
use super::settings::{Key, SETTINGS, Setting};
use super::{Backend, effective, resolve};
use crate::breaker::Policy;

/// A policy with some settings changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patched {
    /// What is to hold.
    pub policy: Policy,
    /// The TOML keys of what was changed, in the order of the documentation.
    pub keys: Vec<&'static str>,
    /// What is suspicious but no mistake, one line each.
    pub warnings: Vec<String>,
}

/// Changes settings of `backend`'s breaker: a JSON object of TOML keys and values as a file has them.
///
/// # Errors
/// All that is wrong; at least one.
pub fn patch(backend: &Backend, changes: &Map<String, Json>) -> Result<Patched, Vec<Error>> {
    let (mut layer, mut problems) = (Layer::new(), Vec::new());
    for (name, value) in changes {
        let refused = match find(name).and_then(|setting| Ok((setting, written(setting, value)?))) {
            Ok((setting, value)) => {
                let entry = Entry { value, key: Some(setting.name.to_owned()), origin: Origin::Request };
                layer.insert(setting.key, entry).map(|_| Reason::Twice)
            }
            Err(reason) => Some(reason),
        };
        if let Some(reason) = refused {
            problems.push(Error { origin: Origin::Request, key: Some(printable(name).into()), reason });
        }
    }
    let keys = layer.keys().map(|key| key.name()).collect();
    let present = effective::values(backend);
    let (policy, warnings) = resolve::change_policy(backend, &present, &layer, problems)?;
    Ok(Patched { policy, keys, warnings })
}

fn find(name: &str) -> Result<&'static Setting, Reason> {
    let known = || SETTINGS.iter().filter(|setting| setting.is_breaker() && setting.key != Key::Mode);
    match Setting::find(name) {
        Some(setting) if setting.key == Key::Mode => {
            Err(Reason::Misplaced { place: "in a POST to enforce/NAME, observe/NAME or disable/NAME" })
        }
        Some(setting) if setting.is_breaker() => Ok(setting),
        Some(_) => Err(Reason::Misplaced { place: "in the configuration, for a reload or a restart" }),
        None => Err(unknown(name, known().map(|setting| setting.name.to_owned()))),
    }
}

/// A value as it would stand in the file.
fn written(setting: &Setting, value: &Json) -> Result<Written, Reason> {
    let found = match value {
        Json::String(text) => return Ok(Written::One(text.clone())),
        Json::Number(number) if number.is_f64() && !setting.kind.takes_fraction() => "float",
        Json::Number(number) => return Ok(Written::One(number.to_string())),
        Json::Null => "null",
        Json::Bool(_) => "boolean",
        Json::Array(_) => "array",
        Json::Object(_) => "object",
    };
    Err(Reason::WrongType { expected: setting.kind.toml_type(), found })
}
