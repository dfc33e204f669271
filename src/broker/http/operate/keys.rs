//! The keys that sign: listing, rotating and revoking them.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use axum::response::Response;
use axum::routing::{get, post};
use schemars::JsonSchema;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Request, Shown, Unserved, described, done, flag, reason, to_its_end};
use crate::broker::http::api::{Answer, Endpoint, Field, Kind, Operation, Verb};
use crate::broker::http::client;
use crate::broker::http::form::{Form, Posted};
use crate::broker::http::query;
use crate::broker::http::refusal::Refusal;
use crate::broker::keys::manage::{Report, Rotation, Which};
use crate::broker::keys::{KeyState, SigningAlgorithm};
use crate::broker::policy::Administration;
use crate::broker::{Broker, config};
use crate::wire::{KEYS_PATH, KEYS_REVOKE_PATH as REVOKE_PATH, KEYS_ROTATE_PATH as ROTATE_PATH};

/// What a request to rotate may have.
const ROTATE_FIELDS: &[Field] = &[
    Field::optional("algorithm", "Of those that sign tokens by this algorithm; else the usual one"),
    Field::optional("log", "Of the one that signs the audit log").of(Kind::OneOf(&["true"])),
    Field::optional("all", "Of all that sign anything; not with the others")
        .of(Kind::OneOf(&["true"])),
];

const ROTATE_FORM: &[&[Field]] = &[ROTATE_FIELDS, client::FIELDS];

/// What a request to revoke may have.
const REVOKE_FIELDS: &[Field] = &[
    Field::required("kid", "The key that is revoked, by its id"),
    Field::optional("reason", "Why, for the audit log"),
];

const REVOKE_FORM: &[&[Field]] = &[REVOKE_FIELDS, client::FIELDS];

/// A key, but for the key itself.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SigningKey")]
struct Key {
    kid: String,
    /// `access-token`, or `audit-checkpoint`.
    purpose: &'static str,
    /// Its public half, as whoever checks the audit log takes it, where it signs that.
    log_key: Option<String>,
    algorithm: String,
    /// `prepared`, `published`, `active`, `retired` or `revoked`.
    state: &'static str,
    /// Whether it is in the JWKS.
    shown: bool,
    created_at: String,
    changed_at: String,
    /// When it will sign, where it is published.
    signs_from: Option<String>,
    /// Until when it is in the JWKS, where it is retired.
    shown_until: Option<String>,
}

/// All keys.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SigningKeys")]
struct Listed {
    /// The oldest first.
    keys: Vec<Key>,
}

/// What became of a key that was to be revoked.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "KeyRevocation")]
struct Revoked {
    /// Whether it was revoked before, so that nothing was changed.
    was_revoked: bool,
    /// All keys, the oldest first.
    keys: Vec<Key>,
}

/// What became of a rotation that was asked for.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Rotation")]
struct Rotated {
    /// The ids of those that were published now. Where neither these nor others are under way,
    /// a published one was due, and signs.
    begun: Vec<String>,
    /// The ids of those whose rotation was asked for, and was under way.
    under_way: Vec<String>,
    /// All keys, the oldest first.
    keys: Vec<Key>,
}

/// The endpoints.
pub(super) fn endpoints(base: &str) -> [Endpoint<Arc<Broker>>; 3] {
    let about = "Policy decides (`Action::\"administer\"`).";
    let listed = Operation::new("keys", "List the keys that sign")
        .about(about)
        .answers(Answer::json::<Listed>(200, "All keys, but for the keys themselves"));
    let rotated = Operation::new("keys_rotate", "Publish the next key")
        .about("It signs once everybody can know it. Policy decides (`Action::\"administer\"`).")
        .only(ROTATE_FORM)
        .answers(Answer::json::<Rotated>(200, "What became of it"));
    let revoked = Operation::new("keys_revoke", "Revoke a key")
        .about(
            "What it signed is good no more, and another key signs at once. Policy decides (`Action::\"administer\"`).",
        )
        .only(REVOKE_FORM)
        .answers(Answer::json::<Revoked>(200, "It is revoked; all keys"));
    let at = |path: &str| format!("{base}/{path}");
    [
        Endpoint::new(at(KEYS_PATH), Verb::Get, get(list), described(listed, Verb::Get)),
        Endpoint::new(at(ROTATE_PATH), Verb::Post, post(rotate), described(rotated, Verb::Post)),
        Endpoint::new(at(REVOKE_PATH), Verb::Post, post(revoke), described(revoked, Verb::Post)),
    ]
    .map(|endpoint| endpoint.shedding().limited(config::Endpoint::Keys))
}

async fn list(
    State(broker): State<Arc<Broker>>,
    shown: Shown,
    query: RawQuery,
    headers: HeaderMap,
) -> Response {
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Keys, "GET", KEYS_PATH));
    request.counted(listed(&request, &query).await)
}

async fn listed(request: &Request<'_>, query: &RawQuery) -> Result<Response, Unserved> {
    let asked = request.identified(None).await?;
    query::none(query)?;
    let by = request.administers(&asked, Administration::ListKeys).await?;
    tracing::info!(by = by.said(), "the signing keys are listed");
    let keys = request.broker.keys.list().await.map_err(|error| Unserved::of(&error))?;
    Ok(done(Listed::of(&keys)))
}

async fn rotate(State(broker): State<Arc<Broker>>, shown: Shown, posted: Posted) -> Response {
    let (form, headers) = posted.described(ROTATE_FORM);
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Keys, "POST", ROTATE_PATH));
    request.counted(rotated(&request, form).await)
}

async fn rotated(request: &Request<'_>, form: Result<Form, Refusal>) -> Result<Response, Unserved> {
    let asked = request.identified(form.as_ref().ok()).await?;
    let (broker, form) = (request.broker.clone(), form?.known()?);
    let (log, all) = (flag(&form, "log")?, flag(&form, "all")?);
    let algorithms = form.optional("algorithm").map(|name| {
        let known = SigningAlgorithm::from_name(name);
        known.filter(|known| broker.algorithms.iter().any(|one| one == *known)).ok_or_else(|| {
            Unserved::malformed("this broker signs nothing by the algorithm that is named")
        })
    });
    let algorithms: Vec<_> = algorithms.transpose()?.into_iter().collect();
    if all && (log || !algorithms.is_empty()) {
        return Err(Unserved::malformed("'all' are 'algorithm' and 'log' among others"));
    }
    let which = Which { algorithms, log, all };
    let by = request.administers(&asked, Administration::RotateKeys).await?;
    let rotating = async move { broker.keys.rotate(&which, &by).await };
    // The first key of each of its algorithms a broker has made at its start.
    let Rotation { keys, begun, under_way, made: _ } = to_its_end(rotating).await?;
    Ok(done(Rotated { begun, under_way, keys: keys.iter().map(Key::of).collect() }))
}

async fn revoke(State(broker): State<Arc<Broker>>, shown: Shown, posted: Posted) -> Response {
    let (form, headers) = posted.described(REVOKE_FORM);
    let request =
        Request::new(&broker, shown, &headers, (config::Endpoint::Keys, "POST", REVOKE_PATH));
    request.counted(revoked(&request, form).await)
}

async fn revoked(request: &Request<'_>, form: Result<Form, Refusal>) -> Result<Response, Unserved> {
    let asked = request.identified(form.as_ref().ok()).await?;
    let (broker, form) = (request.broker.clone(), form?.known()?);
    let (kid, why) = (form.required("kid")?.to_string(), reason(&form)?);
    let by = request.administers(&asked, Administration::RevokeKeys).await?;
    let keys = broker.keys.list().await.map_err(|error| Unserved::of(&error))?;
    let Some(before) = keys.iter().find(|key| key.kid == kid) else {
        return Err(Unserved::malformed("there is no key with this id"));
    };
    let was_revoked = before.state == KeyState::Revoked;
    let why = format!("{} asked for it: {why}", by.said());
    let revoking = async move { broker.keys.revoke(&[kid], &why, &by).await };
    let keys = to_its_end(revoking).await?;
    Ok(done(Revoked { was_revoked, keys: keys.iter().map(Key::of).collect() }))
}

impl Listed {
    fn of(keys: &[Report]) -> Self {
        Self { keys: keys.iter().map(Key::of).collect() }
    }
}

impl Key {
    fn of(key: &Report) -> Self {
        let moment = |at: OffsetDateTime| at.format(&Rfc3339).unwrap_or_default();
        Self {
            kid: key.kid.clone(),
            purpose: key.purpose.as_str(),
            log_key: key.of_log.clone(),
            algorithm: key.algorithm.clone(),
            state: key.state.as_str(),
            shown: key.shown,
            created_at: moment(key.created_at),
            changed_at: moment(key.changed_at),
            signs_from: key.signs_from.map(moment),
            shown_until: key.shown_until.map(moment),
        }
    }
}
