//! The values that labels have.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::Label;
use crate::broker::authenticate::{Fault, Rejection};
use crate::broker::config::Endpoint;
use crate::broker::origins::Place;
use crate::broker::own::Flaw;
use crate::broker::proof;
use crate::broker::rate::Limited;
use crate::dpop;

/// How a request for a token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuance {
    /// It was issued.
    Issued,
    /// The request cannot be understood.
    Malformed,
    /// The assertion is not acceptable.
    Assertion(Fault),
    /// The proof of a key is not acceptable, or there is none where there has to be.
    Proof(proof::Fault),
    /// The client did not show that it is the one, or not as it has to.
    Client,
    /// Policy says no, or the configuration.
    Policy,
    /// All such tokens that are issued at this moment were revoked.
    CutOff,
    /// The scope cannot be had.
    Scope,
    /// The role is not for this audience.
    Audience,
    /// The caller asks too often.
    TooOften,
    /// The caller was denied so often that it is only counted.
    TooMany,
    /// The keys of the issuer cannot be had, or revocations cannot be read.
    Unverifiable,
    /// The decision could not be recorded.
    Unrecorded,
    /// Something of the broker's own failed.
    Internal,
}

/// What an outcome counts as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Class {
    Issued,
    Denied,
    Failed,
}

impl Issuance {
    pub(super) const DENIALS: &[&str] = &[
        Self::Malformed.as_str(),
        Self::Assertion(Fault::Expired).as_str(),
        Self::Assertion(Fault::UnknownKey).as_str(),
        Self::Assertion(Fault::Untrusted).as_str(),
        Self::Assertion(Fault::Revoked).as_str(),
        Self::Assertion(Fault::Bound).as_str(),
        Self::Assertion(Fault::Reused).as_str(),
        Self::Assertion(Fault::Invalid).as_str(),
        Self::Proof(proof::Fault::Nonce).as_str(),
        Self::Proof(proof::Fault::Replayed).as_str(),
        Self::Proof(proof::Fault::Missing).as_str(),
        Self::Proof(proof::Fault::Key).as_str(),
        Self::Client.as_str(),
        Self::Policy.as_str(),
        Self::CutOff.as_str(),
        Self::Scope.as_str(),
        Self::Audience.as_str(),
        Self::TooOften.as_str(),
        Self::TooMany.as_str(),
    ];

    pub(super) const FAILURES: &[&str] =
        &[Self::Unverifiable.as_str(), Self::Unrecorded.as_str(), Self::Internal.as_str()];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Malformed => "malformed",
            Self::Assertion(fault) => of_fault(fault),
            Self::Proof(proof::Fault::Nonce) => "proof_nonce",
            Self::Proof(proof::Fault::Replayed) => "proof_replayed",
            Self::Proof(proof::Fault::Missing) => "proof_missing",
            Self::Proof(proof::Fault::Of(_) | proof::Fault::Key) => "proof_invalid",
            Self::Client => "client",
            Self::Policy => "policy",
            Self::CutOff => "cut_off",
            Self::Scope => "scope",
            Self::Audience => "audience",
            Self::TooOften => "too_often",
            Self::TooMany => "too_many",
            Self::Unverifiable => UNVERIFIABLE,
            Self::Unrecorded => "unrecorded",
            Self::Internal => "internal",
        }
    }

    pub(super) fn class(self) -> Class {
        match self {
            Self::Issued => Class::Issued,
            Self::Unverifiable | Self::Unrecorded | Self::Internal => Class::Failed,
            Self::Malformed
            | Self::Assertion(_)
            | Self::Proof(_)
            | Self::Client
            | Self::Policy
            | Self::CutOff
            | Self::Scope
            | Self::Audience
            | Self::TooOften
            | Self::TooMany => Class::Denied,
        }
    }
}

const UNVERIFIABLE: &str = "unverifiable";

/// Why assertions are rejected.
pub(super) const FAULTS: &[&str] = &[
    of_fault(Fault::Expired),
    of_fault(Fault::UnknownKey),
    of_fault(Fault::Untrusted),
    of_fault(Fault::Revoked),
    of_fault(Fault::Bound),
    of_fault(Fault::Invalid),
    UNVERIFIABLE,
];

const fn of_fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Expired => "expired",
        Fault::UnknownKey => "unknown_key",
        Fault::Untrusted => "untrusted_issuer",
        Fault::Revoked => "revoked",
        Fault::Bound => "bound",
        Fault::Reused => "reused",
        Fault::Invalid => "invalid",
    }
}

/// Why an assertion was not accepted.
pub(in crate::broker) fn of_rejection(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Token(fault, _) => of_fault(*fault),
        Rejection::Unavailable(_) => UNVERIFIABLE,
    }
}

/// Why proofs of a key are not accepted.
pub(super) const PROOF_FAULTS: &[&str] = &[
    of_proof(proof::Fault::Of(dpop::Fault::Malformed)),
    of_proof(proof::Fault::Of(dpop::Fault::Signature)),
    of_proof(proof::Fault::Of(dpop::Fault::Request)),
    of_proof(proof::Fault::Of(dpop::Fault::Token)),
    of_proof(proof::Fault::Of(dpop::Fault::Time)),
    of_proof(proof::Fault::Nonce),
    of_proof(proof::Fault::Replayed),
    of_proof(proof::Fault::Key),
    of_proof(proof::Fault::Missing),
];

pub(super) const fn of_proof(fault: proof::Fault) -> &'static str {
    match fault {
        proof::Fault::Of(dpop::Fault::Malformed) => "malformed",
        proof::Fault::Of(dpop::Fault::Signature) => "signature",
        proof::Fault::Of(dpop::Fault::Request) => "request",
        proof::Fault::Of(dpop::Fault::Token) => "token",
        proof::Fault::Of(dpop::Fault::Time) => "time",
        proof::Fault::Nonce => "nonce",
        proof::Fault::Replayed => "replayed",
        proof::Fault::Key => "key",
        proof::Fault::Missing => "missing",
    }
}

/// Why the broker's own tokens are not accepted.
pub(super) const FLAWS: &[&str] = &[
    of_flaw(Flaw::Expired),
    of_flaw(Flaw::Revoked),
    of_flaw(Flaw::UnknownKey),
    of_flaw(Flaw::Audience),
    of_flaw(Flaw::Bound),
    of_flaw(Flaw::Invalid),
];

pub(super) const fn of_flaw(flaw: Flaw) -> &'static str {
    match flaw {
        Flaw::Expired => "expired",
        Flaw::Revoked => "revoked",
        Flaw::UnknownKey => "unknown_key",
        Flaw::Audience => "audience",
        Flaw::Bound => "bound",
        Flaw::Invalid => "invalid",
    }
}

/// How an introspection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Introspection {
    /// The token is good, and the caller was told about it.
    Active,
    /// It is not good, or the caller may not know of it.
    Inactive,
    /// The request cannot be understood.
    Malformed,
    /// The caller did not prove who they are.
    Unauthenticated,
    /// The caller asks too often.
    TooOften,
    /// The broker cannot tell at present.
    Unavailable,
}

impl Introspection {
    pub(super) const ALL: &[&str] = &[
        Self::Active.as_str(),
        Self::Inactive.as_str(),
        Self::Malformed.as_str(),
        Self::Unauthenticated.as_str(),
        Self::TooOften.as_str(),
        Self::Unavailable.as_str(),
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::TooOften => "too_often",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How it ended that somebody came as a client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuthentication {
    /// It has shown that it is the one.
    Authenticated,
    /// There is no such client, or none that authenticates.
    Unknown,
    /// It has shown nothing, and has to.
    Missing,
    /// The request has what may not be together.
    Malformed,
    /// What it has shown is not good.
    Invalid,
    /// What it has shown was used before.
    Replayed,
    /// The broker cannot tell at present.
    Unavailable,
}

impl ClientAuthentication {
    pub(super) const ALL: &[&str] = &[
        Self::Authenticated.as_str(),
        Self::Unknown.as_str(),
        Self::Missing.as_str(),
        Self::Malformed.as_str(),
        Self::Invalid.as_str(),
        Self::Replayed.as_str(),
        Self::Unavailable.as_str(),
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Authenticated => "authenticated",
            Self::Unknown => "unknown",
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Invalid => "invalid",
            Self::Replayed => "replayed",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How the decision about a request that a proxy held up ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Authorization {
    /// It may pass.
    Allowed,
    /// It came without a token, or without one that is good, or without a proof.
    Unauthenticated,
    /// Its token is not good for so much, or nothing is known of such requests.
    Forbidden,
    /// Whoever asked is no proxy that is known.
    Stranger,
    /// The broker cannot tell at present.
    Unavailable,
}

impl Authorization {
    /// How it ends where there is a route for the request.
    pub(super) const AT_ROUTES: &[&str] = &[
        Self::Allowed.as_str(),
        Self::Unauthenticated.as_str(),
        Self::Forbidden.as_str(),
        Self::Unavailable.as_str(),
    ];

    /// How it ends where there is none, or nobody looks for it.
    pub(super) const AT_NONE: &[&str] = &[Self::Forbidden.as_str(), Self::Stranger.as_str()];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Allowed => "allowed",
            Self::Unauthenticated => "unauthenticated",
            Self::Forbidden => "forbidden",
            Self::Stranger => "stranger",
            Self::Unavailable => "unavailable",
        }
    }
}

/// How a request to revoke a token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revocation {
    /// It is good no more.
    Revoked,
    /// It was revoked before.
    Repeated,
    /// It is none of this broker's that anybody accepts.
    Unknown,
    /// The request cannot be understood.
    Malformed,
    /// The client, or whoever revokes tokens of others, did not show that they are the one.
    Unauthenticated,
    /// Policy does not let whoever wants to revoke tokens of others.
    Denied,
    /// It could not be recorded.
    Failed,
}

impl Revocation {
    pub(super) const ALL: &[&str] = &[
        Self::Revoked.as_str(),
        Self::Repeated.as_str(),
        Self::Unknown.as_str(),
        Self::Malformed.as_str(),
        Self::Unauthenticated.as_str(),
        Self::Denied.as_str(),
        Self::Failed.as_str(),
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Repeated => "repeated",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied => "denied",
            Self::Failed => "failed",
        }
    }
}

/// How a request to look after the broker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Administered {
    /// It is done.
    Done,
    /// Policy says no.
    Denied,
    /// The request cannot be understood.
    Malformed,
    /// Whoever asks did not show who they are.
    Unauthenticated,
    /// It could not be done.
    Failed,
}

impl Administered {
    pub(super) const ALL: &[&str] = &[
        Self::Done.as_str(),
        Self::Denied.as_str(),
        Self::Malformed.as_str(),
        Self::Unauthenticated.as_str(),
        Self::Failed.as_str(),
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
            Self::Failed => "failed",
        }
    }
}

/// What there was too much of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shed {
    /// Requests at once.
    Requests,
    /// Large bodies at once.
    LargeBodies,
}

impl Shed {
    pub(super) const ALL: [Self; 2] = [Self::Requests, Self::LargeBodies];

    const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::LargeBodies => "large_bodies",
        }
    }
}

/// What there was too much of, and for which route.
pub(super) type Shedding = [(&'static str, String); 2];

pub(super) fn shedding(what: Shed, route: &str) -> Shedding {
    [("reason", what.as_str().into()), ("route", route.into())]
}

/// Where tokens are shown.
pub(super) const PLACES: &[&str] =
    &[Place::Authz.as_str(), Place::Introspection.as_str(), Place::Exchange.as_str()];

/// Whose rate was used up, and for what.
pub(super) type TurnedAway = [(&'static str, &'static str); 2];

pub(super) fn turned_away(whose: Limited, endpoint: Endpoint) -> TurnedAway {
    [("reason", of_limited(whose)), ("route", endpoint.name())]
}

/// Counters of all that can be used up.
pub(super) fn all_turned_away() -> Family<TurnedAway, Counter> {
    let family = Family::default();
    for endpoint in Endpoint::ALL {
        for whose in limited(endpoint) {
            drop(family.get_or_create(&turned_away(whose, endpoint)));
        }
    }
    family
}

/// Whose rates can be used up by asking for this.
fn limited(endpoint: Endpoint) -> Vec<Limited> {
    let mut all = vec![Limited::Route];
    if endpoint.counts_for_address() {
        all.extend([Limited::Principal, Limited::Address]);
    }
    if endpoint == Endpoint::Elevations {
        all.extend([Limited::Elevation, Limited::Machines]);
    }
    all
}

const fn of_limited(whose: Limited) -> &'static str {
    match whose {
        Limited::Principal => "principal",
        Limited::Address => "address",
        Limited::Route => "route",
        Limited::Elevation => "elevation",
        Limited::Machines => "machines",
    }
}

/// What came of reading the certificate, or the policies, again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// New connections get the new one; the new ones decide.
    Done,
    /// What is new cannot be used; what was there stays.
    Refused,
}

impl Reload {
    pub(super) const ALL: &[&str] = &[Self::Done.as_str(), Self::Refused.as_str()];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Refused => "refused",
        }
    }
}

/// A counter for each value, at zero: one that appears with its first count hides that
/// count from `rate`.
pub(super) fn all(name: &'static str, values: &[&'static str]) -> Family<Label, Counter> {
    let family = Family::default();
    for value in values {
        drop(family.get_or_create(&[(name, *value)]));
    }
    family
}
