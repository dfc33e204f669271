//! The identity source `oidc`: a person logs in at an OpenID provider.
//!
//! | file | what it does |
//! |---|---|
//! | `settings` | what the configuration says |
//! | `code` | logging in with a browser on this machine |
//! | `device` | with a code, in a browser anywhere |
//! | `refresh` | renewing a session |
//! | `session` | what is kept between runs |
//! | `provider` | the requests to the provider, and the verification of its tokens |
//! | `audiences` | for whom access tokens are asked |
//! | `tokens`, `transport` | its answers, read with leniency and within bounds |

mod audiences;
mod code;
mod device;
mod provider;
mod refresh;
mod session;
mod settings;
mod tokens;
mod transport;

use std::collections::BTreeMap;

use async_trait::async_trait;
use time::OffsetDateTime;

use self::provider::Provider;
use self::refresh::Renewed;
use self::session::Session;
pub use self::settings::{AudienceParameter, Settings};
#[cfg(feature = "broker")]
pub(crate) use self::tokens::TokenAnswer;
use super::login::{self, Choice};
pub use super::login::{Flow, RedirectHost};
use super::{Context, Fact, IdentitySource, LoginOptions, Logout, Readiness, Strength};
use crate::cache::{Cache, Lead, SessionKey, SessionLabel, Turn};
use crate::credential::{Assertion, Caller, Principal};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::files;
use crate::host::surroundings::Surroundings;
use crate::oidc::{Documents, Issuer};
use crate::reach::Effort;
use crate::secret::Secret;

/// The source.
pub struct Oidc {
    name: String,
    settings: Settings,
}

/// Why somebody who is logged in has to log in.
const FRESH: &str = "a login is wanted that is fresh, or stronger than the last";

/// What somebody wants of the session.
struct Wish<'a> {
    /// For whom assertions are wanted, the one wanted now first.
    audiences: &'a [String],
    flow: Option<Flow>,
    force: bool,
    strength: Strength,
}

impl Oidc {
    /// The source with these settings.
    pub fn new(name: &str, settings: Settings) -> Self {
        Self { name: name.into(), settings }
    }

    /// Two identities with the same issuer, client, scopes and login parameters
    /// share a session.
    fn key(&self) -> SessionKey {
        let mut scopes = self.settings.all_scopes();
        scopes.sort();
        scopes.dedup();
        let scopes = scopes.join(" ");
        let mut parts =
            vec!["oidc", self.settings.issuer.as_str(), &self.settings.client_id, &scopes];
        // Another tenant, or a stronger login, is another session.
        for (name, value) in &self.settings.login_parameters {
            parts.extend([name.as_str(), value]);
        }
        SessionKey::new(&parts)
    }

    /// The session, unless there is none or it is not this provider's.
    fn stored(&self, cx: Context<'_>) -> Result<Option<Session>> {
        let bytes = match cx.cache.session(&self.key()) {
            // Whoever logs in again needs no store; a locked one would lose the session, and
            // one that was named and is not there keeps none.
            Err(error)
                if !matches!(error.kind(), ErrorKind::KeyringLocked | ErrorKind::Config) =>
            {
                cx.host.interact.warn(&format!("the session cannot be read: {error}"));
                None
            }
            other => other?,
        };
        let (issuer, client) = (self.settings.issuer.as_str(), &self.settings.client_id);
        let by_clock = |lifetime| cx.cache.by_clock(lifetime);
        Ok(bytes.and_then(|bytes| Session::decode(&bytes, issuer, client, by_clock)))
    }

    /// The assertion that a session has at hand.
    fn at_hand(&self, host: &Host, session: &Session, audience: &str) -> Option<Assertion> {
        session.assertion(audience, !self.settings.wants_access_token(), host.clock.now())
    }

    fn satisfies(&self, host: &Host, session: &Session, wish: &Wish<'_>) -> bool {
        match wish.audiences.first() {
            Some(audience) => self.at_hand(host, session, audience).is_some(),
            None => session.has_unexpired(host.clock.now()),
        }
    }

    /// Brings the session into the state that is wished for: as it is, renewed,
    /// or by a login.
    async fn bring(&self, cx: Context<'_>, lead: &Lead, wish: &Wish<'_>) -> Result<Session> {
        // Another process may have renewed it before the lock was ours.
        let stored = if wish.force { None } else { self.stored(cx)? };
        let stored = match stored {
            Some(session) if self.satisfies(cx.host, &session, wish) => return Ok(session),
            stored => stored,
        };
        let renewable = stored.as_ref().is_some_and(|session| session.refresh_token.is_some());
        if !renewable {
            let ended = stored.as_ref().is_some_and(|session| session.ended);
            self.require_person(cx).map_err(|error| match ended {
                true => error.because_of("the session has ended"),
                false if !wish.strength.is_any() => error.because_of(FRESH),
                false => error,
            })?;
        }
        let documents = Kept(cx.cache);
        // Nothing that failed before keeps a person from logging in.
        let effort = if renewable { cx.effort } else { Effort::LOOK };
        let provider = Provider::open(cx.host, &self.settings, &documents, effort).await?;
        let mut audiences = wish.audiences.to_vec();
        if let Some(session) = stored.as_ref().filter(|session| session.ended) {
            audiences.extend_from_slice(&session.granted);
        }
        if let Some(session) = stored.filter(|_| renewable) {
            let wanted = wish.audiences.first().map(String::as_str);
            let keep = |session: &Session| self.keep(cx, lead, session);
            let stored = || self.stored(cx);
            let ended = match refresh::renew(&provider, session, wanted, keep, stored).await? {
                Renewed::Alive(session) if self.satisfies(cx.host, &session, wish) => {
                    return Ok(session);
                }
                Renewed::Alive(_) => {
                    self.require_person(cx).map_err(|error| {
                        error.because_of("the identity provider renews no ID token")
                    })?;
                    None
                }
                Renewed::Ended(session, refusal) => Some((session, refusal)),
            };
            if let Some((mut session, refusal)) = ended {
                session.end();
                self.keep_or_forget(cx, lead, &session)?;
                self.require_person(cx).map_err(|error| {
                    let words = refusal.words.as_deref().unwrap_or(&refusal.code);
                    error.because_of(format!("the session has ended: {}", foreign(words)))
                })?;
                audiences.extend(session.granted);
            }
        }
        unique(&mut audiences);
        let provider = provider.wanting(wish.strength.clone());
        let session = self.log_in(&provider, wish.flow, &audiences).await?;
        self.keep(cx, lead, &session);
        Ok(session)
    }

    async fn log_in(
        &self,
        provider: &Provider<'_>,
        flow: Option<Flow>,
        audiences: &[String],
    ) -> Result<Session> {
        let host = provider.host;
        let audiences = if self.settings.wants_access_token() { audiences } else { &[] };
        let choice = Choice::make(flow, self.settings.flow, &Surroundings::detect(&host.env));
        let no_device = provider.discovery.device_authorization_endpoint.is_none();
        match choice.flow {
            Flow::Device if choice.automatic && no_device => {
                host.interact.note(&format!(
                    "the identity provider has no device flow, so the browser is used although {}",
                    choice.why
                ));
                code::log_in(provider, audiences).await
            }
            Flow::Device => device::log_in(provider, audiences, tokio::time::sleep).await,
            Flow::Browser | Flow::Auto => code::log_in(provider, audiences).await,
        }
    }

    /// Keeps the session. Failing costs a login later, but nothing now.
    fn keep(&self, cx: Context<'_>, lead: &Lead, session: &Session) {
        if let Err(error) = self.write(cx, lead, session) {
            cx.host.interact.warn(&format!("the session could not be kept: {error}"));
        }
    }

    /// Keeps what is left of a session that has ended. Where that fails, its tokens must
    /// not stay.
    fn keep_or_forget(&self, cx: Context<'_>, lead: &Lead, session: &Session) -> Result<()> {
        self.write(cx, lead, session).or_else(|_| cx.cache.forget_session(&self.key(), lead))
    }

    fn write(&self, cx: Context<'_>, lead: &Lead, session: &Session) -> Result<()> {
        let label = SessionLabel {
            identity: self.name.clone(),
            principal: session.principal(),
            since: session.since,
            ended: session.ended,
            particular: None,
        };
        cx.cache.keep_session(&self.key(), &label, &session.encode(), lead)
    }

    fn require_person(&self, cx: Context<'_>) -> Result<()> {
        login::require_person(cx.host, &self.name)
    }
}

#[async_trait(?Send)]
impl IdentitySource for Oidc {
    fn readiness(&self, _host: &Host) -> Readiness {
        match &self.settings.ca_file {
            Some(path) if !files::exists(path) => {
                Readiness::Misconfigured {
                    why: format!("`ca_file`: there is no {}", path.display()),
                    hint: "correct `ca_file` in the configuration".into(),
                }
            }
            _ => Readiness::Ready(format!("people log in at {}", self.settings.issuer)),
        }
    }

    fn explain(&self, surroundings: &Surroundings) -> Vec<Fact> {
        let settings = &self.settings;
        let choice = Choice::make(None, settings.flow, surroundings);
        let mut facts = vec![Fact {
            what: "flow",
            value: match choice.flow {
                Flow::Device => "device".into(),
                Flow::Browser | Flow::Auto => "browser".into(),
            },
            why: choice.why,
        }];
        if choice.flow == Flow::Browser {
            let host = match settings.redirect_host {
                RedirectHost::V4 => "127.0.0.1",
                RedirectHost::V6 => "[::1]",
                RedirectHost::Localhost => "localhost",
            };
            let ports: Vec<String> =
                settings.redirect_ports.iter().map(|port| port.to_string()).collect();
            let (ports, why) = match ports.as_slice() {
                [] => ("*".to_string(), "any free port"),
                [one] => (one.clone(), "the one port that is allowed"),
                _ => (
                    format!("{{{}}}", ports.join(",")),
                    "the first of the allowed ports that is free",
                ),
            };
            facts.push(Fact {
                what: "redirect",
                value: format!("http://{host}:{ports}{}", settings.redirect_path),
                why: why.into(),
            });
        }
        let (value, why) = match settings.audience_parameter {
            AudienceParameter::Resource => (
                "resource",
                "an access token where the provider binds one to the audience, else the ID token",
            ),
            AudienceParameter::Audience => (
                "audience",
                "an access token where the provider binds one to the audience, else the ID token",
            ),
            AudienceParameter::None => ("none", "the ID token is the assertion"),
        };
        facts.push(Fact { what: "audience parameter", value: value.into(), why: why.into() });
        facts.push(Fact {
            what: "scopes",
            value: settings.all_scopes().join(" "),
            why: "asked for at the login".into(),
        });
        facts
    }

    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        let label = cx.cache.session_label(&self.key())?;
        let ours = label.filter(|label| label.principal.issuer == self.settings.issuer.as_str());
        Ok(ours.map(|label| label.principal.into()))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        let find =
            || Ok(self.stored(cx)?.and_then(|session| self.at_hand(cx.host, &session, audience)));
        if let Some(assertion) = find()? {
            return Ok(assertion);
        }
        let (lead, cx) = match login::lead(cx, &self.key(), find)? {
            (Turn::Done(assertion), _) => return Ok(assertion),
            (Turn::Lead(lead), cx) => (lead, cx),
        };
        let audiences = [audience.to_string()];
        let strength = Strength::default();
        let wish = Wish { audiences: &audiences, flow: None, force: false, strength };
        let assertion = self.bring(cx, &lead, &wish).await.and_then(|session| {
            self.at_hand(cx.host, &session, audience).ok_or_else(nothing_to_show)
        });
        login::settle(cx, lead, assertion)
    }

    fn session(&self) -> Option<&dyn super::Session> {
        Some(self)
    }
}

#[async_trait(?Send)]
impl super::Session for Oidc {
    fn session_key(&self) -> SessionKey {
        self.key()
    }

    async fn login(&self, cx: Context<'_>, options: &LoginOptions) -> Result<Principal> {
        let LoginOptions { audiences, flow, force } = options;
        let (flow, force, strength) = (*flow, *force, Strength::default());
        let wish = Wish { audiences, flow, force, strength };
        let find = || {
            let session = if wish.force { None } else { self.stored(cx)? };
            let session = session.filter(|session| self.satisfies(cx.host, session, &wish));
            Ok(session.map(|session| session.principal()))
        };
        if let Some(principal) = find()? {
            return Ok(principal);
        }
        let (lead, cx) = match login::lead(cx, &self.key(), find)? {
            (Turn::Done(principal), _) => return Ok(principal),
            (Turn::Lead(lead), cx) => (lead, cx),
        };
        let session = self.bring(cx, &lead, &wish).await;
        login::settle(cx, lead, session.map(|session| session.principal()))
    }

    async fn stronger(
        &self,
        cx: Context<'_>,
        audience: &str,
        strength: &Strength,
    ) -> Result<Assertion> {
        let local_now = || cx.host.clock.now();
        let suffices = |one: &Assertion| strength.suffices(one, cx.host.corrected_now());
        let find = || {
            let stored = self.stored(cx)?;
            Ok(stored.and_then(|stored| stored.candidates(audience, local_now()).find(suffices)))
        };
        if let Some(assertion) = find()? {
            return Ok(assertion);
        }
        let (lead, cx) = match login::lead(cx, &self.key(), find)? {
            (Turn::Done(assertion), _) => return Ok(assertion),
            (Turn::Lead(lead), cx) => (lead, cx),
        };
        if cx.host.interact.may_ask() {
            cx.host.interact.note(FRESH);
        }
        let audiences = [audience.to_string()];
        let strength = strength.clone();
        let wish = Wish { audiences: &audiences, flow: None, force: true, strength };
        let assertion = self.bring(cx, &lead, &wish).await.and_then(|session| {
            // An access token need not say how somebody logged in; the ID token does.
            let mut refused = None;
            for assertion in session.candidates(audience, local_now()) {
                match wish.strength.check(&assertion, cx.host.corrected_now()) {
                    Ok(()) => return Ok(assertion),
                    Err(error) => refused = refused.or(Some(error)),
                }
            }
            Err(refused.unwrap_or_else(nothing_to_show))
        });
        login::settle(cx, lead, assertion)
    }

    fn whose(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        Ok(self.stored(cx)?.map(|session| session.principal().into()))
    }

    async fn logout(&self, cx: Context<'_>) -> Result<Logout> {
        let key = self.key();
        // A login that failed just now is no reason to stay logged in.
        let lead = cx.cache.take_session(&key, None)?;
        let stored = self.stored(cx)?;
        let outcome = match stored {
            None => Logout::NoSession,
            Some(session) if session.ended => Logout::Ended(session.principal()),
            Some(session) => match self.revoke(cx, &session).await {
                Ok(()) => Logout::Revoked(session.principal()),
                Err(why) => Logout::ForgottenOnly(session.principal(), why.to_string()),
            },
        };
        cx.cache.forget_session(&key, &lead)?;
        lead.succeed();
        if let Some(principal) = outcome.principal() {
            cx.cache.forget_credentials(principal)?;
        }
        Ok(outcome)
    }
}

impl Oidc {
    async fn revoke(&self, cx: Context<'_>, session: &Session) -> Result<()> {
        let Some(refresh_token) = &session.refresh_token else {
            return Err(Error::new(ErrorKind::Other, "there is nothing to revoke")
                .because_of("the provider gave no refresh token; its tokens end by themselves"));
        };
        let documents = Kept(cx.cache);
        let provider =
            Provider::open(cx.host, &self.settings, &documents, Effort::LOOK).await?;
        provider.revoke(refresh_token).await
    }
}

/// Revokes a session that no identity leads to. `None` where it is none of this kind. It tells
/// its issuer and client; an identity with the same issuer tells which authorities to trust.
pub(super) async fn revoke_stray(
    cx: Context<'_>,
    bytes: &Secret<Vec<u8>>,
    identities: &BTreeMap<String, super::Settings>,
) -> Option<Result<()>> {
    let session = Session::of_any_issuer(bytes)?;
    let (issuer, client) = session.made_by();
    let issuer = Issuer::parse(issuer).ok()?;
    let same = identities.values().find_map(|settings| match settings {
        super::Settings::Oidc(settings) if settings.issuer == issuer => Some(settings.clone()),
        _ => None,
    });
    let settings = match same {
        Some(settings) => Settings { client_id: client.into(), ..settings },
        None => Settings::new(issuer, client),
    };
    Some(Oidc::new("", settings).revoke(cx, &session).await)
}

fn nothing_to_show() -> Error {
    Error::new(ErrorKind::Verification, "the login gives nothing to show to the target")
        .because_of("the tokens of the identity provider have expired already")
        .hint("check this machine's clock and the provider's")
}

/// Drops what was there before, and keeps the order.
fn unique(audiences: &mut Vec<String>) {
    let mut seen = std::collections::BTreeSet::new();
    audiences.retain(|audience| seen.insert(audience.clone()));
}

/// Public documents, kept in the cache.
struct Kept<'a>(&'a Cache);

impl Documents for Kept<'_> {
    fn get(&self, name: &str) -> Option<Vec<u8>> {
        self.0.document(name)
    }

    fn put(&self, name: &str, bytes: &[u8], until: OffsetDateTime) {
        self.0.keep_document(name, bytes, until);
    }
}

#[cfg(test)]
mod tests;
