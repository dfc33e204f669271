//! Parameters that an operation of ours does not know.

use super::super::cutoff::active;
use super::*;

/// Everything below this is ours, but for what proxies ask.
const OURS: &str = "/v1/";
const OF_PROXIES: &str = "/v1/authz";

/// Asks without a body, and without a word of what it is.
async fn post_nothing(bed: &Bed, path: &str, bearer: &str) -> Response {
    let mut headers = HeaderMap::new();
    headers.insert("authorization", format!("Bearer {bearer}").parse().unwrap());
    let (method, url, body) = (Method::POST, bed.url("/").join(path).unwrap(), Vec::new());
    let body = Secret::new(body);
    bed.client.send(Request { method, url, headers, body }).await.unwrap()
}

#[tokio::test]
async fn all_that_is_ours_refuses_them_and_does_nothing() {
    let bed = bed().await;
    let ops = ops(&bed);
    let described = json_of(&bed.client.get(&bed.url("/openapi.json")).await.unwrap());
    let size = bed.store.size().await.unwrap();
    let (mut forms, mut queries) = (0, 0);
    let paths = described["paths"].as_object().unwrap().iter();
    for (path, item) in
        paths.filter(|(path, _)| path.starts_with(OURS) && !path.starts_with(OF_PROXIES))
    {
        let asked =
            path.replace("{id}", &uuid::Uuid::nil().to_string()).replace("{event}", "approve");
        let form = &item["post"]["requestBody"]["content"]["application/x-www-form-urlencoded"];
        if form.is_object() {
            forms += 1;
            assert_eq!(form["schema"]["additionalProperties"], false, "{path}");
            for named in [("bogus", "hunter2"), ("bogus", "")] {
                let answer = post(&bed, &asked, &ops, &[named]).await;
                let said = refused(&answer, 400, "invalid_request");
                assert!(said.contains("'bogus' here; there are "), "{path}: {said}");
                assert!(!said.contains("hunter2"), "{path}: {said}");
            }
        } else if item.get("post").is_some() {
            let answer = post(&bed, &format!("{asked}?bogus=hunter2"), &ops, &[]).await;
            assert!(!refused(&answer, 400, "invalid_request").contains("hunter2"), "{path}");
        }
        if item.get("get").is_some() {
            queries += 1;
            let answer = get(&bed, &format!("{asked}?bogus=hunter2"), &ops).await;
            let said = refused(&answer, 400, "invalid_request");
            assert!(!said.contains("hunter2"), "{path}: {said}");
            if item["get"]["parameters"]
                .as_array()
                .is_some_and(|all| all.iter().any(|parameter| parameter["in"] == "query"))
            {
                assert!(said.contains("`bogus`; it may have "), "{path}: {said}");
            }
        }
    }
    assert!(forms >= 8 && queries >= 6, "{forms} {queries}");
    assert_eq!(bed.store.size().await.unwrap(), size);
}

#[tokio::test]
async fn what_is_misspelt_does_not_revoke_more_than_was_meant() {
    let bed = bed().await;
    let ops = ops(&bed);
    let token = bed.issued(json!({}), &[]).await;
    for (form, says) in [
        (vec![("role", "deploy"), ("dry_run", "true")], "'dry_run' here; there are token, jti"),
        (vec![("role", "deploy"), ("dry_run", "")], "'dry_run' here"),
        (vec![("issuer", CORP), ("subjet", "nobody")], "'subjet' here"),
        // Of a variable of a shell that is not set.
        (vec![("issuer", CORP), ("subject", "")], "'subject' has no value"),
        (vec![("role", "deploy"), ("before", "")], "'before' has no value"),
        (vec![("role", "deploy"), ("jti", "")], "'jti' has no value"),
    ] {
        let answer = post(&bed, "/v1/revocations", &ops, &form).await;
        let said = refused(&answer, 400, "invalid_request");
        assert!(said.contains(says), "{form:?}: {said}");
    }
    assert!(active(&bed, &token).await);
    // Why is for people, and may be left out in either way.
    let form = [("role", "other"), ("reason", "")];
    ok(&post(&bed, "/v1/revocations", &ops, &form).await);
}

#[tokio::test]
async fn what_needs_no_parameters_needs_no_body() {
    let bed = bed().await;
    let ops = ops(&bed);
    for event in ["activate", "relinquish", "withdraw"] {
        let path = format!("/v1/elevations/{}/{event}", uuid::Uuid::nil());
        refused(&post_nothing(&bed, &path, &ops).await, 404, "not_found");
    }
    let path = format!("/v1/elevations/{}/deny", uuid::Uuid::nil());
    let said = refused(&post_nothing(&bed, &path, &ops).await, 400, "invalid_request");
    assert!(said.contains("'reason' is missing"), "{said}");
    // Much would be done for nothing that was said.
    for path in ["/v1/revocations", "/v1/keys/rotate"] {
        let said = refused(&post_nothing(&bed, path, &ops).await, 400, "invalid_request");
        assert!(said.contains("x-www-form-urlencoded"), "{said}");
    }
}
