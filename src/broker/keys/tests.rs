#![expect(clippy::disallowed_methods, reason = "a test of who may read the file")]

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use data_encoding::HEXLOWER;

use std::sync::Arc;

use super::manage::Which;
use super::*;
use crate::broker::audit::tree::Frontier;
use crate::broker::config::Keys as KeysConfig;
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::Ground;
use crate::broker::store::{Effect, KeyStore, Ledger, Outcome, Unit, sqlite};
use crate::host::clock::{Clock, SystemClock};
use crate::host::env::Env;
use crate::host::files;
use crate::host::process::printed::Limit;
use crate::oidc::Issuer;

fn stored(root_key: &RootKey) -> (StoredKey, Secret<Vec<u8>>) {
    stored_as(root_key, Purpose::AccessToken, KeyState::Active)
}

fn stored_as(
    root_key: &RootKey,
    purpose: Purpose,
    state: KeyState,
) -> (StoredKey, Secret<Vec<u8>>) {
    let (key, pkcs8) = SigningKey::generate().unwrap();
    let now = SystemClock.now();
    let stored = StoredKey {
        sealed: Vec::new(),
        kid: key.kid,
        purpose,
        algorithm: "ES256".into(),
        state,
        sealed_by: String::new(),
        created_at: now,
        changed_at: now,
    };
    (root_key.seal(stored, &pkcs8).unwrap(), pkcs8)
}

async fn perform(store: &dyn Ledger, effect: Effect) -> bool {
    let unit = Unit { records: Vec::new(), effects: vec![effect] };
    store.commit(&[unit]).await.unwrap().into_iter().all(Outcome::is_committed)
}

async fn store() -> Arc<SqlStore> {
    Arc::new(sqlite::in_memory().await.unwrap())
}

/// The root key of most tests.
fn usual() -> RootKey {
    RootKey::new(Secret::new([7; KEY_LEN]))
}

/// By HMAC-SHA-256 of another implementation: the key follows from the KEK, and the seal
/// covers the size and the roots. A database that one version sealed is good for the next.
#[test]
fn the_seal_of_the_log_is_the_same_in_every_version_of_the_program() {
    let mut tree = Frontier::default();
    tree.push([1; 32]);
    let seal = usual().seal_of_log().over(&tree);
    let seal = HEXLOWER.encode(&seal);
    assert_eq!(seal, "d9148db4776615237b7416f5554520921a9c647c1b9fab73a3512f129bc5e868");
}

/// What a broker does with the keys of this store.
async fn open(store: &Arc<SqlStore>, root_key: RootKey) -> Result<Arc<Snapshot>> {
    KeyRing::open(keeper(store, root_key, Arc::new(SystemClock))).await?.current().await
}

fn keeper(store: &Arc<SqlStore>, root_key: RootKey, clock: Arc<dyn Clock>) -> Keeper {
    Keeper {
        store: store.clone(),
        root_key,
        clock,
        rules: Rules::from(&KeysConfig::default()),
        issuer: Issuer::parse("https://broker.example.com").unwrap(),
        name: "broker",
        seen: Arc::default(),
    }
}

async fn add(store: &dyn Ledger, key: StoredKey) {
    assert!(perform(store, Effect::AddKey(key)).await);
}

/// Writes a key as somebody would who has the database and not the KEK.
async fn tamper(store: &dyn Ledger, before: &StoredKey, after: StoredKey) {
    let change = Effect::ChangeKey { before: before.clone(), after };
    assert!(perform(store, change).await);
}

#[test]
fn a_sealed_key_is_unsealed_and_differs_each_time() {
    let root_key = RootKey::random().unwrap();
    let (a, plain) = stored(&root_key);
    let unsealed = root_key.unseal(&a).unwrap();
    assert!(unsealed.ct_eq(plain.expose()));
    let again = root_key.seal(a.clone(), &plain).unwrap();
    assert_ne!(a.sealed, again.sealed);
    assert!(!a.sealed.windows(16).any(|w| plain.expose().windows(16).any(|p| p == w)));
}

#[test]
fn every_change_of_a_sealed_key_is_noticed() {
    let root_key = RootKey::random().unwrap();
    let (good, _) = stored(&root_key);
    for at in 0..good.sealed.len() {
        let mut bad = good.clone();
        bad.sealed[at] ^= 1;
        let error = root_key.unseal(&bad).unwrap_err().to_string();
        assert!(error.contains("was changed"), "{at}: {error}");
    }
    for cut in 0..good.sealed.len() {
        let bad = StoredKey { sealed: good.sealed[..cut].to_vec(), ..good.clone() };
        assert!(root_key.unseal(&bad).is_err(), "{cut}");
    }
    // What is said of it.
    let later = good.created_at + time::Duration::SECOND;
    for bad in [
        StoredKey { kid: stored(&root_key).0.kid, ..good.clone() },
        StoredKey { purpose: Purpose::Another, ..good.clone() },
        StoredKey { algorithm: "ES384".into(), ..good.clone() },
        StoredKey { state: KeyState::Retired, ..good.clone() },
        StoredKey { created_at: later, ..good.clone() },
        StoredKey { changed_at: later, ..good.clone() },
    ] {
        let error = root_key.unseal(&bad).unwrap_err().to_string();
        assert!(error.contains("was changed"), "{bad:?}: {error}");
    }
}

#[tokio::test]
async fn a_revoked_key_cannot_be_made_to_sign_by_who_writes_the_database() {
    let (store, root_key) = (store().await, usual());
    let (revoked, _) = stored_as(&root_key, Purpose::AccessToken, KeyState::Revoked);
    add(store.as_ref(), revoked.clone()).await;
    tamper(store.as_ref(), &revoked, StoredKey { state: KeyState::Active, ..revoked.clone() })
        .await;
    let error = open(&store, usual()).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("was changed"), "{error}");
}

#[tokio::test]
async fn a_revocation_that_was_made_up_is_noticed_too() {
    let store = store().await;
    open(&store, usual()).await.unwrap();
    let active = store.keys().await.unwrap().remove(0);
    tamper(store.as_ref(), &active, StoredKey { state: KeyState::Revoked, ..active.clone() }).await;
    assert!(open(&store, usual()).await.is_err());
}

#[tokio::test]
async fn keys_for_something_else_neither_sign_tokens_nor_show_among_their_keys() {
    let (store, root_key) = (store().await, usual());
    let (other, _) = stored_as(&root_key, Purpose::Another, KeyState::Active);
    add(store.as_ref(), other.clone()).await;
    let ring = open(&store, usual()).await.unwrap();
    assert_ne!(ring.active().kid(), other.kid);
    assert!(!String::from_utf8_lossy(ring.jwks()).contains(&other.kid));
    // Also where it is the later one.
    let (later, _) = stored_as(&root_key, Purpose::Another, KeyState::Published);
    let far = StoredKey { created_at: SystemClock.now() + time::Duration::days(99999), ..later };
    add(store.as_ref(), root_key.seal(far, &stored(&root_key).1).unwrap()).await;
    let again = open(&store, usual()).await.unwrap();
    assert_eq!(again.jwks(), ring.jwks());
}

#[tokio::test]
async fn the_first_key_is_made_once_and_found_again() {
    let store = store().await;
    let first = open(&store, usual()).await.unwrap();
    let again = open(&store, usual()).await.unwrap();
    assert_eq!(first.active().kid(), again.active().kid());
    assert_eq!(first.jwks(), again.jwks());
    assert_eq!(store.keys().await.unwrap().len(), 2);
}

#[tokio::test]
async fn of_processes_at_once_one_makes_the_key_of_each_algorithm() {
    use SigningAlgorithm::{EdDsa, Es256, Rs256};
    for ground in Ground::each().await {
        let stores = ground.open_often(3).await;
        let all = Algorithms::new(Es256, [EdDsa, Rs256]);
        // Keys are made while the others look.
        let settle = async |rotate: bool| {
            let mut tasks = tokio::task::JoinSet::new();
            for store in &stores {
                let mut keeper = keeper(store, usual(), Arc::new(SystemClock));
                keeper.rules.algorithms = all;
                tasks.spawn(async move {
                    let rules = keeper.rules;
                    let wanted = |keys: &[StoredKey]| match rotate {
                        true => rules.rotation(keys, &TOKENS),
                        false => Vec::new(),
                    };
                    keeper.settle(wanted).await.map(drop)
                });
            }
            tasks.join_all().await.into_iter().for_each(|settled| settled.unwrap());
        };
        let in_state = async |state| {
            let keys = stores[0].keys().await.unwrap();
            let these = keys.iter().filter(|key| key.state == state);
            let mut names: Vec<_> = these.map(|key| key.algorithm.clone()).collect();
            names.sort();
            names
        };
        let (each, none) = (["ES256", "EdDSA", "RS256"], Vec::<String>::new());
        settle(false).await;
        assert_eq!(
            (in_state(KeyState::Active).await, in_state(KeyState::Published).await),
            (each.map(String::from).to_vec(), none)
        );
        settle(true).await;
        assert_eq!(in_state(KeyState::Active).await, each);
        assert_eq!(in_state(KeyState::Published).await, each);
    }
}

/// What one process signs by is revoked at another while it looks.
#[tokio::test]
async fn a_revoked_key_of_one_algorithm_leaves_those_of_others_alone() {
    use SigningAlgorithm::{EdDsa, Es256};
    let store = store().await;
    let keeper = || {
        let mut keeper = keeper(&store, usual(), Arc::new(SystemClock));
        keeper.rules.algorithms = Algorithms::new(Es256, [EdDsa]);
        keeper
    };
    let ring = KeyRing::open(keeper()).await.unwrap();
    let before = ring.current().await.unwrap();
    let kid = |keys: &Snapshot, algorithm| keys.signing(Some(algorithm)).unwrap().kid().to_string();
    let revoked = kid(&before, EdDsa);
    let other = keeper();
    let keys = other.stored().await.unwrap();
    let rules = other.rules;
    let gone = |keys: &[StoredKey]| {
        let is = keys.iter().any(|key| key.kid == revoked && key.state == KeyState::Revoked);
        if is {
            Vec::new()
        } else {
            rules.revocation(keys, std::slice::from_ref(&revoked), "a test")
        }
    };
    other.settle(gone).await.unwrap();
    // What was read before is as it was then, and no sign that somebody put a key back.
    other.unseal_all(&keys).await.unwrap();
    let after = open_with(keeper()).await;
    assert!(!after.shows(&revoked));
    assert_ne!(kid(&after, EdDsa), revoked);
    assert_eq!(kid(&after, Es256), kid(&before, Es256));
}

/// So somebody adds an algorithm: the key is known before anybody signs by it.
#[tokio::test]
async fn brokers_that_run_publish_the_key_of_an_algorithm_that_is_to_come() {
    use SigningAlgorithm::{EdDsa, Es256};
    let store = store().await;
    let keeper = |others: &[SigningAlgorithm]| {
        let mut keeper = keeper(&store, usual(), Arc::new(SystemClock));
        keeper.rules.algorithms = Algorithms::new(Es256, others.to_vec());
        keeper
    };
    let before = open_with(keeper(&[])).await;
    let (operator, rules) = (keeper(&[EdDsa]), keeper(&[EdDsa]).rules);
    operator.settle(|keys| rules.rotation(keys, &TOKENS)).await.unwrap();
    let now = open_with(keeper(&[])).await;
    let to_come = open_with(keeper(&[EdDsa])).await;
    let kid = to_come.signing(Some(EdDsa)).unwrap().kid();
    assert!(now.shows(kid) && !before.shows(kid));
    assert_eq!(now.signing(None).unwrap().kid(), before.signing(None).unwrap().kid());
}

#[tokio::test]
async fn a_reason_that_no_record_can_have_changes_no_key() {
    let store = store().await;
    let keeper = || keeper(&store, usual(), Arc::new(SystemClock));
    let before = open_with(keeper()).await;
    let kid = [before.signing(None).unwrap().kid().to_string()];
    let other = keeper();
    let (rules, long) = (other.rules, "x".repeat(70_000));
    let refused = other.settle(|keys| rules.revocation(keys, &kid, &long)).await.unwrap_err();
    assert!(refused.to_string().contains("64 KiB"), "{refused}");
    assert!(open_with(keeper()).await.shows(&kid[0]));
}

#[tokio::test]
async fn the_first_key_of_an_algorithm_is_no_rotation_that_is_done() {
    let (store, clock) = (store().await, Arc::new(SystemClock));
    open_with(keeper(&store, usual(), clock.clone())).await;
    let mut keeper = keeper(&store, usual(), clock);
    keeper.rules.algorithms = Algorithms::new(SigningAlgorithm::Es256, [SigningAlgorithm::EdDsa]);
    let which = Which { algorithms: vec![SigningAlgorithm::EdDsa], ..Which::default() };
    let first = keeper.rotate(&which, None).await.unwrap();
    let [made] = &first.made[..] else { panic!("{first:?}") };
    let key = first.keys.iter().find(|key| key.kid == *made).unwrap();
    assert_eq!((key.algorithm.as_str(), key.state), ("EdDSA", KeyState::Active));
    assert!(first.begun.is_empty() && first.under_way.is_empty(), "{first:?}");
    let next = keeper.rotate(&which, None).await.unwrap();
    assert!(next.made.is_empty() && next.begun.len() == 1, "{next:?}");
}

async fn open_with(keeper: Keeper) -> Arc<Snapshot> {
    KeyRing::open(keeper).await.unwrap().current().await.unwrap()
}

#[tokio::test]
async fn a_wrong_kek_is_refused_and_adds_nothing() {
    let (store, root_key) = (store().await, usual());
    open(&store, usual()).await.unwrap();
    let other = RootKey::random().unwrap();
    let name = other.id().to_string();
    let error = open(&store, other).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(root_key.id()) && error.to_string().contains(&name));
    assert_eq!(store.keys().await.unwrap().len(), 2);
}

#[tokio::test]
async fn public_keys_show_what_signs_or_signed_and_no_private_part() {
    let (store, root_key) = (store().await, usual());
    let mut shown = Vec::new();
    for state in KeyState::ALL {
        let (key, _) = stored_as(&root_key, Purpose::AccessToken, state);
        add(store.as_ref(), key.clone()).await;
        if state.is_public() {
            shown.push(key.kid);
        }
    }
    let ring = open(&store, usual()).await.unwrap();
    let jwks: serde_json::Value = serde_json::from_slice(ring.jwks()).unwrap();
    let mut kids: Vec<_> =
        jwks["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap()).collect();
    kids.sort_unstable();
    shown.sort_unstable();
    assert_eq!(kids, shown);
    assert_eq!(shown.len(), 4);
    for key in jwks["keys"].as_array().unwrap() {
        let names: Vec<_> = key.as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!(names.len(), 7, "{names:?}");
        assert!(!names.contains(&"d"));
        assert_eq!(
            (&key["alg"], &key["use"], &key["crv"]),
            (&"ES256".into(), &"sig".into(), &"P-256".into())
        );
    }
}

#[test]
fn the_kek_comes_from_a_private_file_or_the_environment() {
    let runtime = crate::host::process::runtime().unwrap();
    let load = |config: &KeysConfig, env: &Env| runtime.block_on(Kek::load(config, env));
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kek");
    let text = format!("{}\n", STANDARD.encode([0xfb; KEY_LEN]));
    files::write_private(&path, text.as_bytes()).unwrap();
    let none = Env::default();
    let from_file = KeysConfig { kek_file: Some(path.clone()), ..KeysConfig::default() };
    let id = load(&from_file, &none).unwrap().id().to_string();
    let env = Env::from_pairs([("TMPCRED_BROKER_KEK", &text), ("OTHER", &text)]);
    let named = KeysConfig { kek_env: Some("OTHER".into()), ..KeysConfig::default() };
    assert_eq!(load(&KeysConfig::default(), &env).unwrap().id(), id);
    assert_eq!(load(&named, &env).unwrap().id(), id);

    let error = load(&KeysConfig::default(), &none).unwrap_err();
    assert!(error.to_string().contains("TMPCRED_BROKER_KEK is not set"), "{error}");
    assert!(error.hints()[0].contains("openssl rand"));
    for bad in ["", "short", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33])] {
        let env = Env::from_pairs([("OTHER", format!("{bad} "))]);
        let error = load(&named, &env).unwrap_err().to_string();
        assert!(error.contains("32 bytes"), "{error}");
        assert!(bad.is_empty() || !error.contains(bad), "{error}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = load(&from_file, &none).unwrap_err().to_string();
        assert!(error.contains("is not private"), "{error}");
        // As systemd leaves a credential to a service that has a user of its own.
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o440)).unwrap();
        let below = |directory: &std::path::Path| {
            let directory = directory.to_str().unwrap().to_string();
            load(&from_file, &Env::from_pairs([("CREDENTIALS_DIRECTORY", directory)]))
        };
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o550)).unwrap();
        assert_eq!(below(dir.path()).unwrap().id(), id);
        assert!(load(&from_file, &none).is_err() && below(dir.path().parent().unwrap()).is_err());
    }
    assert!(!format!("{:?}", Kek::new(Secret::new([0x41; KEY_LEN]))).contains("65"));
}

#[cfg(unix)]
#[tokio::test]
async fn a_command_prints_the_kek_and_what_it_prints_is_never_shown() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let program = dir.path().join("kek");
    let (good, short) = (STANDARD.encode([0xfb; KEY_LEN]), STANDARD.encode([0xfb; 31]));
    let env = Env::from_pairs([
        ("PATH", std::env::var("PATH").unwrap()),
        ("HOME", dir.path().to_str().unwrap().into()),
        ("REGION", "eu".into()),
        ("OTHER", "other".into()),
        ("TMPCRED_BROKER_KEK", STANDARD.encode([1; KEY_LEN])),
    ]);
    let load = async |script: &str, seconds| {
        files::write_private(&program, format!("#!/bin/sh\n{script}\n").as_bytes()).unwrap();
        std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o755)).unwrap();
        let words = [program.to_str().unwrap().to_string(), "an argument".into()];
        let limit = Limit(std::time::Duration::from_secs(seconds));
        Kek::printed_by(&words, &["REGION".into()], limit, &env).await
    };
    let kek = load(&format!("env > $HOME/seen; echo \"$1\" >> $HOME/seen; echo {good}"), 60).await;
    assert_eq!(kek.unwrap().id(), Kek::new(Secret::new([0xfb; KEY_LEN])).id());
    let seen = std::fs::read_to_string(dir.path().join("seen")).unwrap();
    assert!(seen.contains("REGION=eu") && seen.contains("an argument"), "{seen}");
    assert!(!seen.contains("OTHER") && !seen.contains("TMPCRED_BROKER_KEK"), "{seen}");

    for (script, seconds, says) in [
        (format!("echo {good}; echo access denied >&2; exit 3"), 60, "access denied"),
        (format!("echo {good}; exec sleep 600"), 1, "did not end within 1s, and was killed"),
        (format!("while :; do echo {good}; done"), 60, "more than 1024 bytes"),
        (format!("echo {short}"), 60, "something else than 32 bytes"),
        (format!("echo {good}; echo {good}"), 60, "something else than 32 bytes"),
        ("printf '\\377\\376'".into(), 60, "something else than 32 bytes"),
        (String::new(), 60, "something else than 32 bytes"),
    ] {
        let error = load(&script, seconds).await.unwrap_err().to_string();
        assert!(error.contains(says), "{script}: {error}");
        assert!(!error.contains(&good) && !error.contains(&short), "{error}");
    }

    // Whoever can write to the program says what the key is.
    std::fs::set_permissions(&program, std::fs::Permissions::from_mode(0o757)).unwrap();
    let words = [program.to_str().unwrap().to_string()];
    let error = Kek::printed_by(&words, &[], Limit::default(), &env).await.unwrap_err();
    assert!(error.to_string().contains("others on this machine can write to it"), "{error}");
    std::fs::remove_file(&program).unwrap();
    let error = Kek::printed_by(&words, &[], Limit::default(), &env).await.unwrap_err();
    assert!(error.to_string().contains("cannot be started"), "{error}");
}

/// One thumbprint of 64 begins with a hyphen: 500 keys without one are no chance.
#[test]
fn no_id_of_a_key_looks_like_an_option() {
    let kids = || {
        let (key, _) = SigningKey::generate_for(SigningAlgorithm::EdDsa).unwrap();
        [key.kid, checkpoint::generate().unwrap().0]
    };
    for kid in (0..500).flat_map(|_| kids()) {
        assert!(!kid.starts_with('-'), "{kid}");
    }
}
