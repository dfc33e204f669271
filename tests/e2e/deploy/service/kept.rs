//! What timers keep: backups, and checkpoints of an audit log that was verified.

use std::fs;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::PathBuf;

use super::{LONG, Machine, ours, status};
use crate::support::run::Output;
use crate::support::wait::wait_until;

const BACKUP: &str = "tmpcred-broker-backup";
const VERIFY: &str = "tmpcred-broker-verify";

impl Machine {
    /// A file there, as this machine sees it.
    fn file(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init.get().unwrap()))
    }

    /// Where a unit keeps things.
    fn directory(&self, unit: &str) -> PathBuf {
        self.file(&format!("/var/lib/private/{unit}"))
    }

    /// What a unit has kept, the oldest first.
    fn kept(&self, unit: &str) -> Vec<String> {
        let entries = fs::read_dir(self.directory(unit)).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    /// Has a unit do its work once, in a second in which it has kept nothing yet.
    fn once(&self, unit: &str) -> Output {
        let kept = if self.directory(unit).exists() { self.kept(unit) } else { Vec::new() };
        wait_until("the next second", LONG, || {
            let now = self.run(&["date", "-u", "+%Y%m%dT%H%M%SZ"]).ok().stdout;
            kept.iter().all(|name| !name.contains(now.trim())).then_some(())
        });
        self.run(&["systemctl", "start", unit])
    }

    #[track_caller]
    fn once_well(&self, unit: &str) {
        let run = self.once(unit);
        assert_eq!(run.code, Some(0), "{}\n{}", run.stderr, self.journal(unit));
    }

    /// As before, where it has to fail: with which code, as everybody sees.
    #[track_caller]
    fn once_in_vain(&self, unit: &str) -> String {
        assert_ne!(self.once(unit).code, Some(0), "{}", self.journal(unit));
        let failed = self.systemctl(&["--failed", "--plain", "--no-legend"]).stdout;
        assert!(failed.contains(&format!("{unit}.service")), "{failed}");
        let code = self.systemctl(&["show", "--property=ExecMainStatus", "--value", unit]);
        code.stdout.trim().into()
    }

    /// Runs a program there.
    fn run(&self, words: &[&str]) -> Output {
        self.there(*self.init.get().unwrap(), words)
    }

    fn sqlite(&self, statements: &str) {
        let database = "/var/lib/private/tmpcred-broker/broker.db";
        self.run(&["sqlite3", "-cmd", ".timeout 20000", database, statements]).ok();
    }
}

#[test]
fn backups_are_made_beside_the_broker_and_the_old_ones_go_once_there_is_another() {
    let machine = Machine::start();
    let broker = machine.broker();
    // Two are enough here; and a disk of their own, which can be full.
    let number = "[Service]\nExecStart=\n\
                  ExecStart=/usr/local/sbin/tmpcred-broker-keep backup /var/lib/tmpcred-broker-backup 2\n";
    let changed = machine.file("/etc/systemd/system/tmpcred-broker-backup.service.d/number.conf");
    fs::create_dir(changed.parent().unwrap()).unwrap();
    fs::write(changed, number).unwrap();
    machine.systemctl(&["daemon-reload"]);
    let disk = "/var/lib/private/tmpcred-broker-backup";
    machine.run(&["mkdir", "--parents", disk]).ok();
    machine.run(&["mount", "-t", "tmpfs", "-o", "size=16m", "disk", disk]).ok();

    assert_eq!(machine.token().status, 200);
    machine.once_well(BACKUP);
    let first = machine.kept(BACKUP);
    let [one] = &first[..] else { panic!("{first:?}") };
    let of = fs::metadata(machine.directory(BACKUP).join(one)).unwrap();
    let user = status(broker)["Uid"].split_whitespace().next().unwrap().to_string();
    assert_eq!((of.uid().to_string(), of.permissions().mode() & 0o777), (user, 0o600));
    let said = machine.journal(BACKUP);
    assert!(said.contains("The log ends as the broker sealed it"), "the key is at hand: {said}");
    // The broker itself does not get there.
    assert!(!PathBuf::from(format!("/proc/{broker}/root{disk}")).exists());

    // What is no backup is left alone, but for what was not finished.
    fs::write(machine.directory(BACKUP).join("broker-of-2025.db"), "").unwrap();
    fs::write(machine.directory(BACKUP).join(".tmpcred-cut-off"), "").unwrap();
    machine.once_well(BACKUP);
    let second = machine.kept(BACKUP);
    assert_eq!((second.len(), &second[0], &second[2][..]), (3, one, "broker-of-2025.db"));
    assert_eq!(machine.token().status, 200);
    machine.once_well(BACKUP);
    let third = machine.kept(BACKUP);
    assert_eq!((third.len(), &third[0], &third[2]), (3, &second[1], &second[2]));

    // Neither a full disk nor a log that is not good costs a backup that is there.
    let filler = machine.directory(BACKUP).join("filler");
    machine.run(&["sh", "-c", &format!("cat /dev/zero 2>/dev/null >{disk}/filler")]);
    assert_eq!(machine.once_in_vain(BACKUP), "1", "{}", machine.journal(BACKUP));
    let said = machine.journal(BACKUP);
    assert!(said.contains("disk is full"), "{said}");
    fs::remove_file(&filler).unwrap();
    machine.sqlite(
        "create table aside as select seal from audit_head; update audit_head set seal = x'00'",
    );
    assert_eq!(machine.once_in_vain(BACKUP), "9", "{}", machine.journal(BACKUP));
    assert_eq!(machine.kept(BACKUP), third);
    machine.sqlite("update audit_head set seal = (select seal from aside); drop table aside");
    machine.once_well(BACKUP);
    let failed = machine.systemctl(&["--failed", "--plain", "--no-legend"]).stdout;
    assert!(!failed.contains(BACKUP), "{failed}");

    // Where a clock was wrong once, none is taken for an old one.
    let before = machine.kept(BACKUP);
    let later = machine.directory(BACKUP).join("broker-20991231T000000Z.db");
    fs::write(&later, "").unwrap();
    assert_eq!(machine.once_in_vain(BACKUP), "1", "{}", machine.journal(BACKUP));
    let after = machine.kept(BACKUP);
    assert!(after.len() == before.len() + 2 && before.iter().all(|name| after.contains(name)));
    fs::remove_file(&later).unwrap();
    machine.once_well(BACKUP);
    assert_eq!(machine.kept(BACKUP).len(), before.len());

    // The newest one has all of it. It is restored as docs/storage.md says.
    machine.systemctl(&["stop", "tmpcred-broker"]);
    let aside = "mkdir -m 700 /var/lib/private/put-away && \
                 mv /var/lib/private/tmpcred-broker/broker.db* /var/lib/private/put-away/";
    machine.run(&["sh", "-c", aside]).ok();
    let newest = &machine.kept(BACKUP)[1];
    let page = fs::read_to_string(ours("docs/storage.md")).unwrap();
    let unit = page.split("\n   systemctl start tmpcred-broker-restore@").nth(1).unwrap();
    let unit = unit.split_whitespace().next().unwrap();
    let unit = unit.replace("broker-20260131T001259Z.db", newest);
    assert!(unit.contains(newest), "{unit}");
    let unit = format!("tmpcred-broker-restore@{unit}");
    let run = machine.run(&["systemctl", "start", &unit]);
    assert_eq!(run.code, Some(0), "{}\n{}", run.stderr, machine.journal(&unit));
    let said = machine.journal(&unit);
    assert!(said.contains("The log ends as the broker sealed it"), "{said}");
    machine.systemctl(&["start", "tmpcred-broker"]);
    machine.broker();
    // No database that there is makes room for another.
    assert_ne!(machine.run(&["systemctl", "start", &unit]).code, Some(0));
    let said = machine.journal(&unit);
    assert!(said.contains("broker.db already"), "{said}");
    let mode = fs::metadata(machine.directory("tmpcred-broker")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700);
    machine.control(&["audit", "verify"]).ok();
    let issued = machine.control(&["audit", "query", "--decision", "issued", "--json"]).ok().json();
    assert_eq!(issued.as_array().map(Vec::len), Some(2), "{issued}");
    let restored = ["audit", "query", "--action", "restore", "--json"];
    let restored = machine.control(&restored).ok().json();
    assert_eq!(restored.as_array().map(Vec::len), Some(1), "{restored}");
    // All that was issued before is revoked by then.
    let revoked = ["audit", "query", "--decision", "revoked", "--json"];
    let revoked = machine.control(&revoked).ok().json();
    assert_eq!(revoked.as_array().map(Vec::len), Some(1), "{revoked}");
    assert_eq!(revoked[0]["action"], "revoke-many", "{revoked}");
    // Until the second is over that is in, there is none: who asks is told to come again.
    wait_until("the second after", LONG, || {
        let issued = machine.token();
        let is_late = issued.status == 503 && issued.body.contains("there is none until then");
        assert!(is_late || issued.status == 200, "{}", issued.body);
        (issued.status == 200).then_some(())
    });
}

#[test]
fn a_checkpoint_is_kept_once_the_log_was_verified_against_the_one_before() {
    let machine = Machine::start();
    machine.broker();
    assert_eq!(machine.token().status, 200);
    wait_until("a checkpoint", LONG, || {
        (machine.control(&["audit", "checkpoint"]).code == Some(0)).then_some(())
    });
    machine.once_well(BACKUP);
    machine.once_well(VERIFY);
    let said = machine.journal(VERIFY);
    assert!(said.contains(" and one from elsewhere."), "{said}");
    let read = |name: &String| fs::read_to_string(machine.directory(VERIFY).join(name)).unwrap();
    let signed = read(&machine.kept(VERIFY)[0]);
    assert_eq!(machine.token().status, 200);
    wait_until("another checkpoint", LONG, || {
        (machine.control(&["audit", "checkpoint"]).ok().stdout != signed).then_some(())
    });
    machine.once_well(VERIFY);
    let said = machine.journal(VERIFY);
    assert!(said.contains(" and 2 from elsewhere."), "{said}");
    let kept = machine.kept(VERIFY);
    let [first, second] = &kept[..] else { panic!("{kept:?}") };
    assert!(first.starts_with("checkpoint-") && first.ends_with("Z.note"), "{first}");
    assert_eq!(read(first), signed);
    let size = |note: String| note.lines().nth(1).unwrap().parse::<u64>().unwrap();
    assert!(size(read(second)) > size(signed));

    // A record that was changed; nothing is kept until that is mended.
    let tools_off = "drop trigger if exists audit_record_update;";
    machine
        .sqlite(&format!("{tools_off} update audit_record set role = 'x' where role = 'reader'"));
    assert_eq!(machine.once_in_vain(VERIFY), "9", "{}", machine.journal(VERIFY));
    assert_eq!(machine.kept(VERIFY), kept);
    machine.sqlite("update audit_record set role = 'reader' where role = 'x'");
    machine.once_well(VERIFY);
    let kept = machine.kept(VERIFY);
    assert_eq!(kept.len(), 3, "{kept:?}");

    // The newest checkpoints are removed, or no checkpoints; the broker has nothing new to sign.
    machine.systemctl(&["stop", "tmpcred-broker"]);
    machine.sqlite("create table aside as select * from audit_checkpoint");
    for (change, says) in [
        ("delete from audit_checkpoint where size > (select min(size) from aside)", "were removed"),
        ("delete from audit_checkpoint", "were removed"),
        ("update audit_checkpoint set note = 'x'", "somebody has changed"),
    ] {
        machine.sqlite(change);
        assert_eq!(machine.once_in_vain(VERIFY), "9", "{change}: {}", machine.journal(VERIFY));
        let said = machine.journal(VERIFY);
        assert!(said.contains(says), "{change}: {said}");
        assert_eq!(machine.kept(VERIFY), kept);
        machine.sqlite(
            "delete from audit_checkpoint; insert into audit_checkpoint select * from aside",
        );
    }
    machine.sqlite("drop table aside");

    // An older log, in itself as good as ever, in the place of the newer.
    let backup = machine.directory(BACKUP).join(&machine.kept(BACKUP)[0]);
    let store = machine.directory("tmpcred-broker");
    for end in ["-wal", "-shm"] {
        drop(fs::remove_file(store.join(format!("broker.db{end}"))));
    }
    fs::write(store.join("broker.db"), fs::read(backup).unwrap()).unwrap();
    assert_eq!(machine.once_in_vain(VERIFY), "9", "{}", machine.journal(VERIFY));
    assert_eq!(machine.kept(VERIFY), kept);
    let said = machine.journal(VERIFY);
    assert!(said.contains("is missing, by the checkpoint from elsewhere"), "{said}");
}

#[test]
fn timers_have_a_next_time() {
    let machine = Machine::start();
    machine.broker();
    for unit in [BACKUP, VERIFY] {
        let timer = format!("{unit}.timer");
        machine.systemctl(&["enable", "--now", &timer]);
        let next = ["show", "--property=NextElapseUSecRealtime", "--value", &timer];
        assert!(!machine.systemctl(&next).stdout.trim().is_empty(), "{timer}");
        assert_eq!(machine.systemctl(&["is-enabled", &timer]).stdout.trim(), "enabled");
    }
}
