use std::sync::Arc;
use std::sync::atomic::Ordering;

use time::Duration;

use super::*;
use crate::broker::audit::notary::Signer;
use crate::broker::audit::note::Checkpoint;
use crate::broker::audit::seal::Seal;
use crate::broker::audit::verify::{Elsewhere, Kind, Proofs, Report, verify};
use crate::broker::config::Keys as KeysConfig;
use crate::broker::keys::{CheckpointKeys, Keeper, RootKey, Rules, Signs, StoredKey};
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::{append, record};
use crate::broker::store::{Effect, KeyStore, Ledger, LogStore, Unit, sqlite};
use crate::broker::testbed::Shifted;
use crate::broker::testbed::failing::Failing;
use crate::error::ErrorKind;
use crate::oidc::Issuer;

const ORIGIN: &str = "broker.example.com";

/// A log whose keys change.
struct Log {
    store: Arc<SqlStore>,
    keeper: Keeper,
    clock: Arc<Shifted>,
    signer: Signer,
}

impl Log {
    async fn new() -> Self {
        let store = Arc::new(sqlite::in_memory().await.unwrap());
        let (root_key, clock) = (RootKey::random().unwrap(), Arc::new(Shifted::default()));
        let keys = CheckpointKeys::open(store.as_ref(), &root_key, clock.as_ref()).await.unwrap();
        let keeper = Keeper {
            store: store.clone(),
            root_key,
            clock: clock.clone(),
            rules: Rules::from(&KeysConfig::default()),
            issuer: Issuer::parse("https://broker.example.com").unwrap(),
            name: "operator",
            seen: Arc::default(),
        };
        let signer = Signer::new(store.clone(), keys, ORIGIN, clock.clone());
        Self { store, keeper, clock, signer }
    }

    /// Appends something, and has the log signed; returns the note.
    async fn grow(&mut self) -> String {
        append(self.store.as_ref(), &[record("a"), record("b")]).await.unwrap();
        self.signer.sign().await.unwrap();
        self.store.latest_note().await.unwrap().unwrap().note
    }

    async fn keys(&self) -> CheckpointKeys {
        CheckpointKeys::read(self.store.as_ref(), &self.keeper.root_key).await.unwrap()
    }

    async fn active(&self) -> VerifierKey {
        VerifierKey::new(ORIGIN, self.keys().await.active().unwrap())
    }

    async fn in_state(&self, state: KeyState) -> Vec<StoredKey> {
        let keys = self.store.keys().await.unwrap();
        let of_log = |key: &StoredKey| key.purpose == crate::broker::keys::Purpose::Checkpoint;
        keys.into_iter().filter(|key| of_log(key) && key.state == state).collect()
    }

    async fn rotate(&self) {
        let rules = self.keeper.rules;
        self.keeper.settle(|keys| rules.rotation(keys, &[Signs::Log])).await.unwrap();
    }

    async fn revoke(&self, key: &StoredKey) {
        let (rules, kid) = (self.keeper.rules, std::slice::from_ref(&key.kid));
        self.keeper.settle(|keys| rules.revocation(keys, kid, "it leaked")).await.unwrap();
    }

    /// Checks it by these keys alone.
    async fn check(&self, keys: &[VerifierKey]) -> Report {
        self.check_by(keys, &[], None).await
    }

    async fn check_by(
        &self,
        keys: &[VerifierKey],
        revoked: &[VerifierKey],
        seal: Option<&Seal>,
    ) -> Report {
        let now = record("").at;
        let proofs = Proofs { keys, revoked, seal, elsewhere: &[], now };
        verify(self.store.as_ref(), &proofs).await.unwrap()
    }

    /// Checks it by all that the key-encryption key opens.
    async fn check_here(&self) -> Report {
        let keys = self.keys().await;
        let (good, revoked) = (keys.verifiers(ORIGIN), keys.revoked(ORIGIN));
        self.check_by(&good, &revoked, Some(keys.seal())).await
    }
}

fn signers(note: &str, keys: &[&VerifierKey]) -> Vec<bool> {
    let by = |key: &&VerifierKey| Checkpoint::open(note, std::slice::from_ref(*key)).is_ok();
    keys.iter().map(by).collect()
}

#[tokio::test]
async fn who_knows_the_first_key_of_a_log_follows_it_to_the_last() {
    let mut log = Log::new().await;
    let first = log.active().await;
    let early = log.grow().await;
    log.rotate().await;
    let next = log.in_state(KeyState::Published).await.remove(0);
    let both = log.grow().await;
    let second = log.keys().await.verifiers(ORIGIN).remove(1);
    assert_eq!(signers(&early, &[&first, &second]), [true, false]);
    assert_eq!(signers(&both, &[&first, &second]), [true, true]);
    // Whoever looks once a day has met it by then.
    log.clock.0.fetch_add(Duration::DAY.whole_seconds() - 60, Ordering::Relaxed);
    log.keeper.settle(|_| Vec::new()).await.unwrap();
    assert_eq!(log.active().await, first);
    log.clock.0.fetch_add(120, Ordering::Relaxed);
    log.keeper.settle(|_| Vec::new()).await.unwrap();
    assert_eq!(log.active().await, second);
    assert_eq!(log.in_state(KeyState::Active).await[0].kid, next.kid);
    let late = log.grow().await;
    assert_eq!(signers(&late, &[&first, &second]), [false, true]);
    // And so once more.
    log.rotate().await;
    log.grow().await;
    log.clock.0.fetch_add(Duration::DAY.whole_seconds() + 60, Ordering::Relaxed);
    log.keeper.settle(|_| Vec::new()).await.unwrap();
    let newest = log.grow().await;
    let third = log.active().await;
    assert_eq!(signers(&newest, &[&first, &second, &third]), [false, false, true]);

    let report = log.check(std::slice::from_ref(&first)).await;
    assert_eq!((report.findings, report.signed), (Vec::new(), report.records));
    let by: Vec<_> = report.keys.iter().map(|signed| signed.key.clone()).collect();
    assert_eq!(by, [first.to_string(), second.to_string(), third.to_string()]);
    assert_eq!(report.keys[0].checkpoints, 2);
    let report = log.check_here().await;
    assert_eq!((report.findings, report.signed), (Vec::new(), report.records));
    // A checkpoint that the first one signed is good for whoever has them all.
    let all = log.keys().await.verifiers(ORIGIN);
    let (_, by) = Checkpoint::open_signed(&early, &all).unwrap();
    assert_eq!((by, &all[0]), (vec![first], &third));
}

#[tokio::test]
async fn a_key_of_which_no_known_key_has_signed_the_record_is_not_followed() {
    let mut log = Log::new().await;
    let first = log.active().await;
    log.grow().await;
    log.rotate().await;
    log.clock.0.fetch_add(Duration::DAY.whole_seconds() + 60, Ordering::Relaxed);
    log.keeper.settle(|_| Vec::new()).await.unwrap();
    // Nobody has signed anything while both did.
    log.grow().await;
    let report = log.check(&[first]).await;
    let found: Vec<_> = report.findings.iter().map(|found| found.kind).collect();
    assert_eq!((found, report.signed), (vec![Kind::Checkpoint], 2));
}

#[tokio::test]
async fn on_what_a_revoked_key_has_signed_nothing_rests() {
    let mut log = Log::new().await;
    let first = log.active().await;
    let early = log.grow().await;
    let key = log.in_state(KeyState::Active).await.remove(0);
    log.revoke(&key).await;
    let second = log.active().await;
    assert_ne!(first, second);
    // Before the log is signed anew, nobody has signed it.
    let report = log.check_here().await;
    assert_eq!((report.findings.len(), report.signed, report.checkpoints), (0, 0, 0));
    // The broker goes on by itself, and a process that is started does.
    let late = log.grow().await;
    assert_eq!(signers(&late, &[&first, &second]), [false, true]);
    let keys = log.keys().await;
    let mut another = Signer::new(log.store.clone(), keys, ORIGIN, log.clock.clone());
    append(log.store.as_ref(), &[record("c")]).await.unwrap();
    another.sign().await.unwrap();

    let report = log.check_here().await;
    assert_eq!((report.findings, report.signed), (Vec::new(), report.records));
    let told: Vec<_> = report.keys.iter().map(|signed| signed.revoked).collect();
    assert_eq!((told, report.checkpoints), (vec![true, false], 2));
    let keys = log.keys().await;
    assert_eq!(keys.revoked(ORIGIN), std::slice::from_ref(&first));
    let error = Checkpoint::open(&early, &keys.verifiers(ORIGIN)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Verification);

    // Who goes by the new key alone hears of the other one, too.
    let report = log.check(std::slice::from_ref(&second)).await;
    assert_eq!((report.findings, report.signed), (Vec::new(), report.records));
    let told: Vec<_> = report.keys.iter().map(|signed| signed.revoked).collect();
    assert_eq!((told, report.checkpoints), (vec![true, false], 2));

    // Who goes by the revoked key alone hears of it from the log, and of no other.
    let report = log.check(std::slice::from_ref(&first)).await;
    assert_eq!(report.signed, 0, "{:?}", report.findings);
    assert!(report.findings.iter().all(|found| found.kind == Kind::Checkpoint));
    let (checkpoint, by) = Checkpoint::open_signed(&early, std::slice::from_ref(&first)).unwrap();
    let both = [first.clone(), second.clone()];
    let proofs = Proofs {
        keys: &both,
        revoked: &[],
        seal: None,
        elsewhere: &[Elsewhere { checkpoint, by }],
        now: record("").at,
    };
    let report = verify(log.store.as_ref(), &proofs).await.unwrap();
    assert_eq!(report.signed, report.records);
    let [found] = &report.findings[..] else { panic!("{:?}", report.findings) };
    assert!(found.text.contains("the key was revoked that signed"), "{}", found.text);
}

#[tokio::test]
async fn a_signature_of_a_key_that_is_revoked_meanwhile_is_not_kept() {
    let mut log = Log::new().await;
    log.grow().await;
    let key = log.in_state(KeyState::Active).await.remove(0);
    let before = log.keys().await;
    log.revoke(&key).await;
    // One that has read the keys, and comes too late.
    let size = log.store.size().await.unwrap();
    let root = log.store.root_at(size).await.unwrap();
    let note = before.signed(&Checkpoint { origin: ORIGIN.into(), size, root }).unwrap();
    let kept = log.signer.keep(size, note, &before.signers().unwrap()).await.unwrap();
    assert!(!kept);
    assert_eq!(log.store.latest_note().await.unwrap().unwrap().size, 2);
    log.signer.sign().await.unwrap();
    assert_eq!(log.store.latest_note().await.unwrap().unwrap().size, size);
}

#[tokio::test]
async fn a_key_of_the_log_that_is_revoked_as_it_is_read_was_not_put_back() {
    let mut log = Log::new().await;
    log.grow().await;
    let key = log.in_state(KeyState::Active).await.remove(0);
    let (store, root_key) = (Failing::over(log.store.clone()), log.keeper.root_key.clone());
    let Log { keeper, .. } = log;
    store.after_keys(async move {
        let (rules, kid) = (keeper.rules, std::slice::from_ref(&key.kid));
        keeper.settle(|keys| rules.revocation(keys, kid, "it leaked")).await.unwrap();
    });
    let keys = CheckpointKeys::read(store.as_ref(), &root_key).await.unwrap();
    assert_eq!((keys.revoked(ORIGIN).len(), keys.signers().unwrap().len()), (1, 1));
    assert!(!keys.revoked(ORIGIN).contains(&keys.verifiers(ORIGIN)[0]));
}

#[tokio::test]
async fn a_key_of_the_log_that_was_revoked_is_never_good_again() {
    let mut log = Log::new().await;
    log.rotate().await;
    log.clock.0.fetch_add(Duration::DAY.whole_seconds() + 60, Ordering::Relaxed);
    log.keeper.settle(|_| Vec::new()).await.unwrap();
    let retired = log.in_state(KeyState::Retired).await.remove(0);
    log.revoke(&retired).await;
    log.grow().await;
    // The row from before, whose seal is good.
    let before = log.in_state(KeyState::Revoked).await.remove(0);
    let effects = vec![Effect::ChangeKey { before, after: retired }];
    log.store.commit(&[Unit { records: Vec::new(), effects }]).await.unwrap();
    append(log.store.as_ref(), &[record("a")]).await.unwrap();
    let error = log.signer.sign().await.unwrap_err().to_string();
    assert!(error.contains("older copy"), "{error}");
}
