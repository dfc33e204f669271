//! What somebody asks for who operates the broker, in the terms of policies.

use super::{ADMINISTER, Answer, Asks, Policy, REVOKE, Resource};
use crate::broker::authenticate::Caller;
use crate::credential::Principal;

use super::terms::Moment;

/// What somebody asks for who operates the broker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// To revoke tokens of others.
    Revoke(Tokens),
    /// To look after the broker.
    Administer(Administration),
}

/// Tokens that somebody wants to revoke, as policies are told of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    /// By what they are named.
    pub what: Named,
    /// Their role, where they are named by one, or where it is one token.
    pub role: Option<String>,
    /// Whose they are.
    pub subject: Option<Principal>,
    /// Of which issuer's callers.
    pub issuer: Option<String>,
    /// To which client they were issued.
    pub client: Option<String>,
}

impl Tokens {
    /// Those that are named so, of which no more is known.
    pub fn named(what: Named) -> Self {
        Self { what, role: None, subject: None, issuer: None, client: None }
    }
}

/// By what tokens are named that are revoked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// One, by itself or its id.
    Token,
    /// By their subject.
    Subject,
    /// By the issuer of their callers.
    Issuer,
    /// By their role.
    Role,
    /// By their client.
    Client,
    /// All.
    All,
}

impl Named {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Token, Self::Subject, Self::Issuer, Self::Role, Self::Client, Self::All];

    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Token => "token",
            Self::Subject => "subject",
            Self::Issuer => "issuer",
            Self::Role => "role",
            Self::Client => "client",
            Self::All => "all",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|named| named.name() == name)
    }

    /// Whether tokens that are named so have a role in common.
    pub fn has_role(self) -> bool {
        matches!(self, Self::Token | Self::Role)
    }
}

/// What is done who looks after the broker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Administration {
    /// Its keys are listed.
    ListKeys,
    /// Another key is published, to sign.
    RotateKeys,
    /// Keys are revoked.
    RevokeKeys,
    /// The audit log is read.
    ReadAudit,
    /// Keys that people enrolled are listed.
    ListEnrollments,
    /// One of them is approved.
    ApproveEnrollments,
    /// One of somebody else's is removed.
    RemoveEnrollments,
    /// What was done under grants is told by a log outside of the broker.
    TellUses,
}

impl Administration {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::ListKeys,
        Self::RotateKeys,
        Self::RevokeKeys,
        Self::ReadAudit,
        Self::ListEnrollments,
        Self::ApproveEnrollments,
        Self::RemoveEnrollments,
        Self::TellUses,
    ];

    /// Its name in policies.
    pub fn name(self) -> &'static str {
        match self {
            Self::ListKeys => "keys.list",
            Self::RotateKeys => "keys.rotate",
            Self::RevokeKeys => "keys.revoke",
            Self::ReadAudit => "audit.read",
            Self::ListEnrollments => "enrollments.list",
            Self::ApproveEnrollments => "enrollments.approve",
            Self::RemoveEnrollments => "enrollments.remove",
            Self::TellUses => "elevations.use",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|one| one.name() == name)
    }
}

impl Operation {
    /// Whether it does nothing but end what counts.
    pub fn only_ends(&self) -> bool {
        match self {
            Self::Revoke(_) => true,
            Self::Administer(what) => {
                matches!(what, Administration::RevokeKeys | Administration::RemoveEnrollments)
            }
        }
    }

    /// Its action.
    pub fn action(&self) -> &'static str {
        match self {
            Self::Revoke(_) => REVOKE,
            Self::Administer(_) => ADMINISTER,
        }
    }

    /// What it is done to.
    pub(super) fn resource(&self) -> Resource<'_> {
        match self {
            Self::Revoke(Tokens { role: Some(role), .. }) => Resource::Role(role),
            _ => Resource::Broker,
        }
    }

    /// Whose tokens it is about.
    fn about(&self) -> Option<&Principal> {
        match self {
            Self::Revoke(tokens) => tokens.subject.as_ref(),
            Self::Administer(_) => None,
        }
    }
}

impl std::fmt::Display for Operation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let of = |what: &str| format!("to revoke the tokens of {what}");
        f.write_str(&match self {
            Self::Administer(what) => format!("the operation {}", what.name()),
            Self::Revoke(Tokens { what, .. }) => match what {
                Named::Token => "to revoke this token".into(),
                Named::Subject => of("this subject"),
                Named::Issuer => of("this issuer's callers"),
                Named::Role => of("this role"),
                Named::Client => of("this client"),
                Named::All => of("everybody"),
            },
        })
    }
}

impl Policy {
    /// Decides about an operation. A policy that cannot be evaluated is an error, which
    /// counts as no.
    pub(in crate::broker) fn operates(
        &self,
        caller: &Caller,
        operation: &Operation,
        moment: Moment,
    ) -> Result<Answer, String> {
        let asks = self.asks_of(caller, operation, moment)?;
        self.ask_of(caller, asks, moment.now)
    }

    /// What Cedar is asked about an operation.
    pub(super) fn asks_of<'a>(
        &self,
        caller: &'a Caller,
        operation: &'a Operation,
        moment: Moment,
    ) -> Result<Asks<'a>, String> {
        Ok(Asks {
            principal: caller.id(),
            action: operation.action(),
            resource: operation.resource(),
            about: operation.about(),
            told: self.terms.operation_context(operation, moment)?,
        })
    }
}
