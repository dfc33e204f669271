//! The introspection endpoint (RFC 7662).

use std::sync::Arc;

use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::BytesRejection;
use axum::http::header::{AUTHORIZATION, CACHE_CONTROL, WWW_AUTHENTICATE};
use axum::http::{HeaderMap, HeaderValue, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use uuid::Uuid;

use super::api::{self, CHALLENGE, Endpoint, Field, Kind, Operation, Scheme, Verb, unavailable};
use super::book::Book;
use super::client;
use super::form::Form;
use super::guard::RequestId;
use super::refusal::Refusal;
use super::source::Source;
use super::token::RETRY_AFTER;
use crate::broker::authenticate::{MayAct, actor};
use crate::broker::client::Proved;
use crate::broker::elevation::ElevationClaim;
use crate::broker::introspect::{self, Asker};
use crate::broker::metrics::{ClientAuthentication, Introspection};
use crate::broker::own::OwnToken;
use crate::broker::{Broker, authenticate, config};
use crate::dpop::SCHEME;
use crate::secret::Secret;
use crate::wire::refusal::{INVALID_CLIENT, INVALID_REQUEST, INVALID_TOKEN};
use crate::wire::{INTROSPECTION_PATH, RevocationReach};

/// What is told (RFC 7662 section 2.2).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Introspection")]
struct Answer<'a> {
    active: bool,
    #[serde(flatten)]
    known: Option<Known<'a>>,
}

#[derive(Serialize, JsonSchema)]
struct Known<'a> {
    iss: &'a str,
    sub: &'a str,
    aud: &'a str,
    client_id: &'a str,
    role: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    scope: &'a str,
    exp: i64,
    iat: i64,
    #[schemars(with = "&str")]
    jti: Uuid,
    token_type: &'static str,
    /// RFC 8693 section 7.3.
    #[serde(skip_serializing_if = "Option::is_none")]
    act: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    may_act: Option<Value>,
    /// RFC 9449 section 6.2.
    #[serde(skip_serializing_if = "Option::is_none")]
    cnf: Option<Confirmation<'a>>,
    /// Ours: the number of its record in the audit log.
    #[serde(skip_serializing_if = "Option::is_none")]
    log_sequence: Option<u64>,
    /// Ours: the grant under which it was issued.
    #[serde(skip_serializing_if = "Option::is_none")]
    elevation: Option<&'a ElevationClaim>,
    /// Ours: whom its revocation reaches.
    revocation_reach: RevocationReach,
}

/// The key that a token is bound to.
#[derive(Serialize, JsonSchema)]
struct Confirmation<'a> {
    jkt: &'a str,
}

/// What a request may have (section 2.1).
const FIELDS: &[Field] = &[
    Field::required("token", "The token that is asked about").of(Kind::Secret),
    Field::optional("token_type_hint", "Looked at by nobody: there is one type"),
];

const FORM: &[&[Field]] = &[FIELDS, client::FIELDS];

/// The endpoint.
pub(super) fn endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let unproved = "The caller did not show who they are";
    let codes = ["unauthorized", INVALID_TOKEN, INVALID_CLIENT];
    let operation = Operation::new("introspect", "Ask whether a token is good (RFC 7662)")
        .form(FORM)
        .shown(&[&[Scheme::Bearer], &[Scheme::PrivateKeyJwt]])
        .answers(api::Answer::json::<Answer<'_>>(200, "What there is to tell"))
        .answers(api::Answer::refusal(400, "The request is malformed", &[INVALID_REQUEST]))
        .answers(api::Answer::refusal(401, unproved, &codes).with(CHALLENGE.sometimes()))
        .answers(unavailable("The broker cannot tell at present whether the token is good"));
    Endpoint::new(format!("{base}/{INTROSPECTION_PATH}"), Verb::Post, post(introspect), operation)
        .shedding()
        .limited(config::Endpoint::Introspect)
}

async fn introspect(
    State(broker): State<Arc<Broker>>,
    Book(book): Book,
    source: Source,
    id: RequestId,
    uri: Uri,
    headers: HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Response {
    let counted = |outcome| broker.metrics.introspected(outcome);
    let malformed = |refusal: Refusal| {
        counted(Introspection::Malformed);
        refusal.at(id)
    };
    let form = Form::read_described(&uri, &headers, body, FORM);
    // A client shows who it is in the body, everybody else in the header.
    let proved = match &form {
        Ok(form) => broker.client(&book, client::presented(form, &headers), true).await,
        Err(_) => Ok(Proved::default()),
    };
    let proved = match proved {
        Ok(proved) => proved,
        Err(refused) => {
            counted(match refused.why {
                ClientAuthentication::Malformed => Introspection::Malformed,
                ClientAuthentication::Unavailable => Introspection::Unavailable,
                _ => Introspection::Unauthenticated,
            });
            let refusal = client::refusal(&refused);
            tracing::info!(code = refusal.code(), ?refusal, "refused");
            return refusal.at(id);
        }
    };
    let bearer = bearer(&headers);
    let asker = match (proved.id(), &bearer) {
        (Some(client), _) => Asker::Client(client),
        (None, Ok(bearer)) => Asker::Bearer(bearer),
        (None, Err(why)) => {
            counted(Introspection::Unauthenticated);
            return challenge(why, None, id);
        }
    };
    let form = match form {
        Ok(form) => form,
        Err(refusal) => return malformed(refusal),
    };
    let token = match form.secret("token") {
        Ok(token) => token,
        Err(refusal) => return malformed(refusal),
    };
    match broker.introspect(&book, asker, token, source.0).await {
        Ok(own) => {
            counted(match &own {
                Some(_) => Introspection::Active,
                None => Introspection::Inactive,
            });
            let known = own.as_ref().map(|own| known(&broker, own));
            let answer = Answer { active: known.is_some(), known };
            ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
        }
        Err(introspect::Refusal::Unauthenticated(error)) => {
            counted(Introspection::Unauthenticated);
            let said = authenticate::said(&error);
            tracing::info!(why = said, "refused");
            challenge(&said, Some(INVALID_TOKEN), id)
        }
        Err(introspect::Refusal::Unavailable(error)) => {
            counted(Introspection::Unavailable);
            tracing::error!(%error, "nothing can be told of a token");
            let why = "the broker cannot tell at present whether the token is good";
            Refusal::unavailable(why, RETRY_AFTER).at(id)
        }
    }
}

fn known<'a>(broker: &'a Broker, own: &'a OwnToken) -> Known<'a> {
    Known {
        iss: broker.issuer().as_str(),
        sub: &own.subject,
        aud: &own.audience,
        client_id: &own.client,
        role: &own.role,
        scope: &own.scope,
        exp: own.expires_at.unix_timestamp(),
        iat: own.issued_at.unix_timestamp(),
        jti: own.jti,
        token_type: if own.key.is_some() { SCHEME } else { "Bearer" },
        act: actor::claim(&own.actors),
        may_act: own.may_act.as_ref().map(MayAct::claim),
        cnf: own.key.as_deref().map(|jkt| Confirmation { jkt }),
        log_sequence: own.log_sequence,
        elevation: own.elevation.as_ref(),
        revocation_reach: own.reach,
    }
}

/// The token by which the caller proves who they are (RFC 6750 section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<Secret<String>, &'static str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (given.next(), given.next()) else {
        return Err("a request needs one header 'Authorization: Bearer'");
    };
    let token = one.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match token {
        Some(token) if !token.is_empty() => Ok(Secret::new(token.to_string())),
        _ => Err("the header 'Authorization' has no bearer token"),
    }
}

/// RFC 6750 section 3: what would be accepted; and what is wrong, where there was a
/// token at all.
fn challenge(why: &str, code: Option<&'static str>, id: RequestId) -> Response {
    let refusal = Refusal::new(StatusCode::UNAUTHORIZED, code.unwrap_or("unauthorized"), why);
    let mut response = refusal.at(id);
    let value = match code {
        None => HeaderValue::from_static("Bearer realm=\"tmpcred\""),
        Some(_) => HeaderValue::from_static("Bearer realm=\"tmpcred\", error=\"invalid_token\""),
    };
    response.headers_mut().insert(WWW_AUTHENTICATE, value);
    response
}
