//! The browser flow: authorization code with PKCE (RFC 6749 section 4.1,
//! RFC 7636, RFC 8252).

use oauth2::{AuthUrl, CsrfToken, PkceCodeChallenge, PkceCodeVerifier, RedirectUrl, Scope};
use url::Url;

use super::super::login::{self, Answer, Callback, LOGIN_LIMIT, Listener};
use super::audiences::without_refused;
use super::provider::Provider;
use super::session::Session;
use super::transport::Refusal;
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::secret::Secret;

/// What failed, wherever it does.
const WHAT: &str = "the login did not succeed";

/// One request to the authorization endpoint, and what its answer must fit.
struct Attempt {
    url: Url,
    state: Secret<String>,
    nonce: Secret<String>,
    verifier: PkceCodeVerifier,
    audiences: Vec<String>,
}

/// How an attempt ended that did not fail.
enum Outcome {
    LoggedIn(Box<Session>),
    /// The provider knows no such audience.
    InvalidTarget,
}

/// Logs in through the browser. A provider that refuses the audiences is asked
/// again without, in the same page.
pub(super) async fn log_in(provider: &Provider<'_>, audiences: &[String]) -> Result<Session> {
    let mut refused = Vec::new();
    let mut listener = Listener::open(provider.host, provider.settings)?;
    let mut attempt = Attempt::new(provider, listener.redirect_uri(), audiences.to_vec())?;
    tracing::debug!(redirect_uri = %listener.redirect_uri(), "logging in through a browser");
    login::show(provider.host, &listener, &attempt.url)?;
    let _waiting = provider.host.interact.waiting("waiting for the login in the browser");
    let ends = tokio::time::Instant::now() + LOGIN_LIMIT;
    loop {
        let callback = listener.callback(&attempt.state);
        let Ok(callback) = tokio::time::timeout_at(ends, callback).await else {
            return Err(login::too_late());
        };
        let mut callback = callback?;
        let asked = attempt.audiences.clone();
        match finish(provider, attempt, &mut callback, listener.redirect_uri(), &refused).await {
            Ok(Outcome::LoggedIn(session)) => {
                callback.answer(Answer::Done).await;
                return Ok(*session);
            }
            Ok(Outcome::InvalidTarget) => {
                let audiences;
                (audiences, refused) = without_refused(asked, refused);
                attempt = Attempt::new(provider, listener.redirect_uri(), audiences)?;
                callback.answer(Answer::GoTo(attempt.url.clone())).await;
            }
            Err(error) => {
                callback.answer(Answer::Failed).await;
                return Err(error);
            }
        }
    }
}

impl Attempt {
    fn new(provider: &Provider<'_>, redirect: &Url, audiences: Vec<String>) -> Result<Self> {
        let discovery = &provider.discovery;
        let endpoint = discovery.authorization_endpoint.clone();
        let endpoint = endpoint.ok_or_else(|| provider.lacks("authorization endpoint"))?;
        let methods = &discovery.code_challenge_methods_supported;
        if !methods.is_empty() && !methods.iter().any(|method| method == "S256") {
            return Err(Error::new(ErrorKind::Config, WHAT)
                .because_of("the identity provider does not know PKCE with S256")
                .hint("use the device flow"));
        }
        let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
        let nonce = CsrfToken::new_random_len(32).into_secret();
        let client = provider
            .client()?
            .set_auth_uri(AuthUrl::from_url(endpoint))
            .set_redirect_uri(RedirectUrl::from_url(redirect.clone()));
        let mut request = client
            .authorize_url(|| CsrfToken::new_random_len(32))
            .set_pkce_challenge(challenge)
            .add_scopes(provider.settings.all_scopes().into_iter().map(Scope::new))
            .add_extra_param("nonce", nonce.clone());
        for (name, value) in provider.audience_parameters(&audiences) {
            request = request.add_extra_param(name, value);
        }
        for (name, value) in provider.login_parameters() {
            request = request.add_extra_param(name, value);
        }
        let (url, state) = request.url();
        let state = Secret::new(state.into_secret());
        Ok(Self { url, state, nonce: Secret::new(nonce), verifier, audiences })
    }
}

/// Makes a session of what the browser brought back.
async fn finish(
    provider: &Provider<'_>,
    attempt: Attempt,
    callback: &mut Callback,
    redirect: &Url,
    refused: &[String],
) -> Result<Outcome> {
    check_issuer(provider, callback)?;
    if let Some(code) = callback.error.take() {
        let refusal = Refusal { code, words: callback.error_description.take() };
        if refusal.code == "invalid_target" && !attempt.audiences.is_empty() {
            return Ok(Outcome::InvalidTarget);
        }
        return Err(refusal.error(WHAT));
    }
    let Some(code) = callback.code.take().filter(|code| !code.expose().is_empty()) else {
        return Err(Error::new(ErrorKind::Verification, WHAT)
            .because_of("the identity provider sent neither a code nor an error"));
    };
    let answer =
        provider.exchange_code(&code, attempt.verifier, redirect, &attempt.audiences).await;
    let answer = match answer {
        Ok(answer) => answer,
        // The code may be used up by now, so the next attempt needs another.
        Err(failure) if failure.is("invalid_target") && !attempt.audiences.is_empty() => {
            return Ok(Outcome::InvalidTarget);
        }
        Err(failure) => return Err(failure.error(WHAT)),
    };
    let session = provider
        .establish(&answer, Some(&attempt.nonce), &attempt.audiences, refused)
        .await
        .map_err(|error| error.context(WHAT))?;
    Ok(Outcome::LoggedIn(Box::new(session)))
}

/// RFC 9207 section 2.4: the answer is that of the provider that was asked, or
/// a code could be sent to another.
fn check_issuer(provider: &Provider<'_>, callback: &Callback) -> Result<()> {
    let expected = provider.settings.issuer.as_str();
    let wrong = match &callback.iss {
        Some(iss) if iss == expected => return Ok(()),
        Some(iss) => format!("the answer is that of '{}', not of '{expected}'", foreign(iss)),
        None if !provider.discovery.authorization_response_iss_parameter_supported => return Ok(()),
        None => "the answer does not say who sent it, although the provider promises that".into(),
    };
    Err(Error::new(ErrorKind::Verification, WHAT).because_of(wrong))
}
