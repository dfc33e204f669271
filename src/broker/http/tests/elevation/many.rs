//! Ten thousand requests that wait: what is done for somebody follows from what they are shown,
//! and not from what there is.

use uuid::Uuid;

use super::*;
use crate::broker::store::sqlite;
use crate::broker::testbed::failing::Failing;

const MANY: u128 = 10_000;

/// How much a page has.
const PAGE: usize = 50;

/// Besides the role `admin`: `vault`, which two others approve, and `short`, which leads approve
/// where it is for a minute at most.
const MORE: &str = r#"
@id("vault-keepers")
permit (principal, action == Action::"approve", resource == Role::"vault")
when { principal in Person::"dave" || principal in Person::"erin" };

@id("short-ones")
permit (principal in DirectoryGroup::"leads", action == Action::"approve", resource == Role::"short")
when { context.ttl <= 60 };
"#;

struct Crowd {
    place: Place,
    store: Arc<Failing>,
    like: Value,
}

impl Crowd {
    async fn new() -> Self {
        let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
        let renewable = |role: &mut Role| role.elevation.as_mut().unwrap().renewable = true;
        let place = Place::built(None, renewable, |options| {
            let admin = options.config.role["admin"].clone();
            options.config.role.insert("short".into(), admin.clone());
            let mut vault = admin;
            vault.elevation.as_mut().unwrap().approvals[0].groups = ["staff".into()].into();
            options.config.role.insert("vault".into(), vault);
            options.policies += MORE;
            options.store = store.clone();
        })
        .await;
        let like = place.requested("alice", &[]).await;
        Self { place, store, like }
    }

    /// So many more of this role, each by somebody else.
    async fn waits(&self, first: u128, count: u128, role: &str, ttl: u64) {
        let like = Uuid::parse_str(self.like["id"].as_str().unwrap()).unwrap();
        let change = |number: u128, asked: &mut crate::broker::elevation::Asked| {
            asked.by.subject = format!("person-{number}");
            asked.by.person = None;
            asked.role = role.into();
            asked.ttl = ttl;
            asked.at += time::Duration::milliseconds(i64::try_from(number).unwrap());
        };
        self.place.bed.broker.multiply(like, (first, count), change).await;
    }

    /// How many somebody is shown, and how many were read and opened for that.
    async fn work(&self, subject: &str, which: &str) -> (usize, usize, usize) {
        self.store.rows.store(0, Ordering::Relaxed);
        self.place.bed.broker.opened();
        let shown = self.place.listed(subject, which).await.len();
        (shown, self.store.rows.swap(0, Ordering::Relaxed), self.place.bed.broker.opened())
    }
}

#[tokio::test]
async fn with_ten_thousand_a_list_reads_what_it_shows() {
    let crowd = Crowd::new().await;
    crowd.waits(1, 10, "admin", 1800).await;
    assert_eq!(crowd.work("bob", "to-approve").await, (11, 11, 11));
    crowd.waits(11, MANY, "admin", 1800).await;
    assert_eq!(crowd.work("bob", "to-approve").await, (PAGE, PAGE, PAGE));
    // Whoever approves nothing has nothing read for them, and their own are a list of its own.
    assert_eq!(crowd.work("dave", "to-approve").await, (0, 0, 0));
    assert_eq!(crowd.work("alice", "mine").await, (1, 1, 1));
    for which in ["active", "to-review"] {
        assert_eq!(crowd.work("bob", which).await, (0, 0, 0), "{which}");
    }
    // What there is of other roles is not in the way of the ones that they approve.
    crowd.waits(20_000, MANY, "vault", 1800).await;
    assert_eq!(crowd.work("bob", "to-approve").await, (PAGE, PAGE, PAGE));
    assert_eq!(crowd.work("alice", "active").await, (0, 0, 0));
}

#[tokio::test]
async fn where_policies_tell_requests_apart_nothing_is_hidden_and_nothing_opened_in_vain() {
    let crowd = Crowd::new().await;
    crowd.waits(1, 3, "short", 60).await;
    crowd.waits(100, MANY, "short", 1800).await;
    // The three that are theirs to approve are older than all others. The one of alice's is there.
    assert_eq!(crowd.work("bob", "to-approve").await, (4, MANY as usize + 4, 4));
}

#[tokio::test]
async fn with_ten_thousand_to_ask_to_approve_and_the_clock_look_at_no_other() {
    let crowd = Crowd::new().await;
    crowd.waits(1, MANY, "admin", 1800).await;
    let place = &crowd.place;
    place.bed.broker.opened();
    let asked = place.requested("alice", &[("idempotency_key", "k")]).await;
    assert_eq!(place.bed.broker.opened(), 0);
    place.done("bob", "approve", &asked, &[]).await;
    assert_eq!(place.bed.broker.opened(), 1);
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 0);
    place.done("carol", "approve", &asked, &[]).await;
    place.done("alice", "activate", &asked, &[]).await;
    assert_eq!(place.bed.broker.opened(), 2);
    assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
    assert!(place.bed.broker.opened() <= 2);
    assert_eq!(crowd.work("bob", "active").await, (1, 1, 1));
    assert_eq!(crowd.work("dave", "active").await, (0, 0, 0));
}

#[tokio::test]
async fn pages_lead_through_all_of_them() {
    let crowd = Crowd::new().await;
    crowd.waits(1, 120, "admin", 1800).await;
    crowd.waits(1000, 700, "short", 1800).await;
    crowd.waits(2000, 30, "short", 30).await;
    let (mut below, mut seen) = (String::new(), std::collections::BTreeSet::new());
    loop {
        let path = format!("?which=to-approve&limit=20{below}");
        let token = crowd.place.token("bob");
        let page = json_of(&crowd.place.ask(&token, (Method::GET, &path), &[]).await);
        for one in page["elevations"].as_array().unwrap() {
            assert!(seen.insert(one["id"].to_string()), "{one} is there twice");
        }
        let Some(next) = page["next_below"].as_str() else { break };
        below = format!("&below={next}");
    }
    assert_eq!(seen.len(), 151);
}
