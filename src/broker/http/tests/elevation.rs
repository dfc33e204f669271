//! Elevations over HTTP: asking, approving, having, ending, reviewing.

mod again;
mod alarms;
mod cooling;
mod drill;
mod erasure;
mod exchanged;
mod illegible;
mod issuers;
mod leaving;
mod many;
mod model;
mod often;
mod provider_down;
mod reach;
mod receivers;
mod renamed;
mod rest;
mod rules;
mod stale;
mod uses;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde_json::{Value, json};
use time::format_description::well_known::Rfc3339;

use crate::broker::audit::{Decision, Record};
use crate::broker::config::{Elevation, Emergency, Role, Threshold};
use crate::broker::directory::Settings;
use crate::broker::notify::Message;
use crate::broker::testbed::{API, Bed, CORP, Options, Shifted, claims_of, json_of, now};
use crate::host::http::{Request, Response};
use crate::secret::Secret;
use crate::wire::elevation::ELEVATIONS_PATH;

const RULES: &str = r#"
@id("staff-asks")
permit (principal in DirectoryGroup::"staff", action == Action::"elevate", resource == Role::"admin")
unless { context.emergency };

@id("on-call-in-emergencies")
permit (principal == User::"CORP#alice", action == Action::"elevate", resource == Role::"admin");

@id("leads-approve")
permit (principal in DirectoryGroup::"leads", action == Action::"approve", resource == Role::"admin");

@id("suspended-never")
forbid (principal in DirectoryGroup::"suspended", action == Action::"approve", resource == Role::"admin");

@id("keepers")
permit (principal, action == Action::"administer", resource)
when {
    [User::"CORP#bob", User::"CORP#erin"].contains(principal)
    && ["enrollments.approve", "enrollments.remove"].contains(context.operation)
};

@id("admins") @ttl("1h") @scope("deploy:read deploy:write")
permit (principal in DirectoryGroup::"staff", action == Action::"issue", resource == Role::"admin")
when { context has elevation };
"#;

fn people(suspended: &[&str]) -> String {
    let person = |name: &str, subjects: &[&str], groups: &[&str]| {
        let ids: Vec<_> = subjects
            .iter()
            .map(|subject| format!("{{ issuer = \"{CORP}\", subject = \"{subject}\" }}"))
            .collect();
        let suspended = suspended.contains(&name).then_some("suspended");
        let groups: Vec<_> =
            groups.iter().copied().chain(suspended).map(|group| format!("\"{group}\"")).collect();
        format!("[person.{name}]\nids = [{}]\ngroups = [{}]\n", ids.join(", "), groups.join(", "))
    };
    [
        format!("as_of = \"{}\"\n", now().format(&Rfc3339).unwrap()),
        "[group.staff]\n[group.leads]\n[group.suspended]\n".into(),
        person("alice", &["alice", "alice-too"], &["staff", "leads"]),
        person("bob", &["bob", "bob-too"], &["staff", "leads"]),
        person("carol", &["carol"], &["staff", "leads"]),
        person("dave", &["dave"], &["staff"]),
        person("erin", &["erin"], &["staff", "leads"]),
    ]
    .concat()
}

fn rules() -> Elevation {
    Elevation {
        approvals: vec![Threshold {
            count: 2.try_into().unwrap(),
            groups: ["leads".to_string()].into(),
        }],
        longest: Duration::from_secs(3600),
        reason: Some("INC-[0-9]+.*".to_string().try_into().unwrap()),
        ticket: None,
        ticket_command: Vec::new(),
        pending: Duration::from_secs(3600),
        start_ahead: Duration::from_secs(86400),
        start_window: Duration::from_secs(1800),
        renewable: false,
        cool_down: Duration::ZERO,
        review_within: Some(Duration::from_secs(86400)),
        approver_login: Default::default(),
        emergency: Some(Emergency {
            longest: Duration::from_secs(900),
            max_age: Duration::from_secs(300),
            cool_down: Duration::from_secs(60),
        }),
        provider_down: None,
    }
}

struct Place {
    dir: tempfile::TempDir,
    clock: Arc<Shifted>,
    bed: Bed,
    policies: String,
}

impl Place {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    async fn with(change: impl FnOnce(&mut Role)) -> Self {
        Self::dated(None, change).await
    }

    /// With a directory that is good for so long.
    async fn dated(max_age: Option<Duration>, change: impl FnOnce(&mut Role)) -> Self {
        Self::built(max_age, change, |_| {}).await
    }

    /// With other options besides.
    async fn built(
        max_age: Option<Duration>,
        change: impl FnOnce(&mut Role),
        more: impl FnOnce(&mut Options),
    ) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (file, policy) = (dir.path().join("people.toml"), dir.path().join("policy.cedar"));
        crate::host::files::write_private(&file, people(&[]).as_bytes()).unwrap();
        let clock = Arc::new(Shifted::default());
        let mut policies = String::new();
        let bed = Bed::with(|options| {
            let mut role = options.config.role["deploy"].clone();
            role.elevation = Some(rules());
            change(&mut role);
            options.config.role.insert("admin".into(), role);
            // It takes nothing, so that what people are to be told can be looked at.
            let told = toml::from_str("kind = \"command\"\ncommand = [\"false\"]").unwrap();
            options.config.notify.insert("own".into(), told);
            options.config.directory = Some(Settings { file: file.clone(), max_age });
            options.policies += &RULES.replace("CORP", CORP);
            more(options);
            policies.clone_from(&options.policies);
            crate::host::files::write_private(&policy, options.policies.as_bytes()).unwrap();
            options.config.policy.files = vec![policy.clone()];
            options.clock = clock.clone();
        })
        .await;
        Self { dir, clock, bed, policies }
    }

    /// The directory has this text from now on. Returns whether it could be taken.
    async fn directory(&self, text: &str) -> bool {
        let file = self.dir.path().join("people.toml");
        crate::host::files::write_private(&file, text.as_bytes()).unwrap();
        self.bed.broker.reload_policies().is_ok()
    }

    /// All that people are to be told and nobody has taken, whether it is known to whom it goes.
    async fn told(&self) -> Vec<Message> {
        // In this order, because what is there first goes there then.
        let unspread = self.bed.store.unspread(999).await.unwrap().into_iter();
        let mut told: BTreeMap<_, _> = unspread.collect();
        for one in self.bed.store.undelivered(999).await.unwrap() {
            told.insert(one.delivery.key, one.delivery.message);
        }
        told.into_values().flatten().collect()
    }

    /// Somebody else's directory is read from now on.
    async fn suspends(&self, names: &[&str]) {
        assert!(self.directory(&people(names)).await);
    }

    fn later(&self, seconds: i64) {
        self.clock.0.fetch_add(seconds, Ordering::Relaxed);
    }

    fn token(&self, subject: &str) -> String {
        let at = now().unix_timestamp() + self.clock.0.load(Ordering::Relaxed);
        self.bed.key.token(json!({
            "sub": subject, "groups": [], "auth_time": at, "iat": at, "exp": at + 300,
        }))
    }

    async fn ask(
        &self,
        token: &str,
        (method, path): (Method, &str),
        form: &[(&str, &str)],
    ) -> Response {
        let mut headers = HeaderMap::new();
        let bearer = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
        headers.insert("authorization", bearer);
        let mut body = String::new();
        if method == Method::POST {
            headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
            body = url::form_urlencoded::Serializer::new(body).extend_pairs(form).finish();
        }
        let url = self.bed.url(&format!("/{ELEVATIONS_PATH}{path}"));
        let body = Secret::new(body.into_bytes());
        self.bed.client.send(Request { method, url, headers, body }).await.unwrap()
    }

    /// Somebody asks for the role, with these changes.
    async fn request(&self, subject: &str, changes: &[(&str, &str)]) -> Response {
        let mut form = vec![("role", "admin"), ("reason", "INC-1 all is down"), ("ttl", "1800")];
        form.retain(|(name, _)| !changes.iter().any(|(other, _)| other == name));
        form.extend(changes.iter().filter(|(_, value)| !value.is_empty()));
        self.ask(&self.token(subject), (Method::POST, ""), &form).await
    }

    async fn requested(&self, subject: &str, changes: &[(&str, &str)]) -> Value {
        let response = self.request(subject, changes).await;
        let answer = json_of(&response);
        assert_eq!(response.status, StatusCode::CREATED, "{answer}");
        answer
    }

    /// Somebody does something about it.
    async fn does(&self, subject: &str, what: &str, to: &Value, form: &[(&str, &str)]) -> Response {
        let id = to["id"].as_str().unwrap();
        let path = format!("/{id}/{what}");
        // Who brings what others signed is told none.
        let hash = to["hash"].as_str().unwrap_or_default();
        let mut form = form.to_vec();
        if what == "approve" && form.is_empty() {
            form.push(("hash", hash));
        }
        self.ask(&self.token(subject), (Method::POST, &path), &form).await
    }

    async fn done(&self, subject: &str, what: &str, to: &Value, form: &[(&str, &str)]) -> Value {
        let response = self.does(subject, what, to, form).await;
        let answer = json_of(&response);
        assert_eq!(response.status, StatusCode::OK, "{subject} {what}: {answer}");
        answer
    }

    async fn not_done(
        &self,
        subject: &str,
        what: &str,
        to: &Value,
        form: &[(&str, &str)],
    ) -> (u16, String) {
        told(&self.does(subject, what, to, form).await)
    }

    async fn shown(&self, subject: &str, of: &Value) -> Value {
        let path = format!("/{}", of["id"].as_str().unwrap());
        json_of(&self.ask(&self.token(subject), (Method::GET, &path), &[]).await)
    }

    async fn listed(&self, subject: &str, which: &str) -> Vec<Value> {
        let path = format!("?which={which}");
        let page = json_of(&self.ask(&self.token(subject), (Method::GET, &path), &[]).await);
        page["elevations"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
    }

    /// A token with the role for somebody.
    async fn issued(&self, subject: &str, changes: &[(&str, &str)]) -> Response {
        let changes = [&[("role", "admin"), ("audience", API)], changes].concat();
        self.bed.exchange(&self.token(subject), &changes).await
    }

    async fn active(&self) -> Value {
        let asked = self.requested("alice", &[]).await;
        self.done("bob", "approve", &asked, &[]).await;
        let approved = self.done("carol", "approve", &asked, &[]).await;
        assert_eq!(approved["access"], "approved");
        self.done("alice", "activate", &asked, &[]).await
    }

    async fn records_of(&self, of: &Value) -> Vec<Record> {
        let id = of["id"].as_str().unwrap();
        let all = self.bed.store.records(0, u32::MAX).await.unwrap();
        let records = all.into_iter().map(|(_, record)| record);
        records.filter(|one| one.elevation.is_some_and(|one| one.to_string() == id)).collect()
    }
}

fn told(response: &Response) -> (u16, String) {
    let answer = json_of(response);
    let said = answer["error_description"].as_str().unwrap_or_default().to_string();
    (response.status.as_u16(), format!("{}: {said}", answer["error"].as_str().unwrap_or_default()))
}

#[tokio::test]
async fn two_leads_approve_and_the_role_is_had_for_a_while_and_no_longer() {
    let place = Place::new().await;
    // Without a grant nobody has it.
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("under a grant only"), "{status} {said}");
    let asked = place.requested("alice", &[]).await;
    assert_eq!((&asked["access"], &asked["needs"][0]["count"]), (&json!("pending"), &json!(2)));
    // Who asked is none of those who could.
    assert_eq!(asked["needs"][0]["could"], json!(["bob", "carol", "erin"]));
    assert_eq!(place.listed("bob", "to-approve").await.len(), 1);
    assert_eq!(place.listed("alice", "to-approve").await.len(), 0);
    let once = place.done("bob", "approve", &asked, &[]).await;
    assert_eq!((&once["access"], &once["needs"][0]["have"]), (&json!("pending"), &json!(["bob"])));
    // The same person by another name counts once; the same again changes nothing.
    let twice = place.done("bob-too", "approve", &asked, &[]).await;
    assert_eq!((&twice["access"], &twice["version"]), (&json!("pending"), &once["version"]));
    let (status, said) = place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.starts_with("elevation_state"), "{said}");
    place.done("carol", "approve", &asked, &[]).await;
    let active = place.done("alice", "activate", &asked, &[]).await;
    assert_eq!(active["access"], "active");
    let response = place.issued("alice", &[("requested_ttl", "3600")]).await;
    let token = json_of(&response)["access_token"].as_str().unwrap().to_string();
    let claims = claims_of(&token);
    assert_eq!(claims["elevation"]["id"], asked["id"]);
    assert_eq!(claims["elevation"]["path"], "ordinary");
    // It does not outlive the grant.
    let lives = claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap();
    assert!((1795..=1800).contains(&lives), "{lives}");
    place.later(1200);
    let grant = json_of(&place.issued("alice", &[]).await);
    assert!(grant["expires_in"].as_i64().unwrap() <= 600, "{grant}");
    place.later(601);
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("you have none"), "{said}");
    let named = [("elevation", asked["id"].as_str().unwrap())];
    let (status, said) = told(&place.issued("alice", &named).await);
    assert!(status == 400 && said.contains("is expired"), "{said}");
    // The clock puts it on record, once.
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 1);
    assert_eq!(place.bed.broker.due_elevations().await.unwrap(), 0);
    let ended = place.shown("alice", &asked).await;
    assert_eq!((&ended["access"], &ended["review"]), (&json!("expired"), &json!("due")));
    // One id leads through all of it.
    let story: Vec<_> = place
        .records_of(&asked)
        .await
        .into_iter()
        .map(|record| format!("{} {}", record.action, record.principal.subject))
        .collect();
    assert_eq!(
        story,
        [
            "elevation.request alice",
            "elevation.approve bob",
            "elevation.approve carol",
            "elevation.activate alice",
            "issue alice",
            "issue alice",
            "elevation.expire broker",
        ]
    );
}

#[tokio::test]
async fn nobody_decides_about_their_own_and_no_machine_about_anything() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    for (who, what, form) in [
        ("alice", "approve", vec![]),
        ("alice-too", "approve", vec![]),
        ("alice-too", "deny", vec![("reason", "no")]),
        ("dave", "approve", vec![]),
        ("bob", "withdraw", vec![]),
        ("bob", "activate", vec![]),
    ] {
        let (status, said) = place.not_done(who, what, &asked, &form).await;
        let expected = if who == "dave" { 404 } else { 403 };
        assert_eq!(status, expected, "{who} {what}: {said}");
    }
    // Who is in no directory is nobody's other name.
    let (status, said) = told(&place.request("stranger", &[]).await);
    assert!(status == 403 && said.contains("not in the directory"), "{said}");
    let records = place.records_of(&asked).await;
    let denied = records.iter().filter(|one| one.decision == Decision::Denied).count();
    assert_eq!(denied, 6, "{records:?}");
    assert_eq!(place.shown("alice", &asked).await["approvals"], json!([]));
}

#[tokio::test]
async fn what_was_shown_is_what_is_approved() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    let wrong = "0".repeat(64);
    let (status, said) = place.not_done("bob", "approve", &asked, &[("hash", &wrong)]).await;
    assert!(status == 409 && said.contains("look at it again"), "{said}");
    place.done("bob", "approve", &asked, &[]).await;
    // Other rules: what was approved by those before does not count.
    let policy = place.dir.path().join("policy.cedar");
    let text = place.policies.clone() + "\n// another version\n";
    crate::host::files::write_private(&policy, text.as_bytes()).unwrap();
    place.bed.broker.reload_policies().unwrap();
    let (status, said) = place.not_done("carol", "approve", &asked, &[]).await;
    assert!(status == 409 && said.contains("look at it again"), "{said}");
    let shown = place.shown("carol", &asked).await;
    assert_ne!(shown["hash"], asked["hash"]);
    assert_eq!(
        (&shown["approvals"][0]["counts"], &shown["needs"][0]["have"]),
        (&json!(false), &json!([]))
    );
    place.done("carol", "approve", &shown, &[]).await;
    let approved = place.done("bob", "approve", &shown, &[]).await;
    assert_eq!(approved["access"], "approved");
}

#[tokio::test]
async fn approvals_are_counted_again_when_the_grant_begins() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    place.done("carol", "approve", &asked, &[]).await;
    // Whoever may approve no more does not count from then on.
    place.suspends(&["bob"]).await;
    let (status, said) = place.not_done("alice", "activate", &asked, &[]).await;
    assert!(status == 409 && said.contains("1 of 'leads'"), "{said}");
    let more = place.done("erin", "approve", &asked, &[]).await;
    assert_eq!(more["needs"][0]["have"], json!(["carol", "erin"]));
    assert_eq!(place.done("alice", "activate", &asked, &[]).await["access"], "active");
    let record = place.records_of(&asked).await.pop().unwrap();
    assert_eq!(record.reason, "began it, approved by carol, erin; not counted: bob");
}

#[tokio::test]
async fn what_is_revoked_is_refused_at_once_together_with_what_was_issued() {
    let place = Place::new().await;
    let active = place.active().await;
    let token = json_of(&place.issued("alice", &[]).await)["access_token"].clone();
    let token = token.as_str().unwrap();
    let answer = json_of(&place.bed.introspect(Some(token), token).await);
    assert_eq!((&answer["active"], &answer["elevation"]["id"]), (&json!(true), &active["id"]));
    let ended = place.done("erin", "revoke", &active, &[("reason", "enough")]).await;
    assert_eq!(
        (&ended["access"], &ended["revocation_reach"]),
        (&json!("revoked"), &json!("introspection"))
    );
    assert_eq!(ended["ended"]["reason"], "enough");
    let answer = json_of(&place.bed.introspect(Some(token), token).await);
    assert_eq!(answer, json!({"active": false}));
    let (status, said) = told(&place.issued("alice", &[]).await);
    assert!(status == 400 && said.contains("you have none"), "{said}");
    // Ended once: not again, by nobody.
    for (who, what, form) in [
        ("alice", "relinquish", vec![]),
        ("bob", "revoke", vec![("reason", "again")]),
        ("alice", "activate", vec![]),
        ("alice", "withdraw", vec![]),
    ] {
        let (status, said) = place.not_done(who, what, &active, &form).await;
        assert!(status == 409 && said.contains("revoked"), "{who} {what}: {said}");
    }
    // Who approved does not review, nor who had it.
    let note = [("outcome", "reviewed"), ("note", "all in order")];
    for who in ["bob", "alice", "alice-too"] {
        assert_eq!(place.not_done(who, "review", &active, &note).await.0, 403, "{who}");
    }
    assert_eq!(place.listed("erin", "to-review").await.len(), 1);
    let reviewed = place.done("erin", "review", &active, &note).await;
    assert_eq!(
        (&reviewed["review"], &reviewed["reviewed"]["by"]["person"]),
        (&json!("reviewed"), &json!("erin"))
    );
    assert_eq!(place.not_done("erin", "review", &active, &note).await.0, 409);
}

#[tokio::test]
async fn of_many_at_once_each_counts_once() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    let all = ["bob", "bob-too", "carol", "bob", "carol", "erin", "bob-too", "erin"];
    let approving = all.map(|who| place.does(who, "approve", &asked, &[]));
    for response in futures_util::future::join_all(approving).await {
        assert_eq!(response.status, StatusCode::OK, "{}", json_of(&response));
    }
    let shown = place.shown("alice", &asked).await;
    assert_eq!(shown["needs"][0]["have"], json!(["bob", "carol", "erin"]));
    let beginning = [(); 5].map(|()| place.does("alice", "activate", &asked, &[]));
    let begun = futures_util::future::join_all(beginning).await;
    // Whoever comes second has it as well, and nothing happens.
    let versions: Vec<_> = begun.iter().map(|one| json_of(one)["version"].clone()).collect();
    assert!(versions.iter().all(|one| *one == versions[0] && !one.is_null()), "{versions:?}");
    let ending = [
        place.does("alice", "relinquish", &asked, &[]),
        place.does("bob", "revoke", &asked, &[("reason", "x")]),
        place.does("erin", "revoke", &asked, &[("reason", "x")]),
    ];
    let ended = futures_util::future::join_all(ending).await;
    assert_eq!(ended.iter().filter(|one| one.status == StatusCode::OK).count(), 1);
    let records = place.records_of(&asked).await;
    let ends = ["elevation.relinquish", "elevation.revoke"];
    let changed = || records.iter().filter(|one| one.decision == Decision::Changed);
    assert_eq!(changed().filter(|one| ends.contains(&&*one.action)).count(), 1);
    assert_eq!(changed().filter(|one| one.action == "elevation.activate").count(), 1);
    // Asking twice at once is asking once.
    let requests = [(); 6].map(|()| place.request("dave", &[]));
    let asked = futures_util::future::join_all(requests).await;
    assert_eq!(asked.iter().filter(|one| one.status == StatusCode::CREATED).count(), 1);
}
