//! Identity sources: what proves who is calling.
//!
//! To add one, write a file with its `Settings` and an [`IdentitySource`], and
//! add its line to the list below and to [`Settings::open`].

use async_trait::async_trait;

use crate::cache::Cache;
use crate::credential::{Assertion, Principal};
use crate::error::Result;
use crate::host::Host;
use crate::host::surroundings::Surroundings;

crate::registry::registry! {
    /// The settings of an `[identity.NAME]` table.
    "oidc" => Oidc in oidc,
}

impl Settings {
    /// The source that these settings describe. `name` is the table's own name.
    pub fn open(&self, name: &str) -> Box<dyn IdentitySource> {
        match self {
            Self::Oidc(settings) => Box::new(oidc::Oidc::new(name, settings.clone())),
        }
    }
}

/// Whether a source can be used in this run. «Not mine» is never confused with
/// «broken».
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Readiness {
    /// It can be used.
    Ready,
    /// It does not apply here; another may.
    Absent(String),
    /// It applies, but something is wrong with it: no other is tried.
    Misconfigured(String),
}

/// What a source works with.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    /// The world.
    pub host: &'a Host,
    /// Where sessions rest, and the locks that guard them.
    pub cache: &'a Cache,
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

    /// Whom an assertion would be about, without the network and without
    /// unlocking a keyring. `None` where only a login can tell.
    fn principal(&self, cx: Context<'_>) -> Result<Option<Principal>>;

    /// Yields an assertion bound to `audience`, logging in first where that is
    /// needed and allowed.
    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion>;

    /// The part that logs in and out, for sources that have sessions.
    fn session(&self) -> Option<&dyn Session> {
        None
    }
}

/// How a login is to go.
#[derive(Clone, Debug, Default)]
pub struct LoginOptions {
    /// Uses this flow, whatever the settings say.
    pub flow: Option<oidc::Flow>,
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
}

/// A source that people log in to.
#[async_trait(?Send)]
pub trait Session {
    /// Starts a session, or finds that there is one.
    async fn login(&self, cx: Context<'_>, options: &LoginOptions) -> Result<Principal>;

    /// Ends the session: revokes at the provider, then forgets.
    async fn logout(&self, cx: Context<'_>) -> Result<Logout>;
}
