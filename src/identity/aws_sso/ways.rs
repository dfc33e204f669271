//! The two ways to log in.

use std::future::Future;
use std::time::Duration;

use oauth2::{CsrfToken, PkceCodeChallenge};
use url::Url;

use super::Settings;
use crate::aws::sso::Failure;
use crate::aws::sso::oidc::{DeviceCodes, Grant, Oidc, Registration, Tokens};
use crate::error::{Error, ErrorKind, foreign};
use crate::host::Host;
use crate::identity::login::{
    self, Answer, Callback, LOGIN_LIMIT, Listener, Redirect, RedirectHost,
};
use crate::secret::Secret;

/// What failed, wherever it does.
pub(super) const WHAT: &str = "the login did not succeed";

/// Where the browser comes back to, as it is registered: any port will do.
pub(super) const REDIRECT: &str = "http://127.0.0.1/oauth/callback";
const PATH: &str = "/oauth/callback";

/// How often to ask where AWS does not say, and how much longer to wait when it
/// asks for patience (RFC 8628 section 3.5).
const INTERVAL: Duration = Duration::from_secs(5);
/// The longest wait between two requests.
const INTERVAL_MAX: Duration = Duration::from_secs(60);

/// Logs in through the browser: authorization code with PKCE.
pub(super) async fn with_browser(
    host: &Host,
    oidc: &Oidc<'_>,
    settings: &Settings,
    client: &Registration,
) -> Result<Tokens, Failure> {
    let redirect = Redirect { host: RedirectHost::V4, ports: &[], path: PATH };
    let mut listener = Listener::open(host, redirect)?;
    let (challenge, verifier) = PkceCodeChallenge::new_random_sha256();
    let verifier = Secret::new(verifier.into_secret());
    let state = Secret::new(CsrfToken::new_random_len(32).into_secret());
    let redirect = listener.redirect_uri().clone();
    let page = oidc.authorize_url(
        &client.client_id,
        &redirect,
        state.expose(),
        challenge.as_str(),
        &settings.scopes,
    )?;
    login::show(host, &listener, &page)?;
    let _waiting = host.interact.waiting("waiting for the login in the browser");
    let callback = tokio::time::timeout(LOGIN_LIMIT, listener.callback(&state)).await;
    let Ok(callback) = callback else { return Err(login::too_late().into()) };
    let mut callback = callback?;
    let tokens = trade(oidc, client, &redirect, &verifier, &mut callback).await;
    callback.answer(if tokens.is_ok() { Answer::Done } else { Answer::Failed }).await;
    tokens
}

/// Makes tokens of what the browser brought back.
async fn trade(
    oidc: &Oidc<'_>,
    client: &Registration,
    redirect: &Url,
    verifier: &Secret<String>,
    callback: &mut Callback,
) -> Result<Tokens, Failure> {
    if let Some(code) = callback.error.take() {
        let error = Error::new(ErrorKind::Denied, "IAM Identity Center refused the login");
        let words = callback.error_description.take().filter(|words| !words.is_empty());
        return Err(Failure::Failed(error.because_of(match words {
            Some(words) => format!("it says: {} ({})", foreign(&words), foreign(&code)),
            None => format!("it says: {}", foreign(&code)),
        })));
    }
    let Some(code) = callback.code.take().filter(|code| !code.expose().is_empty()) else {
        let error = Error::new(ErrorKind::Verification, "the browser came back with nothing");
        return Err(Failure::Failed(error.because_of("there is neither a code nor an error")));
    };
    oidc.create_token(client, &Grant::Code { code: &code, redirect, verifier }).await
}

/// Logs in with a code to type (RFC 8628). `sleep` is handed in so that tests need
/// not wait.
pub(super) async fn with_device<S, F>(
    host: &Host,
    oidc: &Oidc<'_>,
    settings: &Settings,
    client: &Registration,
    sleep: S,
) -> Result<Tokens, Failure>
where
    S: Fn(Duration) -> F,
    F: Future<Output = ()>,
{
    let codes = oidc.start_device(client, &settings.start_url).await?;
    let limit = codes.good_for().min(LOGIN_LIMIT);
    let uri = Url::parse(&codes.verification_uri).map_err(|cause| {
        Error::new(ErrorKind::Verification, "the page for the code cannot be used").because(cause)
    })?;
    let complete = codes.verification_uri_complete.as_deref();
    let prompt = login::device_prompt(&codes.user_code, uri, complete, limit)?;
    host.interact.device_code(&prompt);
    let _waiting = host.interact.waiting("waiting for the login on another device");
    match tokio::time::timeout(limit, poll(oidc, client, &codes, sleep)).await {
        Ok(ended) => ended,
        Err(_) => Err(login::too_late().into()),
    }
}

/// Asks until the person has logged in, and patiently where AWS does not answer. (The
/// `oauth2` crate knows how, but only for answers in the form of OAuth.)
async fn poll<S, F>(
    oidc: &Oidc<'_>,
    client: &Registration,
    codes: &DeviceCodes,
    sleep: S,
) -> Result<Tokens, Failure>
where
    S: Fn(Duration) -> F,
    F: Future<Output = ()>,
{
    let said = codes.interval.map(Duration::from_secs).unwrap_or(INTERVAL);
    let mut interval = said.clamp(Duration::from_secs(1), INTERVAL_MAX);
    loop {
        sleep(interval).await;
        match oidc.create_token(client, &Grant::Device(&codes.device_code)).await {
            Err(failure) if failure.is("authorization_pending") => {}
            Err(failure) if failure.is("slow_down") => {
                interval = (interval + INTERVAL).min(INTERVAL_MAX);
            }
            Err(failure) if failure.may_pass() => {
                interval = (interval * 2).min(INTERVAL_MAX);
            }
            ended => return ended,
        }
    }
}
