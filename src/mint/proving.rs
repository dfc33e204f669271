//! Requests to a broker with a proof of this device's key (RFC 9449), where there is one to
//! prove.

use reqwest::header::{HeaderName, HeaderValue};

use super::nonces;
use crate::credential::Assertion;
use crate::dpop::{self, Bound, DeviceKey, Signing, Target};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::clock::SKEW_NOISE;
use crate::host::http::{HttpClient, Request, Response};
use crate::oidc::{Issuer, jwt};
use crate::secret::Secret;
use crate::wire::{TokenRefusal, refusal};

/// How often a request with a proof is sent, where the answers say what to put in it.
const PROOFS: usize = 3;

/// What is proved.
#[derive(Clone, Copy)]
pub(crate) struct Proving<'a> {
    /// The key.
    pub(crate) key: &'a DeviceKey,
    /// The token that the request shows, where it is bound to that key.
    pub(crate) token: Option<&'a Secret<String>>,
}

/// Whether an assertion is good only together with a proof by this key.
pub(crate) fn is_bound_to(assertion: &Assertion, key: &DeviceKey) -> bool {
    let claims = jwt::decode_unverified(assertion.token.expose()).map(|token| token.claims);
    claims.is_ok_and(|claims| Bound::of(&claims) == Bound::To(key.thumbprint().to_string()))
}

/// Sends a request to the server at `address`, with a proof of the key where there is one.
/// Where the server wants another nonce in it, it is asked once more with that; and once more
/// with its time, where it refused a proof and this machine's clock turned out to be off.
///
/// # Errors
/// As [`HttpClient::send`] has them.
pub(crate) async fn send(
    host: &Host,
    http: &HttpClient,
    address: &Issuer,
    request: impl Fn() -> Request,
    proving: Option<Proving<'_>>,
) -> Result<Response> {
    let Some(proving) = proving else { return http.send(request()).await };
    let mut nonce = nonces::newest(host, address);
    let (mut answered_nonce, mut answered_time) = (false, false);
    for _ in 1..PROOFS {
        let by_clock = host.corrected_now() - host.clock.now();
        let response = http.send(proved(host, request(), proving, nonce.as_deref())?).await?;
        let given = nonce_of(&response);
        if let Some(given) = &given {
            nonces::keep(host, address, given);
        }
        let moved = host.corrected_now() - host.clock.now() - by_clock;
        if !answered_nonce && given.is_some() && refuses(&response, refusal::USE_DPOP_NONCE) {
            answered_nonce = true;
        } else if !answered_time
            && moved.abs() > SKEW_NOISE
            && refuses(&response, refusal::INVALID_DPOP_PROOF)
        {
            answered_time = true;
        } else {
            return Ok(response);
        }
        nonce = given.or(nonce);
    }
    let response = http.send(proved(host, request(), proving, nonce.as_deref())?).await?;
    if let Some(given) = nonce_of(&response) {
        nonces::keep(host, address, &given);
    }
    Ok(response)
}

/// The request with a proof, which is for its address and nobody else's.
fn proved(
    host: &Host,
    mut request: Request,
    proving: Proving<'_>,
    nonce: Option<&str>,
) -> Result<Request> {
    let unusable = || Error::new(ErrorKind::Other, "a DPoP proof cannot be made");
    let target = Target::of(&request.url).ok_or_else(unusable)?;
    let Proving { key, token } = proving;
    let signing = Signing { method: request.method.as_str(), target: &target, token, nonce };
    let proof = key.sign(signing, host.corrected_now())?;
    let mut proof = HeaderValue::from_str(proof.expose()).map_err(|_| unusable())?;
    proof.set_sensitive(true);
    request.headers.insert(HeaderName::from_static(dpop::HEADER), proof);
    Ok(request)
}

fn nonce_of(response: &Response) -> Option<String> {
    let nonce = response.headers.get(dpop::NONCE_HEADER)?.to_str().ok()?;
    dpop::is_nonce(nonce).then(|| nonce.to_string())
}

fn refuses(response: &Response, why: &str) -> bool {
    let refusal = || response.json::<TokenRefusal>("the answer of the broker").ok();
    response.status.is_client_error() && refusal().is_some_and(|refusal| refusal.error == why)
}
