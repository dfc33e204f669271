use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::broker::issue::Ask;
use crate::broker::testbed::{API, Bed, CORP, IssuerKey, Served};
use crate::credential::TokenType;
use crate::secret::Secret;

fn permit(more: &str) -> String {
    format!(
        "@id(\"p\") @ttl(\"15m\") @scope(\"deploy:read\") permit (principal, action == Action::\"issue\", resource == Role::\"deploy\");\n{more}"
    )
}

fn write(path: &Path, text: &str) {
    crate::host::files::write_private(path, text.as_bytes()).unwrap();
}

async fn bed(path: &Path) -> Bed {
    write(path, &permit(""));
    Bed::with(|options| {
        options.config.policy.files = vec![path.into()];
        options.policies = permit("");
    })
    .await
}

async fn status(bed: &Bed, claims: serde_json::Value) -> u16 {
    bed.exchange(&bed.key.token(claims), &[]).await.status.as_u16()
}

#[tokio::test]
async fn new_policies_decide_and_broken_ones_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    let bed = bed(&path).await;
    let first = bed.broker.policies().hash().to_string();
    assert_eq!(status(&bed, json!({})).await, 200);

    for broken in ["permit (", "", &permit("@id(\"p\") forbid (principal, action, resource);")] {
        write(&path, broken);
        assert!(bed.broker.reload_policies().is_err(), "{broken}");
        assert_eq!(bed.broker.policies().hash(), first);
        assert_eq!(status(&bed, json!({})).await, 200);
    }
    crate::host::files::remove(&path).unwrap();
    assert!(bed.broker.reload_policies().is_err());

    let user = format!("User::\"{CORP}#alice\"");
    write(&path, &permit(&format!("@id(\"no\") forbid (principal == {user}, action, resource);")));
    let reloaded = bed.broker.reload_policies().unwrap();
    assert_eq!(reloaded.before, first);
    assert_eq!(reloaded.now, bed.broker.policies().hash());
    assert_ne!(reloaded.now, first);
    assert_eq!(status(&bed, json!({})).await, 400);
    assert_eq!(status(&bed, json!({"sub": "bob"})).await, 200);
    // Whoever compares several brokers sees which decide by the same.
    let metrics = bed.admin.get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
    let told: Vec<_> =
        metrics.lines().filter(|line| line.starts_with("tmpcred_policy_info{")).collect();
    assert_eq!(told, [format!("tmpcred_policy_info{{hash=\"{}\"}} 1", reloaded.now)]);
}

#[tokio::test]
async fn what_new_policies_need_is_demanded_of_tokens_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    let bed = bed(&path).await;
    let without_groups = json!({"groups": null});
    assert_eq!(status(&bed, without_groups.clone()).await, 200);
    let group = format!("Group::\"{CORP}#interns\"");
    write(&path, &permit(&format!("@id(\"no\") forbid (principal in {group}, action, resource);")));
    bed.broker.reload_policies().unwrap();
    assert_eq!(status(&bed, without_groups.clone()).await, 400);
    assert_eq!(status(&bed, json!({})).await, 200);
    // And no longer, once no policy needs it.
    write(&path, &permit(""));
    bed.broker.reload_policies().unwrap();
    assert_eq!(status(&bed, without_groups).await, 200);
}

/// A request that has begun goes by what it began with.
#[tokio::test]
async fn a_version_that_was_taken_does_not_change_nor_do_its_roles() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    let file = dir.path().join("broker.toml");
    let jwks = dir.path().join("jwks.json");
    let bed = Bed::with(|options| {
        write(&path, &permit(""));
        options.config.policy.files = vec![path.clone()];
        options.config.path = Some(file.clone());
        options.policies = permit("");
    })
    .await;
    write(&jwks, &bed.key.jwks().to_string());
    let toml = format!(
        "issuer = \"https://broker.example.com\"\n[store]\npath = \"other.db\"\n\
         [trusted_issuer.corp]\nissuer = \"{CORP}\"\njwks_file = \"jwks.json\"\n\
         [policy]\nfiles = [\"policy.cedar\"]\n\
         [role.other]\naudiences = [\"{API}\"]\nscopes = [\"deploy:read\"]\nmax_ttl = \"1h\"\n"
    );
    let taken = bed.broker.policies();
    let token = Secret::new(bed.key.token(json!({})));
    let caller = bed.broker.caller(&token, TokenType::Jwt, &taken, None).await.unwrap();
    write(&file, &toml);
    assert!(bed.broker.reload_policies().is_err(), "the policies are about another role");
    write(&path, &permit("").replace("Role::\"deploy\"", "Role::\"other\""));
    let reloaded = bed.broker.reload_policies().unwrap();
    assert_eq!(reloaded.changed, ["[trusted_issuer]", "[role]"]);
    assert_eq!(reloaded.fixed, ["listen", "[store]"]);
    let ask = Ask {
        role: "deploy".into(),
        audience: API.into(),
        scope: None,
        ttl: None,
        proof: None,
        elevation: None,
        idempotency_key: None,
        jwt: false,
        source: [127, 0, 0, 1].into(),
        request_id: uuid::Uuid::nil(),
    };
    let issued = bed.broker.issue(&taken, &caller, &ask).await.unwrap();
    assert_eq!(issued.role, "deploy");
    let now = bed.broker.policies();
    assert!(bed.broker.issue(&now, &caller, &ask).await.is_err());
    assert_eq!(taken.hash(), reloaded.before);
    assert_eq!(now.hash(), reloaded.now);
}

/// It is told for as long as it is so, whatever becomes of the rest.
#[tokio::test]
async fn what_takes_a_restart_is_told_until_it_is_put_back() {
    let dir = tempfile::tempdir().unwrap();
    let (path, file) = (dir.path().join("policy.cedar"), dir.path().join("broker.toml"));
    let bed = Bed::with(|options| {
        write(&path, &permit(""));
        options.config.policy.files = vec![path.clone()];
        options.config.path = Some(file.clone());
        options.policies = permit("");
    })
    .await;
    write(&dir.path().join("jwks.json"), &bed.key.jwks().to_string());
    let config = bed.broker.configuration();
    let (listen, store) = (config.listen, config.store.path.unwrap());
    let put = |listen: &str, role: &str| {
        let toml = format!(
            "issuer = \"https://broker.example.com\"\nlisten = \"{listen}\"\n[store]\npath = {store:?}\n\
             [trusted_issuer.corp]\nissuer = \"{CORP}\"\njwks_file = \"jwks.json\"\n\
             [policy]\nfiles = [\"policy.cedar\"]\n\
             [role.{role}]\naudiences = [\"{API}\"]\nscopes = [\"deploy:read\"]\nmax_ttl = \"1h\"\n"
        );
        write(&file, &toml);
        bed.broker.reload_policies().map(|reloaded| reloaded.fixed)
    };
    let told = async || {
        let metrics = bed.admin.get("/metrics").await.body;
        let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
        let told = metrics.lines().find(|line| line.starts_with("tmpcred_restart_pending "));
        told.unwrap().to_string()
    };
    let (here, other) = (listen.to_string(), "127.0.0.1:9");
    assert_eq!(told().await, "tmpcred_restart_pending 0");
    assert_eq!(put(other, "deploy").unwrap(), ["listen"]);
    assert_eq!(told().await, "tmpcred_restart_pending 1");
    // As it is where nothing else was changed since.
    assert_eq!(put(other, "deploy").unwrap(), ["listen"]);
    assert_eq!(told().await, "tmpcred_restart_pending 1");
    assert!(put(&here, "deploy").unwrap().is_empty());
    assert_eq!(told().await, "tmpcred_restart_pending 0");
    // Policies that are about another role than there is are refused.
    assert!(put(other, "gone").is_err());
    assert_eq!(told().await, "tmpcred_restart_pending 1");
}

/// What was told once is not told again each time it is tried, and what is new is.
#[tokio::test]
async fn what_is_refused_is_tried_once_more_and_told_where_it_is_another_thing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    let bed = bed(&path).await;
    let current = &bed.broker.current;
    assert!(current.reload_once_more().unwrap().is_ok());
    assert_eq!(bed.broker.refused_files(), None);
    write(&path, "permit (");
    assert!(current.reload_once_more().unwrap().is_err());
    assert!(bed.broker.refused_files().is_some_and(|files| files.contains(&path)));
    assert!(current.reload_once_more().is_none());
    assert!(bed.broker.reload_policies().is_err(), "who asks is told");
    assert!(current.reload_once_more().is_none());
    write(&path, "forbid forbid");
    assert!(current.reload_once_more().unwrap().is_err());
    write(&path, &permit(""));
    assert!(current.reload_once_more().unwrap().is_ok());
    assert_eq!(bed.broker.refused_files(), None);
}

/// Whoever is the same goes on with the keys that were fetched.
#[tokio::test]
async fn keys_that_were_fetched_outlast_other_policies() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("policy.cedar");
    let key = IssuerKey::new();
    let (jwks, asked) = (key.jwks().to_string(), Arc::new(AtomicUsize::new(0)));
    let counted = asked.clone();
    let answer = move || {
        counted.fetch_add(1, Ordering::Relaxed);
        let jwks = jwks.clone();
        async move { jwks }
    };
    let route = axum::routing::get(answer);
    let issuer = Served::start(|_| axum::Router::new().route("/keys", route), None);
    let any = permit("").replace("@id", "@any_issuer @id");
    write(&path, &any);
    let bed = Bed::with(|options| {
        options.config.policy.files = vec![path.clone()];
        options.policies = any.clone();
        let id = crate::oidc::Issuer::parse("https://fetched.example").unwrap();
        let mut trusted = crate::broker::config::TrustedIssuer::new(id);
        trusted.jwks_uri = Some(format!("http://{}/keys", issuer.address).parse().unwrap());
        options.config.trusted_issuer.insert("fetched".into(), trusted);
    })
    .await;
    let token = || key.token(json!({"iss": "https://fetched.example"}));
    assert_eq!(bed.exchange(&token(), &[]).await.status.as_u16(), 200);
    write(&path, &(any + "// other\n"));
    bed.broker.reload_policies().unwrap();
    assert_eq!(bed.exchange(&token(), &[]).await.status.as_u16(), 200);
    assert_eq!(asked.load(Ordering::Relaxed), 1);
}
