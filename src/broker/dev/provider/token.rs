//! The token endpoint: codes, refresh tokens and device codes become tokens.

use std::collections::BTreeSet;
use std::sync::Arc;

use aws_lc_rs::digest::{SHA256, digest};
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use subtle::ConstantTimeEq;
use time::Duration;
use uuid::Uuid;

use super::Provider;
use super::device::GRANT_TYPE as DEVICE_CODE;
use super::grants::{Grant, Poll};
use crate::broker::http::form::{Form, Posted};
use crate::broker::http::guard::RequestId;
use crate::broker::http::refusal::Refusal;
use crate::broker::issue::joined;
use crate::error::Error;
use crate::secret::Secret;
use crate::wire::refusal;

/// How long access and ID tokens are good.
const TOKEN_LIFE: Duration = Duration::minutes(10);

pub(super) async fn token(
    State(provider): State<Arc<Provider>>,
    id: RequestId,
    posted: Posted,
) -> Response {
    let (form, _) = posted.form();
    let outcome = form.and_then(|form| provider.tokens(&form));
    match outcome {
        Ok(tokens) => {
            let headers = [(CONTENT_TYPE, "application/json"), (CACHE_CONTROL, "no-store")];
            (headers, tokens.expose().clone()).into_response()
        }
        Err(refusal) => refusal.at(id),
    }
}

fn invalid_grant(why: &str) -> Refusal {
    Refusal::bad("invalid_grant", why)
}

fn failed(error: Error) -> Refusal {
    tracing::error!(%error, "the provider failed");
    Refusal::internal()
}

impl Provider {
    /// Checks the client, which is public and so only names itself.
    pub(super) fn check_client(&self, form: &Form) -> Result<(), Refusal> {
        if self.knows_client(form.optional("client_id")) {
            return Ok(());
        }
        let why = "the client is not known here";
        Err(Refusal::new(StatusCode::UNAUTHORIZED, "invalid_client", why))
    }

    fn tokens(&self, form: &Form) -> Result<Secret<String>, Refusal> {
        let grant_type = form.required("grant_type")?;
        self.check_client(form)?;
        let (grant, narrowed) = match grant_type {
            "authorization_code" => (self.by_code(form)?, None),
            "refresh_token" => self.by_refresh_token(form)?,
            DEVICE_CODE => (self.by_device_code(form)?, None),
            _ => {
                let why = "the grant type is not known here";
                return Err(Refusal::bad(refusal::UNSUPPORTED_GRANT_TYPE, why));
            }
        };
        let audience = self.audience(form, &grant)?;
        let scope = narrowed.unwrap_or_else(|| grant.asked.scope.clone());
        self.answer(&grant, &scope, &audience).map_err(failed)
    }

    fn by_code(&self, form: &Form) -> Result<Grant, Refusal> {
        let (code, redirect_uri) = (form.secret("code")?, form.required("redirect_uri")?);
        let verifier = form.secret("code_verifier")?;
        let now = self.now();
        let fits = |wanted: &super::grants::Authorization| {
            let hash = digest(&SHA256, verifier.expose().as_bytes());
            let challenge = URL_SAFE_NO_PAD.encode(hash.as_ref());
            let proved: bool = challenge.as_bytes().ct_eq(wanted.challenge.as_bytes()).into();
            proved && wanted.redirect_uri.as_str() == redirect_uri
        };
        self.grants().redeem(code.expose(), fits, now).ok_or_else(|| {
            invalid_grant("the code is unknown, used or too old, or redirect_uri or code_verifier do not match it")
        })
    }

    fn by_refresh_token(&self, form: &Form) -> Result<(Grant, Option<BTreeSet<String>>), Refusal> {
        let token = form.secret("refresh_token")?;
        let scope = form.optional("scope").map(|scope| Self::scope(Some(scope)));
        let now = self.now();
        let grant = self.grants().rotate(token.expose(), now).ok_or_else(|| {
            invalid_grant("the refresh token is unknown, used, revoked or too old")
        })?;
        if scope.as_ref().is_some_and(|scope| !scope.is_subset(&grant.asked.scope)) {
            let why = "the scope goes beyond what was granted";
            return Err(Refusal::bad(refusal::INVALID_SCOPE, why));
        }
        Ok((grant, scope))
    }

    fn by_device_code(&self, form: &Form) -> Result<Grant, Refusal> {
        let code = form.secret("device_code")?;
        let now = self.now();
        let poll = self.grants().poll(code.expose(), now);
        match poll {
            Some(Poll::Granted(grant)) => Ok(grant),
            Some(Poll::Pending) => Err(Refusal::bad("authorization_pending", "not answered yet")),
            Some(Poll::SlowDown) => {
                Err(Refusal::bad("slow_down", "ask five seconds less often from now on"))
            }
            Some(Poll::Denied) => Err(Refusal::bad(refusal::ACCESS_DENIED, "it was denied")),
            Some(Poll::Expired) => Err(Refusal::bad("expired_token", "the code is too old")),
            None => Err(invalid_grant("the device code is unknown or used")),
        }
    }

    /// Whom the access token is for: the resource that is named, of those that were
    /// granted (RFC 8707 section 2.2); the provider itself where there are none.
    fn audience(&self, form: &Form, grant: &Grant) -> Result<String, Refusal> {
        match form.optional("resource") {
            Some(named) if grant.asked.resources.contains(named) => Ok(named.to_string()),
            Some(_) => {
                let why = "the resource was not asked for in the beginning";
                Err(Refusal::bad(refusal::INVALID_TARGET, why))
            }
            None => Ok(grant
                .asked
                .resources
                .first()
                .cloned()
                .unwrap_or_else(|| self.options.issuer.as_str().to_string())),
        }
    }

    fn answer(
        &self,
        grant: &Grant,
        scope: &BTreeSet<String>,
        audience: &str,
    ) -> Result<Secret<String>, Error> {
        let access = self.access_token(grant, scope, audience)?;
        let mut answer = json!({
            "access_token": access.expose(),
            "token_type": "Bearer",
            "expires_in": TOKEN_LIFE.whole_seconds(),
            "scope": joined(scope),
        });
        if scope.contains("openid") {
            answer["id_token"] = json!(self.id_token(grant, &access)?.expose());
        }
        if grant.asked.scope.contains("offline_access") {
            let now = self.now();
            let refresh = self.grants().refresh_token(grant, now)?;
            answer["refresh_token"] = json!(refresh.expose());
        }
        Ok(Secret::new(answer.to_string()))
    }

    /// RFC 9068.
    fn access_token(
        &self,
        grant: &Grant,
        scope: &BTreeSet<String>,
        audience: &str,
    ) -> Result<Secret<String>, Error> {
        let mut claims = self.claims(grant, audience);
        claims["jti"] = json!(Uuid::new_v4());
        claims["client_id"] = json!(self.options.client_id);
        claims["scope"] = json!(joined(scope));
        self.key.sign("at+jwt", &claims)
    }

    /// OpenID Connect Core section 2.
    fn id_token(&self, grant: &Grant, access: &Secret<String>) -> Result<Secret<String>, Error> {
        let mut claims = self.claims(grant, &self.options.client_id);
        let hash = digest(&SHA256, access.expose().as_bytes());
        let left = hash.as_ref().get(..16).unwrap_or_default();
        claims["at_hash"] = json!(URL_SAFE_NO_PAD.encode(left));
        claims["azp"] = json!(self.options.client_id);
        if let Some(nonce) = &grant.nonce {
            claims["nonce"] = json!(nonce);
        }
        self.key.sign("JWT", &claims)
    }

    fn claims(&self, grant: &Grant, audience: &str) -> Value {
        let now = self.now();
        json!({
            "iss": self.options.issuer.as_str(),
            "sub": grant.person.login,
            "aud": audience,
            "iat": now.unix_timestamp(),
            "exp": (now + TOKEN_LIFE).unix_timestamp(),
            "auth_time": grant.at.unix_timestamp(),
            "name": grant.person.name,
            "preferred_username": grant.person.login,
            "groups": grant.person.groups,
        })
    }
}
