//! Ids that begin with the time (RFC 9562): what was made together lies together in an index.
//! Of ids that are random throughout each one would change another page, which is written as
//! a whole, and has to be read first once the index is larger than what is kept in memory.

use time::OffsetDateTime;
use uuid::{Builder, Uuid};

/// How many bytes of an id are not the time.
const REST: usize = 10;

/// A new id of something that is made now (section 5.7).
pub(super) fn new(now: OffsetDateTime) -> Uuid {
    let mut rest = [0; REST];
    match aws_lc_rs::rand::fill(&mut rest) {
        Ok(()) => Builder::from_unix_timestamp_millis(millis(now), &rest).into_uuid(),
        // It has another source of randomness, or panics, for nobody can go on without.
        Err(_) => Uuid::new_v4(),
    }
}

/// The id of something that was made at this time and has this hash (section 5.8): the same
/// for everybody who knows both.
pub(super) fn derived(at: OffsetDateTime, hash: &[u8; 32]) -> Uuid {
    let mut bytes = [0; 16];
    let [_, _, time @ ..] = millis(at).to_be_bytes();
    let (first, rest) = bytes.split_at_mut(time.len());
    first.copy_from_slice(&time);
    rest.copy_from_slice(hash.split_at(REST).0);
    Builder::from_custom_bytes(bytes).into_uuid()
}

/// The id of something that has this hash, whenever it was made: the same for everybody who
/// knows the hash.
pub(super) fn hashed(hash: &[u8; 32]) -> Uuid {
    let [bytes @ .., _, _, _, _, _, _, _, _, _, _, _, _, _, _, _, _] = *hash;
    Builder::from_custom_bytes(bytes).into_uuid()
}

fn millis(at: OffsetDateTime) -> u64 {
    u64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use time::Duration;

    use super::*;

    #[test]
    fn ids_are_in_the_order_of_time_and_never_the_same() {
        let now = OffsetDateTime::from_unix_timestamp(1_795_720_329).unwrap();
        let later = now + Duration::milliseconds(1);
        let (first, second) = (new(now), new(now));
        assert_ne!(first, second);
        assert!(first.max(second) < new(later));
        assert_eq!((first.get_version_num(), first.get_timestamp()), (7, second.get_timestamp()));
        let (seconds, nanos) = first.get_timestamp().unwrap().to_unix();
        assert_eq!((seconds, nanos), (1_795_720_329, 0));
        // Before 1970 there is no time that such an id could have.
        assert_eq!(new(OffsetDateTime::UNIX_EPOCH - Duration::DAY).get_version_num(), 7);
    }

    #[test]
    fn a_derived_id_tells_apart_whatever_differs() {
        let now = OffsetDateTime::from_unix_timestamp(1_795_720_329).unwrap();
        let id = derived(now, &[7; 32]);
        assert_eq!(id, derived(now + Duration::microseconds(999), &[7; 32]));
        assert_ne!(id, derived(now + Duration::milliseconds(1), &[7; 32]));
        assert_ne!(id, derived(now, &[8; 32]));
        assert_eq!(id.get_version_num(), 8);
        assert!(id < derived(now + Duration::milliseconds(1), &[0; 32]));
    }

    #[test]
    fn an_id_of_a_hash_is_that_of_the_hash_from_its_beginning() {
        let id = hashed(&[7; 32]);
        assert_eq!((id, id.get_version_num()), (hashed(&[7; 32]), 8));
        assert!(id.to_string().starts_with("07070707-"), "{id}");
    }
}
