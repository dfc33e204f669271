//! What is read of the table: by an index each, and in its order.

use time::macros::datetime;

use super::*;
use crate::broker::audit::Record;
use crate::broker::store::Ledger as _;
use crate::broker::store::sql::tests::{Ground, append, record};
use crate::broker::store::{Effect, Unit, sqlite};

const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

fn stored_one(number: u128, role: &str, access: &'static str) -> StoredElevation {
    StoredElevation {
        id: Uuid::from_u128(number),
        version: 1,
        path: "ordinary",
        drill: false,
        access,
        review: if access == "expired" { "due" } else { "none" },
        role: role.into(),
        owner: format!("person p{}", number % 3),
        asker: format!("https://i.example#s{}", number % 4),
        asked_at: NOON + time::Duration::seconds(i64::try_from(number).unwrap() / 2),
        next_at: Some(NOON + time::Duration::hours(1)),
        ended_at: None,
        question: "{}".into(),
        acted: number.is_multiple_of(7),
        sealed: SealedElevation { document: "{}".into(), seal: vec![1] },
    }
}

fn filters() -> Vec<ElevationFilter> {
    let all = ElevationFilter::default();
    let roles = |names: &[&str]| {
        Some(names.iter().map(|name| Among::Role(name.to_string())).collect::<Vec<_>>())
    };
    let waits = ElevationFilter {
        access: vec!["pending", "approved"],
        among: roles(&["a", "b"]),
        others_than: vec!["person p1".into(), "x".into()],
        going_on_at: Some(NOON),
        ..all.clone()
    };
    let theirs =
        vec![Among::Owner("person p0".into()), Among::Asker("https://i.example#s1".into())];
    let mut had = roles(&["a"]).unwrap();
    had.extend([Among::Owner("person p2".into()), Among::Acted]);
    vec![
        waits.clone(),
        ElevationFilter {
            below: Some((NOON + time::Duration::seconds(40), Uuid::from_u128(80))),
            ..waits
        },
        ElevationFilter {
            access: vec!["active", "emergency-active"],
            among: Some(had),
            going_on_at: Some(NOON),
            ..all.clone()
        },
        ElevationFilter { review: Some("due"), among: roles(&["b"]), ..all.clone() },
        ElevationFilter { among: Some(theirs.clone()), ..all.clone() },
        ElevationFilter { among: Some(theirs), role: Some("b".into()), ..all },
    ]
}

/// The same by hand.
fn matches(filter: &ElevationFilter, one: &StoredElevation) -> bool {
    let among = filter.among.as_ref().is_none_or(|among| {
        among.iter().any(|among| match among {
            Among::Role(role) => one.role == *role,
            Among::Owner(owner) => one.owner == *owner,
            Among::Asker(asker) => one.asker == *asker,
            Among::Acted => one.acted,
        })
    });
    among
        && filter.role.as_ref().is_none_or(|role| one.role == *role)
        && !filter.others_than.contains(&one.owner)
        && (filter.access.is_empty() || filter.access.contains(&one.access))
        && filter.review.is_none_or(|review| one.review == review)
        && filter.below.is_none_or(|below| (one.asked_at, one.id) < below)
}

#[tokio::test]
async fn what_is_found_is_what_matches_the_newest_first() {
    let states = ["pending", "approved", "active", "emergency-active", "expired"];
    let all: Vec<_> = (0..200)
        .map(|n: u128| stored_one(n, ["a", "b", "c"][n as usize / 5 % 3], states[n as usize % 5]))
        .collect();
    for ground in Ground::each().await {
        let store = ground.open().await;
        let add = |one: &StoredElevation| Effect::AddElevation(one.clone(), Unless::default());
        let unit = Unit { records: Vec::new(), effects: all.iter().map(add).collect() };
        store.commit(&[unit]).await.unwrap();
        for filter in filters() {
            let mut expected: Vec<_> = all.iter().filter(|one| matches(&filter, one)).collect();
            expected.sort_by_key(|one| std::cmp::Reverse((one.asked_at, one.id)));
            assert!(expected.len() > 3, "{filter:?}");
            for limit in [3, 1000] {
                let found = store.elevations(&filter, limit).await.unwrap();
                let found: Vec<_> = found.iter().map(|one| one.id).collect();
                let expected: Vec<_> =
                    expected.iter().map(|one| one.id).take(limit as usize).collect();
                assert_eq!(found, expected, "{filter:?}");
            }
        }
        assert_eq!(store.roles_to_review().await.unwrap(), ["a", "b", "c"]);
        // More branches than one statement has.
        let mut among: Vec<_> = (0..450).map(|n| Among::Role(format!("none-{n}"))).collect();
        among.extend([Among::Role("a".into()), Among::Owner("person p0".into())]);
        let filter = ElevationFilter { among: Some(among), ..ElevationFilter::default() };
        let expected = all.iter().filter(|one| matches(&filter, one)).count();
        assert_eq!(store.elevations(&filter, 1000).await.unwrap().len(), expected);
        let none = ElevationFilter { among: Some(Vec::new()), ..ElevationFilter::default() };
        assert_eq!(store.elevations(&none, 1000).await.unwrap(), []);
    }
}

#[tokio::test]
async fn roles_with_something_to_review_are_looked_up_in_an_index_alone() {
    let store = sqlite::in_memory().await.unwrap();
    assert_eq!(store.roles_to_review().await.unwrap(), [""; 0]);
    let explain = format!("explain query plan {ROLES_TO_REVIEW}");
    let rows = sqlx::query(AssertSqlSafe(explain)).fetch_all(&store.engine.pool).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").unwrap()).collect();
    let reads: Vec<_> = plan.iter().filter(|step| step.contains("elevation")).collect();
    assert_eq!(reads.len(), 2, "{plan:#?}");
    let covered = |step: &&String| step.contains("USING COVERING INDEX elevation_unreviewed");
    assert!(reads.iter().all(covered), "{plan:#?}");
    assert!(reads[1].starts_with("SEARCH"), "{plan:#?}");
}

#[tokio::test]
async fn nothing_is_read_of_those_that_do_not_match() {
    let store = sqlite::in_memory().await.unwrap();
    for (filter, indexes) in filters().iter().zip([
        &["elevation_waiting"][..],
        &["elevation_waiting"],
        &["elevation_had", "elevation_had_acted"],
        &["elevation_unreviewed"],
        &["elevation_owned", "elevation_asked"],
        &["elevation_owned", "elevation_asked"],
    ]) {
        for branches in branches_of(filter) {
            let Statement { text, texts, numbers } = statement_of(filter, &branches, 50);
            let query = sqlx::query(AssertSqlSafe(format!("explain query plan {text}")));
            let query = numbers.iter().fold(query, |query, number| query.bind(*number));
            let query = texts.iter().fold(query, |query, text| query.bind(text.clone()));
            let rows = query.fetch_all(&store.engine.pool).await.unwrap();
            let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").unwrap()).collect();
            for index in indexes {
                let used = |step: &String| step.split(' ').any(|word| word == *index);
                assert!(plan.iter().any(used), "{index}: {plan:#?}");
            }
            // All that an index over part of the table has is what is looked for.
            let whole = |step: &String| {
                step.starts_with("SCAN elevation") && !step.contains("elevation_had_acted")
            };
            assert!(!plan.iter().any(whole), "{plan:#?}");
        }
    }
}

#[tokio::test]
async fn what_is_in_the_way_is_of_the_same_person_by_whatever_name_and_for_the_same_role() {
    let ended = |number: u128, owner: &str, asker: &str| StoredElevation {
        owner: owner.into(),
        asker: asker.into(),
        ended_at: Some(NOON),
        ..stored_one(number, "a", "expired")
    };
    let waits = |number: u128, role: &str, owner: &str| StoredElevation {
        owner: owner.into(),
        asker: "s9".into(),
        ..stored_one(number, role, "pending")
    };
    let unless = |askers: &[&str]| Unless {
        askers: askers.iter().map(ToString::to_string).collect(),
        ended_after: Some(NOON - time::Duration::MINUTE),
        ..Unless::default()
    };
    for ground in Ground::each().await {
        let store = ground.open().await;
        let commits = async |effect: Effect| {
            let unit = Unit { records: Vec::new(), effects: vec![effect] };
            store.commit(&[unit]).await.unwrap()[0].is_committed()
        };
        let had = ended(1, "person alice", "s1");
        assert!(commits(Effect::AddElevation(had, Unless::default())).await);
        let adds = async |new: &StoredElevation, askers: &[&str]| {
            commits(Effect::AddElevation(new.clone(), unless(askers))).await
        };
        let hers = waits(2, "a", "person alicia");
        assert!(!adds(&waits(2, "a", "person alice"), &[]).await, "by her name");
        assert!(!adds(&hers, &["s2", "s1"]).await, "by one of her ids");
        assert!(adds(&waits(3, "b", "person alicia"), &["s1"]).await, "another role");
        assert!(adds(&waits(4, "a", "person bob"), &["s3"]).await, "another person");
        // The same where one changes that was there before.
        assert!(commits(Effect::AddElevation(hers.clone(), Unless::default())).await);
        let begun = StoredElevation { version: 2, access: "active", ..hers };
        let begins =
            async |unless: Unless| commits(Effect::ChangeElevation(begun.clone(), unless)).await;
        assert!(!begins(unless(&["s1"])).await);
        let long_ago = Unless { ended_after: Some(NOON), ..unless(&["s1"]) };
        assert!(begins(long_ago).await);
        // What is over is so also where that is not on record yet.
        let access = "active";
        let had = StoredElevation { access, next_at: Some(NOON), ..waits(5, "a", "person dora") };
        assert!(commits(Effect::AddElevation(had, Unless::default())).await);
        let over_at = |at| Unless { over_at: Some(at), ..unless(&[]) };
        let renewal = waits(6, "a", "person dora");
        assert!(!commits(Effect::AddElevation(renewal.clone(), over_at(NOON))).await);
        let before = over_at(NOON - time::Duration::SECOND);
        assert!(commits(Effect::AddElevation(renewal, before)).await, "it is had still");
        // Nothing is in its own way.
        let over = StoredElevation {
            version: 3,
            access: "expired",
            ended_at: Some(NOON),
            ..begun.clone()
        };
        assert!(commits(Effect::ChangeElevation(over, unless(&["s9"]))).await);
    }
}

#[tokio::test]
async fn the_log_tells_of_which_roles_tokens_were_issued_under_one() {
    let id = Uuid::from_u128(7);
    let of = |role: &str, decision| Record {
        elevation: Some(id),
        role: role.into(),
        decision,
        ..record("a")
    };
    for ground in Ground::each().await {
        let store = ground.open().await;
        let other = Record { elevation: Some(Uuid::nil()), role: "c".into(), ..record("a") };
        let records = [
            of("a", Decision::Issued),
            of("b", Decision::Issued),
            of("a", Decision::Issued),
            of("d", Decision::Denied),
            other,
        ];
        append(&store, &records).await.unwrap();
        let mut roles = store.roles_issued_under(id).await.unwrap();
        roles.sort();
        assert_eq!(roles, ["a", "b"]);
    }
}
