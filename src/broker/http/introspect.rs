//! The introspection endpoint (RFC 7662).

use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CACHE_CONTROL;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::api::{
    self, CHALLENGE, DPOP_NONCE, Endpoint, Field, Kind, Operation, Scheme, Verb, unavailable,
};
use super::book::Book;
use super::client;
use super::form::Posted;
use super::guard::RequestId;
use super::rates;
use super::refusal::Refusal;
use super::shown::{Challenge, Token};
use super::source::Source;
use super::token::RETRY_AFTER;
use crate::broker::authenticate::{MayAct, actor};
use crate::broker::client::Proved;
use crate::broker::elevation::ElevationClaim;
use crate::broker::introspect::{self, Asker};
use crate::broker::metrics::{ClientAuthentication, Introspection};
use crate::broker::origins::{Place, Used};
use crate::broker::own::OwnToken;
use crate::broker::{Broker, config};
use crate::dpop::SCHEME;
use crate::wire::refusal::{
    INVALID_CLIENT, INVALID_DPOP_PROOF, INVALID_REQUEST, INVALID_TOKEN, USE_DPOP_NONCE,
};
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
    /// The claims of its role.
    #[serde(flatten)]
    claims: &'a Map<String, Value>,
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
    Field::optional(
        "source_address",
        "The IP address that the token was shown from, to be compared with the one that it was issued to; it counts for nothing where the token asks about itself, for whoever has stolen it could say so, too",
    ),
];

const FORM: &[&[Field]] = &[FIELDS, client::FIELDS];

/// The endpoint.
pub(super) fn endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let unproved = "The caller did not show who they are";
    let codes = ["unauthorized", INVALID_TOKEN, INVALID_CLIENT, INVALID_DPOP_PROOF, USE_DPOP_NONCE];
    let operation = Operation::new("introspect", "Ask whether a token is good (RFC 7662)")
        .form(FORM)
        .shown(&[&[Scheme::Bearer], &[Scheme::Dpop, Scheme::DpopProof], &[Scheme::PrivateKeyJwt]])
        .answers(api::Answer::json::<Answer<'_>>(200, "What there is to tell"))
        .answers(api::Answer::refusal(400, "The request is malformed", &[INVALID_REQUEST]))
        .answers(
            api::Answer::refusal(401, unproved, &codes)
                .with(CHALLENGE.sometimes())
                .with(DPOP_NONCE),
        )
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
    posted: Posted,
) -> Response {
    let counted = |outcome| broker.metrics.introspected(outcome);
    let malformed = |refusal: Refusal| {
        counted(Introspection::Malformed);
        refusal.at(id)
    };
    let (form, headers) = posted.described(FORM);
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
            refusal.log();
            return refusal.at(id);
        }
    };
    let unproved = |refusal: introspect::Refusal| {
        let (outcome, challenge) = match refusal {
            introspect::Refusal::Unauthenticated(error) => {
                (Introspection::Unauthenticated, Challenge::token(&headers, &error))
            }
            introspect::Refusal::Proof(refused) => {
                (Introspection::Unauthenticated, Challenge::proof(&broker, &refused))
            }
            introspect::Refusal::TooOften(too_often) => {
                counted(Introspection::TooOften);
                return rates::refusal(&broker, too_often).at(id);
            }
            introspect::Refusal::Unavailable(error) => {
                counted(Introspection::Unavailable);
                tracing::error!(%error, "nothing can be told of a token");
                let why = "the broker cannot tell at present whether the token is good";
                return Refusal::unavailable(why, RETRY_AFTER).at(id);
            }
        };
        counted(outcome);
        challenge.refusal.log();
        challenged(challenge, id)
    };
    let shown = Token::read(&headers);
    let asker = match (proved.id(), &shown) {
        (Some(client), _) => Asker::Client(client),
        (None, Ok(token)) => match token.credentials(&headers, ("POST", INTROSPECTION_PATH)) {
            Ok(credentials) => Asker::Shown(credentials),
            Err(refused) => return unproved(introspect::Refusal::Proof(refused)),
        },
        (None, Err(why)) => {
            counted(Introspection::Unauthenticated);
            return challenged(Challenge::absent(why), id);
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
    let shown_from = form.optional("source_address").map(str::parse::<IpAddr>).transpose();
    let Ok(shown_from) = shown_from else {
        let why = "the parameter 'source_address' is no IP address";
        return malformed(Refusal::invalid_request(why));
    };
    // Whoever has stolen a token could say so as well, and have it known from wherever they like.
    let shown_from = shown_from.filter(|_| !asker.is_itself(token));
    match broker.introspect(&book, asker, token, source.0).await {
        Ok(own) => {
            if let (Some(own), Some(shown_from)) = (&own, shown_from) {
                let used = Used::of(own, shown_from, Place::Introspection);
                broker.origins.used(&book.config().origins, used);
            }
            counted(match &own {
                Some(_) => Introspection::Active,
                None => Introspection::Inactive,
            });
            let known = own.as_ref().map(|own| known(&broker, own));
            let answer = Answer { active: known.is_some(), known };
            ([(CACHE_CONTROL, "no-store")], Json(answer)).into_response()
        }
        Err(refusal) => unproved(refusal),
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
        claims: &own.claims,
    }
}

fn challenged(challenge: Challenge, id: RequestId) -> Response {
    let mut response = challenge.refusal.at(id);
    response.headers_mut().extend(challenge.headers);
    response
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::told::claims::is_own;

    #[test]
    fn no_role_says_what_introspection_says_itself() {
        let schema = schemars::schema_for!(Answer<'_>).to_value();
        let names: Vec<_> = schema["properties"].as_object().unwrap().keys().cloned().collect();
        assert!(names.len() > 15 && names.iter().all(|name| is_own(name)), "{names:?}");
    }
}
