//! The time after a grant in which its role is not had again: nobody gets around it by asking
//! beforehand.

use super::*;

async fn place() -> Place {
    Place::with(|role| {
        let rules = role.elevation.as_mut().unwrap();
        (rules.renewable, rules.cool_down) = (true, Duration::from_secs(600));
    })
    .await
}

impl Place {
    async fn approved(&self, subject: &str) -> Value {
        let asked = self.requested(subject, &[]).await;
        self.done("bob", "approve", &asked, &[]).await;
        self.done("carol", "approve", &asked, &[]).await
    }
}

#[tokio::test]
async fn what_was_approved_before_begins_while_it_is_had_or_after_that_time() {
    let place = place().await;
    let [first, second] = [place.approved("alice").await, place.approved("alice").await];
    place.done("alice", "activate", &first, &[]).await;
    let third = place.approved("alice").await;
    // A renewal, which is had before the first one ends.
    place.done("alice", "activate", &second, &[]).await;
    for one in [&first, &second] {
        place.done("alice", "relinquish", one, &[]).await;
    }
    for subject in ["alice", "alice-too"] {
        let (status, said) = place.not_done(subject, "activate", &third, &[]).await;
        assert!(
            status == 409 && said.contains("you had the role until") && said.contains("from"),
            "{said}"
        );
    }
    assert_eq!(place.shown("alice", &third).await["access"], "approved");
    // Nor is anything told of it, or on record.
    let records = place.records_of(&third).await;
    assert!(!records.iter().any(|one| one.action == "elevation.activate"), "{records:?}");
    place.later(601);
    assert_eq!(place.done("alice", "activate", &third, &[]).await["access"], "active");
}

#[tokio::test]
async fn what_others_had_is_in_nobody_s_way() {
    let place = place().await;
    let (hers, his) = (place.approved("alice").await, place.approved("dave").await);
    place.done("alice", "activate", &hers, &[]).await;
    place.done("alice", "relinquish", &hers, &[]).await;
    assert_eq!(place.done("dave", "activate", &his, &[]).await["access"], "active");
}

#[tokio::test]
async fn what_is_ended_before_it_begins_is_told_as_that() {
    let place = place().await;
    let approved = place.approved("alice").await;
    place.done("erin", "revoke", &approved, &[("reason", "not now")]).await;
    let (status, said) = told(&place.request("alice", &[]).await);
    assert!(status == 409 && said.contains("what was approved for you was ended at"), "{said}");
}
