//! A broker on a real socket, and an issuer that it trusts, for tests.

pub(crate) mod failing;
pub(crate) mod logged;

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use axum::http::{HeaderMap, Method};
use axum_server::Handle;
use axum_server::tls_rustls::RustlsConfig;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use serde_json::{Value, json};
use time::OffsetDateTime;
use url::Url;

use super::audit::{Decision, Record};
use super::config::{self, Config, Policy, Role, TokenFormat, TrustedIssuer};
use super::http::connections::Connections;
use super::http::guard::Guard;
use super::http::hosts::Hosts;
use super::keys::{RootKey, SigningKey};
use super::policy::Source;
use super::store::{Store, sqlite};
use super::told;
use super::{Broker, Parts, http, serve};
use crate::credential::TokenType;
use crate::host::Host;
use crate::host::clock::{Clock, SkewMeter, SystemClock};
use crate::host::env::Env;
use crate::host::http::{HttpClient, Request, Response};
use crate::host::listener::{self, Exposure};
use crate::oidc::Issuer;
use crate::secret::Secret;
use crate::wire;

/// The audience of the role `deploy`.
pub(crate) const API: &str = "https://api.example.com";

/// The issuer whose keys are in a file.
pub(crate) const CORP: &str = "https://login.example.com";

/// A host of its own, in a directory of its own.
pub(crate) fn host(root: &std::path::Path) -> Host {
    Host {
        clock: Arc::new(SystemClock),
        env: Env::from_pairs([("USER", "tester")]),
        dirs: crate::host::dirs::Dirs::below(root),
        browser: Arc::new(crate::host::browser::SystemBrowser),
        interact: Arc::new(crate::host::interact::Silent),
        skew: SkewMeter::default(),
    }
}

/// Keys of an issuer.
pub(crate) struct IssuerKey(pub(crate) SigningKey);

impl IssuerKey {
    pub(crate) fn new() -> Self {
        Self(SigningKey::generate().unwrap().0)
    }

    pub(crate) fn jwks(&self) -> Value {
        json!({"keys": [self.0.public()]})
    }

    /// A token with these claims over the usual ones; `null` takes one away.
    pub(crate) fn token(&self, claims: Value) -> String {
        self.0.sign("JWT", &self.claims(claims)).unwrap().expose().clone()
    }

    pub(crate) fn claims(&self, changed: Value) -> Value {
        let now = SystemClock.now().unix_timestamp();
        let mut claims = json!({
            "iss": CORP, "sub": "alice", "aud": "https://broker.example.com",
            "iat": now, "exp": now + 300, "groups": ["platform"], "azp": "cli",
        });
        for (name, value) in changed.as_object().unwrap() {
            match value {
                Value::Null => claims.as_object_mut().unwrap().remove(name),
                value => claims.as_object_mut().unwrap().insert(name.clone(), value.clone()),
            };
        }
        claims
    }

    /// A token of somebody else who brings the public half of their own key along.
    pub(crate) fn token_with_own_key(&self, kid: Option<String>, claims: Value) -> String {
        let (own, pkcs8) = SigningKey::generate().unwrap();
        let mut header = header();
        header.kid = kid;
        header.jwk = Some(own.public().clone());
        let key = EncodingKey::from_ec_der(pkcs8.expose());
        jsonwebtoken::encode(&header, &self.claims(claims), &key).unwrap()
    }

    /// A token with another header, signed by another key.
    pub(crate) fn token_with_header(&self, header: &Header, claims: Value) -> String {
        let (other, pkcs8) = SigningKey::generate().unwrap();
        drop(other);
        let key = EncodingKey::from_ec_der(pkcs8.expose());
        jsonwebtoken::encode(header, &self.claims(claims), &key).unwrap()
    }
}

/// What a broker of a test is like.
pub(crate) struct Options {
    pub(crate) config: Config,
    pub(crate) policies: String,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) root_key: RootKey,
}

/// A running broker.
pub(crate) struct Bed {
    _root: tempfile::TempDir,
    pub(crate) address: SocketAddr,
    pub(crate) key: IssuerKey,
    pub(crate) store: Arc<dyn Store>,
    pub(crate) client: HttpClient,
    pub(crate) issuer: Issuer,
    /// The listener for those who run it.
    pub(crate) admin: Served,
    pub(crate) broker: Arc<Broker>,
    pub(crate) guard: Guard,
    _served: Served,
    scheme: &'static str,
}

/// Endpoints on a loopback port of their own. They end when this is dropped.
pub(crate) struct Served {
    pub(crate) address: SocketAddr,
    handle: Handle<SocketAddr>,
}

impl Drop for Served {
    fn drop(&mut self) {
        self.handle.shutdown();
    }
}

impl Served {
    /// Serves what is made once the address is known.
    pub(crate) fn start(
        app: impl FnOnce(SocketAddr) -> axum::Router,
        tls: Option<RustlsConfig>,
    ) -> Self {
        Self::within(app, tls, Connections::default())
    }

    /// Serves over these connections.
    pub(crate) fn within(
        app: impl FnOnce(SocketAddr) -> axum::Router,
        tls: Option<RustlsConfig>,
        connections: Connections,
    ) -> Self {
        let listener = listener::bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
        let address = listener.local_addr().unwrap();
        let handle = Handle::new();
        tokio::spawn(serve::run(listener, tls, app(address), handle.clone(), connections));
        Self { address, handle }
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        let client = HttpClient::new(Arc::new(SystemClock), SkewMeter::default(), None);
        let url = format!("http://{}{path}", self.address);
        client.get(&Url::parse(&url).unwrap()).await.unwrap()
    }
}

pub(crate) fn set(text: &str) -> BTreeSet<String> {
    text.split_ascii_whitespace().map(String::from).collect()
}

/// Everybody of the issuer may deploy; Mallory may not.
fn policies() -> String {
    format!(
        r#"
@id("deployers")
@ttl("15m")
@scope("deploy:read deploy:write")
permit (principal in Group::"{CORP}#platform", action == Action::"issue", resource == Role::"deploy");

@id("not-mallory")
forbid (principal == User::"{CORP}#mallory", action, resource);
"#
    )
}

impl Bed {
    pub(crate) async fn new() -> Self {
        Self::with(|_| {}).await
    }

    /// A broker with changes to the usual options.
    pub(crate) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        Self::start(change, None, None).await
    }

    /// A broker that speaks TLS with this certificate and key, and a client that
    /// trusts `ca`.
    pub(crate) async fn over_tls(certificate: &str, key: &str, ca: &str) -> Self {
        let (certificate, key) = (certificate.to_string(), key.to_string());
        Self::start(|_| {}, Some((certificate, key)), Some(ca.as_bytes().to_vec())).await
    }

    async fn start(
        change: impl FnOnce(&mut Options),
        tls: Option<(String, String)>,
        ca: Option<Vec<u8>>,
    ) -> Self {
        let root = tempfile::tempdir().unwrap();
        let key = IssuerKey::new();
        let jwks = root.path().join("jwks.json");
        crate::host::files::write_private(&jwks, key.jwks().to_string().as_bytes()).unwrap();
        let mut corp = TrustedIssuer::new(Issuer::parse(CORP).unwrap());
        corp.jwks_file = Some(jwks);
        let role = Role {
            audiences: set(API),
            scopes: set("deploy:read deploy:write deploy:admin"),
            max_ttl: Duration::from_secs(3600),
            ends_with_token: false,
            dpop: Default::default(),
            token_format: TokenFormat::Jwt,
            ttl_jitter: Duration::ZERO,
            aws: None,
            claims: told::claims::Settings::default(),
            elevation: None,
        };
        let mut options = Options {
            config: Config {
                path: None,
                issuer: Issuer::parse("https://broker.example.com").unwrap(),
                listen: ([127, 0, 0, 1], 0).into(),
                expose: false,
                trusted_proxies: Vec::new(),
                forwarded_header: Default::default(),
                watch_every: None,
                tls: None,
                admin: None,
                store: config::Store::at(root.path().join("broker.db")),
                keys: config::Keys::default(),
                dpop: config::Dpop::default(),
                limits: Default::default(),
                authz: None,
                audit: config::Audit::default(),
                notify: Default::default(),
                log: config::Log::default(),
                origins: config::Origins::default(),
                telemetry: config::Telemetry::default(),
                directory: None,
                web: None,
                enrollment: Default::default(),
                trusted_issuer: [("corp".to_string(), corp)].into(),
                client: Default::default(),
                policy: Policy { files: vec!["policy.cedar".into()] },
                role: [("deploy".to_string(), role)].into(),
            },
            policies: policies(),
            store: Arc::new(sqlite::in_memory().await.unwrap()),
            clock: Arc::new(SystemClock),
            root_key: RootKey::random().unwrap(),
        };
        change(&mut options);
        options.config.check().unwrap();
        let host = Host { clock: options.clock, ..host(root.path()) };
        let parts = Parts {
            store: options.store.clone(),
            root_key: options.root_key,
            policies: vec![Source { path: "policy.cedar".into(), text: options.policies }],
        };
        let broker = Arc::new(Broker::assemble(&options.config, parts, &host).await.unwrap());
        let proxies = options.config.trusted_proxies.clone();
        let header = options.config.forwarded_header;
        let guard = Guard::new(Hosts::Loopback(options.config.hosts()));
        let guard = guard.believing(proxies, header).counting(broker.metrics());
        let connections = guard.connections();
        let admin = Guard::new(Hosts::Loopback(Vec::new()));
        let seen = http::admin::routes(broker.clone(), connections.clone(), &admin);
        let admin = Served::start(|_| http::guarded(seen, admin), None);
        let app = http::guarded(http::routes(broker.clone(), &guard), guard.clone());
        let scheme = if tls.is_some() { "https" } else { "http" };
        let tls = match tls {
            Some((certificate, key)) => Some(
                RustlsConfig::from_pem(certificate.into_bytes(), key.into_bytes()).await.unwrap(),
            ),
            None => None,
        };
        let served = Served::within(|_| app, tls, connections);
        let client = HttpClient::new(Arc::new(SystemClock), SkewMeter::default(), ca);
        Self {
            _root: root,
            address: served.address,
            key,
            store: options.store,
            client,
            issuer: options.config.issuer,
            admin,
            broker,
            guard,
            _served: served,
            scheme,
        }
    }

    pub(crate) fn url(&self, path: &str) -> Url {
        let host = if self.scheme == "https" { "localhost" } else { "127.0.0.1" };
        Url::parse(&format!("{}://{host}:{}{path}", self.scheme, self.address.port())).unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Response {
        self.client.get(&self.url(path)).await.unwrap()
    }

    /// The records of what was asked for, which are those after the first `after`; how its
    /// own keys came about is on record as well.
    pub(crate) async fn records(&self, after: usize, limit: usize) -> Vec<(u64, Record)> {
        let all = self.store.records(0, u32::MAX).await.unwrap();
        let asked = all.into_iter().filter(|(_, record)| record.decision != Decision::Changed);
        asked.skip(after).take(limit).collect()
    }

    /// A request for a token as it should be, with changes: `""` takes one away.
    pub(crate) fn form(&self, token: &str, changes: &[(&str, &str)]) -> Vec<(String, String)> {
        let mut form: Vec<(String, String)> = [
            ("grant_type", wire::GRANT_TYPE),
            ("subject_token", token),
            ("subject_token_type", TokenType::Jwt.urn()),
            ("audience", API),
            ("role", "deploy"),
        ]
        .map(|(name, value)| (name.to_string(), value.to_string()))
        .into();
        for (name, value) in changes {
            form.retain(|(n, _)| n != name);
            if !value.is_empty() {
                form.push((name.to_string(), value.to_string()));
            }
        }
        form
    }

    pub(crate) async fn post(&self, path: &str, form: &[(String, String)]) -> Response {
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        self.post_raw(path, "application/x-www-form-urlencoded", body.as_bytes()).await
    }

    pub(crate) async fn post_raw(&self, path: &str, kind: &str, body: &[u8]) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", kind.parse().unwrap());
        let request = Request {
            method: Method::POST,
            url: self.url(path),
            headers,
            body: Secret::new(body.to_vec()),
        };
        self.client.send(request).await.unwrap()
    }

    /// Asks for a token with this subject token and these changes.
    pub(crate) async fn exchange(&self, token: &str, changes: &[(&str, &str)]) -> Response {
        self.post("/token", &self.form(token, changes)).await
    }

    /// A token for the subject of these claims.
    pub(crate) async fn issued(&self, claims: Value, changes: &[(&str, &str)]) -> String {
        let response = self.exchange(&self.key.token(claims), changes).await;
        let grant = json_of(&response);
        assert_eq!(response.status.as_u16(), 200, "{grant}");
        grant["access_token"].as_str().unwrap().to_string()
    }

    /// Asks for a token to be revoked, and returns the status.
    pub(crate) async fn revoke(&self, token: &str) -> u16 {
        self.post("/revoke", &[("token".into(), token.into())]).await.status.as_u16()
    }

    /// Asks what a token is, with this proof of who asks.
    pub(crate) async fn introspect(&self, bearer: Option<&str>, token: &str) -> Response {
        let mut headers = HeaderMap::new();
        headers.insert("content-type", "application/x-www-form-urlencoded".parse().unwrap());
        if let Some(bearer) = bearer {
            headers.insert("authorization", format!("Bearer {bearer}").parse().unwrap());
        }
        let form = [("token", token)];
        let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
        let body = Secret::new(body.into_bytes());
        let url = self.url("/introspect");
        self.client.send(Request { method: Method::POST, url, headers, body }).await.unwrap()
    }

    /// Asks for a token, and has to be refused.
    pub(crate) async fn refused(&self, token: &str, changes: &[(&str, &str)]) -> Value {
        let response = self.exchange(token, changes).await;
        assert!(!response.status.is_success(), "{:?}", json_of(&response));
        json_of(&response)
    }
}

pub(crate) fn json_of(response: &Response) -> Value {
    serde_json::from_slice(response.body.expose()).unwrap()
}

/// The claims of a token, without checking it.
pub(crate) fn claims_of(token: &str) -> Value {
    Value::Object(crate::oidc::jwt::decode_unverified(token).unwrap().claims)
}

/// A header for an ES256 token.
pub(crate) fn header() -> Header {
    Header::new(Algorithm::ES256)
}

/// A clock that is ahead by so many seconds.
#[derive(Default)]
pub(crate) struct Shifted(pub(crate) AtomicI64);

impl Clock for Shifted {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + time::Duration::seconds(self.0.load(Ordering::Relaxed))
    }
}

/// A clock that stands still, until it is set: no test that goes by it depends on how fast it runs.
pub(crate) struct Standing(AtomicI64);

impl Default for Standing {
    /// At this second.
    fn default() -> Self {
        Self(now().unix_timestamp().into())
    }
}

impl Standing {
    /// What it shows, in seconds since 1970.
    pub(crate) fn seconds(&self) -> i64 {
        self.0.load(Ordering::Relaxed)
    }

    /// Sets it to so many seconds since 1970.
    pub(crate) fn set(&self, seconds: i64) {
        self.0.store(seconds, Ordering::Relaxed);
    }
}

impl Clock for Standing {
    fn now(&self) -> OffsetDateTime {
        OffsetDateTime::from_unix_timestamp(self.seconds()).unwrap()
    }
}

/// A moment, to compare with what is near it.
pub(crate) fn now() -> OffsetDateTime {
    SystemClock.now()
}
