//! The page's files: what is served, under which rules, and that nothing comes from elsewhere.

use std::path::{Path, PathBuf};

use super::super::dashboard::{ASSETS, POLICY};
use super::*;

/// A namespace is a name, not an address: nobody fetches it.
const NAMESPACE: &str = "http://www.w3.org/2000/svg";

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src/admin/dashboard")
}

fn files(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

#[tokio::test]
async fn the_page_comes_with_a_policy_that_lets_nothing_else_in() {
    let page = get(&state(), "/").await;
    assert_eq!(page.status, 200);
    assert_eq!(page.headers[header::CONTENT_TYPE], "text/html; charset=utf-8");
    assert_eq!(page.headers[header::X_CONTENT_TYPE_OPTIONS], "nosniff");
    assert_eq!(page.headers[header::CONTENT_SECURITY_POLICY], POLICY);
    for rule in [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self' data:",
        "frame-ancestors 'none'",
    ] {
        assert!(POLICY.split("; ").any(|own| own == rule), "{rule}");
    }
    assert!(!POLICY.contains("unsafe") && !POLICY.contains('*'), "{POLICY}");
}

#[tokio::test]
async fn every_asset_has_the_type_of_its_name() {
    let state = state();
    for asset in ASSETS {
        let answer = get(&state, &format!("/assets/{}", asset.name)).await;
        assert_eq!(answer.status, 200, "{}", asset.name);
        let expected = match asset.name.rsplit('.').next().unwrap() {
            "js" => "text/javascript; charset=utf-8",
            "css" => "text/css; charset=utf-8",
            "svg" => "image/svg+xml",
            _ => "text/plain; charset=utf-8",
        };
        assert_eq!(answer.headers[header::CONTENT_TYPE], expected, "{}", asset.name);
        assert_eq!(answer.headers[header::CONTENT_SECURITY_POLICY], POLICY);
        assert!(!answer.text.is_empty(), "{}", asset.name);
    }
}

#[tokio::test]
async fn what_a_browser_has_already_is_not_sent_again() {
    let state = state();
    let first = get(&state, "/assets/main.js").await;
    assert_eq!(first.headers[header::CACHE_CONTROL], "no-cache");
    let tag = first.headers[header::ETAG].to_str().unwrap();
    let again = |tag| request("GET", "/assets/main.js", &[("if-none-match", tag)], "");
    let known = ask(&routes(&state), again(tag), tcp_peer()).await;
    assert_eq!((known.status, known.text.as_str()), (StatusCode::NOT_MODIFIED, ""));
    assert_eq!(ask(&routes(&state), again("\"0000000000000000\""), tcp_peer()).await.status, 200);
    let other = get(&state, "/assets/api.js").await;
    assert_ne!(other.headers[header::ETAG], first.headers[header::ETAG]);
}

#[tokio::test]
async fn a_file_that_is_not_the_pages_is_not_served() {
    let state = state();
    for path in [
        "/assets/",
        "/assets/nope.js",
        "/assets/../Cargo.toml",
        "/assets/%2e%2e/mod.rs",
        "/assets/index.html",
    ] {
        get(&state, path).await.error(404);
    }
}

#[test]
fn every_file_is_served_and_every_reference_leads_to_one() {
    let names: Vec<_> = ASSETS.iter().map(|asset| asset.name).collect();
    for file in files(&directory()) {
        let name = file.strip_prefix(directory()).unwrap().to_str().unwrap().to_owned();
        assert!(name == "index.html" || names.contains(&name.as_str()), "{name} is not served");
        let text = std::fs::read_to_string(&file).unwrap();
        let quoted = |opening: &'static str| {
            text.split(opening)
                .skip(1)
                .map(|rest| rest.split('"').next().unwrap().to_owned())
                .collect::<Vec<_>>()
        };
        let mut references = quoted("\"/assets/");
        if name.ends_with(".js") && !name.starts_with("vendor/") {
            references.extend(quoted("from \"./"));
        }
        for reference in references {
            assert!(names.contains(&reference.as_str()), "{name} refers to {reference}");
        }
    }
}

#[test]
fn nothing_in_the_page_names_another_host() {
    for file in files(&directory()) {
        let text = std::fs::read_to_string(&file).unwrap().replace(NAMESPACE, "");
        if file.extension().is_some_and(|extension| extension == "LICENSE") {
            continue;
        }
        for (number, line) in text.lines().enumerate() {
            // uPlot's own first line says where it is from.
            let licence = number == 0 && line.starts_with("/*!") && line.ends_with("*/");
            for scheme in ["http://", "https://", "ws://", "wss://", "=\"//", "url(//", "@import"] {
                assert!(licence || !line.contains(scheme), "{}: {line}", file.display());
            }
        }
    }
}

#[test]
fn the_page_has_no_script_and_no_style_of_its_own_in_line() {
    let page = std::fs::read_to_string(directory().join("index.html")).unwrap();
    for forbidden in ["<style", "style=", "<script>", " onclick=", " onload=", "javascript:"] {
        assert!(!page.contains(forbidden), "{forbidden}");
    }
    for asset in
        ASSETS.iter().filter(|asset| !asset.name.starts_with("vendor/") && asset.name.ends_with(".js"))
    {
        for forbidden in
            ["innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "localStorage"]
        {
            assert!(!asset.text.contains(forbidden), "{}: {forbidden}", asset.name);
        }
    }
}

#[tokio::test]
async fn the_page_needs_no_token_but_what_it_shows_does() {
    let access = Access { hosts: Vec::new(), token: Token::new("s3cret") };
    let state = state_with(access);
    assert_eq!(get(&state, "/").await.status, 200);
    assert_eq!(get(&state, "/assets/main.js").await.status, 200);
    for path in ["/api/v1", "/api/v1/events", "/api/v1/history", "/assets", "/index.html"] {
        get(&state, path).await.error(401);
    }
    let foreign = request("GET", "/", &[("host", "evil.example")], "");
    ask(&routes(&state), foreign, tcp_peer()).await.error(403);
}
