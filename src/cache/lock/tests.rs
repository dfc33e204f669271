//! Storms, failures and deaths, among threads and among processes.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Barrier, Mutex};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::host::interact::{DevicePrompt, Interact, Silent, Waiting};

const NAME: &str = "session-test";
/// Tells a copy of this test program what to do, and where.
const CHILD: &str = "TMPCRED_TEST_LOCK_CHILD";

fn locks(dir: &TempDir) -> Locks {
    locks_below(dir.path(), Arc::new(Silent))
}

fn locks_below(root: &Path, interact: Arc<dyn Interact>) -> Locks {
    Locks::new(&Dirs::below(root), Arc::new(Notices::new(interact)))
}

fn lock_file(dir: &TempDir) -> PathBuf {
    dir.path().join("run/locks").join(format!("{NAME}.lock"))
}

fn nothing() -> Result<Option<()>> {
    Ok(None)
}

#[track_caller]
fn expect_lead<T: std::fmt::Debug>(turn: Result<Turn<T>>) -> Lead {
    match turn.unwrap() {
        Turn::Lead(lead) => lead,
        Turn::Done(found) => panic!("nobody can have done it: {found:?}"),
    }
}

#[track_caller]
fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let started = Instant::now();
    while !condition() {
        assert!(started.elapsed() < Duration::from_secs(60), "this never came: {what}");
        thread::yield_now();
    }
}

fn queued(locks: &Locks) -> usize {
    locks.queued.load(Ordering::SeqCst)
}

#[test]
fn a_hundred_ask_and_one_leads() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let result = Mutex::new(None::<u32>);
    let (led, done) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let start = Barrier::new(100);
    thread::scope(|scope| {
        for _ in 0..100 {
            scope.spawn(|| {
                start.wait();
                match locks.lead(NAME, || Ok(*result.lock().unwrap())).unwrap() {
                    Turn::Lead(lead) => {
                        led.fetch_add(1, Ordering::SeqCst);
                        until("99 wait", || queued(&locks) >= 99);
                        *result.lock().unwrap() = Some(7);
                        lead.succeed();
                    }
                    Turn::Done(found) => {
                        assert_eq!(found, 7);
                        done.fetch_add(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    assert_eq!((led.into_inner(), done.into_inner()), (1, 99));
    assert_eq!(files::list(&dir.path().join("run/locks")).unwrap(), Vec::<PathBuf>::new());
}

#[test]
fn those_who_waited_inherit_a_failure_and_later_ones_do_not() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let lead = expect_lead(locks.lead(NAME, nothing));
    let failure = Error::new(ErrorKind::Denied, "the person said no").hint("ask again");
    thread::scope(|scope| {
        let waiting: Vec<_> =
            (0..50).map(|_| scope.spawn(|| locks.lead(NAME, nothing).map(|_| ()))).collect();
        until("50 wait", || queued(&locks) == 50);
        lead.fail(&failure);
        for thread in waiting {
            let error = thread.join().unwrap().unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Denied);
            assert_eq!(error.message(), "another tmpcred process tried just now");
            assert_eq!(error.causes(), ["the person said no"]);
            assert_eq!(error.hints(), ["ask again"]);
        }
    });
    expect_lead(locks.lead(NAME, nothing));
}

#[test]
fn one_who_takes_it_in_any_case_inherits_no_failure() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let lead = expect_lead(locks.lead(NAME, nothing));
    thread::scope(|scope| {
        let taker = scope.spawn(|| locks.take(NAME, None).unwrap().is_over(NAME));
        until("it waits", || queued(&locks) == 1);
        lead.fail(&Error::new(ErrorKind::Denied, "the person said no"));
        assert!(taker.join().unwrap());
    });
}

#[test]
fn a_lead_dropped_without_a_word_passes_to_the_next() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let lead = expect_lead(locks.lead(NAME, nothing));
    let found = AtomicBool::new(false);
    let led = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let look = || Ok(found.load(Ordering::SeqCst).then_some(()));
                if let Turn::Lead(lead) = locks.lead(NAME, look).unwrap() {
                    led.fetch_add(1, Ordering::SeqCst);
                    found.store(true, Ordering::SeqCst);
                    lead.succeed();
                }
            });
        }
        until("10 wait", || queued(&locks) >= 10);
        drop(lead);
    });
    assert_eq!(led.into_inner(), 1);
}

#[test]
fn work_done_just_before_is_not_done_again() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    assert!(matches!(locks.lead(NAME, || Ok(Some(1))).unwrap(), Turn::Done(1)));
    // The lock is free again, and so it is after a failed look.
    let error = Error::new(ErrorKind::KeyringLocked, "locked");
    let refused = locks.lead(NAME, || Err::<Option<()>, _>(error.clone())).unwrap_err();
    assert_eq!(refused, error);
    expect_lead(locks.lead(NAME, nothing));
}

#[test]
fn what_a_lock_file_held_before_does_not_matter() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let failed = State {
        attempt: 3,
        pid: 1,
        outcome: Outcome::Failed { error: Error::new(ErrorKind::Other, "long ago") },
    };
    for contents in [
        Vec::new(),
        b"{\"attempt\":".to_vec(),
        vec![0xff; 100],
        vec![b'x'; 1_000_000],
        serde_json::to_vec(&failed).unwrap(),
    ] {
        files::write_private(&lock_file(&dir), &contents).unwrap();
        let lead = expect_lead(locks.lead(NAME, nothing));
        let state = State::read(&lead.held.as_ref().unwrap().file).unwrap();
        assert_eq!((state.pid, state.outcome), (std::process::id(), Outcome::Running));
        lead.succeed();
    }
}

#[test]
fn contents_that_make_no_sense_do_not_keep_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let lead = expect_lead(locks.lead(NAME, nothing));
    thread::scope(|scope| {
        let waiting = scope.spawn(|| expect_lead(locks.lead(NAME, nothing)));
        until("one waits", || queued(&locks) == 1);
        (&lead.held.as_ref().unwrap().file).write_all(&[0xff; 200_000]).unwrap();
        drop(lead);
        waiting.join().unwrap();
    });
}

#[test]
fn different_names_do_not_wait_for_each_other() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let _one = expect_lead(locks.lead("a", nothing));
    let _two = expect_lead(locks.lead("b", nothing));
    assert!(matches!(locks.exclusive("a", Duration::ZERO), Exclusive::Busy));
    assert!(matches!(locks.exclusive("c", Duration::ZERO), Exclusive::Held(_)));
}

#[derive(Default)]
struct Recorder {
    warnings: Mutex<Vec<String>>,
    waits: Mutex<Vec<String>>,
}

struct Shown;
impl Waiting for Shown {}

impl Interact for Recorder {
    fn may_ask(&self) -> bool {
        false
    }
    fn may_browse(&self) -> bool {
        false
    }
    fn note(&self, _: &str) {}
    fn warn(&self, line: &str) {
        self.warnings.lock().unwrap().push(line.to_string());
    }
    fn login_page(&self, _: &url::Url, _: bool) {}
    fn device_code(&self, _: &DevicePrompt) {}
    fn waiting(&self, what: &str) -> Box<dyn Waiting> {
        self.waits.lock().unwrap().push(what.to_string());
        Box::new(Shown)
    }
}

#[test]
fn a_wait_ends_some_time_and_says_for_whom_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    let mut locks = locks_below(dir.path(), recorder.clone());
    // Longer than a wait stays quiet, on a busy machine too.
    locks.limit = QUIET * 3;
    let _lead = expect_lead(locks.lead(NAME, nothing));
    let holder = format!("another tmpcred (process {})", std::process::id());
    let error = locks.lead(NAME, nothing).unwrap_err();
    assert_eq!(error.message(), format!("{holder} did not finish within 3s"));
    assert_eq!(*recorder.waits.lock().unwrap(), [format!("waiting for {holder}")]);
}

#[test]
fn whoever_can_do_without_waits_no_longer_than_it_says() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let lead = expect_lead(locks.lead(NAME, nothing));
    let limit = Some(Duration::from_millis(1100));
    for error in [
        locks.lead_within(NAME, limit, nothing).map(|_| ()).unwrap_err(),
        locks.take(NAME, limit).map(|_| ()).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        assert!(error.message().ends_with("did not finish within 1s"), "{error}");
    }
    lead.succeed();
    expect_lead(locks.lead_within(NAME, limit, nothing));
}

#[test]
fn without_a_place_for_locks_work_goes_on_with_one_warning() {
    let dir = tempfile::tempdir().unwrap();
    let recorder = Arc::new(Recorder::default());
    // Files where directories should be: not even the administrator can use them.
    files::write_private(&dir.path().join("run"), b"").unwrap();
    files::write_private(&dir.path().join("state"), b"").unwrap();
    let locks = locks_below(dir.path(), recorder.clone());
    let lead = expect_lead(locks.lead(NAME, nothing));
    expect_lead(locks.lead(NAME, nothing)).fail(&Error::new(ErrorKind::Other, "x"));
    assert!(matches!(locks.lead(NAME, || Ok(Some(()))).unwrap(), Turn::Done(())));
    assert!(matches!(locks.exclusive(NAME, Duration::ZERO), Exclusive::Unavailable));
    lead.succeed();
    assert_eq!(recorder.warnings.lock().unwrap().len(), 1);
}

#[test]
fn without_a_runtime_directory_locks_are_in_the_state_directory() {
    let dir = tempfile::tempdir().unwrap();
    files::write_private(&dir.path().join("run"), b"").unwrap();
    let recorder = Arc::new(Recorder::default());
    let locks = locks_below(dir.path(), recorder.clone());
    let _lead = expect_lead(locks.lead(NAME, nothing));
    assert!(files::exists(dir.path().join("state/run/locks").join(format!("{NAME}.lock"))));
    assert!(recorder.warnings.lock().unwrap().is_empty());
}

/// Runs one test of this program in another process.
#[expect(clippy::disallowed_methods, reason = "a test of what other processes do")]
fn child(test: &str, dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "--quiet", "--nocapture", &format!("cache::lock::tests::{test}")])
        .env(CHILD, dir)
        .stdout(Stdio::null())
        .spawn()
        .unwrap()
}

#[expect(clippy::disallowed_methods, reason = "how the parent talks to it")]
fn child_dir() -> Option<PathBuf> {
    std::env::var_os(CHILD).map(PathBuf::from)
}

#[test]
fn child_that_leads_until_it_is_killed() {
    let Some(dir) = child_dir() else { return };
    let locks = locks_below(&dir, Arc::new(Silent));
    let _lead = expect_lead(locks.lead(NAME, nothing));
    files::write_private(&dir.join("leading"), b"").unwrap();
    loop {
        thread::park();
    }
}

#[test]
fn a_killed_leader_is_followed_by_one_of_those_who_wait() {
    let dir = tempfile::tempdir().unwrap();
    let mut leader = child("child_that_leads_until_it_is_killed", dir.path());
    until("the other process leads", || files::exists(dir.path().join("leading")));
    let locks = locks(&dir);
    let found = AtomicBool::new(false);
    let led = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..20 {
            scope.spawn(|| {
                let look = || Ok(found.load(Ordering::SeqCst).then_some(()));
                if let Turn::Lead(lead) = locks.lead(NAME, look).unwrap() {
                    led.fetch_add(1, Ordering::SeqCst);
                    found.store(true, Ordering::SeqCst);
                    lead.succeed();
                }
            });
        }
        until("20 wait", || queued(&locks) >= 20);
        leader.kill().unwrap();
        leader.wait().unwrap();
    });
    assert_eq!(led.into_inner(), 1);
}

#[test]
fn child_that_does_the_work_once() {
    let Some(dir) = child_dir() else { return };
    let locks = locks_below(&dir, Arc::new(Silent));
    let result = dir.join("result");
    let look = || Ok(files::exists(&result).then_some(()));
    if let Turn::Lead(lead) = locks.lead(NAME, look).unwrap() {
        let mark = dir.join(format!("led-{}", std::process::id()));
        files::write_private(&mark, b"").unwrap();
        files::write_private(&result, b"").unwrap();
        lead.succeed();
    }
}

#[test]
fn many_processes_do_the_work_once() {
    let dir = tempfile::tempdir().unwrap();
    let children: Vec<_> =
        (0..16).map(|_| child("child_that_does_the_work_once", dir.path())).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    let marks = files::list(dir.path()).unwrap();
    let led = marks.iter().filter(|p| p.file_name().unwrap().to_string_lossy().starts_with("led"));
    assert_eq!(led.count(), 1);
}

#[cfg(unix)]
#[test]
fn whoever_lets_go_leaves_the_file_of_the_next_holder() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let first = expect_lead(locks.lead(NAME, nothing));
    // Somebody cleans up what seems to be lying about.
    files::remove(&lock_file(&dir)).unwrap();
    let second = expect_lead(locks.lead(NAME, nothing));
    drop(first);
    assert!(matches!(locks.exclusive(NAME, Duration::ZERO), Exclusive::Busy));
    drop(second);
    assert!(matches!(locks.exclusive(NAME, Duration::ZERO), Exclusive::Held(_)));
}

#[cfg(unix)]
#[test]
fn one_holds_it_at_a_time_although_files_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let locks = locks(&dir);
    let (inside, rounds) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                while rounds.load(Ordering::SeqCst) < 200 {
                    // Files of holders before are what it finds, again and again.
                    let held = locks.exclusive(NAME, Duration::from_secs(60));
                    assert!(matches!(held, Exclusive::Held(_)));
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0);
                    rounds.fetch_add(1, Ordering::SeqCst);
                    inside.fetch_sub(1, Ordering::SeqCst);
                }
            });
        }
    });
}
