//! Files sealed under a key that the environment brings.

use super::world::*;
use super::*;
use crate::host::env::{CACHE_KEY, Env};

const ONE: &str = "MTExMTExMTExMTExMTExMTExMTExMTExMTExMTExMTE=";
const TWO: &str = "MjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjIyMjI=";

fn cache(world: &World, key: &str) -> Cache {
    let env = Env::from_pairs([(CACHE_KEY, key)]);
    Cache::new(Host { env, ..world.host() }, StoreChoice::Auto)
}

/// The sealed files, and those of them that are of a credential.
fn sealed(world: &World) -> Vec<std::path::PathBuf> {
    let all = files_below(&world.state()).into_iter();
    all.filter(|path| path.components().any(|part| part.as_os_str() == "by-key")).collect()
}

#[test]
fn the_key_finds_what_it_sealed_and_no_file_shows_it() {
    let world = World::new();
    keep(&cache(&world, ONE), "a", "ann", 10);
    try_keep_session(&cache(&world, ONE), "ann").unwrap();
    let again = cache(&world, ONE);
    assert_eq!(again.store_name(), "files sealed under TMPCRED_CACHE_KEY");
    assert_eq!(token(&again, "a", "ann"), Some(10));
    assert!(again.session(&SessionKey::new(&["corp"])).unwrap().is_some());
    assert!(again.credential_label(&key_of("a", "ann")).unwrap().is_some());
    assert_eq!(roles(&again), ["a"]);
    let files = sealed(&world);
    assert_eq!(files.len(), 2, "{files:?}");
    for path in files_below(world.dir.path()) {
        #[cfg(unix)]
        assert_eq!(files::readers(&path).unwrap(), files::Readers::Owner, "{}", path.display());
        let bytes = files::read(&path, 1_000_000).unwrap().unwrap();
        let found = bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes());
        assert!(!found, "{}", path.display());
        assert!(!path.to_string_lossy().contains("1111"), "{}", path.display());
    }
    again.forget_credentials(&principal("ann")).unwrap();
    assert_eq!(sealed(&world).len(), 1, "the session's");
    assert!(world.warnings().is_empty(), "{:?}", world.warnings());
}

#[test]
fn another_key_is_a_miss_that_is_told_once_and_costs_nothing() {
    let world = World::new();
    keep(&cache(&world, ONE), "a", "ann", 10);
    try_keep_session(&cache(&world, ONE), "ann").unwrap();
    let other = cache(&world, TWO);
    assert_eq!(token(&other, "a", "ann"), None);
    assert_eq!(token(&other, "a", "ann"), None);
    assert!(other.credential_label(&key_of("a", "ann")).unwrap().is_none(), "no hit is promised");
    assert!(other.session(&SessionKey::new(&["corp"])).unwrap().is_none());
    let [warning] = &world.warnings()[..] else { panic!("{:?}", world.warnings()) };
    assert!(warning.contains("another TMPCRED_CACHE_KEY"), "{warning}");
    keep(&other, "a", "ann", 20);
    // Nothing was replaced.
    assert_eq!(token(&cache(&world, ONE), "a", "ann"), Some(10));
    assert!(cache(&world, ONE).session(&SessionKey::new(&["corp"])).unwrap().is_some());
    assert_eq!(token(&cache(&world, TWO), "a", "ann"), Some(20));
}

#[test]
fn what_has_ended_goes_whatever_its_key_was() {
    let world = World::new();
    keep(&cache(&world, ONE), "a", "ann", 10);
    world.pass(Duration::hours(1));
    assert_eq!(token(&cache(&world, TWO), "a", "ann"), None);
    assert!(world.warnings().is_empty(), "nothing good is there: {:?}", world.warnings());
    let cache = cache(&world, TWO);
    let mut credential = credential("b", "ann", 1);
    credential.lifetime = Lifetime::new(START, START + Duration::hours(3), None, START);
    let key = key_of("b", "ann");
    cache.keep_credential(&key, &credential, "prod", &lead_credential(&cache, &key)).unwrap();
    assert_eq!(sealed(&world).len(), 1);
    assert_eq!(files::list(&world.state().join("sealed/by-key")).unwrap().len(), 1);
}

#[test]
fn a_file_that_was_changed_or_moved_counts_as_absent() {
    let world = World::new();
    keep(&cache(&world, ONE), "a", "ann", 10);
    let [file] = &sealed(&world)[..] else { panic!("{:?}", sealed(&world)) };
    let good = files::read(file, 10_000).unwrap().unwrap();
    for at in [0, 8, 16, 30, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        files::write_private(file, &bad).unwrap();
        assert_eq!(token(&cache(&world, ONE), "a", "ann"), None, "{at}");
    }
    let other = file.with_file_name(key_of("b", "ann").item().as_str());
    files::write_private(&other, &good).unwrap();
    assert_eq!(token(&cache(&world, ONE), "b", "ann"), None);
}

#[test]
fn a_key_that_is_none_is_refused_where_it_would_be_used() {
    let host = |key: &str| Host { env: Env::from_pairs([(CACHE_KEY, key)]), ..World::new().host() };
    for choice in [StoreChoice::Auto, StoreChoice::Sealed] {
        let error = choice.check(&host("c2hvcnQ=")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.causes()[0].contains("it has 5 bytes"), "{error:?}");
        choice.check(&host(ONE)).unwrap();
    }
    StoreChoice::Memory.check(&host("c2hvcnQ=")).unwrap();
    StoreChoice::Auto.check(&World::new().host()).unwrap();
    let error = StoreChoice::Sealed.check(&World::new().host()).unwrap_err();
    assert!(error.causes()[0].contains("TMPCRED_CACHE_KEY is not set"), "{error:?}");
}

#[test]
fn whoever_shares_the_files_shares_their_locks() {
    let world = World::new();
    let elsewhere = |container: &str, choice| {
        let env = Env::from_pairs([(CACHE_KEY, ONE)]);
        let mut host = Host { env, ..world.host() };
        host.dirs.runtime = world.dir.path().join(container);
        Cache::new(host, choice)
    };
    for choice in [StoreChoice::Auto, StoreChoice::Sealed] {
        let (one, other) = (elsewhere("one", choice), elsewhere("other", choice));
        let key = key_of("a", "ann");
        let lead = lead_credential(&one, &key);
        assert!(other.lead_credential_if_free(&key).is_none(), "{choice:?}");
        drop(lead);
        assert!(other.lead_credential_if_free(&key).is_some(), "{choice:?}");
    }
    // The index is one file, with a key and without.
    let (one, other) =
        (elsewhere("one", StoreChoice::Auto), elsewhere("other", StoreChoice::Memory));
    let index = |cache: &Cache| cache.index.locks.exclusive("index", std::time::Duration::ZERO);
    let held = index(&one);
    assert!(matches!(index(&other), Exclusive::Busy));
    drop(held);
    assert!(matches!(index(&other), Exclusive::Held(_)));
    // What is kept on this machine only has its locks here.
    let (one, other) =
        (elsewhere("one", StoreChoice::Memory), elsewhere("other", StoreChoice::Memory));
    let _lead = one.take_session(&SessionKey::new(&["corp"]), None).unwrap();
    other.take_session(&SessionKey::new(&["corp"]), None).unwrap();
}
