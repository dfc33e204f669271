//! What was done under a grant, as it is gathered and told.

use super::*;
use crate::broker::config::Proxy;
use crate::broker::http::tests::authz::{authz, with_bearer};

const MORE: &str = r#"
@id("logs-tell")
permit (principal == User::"CORP#logs", action == Action::"administer", resource)
when { context.operation == "elevations.use" };

@id("api-asks")
permit (principal == User::"CORP#api", action == Action::"introspect", resource);
"#;

async fn place() -> Place {
    Place::built(
        None,
        |_| {},
        |options| {
            authz(Proxy::Nginx, options);
            let route = options.config.authz.as_mut().unwrap().route.get_mut("api").unwrap();
            route.roles.clear();
            options.policies += &MORE.replace("CORP", CORP);
        },
    )
    .await
}

impl Place {
    async fn tells(&self, subject: &str, id: &str, body: &str) -> Response {
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {}", self.token(subject));
        headers.insert("authorization", HeaderValue::from_str(&bearer).unwrap());
        headers.insert("content-type", HeaderValue::from_static("application/jsonl"));
        let url = self.bed.url(&format!("/{ELEVATIONS_PATH}/{id}/uses"));
        let body = Secret::new(body.as_bytes().to_vec());
        let request = Request { method: Method::POST, url, headers, body };
        self.bed.client.send(request).await.unwrap()
    }

    async fn uses(&self, subject: &str, of: &Value) -> Response {
        let path = format!("/{}/uses", of["id"].as_str().unwrap());
        self.ask(&self.token(subject), (Method::GET, &path), &[]).await
    }
}

/// Each as: kind, source, action, resource, outcome, count.
fn rows(uses: &Value) -> Vec<String> {
    let text = |row: &Value, name: &str| row[name].as_str().unwrap().to_string();
    let mut rows: Vec<_> = uses["uses"]
        .as_array()
        .unwrap()
        .iter()
        .map(|row| {
            let names = ["kind", "source", "action", "resource", "outcome"];
            format!("{} {}", names.map(|name| text(row, name)).join(" "), row["count"])
        })
        .collect();
    rows.sort_unstable();
    rows
}

#[tokio::test]
async fn a_review_has_decisions_introspections_tokens_and_what_logs_tell() {
    let place = place().await;
    let active = place.active().await;
    let id = active["id"].as_str().unwrap();
    let token =
        json_of(&place.issued("alice", &[]).await)["access_token"].as_str().unwrap().to_string();
    for _ in 0..3 {
        assert_eq!(with_bearer(&place.bed, &token).await.status, StatusCode::OK);
    }
    let narrow = [("scope", "deploy:write")];
    let narrow = json_of(&place.issued("alice", &narrow).await)["access_token"]
        .as_str()
        .unwrap()
        .to_string();
    assert_eq!(with_bearer(&place.bed, &narrow).await.status, StatusCode::FORBIDDEN);
    let api = place.token("api");
    assert_eq!(json_of(&place.bed.introspect(Some(&api), &token).await)["active"], true);
    assert_eq!(json_of(&place.bed.introspect(Some(&token), &token).await)["active"], true);
    // What somebody does without a grant is none of it.
    let plain = place.bed.issued(json!({"sub": "dave"}), &[]).await;
    assert_eq!(with_bearer(&place.bed, &plain).await.status, StatusCode::OK);
    let event = |id: &str, count: u64| {
        json!({"id": id, "source": "cloudtrail", "time": "2026-01-01T12:00:00Z", "count": count,
            "action": "ec2:TerminateInstances", "resource": "i-1", "outcome": "success"})
        .to_string()
    };
    let lines = [event("e1", 1), event("e2", 4), event("e1", 1)].join("\n");
    // By the name of its session, and again when an answer was lost.
    let session = format!("grant-{id}@prod");
    let told = json_of(&place.tells("logs", &session, &lines).await);
    assert_eq!(told, json!({"taken": 2, "known": 1}));
    let lines = [lines, event("e3", 1)].join("\n");
    let told = json_of(&place.tells("logs", id, &lines).await);
    assert_eq!(told, json!({"taken": 1, "known": 3}));
    place.done("alice", "relinquish", &active, &[]).await;
    place.bed.introspect(Some(&api), &token).await;
    assert_eq!(with_bearer(&place.bed, &token).await.status, StatusCode::UNAUTHORIZED);
    let before = json_of(&place.uses("erin", &active).await);
    place.bed.broker.uses.write().await;
    let uses = json_of(&place.uses("erin", &active).await);
    assert_eq!(rows(&before), rows(&uses), "written or not, it is told");
    assert_eq!((&uses["lost"], &uses["elevation"]), (&json!(0), &active["id"]));
    let expected = [
        "decision api GET /a allowed 3".to_string(),
        "decision api GET /a denied 2".into(),
        format!("introspection {CORP}#api introspect {API} active 1"),
        format!("introspection {CORP}#api introspect {API} revoked 1"),
        format!("introspection whoever has the token introspect {API} active 1"),
        format!("issued cli issue {API} issued 2"),
        "outside cloudtrail ec2:TerminateInstances i-1 success 6".into(),
    ];
    assert_eq!(rows(&uses), expected);
    // It is on record who told, and one id leads to that, too.
    let told = place.records_of(&active).await;
    let told: Vec<_> = told.iter().filter(|record| record.action == "elevation.uses").collect();
    assert_eq!(told.len(), 2);
    assert_eq!(told[0].principal.subject, "logs");
}

#[tokio::test]
async fn only_logs_that_policy_lets_tell_and_only_who_sees_it_is_told() {
    let place = place().await;
    let active = place.active().await;
    let id = active["id"].as_str().unwrap();
    let event = json!({"id": "1", "source": "s", "time": "2026-01-01T12:00:00Z", "action": "a"});
    let event = event.to_string();
    for subject in ["alice", "bob", "dave"] {
        assert_eq!(
            place.tells(subject, id, &event).await.status,
            StatusCode::FORBIDDEN,
            "{subject}"
        );
    }
    for (subject, status) in [("alice", 200), ("bob", 200), ("dave", 404)] {
        assert_eq!(place.uses(subject, &active).await.status.as_u16(), status, "{subject}");
    }
    let (status, said) = told(&place.tells("logs", id, "[{}]").await);
    assert!(status == 400 && said.contains("event 1"), "{said}");
    for unknown in ["nothing", "0190f3d2-8f4e-7c3a-9f00-3b1c2d4e5f60"] {
        assert_eq!(told(&place.tells("logs", unknown, &event).await).0, 404, "{unknown}");
    }
    let pending = place.requested("carol", &[]).await;
    let (status, said) = told(&place.tells("logs", pending["id"].as_str().unwrap(), &event).await);
    assert!(status == 409 && said.contains("was never had"), "{said}");
}
