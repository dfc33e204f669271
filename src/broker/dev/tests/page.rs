//! The pages, as a browser uses them, and the device flow.

use super::*;
use reqwest::StatusCode;
use serde_json::json;

#[tokio::test]
async fn a_person_logs_in_on_the_page() {
    let dev = Dev::start(false);
    let url = || dev.authorize(&[("client_id", "tmpcred-dev")]);
    let none = dev.authorize(&[("client_id", "tmpcred-dev"), ("prompt", "none")]);
    assert_eq!(dev.get(none).await.parameter("error").as_deref(), Some("interaction_required"));
    let page = dev.get(url()).await;
    assert_eq!(page.status, StatusCode::OK);
    assert!(page.text.contains("Development") && page.text.contains("tester"));
    assert!(page.header("content-security-policy").contains("default-src 'none'"));
    assert!(page.header("content-security-policy").contains("http://127.0.0.1:9;"));
    assert_eq!(page.header("x-frame-options"), "DENY");
    assert!(page.header("set-cookie").contains("HttpOnly; SameSite=Strict"));

    let fields = [("page", page.field("page")), ("csrf", page.field("csrf"))];
    let answer = async |cookie: &str, changes: &[(&str, &str)]| {
        let mut form: Vec<(&str, &str)> = fields.iter().map(|(n, v)| (*n, v.as_str())).collect();
        form.extend([
            ("login", "bob"),
            ("name", "Bob"),
            ("groups", "a, developers"),
            ("answer", "approve"),
        ]);
        for (name, value) in changes {
            form.retain(|(n, _)| n != name);
            form.push((name, value));
        }
        let request = dev.client.post(dev.url("authorize")).header("cookie", cookie).form(&form);
        dev.send(request).await
    };
    let cookie = page.cookie();
    // From elsewhere: without the cookie, with another one, with another form's token.
    let other = dev.get(url()).await;
    assert_eq!(answer("", &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(answer(&other.cookie(), &[]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(answer(&cookie, &[("csrf", "")]).await.status, StatusCode::FORBIDDEN);
    assert_eq!(
        answer(&cookie, &[("csrf", &other.field("csrf"))]).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        answer(&cookie, &[("page", &other.field("page"))]).await.status,
        StatusCode::FORBIDDEN
    );
    assert_eq!(answer(&cookie, &[("login", "")]).await.status, StatusCode::BAD_REQUEST);

    let done = answer(&cookie, &[]).await;
    assert_eq!(done.status, StatusCode::SEE_OTHER);
    let tokens = dev.redeem(&done.parameter("code").unwrap(), &[]).await.json();
    let claims = claims_of(tokens["access_token"].as_str().unwrap());
    assert_eq!((&claims["sub"], &claims["groups"]), (&json!("bob"), &json!(["a", "developers"])));
    assert_eq!(answer(&cookie, &[]).await.status, StatusCode::GONE, "an answer counts once");

    let page = dev.get(url()).await;
    let form =
        [("page", page.field("page")), ("csrf", page.field("csrf")), ("answer", "deny".into())];
    let request = dev.client.post(dev.url("authorize")).header("cookie", page.cookie()).form(&form);
    let denied = dev.send(request).await;
    assert_eq!(denied.parameter("error").as_deref(), Some("access_denied"));
    assert_eq!(denied.parameter("state").as_deref(), Some("s t&a"));
}

#[tokio::test]
async fn groups_decide_at_the_broker() {
    let dev = Dev::start(false);
    for (groups, role, status) in
        [("developers", ROLE, 200), ("others", ROLE, 400), ("", ROLE, 400), ("", READER, 200)]
    {
        let page = dev.get(dev.authorize(&[])).await;
        let form = [
            ("page", page.field("page")),
            ("csrf", page.field("csrf")),
            ("login", "bob".into()),
            ("groups", groups.into()),
            ("answer", "approve".into()),
        ];
        let request =
            dev.client.post(dev.url("authorize")).header("cookie", page.cookie()).form(&form);
        let code = dev.send(request).await.parameter("code").unwrap();
        let tokens = dev.redeem(&code, &[]).await.json();
        let answer = dev.exchange(tokens["access_token"].as_str().unwrap(), role).await;
        assert_eq!(answer.status.as_u16(), status, "{groups} {role}: {}", answer.text);
    }
}

#[tokio::test]
async fn a_person_answers_for_a_device() {
    let dev = Dev::start(false);
    let resource = dev.running.issuer().as_str();
    let start = [("scope", "openid offline_access"), ("resource", resource)];
    let flow = dev.post("device_authorization", &start).await.json();
    let poll = async || {
        let code = flow["device_code"].as_str().unwrap();
        let form =
            [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", code)];
        dev.post("token", &form).await.json()
    };
    assert_eq!(poll().await["error"], "authorization_pending");
    assert_eq!(poll().await["error"], "slow_down");

    let entry = dev.get(dev.url("device")).await;
    assert!(entry.text.contains("Enter the code"));
    let mut unknown = dev.url("device");
    unknown.query_pairs_mut().append_pair("user_code", "BBBB-BBBB");
    assert_eq!(dev.get(unknown).await.status, StatusCode::NOT_FOUND);
    let complete = Url::parse(flow["verification_uri_complete"].as_str().unwrap()).unwrap();
    let page = dev.get(complete).await;
    let user_code = flow["user_code"].as_str().unwrap();
    assert!(page.text.contains(user_code));
    let answer = async |cookie: &str, csrf: &str, login: &str| {
        let form =
            [("user_code", user_code), ("csrf", csrf), ("login", login), ("answer", "approve")];
        let request = dev.client.post(dev.url("device")).header("cookie", cookie).form(&form);
        dev.send(request).await
    };
    let (cookie, csrf) = (page.cookie(), page.field("csrf"));
    assert_eq!(answer("", &csrf, "bob").await.status, StatusCode::FORBIDDEN);
    assert_eq!(answer(&cookie, "", "bob").await.status, StatusCode::FORBIDDEN);
    assert!(answer(&cookie, &csrf, "").await.text.contains("user name is missing"));
    let done = answer(&cookie, &csrf, "bob").await;
    assert!(done.text.contains("You are logged in"), "{}", done.text);
    assert_eq!(answer(&cookie, &csrf, "bob").await.status, StatusCode::GONE);
}

#[tokio::test]
async fn a_device_is_answered_at_once_where_nobody_is_asked() {
    let dev = Dev::start(true);
    let resource = dev.running.issuer().as_str();
    let start = [("scope", "openid offline_access"), ("resource", resource)];
    let flow = dev.post("device_authorization", &start).await.json();
    assert_eq!(flow["interval"], 1);
    let code = flow["device_code"].as_str().unwrap();
    let form =
        [("grant_type", "urn:ietf:params:oauth:grant-type:device_code"), ("device_code", code)];
    let tokens = dev.post("token", &form).await.json();
    let answer = dev.exchange(tokens["access_token"].as_str().unwrap(), ROLE).await;
    assert_eq!(answer.status, StatusCode::OK, "{}", answer.text);
    assert_eq!(dev.post("token", &form).await.json()["error"], "invalid_grant", "once only");
    let other = dev.post("device_authorization", &[("resource", "https://other.example")]).await;
    assert_eq!(other.json()["error"], "invalid_target");
}
