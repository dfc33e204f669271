//! Keys that somebody else changes at the moment at which they are approved or removed.

use super::*;
use crate::broker::Broker;
use crate::broker::store::{Effect, Enrollment, EnrollmentState, Unit};

/// A place whose keys somebody else may change as they are about to be changed.
struct Overtaken {
    place: Place,
    front: Arc<Failing>,
    store: Arc<dyn Store>,
}

impl Overtaken {
    async fn new() -> Self {
        let store: Arc<dyn Store> = Arc::new(sqlite::in_memory().await.unwrap());
        let front = Failing::over(store.clone());
        let place = Place::with(|options| options.store = front.clone()).await;
        Self { place, front, store }
    }

    /// So many times in a row, as a login changes it that is an hour later, or so.
    fn by(&self, times: u32, key: &OwnKey, change: fn(&mut Enrollment)) {
        let (front, store) = (self.front.clone(), self.store.clone());
        overtake((front, store), self.place.bed.broker.clone(), times, key.public(), change);
    }
}

fn overtake(
    (front, store): (Arc<Failing>, Arc<dyn Store>),
    broker: Arc<Broker>,
    times: u32,
    key: &PublicKey,
    change: fn(&mut Enrollment),
) {
    let key = key.clone();
    front.clone().before_change(async move {
        let before = store.enrollment_of(&key.fingerprint()).await.unwrap().unwrap();
        let mut after = before.clone();
        change(&mut after);
        let after = Box::new(broker.enrollment_seal.over(after));
        let unit = Unit::default().with(Effect::ChangeEnrollment { before, after });
        assert!(store.commit(&[unit]).await.unwrap()[0].is_committed());
        if times > 1 {
            overtake((front, store), broker, times - 1, &key, change);
        }
    });
}

fn log_in(key: &mut Enrollment) {
    key.seen_at += Duration::HOUR;
}

#[tokio::test]
async fn a_login_at_that_moment_keeps_no_key_from_being_approved_or_removed() {
    let overtaken = Overtaken::new().await;
    let (place, key) = (&overtaken.place, key());
    let id = place.enrolled("alice", &key).await;
    let before = place.seen(&key).await;
    overtaken.by(2, &key, log_in);
    assert_eq!(ok(&place.approve("bob", &id).await)["state"], "approved");
    // What has come in between is in what was made of it.
    assert_eq!(place.seen(&key).await, before + Duration::hours(2));
    assert_eq!(place.counts_for(&key).await.as_deref(), Some("alice"));
    overtaken.by(2, &key, log_in);
    assert_eq!(ok(&place.remove("alice", &id).await)["state"], "removed");
    assert_eq!(place.seen(&key).await, before + Duration::hours(4));
}

#[tokio::test]
async fn what_is_overtaken_again_and_again_may_be_asked_for_again() {
    let overtaken = Overtaken::new().await;
    let (place, key) = (&overtaken.place, key());
    let id = place.enrolled("alice", &key).await;
    overtaken.by(5, &key, log_in);
    refused(&place.approve("bob", &id).await, 503, "temporarily_unavailable");
    overtaken.by(5, &key, log_in);
    refused(&place.remove("alice", &id).await, 503, "temporarily_unavailable");
    ok(&place.approve("bob", &id).await);
    ok(&place.remove("alice", &id).await);
}

/// What is decided is decided by what the key is then.
#[tokio::test]
async fn a_key_that_is_removed_at_that_moment_is_neither_approved_nor_removed_once_more() {
    let overtaken = Overtaken::new().await;
    let (place, key) = (&overtaken.place, key());
    let removed = |key: &mut Enrollment| key.state = EnrollmentState::Removed;
    let id = place.enrolled("alice", &key).await;
    overtaken.by(1, &key, removed);
    let said = refused(&place.approve("bob", &id).await, 400, "invalid_request");
    assert!(said.contains("does not wait to be approved"), "{said}");
    let id = place.enrolled("alice", &key).await;
    overtaken.by(1, &key, removed);
    let said = refused(&place.remove("bob", &id).await, 400, "invalid_request");
    assert!(said.contains("no enrolled key"), "{said}");
}
