//! What is another network, and how much is remembered.

use super::*;

fn config() -> config::Origins {
    config::Origins::default()
}

fn at(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn known() -> Known {
    Known::of_none(Arc::default())
}

fn used(jti: Uuid, from: &str) -> Used {
    Used::token(jti, at(from), Place::Authz)
}

#[test]
fn a_network_has_24_bits_or_48_and_those_of_another_kind_are_not_compared() {
    for (issued_to, from, is_other) in [
        ("203.0.113.7", "203.0.113.7", false),
        ("203.0.113.7", "203.0.113.250", false),
        ("203.0.113.7", "203.0.114.7", true),
        ("::ffff:203.0.113.7", "203.0.113.9", false),
        ("203.0.113.7", "::ffff:203.0.114.9", true),
        ("2001:db8:1::1", "2001:db8:1:ffff::2", false),
        ("2001:db8:1::1", "2001:db8:2::1", true),
        ("203.0.113.7", "2001:db8:1::1", false),
        ("2001:db8:1::1", "203.0.113.7", false),
    ] {
        let other = other_network(at(issued_to), at(from).to_canonical(), &config());
        assert_eq!(other.is_some(), is_other, "{issued_to} {from}");
    }
    let wide = config::Origins { ipv4_bits: 8, ipv6_bits: 16, ..config() };
    assert!(other_network(at("10.1.2.3"), at("10.9.9.9"), &wide).is_none());
    assert!(other_network(at("2001:db8::1"), at("2001:dead::1"), &wide).is_none());
    let each = config::Origins { ipv4_bits: 32, ipv6_bits: 128, ..config() };
    assert!(other_network(at("10.1.2.3"), at("10.1.2.4"), &each).is_some());
}

#[test]
fn it_is_told_once_of_each_network_and_of_few_networks_of_one_token() {
    let (known, jti) = (known(), Uuid::new_v4());
    let count = || known.metrics.elsewhere(Place::Authz);
    assert!(!known.judge(&used(jti, "198.51.100.1"), &config()), "nobody knows it yet");
    known.add(jti, Some(at("203.0.113.7")));
    for (from, told) in [
        ("203.0.113.9", 0),
        ("198.51.100.1", 1),
        ("198.51.100.2", 1),
        ("192.0.2.1", 2),
        ("198.51.100.1", 2),
    ] {
        assert!(known.judge(&used(jti, from), &config()));
        assert_eq!(count(), told, "{from}");
    }
    for n in 0..100 {
        known.judge(&used(jti, &format!("10.0.{n}.1")), &config());
    }
    assert_eq!(count(), TOLD as u64);
    // Of one that nobody knows the origin of nothing is told, and nothing looked up again.
    let erased = Uuid::new_v4();
    known.add(erased, None);
    assert!(known.judge(&used(erased, "192.0.2.1"), &config()));
    assert_eq!(count(), TOLD as u64);
}

#[test]
fn very_many_take_bounded_memory_and_those_that_are_used_stay() {
    let (known, lasting, idle) = (known(), Uuid::new_v4(), Uuid::new_v4());
    known.add(lasting, Some(at("203.0.113.7")));
    known.add(idle, Some(at("203.0.113.7")));
    for _ in 0..REMEMBERED {
        known.add(Uuid::new_v4(), Some(at("203.0.113.7")));
        assert!(known.judge(&used(lasting, "203.0.113.7"), &config()), "it is known");
    }
    assert_eq!(known.tokens().len(), REMEMBERED);
    assert!(!known.judge(&used(idle, "203.0.113.7"), &config()), "it is looked up again");
    // Whoever finds one that is known already, by its record, changes nothing about it.
    known.add(lasting, None);
    known.judge(&used(lasting, "198.51.100.1"), &config());
    assert_eq!(known.metrics.elsewhere(Place::Authz), 1);
}
