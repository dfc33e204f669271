use time::Duration;
use time::macros::datetime;

use super::*;
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::{Ground, record};
use crate::broker::store::{Consumed, Cutoff, Effect, Issuance, Ledger, Outcome, TokenStore, Unit};

pub(in super::super) const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
pub(in super::super) const DAY: Duration = Duration::DAY;

pub(in super::super) fn cutoff(whose: &Whose, before: OffsetDateTime) -> Effect {
    let (whose, at, keep_until) = (whose.clone(), NOON, before.saturating_add(DAY));
    Effect::CutOff(Cutoff { whose, before, at, keep_until })
}

pub(in super::super) fn used(kind: Once, id: &str) -> Effect {
    Effect::Consume(Consumed { kind, id: id.into(), at: NOON, keep_until: NOON + DAY })
}

pub(in super::super) async fn commit(store: &SqlStore, effects: Vec<Effect>) -> bool {
    let unit = Unit { records: Vec::new(), effects };
    store.commit(&[unit]).await.unwrap().into_iter().all(Outcome::is_committed)
}

pub(in super::super) fn issuance(whose: &Whose, at: OffsetDateTime) -> Issuance {
    Issuance { at, names: [Whose::Everybodys, whose.clone()].into(), erased: false }
}

#[tokio::test]
async fn a_cut_counts_at_every_process_and_is_only_moved_forward() {
    for ground in Ground::each().await {
        let stores = ground.open_often(2).await;
        let (alice, all) = (Whose::Subject("https://i.example#alice".into()), Whose::Everybodys);
        assert!(commit(&stores[0], vec![cutoff(&alice, NOON), cutoff(&all, NOON - DAY)]).await);
        let bob = Whose::Subject("https://i.example#bob".into());
        let is_cut = async |whose: &Whose, at| {
            let tokens = [issuance(whose, at)];
            let these = Revocable::together(tokens);
            let told = stores[1].any_revoked(these.clone()).await.unwrap();
            // So it is for whoever commits.
            assert_eq!(commit(&stores[1], vec![Effect::IfNotRevoked(these)]).await, !told);
            told
        };
        let tick = Duration::MICROSECOND;
        assert!(is_cut(&alice, NOON - tick).await && !is_cut(&alice, NOON).await);
        assert!(is_cut(&bob, NOON - DAY - tick).await && !is_cut(&bob, NOON - DAY).await);
        // It may be hers of whom nobody knows any more whose it is.
        let erased = Issuance { erased: true, ..issuance(&bob, NOON - tick) };
        let erased = Revocable::together([erased]);
        assert!(stores[1].any_revoked(erased.clone()).await.unwrap());
        assert!(!commit(&stores[1], vec![Effect::IfNotRevoked(erased)]).await);
        // An earlier one changes nothing, and holds all the same.
        assert!(commit(&stores[1], vec![cutoff(&alice, NOON - DAY)]).await);
        assert!(is_cut(&alice, NOON - tick).await);
        assert!(commit(&stores[1], vec![cutoff(&alice, NOON + tick)]).await);
        assert!(is_cut(&alice, NOON).await && !is_cut(&alice, NOON + tick).await);
    }
}

#[tokio::test]
async fn one_question_tells_of_tokens_of_keys_and_of_cuts() {
    let texts = |ids: &[&str]| ids.iter().map(ToString::to_string).collect::<Vec<_>>();
    let alice = Whose::Subject("https://i.example#alice".into());
    for ground in Ground::each().await {
        let store = ground.open().await;
        let effects =
            [used(Once::RevokedToken, "t1"), used(Once::RevokedKey, "k1"), cutoff(&alice, NOON)];
        for effect in effects {
            assert!(commit(&store, vec![effect]).await);
        }
        let good = issuance(&alice, NOON);
        let cut = issuance(&alice, NOON - Duration::SECOND);
        let erased = Issuance { erased: true, ..issuance(&Whose::Role("r".into()), cut.at) };
        let is_revoked = async |tokens: &[&str], keys: &[&str], issued: &[&Issuance]| {
            let issued: Vec<_> = issued.iter().map(|one| (*one).clone()).collect();
            let these = Revocable { tokens: texts(tokens), keys: texts(keys), issued };
            let told = store.any_revoked(these.clone()).await.unwrap();
            assert_eq!(commit(&store, vec![Effect::IfNotRevoked(these)]).await, !told);
            told
        };
        assert!(!is_revoked(&[], &[], &[]).await);
        // Each kind has ids of its own.
        assert!(!is_revoked(&["t2", "k1"], &["k2", "t1"], &[&good]).await);
        assert!(is_revoked(&["t2", "t1"], &["k2"], &[&good]).await);
        assert!(is_revoked(&["t2"], &["k2", "k1"], &[&good]).await);
        for one in [&cut, &erased] {
            assert!(is_revoked(&["t2"], &["k2"], &[&good, one]).await);
            assert!(is_revoked(&[], &[], &[one]).await);
        }
    }
}

#[tokio::test]
async fn who_comes_after_a_revocation_in_the_same_group_is_refused() {
    let (alice, role) = (Whose::Subject("alice".into()), Whose::Role("r".into()));
    let later = NOON + Duration::SECOND;
    let token = Revocable { tokens: vec!["t".into()], ..Revocable::default() };
    let erased = Issuance { erased: true, ..issuance(&role, NOON) };
    for (these, revocation) in [
        (token.clone(), used(Once::RevokedToken, "t")),
        (Revocable::keys(["k".to_string()]), used(Once::RevokedKey, "k")),
        (Revocable::together([issuance(&alice, NOON)]), cutoff(&alice, later)),
        (Revocable::together([issuance(&role, NOON)]), cutoff(&role, later)),
        (Revocable::together([erased.clone()]), cutoff(&alice, later)),
    ] {
        for ground in Ground::each().await {
            let store = ground.open().await;
            let if_good = || Unit::of(record("")).with(Effect::IfNotRevoked(these.clone()));
            // What came about with something that did not, did not either.
            let undone = Unit::of(record("")).with(revocation.clone());
            let undone = undone.with(used(Once::Statement, "s"));
            let first = Unit::of(record("")).with(used(Once::Statement, "s"));
            let of_another = Unit::of(record("")).with(used(Once::RevokedToken, "another"));
            let revoked = Unit::of(record("")).with(revocation.clone());
            let units =
                [first, if_good(), undone, if_good(), of_another, if_good(), revoked, if_good()];
            let outcomes = store.commit(&units).await.unwrap();
            let kept: Vec<_> = outcomes.into_iter().map(Outcome::is_committed).collect();
            assert_eq!(kept, [true, true, false, true, true, true, true, false], "{these:?}");
        }
    }
}

#[tokio::test]
async fn a_question_about_more_than_an_engine_takes_values_is_answered() {
    let all = 0..40_000;
    let ids = |what: &str| all.clone().map(|n| format!("{what} {n}")).collect::<Vec<_>>();
    for ground in Ground::each().await {
        let store = ground.open().await;
        let none = Revocable { tokens: ids("t"), keys: ids("k"), issued: Vec::new() };
        let role = |n: i32| issuance(&Whose::Role(n.to_string()), NOON);
        let none = Revocable { issued: all.clone().map(role).collect(), ..none };
        assert!(!store.any_revoked(none.clone()).await.unwrap());
        let at = NOON + Duration::SECOND;
        for (effect, others) in [
            (used(Once::RevokedKey, "k 39999"), Revocable::keys(ids("k"))),
            (cutoff(&Whose::Role("39999".into()), at), Revocable::together(none.issued.clone())),
        ] {
            assert!(commit(&store, vec![effect]).await);
            assert!(store.any_revoked(others).await.unwrap());
        }
        assert!(!commit(&store, vec![Effect::IfNotRevoked(none)]).await);
    }
}

#[tokio::test]
async fn what_was_revoked_is_looked_up_in_indexes() {
    let store = crate::broker::store::sqlite::in_memory().await.unwrap();
    let issued = [issuance(&Whose::Role("r".into()), NOON)];
    let erased = Issuance { erased: true, ..issued[0].clone() };
    let (tokens, keys) = (vec!["t".into()], vec!["k".into()]);
    let these = Revocable { tokens, keys, issued: [issued.into(), vec![erased]].concat() };
    let mut question = Question::default();
    question.add(&these);
    let (used, named) = (Vec::from_iter(&question.used), Vec::from_iter(&question.named));
    let Question { since, erased, .. } = question;
    let part = Part { used: &used, named: &named, since, erased };
    let explained = format!("explain query plan {}", part.statement(store.engine.values));
    let query = part.bind(sqlx::query(AssertSqlSafe(explained)));
    let rows = query.fetch_all(&store.engine.pool).await.unwrap();
    let plan: Vec<String> = rows.iter().map(|row| row.try_get("detail").unwrap()).collect();
    assert!(plan.iter().filter(|step| step.starts_with("SEARCH")).count() >= 3, "{plan:#?}");
    let of_table =
        |step: &String| step.contains(" consumed") || step.contains(" revocation_cutoff");
    let reads_all = |step: &String| step.starts_with("SCAN") && of_table(step);
    assert!(!plan.iter().any(reads_all), "{plan:#?}");
}

/// Whatever is on record behind the one of the revocation was issued after it.
#[tokio::test]
async fn what_is_issued_while_all_is_revoked_is_on_record_before_it_or_not_at_all() {
    for ground in Ground::each().await {
        let stores = ground.open_often(4).await;
        let alice = Whose::Subject("https://i.example#alice".into());
        let mut tasks = tokio::task::JoinSet::new();
        for n in 0..40 {
            let (store, alice) = (stores[n % 4].clone(), alice.clone());
            tasks.spawn(async move {
                // In one group with others, and with a token that it comes of.
                let unit = |at| {
                    let tokens =
                        vec![issuance(&alice, at - Duration::MINUTE), issuance(&alice, at)];
                    Unit::of(record("issued"))
                        .with(Effect::IfNotRevoked(Revocable::together(tokens)))
                };
                store.commit(&[unit(NOON), unit(NOON - DAY)]).await.unwrap();
                if n == 20 {
                    let cut = Unit::of(record("cut")).with(cutoff(&alice, NOON + Duration::SECOND));
                    let outcomes = store.commit(&[cut, unit(NOON)]).await.unwrap();
                    assert_eq!(outcomes[1], Outcome::Refused, "in the same group, too");
                }
            });
        }
        tasks.join_all().await;
        let records = stores[0].records(0, 999).await.unwrap();
        let reasons: Vec<_> = records.iter().map(|(_, record)| record.reason.as_str()).collect();
        let cut = reasons.iter().position(|reason| *reason == "cut").unwrap();
        assert_eq!(cut, reasons.len() - 1, "{reasons:?}");
        assert!(cut > 0);
    }
}
