//! Who gets in, and for how long.

use super::*;
use crate::broker::web::Purpose;

/// Where somebody is sent who is not signed in.
async fn is_out(place: &Place, jar: &Jar) -> bool {
    let answer = place.get("/elevations", jar).await;
    answer.status == StatusCode::SEE_OTHER && answer.header("location") == "/elevations/sign-in"
}

#[tokio::test]
async fn whoever_signs_in_gets_to_the_page_that_they_wanted_and_nowhere_else() {
    let place = Place::new().await;
    let id = place.requested().await;
    let sent = place.get(&format!("/elevations/{id}"), &Jar::default()).await;
    assert_eq!(sent.header("location"), format!("/elevations/sign-in?to={id}"));
    for (to, leads) in [
        (id.as_str(), format!("/elevations/{id}")),
        ("active", "/elevations/active".into()),
        ("//evil.example", "/elevations".into()),
        ("https://evil.example", "/elevations".into()),
        ("../v1/audit", "/elevations".into()),
    ] {
        let (jar, state, nonce) = place.begin(to).await;
        place.says("bob", &nonce, json!({}));
        let answer = place.come_back(&jar, &state, &[]).await;
        assert_eq!(answer.header("location"), leads, "{to}");
    }
    let asked = place.get("/elevations/sign-in", &Jar::default()).await;
    for (name, value) in [
        ("client_id", "pages"),
        ("response_type", "code"),
        ("response_mode", "query"),
        ("code_challenge_method", "S256"),
        ("scope", "openid"),
        ("redirect_uri", "https://broker.example.com/elevations/callback"),
    ] {
        assert_eq!(asked.parameter(name), value);
    }
}

#[tokio::test]
async fn who_waits_for_the_provider_keeps_nobody_out_but_who_wants_to_sign_in() {
    let place = Place::new().await;
    let (jar, state, nonce) = place.begin("active").await;
    place.says("bob", &nonce, json!({}));
    let book = place.bed.broker.policies();
    let crowd = book.pages().unwrap().crowd();
    let turned_away =
        [place.get("/elevations/sign-in", &jar).await, place.come_back(&jar, &state, &[]).await];
    for answer in turned_away {
        assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
    }
    // A grant is asked for meanwhile, and somebody who is sent away comes back.
    place.requested().await;
    drop(crowd);
    let answer = place.come_back(&jar, &state, &[]).await;
    assert_eq!(answer.header("location"), "/elevations/active");
}

#[tokio::test]
async fn an_answer_that_does_not_belong_to_the_sign_in_leads_nowhere() {
    let place = Place::new().await;
    let denied = [("error", "access_denied"), ("code", "")];
    for (changes, says) in [
        (&[("iss", "https://evil.example")][..], "the answer is that of"),
        (&[("iss", "")], "does not say who sent it"),
        (&[("code", "")], "neither a code nor an error"),
        (&denied, "access_denied"),
    ] {
        let (mut jar, state, nonce) = place.begin("active").await;
        place.says("bob", &nonce, json!({}));
        let answer = place.come_back(&jar, &state, changes).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{changes:?}: {}", answer.text);
        assert!(answer.text.contains(says), "{changes:?}: {}", answer.text);
        assert!(answer.text.contains("/elevations/sign-in?to=active"), "{}", answer.text);
        jar.keep(&answer);
        assert!(jar.0.is_empty(), "{changes:?}: it is over");
    }
    // Without what the browser was to remember there is no sign-in, whoever knows the rest.
    let (jar, state, nonce) = place.begin("").await;
    place.says("bob", &nonce, json!({}));
    let answer = place.come_back(&Jar::default(), &state, &[]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    let mut changed = jar.clone();
    for value in changed.0.values_mut() {
        value.replace_range(40..41, if &value[40..41] == "A" { "B" } else { "A" });
    }
    assert_eq!(place.come_back(&changed, &state, &[]).await.status, StatusCode::BAD_REQUEST);
    // A session in its place is sealed for something else.
    let session = place.signed_in("bob").await.0["__Host-tmpcred-session"].clone();
    let sealed = session.split_once('.').unwrap().1.to_string();
    let name = jar.0.keys().next().unwrap().clone();
    let swapped = Jar([(name, sealed)].into());
    assert_eq!(place.come_back(&swapped, &state, &[]).await.status, StatusCode::BAD_REQUEST);
    // One sign-in by the name of another one.
    let other = place.begin("").await.0;
    let renamed = jar.0.keys().cloned().zip(other.0.into_values()).collect();
    assert_eq!(place.come_back(&Jar(renamed), &state, &[]).await.status, StatusCode::BAD_REQUEST);
    // And one that took too long.
    place.later(601);
    place.says("bob", &nonce, json!({}));
    let answer = place.come_back(&jar, &state, &[]).await;
    assert!(answer.text.contains("it took too long"), "{}", answer.text);
}

#[tokio::test]
async fn an_answer_to_no_sign_in_of_this_browser_changes_nothing() {
    let place = Place::new().await;
    let (jar, state, nonce) = place.begin("active").await;
    let twice = format!("/elevations/callback?state={state}&state={state}&code=c");
    for path in [
        "/elevations/callback",
        "/elevations/callback?state=x",
        "/elevations/callback?state=&code=c",
        "/elevations/callback?state=x&error=access_denied",
        "/elevations/callback?error=access_denied",
        &twice,
    ] {
        let answer = place.get(path, &jar).await;
        assert_eq!(answer.status, StatusCode::BAD_REQUEST, "{path}: {}", answer.text);
        assert!(answer.headers.get("set-cookie").is_none(), "{path}");
    }
    // The one that is under way goes on, to where it was to lead.
    place.says("bob", &nonce, json!({}));
    let answer = place.come_back(&jar, &state, &[]).await;
    assert_eq!(answer.header("location"), "/elevations/active");
    // Whoever is signed in stays so.
    let mut jar = jar;
    jar.keep(&answer);
    let answer = place.come_back(&jar, &state, &[]).await;
    assert_eq!(answer.status, StatusCode::BAD_REQUEST);
    jar.keep(&answer);
    assert!(!is_out(&place, &jar).await);
}

#[tokio::test]
async fn two_tabs_sign_in_one_after_the_other_and_each_gets_where_it_wanted() {
    let place = Place::new().await;
    let id = place.requested().await;
    let mut jar = Jar::default();
    let first = place.begin_in(&mut jar, &id).await;
    let second = place.begin_in(&mut jar, "reviews").await;
    assert_eq!(jar.sign_ins(), 2);
    place.says("bob", &first.1, json!({}));
    let answer = place.come_back(&jar, &first.0, &[]).await;
    assert_eq!(answer.header("location"), format!("/elevations/{id}"));
    jar.keep(&answer);
    assert_eq!(jar.sign_ins(), 1);
    let form = place.get(&format!("/elevations/{id}"), &jar).await;
    place.says("bob", &second.1, json!({}));
    let answer = place.come_back(&jar, &second.0, &[]).await;
    assert_eq!(answer.header("location"), "/elevations/reviews");
    jar.keep(&answer);
    assert_eq!(jar.sign_ins(), 0);
    // What the first one shows is still good to be sent.
    let (csrf, hash) = (form.field("csrf"), form.field("hash"));
    let fields = [("csrf", csrf.as_str()), ("hash", hash.as_str())];
    let sent = place.post(&format!("/elevations/{id}/approve"), &jar, &fields).await;
    assert_eq!(sent.header("location"), format!("/elevations/{id}?done=approve"), "{}", sent.text);
    // Not so once somebody else has signed in.
    let third = place.begin_in(&mut jar, "").await;
    place.says("carol", &third.1, json!({}));
    jar.keep(&place.come_back(&jar, &third.0, &[]).await);
    let sent = place.post(&format!("/elevations/{id}/approve"), &jar, &fields).await;
    assert_eq!(sent.status, StatusCode::FORBIDDEN, "{}", sent.text);
}

#[tokio::test]
async fn a_browser_remembers_the_newest_sign_ins_and_no_more_than_it_can_carry() {
    let place = Place::new().await;
    let mut jar = Jar::default();
    let mut begun = Vec::new();
    for _ in 0..9 {
        begun.push(place.begin_in(&mut jar, "mine").await);
        place.later(1);
    }
    assert_eq!(jar.sign_ins(), 6);
    let told = |number: usize| begun[number].clone();
    for (number, known) in [(0, false), (2, false), (3, true), (8, true)] {
        let (state, nonce) = told(number);
        place.says("bob", &nonce, json!({}));
        let answer = place.come_back(&jar, &state, &[]).await;
        assert_eq!(answer.header("location") == "/elevations/mine", known, "{number}");
    }
    // What nobody can use any more goes first.
    jar.0.insert("__Host-tmpcred-sign-in-ffffffffffffffff".into(), "foreign".into());
    place.later(601);
    place.begin_in(&mut jar, "").await;
    assert_eq!(jar.sign_ins(), 1);
}

#[tokio::test]
async fn an_id_token_is_for_these_pages_this_sign_in_and_one_person() {
    let place = Place::new().await;
    for (changes, says) in [
        (json!({ "nonce": "other" }), "nonce"),
        (json!({ "nonce": null }), "nonce"),
        (json!({ "aud": "cli" }), "it is for"),
        (json!({ "aud": ["pages", "cli"] }), "several audiences"),
        (json!({ "azp": "cli" }), "issued to"),
        (json!({ "iss": "https://login.example.com" }), "it was issued by"),
        (json!({ "exp": 1 }), "expired"),
        (json!({ "at_hash": "AAAAAAAAAAAAAAAAAAAAAA" }), "at_hash"),
        (json!({ "events": {} }), "event"),
        (json!({ "act": { "sub": "robot" } }), "acts for its subject"),
    ] {
        let (mut jar, state, nonce) = place.begin("").await;
        place.says("bob", &nonce, changes.clone());
        let answer = place.come_back(&jar, &state, &[]).await;
        assert_eq!(answer.status, StatusCode::FORBIDDEN, "{changes}: {}", answer.text);
        assert!(answer.text.contains(says), "{changes}: {}", answer.text);
        jar.keep(&answer);
        assert!(is_out(&place, &jar).await, "{changes}");
    }
    // A code that was used before is refused by the provider.
    let (jar, state, _) = place.begin("").await;
    place.said.id_token.lock().unwrap().clear();
    let answer = place.come_back(&jar, &state, &[]).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text.contains("invalid_grant"), "{}", answer.text);
}

#[tokio::test]
async fn a_session_lasts_as_long_as_it_may_and_is_good_unchanged_only() {
    let place =
        Place::with(ELEVATION, |web| web.session = std::time::Duration::from_secs(600)).await;
    let jar = place.signed_in("bob").await;
    assert!(!is_out(&place, &jar).await);
    let name = "__Host-tmpcred-session";
    let text = jar.0[name].clone();
    for at in [0, 3, 50, text.len() / 2, text.len() - 2] {
        let mut changed = text.clone();
        let other = if &text[at..=at] == "A" { "B" } else { "A" };
        changed.replace_range(at..=at, other);
        assert!(is_out(&place, &Jar([(name.to_string(), changed)].into())).await, "{at}");
    }
    // By the name that it would have without https.
    assert!(is_out(&place, &Jar([("tmpcred-session".into(), text)].into())).await);
    // One of a broker with another key.
    let other = Place::new().await.signed_in("bob").await;
    assert!(is_out(&place, &other).await);
    place.later(590);
    assert!(!is_out(&place, &jar).await);
    place.later(15);
    assert!(is_out(&place, &jar).await);
}

#[tokio::test]
async fn what_a_provider_says_may_be_long_and_is_carried_in_parts() {
    let place = Place::new().await;
    let groups = |number: usize| -> Vec<String> {
        (0..number).map(|n| format!("group-with-a-long-name-{n:06}")).collect()
    };
    let (mut jar, state, nonce) = place.begin("").await;
    place.says("bob", &nonce, json!({ "groups": groups(200) }));
    jar.keep(&place.come_back(&jar, &state, &[]).await);
    assert!(jar.0.len() > 1 && jar.0.values().all(|value| value.len() < 3700), "{}", jar.0.len());
    assert!(!is_out(&place, &jar).await);
    let mut part = jar.clone();
    part.0.remove("__Host-tmpcred-session-1");
    assert!(is_out(&place, &part).await);
    let (jar, state, nonce) = place.begin("").await;
    place.says("bob", &nonce, json!({ "groups": groups(900) }));
    let answer = place.come_back(&jar, &state, &[]).await;
    assert!(answer.text.contains("too much for a browser to carry"), "{}", answer.text);
}

#[tokio::test]
async fn what_is_sealed_for_signing_in_is_no_session() {
    let place = Place::new().await;
    let seal = &place.bed.broker.pages_seal;
    let text = seal.seal(Purpose::SignIn, &json!({})).unwrap();
    let jar = Jar([("__Host-tmpcred-session".into(), format!("1.{text}"))].into());
    assert!(is_out(&place, &jar).await);
}
