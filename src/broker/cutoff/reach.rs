//! Whom a revocation reaches, and what lasts all the same.

use std::collections::BTreeMap;
use std::time::Duration as Span;

use time::format_description::well_known::Rfc3339;
use time::{Duration, OffsetDateTime};
use tokio::time::Instant;
use uuid::Uuid;

use super::{COUNT_FOR, Operator, What, in_time, second_after};
use crate::broker::config::{Config, Role, TokenFormat};
use crate::broker::policy::Policy;
use crate::broker::store::Whose;
use crate::broker::told::aws;
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
        let roles = self.roles_of(config, what).await;
        let sessions = sessions(&roles, before, self.clock.now());
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

    /// The roles whose tokens these may be, as far as the configuration has them.
    async fn roles_of<'a>(&self, config: &'a Config, what: &What) -> BTreeMap<&'a str, &'a Role> {
        let one = match what {
            What::Token(jti) => match self.issued(*jti).await {
                Ok((record, _)) => Some(record.role),
                Err(error) => {
                    tracing::warn!(%error, "whether AWS reads tokens of this role cannot be told");
                    return BTreeMap::new();
                }
            },
            What::Many { whose: Whose::Role(role), .. } => Some(role.clone()),
            What::Many { .. } => None,
        };
        let roles = config.role.iter().map(|(name, role)| (name.as_str(), role));
        roles.filter(|(name, _)| one.as_ref().is_none_or(|one| one == name)).collect()
    }
}

/// The sessions that may have been had for tokens of these roles which were issued before this
/// moment. AWS takes such a token until it expires, whatever became of it.
fn sessions(
    roles: &BTreeMap<&str, &Role>,
    before: OffsetDateTime,
    now: OffsetDateTime,
) -> Option<RevokedAwsSessions> {
    let of_aws: Vec<_> = roles.iter().filter(|(_, role)| role.aws.is_some()).collect();
    let longest: Span = of_aws.iter().map(|(_, role)| role.max_ttl).max()?;
    let longest = Duration::try_from(longest).unwrap_or(Duration::MAX);
    let begun_before = before.saturating_add(longest).saturating_add(LEEWAY);
    // None of them is left.
    if begun_before.saturating_add(LONGEST_SESSION) <= now {
        return None;
    }
    let begun_before = second_after(begun_before).format(&Rfc3339).unwrap_or_default();
    Some(RevokedAwsSessions {
        roles: of_aws.iter().map(|(name, _)| name.to_string()).collect(),
        deny: aws::denial(&begun_before),
        begun_before,
    })
}
