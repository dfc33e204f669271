//! Holds every answer of every test against what is said of its endpoint.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderMap, Method};
use axum::middleware::Next;
use axum::response::Response;
use serde_json::Value;

use super::document::methods;
use super::operation::{Answer, Operation};
use super::{Endpoint, Verb};

/// What is said, by path and method.
#[derive(Clone, Default)]
pub(in crate::broker::http) struct Declared(Arc<BTreeMap<String, (Verb, Operation)>>);

impl Declared {
    pub(super) fn of<S>(endpoints: &[Endpoint<S>]) -> Self {
        let one = |endpoint: &Endpoint<S>| {
            (endpoint.path.clone(), (endpoint.verb, endpoint.operation.clone()))
        };
        Self(Arc::new(endpoints.iter().map(one).collect()))
    }

    fn at(&self, path: &str, method: &Method) -> Option<&Operation> {
        let (verb, operation) = self.0.get(path)?;
        let method = method.as_str().to_ascii_lowercase();
        (*verb == Verb::Any || methods(*verb).contains(&&*method)).then_some(operation)
    }
}

/// Panics, outside of what catches panics, where an answer is not what was said.
pub(in crate::broker::http) async fn hold(
    State(declared): State<Declared>,
    request: Request,
    next: Next,
) -> Response {
    let path = request.extensions().get::<MatchedPath>().map(|path| path.as_str().to_string());
    let method = request.method().clone();
    let response = next.run(request).await;
    let Some(operation) = path.and_then(|path| declared.at(&path, &method)) else {
        return response;
    };
    let (parts, body) = response.into_parts();
    let body = to_bytes(body, usize::MAX).await.unwrap();
    let status = parts.status.as_u16();
    let id = operation.id;
    let answer = operation.answers.get(&status);
    let answer = answer.unwrap_or_else(|| panic!("{id}: {status} is not described"));
    hold_headers(id, answer, &parts.headers);
    hold_body(id, answer, &parts.headers, &body);
    Response::from_parts(parts, Body::from(body))
}

fn hold_headers(id: &str, answer: &Answer, headers: &HeaderMap) {
    for header in &answer.headers {
        let there = headers.contains_key(header.name);
        assert!(there || !header.required, "{id}: {}: no {}", answer.status, header.name);
    }
    for name in ["retry-after", "www-authenticate", "dpop-nonce"] {
        let said = answer.headers.iter().any(|header| header.name.eq_ignore_ascii_case(name));
        assert!(said || !headers.contains_key(name), "{id}: {}: {name}", answer.status);
    }
    for name in ["x-request-id", "tmpcred-protocol", "cache-control"] {
        assert!(headers.contains_key(name), "{id}: {}: no {name}", answer.status);
    }
}

fn hold_body(id: &str, answer: &Answer, headers: &HeaderMap, body: &[u8]) {
    let kind = headers.get(CONTENT_TYPE).map(|kind| kind.to_str().unwrap());
    let status = answer.status;
    let code = serde_json::from_slice::<Value>(body).ok().and_then(|body| {
        let code = body.as_object()?.get("error")?.as_str()?;
        Some(code.to_string())
    });
    match (kind, code) {
        (None, _) => {
            assert!(body.is_empty(), "{id}: {status}: a body without a type");
            assert!(answer.body.is_none() && answer.codes.is_empty(), "{id}: {status}: no body");
        }
        (Some("application/json"), Some(code)) => {
            assert!(answer.codes.contains(&*code), "{id}: {status}: {code} is not described");
        }
        (Some(kind), _) => {
            let described = answer.body.map(|(kind, _)| kind);
            assert_eq!(described, Some(kind), "{id}: {status}: another type of body");
        }
    }
}
