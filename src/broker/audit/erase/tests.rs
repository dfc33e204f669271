use std::sync::Arc;

use data_encoding::HEXLOWER;
use time::macros::datetime;

use super::*;
use crate::broker::audit::leaf::ERASED;
use crate::broker::audit::verify::{Kind, Proofs, verify};
use crate::broker::keys::RootKey;
use crate::broker::store::sql::tests::{Ground, append, record};
use crate::broker::store::{Ledger, LogStore, sqlite};
use crate::broker::testbed::failing::Failing;

const NOW: OffsetDateTime = datetime!(2026-01-02 12:00 UTC);

fn of(subject: &str, actor: Option<&str>) -> Record {
    let principal = Principal { issuer: "https://i.example".into(), subject: subject.into() };
    let claims = Some(format!(r#"{{"who":"{subject}"}}"#));
    Record {
        principal,
        actor: actor.map(String::from),
        claims,
        ..record(&format!("{subject} may"))
    }
}

async fn erased(store: &dyn Store, subject: &str) -> Result<Erased> {
    let person = Principal { issuer: "https://i.example".into(), subject: subject.into() };
    let issuer = Issuer::parse("https://broker.example").unwrap();
    let what = Erasure { person: &person, by: "ops", reason: "ticket 7", issuer: &issuer };
    erase(store, &what, NOW).await
}

/// Puts back what keeps a log of an earlier version from more than was erased then.
const EARLIER: &str = "do $$
    declare
        today text := pg_get_functiondef('audit_record_append_only'::regproc);
    begin
        if strpos(today, '''claims'', ') = 0 then
            raise exception 'it says nothing of claims: %', today;
        end if;
        execute replace(today, '''claims'', ', '');
    end $$";

#[tokio::test]
async fn what_is_erased_is_gone_and_all_proofs_are_what_they_were() {
    for ground in Ground::each().await {
        if ground.is_postgres() {
            ground.open().await.close().await;
            ground.execute(EARLIER).await;
        }
        let store = ground.open().await;
        let seal = RootKey::random().unwrap().seal_of_log();
        store.seal_with(seal.clone()).await.unwrap();
        let bot = "https://i.example#alice";
        let others = format!("https://i.example#x {bot} https://i.example#y");
        append(
            &store,
            &[
                of("alice", None),
                of("bob", None),
                of("carol", Some(bot)),
                of("dave", Some(&others)),
                of("alicea", Some("https://i.example#alice2")),
                of("alice", Some("https://i.example#x")),
                of("a%ice", None),
                of("erin", Some("https://i.example#ALICE")),
            ],
        )
        .await
        .unwrap();
        let before = store.root_at(8).await.unwrap();
        let done = erased(&store, "alice").await.unwrap();
        assert_eq!(done, Erased { records: 4, fixed: 0 });
        assert_eq!(erased(&store, "alice").await.unwrap(), Erased::default());
        // A name is no pattern.
        assert_eq!(erased(&store, "%").await.unwrap(), Erased::default());
        assert_eq!(store.root_at(8).await.unwrap(), before);
        let records = store.records(0, 99).await.unwrap();
        let gone: Vec<u64> = records
            .iter()
            .filter(|(_, r)| {
                let texts = [&r.reason, &r.principal.subject, &r.client, &r.source];
                texts.into_iter().chain(&r.actor).chain(&r.claims).all(|text| text == ERASED)
            })
            .map(|(sequence, _)| *sequence)
            .collect();
        assert_eq!(gone, [1, 3, 4, 6]);
        let (_, own) = records.last().unwrap();
        assert_eq!((&own.action[..], &own.scope[..], own.count), ("erase", "1 3-4 6", 4));
        assert_eq!(own.reason, "ops asked for it: ticket 7");
        assert!(records.iter().all(|(_, record)| !format!("{record:?}").contains("alice\"")));
        let report = async || {
            let proofs = Proofs {
                keys: &[],
                revoked: &[],
                seal: Some(&seal),
                elsewhere: &[],
                now: record("").at,
            };
            verify(&store, &proofs).await.unwrap()
        };
        let good = report().await;
        assert_eq!((good.erased, good.sealed, &good.findings[..]), (4, Some(9), &[][..]));
        // Somebody hides one without saying so.
        let leaf = store.leaves(1, 1).await.unwrap().remove(0);
        let kept = HEXLOWER.encode(leaf.kept().unwrap().as_ref());
        let bytes = match ground.is_postgres() {
            true => format!("'\\x{kept}'"),
            false => format!("x'{kept}'"),
        };
        ground
            .tamper(&format!(
                "update audit_record set reason = '{ERASED}', subject = '{ERASED}', \
                 client = '{ERASED}', source = '{ERASED}', claims = '{ERASED}', salt = null, \
                 erased = {bytes} \
                 where sequence = 2"
            ))
            .await;
        let found = report().await;
        let [finding] = &found.findings[..] else { panic!("{:?}", found.findings) };
        assert_eq!((finding.kind, finding.first, finding.last), (Kind::Erased, 2, 2));
    }
}

#[tokio::test]
async fn what_is_erased_while_the_log_is_looked_at_is_no_damage() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    let seal = RootKey::random().unwrap().seal_of_log();
    store.seal_with(seal.clone()).await.unwrap();
    append(store.as_ref(), &[of("alice", None), of("bob", None)]).await.unwrap();
    let looked_at = Failing::over(store.clone());
    looked_at.meanwhile(async move {
        erased(store.as_ref(), "alice").await.unwrap();
    });
    let proofs =
        Proofs { keys: &[], revoked: &[], seal: Some(&seal), elsewhere: &[], now: record("").at };
    let report = verify(looked_at.as_ref(), &proofs).await.unwrap();
    assert_eq!((report.records, report.erased, &report.findings[..]), (2, 1, &[][..]));
}

#[tokio::test]
async fn what_is_in_the_tree_as_it_is_stays_and_a_record_that_was_changed_keeps_all() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        append(&store, &[of("alice", None), of("alice", None)]).await.unwrap();
        ground
            .tamper("update audit_record set leaf_version = 1, salt = null where sequence = 1")
            .await;
        assert_eq!(erased(&store, "alice").await.unwrap(), Erased { records: 1, fixed: 1 });
        append(&store, &[of("bob", None), of("bob", None)]).await.unwrap();
        ground.tamper("update audit_record set salt = null where sequence = 5").await;
        let refused = erased(&store, "bob").await.unwrap_err();
        assert!(refused.to_string().contains("were not erased"), "{refused}");
        let records = (&store as &dyn Ledger).records(3, 9).await.unwrap();
        assert_eq!(records[0].1.principal.subject, "bob");
        assert_eq!(records.len(), 2, "nothing is on record of what was not done");
    }
}

#[test]
fn spans_are_what_they_say() {
    let mut spans = Spans::default();
    [1, 2, 3, 7, 9, 10].into_iter().for_each(|n| spans.add(n, n));
    assert_eq!(spans.text(), "1-3 7 9-10");
    assert_eq!(Spans::parse(&spans.text()), spans.0);
    assert_eq!(Spans::parse("x 1-y 4"), [(4, 4)]);
    let told = Spans(vec![(9, u64::MAX), (2, 2)]);
    assert_eq!(spans.clone().without(&told), [(1, 1), (3, 3), (7, 7)]);
    assert_eq!(spans.clone().without(&Spans::default()), spans.0);
}
