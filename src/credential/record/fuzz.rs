//! What lies in a keyring, which anybody of the same user may have written.

use super::*;
use crate::fuzz::{
    Fate::{Accepted, Refused},
    NOW, hold,
};

#[test]
fn record() {
    let lifetime = Lifetime::new(NOW, NOW + time::Duration::HOUR, None, NOW);
    let principal = Principal { issuer: "i".into(), subject: "s".into() };
    let material = Material::Bearer { token: Secret::new("t".into()) };
    let scope = vec!["a".into()];
    let credential = Credential { material, role: "r".into(), scope, principal, lifetime };
    hold("record", [encode(&credential).expose().clone()], |input| {
        let Some(read) = decode(&Secret::new(input.to_vec())) else { return Refused };
        assert!(!read.material.secret().expose().is_empty(), "an empty credential");
        let again = decode(&encode(&read)).expect("what was written is read");
        assert_eq!(encode(&again).expose(), encode(&read).expose());
        Accepted
    });
}
