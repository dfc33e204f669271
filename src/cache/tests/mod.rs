//! The cache as a whole, over memory and over stores that misbehave.

mod device;
mod keyed;
mod world;

use std::sync::atomic::Ordering;

use time::Duration;

use self::world::*;
use super::*;
use crate::error::ErrorKind;
use crate::host::files;

#[test]
fn a_credential_is_found_by_the_next_run_until_it_expires() {
    let world = World::new();
    keep(&world.cache(), "deploy", "ann", 10);
    assert_eq!(token(&world.cache(), "deploy", "ann"), Some(10));
    assert_eq!(token(&world.cache(), "deploy", "bob"), None);
    assert_eq!(token(&world.cache(), "admin", "ann"), None);
    world.pass(Duration::minutes(59));
    assert_eq!(token(&world.cache(), "deploy", "ann"), Some(10));
    assert_eq!(roles(&world.cache()), ["deploy"]);
    world.pass(Duration::minutes(1));
    assert_eq!(roles(&world.cache()), [""; 0]);
    assert_eq!(token(&world.cache(), "deploy", "ann"), None);
    assert!(world.keyring.items.lock().unwrap().is_empty(), "it is deleted as well");
    assert!(world.warnings().is_empty());
}

#[test]
fn skew_that_was_measured_counts() {
    let world = World::new();
    let cache = world.cache();
    let key = key_of("deploy", "ann");
    let mut credential = credential("deploy", "ann", 1);
    // The issuer's clock is 50 minutes ahead.
    credential.lifetime.skew_seconds = 50 * 60;
    credential.lifetime.issued_at = START + Duration::minutes(50);
    credential.lifetime.expires_at = START + Duration::minutes(110);
    let lead = lead_credential(&cache, &key);
    cache.keep_credential(&key, &credential, "prod", &lead).unwrap();
    world.pass(Duration::minutes(59));
    assert!(cache.credential(&key).unwrap().is_some());
    world.pass(Duration::minutes(1));
    assert!(cache.credential(&key).unwrap().is_none());
}

#[test]
fn a_clock_that_is_set_back_lengthens_nothing() {
    let world = World::new();
    keep(&world.cache(), "deploy", "ann", 1);
    world.pass(Duration::minutes(30));
    world.set_back(Duration::minutes(45));
    let left = || world.cache().contents().unwrap().credentials[0].lifetime.expires_at_local();
    assert_eq!(left(), START + Duration::minutes(15));
    world.pass(Duration::minutes(29));
    assert!(token(&world.cache(), "deploy", "ann").is_some());
    world.pass(Duration::minutes(1));
    assert_eq!(token(&world.cache(), "deploy", "ann"), None);
}

#[test]
fn an_expired_credential_is_not_kept_at_all() {
    let world = World::new();
    world.pass(Duration::hours(1));
    keep(&world.cache(), "deploy", "ann", 1);
    assert!(world.keyring.items.lock().unwrap().is_empty());
}

#[test]
fn keeping_one_tidies_up_what_has_expired() {
    let world = World::new();
    keep(&world.cache(), "deploy", "ann", 1);
    world.pass(Duration::minutes(30));
    let cache = world.cache();
    let key = key_of("admin", "ann");
    let mut later = credential("admin", "ann", 1);
    later.lifetime.expires_at += Duration::hours(1);
    world.pass(Duration::minutes(30));
    let lead = lead_credential(&cache, &key);
    cache.keep_credential(&key, &later, "prod", &lead).unwrap();
    let items: Vec<_> = world.keyring.items.lock().unwrap().keys().cloned().collect();
    assert_eq!(items, [key.item().as_str()]);
}

#[test]
fn an_expired_credential_that_somebody_replaces_is_left_to_them() {
    let world = World::new();
    let cache = world.cache();
    keep(&cache, "deploy", "ann", 1);
    world.pass(Duration::hours(1));
    let _lead = lead_credential(&cache, &key_of("deploy", "ann"));
    assert_eq!(token(&world.cache(), "deploy", "ann"), None);
    assert_eq!(world.keyring.items.lock().unwrap().len(), 1);
}

#[test]
fn a_broken_entry_counts_as_absent() {
    let world = World::new();
    keep(&world.cache(), "deploy", "ann", 1);
    for bad in [&b""[..], b"{", b"\xff\xff", b"{\"v\":1}"] {
        for value in world.keyring.items.lock().unwrap().values_mut() {
            *value = bad.to_vec();
        }
        assert_eq!(token(&world.cache(), "deploy", "ann"), None);
    }
}

#[test]
fn sessions_are_kept_replaced_and_forgotten() {
    let world = World::new();
    let key = SessionKey::new(&["corp"]);
    try_keep_session(&world.cache(), "ann").unwrap();
    try_keep_session(&world.cache(), "bob").unwrap();
    let cache = world.cache();
    assert_eq!(cache.session_label(&key).unwrap(), Some(label("bob")));
    assert_eq!(cache.contents().unwrap().sessions, [label("bob")]);
    assert!(cache.session(&key).unwrap().unwrap().ct_eq(format!("{CANARY} of bob")));
    cache.forget_session(&key, &lead_session(&cache, &key)).unwrap();
    let cache = world.cache();
    assert_eq!(cache.session_label(&key).unwrap(), None);
    assert!(cache.session(&key).unwrap().is_none());
    assert_eq!(cache.contents().unwrap(), Contents::default());
}

#[test]
fn logging_out_forgets_the_credentials_of_that_principal_only() {
    let world = World::with(Keyring::with_limit(1000));
    for (role, subject) in [("a", "ann"), ("b", "ann"), ("a", "bob")] {
        keep(&world.cache(), role, subject, 1);
    }
    keep(&world.cache(), "large", "ann", 5000);
    world.cache().forget_credentials(&principal("ann")).unwrap();
    let cache = world.cache();
    assert_eq!(token(&cache, "a", "ann"), None);
    assert_eq!(token(&cache, "b", "ann"), None);
    assert_eq!(token(&cache, "large", "ann"), None);
    assert_eq!(token(&cache, "a", "bob"), Some(1));
    assert_eq!(roles(&cache), ["a"]);
    assert!(world.sealed_files().is_empty());
}

#[test]
fn logging_out_finds_what_the_index_does_not_know() {
    let world = World::new();
    for subject in ["ann", "bob"] {
        keep(&world.cache(), "a", subject, 1);
    }
    files::remove(&world.state().join("index.json")).unwrap();
    world.cache().forget_credentials(&principal("ann")).unwrap();
    assert_eq!(token(&world.cache(), "a", "ann"), None);
    assert_eq!(token(&world.cache(), "a", "bob"), Some(1));
}

#[test]
fn a_damaged_index_costs_nothing_but_labels() {
    let world = World::new();
    let key = SessionKey::new(&["corp"]);
    let index = world.state().join("index.json");
    for bad in
        [vec![], b"{}".to_vec(), b"{\"v\":1,".to_vec(), vec![0xff; 10], vec![b'['; 9_000_000]]
    {
        keep(&world.cache(), "a", "ann", 1);
        try_keep_session(&world.cache(), "ann").unwrap();
        files::write_private(&index, &bad).unwrap();
        let cache = world.cache();
        assert_eq!(cache.session_label(&key).unwrap(), None);
        assert_eq!(cache.contents().unwrap(), Contents::default());
        assert_eq!(token(&cache, "a", "ann"), Some(1));
        assert!(cache.session(&key).unwrap().is_some());
        // The next entry makes it whole again.
        keep(&cache, "b", "ann", 1);
        assert_eq!(roles(&world.cache()), ["b"]);
    }
    assert!(world.warnings().is_empty());
}

#[test]
fn a_session_that_the_store_lost_is_not_shown_for_long() {
    let world = World::new();
    let key = SessionKey::new(&["corp"]);
    try_keep_session(&world.cache(), "ann").unwrap();
    world.keyring.items.lock().unwrap().clear();
    assert!(world.cache().session_label(&key).unwrap().is_some());
    assert!(world.cache().session(&key).unwrap().is_none());
    assert_eq!(world.cache().session_label(&key).unwrap(), None);
}

#[test]
fn a_locked_keyring_is_an_error_and_loses_nothing() {
    let world = World::with(Keyring::with_limit(1000));
    let key = SessionKey::new(&["corp"]);
    keep(&world.cache(), "a", "ann", 5000);
    try_keep_session(&world.cache(), "ann").unwrap();
    world.keyring.locked.store(true, Ordering::SeqCst);
    let cache = world.cache_over(false);
    for error in [
        cache.credential(&key_of("a", "ann")).unwrap_err(),
        cache.session(&key).unwrap_err(),
        try_keep(&cache, "b", "ann", 1).unwrap_err(),
        try_keep_session(&cache, "bob").unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::KeyringLocked);
    }
    // What the index says needs no unlocking.
    assert_eq!(cache.session_label(&key).unwrap(), Some(label("ann")));
    assert_eq!(roles(&cache), ["a"]);
    assert!(cache.credential_label(&key_of("a", "ann")).unwrap().is_some());
    world.keyring.locked.store(false, Ordering::SeqCst);
    assert_eq!(token(&world.cache(), "a", "ann"), Some(5000));
}

#[test]
fn without_a_keyring_memory_serves_this_run_with_one_warning() {
    let world = World::new();
    world.keyring.missing.store(true, Ordering::SeqCst);
    let cache = world.cache_over(false);
    assert_eq!(token(&cache, "a", "ann"), None);
    keep(&cache, "a", "ann", 1);
    try_keep_session(&cache, "ann").unwrap();
    assert_eq!(token(&cache, "a", "ann"), Some(1));
    assert_eq!(roles(&cache), ["a"]);
    assert_eq!(cache.session_label(&SessionKey::new(&["corp"])).unwrap(), Some(label("ann")));
    assert_eq!(cache.store_name(), "memory of this run");
    let warnings = world.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].contains("there is no keyring"), "{warnings:?}");
    // Nothing outlives the run, and no other run is told that something did.
    assert!(!files::exists(world.state().join("index.json")));
    assert_eq!(world.cache_over(false).contents().unwrap(), Contents::default());
}

#[test]
fn a_store_that_was_there_is_not_given_up_for_another() {
    let world = World::new();
    let cache = world.cache_over(false);
    keep(&cache, "a", "ann", 1);
    world.keyring.missing.store(true, Ordering::SeqCst);
    assert!(cache.credential(&key_of("a", "ann")).is_err());
    assert_eq!(cache.store_name(), "kernel keyring");
}

#[test]
fn a_store_that_was_named_and_is_not_there_is_an_error() {
    let world = World::new();
    world.keyring.missing.store(true, Ordering::SeqCst);
    let error = world.cache().credential(&key_of("a", "ann")).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config);
    assert!(error.to_string().contains("there is no keyring"), "{error}");
    assert!(error.hints().iter().any(|hint| hint.contains("TMPCRED_CACHE_STORE")));
    #[cfg(target_os = "linux")]
    for (choice, name) in [
        (StoreChoice::Native, "keyring of this system"),
        // The environment of the test names no session bus.
        (StoreChoice::SecretService, "Secret Service"),
    ] {
        let cache = Cache::new(world.host(), choice);
        let error = cache.credential(&key_of("a", "ann")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert_eq!(cache.store_name(), name);
    }
    assert!(world.warnings().is_empty());
}

#[test]
fn what_a_store_cannot_take_is_sealed_into_a_private_file() {
    let world = World::with(Keyring::with_limit(1000));
    keep(&world.cache(), "a", "ann", 5000);
    assert_eq!(token(&world.cache(), "a", "ann"), Some(5000));
    let sealed = world.sealed_files();
    assert_eq!(sealed.len(), 1);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(sealed[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }
    // Only the key is in the keyring, once.
    keep(&world.cache(), "b", "ann", 5000);
    let items: Vec<_> = world.keyring.items.lock().unwrap().keys().cloned().collect();
    assert_eq!(items, ["sealing-key"]);
}

#[test]
fn a_sealed_file_goes_when_its_item_is_replaced_deleted_or_expired() {
    let world = World::with(Keyring::with_limit(1000));
    keep(&world.cache(), "a", "ann", 5000);
    keep(&world.cache(), "a", "ann", 1);
    assert_eq!(world.sealed_files().len(), 0);
    assert_eq!(token(&world.cache(), "a", "ann"), Some(1));
    // The other way round, the keyring's item goes.
    keep(&world.cache(), "a", "ann", 5000);
    assert_eq!(world.sealed_files().len(), 1);
    assert_eq!(token(&world.cache(), "a", "ann"), Some(5000));
    world.cache().forget_credentials(&principal("ann")).unwrap();
    assert_eq!(world.sealed_files().len(), 0);

    keep(&world.cache(), "a", "ann", 5000);
    files::remove(&world.state().join("index.json")).unwrap();
    let cache = world.cache();
    let key = key_of("b", "ann");
    let mut later = credential("b", "ann", 5000);
    later.lifetime.expires_at += Duration::hours(1);
    world.pass(Duration::hours(1));
    assert_eq!(token(&cache, "a", "ann"), None);
    cache.keep_credential(&key, &later, "prod", &lead_credential(&cache, &key)).unwrap();
    let left = world.sealed_files();
    assert_eq!(left.len(), 1);
    assert!(left[0].ends_with(key.item().as_str()));
}

#[test]
fn a_sealed_file_without_its_key_counts_as_absent() {
    let world = World::with(Keyring::with_limit(1000));
    keep(&world.cache(), "a", "ann", 5000);
    world.keyring.items.lock().unwrap().clear();
    assert_eq!(token(&world.cache(), "a", "ann"), None);
    assert!(world.sealed_files().is_empty());
    keep(&world.cache(), "a", "ann", 5000);
    assert_eq!(token(&world.cache(), "a", "ann"), Some(5000));
}

#[test]
fn a_keyring_without_room_for_the_sealing_key_says_so() {
    let world = World::with(Keyring::with_limit(10));
    let error = try_keep(&world.cache(), "a", "ann", 1).unwrap_err();
    assert_eq!(error.message(), "too large");
    assert!(world.sealed_files().is_empty());
}

#[test]
fn many_that_seal_at_once_agree_on_one_key() {
    let world = World::with(Keyring::with_limit(1000));
    let roles: Vec<String> = (0..20).map(|n| format!("role-{n:02}")).collect();
    std::thread::scope(|scope| {
        for role in &roles {
            let world = &world;
            scope.spawn(move || keep(&world.cache(), role, "ann", 5000));
        }
    });
    for role in &roles {
        assert_eq!(token(&world.cache(), role, "ann"), Some(5000), "{role}");
    }
    assert_eq!(self::roles(&world.cache()), roles, "nobody's entry was lost");
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of a directory that goes away")]
fn a_state_directory_that_cannot_be_used_costs_one_warning() {
    let world = World::new();
    keep(&world.cache(), "a", "ann", 1);
    // A file in its place: not even the administrator can write below it.
    std::fs::rename(world.state(), world.dir.path().join("elsewhere")).unwrap();
    files::write_private(&world.state(), b"").unwrap();
    let cache = world.cache();
    assert_eq!(token(&cache, "a", "ann"), Some(1));
    keep(&cache, "b", "ann", 1);
    keep(&cache, "c", "ann", 1);
    try_keep_session(&cache, "ann").unwrap();
    assert_eq!(token(&cache, "b", "ann"), Some(1));
    assert!(cache.session(&SessionKey::new(&["corp"])).unwrap().is_some());
    assert_eq!(world.warnings().len(), 1, "{:?}", world.warnings());
    cache.keep_document("d", b"{}", START + Duration::hours(1));
    assert_eq!(cache.document("d"), None);
    cache.forget_credentials(&principal("ann")).unwrap();
    assert_eq!(token(&cache, "b", "ann"), None);
    assert_eq!(world.warnings().len(), 2, "{:?}", world.warnings());
}

#[test]
fn documents_are_kept_until_they_end() {
    let world = World::new();
    world.cache().keep_document("https://i.example/keys", b"{}", START + Duration::hours(1));
    assert_eq!(world.cache().document("https://i.example/keys").unwrap(), b"{}");
    world.pass(Duration::hours(1));
    assert_eq!(world.cache().document("https://i.example/keys"), None);
}

#[test]
fn credentials_in_memory_make_nobody_wait() {
    let world = World::new();
    let first = Cache::new(world.host(), StoreChoice::Memory);
    let second = Cache::new(world.host(), StoreChoice::Memory);
    let key = key_of("a", "ann");
    let _lead = lead_credential(&first, &key);
    let lead = lead_credential(&second, &key);
    second.keep_credential(&key, &credential("a", "ann", 1), "prod", &lead).unwrap();
    assert_eq!(token(&second, "a", "ann"), Some(1));
    assert!(world.warnings().is_empty(), "memory was asked for");
}

#[test]
fn no_file_and_no_label_holds_a_secret() {
    let world = World::with(Keyring::with_limit(1000));
    let cache = world.cache();
    let key = key_of("a", "ann");
    let lead = lead_credential(&cache, &key);
    cache.keep_credential(&key, &credential("a", "ann", 1), "prod", &lead).unwrap();
    keep(&cache, "large", "ann", 5000);
    try_keep_session(&cache, "ann").unwrap();
    cache.keep_document("https://i.example/keys", b"{}", START + Duration::hours(1));
    let files = files_below(world.dir.path());
    // The index, a lock that is held, a document, a sealed file.
    assert_eq!(files.len(), 4, "{files:?}");
    for path in files {
        let bytes = files::read(&path, 1_000_000).unwrap().unwrap();
        let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        assert!(!found, "{}", path.display());
    }
    for label in world.keyring.labels.lock().unwrap().iter() {
        assert!(!label.contains(CANARY), "{label}");
    }
}

#[test]
fn a_session_survives_a_keyring_and_a_disk_without_room() {
    let world = World::with(Keyring::with_limit(1000));
    try_keep_session(&world.cache(), "ann").unwrap();
    // A file where the directory of sealed files should be.
    files::write_private(&world.state().join("sealed"), b"").unwrap();
    let key = SessionKey::new(&["corp"]);
    let (cache, large) = (world.cache(), Secret::new(vec![b'x'; 5000]));
    let lead = lead_session(&cache, &key);
    assert!(cache.keep_session(&key, &label("ann"), &large, &lead).is_err());
    let kept = world.cache().session(&key).unwrap().expect("the session is lost");
    assert_eq!(kept.expose(), format!("{CANARY} of ann").as_bytes());
    // With room on the disk, the file is all there is.
    files::remove(&world.state().join("sealed")).unwrap();
    cache.keep_session(&key, &label("ann"), &large, &lead).unwrap();
    assert_eq!(world.cache().session(&key).unwrap().unwrap().expose(), large.expose());
}
