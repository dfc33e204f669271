//! STS that is silent or gone: what is cached serves, nobody waits for long, and not each
//! command finds out for itself.

use std::time::Duration;

use super::*;

/// Ten minutes before its end, a credential of an hour is due for renewal.
const LATE: &str = "+50m";

#[test]
fn a_cached_credential_serves_while_sts_is_silent_or_gone() {
    let moto = Moto::start(9);
    let mut world = World::start();
    world.profile("prod", ROLE, moto.url(), "");
    let env = ["env", "prod", "--format", "json", "--no-input"];
    world.tmpcred(&["login"]).run().ok();
    let cached = world.tmpcred(&env).run().ok().json()["AWS_ACCESS_KEY_ID"].clone();
    // A process for each command: they know of each other by files only.
    let late = || {
        let run = at_clock(&world.home, LATE).args(env).limit(Duration::from_secs(40)).run().ok();
        assert_eq!(run.json()["AWS_ACCESS_KEY_ID"], cached);
        let warning = "no new credential could be had, so the cached one is used while it lasts";
        assert!(run.stderr.contains(warning), "{}", run.stderr);
        run.stderr
    };
    // It holds its socket, and answers nothing.
    moto.freeze();
    let said = late();
    assert!(said.contains("did not answer") && said.contains("the limit is 8 seconds"), "{said}");
    assert!(said.contains("waiting for AWS STS, for 8 seconds at most"), "{said}");

    let said = late();
    assert!(said.contains("waited for in vain just now"), "{said}");
    assert!(!said.contains("waiting for"), "{said}");

    moto.stop();
    // Who insists asks all the same, and is not served with what is old.
    for _ in 0..3 {
        let refresh = at_clock(&world.home, LATE).args(env).args(["--refresh"]);
        let refresh = refresh.run().ended_with(7);
        assert!(refresh.stderr.contains("did not answer"), "{}", refresh.stderr);
        assert!(!refresh.stderr.contains("times in a row"), "{}", refresh.stderr);
    }
    let said = late();
    assert!(said.contains("it has failed 4 times in a row"), "{said}");
}
