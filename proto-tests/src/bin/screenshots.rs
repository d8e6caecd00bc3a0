//! Pictures of the dashboard at work: real servers, real traffic, one outage that is over and one that is not.
//!
//! `screenshots DIRECTORY [SECONDS]` writes the PNGs after so many seconds of traffic (150 without a word), so that the charts
//! have something to show. Absent on purpose: assertions. What must hold is tested in tests/dashboard.rs.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use proto_tests::{Browser, Fusewire, Postgres, Redis, Setup};
use serde_json::json;
use tokio_postgres::{Config, NoTls};

/// The page has figures and its charts are drawn.
const DRAWN: &str = "document.querySelector('canvas') !== null \
     && document.querySelector('#link').dataset.state === 'live' \
     && document.querySelector('.figures dd').textContent !== '–'";

const DESKTOP: Look = Look { width: 1280, height: 1000, scale: 1.0, dark: false };
const PHONE: Look = Look { width: 390, height: 844, scale: 2.0, dark: false };

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1);
    let directory = args.next().unwrap_or_else(|| "docs/images".to_owned());
    let seconds = args.next().and_then(|text| text.parse().ok()).unwrap_or(150.0);
    let directory = Path::new(&directory);
    std::fs::create_dir_all(directory).expect("the directory for the pictures");

    let (mut cache, mut sessions, limits) = (Redis::start(), Redis::start(), Redis::start());
    let postgres = Postgres::start();
    let proxy = Setup::default()
        .redis("cache", cache.addr(), "recovery-timeout=40s")
        .redis("sessions", sessions.addr(), "recovery-timeout=12s")
        .redis("rate-limits", limits.addr(), "")
        .postgres("orders", postgres.addr(), "")
        .postgres("reports", postgres.addr(), "")
        .start();
    let fifty = fifty(limits.addr());

    let over = Arc::new(AtomicBool::new(false));
    let callers = [("cache", 6, 3), ("sessions", 3, 6), ("rate-limits", 2, 2)];
    for (name, connections, pause) in callers {
        for number in 0..connections {
            call_redis(proxy.addr(name), Duration::from_millis(pause), number, over.clone());
        }
    }
    for number in 0..4 {
        tokio::spawn(call_postgres(proxy.addr("orders"), "select pg_sleep(0.002 + random() * 0.01)", number));
    }
    tokio::spawn(call_postgres(proxy.addr("reports"), "select pg_sleep(0.1 + random() * 0.5)", 1));
    for (number, name) in FIFTY.iter().enumerate() {
        call_redis(
            fifty.addr(name),
            Duration::from_millis(15 + number as u64 % 7 * 12),
            number,
            over.clone(),
        );
    }

    let part = |share: f64| tokio::time::sleep(Duration::from_secs_f64(seconds * share));
    part(0.30).await;
    sessions.kill();
    part(0.17).await;
    sessions.restart();
    part(0.45).await;
    cache.kill();
    part(0.08).await;

    let browser = Browser::start().await;
    for (file, proxy, hash, look) in [
        ("dashboard.png", &proxy, "", DESKTOP),
        ("dashboard-dark.png", &proxy, "", Look { dark: true, ..DESKTOP }),
        ("dashboard-recovered.png", &proxy, "#sessions", DESKTOP),
        ("dashboard-phone.png", &proxy, "#cache", Look { dark: true, ..PHONE }),
        ("dashboard-phone-board.png", &proxy, "#all", PHONE),
        ("dashboard-fifty.png", &fifty, "", DESKTOP),
    ] {
        let picture = look.at(&browser, &format!("http://{}/{hash}", proxy.admin())).await;
        std::fs::write(directory.join(file), &picture).expect("a picture");
        println!("{file}: {} KB", picture.len() / 1000);
    }
    over.store(true, Relaxed);
    browser.close().await;
}

/// A window and its colours.
#[derive(Clone, Copy)]
struct Look {
    width: u32,
    height: u32,
    scale: f64,
    dark: bool,
}

impl Look {
    /// A page as a PNG.
    async fn at(self, browser: &Browser, url: &str) -> Vec<u8> {
        let scheme = if self.dark { "dark" } else { "light" };
        let media = json!({"features": [
            {"name": "prefers-color-scheme", "value": scheme},
            {"name": "prefers-reduced-motion", "value": "reduce"},
        ]});
        browser.devtools("Emulation.setEmulatedMedia", media).await;
        let metrics = json!({
            "width": self.width, "height": self.height, "deviceScaleFactor": self.scale, "mobile": self.width < 500,
        });
        browser.devtools("Emulation.setDeviceMetricsOverride", metrics).await;
        browser.devtools("Emulation.setScrollbarsHidden", json!({"hidden": true})).await;
        // From elsewhere, or an address that differs in its fragment alone would not be loaded anew.
        browser.open("about:blank").await;
        browser.open(url).await;
        browser.until(DRAWN).await;
        // Two more snapshots, so that every chart has its size and the legend its values.
        tokio::time::sleep(Duration::from_millis(2_500)).await;
        let shot = browser.devtools("Page.captureScreenshot", json!({"format": "png"})).await;
        let data = shot["data"].as_str().expect("a picture");
        base64::engine::general_purpose::STANDARD.decode(data).expect("base64")
    }
}

/// Commands for ever, each with a pause that comes and goes in waves; a lost connection is made again.
fn call_redis(addr: SocketAddr, pause: Duration, number: usize, over: Arc<AtomicBool>) {
    thread::spawn(move || {
        let start = Instant::now();
        while !over.load(Relaxed) {
            let Ok(mut stream) = TcpStream::connect(addr) else { return };
            let mut reply = [0; 512];
            while !over.load(Relaxed) && stream.write_all(b"INCR calls\r\n").is_ok() {
                if !matches!(stream.read(&mut reply), Ok(1..)) {
                    break;
                }
                let wave = 1.0 + 0.5 * (start.elapsed().as_secs_f64() / 17.0 + number as f64).sin();
                thread::sleep(pause.mul_f64(wave));
            }
            thread::sleep(Duration::from_millis(20));
        }
    });
}

async fn call_postgres(addr: SocketAddr, query: &'static str, number: usize) {
    let mut config = Config::new();
    config.host("127.0.0.1").port(addr.port()).user("postgres").dbname("postgres");
    let start = Instant::now();
    while let Ok((client, connection)) = config.connect(NoTls).await {
        tokio::spawn(connection);
        while client.simple_query(query).await.is_ok() {
            let wave = 1.0 + 0.6 * (start.elapsed().as_secs_f64() / 23.0 + number as f64).sin();
            tokio::time::sleep(Duration::from_millis(6).mul_f64(wave)).await;
        }
    }
}

const FIFTY: [&str; 50] = [
    "accounts",
    "addresses",
    "audit",
    "baskets",
    "billing",
    "campaigns",
    "carts",
    "catalog",
    "checkout",
    "comments",
    "coupons",
    "customers",
    "delivery",
    "devices",
    "discounts",
    "documents",
    "events",
    "exports",
    "feeds",
    "flags",
    "fraud",
    "gateway",
    "geo",
    "images",
    "imports",
    "invoices",
    "ledger",
    "limits",
    "loyalty",
    "mail",
    "media",
    "messages",
    "metrics",
    "offers",
    "orders",
    "payments",
    "photos",
    "pricing",
    "profiles",
    "push",
    "queues",
    "ratings",
    "recommendations",
    "refunds",
    "reports",
    "returns",
    "search",
    "sessions",
    "stock",
    "tokens",
];

/// A proxy with fifty backends: two of them dead, and one opened by hand.
fn fifty(upstream: SocketAddr) -> Fusewire {
    let dead = format!("127.0.0.1:{}", proto_tests::tools::free_port());
    let setup = FIFTY.iter().fold(Setup::default(), |setup, name| match *name {
        "payments" | "search" => setup.redis(name, &dead, "recovery-timeout=45s"),
        _ => setup.redis(name, upstream, ""),
    });
    let proxy = setup.start();
    proxy.post("/api/v1/circuit-breaker/trip/exports");
    proxy
}
