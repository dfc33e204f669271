//! Identity sources: what proves who is calling.
//!
//! To add one, write a file with its `Settings` and an [`IdentitySource`], and
//! add its line to the list below and to [`Settings::open`]; where it is that of a
//! platform which tells by itself that it applies, to `Settings::built_in` too.

mod detect;
mod endpoint;
mod job;
mod login;
mod stray;
mod strength;
mod token;

use async_trait::async_trait;

pub use self::detect::{Candidate, detect};
pub use self::job::proofs;
pub use self::login::Flow;
pub use self::stray::{Stray, strays};
pub use self::strength::Strength;
use crate::aws::sso::Server;
use crate::cache::{Cache, SessionKey};
use crate::credential::{Assertion, Caller, Principal, Proof};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::surroundings::Surroundings;
use crate::reach::{self, Effort, Wish};

crate::registry::registry! {
    /// The settings of an `[identity.NAME]` table.
    "oidc" => Oidc in oidc,
    "aws-sso" => AwsSso in aws_sso,
    "github-actions" => GithubActions in github_actions,
    "gitlab" => Gitlab in gitlab,
    "buildkite" => Buildkite in buildkite,
    "circleci" => Circleci in circleci,
    "azure-pipelines" => AzurePipelines in azure_pipelines,
    "file" => File in file,
    "env" => Env in env,
    "command" => Command in command,
    "aws-keys" => AwsKeys in aws_keys,
}

impl Settings {
    /// The source that these settings describe. `name` is the table's own name.
    pub fn open(&self, name: &str) -> Box<dyn IdentitySource> {
        match self {
            Self::Oidc(settings) => Box::new(oidc::Oidc::new(name, settings.clone())),
            Self::AwsSso(settings) => Box::new(aws_sso::AwsSso::new(name, settings.clone())),
            Self::GithubActions(settings) => Box::new(settings.clone()),
            Self::Gitlab(settings) => Box::new(settings.clone()),
            Self::Buildkite(settings) => Box::new(settings.clone()),
            Self::Circleci(settings) => Box::new(settings.clone()),
            Self::AzurePipelines(settings) => Box::new(settings.clone()),
            Self::File(settings) => Box::new(settings.clone()),
            Self::Env(settings) => Box::new(settings.clone()),
            Self::Command(settings) => Box::new(settings.clone()),
            Self::AwsKeys(settings) => Box::new(aws_keys::AwsKeys::new(name, settings.clone())),
        }
    }

    /// How the source proves who is calling.
    pub fn proof(&self) -> Proof {
        match self {
            Self::AwsKeys(_) => Proof::AwsAccessKeys,
            _ => Proof::Token,
        }
    }

    /// Lets the next run ask also those who are left alone because they did not serve.
    pub fn insist(&self, host: &Host, wish: Wish) {
        match self {
            Self::Oidc(settings) => reach::insist(host, settings.issuer.as_str(), wish),
            Self::AwsSso(settings) => reach::insist(host, settings.oidc().url(), wish),
            _ => {}
        }
    }

    /// The portal that alone is shown what this source yields, where there is one.
    pub fn portal(&self) -> Option<Server> {
        match self {
            Self::AwsSso(settings) => Some(settings.portal()),
            _ => None,
        }
    }

    /// The sources that need no configuration because the place itself says that
    /// they apply: those of CI platforms.
    fn built_in() -> [Self; 5] {
        [
            Self::GithubActions(github_actions::Settings::default()),
            Self::Gitlab(gitlab::Settings::default()),
            Self::Buildkite(buildkite::Settings::default()),
            Self::Circleci(circleci::Settings::default()),
            Self::AzurePipelines(azure_pipelines::Settings::default()),
        ]
    }
}

/// Whether a source can be used in this run. «Not mine» is never confused with
/// «broken».
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can be used, as this tells.
    Ready(String),
    /// It does not apply here; another may.
    Absent(String),
    /// It applies, but something is wrong with it: no other is tried.
    Misconfigured {
        /// What is wrong.
        why: String,
        /// What to do about it.
        hint: String,
    },
}

/// What a source works with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The world.
    pub host: &'a Host,
    /// Where sessions rest, and the locks that guard them.
    pub cache: &'a Cache,
    /// How much is done to have a session renewed. A login takes what time a person takes.
    pub effort: Effort,
}

impl<'a> Context<'a> {
    /// For somebody who waits, and whom nothing that failed before keeps from asking.
    pub fn new(host: &'a Host, cache: &'a Cache) -> Self {
        Self { host, cache, effort: Effort::LOOK }
    }

    /// The same with another effort.
    #[must_use]
    pub fn with_effort(self, effort: Effort) -> Self {
        Self { effort, ..self }
    }
}

/// One thing that `explain` says about a source, and why it is so.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Fact {
    /// What it is about, such as `flow`.
    pub what: &'static str,
    /// What was chosen.
    pub value: String,
    /// Why.
    pub why: String,
}

/// What proves who is calling.
#[async_trait(?Send)]
pub trait IdentitySource {
    /// Whether it can be used here, told from environment and files only.
    fn readiness(&self, host: &Host) -> Readiness;

    /// What it would do here, and why.
    fn explain(&self, surroundings: &Surroundings) -> Vec<Fact>;

    /// Whom a cached credential is for, without the network and without reading a
    /// keyring. `None` where only a session or a login can tell. A source whose assertions
    /// are about a job says what tells this job from all others of this user.
    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>>;

    /// Yields an assertion bound to `audience`, logging in first where that is
    /// needed and allowed.
    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion>;

    /// The part that logs in and out, for sources that have sessions.
    fn session(&self) -> Option<&dyn Session> {
        None
    }
}

/// An assertion in place of one that was turned away with `refused` because the session
/// behind it has ended, by a login where that is allowed.
///
/// # Errors
/// With `refused` itself where it is about something else.
pub async fn in_place_of(
    source: &dyn IdentitySource,
    cx: Context<'_>,
    shown: &Assertion,
    audience: &str,
    refused: Error,
) -> Result<Assertion> {
    let session = source.session().filter(|_| refused.kind() == ErrorKind::LoginRequired);
    match session {
        Some(session) if session.turned_away(cx, shown)? => {}
        _ => return Err(refused),
    }
    source.assertion(cx, audience).await.map_err(|error| match error.kind() {
        ErrorKind::LoginRequired => error.because_of(refused.to_string()),
        _ => error,
    })
}

/// An assertion bound to `audience` that comes of a login as strong as this.
///
/// # Errors
/// Where no such login can be had here.
pub async fn assertion_of(
    source: &dyn IdentitySource,
    cx: Context<'_>,
    audience: &str,
    strength: &Strength,
) -> Result<Assertion> {
    match source.session() {
        _ if strength.is_any() => source.assertion(cx, audience).await,
        Some(session) => session.stronger(cx, audience, strength).await,
        // What proves a job says of itself how strong that is, or nobody can.
        None => {
            let assertion = source.assertion(cx, audience).await?;
            match strength.suffices(&assertion, cx.host.corrected_now()) {
                true => Ok(assertion),
                false => Err(no_stronger()),
            }
        }
    }
}

fn no_stronger() -> Error {
    Error::new(ErrorKind::Denied, "a fresh or stronger login is wanted")
        .because_of("nobody logs in to this identity at an OpenID provider")
        .hint("use a profile whose identity is of the type `oidc`")
}

/// How a login is to go.
#[derive(Clone, Debug, Default)]
pub struct LoginOptions {
    /// Uses this flow, whatever the settings say.
    pub flow: Option<Flow>,
    /// Logs in although a session exists.
    pub force: bool,
    /// The audiences for which assertions will be wanted, so that the login can
    /// ask for them all: some providers grant later what was asked for then, and
    /// nothing else. The assertion for the first comes with the login itself.
    pub audiences: Vec<String>,
}

/// What logging out did.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Logout {
    /// There was no session.
    NoSession,
    /// The session was revoked at the provider and forgotten here.
    Revoked(Principal),
    /// The session was forgotten here; the provider was not told, and why.
    ForgottenOnly(Principal, String),
    /// The provider had ended the session before; what was left of it was forgotten.
    Ended(Principal),
}

impl Logout {
    /// Whose session it was, where there was one.
    pub fn principal(&self) -> Option<&Principal> {
        match self {
            Self::NoSession => None,
            Self::Revoked(who) | Self::ForgottenOnly(who, _) | Self::Ended(who) => Some(who),
        }
    }
}

/// A source that people log in to.
#[async_trait(?Send)]
pub trait Session {
    /// By what its session is found in the cache.
    fn session_key(&self) -> SessionKey;

    /// Starts a session, or finds that there is one.
    async fn login(&self, cx: Context<'_>, options: &LoginOptions) -> Result<Principal>;

    /// Who logged in, as the session itself tells where the index does not. A keyring
    /// is read for it.
    fn whose(&self, cx: Context<'_>) -> Result<Option<Caller>>;

    /// Takes note that this assertion, which came of the session, was turned away because
    /// the session has ended: from now on it yields none, and somebody has to log in
    /// again. Who it was stays known.
    ///
    /// Yields whether that may be so. Where not, as with keys that never end, asking
    /// for another assertion is of no use.
    fn turned_away(&self, _cx: Context<'_>, _shown: &Assertion) -> Result<bool> {
        Ok(false)
    }

    /// Yields an assertion bound to `audience` that comes of a login as strong as this, by
    /// a new login where that is needed and allowed.
    ///
    /// # Errors
    /// Where no such login can be had here.
    async fn stronger(
        &self,
        _cx: Context<'_>,
        _audience: &str,
        _strength: &Strength,
    ) -> Result<Assertion> {
        Err(no_stronger())
    }

    /// Ends the session: revokes at the provider, then forgets.
    async fn logout(&self, cx: Context<'_>) -> Result<Logout>;
}
