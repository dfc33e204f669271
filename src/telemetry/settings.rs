//! What the variables of OpenTelemetry say about traces.

use std::path::Path;
use std::time::Duration;

use opentelemetry::KeyValue;
use opentelemetry_sdk::Resource;
use percent_encoding::percent_decode_str;
use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use url::Url;

use crate::error::{Error, ErrorKind, Result, foreign};
use crate::host::env::Env;
use crate::host::files;
use crate::host::http::require_secure;
use crate::trace::Sampling;

/// Where traces go below the address of a receiver for everything.
const PATH: &str = "v1/traces";

/// How long a receiver may take where nobody says otherwise.
pub const TIMEOUT: Duration = Duration::from_secs(10);

/// How large a file with certificate authorities may be, in bytes.
const MAX_PEM: u64 = 1024 * 1024;

/// A receiver, as variables describe it.
#[derive(Debug)]
pub struct Named {
    /// Where it takes traces.
    pub url: Url,
    /// What it is sent besides.
    pub headers: HeaderMap,
    /// How long it may take.
    pub timeout: Duration,
    /// Authorities to trust besides the system's.
    pub ca: Option<Vec<u8>>,
}

/// Whether the variables say that there are to be no traces, whatever else is said.
pub fn is_off(env: &Env) -> bool {
    let says = |name: &str, word: &str| env.get(name).is_some_and(|v| v.eq_ignore_ascii_case(word));
    says("OTEL_SDK_DISABLED", "true") || says("OTEL_TRACES_EXPORTER", "none")
}

/// The receiver that the variables name, if any.
///
/// # Errors
/// Where it cannot be used: it speaks another protocol, or the spans would leave this machine
/// in the clear.
pub fn receiver(env: &Env) -> Result<Option<Named>> {
    let for_traces = env.get("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    let for_all = env.get("OTEL_EXPORTER_OTLP_ENDPOINT");
    let (name, text) = match (for_traces, for_all) {
        (Some(text), _) => ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", text),
        (None, Some(text)) => ("OTEL_EXPORTER_OTLP_ENDPOINT", text),
        (None, None) => return Ok(None),
    };
    let url = Url::parse(text).map_err(|cause| wrong(name, "no address").because(cause))?;
    let url = if for_traces.is_some() { url } else { below(&url) };
    require_secure(&url).map_err(|error| error.context(format!("{name} cannot be used")))?;
    if let Some((name, exporter)) = either(env, "OTEL_TRACES_EXPORTER", None)
        && exporter != "otlp"
    {
        return Err(wrong(name, "not `otlp`"));
    }
    let protocol =
        either(env, "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", Some("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some((name, protocol)) = protocol
        && protocol != "http/protobuf"
    {
        return Err(wrong(name, "not `http/protobuf`"));
    }
    let headers =
        either(env, "OTEL_EXPORTER_OTLP_TRACES_HEADERS", Some("OTEL_EXPORTER_OTLP_HEADERS"));
    let timeout =
        either(env, "OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", Some("OTEL_EXPORTER_OTLP_TIMEOUT"));
    let ca = either(
        env,
        "OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE",
        Some("OTEL_EXPORTER_OTLP_CERTIFICATE"),
    );
    Ok(Some(Named {
        url,
        headers: headers.map_or(Ok(HeaderMap::new()), |(name, text)| headers_of(name, text))?,
        timeout: match timeout {
            None => TIMEOUT,
            Some((name, text)) => text
                .parse()
                .map(Duration::from_millis)
                .map_err(|_| wrong(name, "no number of milliseconds"))?,
        },
        ca: ca.map(|(name, path)| authorities(name, Path::new(path))).transpose()?,
    }))
}

/// Where a receiver for everything takes traces.
pub fn below(url: &Url) -> Url {
    let mut url = url.clone();
    let path = format!("{}/{PATH}", url.path().trim_end_matches('/'));
    url.set_path(&path);
    url
}

/// Which traces are kept.
///
/// # Errors
/// Where the variables name a way to choose that is not known here.
pub fn sampling(env: &Env) -> Result<Sampling> {
    const ARGUMENT: &str = "OTEL_TRACES_SAMPLER_ARG";
    const SAMPLER: &str = "OTEL_TRACES_SAMPLER";
    let part = || match env.get(ARGUMENT) {
        None => Ok(1.0),
        Some(text) => {
            let part = text.parse::<f64>().ok().filter(|part| (0.0..=1.0).contains(part));
            part.ok_or_else(|| wrong(ARGUMENT, "no number from 0 to 1"))
        }
    };
    Ok(match env.get(SAMPLER) {
        None | Some("parentbased_always_on") => Sampling::Ratio(1.0),
        Some("parentbased_always_off") => Sampling::Ratio(0.0),
        Some("parentbased_traceidratio") => Sampling::Ratio(part()?),
        Some("always_on") => Sampling::RatioOfAll(1.0),
        Some("always_off") => Sampling::RatioOfAll(0.0),
        Some("traceidratio") => Sampling::RatioOfAll(part()?),
        Some(_) => return Err(wrong(SAMPLER, "no way to choose that is known here")),
    })
}

/// What spans are of: the service, and what the variables say of it. `name` is its name where
/// nobody says otherwise.
///
/// # Errors
/// Where the variables cannot be read.
pub fn resource(env: &Env, name: &str) -> Result<Resource> {
    const ATTRIBUTES: &str = "OTEL_RESOURCE_ATTRIBUTES";
    let mut attributes = vec![
        KeyValue::new("service.name", name.to_string()),
        KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        KeyValue::new("service.instance.id", uuid::Uuid::new_v4().to_string()),
        KeyValue::new("telemetry.sdk.name", "opentelemetry"),
        KeyValue::new("telemetry.sdk.language", "rust"),
    ];
    if let Some(text) = env.get(ATTRIBUTES) {
        for (name, value) in pairs(text).ok_or_else(|| wrong(ATTRIBUTES, PAIRS))? {
            attributes.push(KeyValue::new(name, value));
        }
    }
    if let Some(name) = env.get("OTEL_SERVICE_NAME") {
        attributes.push(KeyValue::new("service.name", name.to_string()));
    }
    // The last one of a name counts.
    Ok(Resource::builder_empty().with_attributes(attributes).build())
}

/// Reads a file with certificate authorities.
pub fn authorities(name: &str, path: &Path) -> Result<Vec<u8>> {
    files::read(path, MAX_PEM)?.ok_or_else(|| wrong(name, "no file that is there"))
}

/// A header that others do not get to see.
pub fn header(name: &str, value: &str) -> Result<(HeaderName, HeaderValue)> {
    let refused = |why| {
        Error::new(ErrorKind::Config, format!("the header '{}' cannot be sent", foreign(name)))
            .because_of(why)
    };
    let name = HeaderName::from_bytes(name.as_bytes())
        .map_err(|_| refused("that is no name of a header"))?;
    // What is wrong with it is not told: it may be a secret.
    let mut value = HeaderValue::from_str(value)
        .map_err(|_| refused("its value has characters that no header can have"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

const PAIRS: &str = "no list such as `name=value,name=value`";

fn headers_of(variable: &str, text: &str) -> Result<HeaderMap> {
    let pairs = pairs(text).ok_or_else(|| wrong(variable, PAIRS))?;
    pairs.iter().map(|(name, value)| header(name, value)).collect()
}

/// Names and values, percent-encoded where they have to be (W3C Baggage).
fn pairs(text: &str) -> Option<Vec<(String, String)>> {
    let decoded = |text: &str| {
        percent_decode_str(text.trim()).decode_utf8().ok().map(|text| text.into_owned())
    };
    let members = text.split(',').filter(|member| !member.trim().is_empty());
    let pair = |member: &str| {
        let (name, value) = member.split_once('=')?;
        Some((decoded(name)?, decoded(value)?)).filter(|(name, _)| !name.is_empty())
    };
    members.map(pair).collect()
}

fn either<'a>(
    env: &'a Env,
    own: &'static str,
    general: Option<&'static str>,
) -> Option<(&'static str, &'a str)> {
    [Some(own), general].into_iter().flatten().find_map(|name| Some((name, env.get(name)?)))
}

/// Its value is not shown: some of them are secrets.
fn wrong(variable: &str, what: &str) -> Error {
    Error::new(ErrorKind::Config, format!("{variable} is {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(pairs: &[(&str, &str)]) -> Result<Option<Named>> {
        receiver(&Env::from_pairs(pairs.iter().copied()))
    }

    #[test]
    fn a_receiver_is_named_for_traces_or_for_everything() {
        assert!(of(&[]).unwrap().is_none());
        let url = |pairs: &[(&str, &str)]| of(pairs).unwrap().unwrap().url.to_string();
        let all = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.example:4318/x/");
        assert_eq!(url(&[all]), "https://otel.example:4318/x/v1/traces");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:4318");
        assert_eq!(url(&[all, own]), "http://127.0.0.1:4318/");
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://otel.example:4318/v1/traces"),
            ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "otel.example"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization: x"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "a b=x"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_CERTIFICATE", "/nowhere/ca.pem"),
        ] {
            assert!(of(&[all, (name, value)]).is_err(), "{name}={value}");
        }
    }

    #[test]
    fn headers_are_decoded_and_not_shown() {
        let named = of(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://otel.example"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "authorization=Bearer%20hunter2 , x-tenant = a ,"),
            ("OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "250"),
        ]);
        let named = named.unwrap().unwrap();
        assert_eq!(named.headers["authorization"].as_bytes(), b"Bearer hunter2");
        assert_eq!(named.headers["x-tenant"], "a");
        assert_eq!(named.timeout, Duration::from_millis(250));
        assert!(!format!("{named:?}").contains("hunter2"));
    }

    #[test]
    fn what_is_off_is_off_and_what_is_kept_is_said() {
        let env = |name: &str, value: &str| Env::from_pairs([(name, value)]);
        assert!(is_off(&env("OTEL_SDK_DISABLED", "True")));
        assert!(is_off(&env("OTEL_TRACES_EXPORTER", "none")));
        assert!(!is_off(&env("OTEL_SDK_DISABLED", "false")));
        let sampled = |name: &str, part: &str| {
            let pairs = [("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", part)];
            sampling(&Env::from_pairs(pairs))
        };
        assert_eq!(sampled("", "").unwrap(), Sampling::Ratio(1.0));
        assert_eq!(sampled("parentbased_traceidratio", "0.25").unwrap(), Sampling::Ratio(0.25));
        assert_eq!(sampled("always_off", "").unwrap(), Sampling::RatioOfAll(0.0));
        assert!(sampled("traceidratio", "2").is_err());
        assert!(sampled("jaeger_remote", "").is_err());
    }

    #[test]
    fn a_service_has_the_name_that_it_is_given() {
        let name = |pairs: &[(&str, &str)]| {
            let resource = resource(&Env::from_pairs(pairs.iter().copied()), "usual").unwrap();
            resource.get(&"service.name".into()).unwrap().to_string()
        };
        let attributes = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=of%20all,deployment=a");
        assert_eq!(name(&[]), "usual");
        assert_eq!(name(&[attributes]), "of all");
        assert_eq!(name(&[attributes, ("OTEL_SERVICE_NAME", "own")]), "own");
    }
}
