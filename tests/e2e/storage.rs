//! Backups of a broker's store, restoring them, and moving to another engine.

use std::ffi::OsString;
use std::time::Duration;

use super::audit::checkpoint;
use super::revocation::Services;
use super::support::broker::{API, Broker, BrokerOptions, KEK};
use super::support::home::{Home, through, tmpcred};
use super::support::http::Http;
use super::support::postgres::Postgres;
use super::support::run::Run;
use super::support::wait::wait_until;

fn broker(services: &Services, args: &[&str]) -> Run {
    let home = &services.broker.home;
    let run = tmpcred(home).args(["broker"]).args(args);
    run.args(["--config"]).args([home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK)
}

fn is_active(services: &Services, token: &str) -> bool {
    let url = format!("{}/introspect", services.broker.url());
    Http::new().form_as(token, &url, &[("token", token)]).unwrap().json()["active"] == true
}

fn revoke(services: &Services, token: &str) {
    let url = format!("{}/revoke", services.broker.url());
    assert_eq!(Http::new().form(&url, &[("token", token)]).unwrap().status, 200);
}

#[test]
fn a_backup_of_a_running_broker_is_what_it_was_and_goes_where_nothing_is() {
    let mut services = Services::start();
    let (good, revoked) = (services.token("a", API), services.token("b", API));
    revoke(&services, &revoked);
    let file = services.broker.home.path("backup.db");
    let name = file.to_str().unwrap();
    checkpoint(&services.broker, 5);
    let told = broker(&services, &["backup", name, "--json"]).run().ok().json();
    assert_eq!((&told["records"], &told["consumed"]), (&5.into(), &1.into()), "{told}");
    let again = broker(&services, &["backup", name]).run().ended_with(2);
    assert!(again.stderr.contains("already"), "{}", again.stderr);
    let refused = broker(&services, &["restore", name]).run().ended_with(2);
    assert!(refused.stderr.contains("already"), "{}", refused.stderr);

    services.broker.stop();
    for end in ["", "-wal", "-shm"] {
        drop(std::fs::remove_file(services.broker.home.path(format!("broker.db{end}"))));
    }
    // Nothing is there after a restore that a broker would not start on.
    let toml = services.broker.home.path("broker.toml");
    let of_this = std::fs::read_to_string(&toml).unwrap();
    let url = services.broker.url().to_string();
    let of_another =
        of_this.replace(&format!("issuer = {url:?}"), "issuer = \"http://localhost:9\"");
    assert_ne!(of_this, of_another);
    services.broker.home.write("broker.toml", of_another);
    let refused = broker(&services, &["restore", name]).run().ended_with(3);
    assert!(refused.stderr.contains("a broker with another issuer"), "{}", refused.stderr);
    assert!(!services.broker.home.path("broker.db").exists());
    services.broker.home.write("broker.toml", of_this);
    let restored = broker(&services, &["restore", name]).run().ok();
    assert!(restored.stderr.contains("tmpcred broker revoke --all"), "{}", restored.stderr);
    services.broker.restart();
    assert!(is_active(&services, &good) && !is_active(&services, &revoked));
    checkpoint(&services.broker, 6);
    broker(&services, &["audit", "verify"]).run().ok();
    let found = ["audit", "query", "--action", "restore", "--decision", "changed", "--json"];
    let found = broker(&services, &found).run().ok().json();
    assert_eq!(found.as_array().map(Vec::len), Some(1), "{found}");
    let reason = found[0]["reason"].as_str().unwrap();
    assert!(reason.contains("restored a backup whose log has 5 records"), "{reason}");
}

/// As docs/storage.md says.
#[test]
fn what_was_restored_is_revoked_before_a_broker_starts_which_issues_nothing_until_it_is_let() {
    let mut services = Services::start();
    let token = services.token("a", API);
    let file = services.broker.home.path("backup.db");
    broker(&services, &["backup", file.to_str().unwrap()]).run().ok();
    services.broker.stop();
    for end in ["", "-wal", "-shm"] {
        drop(std::fs::remove_file(services.broker.home.path(format!("broker.db{end}"))));
    }
    let told = broker(&services, &["restore", file.to_str().unwrap(), "--json"]).run().ok().json();
    for (name, number) in [("grants", 0), ("requests", 0), ("enrolled_keys_in_force", 0)] {
        assert_eq!(told[name], number, "{told}");
    }
    assert_eq!(told["earlier_version"], false);
    // Nobody listens.
    let all = ["revoke", "--all", "--reason", "restored", "--json"];
    let revoked = broker(&services, &all).run().ok().json();
    assert_eq!(revoked["tokens"], 1, "{revoked}");
    let page = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/storage.md");
    let page = std::fs::read_to_string(page).unwrap();
    let nothing = page.split("\n```cedar\n").nth(1).unwrap().split("```").next().unwrap();
    let policy = std::fs::read_to_string(services.broker.home.path("policy.cedar")).unwrap();
    services.broker.home.write("policy.cedar", format!("{policy}\n{nothing}"));
    services.broker.restart();
    assert!(!is_active(&services, &token));
    let ask = |services: &Services| services.asked("reader", "a", API);
    let refused = ask(&services);
    assert_eq!(refused.json()["error"], "access_denied", "{}", refused.body);
    services.broker.home.write("policy.cedar", policy);
    services.broker.hang_up();
    wait_until("the policy from before", Duration::from_secs(30), || {
        (ask(&services).status == 200).then_some(())
    });
}

#[test]
fn whoever_makes_backups_need_not_be_let_to_the_key() {
    use std::os::unix::fs::PermissionsExt as _;
    let broker = Broker::start_in(Home::nobody(), &BrokerOptions::trusting("http://127.0.0.1:9"));
    let home = &broker.home;
    let key = home.write("kek", KEK);
    let toml = std::fs::read_to_string(home.path("broker.toml")).unwrap();
    let config = home.write("backup.toml", format!("{toml}\n[keys]\nkek_file = {key:?}\n"));
    let backup = |name: &str, mode: u32| {
        std::fs::set_permissions(&key, std::fs::Permissions::from_mode(mode)).unwrap();
        let run = tmpcred(home).args(["broker", "backup"]).args([home.path(name)]);
        run.args(["--json", "--config"]).args([&config]).run()
    };
    // Its owner is not root, and may not read it.
    assert_eq!(backup("without.db", 0o000).ok().json()["seal_checked"], false);
    assert_eq!(backup("with.db", 0o600).ok().json()["seal_checked"], true);
    // What is empty passes for no backup.
    let empty = home.write("empty.db", "");
    std::fs::set_permissions(&empty, std::fs::Permissions::from_mode(0o600)).unwrap();
    let nothing = toml.replace("broker.db", "nothing.db");
    let config_of_nothing = home.write("nothing.toml", nothing);
    let run = tmpcred(home).args(["broker", "restore"]).args([&empty]).args(["--config"]);
    let refused = run.args([&config_of_nothing]).env("TMPCRED_BROKER_KEK", KEK).run().ended_with(2);
    assert!(refused.stderr.contains("there is nothing of a broker"), "{}", refused.stderr);
    assert!(!refused.stdout.contains("sealed") && !home.path("nothing.db").exists());
    // Who restores one without the key is told what is not on record.
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o000)).unwrap();
    let elsewhere = std::fs::read_to_string(&config).unwrap().replace("broker.db", "restored.db");
    let config = home.write("restored.toml", elsewhere);
    let run = tmpcred(home).args(["broker", "restore"]).args([home.path("with.db")]);
    let restored = run.args(["--config"]).args([&config]).run().ok();
    let (said, told) = (restored.stdout, restored.stderr);
    assert!(said.contains("that of a broker with this `issuer`, was not checked"), "{said}");
    assert!(
        told.contains("not on record that it was restored: that takes the key-encryption key"),
        "{told}"
    );
    // One that others can read is none, all the same.
    let refused = backup("refused.db", 0o644).ended_with(3);
    assert!(refused.stderr.contains("is not private"), "{}", refused.stderr);
}

#[test]
fn a_store_moves_to_postgresql_with_all_that_it_has() {
    let mut services = Services::start();
    let postgres = Postgres::start();
    let (good, revoked) = (services.token("a", API), services.token("b", API));
    revoke(&services, &revoked);
    let kept = checkpoint(&services.broker, 5);
    let home = &services.broker.home;
    let toml = std::fs::read_to_string(home.path("broker.toml")).unwrap();
    let (old, database) = ("[store]\npath = \"broker.db\"\n", home.path("broker.db"));
    assert!(toml.contains(old));
    home.write("broker.toml", toml.replace(old, &postgres.table(home)));
    let name = database.to_str().unwrap().to_string();
    let running = broker(&services, &["move", &name]).run().ended_with(1);
    assert!(running.stderr.contains("hint: end the brokers that use it"), "{}", running.stderr);
    services.broker.stop();
    let moved = broker(&services, &["move", &name]).run().ok();
    assert!(
        moved.stdout.contains("5 records, 3 keys, 1 thing revoked or used up, 0 cut-offs"),
        "{}",
        moved.stdout
    );
    assert!(!database.exists() && moved.stderr.contains("broker.db.moved"), "{}", moved.stderr);

    services.broker.restart();
    assert!(is_active(&services, &good) && !is_active(&services, &revoked));
    services.token("c", API);
    // The log goes on from what was signed of it before.
    let verify = ["audit", "verify", "--checkpoint", kept.to_str().unwrap()];
    broker(&services, &verify).run().ok();
    assert_eq!(postgres.query("select last_sequence from audit_head"), ["6"]);
    // And back into a file.
    let file = services.broker.home.path("backup.db");
    // Also where there is no /tmp, as in a container of one program.
    let back = broker(&services, &["backup", file.to_str().unwrap(), "--json"]);
    let told = back.env("TMPDIR", "/nonexistent").run().ok().json();
    assert_eq!(told["records"], 6, "{told}");
}

/// Runs a program for which this directory is on a disk of so many KiB, and says what is there then.
const WITH_A_SMALL_DISK: &str = r#"
    set -e
    user=$1; directory=$2; size=$3; shift 3
    mount -t tmpfs -o size="${size}k",mode=0700 small "$directory"
    [ -z "$user" ] || chown "$user:$user" "$directory"
    code=0
    "$@" || code=$?
    echo "left: $(ls -A "$directory")" >&2
    exit $code
"#;

/// It is written beside its file first: there is room for that, and not for what it is moved to.
#[test]
fn a_backup_of_postgresql_that_does_not_fit_into_its_file_is_none() {
    let mut services = Services::start();
    services.broker.stop();
    let postgres = Postgres::start();
    let home = &services.broker.home;
    let (toml, small) = (home.path("broker.toml"), home.directory("small"));
    let text = std::fs::read_to_string(&toml).unwrap();
    let old = "[store]\npath = \"broker.db\"\n";
    home.write("broker.toml", text.replace(old, &postgres.table(home)));
    services.broker.restart();
    postgres.query(
        "insert into consumed select 'dpop-proof', md5(i::text) || md5((-i)::text), 1, 9000000000000000
         from generate_series(1, 60000) as i",
    );
    let home = &services.broker.home;
    let whole = home.path("whole.db");
    broker(&services, &["backup", whole.to_str().unwrap()]).run().ok();
    let size = std::fs::metadata(&whole).unwrap().len() / 1024;
    let (how, user) = match home.uid() {
        Some(uid) => ("-m", uid.to_string()),
        // Where no user may have a mount of their own, this says so.
        None => ("-rm", String::new()),
    };
    let on_a_disk = |size: u64| {
        let size = size.to_string();
        let mount = [how, "sh", "-c", WITH_A_SMALL_DISK, "sh", &user].map(OsString::from);
        let mount = [&mount[..], &[small.clone().into(), size.into()]].concat();
        through(home, "unshare", |words| [mount, words].concat())
            .args(["broker", "backup", "small/backup.db", "--config"])
            .args([&toml])
            .current_dir(home.path(""))
            .env("TMPCRED_BROKER_KEK", KEK)
            .run()
    };
    on_a_disk(size * 3).ok();
    let refused = on_a_disk(size * 3 / 2).ended_with(1);
    for says in ["cannot be put into one file", "full", "left: \n"] {
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
}
