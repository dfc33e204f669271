//! Elevations over HTTP: asking, approving, having, ending, reviewing.

mod again;
mod alarms;
mod clocks;
mod cooling;
mod crowd;
mod drill;
mod erasure;
mod exchanged;
mod illegible;
mod issuers;
mod leaving;
mod many;
mod model;
mod often;
mod ordinary;
mod provider_down;
mod reach;
mod receivers;
mod renamed;
mod rest;
mod restored;
mod roles;
mod rules;
mod stale;
mod tickets;
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
            options.clock = clock.clone();
            more(options);
            policies.clone_from(&options.policies);
            crate::host::files::write_private(&policy, options.policies.as_bytes()).unwrap();
            options.config.policy.files = vec![policy.clone()];
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
