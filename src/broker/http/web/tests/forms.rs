//! Which forms are taken, and what keeps pages to themselves.

use super::*;

#[tokio::test]
async fn a_form_is_taken_from_the_page_that_was_shown_only() {
    let place = Place::new().await;
    let id = place.requested().await;
    let (bob, carol) = (place.signed_in("bob").await, place.signed_in("carol").await);
    let page = place.get(&format!("/elevations/{id}"), &bob).await;
    assert_eq!(page.status, StatusCode::OK, "{}", page.text);
    let (csrf, hash) = (page.field("csrf"), page.field("hash"));
    let others = place.get("/elevations", &carol).await.field("csrf");
    assert_ne!(csrf, others);
    let path = format!("/elevations/{id}/approve");
    let form = [("csrf", csrf.as_str()), ("hash", hash.as_str())];
    let own = [("origin", OWN), ("sec-fetch-site", "same-origin")];
    for (jar, headers, form, status) in [
        (&bob, &own, &[("hash", hash.as_str())][..], StatusCode::FORBIDDEN),
        (&bob, &own, &[("csrf", others.as_str()), ("hash", &hash)], StatusCode::FORBIDDEN),
        (&bob, &own, &[("csrf", ""), ("hash", &hash)], StatusCode::FORBIDDEN),
        (&carol, &own, &form, StatusCode::FORBIDDEN),
        (&Jar::default(), &own, &form, StatusCode::UNAUTHORIZED),
        (&bob, &[("origin", "https://evil.example"), own[1]], &form, StatusCode::FORBIDDEN),
        (&bob, &[("origin", "null"), own[1]], &form, StatusCode::FORBIDDEN),
        (&bob, &[("origin", "http://broker.example.com"), own[1]], &form, StatusCode::FORBIDDEN),
        (&bob, &[own[0], ("sec-fetch-site", "cross-site")], &form, StatusCode::FORBIDDEN),
        (&bob, &[own[0], ("sec-fetch-site", "same-site")], &form, StatusCode::FORBIDDEN),
        (&bob, &[own[0], ("sec-fetch-site", "none")], &form, StatusCode::FORBIDDEN),
    ] {
        let answer = place.send((Method::POST, &path), jar, headers, form).await;
        assert_eq!(answer.status, status, "{headers:?} {form:?}: {}", answer.text);
    }
    // Nor by another hash than the one that was shown, or for another one.
    let wrong = [("csrf", csrf.as_str()), ("hash", "other")];
    assert_eq!(place.post(&path, &bob, &wrong).await.status, StatusCode::CONFLICT);
    let unknown = "/elevations/00000000-0000-4000-8000-000000000000/approve";
    assert_eq!(place.post(unknown, &bob, &form).await.status, StatusCode::NOT_FOUND);
    let nonsense = format!("/elevations/{id}/nonsense");
    assert_eq!(place.post(&nonsense, &bob, &form).await.status, StatusCode::BAD_REQUEST);
    let asked = place.get(&format!("/elevations/{id}"), &bob).await;
    assert!(asked.text.contains("0 of 1"), "nothing was done: {}", asked.text);
    let answer = place.post(&path, &bob, &form).await;
    assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    assert_eq!(answer.header("location"), format!("/elevations/{id}?done=approve"));
    let done = place.get(answer.header("location"), &bob).await;
    assert!(done.text.contains("You have approved it."), "{}", done.text);
    // Signing out wants a form of the session as well.
    let stranger = [("csrf", others.as_str())];
    assert_eq!(place.post("/elevations/sign-out", &bob, &stranger).await.status, 403);
    let answer = place.post("/elevations/sign-out", &bob, &[("csrf", &csrf)]).await;
    assert_eq!(answer.status, StatusCode::OK);
    let mut jar = bob.clone();
    jar.keep(&answer);
    assert!(jar.0.is_empty());
}

#[tokio::test]
async fn who_has_to_sign_in_again_is_told_so_and_sent_with_what_it_takes() {
    let elevation =
        format!("{ELEVATION}\napprover_login = {{ max_age = \"1m\", acr = [\"gold\"] }}");
    let place = Place::with(&elevation, |_| {}).await;
    let id = place.requested().await;
    let bob = place.signed_in("bob").await;
    let page = place.get(&format!("/elevations/{id}"), &bob).await;
    assert!(!page.text.contains("/approve\""), "{}", page.text);
    let (link, csrf) = (format!("/elevations/sign-in?to={id}"), page.field("csrf"));
    assert!(page.text.contains(&link), "{}", page.text);
    // Whoever sends the form all the same is told the same, and by no redirect.
    let path = format!("/elevations/{id}/deny");
    let form = [("csrf", csrf.as_str()), ("reason", "no")];
    let answer = place.post(&path, &bob, &form).await;
    assert_eq!(answer.status, StatusCode::FORBIDDEN);
    assert!(answer.text.contains(&link) && answer.text.contains("Nothing was done yet."));
    let mut jar = bob.clone();
    let sent = place.get(&link, &jar).await;
    assert_eq!(
        (sent.parameter("max_age"), sent.parameter("acr_values")),
        ("60".into(), "gold".into())
    );
    jar.keep(&sent);
    place.says("bob", &sent.parameter("nonce"), json!({ "acr": "gold" }));
    let back = place.come_back(&jar, &sent.parameter("state"), &[]).await;
    assert_eq!(back.header("location"), format!("/elevations/{id}"));
    jar.keep(&back);
    let csrf = place.get(back.header("location"), &jar).await.field("csrf");
    let form = [("csrf", csrf.as_str()), ("reason", "no")];
    assert_eq!(place.post(&path, &jar, &form).await.status, StatusCode::SEE_OTHER);
}

#[tokio::test]
async fn a_drill_says_so_wherever_it_is_shown() {
    let place = Place::new().await;
    let id = place.asked_for("&drill=true").await;
    let bob = place.signed_in("bob").await;
    for path in ["/elevations".to_string(), format!("/elevations/{id}")] {
        let page = place.get(&path, &bob).await;
        assert!(page.text.contains(">drill</span>"), "{path}: {}", page.text);
    }
    let page = place.get(&format!("/elevations/{id}"), &bob).await;
    assert!(page.text.contains("no token is issued under it"), "{}", page.text);
}

#[tokio::test]
async fn each_page_keeps_itself_to_itself() {
    let place = Place::new().await;
    let id = place.requested().await;
    let (bob, nobody) = (place.signed_in("bob").await, Jar::default());
    let one = format!("/elevations/{id}");
    let mut answers = Vec::new();
    for path in [
        "/elevations",
        "/elevations/active",
        "/elevations/reviews",
        "/elevations/mine",
        "/elevations/audit",
        "/elevations/sign-in",
        "/elevations/callback",
        "/elevations/nothing",
        one.as_str(),
    ] {
        answers.push((path.to_string(), place.get(path, &bob).await));
        answers.push((path.to_string(), place.get(path, &nobody).await));
    }
    for path in ["/elevations/sign-out".to_string(), format!("{one}/approve")] {
        answers.push((path.clone(), place.post(&path, &nobody, &[]).await));
        let json = [("content-type", "application/json")];
        answers.push((path.clone(), place.send((Method::POST, &path), &bob, &json, &[]).await));
    }
    let full = (place.bed.guard.fill(), place.bed.guard.fill_kept());
    let busy = place.get("/elevations", &bob).await;
    drop(full);
    assert_eq!(busy.status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(busy.headers.contains_key("retry-after") && busy.text.contains("<h1>"));
    answers.push(("busy".into(), busy));
    for (path, answer) in answers {
        let policy = answer.header("content-security-policy");
        for part in ["default-src 'none'", "form-action 'self'", "frame-ancestors 'none'"] {
            assert!(policy.contains(part), "{path}: {policy}");
        }
        assert!(!policy.contains("unsafe") && !policy.contains("script-src"), "{path}: {policy}");
        for (name, value) in [
            ("x-frame-options", "DENY"),
            ("x-content-type-options", "nosniff"),
            ("cache-control", "no-store"),
            ("referrer-policy", "same-origin"),
        ] {
            assert_eq!(answer.header(name), value, "{path}: {name}");
        }
        assert!(!answer.text.contains("<script") && !answer.text.contains("http-equiv"), "{path}");
        let is_page = answer.header("content-type").starts_with("text/html");
        assert!(is_page || answer.status == StatusCode::SEE_OTHER, "{path}: {}", answer.status);
        assert_eq!(is_page, answer.text.contains("<html lang=\"en\">"), "{path}");
    }
}

#[tokio::test]
async fn whoever_comes_too_often_is_told_so_on_a_page_and_may_leave() {
    let place = Place::built(
        ELEVATION,
        |_| {},
        |options| {
            let limits = "principal_route.elevations = { per_minute = 1, burst = 2 }";
            options.config.limits = toml::from_str(limits).unwrap();
        },
    )
    .await;
    let (bob, carol) = (place.signed_in("bob").await, place.signed_in("carol").await);
    let id = place.requested().await;
    let page = place.get(&format!("/elevations/{id}"), &bob).await;
    let (csrf, hash) = (page.field("csrf"), page.field("hash"));
    assert_eq!(place.get("/elevations/mine", &bob).await.status, StatusCode::OK);
    let form = [("csrf", csrf.as_str()), ("hash", &hash)];
    for answer in [
        place.get("/elevations/active", &bob).await,
        place.post(&format!("/elevations/{id}/approve"), &bob, &form).await,
    ] {
        assert_eq!(answer.status, StatusCode::TOO_MANY_REQUESTS, "{}", answer.text);
        assert!(answer.text.contains("caller asks too often"), "{}", answer.text);
        assert!(answer.header("content-type").starts_with("text/html"));
        assert_eq!(answer.header("retry-after"), "60");
    }
    let seen = place.get(&format!("/elevations/{id}"), &carol).await;
    assert!(seen.text.contains("Approve"), "nothing was approved: {}", seen.text);
    let out = place.post("/elevations/sign-out", &bob, &[("csrf", &csrf)]).await;
    assert_eq!(out.status, StatusCode::OK, "{}", out.text);
}

/// Whoever is sent an address is told by it of nothing that they have not done.
#[tokio::test]
async fn no_address_says_that_somebody_did_what_they_did_not() {
    let place = Place::new().await;
    let id = place.requested().await;
    let (bob, carol) = (place.signed_in("bob").await, place.signed_in("carol").await);
    let at = |event: &str| format!("/elevations/{id}?done={event}");
    let says_something = async |jar: &Jar| {
        let mut told = Vec::new();
        for event in ["approve", "deny", "withdraw", "activate", "relinquish", "revoke", "review"] {
            let page = place.get(&at(event), jar).await;
            assert_eq!(page.status, StatusCode::OK, "{}", page.text);
            told.extend(page.text.contains("notice good").then_some(event));
        }
        told
    };
    let does = async |jar: &Jar, event: &str, form: &[(&str, &str)]| {
        let page = place.get(&format!("/elevations/{id}"), jar).await;
        let csrf = page.field("csrf");
        let mut form = [form, &[("csrf", csrf.as_str())]].concat();
        let hash = if event == "approve" { page.field("hash") } else { String::new() };
        form.extend((event == "approve").then_some(("hash", hash.as_str())));
        let answer = place.post(&format!("/elevations/{id}/{event}"), jar, &form).await;
        assert_eq!(answer.status, StatusCode::SEE_OTHER, "{}", answer.text);
    };
    assert_eq!(says_something(&bob).await, [""; 0]);
    does(&bob, "approve", &[]).await;
    assert_eq!(says_something(&bob).await, ["approve"]);
    assert_eq!(says_something(&carol).await, [""; 0]);
    let alice = place.signed_in("alice").await;
    does(&alice, "activate", &[]).await;
    assert_eq!(says_something(&alice).await, ["activate"]);
    assert_eq!(says_something(&bob).await, ["approve"]);
    does(&bob, "revoke", &[("reason", "enough")]).await;
    assert_eq!(says_something(&bob).await, ["approve", "revoke"]);
    for jar in [&alice, &carol] {
        assert_eq!(says_something(jar).await, [""; 0]);
    }
}
