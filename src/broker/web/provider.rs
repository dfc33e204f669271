//! Signing in: the organisation's OpenID provider says who somebody is (OpenID Connect Core
//! section 3.1; PKCE, RFC 7636; RFC 9207).

use std::pin::Pin;

use oauth2::basic::{
    BasicErrorResponse, BasicRevocationErrorResponse, BasicTokenIntrospectionResponse,
};
use oauth2::http;
use oauth2::{
    AsyncHttpClient, AuthType, AuthUrl, AuthorizationCode, ClientId, ClientSecret, CsrfToken,
    EndpointNotSet, EndpointSet, HttpRequest, HttpResponse, PkceCodeChallenge, PkceCodeVerifier,
    RedirectUrl, RequestTokenError, Scope, StandardRevocableToken, TokenUrl,
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::{Duration, OffsetDateTime};
use url::Url;
use uuid::Uuid;

use super::PAGES_PATH;
use tokio::sync::{Semaphore, SemaphorePermit};

use crate::broker::config::{Config, Login, Web};
use crate::broker::keys::ClientKey;
use crate::broker::private_text::{self, Place};
use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::clock::SkewMeter;
use crate::host::http::{HttpClient, Request};
use crate::identity::oidc::TokenAnswer;
use crate::oidc::{Discovery, Issuer};
use crate::secret::Secret;

/// How long somebody may take at the provider.
const SIGN_IN: Duration = Duration::minutes(10);

/// How long what the provider says of itself is gone by, and how long it is left alone once it
/// cannot be asked.
const FRESH: Duration = Duration::minutes(5);
const PAUSE: Duration = Duration::seconds(3);

/// How long what the pages sign to show which client they are is good.
const ASSERTION: i64 = 60;

/// What failed, wherever it does.
const WHAT: &str = "the sign-in did not succeed";

type Client = oauth2::Client<
    BasicErrorResponse,
    TokenAnswer,
    BasicTokenIntrospectionResponse,
    StandardRevocableToken,
    BasicRevocationErrorResponse,
    EndpointSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointNotSet,
    EndpointSet,
>;

/// The provider at which people sign in to the pages.
pub(in crate::broker) struct Pages {
    web: Web,
    issuer: Issuer,
    /// Where the pages are.
    at: Url,
    redirect: Url,
    http: HttpClient,
    shown: Shown,
    found: tokio::sync::Mutex<Option<Found>>,
    /// Who waits for the provider.
    waiting: Semaphore,
}

/// How many wait for the provider at once, at most: strangers come here as often as they like, and
/// one that does not answer is not to keep those out who want something else of the broker.
const WAITING: usize = 32;

/// What the provider says of itself, or why it could not be asked, and until when to go by it.
struct Found {
    discovery: Result<Discovery>,
    until: Duration,
}

/// How the pages show there which client they are.
enum Shown {
    Not,
    Secret(Secret<String>),
    Key(Box<ClientKey>),
}

/// What has to be known when somebody comes back from the provider. Their browser carries it,
/// sealed.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(in crate::broker) struct SignIn {
    state: String,
    nonce: String,
    verifier: String,
    /// The page to go to, below the pages.
    to: String,
    /// Until when, in seconds.
    until: i64,
}

/// What somebody brings back from the provider.
#[derive(Debug, Default, Deserialize)]
pub(in crate::broker) struct Callback {
    code: Option<Secret<String>>,
    state: Option<Secret<String>>,
    iss: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
}

/// The tokens that were got for a code.
pub(in crate::broker) struct Got {
    /// The ID token.
    pub(in crate::broker) id_token: Secret<String>,
    /// The access token, which it may be bound to.
    pub(in crate::broker) access_token: Option<Secret<String>>,
}

impl SignIn {
    /// The page to go to, below the pages.
    pub(in crate::broker) fn to(&self) -> &str {
        &self.to
    }

    /// What the ID token has to say so that it is of this sign-in.
    pub(in crate::broker) fn nonce(&self) -> &str {
        &self.nonce
    }

    /// What tells it from others.
    pub(in crate::broker) fn state(&self) -> &str {
        &self.state
    }

    /// Whether an answer with this state is its.
    pub(in crate::broker) fn is_of(&self, state: &Secret<String>) -> bool {
        state.ct_eq(&self.state)
    }

    /// How long there is for it, in seconds.
    pub(in crate::broker) fn lasts() -> i64 {
        SIGN_IN.whole_seconds()
    }

    /// How much of that is left.
    pub(in crate::broker) fn left(&self, now: OffsetDateTime) -> i64 {
        self.until - now.unix_timestamp()
    }
}

impl Callback {
    /// Which sign-in it says that it is of.
    pub(in crate::broker) fn state(&self) -> Option<&Secret<String>> {
        self.state.as_ref()
    }
}

impl Pages {
    /// Reads what the configuration names; nothing is fetched. `None` where there are no pages.
    ///
    /// # Errors
    /// Where a secret, a key or a file with authorities cannot be used.
    pub(in crate::broker) fn new(config: &Config, host: &Host) -> Result<Option<Self>> {
        let Some(web) = &config.web else { return Ok(None) };
        let Some(trusted) = config.trusted_issuer.get(&web.issuer) else { return Ok(None) };
        let failed = |error: Error| error.context("[web] cannot be used");
        let shown = match (&web.client_secret_file, &web.client_key_file) {
            (Some(path), _) => {
                let place = Place::File(path.clone());
                let secret = private_text::read(&place, "client_secret", &host.env);
                Shown::Secret(secret.map_err(failed)?)
            }
            (None, Some(path)) => {
                let key = ClientKey::read(path, web.client_key_id.clone(), &host.env);
                Shown::Key(Box::new(key.map_err(failed)?))
            }
            (None, None) => Shown::Not,
        };
        let ca = trusted_file::read_authorities(trusted.ca_file.as_ref()).map_err(failed)?;
        Ok(Some(Self {
            web: web.clone(),
            issuer: trusted.issuer.clone(),
            at: config.issuer.join(PAGES_PATH),
            redirect: config.issuer.join(&format!("{PAGES_PATH}/callback")),
            http: HttpClient::new(host.clock.clone(), SkewMeter::default(), ca).telling_trace(),
            shown,
            found: tokio::sync::Mutex::default(),
            waiting: Semaphore::new(WAITING),
        }))
    }

    /// A place among those who wait for the provider.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where there is none.
    fn place(&self) -> Result<SemaphorePermit<'_>> {
        self.waiting.try_acquire().map_err(|_| {
            Error::new(ErrorKind::Unreachable, WHAT)
                .because_of(format!("{WAITING} others wait for the identity provider already"))
        })
    }

    /// All of these places.
    #[cfg(test)]
    pub(in crate::broker) fn crowd(&self) -> SemaphorePermit<'_> {
        self.waiting.try_acquire_many(WAITING as u32).unwrap()
    }

    /// What the configuration says of them.
    pub(in crate::broker) fn config(&self) -> &Web {
        &self.web
    }

    /// The provider's identifier.
    pub(in crate::broker) fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// The page of an elevation.
    pub(in crate::broker) fn page_of(&self, id: Uuid) -> Url {
        let mut url = self.at.clone();
        url.set_path(&format!("{}/{id}", self.at.path()));
        url
    }

    /// Where to send somebody who wants to go to this page, and what to remember of that. They
    /// have to sign in like this.
    ///
    /// # Errors
    /// Where the provider cannot be asked, or cannot do what it takes.
    pub(in crate::broker) async fn begin(
        &self,
        login: &Login,
        to: &str,
        (now, uptime): (OffsetDateTime, Duration),
    ) -> Result<(Url, SignIn)> {
        let place = self.place()?;
        let discovery = self.discovery(uptime).await.map_err(|error| error.context(WHAT))?;
        drop(place);
        let methods = &discovery.code_challenge_methods_supported;
        if !methods.is_empty() && !methods.iter().any(|method| method == "S256") {
            return Err(Error::new(ErrorKind::Config, WHAT)
                .because_of("the identity provider does not know PKCE with S256"));
        }
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = random();
        let client = self.client(&discovery)?;
        let mut request = client
            .authorize_url(|| CsrfToken::new(random()))
            .set_pkce_challenge(challenge)
            .add_scopes(self.web.all_scopes().into_iter().map(Scope::new))
            .add_extra_param("nonce", nonce.clone())
            .add_extra_param("response_mode", "query");
        if let Some(max_age) = login.max_age {
            request = request.add_extra_param("max_age", max_age.as_secs().to_string());
        }
        if !login.acr.is_empty() {
            let acr: Vec<_> = login.acr.iter().map(String::as_str).collect();
            request = request.add_extra_param("acr_values", acr.join(" "));
        }
        let (url, state) = request.url();
        let sign_in = SignIn {
            state: state.into_secret(),
            nonce,
            verifier: verifier.into_secret(),
            to: to.into(),
            until: now.saturating_add(SIGN_IN).unix_timestamp(),
        };
        Ok((url, sign_in))
    }

    /// The tokens for what somebody brings back.
    ///
    /// # Errors
    /// Where it does not belong to this sign-in, or the provider says no.
    pub(in crate::broker) async fn finish(
        &self,
        sign_in: &SignIn,
        callback: Callback,
        (now, uptime): (OffsetDateTime, Duration),
    ) -> Result<Got> {
        let failed = |kind, why: String| Error::new(kind, WHAT).because_of(why);
        let unfit = |why: &str| Err(failed(ErrorKind::Verification, why.into()));
        // Whatever else is in it may be anybody's.
        if !callback.state().is_some_and(|state| sign_in.is_of(state)) {
            return unfit("the answer is that of another sign-in");
        }
        if sign_in.left(now) <= 0 {
            return unfit("it took too long");
        }
        let _place = self.place()?;
        let discovery = self.discovery(uptime).await.map_err(|error| error.context(WHAT))?;
        // RFC 9207 section 2.4: or a code could be sent to another provider.
        match &callback.iss {
            Some(iss) if iss == self.issuer.as_str() => {}
            Some(iss) => {
                return unfit(&format!(
                    "the answer is that of '{}', not of '{}'",
                    foreign(iss),
                    self.issuer
                ));
            }
            None if discovery.authorization_response_iss_parameter_supported => {
                return unfit("the answer does not say who sent it, as the provider promises");
            }
            None => {}
        }
        if let Some(code) = &callback.error {
            return Err(refused(code, callback.error_description.as_deref()));
        }
        let Some(code) = callback.code.filter(|code| !code.expose().is_empty()) else {
            return unfit("the identity provider sent neither a code nor an error");
        };
        let client = self.client(&discovery)?;
        let mut request = client
            .exchange_code(AuthorizationCode::new(code.expose().clone()))
            .set_pkce_verifier(PkceCodeVerifier::new(sign_in.verifier.clone()));
        if let Shown::Key(key) = &self.shown {
            let kind = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer";
            let assertion = self.assertion(key, &discovery, now)?;
            request = request
                .add_extra_param("client_assertion_type", kind)
                .add_extra_param("client_assertion", assertion.expose().clone());
        }
        let sender = Sender(&self.http);
        let answer = request.request_async(&sender).await.map_err(|error| match error {
            RequestTokenError::ServerResponse(response) => {
                let code = response.error().as_ref().to_string();
                refused(&code, response.error_description().map(String::as_str))
            }
            RequestTokenError::Request(error) => error.context(WHAT),
            // What it holds of the body is not shown.
            RequestTokenError::Parse(..) | RequestTokenError::Other(_) => {
                let why = "the answer of its token endpoint cannot be understood";
                failed(ErrorKind::Verification, why.into())
            }
        })?;
        let Some(id_token) = answer.id_token().cloned() else {
            return unfit("the identity provider did not say who signed in");
        };
        Ok(Got { id_token, access_token: answer.access_token() })
    }

    fn client(&self, discovery: &Discovery) -> Result<Client> {
        let lacks = |what: &str| {
            Error::new(ErrorKind::Config, WHAT)
                .because_of(format!("the discovery document of {} names no {what}", self.issuer))
        };
        let authorize = discovery.authorization_endpoint.clone();
        let authorize = authorize.ok_or_else(|| lacks("authorization endpoint"))?;
        let token = discovery.token_endpoint.clone().ok_or_else(|| lacks("token endpoint"))?;
        let client = oauth2::Client::new(ClientId::new(self.web.client_id.clone()));
        let client = match &self.shown {
            Shown::Secret(secret) => {
                client.set_client_secret(ClientSecret::new(secret.expose().clone()))
            }
            Shown::Not | Shown::Key(_) => client.set_auth_type(AuthType::RequestBody),
        };
        Ok(client
            .set_auth_uri(AuthUrl::from_url(authorize))
            .set_token_uri(TokenUrl::from_url(token))
            .set_redirect_uri(RedirectUrl::from_url(self.redirect.clone())))
    }

    /// What shows which client this is (RFC 7523 section 2.2). It is for the issuer, and for
    /// nobody who could use it elsewhere.
    fn assertion(
        &self,
        key: &ClientKey,
        discovery: &Discovery,
        now: OffsetDateTime,
    ) -> Result<Secret<String>> {
        let (client, now) = (&self.web.client_id, now.unix_timestamp());
        key.sign(&json!({
            "iss": client, "sub": client, "aud": discovery.issuer, "jti": Uuid::new_v4(),
            "iat": now, "exp": now + ASSERTION,
        }))
    }

    /// What the provider says of itself. It is asked once for all who come meanwhile, and left
    /// alone for a moment where it cannot be: strangers may come as often as they like.
    async fn discovery(&self, uptime: Duration) -> Result<Discovery> {
        let mut found = self.found.lock().await;
        if let Some(known) = found.as_ref().filter(|known| uptime < known.until) {
            return known.discovery.clone();
        }
        let asked = Discovery::ask(&self.issuer, &self.issuer, &self.http).await;
        let (discovery, lasts) = match asked {
            Ok((discovery, freshness)) => (Ok(discovery), freshness.age.min(FRESH)),
            Err(error) => {
                tracing::warn!(%error, "the provider at which people sign in cannot be asked");
                (Err(error), PAUSE)
            }
        };
        *found = Some(Found { discovery: discovery.clone(), until: uptime + lasts });
        discovery
    }
}

/// A text that nobody can guess.
pub(super) fn random() -> String {
    CsrfToken::new_random_len(32).into_secret()
}

/// The provider's no.
fn refused(code: &str, words: Option<&str>) -> Error {
    let kind = match code {
        "access_denied"
        | "login_required"
        | "interaction_required"
        | "invalid_grant"
        | "unmet_authentication_requirements" => ErrorKind::Denied,
        "server_error" | "temporarily_unavailable" => ErrorKind::Unreachable,
        _ => ErrorKind::Config,
    };
    let words = words.filter(|words| !words.is_empty());
    Error::new(kind, WHAT).because_of(match words {
        Some(words) => format!("the provider says: {} ({})", foreign(words), foreign(code)),
        None => format!("the provider says: {}", foreign(code)),
    })
}

/// Sends the requests of the `oauth2` crate, within our limits.
struct Sender<'a>(&'a HttpClient);

impl<'c> AsyncHttpClient<'c> for Sender<'_> {
    type Error = Error;
    type Future = Pin<Box<dyn Future<Output = Result<HttpResponse>> + Send + 'c>>;

    fn call(&'c self, request: HttpRequest) -> Self::Future {
        Box::pin(async move {
            let unusable = |cause: String| {
                Error::new(ErrorKind::Verification, "the token endpoint cannot be used")
                    .because_of(cause)
            };
            let (parts, body) = request.into_parts();
            let url =
                Url::parse(&parts.uri.to_string()).map_err(|cause| unusable(cause.to_string()))?;
            let (method, headers) = (parts.method, parts.headers);
            let request = Request { method, url, headers, body: Secret::new(body) };
            let response = self.0.send(request).await?;
            if let Some(outage) = response.outage("the token endpoint of the identity provider") {
                return Err(outage);
            }
            http::Response::builder()
                .status(response.status.as_u16())
                .body(response.body.expose().clone())
                .map_err(|cause| unusable(cause.to_string()))
        })
    }
}
