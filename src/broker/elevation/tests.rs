//! All that can become of a request: every event in every state that can be reached.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::num::NonZeroU32;

use time::Duration;
use time::macros::datetime;

use super::*;

const START: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

/// How far the clock goes at a time.
const STEP: Duration = Duration::minutes(20);

/// How many times it does.
const STEPS: i32 = 9;

const WINDOW: Duration = Duration::hours(1);

fn party(subject: &str, person: Option<&str>) -> Party {
    Party {
        issuer: "https://login.example.com".into(),
        subject: subject.into(),
        person: person.map(String::from),
    }
}

fn elevation(path: Path) -> Elevation {
    Elevation {
        id: Uuid::from_u128(1),
        version: 1,
        asked: Asked {
            path,
            drill: false,
            by: party("alice", Some("alice")),
            actors: vec![party("bot-of-eve", Some("eve"))],
            role: "admin".into(),
            audience: "https://api.example.com".into(),
            scope: None,
            ttl: 1800,
            start: None,
            key: None,
            reason: "INC-1".into(),
            ticket: None,
            ticket_unchecked: false,
            at: START,
            lapses_at: START + Duration::hours(1),
            signed: None,
            source: "127.0.0.1".into(),
        },
        access: Access::Pending,
        review: Review::None,
        approvals: Vec::new(),
        approved_at: None,
        grant: None,
        ended: None,
        reviewed: None,
        tried: None,
        yields: None,
    }
}

/// By what it is decided at a moment: the rules, and who is a lead, and so may approve.
#[derive(Clone, Copy)]
struct World {
    rules: &'static str,
    leads: &'static [&'static str],
}

/// As it is most of the time. Who asks is a lead, too.
const USUAL: World = World { rules: "rules", leads: &["bob", "carol", "alice"] };

fn thresholds() -> Vec<Threshold> {
    vec![Threshold { count: NonZeroU32::new(2).unwrap(), groups: ["leads".to_string()].into() }]
}

fn groups(by: &Party, world: World) -> Option<BTreeSet<String>> {
    let person = by.person.as_deref()?;
    let groups: &[&str] = if world.leads.contains(&person) { &["leads"] } else { &[] };
    Some(groups.iter().map(|group| group.to_string()).collect())
}

fn tally(elevation: &Elevation, with: Option<&Approval>, world: World) -> Tally {
    let hash = elevation.hash(world.rules);
    Tally::of(elevation, with, &thresholds(), &hash, |by| groups(by, world))
}

fn approval(by: &Party, at: OffsetDateTime, hash: String, world: World) -> Approval {
    let groups = groups(by, world).unwrap_or_default();
    Approval { by: by.clone(), at, hash, reason: None, groups, signed: None, void: false }
}

fn review(by: &Party, in_order: bool) -> Event {
    Event::Review { by: by.clone(), has_approved: false, in_order, note: "x".into() }
}

/// Everybody who might try: who asked, by both of their names, who acts for them, two leads,
/// one of them by two names, somebody who is none, and a machine.
fn everybody() -> Vec<Party> {
    vec![
        party("alice", Some("alice")),
        party("alice-at-another", Some("alice")),
        party("bot-of-eve", Some("eve")),
        party("bob", Some("bob")),
        party("bob-at-another", Some("bob")),
        party("carol", Some("carol")),
        party("dave", Some("dave")),
        party("job", None),
    ]
}

/// All events at a moment, with their names.
fn events(elevation: &Elevation, now: OffsetDateTime, world: World) -> Vec<(String, Event)> {
    let longest = Duration::hours(1);
    let mut events = vec![("tick".into(), Event::Tick(WINDOW))];
    for by in everybody() {
        let name = by.subject.clone();
        for shown in ["rules", "other rules"] {
            let approval = approval(&by, now, elevation.hash(shown), world);
            let tally = tally(elevation, Some(&approval), world);
            events.push((format!("approve {name} {shown}"), Event::Approve(approval, tally)));
        }
        let tally = tally(elevation, None, world);
        events.extend([
            (format!("deny {name}"), Event::Deny(by.clone(), "no".into())),
            (format!("withdraw {name}"), Event::Withdraw(by.clone())),
            (format!("activate {name}"), Event::Activate(by.clone(), tally, longest)),
            (format!("emergency {name}"), Event::Emergency(by.clone(), longest)),
            (format!("relinquish {name}"), Event::Relinquish(by.clone())),
            (format!("revoke {name}"), Event::Revoke(by.clone(), "x".into())),
            (format!("review {name}"), review(&by, true)),
            (format!("dispute {name}"), review(&by, false)),
        ]);
    }
    events
}

/// The edges of the diagram.
fn may_follow(before: Access, after: Access) -> bool {
    use Access::*;
    matches!(
        (before, after),
        (Pending, Approved | Denied | Withdrawn | Lapsed | EmergencyActive)
            | (Approved, Active | Lapsed | Revoked | Withdrawn)
            | (Active | EmergencyActive, Expired | Revoked | Relinquished)
    )
}

fn review_may_follow(before: Review, after: Review) -> bool {
    matches!(
        (before, after),
        (Review::None, Review::Due) | (Review::Due, Review::Reviewed | Review::Disputed)
    )
}

/// Looks at one transition, whatever it was.
fn hold(before: &Elevation, name: &str, after: &Elevation, now: OffsetDateTime, world: World) {
    let said = format!("{name} at {now}: {before:?} became {after:?}");
    assert_eq!(after.version, before.version + 1, "{said}");
    assert_eq!(after.asked, before.asked, "{said}");
    if after.access != before.access {
        assert!(may_follow(before.access, after.access), "{said}");
        // Exactly one event ends it.
        assert!(before.ended.is_none() && before.access.is_over() == before.ended.is_some());
        assert_eq!(after.ended.is_some(), after.access.is_over(), "{said}");
    } else {
        assert_eq!(after.ended, before.ended, "{said}");
    }
    if after.review != before.review {
        assert!(review_may_follow(before.review, after.review), "{said}");
    }
    if after.review == Review::Due {
        assert!(after.access.is_over() && after.grant.is_some(), "{said}");
    }
    // Nobody approves for themselves, nor twice, nor a machine; nothing after its time.
    let people: Vec<_> = after.approvals.iter().map(|one| one.by.person.clone()).collect();
    let distinct: BTreeSet<_> = people.iter().flatten().collect();
    assert_eq!(distinct.len(), people.len(), "{said}");
    assert!(!distinct.contains(&"alice".to_string()) && !distinct.contains(&"eve".to_string()));
    if after.approvals.len() > before.approvals.len() {
        assert!(before.access != Access::Pending || now < before.asked.lapses_at, "{said}");
    }
    if let Some(reviewed) = &after.reviewed {
        assert!(!after.is_for(&reviewed.by) && reviewed.by.person.is_some(), "{said}");
        let approved = after.approvals.iter().any(|one| one.by.is(&reviewed.by));
        assert!(!approved, "{said}");
    }
    if after.access == Access::Active && before.access != Access::Active {
        assert!(before.asked.start.is_none_or(|start| now >= start), "{said}");
        // Those who count are leads now and were leads when they approved.
        let counted = tally(before, None, world).counted;
        assert!(counted.len() >= 2, "{said}");
        for approval in &before.approvals {
            let person = approval.by.person.as_deref().unwrap();
            let was = approval.groups.contains("leads");
            assert!(!counted.contains(person) || was && world.leads.contains(&person), "{said}");
        }
    }
    if let (None, Some(grant)) = (before.grant, after.grant) {
        assert!(grant.from == now && grant.until <= now + Duration::minutes(30), "{said}");
    } else {
        assert_eq!(before.grant, after.grant, "{said}");
    }
    assert!(!after.is_active(now) || after.grant.is_some_and(|grant| now < grant.until), "{said}");
}

/// What tells states apart that behave differently; how often something happened does not.
fn place(elevation: &Elevation, step: i32) -> String {
    let people: BTreeMap<_, _> =
        elevation.approvals.iter().map(|one| (one.by.id(), (&one.hash, &one.groups))).collect();
    format!(
        "{step} {:?} {:?} {people:?} {:?} {:?}",
        elevation.access, elevation.review, elevation.approved_at, elevation.grant
    )
}

/// Goes to all states that can be reached, and returns which there are.
fn explore(
    from: Elevation,
    reviews: bool,
    world_at: impl Fn(i32) -> World,
) -> BTreeSet<&'static str> {
    let mut queue = VecDeque::from([(from, 0)]);
    let (mut known, mut reached) = (BTreeSet::new(), BTreeSet::new());
    while let Some((before, step)) = queue.pop_front() {
        if step > STEPS || !known.insert(place(&before, step)) {
            continue;
        }
        reached.insert(before.access.as_str());
        reached.insert(before.review.as_str());
        let (now, world) = (START + STEP * step, world_at(step));
        for (name, event) in events(&before, now, world) {
            if let Ok(after) = before.after(&event, now, reviews) {
                hold(&before, &name, &after, now, world);
                queue.push_back((after, step));
            }
        }
        queue.push_back((before, step + 1));
    }
    assert!(known.len() > 20, "{}", known.len());
    reached
}

/// All that can become of an ordinary request.
fn all_ordinary() -> BTreeSet<&'static str> {
    let ordinary = Access::ALL.into_iter().filter(|state| *state != Access::EmergencyActive);
    ordinary.map(Access::as_str).chain(["none", "due", "reviewed", "disputed"]).collect()
}

#[test]
fn whatever_happens_in_whatever_order_the_rules_hold() {
    assert_eq!(explore(elevation(Path::Ordinary), true, |_| USUAL), all_ordinary());
    let reached = explore(elevation(Path::Ordinary), false, |_| USUAL);
    assert!(!reached.contains("due"));
}

#[test]
fn they_hold_by_signatures_and_where_it_is_practised() {
    let mut drill = elevation(Path::ProviderDown);
    drill.asked.drill = true;
    assert_eq!(explore(drill, true, |_| USUAL), all_ordinary());
}

#[test]
fn what_is_to_start_later_does_not_start_before() {
    let mut later = elevation(Path::Ordinary);
    later.asked.start = Some(START + STEP * 2);
    assert_eq!(explore(later.clone(), true, |_| USUAL), all_ordinary());
    // Beyond what the clock gets to, it is never had.
    later.asked.start = Some(START + STEP * (STEPS + 1));
    let reached = explore(later, true, |_| USUAL);
    assert!(reached.contains("approved") && !reached.contains("active"), "{reached:?}");
}

#[test]
fn an_emergency_is_reviewed_whatever_the_role_says() {
    let reached = explore(elevation(Path::Emergency), false, |_| USUAL);
    assert!(reached.contains("emergency-active") && reached.contains("reviewed"));
}

#[test]
fn whoever_leaves_counts_no_longer_and_whoever_comes_counts_for_nothing_before() {
    // Bob leaves; then Dave comes, who may have said yes before he was anybody.
    let world_at = |step| match step {
        0 => USUAL,
        1 => World { leads: &["carol"], ..USUAL },
        _ => World { leads: &["carol", "dave"], ..USUAL },
    };
    assert_eq!(explore(elevation(Path::Ordinary), true, world_at), all_ordinary());
    let only_one = |_| World { leads: &["carol", "alice"], ..USUAL };
    let reached = explore(elevation(Path::Ordinary), true, only_one);
    assert!(!reached.contains("approved"), "{reached:?}");
    // Dave's yes of before is none of a lead, until he says it again as one.
    let asked = elevation(Path::Ordinary);
    let (carol, dave) = (party("carol", Some("carol")), party("dave", Some("dave")));
    let hash = asked.hash("rules");
    let approve = |before: &Elevation, by: &Party, world: World| {
        let approval = approval(by, START, hash.clone(), world);
        let tally = tally(before, Some(&approval), world);
        before.after(&Event::Approve(approval, tally), START, true)
    };
    let now = world_at(2);
    let early = approve(&asked, &dave, USUAL).unwrap();
    let both = approve(&early, &carol, now).unwrap();
    assert_eq!(both.access, Access::Pending);
    assert_eq!(approve(&both, &dave, now).unwrap().access, Access::Approved);
}

#[test]
fn other_rules_void_what_was_approved_by_those_before() {
    let other = World { rules: "other rules", ..USUAL };
    // They change after the first step: what was approved before does not count any more.
    let world_at = |step| if step < 1 { USUAL } else { other };
    let reached = explore(elevation(Path::Ordinary), true, world_at);
    assert!(reached.contains("active"));
    let elevation = elevation(Path::Ordinary);
    let by = |name: &str, world: World| {
        approval(&party(name, Some(name)), START, elevation.hash(world.rules), world)
    };
    let approve = |elevation: &Elevation, approval: Approval, world: World| {
        let tally = tally(elevation, Some(&approval), world);
        elevation.after(&Event::Approve(approval, tally), START, true)
    };
    let once = approve(&elevation, by("bob", USUAL), USUAL).unwrap();
    let twice = approve(&once, by("carol", USUAL), USUAL).unwrap();
    assert_eq!(twice.access, Access::Approved);
    let longest = Duration::hours(1);
    let begin = |world: World| {
        let event =
            Event::Activate(party("alice", Some("alice")), tally(&twice, None, world), longest);
        twice.after(&event, START, true)
    };
    assert_eq!(begin(USUAL).unwrap().access, Access::Active);
    assert!(matches!(begin(other), Err(Refused::Short(short)) if short.counted.is_empty()));
    // Those who look at it again may approve it again.
    let again = approve(&twice, by("bob", other), other).unwrap();
    assert_eq!(again.approvals.len(), 2);
    assert_eq!(tally(&again, None, other).counted, ["bob".to_string()].into());
    assert_eq!(approve(&again, by("bob", other), other), Err(Refused::Already));
}

#[test]
fn the_hash_is_of_all_that_is_asked_for_and_by_which_rules() {
    let one = elevation(Path::Ordinary);
    let mut hashes = BTreeSet::from([one.hash("rules"), one.hash("other rules")]);
    let changes: [fn(&mut Asked); 12] = [
        |asked| asked.path = Path::Emergency,
        |asked| asked.by.subject = "mallory".into(),
        |asked| asked.actors.clear(),
        |asked| asked.role = "root".into(),
        |asked| asked.audience = "https://other.example.com".into(),
        |asked| asked.scope = Some(["write".to_string()].into()),
        |asked| asked.ttl += 1,
        |asked| asked.start = Some(START),
        |asked| asked.key = Some("key".into()),
        |asked| asked.reason += "1",
        |asked| asked.ticket = Some("INC-1".into()),
        |asked| asked.lapses_at += Duration::SECOND,
    ];
    for change in changes {
        let mut other = one.clone();
        change(&mut other.asked);
        assert!(hashes.insert(other.hash("rules")), "{other:?}");
    }
    assert!(hashes.insert(Elevation { id: Uuid::from_u128(2), ..one.clone() }.hash("rules")));
    // What happens to it is no part of what is asked for.
    assert!(
        !hashes.insert(Elevation { version: 9, access: Access::Approved, ..one }.hash("rules"))
    );
}

#[test]
fn what_is_stored_is_read_as_it_was() {
    let mut one = elevation(Path::Ordinary);
    one.grant = Some(Span { from: START, until: START + Duration::HOUR });
    let text = serde_json::to_string(&one).unwrap();
    assert_eq!(serde_json::from_str::<Elevation>(&text).unwrap(), one);
    assert!(serde_json::from_str::<Elevation>(&text.replacen("ttl", "longest", 1)).is_err());
}

#[test]
fn what_a_grant_yielded_is_what_its_role_was_and_not_what_that_is_now() {
    let role = |text: &str| -> Role {
        let rest = r#"{"audiences": ["https://api.example.com"], "max_ttl": "1h""#;
        serde_json::from_str(&format!("{rest}{text}}}")).unwrap()
    };
    let (signed, opaque) = (role(""), role(r#", "token_format": "opaque""#));
    let waiting = elevation(Path::Emergency);
    assert_eq!(waiting.clone().noting(Some(&signed)).yields, None, "nothing is issued yet");
    let begin = Event::Emergency(waiting.asked.by.clone(), Duration::HOUR);
    let begun = waiting.after(&begin, START, true).unwrap().noting(Some(&signed));
    assert_eq!(begun.yields, Some(Yields { signed: true, aws: false }));
    // Signed tokens are not called back by other rules, nor by there being no such role.
    assert_eq!(begun.clone().noting(Some(&opaque)).yields, begun.yields);
    assert_eq!(begun.clone().noting(None).yields, begun.yields);
    let aws = role(r#", "aws": {}"#);
    assert_eq!(begun.noting(Some(&aws)).yields, Some(Yields { signed: true, aws: true }));
    let begun = waiting.after(&begin, START, true).unwrap().noting(Some(&opaque));
    assert_eq!(begun.yields, Some(Yields::default()));
}
