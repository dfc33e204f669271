//! What can be proved of the audit log: checkpoints, and proofs about them (RFC 6962). They
//! hold hashes and how many records there are, so they are for those who look after the
//! broker, or after somebody who looks after it.

use std::sync::Arc;

use axum::extract::rejection::QueryRejection;
use axum::extract::{Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::json;

use super::guard::RequestId;
use super::refusal::Refusal;
use crate::broker::Broker;
use crate::broker::audit::proof::{consistency, inclusion};
use crate::broker::audit::tree::Hash;
use crate::broker::store::Noted;
use crate::error::{Error, ErrorKind};

/// The endpoints.
pub(super) fn routes() -> Router<Arc<Broker>> {
    Router::new()
        .route("/audit/checkpoint", get(checkpoint))
        .route("/audit/keys", get(keys))
        .route("/audit/inclusion", get(included))
        .route("/audit/consistency", get(consistent))
}

/// Which record, and in the log of which size.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Included {
    sequence: u64,
    size: Option<u64>,
}

/// Between which sizes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Consistent {
    first: u64,
    second: Option<u64>,
}

async fn checkpoint(State(broker): State<Arc<Broker>>, id: RequestId) -> Response {
    match newest(&broker).await {
        Ok(noted) => {
            let kind = (CONTENT_TYPE, "text/plain; charset=utf-8");
            ([kind, (CACHE_CONTROL, "no-store")], noted.note).into_response()
        }
        Err(refusal) => refusal.at(id),
    }
}

/// The keys whose signatures are good, a line each, as signed notes have them: first the one
/// that signs, then the one that will.
async fn keys(State(broker): State<Arc<Broker>>, id: RequestId) -> Response {
    match broker.keys.current().await {
        Ok(keys) => {
            let lines: String = keys.of_log().iter().map(|key| format!("{key}\n")).collect();
            let kind = (CONTENT_TYPE, "text/plain; charset=utf-8");
            ([kind, (CACHE_CONTROL, "no-store")], lines).into_response()
        }
        Err(error) => failed(error).at(id),
    }
}

async fn included(
    State(broker): State<Arc<Broker>>,
    id: RequestId,
    asked: Result<Query<Included>, QueryRejection>,
) -> Response {
    let answer = async {
        let Included { sequence, size } = understood(asked)?;
        let (size, note) = signed(&broker, size).await?;
        let index = sequence.checked_sub(1).ok_or_else(|| none("there is no record 0"))?;
        let proof = inclusion(broker.store.as_ref(), index, size).await.map_err(failed)?;
        Ok(json!({
            "sequence": sequence,
            "leaf_index": index,
            "tree_size": size,
            "leaf_hash": STANDARD.encode(proof.leaf),
            "hashes": encoded(&proof.path),
            "root_hash": STANDARD.encode(proof.root),
            "checkpoint": note,
        }))
    };
    told(answer.await, id)
}

async fn consistent(
    State(broker): State<Arc<Broker>>,
    id: RequestId,
    asked: Result<Query<Consistent>, QueryRejection>,
) -> Response {
    let answer = async {
        let Consistent { first, second } = understood(asked)?;
        let (second, note) = signed(&broker, second).await?;
        let proof = consistency(broker.store.as_ref(), first, second).await.map_err(failed)?;
        Ok(json!({
            "first_size": first,
            "first_root_hash": STANDARD.encode(proof.first_root),
            "second_size": second,
            "second_root_hash": STANDARD.encode(proof.second_root),
            "hashes": encoded(&proof.path),
            "checkpoint": note,
        }))
    };
    told(answer.await, id)
}

fn understood<T>(asked: Result<Query<T>, QueryRejection>) -> Result<T, Refusal> {
    match asked {
        Ok(Query(asked)) => Ok(asked),
        Err(cause) => Err(Refusal::invalid_request(cause.body_text())),
    }
}

/// The size that a proof is about, that of the newest checkpoint where nobody names one; and
/// the checkpoint, where it is of that size. What nobody has signed yet is not proved.
async fn signed(broker: &Broker, wanted: Option<u64>) -> Result<(u64, Option<String>), Refusal> {
    let newest = newest(broker).await?;
    match wanted {
        Some(size) if size > newest.size => {
            Err(none("so many records are not covered by a checkpoint yet"))
        }
        Some(size) if size < newest.size => Ok((size, None)),
        _ => Ok((newest.size, Some(newest.note))),
    }
}

async fn newest(broker: &Broker) -> Result<Noted, Refusal> {
    let noted = broker.store.latest_note().await.map_err(failed)?;
    noted.ok_or_else(|| none("there is no checkpoint yet"))
}

fn none(why: &str) -> Refusal {
    Refusal::new(StatusCode::NOT_FOUND, "not_found", why)
}

fn failed(error: Error) -> Refusal {
    if error.kind() == ErrorKind::Usage {
        return none(&error.to_string());
    }
    tracing::error!(%error, "nothing can be proved of the audit log");
    Refusal::internal()
}

fn encoded(hashes: &[Hash]) -> Vec<String> {
    hashes.iter().map(|hash| STANDARD.encode(hash)).collect()
}

fn told(answer: Result<serde_json::Value, Refusal>, id: RequestId) -> Response {
    match answer {
        Ok(proof) => ([(CACHE_CONTROL, "no-store")], Json(proof)).into_response(),
        Err(refusal) => refusal.at(id),
    }
}
