//! Several processes on one file of SQLite, under load, while one is killed.

use super::super::support::wait::wait_until;
use super::load::{nothing_is_lost, under_load};
use super::site::{Site, is_active, kid, revoke};
use super::{ROTATION, SOON};

#[test]
fn two_processes_on_one_file_survive_kills_a_rotation_and_revocations() {
    let site = Site::on_a_file();
    let mut twin = site.broker.twin();
    let urls = vec![site.broker.url().to_string(), twin.url.clone()];
    let before = site.in_state("active");
    let load = under_load(&site, &urls, |load| {
        load.goes_on("tokens from both");
        let next = site.rotate();
        for _ in 0..4 {
            // In whatever it is about just now, also with the file locked.
            site.broker.restart_twin(&mut twin);
            load.goes_on("tokens from both again");
        }
        let signs = |url: &String| site.signer(url).is_some_and(|kid| kid == next);
        let sign = || urls.iter().all(signs).then_some(());
        wait_until("the next key signs", ROTATION, sign);
        let token = load.tokens.lock().unwrap()[0].clone();
        assert_eq!([kid(&token)], before[..]);
        assert!(urls.iter().all(|url| is_active(url, &token)), "its key is retired, no more");
        site.broker.restart_twin(&mut twin);
        revoke(&urls[1], &token);
        assert!(urls.iter().all(|url| !is_active(url, &token)));
        // A key is revoked while both of them sign with it.
        site.broker(&["keys", "revoke", &next]).run().ok();
        let other = |url: &String| site.signer(url).is_some_and(|kid| kid != next);
        let others = || urls.iter().all(other).then_some(());
        wait_until("another key signs", SOON, others);
        load.goes_on("tokens under the new key");
    });
    site.broker.restart_twin(&mut twin);
    load.revoked.are_refused_at(&urls);
    nothing_is_lost(&site, &load);
    let said = site.broker.said() + &twin.said();
    assert!(!said.contains("panicked"), "{said}");
}
