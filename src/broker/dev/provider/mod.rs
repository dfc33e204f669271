//! A minimal OpenID provider for development: the person who runs it is the
//! user, there are no passwords, and nothing outlives the process.
//!
//! It speaks what real ones do, so that the ordinary way through the client works
//! unchanged: authorization code with PKCE, the device flow with real pages,
//! refresh tokens that rotate, resource indicators, revocation.

mod authorize;
mod device;
mod grants;
mod metadata;
pub(super) mod page;
mod person;
mod revoke;
mod session;
mod token;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::Router;
use axum::routing::{get, post};
use time::OffsetDateTime;

pub(super) use person::Person;

use crate::broker::http::refusal::Refusal;
use crate::broker::keys::SigningKey;
use crate::error::Result;
use crate::host::clock::Clock;
use crate::oidc::Issuer;
use crate::oidc::discovery::WELL_KNOWN;
use grants::Grants;
use session::Sessions;

/// A name that nobody can guess.
pub(super) fn random_name() -> Result<String> {
    Ok(grants::random()?.expose().clone())
}

/// The scopes it knows; others are passed over (RFC 6749 section 3.3).
const SCOPES: [&str; 4] = ["openid", "offline_access", "profile", "groups"];

/// What a provider is made of.
pub(super) struct Options {
    /// Its identifier.
    pub(super) issuer: Issuer,
    /// The one client it knows.
    pub(super) client_id: String,
    /// Whom it issues access tokens for (RFC 8707).
    pub(super) resources: BTreeSet<String>,
    /// Who is running it.
    pub(super) person: Person,
    /// Whether they consent without being asked.
    pub(super) auto_approve: bool,
}

/// The provider.
pub(super) struct Provider {
    options: Options,
    key: SigningKey,
    sessions: Sessions,
    grants: Mutex<Grants>,
    clock: Arc<dyn Clock>,
}

impl Provider {
    /// A provider with fresh keys.
    pub(super) fn new(options: Options, clock: Arc<dyn Clock>) -> Result<Self> {
        let (key, _) = SigningKey::generate()?;
        let sessions = Sessions::new(&options.issuer)?;
        Ok(Self { options, key, sessions, grants: Mutex::default(), clock })
    }

    /// Its endpoints, below the path of its issuer.
    pub(super) fn routes(self) -> Router {
        let base = self.options.issuer.url().path().trim_end_matches('/').to_string();
        let at = |path: &str| format!("{base}/{path}");
        Router::new()
            .route(&at(WELL_KNOWN), get(metadata::discovery))
            .route(
                &format!("/.well-known/oauth-authorization-server{base}"),
                get(metadata::discovery),
            )
            .route(&at("jwks.json"), get(metadata::jwks))
            .route(&at("authorize"), get(authorize::show).post(authorize::decide))
            .route(&at("token"), post(token::token))
            .route(&at("device_authorization"), post(device::start))
            .route(&at("device"), get(device::show).post(device::decide))
            .route(&at("revoke"), post(revoke::revoke))
            .with_state(Arc::new(self))
    }

    fn grants(&self) -> MutexGuard<'_, Grants> {
        self.grants.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn now(&self) -> OffsetDateTime {
        self.clock.now()
    }

    fn knows_client(&self, client: Option<&str>) -> bool {
        client == Some(&self.options.client_id)
    }

    /// The scopes of a request that are known here.
    fn scope(text: Option<&str>) -> BTreeSet<String> {
        let known = |scope: &&str| SCOPES.contains(scope);
        text.unwrap_or_default().split(' ').filter(known).map(String::from).collect()
    }

    /// The resources of a request, all of which must be known here.
    fn resources<'a>(
        &self,
        named: impl Iterator<Item = &'a str>,
    ) -> Result<BTreeSet<String>, Refusal> {
        let named: BTreeSet<String> = named.map(String::from).collect();
        match named.iter().find(|resource| !self.options.resources.contains(*resource)) {
            None => Ok(named),
            Some(_) => Err(Refusal::bad(
                crate::wire::refusal::INVALID_TARGET,
                "the resource is not known here",
            )),
        }
    }
}
