//! What is another network, and how much is remembered.

use time::macros::datetime;

use super::*;
use crate::host::clock::FixedClock;

const NOON: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

fn config() -> config::Origins {
    config::Origins::default()
}

fn at(address: &str) -> IpAddr {
    address.parse().unwrap()
}

fn known() -> Known {
    let clock: Arc<dyn Clock> = Arc::new(FixedClock(NOON));
    Known { table: Mutex::default(), metrics: Arc::default(), clock }
}

fn used(jti: Uuid, from: &str) -> Used {
    Used::token((jti, NOON + Duration::HOUR), at(from), Place::Authz)
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
    known.add(jti, Some(at("203.0.113.7")), NOON + Duration::HOUR);
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
    known.add(erased, None, NOON + Duration::HOUR);
    assert!(known.judge(&used(erased, "192.0.2.1"), &config()));
    assert_eq!(count(), TOLD as u64);
}

#[test]
fn very_many_take_bounded_memory_and_those_that_ended_go_first() {
    let known = known();
    let lasting = Uuid::new_v4();
    for n in 0..REMEMBERED {
        let ends = if n == 0 { NOON } else { NOON + Duration::HOUR };
        let jti = if n == 1 { lasting } else { Uuid::new_v4() };
        known.add(jti, Some(at("203.0.113.7")), ends);
    }
    known.add(Uuid::new_v4(), None, NOON + Duration::HOUR);
    assert_eq!(known.table.lock().unwrap().tokens.len(), REMEMBERED);
    assert!(known.table.lock().unwrap().tokens.contains_key(&lasting), "one that ended went");
    for _ in 0..10 {
        known.add(Uuid::new_v4(), None, NOON + Duration::HOUR);
    }
    assert_eq!(known.table.lock().unwrap().tokens.len(), REMEMBERED);
}
