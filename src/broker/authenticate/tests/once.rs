//! By which names assertions are known that are good once.

use time::OffsetDateTime;

use super::super::fingerprint;
use crate::secret::Secret;

#[test]
fn names_are_in_the_order_in_which_tokens_end_and_of_what_is_signed() {
    let at = |seconds: i64| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    let name = |token: &str, ends| fingerprint(&Secret::new(token.into()), at(ends));
    let ends = 1_800_000_000;
    for n in 0..50 {
        let (before, after) = (format!("a.{n}.c"), format!("a.b{n}.c"));
        assert!(name(&before, ends + n) < name(&after, ends + n + 1));
    }
    assert_eq!(name("a.b.c", ends), name("a.b.other", ends));
    assert_ne!(name("a.b.c", ends), name("a.bb.c", ends));
    assert_eq!(name("a.b.c", ends)[..4], u32::try_from(ends).unwrap().to_be_bytes());
    // 28 bytes of the hash.
    let (one, two) = (name("a.b.c", ends), name("a.bb.c", ends));
    assert!(one[28..] != two[28..]);
}
