//! Asking a CI platform for a token. Where it gives no answer, or says «not now», it is
//! asked again for a while with a request of its own, because nobody else can be asked and
//! the job would fail. What the answer holds lives for minutes, so it is neither kept nor
//! held while something else is tried.

use std::path::Path;

use reqwest::Method;
use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use url::Url;

use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::Host;
use crate::host::http::{Request, Response, place, require_secure};
use crate::reach::{self, Effort, Failure};
use crate::secret::Secret;

/// Where a platform hands tokens out.
pub(super) struct Endpoint<'a> {
    /// Who answers there, such as `GitHub Actions`.
    pub(super) who: &'a str,
    pub(super) method: Method,
    pub(super) url: Url,
    /// What proves that this job asks.
    pub(super) bearer: &'a str,
    /// Headers that only this platform wants.
    pub(super) headers: &'a [(HeaderName, &'static str)],
    pub(super) ca_file: Option<&'a Path>,
    /// What to do where it says no.
    pub(super) hint: &'a str,
}

/// The member of the answer that holds the token has a name of its own on each
/// platform.
#[derive(Deserialize)]
struct Answer {
    #[serde(alias = "oidcToken")]
    value: Secret<String>,
}

impl Endpoint<'_> {
    /// Asks for a token.
    ///
    /// # Errors
    /// [`ErrorKind::Denied`] where the platform refuses it to this job,
    /// [`ErrorKind::Unreachable`] where it does not answer in time,
    /// [`ErrorKind::Verification`] where its answer is not what it must be.
    pub(super) async fn ask(self, host: &Host) -> Result<Secret<String>> {
        let (who, hint) = (self.who, self.hint);
        let token = self.exchange(host).await;
        token.map_err(|error| {
            let refused = error.kind() == ErrorKind::Denied;
            let error = error.context(format!("{who} gives this job no token"));
            if refused { error.hint(hint) } else { error }
        })
    }

    async fn exchange(self, host: &Host) -> Result<Secret<String>> {
        let mut headers = HeaderMap::new();
        let bearer = Secret::new(format!("Bearer {}", self.bearer));
        let mut bearer = HeaderValue::from_str(bearer.expose()).map_err(|_| {
            Error::new(ErrorKind::Config, "what the job has to ask with is no token")
        })?;
        bearer.set_sensitive(true);
        headers.insert(AUTHORIZATION, bearer);
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in self.headers {
            headers.insert(name, HeaderValue::from_static(value));
        }
        let http = host.http(self.ca_file)?;
        let attempt = async |_: &str| {
            let (method, url, headers) = (self.method.clone(), self.url.clone(), headers.clone());
            let request = Request { method, url, headers, body: Secret::new(Vec::new()) };
            let response = http.send(request).await?;
            match response.outage(self.who) {
                Some(outage) => Err(Failure::of(outage, &response, host.corrected_now())),
                None => Ok(response),
            }
        };
        let place = place(&self.url);
        let response = reach::ask(host, self.who, &[&*place], Effort::JOB, None, attempt).await;
        host.tell_skew();
        let response = response?;
        require_success(&response)?;
        let answer: Answer = response.json("the answer")?;
        Ok(answer.value)
    }
}

fn require_success(response: &Response) -> Result<()> {
    if response.status.is_success() {
        return Ok(());
    }
    let kind = match response.status.as_u16() {
        401 | 403 => ErrorKind::Denied,
        _ => ErrorKind::Verification,
    };
    Err(Error::new(kind, format!("it answered {}", response.status.as_u16())))
}

/// The address that a platform put into a variable.
///
/// # Errors
/// What is wrong with it, where no token may be sent there.
pub(super) fn address(variable: &str, value: &str) -> Result<Url, String> {
    let url = Url::parse(value).map_err(|cause| format!("{variable} is no address: {cause}"))?;
    match require_secure(&url) {
        Ok(()) => Ok(url),
        Err(error) => Err(format!("{variable}: {}", foreign(&error.to_string()))),
    }
}
