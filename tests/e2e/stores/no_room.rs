//! Disks that are full or cannot be written: a good credential is still delivered.

use std::ffi::OsString;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use super::{claims, token};
use crate::journey::Journey;
use crate::support::home::{Home, through};
use crate::support::run::Run;

/// Directories without the right to write, until it is dropped.
struct ReadOnly(Vec<PathBuf>);

impl ReadOnly {
    fn all_below(directory: &Path) -> Self {
        let mut all = vec![directory.to_path_buf()];
        let mut next = 0;
        while let Some(directory) = all.get(next) {
            let entries = fs::read_dir(directory).unwrap().map(Result::unwrap);
            let inner: Vec<_> =
                entries.filter(|e| e.file_type().unwrap().is_dir()).map(|e| e.path()).collect();
            all.extend(inner);
            next += 1;
        }
        let all = Self(all);
        all.set(0o555);
        all
    }

    fn set(&self, mode: u32) {
        for directory in &self.0 {
            fs::set_permissions(directory, Permissions::from_mode(mode)).unwrap();
        }
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        self.set(0o700);
    }
}

#[test]
fn a_read_only_home_costs_comfort_and_no_credential() {
    let journey = Journey::start();
    // What a browser writes down is not the program's affair.
    journey.home.write("browser.log", "");
    let read_only = ReadOnly::all_below(&journey.home.path(""));
    let probe = journey.home.command("touch").args([journey.home.path("x")]).run();
    assert_ne!(probe.code, Some(0), "the home can be written: this would show nothing");
    let first = journey.tmpcred(&["token"]).run().ok();
    assert_eq!(claims(&first.stdout)["role"], "deploy");
    assert!(first.stderr.contains("warning"), "{}", first.stderr);
    assert!(first.stderr.contains("no lock can be taken"), "{}", first.stderr);
    // The keyring of the kernel is no file.
    assert_eq!(token(journey.tmpcred(&["token"])), first.stdout);
    assert_eq!(journey.broker.issued(), 1);
    drop(read_only);
    assert_eq!(token(journey.tmpcred(&["token"])), first.stdout);
    assert_eq!(journey.broker.issued(), 1);
}

/// Becomes a program for which the directories of state and locks are on disks
/// without a free byte.
const WITH_FULL_DISKS: &str = r#"
    set -e
    user=$1; shift
    for directory in "$XDG_STATE_HOME" "$XDG_RUNTIME_DIR"; do
        mount -t tmpfs -o size=64k,mode=0777 full "$directory"
        head -c 1M /dev/zero >"$directory/filler" 2>/dev/null || true
        if echo x 2>/dev/null >"$directory/more"; then echo "the disk is not full" >&2; exit 99; fi
        rm -f "$directory/more"
    done
    [ -z "$user" ] || chown "$user:$user" "$XDG_STATE_HOME" "$XDG_RUNTIME_DIR"
    exec "$@"
"#;

/// The program on a machine whose disk is full.
fn on_a_full_disk(home: &Home, args: &[&str]) -> Run {
    let (how, user) = match home.uid() {
        Some(uid) => ("-m", uid.to_string()),
        // Where no user may have a mount of their own, this says so.
        None => ("-rm", String::new()),
    };
    let mount = [how, "sh", "-c", WITH_FULL_DISKS, "sh", &user].map(OsString::from);
    through(home, "unshare", |words| [mount.to_vec(), words].concat()).args(args)
}

#[test]
fn a_full_disk_costs_comfort_and_no_credential() {
    let journey = Journey::start();
    let first = on_a_full_disk(&journey.home, &["token"]).run().ok();
    assert_eq!(claims(&first.stdout)["role"], "deploy");
    assert!(first.stderr.contains("warning"), "{}", first.stderr);
    assert!(first.stderr.contains("No space left on device"), "{}", first.stderr);
    let second = on_a_full_disk(&journey.home, &["token"]).run().ok();
    assert_eq!(second.stdout, first.stdout);
    // Once there is room again, nothing is missing.
    assert_eq!(token(journey.tmpcred(&["token"])), first.stdout);
    assert_eq!(journey.broker.issued(), 1);
    assert_eq!(journey.provider.count_grants("authorization_code"), 1);
}
