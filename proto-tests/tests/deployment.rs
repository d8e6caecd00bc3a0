//! What deploy/ brings for systemd, containers, Kubernetes and Debian: valid by the word of whoever will read it, of one
//! mind with the documentation, and accepted by the real binary.
//!
//! Absent on purpose: an image that is built and a package that is installed. The first needs a container engine, the
//! second is `proto-tests/package.sh`.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use proto_tests::tools::{free_port, output_of, profile_dir, repository, run, tool};
use proto_tests::{Setup, fusewire, http};
use serde_json::Value;
use tempfile::TempDir;

const MANIFESTS: [&str; 2] = ["deploy/kubernetes/sidecar.yaml", "deploy/kubernetes/shared.yaml"];

/// Where the image and the package have the binary.
const BINARY: &str = "/usr/bin/fusewire";

fn path(path: &str) -> PathBuf {
    repository().join(path)
}

fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// A program of the pinned validators.
fn validator(name: &str) -> Command {
    let program = profile_dir().parent().expect("target/").join("validators/bin").join(name);
    assert!(program.is_file(), "{} is missing; proto-tests/run.sh installs it", program.display());
    Command::new(program)
}

/// The documents of a YAML file.
fn documents(name: &str) -> Vec<Value> {
    let script = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))";
    let json = output_of(validator("python").args(["-c", script]).arg(path(name)));
    serde_json::from_str(&json).expect("JSON")
}

/// The one document of a kind.
fn of_kind<'a>(all: &'a [Value], kind: &str) -> &'a Value {
    let found: Vec<_> = all.iter().filter(|document| document["kind"] == kind).collect();
    assert_eq!(found.len(), 1, "{kind}");
    found[0]
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_else(|| panic!("no text: {value}"))
}

fn list(value: &Value) -> &Vec<Value> {
    value.as_array().unwrap_or_else(|| panic!("no list: {value}"))
}

// ---- systemd ----

#[test]
fn systemd_finds_nothing_wrong_with_the_units() {
    // It looks for the program, which is not installed here.
    let dir = TempDir::new().expect("a temporary directory");
    let here = |name: &str| dir.path().join(name);
    let service = read("deploy/systemd/fusewire.service");
    let binary = fusewire::binary();
    assert!(service.contains(&format!("ExecStart={BINARY} ")));
    let service = service.replace(BINARY, binary.to_str().expect("a path"));
    fs::write(here("fusewire.service"), service).expect("a file");
    fs::write(here("fusewire@cache.socket"), read("deploy/systemd/fusewire@.socket")).expect("a file");
    let output = run(Command::new(tool("systemd-analyze"))
        .args(["verify", "--man=no", "--recursive-errors=no"])
        .args([here("fusewire.service"), here("fusewire@cache.socket")]));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && said.is_empty(), "{}: {said}", output.status);
}

#[test]
fn the_units_exposure_is_what_is_stated() {
    let said = output_of(
        Command::new(tool("systemd-analyze"))
            .args(["security", "--offline=yes", "--no-pager", "--threshold=15"])
            .arg(path("deploy/systemd/fusewire.service")),
    );
    let (_, score) = said.rsplit_once("Overall exposure level for fusewire.service: ").expect("a score");
    let score = score.split_whitespace().next().expect("a number");
    // Each version of systemd asks for more than the one before: the figure is that of Debian 12's.
    let version = output_of(Command::new(tool("systemd-analyze")).arg("--version"));
    if version.starts_with("systemd 252 ") {
        for place in ["deploy/systemd/fusewire.service", "docs/OPERATING.md"] {
            assert!(read(place).contains(&format!("{score} OK")), "{place} does not say {score} OK");
        }
    }
}

#[test]
fn the_service_waits_longer_than_a_drain_takes() {
    let service = read("deploy/systemd/fusewire.service");
    let seconds = |key: &str| {
        let line = service.lines().find_map(|line| line.strip_prefix(key)).expect("the key");
        line.trim_end_matches('s').parse::<u64>().expect("seconds")
    };
    // The defaults: no delay, and half a minute.
    assert!(seconds("TimeoutStopSec=") > 30);
    assert!(service.contains("\nUser=fusewire\n"));
    assert!(read("deploy/systemd/fusewire.sysusers").contains("\nu fusewire - "));
}

// ---- the image ----

#[test]
fn the_image_is_static_has_no_shell_and_no_root() {
    let dockerfile = read("deploy/Dockerfile");
    let (build, image) = dockerfile.split_once("\nFROM scratch\n").expect("a last stage from nothing");
    assert!(build.contains("target-feature=+crt-static") && build.contains("--locked"), "{build}");
    assert!(build.contains(&format!("/image{BINARY}")), "{build}");
    let instructions: Vec<_> =
        image.lines().filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    assert_eq!(
        instructions,
        [
            "COPY --from=build /image /",
            "USER 65532:65532",
            "EXPOSE 6380 6432 9900",
            "ENTRYPOINT [\"/usr/bin/fusewire\"]",
            "CMD [\"run\", \"--config\", \"/etc/fusewire/fusewire.toml\"]",
        ]
    );
    // What is compiled is let in, and little else.
    let ignore = read(".dockerignore");
    let mut let_in: Vec<_> = ignore.lines().filter_map(|line| line.strip_prefix('!')).collect();
    let_in.sort_unstable();
    assert_eq!(let_in, ["Cargo.lock", "Cargo.toml", "proto-tests/Cargo.toml", "proto-tests/src", "src"]);
    let_in.iter().for_each(|name| assert!(path(name).exists(), "{name}"));
}

// ---- Compose ----

#[test]
fn the_compose_file_fits_its_schema_and_what_it_mounts_is_there() {
    output_of(
        validator("check-jsonschema")
            .args(["--builtin-schema", "vendor.compose-spec"])
            .arg(path("deploy/compose.yaml")),
    );
    let compose = documents("deploy/compose.yaml").remove(0);
    let services = compose["services"].as_object().expect("services");
    let mut mounted = 0;
    for (name, service) in services {
        for volume in service["volumes"].as_array().into_iter().flatten() {
            let source = text(volume).split(':').next().expect("a path").to_owned();
            assert!(path("deploy").join(&source).exists(), "{name}: {source}");
            mounted += 1;
        }
        for port in service["ports"].as_array().into_iter().flatten() {
            assert!(text(port).starts_with("127.0.0.1:"), "{name} listens for everybody: {port}");
        }
    }
    assert_eq!(mounted, 3);
    let proxy = &services["fusewire"];
    assert!(path("deploy").join(text(&proxy["build"]["context"])).join("deploy/Dockerfile").is_file());
    assert_eq!(proxy["healthcheck"]["test"][1], BINARY);

    // The real binary takes the settings, and the names under which Prometheus and upstreams go.
    let args: Vec<_> = list(&proxy["command"]).iter().map(text).collect();
    assert_eq!(args[0], "run");
    let mut check = fusewire::command(&["check"]);
    check.args(&args[1..]);
    let environment = proxy["environment"].as_object().expect("variables");
    check.envs(environment.iter().map(|(name, value)| (name, text(value))));
    output_of(&mut check);
    for upstream in args.iter().filter_map(|arg| arg.split("upstream=").nth(1)) {
        let host = upstream.split(':').next().expect("a host");
        assert!(services.contains_key(host), "no service {host}");
    }
    let target = format!("{}:9900", text(&environment["FUSEWIRE_ADMIN_HOSTS"]));
    assert!(read("deploy/prometheus/prometheus.yml").contains(&format!("[{target}]")), "{target}");
    let provider = &documents("deploy/grafana/provisioning/dashboards/fusewire.yml")[0]["providers"][0];
    let dashboards = text(&provider["options"]["path"]);
    assert!(read("deploy/compose.yaml").contains(&format!(":{dashboards}/fusewire.json:ro")), "{dashboards}");
}

// ---- Kubernetes ----

#[test]
fn the_manifests_fit_the_schemas_of_old_and_new_kubernetes() {
    // 1.29 is the first with native sidecars.
    for version in ["1.29", "1.37"] {
        let said =
            run(validator("kubernetes-validate").args(["--strict", "-k", version]).args(MANIFESTS.map(path)));
        assert!(said.status.success(), "{version}: {said:?}");
    }
}

/// The pod and the container of fusewire in a manifest.
fn container(all: &[Value]) -> (&Value, &Value) {
    let pod = &of_kind(all, "Deployment")["spec"]["template"]["spec"];
    let lists = [&pod["initContainers"], &pod["containers"]];
    let mut everyone = lists.iter().filter_map(|list| list.as_array()).flatten();
    (pod, everyone.find(|container| container["name"] == "fusewire").expect("a container"))
}

#[test]
fn the_manifests_give_a_drain_its_time_and_the_pod_no_rights() {
    for manifest in MANIFESTS {
        let all = documents(manifest);
        let (pod, container) = container(&all);
        let toml = text(&of_kind(&all, "ConfigMap")["data"]["fusewire.toml"]);
        let seconds = |key: &str| {
            let line = toml.lines().find_map(|line| line.strip_prefix(&format!("{key} = \"")));
            line.map_or(0, |line| line.trim_end_matches("s\"").parse::<u64>().expect("seconds"))
        };
        let (delay, timeout) = (seconds("drain_delay"), seconds("drain_timeout"));
        assert!(timeout > 0, "{manifest}");
        let grace = pod["terminationGracePeriodSeconds"].as_u64().expect("seconds");
        assert!(grace > delay + timeout, "{manifest}: {grace} s for {delay} + {timeout} s");
        // Out of the Service before it stops accepting.
        let ready = &container["readinessProbe"];
        let number = |key: &str| ready[key].as_u64().unwrap_or(1);
        if container["restartPolicy"] != "Always" {
            let noticed = number("failureThreshold") * (number("periodSeconds") + number("timeoutSeconds"));
            assert!(delay > noticed, "{manifest}: {delay} s, noticed after {noticed} s");
        }
        let context = |key: &str| {
            let own = &container["securityContext"][key];
            if own.is_null() { pod["securityContext"][key].clone() } else { own.clone() }
        };
        assert_eq!(context("runAsNonRoot"), true);
        assert_eq!(context("runAsUser"), 65532);
        assert_eq!(context("readOnlyRootFilesystem"), true);
        assert_eq!(context("allowPrivilegeEscalation"), false);
        assert_eq!(context("capabilities")["drop"][0], "ALL");
        assert_eq!(context("seccompProfile")["type"], "RuntimeDefault");
    }
}

/// A configuration of a manifest, with ports and a token's file of this machine.
fn local(toml: &str, dir: &Path) -> String {
    let token = dir.join("token");
    fs::write(&token, "of-the-test\n").expect("a file");
    let mut text = toml.replace("/run/secrets/fusewire/token", token.to_str().expect("a path"));
    assert_ne!(text, toml, "the token's file has another name");
    for (host, port) in [("127.0.0.1", 6380), ("127.0.0.1", 6432), ("0.0.0.0", 6380), ("0.0.0.0", 6432)] {
        text = text.replace(&format!("{host}:{port}"), &format!("127.0.0.1:{}", free_port()));
    }
    text
}

#[test]
fn fusewire_starts_with_the_configuration_of_each_manifest_and_answers_its_probes() {
    for manifest in MANIFESTS {
        let all = documents(manifest);
        let (_, container) = container(&all);
        let dir = TempDir::new().expect("a temporary directory");
        let config = of_kind(&all, "ConfigMap");
        let toml = text(&config["data"]["fusewire.toml"]);
        let toml = local(toml, dir.path());
        let file = dir.path().join("fusewire.toml");
        fs::write(&file, &toml).expect("a file");
        let proxy = Setup::default().args(&["--config", file.to_str().expect("a path")]).start();

        // As the kubelet asks: by the address that it connects to, without a token.
        let get = |path: &str, headers: &[(&str, &str)]| {
            http::request(proxy.admin(), "GET", path, headers, "").expect("an answer").status
        };
        for probe in ["startupProbe", "livenessProbe", "readinessProbe"] {
            let probe = &container[probe]["httpGet"];
            assert_eq!(get(text(&probe["path"]), &[]), 200, "{manifest}");
            let port = text(&probe["port"]);
            let ports = list(&container["ports"]);
            let named = ports.iter().find(|one| one["name"] == port).expect("the port of the probe");
            assert_eq!(named["containerPort"], 9900);
        }
        // As Prometheus does, and somebody who has no token.
        let bearer = ("Authorization", "Bearer of-the-test");
        assert_eq!(get("/metrics", &[bearer]), 200);
        assert_eq!(get("/metrics", &[]), 401);
        if toml.contains("hosts = ") {
            assert_eq!(get("/metrics", &[("Host", "fusewire:9900"), bearer]), 200);
        }
        proxy.stop();

        // What is mounted is what the arguments name.
        let args: Vec<_> = list(&container["args"]).iter().map(text).collect();
        assert_eq!(args, ["run", "--config", "/etc/fusewire/fusewire.toml"]);
        let mounts = list(&container["volumeMounts"]);
        for folder in ["/etc/fusewire", "/run/secrets/fusewire"] {
            assert!(mounts.iter().any(|mount| mount["mountPath"] == folder), "{manifest}: {folder}");
        }
    }
}

#[test]
fn the_ports_of_the_manifests_are_those_that_are_listened_on() {
    for manifest in MANIFESTS {
        let all = documents(manifest);
        let (_, container) = container(&all);
        let toml = text(&of_kind(&all, "ConfigMap")["data"]["fusewire.toml"]);
        for port in list(&container["ports"]) {
            let listens = format!("listen = \"0.0.0.0:{}\"", port["containerPort"]);
            assert!(toml.contains(&listens), "{manifest}: {port}");
        }
    }
}

// ---- the Debian package ----

#[test]
fn everything_that_the_package_holds_is_in_the_repository() {
    let manifest = read("Cargo.toml");
    let (_, package) = manifest.split_once("\n[package.metadata.deb]\n").expect("a package");
    let package = package.split("\n[").next().expect("a table");
    let made = read("deploy/package.sh");
    let mut assets = 0;
    for line in package.lines().filter_map(|line| line.trim().strip_prefix("[\"")) {
        let source = line.split('"').next().expect("a source");
        assets += 1;
        if source.starts_with("target/package/") {
            assert!(made.contains(&format!(">{source}\n")), "deploy/package.sh does not make {source}");
        } else if let Some(folder) = source.strip_suffix("/*.md") {
            assert!(path(folder).is_dir(), "{folder}");
        } else if source != "target/release/fusewire" {
            assert!(path(source).is_file(), "{source}");
        }
    }
    assert_eq!(assets, 9);
    assert!(package.contains("conf-files = [\"/etc/fusewire/fusewire.toml\"]"));
    // A configuration that is installed must be one that starts.
    output_of(&mut fusewire::command(&[
        "check",
        "--config",
        path("deploy/fusewire.toml").to_str().expect("a path"),
    ]));
}
