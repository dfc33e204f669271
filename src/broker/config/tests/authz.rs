//! Who may ask what the broker decides for proxies.

use std::net::IpAddr;

use super::{GOOD, load_text};

fn text(trusted: &str, table: &str) -> String {
    format!(
        "trusted_proxies = [{trusted}]\n{GOOD}\n[authz]\nproxy = \"nginx\"\n{table}\n[authz.route.api]\n\
         origins = [\"https://api.example.com\"]\naudience = \"https://api.example.com\"\n"
    )
}

const LISTEN: &str = "listen = \"127.0.0.1:9444\"\n";

/// Whoever comes by a proxy in front of the broker comes from where it is, so at the listener that
/// they share nobody can be told from a proxy that asks.
#[test]
fn whoever_is_behind_a_proxy_in_front_is_no_proxy_that_asks() {
    let front = "\"10.0.0.1\", \"192.0.2.0/24\"";
    let own = |proxies: &str| format!("{LISTEN}{proxies}");
    for table in [
        "proxies = [\"127.0.0.1\"]".to_string(),
        own(""),
        own("proxies = [\"10.0.0.1\"]"),
        own("proxies = [\"127.0.0.1\"]"),
    ] {
        load_text(&text(front, &table)).unwrap();
    }
    for (trusted, table, why) in [
        (front, "", "does not say who may ask"),
        ("", "", "does not say who may ask"),
        ("", LISTEN, "lets nobody ask"),
        ("", "proxies = []", "lets nobody ask"),
        (front, "proxies = [\"127.0.0.1\", \"10.0.0.1\"]", "has 10.0.0.1/32 among its proxies"),
        (front, "proxies = [\"10.0.0.0/8\"]", "has 10.0.0.0/8 among its proxies"),
        (front, "proxies = [\"192.0.2.7\"]", "has 192.0.2.7/32 among its proxies"),
    ] {
        let error = load_text(&text(trusted, table)).unwrap_err();
        let said = format!("{error} {:?}", error.causes());
        assert!(said.contains(why) && said.contains("[authz]"), "{table}: {said}");
    }
}

#[test]
fn one_of_both_may_ask_at_a_listener_of_its_own_alone() {
    let config = load_text(&text("\"10.0.0.1\"", LISTEN)).unwrap();
    let mut authz = config.authz.unwrap();
    let may_ask = |authz: &super::Authz, peer: &str| {
        authz.is_for(peer.parse::<IpAddr>().unwrap(), &config.trusted_proxies)
    };
    assert!(may_ask(&authz, "10.0.0.1") && !may_ask(&authz, "127.0.0.1"));
    // As where a running broker keeps the listener that it has.
    authz.listen = None;
    assert!(!may_ask(&authz, "10.0.0.1") && !may_ask(&authz, "127.0.0.1"));
    authz.proxies = Some(vec!["10.0.0.1".parse().unwrap(), "127.0.0.1".parse().unwrap()]);
    assert!(!may_ask(&authz, "10.0.0.1") && may_ask(&authz, "127.0.0.1"));
}
