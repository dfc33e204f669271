//! Whom a revocation reaches, and what lasts all the same.

use std::time::Duration as Span;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use uuid::Uuid;

use super::{COUNT_FOR, Operator, What, in_time, second_after};
use crate::broker::audit::Record;
use crate::broker::audit::leaf::ERASED;
use crate::broker::config::{Config, MAX_TTL, Role, TokenFormat};
use crate::broker::policy::Policy;
use crate::broker::store::Whose;
use crate::broker::told::aws;
use crate::error::Result;
use crate::oidc::jwt::LEEWAY;
use crate::wire::{RevocationReach, RevokedAwsSessions};

/// How long a session of AWS lasts at most:
/// <https://docs.aws.amazon.com/STS/latest/APIReference/API_AssumeRoleWithWebIdentity.html>.
const LONGEST_SESSION: Duration = Duration::hours(12);

/// Whom a revocation reaches, and what it does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reached {
    /// Whom; of several kinds of tokens as with the kind that is worse off.
    pub reach: RevocationReach,
    /// Sessions of AWS, where there may be some.
    pub aws_sessions: Option<RevokedAwsSessions>,
}

impl Operator {
    /// Whom it reaches that these are revoked which were issued before this moment. `policy` says
    /// whether all tokens of a role are opaque for its sake; without it that is not known.
    pub async fn reached(
        &self,
        config: &Config,
        policy: Option<&Policy>,
        what: &What,
        before: OffsetDateTime,
    ) -> Reached {
        let everywhere = match what {
            What::Token(jti) => self.is_opaque(*jti).await,
            What::Many { whose: Whose::Role(name), .. } => {
                config.role.get(name).is_some_and(|role| {
                    role.token_format == TokenFormat::Opaque
                        || policy.is_some_and(|policy| policy.wants_opaque(name))
                })
            }
            What::Many { .. } => false,
        };
        let reach = match everywhere {
            true => RevocationReach::Everywhere,
            false => RevocationReach::Introspection,
        };
        let read = self.read_by_aws(config, what, before).await;
        let sessions = read.and_then(|read| read.sessions(self.clock.now()));
        let aws_sessions = sessions.map(|sessions| match what {
            // What the log has of one token is for those to read who may.
            What::Token(_) => RevokedAwsSessions { roles: Vec::new(), ..sessions },
            What::Many { .. } => sessions,
        });
        Reached { reach, aws_sessions }
    }

    /// Whether a token is one that can only be introspected. Where that cannot be told in time,
    /// it is taken for one that others accept.
    async fn is_opaque(&self, jti: Uuid) -> bool {
        let until = Some(Instant::now() + COUNT_FOR);
        in_time(until, self.store.has_opaque(jti)).await.unwrap_or_else(|error| {
            tracing::warn!(%error, "whether a token is opaque cannot be told");
            false
        })
    }

    /// What of these AWS may have read.
    async fn read_by_aws(
        &self,
        config: &Config,
        what: &What,
        before: OffsetDateTime,
    ) -> Option<Read> {
        let of_role = |name: &str, role: &Role| {
            role.aws.as_ref().map(|_| Read::new(name.into(), before, role.max_ttl))
        };
        match what {
            What::Token(jti) => {
                let until = Some(Instant::now() + COUNT_FOR);
                match self.of_one(in_time(until, self.issued(*jti))).await {
                    Some((record, end)) => {
                        may_be_read(config, &record).then(|| Read { roles: vec![record.role], end })
                    }
                    // Nobody can tell.
                    None => is_read(config).then(|| Read::new(String::new(), before, MAX_TTL)),
                }
            }
            What::Many { whose: Whose::Role(name), .. } => match config.role.get(name) {
                Some(role) => of_role(name, role),
                // What was taken out of the configuration may have left tokens.
                None => {
                    let until = Some(Instant::now() + COUNT_FOR);
                    let record = self.of_one(in_time(until, self.last_issued(name))).await;
                    let may_be = match record {
                        // There is none of it that is good.
                        Some(None) => false,
                        Some(Some(Some(record))) => may_be_read(config, &record),
                        // Nobody can tell.
                        Some(Some(None)) | None => is_read(config),
                    };
                    may_be.then(|| Read::new(name.into(), before, MAX_TTL))
                }
            },
            What::Many { .. } => {
                let roles = config.role.iter().filter_map(|(name, role)| of_role(name, role));
                roles.reduce(Read::and)
            }
        }
    }

    async fn of_one<T>(&self, found: impl Future<Output = Result<T>>) -> Option<T> {
        found
            .await
            .inspect_err(|error| {
                tracing::warn!(%error, "whether AWS reads tokens of this role cannot be told");
            })
            .ok()
    }
}

/// Whether AWS may have read the token of this record: it was told something in it, or its role
/// is one for AWS. Of a role that is no more nobody knows, nor of what was erased, so it may where
/// AWS reads any.
fn may_be_read(config: &Config, record: &Record) -> bool {
    record.claims.as_deref().is_some_and(aws::is_told)
        || match config.role.get(&record.role) {
            Some(role) if record.claims.as_deref() != Some(ERASED) => role.aws.is_some(),
            Some(_) | None => is_read(config),
        }
}

/// Whether AWS reads tokens of any role.
fn is_read(config: &Config) -> bool {
    config.role.values().any(|role| role.aws.is_some())
}

/// Tokens that AWS may have read. It takes them until they expire, whatever became of them.
struct Read {
    /// Their roles.
    roles: Vec<String>,
    /// When the last of them ends.
    end: OffsetDateTime,
}

impl Read {
    /// Those of a role that were issued before this moment.
    fn new(role: String, before: OffsetDateTime, longest: Span) -> Self {
        let longest = Duration::try_from(longest).unwrap_or(Duration::MAX);
        Self { roles: vec![role], end: before.saturating_add(longest) }
    }

    fn and(self, other: Self) -> Self {
        let end = self.end.max(other.end);
        Self { roles: [self.roles, other.roles].concat(), end }
    }

    /// The sessions that may have been had for them, unless none of those is left.
    fn sessions(self, now: OffsetDateTime) -> Option<RevokedAwsSessions> {
        let begun_before = self.end.saturating_add(LEEWAY);
        if begun_before.saturating_add(LONGEST_SESSION) <= now {
            return None;
        }
        let begun_before = second_after(begun_before).format(&Rfc3339).unwrap_or_default();
        let deny = aws::denial(&begun_before);
        Some(RevokedAwsSessions { roles: self.roles, deny, begun_before })
    }
}
