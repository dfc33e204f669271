//! Homes, users, and running programs there.

use std::os::unix::fs::MetadataExt as _;
use std::time::Duration;

use rustix::process::{Signal, test_kill_process};

use crate::support::home::{Home, tmpcred};
use crate::support::kernel::{self, Key};
use crate::support::wait::wait_until;

#[test]
fn programs_see_nothing_of_the_outside() {
    let mut home = Home::new();
    home.set("MINE", "1");
    let run = home.command("env").env("ALSO", "2").env("GONE", "3").env_remove("GONE");
    let output = run.env_remove("TZ").run().ok();
    let mut names: Vec<&str> =
        output.stdout.lines().map(|line| line.split_once('=').unwrap().0).collect();
    names.sort_unstable();
    let expected = [
        "ALSO",
        "HOME",
        "LANG",
        "MINE",
        "PATH",
        "TMPDIR",
        "XDG_CACHE_HOME",
        "XDG_CONFIG_HOME",
        "XDG_DATA_HOME",
        "XDG_RUNTIME_DIR",
        "XDG_STATE_HOME",
    ];
    assert_eq!(names, expected);
    let here = home.command("pwd").run().ok();
    assert_eq!(here.stdout.trim_end(), home.path("work").to_str().unwrap());
    let there = home.command("pwd").current_dir(home.path("tmp")).run().ok();
    assert_eq!(there.stdout.trim_end(), home.path("tmp").to_str().unwrap());
}

#[test]
fn files_of_a_home_are_where_programs_look_for_them() {
    let home = Home::new();
    home.config("a");
    home.project("b");
    let read =
        home.command("sh").args(["-c", r#"cat "$HOME/.config/tmpcred/config.toml" .tmpcred.toml"#]);
    assert_eq!(read.run().ok().stdout, "ab");
    let root = home.path("");
    drop(home);
    assert!(!root.exists());
}

#[test]
fn the_program_runs_in_each_home() {
    for home in [Home::new(), Home::nobody(), Home::stranger()] {
        tmpcred(&home).args(["--version"]).run().ok();
    }
}

#[test]
fn the_end_of_a_program_is_told() {
    let home = Home::new();
    let sh = |script: &str| home.command("sh").args(["-c", script]);
    let output = sh("cat; echo err >&2; exit 3").stdin("in").run().ended_with(3);
    assert_eq!((output.stdout.as_str(), output.stderr.as_str()), ("in", "err\n"));
    let output = sh("kill -TERM $$").run();
    assert_eq!((output.code, output.signal), (None, Some(15)));
    assert_eq!(sh(r#"echo '{"a": 1}'"#).run().ok().json()["a"], 1);
    assert_eq!(sh("cat").run().ok().stdout, "", "no standard input unless there is some");
}

#[test]
#[should_panic(expected = "did not end within")]
fn a_program_that_takes_too_long_is_killed() {
    let home = Home::new();
    home.command("sleep").args(["60"]).limit(Duration::from_millis(100)).run();
}

#[test]
fn a_program_in_the_background_can_be_watched_and_signalled() {
    let home = Home::new();
    let script =
        "trap 'echo bye; exit 7' TERM; echo up >&2; echo out; while :; do sleep 0.01; done";
    let running = home.command("sh").args(["-c", script]).spawn();
    assert_eq!(running.line_on_stderr("u"), "up");
    assert_eq!(running.line_on_stdout("o"), "out");
    running.signal(Signal::TERM);
    assert_eq!(running.wait().ended_with(7).stdout, "out\nbye\n");
}

#[test]
fn dropping_a_program_kills_what_it_started_too() {
    let home = Home::new();
    let running = home.command("sh").args(["-c", "sleep 600 & echo $!; wait"]).spawn();
    let pid = running.line_on_stdout("").parse().unwrap();
    let grandchild = rustix::process::Pid::from_raw(pid).unwrap();
    drop(running);
    wait_until("the grandchild's end", Duration::from_secs(60), || gone(grandchild).then_some(()));
}

#[test]
fn nothing_outlives_its_home() {
    let home = Home::new();
    // It speaks once it has left the group that ends with the program.
    let script = "setsid sh -c 'echo $$; exec sleep 600 >/dev/null 2>&1' </dev/null &";
    let pid = home.command("sh").args(["-c", script]).run().ok().stdout;
    let left_behind = rustix::process::Pid::from_raw(pid.trim_end().parse().unwrap()).unwrap();
    assert!(!gone(left_behind));
    drop(home);
    wait_until("its end", Duration::from_secs(60), || gone(left_behind).then_some(()));
}

/// Whether a process has ended, be it that nobody has asked for its end yet.
pub(super) fn gone(pid: rustix::process::Pid) -> bool {
    let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero()));
    test_kill_process(pid).is_err()
        || state.is_ok_and(|state| state.rsplit(')').next().unwrap().trim_start().starts_with('Z'))
}

#[test]
fn other_users_own_their_homes() {
    for home in [Home::nobody(), Home::stranger()] {
        home.write("work/file", "theirs");
        let output = home.command("sh").args(["-c", "cat file && touch made && id -u"]).run().ok();
        let uid: u32 = output.stdout.strip_prefix("theirs").unwrap().trim_end().parse().unwrap();
        assert_ne!(uid, 0, "root can read everything: that would show nothing");
        assert_eq!(home.path("work/made").metadata().unwrap().uid(), uid);
    }
}

fn list(home: &Home) -> Vec<String> {
    let keys: Vec<Key> = kernel::keys(home.command("cat"));
    keys.into_iter().map(|key| key.description).collect()
}

#[test]
fn strangers_have_keyrings_of_their_own() {
    let (one, other) = (Home::stranger(), Home::stranger());
    let name = format!("tmpcred:{}", uuid::Uuid::new_v4());
    let script = format!("keyctl timeout $(keyctl add user {name} secret @u) 100");
    one.command("sh").args(["-c", &script]).run().ok();
    let found = kernel::keys(one.command("cat"));
    let key = found.iter().find(|key| key.description == name).unwrap();
    assert!(key.timeout == "1m" || key.timeout.ends_with('s'), "{key:?}");
    if one.uid().is_some() {
        assert!(!list(&other).contains(&name));
    }
}

#[test]
fn keys_of_a_home_are_forgotten_with_it_and_no_others() {
    let here = Home::new();
    let ours = uuid::Uuid::new_v4().simple().to_string();
    let theirs = uuid::Uuid::new_v4().simple().to_string();
    let add = |name: &str| {
        let description = format!("tmpcred:credential:{name}");
        here.command("keyctl").args(["add", "user", &description, "x", "@u"]).run().ok().stdout
    };
    add(&ours);
    let serial = add(&theirs);
    here.write(".local/state/tmpcred/index.json", format!(r#"{{"{ours}":{{}}}}"#));
    drop(here);

    let home = Home::new();
    let there = |name: &str| list(&home).iter().any(|key| key.ends_with(name));
    // The kernel clears away in its own time.
    wait_until("the key to go", Duration::from_secs(60), || (!there(&ours)).then_some(()));
    assert!(there(&theirs));
    Home::new().command("keyctl").args(["unlink", serial.trim_end(), "@u"]).run().ok();
}

#[test]
fn a_new_session_keyring_cannot_read_keys_of_the_user_without_a_link() {
    let home = Home::stranger();
    let serial = home.command("keyctl").args(["add", "user", "tmpcred-test", "secret", "@u"]).run();
    let serial = serial.ok().stdout;
    let print = |home: &Home| home.command("keyctl").args(["pipe", serial.trim_end()]);
    assert_eq!(print(&home).run().ok().stdout, "secret");
    let output = print(&home).new_session_keyring().run();
    assert_ne!(output.code, Some(0), "{output:?}");
    assert!(!output.stderr.contains("session"), "the wrapper's own word: {}", output.stderr);
    let script = format!("keyctl link @u @s; keyctl pipe {serial}");
    let linked = home.command("sh").args(["-c", &script]).new_session_keyring().run().ok();
    assert_eq!(linked.stdout, "secret");
}
