//! The broker's own certificate: how often it was read again, and when it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};
use time::OffsetDateTime;

use super::sample::Number;
use super::{Metrics, Reload};

/// What there is to tell of the certificate that is served.
#[derive(Default)]
pub(super) struct Served {
    /// When it ends; nothing where there is none.
    end: Mutex<Option<OffsetDateTime>>,
    /// Whether the one that was read last cannot be used.
    refused: AtomicBool,
}

impl Metrics {
    /// Counts a certificate that was read again, or could not be.
    pub fn reloaded(&self, outcome: Reload) {
        self.reloads.get_or_create(&[("outcome", outcome.as_str())]).inc();
        self.certificate.refused.store(outcome == Reload::Refused, Ordering::Relaxed);
    }

    /// From now on a certificate is served that ends then.
    pub(in crate::broker) fn certificate_ends(&self, end: Option<OffsetDateTime>) {
        *self.certificate.end.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    /// In how long it does.
    pub(super) fn sample_certificate(&self, registry: &mut Registry, now: OffsetDateTime) {
        let refused = Gauge::<i64>::default();
        refused.set(i64::from(self.certificate.refused.load(Ordering::Relaxed)));
        let help = "1 where the certificate as last read cannot be used, so that the one from before is served";
        registry.register("tls_certificate_refused", help, refused);
        let end = *self.certificate.end.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = end else { return };
        let left = Number::default();
        left.set((end - now).as_seconds_f64());
        let help = "In how long the certificate that is served ends; less than zero where it has";
        registry.register_with_unit("tls_certificate_left", help, Unit::Seconds, left);
    }
}
