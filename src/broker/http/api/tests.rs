use std::collections::BTreeSet;

use axum::http::{Method, StatusCode};
use axum::routing::get;
use serde_json::Value;
use url::Url;

use super::*;
use crate::broker::config::Authz;
use crate::broker::http::hosts::Hosts;
use crate::broker::testbed::{Bed, Served, json_of};
use crate::host::http::Request;
use crate::secret::Secret;

/// A broker that also decides for a proxy.
async fn bed() -> Bed {
    let authz = r#"
        proxy = "nginx"
        proxies = ["127.0.0.1"]
        [route.api]
        origins = ["https://api.example.com"]
        audience = "https://api.example.com"
    "#;
    let authz: Authz = toml::from_str(authz).unwrap();
    Bed::with(|options| options.config.authz = Some(authz)).await
}

async fn described(bed: &Bed, at: &str) -> Value {
    let url = Url::parse(&format!("{at}/openapi.json")).unwrap();
    json_of(&bed.client.get(&url).await.unwrap())
}

#[tokio::test]
async fn everything_that_is_described_is_there_by_these_methods_and_no_others() {
    let bed = bed().await;
    let bases = [bed.url("").to_string(), format!("http://{}", bed.admin.address)];
    let mut paths = BTreeSet::new();
    for base in bases.map(|base| base.trim_end_matches('/').to_string()) {
        for (path, item) in described(&bed, &base).await["paths"].as_object().unwrap() {
            paths.insert(path.clone());
            for method in ["get", "post", "put", "delete", "patch"] {
                let url = Url::parse(&format!("{base}{}", path.replace(['{', '}'], ""))).unwrap();
                let method = Method::from_bytes(method.to_uppercase().as_bytes()).unwrap();
                let name = method.as_str().to_ascii_lowercase();
                let (headers, body) = (Default::default(), Secret::new(Vec::new()));
                let request = Request { method, url, headers, body };
                let response = bed.client.send(request).await.unwrap();
                let allowed = response.status != StatusCode::METHOD_NOT_ALLOWED;
                assert_eq!(allowed, item.get(&name).is_some(), "{name} {path}");
                let status = response.status.as_u16().to_string();
                let declared = item[&name]["responses"].get(status).is_some();
                assert!(!allowed || declared, "{name} {path}: {}", response.status);
            }
        }
    }
    for path in ["/token", "/metrics", "/v1/authz/{route}/{rest}", "/openapi.json"] {
        assert!(paths.contains(path), "{path}: {paths:?}");
    }
}

#[tokio::test]
async fn what_is_said_of_a_broker_below_a_path_has_it() {
    let issuer = crate::oidc::Issuer::parse("https://example.com/team/a").unwrap();
    let described = crate::broker::http::description(&issuer);
    assert_eq!(described["servers"][0]["url"], "https://example.com");
    for path in ["/team/a/token", "/.well-known/oauth-authorization-server/team/a", "/readyz"] {
        assert!(described["paths"].get(path).is_some(), "{path}");
    }
}

/// Whether tests would see an endpoint that answers like this, where it is said to answer
/// with the code `known` of status 400, or not at all.
async fn is_seen(status: u16, code: &'static str) -> bool {
    let bed = bed().await;
    let answers = async move |id: guard::RequestId| {
        let status = StatusCode::from_u16(status).unwrap();
        crate::broker::http::refusal::Refusal::new(status, code, "").at(id)
    };
    let operation = Operation::new("o", "").answers(Answer::refusal(400, "", &["known"]));
    let endpoint = Endpoint::new("/", Verb::Get, get(answers), operation);
    let about = About { title: "", about: "", server: "/".into(), discovery: String::new() };
    let guard = Guard::new(Hosts::Any);
    let api = Api::mount(vec![endpoint], &about, (), &bed.broker, &guard);
    let served = Served::start(|_| crate::broker::http::guarded(api, guard), None);
    let url = Url::parse(&format!("http://{}/", served.address)).unwrap();
    bed.client.get(&url).await.is_err()
}

#[tokio::test]
async fn an_answer_that_is_not_described_fails_the_test_that_gets_it() {
    assert!(!is_seen(400, "known").await);
    assert!(is_seen(400, "unknown").await);
    assert!(is_seen(404, "known").await);
}
