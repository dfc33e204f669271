//! Sessions that no identity of this configuration leads to: it was removed, or what makes
//! its session another one was changed since the login. Access keys of AWS are among them, and
//! are no session: they end with nothing, and may be kept nowhere else.

use std::collections::BTreeMap;

use super::{Context, Logout, Settings, aws_keys, oidc};
use crate::cache::{Cache, SessionKey, SessionLabel};
use crate::error::Result;

/// Such a session.
#[derive(Clone, Debug)]
pub struct Stray {
    key: SessionKey,
    /// What the index says of it.
    pub label: SessionLabel,
}

/// Those that none of these identities leads to. Unlocks nothing.
pub fn strays(cache: &Cache, identities: &BTreeMap<String, Settings>) -> Vec<Stray> {
    let key = |(name, settings): (&String, &Settings)| {
        settings.open(name).session().map(super::Session::session_key)
    };
    let known: Vec<_> = identities.iter().filter_map(key).collect();
    cache.sessions_besides(&known).into_iter().map(|(key, label)| Stray { key, label }).collect()
}

impl Stray {
    /// Whether these are access keys, which only somebody who names them means.
    pub fn is_access_keys(&self) -> bool {
        self.label.principal.issuer == aws_keys::ISSUER
    }

    /// Ends it: revokes at the provider where what was kept tells how, then forgets it, and what
    /// is cached for whoever it was. `identities` may know more of the provider.
    ///
    /// # Errors
    /// Where it cannot be forgotten.
    pub async fn end(
        &self,
        cx: Context<'_>,
        identities: &BTreeMap<String, Settings>,
    ) -> Result<Logout> {
        let lead = cx.cache.take_session(&self.key, None)?;
        let who = self.label.principal.clone();
        let outcome = match cx.cache.session(&self.key)? {
            None => Logout::Ended(who.clone()),
            Some(_) if self.label.ended => Logout::Ended(who.clone()),
            Some(_) if self.is_access_keys() => {
                Logout::ForgottenOnly(who.clone(), aws_keys::STILL_GOOD.into())
            }
            Some(bytes) => match oidc::revoke_stray(cx, &bytes, identities).await {
                Some(Ok(())) => Logout::Revoked(who.clone()),
                Some(Err(why)) => Logout::ForgottenOnly(who.clone(), why.to_string()),
                None => Logout::ForgottenOnly(
                    who.clone(),
                    "no identity of this configuration leads to it; it lasts until it ends there"
                        .into(),
                ),
            },
        };
        cx.cache.forget_session(&self.key, &lead)?;
        lead.succeed();
        cx.cache.forget_credentials(&who)?;
        Ok(outcome)
    }
}
