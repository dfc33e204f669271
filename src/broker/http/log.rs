//! What can be proved of the audit log: checkpoints, and proofs about them (RFC 6962). They
//! hold hashes and how many records there are, so they are for those who look after the
//! broker, or after somebody who looks after it.

use std::sync::Arc;

use axum::Json;
use axum::extract::rejection::QueryRejection;
use axum::extract::{FromRef, Query, State};
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::api::{Answer, Endpoint, Operation, Parameter, Verb};
use super::guard::RequestId;
use super::query::misread;
use super::refusal::Refusal;
use crate::broker::Broker;
use crate::broker::audit::proof::{consistency, inclusion};
use crate::broker::audit::tree::Hash;
use crate::broker::store::Noted;
use crate::error::{Error, ErrorKind};
use crate::wire::refusal::INVALID_REQUEST;

/// The type of a checkpoint.
const NOTE: &str = "text/plain; charset=utf-8";

/// The endpoints.
pub(super) fn endpoints<S>() -> [Endpoint<S>; 4]
where
    S: Clone + Send + Sync + 'static,
    Arc<Broker>: FromRef<S>,
{
    let unknown = || {
        let why = "There is no checkpoint yet, or none that covers so many records";
        Answer::refusal(404, why, &["not_found"])
    };
    let size = "In the log of how many records; else that of the newest checkpoint";
    let malformed = || Answer::refusal(400, "The query is malformed", &[INVALID_REQUEST]);
    let newest =
        Operation::new("audit_checkpoint", "The newest signed checkpoint of the audit log")
            .answers(Answer::text(200, NOTE, "A signed note"))
            .answers(unknown());
    let signing = Operation::new("audit_keys", "The keys whose signatures of checkpoints are good")
        .answers(Answer::text(
            200,
            NOTE,
            "A key a line, as signed notes have them; first the one that signs",
        ));
    let included = Operation::new("audit_inclusion", "Prove that a record is in the audit log")
        .takes(&[
            Parameter::number("sequence", "Which record", true),
            Parameter::number("size", size, false),
        ])
        .answers(Answer::json::<Inclusion>(200, "The proof (RFC 6962 section 2.1.1)"))
        .answers(malformed())
        .answers(unknown());
    let consistent = Operation::new("audit_consistency", "Prove that the audit log only grew")
        .takes(&[
            Parameter::number("first", "From how many records", true),
            Parameter::number("second", "To how many; else those of the newest checkpoint", false),
        ])
        .answers(Answer::json::<Consistency>(200, "The proof (RFC 6962 section 2.1.2)"))
        .answers(malformed())
        .answers(unknown());
    [
        Endpoint::new("/audit/checkpoint", Verb::Get, get(checkpoint), newest),
        Endpoint::new("/audit/keys", Verb::Get, get(keys), signing),
        Endpoint::new("/audit/inclusion", Verb::Get, get(inclusion_of), included),
        Endpoint::new("/audit/consistency", Verb::Get, get(consistency_of), consistent),
    ]
}

/// That a record is in the log of a size.
#[derive(Serialize, JsonSchema)]
struct Inclusion {
    sequence: u64,
    leaf_index: u64,
    tree_size: u64,
    /// In Base64, as all hashes are.
    leaf_hash: String,
    hashes: Vec<String>,
    root_hash: String,
    /// The checkpoint of that size, where it is the newest one.
    checkpoint: Option<String>,
}

/// That a log only grew from one size to the other.
#[derive(Serialize, JsonSchema)]
struct Consistency {
    first_size: u64,
    /// In Base64, as all hashes are.
    first_root_hash: String,
    second_size: u64,
    second_root_hash: String,
    hashes: Vec<String>,
    /// The checkpoint of the second size, where it is the newest one.
    checkpoint: Option<String>,
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
            ([(CONTENT_TYPE, NOTE), (CACHE_CONTROL, "no-store")], noted.note).into_response()
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
            let kind = (CONTENT_TYPE, NOTE);
            ([kind, (CACHE_CONTROL, "no-store")], lines).into_response()
        }
        Err(error) => failed(error).at(id),
    }
}

async fn inclusion_of(
    State(broker): State<Arc<Broker>>,
    id: RequestId,
    asked: Result<Query<Included>, QueryRejection>,
) -> Response {
    let answer = async {
        let Included { sequence, size } = understood(asked, &["sequence", "size"])?;
        let (size, note) = signed(&broker, size).await?;
        let index = sequence.checked_sub(1).ok_or_else(|| none("there is no record 0"))?;
        let proof = inclusion(broker.store.as_ref(), index, size).await.map_err(failed)?;
        Ok(Inclusion {
            sequence,
            leaf_index: index,
            tree_size: size,
            leaf_hash: STANDARD.encode(proof.leaf),
            hashes: encoded(&proof.path),
            root_hash: STANDARD.encode(proof.root),
            checkpoint: note,
        })
    };
    told(answer.await, id)
}

async fn consistency_of(
    State(broker): State<Arc<Broker>>,
    id: RequestId,
    asked: Result<Query<Consistent>, QueryRejection>,
) -> Response {
    let answer = async {
        let Consistent { first, second } = understood(asked, &["first", "second"])?;
        let (second, note) = signed(&broker, second).await?;
        let proof = consistency(broker.store.as_ref(), first, second).await.map_err(failed)?;
        Ok(Consistency {
            first_size: first,
            first_root_hash: STANDARD.encode(proof.first_root),
            second_size: second,
            second_root_hash: STANDARD.encode(proof.second_root),
            hashes: encoded(&proof.path),
            checkpoint: note,
        })
    };
    told(answer.await, id)
}

fn understood<T>(asked: Result<Query<T>, QueryRejection>, known: &[&str]) -> Result<T, Refusal> {
    let Query(asked) = asked.map_err(|rejected| misread(&rejected, known))?;
    Ok(asked)
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

fn told(answer: Result<impl Serialize, Refusal>, id: RequestId) -> Response {
    match answer {
        Ok(proof) => ([(CACHE_CONTROL, "no-store")], Json(proof)).into_response(),
        Err(refusal) => refusal.at(id),
    }
}
