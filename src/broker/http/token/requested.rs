//! What a request for a token asks for (RFC 8693 section 2.1).

use std::collections::BTreeSet;
use std::time::Duration;

use url::Url;
use uuid::Uuid;

use crate::broker::config;
use crate::broker::http::form::Form;
use crate::broker::http::refusal::Refusal;
use crate::credential::TokenType;
use crate::wire::{GRANT_TYPE, refusal};

/// How many scopes may be asked for.
const MAX_SCOPES: usize = 100;

/// How long the key may be by which a client tells that it asks again.
const MAX_IDEMPOTENCY_KEY: usize = 128;

/// What a request asks for, once it is well-formed.
pub(in crate::broker::http) struct Requested {
    pub(in crate::broker::http) role: String,
    pub(in crate::broker::http) audience: String,
    pub(in crate::broker::http) scope: Option<BTreeSet<String>>,
    pub(in crate::broker::http) ttl: Option<Duration>,
    pub(super) elevation: Option<Uuid>,
    pub(super) idempotency_key: Option<String>,
    pub(super) token_type: TokenType,
}

impl Requested {
    pub(in crate::broker::http) fn read(form: &Form) -> Result<Self, Refusal> {
        if form.required("grant_type")? != GRANT_TYPE {
            return Err(Refusal::bad(
                refusal::UNSUPPORTED_GRANT_TYPE,
                format!("the grant type must be {GRANT_TYPE}"),
            ));
        }
        Ok(Self {
            role: role(form)?,
            audience: audience(form)?,
            scope: scope(form)?,
            ttl: ttl(form)?,
            elevation: elevation(form)?,
            idempotency_key: idempotency_key(form)?,
            token_type: requested_token_type(form)?,
        })
    }
}

/// The grant under which it is asked for.
fn elevation(form: &Form) -> Result<Option<Uuid>, Refusal> {
    let parse = |text: &str| {
        Uuid::try_parse(text).map_err(|_| {
            Refusal::invalid_request("the parameter 'elevation' is not the id of a grant")
        })
    };
    form.optional("elevation").map(parse).transpose()
}

/// A text that the client has made up.
fn idempotency_key(form: &Form) -> Result<Option<String>, Refusal> {
    let Some(key) = form.optional("idempotency_key") else { return Ok(None) };
    if key.len() <= MAX_IDEMPOTENCY_KEY && key.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Ok(Some(key.to_string()));
    }
    Err(Refusal::invalid_request(format!(
        "the parameter 'idempotency_key' must have at most {MAX_IDEMPOTENCY_KEY} letters, digits and signs"
    )))
}

fn role(form: &Form) -> Result<String, Refusal> {
    let role = form.required("role")?;
    if config::is_name(role) {
        Ok(role.to_string())
    } else {
        Err(Refusal::invalid_request("the parameter 'role' is not the name of a role"))
    }
}

/// RFC 8693 section 2.1 knows two parameters for it; a token is for just one audience.
fn audience(form: &Form) -> Result<String, Refusal> {
    let (audience, resource) = (form.optional("audience"), form.optional("resource"));
    if !resource.is_none_or(is_resource) {
        let why = "the parameter 'resource' must be an absolute URI without a fragment";
        return Err(Refusal::bad(refusal::INVALID_TARGET, why));
    }
    let chosen = match (audience, resource) {
        (Some(audience), Some(resource)) if audience != resource => {
            return Err(Refusal::bad(
                refusal::INVALID_TARGET,
                "a token is for one audience: 'audience' and 'resource' differ",
            ));
        }
        (Some(one), _) | (None, Some(one)) => one,
        (None, None) => form.required("audience")?,
    };
    if config::is_audience(chosen) {
        Ok(chosen.to_string())
    } else {
        Err(Refusal::bad(refusal::INVALID_TARGET, "the audience is too long, or not text"))
    }
}

/// Whether this may be a resource indicator (RFC 8707 section 2): what RFC 3986 section 4.3
/// calls an absolute URI, which has no fragment.
fn is_resource(text: &str) -> bool {
    text.split_once(':').is_some_and(|(scheme, _)| !scheme.is_empty())
        && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b'#')
        && Url::parse(text).is_ok()
}

fn scope(form: &Form) -> Result<Option<BTreeSet<String>>, Refusal> {
    let Some(text) = form.optional("scope") else { return Ok(None) };
    let scope: BTreeSet<String> =
        text.split(' ').filter(|s| !s.is_empty()).map(String::from).collect();
    // One of nothing but spaces asks for nothing: whoever meant that must not get all.
    if scope.is_empty()
        || scope.len() > MAX_SCOPES
        || !scope.iter().all(|s| config::is_scope_token(s))
    {
        return Err(Refusal::bad(refusal::INVALID_SCOPE, "the scope is malformed, or too long"));
    }
    Ok(Some(scope))
}

fn ttl(form: &Form) -> Result<Option<Duration>, Refusal> {
    let Some(text) = form.optional("requested_ttl") else { return Ok(None) };
    match text.parse::<u64>() {
        Ok(seconds) if seconds > 0 && text.bytes().all(|b| b.is_ascii_digit()) => {
            Ok(Some(Duration::from_secs(seconds)))
        }
        _ => Err(Refusal::invalid_request(
            "the parameter 'requested_ttl' is not a number of seconds above zero",
        )),
    }
}

fn requested_token_type(form: &Form) -> Result<TokenType, Refusal> {
    let Some(urn) = form.optional("requested_token_type") else {
        return Ok(TokenType::AccessToken);
    };
    match TokenType::from_urn(urn) {
        Some(possible @ (TokenType::AccessToken | TokenType::Jwt)) => Ok(possible),
        _ => Err(Refusal::invalid_request(format!(
            "the parameter 'requested_token_type' must be {} or {}",
            TokenType::AccessToken.urn(),
            TokenType::Jwt.urn()
        ))),
    }
}
