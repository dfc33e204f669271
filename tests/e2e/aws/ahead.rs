//! Credentials that are renewed in the background, for those who ask again below fifteen
//! minutes.

use std::time::Duration;

use super::*;
use crate::support::wait::wait_until;

const LONG: Duration = Duration::from_secs(120);

#[test]
fn the_aws_cli_does_not_wait_for_a_renewal_either() {
    let moto = Moto::start(9);
    let mut world = World::start();
    world.config = world.config.replace("refresh_ahead = false\n", "");
    world.profile("prod", ROLE, moto.url(), "");
    world.tmpcred(&["login"]).run().ok();
    let ask = |offset: &str, ttl: &str| {
        let all = ["credential-process", "prod", "--ttl", ttl];
        let answered = at_clock(&world.home, offset).args(all).run().ok();
        assert_eq!(answered.stderr, "");
        answered.json()["AccessKeyId"].clone()
    };
    let first = ask("+0m", "1h");
    let brief = ask("+0m", "20m");
    // It has not had half of the time in which it is handed out.
    assert_eq!(ask("+1m", "20m"), brief);
    assert!(!world.home.path(".local/state/tmpcred/ahead").exists());
    // 25 minutes are left. A new one is not waited for.
    assert_eq!(ask("+35m", "1h"), first);
    let next = || Some(ask("+35m", "1h")).filter(|next| *next != first);
    let next = wait_until("new keys", LONG, next);
    assert_eq!(ask("+35m", "1h"), next);
    assert_eq!(moto.all_asked("AssumeRoleWithWebIdentity").len(), 3, "one process saw to it");
}
