//! Which roles somebody may have.

use super::*;
use crate::broker::config::Binding;
use crate::wire::roles::ROLES_PATH;

async fn ask(place: &Place, path: &str, token: Option<&str>) -> Response {
    let mut headers = HeaderMap::new();
    if let Some(token) = token {
        headers.insert("authorization", format!("Bearer {token}").parse().unwrap());
    }
    let (method, url) = (Method::GET, place.bed.url(&format!("/{path}")));
    let body = Secret::new(Vec::new());
    place.bed.client.send(Request { method, url, headers, body }).await.unwrap()
}

async fn roles(place: &Place, token: &str) -> Value {
    let response = ask(place, ROLES_PATH, Some(token)).await;
    assert_eq!(response.status, StatusCode::OK, "{}", json_of(&response));
    json_of(&response)["roles"].clone()
}

fn admin(emergency: bool) -> Value {
    json!({
        "role": "admin", "how": "elevate", "approval": true, "emergency": emergency, "aws": false,
        "audiences": [{
            "audience": API, "scope": "deploy:admin deploy:read deploy:write", "longest": 3600,
            "key_bound": false,
        }],
    })
}

#[tokio::test]
async fn those_are_told_that_policy_gives_and_no_others() {
    let place = Place::new().await;
    let size = place.bed.store.size().await.unwrap();
    // Only one of them may without approval, and a stranger nothing at all.
    assert_eq!(roles(&place, &place.token("alice")).await, json!([admin(true)]));
    assert_eq!(roles(&place, &place.token("dave")).await, json!([admin(false)]));
    assert_eq!(roles(&place, &place.token("zoe")).await, json!([]));
    // As her token says, she would be issued another one.
    let told = roles(&place, &place.bed.key.token(json!({}))).await;
    let deploy = json!({
        "role": "deploy", "how": "issue", "approval": false, "emergency": false, "aws": false,
        "audiences": [{
            "audience": API, "scope": "deploy:read deploy:write", "longest": 900,
            "key_bound": false,
        }],
    });
    assert_eq!(told, json!([admin(true), deploy]));
    // What is forbidden is not told.
    let mallory = place.bed.key.token(json!({"sub": "mallory"}));
    assert_eq!(roles(&place, &mallory).await, json!([]));
    assert_eq!(place.bed.store.size().await.unwrap(), size, "nothing is on record");
}

#[tokio::test]
async fn what_takes_a_key_says_so_and_so_does_what_aws_reads() {
    let place = Place::with(|role| {
        role.dpop = Binding::Required;
        role.aws = Some(Default::default());
    })
    .await;
    let told = roles(&place, &place.token("dave")).await;
    assert_eq!(
        (&told[0]["aws"], &told[0]["audiences"][0]["key_bound"]),
        (&json!(true), &json!(true))
    );
}

#[tokio::test]
async fn nobody_is_told_who_does_not_show_who_they_are() {
    let place = Place::new().await;
    let own = json_of(&place.bed.exchange(&place.bed.key.token(json!({})), &[]).await);
    let own = own["access_token"].as_str().unwrap();
    for shown in [None, Some("garbage"), Some(own)] {
        assert_eq!(ask(&place, ROLES_PATH, shown).await.status, StatusCode::UNAUTHORIZED);
    }
    let alice = place.token("alice");
    let asked = ask(&place, &format!("{ROLES_PATH}?role=x"), Some(&alice)).await;
    assert_eq!(asked.status, StatusCode::BAD_REQUEST);
}
