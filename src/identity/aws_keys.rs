//! The identity source `aws-keys`: the long-lived access keys of an IAM user, for
//! accounts that trust no OpenID provider yet.
//!
//! They rest in the keyring, where `tmpcred login` puts them, and nowhere else; or
//! they are those of the environment. They only sign requests of AWS, which the
//! target `aws` makes of them sessions that end.

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use time::Duration;

use super::job::job;
use super::{Context, Fact, IdentitySource, LoginOptions, Logout, Readiness, Session};
use crate::cache::{Lead, SessionKey, SessionLabel};
use crate::credential::{AccessKeys, Assertion, Caller, Job, Principal, TokenType};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::surroundings::Surroundings;
use crate::secret::Secret;

/// Who says who it is: nobody but the configuration.
pub(super) const ISSUER: &str = "aws-keys";

/// What becomes of keys that are forgotten.
pub(super) const STILL_GOOD: &str = "the access keys are good until they are deleted in IAM";

/// The variables that AWS's own tools read:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/environment-variables.html>.
const ID: &str = "AWS_ACCESS_KEY_ID";
const SECRET: &str = "AWS_SECRET_ACCESS_KEY";
const SESSION: &str = "AWS_SESSION_TOKEN";

/// Access keys of AWS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Settings {
    /// Where they are.
    pub keys_from: KeysFrom,
}

/// Where access keys are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum KeysFrom {
    /// In the keyring, where `tmpcred login` puts them.
    #[default]
    Keyring,
    /// In AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY.
    Environment,
}

/// The source with a name.
pub struct AwsKeys {
    name: String,
    settings: Settings,
}

impl AwsKeys {
    /// The source with these settings.
    pub fn new(name: &str, settings: Settings) -> Self {
        Self { name: name.into(), settings }
    }

    fn is_in_keyring(&self) -> bool {
        self.settings.keys_from == KeysFrom::Keyring
    }

    fn key(&self) -> SessionKey {
        SessionKey::new(&[ISSUER, &self.name])
    }

    fn principal(&self) -> Principal {
        Principal { issuer: ISSUER.into(), subject: self.name.clone() }
    }

    /// Whoever has the keys of the keyring with this digest.
    fn with_keys(&self, digest: Option<&str>) -> Caller {
        let known = Job::new("with the access keys of the keyring");
        match digest {
            Some(digest) => Caller::job(known.with(ID, digest)).known_as(self.principal()),
            None => self.principal().into(),
        }
    }

    fn stored(&self, cx: Context<'_>) -> Result<Option<AccessKeys>> {
        let bytes = cx.cache.session(&self.key())?;
        Ok(bytes.and_then(|bytes| {
            let text = std::str::from_utf8(bytes.expose()).ok()?;
            AccessKeys::read(&Secret::new(text.to_string()))
        }))
    }

    fn of_environment(&self, host: &Host) -> Result<AccessKeys> {
        let get = |name| host.env.get(name).map(|value| Secret::new(value.to_string()));
        let wrong = |why: &str| {
            Error::new(ErrorKind::Config, "the access keys of the environment cannot be used")
                .because_of(why)
                .hint(format!("set {ID} to an access key ID, and {SECRET} to its secret"))
        };
        let (Some(id), Some(secret)) = (get(ID), get(SECRET)) else {
            return Err(wrong(&format!("{ID} and {SECRET} are not both set")));
        };
        AccessKeys::new(id, secret, get(SESSION)).map_err(wrong)
    }

    fn login_required(&self) -> Error {
        Error::new(
            ErrorKind::LoginRequired,
            format!("login required: run `tmpcred login {}`", self.name),
        )
    }

    /// Asks for keys and keeps them. Unlike a session they are of no use where they
    /// cannot be kept.
    fn ask(&self, cx: Context<'_>, lead: &Lead) -> Result<()> {
        let interact = &cx.host.interact;
        if !interact.may_ask() {
            return Err(self.login_required());
        }
        let ask = |what: &str| interact.ask(&format!("{what} for '{}'", self.name));
        let keys = AccessKeys::new(ask("Access key ID")?, ask("Secret access key")?, None)
            .map_err(|why| Error::new(ErrorKind::Usage, why).hint("nothing was kept; try again"))?;
        // What was minted with other keys is another user's, perhaps.
        cx.cache.forget_credentials(&self.principal())?;
        let label = SessionLabel {
            identity: self.name.clone(),
            principal: self.principal(),
            since: cx.host.clock.now(),
            ended: false,
            particular: Some(digest_of(&keys)),
        };
        let bytes = Secret::new(keys.write().expose().clone().into_bytes());
        cx.cache.keep_session(&self.key(), &label, &bytes, lead)
    }
}

#[async_trait(?Send)]
impl IdentitySource for AwsKeys {
    fn readiness(&self, host: &Host) -> Readiness {
        if self.is_in_keyring() {
            return Readiness::Ready("access keys are in the keyring after a login".into());
        }
        match (host.env.get(ID), host.env.get(SECRET)) {
            (Some(_), Some(_)) => Readiness::Ready(format!("{ID} is set")),
            (None, None) => Readiness::Absent(format!("{ID} is not set")),
            _ => Readiness::Misconfigured {
                why: format!("only one of {ID} and {SECRET} is set"),
                hint: "set both, or none".into(),
            },
        }
    }

    fn explain(&self, _: &Surroundings) -> Vec<Fact> {
        let value = if self.is_in_keyring() { "of the keyring" } else { "of the environment" };
        vec![Fact {
            what: "access keys",
            value: value.into(),
            why: "they sign the requests to AWS, and are sent to nobody".into(),
        }]
    }

    /// Other keys make another caller: they may be another user's.
    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        if !self.is_in_keyring() {
            let keys = self.of_environment(cx.host)?;
            let job = job(&cx.host.env, "with the access keys of the environment")
                .with(ID, keys.id.expose())
                .with(SECRET, keys.secret.expose());
            return Ok(Some(Caller::job(job).known_as(self.principal())));
        }
        let label = cx.cache.session_label(&self.key())?;
        // Keys that an earlier version kept have no digest there until they are replaced.
        Ok(label.map(|label| self.with_keys(label.particular.as_deref())))
    }

    async fn assertion(&self, cx: Context<'_>, _: &str) -> Result<Assertion> {
        let keys = if self.is_in_keyring() {
            self.stored(cx)?.ok_or_else(|| self.login_required())?
        } else {
            self.of_environment(cx.host)?
        };
        Ok(Assertion {
            token: keys.write(),
            token_type: TokenType::AwsAccessKeys,
            principal: self.principal(),
            // They do not end by themselves; nobody holds on to an assertion for so long.
            expires_at: cx.host.clock.now() + Duration::DAY,
            grant_ends: None,
        })
    }

    fn session(&self) -> Option<&dyn Session> {
        self.is_in_keyring().then_some(self)
    }
}

#[async_trait(?Send)]
impl Session for AwsKeys {
    fn session_key(&self) -> SessionKey {
        self.key()
    }

    async fn login(&self, cx: Context<'_>, options: &LoginOptions) -> Result<Principal> {
        if options.flow.is_some() {
            return Err(Error::new(ErrorKind::Usage, "access keys have no login flow"));
        }
        let there = || Ok::<_, Error>(!options.force && self.stored(cx)?.is_some());
        if there()? {
            return Ok(self.principal());
        }
        let lead = cx.cache.take_session(&self.key(), None)?;
        // Another process may have asked before the lock was ours.
        if !there()? {
            self.ask(cx, &lead)?;
        }
        lead.succeed();
        Ok(self.principal())
    }

    fn whose(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        Ok(self.stored(cx)?.map(|keys| self.with_keys(Some(&digest_of(&keys)))))
    }

    async fn logout(&self, cx: Context<'_>) -> Result<Logout> {
        let lead = cx.cache.take_session(&self.key(), None)?;
        let was_there = self.stored(cx)?.is_some();
        cx.cache.forget_session(&self.key(), &lead)?;
        lead.succeed();
        cx.cache.forget_credentials(&self.principal())?;
        Ok(match was_there {
            false => Logout::NoSession,
            true => Logout::ForgottenOnly(self.principal(), STILL_GOOD.into()),
        })
    }
}

/// What tells keys from others, and nothing of the keys.
fn digest_of(keys: &AccessKeys) -> String {
    URL_SAFE_NO_PAD.encode(digest(&SHA256, keys.id.expose().as_bytes()))
}

#[cfg(test)]
mod tests;
