//! HTTP servers that take a message as JSON, whose address may be a secret.

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use time::OffsetDateTime;
use url::Url;

use super::Refused;
use crate::broker::config::NotifyChannel;
use crate::broker::private_text::{self, Place};
use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::env::Env;
use crate::host::http::{HttpClient, Request, require_secure};

/// The longest key that is told as it is: longer ones are told by their hash.
const MAX_KEY: usize = 200;

/// A server.
pub(super) struct Server {
    http: HttpClient,
    address: Address,
    env: Env,
}

/// Where a server is.
enum Address {
    /// Everybody may know.
    Known(Url),
    /// Whoever knows it may write there.
    Secret(Place),
}

impl Server {
    /// The server of this channel; `usual` is where it is when the configuration does not say.
    ///
    /// # Errors
    /// Where its address cannot be had, or must not be used.
    pub(super) fn new(config: &NotifyChannel, usual: Option<&str>, host: &Host) -> Result<Self> {
        let secret = Place::of(config.url_file.as_ref(), config.url_env.as_ref());
        let known = || {
            let usual = || usual.and_then(|usual| Url::parse(usual).ok());
            config.url.clone().or_else(usual)
        };
        let address = match secret {
            Some(place) => Some(Address::Secret(place)),
            None => known().map(Address::Known),
        };
        let address =
            address.ok_or_else(|| Error::new(ErrorKind::Config, "it has no address to send to"))?;
        let ca = trusted_file::read_authorities(config.ca_file.as_ref())?;
        let http = HttpClient::new(host.clock.clone(), host.skew.clone(), ca).telling_trace();
        let server = Self { http, address, env: host.env.clone() };
        server.url().map(|_| server)
    }

    /// Where it is at present.
    fn url(&self) -> Result<Url> {
        let place = match &self.address {
            Address::Known(url) => return Ok(url.clone()),
            Address::Secret(place) => place,
        };
        let text = private_text::read(place, "url", &self.env)?;
        let url = Url::parse(text.expose().trim()).map_err(|_| {
            Error::new(ErrorKind::Config, "the address is none")
                .hint("it begins with https://, as the receiver shows it")
        })?;
        require_secure(&url).map_err(|error| veiled(error, &url))?;
        Ok(url)
    }

    /// Sends what is made for this address, and looks whether it was taken.
    pub(super) async fn send(
        &self,
        request: impl FnOnce(&Url) -> Result<Request>,
        now: OffsetDateTime,
    ) -> Result<(), Refused> {
        let url = self.url()?;
        let hide = |error| match self.address {
            Address::Known(_) => error,
            Address::Secret(_) => veiled(error, &url),
        };
        let answer = self.http.send(request(&url)?).await.map_err(hide)?;
        if answer.status.is_success() {
            return Ok(());
        }
        let status = answer.status.as_u16();
        let who = url.origin().ascii_serialization();
        let error = Error::new(ErrorKind::Unreachable, format!("{who} did not take it"))
            .because_of(format!("it answered {status}"));
        // Those say something of the receiver, or of how often it is asked.
        let is_about_message = answer.status.is_client_error()
            && ![401, 403, 404, 408, 410, 421, 425, 429].contains(&status);
        Err(Refused { error, retry_after: answer.retry_after(now), is_about_message })
    }
}

/// The same error, without the part of an address that is a secret.
fn veiled(error: Error, url: &Url) -> Error {
    let path = url.path();
    let hide = |text: &str| match path {
        "" | "/" => text.to_string(),
        path => text.replace(path, "/…"),
    };
    let made = Error::new(error.kind(), hide(&error.to_string()));
    let made = error.causes().iter().fold(made, |made, cause| made.because_of(hide(cause)));
    error.hints().iter().fold(made, |made, hint| made.hint(hide(hint)))
}

/// What a receiver tells this message apart by: text that goes into a header.
pub(super) fn id_of(key: &str) -> String {
    let fits = key.len() <= MAX_KEY && key.bytes().all(|byte| byte.is_ascii_graphic());
    if fits { key.into() } else { hash_of(key) }
}

/// The hash of a text, as digits.
pub(super) fn hash_of(text: &str) -> String {
    let hash = digest(&SHA256, text.as_bytes());
    HEXLOWER.encode(&hash.as_ref()[..16])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_a_secret_is_in_no_error() {
        let url = Url::parse("https://hooks.example.com/services/T0/B0/secret?x=1").unwrap();
        let error = Error::new(ErrorKind::Unreachable, format!("{url} did not answer"))
            .because_of(format!("{} is down", crate::host::http::place(&url)))
            .hint(format!("look at {url}"));
        let veiled = veiled(error, &url);
        let said = format!("{veiled} {:?} {:?}", veiled.causes(), veiled.hints());
        assert!(!said.contains("secret") && said.contains("hooks.example.com/…"), "{said}");
    }

    #[test]
    fn keys_become_ids_that_fit_into_headers() {
        assert_eq!(id_of("elevation/7/requested"), "elevation/7/requested");
        for key in ["a b", "é", &"x".repeat(201)] {
            assert_eq!(id_of(key), hash_of(key));
            assert_eq!(id_of(key).len(), 32);
        }
    }
}
