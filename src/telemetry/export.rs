//! Hands spans on, to whoever speaks OTLP over HTTP in protobuf.
//!
//! Nobody waits for that: whatever the receiver does, spans wait in a queue of their own, and
//! those that it does not take are counted and gone.

use std::sync::Arc;
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::transform::common::tonic::ResourceAttributesWithSchema;
use opentelemetry_proto::transform::trace::tonic::group_spans_by_resource_and_scope;
use opentelemetry_sdk::Resource;
use prost::Message as _;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::{Clock, SkewMeter};
use crate::host::http::{HttpClient, Request, place};
use crate::secret::Secret;
use crate::trace::{Counts, Ended, Spans};

/// How many spans are handed on at a time.
const BATCH: usize = 512;

/// How long is waited for others that end meanwhile.
const GATHER: Duration = Duration::from_millis(500);

/// How often the receiver is asked to take the same ones.
const TRIES: usize = 4;

/// How long is waited before it is asked again; twice as long each time, and up to twice that
/// by chance.
const PAUSE: Duration = Duration::from_secs(1);

/// The longest that a receiver may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(30);

/// How long all that still waits may take at the end.
const LAST: Duration = Duration::from_secs(2);

/// Headers that are made anew for each request: what is secret in them may be changed.
pub type Headers = Box<dyn Fn() -> Result<HeaderMap> + Send + Sync>;

/// Who takes spans.
pub struct Receiver {
    http: HttpClient,
    url: Url,
    headers: Headers,
    timeout: Duration,
    resource: Resource,
}

impl Receiver {
    /// The receiver at this address, which has authorities of its own in `ca`, for spans of
    /// what `resource` describes.
    pub fn new(
        url: Url,
        headers: Headers,
        timeout: Duration,
        ca: Option<Vec<u8>>,
        resource: Resource,
        clock: Arc<dyn Clock>,
    ) -> Self {
        // Its clock is nobody's to go by.
        let http = HttpClient::new(clock, SkewMeter::default(), ca);
        Self { http, url, headers, timeout, resource }
    }

    fn message(&self, spans: Vec<Ended>) -> Message {
        let resource = ResourceAttributesWithSchema::from(&self.resource);
        let count = spans.len() as u64;
        let resource_spans = group_spans_by_resource_and_scope(spans, &resource);
        Message { body: ExportTraceServiceRequest { resource_spans }.encode_to_vec(), count }
    }

    /// Hands a message on, once. Returns how many spans were not taken.
    async fn send(&self, message: &Message) -> Result<u64, Refused> {
        let mut headers = (self.headers)()?;
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
        let body = Secret::new(message.body.clone());
        let request = Request { method: Method::POST, url: self.url.clone(), headers, body };
        let place = place(&self.url);
        let sent = tokio::time::timeout(self.timeout, self.http.send(request)).await;
        let response = sent.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unreachable, format!("{place} did not answer"))
                .because_of(format!("the limit is {:?}", self.timeout)))
        })?;
        if response.status.is_success() {
            let said = ExportTraceServiceResponse::decode(response.body.expose().as_slice());
            let partial = said.ok().and_then(|said| said.partial_success);
            let refused = partial.map_or(0, |partial| partial.rejected_spans.max(0).unsigned_abs());
            return Ok(refused.min(message.count));
        }
        let error = Error::new(ErrorKind::Other, format!("{place} does not take spans"))
            .because_of(format!("it answered {}", response.status.as_u16()));
        // Others will not be another time (OTLP, «Failures»).
        let again = matches!(
            response.status,
            StatusCode::TOO_MANY_REQUESTS
                | StatusCode::BAD_GATEWAY
                | StatusCode::SERVICE_UNAVAILABLE
                | StatusCode::GATEWAY_TIMEOUT
        );
        let wish = response.header(reqwest::header::RETRY_AFTER);
        let wish = wish.and_then(|seconds| seconds.parse().ok()).map(Duration::from_secs);
        Err(Refused { error, again, wish: wish.map(|wish| wish.min(LONGEST_WISH)) })
    }

    /// Hands on what is at hand, within this time, and forgets the rest.
    pub async fn flush(&self, spans: &mut Spans, limit: Duration) -> Result<()> {
        let counts = spans.counts();
        let all = async {
            loop {
                let some = spans.at_hand(BATCH);
                if some.is_empty() {
                    return Ok(());
                }
                let message = self.message(some);
                let sent = self.send(&message).await;
                told(&counts, &message, &sent);
                sent.map_err(|refused| refused.error)?;
            }
        };
        tokio::time::timeout(limit, all).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Unreachable, "spans were not taken in time"))
        })
    }
}

/// Spans as they are sent.
struct Message {
    body: Vec<u8>,
    count: u64,
}

/// Why a receiver did not take some.
struct Refused {
    error: Error,
    /// Whether it may take them another time.
    again: bool,
    /// When it wants to be asked again at the earliest.
    wish: Option<Duration>,
}

impl From<Error> for Refused {
    fn from(error: Error) -> Self {
        let again = error.kind() == ErrorKind::Unreachable;
        Self { error, again, wish: None }
    }
}

fn told(counts: &Counts, message: &Message, sent: &Result<u64, Refused>) {
    match sent {
        Ok(refused) => {
            counts.exported(message.count - refused);
            counts.refused(*refused);
        }
        Err(_) => counts.refused(message.count),
    }
}

/// What hands spans on for as long as a server runs.
pub struct Export {
    counts: Arc<Counts>,
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl Export {
    /// Begins. Needs a runtime.
    pub fn start(spans: Spans, receiver: Receiver) -> Self {
        let counts = spans.counts();
        let (stop, stopped) = oneshot::channel();
        let work = Work { spans, receiver, counts: Arc::clone(&counts), fails: false };
        Self { counts, stop, task: tokio::spawn(work.run(stopped)) }
    }

    /// What became of spans so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// Hands on what still waits, for a moment, and ends.
    pub async fn close(mut self) {
        let _ = self.stop.send(());
        match tokio::time::timeout(LAST, &mut self.task).await {
            Ok(Ok(())) => {}
            Ok(Err(cause)) => tracing::error!(%cause, "what hands on spans ended abnormally"),
            Err(_) => {
                self.task.abort();
                tracing::warn!("the last spans were not taken in time");
            }
        }
    }
}

struct Work {
    spans: Spans,
    receiver: Receiver,
    counts: Arc<Counts>,
    /// Whether the last ones were not taken: nobody is told so again and again.
    fails: bool,
}

impl Work {
    async fn run(mut self, mut stopped: oneshot::Receiver<()>) {
        loop {
            let Some(message) = self.next(&mut stopped).await else { break };
            // While more were waited for, it may have been told already: it is so once.
            let handed_on = !stopped.is_terminated()
                && tokio::select! {
                    biased;
                    () = self.hand_on(&message) => true,
                    _ = &mut stopped => false,
                };
            if !handed_on {
                // Once more, as the last ones.
                let sent = self.receiver.send(&message).await;
                told(&self.counts, &message, &sent);
                break;
            }
        }
        if let Err(error) = self.receiver.flush(&mut self.spans, LAST).await {
            tracing::warn!(%error, "the last spans were not taken");
        }
    }

    /// Waits for some; `None` at the end.
    async fn next(&mut self, stopped: &mut oneshot::Receiver<()>) -> Option<Message> {
        let mut batch = Vec::new();
        tokio::select! {
            biased;
            _ = &mut *stopped => return None,
            count = self.spans.some(&mut batch, BATCH) => if count == 0 { return None },
        }
        if batch.len() < BATCH {
            tokio::select! {
                biased;
                _ = &mut *stopped => {}
                () = tokio::time::sleep(GATHER) => {}
            }
            batch.extend(self.spans.at_hand(BATCH - batch.len()));
        }
        Some(self.receiver.message(batch))
    }

    async fn hand_on(&mut self, message: &Message) {
        let builder = ExponentialBuilder::new().with_min_delay(PAUSE).with_max_times(TRIES - 1);
        let mut pauses = builder.with_jitter().build();
        loop {
            let sent = self.receiver.send(message).await;
            if let Err(refused) = &sent
                && refused.again
                && let Some(pause) = pauses.next()
            {
                tokio::time::sleep(refused.wish.unwrap_or(pause)).await;
                continue;
            }
            told(&self.counts, message, &sent);
            match (sent, self.fails) {
                (Err(Refused { error, .. }), false) => {
                    tracing::warn!(%error, spans = message.count, "spans are lost, as nobody takes them");
                    self.fails = true;
                }
                (Err(_), true) => {}
                (Ok(_), fails) => {
                    if fails {
                        tracing::info!("spans are taken again");
                    }
                    self.fails = false;
                }
            }
            return;
        }
    }
}

#[cfg(test)]
mod tests;
