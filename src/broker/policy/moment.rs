//! When something is asked, and from where, as Cedar has it.

use std::cell::RefCell;
use std::collections::HashMap;
use std::net::IpAddr;

use cedar_policy::RestrictedExpression;
use time::{OffsetDateTime, UtcOffset};

/// How many addresses a thread keeps in mind.
const ADDRESSES: usize = 1024;

/// When something is asked, and from where.
#[derive(Clone, Copy, Debug)]
pub struct Moment {
    /// When.
    pub now: OffsetDateTime,
    /// From where.
    pub source: IpAddr,
}

impl Moment {
    /// The attributes of a context that tell of it.
    pub(super) fn pairs(self) -> [(String, RestrictedExpression); 2] {
        let (time, source) = KNOWN.with_borrow_mut(|known| {
            (known.time(self.now), known.address(self.source.to_canonical()))
        });
        [("time".to_string(), time), ("source".to_string(), source)]
    }
}

thread_local! {
    static KNOWN: RefCell<Known> = RefCell::default();
}

/// What was made before. To make these takes Cedar longer than to decide.
#[derive(Default)]
struct Known {
    /// The last second, since 1970.
    second: Option<(i64, RestrictedExpression)>,
    addresses: HashMap<IpAddr, RestrictedExpression>,
}

impl Known {
    fn time(&mut self, now: OffsetDateTime) -> RestrictedExpression {
        let second = now.unix_timestamp();
        let known = self.second.take().filter(|(known, _)| *known == second);
        let (_, made) = self.second.insert(known.unwrap_or_else(|| (second, datetime(now))));
        made.clone()
    }

    fn address(&mut self, address: IpAddr) -> RestrictedExpression {
        if self.addresses.len() >= ADDRESSES && !self.addresses.contains_key(&address) {
            self.addresses.clear();
        }
        let make = || RestrictedExpression::new_ip(address.to_string());
        self.addresses.entry(address).or_insert_with(make).clone()
    }
}

fn datetime(now: OffsetDateTime) -> RestrictedExpression {
    let now = now.to_offset(UtcOffset::UTC);
    let (date, (hour, minute, second)) = (now.date(), now.time().as_hms());
    RestrictedExpression::new_datetime(format!("{date}T{hour:02}:{minute:02}:{second:02}Z"))
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use time::macros::datetime;

    use super::*;

    #[test]
    fn what_is_known_is_what_would_be_made() {
        let mut known = Known::default();
        let text = |made: RestrictedExpression| format!("{made:?}");
        for (now, expected) in [
            (datetime!(2026-01-01 12:00:00.5 UTC), "2026-01-01T12:00:00Z"),
            (datetime!(2026-01-01 12:00:00.9 UTC), "2026-01-01T12:00:00Z"),
            (datetime!(2026-01-01 13:00:01 +1), "2026-01-01T12:00:01Z"),
            (datetime!(2026-01-01 12:00:00 UTC), "2026-01-01T12:00:00Z"),
        ] {
            let expected = RestrictedExpression::new_datetime(expected);
            assert_eq!(text(known.time(now)), text(expected), "{now}");
        }
        for number in (0..3 * ADDRESSES as u32).chain(0..3) {
            let address = IpAddr::from(Ipv4Addr::from_bits(number));
            let expected = RestrictedExpression::new_ip(address.to_string());
            assert_eq!(text(known.address(address)), text(expected));
            assert!(known.addresses.len() <= ADDRESSES);
        }
    }
}
