//! The client of a broker's API: what is asked of a broker besides credentials, by somebody
//! who shows who they are.
//!
//! | file | what it does |
//! |---|---|
//! | `refused` | what a broker says instead, as errors |
//! | `operate` | what it answers to those who operate it |
//! | `elevations` | roles that are had for a while |
//! | `enrollments` | keys of people, for when no provider can say who they are |
//! | `statements` | what people sign then |

pub mod elevations;
pub mod enrollments;
pub mod operate;
mod refused;
mod statements;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Serialize;
use serde::de::DeserializeOwned;
use url::Url;

pub(crate) use self::refused::is_of_an_older_one;
pub use self::refused::{Failure, StepUp};
use crate::credential::{Assertion, TokenType};
use crate::dpop::{self, DeviceKey};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::http::{HttpClient, Request, Response};
use crate::mint::broker::Server;
use crate::mint::proving::{self, Proving};
use crate::mint::said::{check_version, with_refusal_of};
use crate::oidc::Issuer;
use crate::reach::{self, Effort};
use crate::secret::Secret;
use crate::wire::{VERSION, VERSION_HEADER};

/// What is read, in errors.
const WHAT: &str = "the answer of the broker";

/// The body of a request, and what it is.
struct Body {
    content_type: &'static str,
    bytes: Secret<Vec<u8>>,
    /// Whether it changes nothing where it comes a second time.
    may_come_twice: bool,
}

/// A broker, asked by somebody.
///
/// ```no_run
/// # async fn keys(
/// #     host: &tmpcred::host::Host,
/// #     server: &tmpcred::mint::broker::Server,
/// #     assertion: tmpcred::credential::Assertion,
/// # ) -> tmpcred::error::Result<()> {
/// use tmpcred::api::{Client, operate::Keys};
///
/// let client = Client::new(host, server, assertion);
/// let keys: Keys = client.get("v1/keys", &()).await?;
/// # drop(keys);
/// # Ok(())
/// # }
/// ```
pub struct Client<'a> {
    host: &'a Host,
    server: &'a Server,
    assertion: Option<Assertion>,
    key: Option<Arc<DeviceKey>>,
    effort: Effort,
}

impl<'a> Client<'a> {
    /// The broker, asked by whoever this assertion is of. It has to be bound to the broker's
    /// audience.
    pub fn new(host: &'a Host, server: &'a Server, assertion: Assertion) -> Self {
        Self { assertion: Some(assertion), ..Self::of_nobody(host, server) }
    }

    /// The broker, asked by nobody in particular: for what it tells everybody, and for what
    /// stands for itself.
    pub fn of_nobody(host: &'a Host, server: &'a Server) -> Self {
        Self { host, server, assertion: None, key: None, effort: Effort::MINT }
    }

    /// The same with the key of this device: an assertion that is bound to it is shown with a
    /// proof (RFC 9449).
    #[must_use]
    pub fn with_key(self, key: Option<Arc<DeviceKey>>) -> Self {
        Self { key, ..self }
    }

    /// The same with another effort.
    #[must_use]
    pub fn with_effort(self, effort: Effort) -> Self {
        Self { effort, ..self }
    }

    /// Asks for something, which changes nothing. `path` is below the broker's address; what
    /// of `query` is `None` is left out. It is asked again where nobody answers.
    ///
    /// # Errors
    /// What the broker says instead; [`ErrorKind::Unreachable`] where it cannot serve.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        query: &impl Serialize,
    ) -> Result<T, Failure> {
        let query = encoded(query)?;
        let query = Some(query).filter(|query| !query.is_empty());
        self.ask(Method::GET, path, query.as_deref(), None).await
    }

    /// Asks for something to be done that a form describes. It is sent once to each address,
    /// until one answers.
    ///
    /// # Errors
    /// As with [`Self::get`].
    pub async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &impl Serialize,
    ) -> Result<T, Failure> {
        self.ask(Method::POST, path, None, Some(form_of(form)?)).await
    }

    /// The same for what may be asked for twice, because the second time changes nothing: it is
    /// asked for again, as with [`Self::get`], where nobody answers.
    ///
    /// # Errors
    /// As with [`Self::get`].
    pub async fn post_again<T: DeserializeOwned>(
        &self,
        path: &str,
        form: &impl Serialize,
    ) -> Result<T, Failure> {
        let body = Body { may_come_twice: true, ..form_of(form)? };
        self.ask(Method::POST, path, None, Some(body)).await
    }

    /// The same with JSON in place of a form.
    ///
    /// # Errors
    /// As with [`Self::get`].
    pub async fn post_json<T: DeserializeOwned>(
        &self,
        path: &str,
        body: &impl Serialize,
    ) -> Result<T, Failure> {
        let bytes = serde_json::to_vec(body).map_err(|_| unwritable())?;
        let bytes = Secret::new(bytes);
        let body = Body { content_type: "application/json", bytes, may_come_twice: false };
        self.ask(Method::POST, path, None, Some(body)).await
    }

    async fn ask<T: DeserializeOwned>(
        &self,
        method: Method,
        path: &str,
        query: Option<&str>,
        body: Option<Body>,
    ) -> Result<T, Failure> {
        let context = || format!("the broker {} does not do it", self.server.issuer());
        let asked = self.exchange(method, path, query, body.as_ref()).await;
        self.host.tell_skew();
        let response = asked.map_err(|error| error.context(context()))?;
        if response.status.is_success() {
            let read = response.json(WHAT);
            return Ok(read.map_err(|error| error.context(context()))?);
        }
        let issuer = self.assertion.as_ref().map(|one| one.principal.issuer.as_str());
        let refused = refused::of(&response, self.server, issuer);
        Err(refused.context(context()))
    }

    /// What one of the addresses answers that can serve.
    async fn exchange(
        &self,
        method: Method,
        path: &str,
        query: Option<&str>,
        body: Option<&Body>,
    ) -> Result<Response> {
        let shown = self.assertion.as_ref();
        if shown.is_some_and(|shown| shown.token_type == TokenType::AwsAccessKeys) {
            let message = "the identity has no token to show to a broker";
            return Err(Error::new(ErrorKind::Config, message));
        }
        let bound = |key: &&DeviceKey| shown.is_some_and(|shown| proving::is_bound_to(shown, key));
        let key = self.key.as_deref().filter(bound);
        let headers = self.headers(body, key.is_some())?;
        let http: HttpClient = self.host.http(self.server.ca_file.as_deref())?.telling_trace();
        // What changes something may have been done by whoever gave no answer.
        let effort = match body {
            Some(body) if !body.may_come_twice => self.effort.once(),
            _ => self.effort,
        };
        let attempt = async |address: &Issuer| {
            let request = || {
                let mut url: Url = address.join(path);
                url.set_query(query);
                let bytes = body.map(|body| body.bytes.expose().clone()).unwrap_or_default();
                let (method, headers) = (method.clone(), headers.clone());
                Request { method, url, headers, body: Secret::new(bytes) }
            };
            let token = shown.map(|shown| &shown.token);
            let proving = key.map(|key| Proving { key, token });
            let response = proving::send(self.host, &http, address, request, proving).await?;
            if let Some(outage) = response.outage("the broker") {
                let outage = with_refusal_of(&response, outage);
                let now = self.host.corrected_now();
                return Err(reach::Failure::of(outage, &response, now));
            }
            check_version(&response)?;
            Ok(response)
        };
        let until = shown.map(|shown| shown.expires_at);
        self.server.ask(self.host, effort, until, attempt).await
    }

    fn headers(&self, body: Option<&Body>, is_bound: bool) -> Result<HeaderMap> {
        let mut headers = HeaderMap::from_iter([
            (ACCEPT, HeaderValue::from_static("application/json")),
            (HeaderName::from_static(VERSION_HEADER), HeaderValue::from(VERSION)),
        ]);
        if let Some(assertion) = &self.assertion {
            let scheme = if is_bound { dpop::SCHEME } else { "Bearer" };
            let shown = Secret::new(format!("{scheme} {}", assertion.token.expose()));
            let mut shown = HeaderValue::from_str(shown.expose()).map_err(|_| {
                let message = "the assertion has characters that no token has";
                Error::new(ErrorKind::Verification, message)
            })?;
            shown.set_sensitive(true);
            headers.insert(AUTHORIZATION, shown);
        }
        if let Some(body) = body {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(body.content_type));
        }
        Ok(headers)
    }
}

/// A form, as a body that must not come twice.
fn form_of(form: &impl Serialize) -> Result<Body> {
    let bytes = Secret::new(encoded(form)?.into_bytes());
    let content_type = "application/x-www-form-urlencoded";
    Ok(Body { content_type, bytes, may_come_twice: false })
}

/// As a query or a form has it.
fn encoded(what: &impl Serialize) -> Result<String> {
    serde_urlencoded::to_string(what).map_err(|_| unwritable())
}

/// Without the cause, which may quote what it is about.
fn unwritable() -> Error {
    Error::new(ErrorKind::Other, "the request cannot be written down")
}
