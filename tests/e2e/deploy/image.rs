//! The image of `deploy/container/`, built and run: of the program under test, as no other
//! image can be had here, and without a daemon.

use std::collections::BTreeSet;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::ours;
use crate::support::broker::{API, KEK, KEK_VARIABLE, OPEN_POLICY};
use crate::support::home::{Home, under_test};
use crate::support::http::Http;
use crate::support::run::Run;
use crate::support::wait::free_port;
use crate::support::walk;
use crate::support::workload::{Workloads, exchange};

/// The user that it says it is for.
const USER: u32 = 65532;

const AUTHORITIES: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Puts this file there, below a directory.
fn put(file: &Path, below: &Path) {
    std::fs::create_dir_all(below.parent().unwrap()).unwrap();
    std::fs::copy(file, below).unwrap();
}

/// What stands for the stage that compiles: the program, and the libraries that it needs where
/// it is no release.
fn release(home: &Home) -> (PathBuf, BTreeSet<PathBuf>) {
    let directory = home.directory("release");
    let image = directory.join("image");
    put(under_test(), &image.join("usr/local/bin/tmpcred"));
    put(Path::new(AUTHORITIES), &image.join(&AUTHORITIES[1..]));
    let libraries = home.command("ldd").args([under_test()]).run();
    let named = libraries.stdout.split_whitespace().filter(|word| word.starts_with('/'));
    let mut files = BTreeSet::from(["usr/local/bin/tmpcred".into(), AUTHORITIES[1..].into()]);
    for library in named.filter(|name| !name.ends_with(':')) {
        put(Path::new(library), &image.join(&library[1..]));
        files.insert(PathBuf::from(&library[1..]));
    }
    (directory, files)
}

fn buildah(home: &Home) -> Run {
    home.command("buildah")
        .args(["--storage-driver", "vfs", "--root"])
        .args([home.path("images")])
        .args(["--runroot"])
        .args([home.path("images-run")])
        .limit(Duration::from_secs(120))
}

fn blob(layout: &Path, described: &Value) -> PathBuf {
    let digest = described["digest"].as_str().unwrap();
    layout.join("blobs").join(digest.replace(':', "/"))
}

fn read(path: &Path) -> Value {
    serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap()
}

#[test]
fn image_is_one_program_that_serves_without_root_and_writes_nowhere_else() {
    let home = Home::new();
    let (context, expected) = release(&home);
    let context = format!("release={}", context.display());
    buildah(&home)
        .args(["bud", "--isolation", "chroot", "--build-context", &context, "--tag", "tmpcred"])
        .args(["--file".into(), ours("deploy/container/Containerfile"), ours("")])
        .run()
        .ok();
    let layout = home.path("layout");
    let to = format!("oci:{}:latest", layout.display());
    buildah(&home).args(["push", "tmpcred", &to]).run().ok();

    let manifest = read(&blob(&layout, &read(&layout.join("index.json"))["manifests"][0]));
    let config = read(&blob(&layout, &manifest["config"]))["config"].take();
    assert_eq!(config["User"], format!("{USER}:{USER}"));
    assert_eq!(config["Entrypoint"], json!(["/usr/local/bin/tmpcred"]));
    let labels = config["Labels"].as_object().unwrap();
    assert!(labels.contains_key("org.opencontainers.image.licenses"), "{labels:?}");

    let root = home.directory("root");
    for layer in manifest["layers"].as_array().unwrap() {
        let tar = home.command("tar").args(["-xf".into(), blob(&layout, layer), "-C".into()]);
        tar.args([&root]).run().ok();
    }
    let files: BTreeSet<PathBuf> = walk::files(&root)
        .into_iter()
        .map(|found| found.path.strip_prefix(&root).unwrap().to_path_buf())
        .collect();
    assert_eq!(files, expected, "there is nothing else in it");
    serves(&home, &root, &config);
}

/// Runs it as whatever runs containers would.
fn serves(home: &Home, root: &Path, config: &Value) {
    let jobs = Workloads::of("https://jobs.example.com", home);
    let port = free_port();
    let issuer = format!("http://127.0.0.1:{port}");
    let configuration = home.directory("configuration");
    std::fs::set_permissions(&configuration, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::copy(&jobs.jwks, configuration.join("jwks.json")).unwrap();
    std::fs::write(configuration.join("policy.cedar"), OPEN_POLICY).unwrap();
    let toml = format!(
        r#"issuer = "{issuer}"
listen = "127.0.0.1:{port}"
[store]
path = "/var/lib/tmpcred-broker/broker.db"
[trusted_issuer.jobs]
issuer = "https://jobs.example.com"
jwks_file = "jwks.json"
[policy]
files = ["policy.cedar"]
[role.reader]
audiences = ["{API}"]
scopes = ["deploy:read"]
max_ttl = "1h"
[role.deploy]
audiences = ["{API}"]
scopes = ["deploy:read", "deploy:write"]
max_ttl = "1h"
"#
    );
    std::fs::write(configuration.join("broker.toml"), toml).unwrap();
    for file in walk::files(&configuration) {
        std::fs::set_permissions(file.path, PermissionsExt::from_mode(0o444)).unwrap();
    }
    std::fs::set_permissions(root, PermissionsExt::from_mode(0o755)).unwrap();
    let data = home.directory("data");
    chown(&data, Some(USER), Some(USER)).unwrap();
    std::fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    for place in ["dev", "etc/tmpcred-broker", "var/lib/tmpcred-broker"] {
        std::fs::create_dir_all(root.join(place)).unwrap();
    }
    // Each runtime puts them there: what is linked statically with glibc takes its random
    // numbers from them.
    for device in ["random", "urandom"] {
        std::fs::write(root.join("dev").join(device), "").unwrap();
    }
    let script = r#"set -e
        root=$1 configuration=$2 data=$3
        mount --bind "$root" "$root"
        mount --bind /dev/random "$root/dev/random"
        mount --bind /dev/urandom "$root/dev/urandom"
        mount -o remount,bind,ro "$root"
        mount --bind "$configuration" "$root/etc/tmpcred-broker"
        mount -o remount,bind,ro "$root/etc/tmpcred-broker"
        mount --bind "$data" "$root/var/lib/tmpcred-broker"
        shift 3
        exec setpriv --no-new-privs env -i TMPCRED_BROKER_KEK="$TMPCRED_BROKER_KEK" "$@""#;
    let words = |name: &str| -> Vec<String> {
        let list = config[name].as_array().unwrap();
        list.iter().map(|word| word.as_str().unwrap().to_string()).collect()
    };
    let running = home
        .command("unshare")
        .args(["--mount", "sh", "-c", script, "sh"])
        .args([root, &configuration, &data])
        .args(words("Env"))
        .args(["chroot", "--groups=", &format!("--userspec={}", config["User"].as_str().unwrap())])
        .args([root])
        .args(words("Entrypoint"))
        .args(words("Cmd"))
        .env(KEK_VARIABLE, KEK)
        .limit(Duration::from_secs(120))
        .spawn();
    running.line_on_stderr("listens on");
    assert_eq!(Http::new().get(&format!("{issuer}/readyz")).unwrap().status, 200);
    let assertion = jobs.assertion("job", &issuer, &Value::Null);
    let form = exchange(&assertion, API, "reader");
    let granted = Http::new().form(&format!("{issuer}/token"), &form).unwrap();
    assert_eq!(granted.status, 200, "{}", granted.body);
    let status = format!("/proc/{}/status", running.pid().as_raw_nonzero());
    let status = std::fs::read_to_string(status).unwrap();
    for line in [format!("Uid:\t{USER}"), "CapEff:\t0000000000000000".into()] {
        assert!(status.contains(&line), "{line}\n{status}");
    }
    running.signal(rustix::process::Signal::TERM);
    running.wait().ok();
}
