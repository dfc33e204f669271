//! Hands records on to where others collect them.
//!
//! The log is the outbox: whoever appends a record has nothing to do for it, and what a
//! sink has not got yet is where the record itself is. A [`Courier`] for each sink takes
//! records from there in their order, and moves the sink's mark once the sink has them for
//! certain. So no record is lost; one may come twice, with the same number.
//!
//! Of several processes one has its turn at a time, see [`Courier`].

mod courier;
mod file;
mod letter;
mod syslog;
mod webhook;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::task::JoinHandle;

pub use self::courier::Counts;
use self::courier::Courier;
use self::file::File;
use self::letter::Letter;
use self::syslog::Syslog;
use self::webhook::Webhook;
use super::export::Format;
use super::micros;
use crate::broker::config::{self, BeginWith};
use crate::broker::store::Store;
use crate::error::{Error, Result};
use crate::host::Host;
use crate::oidc::Issuer;
use crate::trace::Tracer;

/// How long couriers have to put their bags down at the end.
const PATIENCE: Duration = Duration::from_secs(3);

/// How many of the records that wait are looked at, to say for how long.
const NEXT: u32 = 32;

/// Where records go.
#[async_trait]
trait Sink: Send + Sync {
    /// Hands these on, the first one first, and returns when the sink has them for certain.
    /// Whoever calls it may lose patience, and call it again with the same or more.
    async fn take(&mut self, letters: &[Letter]) -> Result<(), Refused>;
}

/// Why a sink did not take something.
struct Refused {
    error: Error,
    /// When it wants to be asked again at the earliest.
    retry_after: Option<Duration>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None }
    }
}

/// A sink, and what is said of it.
struct Named {
    name: String,
    sink: Box<dyn Sink>,
    format: Format,
    begin_with: BeginWith,
}

/// All sinks, before there is a store.
pub struct Sinks(Vec<Named>);

impl Sinks {
    /// The sinks that the configuration names.
    ///
    /// # Errors
    /// Where one of them can never work, as without its secret. One that is out of order at
    /// the moment is no error.
    pub fn new(
        config: &config::Audit,
        issuer: &Issuer,
        host: &Host,
        tracer: &Tracer,
    ) -> Result<Self> {
        let mut sinks = Vec::new();
        for (name, c) in &config.file {
            let sink = Box::new(File::new(c.path.clone()));
            sinks.push(Named::new(name, sink, c.format, c.begin_with));
        }
        for (name, c) in &config.syslog {
            let named = |error: Error| error.context(format!("[audit.syslog.{name}]"));
            let sink = Box::new(Syslog::new(c, issuer).map_err(named)?);
            sinks.push(Named::new(name, sink, c.format, c.begin_with));
        }
        for (name, c) in &config.webhook {
            let named = |error: Error| error.context(format!("[audit.webhook.{name}]"));
            let sink = Webhook::new(c, issuer, host).map_err(named)?;
            let sink = Box::new(sink.traced_by(tracer.clone()));
            sinks.push(Named::new(name, sink, c.format, c.begin_with));
        }
        Ok(Self(sinks))
    }
}

impl Named {
    fn new(name: &str, sink: Box<dyn Sink>, format: Format, begin_with: BeginWith) -> Self {
        Self { name: name.into(), sink, format, begin_with }
    }
}

/// The couriers.
pub struct Outbox {
    store: Arc<dyn Store>,
    stop: watch::Sender<bool>,
    couriers: Vec<(Arc<Counts>, JoinHandle<()>)>,
}

impl Outbox {
    /// Sends them off. Needs a runtime.
    pub fn start(store: Arc<dyn Store>, sinks: Sinks) -> Self {
        let (stop, stopped) = watch::channel(false);
        let mut couriers = Vec::new();
        for Named { name, sink, format, begin_with } in sinks.0 {
            let counts = Arc::new(Counts::of(name));
            let courier = Courier::new(store.clone(), sink, format, begin_with, counts.clone());
            couriers.push((counts, tokio::spawn(courier.run(stopped.clone()))));
        }
        Self { store, stop, couriers }
    }

    /// How far each sink has got.
    pub async fn look(&self, now: OffsetDateTime) -> Result<Vec<Progress>> {
        let mut all = Vec::with_capacity(self.couriers.len());
        for (counts, _) in &self.couriers {
            let turn = self.store.turn(counts.sink()).await?;
            let (behind, age) = match turn {
                Some(turn) if turn.delivered < turn.last => {
                    // One that cannot be read says nothing of how long it has waited.
                    let next = self.store.page(turn.delivered, NEXT).await?;
                    let at = next.iter().find_map(|(_, record)| Some(micros(record.as_ref()?.at)));
                    let age = at.map_or(0, |at| micros(now).saturating_sub(at).max(0));
                    (turn.last - turn.delivered, Duration::from_micros(age.unsigned_abs()))
                }
                _ => (0, Duration::ZERO),
            };
            all.push(Progress { counts: counts.clone(), behind, age });
        }
        Ok(all)
    }

    /// Lets them end. What they have not handed on goes on from there the next time.
    pub async fn close(self) {
        self.stop.send_replace(true);
        let end = tokio::time::Instant::now() + PATIENCE;
        for (counts, mut task) in self.couriers {
            if tokio::time::timeout_at(end, &mut task).await.is_err() {
                tracing::warn!(
                    sink = counts.sink(),
                    "a courier of the audit log did not end in time"
                );
                task.abort();
            }
        }
    }
}

/// How far a sink has got.
pub struct Progress {
    /// What was counted of it.
    pub counts: Arc<Counts>,
    /// How many records it has not got yet.
    pub behind: u64,
    /// How old the first of those is.
    pub age: Duration,
}
