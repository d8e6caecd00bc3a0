//! The settings in force, and changing those of one breaker until the configuration is read again.

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::rejection::BytesRejection;
use axum::extract::{Extension, State as Shared};
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use indexmap::IndexMap;
use serde::Serialize;
use serde_json::{Map, Value, json};

use super::State;
use super::error::Error;
use super::guard::Peer;
use super::routes::{Answer, Name, find};
use crate::backends::Backend;
use crate::config::{self, Patched, effective};

/// All backends' settings.
#[derive(Debug, Serialize)]
pub(super) struct All {
    backends: IndexMap<String, Settings>,
}

/// What holds for a backend.
#[derive(Debug, Serialize)]
pub(super) struct Settings {
    name: String,
    protocol: &'static str,
    /// By TOML key, in the words that a file takes; the mode is the present one.
    settings: IndexMap<&'static str, Value>,
    /// Those that were changed here, for as long as the configuration is not read again.
    patched: Vec<&'static str>,
}

impl Settings {
    fn new(backend: &Backend) -> Self {
        let mut settings = effective::settings(&backend.config());
        settings.insert("mode", backend.gate.mode().label().into());
        Self {
            name: backend.name().to_string(),
            protocol: backend.protocol(),
            settings,
            patched: backend.patched(),
        }
    }
}

pub(super) async fn all(Shared(state): Shared<Arc<State>>) -> Json<All> {
    let all = state.backends.all();
    Json(All {
        backends: all.iter().map(|backend| (backend.name().to_string(), Settings::new(backend))).collect(),
    })
}

pub(super) async fn one(Shared(state): Shared<Arc<State>>, name: Name) -> Answer<Json<Settings>> {
    Ok(Json(Settings::new(&*find(&state, name)?)))
}

/// What has changed is the answer, or all that is wrong, and then nothing has.
pub(super) async fn patch(
    Shared(state): Shared<Arc<State>>,
    Extension(peer): Extension<Peer>,
    name: Name,
    body: Result<Bytes, BytesRejection>,
) -> Answer<Response> {
    let backend = find(&state, name)?;
    let changes: Map<String, Value> = serde_json::from_slice(&body?).map_err(|error| {
        Error::bad_request(format!("the body is not of the form {{\"failure_threshold\": 3}}: {error}"))
    })?;
    if changes.is_empty() {
        return Err(Error::bad_request("the body changes nothing; it takes {\"failure_threshold\": 3}"));
    }
    let Patched { policy, keys, warnings } = match config::patch(&backend.config(), &changes) {
        Ok(patched) => patched,
        Err(problems) => {
            let error = "the settings are not valid: nothing has changed";
            let problems: Vec<String> = problems.iter().map(ToString::to_string).collect();
            let body = Json(json!({ "error": error, "problems": problems }));
            return Ok((StatusCode::UNPROCESSABLE_ENTITY, body).into_response());
        }
    };
    backend.patch(policy, &keys, state.clock.read().now);
    let settings = Settings::new(&backend);
    let words = |key: &&str| format!("{key} = {}", settings.settings.get(key).unwrap_or(&Value::Null));
    let (name, changed) = (&**backend.name(), keys.iter().map(words).collect::<Vec<_>>().join(", "));
    tracing::info!(
        action = "patch",
        backend = name,
        changed,
        %peer,
        "Admin API: until the next reload '{name}' has {changed}, by {peer}"
    );
    warnings.iter().for_each(|warning| tracing::warn!("{warning}"));
    let mut answer = json!(settings);
    answer["warnings"] = warnings.into();
    Ok(Json(answer).into_response())
}
