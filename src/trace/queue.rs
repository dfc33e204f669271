//! Spans that have ended, until somebody hands them on.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use opentelemetry::Context;
use opentelemetry_sdk::error::OTelSdkResult;
use opentelemetry_sdk::trace::{Span, SpanData, SpanProcessor};
use tokio::sync::mpsc;

/// How many may wait. Whoever makes more of them does not wait: they are counted and gone.
const MOST: usize = 2048;

/// A span that has ended.
pub type Ended = SpanData;

/// What became of spans.
#[derive(Debug, Default)]
pub struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
    refused: AtomicU64,
}

impl Counts {
    /// Counts so many that were taken.
    pub fn exported(&self, count: u64) {
        self.exported.fetch_add(count, Ordering::Relaxed);
    }

    /// Counts so many that the receiver did not take.
    pub fn refused(&self, count: u64) {
        self.refused.fetch_add(count, Ordering::Relaxed);
    }

    /// How many were taken, how many found no room in the queue, and how many the receiver
    /// did not take.
    pub fn all(&self) -> [u64; 3] {
        [&self.exported, &self.dropped, &self.refused].map(|count| count.load(Ordering::Relaxed))
    }
}

/// The spans that wait, for whoever hands them on.
pub struct Spans {
    waiting: mpsc::Receiver<Ended>,
    counts: Arc<Counts>,
}

impl Spans {
    /// Waits for some, and takes at most so many of them out.
    pub async fn some(&mut self, batch: &mut Vec<Ended>, most: usize) -> usize {
        self.waiting.recv_many(batch, most).await
    }

    /// Takes at most so many of those out that are there.
    pub fn at_hand(&mut self, most: usize) -> Vec<Ended> {
        std::iter::from_fn(|| self.waiting.try_recv().ok()).take(most).collect()
    }

    /// What becomes of them.
    pub fn counts(&self) -> Arc<Counts> {
        Arc::clone(&self.counts)
    }
}

/// The way into the queue.
pub(super) struct Queue {
    way: mpsc::Sender<Ended>,
    counts: Arc<Counts>,
}

pub(super) fn queue() -> (Queue, Spans) {
    let (way, waiting) = mpsc::channel(MOST);
    let counts = Arc::<Counts>::default();
    (Queue { way, counts: Arc::clone(&counts) }, Spans { waiting, counts })
}

impl fmt::Debug for Queue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Queue").finish_non_exhaustive()
    }
}

impl SpanProcessor for Queue {
    fn on_start(&self, _: &mut Span, _: &Context) {}

    fn on_end(&self, span: SpanData) {
        if span.span_context.is_sampled() && self.way.try_send(span).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn force_flush(&self) -> OTelSdkResult {
        Ok(())
    }

    fn shutdown_with_timeout(&self, _: Duration) -> OTelSdkResult {
        Ok(())
    }
}
