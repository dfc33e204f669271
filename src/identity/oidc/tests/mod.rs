//! Tests with a provider that misbehaves on purpose. What real providers do is
//! tested end to end, with real ones.

mod code;
mod device;
mod listener;
mod refresh;
mod source;

use std::sync::{Arc, Mutex};

use jsonwebtoken::{EncodingKey, Header};
use reqwest::header::LOCATION;
use serde_json::{Value, json};
use tempfile::TempDir;
use url::Url;

use super::provider::Provider;
use super::{Flow, Settings};
use crate::error::Result;
use crate::host::Host;
use crate::host::browser::Browser;
use crate::host::clock::{Clock, SystemClock};
use crate::host::interact::{DevicePrompt, Interact, Waiting};
use crate::host::test_server::{self, Arrived, Reply, TestServer};
use crate::oidc::NoDocuments;
use crate::oidc::jwt::Algorithm;
use crate::oidc::keys::tests::es256;
use crate::reach::Effort;

/// The audience of the tests.
pub(super) const BROKER: &str = "https://broker.example";

/// Settings for an issuer, with everything else left out.
pub(super) fn settings(issuer: &str) -> Settings {
    serde_json::from_value(json!({"issuer": issuer, "client_id": "cli"})).unwrap()
}

/// What a provider of these tests knows while it answers.
pub(super) struct Scene<'a> {
    /// The request.
    pub(super) request: &'a Arrived,
    /// Its own name.
    pub(super) issuer: &'a str,
    key: &'a EncodingKey,
    /// The login page that was opened last.
    page: Option<Url>,
}

impl Scene<'_> {
    /// A parameter of the request.
    pub(super) fn asked(&self, name: &str) -> &str {
        self.request.form.get(name).map_or("", String::as_str)
    }

    /// A token with these claims, signed.
    pub(super) fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some("k".into());
        jsonwebtoken::encode(&header, claims, self.key).unwrap()
    }

    /// A good ID token, but for `twist`.
    pub(super) fn id_token(&self, twist: Value) -> String {
        let now = SystemClock.now().unix_timestamp();
        let mut claims = json!({
            "iss": self.issuer, "sub": "alice", "aud": "cli", "iat": now, "exp": now + 3600,
        });
        if let Some(nonce) = self.page.as_ref().and_then(|page| parameter(page, "nonce")) {
            claims["nonce"] = json!(nonce);
        }
        merge(&mut claims, twist);
        self.sign(&claims)
    }

    /// A good access token for an audience, but for `twist`.
    pub(super) fn access_token(&self, audience: &str, twist: Value) -> String {
        let mut claims = json!({"aud": audience, "nonce": null});
        merge(&mut claims, twist);
        self.id_token(claims)
    }

    /// A good answer of the token endpoint, but for `twist`.
    pub(super) fn tokens(&self, twist: Value) -> Reply {
        let mut answer = json!({
            "access_token": "opaque", "token_type": "Bearer", "expires_in": 3600,
            "refresh_token": "refresh-1", "id_token": self.id_token(json!({})),
        });
        merge(&mut answer, twist);
        Reply::json(200, &answer)
    }

    /// A refusal.
    pub(super) fn refuse(&self, code: &str) -> Reply {
        Reply::json(400, &json!({"error": code, "error_description": "the provider's words"}))
    }
}

fn merge(into: &mut Value, twist: Value) {
    let Value::Object(twist) = twist else { panic!("a twist is an object") };
    for (name, value) in twist {
        into[name] = value;
    }
}

/// A parameter of an address.
pub(super) fn parameter(url: &Url, name: &str) -> Option<String> {
    url.query_pairs().find(|(n, _)| n == name).map(|(_, value)| value.into_owned())
}

/// A person, a machine, and a provider that does what a test says.
pub(super) struct World {
    pub(super) server: TestServer,
    pub(super) settings: Settings,
    pub(super) host: Host,
    pub(super) person: Arc<Person>,
    _dir: TempDir,
}

impl World {
    /// A world whose provider answers all but discovery and keys by `answer`.
    pub(super) fn new(
        discovery: Value,
        answer: impl Fn(&Scene<'_>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        Self::discovered(discovery, || None, answer)
    }

    /// The same, where the discovery document may be something else.
    pub(super) fn discovered(
        discovery: Value,
        instead: impl Fn() -> Option<Reply> + Send + Sync + 'static,
        answer: impl Fn(&Scene<'_>) -> Reply + Send + Sync + 'static,
    ) -> Self {
        let (key, jwk) = es256("k");
        let person = Arc::new(Person::default());
        let watched = person.clone();
        let server = TestServer::start(move |request, issuer| match request.path.as_str() {
            "/.well-known/openid-configuration" => {
                let mut document = json!({
                    "issuer": issuer,
                    "authorization_endpoint": format!("{issuer}/login"),
                    "token_endpoint": format!("{issuer}/token"),
                    "device_authorization_endpoint": format!("{issuer}/device"),
                    "revocation_endpoint": format!("{issuer}/revoke"),
                    "jwks_uri": format!("{issuer}/keys"),
                });
                merge(&mut document, discovery.clone());
                instead().unwrap_or_else(|| Reply::json(200, &document))
            }
            "/keys" => Reply::json(200, &json!({"keys": [jwk]})),
            _ => {
                let page = watched.pages.lock().unwrap().last().cloned();
                answer(&Scene { request, issuer, key: &key, page })
            }
        });
        let dir = tempfile::tempdir().unwrap();
        let mut host = test_server::host(dir.path(), time::Duration::ZERO);
        host.interact = person.clone();
        host.browser = person.clone();
        Self { settings: settings(&server.origin), server, host, person, _dir: dir }
    }

    /// The provider, as the source sees it.
    pub(super) async fn provider(&self) -> Provider<'_> {
        Provider::open(&self.host, &self.settings, &NoDocuments, Effort::LOOK).await.unwrap()
    }
}

type Habit = Box<dyn Fn(Url) + Send + Sync>;

/// A person with a browser, who notes what is shown.
#[derive(Default)]
pub(super) struct Person {
    /// What the person does with a page: the browser shows none otherwise.
    habit: Mutex<Option<Arc<Habit>>>,
    pub(super) absent: std::sync::atomic::AtomicBool,
    pub(super) pages: Arc<Mutex<Vec<Url>>>,
    pub(super) shown: Mutex<Vec<(Url, bool)>>,
    pub(super) prompts: Mutex<Vec<DevicePrompt>>,
    pub(super) told: Mutex<Vec<String>>,
}

impl Person {
    /// From now on, pages are opened, and this is done with each.
    pub(super) fn browses(&self, habit: impl Fn(Url) + Send + Sync + 'static) {
        *self.habit.lock().unwrap() = Some(Arc::new(Box::new(habit)));
    }

    /// From now on, each login page leads back with these parameters at once.
    pub(super) fn comes_back_with(
        self: &Arc<Self>,
        parameters: &'static [(&'static str, &'static str)],
    ) {
        let person = self.clone();
        self.browses(move |page| {
            let mut next = Some(back(&page, parameters));
            while let Some(url) = next.take() {
                let visit = visit(&url);
                if let Some(page) = visit.location {
                    person.pages.lock().unwrap().push(page.clone());
                    next = Some(back(&page, parameters));
                }
            }
        });
    }

    pub(super) fn told(&self) -> Vec<String> {
        self.told.lock().unwrap().clone()
    }
}

impl Browser for Person {
    fn open(&self, url: &Url) -> Result<()> {
        let habit = self.habit.lock().unwrap().clone();
        let habit = habit.ok_or_else(|| {
            crate::error::Error::new(crate::error::ErrorKind::Io, "the browser does not start")
        })?;
        let (url, pages) = (url.clone(), self.pages.clone());
        std::thread::spawn(move || {
            let page = visit(&url).location.expect("the first page leads on");
            pages.lock().unwrap().push(page.clone());
            habit(page);
        });
        Ok(())
    }
}

struct NoWait;
impl Waiting for NoWait {}

impl Interact for Person {
    fn may_ask(&self) -> bool {
        !self.absent.load(std::sync::atomic::Ordering::Relaxed)
    }
    fn may_browse(&self) -> bool {
        self.may_ask()
    }
    fn note(&self, line: &str) {
        self.told.lock().unwrap().push(line.into());
    }
    fn warn(&self, line: &str) {
        self.told.lock().unwrap().push(line.into());
    }
    fn login_page(&self, url: &Url, opened: bool) {
        self.shown.lock().unwrap().push((url.clone(), opened));
    }
    fn device_code(&self, prompt: &DevicePrompt) {
        self.prompts.lock().unwrap().push(prompt.clone());
    }
    fn waiting(&self, _: &str) -> Box<dyn Waiting> {
        Box::new(NoWait)
    }
}

/// The address to which a login page leads back, with its `state` and these
/// parameters.
pub(super) fn back(page: &Url, parameters: &[(&str, &str)]) -> Url {
    let mut url = Url::parse(&parameter(page, "redirect_uri").unwrap()).unwrap();
    let state = parameter(page, "state").unwrap();
    url.query_pairs_mut().append_pair("state", &state).extend_pairs(parameters);
    url
}

/// What a browser got.
pub(super) struct Visit {
    pub(super) status: u16,
    pub(super) headers: reqwest::header::HeaderMap,
    pub(super) location: Option<Url>,
    pub(super) body: String,
}

/// Fetches a page as a browser does, but follows nothing.
pub(super) fn visit(url: &Url) -> Visit {
    visit_with(reqwest::Method::GET, url, &[])
}

#[expect(clippy::disallowed_methods, reason = "a browser, not our own client")]
pub(super) fn visit_with(method: reqwest::Method, url: &Url, headers: &[(&str, &str)]) -> Visit {
    let client = reqwest::Client::builder()
        .redirect(reqwest::redirect::Policy::none())
        .no_proxy()
        .build()
        .unwrap();
    let mut request = client.request(method, url.clone());
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    test_server::run(async {
        let response = request.send().await.unwrap();
        let location = response.headers().get(LOCATION).map(|l| l.to_str().unwrap().to_string());
        Visit {
            status: response.status().as_u16(),
            headers: response.headers().clone(),
            location: location.map(|l| Url::parse(&l).unwrap()),
            body: response.text().await.unwrap(),
        }
    })
}

#[test]
fn settings_say_what_is_wrong_with_them() {
    let read = |more: Value| {
        let mut settings = json!({"issuer": "https://i.example", "client_id": "cli"});
        merge(&mut settings, more);
        serde_json::from_value::<Settings>(settings).map_err(|error| error.to_string())
    };
    assert_eq!(read(json!({"flow": "device"})).unwrap().flow, Flow::Device);
    for path in ["callback", "/a?b", "/a#b", ""] {
        assert!(read(json!({"redirect_path": path})).unwrap_err().contains("starts with '/'"));
    }
    assert!(read(json!({"login_parameters": {"prompt": "consent"}})).is_ok());
    let error = read(json!({"login_parameters": {"state": "x"}})).unwrap_err();
    assert!(error.contains("`state` is set by tmpcred itself"), "{error}");
}

#[test]
fn a_login_always_asks_who_logged_in() {
    let mut settings = settings("https://i.example");
    assert_eq!(settings.all_scopes(), ["openid", "offline_access"]);
    settings.scopes = vec!["profile".into()];
    assert_eq!(settings.all_scopes(), ["openid", "profile"]);
}
