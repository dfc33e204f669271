//! The units of `deploy/systemd/`, as they are, run by systemd: on a machine of its own, made of
//! namespaces, whose kernel and network are those of this one.

mod kept;

use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::ours;
use crate::support::broker::{API, KEK, OPEN_POLICY};
use crate::support::home::{Home, assert_root, under_test};
use crate::support::http::{Http, Reply};
use crate::support::peer::{Peer, supervised};
use crate::support::run::Output;
use crate::support::wait::{free_port, wait_until};
use crate::support::workload::{Workloads, exchange};

const LONG: Duration = Duration::from_secs(90);

const ISSUER: &str = "https://jobs.example.com";

/// What runs the broker; dropping it ends all that runs there.
struct Machine {
    peer: Peer,
    home: Home,
    jobs: Workloads,
    url: String,
    /// Nobody else's: its control groups are called by it.
    port: u16,
    /// The first process there, once it is known.
    init: OnceCell<u32>,
}

impl Machine {
    fn start() -> Self {
        assert_root();
        let (home, port) = (Home::new(), free_port());
        let url = format!("http://127.0.0.1:{port}");
        let jobs = Workloads::of(ISSUER, &home);
        let shared = home.directory("shared");
        let put = |path: &str, text: &str| home.write(Path::new("shared").join(path), text);
        put("kek", KEK);
        let jwks = fs::read_to_string(&jobs.jwks).unwrap();
        put("files/etc/tmpcred-broker/jobs.json", &jwks);
        put(
            "files/etc/tmpcred-broker/policy.cedar",
            &OPEN_POLICY.replace("@ttl", "@any_issuer @ttl"),
        );
        put("files/etc/tmpcred-broker/broker.toml", &configuration(&url, port));
        // Everybody may read these, but for the key.
        for file in ["", "jobs.json", "policy.cedar", "broker.toml"] {
            open_up(&shared.join("files/etc/tmpcred-broker").join(file));
        }
        for directory in ["files", "files/etc"] {
            open_up(&shared.join(directory));
        }
        for file in fs::read_dir(ours("deploy/systemd")).unwrap() {
            let (name, file) = file.map(|file| (file.file_name(), file.path())).unwrap();
            let is_unit = file.extension().is_some();
            let (place, mode) =
                if is_unit { ("etc/systemd/system", 0o644) } else { ("usr/local/sbin", 0o755) };
            let place = format!("files/{place}/{}", name.display());
            let installed = put(&place, &fs::read_to_string(&file).unwrap());
            fs::set_permissions(installed, PermissionsExt::from_mode(mode)).unwrap();
        }
        put("boot.target", "[Unit]\nWants=systemd-journald.service tmpcred-broker.service\n");
        let mut command = supervised(&ours("tests/peers/systemd.sh"), Path::new("/dev/null"));
        command.arg(port.to_string()).arg(&shared).arg(under_test());
        let mut peer = Peer::start("systemd", command, home.path("systemd.log"));
        // Where this machine cannot be divided, that is said here.
        peer.until_ready(|| Http::new().get(&format!("{url}/jwks.json")).ok());
        Self { peer, home, jobs, url, port, init: OnceCell::new() }
    }

    /// What the broker has said.
    fn said(&self) -> String {
        self.journal("tmpcred-broker") + &self.peer.said()
    }

    /// What a unit has said.
    fn journal(&self, unit: &str) -> String {
        let unit = format!("--unit={unit}");
        let journal = ["journalctl", "--no-pager", &unit, "--output=cat"];
        let journal = self.init.get().map(|init| self.there(*init, &journal).stdout);
        journal.unwrap_or_default()
    }

    /// The broker's process, as this machine sees it.
    #[track_caller]
    fn broker(&self) -> u32 {
        let asked = wait_until("the broker to serve", LONG, || {
            Http::new().get(&format!("{}/jwks.json", self.url)).ok()
        });
        let name = |directory: &Path| {
            let line = fs::read(directory.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&line).replace('\0', " ")
        };
        let serves =
            "/usr/local/bin/tmpcred broker serve --config /etc/tmpcred-broker/broker.toml ";
        let processes = fs::read_dir("/proc").unwrap().flatten().map(|entry| entry.path());
        // There may be other such machines.
        let group = format!("/tmpcred-tests-{}-", self.port);
        let is_here = |process: &Path| {
            fs::read_to_string(process.join("cgroup")).is_ok_and(|groups| groups.contains(&group))
        };
        let found: Vec<PathBuf> =
            processes.filter(|process| name(process) == serves && is_here(process)).collect();
        let [one] = &found[..] else { panic!("{found:?}\n{}", self.said()) };
        let pid = one.file_name().unwrap().to_str().unwrap().parse().unwrap();
        let _ = self.init.set(status(pid)["PPid"].parse().unwrap());
        assert_eq!(asked.status, 200, "{}", self.said());
        pid
    }

    /// Has `systemctl` do this there.
    #[track_caller]
    fn systemctl(&self, words: &[&str]) -> Output {
        let words = [&["systemctl"], words].concat();
        self.there(*self.init.get().unwrap(), &words).ok()
    }

    /// Has the script of `deploy/systemd/` do this there.
    fn control(&self, words: &[&str]) -> Output {
        let script = ["/usr/local/sbin/tmpcred-broker-ctl"];
        self.there(*self.init.get().unwrap(), &[&script, words].concat())
    }

    /// Runs a program there; `init` is its first process.
    fn there(&self, init: u32, words: &[&str]) -> Output {
        let enter = ["--mount", "--pid", "--root", "--wd=/", "--target", &init.to_string()];
        self.home.command("nsenter").args(enter).args(words).limit(LONG).run()
    }

    fn token(&self) -> Reply {
        let assertion = self.jobs.assertion("job", &self.url, &Value::Null);
        Http::new()
            .form(&format!("{}/token", self.url), &exchange(&assertion, API, "reader"))
            .unwrap()
    }
}

fn open_up(path: &Path) {
    let mode = if path.is_dir() { 0o755 } else { 0o644 };
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

fn configuration(url: &str, port: u16) -> String {
    format!(
        r#"issuer = "{url}"
listen = "127.0.0.1:{port}"
[store]
path = "/var/lib/tmpcred-broker/broker.db"
[keys]
kek_file = "/run/credentials/tmpcred-broker.service/kek"
[audit.file.local]
path = "/var/log/tmpcred-broker/audit.jsonl"
[trusted_issuer.jobs]
issuer = "{ISSUER}"
jwks_file = "jobs.json"
[policy]
files = ["policy.cedar"]
[role.deploy]
audiences = ["{API}"]
max_ttl = "1h"
scopes = ["deploy:read", "deploy:write"]
[role.reader]
audiences = ["{API}"]
max_ttl = "1h"
scopes = ["deploy:read"]
"#
    )
}

/// What the kernel says of a process.
fn status(pid: u32) -> BTreeMap<String, String> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(name, value)| (name.to_string(), value.trim().to_string())).collect()
}

#[test]
fn systemd_runs_the_unit_as_it_is_and_holds_it_to_what_it_says() {
    let machine = Machine::start();
    let broker = machine.broker();
    let issued = machine.token();
    assert_eq!(issued.status, 200, "{}\n{}", issued.body, machine.said());

    // A user of its own, who can become nobody else, with nothing of root.
    let first = status(broker);
    let user: u32 = first["Uid"].split_whitespace().next().unwrap().parse().unwrap();
    assert!((61184..=65519).contains(&user), "{}", first["Uid"]);
    for (name, value) in [
        ("CapEff", "0000000000000000"),
        ("CapBnd", "0000000000000000"),
        ("CapAmb", "0000000000000000"),
        ("NoNewPrivs", "1"),
        ("Seccomp", "2"),
    ] {
        assert_eq!(first[name], value, "{name}");
    }
    // What it sees: its own directories to write in, and the key, which nobody else may read.
    let seen = |path: &str| PathBuf::from(format!("/proc/{broker}/root{path}"));
    let mounts = fs::read_to_string(format!("/proc/{broker}/mounts")).unwrap();
    let options = |at: &str| {
        let mut lines = mounts.lines().rev().map(|line| line.split(' ').collect::<Vec<_>>());
        lines.find(|line| line[1] == at).map(|line| line[3].to_string()).unwrap_or_default()
    };
    assert!(options("/").starts_with("ro"), "{mounts}");
    assert!(options("/var/lib/private/tmpcred-broker").starts_with("rw"), "{mounts}");
    assert!(seen("/var/lib/tmpcred-broker/broker.db").exists());
    let key = "/run/credentials/tmpcred-broker.service";
    assert!(options(key).starts_with("ro"), "{mounts}");
    assert!(fs::read_dir(seen("/home")).map_or(true, |mut inside| inside.next().is_none()));
    let devices = fs::read_dir(seen("/dev")).unwrap().count();
    assert!(devices < 40 && !seen("/dev/mem").exists(), "{devices}");
    // Records are handed on to the directory for logs.
    let handed_on = seen("/var/log/tmpcred-broker/audit.jsonl");
    wait_until("a record to be handed on", LONG, || {
        fs::read_to_string(&handed_on).ok().filter(|text| text.contains("\"issued\""))
    });

    // Whoever may act for it does so by what it has.
    let listed = machine.control(&["keys", "list", "--json"]).ok().json();
    assert_eq!(listed.as_array().map(Vec::len), Some(3), "{listed}");
    let found = machine.control(&["audit", "query", "--decision", "issued", "--json"]).ok().json();
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    machine.control(&["audit", "verify"]).ok();
    assert_eq!(machine.control(&["kek", "list"]).ok().stdout.lines().count(), 2);
    let revoke = ["revoke", "--role", "reader", "--reason", "a test"];
    let revoked = machine.control(&revoke).ok().stderr;
    assert!(revoked.contains("1 token that was good is revoked"), "{revoked}");
    machine.control(&[]).ended_with(2);
    // What is about no broker takes no configuration.
    let openapi = machine.control(&["openapi"]).ok().json();
    assert!(openapi["paths"]["/token"].is_object(), "{openapi}");
    assert!(machine.control(&["policy", "schema"]).ok().stdout.contains("entity Role;"));
    // What it is told to read again, it does.
    machine.systemctl(&["reload", "tmpcred-broker"]);
    wait_until("the policies to be read anew", LONG, || {
        machine.said().contains("the policies were read anew").then_some(())
    });
    assert_eq!(machine.broker(), broker);

    // One that dies comes back, and goes on with the keys and the log that it had.
    let keys = || Http::new().get(&format!("{}/jwks.json", machine.url)).unwrap().json();
    let before = keys();
    machine.systemctl(&["kill", "--signal=KILL", "tmpcred-broker"]);
    let next = wait_until("another process", LONG, || {
        let restarted = Http::new().get(&format!("{}/jwks.json", machine.url)).is_ok();
        restarted.then(|| machine.broker()).filter(|next| *next != broker)
    });
    assert_eq!(keys(), before);
    assert_eq!(machine.token().status, 200);
    assert_eq!(status(next)["Uid"], first["Uid"], "the directory is of the same user");

    // It ends when it is told to, in good order.
    machine.systemctl(&["stop", "tmpcred-broker"]);
    let shown = machine.systemctl(&[
        "show",
        "--property=Result,ExecMainStatus,NRestarts,StartLimitIntervalUSec",
        "tmpcred-broker",
    ]);
    let shown = shown.stdout;
    // (It is tried again for as long as what it needs is away.)
    for one in ["Result=success", "ExecMainStatus=0", "NRestarts=1", "StartLimitIntervalUSec=0"] {
        assert!(shown.lines().any(|line| line == one), "{shown}");
    }
    assert!(Http::new().get(&format!("{}/jwks.json", machine.url)).is_err());
    let said = machine.control(&["keys", "list"]).ended_with(1).stderr;
    assert!(said.contains("does not run"), "{said}");
    // Nothing secret is in what it said.
    let said = machine.said();
    let token = issued.json()["access_token"].as_str().unwrap().to_string();
    assert!(!said.contains(&token) && !said.contains(KEK), "{said}");
}
