//! What is left of a role that is had by elevation no more.

use super::*;
use crate::broker::store::{Store, sqlite};
use crate::broker::testbed::failing::Failing;

const REVIEW: [(&str, &str); 2] = [("outcome", "reviewed"), ("note", "as it should be")];

/// A broker, and the same one once its role is gone, where Erin and Alice may revoke everything.
async fn before_and_after() -> (Place, Place) {
    let store: Arc<dyn Store> = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
    let root_key = crate::broker::keys::RootKey::random().unwrap();
    let before = Place::built(
        None,
        |_| {},
        |options| {
            (options.store, options.root_key) = (store.clone(), root_key.clone());
        },
    )
    .await;
    let after = Place::built(None, |_| {}, |options| {
        options.config.role.remove("admin");
        options.policies = options.policies.replace(&RULES.replace("CORP", CORP), "");
        options.policies += &format!(
            "@id(\"ops\") permit (principal, action == Action::\"revoke\", resource) when {{ [User::\"{CORP}#erin\", User::\"{CORP}#alice\", User::\"{CORP}#bob\"].contains(principal) }};\n"
        );
        (options.store, options.root_key) = (store, root_key);
    })
    .await;
    (before, after)
}

#[tokio::test]
async fn whoever_may_revoke_its_tokens_reviews_it() {
    let (before, after) = before_and_after().await;
    let active = before.active().await;
    before.done("alice", "relinquish", &active, &[]).await;
    for (who, listed) in [("erin", 1), ("alice", 0), ("bob", 0), ("carol", 0), ("dave", 0)] {
        assert_eq!(after.listed(who, "to-review").await.len(), listed, "{who}");
    }
    // Not who had it, nor who approved, nor who may not revoke it.
    for (who, expected) in [("alice", 403), ("bob", 403), ("carol", 404), ("dave", 404)] {
        let (status, said) = after.not_done(who, "review", &active, &REVIEW).await;
        assert_eq!(status, expected, "{who}: {said}");
    }
    assert_eq!(after.shown("erin", &active).await["may"], json!(["review"]));
    let reviewed = after.done("erin", "review", &active, &REVIEW).await;
    assert_eq!(reviewed["review"], "reviewed");
    assert_eq!(after.listed("erin", "to-review").await.len(), 0);
}

#[tokio::test]
async fn it_is_counted_and_told_who_is_to_review_it() {
    let (before, after) = before_and_after().await;
    let active = before.active().await;
    before.done("alice", "relinquish", &active, &[]).await;
    let counted = async |state: &str| {
        let response = after.bed.admin.get("/metrics").await;
        let text = String::from_utf8(response.body.expose().clone()).unwrap();
        let name = format!("tmpcred_elevations{{role=\"admin\",state=\"{state}\"}} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&name).map(String::from));
        line.unwrap_or_else(|| panic!("{name}: {text}"))
    };
    assert_eq!(
        (counted("review-due").await, counted("review-overdue").await),
        ("1".into(), "0".into())
    );
    after.later(25 * 3600);
    assert_eq!(after.bed.broker.due_elevations().await.unwrap(), 1);
    assert_eq!(
        (counted("review-due").await, counted("review-overdue").await),
        ("1".into(), "1".into())
    );
    let told = after.told().await;
    let overdue = told.into_iter().find(|one| one.kind() == "review-overdue").unwrap();
    let text = format!("{overdue:?}");
    assert!(text.contains("whoever may revoke its tokens may review this"), "{text}");
}
