//! What a broker tells of its requests to a receiver of traces: nothing, unless the
//! configuration or the variables of OpenTelemetry name one.

use std::time::Duration;

use reqwest::header::HeaderMap;

use super::config::Telemetry;
use super::private_text::{self, Place};
use super::trusted_file;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::telemetry::export::{Export, Headers, Receiver};
use crate::telemetry::settings::{self, TIMEOUT};
use crate::trace::{Counts, Sampling, Tracer};

/// The name of the service where nobody says otherwise.
const SERVICE: &str = "tmpcred-broker";

/// How large a file with certificate authorities may be, in bytes.
const MAX_PEM: u64 = 1024 * 1024;

/// What makes spans, and what hands them on.
#[derive(Default)]
pub(super) struct Traces {
    tracer: Tracer,
    export: Option<Export>,
}

impl Traces {
    /// Begins, where there is a receiver. Needs a runtime.
    ///
    /// # Errors
    /// What the configuration says and cannot be kept. What only the variables say is for
    /// many programs: where it cannot be kept, the log says so, and there are no traces.
    pub(super) fn start(config: &Telemetry, host: &Host) -> Result<Self> {
        if settings::is_off(&host.env) {
            return Ok(Self::default());
        }
        let found = match &config.endpoint {
            Some(_) => Self::configured(config, host)?,
            None => match Self::by_variables(config, host) {
                Ok(found) => found,
                Err(error) => {
                    tracing::warn!(%error, "there are no traces");
                    None
                }
            },
        };
        let Some((receiver, sampling)) = found else { return Ok(Self::default()) };
        let (tracer, spans) = Tracer::new(sampling);
        Ok(Self { tracer, export: Some(Export::start(spans, receiver)) })
    }

    fn configured(config: &Telemetry, host: &Host) -> Result<Option<(Receiver, Sampling)>> {
        let named = |error: Error| error.context("[telemetry] cannot be used");
        let Some(endpoint) = &config.endpoint else { return Ok(None) };
        let read = |path| trusted_file::read(path, MAX_PEM);
        let ca = config.ca_file.as_deref().map(read).transpose().map_err(named)?;
        let headers = headers(config, host);
        // What is not there at the start may never be.
        headers().map_err(named)?;
        let receiver = receiver(config, host, settings::below(endpoint), headers, TIMEOUT, ca)
            .map_err(named)?;
        Ok(Some((receiver, sampling(config, host).map_err(named)?)))
    }

    fn by_variables(config: &Telemetry, host: &Host) -> Result<Option<(Receiver, Sampling)>> {
        let Some(named) = settings::receiver(&host.env)? else { return Ok(None) };
        let settings::Named { url, headers, timeout, ca } = named;
        let headers: Headers = Box::new(move || Ok(headers.clone()));
        let receiver = receiver(config, host, url, headers, timeout, ca)?;
        Ok(Some((receiver, sampling(config, host)?)))
    }

    /// What makes spans.
    pub(super) fn tracer(&self) -> Tracer {
        self.tracer.clone()
    }

    /// What became of spans; nothing where there are none.
    pub(super) fn counts(&self) -> Option<&Counts> {
        self.export.as_ref().map(Export::counts)
    }

    /// Hands on what still waits, for a moment.
    pub(super) async fn close(self) {
        if let Some(export) = self.export {
            export.close().await;
        }
    }
}

fn receiver(
    config: &Telemetry,
    host: &Host,
    url: url::Url,
    headers: Headers,
    timeout: Duration,
    ca: Option<Vec<u8>>,
) -> Result<Receiver> {
    let env = match &config.service_name {
        Some(name) => host.env.clone().with("OTEL_SERVICE_NAME", name),
        None => host.env.clone(),
    };
    let resource = settings::resource(&env, SERVICE)?;
    Ok(Receiver::new(url, headers, timeout, ca, resource, host.clock.clone()))
}

fn sampling(config: &Telemetry, host: &Host) -> Result<Sampling> {
    match config.sampling_ratio {
        Some(ratio) => Ok(Sampling::Ratio(ratio)),
        None => settings::sampling(&host.env),
    }
}

/// The headers of the configuration. What is secret in them is read anew each time, so that
/// it can be changed.
fn headers(config: &Telemetry, host: &Host) -> Headers {
    let (headers, env) = (config.header.clone(), host.env.clone());
    Box::new(move || {
        let mut made = HeaderMap::new();
        for (name, header) in &headers {
            let place = match (&header.value_file, &header.value_env) {
                (Some(path), _) => Some(Place::File(path.clone())),
                (None, Some(variable)) => Some(Place::Variable(variable.clone())),
                (None, None) => None,
            };
            let secret =
                place.map(|place| private_text::read(&place, "value", &env)).transpose()?;
            let value = secret.as_ref().map(|secret| secret.expose().as_str());
            let value = value.or(header.value.as_deref()).ok_or_else(|| {
                Error::new(ErrorKind::Config, format!("the header '{name}' has no value"))
            })?;
            let (name, value) = settings::header(name, value)?;
            made.insert(name, value);
        }
        Ok(made)
    })
}
