//! What is kept of what was done, and what becomes of it where it cannot be written.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use time::macros::datetime;
use time::{Duration, OffsetDateTime};

use super::*;
use crate::broker::elevation::{Access, Asked, ElevationSeal, Review, Span};
use crate::broker::keys::RootKey;
use crate::broker::metrics::Metrics;
use crate::broker::store::sql::tests::Ground;
use crate::broker::store::{Effect, Store, Unit, Unless, sqlite};
use crate::broker::testbed::failing::{AFTER, BEFORE, Failing, WELL};
use crate::oidc::Issuer;
use crate::secret::Secret;

const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

const ID: Uuid = Uuid::from_u128(7);

fn seal() -> ElevationSeal {
    ElevationSeal::new(
        &RootKey::new(Secret::new([7; 32])),
        &Issuer::parse("https://broker.example.com").unwrap(),
    )
}

/// A grant that there is.
async fn granted(store: &dyn Store, id: Uuid) {
    let elevation = Elevation {
        id,
        version: 1,
        asked: Asked::by_nobody("admin", NOON),
        access: Access::Active,
        review: Review::None,
        approvals: Vec::new(),
        approved_at: None,
        grant: Some(Span { from: NOON, until: NOON + Duration::HOUR }),
        ended: None,
        reviewed: None,
        tried: None,
        yields: None,
    };
    let stored = seal().over(&elevation, None).unwrap();
    let effects = vec![Effect::AddElevation(stored, Unless::default())];
    store.commit(&[Unit { records: Vec::new(), effects }]).await.unwrap();
}

fn gathering(store: &Arc<dyn Store>) -> (Gathering, Arc<Metrics>) {
    let metrics = Arc::<Metrics>::default();
    (Gathering::start(store.clone(), seal(), metrics.clone()), metrics)
}

fn decision(path: &str, outcome: &str) -> What {
    What::new(Kind::Decision, ["api", "GET", path, outcome, "192.0.2.1"])
}

fn lost(metrics: &Metrics) -> u64 {
    metrics.lost_uses()
}

#[test]
fn who_does_much_of_one_thing_hides_no_other_behind_it() {
    let mut sum = Sum::default();
    for number in 0..1000 {
        sum.add(decision(&format!("/x{number}"), "denied"), &Times::once(NOON));
    }
    // For all that had no room, one row says that there was more.
    assert_eq!((sum.rows.len(), sum.rows[80].times.count, sum.beyond), (81, 920, None));
    assert_eq!(sum.rows[80].what, decision("\u{2026}", "denied"));
    sum.add(decision("/vault", "allowed"), &Times::once(NOON + Duration::MINUTE));
    sum.add(decision("/vault", "allowed"), &Times::once(NOON - Duration::MINUTE));
    sum.sort();
    assert_eq!(sum.rows[0].what.resource, "/vault");
    let times = sum.rows[0].times;
    assert_eq!(
        times,
        Times { count: 2, first: NOON - Duration::MINUTE, last: NOON + Duration::MINUTE }
    );
    for number in 0..1000 {
        let what = What::new(Kind::Outside, ["log", "a", "r", &format!("o{number}"), ""]);
        sum.add(what, &Times::once(NOON));
    }
    assert_eq!(sum.rows.len(), 82 + 200);
    assert_eq!(all(&sum) + sum.beyond.unwrap().count, 2002, "all of it is counted");
}

fn all(sum: &Sum) -> u64 {
    sum.rows.iter().map(|row| row.times.count).sum()
}

/// As often as somebody who has a grant asks for it, each time for another path.
fn hide(mut add: impl FnMut(What), outcome: &str) {
    for number in 0..2000 {
        for path in [format!("/x{number}"), format!("/y{number}/z"), format!("/things/{number}x")] {
            add(decision(&path, outcome));
        }
    }
}

#[test]
fn who_asks_for_many_paths_does_not_hide_what_comes_after_them() {
    let mut sum = Sum::default();
    hide(|what| sum.add(what, &Times::once(NOON)), "allowed");
    let later = Times::once(NOON + Duration::MINUTE);
    for (method, path, from) in [
        ("DELETE", "/vault/secrets/root", "192.0.2.1"),
        ("GET", "/vault", "198.51.100.7"),
        ("PUT", "/vault", "198.51.100.8"),
    ] {
        sum.add(What::new(Kind::Decision, ["api", method, path, "allowed", from]), &later);
    }
    // What was done, and where from, is told still.
    let told: Vec<_> = sum.rows.iter().filter(|row| row.times == later).collect();
    let told: Vec<_> = told.iter().map(|row| (&*row.what.action, &*row.what.from)).collect();
    assert_eq!(told, [("DELETE", "192.0.2.1"), ("GET", "198.51.100.7"), ("PUT", "198.51.100.8")]);
    assert_eq!((all(&sum), sum.beyond), (6003, None));
    // Until there is no room for that either: then it is counted.
    for number in 0..100 {
        let from = format!("203.0.113.{number}");
        sum.add(What::new(Kind::Decision, ["api", "GET", "/v", "allowed", &from]), &later);
    }
    let last = sum.rows.last().unwrap();
    assert_eq!((&*last.what.action, &*last.what.from), ("GET", "\u{2026}"));
    assert_eq!((all(&sum), sum.beyond), (6103, None));
}

#[test]
fn who_fails_in_many_ways_hides_nothing_that_succeeds() {
    let mut sum = Sum::default();
    let outside = |action: &str, outcome: &str| {
        What::new(Kind::Outside, ["cloudtrail", action, "r", outcome, "192.0.2.1"])
    };
    for number in 0..1000 {
        for outcome in ["AccessDenied", "NoSuchKey"] {
            sum.add(outside(&format!("Get{number}"), outcome), &Times::once(NOON));
        }
    }
    let later = Times::once(NOON + Duration::MINUTE);
    for action in ["DeleteTrail", "StopLogging"] {
        sum.add(outside(action, "success"), &later);
    }
    let told: Vec<_> = sum.rows.iter().filter(|row| row.what.outcome == "success").collect();
    assert_eq!((told.len(), told[0].times.count, told[0].times.last), (1, 2, later.last));
    assert_eq!((all(&sum), sum.beyond), (2002, None));
}

#[test]
fn texts_have_bounded_room_and_steer_no_terminal() {
    let what = What::new(Kind::Decision, ["a\u{1b}b", &"\u{e9}".repeat(100), "r", "o", "f"]);
    assert_eq!((what.source.as_str(), what.action.len()), ("a\u{fffd}b", 128));
}

#[tokio::test]
async fn two_processes_write_to_one_sum_and_nothing_is_counted_twice() {
    for ground in Ground::each().await {
        let store: Arc<dyn Store> = Arc::new(ground.open().await);
        granted(store.as_ref(), ID).await;
        let ((one, _), (other, _)) = (gathering(&store), gathering(&store));
        for round in 0..5 {
            for (number, gathering) in [&one, &other].into_iter().enumerate() {
                gathering.note(ID, decision("/a", "allowed"), NOON + Duration::seconds(round));
                let path = format!("/of-{number}");
                gathering.note(ID, decision(&path, "allowed"), NOON);
            }
            tokio::join!(one.write(), other.write());
        }
        let sum = one.of(ID).await.unwrap();
        let count = |path: &str| {
            sum.rows.iter().find(|row| row.what.resource == path).map(|row| row.times.count)
        };
        assert_eq!([count("/a"), count("/of-0"), count("/of-1")], [Some(10), Some(5), Some(5)]);
        assert_eq!(other.of(ID).await.unwrap(), sum);
    }
}

/// As where the connection is lost amid a commit, or the database does not answer in time.
#[tokio::test]
async fn what_was_written_though_the_commit_failed_is_not_counted_twice() {
    for ground in Ground::each().await {
        let inner: Arc<dyn Store> = Arc::new(ground.open().await);
        granted(inner.as_ref(), ID).await;
        let failing = Failing::over(inner);
        let store: Arc<dyn Store> = failing.clone();
        let ((one, metrics), (other, _)) = (gathering(&store), gathering(&store));
        let note = |gathering: &Gathering, path: &str| {
            // The store keeps less of a moment than a clock tells.
            let at = NOON + Duration::NANOSECOND;
            gathering.note(ID, decision(path, "allowed"), at);
        };
        let counts = async || {
            let sum = one.of(ID).await.unwrap();
            ["/a", "/b", "/of-other"].map(|path| {
                let row = sum.rows.iter().find(|row| row.what.resource == path);
                row.map_or(0, |row| row.times.count)
            })
        };
        note(&one, "/a");
        failing.writes(AFTER);
        one.write().await;
        assert_eq!(counts().await, [1, 0, 0], "what may be written is told once");
        // What comes meanwhile is told besides.
        note(&one, "/a");
        note(&one, "/b");
        assert_eq!(counts().await, [2, 1, 0]);
        // The first is found to be written; the rest is not, until it is.
        failing.writes(BEFORE);
        one.write().await;
        one.write().await;
        assert_eq!(counts().await, [2, 1, 0]);
        note(&one, "/b");
        failing.writes(WELL);
        one.write().await;
        assert_eq!(counts().await, [2, 2, 0]);
        // What is not written while another process goes on is written behind that.
        failing.writes(BEFORE);
        note(&one, "/a");
        one.write().await;
        failing.writes(WELL);
        note(&other, "/of-other");
        other.write().await;
        one.write().await;
        one.write().await;
        assert_eq!(counts().await, [3, 2, 1]);
        let (version, stored) = one.stored(ID).await.unwrap();
        assert_eq!((version, all(&stored), lost(&metrics)), (5, 6, 0));
    }
}

#[tokio::test]
async fn a_dead_database_holds_up_nobody_and_what_had_no_room_is_counted() {
    let inner: Arc<dyn Store> = Arc::new(sqlite::in_memory().await.unwrap());
    granted(inner.as_ref(), ID).await;
    let failing = Failing::over(inner);
    let store: Arc<dyn Store> = failing.clone();
    let (gathering, metrics) = gathering(&store);
    failing.writes(BEFORE);
    gathering.note(ID, decision("/first", "allowed"), NOON);
    gathering.write().await;
    // Nothing of it is lost, and it is told already.
    let sum = gathering.of(ID).await.unwrap();
    assert_eq!((sum.rows.len(), sum.lost, lost(&metrics)), (1, 0, 0));
    for number in 0..10_000 {
        let grant = Uuid::from_u128(100 + number / 1000);
        gathering.note(grant, decision(&format!("/{number}"), "allowed"), NOON);
    }
    gathering.note(ID, decision("/first", "allowed"), NOON);
    gathering.note(ID, decision("/second", "allowed"), NOON);
    gathering.note(Uuid::from_u128(8), decision("/other", "allowed"), NOON);
    gathering.write().await;
    assert_eq!(lost(&metrics), 3);
    failing.writes(WELL);
    gathering.write().await;
    let (version, sum) = gathering.stored(ID).await.unwrap();
    // What may have been written is written first, and by itself.
    assert_eq!((version, sum.lost), (2, 1), "of one grant so many were not written");
    assert_eq!((all(&sum), sum.beyond), (2, None));
}

#[tokio::test]
async fn who_does_much_at_once_leaves_room_for_what_others_do() {
    let store: Arc<dyn Store> = Arc::new(sqlite::in_memory().await.unwrap());
    let other = Uuid::from_u128(8);
    for id in [ID, other] {
        granted(store.as_ref(), id).await;
    }
    let (gathering, metrics) = gathering(&store);
    for outcome in ["allowed", "denied"] {
        hide(|what| gathering.note(ID, what, NOON), outcome);
    }
    gathering.note(ID, What::new(Kind::Issued, ["api", "issue", "a", "", ""]), NOON);
    gathering.note(other, decision("/b", "allowed"), NOON);
    gathering.write().await;
    let sums = [gathering.of(ID).await.unwrap(), gathering.of(other).await.unwrap()];
    assert_eq!((sums.each_ref().map(all), lost(&metrics)), ([12_001, 1], 0));
    assert!(sums[0].rows.iter().any(|row| row.what.kind == Kind::Issued));
}

#[tokio::test]
async fn the_last_of_it_is_written_at_the_end_unless_that_takes_too_long() {
    let inner: Arc<dyn Store> = Arc::new(sqlite::in_memory().await.unwrap());
    granted(inner.as_ref(), ID).await;
    let failing = Failing::over(inner);
    let store: Arc<dyn Store> = failing.clone();
    let (mut first, _) = gathering(&store);
    first.note(ID, decision("/a", "allowed"), NOON);
    first.close().await;
    let (mut second, _) = gathering(&store);
    assert_eq!(second.of(ID).await.unwrap().rows.len(), 1);
    failing.hangs.store(true, Ordering::Relaxed);
    second.note(ID, decision("/b", "allowed"), NOON);
    second.close_within(std::time::Duration::from_millis(100)).await;
}

#[tokio::test]
async fn what_somebody_else_wrote_is_no_sum_and_what_is_forgotten_takes_it_along() {
    for ground in Ground::each().await {
        let store: Arc<dyn Store> = Arc::new(ground.open().await);
        let (gathering, metrics) = gathering(&store);
        // Of a grant that there is not nothing is kept.
        gathering.note(Uuid::from_u128(9), decision("/a", "allowed"), NOON);
        for number in [7, 8] {
            granted(store.as_ref(), Uuid::from_u128(number)).await;
            gathering.note(Uuid::from_u128(number), decision("/a", "allowed"), NOON);
        }
        gathering.write().await;
        assert_eq!(store.uses(Uuid::from_u128(9)).await.unwrap(), None);
        let (version, sum) = gathering.stored(ID).await.unwrap();
        let effect = gathering.effect((ID, version), &sum, vec!["e1".into(), "e2".into()]).unwrap();
        store.commit(&[Unit { records: Vec::new(), effects: vec![effect] }]).await.unwrap();
        let ids = ["e1".to_string(), "e2".into(), "e3".into()];
        assert_eq!(store.known_events(ID, &ids).await.unwrap().len(), 2);
        assert_eq!(store.forget_uses(100).await.unwrap(), 0);
        ground.tamper("update elevation_use set version = version + 1").await;
        let other = Uuid::from_u128(8);
        let refused = gathering.of(other).await.unwrap_err().to_string();
        assert!(refused.contains("not as the broker wrote it"), "{refused}");
        gathering.note(other, decision("/b", "allowed"), NOON);
        gathering.write().await;
        assert_eq!(lost(&metrics), 1);
        ground.tamper("delete from elevation").await;
        assert_eq!(store.forget_uses(1).await.unwrap(), 1);
        assert_eq!(store.forget_uses(100).await.unwrap(), 2);
        assert_eq!(store.known_events(ID, &ids).await.unwrap().len(), 0);
        assert_eq!(store.uses(ID).await.unwrap(), None);
    }
}

#[test]
fn events_are_read_as_a_list_or_line_by_line_and_what_is_wrong_is_named() {
    let one = r#"{"id":"1","source":"cloudtrail","time":"2026-01-01T12:00:00Z","action":"s3:Get"}"#;
    assert_eq!(read(format!("[{one},{one}]").as_bytes()).unwrap().len(), 2);
    assert_eq!(read(format!("{one}\n\n{one}\n").as_bytes()).unwrap().len(), 2);
    for (body, says) in [
        (String::new(), "from one to 500 events"),
        ("[]".into(), "from one to 500 events"),
        (vec![one; 501].join("\n"), "from one to 500 events"),
        ("[1".into(), "the body is no list"),
        (format!("{one}\nx"), "event 2: "),
        (one.replace("12:00:00Z", "noon"), "event 1: 'time' is no moment"),
        (one.replace("\"1\"", "\"\""), "event 1: 'id' says nothing"),
        (one.replace("s3:Get", "a\\nb"), "'action' must be a line of at most 256 bytes"),
        (one.replace('}', r#","count":0}"#), "'count' is from one"),
        (one.replace('}', r#","extra":0}"#), "unknown field"),
    ] {
        let why = read(body.as_bytes()).unwrap_err();
        assert!(why.contains(says), "{body}: {why}");
    }
    assert!(read(&[0xff]).is_err());
}
