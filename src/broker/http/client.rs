//! The client that a request comes from: its parameters, and how it is refused.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderValue, StatusCode};

use super::api::{Field, Kind};
use super::form::Form;
use super::refusal::Refusal;
use super::token::RETRY_AFTER;
use crate::broker::authenticate::said;
use crate::broker::client::{ASSERTION_TYPE, Presented, Refused};
use crate::broker::metrics::ClientAuthentication;
use crate::wire::refusal::INVALID_CLIENT;

/// How a client says and shows which one it is.
pub(super) const FIELDS: &[Field] = &[
    Field::optional("client_id", "Which client asks (RFC 6749 section 2.2)"),
    Field::optional(
        "client_assertion",
        "What the client signs to show that it is the one (RFC 7523)",
    )
    .of(Kind::Secret),
    Field::optional("client_assertion_type", "Goes with `client_assertion`")
        .of(Kind::OneOf(&[ASSERTION_TYPE])),
    Field::optional("client_secret", "Never accepted: no client has one").of(Kind::Secret),
];

/// What is answered to who has tried a scheme by which no client can authenticate.
const BASIC: &str = "Basic realm=\"tmpcred\"";

/// What a request says of the client that it comes from.
pub(super) fn presented<'a>(form: &'a Form, headers: &HeaderMap) -> Presented<'a> {
    let has_secret = form.optional("client_secret").is_some();
    Presented {
        client_id: form.optional("client_id"),
        assertion: form.secret("client_assertion").ok(),
        assertion_type: form.optional("client_assertion_type"),
        otherwise: headers.contains_key(AUTHORIZATION) || has_secret,
        basic: headers.get_all(AUTHORIZATION).iter().any(is_basic),
        secret: has_secret,
    }
}

/// Whether a header has the name and the password of a client (RFC 7617, RFC 6749 section 2.3.1).
fn is_basic(header: &HeaderValue) -> bool {
    let scheme = header.as_bytes().split(|byte| *byte == b' ').next();
    scheme.is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"))
}

/// The answer to somebody who is not taken for the client that they come as. RFC 6749
/// section 5.2: whoever has tried the header `Authorization` is told of the scheme that they
/// have tried. No scheme of it would help, so nobody else is asked for one.
pub(super) fn refusal(refused: &Refused) -> Refusal {
    let said = said(&refused.error);
    match refused.why {
        ClientAuthentication::Malformed => Refusal::invalid_request(said),
        ClientAuthentication::Unavailable => Refusal::unavailable(said, RETRY_AFTER),
        _ => {
            let refusal = Refusal::new(StatusCode::UNAUTHORIZED, INVALID_CLIENT, said);
            match refused.basic {
                true => refusal.challenging(BASIC),
                false => refusal,
            }
        }
    }
}
