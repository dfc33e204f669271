//! What a session at IAM Identity Center may have.

use futures_util::stream::{self, StreamExt as _, TryStreamExt as _};
use reqwest::Method;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use serde::{Deserialize, Serialize};
use time::OffsetDateTime;

use super::{Failure, Server, checked, judged};
use crate::aws::AccountId;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::http::{HttpClient, Request};
use crate::reach::{self, Effort};
use crate::secret::Secret;

const WHO: &str = "the portal of IAM Identity Center";
/// Where the access token goes.
const TOKEN: HeaderName = HeaderName::from_static("x-amz-sso_bearer_token");
/// How much is asked for at once: the most that the API gives.
const PAGE: &str = "100";
/// More pages than this are a server that goes in circles.
const PAGES_MAX: usize = 200;
/// How many accounts are asked about at the same time. AWS slows down whoever asks more.
const AT_ONCE: usize = 4;

/// An account that the session may use.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize)]
pub struct Account {
    /// Its number.
    #[serde(rename(deserialize = "accountId"))]
    pub account_id: String,
    /// Its name.
    #[serde(default, rename(deserialize = "accountName"))]
    pub account_name: String,
}

/// An account, and a role that the session may use there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Available {
    /// The account.
    #[serde(flatten)]
    pub account: Account,
    /// The role: the name of a permission set.
    pub role: String,
}

/// The credentials of a role.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RoleCredentials {
    /// The access key ID.
    pub access_key_id: Secret<String>,
    /// The secret access key.
    pub secret_access_key: Secret<String>,
    /// The session token.
    pub session_token: Secret<String>,
    /// When they end, in milliseconds since 1970.
    expiration: i64,
}

impl RoleCredentials {
    /// When they end.
    ///
    /// # Errors
    /// Where a part is missing, or there is no end.
    pub fn checked(&self) -> Result<OffsetDateTime> {
        let wrong = |why: &str| {
            Error::new(
                ErrorKind::Verification,
                format!("the answer of {WHO} is not what was asked for"),
            )
            .because_of(why)
        };
        // They go into headers and variables as they are.
        let plain = |part: &String| !part.is_empty() && part.bytes().all(|b| b.is_ascii_graphic());
        let parts = [&self.access_key_id, &self.secret_access_key, &self.session_token];
        if !parts.iter().all(|part| plain(part.expose())) {
            return Err(wrong("a part is empty or has characters that no credential has"));
        }
        Some(self.expiration)
            .filter(|end| *end > 0)
            .and_then(|end| OffsetDateTime::from_unix_timestamp(end / 1000).ok())
            .ok_or_else(|| wrong("it does not say when the credentials end"))
    }
}

/// The service, ready to be asked in the name of a session.
pub struct Portal<'a> {
    host: &'a Host,
    server: &'a Server,
    token: &'a Secret<String>,
    http: HttpClient,
    effort: Effort,
    until: Option<OffsetDateTime>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Accounts {
    #[serde(default)]
    account_list: Vec<Account>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Roles {
    #[serde(default)]
    role_list: Vec<Role>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Role {
    role_name: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Given {
    role_credentials: RoleCredentials,
}

impl<'a> Portal<'a> {
    /// Asks this server, with an access token.
    ///
    /// # Errors
    /// Where its file with certificate authorities cannot be read.
    pub fn new(host: &'a Host, server: &'a Server, token: &'a Secret<String>) -> Result<Self> {
        let http = host.http(server.ca_file())?;
        Ok(Self { host, server, token, http, effort: Effort::LIST, until: None })
    }

    /// Does so much to get an answer, as long as the access token is good.
    #[must_use]
    pub fn with_effort(self, effort: Effort, until: OffsetDateTime) -> Self {
        Self { effort, until: Some(until), ..self }
    }

    /// The credentials of a role.
    ///
    /// # Errors
    /// Whatever the service says.
    pub async fn role_credentials(
        &self,
        account: &AccountId,
        role: &str,
    ) -> Result<RoleCredentials, Failure> {
        let query = [("role_name", role), ("account_id", account.as_str())];
        let given: Given = self.get("/federation/credentials", &query).await?;
        Ok(given.role_credentials)
    }

    /// All accounts and roles that the session may use, in order.
    ///
    /// # Errors
    /// Whatever the service says.
    pub async fn available(&self) -> Result<Vec<Available>, Failure> {
        let mut all: Vec<Available> = stream::iter(self.accounts().await?)
            .map(|account| async move {
                let roles = self.roles(&account.account_id).await?;
                let with = |role| Available { account: account.clone(), role };
                Ok::<_, Failure>(roles.into_iter().map(with).collect::<Vec<_>>())
            })
            .buffer_unordered(AT_ONCE)
            .try_concat()
            .await?;
        all.sort_by(|a, b| {
            let key = |one: &Available| {
                let Account { account_name, account_id } = one.account.clone();
                (account_name, account_id, one.role.clone())
            };
            key(a).cmp(&key(b))
        });
        Ok(all)
    }

    async fn accounts(&self) -> Result<Vec<Account>, Failure> {
        let mut all = Vec::new();
        let mut next = None;
        for _ in 0..PAGES_MAX {
            let page: Accounts = self.page("/assignment/accounts", &[], next.as_deref()).await?;
            all.extend(page.account_list);
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
        Err(endless().into())
    }

    async fn roles(&self, account: &str) -> Result<Vec<String>, Failure> {
        let mut all = Vec::new();
        let mut next = None;
        let query = [("account_id", account)];
        for _ in 0..PAGES_MAX {
            let page: Roles = self.page("/assignment/roles", &query, next.as_deref()).await?;
            all.extend(page.role_list.into_iter().map(|role| role.role_name));
            next = page.next_token.filter(|token| !token.is_empty());
            if next.is_none() {
                return Ok(all);
            }
        }
        Err(endless().into())
    }

    /// Ends the session.
    ///
    /// # Errors
    /// Whatever the service says.
    pub async fn logout(&self) -> Result<(), Failure> {
        let request = self.request(Method::POST, "/logout", &[])?;
        checked(&self.http, request, &[self.token], WHO).await.map(|_| ())
    }

    async fn page<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
        next: Option<&str>,
    ) -> Result<T, Failure> {
        let mut query = query.to_vec();
        query.push(("max_result", PAGE));
        query.extend(next.map(|token| ("next_token", token)));
        self.get(path, &query).await
    }

    async fn get<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        query: &[(&str, &str)],
    ) -> Result<T, Failure> {
        let attempt = async |_: &str| {
            let response = self.http.send(self.request(Method::GET, path, query)?).await?;
            match response.outage(WHO) {
                Some(outage) => {
                    Err(reach::Failure::of(outage, &response, self.host.corrected_now()))
                }
                None => Ok(response),
            }
        };
        let addresses = [self.server.url()];
        let asked = reach::ask(self.host, WHO, &addresses, self.effort, self.until, attempt);
        let response = judged(asked.await?, &[self.token], WHO)?;
        Ok(response.json(&format!("the answer of {WHO}"))?)
    }

    fn request(&self, method: Method, path: &str, query: &[(&str, &str)]) -> Result<Request> {
        let mut url = self.server.operation(path)?;
        if !query.is_empty() {
            url.query_pairs_mut().extend_pairs(query);
        }
        let mut token = HeaderValue::try_from(self.token.expose()).map_err(|_| {
            Error::new(ErrorKind::Verification, "the access token cannot be sent")
                .because_of("it has characters that no header has")
        })?;
        token.set_sensitive(true);
        let headers = HeaderMap::from_iter([(TOKEN, token)]);
        Ok(Request { method, url, headers, body: Secret::new(Vec::new()) })
    }
}

fn endless() -> Error {
    Error::new(ErrorKind::Verification, format!("the answer of {WHO} has no end"))
}
