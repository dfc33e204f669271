//! The values that labels have.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;

use super::Label;
use crate::broker::authenticate::{Fault, Rejection};

/// How a request for a token ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Issuance {
    /// It was issued.
    Issued,
    /// The request cannot be understood.
    Malformed,
    /// The assertion is not acceptable.
    Assertion(Fault),
    /// Policy says no, or the configuration.
    Policy,
    /// The scope cannot be had.
    Scope,
    /// The role is not for this audience.
    Audience,
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
        Self::Assertion(Fault::Reused).as_str(),
        Self::Assertion(Fault::Invalid).as_str(),
        Self::Policy.as_str(),
        Self::Scope.as_str(),
        Self::Audience.as_str(),
        Self::TooMany.as_str(),
    ];

    pub(super) const FAILURES: &[&str] =
        &[Self::Unverifiable.as_str(), Self::Unrecorded.as_str(), Self::Internal.as_str()];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Issued => "issued",
            Self::Malformed => "malformed",
            Self::Assertion(fault) => of_fault(fault),
            Self::Policy => "policy",
            Self::Scope => "scope",
            Self::Audience => "audience",
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
            | Self::Policy
            | Self::Scope
            | Self::Audience
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
    of_fault(Fault::Invalid),
    UNVERIFIABLE,
];

const fn of_fault(fault: Fault) -> &'static str {
    match fault {
        Fault::Expired => "expired",
        Fault::UnknownKey => "unknown_key",
        Fault::Untrusted => "untrusted_issuer",
        Fault::Revoked => "revoked",
        Fault::Reused => "reused",
        Fault::Invalid => "invalid",
    }
}

pub(super) fn of_rejection(rejection: &Rejection) -> &'static str {
    match rejection {
        Rejection::Token(fault, _) => of_fault(*fault),
        Rejection::Unavailable(_) => UNVERIFIABLE,
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
    /// The broker cannot tell at present.
    Unavailable,
}

impl Introspection {
    pub(super) const ALL: &[&str] = &[
        Self::Active.as_str(),
        Self::Inactive.as_str(),
        Self::Malformed.as_str(),
        Self::Unauthenticated.as_str(),
        Self::Unavailable.as_str(),
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Inactive => "inactive",
            Self::Malformed => "malformed",
            Self::Unauthenticated => "unauthenticated",
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
    /// It could not be recorded.
    Failed,
}

impl Revocation {
    pub(super) const ALL: &[&str] = &[
        Self::Revoked.as_str(),
        Self::Repeated.as_str(),
        Self::Unknown.as_str(),
        Self::Malformed.as_str(),
        Self::Failed.as_str(),
    ];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Revoked => "revoked",
            Self::Repeated => "repeated",
            Self::Unknown => "unknown",
            Self::Malformed => "malformed",
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
    pub(super) const ALL: &[&str] = &[Self::Requests.as_str(), Self::LargeBodies.as_str()];

    pub(super) const fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::LargeBodies => "large_bodies",
        }
    }
}

/// What came of reading the certificate again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// New connections get the new one.
    Done,
    /// It cannot be used; the old one stays.
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
