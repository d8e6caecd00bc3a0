//! The dashboard in a real browser: what an operator sees, without ever reloading, and what the levers do.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use fusewire::admin::{self, Access, Token};
use fusewire::backends::Backends;
use fusewire::config::{self, Endpoint, args::Inputs};
use proto_tests::{Browser, Client, Fusewire, Pg, Redis, Setup};
use tokio_util::sync::CancellationToken;

/// Two backends: `cache` in front of this Redis, `db` in front of nobody.
fn proxy_for(redis: SocketAddr) -> Fusewire {
    let nobody = SocketAddr::from((Ipv4Addr::LOCALHOST, proto_tests::tools::free_port()));
    Setup::default()
        .redis("cache", redis, "recovery-timeout=1h")
        .postgres("db", nobody, "recovery-timeout=1h")
        .start()
}

async fn open(proxy: &Fusewire, fragment: &str) -> Browser {
    let browser = Browser::start().await;
    browser.open(&format!("http://{}/{fragment}", proxy.admin())).await;
    browser.until("document.querySelectorAll('.tile').length === 2").await;
    browser
}

/// An expression: what state a backend's tile shows, in its words.
fn shows(name: &str, word: &str) -> String {
    format!("document.querySelector(\"[data-name='{name}'] .word\")?.textContent === '{word}'")
}

/// The page did nothing that its own policy forbids, and none of its scripts threw. A refused request is logged by
/// the browser too: those are expected where a test provokes them.
async fn assert_clean(browser: &Browser, expected: &str) {
    let console = browser.console().await;
    let bad: Vec<_> = console.iter().filter(|line| expected.is_empty() || !line.contains(expected)).collect();
    assert!(bad.is_empty(), "{bad:#?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_the_backends_and_a_trip_without_a_reload() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let browser = open(&proxy, "").await;
    browser.until(&shows("cache", "Closed")).await;
    browser.until(&shows("db", "Closed")).await;
    browser.until("document.querySelector('#summary').textContent === 'All 2 closed'").await;
    // A reload would lose it.
    browser.eval("window.witness = 'same page'").await;

    proxy.post("/api/v1/circuit-breaker/trip/db?for=1h");
    browser.until(&shows("db", "Open")).await;
    browser.until("document.querySelector('#summary').textContent === '1 open of 2'").await;
    browser.until("document.querySelector('.tile').querySelector('.name').textContent === 'db'").await;
    browser
        .until("document.querySelector(\"[data-name='db'] .next\").textContent.startsWith('next probe in ')")
        .await;
    browser.until("document.querySelector('#announcer').textContent.startsWith('db is now open')").await;
    assert_eq!(browser.eval("document.title").await, "(1 open) fusewire");
    browser.click("[data-name='db']").await;
    browser
        .until("document.querySelector('.verdict')?.textContent === 'An operator opened it by hand.'")
        .await;
    assert_eq!(browser.eval("window.witness").await, "same page");
    assert_clean(&browser, "").await;
    browser.close().await;
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_redis_is_shown_with_its_cause_and_reset_by_a_confirmed_click() {
    let mut redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let browser = open(&proxy, "#cache").await;
    browser.until("document.querySelector('.calm')?.textContent.startsWith('It has not tripped')").await;

    redis.kill();
    for _ in 0..5 {
        let mut client = Client::connect(proxy.addr("cache"));
        client.command(&["GET", "k"]);
        client.rest();
    }
    browser.until(&shows("cache", "Open")).await;
    browser
        .until("document.querySelector('.why').textContent.includes('Nobody accepts connections at')")
        .await;
    assert_eq!(browser.eval("document.querySelectorAll('.evidence tbody tr').length").await, 5);
    browser.until("document.querySelector('.caused').textContent.includes('connection refused5')").await;

    browser.until("document.querySelector('[data-lever=reset]') !== null").await;
    browser.click("[data-lever=reset]").await;
    browser.click("dialog [value=cancel]").await;
    browser.until("document.querySelector('dialog') === null").await;
    assert_eq!(proxy.state("cache"), "open", "a cancelled reset resets nothing");
    browser.click("[data-lever=reset]").await;
    browser.click("dialog [value=proceed]").await;
    browser.until(&shows("cache", "Closed")).await;
    assert_eq!(proxy.state("cache"), "closed");

    browser.click("[data-lever=trip]").await;
    browser.click("dialog [value=proceed]").await;
    browser.until(&shows("cache", "Open")).await;
    browser
        .until("document.querySelector(\"[data-name='cache'] .next\").textContent === 'until reset'")
        .await;
    assert_clean(&browser, "").await;
    browser.close().await;
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tile_and_a_sentence_say_why_it_is_open_and_when_it_tries_again() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    for _ in 0..5 {
        Pg::refused(proxy.addr("db"));
    }
    proxy.await_state("db", "open");
    let browser = open(&proxy, "#db").await;
    browser
        .until("document.querySelector(\"[data-name='db'] .because\").textContent === 'connection refused'")
        .await;
    assert_eq!(
        browser.eval("document.querySelector(\"[data-name='cache'] .because\").textContent").await,
        ""
    );
    browser
        .until(
            "/^It opened .+ ago because calls kept failing \\(connection refused\\)\\. Calls get an error at once instead of \
             waiting for Postgres\\. In .+ one call is let through as a test/.test(\
             document.querySelector('.consequence').textContent)",
        )
        .await;
    proxy.post("/api/v1/circuit-breaker/reset/db");
    browser.until("document.querySelector(\"[data-name='db'] .because\").textContent === ''").await;
    proxy.post("/api/v1/circuit-breaker/trip/db");
    browser
        .until("document.querySelector(\"[data-name='db'] .because\").textContent === 'opened by hand'")
        .await;
    assert_clean(&browser, "").await;
    browser.close().await;
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_is_enough() {
    const ENTER: &str = "\u{E007}";
    const ESCAPE: &str = "\u{E00C}";
    const RIGHT: &str = "\u{E014}";
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let browser = open(&proxy, "#all").await;
    let focus = "document.activeElement.dataset.name ?? document.activeElement.id";
    browser.type_into("[data-name='cache']", RIGHT).await;
    browser.until(&format!("({focus}) === 'db'")).await;
    browser.type_into(":focus", ENTER).await;
    browser.until(&format!("({focus}) === 'detail-name'")).await;
    browser.until("document.querySelector('#detail-name').textContent.startsWith('db')").await;
    // The controls are the next stop but the way back.
    browser.until("document.querySelector('[data-lever=trip]') !== null").await;
    browser.type_into("[data-lever=trip]", ENTER).await;
    browser.until("document.querySelector('dialog') !== null").await;
    browser.type_into("dialog [value=proceed]", ENTER).await;
    browser.until(&shows("db", "Open")).await;
    browser.until("document.querySelector('dialog') === null").await;
    browser.type_into("body", ESCAPE).await;
    browser.until(&format!("({focus}) === 'db'")).await;
    assert_clean(&browser, "").await;
    browser.close().await;
    proxy.stop();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_leaves_what_it_asks_for() {
    let redis = Redis::start();
    let proxy = proxy_for(redis.addr());
    let browser = open(&proxy, "#all").await;
    browser.type_into("#search", "CA").await;
    browser.until("document.querySelectorAll('.tile').length === 1").await;
    browser.until(&shows("cache", "Closed")).await;
    browser.type_into("#search", "x").await;
    browser.until("!document.querySelector('#nothing').hidden").await;
    assert_clean(&browser, "").await;
    browser.close().await;
    proxy.stop();
}

/// The admin API alone, in this process: the binary has no setting for a token.
struct Protected {
    url: String,
    over: CancellationToken,
    task: tokio::task::JoinHandle<()>,
}

impl Protected {
    async fn start(token: &str) -> Self {
        let inputs =
            Inputs { redis: vec!["name=cache,upstream=127.0.0.1:1".to_owned()], ..Inputs::default() };
        let config = config::load(&inputs, &config::Env::new()).expect("a configuration");
        let access = Access { hosts: Vec::new(), token: Token::new(token) };
        let state =
            admin::State::new(Arc::new(Backends::new(&config, Instant::now())), access, None, Vec::new());
        let any = Endpoint::Tcp { host: "127.0.0.1".into(), port: 0 };
        let bound = admin::bind(&any).await.expect("a port");
        let (url, over) = (format!("http://{}/", bound.endpoint()), CancellationToken::new());
        let task = tokio::spawn(admin::serve(bound, state, over.clone()));
        Self { url, over, task }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_is_asked_for_refused_and_accepted() {
    let api = Protected::start("s3cret").await;
    let browser = Browser::start().await;
    browser.open(&api.url).await;
    browser.until("document.querySelector('dialog #token') !== null").await;
    assert_eq!(browser.eval("document.querySelectorAll('.tile').length").await, 0);
    browser.type_into("#token", "wrong").await;
    browser.click("dialog [value=proceed]").await;
    browser.until("document.querySelector('dialog .refusal') !== null").await;
    browser.type_into("#token", "s3cret").await;
    browser.click("dialog [value=proceed]").await;
    browser.until(&shows("cache", "Closed")).await;
    let kept = "Object.values(sessionStorage).join() + '|' + Object.values(localStorage).join() + '|' + document.cookie";
    assert_eq!(browser.eval(kept).await, "s3cret||");
    assert_eq!(browser.eval("location.href.includes('s3cret')").await, false);

    browser.until("document.querySelector('[data-lever=trip]') !== null").await;
    browser.click("[data-lever=trip]").await;
    browser.click("dialog [value=proceed]").await;
    browser.until(&shows("cache", "Open")).await;
    assert_clean(&browser, "401 (Unauthorized)").await;
    browser.close().await;
    api.over.cancel();
    api.task.await.expect("an orderly end");
}
