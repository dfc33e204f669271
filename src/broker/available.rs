//! Which roles somebody may have: what policy says of each, as it would if they asked for it.
//! Nothing is done, and nothing put on record.

use std::net::IpAddr;

use time::OffsetDateTime;

use super::Broker;
use super::authenticate::Caller;
use super::config::{Binding, Elevation, Role};
use super::decide::{Rules, Wanted};
use super::issue::joined;
use super::operate::Asked;
use super::policy::{Elevating, Moment};
use super::rulebook::Rulebook;
use crate::wire::roles::{Audience, Role as Available};

impl Broker {
    /// The roles that whoever asks would be issued, or may ask for; nothing of others.
    pub(super) async fn roles_for(&self, book: &Rulebook, asked: &Asked) -> Vec<Available> {
        let now = self.clock.now();
        let looking = Looking {
            rules: Rules { policy: book, roles: book.roles() },
            caller: &asked.caller,
            source: asked.source,
            now,
        };
        // Whom the directory has to have, and does not, gets no role for a while.
        let is_known = self.known(book, &asked.caller, now).is_ok();
        let mut all = Vec::new();
        for (name, role) in book.roles() {
            all.extend(match &role.elevation {
                None => looking.issued(name, role),
                Some(rules) if is_known => looking.asked_for(name, role, rules),
                Some(_) => None,
            });
            // There may be hundreds of them, each with a question or four to all policies: others
            // go on meanwhile.
            tokio::task::yield_now().await;
        }
        all
    }
}

/// Who looks, and what by.
struct Looking<'a> {
    rules: Rules<'a>,
    caller: &'a Caller,
    source: IpAddr,
    now: OffsetDateTime,
}

impl Looking<'_> {
    /// A role that is had when it is asked for.
    fn issued(&self, name: &str, role: &Role) -> Option<Available> {
        let audiences = role.audiences.iter().filter_map(|audience| {
            self.keys(role).iter().find_map(|key_bound| {
                let wanted = Wanted {
                    role: name,
                    audience,
                    scope: None,
                    ttl: None,
                    key_bound: *key_bound,
                    jwt: false,
                    elevation: None,
                    source: self.source,
                };
                let (granted, _) = self.rules.decide(self.caller, wanted, self.now).ok()?;
                Some(Audience {
                    audience: audience.clone(),
                    scope: joined(&granted.scope),
                    longest: granted.ttl.as_secs(),
                    key_bound: *key_bound,
                })
            })
        });
        let audiences: Vec<_> = audiences.collect();
        (!audiences.is_empty()).then(|| Available {
            role: name.into(),
            how: "issue".into(),
            approval: false,
            emergency: false,
            aws: role.aws.is_some(),
            audiences,
        })
    }

    /// A role that may be asked for, for a while.
    fn asked_for(&self, name: &str, role: &Role, rules: &Elevation) -> Option<Available> {
        let (mut ordinary, mut emergency) = (false, false);
        let mut audiences = Vec::new();
        for audience in &role.audiences {
            let found = self.keys(role).iter().find_map(|key_bound| {
                let longest = rules.longest.as_secs();
                let may = |emergency, ttl| {
                    let asked = Elevating {
                        role: name,
                        audience,
                        scope: None,
                        ttl,
                        emergency,
                        key_bound: *key_bound,
                    };
                    let moment = Moment { now: self.now, source: self.source };
                    self.rules.elevate(self.caller, &asked, moment).is_ok()
                };
                let short = rules.emergency.as_ref().map(|it| it.longest.as_secs().min(longest));
                let short = short.filter(|ttl| may(true, *ttl));
                let long = Some(longest).filter(|ttl| may(false, *ttl));
                ordinary |= long.is_some();
                emergency |= short.is_some();
                Some((long.or(short)?, *key_bound))
            });
            audiences.extend(found.map(|(longest, key_bound)| Audience {
                audience: audience.clone(),
                scope: joined(&role.scopes),
                longest,
                key_bound,
            }));
        }
        (!audiences.is_empty()).then(|| Available {
            role: name.into(),
            how: "elevate".into(),
            approval: ordinary,
            emergency,
            aws: role.aws.is_some(),
            audiences,
        })
    }

    /// Whether a key is proved, where that matters: what can be had without one comes first.
    fn keys(&self, role: &Role) -> &'static [bool] {
        match self.caller.key().is_some() || role.dpop == Binding::Required {
            true => &[true],
            false => &[false, true],
        }
    }
}
