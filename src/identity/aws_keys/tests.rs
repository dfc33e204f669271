//! Access keys, from the keyring and from the environment.

use std::sync::Arc;
use std::sync::Mutex;

use super::*;
use crate::cache::{Cache, StoreChoice};
use crate::host::env::Env;
use crate::host::interact::{DevicePrompt, Interact, Waiting};
use crate::host::test_server::{self, run};
use crate::identity::strays;

struct Typist(Mutex<Vec<&'static str>>);

struct NoWait;
impl Waiting for NoWait {}

impl Interact for Typist {
    fn may_ask(&self) -> bool {
        true
    }
    fn may_browse(&self) -> bool {
        false
    }
    fn note(&self, _: &str) {}
    fn warn(&self, _: &str) {}
    fn login_page(&self, _: &url::Url, _: bool) {}
    fn device_code(&self, _: &DevicePrompt) {}
    fn ask(&self, question: &str) -> Result<Secret<String>> {
        assert!(question.ends_with("for 'work'"), "{question}");
        Ok(Secret::new(self.0.lock().unwrap().remove(0).to_string()))
    }
    fn waiting(&self, _: &str) -> Box<dyn Waiting> {
        Box::new(NoWait)
    }
}

fn host(dir: &std::path::Path, answers: &[&'static str]) -> Host {
    let host = test_server::host(dir, Duration::ZERO);
    Host { interact: Arc::new(Typist(Mutex::new(answers.to_vec()))), ..host }
}

#[test]
fn keys_are_asked_for_once_and_forgotten_at_the_logout() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), &["AKIAONE", "canary-one", "AKIATWO", "canary-two", "", "x"]);
    let cache = Cache::new(host.clone(), StoreChoice::Memory);
    let cx = Context::new(&host, &cache);
    let source = AwsKeys::new("work", Settings::default());
    assert_eq!(source.caller(cx).unwrap(), None);
    let required = run(source.assertion(cx, "x")).unwrap_err();
    assert!(required.to_string().contains("`tmpcred login work`"), "{required}");

    let login = |force| run(source.login(cx, &LoginOptions { force, ..Default::default() }));
    let secret = || {
        let assertion = run(source.assertion(cx, "x")).unwrap();
        assert!(!format!("{assertion:?}").contains("canary"), "{assertion:?}");
        AccessKeys::read(&assertion.token).unwrap().secret.expose().clone()
    };
    let me = login(false).unwrap();
    assert_eq!((me.subject.as_str(), secret().as_str()), ("work", "canary-one"));
    login(false).unwrap();
    assert_eq!(secret(), "canary-one", "nothing was asked");
    let first_keys = source.caller(cx).unwrap().unwrap();
    login(true).unwrap();
    assert_eq!(secret(), "canary-two");
    let other_keys = source.caller(cx).unwrap().unwrap();
    assert_ne!(other_keys, first_keys, "these may be another user's");
    assert!(other_keys.is(&me) && other_keys.principal() == Some(&me));
    assert_eq!(source.whose(cx).unwrap(), Some(other_keys), "the keys tell the same");
    let wrong = login(true).unwrap_err();
    assert!(wrong.to_string().contains("no access key ID"), "{wrong}");
    assert_eq!(secret(), "canary-two", "the old ones stay");

    assert!(matches!(run(source.logout(cx)).unwrap(), Logout::ForgottenOnly(who, _) if who == me));
    assert_eq!(run(source.logout(cx)).unwrap(), Logout::NoSession);
    assert!(run(source.assertion(cx, "x")).is_err());
}

#[test]
fn keys_that_no_identity_leads_to_are_found_and_can_be_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let host = host(dir.path(), &["AKIAONE", "canary-one"]);
    let cache = Cache::new(host.clone(), StoreChoice::Memory);
    let cx = Context::new(&host, &cache);
    let source = AwsKeys::new("work", Settings::default());
    run(source.login(cx, &LoginOptions::default())).unwrap();
    let configured = [("work".to_string(), super::super::Settings::AwsKeys(Settings::default()))];
    assert!(strays(&cache, &configured.into()).is_empty());
    let none = Default::default();
    let found = strays(&cache, &none);
    let [stray] = &found[..] else { panic!("one") };
    assert!(stray.is_access_keys() && stray.label.identity == "work");
    let ended = run(stray.end(cx, &none)).unwrap();
    assert!(matches!(ended, Logout::ForgottenOnly(_, why) if why == STILL_GOOD));
    assert!(strays(&cache, &none).is_empty() && source.stored(cx).unwrap().is_none());
}

#[test]
fn keys_of_the_environment_need_no_login_and_make_the_caller() {
    let dir = tempfile::tempdir().unwrap();
    let source = AwsKeys::new("ci", Settings { keys_from: KeysFrom::Environment });
    assert!(source.session().is_none());
    let look = |pairs: &[(&str, &str)]| {
        let host = Host { env: Env::from_pairs(pairs.iter().copied()), ..host(dir.path(), &[]) };
        let cache = Cache::new(host.clone(), StoreChoice::Memory);
        let cx = Context::new(&host, &cache);
        (source.readiness(&host), source.caller(cx).ok(), run(source.assertion(cx, "x")).ok())
    };
    assert!(matches!(look(&[]), (Readiness::Absent(_), None, None)));
    assert!(matches!(look(&[(ID, "AKIA")]), (Readiness::Misconfigured { .. }, None, None)));
    let (ready, one, assertion) = look(&[(ID, "AKIA"), (SECRET, "canary")]);
    assert!(matches!(ready, Readiness::Ready(_)) && assertion.is_some());
    let (_, other, _) = look(&[(ID, "AKIA"), (SECRET, "other")]);
    assert_ne!(one, other, "other keys do not get what these got");
    let (.., session) = look(&[(ID, "ASIA"), (SECRET, "canary"), (SESSION, "token")]);
    let keys = AccessKeys::read(&session.unwrap().token).unwrap();
    assert_eq!(keys.session.unwrap().expose(), "token");
    assert!(look(&[(ID, "AK IA"), (SECRET, "canary")]).2.is_none());
}
