use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::*;
use crate::broker::config::Keys as KeysConfig;
use crate::broker::store::sqlite;
use crate::host::clock::SystemClock;
use crate::host::env::Env;
use crate::host::files;

fn stored(kek: &Kek) -> (StoredKey, Secret<Vec<u8>>) {
    let (key, pkcs8) = SigningKey::generate().unwrap();
    let now = OffsetDateTime::UNIX_EPOCH;
    let stored = StoredKey {
        sealed: kek.seal(key.kid(), Purpose::AccessToken, &pkcs8).unwrap(),
        kid: key.kid,
        purpose: Purpose::AccessToken,
        algorithm: ALGORITHM_NAME.into(),
        state: KeyState::Active,
        kek_id: kek.id().into(),
        created_at: now,
        changed_at: now,
    };
    (stored, pkcs8)
}

#[test]
fn a_sealed_key_is_unsealed_and_differs_each_time() {
    let kek = Kek::random().unwrap();
    let (a, plain) = stored(&kek);
    assert!(kek.unseal(&a).unwrap().ct_eq(plain.expose()));
    let again = kek.seal(&a.kid, a.purpose, &plain).unwrap();
    assert_ne!(a.sealed, again);
    assert!(!a.sealed.windows(16).any(|w| plain.expose().windows(16).any(|p| p == w)));
}

#[test]
fn every_change_of_a_sealed_key_is_noticed() {
    let kek = Kek::random().unwrap();
    let (good, _) = stored(&kek);
    for at in 0..good.sealed.len() {
        let mut bad = good.clone();
        bad.sealed[at] ^= 1;
        let error = kek.unseal(&bad).unwrap_err().to_string();
        assert!(error.contains("was changed"), "{at}: {error}");
    }
    for cut in 0..good.sealed.len() {
        let bad = StoredKey { sealed: good.sealed[..cut].to_vec(), ..good.clone() };
        assert!(kek.unseal(&bad).is_err(), "{cut}");
    }
    // Another key's id.
    let bad = StoredKey { kid: stored(&kek).0.kid, ..good };
    assert!(kek.unseal(&bad).unwrap_err().to_string().contains("was changed"));
}

#[tokio::test]
async fn the_first_key_is_made_once_and_found_again() {
    let (store, kek) = (sqlite::in_memory().await.unwrap(), Kek::random().unwrap());
    let first = KeyRing::open(&store, &kek, &SystemClock).await.unwrap();
    let again = KeyRing::open(&store, &kek, &SystemClock).await.unwrap();
    assert_eq!(first.active().kid(), again.active().kid());
    assert_eq!(first.jwks(), again.jwks());
    assert_eq!(store.keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn a_wrong_kek_is_refused_and_adds_nothing() {
    let (store, kek) = (sqlite::in_memory().await.unwrap(), Kek::random().unwrap());
    KeyRing::open(&store, &kek, &SystemClock).await.unwrap();
    let other = Kek::random().unwrap();
    let error = KeyRing::open(&store, &other, &SystemClock).await.err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains(kek.id()) && error.to_string().contains(other.id()));
    assert_eq!(store.keys().await.unwrap().len(), 1);
}

#[tokio::test]
async fn public_keys_show_what_signs_or_signed_and_no_private_part() {
    let (store, kek) = (sqlite::in_memory().await.unwrap(), Kek::random().unwrap());
    let mut shown = Vec::new();
    for state in KeyState::ALL {
        let key = StoredKey { state, ..stored(&kek).0 };
        store.add_key(&key).await.unwrap();
        if state.is_public() {
            shown.push(key.kid);
        }
    }
    let ring = KeyRing::open(&store, &kek, &SystemClock).await.unwrap();
    let jwks: serde_json::Value = serde_json::from_slice(ring.jwks()).unwrap();
    let mut kids: Vec<_> =
        jwks["keys"].as_array().unwrap().iter().map(|k| k["kid"].as_str().unwrap()).collect();
    kids.sort_unstable();
    shown.sort_unstable();
    assert_eq!(kids, shown);
    assert_eq!(shown.len(), 3);
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
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("kek");
    let text = format!("{}\n", STANDARD.encode([0xfb; KEK_LEN]));
    files::write_private(&path, text.as_bytes()).unwrap();
    let none = Env::default();
    let from_file = KeysConfig { kek_file: Some(path.clone()), kek_env: None };
    let id = Kek::load(&from_file, &none).unwrap().id().to_string();
    let env = Env::from_pairs([("TMPCRED_BROKER_KEK", &text), ("OTHER", &text)]);
    let named = KeysConfig { kek_file: None, kek_env: Some("OTHER".into()) };
    assert_eq!(Kek::load(&KeysConfig::default(), &env).unwrap().id(), id);
    assert_eq!(Kek::load(&named, &env).unwrap().id(), id);

    let error = Kek::load(&KeysConfig::default(), &none).unwrap_err();
    assert!(error.to_string().contains("TMPCRED_BROKER_KEK is not set"), "{error}");
    assert!(error.hints()[0].contains("openssl rand"));
    for bad in ["", "short", &STANDARD.encode([1; 31]), &STANDARD.encode([1; 33])] {
        let env = Env::from_pairs([("OTHER", format!("{bad} "))]);
        let error = Kek::load(&named, &env).unwrap_err().to_string();
        assert!(error.contains("32 bytes"), "{error}");
        assert!(bad.is_empty() || !error.contains(bad), "{error}");
    }
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o640)).unwrap();
        let error = Kek::load(&from_file, &none).unwrap_err().to_string();
        assert!(error.contains("is not private"), "{error}");
    }
    assert!(!format!("{:?}", Kek::new(Secret::new([0x41; KEK_LEN]))).contains("65"));
}
