use std::ffi::OsString;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use serde_json::Value;

use super::super::support::broker::KEK;
use super::super::support::home::through;
use super::*;

const TABLE: &str = "\n[audit.file.lines]\npath = \"records.jsonl\"\n";

/// The numbers of the records in a file; `cut` counts lines that are none.
fn numbers(path: &Path, cut: &mut usize) -> Vec<u64> {
    let text = std::fs::read_to_string(path).unwrap_or_default();
    // The last line may still be on its way.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    let mut found = Vec::new();
    for line in whole.lines() {
        match serde_json::from_str::<Value>(line) {
            Ok(record) => found.push(record["sequence"].as_u64().unwrap()),
            Err(_) => *cut += 1,
        }
    }
    found
}

/// Waits until the newest record is in the file, and returns the numbers of all.
#[track_caller]
fn all_in(path: &Path, newest: u64, cut: usize) -> Vec<u64> {
    wait_until("the newest record in the file", SOON, || {
        let mut found_cut = 0;
        let found = numbers(path, &mut found_cut);
        assert!(found_cut <= cut, "{found_cut} lines are no records");
        found.contains(&newest).then_some(found)
    })
}

#[test]
fn a_file_of_records_is_private_and_may_be_moved_away() {
    let services = Services::with(TABLE);
    let path = services.broker.home.path("records.jsonl");
    issues(&services, 5);
    let last = newest(&services.broker);
    assert_eq!(all_in(&path, last, 0), (1..=last).collect::<Vec<_>>());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    // A line that a power failure cut off.
    let mut text = std::fs::read_to_string(&path).unwrap();
    text += "{\"sequence\":";
    std::fs::write(&path, text).unwrap();
    issues(&services, 1);
    assert_eq!(all_in(&path, last + 1, 1).last(), Some(&(last + 1)));
    marked(&services.broker, last + 1);
    let moved = services.broker.home.path("records.jsonl.1");
    std::fs::rename(&path, &moved).unwrap();
    issues(&services, 3);
    assert_eq!(all_in(&path, last + 4, 0), (last + 2..=last + 4).collect::<Vec<_>>());
    assert_eq!(all_in(&moved, last + 1, 1).len() as u64, last + 1);
    marked(&services.broker, last + 4);
    // Nobody leads it elsewhere by a link.
    let elsewhere = services.broker.home.write("elsewhere", "");
    std::fs::remove_file(&path).unwrap();
    std::os::unix::fs::symlink(&elsewhere, &path).unwrap();
    issues(&services, 1);
    wait_until("it to say so", SOON, || {
        services
            .broker
            .said()
            .contains("records of the audit log cannot be handed on")
            .then_some(())
    });
    assert_eq!(std::fs::read(&elsewhere).unwrap(), b"");
    std::fs::remove_file(&path).unwrap();
    assert_eq!(all_in(&path, last + 5, 0), [last + 5]);
    wait_until("it to say that it goes on", SOON, || {
        services.broker.said().contains("are handed on again").then_some(())
    });
}

#[test]
fn a_broker_that_is_killed_amid_it_loses_no_record_of_the_file() {
    let mut services = Services::with(TABLE);
    let path = services.broker.home.path("records.jsonl");
    killed_amid_issuing(&mut services, 2);
    issues(&services, 1);
    let last = newest(&services.broker);
    // One line may be cut off by each kill.
    nothing_is_missing(&all_in(&path, last, 2), last);
}

/// Becomes a program for which this directory is on a disk that is taken by something else
/// but for 16 KiB, and has room for all records once that is gone, however many there are
/// until somebody notices.
const WITH_A_SMALL_DISK: &str = r#"
    set -e
    user=$1; directory=$2; shift 2
    mount -t tmpfs -o size=4m,mode=0777 small "$directory"
    head -c 4080K /dev/zero >"$directory/filler"
    chmod 666 "$directory/filler"
    [ -z "$user" ] || chown "$user:$user" "$directory" "$directory/filler"
    exec "$@"
"#;

#[test]
fn a_full_disk_of_a_file_keeps_nobody_from_issuing_and_loses_no_record() {
    let (admin, metrics) = admin();
    let mut services = Services::with(&admin);
    services.broker.stop();
    let home = &services.broker.home;
    let logs = home.directory("logs");
    let toml = home.path("broker.toml");
    let table = "\n[audit.file.lines]\npath = \"logs/records.jsonl\"\n";
    std::fs::write(&toml, std::fs::read_to_string(&toml).unwrap() + table).unwrap();
    let (how, user) = match home.uid() {
        Some(uid) => ("-m", uid.to_string()),
        // Where no user may have a mount of their own, this says so.
        None => ("-rm", String::new()),
    };
    let mut mount = [how, "sh", "-c", WITH_A_SMALL_DISK, "sh", &user].map(OsString::from).to_vec();
    mount.push(logs.into());
    let run = through(home, "unshare", |words| [mount, words].concat())
        .args(["broker", "serve", "--config"])
        .args([home.path("broker.toml")])
        .env("TMPCRED_BROKER_KEK", KEK)
        .limit(Duration::from_secs(240))
        .spawn();
    run.line_on_stderr("listens on");
    // As that program sees it.
    let inside = |name: &str| -> PathBuf {
        let logs = services.broker.home.path(format!("logs/{name}"));
        format!("/proc/{}/root{}", run.pid().as_raw_nonzero(), logs.display()).into()
    };
    wait_until("the disk to be full", SOON, || {
        issues(&services, 5);
        (metric(&metrics, "audit_sink_failures_total", "lines") > 0.0).then_some(())
    });
    issues(&services, 20);
    let last = newest(&services.broker);
    let (mut cut, path) = (0, inside("records.jsonl"));
    let before = numbers(&path, &mut cut);
    assert!(before.len() as u64 <= last - 20 && cut == 0, "{} of {last}", before.len());
    let text = std::fs::read_to_string(&path).unwrap();
    assert!(text.is_empty() || text.ends_with('\n'), "what found no room is taken back");
    assert!(metric(&metrics, "audit_sink_lag_records", "lines") >= 20.0);
    assert!(run.stderr().contains("No space left on device"), "{}", run.stderr());
    std::fs::write(inside("filler"), "").unwrap();
    assert_eq!(all_in(&path, last, 0), (1..=last).collect::<Vec<_>>());
    wait_until("the mark to follow", SOON, || {
        (metric(&metrics, "audit_sink_lag_records", "lines") == 0.0).then_some(())
    });
    assert_eq!(metric(&metrics, "audit_sink_lag_seconds", "lines"), 0.0);
}
