//! Rules about people and groups of the directory.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::broker::audit::Decision;
use crate::broker::directory::Settings;
use crate::broker::testbed::{Bed, CORP, Shifted, json_of, now};

const RULES: &str = r#"
@id("on-call-deploys") @ttl("15m") @scope("deploy:read")
permit (principal in DirectoryGroup::"on-call", action == Action::"issue", resource == Role::"deploy");

@id("bob-deploys") @ttl("15m") @scope("deploy:read")
permit (principal in Person::"bob", action == Action::"issue", resource == Role::"deploy");

@id("others-read") @ttl("15m") @any_issuer
permit (principal, action == Action::"issue", resource == Role::"read")
unless { principal in DirectoryGroup::"on-call" };

@id("token-groups-deploy") @ttl("15m")
permit (principal in Group::"CORP#admins", action == Action::"issue", resource == Role::"deploy");
"#;

const FORBID: &str = r#"
@id("not-while-suspended")
forbid (principal in DirectoryGroup::"suspended", action == Action::"issue", resource == Role::"deploy");
"#;

fn people(as_of: OffsetDateTime) -> String {
    format!(
        r#"
as_of = "{}"
[group.on-call]
[group.suspended]
[person.alice]
ids = [{{ issuer = "{CORP}", subject = "alice" }}]
groups = ["on-call"]
[person.bob]
ids = [{{ issuer = "{CORP}", subject = "bob" }}]
"#,
        as_of.format(&Rfc3339).unwrap()
    )
}

fn write(path: &Path, text: &str) {
    crate::host::files::write_private(path, text.as_bytes()).unwrap();
}

struct Place {
    dir: tempfile::TempDir,
    clock: Arc<Shifted>,
    bed: Bed,
}

impl Place {
    async fn new(rules: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, policy) = (dir.path().join("people.toml"), dir.path().join("policy.cedar"));
        let rules = rules.replace("CORP", CORP);
        write(&file, &people(now()));
        write(&policy, &rules);
        let clock = Arc::new(Shifted::default());
        let bed = Bed::with(|options| {
            let max_age = Some(Duration::from_secs(3600));
            options.config.directory = Some(Settings { file, max_age });
            options.config.policy.files = vec![policy];
            let read = options.config.role["deploy"].clone();
            options.config.role.insert("read".into(), read);
            options.policies = rules;
            options.clock = clock.clone();
        })
        .await;
        Self { dir, clock, bed }
    }

    fn write(&self, text: &str) {
        write(&self.dir.path().join("people.toml"), text);
    }

    /// What this subject is told, in this role: `issued`, or why not.
    async fn told(&self, sub: &str, groups: &[&str], role: &str) -> String {
        let ahead = self.clock.0.load(Ordering::Relaxed);
        let at = now().unix_timestamp() + ahead;
        let claims = json!({"sub": sub, "groups": groups, "iat": at, "exp": at + 300});
        let response = self.bed.exchange(&self.bed.key.token(claims), &[("role", role)]).await;
        match response.status.as_u16() {
            200 => "issued".into(),
            _ => json_of(&response)["error_description"].as_str().unwrap().to_string(),
        }
    }

    async fn metric(&self, name: &str) -> f64 {
        let text = self.bed.admin.get("/metrics").await;
        let text = String::from_utf8(text.body.expose().clone()).unwrap();
        let line = text.lines().find(|line| line.starts_with(name)).unwrap();
        line.rsplit_once(' ').unwrap().1.parse().unwrap()
    }
}

#[tokio::test]
async fn who_is_in_the_directory_decides_and_no_group_of_a_token_is_taken_for_one_of_it() {
    let place = Place::new(&(RULES.to_string() + FORBID)).await;
    assert_eq!(place.told("alice", &[], "deploy").await, "issued");
    assert_eq!(place.told("bob", &[], "deploy").await, "issued");
    assert_eq!(place.told("carol", &[], "read").await, "issued");
    assert!(place.told("alice", &[], "read").await.starts_with("no policy permits"));
    // What a token says of groups is something else.
    assert!(place.told("carol", &["on-call"], "deploy").await.starts_with("no policy permits"));
    assert_eq!(place.told("carol", &["admins"], "deploy").await, "issued");
}

#[tokio::test]
async fn it_is_read_again_with_the_policies_and_a_broken_one_is_refused() {
    let place = Place::new(&(RULES.to_string() + FORBID)).await;
    let first = place.bed.broker.policies().hash().to_string();
    let fresh = people(now());
    for broken in [
        "person = 7".to_string(),
        fresh.replace("\"on-call\"]", "\"nobody-knows\"]"),
        // A group that policies speak of.
        fresh.replace("[group.suspended]", ""),
        fresh.replace("as_of", "# as_of"),
    ] {
        place.write(&broken);
        assert!(place.bed.broker.reload_policies().is_err(), "{broken}");
        assert_eq!(place.bed.broker.policies().hash(), first);
        assert_eq!(place.told("alice", &[], "deploy").await, "issued");
    }
    // Alice is suspended; Bob has left, though a policy still speaks of him.
    let changed = fresh.replace("\"on-call\"]", "\"on-call\", \"suspended\"]");
    place.write(changed.split("[person.bob]").next().unwrap());
    place.bed.broker.reload_policies().unwrap();
    assert_ne!(place.bed.broker.policies().hash(), first);
    assert!(place.told("alice", &[], "deploy").await.starts_with("a policy forbids"));
    assert!(place.told("bob", &[], "deploy").await.starts_with("no policy permits"));
}

#[tokio::test]
async fn rules_that_use_it_deny_once_it_is_out_of_date() {
    let place = Place::new(RULES).await;
    assert_eq!(place.metric("tmpcred_directory_stale").await, 0.0);
    assert_eq!(place.metric("tmpcred_directory_people").await, 2.0);
    place.clock.0.store(3700, Ordering::Relaxed);
    for (sub, role) in [("alice", "deploy"), ("bob", "deploy"), ("carol", "read")] {
        let told = place.told(sub, &[], role).await;
        assert!(told.starts_with("the directory of people is out of date"), "{sub}: {told}");
    }
    // Others go on.
    assert_eq!(place.told("carol", &["admins"], "deploy").await, "issued");
    assert_eq!(place.metric("tmpcred_directory_stale").await, 1.0);
    assert!(place.metric("tmpcred_directory_age_seconds").await > 3600.0);
    place.write(&people(now() + time::Duration::seconds(3600)));
    place.bed.broker.reload_policies().unwrap();
    assert_eq!(place.told("alice", &[], "deploy").await, "issued");
}

#[tokio::test]
async fn what_it_might_forbid_is_denied_to_all_once_it_is_out_of_date() {
    let place = Place::new(&(RULES.to_string() + FORBID)).await;
    place.clock.0.store(3700, Ordering::Relaxed);
    let told = place.told("carol", &["admins"], "deploy").await;
    assert!(told.starts_with("the directory of people is out of date"), "{told}");
    let records = place.bed.records(0, 9).await;
    assert_eq!(records[0].1.decision, Decision::Denied);
}

/// However a policy names what it is about, it is about that, or not.
#[tokio::test]
async fn whatever_its_head_says_a_policy_that_might_forbid_does_and_no_other_one() {
    for (head, about_this) in [
        ("action, resource", true),
        (r#"action in [Action::"issue", Action::"exchange"], resource"#, true),
        (r#"action == Action::"issue", resource is Role"#, true),
        (r#"action, resource in Role::"deploy""#, true),
        (r#"action, resource is Role in Role::"deploy""#, true),
        (r#"action == Action::"act", resource"#, false),
        (r#"action in [Action::"act", Action::"exchange"], resource is Role"#, false),
        (r#"action, resource == Role::"read""#, false),
        (r#"action, resource in Role::"read""#, false),
        (r#"action, resource is Role in Role::"read""#, false),
    ] {
        let forbids = format!(
            r#"@id("not-while-suspended") forbid (principal in DirectoryGroup::"suspended", {head});"#
        );
        let place = Place::new(&(RULES.to_string() + &forbids)).await;
        assert_eq!(place.told("carol", &["admins"], "deploy").await, "issued", "{head}");
        place.clock.0.store(3700, Ordering::Relaxed);
        let told = place.told("carol", &["admins"], "deploy").await;
        let denied = told.starts_with("the directory of people is out of date");
        assert_eq!(denied, about_this, "{head}: {told}");
        assert_eq!(told == "issued", !about_this, "{head}: {told}");
    }
}
