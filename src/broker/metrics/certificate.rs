//! The broker's own certificate: how often it was read again, and when it ends.

use std::sync::{Mutex, PoisonError};

use prometheus_client::registry::{Registry, Unit};
use time::OffsetDateTime;

use super::sample::Number;
use super::{Metrics, Reload};

/// When the certificate that is served ends; nothing where there is none.
#[derive(Default)]
pub(super) struct Served(Mutex<Option<OffsetDateTime>>);

impl Metrics {
    /// Counts a certificate that was read again, or could not be.
    pub fn reloaded(&self, outcome: Reload) {
        self.reloads.get_or_create(&[("outcome", outcome.as_str())]).inc();
    }

    /// From now on a certificate is served that ends then.
    pub(in crate::broker) fn certificate_ends(&self, end: Option<OffsetDateTime>) {
        *self.certificate.0.lock().unwrap_or_else(PoisonError::into_inner) = end;
    }

    /// In how long it does.
    pub(super) fn sample_certificate(&self, registry: &mut Registry, now: OffsetDateTime) {
        let end = *self.certificate.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(end) = end else { return };
        let left = Number::default();
        left.set((end - now).as_seconds_f64());
        let help = "In how long the certificate that is served ends; less than zero where it has";
        registry.register_with_unit("tls_certificate_left", help, Unit::Seconds, left);
    }
}
