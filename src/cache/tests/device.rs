//! The key that tokens are bound to, and the key that signs for somebody.

use super::world::World;
use super::*;

fn thumbprint(cache: &Cache) -> String {
    cache.device_key().unwrap().thumbprint().to_string()
}

#[test]
fn it_is_made_once_however_many_ask_and_stays() {
    let world = World::new();
    assert_eq!(world.cache().device_label(), None, "nothing is made by looking");
    let caches: Vec<Cache> = (0..16).map(|_| world.cache()).collect();
    let found: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            caches.iter().map(|cache| scope.spawn(move || thumbprint(cache))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
    let items: Vec<_> = world.keyring.items.lock().unwrap().keys().cloned().collect();
    assert_eq!(items, ["device-key"]);
    world.pass(Duration::days(3650));
    assert_eq!(thumbprint(&world.cache()), found[0]);
    assert_eq!(world.cache().device_label().unwrap().thumbprint, found[0]);
    let index = files::read(&world.cache().host.dirs.state.join("index.json"), 1 << 20);
    let (index, kept) = (index.unwrap().unwrap(), world.keyring.items.lock().unwrap());
    let kept = &kept["device-key"];
    assert!(!index.windows(16).any(|part| kept.windows(16).any(|own| own == part)));
}

#[test]
fn one_that_is_damaged_is_made_anew_and_a_lost_index_is_written_again() {
    let world = World::new();
    let first = thumbprint(&world.cache());
    for value in world.keyring.items.lock().unwrap().values_mut() {
        value.truncate(20);
    }
    let second = thumbprint(&world.cache());
    assert_ne!(first, second);
    assert_eq!(world.cache().device_label().unwrap().thumbprint, second);
    let host = world.cache().host.clone();
    files::remove(&host.dirs.state.join("index.json")).unwrap();
    assert_eq!(world.cache().device_label(), None);
    assert_eq!(thumbprint(&world.cache()), second);
    assert_eq!(world.cache().device_label().unwrap().thumbprint, second);
}

#[test]
fn a_keyring_that_is_locked_is_no_reason_for_another_key() {
    let world = World::new();
    let first = thumbprint(&world.cache());
    world.keyring.locked.store(true, Ordering::SeqCst);
    let error = world.cache().device_key().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyringLocked);
    world.keyring.locked.store(false, Ordering::SeqCst);
    assert_eq!(thumbprint(&world.cache()), first);
}

#[test]
fn a_credential_is_another_one_under_another_key() {
    let key = key_of("deploy", "ann");
    let [one, other] = ["a", "b"].map(|thumbprint| key.bound_to(thumbprint));
    assert!(one != other && one != key && other != key);
    assert_eq!(one, key.bound_to("a"));
}

#[test]
fn the_key_that_signs_is_made_once_stays_and_is_another_one() {
    let world = World::new();
    assert!(world.cache().kept_signing_key().unwrap().is_none(), "nothing is made by looking");
    let fingerprint = |cache: &Cache| cache.signing_key().unwrap().public().fingerprint();
    let caches: Vec<Cache> = (0..16).map(|_| world.cache()).collect();
    let found: Vec<String> = std::thread::scope(|scope| {
        let asking: Vec<_> =
            caches.iter().map(|cache| scope.spawn(move || fingerprint(cache))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    assert!(found.iter().all(|one| *one == found[0]), "{found:?}");
    world.pass(Duration::days(3650));
    let kept = world.cache().kept_signing_key().unwrap().unwrap();
    assert_eq!(kept.public().fingerprint(), found[0]);
    assert_ne!(thumbprint(&world.cache()), found[0]);
    let signature = kept.sign(b"x").unwrap();
    signature.verify(b"x", crate::sshsig::Demands::default()).unwrap();
    assert!(signature.verify(b"y", crate::sshsig::Demands::default()).is_err());
    world.keyring.locked.store(true, Ordering::SeqCst);
    let error = world.cache().signing_key().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::KeyringLocked, "which is no reason for another key");
}
