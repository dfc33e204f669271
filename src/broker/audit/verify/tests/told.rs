//! What the log says of itself counts where it was appended, and not where somebody wrote it into
//! a record.

use super::*;
use crate::broker::audit::erase::{Erased, Erasure, erase};
use crate::credential::Principal;
use crate::oidc::Issuer;

/// A key that somebody has who is not the broker, and a checkpoint that it has signed.
async fn foreign(of: &Checkpoint) -> (VerifierKey, String) {
    let (store, root_key) = (sqlite::in_memory().await.unwrap(), RootKey::random().unwrap());
    let keys = CheckpointKeys::open(&store, &root_key, &SystemClock).await.unwrap();
    (VerifierKey::new(ORIGIN, keys.active().unwrap()), keys.signed(of).unwrap())
}

/// Has a record say what became of a key of the log.
fn says(sequence: u64, state: &str, key: &VerifierKey) -> String {
    format!(
        "update audit_record set action = 'key', decision = 'changed', scope = '{state} {key}'
         where sequence = {sequence}"
    )
}

#[tokio::test]
async fn a_record_that_was_changed_names_no_keys() {
    let log = Log::new().await;
    let (key, note) = foreign(&log.newest().await).await;
    tamper(&log.path, &says(10, "published", &key)).await;
    let swap = format!("update audit_checkpoint set note = '{note}' where size = 1000");
    tamper(&log.path, &swap).await;
    let report = log.check(&[]).await;
    assert_eq!(places(&report), [(Kind::Changed, 10, 10), (Kind::Checkpoint, 1000, 1000)]);
    assert_eq!(report.signed, 900);
    // Nor does it end that of a key that is good.
    tamper(&log.path, &says(10, "revoked", &log.keys[0])).await;
    let report = log.check(&[]).await;
    assert_eq!(places(&report), [(Kind::Changed, 10, 10), (Kind::Checkpoint, 1000, 1000)]);
    assert!(!report.keys[0].revoked && report.signed == 900, "{report:?}");
}

#[tokio::test]
async fn a_record_that_was_changed_tells_of_no_erasure() {
    let log = Log::new().await;
    let person = Principal { issuer: "https://i.example".into(), subject: "bob".into() };
    let of_bob = Record { principal: person.clone(), ..record("bob may") };
    assert_eq!(append(log.store.as_ref(), &[of_bob]).await.unwrap(), 1001);
    let issuer = Issuer::parse("https://broker.example").unwrap();
    let what = Erasure { person: &person, by: "ops", reason: "ticket 7", issuer: &issuer };
    let done = erase(log.store.as_ref(), &what, record("").at).await.unwrap();
    assert_eq!(done, Erased { records: 1, fixed: 0 });
    let seal = Some(&log.seal);
    assert_eq!(places(&log.check_by(&[], seal).await), []);
    // Where it is the tree that was changed, the record goes on telling.
    let tile = "create table kept as select * from audit_tile where level = 0 and number = 3;
        update audit_tile set hashes = cast(substr(hashes, 1, 233 * 32) || zeroblob(32) as blob)
        where level = 0 and number = 3";
    tamper(&log.path, tile).await;
    let report = log.check_by(&[], seal).await;
    assert_eq!((places(&report), report.erased), (vec![(Kind::Tree, 1002, 1002)], 1));
    let back = "delete from audit_tile where level = 0 and number = 3;
        insert into audit_tile select * from kept";
    tamper(&log.path, back).await;
    // The record of it is made one of something else, and another one is made one of it.
    let moved = "update audit_record set scope = '7' where sequence = 1002;
        update audit_record set action = 'erase', decision = 'changed', scope = '1001'
        where sequence = 437";
    tamper(&log.path, moved).await;
    let changed = [(Kind::Changed, 437, 437), (Kind::Changed, 1002, 1002)];
    let found = places(&log.check_by(&[], seal).await);
    assert_eq!(found, [changed[0], changed[1], (Kind::Erased, 1001, 1001)]);
}
