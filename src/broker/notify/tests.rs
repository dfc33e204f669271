use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;

use super::channel::Channel;
use super::*;
use crate::broker::config::NotifyChannel;

/// Alice, who can be reached everywhere, and Bob, whose contacts are none.
pub(super) fn people() -> Directory {
    crate::broker::directory::tests::directory_of(
        r#"
        [person.alice]
        ids = [{ issuer = "https://a.example", subject = "alice" }]
        contacts = { email = "alice@example.com", slack = "U0ALICE", teams = "alice@corp.example.com" }
        [person.bob]
        ids = [{ issuer = "https://a.example", subject = "bob" }]
        contacts = { slack = "B|<!channel>" }
        "#,
    )
}

/// What a channel does.
#[derive(Default)]
pub(super) struct Behaviour {
    pub(super) is_down: AtomicBool,
    pub(super) hangs: AtomicBool,
    /// Somebody waits for it for long.
    pub(super) patient: AtomicBool,
    /// It is told that something is over.
    pub(super) follows: AtomicBool,
    /// Messages with these keys are not taken.
    pub(super) refuses: Mutex<Vec<String>>,
    pub(super) wish: Mutex<Option<Duration>>,
    /// How often each message has come, by key and addressee.
    pub(super) got: Mutex<BTreeMap<(String, String), usize>>,
    /// In which order they came.
    pub(super) order: Mutex<Vec<String>>,
}

impl Behaviour {
    pub(super) fn count(&self) -> usize {
        self.got.lock().unwrap().len()
    }

    /// How often the one came that came most often.
    pub(super) fn most(&self) -> usize {
        self.got.lock().unwrap().values().copied().max().unwrap_or_default()
    }
}

/// A channel of a test.
pub(super) struct Stand(pub(super) std::sync::Arc<Behaviour>);

#[async_trait]
impl Channel for Stand {
    fn limit(&self) -> Duration {
        let patient = self.0.patient.load(Ordering::Relaxed);
        if patient { Duration::from_secs(60) } else { Duration::from_millis(400) }
    }

    fn follows(&self) -> bool {
        self.0.follows.load(Ordering::Relaxed)
    }

    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), Refused> {
        let Behaviour { is_down, hangs, patient: _, follows: _, refuses, wish, got, order } =
            &*self.0;
        if hangs.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
        let retry_after = *wish.lock().unwrap();
        let error = || Error::new(ErrorKind::Unreachable, "it answered 503");
        if is_down.load(Ordering::Relaxed) {
            return Err(Refused { retry_after, ..error().into() });
        }
        let key = parcel.message.key().to_string();
        if refuses.lock().unwrap().contains(&key) {
            return Err(Refused::message(error()));
        }
        order.lock().unwrap().push(key.clone());
        *got.lock().unwrap().entry((key, parcel.addressee.into())).or_default() += 1;
        Ok(())
    }
}

/// What is said of it, besides that it is a command.
pub(super) fn config(more: &str) -> NotifyChannel {
    toml::from_str(&format!("kind = \"command\"\ncommand = [\"true\"]\n{more}")).unwrap()
}
