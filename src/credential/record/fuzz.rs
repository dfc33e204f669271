//! What lies in a keyring, which anybody of the same user may have written.

use super::*;
use crate::fuzz::hold;

#[test]
fn record() {
    hold("record", [], |input| {
        let Some(read) = decode(&Secret::new(input.to_vec())) else { return };
        assert!(!read.material.secret().expose().is_empty(), "an empty credential");
        let again = decode(&encode(&read)).expect("what was written is read");
        assert_eq!(encode(&again).expose(), encode(&read).expose());
    });
}
