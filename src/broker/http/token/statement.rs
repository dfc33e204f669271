//! A token for what somebody signed: under the grant that was asked for by a signature.

use std::sync::Arc;

use uuid::Uuid;

use super::{RETRY_AFTER, Unissued};
use crate::broker::Broker;
use crate::broker::authenticate::{Caller, Fault, said};
use crate::broker::elevation::{self, At};
use crate::broker::http::guard::RequestId;
use crate::broker::http::refusal::Refusal;
use crate::broker::http::source::Source;
use crate::broker::metrics::Issuance;
use crate::broker::proof;
use crate::broker::rulebook::Rulebook;
use crate::dpop::Proof;
use crate::secret::Secret;
use crate::sshsig::{self, Said};
use crate::wire::refusal::{ACCESS_DENIED, INVALID_DPOP_PROOF};

/// What somebody shows.
pub(super) struct Shown<'a> {
    /// A `use` that they signed.
    pub(super) token: &'a Secret<String>,
    /// The proof of the key that the token is to be bound to.
    pub(super) proof: Option<&'a Proof>,
    /// The grant that the request names.
    pub(super) grant: Option<Uuid>,
}

/// Who signed it, and the grant that it is for: there is none without one.
pub(super) async fn signer(
    broker: &Arc<Broker>,
    book: &Rulebook,
    shown: Shown<'_>,
    (source, id): (Source, RequestId),
) -> Result<(Caller, Option<Uuid>), Unissued> {
    let invalid = |why: String| Unissued {
        why: Issuance::Assertion(Fault::Invalid),
        refusal: Refusal::invalid_request(format!("the statement is not accepted: {why}")),
    };
    let demands = book.config().enrollment.demands();
    let read =
        sshsig::read(shown.token.expose(), demands).map_err(|error| invalid(said(&error)))?;
    let [signed] = &read[..] else { return Err(invalid("there is more than one".into())) };
    let Said::Use { request, bound_to } = &signed.statement.said else {
        return Err(invalid("it is no 'use'".into()));
    };
    let grant = elevation::id_of(request);
    if shown.grant.is_some_and(|named| named != grant) {
        return Err(invalid("it is for another grant than the parameter 'elevation' names".into()));
    }
    // Whoever signs says by which key their token is bound: nobody on the way binds it to theirs.
    let proved = shown.proof.map(|proof| &proof.thumbprint);
    if proved != bound_to.as_ref() {
        let (fault, why) = match proved {
            None => (
                proof::Fault::Missing,
                "the statement binds the token to a key: a DPoP proof must go with it",
            ),
            Some(_) => (
                proof::Fault::Key,
                "the DPoP proof is by another key than the statement is bound to",
            ),
        };
        broker.metrics.proof_rejected(fault);
        let refusal = Refusal::bad(INVALID_DPOP_PROOF, why);
        return Err(Unissued { why: Issuance::Proof(fault), refusal });
    }
    let at = At { event: None, source: source.0, request_id: id.0 };
    let who = broker.signer_of(book, signed, at).await.map_err(|refusal| match refusal {
        elevation::Refusal::Malformed(why) => invalid(why),
        elevation::Refusal::Denied(why) => Unissued {
            why: Issuance::Assertion(Fault::Invalid),
            refusal: Refusal::bad(ACCESS_DENIED, why),
        },
        elevation::Refusal::Stale => Unissued {
            why: Issuance::Unverifiable,
            refusal: Refusal::bad(
                ACCESS_DENIED,
                "the directory of people is out of date, so nobody is known by a key",
            ),
        },
        elevation::Refusal::Unrecorded(error) => {
            tracing::error!(%error, "it cannot be told who signed");
            let why = "the broker cannot tell at present who signed";
            Unissued {
                why: Issuance::Unverifiable,
                refusal: Refusal::unavailable(why, RETRY_AFTER),
            }
        }
        _ => invalid("it cannot be used here".into()),
    })?;
    Ok((who.caller, Some(grant)))
}
