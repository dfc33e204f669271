use std::collections::VecDeque;

use super::super::tests::{aws, bearer};
use super::*;
use crate::credential::Lifetime;
use crate::host::clock::SystemClock;
use crate::host::env::Env;
use crate::host::interact::Silent;
use crate::secret::Secret;

/// How long a test waits for what must happen. Only failing tests wait that long.
const LIMIT: Duration = Duration::from_secs(60);

/// A credential that is good for so long from now on.
fn good_for(milliseconds: i64, mut credential: Credential) -> Credential {
    let now = SystemClock.now();
    let end = now + time::Duration::milliseconds(milliseconds);
    credential.lifetime = Lifetime::new(now, end, None, SystemClock.machine_started());
    credential
}

/// One whose refresh window has begun, and that is good for so long still.
fn due(milliseconds: i64, credential: Credential) -> Credential {
    let mut credential = good_for(milliseconds, credential);
    credential.lifetime.issued_at -= time::Duration::milliseconds(4 * milliseconds);
    credential
}

fn token(name: &str) -> Credential {
    bearer(name)
}

/// A supply that yields what it was given, then fails, and what it told.
#[derive(Default)]
struct Stock {
    next: Mutex<VecDeque<(i64, Credential)>>,
    asked: Mutex<usize>,
    told: Mutex<Vec<String>>,
    discarded: Mutex<Vec<String>>,
}

impl Supply for Arc<Stock> {
    fn next(&self, _: &Credential) -> Result<Credential> {
        *self.asked.lock().unwrap() += 1;
        match self.next.lock().unwrap().pop_front() {
            Some((milliseconds, credential)) => Ok(good_for(milliseconds, credential)),
            None => Err(Error::new(ErrorKind::Unreachable, "the broker did not answer")
                .hint("see that it runs")),
        }
    }

    fn discard(&self, useless: &Credential) {
        let token = useless.material.secret().expose().clone();
        self.discarded.lock().unwrap().push(token);
    }

    fn tell(&self, news: News<'_>) {
        let told = match news {
            News::Again { .. } => "again".to_string(),
            News::Failed { error, .. } => format!("failed: {error}"),
            News::EndsSoon { left, .. } => format!("ends soon, {}", left.is_positive()),
            News::Ended { .. } => "ended".to_string(),
        };
        self.told.lock().unwrap().push(told);
    }
}

struct World {
    stock: Arc<Stock>,
    renewal: Renewal,
    _dir: tempfile::TempDir,
}

impl World {
    fn begin(first: Credential, then: Vec<(i64, Credential)>, on_renewal: OnRenewal) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut host = Host::real(Env::of_process(), Arc::new(Silent)).unwrap();
        host.dirs = crate::host::dirs::Dirs::below(dir.path());
        let stock = Arc::new(Stock { next: Mutex::new(then.into()), ..Stock::default() });
        let renewal =
            Renewal::prepare(&host, first, Box::new(Arc::clone(&stock)), on_renewal).unwrap();
        renewal.begin(None).unwrap();
        Self { stock, renewal, _dir: dir }
    }

    fn file(&self) -> PathBuf {
        match self.renewal.outlet() {
            Some(Outlet::File(path)) => path.clone(),
            other => panic!("{other:?}"),
        }
    }

    fn in_file(&self) -> String {
        files::read_text(&self.file(), 4096).unwrap().unwrap()
    }

    fn told(&self) -> Vec<String> {
        self.stock.told.lock().unwrap().clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.renewal.end(Duration::ZERO);
    }
}

fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !so() {
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

#[test]
fn nothing_begins_once_it_has_ended() {
    let world = World::begin(good_for(60_000, token("one")), Vec::new(), OnRenewal::Nothing);
    world.renewal.end(Duration::ZERO);
    world.renewal.watch.ask(token("one"));
    assert!(!world.renewal.watch.lock().is_busy);
    assert_eq!(*world.stock.asked.lock().unwrap(), 0);
}

#[test]
fn a_file_is_replaced_in_one_step_and_is_nobody_elses() {
    // So long that on a busy machine none is late, which would be told.
    let then = vec![(10_000, token("second")), (60_000, token("third"))];
    let world = World::begin(good_for(10_000, token("first")), then, OnRenewal::Nothing);
    assert_eq!(world.in_file(), "first");
    let file = world.file();
    let first = files::identity(&file);
    // Whenever it is read, it is whole.
    let mut seen = Vec::new();
    until("the third token", || {
        let token = world.in_file();
        if seen.last() != Some(&token) {
            seen.push(token);
        }
        seen.len() == 3
    });
    assert_eq!(seen, ["first", "second", "third"]);
    assert_ne!(files::identity(&file), first, "it is another file of that name");
    assert_eq!(files::readers(&file).unwrap(), files::Readers::Owner);
    assert_eq!(files::readers(file.parent().unwrap()).unwrap(), files::Readers::Owner);
    assert!(world.told().is_empty(), "{:?}", world.told());
    drop(world);
    assert!(!files::exists(&file));
}

#[test]
fn an_outage_is_ridden_out_and_told_once() {
    let world = World::begin(due(15_000, token("first")), Vec::new(), OnRenewal::Nothing);
    until("a failure", || !world.told().is_empty());
    assert_eq!(world.told(), ["failed: the broker did not answer"]);
    until("another attempt", || *world.stock.asked.lock().unwrap() > 2);
    assert_eq!(world.in_file(), "first");
    world.stock.next.lock().unwrap().push_back((60_000, token("second")));
    until("the new token", || world.in_file() == "second");
    until("the end of the outage", || world.told().last().is_some_and(|told| told == "again"));
    assert!(!world.told().contains(&"ended".to_string()), "{:?}", world.told());
}

#[test]
fn the_end_is_told_before_and_when_it_comes_and_the_endpoint_says_why() {
    let world = World::begin(due(6_000, aws(None)), Vec::new(), OnRenewal::Nothing);
    let current = || Current::current(&*world.renewal.watch);
    assert!(current().is_ok());
    until("the end", || world.told().last().is_some_and(|told| told == "ended"));
    let expected = ["failed: the broker did not answer", "ends soon, true", "ended"];
    assert_eq!(world.told(), expected);
    let why = current().unwrap_err();
    for part in ["has ended", "the broker did not answer", "; see that it runs"] {
        assert!(why.contains(part), "{part}: {why}");
    }
    // It is tried again all the same.
    world.stock.next.lock().unwrap().push_back((60_000, aws(None)));
    until("a new one", || current().is_ok());
}

#[test]
fn what_ends_no_later_than_before_is_no_renewal_and_is_discarded() {
    // A supply with a fixed end.
    let then = vec![(15_000, token("second")), (60_000, token("third"))];
    let world = World::begin(due(15_000, token("first")), then, OnRenewal::Nothing);
    until("a failure", || !world.told().is_empty());
    assert_eq!(world.told(), ["failed: a new credential ends as early"]);
    assert_eq!(*world.stock.discarded.lock().unwrap(), ["second"]);
    assert_eq!(world.in_file(), "first");
    until("the end", || world.in_file() == "third");
    assert_eq!(*world.stock.asked.lock().unwrap(), 2, "nobody is asked in between");
    assert_eq!(world.stock.discarded.lock().unwrap().len(), 1);
}

#[test]
fn what_is_started_again_gets_the_new_credential_unless_it_was_asked_to_end() {
    let world = World::begin(due(15_000, aws(None)), vec![(60_000, aws(None))], OnRenewal::Restart);
    assert!(world.renewal.outlet().is_none(), "the keys are in the environment");
    // Nothing runs that could be ended.
    until("an attempt", || *world.stock.asked.lock().unwrap() > 0);
    until("its end", || !world.renewal.watch.lock().is_busy);
    assert!(world.renewal.again().is_none());
    let again = |world: &World| world.renewal.watch.lock().again = Some(aws(None));
    again(&world);
    assert!(world.renewal.again().is_some());
    again(&world);
    world.renewal.reach().ask_to_end(rustix::process::Signal::TERM);
    assert!(world.renewal.again().is_none());
}

/// A clock that is set.
struct Set(Mutex<OffsetDateTime>);

impl Clock for Set {
    fn now(&self) -> OffsetDateTime {
        *self.0.lock().unwrap()
    }
}

#[test]
fn a_clock_that_is_set_back_adds_nothing_to_what_was_left_of_a_cached_credential() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::real(Env::of_process(), Arc::new(Silent)).unwrap();
    host.dirs = crate::host::dirs::Dirs::below(dir.path());
    let start = SystemClock.now().replace_nanosecond(0).unwrap();
    let clock = Arc::new(Set(Mutex::new(start)));
    host.clock = Arc::clone(&clock) as Arc<dyn Clock>;
    // It was taken in the middle of its life.
    let half = time::Duration::minutes(30);
    let mut cached = token("cached");
    cached.lifetime =
        Lifetime::new(start - half, start + half, None, SystemClock.machine_started());
    let stock = Box::new(Arc::new(Stock::default()));
    let renewal = Renewal::prepare(&host, cached, stock, OnRenewal::Nothing).unwrap();
    let left = || renewal.watch.left(&renewal.watch.lock());
    for set in [time::Duration::ZERO, -2 * half, -half] {
        *clock.0.lock().unwrap() = start + set;
        assert!(left() <= half.unsigned_abs(), "{set}: {:?}", left());
    }
    *clock.0.lock().unwrap() = start + half / 2;
    assert!(left() <= half.unsigned_abs() / 2);
}

#[test]
fn nothing_is_renewed_after_the_end() {
    let world = World::begin(good_for(3_000, token("first")), Vec::new(), OnRenewal::Nothing);
    world.renewal.end(Duration::ZERO);
    world.stock.next.lock().unwrap().push_back((60_000, token("second")));
    until("the thread's end", || Arc::strong_count(&world.renewal.watch) == 1);
    assert_eq!(world.in_file(), "first");
}

#[test]
fn new_secrets_are_masked_before_anybody_has_them() {
    let dir = tempfile::tempdir().unwrap();
    let mut host = Host::real(Env::of_process(), Arc::new(Silent)).unwrap();
    host.dirs = crate::host::dirs::Dirs::below(dir.path());
    let next = (60_000, token("second-secret"));
    let stock = Arc::new(Stock { next: Mutex::new([next].into()), ..Stock::default() });
    let first = due(15_000, token("first-secret"));
    let renewal = Renewal::prepare(&host, first, Box::new(stock), OnRenewal::Nothing).unwrap();
    let secret = Secret::new("first-secret".to_string());
    let masked = Arc::new(Patterns::of([&secret]));
    renewal.begin(Some(Arc::clone(&masked))).unwrap();
    let mut mask = super::super::mask::Mask::new(Arc::clone(&masked));
    let Some(Outlet::File(path)) = renewal.outlet() else { panic!("no file") };
    until("the new token", || files::read_text(path, 4096).unwrap().unwrap() == "second-secret");
    let mut out = Vec::new();
    mask.feed(b"a first-secret b second-secret c", &mut out);
    mask.finish(&mut out);
    assert_eq!(out, b"a *** b *** c");
    renewal.end(Duration::ZERO);
}

#[test]
fn what_killed_runs_have_left_is_removed() {
    let dir = tempfile::tempdir().unwrap();
    let dirs = crate::host::dirs::Dirs::below(dir.path());
    let left = dirs.runtime.join("run-left");
    files::write_private(&left.join("token"), b"old").unwrap();
    drop(files::open_lock(&left.join("lock")).unwrap());
    let mine = dirs.of_this_run().unwrap();
    assert!(!files::exists(&left));
    let other = dirs.of_this_run().unwrap();
    assert!(files::is_dir(mine.path()) && files::is_dir(other.path()));
    let path = mine.path().to_path_buf();
    drop(mine);
    assert!(!files::exists(&path));
}
