//! JSON for an HTTP server, signed as Standard Webhooks says: an HMAC over the id of what is
//! sent, its time and its body.

use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;
use url::Url;
use zeroize::Zeroizing;

use super::private_text::{self, Place};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::host::http::Request;
use crate::secret::Secret;

/// What a secret of that standard may begin with.
const PREFIX: &str = "whsec_";

/// How long it has to be, in bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// Signs what is sent.
pub(super) struct Signer {
    place: Place,
    env: Env,
}

impl Signer {
    /// By the secret that is there.
    ///
    /// # Errors
    /// Where there is none that can sign.
    pub(super) fn new(place: Place, env: &Env) -> Result<Self> {
        let signer = Self { place, env: env.clone() };
        signer.key().map(|_| signer)
    }

    /// What signs. It is read anew each time, so that it can be changed.
    fn key(&self) -> Result<hmac::Key> {
        let text = private_text::read(&self.place, "secret", &self.env)?;
        let text = text.expose();
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text)).map(Zeroizing::new);
        match bytes {
            Ok(bytes) if LENGTH.contains(&bytes.len()) => {
                Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
            }
            _ => Err(Error::new(ErrorKind::Config, "the secret is none that can sign")
                .because_of("it has to be Base64 of 24 to 64 bytes")
                .hint("such as `openssl rand -base64 32` makes")),
        }
    }

    /// A request that brings this, signed. The receiver knows by the id what it has already.
    pub(super) fn request(
        &self,
        url: &Url,
        id: &str,
        body: String,
        now: OffsetDateTime,
    ) -> Result<Request> {
        let at = now.unix_timestamp().to_string();
        let mut context = hmac::Context::with_key(&self.key()?);
        for part in [id.as_bytes(), b".", at.as_bytes(), b".", body.as_bytes()] {
            context.update(part);
        }
        let signature = format!("v1,{}", STANDARD.encode(context.sign()));
        let mut request = json_request(url, body);
        for (name, value) in
            [("webhook-id", id), ("webhook-timestamp", &at), ("webhook-signature", &signature)]
        {
            let value = HeaderValue::from_str(value).map_err(|cause| {
                Error::new(ErrorKind::Other, "the delivery cannot be described").because(cause)
            })?;
            request.headers.insert(HeaderName::from_static(name), value);
        }
        Ok(request)
    }
}

/// A request that brings this, as it is.
pub(super) fn json_request(url: &Url, body: String) -> Request {
    let mut headers = HeaderMap::new();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    let body = Secret::new(body.into_bytes());
    Request { method: Method::POST, url: url.clone(), headers, body }
}
