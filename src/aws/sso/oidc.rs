//! Logging in at IAM Identity Center. What is OAuth elsewhere is JSON here, with names of its own.

use std::time::Duration;

use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use time::OffsetDateTime;
use url::Url;

use super::{Failure, Server, ask};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::http::{HttpClient, Request};
use crate::secret::Secret;

/// What people call it.
pub const WHO: &str = "IAM Identity Center";
/// The name that people see on the page where they agree.
const CLIENT_NAME: &str = "tmpcred";

/// The grant types.
pub mod grant {
    /// An authorization code.
    pub const CODE: &str = "authorization_code";
    /// The code of a device (RFC 8628).
    pub const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
    /// A refresh token.
    pub const REFRESH: &str = "refresh_token";
}

/// A client that has registered itself.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Registration {
    /// Its name.
    pub client_id: String,
    /// Its secret. It is asked for, but proves nothing: any program may register.
    pub client_secret: Secret<String>,
    /// When it ends, in seconds since 1970.
    pub client_secret_expires_at: i64,
}

/// What a person needs to log in with another device.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeviceCodes {
    /// What this program asks with.
    pub device_code: Secret<String>,
    /// What the person types.
    pub user_code: String,
    /// Where.
    pub verification_uri: String,
    /// The same place with the code in it.
    #[serde(default)]
    pub verification_uri_complete: Option<String>,
    /// How long both are good, in seconds.
    pub expires_in: u64,
    /// How often to ask, in seconds.
    #[serde(default)]
    pub interval: Option<u64>,
}

/// What a login or a renewal yields.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Tokens {
    /// What the portal is shown.
    pub access_token: Secret<String>,
    /// How long it is good, in seconds.
    pub expires_in: i64,
    /// What it is renewed with.
    #[serde(default)]
    pub refresh_token: Option<Secret<String>>,
}

impl Tokens {
    /// When the access token ends, for an answer that came at `now`.
    ///
    /// # Errors
    /// Where it cannot be told: a session without an end is none.
    pub fn expires_at(&self, now: OffsetDateTime) -> Result<OffsetDateTime> {
        let sound = !self.access_token.expose().is_empty()
            && self.access_token.expose().bytes().all(|byte| byte.is_ascii_graphic());
        Some(self.expires_in)
            .filter(|lasts| sound && *lasts > 0)
            .and_then(|lasts| now.checked_add(time::Duration::seconds(lasts)))
            .ok_or_else(|| {
                Error::new(
                    ErrorKind::Verification,
                    "the answer of IAM Identity Center is not what was asked for",
                )
                .because_of("it has no access token, or one without an end")
            })
    }
}

/// What is traded for tokens.
pub enum Grant<'a> {
    /// The code that the browser brought back.
    Code {
        /// The code.
        code: &'a Secret<String>,
        /// Where the browser came back to.
        redirect: &'a Url,
        /// What only whoever asked for the code has (RFC 7636).
        verifier: &'a Secret<String>,
    },
    /// The code of a device.
    Device(&'a Secret<String>),
    /// A refresh token.
    Refresh(&'a Secret<String>),
}

/// The service, ready to be asked.
pub struct Oidc<'a> {
    server: &'a Server,
    http: HttpClient,
}

impl<'a> Oidc<'a> {
    /// Asks this server.
    ///
    /// # Errors
    /// Where its file with certificate authorities cannot be read.
    pub fn new(host: &Host, server: &'a Server) -> Result<Self> {
        Ok(Self { server, http: host.http(server.ca_file())? })
    }

    /// Registers this program: for logins in a browser that come back to `redirect`
    /// (its port does not matter, RFC 8252 section 7.3), or with the code of a device.
    ///
    /// # Errors
    /// Whatever the service says.
    pub async fn register(
        &self,
        start_url: &str,
        scopes: &[String],
        redirect: Option<&str>,
    ) -> Result<Registration, Failure> {
        let mut body =
            json!({ "clientName": CLIENT_NAME, "clientType": "public", "scopes": scopes });
        match redirect {
            Some(redirect) => {
                body["grantTypes"] = json!([grant::CODE, grant::REFRESH]);
                body["redirectUris"] = json!([redirect]);
                body["issuerUrl"] = json!(start_url);
            }
            None => body["grantTypes"] = json!([grant::DEVICE, grant::REFRESH]),
        }
        self.post("/client/register", &body, &[]).await
    }

    /// The page at which the person logs in. It is no operation of the API; the
    /// AWS CLI goes there.
    ///
    /// # Errors
    /// Where the server's address is none.
    pub fn authorize_url(
        &self,
        client_id: &str,
        redirect: &Url,
        state: &str,
        challenge: &str,
        scopes: &[String],
    ) -> Result<Url> {
        let mut url = self.server.operation("/authorize")?;
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", client_id)
            .append_pair("redirect_uri", redirect.as_str())
            .append_pair("state", state)
            .append_pair("code_challenge_method", "S256")
            .append_pair("scopes", &scopes.join(" "))
            .append_pair("code_challenge", challenge);
        Ok(url)
    }

    /// Asks for the codes of a device.
    ///
    /// # Errors
    /// Whatever the service says.
    pub async fn start_device(
        &self,
        client: &Registration,
        start_url: &str,
    ) -> Result<DeviceCodes, Failure> {
        let body = json!({
            "clientId": client.client_id,
            "clientSecret": client.client_secret.expose(),
            "startUrl": start_url,
        });
        self.post("/device_authorization", &body, &[&client.client_secret]).await
    }

    /// Trades a code or a refresh token for tokens.
    ///
    /// # Errors
    /// Whatever the service says; `authorization_pending` while the person logs in.
    pub async fn create_token(
        &self,
        client: &Registration,
        grant: &Grant<'_>,
    ) -> Result<Tokens, Failure> {
        let mut body = json!({
            "clientId": client.client_id,
            "clientSecret": client.client_secret.expose(),
        });
        let mut put = |name: &str, value: &str| body[name] = json!(value);
        let mut sent = vec![&client.client_secret];
        match grant {
            Grant::Code { code, redirect, verifier } => {
                sent.extend([*code, *verifier]);
                put("grantType", grant::CODE);
                put("code", code.expose());
                put("redirectUri", redirect.as_str());
                put("codeVerifier", verifier.expose());
            }
            Grant::Device(code) => {
                sent.push(code);
                put("grantType", grant::DEVICE);
                put("deviceCode", code.expose());
            }
            Grant::Refresh(token) => {
                sent.push(token);
                put("grantType", grant::REFRESH);
                put("refreshToken", token.expose());
            }
        }
        self.post("/token", &body, &sent).await
    }

    async fn post<T: serde::de::DeserializeOwned>(
        &self,
        path: &str,
        body: &Value,
        sent: &[&Secret<String>],
    ) -> Result<T, Failure> {
        let body = Secret::new(body.to_string().into_bytes());
        let headers =
            HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static("application/json"))]);
        let url = self.server.operation(path)?;
        ask(&self.http, Request { method: Method::POST, url, headers, body }, sent, WHO).await
    }
}

impl DeviceCodes {
    /// How long the codes are good.
    pub fn good_for(&self) -> Duration {
        Duration::from_secs(self.expires_in)
    }
}

impl Registration {
    /// When it ends. Nonsense counts as ended.
    pub fn expires_at(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.client_secret_expires_at)
            .unwrap_or(OffsetDateTime::UNIX_EPOCH)
    }
}

impl Serialize for Registration {
    /// Writes the secret down: what is written is a secret itself, and rests in the keyring.
    fn serialize<S: serde::Serializer>(
        &self,
        serializer: S,
    ) -> std::result::Result<S::Ok, S::Error> {
        (json!({
            "clientId": self.client_id,
            "clientSecret": self.client_secret.expose(),
            "clientSecretExpiresAt": self.client_secret_expires_at,
        }))
        .serialize(serializer)
    }
}
