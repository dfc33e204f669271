//! Receivers of messages that are dead, or take what they are sent and never answer: nobody who
//! decides waits for them.

use std::sync::Mutex;

use tokio::io::AsyncReadExt as _;
use tokio::net::TcpListener;

use super::*;
use crate::broker::config::NotifyChannel;
use crate::host::listener::{self, Exposure};

/// 32 bytes that protect nothing.
const SECRET: &str = "whsec_MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Takes connections, reads whatever comes, and never says anything.
struct Silent {
    port: u16,
    /// What became of each connection.
    held: Arc<Mutex<Vec<Held>>>,
}

/// A connection.
#[derive(Clone, Copy, Debug, Default)]
struct Held {
    /// How much came.
    read: usize,
    /// Whether the other side has given up.
    is_over: bool,
}

impl Silent {
    fn start() -> Self {
        let listener = listens();
        let port = listener.local_addr().unwrap().port();
        let held: Arc<Mutex<Vec<Held>>> = Arc::default();
        let known = held.clone();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let place = {
                    let mut held = known.lock().unwrap();
                    held.push(Held::default());
                    held.len() - 1
                };
                let known = known.clone();
                tokio::spawn(async move {
                    let mut buffer = [0; 4096];
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        known.lock().unwrap()[place].read += read;
                    }
                    known.lock().unwrap()[place].is_over = true;
                });
            }
        });
        Self { port, held }
    }

    fn first(&self) -> Option<Held> {
        self.held.lock().unwrap().first().copied()
    }
}

fn listens() -> TcpListener {
    let listener = listener::bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
    TcpListener::from_std(listener).unwrap()
}

/// A port at which nobody listens, and which no other test is given.
const CLOSED: u16 = 9;

/// A broker whose messages all go to receivers that are of no use.
pub(super) struct Site {
    pub(super) place: Place,
    hook: Silent,
    mail: Silent,
    _files: tempfile::TempDir,
}

impl Site {
    async fn new() -> Self {
        Self::with(|_| {}).await
    }

    pub(super) async fn with(change: impl FnOnce(&mut Options)) -> Self {
        let (hook, mail, files) = (Silent::start(), Silent::start(), tempfile::tempdir().unwrap());
        let secret = files.path().join("secret");
        crate::host::files::write_private(&secret, SECRET.as_bytes()).unwrap();
        let webhook = |port: u16| {
            let secret = secret.display();
            format!(
                "kind = \"webhook\"\nurl = \"http://127.0.0.1:{port}/\"\nsecret_file = '{secret}'"
            )
        };
        let smtp = format!(
            "kind = \"email\"\nurl = \"smtp://127.0.0.1:{}\"\nfrom = \"a@b.example\"\nto = [\"team@b.example\"]",
            mail.port
        );
        let tables = [("hook", webhook(hook.port)), ("gone", webhook(CLOSED)), ("mail", smtp)];
        let place = Place::built(
            None,
            |_| {},
            |options| {
                let channel = |(name, table): &(&str, String)| {
                    (name.to_string(), toml::from_str::<NotifyChannel>(table).unwrap())
                };
                options.config.notify = tables.iter().map(channel).collect();
                change(options);
            },
        )
        .await;
        Self { place, hook, mail, _files: files }
    }

    /// Waits until both that take something have taken it, as far as they do.
    async fn until_held(&self) {
        let waiting = async {
            // A mail server is to speak first.
            while self.hook.first().is_none_or(|held| held.read == 0) || self.mail.first().is_none()
            {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        let waited = tokio::time::timeout(Duration::from_secs(60), waiting).await;
        waited.unwrap_or_else(|_| panic!("nobody is told"));
    }

    /// Whether those still wait for an answer that were told first.
    fn is_held(&self) -> bool {
        [&self.hook, &self.mail].iter().all(|one| one.first().is_some_and(|held| !held.is_over))
    }

    /// All that is decided while they wait.
    async fn decides(&self) {
        let place = &self.place;
        let asked = place.requested("alice", &[]).await;
        place.done("bob", "approve", &asked, &[]).await;
        place.done("carol", "approve", &asked, &[]).await;
        assert_eq!(place.done("alice", "activate", &asked, &[]).await["access"], "active");
        assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
        place.done("erin", "revoke", &asked, &[("reason", "enough")]).await;
        place.done("erin", "review", &asked, &[("outcome", "reviewed"), ("note", "fine")]).await;
        // An emergency waits until it is on record that all are to be told, and no longer.
        let had = place.requested("alice", &[("emergency", "true"), ("ttl", "900")]).await;
        assert_eq!(had["access"], "emergency-active");
        assert!(is_alarmed(place).await);
        assert_eq!(place.issued("alice", &[]).await.status, StatusCode::OK);
        let denied = place.requested("dave", &[("drill", "true")]).await;
        place.done("bob", "deny", &denied, &[("reason", "not now")]).await;
    }
}

/// Whether it is on record that people are to be told of an emergency, and nobody has taken that.
pub(super) async fn is_alarmed(place: &Place) -> bool {
    place.told().await.iter().any(|message| message.kind() == "emergency")
}

#[tokio::test]
async fn whoever_decides_waits_for_no_receiver() {
    // An attempt ends after a while by itself: where this machine is that slow, it is done again.
    for _ in 0..5 {
        let site = Site::new().await;
        site.place.requested("dave", &[]).await;
        site.until_held().await;
        site.decides().await;
        if site.is_held() {
            return;
        }
    }
    panic!("whatever was decided, the receivers were left before");
}

#[tokio::test]
async fn what_no_receiver_takes_waits_for_each_of_them() {
    let site = Site::new().await;
    site.decides().await;
    site.until_held().await;
    // Nobody has lost anything: all of it waits on each channel.
    let waiting = async {
        while !site.place.bed.store.unspread(1).await.unwrap().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.unwrap();
    let backlog = site.place.bed.store.backlog().await.unwrap();
    let channels: Vec<_> = backlog.iter().map(|one| one.channel.as_str()).collect();
    assert_eq!(channels, ["gone", "hook", "mail"]);
    let undelivered = site.place.bed.store.undelivered(999).await.unwrap();
    for channel in channels {
        let kinds: std::collections::BTreeSet<_> = undelivered
            .iter()
            .filter(|one| one.delivery.channel == channel && one.due_at.is_some())
            .filter_map(|one| Some(one.delivery.message.as_ref()?.kind()))
            .collect();
        for kind in ["elevation-requested", "grant-active", "grant-ended", "emergency"] {
            assert!(kinds.contains(kind), "{channel}: {kind}: {kinds:?}");
        }
    }
}
