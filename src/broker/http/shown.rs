//! The token by which somebody shows who they are, and what is answered where it does not.

use axum::http::header::AUTHORIZATION;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};

use super::refusal::{Refusal, schemes};
use crate::broker::Broker;
use crate::broker::authenticate::said;
use crate::broker::operate::Credentials;
use crate::broker::proof::{self, Fault, Place};
use crate::dpop;
use crate::error::Error;
use crate::secret::Secret;
use crate::wire::refusal::{INVALID_DPOP_PROOF, INVALID_TOKEN, USE_DPOP_NONCE};

/// A token in the header `Authorization`.
#[derive(Debug)]
pub(super) struct Token {
    secret: Secret<String>,
    /// Whether it is shown as one that is bound to a key.
    is_bound: bool,
}

impl Token {
    /// The token of a request.
    pub(super) fn read(headers: &HeaderMap) -> Result<Self, &'static str> {
        match first(headers) {
            Some((scheme, token)) if scheme.eq_ignore_ascii_case(dpop::SCHEME) => {
                let one = headers.get_all(AUTHORIZATION).iter().count() == 1;
                let token = token.trim();
                match one && !token.is_empty() {
                    true => Ok(Self { secret: Secret::new(token.to_string()), is_bound: true }),
                    false => Err("a request needs one header 'Authorization: DPoP'"),
                }
            }
            _ => bearer(headers).map(|secret| Self { secret, is_bound: false }),
        }
    }

    /// The same, with the proof that goes with it. `at` are the method, and the path below
    /// that of the broker's issuer, that it is for.
    pub(super) fn credentials<'a>(
        &'a self,
        headers: &'a HeaderMap,
        at: (&'a str, &'a str),
    ) -> Result<Credentials<'a>, proof::Refused> {
        match self.is_bound {
            true => Ok(Credentials::Bound(&self.secret, proof::header(headers)?, at)),
            false => Ok(Credentials::Bearer(&self.secret)),
        }
    }
}

/// The scheme of the first header `Authorization`, and what is behind it.
fn first(headers: &HeaderMap) -> Option<(&str, &str)> {
    headers.get(AUTHORIZATION)?.to_str().ok()?.split_once(' ')
}

/// The token by which the caller proves who they are (RFC 6750 section 2.1).
pub(super) fn bearer(headers: &HeaderMap) -> Result<Secret<String>, &'static str> {
    let mut given = headers.get_all(AUTHORIZATION).iter();
    let (Some(one), None) = (given.next(), given.next()) else {
        return Err("a request needs one header 'Authorization: Bearer'");
    };
    let token = one.to_str().ok().and_then(|text| {
        let (scheme, token) = text.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
    });
    match token {
        Some(token) if !token.is_empty() => Ok(Secret::new(token.to_string())),
        _ => Err("the header 'Authorization' has no bearer token"),
    }
}

/// What is answered to who has not shown who they are.
pub(super) struct Challenge {
    /// What is wrong.
    pub(super) refusal: Refusal,
    /// What goes with it.
    pub(super) headers: HeaderMap,
}

impl Challenge {
    /// There was no token, or none that can be read.
    pub(super) fn absent(why: &str) -> Self {
        Self::new(why, None, (None, None), None)
    }

    /// The token of this request is not good, by whichever scheme it was shown.
    pub(super) fn token(headers: &HeaderMap, error: &Error) -> Self {
        let code = Some(INVALID_TOKEN);
        let is_bound =
            first(headers).is_some_and(|(scheme, _)| scheme.eq_ignore_ascii_case(dpop::SCHEME));
        let at = if is_bound { (None, code) } else { (code, None) };
        Self::new(&said(error), code, at, None)
    }

    /// The proof is not good, which is counted.
    pub(super) fn proof(broker: &Broker, refused: &proof::Refused) -> Self {
        broker.metrics.proof_rejected(refused.fault);
        // RFC 9449 section 11.3: who was given one may not do without.
        let proofs = &broker.proofs;
        let wanted = proofs.wants_nonces() || refused.fault == Fault::Nonce;
        let nonce = wanted.then(|| proofs.nonces().give(Place::Token, broker.clock.now()));
        let code = match refused.fault {
            Fault::Nonce => USE_DPOP_NONCE,
            _ => INVALID_DPOP_PROOF,
        };
        Self::new(&said(&refused.error), Some(code), (None, Some(code)), nonce)
    }

    /// What would be accepted (RFC 6750 section 3, RFC 9449 section 7.1), and what is wrong with
    /// a bearer token, or with a bound one, where there was a token at all.
    fn new(
        why: &str,
        code: Option<&'static str>,
        (of_bearer, of_bound): (Option<&str>, Option<&str>),
        nonce: Option<String>,
    ) -> Self {
        let refusal = Refusal::new(StatusCode::UNAUTHORIZED, code.unwrap_or("unauthorized"), why);
        let refusal = refusal.challenging(schemes(of_bearer, of_bound));
        let mut headers = HeaderMap::new();
        if let Some(Ok(nonce)) = nonce.map(|nonce| HeaderValue::from_str(&nonce)) {
            headers.insert(HeaderName::from_static(dpop::NONCE_HEADER), nonce);
        }
        Self { refusal, headers }
    }
}
