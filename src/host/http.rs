//! HTTP with the limits that every request here needs: a bounded body, no
//! redirects, https unless loopback, and a time limit.

use std::error::Error as StdError;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use reqwest::header::{AGE, DATE, HeaderMap, HeaderName, RETRY_AFTER};
use reqwest::{Method, StatusCode};
use serde::de::DeserializeOwned;
use time::format_description::well_known::Rfc2822;
use time::{OffsetDateTime, UtcOffset};
use url::{Host as UrlHost, Url};

use super::clock::{Clock, SkewMeter};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;
use crate::trace;

/// How long connecting may take.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a whole request may take.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(15);
/// How large an answer may be, in bytes.
pub const MAX_BODY: usize = 1024 * 1024;

/// One request.
pub struct Request {
    /// The method.
    pub method: Method,
    /// The address.
    pub url: Url,
    /// The headers beyond those every request has.
    pub headers: HeaderMap,
    /// The body; it may hold secrets.
    pub body: Secret<Vec<u8>>,
}

/// One answer, whatever its status.
#[derive(Debug)]
pub struct Response {
    /// The status.
    pub status: StatusCode,
    /// The headers.
    pub headers: HeaderMap,
    /// The body, at most [`MAX_BODY`] bytes; it may hold secrets.
    pub body: Secret<Vec<u8>>,
}

impl Response {
    /// Reads the body as JSON. The error names `what`, and shows nothing of the
    /// body: it may hold a token.
    pub fn json<T: DeserializeOwned>(&self, what: &str) -> Result<T> {
        serde_json::from_slice(self.body.expose()).map_err(|cause| {
            let body = self.body.expose();
            let looks = if body.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'<') {
                "it looks like a web page".to_string()
            } else if cause.is_data() {
                // serde_json quotes offending values in data errors.
                format!("a member is missing or of the wrong type, near column {}", cause.column())
            } else {
                format!("it is not JSON, from line {}, column {}", cause.line(), cause.column())
            };
            Error::new(ErrorKind::Verification, format!("{what} cannot be understood"))
                .because_of(looks)
        })
    }

    /// The error for an answer that says «not now» (429 and 5xx), with what the
    /// server says of when to ask again (RFC 9110 section 10.2.3). `who` answered.
    pub fn outage(&self, who: &str) -> Option<Error> {
        if !self.status.is_server_error() && self.status != StatusCode::TOO_MANY_REQUESTS {
            return None;
        }
        let error = Error::new(ErrorKind::Unreachable, format!("{who} cannot serve at the moment"))
            .because_of(format!("it answered {}", self.status.as_u16()));
        // Said anew: a date may have comments, in which anything may stand.
        let wish = self.header(RETRY_AFTER).and_then(Wish::parse).and_then(|wish| match wish {
            Wish::Seconds(seconds) => Some(format!("in {seconds} seconds")),
            Wish::Until(until) => {
                let until = until.checked_to_offset(UtcOffset::UTC)?.format(&Rfc2822).ok()?;
                // As HTTP writes it (RFC 9110 section 5.6.7).
                Some(format!("after {}", until.replace("+0000", "GMT")))
            }
        });
        Some(match wish {
            Some(wish) => error.hint(format!("it asks to be tried again {wish}")),
            None => error.hint("try again in a while"),
        })
    }

    /// How long the server asks to be left alone, in seconds or until a date
    /// (RFC 9110 section 10.2.3). `now` is the time by its clock.
    pub fn retry_after(&self, now: OffsetDateTime) -> Option<Duration> {
        retry_after(self.header(RETRY_AFTER)?, now)
    }

    /// A header that is text.
    pub fn header(&self, name: HeaderName) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }
}

/// What the header `Retry-After` asks for. `now` is the time by the server's clock.
pub fn retry_after(value: &str, now: OffsetDateTime) -> Option<Duration> {
    Some(match Wish::parse(value)? {
        Wish::Seconds(seconds) => Duration::from_secs(seconds.into()),
        // A date that has passed asks for nothing.
        Wish::Until(until) => Duration::try_from(until - now).unwrap_or_default(),
    })
}

/// How long a server wants to be left alone.
enum Wish {
    Seconds(u32),
    Until(OffsetDateTime),
}

impl Wish {
    fn parse(value: &str) -> Option<Self> {
        match value.parse() {
            Ok(seconds) => Some(Self::Seconds(seconds)),
            Err(_) => OffsetDateTime::parse(value, &Rfc2822).ok().map(Self::Until),
        }
    }
}

/// An HTTP client. Nothing is set up before the first request; clones share
/// connections.
#[derive(Clone)]
pub struct HttpClient {
    inner: Arc<Inner>,
    /// Whether servers are told of the trace that asks them.
    tells_trace: bool,
}

struct Inner {
    built: OnceLock<Result<reqwest::Client>>,
    /// For this machine itself: plain http must not leave it through a proxy.
    built_direct: OnceLock<Result<reqwest::Client>>,
    extra_ca_pem: Option<Vec<u8>>,
    clock: Arc<dyn Clock>,
    skew: SkewMeter,
}

impl HttpClient {
    /// A client that trusts the system's authorities, and those in
    /// `extra_ca_pem` besides, and that notes clock skew in `skew`.
    pub fn new(clock: Arc<dyn Clock>, skew: SkewMeter, extra_ca_pem: Option<Vec<u8>>) -> Self {
        let (built, built_direct) = (OnceLock::new(), OnceLock::new());
        let inner = Arc::new(Inner { built, built_direct, extra_ca_pem, clock, skew });
        Self { inner, tells_trace: false }
    }

    /// The same, which tells servers of the trace that asks them (W3C Trace Context), and
    /// makes each request a part of it.
    #[must_use]
    pub fn telling_trace(self) -> Self {
        Self { tells_trace: true, ..self }
    }

    /// Sends a request and reads the answer.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where no answer comes; [`ErrorKind::Verification`]
    /// where the address may not be used, or the answer redirects or is too large.
    pub async fn send(&self, mut request: Request) -> Result<Response> {
        if !self.tells_trace {
            return self.perform(request).await;
        }
        let step = trace::asking(request.method.to_string());
        step.note("http.request.method", request.method.to_string());
        // Not the path: that of a webhook may be all that its receiver knows us by.
        step.note("server.address", request.url.host_str().unwrap_or_default().to_string());
        if let Some(port) = request.url.port_or_known_default() {
            step.note("server.port", i64::from(port));
        }
        let outcome = step.around(async {
            trace::w3c::tell(&mut request.headers);
            self.perform(request).await
        });
        let outcome = outcome.await;
        match &outcome {
            Ok(response) => {
                let status = response.status;
                step.note("http.response.status_code", i64::from(status.as_u16()));
                if status.is_client_error() || status.is_server_error() {
                    step.failed(status.as_u16().to_string());
                }
            }
            Err(error) => step.failed(error.kind().name()),
        }
        outcome
    }

    async fn perform(&self, request: Request) -> Result<Response> {
        require_secure(&request.url)?;
        let place = place(&request.url);
        let client = self.inner.client(is_loopback(&request.url)).as_ref().map_err(Error::clone)?;
        let mut response = client
            .request(request.method, request.url)
            .headers(request.headers)
            .body(request.body.expose().clone())
            .send()
            .await
            .map_err(|cause| unreachable(&place, cause))?;
        self.note_skew(response.headers());
        if response.status().is_redirection() {
            return Err(Error::new(
                ErrorKind::Verification,
                format!("{place} answered with a redirect ({})", response.status().as_u16()),
            )
            .because_of("redirects are not followed: they could lead a secret elsewhere")
            .hint("configure the address that the server redirects to, if you trust it"));
        }
        let mut body = Secret::new(Vec::new());
        while let Some(chunk) =
            response.chunk().await.map_err(|cause| unreachable(&place, cause))?
        {
            if body.expose().len() + chunk.len() > MAX_BODY {
                return Err(Error::new(
                    ErrorKind::Verification,
                    format!("the answer of {place} is too large"),
                )
                .because_of(format!("it has more than {MAX_BODY} bytes")));
            }
            let mut longer = Vec::with_capacity(body.expose().len() + chunk.len());
            longer.extend_from_slice(body.expose());
            longer.extend_from_slice(&chunk);
            body = Secret::new(longer);
        }
        Ok(Response { status: response.status(), headers: response.headers().clone(), body })
    }

    /// Fetches a document.
    pub async fn get(&self, url: &Url) -> Result<Response> {
        self.send(Request {
            method: Method::GET,
            url: url.clone(),
            headers: HeaderMap::new(),
            body: Secret::new(Vec::new()),
        })
        .await
    }

    fn note_skew(&self, headers: &HeaderMap) {
        // An answer that some cache kept has the date of when it was made.
        if headers.get(AGE).is_some_and(|age| age != "0") {
            return;
        }
        let server = headers
            .get(DATE)
            .and_then(|value| value.to_str().ok())
            .and_then(|text| OffsetDateTime::parse(text, &Rfc2822).ok());
        if let Some(server) = server {
            self.inner.skew.observe(server, self.inner.clock.now());
        }
    }
}

impl Inner {
    fn client(&self, direct: bool) -> &Result<reqwest::Client> {
        if direct {
            self.built_direct.get_or_init(|| self.build(true))
        } else {
            self.built.get_or_init(|| self.build(false))
        }
    }

    fn build(&self, direct: bool) -> Result<reqwest::Client> {
        let failed = |message: &str, cause: reqwest::Error| {
            Error::new(ErrorKind::Config, message.to_string()).because(cause)
        };
        #[expect(clippy::disallowed_methods, reason = "this is the port to HTTP")]
        let mut builder = reqwest::Client::builder()
            .user_agent(concat!("tmpcred/", env!("CARGO_PKG_VERSION")))
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(CONNECT_TIMEOUT)
            .timeout(REQUEST_TIMEOUT);
        #[cfg(target_os = "linux")]
        {
            builder = builder.dns_resolver(super::names::Names::default());
        }
        if direct {
            builder = builder.no_proxy();
        }
        if let Some(pem) = &self.extra_ca_pem {
            let certificates = reqwest::Certificate::from_pem_bundle(pem).map_err(|cause| {
                failed("the file with certificate authorities cannot be read", cause)
            })?;
            builder = builder.tls_certs_merge(certificates);
        }
        builder.build().map_err(|cause| failed("TLS cannot be set up", cause))
    }
}

/// Whether an address is this machine itself, so that plain http may be used.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(UrlHost::Ipv4(ip)) => ip.is_loopback(),
        Some(UrlHost::Ipv6(ip)) => ip.is_loopback(),
        // RFC 6761 section 6.3: this name always means loopback.
        Some(UrlHost::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// Refuses an address that is neither https nor loopback, or that carries a
/// user name or password.
pub fn require_secure(url: &Url) -> Result<()> {
    let refused = |why: &str| {
        Error::new(ErrorKind::Verification, format!("refusing to use {}", place(url)))
            .because_of(why.to_string())
    };
    if !url.username().is_empty() || url.password().is_some() {
        return Err(refused("the address carries a user name or password"));
    }
    match url.scheme() {
        "https" => Ok(()),
        "http" if is_loopback(url) => Ok(()),
        "http" => Err(refused("plain http is allowed to loopback only").hint("use https")),
        _ => Err(refused("only https can be used")),
    }
}

/// An address for error messages: without query, which may hold secrets.
pub fn place(url: &Url) -> String {
    format!("{}{}", url.origin().ascii_serialization(), url.path())
}

fn unreachable(place: &str, cause: reqwest::Error) -> Error {
    if let Some(problem) = tls_problem(&cause) {
        return bad_tls(place, problem);
    }
    let timed_out = cause.is_timeout();
    let error = Error::new(ErrorKind::Unreachable, format!("{place} did not answer"))
        .because(cause.without_url());
    if timed_out {
        error.because_of(format!("the limit is {} seconds", REQUEST_TIMEOUT.as_secs()))
    } else {
        error.hint("check the network and the address, then try again")
    }
}

/// What TLS has against the connection, somewhere among the causes.
pub(super) fn tls_problem<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(cause);
    while let Some(error) = next {
        if let Some(problem) = error.downcast_ref::<rustls::Error>() {
            return Some(problem);
        }
        // An io::Error skips its own content when asked for its source.
        next = match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}

pub(super) fn bad_tls(place: &str, problem: &rustls::Error) -> Error {
    use rustls::CertificateError::{
        Expired, ExpiredContext, NotValidForName, NotValidForNameContext, NotValidYet,
        NotValidYetContext, Other, UnknownIssuer,
    };
    let rustls::Error::InvalidCertificate(certificate) = problem else {
        return Error::new(ErrorKind::Unreachable, format!("no secure connection to {place}"))
            .because(problem)
            .hint("check that the address is the right one and speaks TLS");
    };
    let error =
        Error::new(ErrorKind::Verification, format!("the certificate of {place} is not accepted"));
    match certificate {
        Expired | ExpiredContext { .. } => error
            .because_of("it has expired")
            .hint("its operator has to renew it; if it is fresh, check this machine's clock"),
        NotValidYet | NotValidYetContext { .. } => {
            error.because_of("it is not valid yet").hint("check this machine's clock")
        }
        NotValidForName | NotValidForNameContext { .. } => {
            error.because_of("it is for another name").hint("check the address")
        }
        UnknownIssuer => error
            .because_of("no authority that is trusted here has issued it")
            .hint("if the authority is your organisation's own, name its PEM file as `ca_file`"),
        // The verifier has no name for it that it hands out.
        Other(why) if why.to_string() == "CaUsedAsEndEntity" => error
            .because_of("it is that of an authority, and no server's")
            .hint("the server needs one of its own, without `CA:TRUE`, that the authority has signed; `ca_file` names the authority's"),
        other => error
            .because_of(other.to_string())
            .hint("if the authority is your organisation's own, name its PEM file as `ca_file`"),
    }
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
