//! The token endpoint: RFC 8693 token exchange.

mod requested;
mod statement;

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, PRAGMA};
use axum::http::{HeaderMap, HeaderValue};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use tracing::Instrument;
use zeroize::Zeroizing;

pub(super) use requested::Requested;

use super::api::{
    Answer, DPOP_NONCE, Endpoint, Field, Kind, Operation, RETRY_AFTER as RETRY, Scheme, TRIED,
    Verb, unavailable,
};
use super::book::Book;
use super::client;
use super::form::{Form, Posted};
use super::guard::RequestId;
use super::rates;
use super::refusal::Refusal;
use super::source::Source;
use crate::broker::authenticate::{self, Rejection, said};
use crate::broker::client::{NotThrough, Refused};
use crate::broker::decide::Missing;
use crate::broker::issue::{self, Ask, Issued};
use crate::broker::metrics::{ClientAuthentication, Issuance};
use crate::broker::own::Shown;
use crate::broker::proof::{self, Fault, Place};
use crate::broker::rulebook::Rulebook;
use crate::broker::{Broker, config};
use crate::credential::TokenType;
use crate::dpop;
use crate::wire::{GRANT_TYPE, TOKEN_PATH, TokenGrant, refusal};

/// When to ask again where the broker cannot decide.
pub(super) const RETRY_AFTER: Duration = Duration::from_secs(5);

/// For how long clients wait where they are told when to ask again.
const MOST_WAITED: Duration = Duration::from_secs(10);

/// What a request may have (RFC 8693 section 2.1).
const FIELDS: &[Field] = &[
    Field::required("grant_type", "Token exchange").of(Kind::OneOf(&[GRANT_TYPE])),
    Field::required("subject_token", "The token of a trusted issuer, or of the broker's own")
        .of(Kind::Secret),
    Field::required("subject_token_type", "What that token is; also a `use` that somebody signed")
        .of(SUBJECT_TYPES),
    Field::optional("actor_token", "The token of whoever acts for the subject").of(Kind::Secret),
    Field::optional("actor_token_type", "What that token is; both or none").of(TYPES),
    Field::required("role", "Ours: the role"),
    Field::optional("audience", "Whom the token is to be shown to; this or `resource`"),
    Field::optional("resource", "The same, as a URL; where both are there they are equal"),
    Field::optional(
        "scope",
        "What it is to cover, separated by spaces; else all that policy gives",
    ),
    Field::optional("requested_ttl", "Ours: for how many seconds; else as long as policy gives")
        .of(Kind::Number),
    Field::optional(
        "elevation",
        "Ours: the grant under which it is asked for; else of the caller's own that serve the one that lasts longest",
    ),
    Field::optional(
        "idempotency_key",
        "Ours: the same where the same is asked for again, because the answer was lost",
    ),
    Field::optional("requested_token_type", "What is wanted")
        .of(Kind::OneOf(&[TokenType::AccessToken.urn(), TokenType::Jwt.urn()])),
];

const TYPES: Kind =
    Kind::OneOf(&[TokenType::AccessToken.urn(), TokenType::IdToken.urn(), TokenType::Jwt.urn()]);

const SUBJECT_TYPES: Kind = Kind::OneOf(&[
    TokenType::AccessToken.urn(),
    TokenType::IdToken.urn(),
    TokenType::Jwt.urn(),
    TokenType::Statement.urn(),
]);

const FORM: &[&[Field]] = &[FIELDS, client::FIELDS];

/// The endpoint.
pub(super) fn endpoint(base: &str) -> Endpoint<Arc<Broker>> {
    let refused = Answer::refusal(
        400,
        "The request, the assertion or the proof is not acceptable, or policy says no (RFC 6749 section 5.2, RFC 8693 section 2.2.2, RFC 9449 section 5)",
        &[
            refusal::INVALID_REQUEST,
            refusal::UNSUPPORTED_GRANT_TYPE,
            refusal::INVALID_SCOPE,
            refusal::INVALID_TARGET,
            refusal::INVALID_DPOP_PROOF,
            refusal::USE_DPOP_NONCE,
            refusal::ACCESS_DENIED,
            refusal::ELEVATION_REQUIRED,
            refusal::ELEVATION_PENDING,
        ],
    );
    let unknown = "The client did not show that it is the one (RFC 6749 section 5.2)";
    let operation = Operation::new("token", "Exchange an assertion for a token (RFC 8693)")
        .about("Whoever sends a proof of a key gets a token that is bound to it.")
        .form(FORM)
        .shown(&[&[], &[Scheme::DpopProof], &[Scheme::PrivateKeyJwt]])
        .answers(Answer::json::<Answered<'_>>(200, "A token").with(DPOP_NONCE))
        .answers(refused.with(DPOP_NONCE).with(RETRY.sometimes()))
        .answers(
            Answer::refusal(401, unknown, &[refusal::INVALID_CLIENT]).with(TRIED).with(DPOP_NONCE),
        )
        .answers(Answer::refusal(408, "The body did not arrive in time", &[]).with(DPOP_NONCE))
        .answers(Answer::refusal(413, "The body is too large", &[]).with(DPOP_NONCE))
        .answers(Answer::refusal(500, "No token can be made", &[]).with(DPOP_NONCE))
        .answers(
            unavailable("The assertion cannot be verified, or the decision not be recorded")
                .with(DPOP_NONCE),
        )
        .answers(
            Answer::refusal(429, "The caller asks too often", &[refusal::TEMPORARILY_UNAVAILABLE])
                .with(RETRY)
                .with(DPOP_NONCE),
        );
    Endpoint::new(format!("{base}/{TOKEN_PATH}"), Verb::Post, post(token), operation)
        .shedding()
        .limited(config::Endpoint::Token)
}

async fn token(
    State(broker): State<Arc<Broker>>,
    Book(book): Book,
    source: Source,
    id: RequestId,
    posted: Posted,
) -> Response {
    let begun = broker.metrics.begin_issuance();
    let (form, headers) = posted.described(FORM);
    let outcome = match form {
        Ok(form) => exchange(&broker, &book, &form, &headers, source, id).await,
        Err(refusal) => Err(refusal.into()),
    };
    let why = outcome.as_ref().map_or_else(|unissued| unissued.why, |_| Issuance::Issued);
    broker.metrics.end_issuance(begun, why);
    let mut response = match outcome {
        Ok(response) => response,
        Err(Unissued { refusal, .. }) => {
            refusal.log();
            refusal.at(id)
        }
    };
    // RFC 9449 section 8.2: so that whoever proves a key need not be told the next time.
    // Section 11.3: who was given one may not do without, so where they may, none is given.
    let wanted = broker.proofs.wants_nonces() || why == Issuance::Proof(Fault::Nonce);
    if wanted && headers.contains_key(dpop::HEADER) {
        let nonce = broker.proofs.nonces().give(Place::Token, broker.clock.now());
        if let Ok(nonce) = HeaderValue::from_str(&nonce) {
            response.headers_mut().insert(dpop::NONCE_HEADER, nonce);
        }
    }
    response
}

/// What is answered instead of a token, and what it counts as.
struct Unissued {
    why: Issuance,
    refusal: Refusal,
}

/// Whatever is found wrong with a request before it is looked at who sends it.
impl From<Refusal> for Unissued {
    fn from(refusal: Refusal) -> Self {
        Self { why: Issuance::Malformed, refusal }
    }
}

async fn exchange(
    broker: &Arc<Broker>,
    book: &Rulebook,
    form: &Form,
    headers: &HeaderMap,
    source: Source,
    id: RequestId,
) -> Result<Response, Unissued> {
    let requested = Requested::read(form)?;
    let subject = match form.required("subject_token_type")? == TokenType::Statement.urn() {
        true => None,
        false => Some(token_type(form, "subject_token_type")?),
    };
    let (token, actor) = (form.secret("subject_token")?, actor(form)?);
    let proof = broker.token_proof(headers, token).map_err(|refused| {
        broker.metrics.proof_rejected(refused.fault);
        unproved(refused)
    })?;
    // What the client has to show is good once, so it comes after what is asked for twice,
    // such as a nonce.
    let presented = client::presented(form, headers);
    let client = broker.client(book, presented, proof.is_some()).await.map_err(no_client)?;
    let (caller, grant) = match subject {
        Some(token_type) => {
            let subject = Shown { token_type, token };
            let parties = broker.parties(subject, actor, book, proof.as_ref()).await;
            (parties.map_err(rejected)?, requested.elevation)
        }
        None if actor.is_some() => {
            let why = "nobody acts for somebody who signed";
            return Err(Refusal::invalid_request(why).into());
        }
        None => {
            let shown =
                statement::Shown { token, proof: proof.as_ref(), grant: requested.elevation };
            statement::signer(broker, book, shown, (source, id)).await?
        }
    };
    let caller = broker.through(book, caller, &client, proof.is_some()).map_err(not_through)?;
    let counted = broker.turn(book, &caller, proof.as_ref(), config::Endpoint::Token).await;
    counted.map_err(|too_often| Unissued {
        why: Issuance::TooOften,
        refusal: rates::refusal(broker, too_often),
    })?;
    let ask = Ask {
        role: requested.role,
        audience: requested.audience,
        scope: requested.scope,
        ttl: requested.ttl,
        proof,
        elevation: grant,
        idempotency_key: requested.idempotency_key,
        jwt: requested.token_type == TokenType::Jwt,
        source: source.0,
        request_id: id.0,
    };
    summarize(broker).await;
    let issued = broker.issue(book, &caller, &ask).await;
    // One that was shown before tells of no login now.
    if !matches!(issued, Err(issue::Refusal::Reused | issue::Refusal::Replayed)) {
        broker.saw_login(book, &caller);
    }
    let issued = issued.map_err(not_issued)?;
    let (role, ttl, record) = (&issued.role, issued.ttl, issued.log_sequence);
    tracing::info!(role, ?ttl, record, "issued");
    let now = broker.clock.now();
    let left = left(&issued, now).ok_or_else(|| {
        tracing::error!("the token was issued so late that nothing is left of it");
        let why = "it took so long to issue the token that nothing is left of it";
        Unissued { why: Issuance::Internal, refusal: Refusal::unavailable(why, RETRY_AFTER) }
    })?;
    Ok(answer(&issued, requested.token_type, left, now))
}

/// Puts on record what was only counted, where that is due. It is none of the caller's
/// business: whoever hangs up meanwhile ends nothing.
pub(super) async fn summarize(broker: &Arc<Broker>) {
    let tallies = broker.denials.due(broker.clock.now());
    if !tallies.is_empty() {
        let broker = broker.clone();
        let work = async move { broker.summarize(tallies).await };
        let _ = tokio::spawn(work.in_current_span()).await;
    }
}

/// How many seconds a token is still good: recording it may have taken a while.
fn left(issued: &Issued, now: OffsetDateTime) -> Option<u64> {
    let left = issued.expires_at.saturating_sub(now.unix_timestamp());
    let left = u64::try_from(left).ok()?;
    // A clock that was set back since makes it no longer.
    Some(left.min(issued.ttl.as_secs())).filter(|left| *left > 0)
}

/// RFC 8693 section 2.1: the actor's token and its type come together, or not at all.
fn actor(form: &Form) -> Result<Option<Shown<'_>>, Refusal> {
    if form.optional("actor_token").is_none() {
        return match form.optional("actor_token_type") {
            Some(_) => Err(Refusal::invalid_request(
                "there is an 'actor_token_type', and no 'actor_token'",
            )),
            None => Ok(None),
        };
    }
    let token_type = token_type(form, "actor_token_type")?;
    Ok(Some(Shown { token: form.secret("actor_token")?, token_type }))
}

fn token_type(form: &Form, parameter: &str) -> Result<TokenType, Refusal> {
    TokenType::from_urn(form.required(parameter)?).ok_or_else(|| {
        Refusal::invalid_request(format!(
            "the parameter '{parameter}' must be {}, {} or {}",
            TokenType::AccessToken.urn(),
            TokenType::IdToken.urn(),
            TokenType::Jwt.urn()
        ))
    })
}

/// RFC 8693 section 2.2.2: an assertion that is not acceptable is an
/// `invalid_request`. What is wrong with it is the caller's own business.
fn rejected(rejection: Rejection) -> Unissued {
    let (why, refusal) = match rejection {
        Rejection::Token(fault @ authenticate::Fault::Bound, error) => {
            (Issuance::Assertion(fault), Refusal::bad(refusal::INVALID_DPOP_PROOF, said(&error)))
        }
        Rejection::Token(fault, error) => {
            (Issuance::Assertion(fault), Refusal::invalid_request(said(&error)))
        }
        Rejection::Unavailable(error) => {
            (Issuance::Unverifiable, Refusal::unavailable(said(&error), RETRY_AFTER))
        }
    };
    Unissued { why, refusal }
}

/// RFC 6749 section 5.2.
fn no_client(refused: Refused) -> Unissued {
    let why = match refused.why {
        ClientAuthentication::Malformed => Issuance::Malformed,
        ClientAuthentication::Unavailable => Issuance::Unverifiable,
        _ => Issuance::Client,
    };
    Unissued { why, refusal: client::refusal(&refused) }
}

fn not_through(why: NotThrough) -> Unissued {
    match why {
        NotThrough::Client(refused) => no_client(refused),
        NotThrough::Token(error) => rejected(Rejection::Token(authenticate::Fault::Invalid, error)),
    }
}

/// RFC 9449 sections 5 and 8.
fn unproved(refused: proof::Refused) -> Unissued {
    let code = match refused.fault {
        Fault::Nonce => refusal::USE_DPOP_NONCE,
        _ => refusal::INVALID_DPOP_PROOF,
    };
    let refusal = Refusal::bad(code, said(&refused.error));
    Unissued { why: Issuance::Proof(refused.fault), refusal }
}

fn not_issued(why: issue::Refusal) -> Unissued {
    let description = why.to_string();
    let (why, refusal) = match why {
        issue::Refusal::Denied { .. } => {
            (Issuance::Policy, Refusal::bad(refusal::ACCESS_DENIED, description))
        }
        issue::Refusal::Grantless { missing, .. } => {
            let (code, waits) = match missing {
                Missing::Unasked => (refusal::ELEVATION_REQUIRED, None),
                Missing::Waits(id) => (refusal::ELEVATION_PENDING, Some(id)),
            };
            (Issuance::Policy, Refusal::bad(code, description).because_of(waits))
        }
        issue::Refusal::TooMany { retry_after } => {
            (Issuance::TooMany, Refusal::denied_again(description, retry_after))
        }
        issue::Refusal::CutOff { left, .. } => {
            let left = whole_seconds(left);
            // Whoever has to wait for longer would take this broker for one that cannot serve,
            // and ask it for nothing else either.
            let refusal = match left <= MOST_WAITED {
                true => Refusal::unavailable(description, left),
                false => Refusal::denied_again(description, left),
            };
            (Issuance::CutOff, refusal)
        }
        issue::Refusal::Reused => (
            Issuance::Assertion(authenticate::Fault::Reused),
            Refusal::invalid_request(description),
        ),
        issue::Refusal::Repeated => (Issuance::Malformed, Refusal::invalid_request(description)),
        issue::Refusal::Scope(_) => {
            (Issuance::Scope, Refusal::bad(refusal::INVALID_SCOPE, description))
        }
        issue::Refusal::Audience(_) => {
            (Issuance::Audience, Refusal::bad(refusal::INVALID_TARGET, description))
        }
        issue::Refusal::Unbound(_) => {
            let refusal = Refusal::bad(refusal::INVALID_DPOP_PROOF, description);
            (Issuance::Proof(Fault::Missing), refusal)
        }
        issue::Refusal::Replayed => {
            let refusal = Refusal::bad(refusal::INVALID_DPOP_PROOF, description);
            (Issuance::Proof(Fault::Replayed), refusal)
        }
        issue::Refusal::Unrecorded(error) => {
            tracing::error!(%error, "nothing is issued, because it cannot be recorded");
            let why = "the decision cannot be recorded at present";
            (Issuance::Unrecorded, Refusal::unavailable(why, RETRY_AFTER))
        }
        issue::Refusal::Failed(error) => {
            tracing::error!(%error, "a token could not be made");
            (Issuance::Internal, Refusal::internal())
        }
    };
    Unissued { why, refusal }
}

/// The next whole second: whoever comes in the one before comes in vain.
fn whole_seconds(left: Duration) -> Duration {
    let begun = u64::from(left.subsec_nanos() > 0);
    Duration::from_secs(left.as_secs().saturating_add(begun))
}

/// A token (RFC 8693 section 2.2.1).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "TokenAnswer")]
struct Answered<'a> {
    /// The token.
    access_token: &'a str,
    #[serde(flatten)]
    grant: TokenGrant,
}

fn answer(issued: &Issued, token_type: TokenType, left: u64, now: OffsetDateTime) -> Response {
    let grant_left = |end: i64| end.saturating_sub(now.unix_timestamp()).max(0).unsigned_abs();
    let grant = TokenGrant {
        issued_token_type: token_type.urn().to_string(),
        token_type: if issued.bound { dpop::SCHEME } else { "Bearer" }.to_string(),
        expires_in: left,
        scope: Some(issue::joined(&issued.scope)).filter(|scope| !scope.is_empty()),
        role: issued.role.clone(),
        subject: issued.subject.clone(),
        elevation_expires_in: issued.grant_ends.map(grant_left),
        revocation_reach: Some(issued.reach),
        log_sequence: Some(issued.log_sequence),
    };
    let answer = Answered { access_token: issued.token.expose(), grant };
    // Texts and a number always have a JSON form.
    let body = Zeroizing::new(serde_json::to_vec(&answer).unwrap_or_default());
    // RFC 6749 section 5.1 wants both.
    let headers =
        [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store"), (PRAGMA, "no-cache")];
    (headers, body.to_vec()).into_response()
}
