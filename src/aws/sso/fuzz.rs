//! How servers of AWS refuse.

use reqwest::StatusCode;
use reqwest::header::{HeaderMap, HeaderValue};

use super::*;
use crate::fuzz::{Fate, halves, hold};

/// The header with the kind, a line end, and the body.
#[test]
fn sso_answer() {
    let secret = Secret::new("a-secret-of-ours".to_string());
    hold("sso_answer", [], move |input| {
        let (kind, body) = halves(input);
        let mut headers = HeaderMap::new();
        if let Ok(kind) = HeaderValue::from_bytes(kind)
            && !kind.is_empty()
        {
            headers.insert("x-amzn-errortype", kind);
        }
        let body = Secret::new(body.to_vec());
        let response = Response { status: StatusCode::BAD_REQUEST, headers, body };
        let Err(failure) = judged(response, &[&secret], "the server") else {
            panic!("a refusal is taken for success");
        };
        let fate = Fate::accepted_if(matches!(failure, Failure::Refused(_)));
        // A server that repeats what it was sent is not quoted.
        assert!(!failure.error("it failed").to_string().contains("a-secret-of-ours"));
        fate
    });
}
