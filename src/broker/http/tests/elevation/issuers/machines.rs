//! Machines may ask for a role, where policy lets them. They decide about nothing, whatever policy
//! and their tokens say.

use std::sync::atomic::AtomicI64;

use super::*;
use crate::broker::http::tests::header_of;
use crate::broker::http::tests::rates::Running;
use crate::host::clock::Clock;

const CI: &str = "https://ci.example.com";

/// A job may ask, and would approve if policy had its way.
const JOBS: &str = r#"
@id("jobs-ask")
permit (principal == User::"https://ci.example.com#job", action == Action::"elevate", resource == Role::"admin");

@id("jobs-approve")
permit (principal == User::"https://ci.example.com#job", action == Action::"approve", resource == Role::"admin");

@id("everybody-approves") @any_issuer
permit (principal, action == Action::"approve", resource == Role::"admin");

@id("jobs-have-it") @ttl("1h") @scope("deploy:read")
permit (principal == User::"https://ci.example.com#job", action == Action::"issue", resource == Role::"admin")
when { context has elevation };
"#;

/// It sees all of the role, because it may revoke that.
const REVOKES: &str = r#"
@id("jobs-revoke")
permit (principal == User::"https://ci.example.com#job", action == Action::"revoke", resource);
"#;

/// All that is a decision, with what it takes.
const DECISIONS: [(&str, &[(&str, &str)]); 3] =
    [("approve", &[]), ("deny", &[("reason", "no")]), ("review", &REVIEW)];

async fn place(more: &str) -> (Place, Another) {
    place_at(more, None).await
}

/// The same, by this clock where there is one.
async fn place_at(more: &str, clock: Option<Arc<dyn Clock>>) -> (Place, Another) {
    let ci = Another::new(CI);
    let place = Place::built(
        None,
        |_| {},
        |options| {
            ci.trusted(options);
            options.policies += JOBS;
            options.policies += more;
            if let Some(clock) = clock {
                options.clock = clock;
            }
        },
    )
    .await;
    (place, ci)
}

impl Place {
    /// What a machine was denied about it, as it is on record.
    async fn denied_to_machines(&self, of: &Value) -> Vec<String> {
        let records = self.records_of(of).await.into_iter();
        let denied = records.filter(|one| one.decision == Decision::Denied);
        denied.filter(|one| one.principal.issuer == CI).map(|one| one.action).collect()
    }
}

#[tokio::test]
async fn a_machine_has_a_role_that_people_approve_and_decides_nothing_about_its_own() {
    let (place, ci) = place("").await;
    let asked = json_of(&ci.asks(&place, "job", &[]).await);
    assert_eq!(asked["access"], "pending", "{asked}");
    // It may be called as it likes, and is nobody of that name.
    let told = place.told().await;
    let titles: Vec<_> = told.iter().map(|message| message.title()).collect();
    assert_eq!(titles, ["a machine of https://ci.example.com (job) asks for admin"]);
    for (what, form) in DECISIONS {
        let (status, said) = ci.not_done(&place, "job", what, &asked, form).await;
        if what == "review" {
            // There is nothing to review yet.
            assert_eq!(status, 409, "{said}");
        } else {
            assert!(status == 403 && said.contains("only people decide"), "{what}: {said}");
        }
    }
    assert_eq!(place.shown("bob", &asked).await["approvals"], json!([]));
    place.done("bob", "approve", &asked, &[]).await;
    let (status, said) = ci.not_done(&place, "job", "approve", &asked, &[]).await;
    assert!(status == 403 && said.contains("only people decide"), "{said}");
    let (status, said) = ci.not_done(&place, "job", "activate", &asked, &[]).await;
    assert!(status == 409 && said.contains("it is pending"), "{said}");
    place.done("carol", "approve", &asked, &[]).await;
    // For people these two are enough; who has started the job may be one of them.
    let waiting = place.shown("carol", &asked).await;
    assert_eq!((&waiting["access"], &waiting["needs"][0]["count"]), (&json!("pending"), &json!(3)));
    place.done("erin", "approve", &asked, &[]).await;
    let active = ci.does(&place, "job", "activate", &asked, &[]).await;
    assert_eq!(json_of(&active)["access"], "active");
    let changes = [("role", "admin"), ("audience", API)];
    let issued = place.bed.exchange(&ci.token(&place, "job"), &changes).await;
    assert_eq!(issued.status, StatusCode::OK, "{}", json_of(&issued));
    assert_eq!(ci.does(&place, "job", "relinquish", &asked, &[]).await.status, StatusCode::OK);
    let (status, said) = ci.not_done(&place, "job", "review", &asked, &REVIEW).await;
    assert!(status == 403 && said.contains("only people decide"), "{said}");
    assert_eq!(place.shown("erin", &asked).await["review"], "due");
    assert_eq!(
        place.denied_to_machines(&asked).await,
        ["elevation.approve", "elevation.deny", "elevation.approve", "elevation.review"]
    );
    place.done("alice", "review", &asked, &REVIEW).await;
}

/// Tries all there is, and has to be refused like this each time.
async fn is_refused(place: &Place, ci: &Another, subject: &str, expected: u16) {
    let asked = place.requested("alice", &[]).await;
    let before = place.shown("alice", &asked).await;
    for (what, form) in &DECISIONS[..2] {
        let (status, said) = ci.not_done(place, subject, what, &asked, form).await;
        assert_eq!(status, expected, "{what}: {said}");
    }
    assert_eq!(place.shown("alice", &asked).await, before, "nothing of it counts");
    assert_eq!(place.denied_to_machines(&asked).await, ["elevation.approve", "elevation.deny"]);
    // One of two is missing still, whatever a machine says besides.
    place.done("bob", "approve", &asked, &[]).await;
    let (status, _) = ci.not_done(place, subject, "approve", &asked, &[]).await;
    assert_eq!(status, expected);
    let shown = place.shown("alice", &asked).await;
    assert_eq!(
        (&shown["access"], &shown["needs"][0]["have"]),
        (&json!("pending"), &json!(["bob"]))
    );
    place.done("carol", "approve", &asked, &[]).await;
    place.done("alice", "activate", &asked, &[]).await;
    place.done("alice", "relinquish", &asked, &[]).await;
    let (status, said) = ci.not_done(place, subject, "review", &asked, &REVIEW).await;
    assert_eq!(status, expected, "{said}");
    assert_eq!(place.shown("erin", &asked).await["review"], "due");
    let denied = place.denied_to_machines(&asked).await;
    assert_eq!(denied[2..], ["elevation.approve", "elevation.review"]);
    for which in ["to-approve", "to-review"] {
        let path = format!("?which={which}");
        let token = ci.token(place, subject);
        let page = json_of(&place.ask(&token, (Method::GET, &path), &[]).await);
        assert_eq!(page["elevations"], json!([]), "{which}");
    }
}

#[tokio::test]
async fn a_machine_whom_policy_would_let_approve_decides_about_nobody_s_request() {
    let (place, ci) = place("").await;
    // Not even that there is one is it told; that it tried is on record.
    is_refused(&place, &ci, "job", 404).await;
}

#[tokio::test]
async fn a_machine_that_sees_what_is_asked_for_decides_no_more_about_it() {
    let (place, ci) = place(REVOKES).await;
    is_refused(&place, &ci, "job", 403).await;
    // What policy lets it do besides it does: that is no decision.
    let asked = place.requested("dave", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    let reason = [("reason", "the pipeline is red")];
    let revoked = json_of(&ci.does(&place, "job", "revoke", &asked, &reason).await);
    assert_eq!(revoked["access"], "revoked", "{revoked}");
}

#[tokio::test]
async fn a_machine_with_the_name_of_a_person_is_a_machine() {
    let (place, ci) = place("").await;
    is_refused(&place, &ci, "bob", 404).await;
}

/// Jobs are called after branches, and whoever starts them chooses those.
const BRANCHES: &str = r#"
@id("branches-ask")
permit (principal, action == Action::"elevate", resource == Role::"admin")
when { principal.issuer == "https://ci.example.com" };
"#;

#[tokio::test]
async fn whoever_chooses_what_jobs_are_called_asks_no_more_often_by_that() {
    let (place, ci) = place_at(BRANCHES, Some(Arc::new(Running(AtomicI64::new(1000))))).await;
    let asks = async |number: usize, changes: &[(&str, &str)]| {
        let subject = format!("repo:acme/app:ref:refs/heads/alice-{}-b{number}", "x".repeat(200));
        ci.asks(&place, &subject, changes).await
    };
    for number in 0..30 {
        let answer = asks(number, &[]).await;
        assert_eq!(answer.status, StatusCode::CREATED, "{number}: {}", json_of(&answer));
    }
    let told = place.told().await.len();
    for number in 30..40 {
        let answer = asks(number, &[]).await;
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", json_of(&answer));
        let after: u64 = header_of(&answer, "retry-after").parse().unwrap();
        assert_eq!(after, 20);
    }
    assert_eq!(place.told().await.len(), told, "nobody is told of it");
    // However much of a headline a job writes itself, it says whose and what for.
    for message in place.told().await {
        let title = message.title();
        assert!(title.starts_with("a machine of https://ci.example.com (repo:acme/app"), "{title}");
        assert!(title.ends_with("…) asks for admin"), "{title}");
    }
    let counted = place.bed.admin.get("/metrics").await;
    let counted = String::from_utf8(counted.body.expose().clone()).unwrap();
    let line = "tmpcred_rate_limited_total{reason=\"machines\",route=\"elevations\"} 10";
    assert!(counted.contains(line), "{counted}");
    // An emergency is one, and people may ask as often as ever.
    let had = asks(40, &[("emergency", "true")]).await;
    assert_eq!(json_of(&had)["access"], "emergency-active", "{}", json_of(&had));
    for _ in 0..10 {
        let asked = place.requested("alice", &[]).await;
        place.done("alice", "withdraw", &asked, &[]).await;
    }
}
