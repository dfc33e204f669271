//! What an API server answers.

use super::*;
use crate::fuzz::{
    Fate::{Accepted, Refused},
    NOW, hold,
};
use crate::host::clock::{SkewMeter, SystemClock};
use crate::oidc::jwt::{ALGORITHMS, LEEWAY};

#[test]
fn review() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let reviewer = Reviewer {
        endpoint: Url::parse("https://cluster.example/").unwrap(),
        token_file: PathBuf::new(),
        groups_claim: "groups".into(),
        http: HttpClient::new(clock.clone(), SkewMeter::default(), None),
        clock,
        failed: Mutex::default(),
    };
    let reviewer = std::panic::AssertUnwindSafe(reviewer);
    hold("review", [], move |input| {
        let Ok(Reviewed { status }) = serde_json::from_slice(input) else { return Refused };
        let said = Claims {
            principal: Principal { issuer: "https://c.example".into(), subject: "said".into() },
            audience: vec!["me".into()],
            issued_at: None,
            expires_at: NOW,
            all: json!({"exp": 7, "sub": "said", "admin": true}).as_object().unwrap().clone(),
        };
        let expected = Expectations {
            issuer: "https://c.example",
            audiences: &["me".to_string()],
            algorithms: ALGORITHMS,
            nonce: None,
            now: NOW,
            leeway: LEEWAY,
        };
        let reviewer = &reviewer;
        let Ok(claims) = reviewer.claims(said, status, &expected) else { return Refused };
        // What nobody reads need not be text.
        let Ok::<Value, _>(answer) = serde_json::from_slice(input) else { return Accepted };
        let status = &answer["status"];
        // A list may stand for an object.
        if !status["user"].is_object() {
            return Accepted;
        }
        assert_eq!(status["authenticated"], true);
        assert!(status["audiences"].as_array().unwrap().contains(&json!("me")));
        assert_eq!(status["user"]["username"], claims.principal.subject);
        assert!(!claims.principal.subject.is_empty());
        // Nothing counts of what the token says but its times.
        assert!(!claims.all.contains_key("admin"));
        assert_eq!(
            (&claims.all["sub"], &claims.all["iss"]),
            (&json!(claims.principal.subject), &json!("https://c.example"))
        );
        assert_eq!(claims.all["exp"], 7);
        Accepted
    });
}
