//! Logging in at real OpenID providers, through the library.

#[cfg(feature = "broker")]
mod exchange;
mod glewlwyd;
mod oidc_provider;
mod slow_down;
mod step_up;
mod storm;
mod strangers;

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use time::OffsetDateTime;
use tmpcred::cache::{Cache, SessionKey, StoreChoice};
use tmpcred::credential::{Assertion, Principal};
use tmpcred::error::Result;
use tmpcred::host::browser::Browser as Opener;
use tmpcred::host::clock::{Clock, SkewMeter, SystemClock};
use tmpcred::host::interact::{DevicePrompt, Interact, Waiting};
use tmpcred::host::{Host, dirs, env, process};
use tmpcred::identity::oidc::{Oidc, Settings};
use tmpcred::identity::{Context, IdentitySource, LoginOptions, Logout};
use url::Url;

use crate::support::browser::{Browser, Installed};
use crate::support::home::Home;
use crate::support::oidc_provider::CLIENT;
use crate::support::run::Running;

const BROKER: &str = "https://broker.example.com";
const OTHER: &str = "https://other.example.com";
const LONG: Duration = Duration::from_secs(60);

/// The machine's clock, set wrong by so many seconds.
struct WrongClock(i64);

impl Clock for WrongClock {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now() + time::Duration::seconds(self.0)
    }
}

/// How a person reads a page: a browser starts.
type Reads = Box<dyn Fn(&Url) -> Running + Send + Sync>;

/// What a person does with the code of a device.
type Types = Box<dyn Fn(&DevicePrompt) + Send + Sync>;

/// A person at the terminal, with a browser.
struct Person {
    reads: Reads,
    types: Option<Types>,
    absent: AtomicBool,
    prints_only: bool,
    running: Mutex<Vec<Running>>,
    pages: Mutex<Vec<(Url, bool)>>,
    prompts: Mutex<Vec<DevicePrompt>>,
    told: Mutex<Vec<String>>,
}

impl Person {
    /// Somebody who reads pages like this, and types no codes.
    fn who_reads(reads: impl Fn(&Url) -> Running + Send + Sync + 'static) -> Self {
        Self {
            reads: Box::new(reads),
            types: None,
            absent: AtomicBool::new(false),
            prints_only: false,
            running: Mutex::default(),
            pages: Mutex::default(),
            prompts: Mutex::default(),
            told: Mutex::default(),
        }
    }
}

impl Opener for Person {
    fn open(&self, url: &Url) -> Result<()> {
        self.running.lock().unwrap().push((self.reads)(url));
        Ok(())
    }
}

struct NoWait;
impl Waiting for NoWait {}

impl Interact for Person {
    fn may_ask(&self) -> bool {
        !self.absent.load(Ordering::Relaxed)
    }
    fn may_browse(&self) -> bool {
        !self.prints_only
    }
    fn note(&self, line: &str) {
        self.told.lock().unwrap().push(line.into());
    }
    fn warn(&self, line: &str) {
        self.told.lock().unwrap().push(line.into());
    }
    fn login_page(&self, url: &Url, opened: bool) {
        self.pages.lock().unwrap().push((url.clone(), opened));
    }
    fn device_code(&self, prompt: &DevicePrompt) {
        self.prompts.lock().unwrap().push(prompt.clone());
        if let Some(types) = &self.types {
            types(prompt);
        }
    }
    fn waiting(&self, _: &str) -> Box<dyn Waiting> {
        Box::new(NoWait)
    }
}

/// A person at a terminal, and a source in their configuration.
struct World {
    home: Arc<Home>,
    person: Arc<Person>,
    host: Host,
    cache: Cache,
    source: Oidc,
    issuer: String,
    client: String,
    scopes: String,
}

/// What a person waits for with a code in hand, and whether they type it then.
type Waits = Arc<dyn Fn() -> bool + Send + Sync>;

/// How a [`World`] is to be.
struct Plan {
    settings: Value,
    browser: Browser,
    clock: i64,
    store: StoreChoice,
    prints_only: bool,
    waits: Waits,
}

impl Plan {
    fn new(issuer: &str) -> Self {
        Self {
            settings: json!({"issuer": issuer, "client_id": CLIENT}),
            browser: Browser::http(),
            clock: 0,
            store: StoreChoice::Memory,
            prints_only: false,
            waits: Arc::new(|| true),
        }
    }

    /// The person types a code once this has returned, if it is true.
    fn types_when(mut self, waits: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        self.waits = Arc::new(waits);
        self
    }

    fn set(mut self, name: &str, value: Value) -> Self {
        self.settings[name] = value;
        self
    }

    fn store(mut self, store: StoreChoice) -> Self {
        self.store = store;
        self
    }

    fn browser(mut self, browser: Browser) -> Self {
        self.browser = browser;
        self
    }

    fn build(self) -> (World, Installed) {
        let mut home = Home::new();
        let installed = self.browser.clone().install(&mut home);
        let home = Arc::new(home);
        let (opening, typing, code) = (home.clone(), home.clone(), self.browser.clone());
        let waits = self.waits.clone();
        let person = Arc::new(Person {
            types: Some(Box::new(move |prompt| {
                let (home, browser, prompt) = (typing.clone(), code.clone(), prompt.clone());
                let waits = waits.clone();
                std::thread::spawn(move || {
                    let url = prompt.verification_uri.as_str();
                    if waits() {
                        browser.visit_with_code(&home, url, Some(&prompt.user_code));
                    }
                });
            })),
            prints_only: self.prints_only,
            ..Person::who_reads(move |url| start_browser(&opening, url))
        });
        let host = host(&home.path(""), person.clone(), self.clock);
        let world = World {
            cache: Cache::new(host.clone(), self.store),
            issuer: self.settings["issuer"].as_str().unwrap().into(),
            client: self.settings["client_id"].as_str().unwrap().into(),
            scopes: match &self.settings["scopes"] {
                Value::Null => "offline_access openid".into(),
                scopes => scopes[0].as_str().unwrap().into(),
            },
            source: Oidc::new("corp", serde_json::from_value::<Settings>(self.settings).unwrap()),
            host,
            person,
            home,
        };
        (world, installed)
    }
}

fn start_browser(home: &Home, url: &Url) -> Running {
    let browser = home.command("sh").args(["-c", r#"exec "$BROWSER" "$1""#, "sh"]);
    browser.args([url.as_str()]).spawn()
}

fn host(root: &Path, person: Arc<Person>, clock: i64) -> Host {
    Host {
        clock: Arc::new(WrongClock(clock)),
        env: env::Env::from_pairs([("DISPLAY", ":0")]),
        dirs: dirs::Dirs::below(root),
        browser: person.clone(),
        interact: person,
        skew: SkewMeter::default(),
    }
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    let future = async { tokio::time::timeout(LONG, future).await };
    process::runtime().unwrap().block_on(future).unwrap()
}

impl World {
    fn cx(&self) -> Context<'_> {
        Context::new(&self.host, &self.cache)
    }

    fn assertion(&self, audience: &str) -> Result<Assertion> {
        block_on(self.source.assertion(self.cx(), audience))
    }

    fn login(&self, options: &LoginOptions) -> Result<Principal> {
        block_on(self.source.session().unwrap().login(self.cx(), options))
    }

    fn logout(&self) -> Logout {
        block_on(self.source.session().unwrap().logout(self.cx())).unwrap()
    }

    fn nobody_there(&self) {
        self.person.absent.store(true, Ordering::Relaxed);
    }

    fn told(&self) -> Vec<String> {
        self.person.told.lock().unwrap().clone()
    }

    /// The refresh token, as it rests in the store.
    fn refresh_token(&self) -> String {
        let key = SessionKey::new(&["oidc", &self.issuer, &self.client, &self.scopes]);
        let bytes = self.cache.session(&key).unwrap().unwrap();
        let session: Value = serde_json::from_slice(bytes.expose()).unwrap();
        session["refresh_token"].as_str().unwrap().into()
    }
}

/// The claims of an assertion, without asking who signed it.
fn claims(assertion: &Assertion) -> Value {
    let payload = assertion.token.expose().split('.').nth(1).unwrap();
    serde_json::from_slice(&URL_SAFE_NO_PAD.decode(payload).unwrap()).unwrap()
}

fn login_for(audiences: &[&str]) -> LoginOptions {
    LoginOptions {
        audiences: audiences.iter().map(|a| a.to_string()).collect(),
        ..LoginOptions::default()
    }
}
