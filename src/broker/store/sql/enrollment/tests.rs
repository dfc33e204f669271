use time::Duration;
use time::macros::datetime;

use super::*;
use crate::broker::store::sql::tests::Ground;
use crate::broker::store::{Effect, Ledger as _, Unit};

const NOW: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);

fn key(person: &str, fingerprint: &str) -> Enrollment {
    Enrollment {
        id: Uuid::new_v4(),
        fingerprint: fingerprint.into(),
        public_key: format!("ssh-ed25519 {fingerprint}"),
        person: person.into(),
        principal: Principal { issuer: "https://i.example".into(), subject: person.into() },
        label: "laptop".into(),
        state: EnrollmentState::Pending,
        enrolled_at: NOW,
        approved: None,
        seen_at: NOW,
        seal: Uuid::new_v4().as_bytes().to_vec(),
    }
}

async fn enroll(store: &SqlStore, new: &Enrollment) -> bool {
    let unit = Unit::default().with(Effect::Enroll(new.clone()));
    store.commit(&[unit]).await.unwrap()[0].is_committed()
}

async fn change(store: &SqlStore, before: &Enrollment, after: &Enrollment) -> bool {
    let (before, after) = (before.clone(), Box::new(after.clone()));
    let unit = Unit::default().with(Effect::ChangeEnrollment { before, after });
    store.commit(&[unit]).await.unwrap()[0].is_committed()
}

fn approved(of: &Enrollment) -> Enrollment {
    let seal = Uuid::new_v4().as_bytes().to_vec();
    let approved = Some(("bob".to_string(), NOW));
    Enrollment { state: EnrollmentState::Approved, approved, seal, ..of.clone() }
}

fn removed(of: &Enrollment) -> Enrollment {
    let seal = Uuid::new_v4().as_bytes().to_vec();
    Enrollment { state: EnrollmentState::Removed, public_key: String::new(), seal, ..of.clone() }
}

#[tokio::test]
async fn what_is_enrolled_is_read_as_it_was_written_and_changed_once() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let first = key("alice", "SHA256:1");
        assert!(enroll(&store, &first).await);
        assert_eq!(store.enrollment(first.id).await.unwrap().unwrap(), first);
        let after = approved(&first);
        assert!(change(&store, &first, &after).await);
        assert!(!change(&store, &first, &after).await, "it is not as it was any more");
        assert_eq!(store.enrollment_of("SHA256:1").await.unwrap().unwrap(), after);
        assert_eq!(store.enrollments().await.unwrap(), std::slice::from_ref(&after));
        let gone = removed(&after);
        assert!(change(&store, &after, &gone).await);
        assert_eq!(store.enrollments().await.unwrap(), []);
        assert_eq!(store.enrollment(first.id).await.unwrap().unwrap(), gone);
        assert_eq!(store.enrollment_of("SHA256:2").await.unwrap(), None);
        assert_eq!(store.enrollment(Uuid::nil()).await.unwrap(), None);
    }
}

#[tokio::test]
async fn a_key_is_one_person_s_ever_and_nobody_has_more_than_five() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let first = key("alice", "SHA256:0");
        assert!(enroll(&store, &first).await);
        assert!(!enroll(&store, &key("alice", "SHA256:0")).await, "it is enrolled");
        assert!(!enroll(&store, &key("bob", "SHA256:0")).await);
        for n in 1..5 {
            assert!(enroll(&store, &key("alice", &format!("SHA256:{n}"))).await);
        }
        assert!(!enroll(&store, &key("alice", "SHA256:5")).await);
        assert!(enroll(&store, &key("bob", "SHA256:5")).await, "others are not in the way");
        // In one group, each sees what those before it did.
        let gone = removed(&first);
        assert!(change(&store, &first, &gone).await);
        let both = ["SHA256:6", "SHA256:7"]
            .map(|name| Unit::default().with(Effect::Enroll(key("alice", name))));
        let outcomes = store.commit(&both).await.unwrap();
        assert_eq!(
            outcomes.iter().map(|one| one.is_committed()).collect::<Vec<_>>(),
            [true, false]
        );
        assert!(!enroll(&store, &key("bob", "SHA256:0")).await, "it was alice's");
        let sixth = store.enrollment_of("SHA256:6").await.unwrap().unwrap();
        assert!(change(&store, &sixth, &removed(&sixth)).await);
        assert!(enroll(&store, &key("alice", "SHA256:0")).await, "she may have it again");
        // Those that have lapsed are not counted, and may be enrolled anew.
        let later = |mut key: Enrollment| {
            key.enrolled_at += LASTS;
            key.seen_at += LASTS;
            key
        };
        assert!(!enroll(&store, &later(key("bob", "SHA256:1"))).await);
        assert!(enroll(&store, &later(key("alice", "SHA256:1"))).await);
        assert!(enroll(&store, &later(key("alice", "SHA256:8"))).await);
    }
}

#[tokio::test]
async fn what_nobody_ever_approved_is_forgotten_and_nothing_else() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let [waiting, counted, again] = [1, 2, 3].map(|n| key("alice", &format!("SHA256:{n}")));
        for one in [&waiting, &counted, &again] {
            assert!(enroll(&store, one).await);
        }
        for one in [&counted, &again] {
            assert!(change(&store, one, &approved(one)).await);
        }
        // Removed and enrolled anew: whose it was is known still.
        let known = store.enrollment_of("SHA256:3").await.unwrap().unwrap();
        assert!(change(&store, &known, &removed(&known)).await);
        assert!(enroll(&store, &key("alice", "SHA256:3")).await);
        assert_eq!(store.forget_pending(NOW, 9).await.unwrap(), 0, "they are not old");
        let later = NOW + Duration::seconds(1);
        assert_eq!(store.forget_pending(later, 9).await.unwrap(), 1);
        assert_eq!(store.enrollment_of("SHA256:1").await.unwrap(), None);
        assert!(!enroll(&store, &key("bob", "SHA256:3")).await);
        assert!(enroll(&store, &key("bob", "SHA256:1")).await);
        let moved = removed(&store.enrollment_of("SHA256:1").await.unwrap().unwrap());
        assert_eq!(moved.person, "bob");
    }
}

#[tokio::test]
async fn a_commit_rests_on_keys_that_are_approved_and_have_not_lapsed() {
    for ground in Ground::each().await {
        let store = ground.open().await;
        let (one, other) = (key("alice", "SHA256:1"), key("bob", "SHA256:2"));
        assert!(enroll(&store, &one).await && enroll(&store, &other).await);
        let rests = async |keys: &[&str], at: OffsetDateTime| {
            let keys = keys.iter().map(ToString::to_string).collect();
            let unit = Unit::default().with(Effect::IfEnrolled { keys, at });
            store.commit(&[unit]).await.unwrap()[0].is_committed()
        };
        assert!(!rests(&["SHA256:1"], NOW).await, "nobody has approved it");
        assert!(change(&store, &one, &approved(&one)).await);
        assert!(rests(&["SHA256:1"], NOW).await);
        assert!(rests(&["SHA256:1"], NOW + LASTS - Duration::MICROSECOND).await);
        assert!(!rests(&["SHA256:1"], NOW + LASTS).await, "it has lapsed");
        assert!(!rests(&["SHA256:1", "SHA256:2"], NOW).await, "each of them counts");
        let both = approved(&other);
        assert!(change(&store, &other, &both).await);
        assert!(rests(&["SHA256:1", "SHA256:2"], NOW).await);
        assert!(change(&store, &both, &removed(&both)).await);
        assert!(!rests(&["SHA256:1", "SHA256:2"], NOW).await, "one was removed");
        assert!(!rests(&["SHA256:3"], NOW).await, "nobody knows it");
    }
}
