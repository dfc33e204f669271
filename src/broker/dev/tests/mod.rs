//! The provider and the broker behind it, as clients see them: over real sockets.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use reqwest::StatusCode;
use serde_json::{Value, json};
use url::Url;

use super::*;
use crate::broker::testbed::{claims_of, host};
use crate::oidc::jwt::{self, Expectations};
use crate::oidc::{Keys, discovery};
use crate::wire;

const VERIFIER: &str = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
/// RFC 7636 appendix B.
const CHALLENGE: &str = "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM";
const REDIRECT: &str = "http://127.0.0.1:9/callback";

mod login;
mod page;

struct Dev {
    running: DevBroker,
    client: reqwest::Client,
    _root: tempfile::TempDir,
}

/// An answer that was read to its end.
struct Answer {
    status: StatusCode,
    headers: reqwest::header::HeaderMap,
    text: String,
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.text).unwrap_or_else(|_| panic!("no JSON: {}", self.text))
    }

    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|v| v.to_str().unwrap()).unwrap_or_default()
    }

    fn location(&self) -> Url {
        Url::parse(self.header("location")).unwrap()
    }

    fn parameter(&self, name: &str) -> Option<String> {
        self.location().query_pairs().find(|(n, _)| n == name).map(|(_, v)| v.into_owned())
    }

    /// The value of a hidden field.
    fn field(&self, name: &str) -> String {
        let start = format!("name=\"{name}\" value=\"");
        let (_, rest) = self.text.split_once(&start).unwrap_or_else(|| panic!("{}", self.text));
        rest.split('"').next().unwrap().to_string()
    }

    fn cookie(&self) -> String {
        self.header("set-cookie").split(';').next().unwrap().to_string()
    }
}

impl Dev {
    fn start(auto_approve: bool) -> Self {
        let root = tempfile::tempdir().unwrap();
        let options = DevOptions { port: None, auto_approve };
        let running = start(&host(root.path()), options).unwrap();
        #[expect(clippy::disallowed_methods, reason = "redirects are looked at, not followed")]
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .unwrap();
        Self { running, client, _root: root }
    }

    fn url(&self, path: &str) -> Url {
        self.running.provider_issuer().join(path)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Answer {
        let response = request.send().await.unwrap();
        let (status, headers) = (response.status(), response.headers().clone());
        Answer { status, headers, text: response.text().await.unwrap() }
    }

    async fn get(&self, url: Url) -> Answer {
        self.send(self.client.get(url)).await
    }

    async fn post(&self, path: &str, form: &[(&str, &str)]) -> Answer {
        let mut all = vec![("client_id", self.running.client_id())];
        all.retain(|(name, _)| !form.iter().any(|(n, _)| n == name));
        all.extend(form);
        self.send(self.client.post(self.url(path)).form(&all)).await
    }

    /// An authorization request with changes: `""` takes a parameter away.
    fn authorize(&self, changes: &[(&str, &str)]) -> Url {
        let resource = self.running.issuer().as_str().to_string();
        let mut all: Vec<(&str, &str)> = vec![
            ("client_id", self.running.client_id()),
            ("redirect_uri", REDIRECT),
            ("response_type", "code"),
            ("scope", "openid offline_access"),
            ("state", "s t&a"),
            ("nonce", "n"),
            ("code_challenge", CHALLENGE),
            ("code_challenge_method", "S256"),
            ("resource", &resource),
        ];
        for (name, value) in changes {
            all.retain(|(n, _)| n != name);
            if !value.is_empty() {
                all.push((name, value));
            }
        }
        let mut url = self.url("authorize");
        url.query_pairs_mut().extend_pairs(all);
        url
    }

    /// A code, by way of an approval without a page.
    async fn code(&self) -> String {
        self.get(self.authorize(&[])).await.parameter("code").unwrap()
    }

    async fn redeem(&self, code: &str, changes: &[(&str, &str)]) -> Answer {
        let mut form = vec![
            ("grant_type", "authorization_code"),
            ("code", code),
            ("redirect_uri", REDIRECT),
            ("code_verifier", VERIFIER),
        ];
        for (name, value) in changes {
            form.retain(|(n, _)| n != name);
            if !value.is_empty() {
                form.push((name, value));
            }
        }
        self.post("token", &form).await
    }

    async fn refresh(&self, token: &str) -> Answer {
        self.post("token", &[("grant_type", "refresh_token"), ("refresh_token", token)]).await
    }

    async fn verify(&self, token: &str, audience: &str, nonce: Option<&str>) -> jwt::Claims {
        let keys = self.get(self.url("jwks.json")).await;
        let keys = Keys::parse(keys.text.as_bytes()).unwrap();
        let expected = Expectations {
            issuer: self.running.provider_issuer().as_str(),
            audiences: &[audience.to_string()],
            algorithms: jwt::ALGORITHMS,
            nonce,
            now: crate::broker::testbed::now(),
            leeway: jwt::LEEWAY,
        };
        jwt::verify(token, &keys, &expected).map_err(Error::from).unwrap()
    }

    /// Exchanges an access token of the provider at the broker.
    async fn exchange(&self, token: &str, role: &str) -> Answer {
        let form = [
            ("grant_type", wire::GRANT_TYPE),
            ("subject_token", token),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:access_token"),
            ("audience", AUDIENCE),
            ("role", role),
        ];
        self.send(self.client.post(self.running.issuer().join("token")).form(&form)).await
    }
}

#[tokio::test]
async fn documents_are_found_where_clients_look() {
    let dev = Dev::start(true);
    let issuer = dev.running.provider_issuer();
    let document = dev.get(issuer.join(discovery::WELL_KNOWN)).await.json();
    assert_eq!(document["issuer"], issuer.as_str());
    assert_eq!(document["code_challenge_methods_supported"], json!(["S256"]));
    assert_eq!(document["authorization_response_iss_parameter_supported"], true);
    let other =
        format!("{}.well-known/oauth-authorization-server/provider", dev.running.issuer().url());
    assert_eq!(dev.get(Url::parse(&other).unwrap()).await.json(), document);
    let broker = dev.get(dev.running.issuer().join(discovery::WELL_KNOWN)).await.json();
    assert_eq!(broker["issuer"], dev.running.issuer().as_str());
}

#[tokio::test]
async fn only_loopback_names_are_served() {
    let dev = Dev::start(true);
    for path in ["jwks.json", "authorize", "device"] {
        let request = dev.client.get(dev.url(path)).header("host", "evil.example");
        assert_eq!(dev.send(request).await.status, StatusCode::MISDIRECTED_REQUEST);
    }
    assert!(dev.running.issuer().url().host_str() == Some("127.0.0.1"));
}

#[tokio::test]
async fn the_suggested_configuration_is_one_that_can_be_planned() {
    let dev = Dev::start(false);
    let home = dev.get(dev.running.issuer().join("")).await;
    assert!(home.text.contains("default_profile") && home.text.contains(ROLE));
    let config = crate::config::parse("dev.toml", dev.running.configuration()).unwrap();
    let plan = crate::plan::plan(&Default::default(), &config).unwrap();
    assert_eq!((plan.request.role.as_str(), plan.request.audience.as_str()), (ROLE, AUDIENCE));
}

#[test]
fn it_ends_when_it_is_dropped_and_a_taken_port_is_told() {
    let dev = Dev::start(true);
    let port = dev.running.issuer().url().port().unwrap();
    let again = DevOptions { port: Some(port), auto_approve: true };
    let root = tempfile::tempdir().unwrap();
    let error = start(&host(root.path()), again).err().unwrap();
    assert!(error.to_string().contains("cannot listen"), "{error}");
    drop(dev);
    let running = start(&host(root.path()), again).unwrap();
    assert_eq!(running.issuer().url().port(), Some(port));
}
