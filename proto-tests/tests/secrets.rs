//! No secret ever leaves: secrets are planted wherever they can pass or be written, everything is provoked that makes
//! fusewire talk, at the most talkative level, and then all that it has said anywhere is searched for them.
//!
//! What a caller of the admin API sent is not searched for in the answer to that same request.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::thread;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use proto_tests::pgwire::{self, message, startup_packet, status};
use proto_tests::postgres_server::PASSWORD;
use proto_tests::wire::{Reply, command};
use proto_tests::{Authority, Client, Fake, Fusewire, Pg, Postgres, Redis, Setup, Step};
use proto_tests::{eventually, fusewire, http, within};
use tempfile::TempDir;

const API: &str = "/api/v1/circuit-breaker";

/// What is planted, by where. Each is a word that nothing else contains.
const PLANTED: &[(&str, &str)] = &[
    ("a Redis password", REDIS_PASSWORD),
    ("a wrong Redis password", "plantedWrongPassword"),
    ("a Redis key", KEY),
    ("a Redis value", VALUE),
    ("a Redis command", "PLANTEDCOMMAND"),
    ("a Redis channel", "plantedChannel"),
    ("a Redis script", "plantedScript"),
    ("a Redis client name", "plantedClientName"),
    ("malformed Redis input", "plantedMalformed"),
    ("a Redis server's text", SERVER_TEXT),
    ("a malformed Redis reply", MALFORMED_REPLY),
    ("a Postgres password", PASSWORD),
    ("a Postgres user", "plantedUser"),
    ("a Postgres database", "plantedDatabase"),
    ("SQL text", "plantedLiteral"),
    ("a Postgres column", "planted_column"),
    ("a Postgres row", "plantedRow"),
    ("a Postgres statement name", "plantedStatement"),
    ("a Postgres password in clear text", "plantedClearText"),
    ("a Postgres server's text", PG_SERVER_TEXT),
    ("the admin token", TOKEN),
    ("a wrong admin token", "plantedWrongToken"),
    ("plain text to a TLS port", "plantedPlainText"),
];

const REDIS_PASSWORD: &str = "plantedRedisPassword";
const KEY: &str = "plantedKey";
const VALUE: &str = "plantedValue";
const SERVER_TEXT: &str = "plantedServerText";
const MALFORMED_REPLY: &str = "plantedMalformedReply";
const PG_SERVER_TEXT: &str = "plantedPostgresText";
const TOKEN: &str = "plantedAdminToken";

/// The forms in which bytes are printed by accident: as they are, as hex digits, as a list of numbers, in base64 (any
/// of the three ways in which it can fall).
fn forms(secret: &str) -> Vec<String> {
    let bytes = secret.as_bytes();
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let list = bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(", ");
    let based = (0..3).map(|shift| {
        let padded = [&vec![b' '; shift][..], bytes].concat();
        let whole = &padded[..padded.len() / 3 * 3];
        BASE64.encode(whole)[if shift == 0 { 0 } else { 4 }..].to_owned()
    });
    // A shorter piece might be anybody's.
    let based = based.filter(|piece| piece.len() >= 8);
    [secret.to_owned(), hex.to_uppercase(), hex, list].into_iter().chain(based).collect()
}

/// Which of the secrets a text gives away.
fn leaks(text: &str, secrets: &BTreeMap<String, String>) -> Vec<String> {
    let leaked = |secret: &&String| forms(secret).iter().any(|form| text.contains(form.as_str()));
    secrets.iter().filter(|(_, secret)| leaked(secret)).map(|(what, _)| what.clone()).collect()
}

fn planted() -> BTreeMap<String, String> {
    PLANTED.iter().map(|(what, secret)| ((*what).to_owned(), (*secret).to_owned())).collect()
}

#[test]
fn the_search_finds_a_secret_in_every_form_that_it_may_be_printed_in() {
    let secrets = planted();
    let of = |text: &str| leaks(text, &secrets);
    assert_eq!(of(&format!("a {KEY} b")), ["a Redis key"]);
    assert_eq!(of(&format!("{:?}", KEY.as_bytes())), ["a Redis key"]);
    assert_eq!(of(&format!("{:02x?}", KEY.as_bytes()).replace(", ", "")), ["a Redis key"]);
    for before in ["", "x", "xy", "xyz"] {
        assert_eq!(of(&BASE64.encode(format!("{before}{TOKEN}z"))), ["the admin token"], "{before}");
    }
    assert!(of("nothing").is_empty());
}

/// A fusewire in front of everything, and what it is asked with.
struct Scene {
    proxy: Fusewire,
    redis: Redis,
    postgres: Postgres,
    token_file: PathBuf,
    secrets: BTreeMap<String, String>,
    authority: Authority,
    _fakes: Vec<Fake>,
    _dir: TempDir,
}

impl Scene {
    fn start(text_log: bool) -> Self {
        let dir = TempDir::with_prefix("fusewire-secrets-").expect("a temporary directory");
        let token_file = dir.path().join("token");
        fs::write(&token_file, TOKEN).expect("a file");
        let authority = Authority::new();
        let (front, own) = (authority.issue("front"), authority.issue("own"));
        let mut secrets = planted();
        for (name, cert) in [("the key of tls_cert", &front), ("the key of upstream_cert", &own)] {
            let pem = fs::read_to_string(&cert.key).expect("a key");
            secrets.insert(name.to_owned(), pem.lines().nth(1).expect("a line of a key").to_owned());
        }
        let redis = Redis::with(&["--requirepass", REDIS_PASSWORD]);
        let postgres = Postgres::start();
        let answers =
            |text: String| vec![Step::Await(b"GET".to_vec()), Step::Send(text.into_bytes()), Step::Silence];
        let loading = Fake::scripts(vec![
            answers(format!("?{MALFORMED_REPLY}\r\n")),
            answers(format!("-LOADING {SERVER_TEXT}\r\n")),
        ]);
        let refusing = Fake::start(vec![
            Step::AwaitLength(20),
            Step::Send(message(b'R', &3_u32.to_be_bytes())),
            Step::Await(b"plantedClearText".to_vec()),
            Step::Send(message(
                b'E',
                format!("SFATAL\0VFATAL\0C57P03\0M{PG_SERVER_TEXT}\0D{PG_SERVER_TEXT}\0\0").as_bytes(),
            )),
            Step::Close,
        ]);
        let touchy = "failure-threshold=1,recovery-timeout=1h";
        let shows = format!("upstream-tls=require,{}", own.spec("upstream-cert", "upstream-key"));
        let mut setup = Setup::default()
            .redis("cache", redis.addr(), touchy)
            .redis("loading", loading.addr(), touchy)
            .redis("tls", redis.addr(), &front.spec("tls-cert", "tls-key"))
            .redis("upstream-tls", redis.addr(), &format!("{touchy},{shows}"))
            .postgres("db", postgres.addr(), touchy)
            .postgres("refusing", refusing.addr(), touchy)
            .args(&["--log-level", "trace", "--admin-token-file"])
            .arg(token_file.to_str().expect("a path"));
        if text_log {
            setup = setup.text_log();
        }
        let proxy = setup.start();
        let _fakes = vec![loading, refusing];
        Self { proxy, redis, postgres, token_file, secrets, authority, _fakes, _dir: dir }
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> String {
        let bearer = format!("Bearer {TOKEN}");
        let headers = [("Authorization", bearer.as_str())];
        let answer = http::request(self.proxy.admin(), method, path, &headers, body).expect("an answer");
        format!("{method} {path}: {answer:?}")
    }

    fn await_state(&self, name: &str, state: &str) {
        eventually(&format!("'{name}' to be {state}"), || {
            let answer = self.ask("GET", &format!("{API}/status/{name}"), "");
            if answer.contains(&format!("\\\"state\\\":\\\"{state}\\\"")) { Ok(()) } else { Err(answer) }
        });
    }

    /// Everything that a Redis client can say, to a server that answers, dies, and is rejected.
    fn redis_traffic(&mut self) {
        let addr = self.proxy.addr("cache");
        let mut client = Client::connect(addr);
        assert!(client.call(&["AUTH", "plantedWrongPassword"]).error().starts_with("WRONGPASS"));
        assert_eq!(client.call(&["AUTH", REDIS_PASSWORD]), Reply::simple("OK"));
        assert!(client.call(&["PLANTEDCOMMAND", KEY, VALUE]).error().contains(KEY));
        assert_eq!(client.call(&["SET", KEY, VALUE]), Reply::simple("OK"));
        assert!(client.call(&["LPUSH", KEY, VALUE]).error().starts_with("WRONGTYPE"));
        let script = format!("return redis.error_reply('plantedScript {KEY}')");
        assert!(client.call(&["EVAL", &script, "0"]).error().contains("plantedScript"));
        let hello = ["HELLO", "3", "AUTH", "default", REDIS_PASSWORD, "SETNAME", "plantedClientName"];
        assert!(matches!(client.call(&hello), Reply::Many(b'%', _)));
        client.call(&["SUBSCRIBE", "plantedChannel"]);
        for input in [&b"*1\r\n$4\r\nPINGplantedMalformed"[..], b"SET \"plantedMalformed\r\n"] {
            let mut wrong = Client::connect(addr);
            wrong.send(input);
            wrong.rest();
        }
        let mut waiting = Client::connect(addr);
        assert_eq!(waiting.call(&["AUTH", REDIS_PASSWORD]), Reply::simple("OK"));
        waiting.command(&["BLPOP", "plantedKeyOfNobody", "0"]);
        eventually("a client that waits", || {
            let mut direct = self.redis.client();
            direct.call(&["AUTH", REDIS_PASSWORD]);
            match direct.call(&["INFO", "clients"]) {
                Reply::Bulk(text) if String::from_utf8_lossy(&text).contains("blocked_clients:1") => Ok(()),
                other => Err(format!("{other:?}")),
            }
        });
        self.redis.kill();
        self.await_state("cache", "open");
        let mut rejected = Client::connect(addr);
        let commands: [&[&str]; 4] =
            [&["AUTH", REDIS_PASSWORD], &["SET", KEY, VALUE], &["GET", KEY], &["EVAL", &script, "0"]];
        for args in commands {
            assert!(rejected.call(args).error().starts_with("CIRCUITOPEN"), "{args:?}");
        }
        self.redis.restart();
        let mut malformed = Client::connect(self.proxy.addr("loading"));
        malformed.command(&["GET", KEY]);
        assert!(malformed.line().contains(MALFORMED_REPLY));
        let mut fake = Client::connect(self.proxy.addr("loading"));
        assert!(fake.call(&["GET", KEY]).error().contains(SERVER_TEXT));
        self.await_state("loading", "open");
    }

    /// The same for Postgres.
    fn postgres_traffic(&mut self) {
        let addr = self.proxy.addr("db");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            for user in ["scram_user", "md5_user"] {
                let mut config = tokio_postgres::Config::new();
                config.host("127.0.0.1").port(addr.port()).user(user).dbname("postgres");
                let wrong =
                    config.clone().password("plantedWrongPassword").connect(tokio_postgres::NoTls).await;
                assert!(wrong.is_err(), "{user}");
                let connecting = config.password(PASSWORD).connect(tokio_postgres::NoTls);
                let (client, connection) = within("a login", connecting).await.expect("a login");
                let connection = tokio::spawn(connection);
                let row = client.query_one("SELECT $1::text", &[&"plantedRow"]).await.expect("a row");
                assert_eq!(row.get::<_, String>(0), "plantedRow");
                drop(client);
                connection.await.expect("no panic").expect("an orderly end");
            }
        });
        let mut stranger = Pg::connect(addr);
        assert_eq!(
            stranger.startup("plantedUser", "plantedDatabase").map_err(|error| error.code),
            Err("28000".to_owned())
        );
        let mut pg = Pg::session(addr);
        assert_eq!(pg.rows("SELECT 'plantedLiteral'").0, ["plantedLiteral"]);
        assert_eq!(pg.error("SELECT planted_column").0.code, "42703");
        pg.rows("CREATE TEMP TABLE t (planted_column text PRIMARY KEY); INSERT INTO t VALUES ('plantedRow')");
        assert!(pg.error("INSERT INTO t VALUES ('plantedRow')").0.detail.contains("plantedRow"));
        assert_eq!(
            pg.error("DO $$ BEGIN RAISE 'plantedLiteral' USING ERRCODE = '53300'; END $$").0.code,
            "53300"
        );
        pg.send(&[pgwire::parse("plantedStatement", "SELECT 'plantedLiteral'"), pgwire::sync()].concat());
        assert_eq!(status(&pg.until_ready()), 'I');
        pg.query("NOTIFY plantedChannel, 'plantedRow'");
        let mut wrong = Pg::connect(addr);
        wrong.send(b"plantedMalformed plantedMalformed");
        wrong.raw.rest();
        let mut idle = Pg::session(addr);
        pg.send(&pgwire::query("SELECT pg_sleep(60), 'plantedLiteral'"));
        eventually("a running query", || {
            let running =
                self.postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'");
            // The question itself is one of them.
            if running == "2" { Ok(()) } else { Err(running) }
        });
        self.ask("POST", &format!("{API}/trip/db"), "");
        let (error, _) = idle.error("SELECT 'plantedLiteral' FROM planted_column");
        assert_eq!(error.code, "57000");
        let mut refused = Pg::connect(addr);
        let code = refused.startup("plantedUser", "plantedDatabase").map_err(|error| error.code);
        assert_eq!(code, Err("57P03".to_owned()));
        self.postgres.kill();
        pg.raw.rest();
        let mut fake = Pg::connect(self.proxy.addr("refusing"));
        fake.send(&startup_packet("plantedUser", "plantedDatabase"));
        assert_eq!(fake.receive().map(|message| message.tag), Some(b'R'));
        fake.send(&message(b'p', b"plantedClearText\0"));
        assert!(fake.receive().expect("an error").error().message.contains(PG_SERVER_TEXT));
        self.await_state("refusing", "open");
    }

    /// Both legs of TLS, well and badly.
    fn tls_traffic(&self) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            use tokio::io::{AsyncReadExt, AsyncWriteExt};
            let mut client = self.authority.connect(self.proxy.addr("tls")).await.expect("a handshake");
            client.write_all(&command(&["AUTH", REDIS_PASSWORD])).await.expect("a connection");
            let mut answer = [0; 5];
            within("an answer", client.read_exact(&mut answer)).await.expect("an answer");
            assert_eq!(&answer, b"+OK\r\n");
        });
        let mut plain = Client::connect(self.proxy.addr("tls"));
        plain.send(b"plantedPlainText\r\n");
        plain.rest();
        let mut failing = Client::connect(self.proxy.addr("upstream-tls"));
        assert!(failing.call(&["GET", KEY]).error().starts_with("ERR "));
        self.await_state("upstream-tls", "open");
    }

    /// Every answer of the admin API, by who asks.
    fn answers(&self) -> Vec<String> {
        let index: serde_json::Value = {
            let bearer = format!("Bearer {TOKEN}");
            let headers = [("Authorization", bearer.as_str())];
            http::request(self.proxy.admin(), "GET", "/api/v1", &headers, "").expect("an answer").json()
        };
        let paths = index["get"].as_array().expect("the paths to read").iter();
        let mut all = Vec::new();
        for path in paths.map(|path| path.as_str().expect("a path")) {
            if path.contains("{name}") {
                for name in ["cache", "loading", "tls", "upstream-tls", "db", "refusing"] {
                    all.push(self.ask("GET", &path.replace("{name}", name), ""));
                }
            } else {
                all.push(self.ask("GET", path, ""));
            }
        }
        assert!(all.len() > 12, "{all:#?}");
        for path in ["trip/cache?for=1h", "observe/db", "enforce/db", "disable/tls", "reset/tls", "reset-all"]
        {
            all.push(self.ask("POST", &format!("{API}/{path}"), ""));
        }
        all.push(self.ask("PATCH", &format!("{API}/config/cache"), r#"{"failure_threshold": 3}"#));
        all.push(self.ask("POST", "/api/v1/config/reload", ""));
        let wrong = [("Authorization", "Bearer plantedWrongToken")];
        let refused = http::request(self.proxy.admin(), "GET", &format!("{API}/status"), &wrong, "");
        let refused = refused.expect("an answer");
        assert_eq!(refused.status, 401);
        all.push(format!("{refused:?}"));
        all
    }

    /// What the command line shows.
    fn commands(&self) -> Vec<String> {
        let (admin, token) = (self.proxy.admin().to_string(), self.token_file.display().to_string());
        let all: [&[&str]; 4] =
            [&["status"], &["status", "cache"], &["status", "--json"], &["status", "db", "--json"]];
        let run = |args: &&[&str]| {
            let output = fusewire::once(&[*args, &["--admin", &admin, "--token-file", &token]].concat());
            assert!(output.status.success(), "{output:?}");
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
        };
        all.iter().map(run).collect()
    }

    #[track_caller]
    fn assert_kept(&self, where_: &str, texts: &[String]) {
        for text in texts {
            let leaked = leaks(text, &self.secrets);
            assert!(leaked.is_empty(), "{where_} gives away {leaked:?}: {text}");
        }
    }
}

fn nothing_planted_is_ever_said(text_log: bool) {
    let mut scene = Scene::start(text_log);
    let events = follow_events(scene.proxy.admin());
    scene.redis_traffic();
    scene.postgres_traffic();
    scene.tls_traffic();
    let answers = scene.answers();
    scene.assert_kept("the admin API", &answers);
    scene.assert_kept("the command line", &scene.commands());
    let of_process = |name: &str| {
        let bytes = fs::read(format!("/proc/{}/{name}", scene.proxy.pid())).expect("a running process");
        String::from_utf8_lossy(&bytes).replace('\0', " ")
    };
    scene.assert_kept("the list of processes", &[of_process("cmdline"), of_process("environ")]);
    scene.proxy.signal(proto_tests::process::Signal::TERM);
    scene.proxy.wait();
    let events = events.join().expect("the events");
    assert!(events.matches("event:").count() > 2 && events.contains("open"), "{events}");
    scene.assert_kept("the stream of events", &[events]);
    let log = scene.proxy.log();
    assert!(log.iter().any(|line| line.contains("transitioned from CLOSED to OPEN")), "{log:#?}");
    assert!(log.iter().any(|line| line.contains("DEBUG")), "nothing was logged below INFO: {log:#?}");
    scene.assert_kept("the log", &log);
}

/// Reads the live feed to its end.
fn follow_events(admin: SocketAddr) -> thread::JoinHandle<String> {
    let mut client = Client::connect(admin);
    let host =
        format!("GET /api/v1/events HTTP/1.1\r\nHost: {admin}\r\nAuthorization: Bearer {TOKEN}\r\n\r\n");
    client.send(host.as_bytes());
    thread::spawn(move || String::from_utf8_lossy(&client.rest()).into_owned())
}

#[test]
fn nothing_planted_is_ever_said_in_a_text_log() {
    nothing_planted_is_ever_said(true);
}

#[test]
fn nothing_planted_is_ever_said_in_a_json_log() {
    nothing_planted_is_ever_said(false);
}

/// Arguments, and a variable of the environment.
type Invocation = (Vec<String>, Option<(&'static str, String)>);

#[test]
fn a_mistake_in_the_configuration_does_not_repeat_a_credential() {
    const SECRET: &str = "plantedCredential";
    let dir = TempDir::with_prefix("fusewire-secrets-").expect("a temporary directory");
    let backend = "[[backend]]\nprotocol = \"redis\"\n";
    let files = [
        format!("{backend}upstream = \"redis://default:{SECRET}@10.0.0.5:6379\"\n"),
        format!("{backend}upstream = \"10.0.0.5:6379\"\npassword = \"{SECRET}\"\n"),
        format!("{backend}upstream = \"10.0.0.5:6379\"\npassword = \"{SECRET}\n"),
        format!("admin_token = \"{SECRET}\"\n{backend}upstream = \"10.0.0.5:6379\"\n"),
        format!("{backend}upstream = [\"redis://default:{SECRET}@10.0.0.5:6379\"]\n"),
    ];
    let mut runs: Vec<Invocation> = Vec::new();
    for (n, text) in files.iter().enumerate() {
        let path = dir.path().join(format!("{n}.toml"));
        fs::File::create(&path).and_then(|mut file| file.write_all(text.as_bytes())).expect("a file");
        runs.push((vec!["--config".to_owned(), path.display().to_string()], None));
    }
    let spec = |text: String| (vec!["--redis".to_owned(), text], None);
    runs.push(spec(format!("upstream=redis://default:{SECRET}@10.0.0.5:6379")));
    runs.push(spec(format!("default:{SECRET}@10.0.0.5:6379")));
    runs.push(spec(format!("upstream=10.0.0.5:6379,password={SECRET}")));
    let good = || vec!["--redis".to_owned(), "upstream=10.0.0.5:6379".to_owned()];
    runs.push((good(), Some(("FUSEWIRE_ADMIN_TOKEN", SECRET.to_owned()))));
    runs.push((good(), Some(("FUSEWIRE_PASSWORD", SECRET.to_owned()))));
    runs.push((good(), Some(("FUSEWIRE_POSTGRES", format!("upstream=postgres://u:{SECRET}@h:5432/d")))));
    let secrets = BTreeMap::from([("a credential".to_owned(), SECRET.to_owned())]);
    for (args, variable) in runs {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        for mode in ["check", "run"] {
            let mut command: Command = fusewire::command(&[&[mode][..], &args, &["--admin", "off"]].concat());
            command.envs(variable.clone());
            if mode == "run" {
                // One that is valid must not stay: a port that nobody may listen on ends it.
                command.args(["--redis", "name=nowhere,listen=203.0.113.1:1,upstream=10.0.0.5:6379"]);
            }
            let output = proto_tests::tools::run(&mut command);
            let text = format!(
                "{}{}",
                String::from_utf8_lossy(&output.stdout),
                String::from_utf8_lossy(&output.stderr)
            );
            assert!(!text.is_empty());
            assert!(leaks(&text, &secrets).is_empty(), "{mode} {args:?} {variable:?}: {text}");
        }
    }
}

#[test]
fn no_core_is_dumped_whatever_limit_it_was_started_with() {
    let proxy = Setup::default()
        .redis("cache", "127.0.0.1:1", "")
        .launched_by(&["prlimit", "--core=unlimited:unlimited"])
        .start();
    let limits = fs::read_to_string(format!("/proc/{}/limits", proxy.pid())).expect("a running process");
    let core = limits.lines().find(|line| line.starts_with("Max core file size")).expect("a limit");
    assert_eq!(core.split_whitespace().nth(4), Some("0"), "{core}");
    proxy.stop();
}
