//! An Identity Center that misbehaves on purpose.

use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tempfile::TempDir;

use super::session::Session;
use super::{AwsSso, Settings, ways};
use crate::aws::sso::Failure;
use crate::aws::sso::oidc::{Oidc, Registration};
use crate::cache::{Cache, StoreChoice};
use crate::error::{Error, ErrorKind};
use crate::host::Host;
use crate::host::clock::{Clock, SystemClock};
use crate::host::interact::{DevicePrompt, Interact, Waiting};
use crate::host::test_server::{self, Reply, TestServer, run};
use crate::identity::{Context, Flow, IdentitySource, LoginOptions};
use crate::reach::Effort;
use crate::secret::Secret;
use url::Url;

fn settings(url: &str) -> Settings {
    let settings = json!({ "start_url": "https://example.awsapps.com/start#/", "region": "us-east-1",
        "endpoint_url": url, "flow": "device" });
    serde_json::from_value(settings).unwrap()
}

/// Somebody who notes which codes are shown.
#[derive(Default)]
struct Person(Mutex<Vec<DevicePrompt>>);

struct NoWait;
impl Waiting for NoWait {}

impl Interact for Person {
    fn may_ask(&self) -> bool {
        true
    }
    fn may_browse(&self) -> bool {
        false
    }
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn login_page(&self, _: &Url, _: bool) {}
    fn device_code(&self, prompt: &DevicePrompt) {
        self.0.lock().unwrap().push(prompt.clone());
    }
    fn waiting(&self, _: &str) -> Box<dyn Waiting> {
        Box::new(NoWait)
    }
}

struct World {
    server: TestServer,
    host: Host,
    person: Arc<Person>,
    _dir: TempDir,
}

impl World {
    /// Codes and tokens are as they should be but for the twists.
    fn new(codes: Value, tokens: Value) -> Self {
        let server = TestServer::start(move |request, origin| {
            let mut answer = match request.path.as_str() {
                "/client/register" => json!({ "clientId": "c", "clientSecret": "canary-client",
                    "clientSecretExpiresAt": SystemClock.now().unix_timestamp() + 90 * 86400 }),
                "/device_authorization" => json!({ "deviceCode": "canary-device",
                    "userCode": "ABCD-EFGH", "verificationUri": format!("{origin}/page"),
                    "expiresIn": 600, "interval": 1 }),
                _ => json!({ "accessToken": "canary-access", "expiresIn": 3600 }),
            };
            let twist = if request.path == "/token" { &tokens } else { &codes };
            if request.path != "/client/register" {
                for (name, value) in twist.as_object().unwrap() {
                    answer[name] = value.clone();
                }
            }
            Reply::json(200, &answer)
        });
        let dir = tempfile::tempdir().unwrap();
        let person = Arc::new(Person::default());
        let mut host = test_server::host(dir.path(), time::Duration::ZERO);
        host.interact = person.clone();
        Self { server, host, person, _dir: dir }
    }

    /// A session, by a login that does not wait between its requests.
    fn without_waiting(&self) -> Result<Session, Error> {
        let settings = settings(&self.server.origin);
        let server = settings.oidc();
        let oidc = Oidc::new(&self.host, &server)?;
        let failed = |failure: Failure| failure.error(ways::WHAT);
        let at_once = |_| std::future::ready(());
        run(async {
            let client = oidc.register("", &[], None).await.map_err(failed)?;
            let tokens = ways::with_device(&self.host, &oidc, &settings, &client, at_once);
            Session::begin(&self.host, "", client.clone(), tokens.await.map_err(failed)?)
        })
    }

    fn login(&self) -> Result<(), Error> {
        let cache = Cache::new(self.host.clone(), StoreChoice::Memory);
        let cx = Context::new(&self.host, &cache);
        let source = AwsSso::new("corp", settings(&self.server.origin));
        let options = LoginOptions { flow: Some(Flow::Device), ..Default::default() };
        let principal = run(source.session().unwrap().login(cx, &options))?;
        assert_eq!(principal.issuer, "https://example.awsapps.com/start");
        // The session serves this portal, and is not shown elsewhere.
        let assertion = run(source.assertion(cx, &self.server.origin))?;
        assert_eq!(assertion.token.expose(), "canary-access");
        let refused = run(source.assertion(cx, "sts.amazonaws.com")).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::Config);
        assert_eq!(self.server.at("/token").len(), 1);
        Ok(())
    }
}

#[test]
fn a_session_is_shown_to_its_own_portal_only() {
    World::new(json!({}), json!({})).login().unwrap();
}

#[test]
fn somebody_elses_login_is_not_waited_for_to_its_end_where_nobody_needs_it_now() {
    let world = World::new(json!({}), json!({}));
    let cache = Cache::new(world.host.clone(), StoreChoice::Memory);
    let source = AwsSso::new("corp", settings(&world.server.origin));
    let session = source.session().unwrap();
    let key = session.session_key();
    let cx = Context::new(&world.host, &cache);
    // All that is left of the time there was.
    let spare = cx.with_effort(Effort::RENEW.after(std::time::Duration::from_secs(7)));
    let portal = &world.server.origin;

    let login = cache.take_session(&key, None).unwrap();
    let error = run(source.assertion(spare, portal)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
    assert!(world.server.arrived().is_empty());
    drop(login);

    // Nor where AWS says that the session has ended.
    run(session.login(cx, &LoginOptions::default())).unwrap();
    let shown = run(source.assertion(cx, portal)).unwrap();
    let _login = cache.take_session(&key, None).unwrap();
    let error = session.turned_away(spare, &shown).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable, "{error}");
}

#[test]
fn what_nobody_should_see_is_not_shown() {
    for twist in [
        json!({ "userCode": "\u{1b}]0;x\u{7}" }),
        json!({ "userCode": "" }),
        json!({ "verificationUri": "file:///etc/passwd" }),
        json!({ "verificationUri": "no address" }),
        json!({ "deviceCode": null }),
        json!({ "expiresIn": null }),
    ] {
        let world = World::new(twist.clone(), json!({}));
        let error = world.login().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{twist}: {error}");
        assert!(world.person.0.lock().unwrap().is_empty(), "{twist}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[test]
fn a_session_without_an_end_is_none() {
    for twist in [
        json!({ "expiresIn": 0 }),
        json!({ "expiresIn": -5 }),
        json!({ "expiresIn": i64::MAX }),
        json!({ "expiresIn": null }),
        json!({ "accessToken": "" }),
        json!({ "accessToken": "a\r\nb" }),
        json!({ "accessToken": null }),
    ] {
        let world = World::new(json!({}), twist.clone());
        let error = world.without_waiting().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{twist}: {error}");
        assert!(!format!("{error} {error:?}").contains("canary"), "{error}");
    }
}

#[test]
fn the_pace_is_that_of_aws_and_a_server_that_stumbles_is_waited_for() {
    let said = |status, kind: &str| {
        Reply::json(status, &json!({ "error": "x", "error_description": "y" }))
            .header("x-amzn-errortype", kind.into())
    };
    let replies = Mutex::new(vec![
        Reply::json(200, &json!({ "accessToken": "canary-access", "expiresIn": 3600 })),
        Reply::text(503, "<html>"),
        said(400, "SlowDownException:http://internal.amazon.com/coral/"),
        said(400, "AuthorizationPendingException"),
    ]);
    let server = TestServer::start(move |request, origin| match request.path.as_str() {
        "/token" => replies.lock().unwrap().pop().unwrap(),
        _ => Reply::json(
            200,
            &json!({ "deviceCode": "d", "userCode": "ABCD", "expiresIn": 600, "interval": 2,
                "verificationUri": format!("{origin}/page") }),
        ),
    });
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let settings = settings(&server.origin);
    let oidc = settings.oidc();
    let oidc = Oidc::new(&host, &oidc).unwrap();
    let client = Registration {
        client_id: "c".into(),
        client_secret: Secret::new("s".into()),
        client_secret_expires_at: 0,
    };
    let naps = Mutex::new(Vec::new());
    let sleep = |nap: std::time::Duration| {
        naps.lock().unwrap().push(nap.as_secs());
        std::future::ready(())
    };
    run(ways::with_device(&host, &oidc, &settings, &client, sleep)).unwrap();
    assert_eq!(*naps.lock().unwrap(), [2, 2, 7, 14]);
}

#[test]
fn start_urls_are_read_as_people_copy_them() {
    let read = |url: &str| {
        let settings = json!({ "start_url": url, "region": "us-east-1" });
        serde_json::from_value::<Settings>(settings).map(|settings| settings.start_url)
    };
    for good in ["start", "start/", "start#", "start/#/", "start#/console?x=y"] {
        let url = read(&format!("https://example.awsapps.com/{good}")).unwrap();
        assert_eq!(url, "https://example.awsapps.com/start", "{good}");
    }
    for bad in ["", "example", "http://example.awsapps.com/start", "ftp://x", "https://u:p@x/"] {
        assert!(read(bad).is_err(), "{bad}");
    }
}
