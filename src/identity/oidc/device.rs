//! The device flow: a code to type in a browser on any device (RFC 8628).

use std::future::Future;
use std::time::{Duration, Instant};

use oauth2::{
    DeviceAuthorizationUrl, EmptyExtraDeviceAuthorizationFields, EndpointNotSet, EndpointSet,
    Scope, StandardDeviceAuthorizationResponse,
};

use super::super::login::{self, LOGIN_LIMIT};
use super::audiences::{first, without_refused};
use super::provider::{Client, Provider};
use super::session::Session;
use super::tokens::TokenAnswer;
use super::transport::{Endpoint, Failure, Refusal, Transport};
use crate::error::Result;
use crate::host::interact::DevicePrompt;

/// What failed, wherever it does.
const WHAT: &str = "the login did not succeed";

/// The longest wait between two requests while the provider does not answer.
const BACKOFF_MAX: Duration = Duration::from_secs(60);

type DeviceClient = Client<EndpointNotSet, EndpointSet, EndpointSet>;

/// Logs in with a code. A provider that refuses the audiences is asked again
/// without. `sleep` is handed in so that tests need not wait.
pub(super) async fn log_in<S, F>(
    provider: &Provider<'_>,
    audiences: &[String],
    sleep: S,
) -> Result<Session>
where
    S: Fn(Duration) -> F,
    F: Future<Output = ()>,
{
    let client = client(provider)?;
    tracing::debug!("logging in with a code");
    let mut audiences = audiences.to_vec();
    let mut refused = Vec::new();
    loop {
        match attempt(provider, &client, &audiences, &sleep).await {
            Ok(answer) => {
                return provider
                    .establish(&answer, None, &audiences, &refused)
                    .await
                    .map_err(|error| error.context(WHAT));
            }
            Err(failure) if failure.is("invalid_target") && !audiences.is_empty() => {
                (audiences, refused) = without_refused(audiences, refused);
                provider.host.interact.note(
                    "the identity provider does not know the audience; asking again without it",
                );
            }
            Err(failure) if failure.is("expired_token") => return Err(login::too_late()),
            Err(failure) => return Err(failure.error(WHAT)),
        }
    }
}

fn client(provider: &Provider<'_>) -> Result<DeviceClient> {
    let endpoint = provider.discovery.device_authorization_endpoint.clone().ok_or_else(|| {
        provider.lacks("device flow").hint("use the browser flow: `flow = \"browser\"`")
    })?;
    Ok(provider.client()?.set_device_authorization_url(DeviceAuthorizationUrl::from_url(endpoint)))
}

async fn attempt<S, F>(
    provider: &Provider<'_>,
    client: &DeviceClient,
    audiences: &[String],
    sleep: &S,
) -> Result<TokenAnswer, Failure>
where
    S: Fn(Duration) -> F,
    F: Future<Output = ()>,
{
    // Before the provider's own clock for the code can have begun.
    let asked = Instant::now();
    let codes = ask_for_codes(provider, client, audiences).await?;
    let limit = codes.expires_in().min(LOGIN_LIMIT);
    let prompt = prompt(&codes, limit).map_err(Failure::Failed)?;
    provider.host.interact.device_code(&prompt);
    let _waiting = provider.host.interact.waiting("waiting for the login on another device");
    let transport = provider.transport(Endpoint::Poll);
    let polling = poll(provider, client, &codes, audiences, &transport, sleep);
    let expired = || Failure::Refused(Refusal { code: "expired_token".into(), words: None });
    match tokio::time::timeout(limit, polling).await {
        // To some providers a code whose time is up is one that they do not know.
        Ok(Err(failure))
            if failure.is("invalid_grant") && asked.elapsed() >= codes.expires_in() =>
        {
            Err(expired())
        }
        Ok(ended) => ended,
        Err(_) => Err(transport.passing().map_or_else(expired, Failure::Failed)),
    }
}

async fn ask_for_codes(
    provider: &Provider<'_>,
    client: &DeviceClient,
    audiences: &[String],
) -> Result<StandardDeviceAuthorizationResponse, Failure> {
    let mut request = client
        .exchange_device_code()
        .add_scopes(provider.settings.all_scopes().into_iter().map(Scope::new));
    for (name, value) in provider.audience_parameters(audiences) {
        request = request.add_extra_param(name, value);
    }
    for (name, value) in provider.wanted() {
        request = request.add_extra_param(name, value);
    }
    let transport = provider.transport(Endpoint::Device);
    request
        .request_async::<_, EmptyExtraDeviceAuthorizationFields>(&transport)
        .await
        .map_err(|error| Failure::of(error, &transport))
}

/// What is shown to the person.
fn prompt(
    codes: &StandardDeviceAuthorizationResponse,
    limit: Duration,
) -> Result<DevicePrompt> {
    let uri = codes.verification_uri().url().clone();
    let complete = codes.verification_uri_complete().map(|url| url.secret().as_str());
    login::device_prompt(codes.user_code().secret(), uri, complete, limit)
        .map_err(|error| error.context(WHAT))
}

/// Asks for the tokens until the person has logged in. The crate knows how:
/// `slow_down`, patience with a server that does not answer.
async fn poll<S, F>(
    provider: &Provider<'_>,
    client: &DeviceClient,
    codes: &StandardDeviceAuthorizationResponse,
    audiences: &[String],
    transport: &Transport<'_>,
    sleep: &S,
) -> Result<TokenAnswer, Failure>
where
    S: Fn(Duration) -> F,
    F: Future<Output = ()>,
{
    // Nobody is that quick, and some providers count it as polling too often.
    sleep(codes.interval()).await;
    let mut request =
        client.exchange_device_access_token(codes).set_max_backoff_interval(BACKOFF_MAX);
    for (name, value) in provider.audience_parameters(first(audiences)) {
        request = request.add_extra_param(name, value);
    }
    // The crate reads the system's clock, which may be set while we wait; the
    // limit is kept by the caller.
    let never = Some(Duration::from_secs(24 * 3600));
    request
        .request_async(transport, sleep, never)
        .await
        .map_err(|error| Failure::of(error, transport))
}
