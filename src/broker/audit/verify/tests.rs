use std::path::{Path, PathBuf};
use std::sync::Arc;

use time::Duration;

use super::*;
use crate::broker::audit::Record;
use crate::broker::audit::notary::Signer;
use crate::broker::audit::tree::leaf_hash;
use crate::broker::keys::{CheckpointKeys, RootKey};
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::{append, record};
use crate::broker::store::sqlite;
use crate::broker::store::sqlite::tests::tamper;
use crate::host::clock::SystemClock;

const ORIGIN: &str = "broker.example.com";

/// A log of 1,000 records, signed every 100.
struct Log {
    _dir: tempfile::TempDir,
    path: PathBuf,
    keys: Vec<VerifierKey>,
    store: Arc<SqlStore>,
    seal: Seal,
}

impl Log {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.db");
        let store = Arc::new(sqlite::open(&path).await.unwrap());
        let root_key = RootKey::random().unwrap();
        let keys = CheckpointKeys::open(store.as_ref(), &root_key, &SystemClock).await.unwrap();
        let public = vec![VerifierKey::new(ORIGIN, keys.active().unwrap())];
        let seal = keys.seal().clone();
        let mut signer = Signer::new(store.clone(), keys, ORIGIN, Arc::new(SystemClock));
        for part in 0..10 {
            // Groups that fill no tile evenly.
            for group in [33, 1, 66] {
                // In some of them somebody acts.
                let actor = (part == 2).then(|| "https://i.example#bot".to_string());
                let record =
                    |n| Record { actor: actor.clone(), ..record(&format!("{part} {group} {n}")) };
                let records: Vec<_> = (0..group).map(record).collect();
                append(store.as_ref(), &records).await.unwrap();
            }
            signer.sign().await.unwrap();
        }
        Self { _dir: dir, path, keys: public, store, seal }
    }

    /// Checks it by the public key alone.
    async fn check(&self, elsewhere: &[Checkpoint]) -> Report {
        self.check_by(elsewhere, None).await
    }

    async fn check_by(&self, elsewhere: &[Checkpoint], seal: Option<&Seal>) -> Report {
        self.check_after(Duration::ZERO, elsewhere, seal).await
    }

    /// Checks it so long after the last record.
    async fn check_after(
        &self,
        later: Duration,
        elsewhere: &[Checkpoint],
        seal: Option<&Seal>,
    ) -> Report {
        let read = sqlite::open_to_read(&self.path).await.unwrap();
        // The records of tests are from then.
        let now = record("").at + later;
        let by = |checkpoint: &Checkpoint| Elsewhere {
            checkpoint: checkpoint.clone(),
            by: self.keys.clone(),
        };
        let elsewhere: Vec<_> = elsewhere.iter().map(by).collect();
        let report = verify(&read, &self.proofs(&elsewhere, seal, now)).await;
        let report = report.unwrap();
        crate::broker::store::Store::close(&read).await;
        report
    }

    fn proofs<'a>(
        &'a self,
        elsewhere: &'a [Elsewhere],
        seal: Option<&'a Seal>,
        now: OffsetDateTime,
    ) -> Proofs<'a> {
        Proofs { keys: &self.keys, revoked: &[], seal, elsewhere, now }
    }

    async fn newest(&self) -> Checkpoint {
        let noted = self.store.latest_note().await.unwrap().unwrap();
        Checkpoint::open(&noted.note, &self.keys).unwrap()
    }

    /// What is found after this was done, by kind and place.
    async fn after(&self, change: &str) -> Vec<(Kind, u64, u64)> {
        tamper(&self.path, change).await;
        places(&self.check(&[]).await)
    }
}

fn places(report: &Report) -> Vec<(Kind, u64, u64)> {
    report.findings.iter().map(|found| (found.kind, found.first, found.last)).collect()
}

/// Makes the tree anew over whatever the records say, as the broker would, and without
/// its key.
async fn recompute(path: &Path) {
    tamper(
        path,
        "delete from audit_tile; update audit_head set tree_size = 0,
        frontier = null, seal = null",
    )
    .await;
    sqlite::open(path).await.unwrap();
}

#[tokio::test]
async fn a_log_that_nobody_touched_is_good() {
    let log = Log::new().await;
    let report = log.check(&[log.newest().await]).await;
    assert_eq!(places(&report), []);
    assert_eq!((report.records, report.signed, report.checkpoints), (1000, 1000, 10));
    // Behind the last checkpoint nothing is signed yet.
    append(log.store.as_ref(), &[record("new")]).await.unwrap();
    let report = log.check(&[]).await;
    assert_eq!((places(&report), report.records, report.signed), (vec![], 1001, 1000));
}

#[tokio::test]
async fn every_edit_of_a_record_is_found_and_its_place_named() {
    let log = Log::new().await;
    for column in crate::broker::audit::leaf::COLUMNS.iter().skip(1) {
        let keep = "create table kept as select * from audit_record where sequence = 437";
        let number = crate::broker::audit::leaf::NUMBERS.contains(column);
        let value = if number { format!("{column} + 1") } else { "'other'".into() };
        let change = format!("update audit_record set {column} = {value} where sequence = 437");
        let found = log.after(&format!("{keep}; {change}")).await;
        assert_eq!(found, [(Kind::Changed, 437, 437)], "{column}");
        let back = "delete from audit_record where sequence = 437;
            insert into audit_record select * from kept; drop table kept";
        assert_eq!(log.after(back).await, [], "{column}");
    }
    for change in [
        "salt = zeroblob(16)",
        "salt = null, leaf_version = 1",
        "leaf_version = 9",
        "leaf_version = 2",
        "actor = null",
        "actor = null, leaf_version = 2",
        "actor = 'https://i.example#other'",
        "ttl = 'no number'",
        "reason = x'ff'",
        "reason = cast(x'ff' as text)",
    ] {
        let change = format!("update audit_record set {change} where sequence in (256, 257)");
        assert_eq!(log.after(&change).await, [(Kind::Changed, 256, 257)], "{change}");
    }
}

#[tokio::test]
async fn records_that_change_places_are_found() {
    let log = Log::new().await;
    let change = "update audit_record set sequence = 0 where sequence = 10;
        update audit_record set sequence = 10 where sequence = 20;
        update audit_record set sequence = 20 where sequence = 0";
    assert_eq!(log.after(change).await, [(Kind::Changed, 10, 10), (Kind::Changed, 20, 20)]);
}

#[tokio::test]
async fn records_that_are_gone_are_found_in_the_middle_and_at_the_end() {
    let log = Log::new().await;
    let found = log.after("delete from audit_record where sequence = 500").await;
    assert_eq!(found, [(Kind::Missing, 500, 500)]);
    // The numbers closed up: each of those behind is another one than it was.
    let found = log
        .after(
            "update audit_record set sequence = -sequence where sequence > 500;
             update audit_record set sequence = -sequence - 1 where sequence < 0",
        )
        .await;
    assert_eq!(found, [(Kind::Changed, 500, 999), (Kind::Missing, 1000, 1000)]);

    let log = Log::new().await;
    let cut = "delete from audit_record where sequence > 950";
    assert_eq!(log.after(cut).await, [(Kind::Missing, 951, 1000)]);
    // One trace after the other is removed.
    let newest = log.newest().await;
    for trace in [
        "update audit_head set last_sequence = 950",
        "update audit_head set tree_size = 950",
        "delete from audit_checkpoint where size > 950",
    ] {
        assert_eq!(log.after(trace).await, [(Kind::Missing, 951, 1000)], "{trace}");
    }
    let cut = "update audit_tile set hashes = substr(hashes, 1, 182 * 32)
        where level = 0 and number = 3";
    assert_eq!(log.after(cut).await, [], "it cannot be known here");
    let report = log.check(std::slice::from_ref(&newest)).await;
    assert_eq!(places(&report), [(Kind::Missing, 951, 1000)]);
    assert!(report.findings[0].text.contains("from elsewhere"));
}

/// Whoever may write the database can have it say that there is more than anybody could go through.
#[tokio::test]
async fn a_log_that_claims_to_be_endless_is_gone_through_all_the_same() {
    const MANY: u64 = 9_000_000_000_000_000_000;
    let log = Log::new().await;
    let newest = log.newest().await;
    let long = format!("update audit_head set last_sequence = {MANY}");
    assert_eq!(log.after(&long).await, [(Kind::Missing, 1001, MANY)]);
    let further = Checkpoint { size: 5000, ..newest };
    let found = places(&log.check(&[further]).await);
    assert!(found.contains(&(Kind::Missing, 1001, MANY)), "{found:?}");
    assert!(found.contains(&(Kind::Rewritten, 1001, 5000)), "{found:?}");
    let far = format!(
        "create table far as select * from audit_record where sequence = 7;
         update far set sequence = {MANY}; insert into audit_record select * from far"
    );
    let found = log.after(&far).await;
    assert_eq!(found, [(Kind::Missing, 1001, MANY - 1), (Kind::Tree, MANY, MANY)]);
    // What is not led to by an index is found without going through what is not there.
    let read = sqlite::open_to_read(&log.path).await.unwrap();
    let decision = Some(crate::broker::audit::Decision::Issued);
    let filter = crate::broker::store::Filter { decision, ..Default::default() };
    let rows = read.find(&filter, 2000).await.unwrap();
    assert_eq!((rows.len(), rows[1000].0), (1001, MANY));
    crate::broker::store::Store::close(&read).await;
}

#[tokio::test]
async fn a_log_has_to_be_as_each_checkpoint_from_elsewhere_says() {
    let log = Log::new().await;
    let newest = log.newest().await;
    let notes = log.store.notes(299, 1).await.unwrap();
    let early = Checkpoint::open(&notes[0].note, &log.keys).unwrap();
    assert_eq!((early.size, newest.size), (300, 1000));
    let report = log.check(&[newest.clone(), early.clone()]).await;
    assert_eq!((places(&report), report.signed, report.off_host), (vec![], 1000, Some(1000)));
    // Two that contradict each other, in whichever order.
    let other = Checkpoint { root: newest.root, ..early.clone() };
    for both in [[early.clone(), other.clone()], [other.clone(), early.clone()]] {
        let [(Kind::Rewritten, first, 300)] = places(&log.check(&both).await)[..] else {
            panic!("{both:?}")
        };
        assert!([201, 300].contains(&first), "{first}");
    }
    // One that is good says nothing for one that is not, nor for what is gone.
    let found = places(&log.check(&[newest.clone(), other]).await);
    assert_eq!(found, [(Kind::Rewritten, 201, 300)]);
    let further = Checkpoint { size: 1007, ..newest.clone() };
    let found = places(&log.check(&[further, early]).await);
    assert_eq!(found, [(Kind::Missing, 1001, 1007)]);
    // Where newer ones were removed from the database, older ones are not taken for the newest.
    tamper(&log.path, "delete from audit_checkpoint where size > 300").await;
    let report = log.check_by(&[newest], Some(&log.seal)).await;
    assert_eq!(places(&report), [(Kind::Checkpoint, 301, 1000)]);
    assert!(report.findings[0].text.contains("were removed"), "{}", report.findings[0].text);
}

#[tokio::test]
async fn a_tree_that_was_made_anew_without_the_key_is_found() {
    let log = Log::new().await;
    tamper(&log.path, "update audit_record set role = 'admin' where sequence = 437").await;
    recompute(&log.path).await;
    let report = log.check(&[]).await;
    // Neither records nor tree are what was signed: between two checkpoints.
    assert_eq!(places(&report), [(Kind::Rewritten, 401, 500)]);
    assert_eq!(report.signed, 400);
    // Without the checkpoints in between the place is wider.
    let newest = log.newest().await;
    let found = log.after("delete from audit_checkpoint where size between 300 and 900").await;
    assert_eq!(found, [(Kind::Rewritten, 201, 1000)]);
    // Without any there is nothing to go by here.
    let found = log.after("delete from audit_checkpoint where size > 200").await;
    assert_eq!(found, []);
    let report = log.check(&[]).await;
    assert_eq!((report.records, report.signed), (1000, 200));
    let report = log.check(std::slice::from_ref(&newest)).await;
    assert_eq!(places(&report), [(Kind::Rewritten, 201, 1000)]);
    let found = log.after("delete from audit_checkpoint").await;
    assert_eq!(found, [(Kind::Checkpoint, 1, 1000)]);
}

#[tokio::test]
async fn checkpoints_of_another_key_are_found() {
    let log = Log::new().await;
    let (other, root_key) = (sqlite::in_memory().await.unwrap(), RootKey::random().unwrap());
    let keys = CheckpointKeys::open(&other, &root_key, &SystemClock).await.unwrap();
    let note = keys.signed(&log.newest().await).unwrap();
    let swap = format!("update audit_checkpoint set note = '{note}' where size = 1000");
    assert_eq!(log.after(&swap).await, [(Kind::Checkpoint, 1000, 1000)]);
    // A good one, at another size.
    let moved = "update audit_checkpoint set note =
        (select note from audit_checkpoint where size = 900) where size = 800";
    let found = log.after(moved).await;
    assert_eq!(found, [(Kind::Checkpoint, 800, 800), (Kind::Checkpoint, 1000, 1000)]);
}

#[tokio::test]
async fn damaged_tiles_are_found_and_told_from_damaged_records() {
    let log = Log::new().await;
    let flip = |level: u64, number: u64, at: u64| {
        format!(
            "update audit_tile set hashes = cast(substr(hashes, 1, {at} * 32)
                || zeroblob(32) || substr(hashes, ({at} + 1) * 32 + 1) as blob)
             where level = {level} and number = {number}"
        )
    };
    // In the last tile, which is not whole; what was signed says that records are good.
    assert_eq!(log.after(&flip(0, 3, 10)).await, [(Kind::Tree, 779, 779)]);
    // In a whole one, whose root is in the tile above.
    let log = Log::new().await;
    let found = log.after(&flip(0, 1, 43)).await;
    assert_eq!(found, [(Kind::Tree, 300, 300), (Kind::Tree, 257, 512)]);
    let log = Log::new().await;
    assert_eq!(log.after(&flip(1, 0, 2)).await, [(Kind::Tree, 513, 768)]);
    let log = Log::new().await;
    let found = log.after("delete from audit_tile where level = 0 and number = 0").await;
    assert_eq!(found, [(Kind::Tree, 1, 256), (Kind::Tree, 1, 256)]);
    let log = Log::new().await;
    let text = "update audit_tile set hashes = cast(hashes as text) where level = 1";
    assert_eq!(log.after(text).await, [(Kind::Tree, 1, 768)]);
}

#[tokio::test]
async fn records_that_were_added_by_hand_are_found() {
    let log = Log::new().await;
    let copy = |to: i64| {
        format!(
            "create table more as select * from audit_record where sequence = 1;
             update more set sequence = {to}; insert into audit_record select * from more;
             drop table more"
        )
    };
    assert_eq!(log.after(&copy(1001)).await, [(Kind::Extra, 1001, 1001)]);
    let found = log.after(&copy(-5)).await;
    assert_eq!(found, [(Kind::Extra, 0, 0), (Kind::Extra, 1001, 1001)]);
}

#[tokio::test]
async fn what_cannot_be_read_hides_nothing_else() {
    let log = Log::new().await;
    for number in ["5.5", "'x'", "x'ff'"] {
        let change = format!(
            "create table more as select * from audit_record where sequence = 1;
             update more set sequence = {number}; insert into audit_record select * from more;
             drop table more"
        );
        tamper(&log.path, &change).await;
    }
    let found =
        log.after("update audit_checkpoint set note = cast(x'ff' as text) where size = 300");
    assert_eq!(found.await, [(Kind::Checkpoint, 300, 300), (Kind::Extra, 0, 0)]);
    let damage = "update audit_record set reason = cast(x'ff' as text) where sequence = 7;
         update audit_record set request_id = 'none' where sequence = 8;
         update audit_checkpoint set note = x'ff' where size = 1000";
    let found = log.after(damage).await;
    let checkpoints = [300, 1000].map(|size| (Kind::Checkpoint, size, size));
    let places = [(Kind::Changed, 7, 8), checkpoints[0], checkpoints[1], (Kind::Extra, 0, 0)];
    assert_eq!(found, places);
    // Everything else is handed on.
    let page = log.store.page(0, 1000).await.unwrap();
    let bad: Vec<_> = page.iter().filter(|(_, record)| record.is_none()).map(|(n, _)| *n).collect();
    assert_eq!((page.len(), bad), (1000, vec![7, 8]));
    let found = log.store.find(&crate::broker::store::Filter::default(), 10).await.unwrap();
    assert!(found.len() == 10 && found.iter().all(|(_, record)| record.is_some()));
}

#[tokio::test]
async fn the_seal_covers_what_nobody_has_signed() {
    let log = Log::new().await;
    append(log.store.as_ref(), &[record("new")]).await.unwrap();
    let report = log.check_by(&[], Some(&log.seal)).await;
    assert_eq!((places(&report), report.signed, report.sealed), (vec![], 1000, Some(1001)));
    // Whoever cannot look at the seal is told of what should be signed by now.
    let later = Duration::seconds(61);
    let report = log.check_after(later, &[], None).await;
    assert_eq!(places(&report), [(Kind::Unsigned, 1001, 1001)]);
    // Nor is one new for ever that says it is from then.
    let report = log.check_after(-later, &[], None).await;
    assert_eq!(places(&report), [(Kind::Unsigned, 1001, 1001)]);
    assert_eq!(places(&log.check_after(-Duration::seconds(59), &[], None).await), []);
    assert_eq!(places(&log.check_after(later, &[], Some(&log.seal)).await), []);

    // Records, tree and checkpoints are rewritten, and the seal is left.
    tamper(&log.path, "create table kept as select frontier, seal from audit_head").await;
    tamper(&log.path, "update audit_record set role = 'x' where sequence = 437").await;
    tamper(&log.path, "delete from audit_checkpoint where size > 200").await;
    recompute(&log.path).await;
    tamper(&log.path, "update audit_head set (frontier, seal) = (select frontier, seal from kept)")
        .await;
    let report = log.check_by(&[], Some(&log.seal)).await;
    assert_eq!(places(&report), [(Kind::Rewritten, 201, 1001)]);
    assert_eq!(places(&log.check_after(later, &[], None).await), [(Kind::Unsigned, 201, 1001)]);
    // Or it is made up, or gone.
    for seal in ["zeroblob(32)", "null", "x''"] {
        tamper(&log.path, &format!("update audit_head set seal = {seal}")).await;
        let report = log.check_by(&[], Some(&log.seal)).await;
        assert_eq!(places(&report), [(Kind::Seal, 1001, 1001)], "{seal}");
    }
    tamper(&log.path, "update audit_head set frontier = null, seal = null").await;
    let report = log.check_by(&[], Some(&log.seal)).await;
    assert_eq!(places(&report), [(Kind::Seal, 1001, 1001)]);
}

#[tokio::test]
async fn a_log_is_checked_while_it_grows() {
    let log = Arc::new(Log::new().await);
    let writer = tokio::spawn({
        let store = log.store.clone();
        async move {
            for n in 0..300 {
                append(store.as_ref(), &[record(&n.to_string())]).await.unwrap();
            }
        }
    });
    let mut checks = 0;
    while !writer.is_finished() || checks == 0 {
        assert_eq!(places(&log.check_by(&[], Some(&log.seal)).await), []);
        checks += 1;
    }
    writer.await.unwrap();
}

#[tokio::test]
async fn the_tree_in_the_store_is_that_over_the_leaves() {
    let log = Log::new().await;
    let leaves = log.store.leaves(0, 1000).await.unwrap();
    let mut tree = Frontier::default();
    for leaf in &leaves {
        tree.push(leaf.hash().unwrap());
        if [1, 2, 255, 256, 257, 999, 1000].contains(&tree.size()) {
            assert_eq!(log.store.root_at(tree.size()).await.unwrap(), tree.root());
        }
    }
    assert_eq!(log.newest().await.root, tree.root());
    assert_ne!(tree.root(), leaf_hash(b""));
}

mod told;
