//! Decisions are counted by the routes that there are.

use super::*;

/// How often each was decided, by route and outcome.
async fn counts(bed: &Bed) -> BTreeMap<String, u64> {
    let metrics = bed.admin.get("/metrics").await.body;
    let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
    let lines =
        metrics.lines().filter_map(|line| line.strip_prefix("tmpcred_authz_decisions_total{"));
    let counted = lines.map(|line| {
        let (labels, count) = line.split_once("} ").unwrap();
        let labels = labels.replace("route=", "").replace("outcome=", "").replace('"', "");
        (labels.replace(',', " "), count.parse().unwrap())
    });
    counted.collect()
}

#[tokio::test]
async fn decisions_are_counted_by_route_and_nobody_makes_a_route_by_asking() {
    let bed = nginx().await;
    let mut wanted: BTreeMap<String, u64> = ["api", "other"]
        .into_iter()
        .flat_map(|route| {
            ["allowed", "forbidden", "unauthenticated", "unavailable"]
                .map(|outcome| format!("{route} {outcome}"))
        })
        .chain(["unknown forbidden", "unknown stranger"].map(String::from))
        .map(|labels| (labels, 0))
        .collect();
    assert_eq!(counts(&bed).await, wanted);
    let token = bed.issued(json!({}), &[]).await;
    assert_eq!(with_bearer(&bed, &token).await.status, StatusCode::OK);
    let narrow = bed.issued(json!({}), &[("scope", "deploy:write")]).await;
    assert_eq!(with_bearer(&bed, &narrow).await.status, StatusCode::FORBIDDEN);
    challenge(&as_nginx(&bed, &[]).await);
    challenge(&with_bearer(&bed, "x").await);
    let at = |host| {
        let lines = of_nginx(&[]).into_iter();
        lines.map(move |(n, v)| (n, if n == "x-original-host" { host } else { v })).collect()
    };
    let other: Vec<_> = at("other.example.com:8443");
    challenge(&ask(&bed, Method::GET, "/v1/authz/other", &other).await);
    let nobody: Vec<_> = at("made-up.example.com");
    for (path, lines) in [("/v1/authz", nobody), ("/v1/authz/made-up", of_nginx(&[]))] {
        assert_eq!(ask(&bed, Method::GET, path, &lines).await.status, StatusCode::FORBIDDEN);
    }
    for (labels, count) in [
        ("api allowed", 1),
        ("api forbidden", 1),
        ("api unauthenticated", 2),
        ("other unauthenticated", 1),
        ("unknown forbidden", 2),
    ] {
        wanted.insert(labels.into(), count);
    }
    assert_eq!(counts(&bed).await, wanted);
}
