//! One request to the admin API, over TCP or a unix socket.
//!
//! A connection for each request: a person asks rarely, and a watcher must notice a restart. Absent on purpose:
//! redirects, proxies and TLS, which the API does not have.

use std::fmt::Write as _;
use std::time::Duration;

use axum::body::{Body, to_bytes};
use hyper::client::conn::http1;
use hyper::{Method, Request, StatusCode, header};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};
use tokio::time::timeout;

use super::Failure;
use crate::config::args::Target;
use crate::config::{Endpoint, Env};

/// For a whole request: longer than the API itself takes at most.
const PATIENCE: Duration = Duration::from_secs(15);

/// The largest answer, in bytes: thousands of backends.
const ANSWER_MAX: usize = 64 * 1024 * 1024;

const DEFAULT: &str = "127.0.0.1:9900";

/// Where to ask, and with which token.
pub(super) struct Api {
    endpoint: Endpoint,
    token: Option<String>,
}

impl Api {
    /// By the command line, else by the environment.
    ///
    /// # Errors
    /// An address or a token file that cannot be used.
    pub(super) fn new(target: &Target, env: &Env) -> Result<Self, Failure> {
        let of = |name: &str| env.get(name).map(String::as_str).filter(|text| !text.trim().is_empty());
        let (origin, admin) = match (&target.admin, of("FUSEWIRE_ADMIN")) {
            (Some(admin), _) => ("--admin", admin.as_str()),
            (None, Some(admin)) => ("FUSEWIRE_ADMIN", admin),
            (None, None) => ("--admin", DEFAULT),
        };
        let endpoint = admin.parse().map_err(|why| Failure::Mistaken(format!("{origin}: {why}")))?;
        let file = target.token_file.clone().or_else(|| of("FUSEWIRE_ADMIN_TOKEN_FILE").map(Into::into));
        let token = file.map(|file| {
            let unusable = |why: &dyn std::fmt::Display| {
                Failure::Mistaken(format!("the token file {} cannot be used: {why}", file.display()))
            };
            let text = std::fs::read_to_string(&file).map_err(|error| unusable(&error))?;
            let token = text.trim();
            let sound = !token.is_empty() && token.bytes().all(|b| b.is_ascii_graphic());
            if sound { Ok(token.to_owned()) } else { Err(unusable(&"it holds no token")) }
        });
        Ok(Self { endpoint, token: token.transpose()? })
    }

    /// Asks, and returns the answer if it is granted.
    ///
    /// # Errors
    /// No answer, or a refusal in the API's own words.
    pub(super) async fn ask(&self, method: Method, path: &str) -> Result<Value, Failure> {
        let request = self.request(method, path).map_err(|error| self.unreached(&error))?;
        let answer = timeout(PATIENCE, async {
            match &self.endpoint {
                Endpoint::Tcp { host, port } => {
                    exchange(TcpStream::connect((&**host, *port)).await?, request).await
                }
                Endpoint::Unix(path) => exchange(UnixStream::connect(path).await?, request).await,
            }
        });
        let (status, bytes) = match answer.await {
            Err(_) => return Err(self.unreached(&"it took too long")),
            Ok(Err(error)) => return Err(self.unreached(&*error)),
            Ok(Ok(answer)) => answer,
        };
        let Ok(answer) = serde_json::from_slice::<Value>(&bytes) else {
            let why = format!("what answers there is no fusewire (it says {status})");
            return Err(self.unreached(&why));
        };
        if status.is_success() { Ok(answer) } else { Err(refusal(status, &answer)) }
    }

    /// What an answer says.
    ///
    /// # Errors
    /// It is of another form than this version's.
    pub(super) fn typed<T: DeserializeOwned>(&self, answer: Value) -> Result<T, Failure> {
        serde_json::from_value(answer)
            .map_err(|error| self.unreached(&format!("its answer is of another version ({error})")))
    }

    fn request(&self, method: Method, path: &str) -> Result<Request<Body>, hyper::http::Error> {
        let host = match &self.endpoint {
            tcp @ Endpoint::Tcp { .. } => tcp.to_string(),
            Endpoint::Unix(_) => "localhost".to_owned(),
        };
        let mut request = Request::builder().method(method).uri(path).header(header::HOST, host);
        if let Some(token) = &self.token {
            request = request.header(header::AUTHORIZATION, format!("Bearer {token}"));
        }
        request.body(Body::empty())
    }

    fn unreached(&self, why: &(impl std::fmt::Display + ?Sized)) -> Failure {
        Failure::Unreached { at: self.endpoint.to_string(), why: why.to_string() }
    }
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn exchange<IO>(io: IO, request: Request<Body>) -> Result<(StatusCode, axum::body::Bytes), Broken>
where
    IO: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
    // Ends with the request: its sender is gone then.
    tokio::spawn(connection);
    let response = sender.send_request(request).await?;
    let status = response.status();
    Ok((status, to_bytes(Body::new(response.into_body()), ANSWER_MAX).await?))
}

/// The API's own words: a sentence, and for a configuration a line for each mistake.
fn refusal(status: StatusCode, answer: &Value) -> Failure {
    let mut text = answer["error"].as_str().map_or_else(|| status.to_string(), super::show::plain);
    if status == StatusCode::UNAUTHORIZED {
        text += "; give it with --token-file";
    }
    for problem in answer["problems"].as_array().into_iter().flatten().filter_map(Value::as_str) {
        // Writing to a string cannot fail.
        let _ = write!(text, "\n{}", super::show::plain(problem));
    }
    Failure::Refused(text)
}

/// As a part of a path or a query.
pub(super) fn encoded(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    encoded
}
