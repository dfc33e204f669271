//! The identity source `aws-sso`: a person logs in at IAM Identity Center.
//!
//! One login serves all accounts and roles of one access portal. Its token is shown
//! to that portal alone.
//!
//! | file | what it does |
//! |---|---|
//! | `settings` | what the configuration says |
//! | `ways` | logging in: in a browser on this machine, or with a code anywhere |
//! | `session` | what is kept between runs |

mod session;
mod settings;
#[cfg(test)]
mod tests;
mod ways;

use async_trait::async_trait;

use self::session::{Session, Stored};
pub use self::settings::Settings;
use super::login::{self, Choice, Flow};
use super::{Context, Fact, IdentitySource, LoginOptions, Logout, Readiness};
use crate::aws::sso::oidc::{Grant, Oidc, Registration, WHO};
use crate::aws::sso::portal::Portal;
use crate::aws::sso::{Failure, Refusal};
use crate::cache::{ClientKey, Lead, SessionKey, SessionLabel, Turn};
use crate::credential::{Assertion, Caller, Principal};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::http::retry_after;
use crate::host::surroundings::Surroundings;
use crate::host::{Host, files, process};
use crate::reach;
use crate::secret::Secret;

/// What is left of a registration that a login may still start with: a session
/// that outlives it cannot be renewed.
const REGISTERED: time::Duration = time::Duration::days(1);

/// The source.
pub struct AwsSso {
    name: String,
    settings: Settings,
}

/// How a renewal ended that did not fail.
enum Renewed {
    Alive(Session),
    Ended(Session, Refusal),
}

impl AwsSso {
    /// The source with these settings.
    pub fn new(name: &str, settings: Settings) -> Self {
        Self { name: name.into(), settings }
    }

    /// What makes it another session. The addresses are among it: what one server
    /// gave is not shown to another.
    fn parts<'a>(&'a self, oidc: &'a str, portal: &'a str, scopes: &'a str) -> [&'a str; 5] {
        ["aws-sso", &self.settings.start_url, oidc, portal, scopes]
    }

    fn scopes(&self) -> String {
        let mut scopes = self.settings.scopes.clone();
        scopes.sort();
        scopes.dedup();
        scopes.join(" ")
    }

    /// Two identities with the same portal and scopes share a session.
    fn key(&self) -> SessionKey {
        let (oidc, portal) = (self.settings.oidc(), self.settings.portal());
        SessionKey::new(&self.parts(oidc.url(), portal.url(), &self.scopes()))
    }

    /// The registrations for the two flows differ.
    fn client_key(&self, flow: Flow) -> ClientKey {
        let (oidc, portal, scopes) =
            (self.settings.oidc(), self.settings.portal(), self.scopes());
        let mut parts = self.parts(oidc.url(), portal.url(), &scopes).to_vec();
        parts.push(if flow == Flow::Device { "device" } else { "browser" });
        ClientKey::new(&parts)
    }

    /// The session, or what is left of it, unless there is none.
    fn stored(&self, cx: Context<'_>) -> Result<Option<Stored>> {
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
        let decode = |bytes: Secret<Vec<u8>>| {
            Stored::decode(&bytes, &self.settings.start_url, |lifetime| cx.cache.by_clock(lifetime))
        };
        Ok(bytes.and_then(decode))
    }

    fn alive(&self, cx: Context<'_>) -> Result<Option<Session>> {
        let now = cx.host.clock.now();
        Ok(match self.stored(cx)? {
            Some(Stored::Session(session)) if session.is_alive(now) => Some(session),
            _ => None,
        })
    }

    /// A session that is alive: as it is, renewed, or by a login.
    async fn bring(&self, cx: Context<'_>, lead: &Lead, options: &LoginOptions) -> Result<Session> {
        // Another process may have renewed it before the lock was ours.
        let stored = if options.force { None } else { self.stored(cx)? };
        let why = match stored {
            None => None,
            Some(Stored::Ended(_)) => Some("the session has ended".to_string()),
            Some(Stored::Session(session)) if session.is_alive(cx.host.clock.now()) => {
                return Ok(session);
            }
            Some(Stored::Session(session)) if session.is_renewable(cx.host.corrected_now()) => {
                match self.renew(cx, lead, session).await? {
                    Renewed::Alive(session) => return Ok(session),
                    Renewed::Ended(session, refusal) => {
                        self.keep_ended(cx, lead, session)?;
                        let words = refusal.words.as_deref().unwrap_or(&refusal.code);
                        Some(format!("the session has ended: {}", foreign(words)))
                    }
                }
            }
            Some(Stored::Session(session)) => {
                self.keep_ended(cx, lead, session)?;
                Some("the session has expired".to_string())
            }
        };
        login::require_person(cx.host, &self.name)
            .map_err(|error| why.into_iter().fold(error, Error::because_of))?;
        let session = self.log_in(cx, lead, options.flow).await?;
        let before = cx.cache.session_label(&self.key())?.map(|label| label.principal);
        self.keep(cx, lead, &session);
        // Each login has a name of its own: nobody would find these again.
        if let Some(before) = before
            && let Err(error) = cx.cache.forget_credentials(&before)
        {
            tracing::debug!(%error, "credentials of the login before stay until they expire");
        }
        Ok(session)
    }

    /// Renews a session by its refresh token. Its lock is held: the token may be
    /// good for one use only.
    ///
    /// Where AWS refuses, another process may have been quicker, on another machine or with
    /// its locks elsewhere. Then its session is the one to go on with.
    async fn renew(&self, cx: Context<'_>, lead: &Lead, session: Session) -> Result<Renewed> {
        let (used, refusal) = match self.try_renewal(cx, lead, session).await? {
            Renewed::Ended(used, refusal) => (used, refusal),
            alive @ Renewed::Alive(_) => return Ok(alive),
        };
        match self.stored(cx)? {
            Some(Stored::Session(newer)) if newer.is_renewal_of(&used) => {
                if newer.is_alive(cx.host.clock.now()) {
                    return Ok(Renewed::Alive(newer));
                }
                self.try_renewal(cx, lead, newer).await
            }
            _ => Ok(Renewed::Ended(used, refusal)),
        }
    }

    async fn try_renewal(
        &self,
        cx: Context<'_>,
        lead: &Lead,
        mut session: Session,
    ) -> Result<Renewed> {
        const WHAT: &str = "the session could not be renewed";
        let Some(refresh_token) = session.refresh_token.clone() else {
            let code = "expired_token".into();
            return Ok(Renewed::Ended(session, Refusal { code, words: None }));
        };
        let server = self.settings.oidc();
        let oidc = Oidc::new(cx.host, &server)?;
        let grant = Grant::Refresh(&refresh_token);
        let attempt = async |_: &str| match oidc.create_token(&session.client, &grant).await {
            Err(Failure::Unserved { outage, retry_after: wish }) => {
                let now = cx.host.corrected_now();
                let wish = wish.and_then(|wish| retry_after(&wish, now));
                Err(reach::Failure::wishing(outage, wish))
            }
            Err(Failure::Failed(error)) if error.kind() == ErrorKind::Unreachable => {
                Err(error.into())
            }
            answer => Ok(answer),
        };
        // Whoever gives no answer may have taken the token all the same: it is sent once.
        let effort = cx.effort.once();
        // Whoever is killed before the new one is kept has lost the session.
        let _postponed = process::postpone_end();
        let asked = reach::ask(cx.host, WHO, &[server.url()], effort, None, attempt).await;
        match asked.unwrap_or_else(|error| Err(error.into())) {
            Ok(tokens) => {
                let renewed = session.renew(cx.host, tokens);
                self.keep(cx, lead, &session);
                renewed.map_err(|error| error.context(WHAT))?;
                Ok(Renewed::Alive(session))
            }
            Err(Failure::Refused(refusal))
                if ["invalid_grant", "expired_token", "invalid_client", "unauthorized_client"]
                    .contains(&refusal.code.as_str()) =>
            {
                Ok(Renewed::Ended(session, refusal))
            }
            Err(failure) => Err(failure.error(WHAT)),
        }
    }

    async fn log_in(
        &self,
        cx: Context<'_>,
        lead: &Lead,
        flow: Option<Flow>,
    ) -> Result<Session> {
        let surroundings = Surroundings::detect(&cx.host.env);
        let flow = Choice::make(flow, self.settings.flow, &surroundings).flow;
        let server = self.settings.oidc();
        let oidc = Oidc::new(cx.host, &server)?;
        let mut client = self.registered(cx, flow)?;
        if client.is_some() && flow != Flow::Device {
            // Of a client that AWS has forgotten only the page in the browser tells, to the
            // person, who ends the login then. The next one must not meet it again.
            self.forget_registration(cx, lead, flow);
        }
        loop {
            let fresh = client.is_none();
            let registered = match client.take() {
                Some(client) => client,
                None => self.register(&oidc, flow).await?,
            };
            let ended = match flow {
                Flow::Device => {
                    ways::with_device(cx.host, &oidc, &self.settings, &registered, tokio::time::sleep)
                        .await
                }
                Flow::Browser | Flow::Auto => {
                    ways::with_browser(cx.host, &oidc, &self.settings, &registered).await
                }
            };
            match ended {
                Ok(tokens) => {
                    if fresh || flow != Flow::Device {
                        self.keep_registration(cx, lead, flow, &registered);
                    }
                    return Session::begin(cx.host, &self.settings.start_url, registered, tokens)
                        .map_err(|error| error.context(ways::WHAT));
                }
                // It was kept, but AWS does not know it any more.
                Err(failure) if failure.is("invalid_client") && !fresh => {}
                Err(failure) if failure.is("expired_token") => return Err(login::too_late()),
                Err(failure) => return Err(failure.error(ways::WHAT)),
            }
        }
    }

    /// The registration that was kept, where it lasts.
    fn registered(&self, cx: Context<'_>, flow: Flow) -> Result<Option<Registration>> {
        let bytes = match cx.cache.client(&self.client_key(flow)) {
            Err(error) if error.kind() != ErrorKind::KeyringLocked => None,
            other => other?,
        };
        let client: Option<Registration> =
            bytes.and_then(|bytes| serde_json::from_slice(bytes.expose()).ok());
        let until = cx.host.corrected_now() + REGISTERED;
        Ok(client.filter(|client| client.expires_at() > until))
    }

    async fn register(&self, oidc: &Oidc<'_>, flow: Flow) -> Result<Registration> {
        let redirect = (flow != Flow::Device).then_some(ways::REDIRECT);
        oidc.register(&self.settings.start_url, &self.settings.scopes, redirect)
            .await
            .map_err(|failure| failure.error(ways::WHAT))
    }

    /// Keeps a registration that somebody has logged in with. Failing costs another one.
    fn keep_registration(&self, cx: Context<'_>, lead: &Lead, flow: Flow, client: &Registration) {
        let lasts = client.expires_at() - cx.host.corrected_now();
        if lasts <= time::Duration::ZERO {
            return;
        }
        // Strings and numbers always have a JSON form.
        let bytes = Secret::new(serde_json::to_vec(client).unwrap_or_default());
        let label = format!("registration at {}", self.settings.start_url);
        let key = self.client_key(flow);
        if let Err(error) = cx.cache.keep_client(&key, &label, &bytes, lasts, lead) {
            cx.host.interact.warn(&format!("the registration could not be kept: {error}"));
        }
    }

    fn forget_registration(&self, cx: Context<'_>, lead: &Lead, flow: Flow) {
        if let Err(error) = cx.cache.forget_client(&self.client_key(flow), lead) {
            cx.host.interact.warn(&format!("the registration could not be forgotten: {error}"));
        }
    }

    /// Keeps the session. Failing costs a login later, but nothing now.
    fn keep(&self, cx: Context<'_>, lead: &Lead, session: &Session) {
        let label = SessionLabel {
            identity: self.name.clone(),
            principal: session.principal(),
            since: session.since,
            ended: false,
            particular: None,
        };
        if let Err(error) = cx.cache.keep_session(&self.key(), &label, &session.encode(), lead) {
            cx.host.interact.warn(&format!("the session could not be kept: {error}"));
        }
    }

    /// Keeps what is left of a session that has ended. Where that fails, its tokens must
    /// not stay.
    fn keep_ended(&self, cx: Context<'_>, lead: &Lead, session: Session) -> Result<()> {
        let label = SessionLabel {
            identity: self.name.clone(),
            principal: session.principal(),
            since: session.since,
            ended: true,
            particular: None,
        };
        let (key, ended) = (self.key(), session.end().encode());
        let kept = cx.cache.keep_session(&key, &label, &ended, lead);
        kept.or_else(|_| cx.cache.forget_session(&key, lead))
    }

    /// Ends a session at AWS. One that has expired is renewed for that.
    async fn revoke(&self, cx: Context<'_>, lead: &Lead, session: Session) -> Result<()> {
        let mut session = session;
        if !session.is_alive(cx.host.clock.now()) && session.is_renewable(cx.host.corrected_now()) {
            match self.renew(cx, lead, session).await? {
                Renewed::Alive(renewed) => session = renewed,
                Renewed::Ended(..) => return Ok(()),
            }
        }
        let portal = self.settings.portal();
        let portal = Portal::new(cx.host, &portal, &session.access_token)?;
        match portal.logout().await {
            // It has ended already.
            Err(failure) if failure.is("unauthorized") => Ok(()),
            other => other.map_err(|failure| failure.error("the session could not be ended")),
        }
    }
}

#[async_trait(?Send)]
impl IdentitySource for AwsSso {
    fn readiness(&self, _host: &Host) -> Readiness {
        match &self.settings.ca_file {
            Some(path) if !files::exists(path) => Readiness::Misconfigured {
                why: format!("`ca_file`: there is no {}", path.display()),
                hint: "correct `ca_file` in the configuration".into(),
            },
            _ => Readiness::Ready(format!("people log in at {}", self.settings.start_url)),
        }
    }

    fn explain(&self, surroundings: &Surroundings) -> Vec<Fact> {
        let choice = Choice::make(None, self.settings.flow, surroundings);
        let flow = if choice.flow == Flow::Device { "device" } else { "browser" };
        vec![
            Fact { what: "flow", value: flow.into(), why: choice.why },
            Fact {
                what: "scopes",
                value: self.settings.scopes.join(" "),
                why: "asked for at the login".into(),
            },
        ]
    }

    fn caller(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        Ok(cx.cache.session_label(&self.key())?.map(|label| label.principal.into()))
    }

    async fn assertion(&self, cx: Context<'_>, audience: &str) -> Result<Assertion> {
        if audience != self.settings.portal().url() {
            return Err(Error::new(ErrorKind::Config, "this identity has nothing to show there")
                .because_of(format!("a session at IAM Identity Center is for its own portal, not for {audience}"))
                .hint("let the profile's target be `{ type = \"aws-sso\", … }`, or name another identity"));
        }
        let find = || Ok(self.alive(cx)?.map(|session| session.assertion()));
        if let Some(assertion) = find()? {
            return Ok(assertion);
        }
        let (lead, cx) = match login::lead(cx, &self.key(), find)? {
            (Turn::Done(assertion), _) => return Ok(assertion),
            (Turn::Lead(lead), cx) => (lead, cx),
        };
        let session = self.bring(cx, &lead, &LoginOptions::default()).await;
        login::settle(cx, lead, session.map(|session| session.assertion()))
    }

    fn session(&self) -> Option<&dyn super::Session> {
        Some(self)
    }
}

#[async_trait(?Send)]
impl super::Session for AwsSso {
    fn session_key(&self) -> SessionKey {
        self.key()
    }

    async fn login(&self, cx: Context<'_>, options: &LoginOptions) -> Result<Principal> {
        let find = || {
            let session = if options.force { None } else { self.alive(cx)? };
            Ok(session.map(|session| session.principal()))
        };
        if let Some(principal) = find()? {
            return Ok(principal);
        }
        let (lead, cx) = match login::lead(cx, &self.key(), find)? {
            (Turn::Done(principal), _) => return Ok(principal),
            (Turn::Lead(lead), cx) => (lead, cx),
        };
        let session = self.bring(cx, &lead, options).await;
        login::settle(cx, lead, session.map(|session| session.principal()))
    }

    fn whose(&self, cx: Context<'_>) -> Result<Option<Caller>> {
        Ok(self.stored(cx)?.map(|stored| stored.principal().into()))
    }

    fn turned_away(&self, cx: Context<'_>, shown: &Assertion) -> Result<bool> {
        let lead = cx.cache.take_session(&self.key(), cx.effort.to_wait_for_others())?;
        // Another process may have logged in anew since it was shown.
        if let Some(Stored::Session(session)) = self.stored(cx)?
            && session.access_token.ct_eq(shown.token.expose())
        {
            self.keep_ended(cx, &lead, session)?;
        }
        lead.succeed();
        Ok(true)
    }

    async fn logout(&self, cx: Context<'_>) -> Result<Logout> {
        let key = self.key();
        // A login that failed just now is no reason to stay logged in.
        let lead = cx.cache.take_session(&key, None)?;
        let outcome = match self.stored(cx)? {
            None => Logout::NoSession,
            Some(stored @ Stored::Ended(_)) => Logout::Ended(stored.principal()),
            Some(Stored::Session(session)) => {
                let principal = session.principal();
                match self.revoke(cx, &lead, session).await {
                    Ok(()) => Logout::Revoked(principal),
                    Err(why) => Logout::ForgottenOnly(principal, why.to_string()),
                }
            }
        };
        cx.cache.forget_session(&key, &lead)?;
        lead.succeed();
        if let Some(principal) = outcome.principal() {
            cx.cache.forget_credentials(principal)?;
        }
        Ok(outcome)
    }
}
