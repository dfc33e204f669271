use std::sync::Mutex as StdMutex;
use std::sync::atomic::Ordering;

use time::macros::datetime;

use super::*;
use crate::broker::audit::Decision;
use crate::broker::config::MAX_TTL;
use crate::broker::keys::life::{Rules, Signs, Step};
use crate::broker::keys::{Algorithms, KeyState, RootKey, SigningAlgorithm, TOKENS};
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::Ground;
use crate::broker::store::{
    Effect, KeyStore as _, Ledger as _, Once, OnceStore as _, Unit, sqlite,
};
use crate::broker::testbed::Shifted;
use crate::broker::testbed::failing::{BEFORE, Failing, WELL};
use crate::broker::testbed::logged::Logged;
use crate::host::clock::{Clock, SystemClock};
use crate::oidc::Issuer;
use crate::secret::Secret;

/// A clock that is set by hand, and how far it goes wrong.
struct Hand(StdMutex<(OffsetDateTime, Duration)>);

impl Hand {
    fn new() -> Arc<Self> {
        Arc::new(Self(StdMutex::new((datetime!(2026-01-01 12:00 UTC), Duration::ZERO))))
    }

    fn pass(&self, time: Duration) {
        self.0.lock().unwrap().0 += time;
    }

    /// Sets the clock without any time going by.
    fn jump(&self, by: Duration) {
        self.0.lock().unwrap().1 += by;
    }
}

impl Clock for Hand {
    fn now(&self) -> OffsetDateTime {
        let (time, wrong) = *self.0.lock().unwrap();
        time + wrong
    }

    fn uptime(&self) -> Duration {
        self.0.lock().unwrap().0 - datetime!(2026-01-01 00:00 UTC)
    }
}

const LEAD: Duration = Duration::minutes(10);

fn keeper(store: &Arc<SqlStore>, clock: &Arc<Hand>) -> Keeper {
    Keeper {
        store: store.clone(),
        root_key: RootKey::new(Secret::new([7; 32])),
        clock: clock.clone(),
        rules: Rules {
            publish_before: LEAD,
            rotate_every: Some(Duration::days(90)),
            algorithms: Algorithms::default(),
        },
        issuer: Issuer::parse("https://broker.example.com").unwrap(),
        name: "broker",
        seen: Arc::default(),
    }
}

async fn store() -> Arc<SqlStore> {
    Arc::new(sqlite::in_memory().await.unwrap())
}

fn kids(keys: &Snapshot) -> Vec<String> {
    let jwks: serde_json::Value = serde_json::from_slice(keys.jwks()).unwrap();
    let keys = jwks["keys"].as_array().unwrap().iter();
    sorted(keys.map(|key| key["kid"].as_str().unwrap()))
}

fn sorted<'a>(kids: impl IntoIterator<Item = &'a str>) -> Vec<String> {
    let mut kids: Vec<_> = kids.into_iter().map(String::from).collect();
    kids.sort_unstable();
    kids
}

/// The one of these keys that is in this state.
fn of_state(keys: &[StoredKey], state: KeyState) -> StoredKey {
    let of_state: Vec<_> = keys.iter().filter(|key| key.state == state).collect();
    let [one] = of_state[..] else { panic!("{state:?}: {of_state:?}") };
    one.clone()
}

/// More than a copy may be old.
const LATER: Duration = Duration::seconds(6);

#[tokio::test]
async fn what_one_process_changes_counts_at_the_others_without_a_restart() {
    let (store, clock) = (store().await, Hand::new());
    let operator = keeper(&store, &clock);
    let rules = operator.rules;
    let rings = [
        KeyRing::open(keeper(&store, &clock)).await.unwrap(),
        KeyRing::open(keeper(&store, &clock)).await.unwrap(),
    ];
    let look = async || {
        clock.pass(LATER);
        let [a, b] = [rings[0].current().await.unwrap(), rings[1].current().await.unwrap()];
        assert_eq!(a.jwks(), b.jwks());
        assert_eq!(a.active().kid(), b.active().kid());
        a
    };
    let first = look().await;
    let old = first.active().kid();
    let keys = operator.settle(|keys| rules.rotation(keys, &TOKENS)).await.unwrap();
    let new = &of_state(&keys, KeyState::Published).kid;
    let published = look().await;
    assert_eq!(published.active().kid(), old);
    assert_eq!(kids(&first), sorted([old, new]), "it was known before somebody asked");
    assert_eq!(kids(&published), kids(&first));

    clock.pass(LEAD);
    let rotated = look().await;
    assert_eq!(rotated.active().kid(), new);
    let spare = &of_state(&store.keys().await.unwrap(), KeyState::Prepared).kid;
    assert_eq!(kids(&rotated), sorted([old, new, spare]), "tokens of the old one are about");
    // Nothing changes in the store, and yet nobody needs it any more.
    let long = Duration::try_from(MAX_TTL).unwrap() + Duration::hours(1);
    clock.jump(long);
    assert_eq!(kids(look().await.as_ref()), sorted([&new[..], spare]));
    // Unless it was the clock that was ahead.
    clock.jump(-long);
    assert_eq!(kids(look().await.as_ref()), sorted([old, new, spare]));
    clock.pass(long);

    let revoke =
        |keys: &[StoredKey]| rules.revocation(keys, std::slice::from_ref(new), "it leaked");
    operator.settle(revoke).await.unwrap();
    let after = look().await;
    assert!(!kids(&after).contains(new));
    assert_eq!(after.active().kid(), spare, "whoever kept the keys knows the next one");
    assert_eq!(kids(&after).len(), 2, "another one waits");
}

#[tokio::test]
async fn each_change_is_on_record_and_is_not_made_without() {
    let (store, clock) = (store().await, Hand::new());
    let keeper = keeper(&store, &clock);
    let rules = keeper.rules;
    let first = of_state(&keeper.settle(|_| Vec::new()).await.unwrap(), KeyState::Active).kid;
    // The older one comes first.
    clock.pass(Duration::SECOND);
    let two = keeper.settle(|keys| rules.rotation(keys, &TOKENS)).await.unwrap();
    let second = of_state(&two, KeyState::Published).kid;
    clock.pass(LEAD);
    let three = keeper.settle(|_| Vec::new()).await.unwrap();
    let third = of_state(&three, KeyState::Prepared).kid;
    let both = [first.clone(), second.clone()];
    let all = keeper.settle(|keys| rules.revocation(keys, &both, "it leaked")).await.unwrap();
    let fourth = of_state(&all, KeyState::Prepared).kid;
    let waits = "is prepared: it signs where the one that does is revoked";
    let records = store.records(0, 99).await.unwrap();
    let mut reasons: Vec<_> = records.iter().map(|(_, record)| record.reason.clone()).collect();
    // Of keys that were made at the same moment, either may come first.
    let made = [&first, &second].map(|kid| format!("the signing key {kid} ("));
    reasons[6..8].sort_by_key(|reason| !reason.starts_with(&made[0]));
    assert_eq!(
        reasons,
        [
            format!("the signing key {first} (made) is active: no other key signs"),
            format!("the signing key {second} (made) {waits}"),
            format!("the signing key {second} (prepared) is published: a rotation was asked for"),
            format!("the signing key {first} (active) is retired: another takes its place"),
            format!(
                "the signing key {second} (published) is active: it has been published for long enough"
            ),
            format!("the signing key {third} (made) {waits}"),
            format!("the signing key {first} (retired) is revoked: it leaked"),
            format!("the signing key {second} (active) is revoked: it leaked"),
            format!("the signing key {third} (prepared) is active: no other key signs"),
            format!("the signing key {fourth} (made) {waits}"),
        ]
    );
    for (_, record) in &records {
        assert_eq!((record.decision, &record.action[..]), (Decision::Changed, "key"));
        assert_eq!(record.principal.subject, "broker");
    }
    // The request is one, whatever it changed.
    assert_eq!(records[6].1.request_id, records[8].1.request_id);
    // What was refused left nothing behind.
    let absent = Step {
        kid: Some("x".into()),
        of: Signs::Tokens(SigningAlgorithm::Es256),
        to: KeyState::Active,
        why: String::new(),
    };
    assert!(keeper.settle(|_| vec![absent.clone()]).await.is_err());
    assert_eq!(store.records(0, 99).await.unwrap().len(), records.len());
}

#[tokio::test]
async fn of_many_processes_one_begins_a_rotation_and_one_ends_it() {
    for ground in Ground::each().await {
        let clock = Hand::new();
        let stores = ground.open_often(4).await;
        keeper(&stores[0], &clock).settle(|_| Vec::new()).await.unwrap();
        let together = async |rotate: bool| {
            let mut tasks = tokio::task::JoinSet::new();
            for n in 0..12 {
                // The database has the same clock.
                let store = Failing::over(stores[n % 4].clone());
                let behind = (SystemClock.now() - clock.now()).whole_seconds();
                store.behind.store(behind, Ordering::Relaxed);
                let keeper = Keeper { store, ..keeper(&stores[n % 4], &clock) };
                tasks.spawn(async move {
                    let rules = keeper.rules;
                    let wanted = |keys: &[StoredKey]| {
                        if rotate { rules.rotation(keys, &TOKENS) } else { Vec::new() }
                    };
                    keeper.settle(wanted).await.unwrap();
                });
            }
            tasks.join_all().await;
            let keys = stores[0].keys().await.unwrap();
            let mut states: Vec<_> = keys.iter().map(|key| key.state.as_str()).collect();
            states.sort_unstable();
            states
        };
        assert_eq!(together(true).await, ["active", "published"]);
        // (The database's clock goes on meanwhile, however long that takes.)
        clock.pass(LEAD + Duration::seconds(30));
        assert_eq!(together(false).await, ["active", "prepared", "retired"]);
        assert_eq!(stores[0].records(0, 99).await.unwrap().len(), 6);
    }
}

#[tokio::test]
async fn with_keys_that_were_tampered_with_nothing_is_signed_or_verified() {
    let (store, clock) = (store().await, Hand::new());
    let ring = KeyRing::open(keeper(&store, &clock)).await.unwrap();
    let both = store.keys().await.unwrap();
    let good = of_state(&both, KeyState::Active);
    let change = async |before: &StoredKey, after: &StoredKey| {
        let effect = Effect::ChangeKey { before: before.clone(), after: after.clone() };
        store.commit(&[Unit { records: Vec::new(), effects: vec![effect] }]).await.unwrap();
    };
    let bad = StoredKey { state: KeyState::Retired, ..good.clone() };
    change(&good, &bad).await;
    clock.pass(LATER);
    let error = ring.current().await.err().unwrap().to_string();
    assert!(error.contains("was changed"), "{error}");
    assert_eq!(store.keys().await.unwrap().len(), 2, "nothing follows from what was made up");
    // What everybody may know is shown on, for as long as nothing else can sign.
    let (shown, kept) = ring.shown().unwrap();
    assert_eq!((kids(&shown), kept.as_secs()), (sorted(both.iter().map(|key| &key.kid[..])), 5));
    clock.pass(LEAD);
    assert_eq!(ring.shown().unwrap().1.as_secs(), 0);
    change(&bad, &good).await;
    assert_eq!(ring.current().await.unwrap().active().kid(), good.kid);
}

/// One of them may have been revoked by another process meanwhile.
#[tokio::test]
async fn keys_that_cannot_be_looked_at_are_kept_by_nobody_for_long_and_shown_for_an_hour() {
    let (store, clock) = (store().await, Hand::new());
    let day = Rules { publish_before: Duration::DAY, ..keeper(&store, &clock).rules };
    let ring = KeyRing::open(Keeper { rules: day, ..keeper(&store, &clock) }).await.unwrap();
    ring.close_its_eyes();
    let shown = || ring.shown().map(|(keys, kept)| (keys.active().kid().to_string(), kept));
    let kid = ring.current().await.unwrap().active().kid().to_string();
    let seconds = std::time::Duration::from_secs;
    clock.pass(Duration::seconds(5));
    assert_eq!(shown().unwrap(), (kid.clone(), seconds(300)));
    clock.pass(Duration::SECOND);
    assert_eq!(shown().unwrap(), (kid.clone(), seconds(5)));
    clock.pass(Duration::HOUR - Duration::seconds(6));
    assert_eq!(shown().unwrap(), (kid.clone(), seconds(5)));
    clock.pass(Duration::SECOND);
    let why = shown().unwrap_err().to_string();
    assert!(why.contains("cannot be shown"), "{why}");
    ring.newest().await.unwrap();
    assert_eq!(shown().unwrap(), (kid, seconds(300)));
}

#[tokio::test]
async fn a_key_that_was_revoked_is_never_good_again() {
    let (store, clock) = (store().await, Hand::new());
    let (operator, ring) = (keeper(&store, &clock), KeyRing::open(keeper(&store, &clock)).await);
    let (rules, ring) = (operator.rules, ring.unwrap());
    operator.settle(|keys| rules.rotation(keys, &TOKENS)).await.unwrap();
    clock.pass(LEAD);
    let keys = operator.settle(|_| Vec::new()).await.unwrap();
    let retired = keys.into_iter().find(|key| key.state == KeyState::Retired).unwrap();
    let kid = std::slice::from_ref(&retired.kid);
    let keys = operator.settle(|keys| rules.revocation(keys, kid, "it leaked")).await.unwrap();
    let revoked = keys.into_iter().find(|key| key.state == KeyState::Revoked).unwrap();
    clock.pass(LATER);
    ring.current().await.unwrap();
    // Who read it before it was revoked was not deceived.
    operator.unseal_all(std::slice::from_ref(&retired)).await.unwrap();
    // The row as it was, whose seal is good.
    let back = Effect::ChangeKey { before: revoked, after: retired };
    store.commit(&[Unit { records: Vec::new(), effects: vec![back] }]).await.unwrap();
    clock.pass(LATER);
    let is_found = |error: Option<Error>| error.unwrap().to_string().contains("older copy");
    assert!(is_found(ring.current().await.err()));
    assert!(is_found(KeyRing::open(keeper(&store, &clock)).await.err()));
    // And what is kept of it besides: a broker that runs has seen it.
    let far = clock.now() + Duration::days(365 * 2000);
    assert_eq!(store.forget_consumed(Once::RevokedKey, far, 9).await.unwrap(), 1);
    assert!(is_found(ring.current().await.err()));
}

#[tokio::test]
async fn what_is_due_and_cannot_be_done_is_kept_in_mind_until_it_is() {
    let (store, clock) = (store().await, Hand::new());
    let failing = Failing::over(store.clone());
    let ring = KeyRing::open(Keeper { store: failing.clone(), ..keeper(&store, &clock) });
    let ring = ring.await.unwrap();
    ring.close_its_eyes();
    let (operator, first) = (keeper(&store, &clock), ring.current().await.unwrap());
    operator.settle(|keys| operator.rules.rotation(keys, &TOKENS)).await.unwrap();
    let undone = async || {
        ring.newest().await.unwrap();
        ring.shared.looking.lock().await.undone.clone()
    };
    clock.pass(LEAD);
    failing.writes(BEFORE);
    let why = undone().await.unwrap();
    assert!(why.to_string().contains("on fire"), "{why}");
    // The same again is no news.
    clock.pass(LATER);
    assert_eq!(undone().await, Some(why));
    assert_eq!(ring.current().await.unwrap().active().kid(), first.active().kid());
    failing.writes(WELL);
    clock.pass(LATER);
    assert_eq!(undone().await, None);
    assert_ne!(ring.current().await.unwrap().active().kid(), first.active().kid());
}

#[tokio::test]
async fn what_is_due_and_cannot_be_done_is_logged_once_and_again_once_it_was_done() {
    let (store, clock) = (store().await, Hand::new());
    let failing = Failing::over(store.clone());
    let ring = KeyRing::open(Keeper { store: failing.clone(), ..keeper(&store, &clock) });
    let ring = ring.await.unwrap();
    ring.close_its_eyes();
    let logged = Logged::start();
    let warnings = || logged.times("a signing key that is due cannot be changed");
    let operator = keeper(&store, &clock);
    for times in 1..=2 {
        operator.settle(|keys| operator.rules.rotation(keys, &TOKENS)).await.unwrap();
        clock.pass(LEAD);
        failing.writes(BEFORE);
        // As often as it looks in five seconds.
        for _ in 0..5 {
            clock.pass(Duration::SECOND);
            ring.newest().await.unwrap();
            assert_eq!(warnings(), times);
        }
        failing.writes(WELL);
        clock.pass(Duration::SECOND);
        ring.newest().await.unwrap();
        assert_eq!(warnings(), times);
    }
}

/// Who reads the JWKS reckons from when a key was published, and so do all processes.
#[tokio::test]
async fn no_key_signs_because_the_clock_of_one_process_is_ahead() {
    let (store, hand, clock) = (store().await, Hand::new(), Arc::new(Shifted::default()));
    let failing = Failing::over(store.clone());
    failing.behind.store(1, Ordering::Relaxed);
    let on_it = || Keeper { store: failing.clone(), clock: clock.clone(), ..keeper(&store, &hand) };
    let (operator, ring) = (on_it(), KeyRing::open(on_it()).await.unwrap());
    ring.close_its_eyes();
    let kid = async || ring.newest().await.unwrap().active().kid().to_string();
    let first = kid().await;
    // By whosever clock it is asked for.
    clock.0.store(-86400, Ordering::Relaxed);
    let keys = operator.settle(|keys| operator.rules.rotation(keys, &TOKENS)).await.unwrap();
    let next = of_state(&keys, KeyState::Published);
    assert!((next.changed_at - SystemClock.now()).abs() < Duration::MINUTE, "{next:?}");
    for wrong in [0, 86400, -86400] {
        clock.0.store(wrong, Ordering::Relaxed);
        assert_eq!(kid().await, first, "{wrong}");
    }
    // Once it is late enough at the store.
    clock.0.store(86400, Ordering::Relaxed);
    failing.behind.store(-LEAD.whole_seconds() - 60, Ordering::Relaxed);
    assert_eq!(kid().await, next.kid);
}
