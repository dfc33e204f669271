//! Token exchange at a broker (RFC 8693): one request, for the target and for
//! the steps before it.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use serde::Deserialize;
use serde_json::Value;
use time::OffsetDateTime;
use uuid::Uuid;

use super::broker::Server;
use super::elevation;
use super::proving::{self, Proving, is_bound_to};
use super::said::{check_version, with_refusal_of, words};
use crate::credential::{Assertion, Lifetime, TokenType};
use crate::dpop::{self, Bound, DeviceKey};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::http::{self, Response};
use crate::oidc::Issuer;
use crate::oidc::jwt::{self, NOT_ACCEPTABLE};
use crate::reach::{Effort, Failure};
use crate::secret::Secret;
use crate::wire::{
    GRANT_TYPE, TOKEN_PATH, TokenGrant, TokenRefusal, TokenRequest, VERSION, VERSION_HEADER,
    refusal,
};

/// What is asked of the broker.
pub(super) struct Ask<'a> {
    pub(super) role: &'a str,
    pub(super) scope: &'a [String],
    pub(super) audience: &'a str,
    pub(super) ttl: Option<Duration>,
    /// The grant, where it is to be under one in particular.
    pub(super) elevation: Option<Uuid>,
}

/// What the broker granted, checked against what was asked.
#[derive(Debug)]
pub(super) struct Granted {
    pub(super) token: Secret<String>,
    pub(super) token_type: TokenType,
    pub(super) scope: Vec<String>,
    pub(super) lifetime: Lifetime,
    /// When the grant ends under which it was issued.
    pub(super) grant_ends: Option<OffsetDateTime>,
    /// The thumbprint of the key that it is bound to.
    pub(super) bound_to: Option<String>,
}

/// Asks a broker to trade an assertion for a token. With `key`, where its tokens are to be
/// bound, or the assertion is bound to that key, the token is bound to it too.
///
/// # Errors
/// [`ErrorKind::Denied`] where policy says no, [`ErrorKind::ApprovalPending`] where a grant for
/// it was asked for and has not begun, [`ErrorKind::Verification`] where
/// the broker does not accept the assertion or its answer is not what was asked
/// for, [`ErrorKind::Unreachable`] where it cannot serve at present.
pub(super) async fn exchange(
    host: &Host,
    server: &Server,
    assertion: &Assertion,
    ask: &Ask<'_>,
    key: Option<&DeviceKey>,
    effort: Effort,
) -> Result<Granted> {
    let context = || {
        format!("the broker {} gives no credential for the role '{}'", server.issuer(), ask.role)
    };
    let form = form(assertion, ask).map_err(|error| error.context(context()))?;
    let http = host.http(server.ca_file.as_deref()).map_err(|error| error.context(context()))?;
    let http = http.telling_trace();
    let key = key.filter(|key| server.dpop || is_bound_to(assertion, key));
    let attempt = async |address: &Issuer| {
        let proving = key.map(|key| Proving { key, token: None });
        let request = || request(address, &form);
        let response = proving::send(host, &http, address, request, proving).await?;
        if let Some(outage) = response.outage("the broker") {
            let outage = with_refusal_of(&response, outage);
            return Err(Failure::of(outage, &response, host.corrected_now()));
        }
        check_version(&response)?;
        if !response.status.is_success() {
            let refusal = refused(&response, (server, address), ask.role, assertion, key.is_some());
            return Err(Failure::of(refusal, &response, host.corrected_now()));
        }
        Ok(read(&response, ask, key, host)?)
    };
    let until = Some(assertion.expires_at);
    let granted = server.ask(host, effort, until, attempt).await;
    host.tell_skew();
    granted.map_err(|error| error.context(context()))
}

fn form(assertion: &Assertion, ask: &Ask<'_>) -> Result<Secret<Vec<u8>>> {
    if assertion.token_type == TokenType::AwsAccessKeys {
        return Err(Error::new(ErrorKind::Config, "the identity has no token to show to a broker"));
    }
    let form = TokenRequest {
        grant_type: GRANT_TYPE,
        subject_token: assertion.token.expose(),
        subject_token_type: assertion.token_type.urn(),
        audience: ask.audience,
        scope: (!ask.scope.is_empty()).then(|| ask.scope.join(" ")),
        role: ask.role,
        requested_ttl: ask.ttl.map(|ttl| ttl.as_secs()),
        elevation: ask.elevation.map(|id| id.to_string()),
        // Whichever of the broker's addresses is asked, and however often.
        idempotency_key: Uuid::new_v4().to_string(),
    };
    let form = serde_urlencoded::to_string(&form).map_err(|cause| {
        Error::new(ErrorKind::Other, "the request cannot be written down").because(cause)
    })?;
    Ok(Secret::new(form.into_bytes()))
}

fn request(address: &Issuer, form: &Secret<Vec<u8>>) -> http::Request {
    let headers = HeaderMap::from_iter([
        (CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded")),
        (ACCEPT, HeaderValue::from_static("application/json")),
        (HeaderName::from_static(VERSION_HEADER), HeaderValue::from(VERSION)),
    ]);
    let body = Secret::new(form.expose().clone());
    http::Request { method: Method::POST, url: address.join(TOKEN_PATH), headers, body }
}

/// What the broker says instead of granting (RFC 6749 section 5.2).
fn refused(
    response: &Response,
    (server, address): (&Server, &Issuer),
    role: &str,
    assertion: &Assertion,
    proved: bool,
) -> Error {
    let status = response.status.as_u16();
    let refusal = match response.json::<TokenRefusal>("the answer of the broker") {
        Ok(refusal) => refusal,
        Err(error) => {
            return error
                .because_of(format!("the status is {status}"))
                .hint(format!("check that there is a tmpcred broker at {address}"));
        }
    };
    let later = response.header(RETRY_AFTER).and_then(|seconds| seconds.parse::<u32>().ok());
    let (kind, what) = match refusal.error.as_str() {
        "access_denied" if later.is_some() => (ErrorKind::Denied, "it is denied".to_string()),
        "access_denied" | "unauthorized" | "unauthorized_client" => {
            (ErrorKind::Denied, "policy says no".to_string())
        }
        refusal::ELEVATION_REQUIRED => {
            (ErrorKind::Denied, "nobody has it without a grant".to_string())
        }
        refusal::ELEVATION_PENDING => {
            (ErrorKind::ApprovalPending, "what was asked for has not begun".to_string())
        }
        "invalid_scope" => (ErrorKind::Denied, "the scope cannot be had".to_string()),
        "invalid_target" => (ErrorKind::Denied, "the audience cannot be had".to_string()),
        "invalid_grant" | "invalid_token" => {
            (ErrorKind::Verification, "the broker does not accept the assertion".to_string())
        }
        refusal::INVALID_DPOP_PROOF | refusal::USE_DPOP_NONCE => (
            ErrorKind::Verification,
            "the broker does not accept the proof of this device's key".to_string(),
        ),
        // RFC 8693 section 2.2.2 has this code for a bad assertion too.
        "invalid_request" => (
            ErrorKind::Verification,
            match about_assertion(&refusal) {
                true => "the broker does not accept the assertion".to_string(),
                false => "the broker does not accept the request".to_string(),
            },
        ),
        "unsupported_grant_type" => {
            (ErrorKind::Verification, "the server there is no tmpcred broker".to_string())
        }
        "temporarily_unavailable" | "server_error" => {
            (ErrorKind::Unreachable, "the broker cannot serve at the moment".to_string())
        }
        other => (ErrorKind::Other, format!("the broker refused: {}", foreign(other))),
    };
    let error = elevation::hinted(words(Error::new(kind, what), &refusal), &refusal);
    match kind {
        _ if refusal.error == refusal::ELEVATION_REQUIRED => elevation::asked_for(error, role),
        ErrorKind::Verification if refusal.error == refusal::INVALID_DPOP_PROOF && !proved => error.hint(
            "where the role wants a token that is bound to a key, say `dpop = true` in the broker's table",
        ),
        ErrorKind::Verification if about_assertion(&refusal) => error.hint(format!(
            "the broker has to trust the issuer {} and to expect the audience {}, or the client's own name in an ID token",
            assertion.principal.issuer,
            server.audience()
        )),
        ErrorKind::Denied => {
            let again = later.map(|seconds| format!("it asks to be tried again in {seconds} seconds"));
            let error = again.into_iter().fold(error, Error::hint);
            error.hint("ask those who write the broker's policy, and name the request")
        }
        _ => error,
    }
}

/// Whether it is the assertion that was refused, and not the rest of the request: one
/// code stands for both.
fn about_assertion(refusal: &TokenRefusal) -> bool {
    matches!(refusal.error.as_str(), "invalid_grant" | "invalid_token")
        || refusal.error_description.starts_with(NOT_ACCEPTABLE)
}

/// The token itself, which nothing but a secret may hold.
#[derive(Deserialize)]
struct Token {
    access_token: Secret<String>,
}

#[derive(Deserialize)]
struct Expiry {
    #[serde(default)]
    expires_in: Option<serde::de::IgnoredAny>,
}

fn read(
    response: &Response,
    ask: &Ask<'_>,
    key: Option<&DeviceKey>,
    host: &Host,
) -> Result<Granted> {
    const WHAT: &str = "the answer of the broker";
    let wrong = |why: String| {
        Error::new(ErrorKind::Verification, format!("{WHAT} is not what was asked for"))
            .because_of(why)
    };
    if response.json::<Expiry>(WHAT)?.expires_in.is_none() {
        return Err(wrong("it does not say when the credential ends".into()));
    }
    let grant: TokenGrant = response.json(WHAT)?;
    let Token { access_token: token } = response.json(WHAT)?;
    let wanted = if key.is_some() { dpop::SCHEME } else { "Bearer" };
    if !grant.token_type.eq_ignore_ascii_case(wanted) {
        return Err(wrong(format!(
            "the token is a '{}' token, not a '{wanted}' token",
            foreign(&grant.token_type)
        )));
    }
    // A token that can be read has to say the same.
    let claims = jwt::decode_unverified(token.expose()).map(|read| read.claims);
    if let (Some(key), Ok(claims)) = (key, &claims)
        && Bound::of(claims) != Bound::To(key.thumbprint().to_string())
    {
        return Err(wrong("the token is not bound to the key of this device".into()));
    }
    // It goes into headers and variables as it is (RFC 6750 section 2.1).
    if token.expose().is_empty() || !token.expose().bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(wrong("the token is empty or has characters that no token has".into()));
    }
    let token_type = TokenType::from_urn(&grant.issued_token_type).ok_or_else(|| {
        wrong(format!("the token is of the type '{}'", foreign(&grant.issued_token_type)))
    })?;
    if grant.role != ask.role {
        return Err(wrong(format!("it is for the role '{}'", foreign(&grant.role))));
    }
    // RFC 6749 section 5.1: one that is not told is the one that was asked for.
    let scope: Vec<String> = match &grant.scope {
        Some(scope) => scope.split_whitespace().map(String::from).collect(),
        None => ask.scope.to_vec(),
    };
    if !ask.scope.is_empty()
        && let Some(more) = scope.iter().find(|s| !ask.scope.contains(s))
    {
        return Err(wrong(format!("it has the scope '{}' besides", foreign(more))));
    }
    if let Some(ttl) = ask.ttl
        && grant.expires_in > ttl.as_secs()
    {
        return Err(wrong(format!(
            "it lasts for {} seconds instead of {}",
            grant.expires_in,
            ttl.as_secs()
        )));
    }
    let ttl = i64::try_from(grant.expires_in).ok().filter(|seconds| *seconds > 0);
    let now = host.corrected_now();
    let expires_at = ttl.and_then(|seconds| now.checked_add(time::Duration::seconds(seconds)));
    let Some(expires_at) = expires_at else {
        return Err(wrong(format!("it ends in {} seconds", grant.expires_in)));
    };
    let is_opaque = claims.is_err();
    let under = claims.ok().and_then(|mut claims| claims.remove("elevation"));
    let other = |told: &Value, id: Uuid| told.get("id").is_none_or(|it| *it != id.to_string());
    if let (Some(told), Some(id)) = (&under, ask.elevation)
        && other(told, id)
    {
        return Err(wrong("it is under another grant".into()));
    }
    let is_told = under.is_some() || is_opaque && grant.elevation_expires_in.is_some();
    if ask.elevation.is_some() && !is_told {
        return Err(wrong("it is under no grant".into()));
    }
    let told = grant.elevation_expires_in.and_then(|seconds| i64::try_from(seconds).ok());
    let told = told.and_then(|seconds| now.checked_add(time::Duration::seconds(seconds)));
    // A broker that does not say when the grant ends ends the token with it, or before.
    let grant_ends = told.or(under.map(|_| expires_at));
    let lifetime = Lifetime::new(now, expires_at, host.skew.get(), host.clock.machine_started());
    let bound_to = key.map(|key| key.thumbprint().to_string());
    Ok(Granted { token, token_type, scope, lifetime, grant_ends, bound_to })
}

#[cfg(test)]
mod fuzz;
