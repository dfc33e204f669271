//! What a broker answers, or whoever is there instead.

use reqwest::StatusCode;
use reqwest::header::HeaderMap;

use super::*;
use crate::fuzz::{
    Fate::{Accepted, Refused},
    hold,
};

#[test]
fn broker_answer() {
    let root = tempfile::tempdir().unwrap();
    let host = crate::host::test_server::host(root.path(), time::Duration::ZERO);
    let host = std::panic::AssertUnwindSafe(host);
    hold("broker_answer", [], move |input| {
        let host = &host;
        let body = Secret::new(input.to_vec());
        let response = Response { status: StatusCode::OK, headers: HeaderMap::new(), body };
        let ask = Ask {
            role: "deploy",
            audience: "https://api.example",
            scope: &["a".to_string()],
            ttl: Some(Duration::from_secs(900)),
            elevation: None,
        };
        let Ok(granted) = read(&response, &ask, None, host) else { return Refused };
        let token = granted.token.expose();
        assert!(!token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()));
        assert!(granted.scope.iter().all(|scope| scope == "a"));
        assert!(granted.bound_to.is_none());
        // What nobody reads need not be text.
        let Ok::<Value, _>(answer) = serde_json::from_slice(input) else { return Accepted };
        // A list may stand for an object.
        if !answer.is_object() {
            return Accepted;
        }
        assert_eq!(answer["role"], "deploy");
        assert!((1..=900).contains(&answer["expires_in"].as_u64().unwrap()));
        Accepted
    });
}
