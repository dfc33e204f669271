//! What happens between the look at an elevation and the commit of what was decided about it.

use super::*;
use crate::broker::store::{Effect, Store, Unit, sqlite};
use crate::broker::testbed::failing::Failing;

/// A broker at which something can be done in between, and another one that does it.
struct Two {
    slow: Down,
    store: Arc<Failing>,
    other: Arc<Down>,
}

impl Two {
    async fn new() -> Self {
        let inner: Arc<dyn Store> = Arc::new(sqlite::in_memory().await.unwrap());
        let (store, root_key) =
            (Failing::over(inner.clone()), crate::broker::keys::RootKey::random().unwrap());
        let down = async |store: Arc<dyn Store>| {
            let change = |role: &mut Role| {
                let rules = role.elevation.as_mut().unwrap();
                rules.provider_down = Some(ProviderDown::default());
                (rules.renewable, rules.cool_down) = (true, Duration::from_secs(600));
            };
            let place = Place::built(None, change, |options| {
                (options.store, options.root_key) = (store, root_key.clone());
            });
            Down { place: place.await }
        };
        let slow = down(store.clone()).await;
        Self { slow, store, other: Arc::new(down(inner).await) }
    }

    /// Has this key removed as the next change is about to be committed.
    fn removes(&self, whose: &str, id: &str) {
        let (other, whose, id) = (self.other.clone(), whose.to_string(), id.to_string());
        self.store.before_change(async move {
            let form = [("reason", "stolen")];
            let response = other.operates(&whose, &format!("/{id}/remove"), &form).await;
            assert_eq!(response.status, StatusCode::OK, "{}", json_of(&response));
        });
    }

    /// Alice has asked, and Bob approved by a key of this id.
    async fn half_approved(&self) -> (Value, String) {
        let (asked, _, (_, id)) = self.asked_and_approved().await;
        (asked, id)
    }

    /// The same with the request and the key.
    async fn asked_and_approved(&self) -> (Value, Statement, (OwnKey, String)) {
        let alice = self.slow.key_of("alice").await;
        let (bob, id) = self.slow.key_with_id("bob", "bob").await;
        let wants = self.slow.wants();
        let approval = signed(self.slow.approves("bob", &wants), &bob);
        let asked = self.slow.brought(&(signed(wants.clone(), &alice) + &approval)).await;
        (asked, wants, (bob, id))
    }

    /// What was done about one, with what came between.
    async fn story(&self, of: &Value) -> Vec<String> {
        let records = self.slow.place.records_of(of).await.into_iter();
        let changed = records.filter(|one| one.decision == Decision::Changed);
        changed.map(|one| format!("{} {}", one.action, one.principal.subject)).collect()
    }
}

#[tokio::test]
async fn an_approval_by_a_key_that_is_removed_at_that_moment_is_none() {
    let two = Two::new().await;
    let alice = two.slow.key_of("alice").await;
    let (bob, id) = two.slow.key_with_id("bob", "bob").await;
    let wants = two.slow.wants();
    let asked = two.slow.brought(&signed(wants.clone(), &alice)).await;
    two.removes("bob", &id);
    let (status, said) =
        told(&two.slow.brings(&signed(two.slow.approves("bob", &wants), &bob)).await);
    assert!(status == 403 && said.contains("does not count any more"), "{status} {said}");
    assert_eq!(two.story(&asked).await, ["elevation.request alice"]);
    assert_eq!(two.slow.place.shown("alice", &asked).await["approvals"], json!([]));
}

#[tokio::test]
async fn it_is_not_approved_by_whose_key_is_removed_as_the_last_one_approves() {
    let two = Two::new().await;
    let (asked, id) = two.half_approved().await;
    two.removes("bob", &id);
    let shown = two.slow.place.shown("carol", &asked).await;
    let after = two.slow.place.done("carol", "approve", &shown, &[]).await;
    assert_eq!(
        (&after["access"], &after["needs"][0]["have"]),
        (&json!("pending"), &json!(["carol"]))
    );
    // That he had approved stays to be seen.
    let approvals = after["approvals"].as_array().unwrap();
    let seen: Vec<_> = approvals.iter().map(|one| (&one["by"]["person"], &one["counts"])).collect();
    assert_eq!(seen, [(&json!("bob"), &json!(false)), (&json!("carol"), &json!(true))]);
    // By a login he approves in its place, and once.
    let approved = two.slow.place.done("bob", "approve", &shown, &[]).await;
    assert_eq!(approved["access"], "approved");
    assert_eq!(approved["approvals"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn nothing_begins_by_the_approval_of_a_key_that_is_removed_at_that_moment() {
    let two = Two::new().await;
    let (asked, id) = two.half_approved().await;
    let shown = two.slow.place.shown("carol", &asked).await;
    two.slow.place.done("carol", "approve", &shown, &[]).await;
    two.removes("bob", &id);
    let (status, said) = two.slow.place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.starts_with("elevation_short"), "{status} {said}");
    // Erin says yes instead; who did not count is named, and does not review it.
    two.slow.place.done("erin", "approve", &shown, &[]).await;
    let active = two.slow.place.done("alice", "activate", &asked, &[]).await;
    let counts: Vec<_> =
        active["approvals"].as_array().unwrap().iter().map(|one| &one["counts"]).collect();
    assert_eq!(counts, [false, true, true]);
    let record = two.slow.place.records_of(&asked).await.pop().unwrap();
    assert_eq!(record.reason, "began it, approved by carol, erin; not counted: bob");
    two.slow.place.done("alice", "relinquish", &active, &[]).await;
    let review = [("outcome", "reviewed"), ("note", "fine")];
    assert_eq!(two.slow.place.not_done("bob", "review", &active, &review).await.0, 403);
}

#[tokio::test]
async fn nothing_begins_as_another_one_ends_at_that_moment() {
    let two = Two::new().await;
    let mut approved = Vec::new();
    for _ in 0..2 {
        let asked = two.slow.place.requested("alice", &[]).await;
        two.slow.place.done("bob", "approve", &asked, &[]).await;
        approved.push(two.slow.place.done("carol", "approve", &asked, &[]).await);
    }
    two.slow.place.done("alice", "activate", &approved[0], &[]).await;
    let (other, first) = (two.other.clone(), approved[0].clone());
    two.store.before_change(async move {
        other.place.done("erin", "revoke", &first, &[("reason", "enough")]).await;
    });
    let (status, said) = two.slow.place.not_done("alice", "activate", &approved[1], &[]).await;
    assert!(status == 409 && said.contains("you had the role until"), "{status} {said}");
    assert_eq!(two.slow.place.shown("alice", &approved[1]).await["access"], "approved");
}

/// What a broker was asked by the rules and the people of that moment it does by those; what comes
/// next goes by the new ones.
#[tokio::test]
async fn who_leaves_at_that_moment_counts_for_what_is_being_done_and_for_nothing_after() {
    let two = Two::new().await;
    let asked = two.slow.place.requested("alice", &[]).await;
    two.slow.place.done("bob", "approve", &asked, &[]).await;
    let (broker, file) =
        (two.slow.place.bed.broker.clone(), two.slow.place.dir.path().join("people.toml"));
    let without_bob = people(&["bob"]);
    two.store.before_change(async move {
        crate::host::files::write_private(&file, without_bob.as_bytes()).unwrap();
        broker.reload_policies().unwrap();
    });
    let approved = two.slow.place.done("carol", "approve", &asked, &[]).await;
    assert_eq!(approved["access"], "approved");
    // It does not begin by that.
    let (status, said) = two.slow.place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.starts_with("elevation_short"), "{status} {said}");
}

#[tokio::test]
async fn no_token_is_issued_by_a_key_that_is_removed_at_that_moment() {
    let two = Two::new().await;
    let (alice, id) = two.slow.key_with_id("alice", "alice").await;
    let (bob, carol) = (two.slow.key_of("bob").await, two.slow.key_of("carol").await);
    let wants = two.slow.wants();
    let bundle = [
        signed(wants.clone(), &alice),
        signed(two.slow.approves("bob", &wants), &bob),
        signed(two.slow.approves("carol", &wants), &carol),
        signed(two.slow.uses(&wants), &alice),
    ];
    let active = two.slow.brought(&bundle.concat()).await;
    assert_eq!(active["access"], "active");
    two.removes("alice", &id);
    let (status, said) = told(&two.slow.token(&signed(two.slow.uses(&wants), &alice), &[]).await);
    assert!(status == 400 && said.contains("does not count any more"), "{status} {said}");
    let records = two.slow.place.records_of(&active).await;
    assert!(!records.iter().any(|one| one.decision == Decision::Issued), "{records:?}");
}

#[tokio::test]
async fn a_key_that_is_enrolled_anew_brings_back_nothing_that_it_approved_before() {
    let two = Two::new().await;
    let (asked, wants, (bob, id)) = two.asked_and_approved().await;
    let mut again = two.slow.enrollment(&bob).await;
    let form = [("reason", "lost")];
    let response = two.slow.operates("bob", &format!("/{id}/remove"), &form).await;
    assert_eq!(response.status, StatusCode::OK, "{}", json_of(&response));
    assert_eq!(two.slow.place.shown("carol", &asked).await["needs"][0]["have"], json!([]));
    // As it was before, but approved later.
    let gone = two.slow.enrollment(&bob).await;
    let later = two.slow.now() + time::Duration::MINUTE;
    again.approved = again.approved.map(|(by, _)| (by, later));
    let again = two.slow.place.bed.broker.enrollment_seal.over(again);
    let effect = Effect::ChangeEnrollment { before: gone, after: Box::new(again) };
    let unit = Unit::default().with(effect);
    assert!(two.slow.place.bed.store.commit(&[unit]).await.unwrap()[0].is_committed());
    assert_eq!(two.slow.place.shown("carol", &asked).await["needs"][0]["have"], json!([]));
    // What it signs from then on counts.
    two.slow.place.later(120);
    let anew = signed(two.slow.approves("bob", &wants), &bob);
    assert_eq!(two.slow.brought(&anew).await["needs"][0]["have"], json!(["bob"]));
}
