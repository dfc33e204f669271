//! What counts in a database that was filled from a backup.

use super::*;
use crate::broker::restored::{InForce, in_force_in};
use crate::broker::store::{Effect, Enrollment, EnrollmentState, Unit};
use crate::credential::Principal;

fn key(fingerprint: &str, state: EnrollmentState, seen: time::Duration) -> Enrollment {
    let (person, at) = ("dave".to_string(), now());
    Enrollment {
        id: uuid::Uuid::new_v4(),
        fingerprint: fingerprint.into(),
        public_key: format!("ssh-ed25519 {fingerprint}"),
        principal: Principal { issuer: CORP.into(), subject: person.clone() },
        person,
        label: "laptop".into(),
        state,
        enrolled_at: at,
        approved: Some(("bob".into(), at)),
        seen_at: at - seen,
        seal: vec![1],
    }
}

#[tokio::test]
async fn grants_requests_and_keys_are_told_of_that_count() {
    let place = Place::new().await;
    let look = || in_force_in(place.bed.store.as_ref(), place.bed.broker.clock.as_ref());
    assert_eq!(look().await.unwrap(), InForce::default());
    let had = place.active().await;
    place.requested("dave", &[]).await;
    let (day, month) = (time::Duration::days(1), time::Duration::days(31));
    for key in [
        key("counts", EnrollmentState::Approved, day),
        key("waits", EnrollmentState::Pending, day),
        key("lapsed", EnrollmentState::Approved, month),
        key("gone", EnrollmentState::Removed, day),
    ] {
        let unit = Unit::default().with(Effect::Enroll(key));
        assert!(place.bed.store.commit(&[unit]).await.unwrap()[0].is_committed());
    }
    let all = InForce { grants: 1, requests: 1, enrolled_keys: 1 };
    assert_eq!(look().await.unwrap(), all);
    place.done("alice", "relinquish", &had, &[]).await;
    assert_eq!(look().await.unwrap(), InForce { grants: 0, ..all });
}
