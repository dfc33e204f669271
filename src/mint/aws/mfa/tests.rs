//! Codes: from a person or a program, each sent once, whoever asks.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;
use crate::host::interact::{DevicePrompt, Interact, Waiting};
use crate::host::test_server::{self, run};

const SERIAL: &str = "arn:aws:iam::123456789012:mfa/alice";

/// Somebody who types these, one after the other.
#[derive(Default)]
struct Person {
    codes: Mutex<VecDeque<&'static str>>,
    told: Mutex<Vec<String>>,
}

struct NoWait;
impl Waiting for NoWait {}

impl Interact for Person {
    fn may_ask(&self) -> bool {
        true
    }
    fn may_browse(&self) -> bool {
        true
    }
    fn note(&self, line: &str) {
        self.told.lock().unwrap().push(line.into());
    }
    fn warn(&self, line: &str) {
        self.note(line);
    }
    fn login_page(&self, _: &url::Url, _: bool) {}
    fn device_code(&self, _: &DevicePrompt) {}
    fn ask(&self, question: &str) -> Result<Secret<String>> {
        assert!(question.contains(SERIAL), "{question}");
        Ok(Secret::new(self.codes.lock().unwrap().pop_front().unwrap().to_string()))
    }
    fn waiting(&self, _: &str) -> Box<dyn Waiting> {
        Box::new(NoWait)
    }
}

fn mfa(more: serde_json::Value) -> Mfa {
    let mut all = serde_json::json!({ "serial": SERIAL });
    all.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    serde_json::from_value(all).unwrap()
}

fn asked() -> Mfa {
    mfa(serde_json::json!({}))
}

/// A host at which somebody types these codes.
fn typing(dir: &std::path::Path, codes: &[&'static str]) -> (Host, Arc<Person>) {
    let person = Arc::new(Person { codes: Mutex::new(codes.iter().copied().collect()), ..Default::default() });
    let host = test_server::host(dir, time::Duration::ZERO);
    (Host { interact: person.clone(), ..host }, person)
}

fn code(mfa: &Mfa, host: &Host) -> Result<String> {
    // A program that another test has just started holds this one's lock for a moment.
    let short = |wait: Duration| tokio::time::sleep(wait.min(Duration::from_millis(1)));
    run(mfa.code_with(host, short)).map(|code| code.expose().clone())
}

#[test]
fn a_code_is_sent_once_and_another_one_is_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    let (host, person) = typing(dir.path(), &[" 123456 ", "123456", "654321", "123456", "654321", "123456"]);
    assert_eq!(code(&asked(), &host).unwrap(), "123456");
    assert_eq!(code(&asked(), &host).unwrap(), "654321");
    assert!(person.told.lock().unwrap().concat().contains("was sent before"));
    // Those of two runs, of which none is the last that was sent.
    let error = code(&asked(), &host).unwrap_err();
    assert!(error.to_string().contains("not sent before"), "{error}");
    // Another device has codes of its own.
    let (host, _) = typing(dir.path(), &["123456"]);
    let other = Mfa { serial: MfaSerial::parse("GAHT12345678").unwrap(), ..asked() };
    assert!(Sent::of(&host, &other.serial).add(&host, &Secret::new("123456".into())).unwrap());
}

#[test]
fn what_is_remembered_tells_no_code() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = typing(dir.path(), &["123456"]);
    code(&asked(), &host).unwrap();
    let sent = Sent::of(&host, &asked().serial);
    let text = String::from_utf8(files::read(&sent.file, MAX_FILE).unwrap().unwrap()).unwrap();
    let plain = digest::digest(&digest::SHA256, b"123456");
    assert!(!text.contains("123456") && !text.contains(&URL_SAFE_NO_PAD.encode(plain)), "{text}");
    assert!(!sent.file.display().to_string().contains("alice"));
    #[cfg(unix)]
    assert_eq!(files::readers(&sent.file).unwrap(), files::Readers::Owner);
    // What is broken is no reason to fail, and is written anew.
    files::write_private(&sent.file, b"{").unwrap();
    assert!(sent.add(&host, &Secret::new("123456".into())).unwrap());
    assert!(!sent.add(&host, &Secret::new("123456".into())).unwrap());
}

#[test]
fn what_is_no_code_is_refused_and_counts_for_nothing() {
    let dir = tempfile::tempdir().unwrap();
    for bad in ["", "12345", "1234567", "12345a", "１２３４５６", "123 456"] {
        let (host, person) = typing(dir.path(), &[bad, "424242"]);
        let sent = Sent::of(&host, &asked().serial);
        assert_eq!(code(&asked(), &host).unwrap(), "424242", "a slip is forgiven");
        assert!(person.told.lock().unwrap().concat().contains("6 digits"));
        files::remove(&sent.file).unwrap();
        let (host, _) = typing(dir.path(), &[bad, bad, bad]);
        let error = code(&asked(), &host).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Verification, "{bad}");
        assert!(bad.is_empty() || !error.to_string().contains(bad), "{error}");
    }
}

#[test]
fn nobody_is_asked_where_nobody_may_be() {
    let dir = tempfile::tempdir().unwrap();
    let host = test_server::host(dir.path(), time::Duration::ZERO);
    let error = code(&asked(), &host).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LoginRequired);
    assert!(error.hints().concat().contains("`command` of `mfa`"), "{error}");
}

#[cfg(unix)]
#[test]
fn a_program_that_prints_the_same_is_asked_again_after_the_step() {
    let dir = tempfile::tempdir().unwrap();
    let (host, person) = typing(dir.path(), &[]);
    let count = dir.path().join("count");
    let script = format!(
        "n=$(cat {0} 2>/dev/null || echo 0); echo $((n+1)) > {0}; echo 00000$((n/2))",
        count.display()
    );
    let own = mfa(serde_json::json!({ "command": ["sh", "-c", script] }));
    let pauses = Mutex::new(Vec::new());
    let code = || {
        let pause = |time: Duration| {
            pauses.lock().unwrap().push(time);
            async {}
        };
        run(own.code_with(&host, pause)).map(|code| code.expose().clone())
    };
    assert_eq!(code().unwrap(), "000000");
    assert!(pauses.lock().unwrap().is_empty());
    // The second time it is the same again, and another one after that.
    assert_eq!(code().unwrap(), "000001");
    let [pause] = pauses.lock().unwrap()[..] else { panic!("one pause") };
    assert!((1..=30).contains(&pause.as_secs()), "{pause:?}");
    assert!(person.told.lock().unwrap().concat().contains("waiting"));

    let stuck = mfa(serde_json::json!({ "command": ["echo", "000000"] }));
    let error = run(stuck.code_with(&host, |_| async {})).unwrap_err();
    assert!(error.to_string().contains("not sent before"), "{error}");
    for (program, kind) in [
        (vec!["sh", "-c", "echo canary >&2; exit 3"], ErrorKind::Other),
        (vec!["no-such-program-anywhere"], ErrorKind::Config),
        (vec!["echo", "none"], ErrorKind::Verification),
    ] {
        let broken = mfa(serde_json::json!({ "command": program }));
        assert_eq!(run(broken.code(&host)).unwrap_err().kind(), kind, "{program:?}");
    }
}

#[test]
fn two_at_once_send_two_codes() {
    let dir = tempfile::tempdir().unwrap();
    let (host, _) = typing(dir.path(), &["111111", "111111", "222222"]);
    let codes: Vec<String> = std::thread::scope(|scope| {
        let one = || {
            let host = host.clone();
            move || run(asked().code(&host)).unwrap().expose().clone()
        };
        let both = [scope.spawn(one()), scope.spawn(one())];
        both.map(|thread| thread.join().unwrap()).into()
    });
    assert!(codes.contains(&"111111".into()) && codes.contains(&"222222".into()), "{codes:?}");
}
