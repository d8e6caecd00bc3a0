//! The dashboard: one page, its scripts and styles, from the binary.
//!
//! The page is the same for everybody and holds no figure, so it needs no token: the page itself asks for one when
//! the API wants it. It loads nothing from elsewhere, and its Content-Security-Policy makes sure of that.
//!
//! Absent on purpose: a build step. What is in `dashboard/` is what the browser gets.

use axum::extract::Path;
use axum::extract::rejection::PathRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};

use super::error::Error;

/// No script, style or connection but our own, no frame around it: a page that can open breakers is worth clicking.
pub(super) const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; \
     img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Debug)]
pub(super) struct Asset {
    /// Below `/assets/`.
    pub(super) name: &'static str,
    pub(super) content_type: &'static str,
    pub(super) text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";
const STYLE: &str = "text/css; charset=utf-8";
const IMAGE: &str = "image/svg+xml";

macro_rules! asset {
    ($name:literal, $content_type:expr) => {
        Asset { name: $name, content_type: $content_type, text: include_str!(concat!("dashboard/", $name)) }
    };
}

const PAGE: Asset = asset!("index.html", HTML);

pub(super) const ASSETS: &[Asset] = &[
    asset!("icon.svg", IMAGE),
    asset!("base.css", STYLE),
    asset!("board.css", STYLE),
    asset!("detail.css", STYLE),
    asset!("main.js", SCRIPT),
    asset!("api.js", SCRIPT),
    asset!("stream.js", SCRIPT),
    asset!("store.js", SCRIPT),
    asset!("board.js", SCRIPT),
    asset!("tile.js", SCRIPT),
    asset!("detail.js", SCRIPT),
    asset!("trip.js", SCRIPT),
    asset!("causes.js", SCRIPT),
    asset!("chart.js", SCRIPT),
    asset!("timeline.js", SCRIPT),
    asset!("controls.js", SCRIPT),
    asset!("dialog.js", SCRIPT),
    asset!("dom.js", SCRIPT),
    asset!("format.js", SCRIPT),
    asset!("vendor/uPlot.iife.min.js", SCRIPT),
    asset!("vendor/uPlot.min.css", STYLE),
    asset!("vendor/uPlot.LICENSE", "text/plain; charset=utf-8"),
];

/// `GET /`.
pub(super) async fn page(headers: HeaderMap) -> Response {
    answer(&PAGE, &headers)
}

/// `GET /assets/{name}`.
pub(super) async fn asset(name: Result<Path<String>, PathRejection>, headers: HeaderMap) -> Response {
    let found = name.ok().and_then(|Path(name)| ASSETS.iter().find(|asset| asset.name == name));
    match found {
        Some(asset) => answer(asset, &headers),
        None => Error::new(StatusCode::NOT_FOUND, "the page has no such file").into_response(),
    }
}

/// The names stay the same from version to version, so a browser asks each time, and is told if nothing changed.
fn answer(asset: &Asset, headers: &HeaderMap) -> Response {
    let tag = format!("\"{:016x}\"", fnv1a(asset.text.as_bytes()));
    let known = headers.get(header::IF_NONE_MATCH).is_some_and(|known| known.as_bytes() == tag.as_bytes());
    let about = [
        (header::CONTENT_TYPE, asset.content_type),
        (header::CACHE_CONTROL, "no-cache"),
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::ETAG, &tag),
    ];
    if known {
        (StatusCode::NOT_MODIFIED, about).into_response()
    } else {
        (about, asset.text).into_response()
    }
}

/// FNV-1a, 64 bits: tells versions of a file apart, and guards nothing.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
