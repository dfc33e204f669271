//! Tokens that a Kubernetes API server verifies: a TokenReview
//! (<https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/token-review-v1/>).
//!
//! The API server also knows what no signature tells: that a pod, a service account or a
//! secret is gone, and its tokens with it. Nothing of what it answers is kept, so that this
//! counts at once.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use axum::http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE};
use axum::http::{HeaderMap, HeaderValue, Method, StatusCode};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use time::Duration;
use url::Url;

use super::names;
use crate::broker::config::{TokenReview, TrustedIssuer};
use crate::credential::Principal;
use crate::error::{Error, ErrorKind, Result, printable};
use crate::host::clock::Clock;
use crate::host::files;
use crate::host::http::{HttpClient, Request};
use crate::oidc::jwt::{self, Refusal, Unverified};
use crate::oidc::remote_keys::Failure;
use crate::oidc::{Claims, Expectations};
use crate::secret::Secret;

/// How long a review may take.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// How often in a row an API server has not served when it is left alone. A single request that
/// takes long says little: anybody can make one up.
const IN_A_ROW: u32 = 3;

/// How long it is left alone.
const RETRY_AFTER: Duration = Duration::seconds(5);

/// How large the file with the broker's own token may be.
const MAX_FILE: u64 = 64 * 1024;

/// How service accounts are named.
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// What the API server tells of the pod and the node of a token begins with this.
const EXTRA: &str = "authentication.kubernetes.io/";

/// An API server that reviews tokens.
pub(super) struct Reviewer {
    endpoint: Url,
    token_file: PathBuf,
    groups_claim: String,
    http: HttpClient,
    clock: Arc<dyn Clock>,
    failed: Mutex<Failed>,
}

/// How it did not serve of late.
#[derive(Default)]
struct Failed {
    /// How often since it last did.
    times: u32,
    /// When it last did not, by the time that the machine has been running, and why.
    last: Option<(Duration, Error)>,
}

/// What it is asked.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: &'static str,
    kind: &'static str,
    spec: Spec<'a>,
}

#[derive(Serialize)]
struct Spec<'a> {
    token: &'a str,
    audiences: &'a [String],
}

/// What it answers, as far as it matters.
#[derive(Deserialize)]
struct Reviewed {
    status: Status,
}

#[derive(Deserialize)]
struct Status {
    #[serde(default)]
    authenticated: bool,
    #[serde(default)]
    audiences: Vec<String>,
    #[serde(default)]
    user: User,
    #[serde(default)]
    error: String,
}

#[derive(Default, Deserialize)]
struct User {
    #[serde(default)]
    username: String,
    #[serde(default)]
    uid: String,
    #[serde(default)]
    groups: Vec<String>,
    #[serde(default)]
    extra: BTreeMap<String, Vec<String>>,
}

impl Reviewer {
    pub(super) fn new(
        config: &TrustedIssuer,
        review: &TokenReview,
        http: HttpClient,
        clock: Arc<dyn Clock>,
    ) -> Result<Self> {
        let mut endpoint = review.server.clone();
        let base = endpoint.path().trim_end_matches('/').to_string();
        endpoint.set_path(&format!("{base}/apis/authentication.k8s.io/v1/tokenreviews"));
        let reviewer = Self {
            endpoint,
            token_file: review.token_file.clone(),
            groups_claim: config.groups_claim.clone(),
            http,
            clock,
            failed: Mutex::default(),
        };
        // Whoever starts the broker learns of it, not whoever calls first.
        reviewer.own_token()?;
        Ok(reviewer)
    }

    /// Has a token verified.
    ///
    /// What it says for itself is looked at first: the API server is not asked about one
    /// that has ended, or is for somebody else.
    pub(super) async fn verify(
        &self,
        token: Unverified<'_>,
        expected: &Expectations<'_>,
    ) -> Result<Claims, Failure> {
        let (token, said) = (token.token(), jwt::look(token, expected)?);
        // What is no JWT to the last letter might upset it.
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        if !token.bytes().all(plain) {
            return Err(refused("it is not a signed JWT").into());
        }
        if let Some(error) = self.left_alone() {
            return Err(Failure::NoKeys(error));
        }
        let asked = self.ask_in_time(token, expected.audiences).await;
        self.note(asked.as_ref().err());
        let status = asked.map_err(Failure::NoKeys)?;
        Ok(self.claims(said, status, expected)?)
    }

    /// Why it is not asked at this moment.
    fn left_alone(&self) -> Option<Error> {
        let failed = self.failed();
        let (at, error) = failed.last.as_ref().filter(|_| failed.times >= IN_A_ROW)?;
        (self.clock.uptime() - *at < RETRY_AFTER).then(|| error.clone())
    }

    /// Keeps in mind whether it has served.
    fn note(&self, error: Option<&Error>) {
        let mut failed = self.failed();
        *failed = match error {
            Some(error) => Failed {
                times: failed.times.saturating_add(1),
                last: Some((self.clock.uptime(), error.clone())),
            },
            None => Failed::default(),
        };
    }

    /// Has something reviewed that is no token, and says that it was.
    pub(super) async fn ask_for_none(&self) -> Result<String> {
        match self.ask_in_time("none", &[]).await?.authenticated {
            true => Err(self.unable("it takes whatever it is shown for a token".into())),
            false => Ok(format!("tokens are reviewed at {}", self.endpoint)),
        }
    }

    async fn ask_in_time(&self, token: &str, audiences: &[String]) -> Result<Status> {
        let asking = tokio::time::timeout(PATIENCE, self.ask(token, audiences));
        asking.await.unwrap_or_else(|_| {
            Err(self.unable(format!("it did not answer within {} seconds", PATIENCE.as_secs())))
        })
    }

    async fn ask(&self, token: &str, audiences: &[String]) -> Result<Status> {
        let own = self.own_token()?;
        let mut own = HeaderValue::from_str(&format!("Bearer {}", own.expose()))
            .map_err(|_| self.unable(format!("{} is no token", self.token_file.display())))?;
        own.set_sensitive(true);
        let json = HeaderValue::from_static("application/json");
        let headers = [(AUTHORIZATION, own), (CONTENT_TYPE, json.clone()), (ACCEPT, json)];
        let review = Review {
            api_version: "authentication.k8s.io/v1",
            kind: "TokenReview",
            spec: Spec { token, audiences },
        };
        let body = serde_json::to_vec(&review)
            .map_err(|cause| self.unable(format!("the question cannot be written: {cause}")))?;
        let request = Request {
            method: Method::POST,
            url: self.endpoint.clone(),
            headers: HeaderMap::from_iter(headers),
            body: Secret::new(body),
        };
        let response = self.http.send(request).await?;
        if let Some(outage) = response.outage(self.endpoint.as_str()) {
            return Err(outage);
        }
        match response.status {
            StatusCode::OK | StatusCode::CREATED => {
                let reviewed: Reviewed = response.json("the answer of the API server")?;
                Ok(reviewed.status)
            }
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(self
                .unable(format!("it does not let the broker ask ({})", response.status.as_u16()))
                .hint("bind the broker's service account to the role system:auth-delegator")),
            status => Err(self.unable(format!("it answered {}", status.as_u16()))),
        }
    }

    fn own_token(&self) -> Result<Secret<String>> {
        let path = &self.token_file;
        let token = files::read_text(path, MAX_FILE)?.unwrap_or_default();
        let token = Secret::new(token);
        if token.expose().trim().is_empty() {
            let what = format!("{} has no token", path.display());
            return Err(Error::new(ErrorKind::Config, what));
        }
        Ok(Secret::new(token.expose().trim().to_string()))
    }

    /// Who it says that the token is of. Nothing counts of what else the token itself says,
    /// but for when it was issued and ends.
    fn claims(
        &self,
        said: Claims,
        status: Status,
        expected: &Expectations<'_>,
    ) -> Result<Claims, Refusal> {
        let Status { authenticated, audiences, user, error } = status;
        if !authenticated || user.username.is_empty() {
            tracing::info!(why = printable(&error), "the API server does not accept a token");
            return Err(refused("the API server of its cluster does not accept it"));
        }
        // One that knows nothing of audiences names none, and has verified it for itself.
        if !audiences.iter().any(|audience| expected.audiences.contains(audience)) {
            return Err(refused("the API server of its cluster has not verified its audience"));
        }
        let principal = Principal { issuer: said.principal.issuer, subject: user.username.clone() };
        let mut all = Map::new();
        all.insert("iss".into(), principal.issuer.clone().into());
        all.insert("sub".into(), principal.subject.clone().into());
        all.insert("aud".into(), audiences.clone().into());
        for time in ["exp", "iat"] {
            if let Some(value) = said.all.get(time) {
                all.insert(time.into(), value.clone());
            }
        }
        if !user.uid.is_empty() {
            all.insert("uid".into(), user.uid.clone().into());
        }
        names::add(&mut all, &self.groups_claim, user.groups.clone().into());
        all.insert("kubernetes.io".into(), user.bound());
        // Those of Kubernetes have the name of a domain in front, and so are no claims that
        // mean something here.
        for (name, values) in user.extra {
            if name.contains('/') && !name.starts_with('/') {
                all.entry(name).or_insert_with(|| values.into());
            }
        }
        Ok(Claims { principal, audience: audiences, all, ..said })
    }

    fn unable(&self, why: String) -> Error {
        let what = format!("{} cannot review a token", self.endpoint);
        Error::new(ErrorKind::Unreachable, what).because_of(why)
    }

    fn failed(&self) -> MutexGuard<'_, Failed> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl User {
    /// What the token is bound to, in the form that tokens of service accounts have it, so
    /// that policies are the same whoever verifies them.
    fn bound(&self) -> Value {
        let mut bound = Map::new();
        if let Some((namespace, name)) =
            self.username.strip_prefix(SERVICE_ACCOUNT).and_then(|rest| rest.split_once(':'))
        {
            bound.insert("namespace".into(), namespace.into());
            bound.insert("serviceaccount".into(), json!({ "name": name, "uid": self.uid }));
        }
        for what in ["pod", "node"] {
            let one =
                |part: &str| match self.extra.get(&format!("{EXTRA}{what}-{part}"))?.as_slice() {
                    [one] => Some((part.to_string(), Value::from(one.as_str()))),
                    _ => None,
                };
            let parts: Map<String, Value> = ["name", "uid"].into_iter().filter_map(one).collect();
            if !parts.is_empty() {
                bound.insert(what.into(), parts.into());
            }
        }
        bound.into()
    }
}

fn refused(why: &str) -> Refusal {
    Refusal::Invalid(super::unacceptable(why))
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
