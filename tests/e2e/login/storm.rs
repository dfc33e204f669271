//! Many processes that need the same session at the same time.

use std::path::PathBuf;
use std::sync::Arc;

use serde_json::json;
use tmpcred::cache::{Cache, StoreChoice};
use tmpcred::host::env::Env;
use tmpcred::identity::oidc::Oidc;
use tmpcred::identity::{Context, IdentitySource};

use super::{BROKER, OTHER, Person, Plan, World, block_on, host, login_for};
use crate::support::oidc_provider::{CLIENT, OidcProvider};
use crate::support::run::{Run, Running};

/// Tells a copy of this test program what to do: the home, the issuer and the
/// audience, one a line.
const CHILD: &str = "TMPCRED_TEST_LOGIN_CHILD";

/// The key of a cache in files that containers share.
const KEY: &str = "TMPCRED_CACHE_KEY";

const PROCESSES: usize = 12;

/// What each of the processes does.
#[test]
fn child_that_asks() {
    let Ok(orders) = std::env::var(CHILD) else { return };
    let [home, issuer, audience] = orders.lines().collect::<Vec<_>>()[..] else {
        panic!("three lines: {orders}")
    };
    let home = PathBuf::from(home);
    let person = Arc::new(Person::who_reads(|url| {
        let variables =
            ["BROWSER", "PATH", "HOME"].map(|name| (name, std::env::var(name).unwrap()));
        let run = Run::new("sh", "/").args(["-c", r#"exec "$BROWSER" "$1""#, "sh", url.as_str()]);
        variables.into_iter().fold(run, |run, (name, value)| run.env(name, value)).spawn()
    }));
    let mut host = host(&home, person, 0);
    let mut store = StoreChoice::Kernel;
    if let Ok(key) = std::env::var(KEY) {
        // A container of its own: it shares the home, and nothing else.
        host.env = Env::from_pairs([("DISPLAY", ":0"), (KEY, &key)]);
        host.dirs.runtime = home.join(format!("run-{}", std::process::id()));
        store = StoreChoice::Sealed;
    }
    let cache = Cache::new(host.clone(), store);
    let settings = json!({"issuer": issuer, "client_id": CLIENT});
    let source = Oidc::new("corp", serde_json::from_value(settings).unwrap());
    let cx = Context::new(&host, &cache);
    let assertion = block_on(source.assertion(cx, audience)).unwrap();
    let name = home.join(format!("shown-{}", std::process::id()));
    std::fs::write(name, assertion.token.expose()).unwrap();
}

/// Starts the processes; returns the assertions that they got. With a key for the cache,
/// each has a container of its own.
fn storm(world: &World, audience: &str, key: Option<&str>) -> Vec<String> {
    let home = world.home.path("");
    let orders = format!("{}\n{}\n{audience}", home.display(), world.issuer);
    let children: Vec<Running> = (0..PROCESSES)
        .map(|_| {
            let child = world.home.command(std::env::current_exe().unwrap());
            let child = child.args(["--exact", "login::storm::child_that_asks", "--nocapture"]);
            let child = child.env(CHILD, &orders);
            key.iter().fold(child, |child, key| child.env(KEY, key)).spawn()
        })
        .collect();
    for child in children {
        child.wait().ok();
    }
    let shown = std::fs::read_dir(&home).unwrap().map(|entry| entry.unwrap().path());
    shown
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with("shown-"))
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect()
}

#[test]
fn a_cold_start_of_many_is_one_login() {
    let provider = OidcProvider::start();
    let (world, browser) = Plan::new(provider.issuer()).store(StoreChoice::Kernel).build();
    let shown = storm(&world, BROKER, None);
    assert_eq!(shown.len(), PROCESSES);
    assert!(shown.iter().all(|token| *token == shown[0]));
    assert_eq!(browser.opened().len(), 1);
    assert_eq!(provider.count_grants("authorization_code"), 1);
    assert_eq!(provider.count_grants("refresh_token"), 0);
    assert_eq!(provider.count("GET", "/.well-known/openid-configuration"), 1);
}

#[test]
fn no_two_processes_use_one_refresh_token() {
    let provider = OidcProvider::start();
    let (world, browser) = Plan::new(provider.issuer()).store(StoreChoice::Kernel).build();
    world.login(&login_for(&[BROKER, OTHER])).unwrap();
    let before = world.refresh_token();
    let shown = storm(&world, OTHER, None);
    assert_eq!(shown.len(), PROCESSES);
    assert!(shown.iter().all(|token| *token == shown[0]));
    assert_ne!(world.refresh_token(), before, "it rotated");
    assert_eq!(provider.count_grants("refresh_token"), 1);
    // This provider ends a session whose refresh token comes twice.
    assert!(provider.requests().iter().all(|request| request.error.is_none()));
    assert_eq!(browser.opened().len(), 1);
}

#[test]
fn containers_that_share_the_sealed_files_use_one_refresh() {
    let key = "q83vEjRWeJCrze8SNFZ4kKvN7xI0VniQq83vEjRWeJA=";
    let provider = OidcProvider::start();
    let (mut world, browser) = Plan::new(provider.issuer()).build();
    world.host.env = Env::from_pairs([("DISPLAY", ":0"), (KEY, key)]);
    world.cache = Cache::new(world.host.clone(), StoreChoice::Sealed);
    world.login(&login_for(&[BROKER, OTHER])).unwrap();
    let before = world.refresh_token();
    let shown = storm(&world, OTHER, Some(key));
    assert_eq!(shown.len(), PROCESSES);
    assert!(shown.iter().all(|token| *token == shown[0]));
    assert_ne!(world.refresh_token(), before, "it rotated");
    assert_eq!(provider.count_grants("refresh_token"), 1);
    assert!(provider.requests().iter().all(|request| request.error.is_none()));
    assert_eq!(browser.opened().len(), 1);
}
