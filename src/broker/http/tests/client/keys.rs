//! What is told of the keys of clients that are fetched.

use axum::Router;
use axum::routing::get;

use super::*;

/// What is told of clients' keys, without what the values are.
async fn told(bed: &Bed) -> Vec<(String, f64)> {
    let metrics = bed.admin.get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
    let lines = metrics.lines().filter_map(|line| line.strip_prefix("tmpcred_client_jwks_"));
    lines
        .map(|line| line.rsplit_once(' ').unwrap())
        .map(|(n, v)| (n.into(), v.parse().unwrap()))
        .collect()
}

#[tokio::test]
async fn keys_of_a_client_that_cannot_be_fetched_are_seen_with_its_name() {
    let signer = Signer::new();
    let jwks = signer.0.jwks().to_string();
    let version = crate::oidc::Keys::parse(jwks.as_bytes()).unwrap().version().to_string();
    let served = Served::start(|_| Router::new().route("/keys", get(|| async move { jwks })), None);
    let bed = Bed::with(|options| {
        signer.configure(options);
        for (name, path) in [("deployer", "keys"), ("gone", "nothing")] {
            let jwks_uri = Some(format!("http://{}/{path}", served.address).parse().unwrap());
            let client = Client { jwks_uri, ..Client::default() };
            options.config.client.insert(name.into(), client);
        }
    })
    .await;
    let at = |name: &str, client: &str| format!("{name}{{client=\"{client}\"}}");
    let failures = |deployer, gone| {
        [("deployer", deployer), ("gone", gone)]
            .map(|(client, count)| (at("fetch_failures_total", client), count))
    };
    let limits = ["deployer", "gone"].map(|client| (at("max_age_seconds", client), 86400.0));
    let before = told(&bed).await;
    for wanted in failures(0.0, 0.0).into_iter().chain(limits.clone()) {
        assert!(before.contains(&wanted), "{wanted:?}: {before:?}");
    }
    assert_eq!(before.len(), 4, "{before:?}");
    bed.issued(json!({}), &by(&signer.assertion(json!({})))).await;
    let gone = signer.assertion(json!({"iss": "gone", "sub": "gone"}));
    refused(&bed, &by(&gone)).await;
    assert_eq!(count(&bed, "unavailable").await, 1);
    let after = told(&bed).await;
    let info = format!("info{{client=\"deployer\",version=\"{version}\"}}");
    for wanted in failures(0.0, 1.0).into_iter().chain(limits).chain([(info, 1.0)]) {
        assert!(after.contains(&wanted), "{wanted:?}: {after:?}");
    }
    let age = after.iter().find(|(name, _)| *name == at("age_seconds", "deployer")).unwrap().1;
    assert!((0.0..60.0).contains(&age), "{age}");
    assert_eq!(after.len(), 6, "{after:?}");
}
