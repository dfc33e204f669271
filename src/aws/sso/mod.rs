//! The requests to IAM Identity Center: plain JSON over our own HTTP client.
//!
//! | file | what it does |
//! |---|---|
//! | `oidc` | logging in: the [OIDC API](https://docs.aws.amazon.com/singlesignon/latest/OIDCAPIReference/Welcome.html) |
//! | `portal` | what a session may have: the [Portal API](https://docs.aws.amazon.com/singlesignon/latest/PortalAPIReference/Welcome.html) |

#[cfg(test)]
mod fuzz;
pub mod oidc;
pub mod portal;
#[cfg(test)]
mod tests;

use std::path::PathBuf;

use reqwest::header::RETRY_AFTER;
use serde::{Deserialize, Serialize};
use url::Url;

use super::{EndpointUrl, Region};
use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::http::{HttpClient, Request, Response};
use crate::secret::Secret;

/// One of the two services, and where it is asked.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Server {
    url: String,
    /// It is part of the address, where that is AWS's own, and so of what identifies it.
    #[serde(skip)]
    region: Region,
    ca_file: Option<PathBuf>,
}

impl Server {
    /// The service that logs people in, in this region or at another address.
    pub fn oidc(region: &Region, elsewhere: Option<&EndpointUrl>, ca: Option<&PathBuf>) -> Self {
        Self::at("oidc", region, elsewhere, ca)
    }

    /// The service that hands credentials out, in this region or at another address.
    pub fn portal(region: &Region, elsewhere: Option<&EndpointUrl>, ca: Option<&PathBuf>) -> Self {
        Self::at("portal.sso", region, elsewhere, ca)
    }

    fn at(
        service: &str,
        region: &Region,
        elsewhere: Option<&EndpointUrl>,
        ca_file: Option<&PathBuf>,
    ) -> Self {
        let url = match elsewhere {
            Some(url) => url.as_str().trim_end_matches('/').to_string(),
            None => format!("https://{service}.{region}.{}", region.dns_suffix()),
        };
        Self { url, region: region.clone(), ca_file: ca_file.cloned() }
    }

    /// Its address.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// The region of its Identity Center.
    pub fn region(&self) -> &Region {
        &self.region
    }

    /// A PEM file with certificate authorities to trust besides the system's.
    pub fn ca_file(&self) -> Option<&std::path::Path> {
        self.ca_file.as_deref()
    }

    /// The address of an operation.
    fn operation(&self, path: &str) -> Result<Url> {
        Url::parse(&format!("{}{path}", self.url)).map_err(|cause| {
            Error::new(ErrorKind::Config, "the address of IAM Identity Center cannot be used")
                .because(cause)
        })
    }
}

/// Why there is no answer to go on with.
#[derive(Clone, Debug)]
pub enum Failure {
    /// The service said no.
    Refused(Refusal),
    /// The service cannot serve at the moment.
    Unserved {
        /// How that showed.
        outage: Error,
        /// When to ask again, in its own words (`Retry-After`).
        retry_after: Option<String>,
    },
    /// Something else went wrong.
    Failed(Error),
}

impl Failure {
    /// Whether the service refused with this code.
    pub fn is(&self, code: &str) -> bool {
        matches!(self, Self::Refused(refusal) if refusal.code == code)
    }

    /// Whether there was no answer, or none that helps; another time there may be.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unserved { .. } => true,
            Self::Failed(error) => error.kind() == ErrorKind::Unreachable,
            Self::Refused(_) => false,
        }
    }

    /// The error for people; `what` is what failed.
    pub fn error(self, what: &str) -> Error {
        match self {
            Self::Failed(error) | Self::Unserved { outage: error, .. } => error.context(what),
            Self::Refused(refusal) => refusal.error(what),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

/// A refusal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The code, as OAuth writes them: `invalid_grant` for `InvalidGrantException`.
    pub code: String,
    /// The service's words.
    pub words: Option<String>,
}

impl Refusal {
    /// The error for people; `what` was refused.
    pub fn error(&self, what: &str) -> Error {
        let (kind, hint) = match self.code.as_str() {
            "unauthorized" => (
                ErrorKind::LoginRequired,
                Some("the session has ended there: log in again with `tmpcred login`"),
            ),
            "forbidden" | "resource_not_found" => (
                ErrorKind::Denied,
                Some("`tmpcred ls --available` lists the accounts and roles that you may use"),
            ),
            "slow_down" | "too_many_requests" | "internal_server" => {
                (ErrorKind::Unreachable, Some("try again in a while"))
            }
            "invalid_request"
            | "invalid_client_metadata"
            | "invalid_scope"
            | "invalid_redirect_uri"
            | "unsupported_grant_type"
            | "unauthorized_client"
            | "invalid_request_region" => (
                ErrorKind::Config,
                Some("check `start_url`, `region` and `scopes` of the identity"),
            ),
            _ => (ErrorKind::Denied, None),
        };
        let error = Error::new(kind, what).because_of(match self.words.as_deref() {
            Some(words) => format!("AWS says: {} ({})", foreign(words), foreign(&self.code)),
            None => format!("AWS says: {}", foreign(&self.code)),
        });
        hint.into_iter().fold(error, Error::hint)
    }
}

/// Sends a request and reads the answer.
async fn ask<T: serde::de::DeserializeOwned>(
    http: &HttpClient,
    request: Request,
    sent: &[&Secret<String>],
    who: &str,
) -> Result<T, Failure> {
    let response = checked(http, request, sent, who).await?;
    Ok(response.json(&format!("the answer of {who}"))?)
}

/// Sends a request; the answer is one of success. `sent` are the secrets in it, which
/// a server could repeat.
async fn checked(
    http: &HttpClient,
    request: Request,
    sent: &[&Secret<String>],
    who: &str,
) -> Result<Response, Failure> {
    let response = http.send(request).await?;
    match response.outage(who) {
        Some(outage) => {
            let wish = response.headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok());
            Err(Failure::Unserved { outage, retry_after: wish.map(String::from) })
        }
        None => judged(response, sent, who),
    }
}

/// An answer of success, or what the refusal means.
fn judged(response: Response, sent: &[&Secret<String>], who: &str) -> Result<Response, Failure> {
    if response.status.is_success() {
        return Ok(response);
    }
    Err(match refusal(&response) {
        Some(Refusal { code, words }) => {
            // What is shorter may be part of any word, and is no secret.
            let long = sent.iter().map(|secret| secret.expose()).filter(|s| s.len() >= 8);
            let long: Vec<_> = long.collect();
            let repeats = |text: &str| long.iter().any(|secret| text.contains(*secret));
            let words = words.filter(|words| !repeats(words));
            let code = if repeats(&code) { "unknown".into() } else { code };
            Failure::Refused(Refusal { code, words })
        }
        None => Failure::Failed(
            Error::new(
                ErrorKind::Verification,
                format!("the answer of {who} cannot be understood"),
            )
            .because_of(format!("the status is {}", response.status.as_u16()))
            .hint("check `region` of the identity"),
        ),
    })
}

/// How a refusal is written: by the REST-JSON protocol of AWS, and by OAuth.
#[derive(Deserialize)]
struct Said {
    #[serde(rename = "__type")]
    kind: Option<String>,
    error: Option<String>,
    error_description: Option<String>,
    #[serde(alias = "Message")]
    message: Option<String>,
}

/// Reads a refusal (<https://smithy.io/2.0/aws/protocols/aws-restjson1-protocol.html>).
fn refusal(response: &Response) -> Option<Refusal> {
    let header = response.headers.get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    let said: Option<Said> = serde_json::from_slice(response.body.expose()).ok();
    let kind = said.as_ref().and_then(|said| said.kind.as_deref());
    let error = said.as_ref().and_then(|said| said.error.as_deref());
    let code = header.or(kind).map(snake).or_else(|| error.map(String::from))?;
    let words = said.and_then(|said| said.error_description.or(said.message));
    Some(Refusal { code, words: words.filter(|words| !words.is_empty()) })
}

/// `com.amazonaws.portal#ForbiddenException:http://…` is `forbidden`.
fn snake(kind: &str) -> String {
    let name = kind.split(':').next().unwrap_or_default();
    let name = name.rsplit('#').next().unwrap_or_default();
    let name = name.strip_suffix("Exception").unwrap_or(name);
    let mut code = String::new();
    for c in name.chars() {
        if c.is_ascii_uppercase() && !code.is_empty() {
            code.push('_');
        }
        code.push(c.to_ascii_lowercase());
    }
    code
}
