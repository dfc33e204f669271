use proptest::prelude::*;
use time::macros::datetime;

use super::*;

const START: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

/// How old a copy of the store may be that a process signs by.
const STALE: Duration = Duration::seconds(5);

fn rules() -> Rules {
    Rules {
        publish_before: Duration::minutes(10),
        rotate_every: Some(Duration::days(90)),
        algorithms: Algorithms::default(),
    }
}

fn key(kid: &str, state: KeyState, changed_at: OffsetDateTime) -> StoredKey {
    StoredKey {
        kid: kid.into(),
        purpose: Purpose::AccessToken,
        algorithm: "ES256".into(),
        state,
        sealed: Vec::new(),
        sealed_by: String::new(),
        created_at: changed_at,
        changed_at,
    }
}

/// Does to the keys what the store would do.
fn apply(keys: &mut Vec<StoredKey>, steps: &[Step], now: OffsetDateTime) {
    for step in steps {
        match &step.kid {
            None => keys.push(key(&format!("k{}", keys.len()), step.to, now)),
            Some(kid) => {
                let key = keys.iter_mut().find(|key| key.kid == *kid).unwrap();
                (key.state, key.changed_at) = (step.to, now);
            }
        }
        let active = keys.iter().filter(|key| key.state == KeyState::Active).count();
        assert!(active <= 1, "the store refuses a second one that signs");
    }
}

fn summary(keys: &[StoredKey]) -> Vec<String> {
    keys.iter().map(|key| format!("{} {}", key.kid, key.state.as_str())).collect()
}

/// Lets time pass up to a moment, and does what is due then.
fn at(keys: &mut Vec<StoredKey>, rules: &Rules, now: OffsetDateTime) -> Vec<String> {
    loop {
        let steps = rules.due(keys, now);
        if steps.is_empty() {
            return summary(keys);
        }
        apply(keys, &steps, now);
    }
}

#[test]
fn a_key_is_made_published_used_and_retired_in_its_time() {
    let (rules, mut keys) = (rules(), Vec::new());
    assert_eq!(at(&mut keys, &rules, START), ["k0 active", "k1 prepared"]);
    let due = START + Duration::days(90);
    let published = due - rules.publish_before;
    let moment = Duration::SECOND;
    assert_eq!(at(&mut keys, &rules, published - moment), ["k0 active", "k1 prepared"]);
    assert_eq!(at(&mut keys, &rules, published), ["k0 active", "k1 published"]);
    assert_eq!(at(&mut keys, &rules, due - moment), ["k0 active", "k1 published"]);
    assert_eq!(at(&mut keys, &rules, due), ["k0 retired", "k1 active", "k2 prepared"]);
    assert!(keys[1..].iter().all(|key| is_shown(key, due)));
    let dead = due + Duration::hours(25);
    assert!(is_shown(&keys[0], dead - moment) && !is_shown(&keys[0], dead));
}

#[test]
fn when_another_key_signs_is_known_and_stays_so_where_it_is_late() {
    let (rules, mut keys) = (rules(), Vec::new());
    assert_eq!(rules.next_turn(&keys), None);
    at(&mut keys, &rules, START);
    let due = START + Duration::days(90);
    assert_eq!(rules.next_turn(&keys), Some(due));
    at(&mut keys, &rules, due - rules.publish_before);
    assert_eq!(rules.next_turn(&keys), Some(due), "it is published");
    // Nobody looks after them for a day.
    let late = due + Duration::days(1);
    assert_eq!(rules.next_turn(&keys), Some(due));
    at(&mut keys, &rules, late);
    assert_eq!(rules.next_turn(&keys), Some(late + Duration::days(90)));
    // Without an age there is one where somebody asks for it.
    let rules = Rules { rotate_every: None, ..rules };
    assert_eq!(rules.next_turn(&keys), None);
    let steps = rules.rotation(&keys, &TOKENS);
    apply(&mut keys, &steps, late);
    assert_eq!(rules.next_turn(&keys), Some(late + rules.publish_before));
}

#[test]
fn without_an_age_nothing_is_rotated_until_somebody_says_so() {
    let rules = Rules { rotate_every: None, ..rules() };
    let mut keys = vec![key("a", KeyState::Active, START)];
    let late = START + Duration::days(9999);
    assert_eq!(at(&mut keys, &rules, late), ["a active", "k1 prepared"]);
    let steps = rules.rotation(&keys, &TOKENS);
    apply(&mut keys, &steps, late);
    assert_eq!(summary(&keys), ["a active", "k1 published"]);
    assert_eq!(rules.rotation(&keys, &TOKENS), [], "one is under way");
    let signs = late + rules.publish_before;
    assert_eq!(at(&mut keys, &rules, signs), ["a retired", "k1 active", "k2 prepared"]);
}

#[test]
fn a_key_that_is_prepared_is_published_before_one_is_made() {
    let mut keys = vec![key("a", KeyState::Active, START), key("b", KeyState::Prepared, START)];
    assert_eq!(at(&mut keys, &rules(), START), ["a active", "b prepared"]);
    let steps = rules().rotation(&keys, &TOKENS);
    apply(&mut keys, &steps, START);
    assert_eq!(summary(&keys), ["a active", "b published"]);
}

#[test]
fn where_the_key_that_signs_is_revoked_another_signs_at_once() {
    let revoke = |keys: &mut Vec<StoredKey>, kids: &[&str]| {
        let kids: Vec<_> = kids.iter().map(|kid| kid.to_string()).collect();
        let steps = rules().revocation(keys, &kids, "it leaked");
        apply(keys, &steps, START);
        summary(keys)
    };
    let mut keys = vec![key("a", KeyState::Active, START)];
    assert_eq!(revoke(&mut keys, &["a"]), ["a revoked", "k1 active"]);
    assert_eq!(revoke(&mut keys, &["a"]), ["a revoked", "k1 active"], "a second time");
    // One that is published already is known to most.
    let both = vec![
        key("a", KeyState::Active, START),
        key("b", KeyState::Published, START),
        key("c", KeyState::Retired, START),
    ];
    assert_eq!(revoke(&mut both.clone(), &["a"]), ["a revoked", "b active", "c retired"]);
    assert_eq!(revoke(&mut both.clone(), &["c"]), ["a active", "b published", "c revoked"]);
    assert_eq!(
        revoke(&mut both.clone(), &["a", "b"]),
        ["a revoked", "b revoked", "c retired", "k3 active"]
    );
    assert!(!is_shown(&StoredKey { state: KeyState::Revoked, ..both[0].clone() }, START));
    // So is one that is prepared. Another takes its place, also where it is revoked itself.
    let spare = vec![key("a", KeyState::Active, START), key("b", KeyState::Prepared, START)];
    let mut keys = spare.clone();
    assert_eq!(revoke(&mut keys, &["a"]), ["a revoked", "b active"]);
    assert_eq!(at(&mut keys, &rules(), START), ["a revoked", "b active", "k2 prepared"]);
    let mut keys = spare.clone();
    assert_eq!(revoke(&mut keys, &["b"]), ["a active", "b revoked"]);
    assert_eq!(at(&mut keys, &rules(), START), ["a active", "b revoked", "k2 prepared"]);
    assert_eq!(revoke(&mut spare.clone(), &["a", "b"]), ["a revoked", "b revoked", "k2 active"]);
    // Nothing waits by an algorithm that nothing is signed by any more, nor takes over; where it
    // comes back, one waits again.
    let other = |key: StoredKey| StoredKey { algorithm: "EdDSA".into(), ..key };
    let of_two = Rules {
        algorithms: Algorithms::new(SigningAlgorithm::Es256, [SigningAlgorithm::EdDsa]),
        ..rules()
    };
    let mut keys = spare.clone();
    keys.push(other(key("c", KeyState::Active, START)));
    assert_eq!(at(&mut keys, &rules(), START).len(), 3);
    assert_eq!(revoke(&mut keys.clone(), &["c"])[2..], ["c revoked"]);
    let steps = of_two.due(&keys, START);
    assert_eq!(steps.iter().map(|step| step.to).collect::<Vec<_>>(), [KeyState::Prepared]);
    assert_eq!(steps[0].of, Signs::Tokens(SigningAlgorithm::EdDsa));
    assert!(!of_two.lacks(&keys) && of_two.lacks(&spare));
    // Of two that wait, the one that was shown first.
    let mut two = vec![
        key("a", KeyState::Active, START),
        key("b", KeyState::Prepared, START),
        StoredKey { created_at: START - Duration::DAY, ..key("c", KeyState::Published, START) },
    ];
    assert_eq!(revoke(&mut two, &["a"]), ["a revoked", "b prepared", "c active"]);
}

#[test]
fn keys_may_be_kept_for_as_long_as_no_other_can_sign() {
    let rules = |publish_before| Rules {
        publish_before,
        rotate_every: None,
        algorithms: Algorithms::default(),
    };
    let seconds = |lead: Duration, age: i64| rules(lead).max_age(Duration::seconds(age)).as_secs();
    assert_eq!(seconds(Duration::days(1), 0), 300);
    assert_eq!(seconds(Duration::days(1), 86_390 - 300), 300);
    assert_eq!(seconds(Duration::days(1), 86_390 - 7), 7);
    assert_eq!(seconds(Duration::days(1), 999_999), 0);
    assert_eq!(seconds(Duration::seconds(15), 0), 5);
    assert_eq!(seconds(Duration::seconds(15), 6), 0);
}

/// What happens in the world.
#[derive(Clone, Debug)]
enum Event {
    /// Time passes.
    Pass(Duration),
    /// A process reads the store, and does what is due.
    Look(usize),
    /// An operator asks for a rotation.
    Rotate,
    /// An operator revokes one of the keys.
    Revoke(usize),
    /// A process signs a token that lives so long.
    Sign(usize, Duration),
    /// A resource owner fetches the keys of a process.
    Fetch(usize),
}

fn event() -> impl Strategy<Value = Event> {
    let hours = |most| (0..most * 3600i64).prop_map(Duration::seconds);
    prop_oneof![
        3 => (0i64..20).prop_map(|n| Event::Pass(Duration::seconds(n))),
        2 => (0i64..900).prop_map(|n| Event::Pass(Duration::seconds(n))),
        1 => hours(24 * 40).prop_map(Event::Pass),
        4 => (0usize..2).prop_map(Event::Look),
        1 => Just(Event::Rotate),
        1 => (0usize..9).prop_map(Event::Revoke),
        5 => (0usize..2, hours(24)).prop_map(|(process, ttl)| Event::Sign(process, ttl)),
        4 => (0usize..2).prop_map(Event::Fetch),
    ]
}

/// What somebody read of the keys, and when.
#[derive(Clone)]
struct Copy {
    keys: Vec<StoredKey>,
    read_at: OffsetDateTime,
}

impl Copy {
    fn shows(&self, kid: &str, now: OffsetDateTime) -> bool {
        self.keys.iter().any(|key| key.kid == kid && is_shown(key, now))
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// Two processes on one store, and one resource owner who keeps what it fetched for as
    /// long as it was told.
    #[test]
    fn the_key_of_every_live_token_is_known_before_it_signs_and_until_it_is_dead(
        events in prop::collection::vec(event(), 1..120),
        publish_before in 15i64..2000,
        rotates in any::<bool>(),
    ) {
        let publish_before = Duration::seconds(publish_before);
        let rotate_every =
            rotates.then(|| Duration::hours(1).max(publish_before.saturating_mul(2)));
        let rules = Rules { publish_before, rotate_every, algorithms: Algorithms::default() };
        let (mut now, mut keys) = (START, Vec::new());
        at(&mut keys, &rules, now);
        let fresh = |keys: &Vec<StoredKey>, now| Copy { keys: keys.clone(), read_at: now };
        let mut processes = [fresh(&keys, now), fresh(&keys, now)];
        let mut client: Option<(Copy, OffsetDateTime)> = None;
        // Those that had to sign before anybody could know them.
        let mut hurried = vec![keys[0].kid.clone()];
        let mut alive: Vec<(String, OffsetDateTime)> = Vec::new();
        for event in events {
            match event {
                Event::Pass(time) => now += time,
                Event::Look(process) => {
                    at(&mut keys, &rules, now);
                    processes[process] = fresh(&keys, now);
                }
                Event::Rotate => {
                    let steps = rules.rotation(&keys, &TOKENS);
                    apply(&mut keys, &steps, now);
                }
                Event::Revoke(nth) => {
                    let kid = keys[nth % keys.len()].kid.clone();
                    let steps = rules.revocation(&keys, &[kid], "");
                    apply(&mut keys, &steps, now);
                    let active = Series { of: Signs::Tokens(SigningAlgorithm::Es256), keys: &keys }.oldest(KeyState::Active).unwrap();
                    // One that waited for as long as a copy may be kept is known.
                    if active.changed_at == now && now - active.created_at < publish_before {
                        hurried.push(active.kid.clone());
                    }
                }
                Event::Sign(process, ttl) => {
                    // A copy that is too old signs nothing.
                    if now - processes[process].read_at > STALE {
                        at(&mut keys, &rules, now);
                        processes[process] = fresh(&keys, now);
                    }
                    let signer = Series { of: Signs::Tokens(SigningAlgorithm::Es256), keys: &processes[process].keys }.oldest(KeyState::Active).unwrap();
                    let is_signer = |key: &&StoredKey| key.kid == signer.kid;
                    if keys.iter().find(is_signer).unwrap().state == KeyState::Revoked {
                        // The commit of the record is refused, whatever the process knows.
                        continue;
                    }
                    alive.push((signer.kid.clone(), now + ttl));
                    if let Some((copy, until)) = &client
                        && now < *until
                        && !hurried.contains(&signer.kid)
                    {
                        // As the JWKS was when the process read the store.
                        let known = copy.shows(&signer.kid, copy.read_at);
                        prop_assert!(known, "{} signs, and is unknown", signer.kid);
                    }
                }
                Event::Fetch(process) => {
                    let copy = processes[process].clone();
                    let kept = rules.max_age(now - copy.read_at);
                    client = Some((copy, now + kept));
                }
            }
            alive.retain(|(_, end)| now < *end);
            let store = fresh(&keys, now);
            for (kid, _) in &alive {
                let key = keys.iter().find(|key| key.kid == *kid).unwrap();
                prop_assert!(
                    store.shows(kid, now) || key.state == KeyState::Revoked,
                    "a token of {kid} is alive"
                );
            }
        }
    }
}

#[test]
fn only_what_was_asked_for_is_rotated_and_the_key_of_the_log_never_unasked() {
    let (es256, eddsa) =
        (Signs::Tokens(SigningAlgorithm::Es256), Signs::Tokens(SigningAlgorithm::EdDsa));
    let algorithms = Algorithms::new(SigningAlgorithm::Es256, [SigningAlgorithm::EdDsa]);
    let rules = Rules { algorithms, ..rules() };
    let other = StoredKey { algorithm: "EdDSA".into(), ..key("b", KeyState::Active, START) };
    let of_log = StoredKey { purpose: Purpose::Checkpoint, ..key("c", KeyState::Active, START) };
    let keys = [key("a", KeyState::Active, START), other, of_log.clone()];
    let begun = |of: &[Signs]| -> Vec<Signs> {
        let steps = rules.rotation(&keys, of);
        assert!(steps.iter().all(|step| step.to == KeyState::Published));
        steps.iter().map(|step| step.of).collect()
    };
    for one in [es256, eddsa, Signs::Log] {
        assert_eq!(begun(&[one]), [one]);
    }
    assert_eq!(begun(&rules.all().collect::<Vec<_>>()), [es256, eddsa, Signs::Log]);
    assert_eq!(begun(&[Signs::Tokens(SigningAlgorithm::Rs256)]), []);
    let late = START + Duration::days(9999);
    assert!(rules.due(&keys, late).iter().all(|step| step.of != Signs::Log));
    // Nor is one made where there is none, nor one that waits.
    assert!(rules.due(&keys, START).iter().all(|step| step.of != Signs::Log));
    assert!(rules.due(&keys[..2], START).iter().all(|step| step.of != Signs::Log));
    let next = StoredKey { state: KeyState::Published, ..of_log };
    assert_eq!(rules.signs_from(&next), START + Duration::DAY);
}
