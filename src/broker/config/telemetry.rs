//! The table `[telemetry]`.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::Deserialize;
use url::Url;

use crate::error::{Error, ErrorKind, Result};
use crate::telemetry::settings;

/// The table `[telemetry]`: where traces go, by OTLP over HTTP in protobuf. What it leaves
/// out, the variables of OpenTelemetry say; where neither names a receiver, there are none.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Telemetry {
    /// The address of a receiver: https, or http to loopback. Traces go to `v1/traces` below
    /// it. Where it is said, headers and authorities are those of this table alone; where
    /// left out, `OTEL_EXPORTER_OTLP_ENDPOINT` and its kin name a receiver.
    #[serde(default)]
    pub endpoint: Option<Url>,
    /// A PEM file with certificate authorities to trust besides the system's.
    #[serde(default)]
    pub ca_file: Option<PathBuf>,
    /// What the receiver is sent besides, by the name of the header.
    #[serde(default)]
    pub header: BTreeMap<String, Header>,
    /// The `service.name` of the spans; `tmpcred-broker` where nobody says otherwise.
    #[serde(default)]
    pub service_name: Option<String>,
    /// Which part of the traces that begin here is kept, from 0 to 1. One that a caller
    /// began is kept where the caller keeps it.
    #[serde(default)]
    #[schemars(range(min = 0.0, max = 1.0))]
    pub sampling_ratio: Option<f64>,
}

/// A table `[telemetry.header.NAME]`: one of `value`, `value_file` and `value_env`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Header {
    /// Its value, where that is no secret.
    #[serde(default)]
    pub value: Option<String>,
    /// A file that nobody else can read, with the value. It is read anew each time.
    #[serde(default)]
    pub value_file: Option<PathBuf>,
    /// The variable that holds the value.
    #[serde(default)]
    pub value_env: Option<String>,
}

impl Telemetry {
    pub(super) fn check(&self) -> Result<()> {
        let wrong = |why: String| Err(Error::new(ErrorKind::Config, why));
        if let Some(endpoint) = &self.endpoint {
            crate::host::http::require_secure(endpoint)
                .map_err(|error| error.context("[telemetry] endpoint"))?;
        } else if self.ca_file.is_some() || !self.header.is_empty() {
            return wrong("[telemetry] names no endpoint that ca_file or headers are for".into());
        }
        for (name, header) in &self.header {
            let said =
                [header.value.is_some(), header.value_file.is_some(), header.value_env.is_some()];
            if said.iter().filter(|said| **said).count() != 1 {
                return wrong(format!(
                    "[telemetry.header.{name}] needs value, value_file or value_env, and one of them"
                ));
            }
            settings::header(name, header.value.as_deref().unwrap_or_default())
                .map_err(|error| error.context(format!("[telemetry.header.{name}]")))?;
        }
        if self.service_name.as_deref() == Some("") {
            return wrong("[telemetry] service_name is empty".into());
        }
        match self.sampling_ratio {
            Some(ratio) if !(0.0..=1.0).contains(&ratio) => {
                wrong(format!("[telemetry] sampling_ratio = {ratio} is not from 0 to 1"))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn spans_go_nowhere_in_the_clear_and_headers_are_said_once() {
        for (toml, says) in [
            ("endpoint = \"http://otel.example:4318\"", "loopback only"),
            ("endpoint = \"https://u@otel.example\"", "a user name"),
            ("header.a.value = \"x\"", "names no endpoint"),
            ("ca_file = \"x\"", "names no endpoint"),
            ("endpoint = \"https://o.example\"\nheader.a = {}", "needs value"),
            (
                "endpoint = \"https://o.example\"\nheader.a = { value = \"x\", value_env = \"Y\" }",
                "one of them",
            ),
            (
                "endpoint = \"https://o.example\"\nheader.\"a b\".value = \"x\"",
                "no name of a header",
            ),
            ("endpoint = \"https://o.example\"\nheader.a.value = \"x\\n\"", "no header can have"),
            ("sampling_ratio = 1.5", "not from 0 to 1"),
            ("sampling_ratio = nan", "not from 0 to 1"),
            ("service_name = \"\"", "is empty"),
        ] {
            let telemetry: Telemetry = toml::from_str(toml).unwrap();
            let error = telemetry.check().unwrap_err();
            let said = format!("{error} {:?}", error.causes());
            assert!(said.contains(says), "{toml}: {said}");
        }
        for good in ["", "endpoint = \"http://127.0.0.1:4318\"", "sampling_ratio = 0"] {
            let telemetry: Telemetry = toml::from_str(good).unwrap();
            assert!(telemetry.check().is_ok(), "{good}");
        }
    }
}
