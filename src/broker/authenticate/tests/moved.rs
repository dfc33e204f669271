//! Issuers whose keys are at another address than before.

use super::*;

impl FakeIssuer {
    /// Its document names the other address from now on.
    fn moves(&self) {
        *self.state.place.lock().unwrap() = "elsewhere";
    }

    fn elsewhere(&self, what: Elsewhere) {
        *self.state.elsewhere.lock().unwrap() = what;
    }
}

#[tokio::test]
async fn keys_that_move_are_found_and_those_from_before_serve_until_then() {
    let issuer = FakeIssuer::start();
    let (bed, clock) = trusting(&issuer).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    // The document gives an address where nobody answers.
    issuer.moves();
    clock.forward(Duration::minutes(2));
    for _ in 0..3 {
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
        clock.forward(Duration::minutes(2));
    }
    let key = IssuerKey::new();
    let (iss, now) = (issuer.issuer.as_str(), clock.now().unix_timestamp());
    let token = key.token(json!({"iss": iss, "iat": now, "exp": now + 3000, "groups": []}));
    issuer.elsewhere(Elsewhere::Key(Box::new(key)));
    clock.forward(Duration::seconds(31));
    assert_eq!(code(&bed, &token).await, "access_denied");

    // One that moves though its document may be kept is found by whoever has such a token.
    let issuer = FakeIssuer::start();
    let (bed, clock) = trusting(&issuer).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    clock.forward(Duration::seconds(31));
    let key = IssuerKey::new();
    let (iss, now) = (issuer.issuer.as_str(), clock.now().unix_timestamp());
    let token = key.token(json!({"iss": iss, "iat": now, "exp": now + 3000, "groups": []}));
    issuer.elsewhere(Elsewhere::Key(Box::new(key)));
    issuer.moves();
    assert_eq!(code(&bed, &token).await, "access_denied");
    // What is made up asks seldom.
    let asked = issuer.asked().0;
    for _ in 0..20 {
        let made_up = IssuerKey::new().token(json!({"iss": issuer.issuer.as_str()}));
        assert_eq!(code(&bed, &made_up).await, "invalid_request");
    }
    assert_eq!(issuer.asked().0, asked);
}

#[tokio::test]
async fn keys_from_before_are_good_no_more_once_there_were_others() {
    let issuer = FakeIssuer::start();
    let (bed, clock) = trusting(&issuer).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    let key = IssuerKey::new();
    let (iss, now) = (issuer.issuer.as_str(), clock.now().unix_timestamp());
    let token = key.token(json!({"iss": iss, "iat": now, "exp": now + 300_000, "groups": []}));
    issuer.elsewhere(Elsewhere::Key(Box::new(key)));
    issuer.moves();
    clock.forward(Duration::minutes(2));
    assert_eq!(code(&bed, &token).await, "access_denied");
    // Those are withdrawn; that the ones before are still where they were is no matter.
    issuer.elsewhere(Elsewhere::Gone);
    clock.forward(Duration::hours(2));
    for token in [&token, &issuer.token_at(&clock)] {
        turned_away(&bed, token, &issuer.issuer).await;
    }
}

#[tokio::test]
async fn an_address_that_never_answers_keeps_one_waiting_and_nobody_else() {
    let issuer = FakeIssuer::start();
    let (bed, clock) = trusting(&issuer).await;
    assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    issuer.elsewhere(Elsewhere::Silence);
    issuer.moves();
    clock.forward(Duration::minutes(2));
    let bed = Arc::new(bed);
    let first = tokio::spawn({
        let (bed, token) = (bed.clone(), issuer.token_at(&clock));
        async move { code(&bed, &token).await }
    });
    let deadline = tokio::time::Instant::now() + std::time::Duration::from_secs(30);
    while issuer.state.asked_elsewhere.load(Ordering::SeqCst) == 0 {
        assert!(tokio::time::Instant::now() < deadline, "it is never asked");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    for _ in 0..40 {
        assert_eq!(code(&bed, &issuer.token_at(&clock)).await, "access_denied");
    }
    assert!(!first.is_finished());
    first.abort();
}
