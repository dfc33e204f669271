//! An HTTP server that takes records as JSON, signed as Standard Webhooks says: an HMAC over
//! the id of the delivery, its time and its body.

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::hmac;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Method;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use time::OffsetDateTime;
use url::Url;
use zeroize::Zeroizing;

use super::{Letter, Refused, Sink};
use crate::broker::audit::origin;
use crate::broker::config::WebhookSink;
use crate::broker::private_text::{self, Place};
use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::http::{HttpClient, Request, place};
use crate::oidc::Issuer;
use crate::secret::Secret;
use crate::trace::Tracer;

/// What a secret of that standard may begin with.
const PREFIX: &str = "whsec_";

/// How long it has to be, in bytes.
const LENGTH: std::ops::RangeInclusive<usize> = 24..=64;

/// How large a file with certificate authorities may be, in bytes.
const MAX_PEM: u64 = 1024 * 1024;

/// How much of the hash of a delivery is in its id, in bytes.
const HASH: usize = 8;

/// A server.
pub(super) struct Webhook {
    http: HttpClient,
    url: Url,
    place: Place,
    host: Host,
    /// The name of the log.
    origin: String,
    tracer: Tracer,
}

impl Webhook {
    pub(super) fn new(config: &WebhookSink, issuer: &Issuer, host: &Host) -> Result<Self> {
        let place = match (&config.secret_file, &config.secret_env) {
            (Some(path), _) => Place::File(path.clone()),
            (None, variable) => Place::Variable(variable.clone().unwrap_or_default()),
        };
        let read = |path| trusted_file::read(path, MAX_PEM);
        let ca = config.ca_file.as_deref().map(read).transpose()?;
        let webhook = Self {
            http: HttpClient::new(host.clock.clone(), host.skew.clone(), ca).telling_trace(),
            url: config.url.clone(),
            place,
            host: host.clone(),
            origin: origin(issuer),
            tracer: Tracer::default(),
        };
        webhook.key().map(|_| webhook)
    }

    /// The same, of which each delivery is a trace: what it hands on is of many.
    pub(super) fn traced_by(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
    }

    /// What signs. It is read anew each time, so that it can be changed.
    fn key(&self) -> Result<hmac::Key> {
        let text = private_text::read(&self.place, "secret", &self.host.env)?;
        let text = text.expose();
        let bytes = STANDARD.decode(text.strip_prefix(PREFIX).unwrap_or(text)).map(Zeroizing::new);
        match bytes {
            Ok(bytes) if LENGTH.contains(&bytes.len()) => {
                Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes))
            }
            _ => Err(Error::new(ErrorKind::Config, "the secret is none that can sign")
                .because_of("it has to be Base64 of 24 to 64 bytes")
                .hint("such as `openssl rand -base64 32` makes")),
        }
    }

    fn request(&self, letters: &[Letter], now: OffsetDateTime) -> Result<Request> {
        let (Some(first), Some(last)) = (letters.first(), letters.last()) else {
            return Err(Error::new(ErrorKind::Other, "there is nothing to hand on"));
        };
        let mut body = format!("{{\"log\":{},\"records\":[", serde_json::json!(self.origin));
        for (at, letter) in letters.iter().enumerate() {
            body += if at == 0 { "" } else { "," };
            body += &letter.json;
        }
        body += "]}";
        // The same records have the same id, whenever they come. Others have another one, also
        // where a database was restored and gives the same numbers again.
        let hash: String = digest(&SHA256, body.as_bytes()).as_ref()[..HASH]
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        let id = format!("{}#{}-{}-{hash}", self.origin, first.sequence, last.sequence);
        let at = now.unix_timestamp().to_string();
        let mut context = hmac::Context::with_key(&self.key()?);
        for part in [id.as_bytes(), b".", at.as_bytes(), b".", body.as_bytes()] {
            context.update(part);
        }
        let signature = format!("v1,{}", STANDARD.encode(context.sign()));
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        for (name, value) in
            [("webhook-id", &id), ("webhook-timestamp", &at), ("webhook-signature", &signature)]
        {
            let value = HeaderValue::from_str(value).map_err(|cause| {
                Error::new(ErrorKind::Other, "the delivery cannot be described").because(cause)
            })?;
            headers.insert(HeaderName::from_static(name), value);
        }
        let body = Secret::new(body.into_bytes());
        Ok(Request { method: Method::POST, url: self.url.clone(), headers, body })
    }
}

#[async_trait]
impl Sink for Webhook {
    async fn take(&mut self, letters: &[Letter]) -> Result<(), Refused> {
        let now = self.host.clock.now();
        let step = self.tracer.begin("deliver");
        let answer = step.around(self.http.send(self.request(letters, now)?)).await?;
        if answer.status.is_success() {
            return Ok(());
        }
        let place = place(&self.url);
        let error = Error::new(ErrorKind::Unreachable, format!("{place} did not take it"))
            .because_of(format!("it answered {}", answer.status.as_u16()));
        Err(Refused { error, retry_after: answer.retry_after(now) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::testbed;
    use crate::host::env::Env;
    use crate::host::files;

    fn webhook(root: &std::path::Path, more: &str) -> Result<Webhook> {
        let toml = format!("url = \"https://watch.example.com/\"\nsecret_env = \"S\"\n{more}");
        let config: WebhookSink = toml::from_str(&toml).unwrap();
        let env = Env::from_pairs([("S", STANDARD.encode([7; 32]))]);
        let host = Host { env, ..testbed::host(root) };
        Webhook::new(&config, &Issuer::parse("https://broker.example.com").unwrap(), &host)
    }

    #[test]
    fn deliveries_have_the_same_id_where_they_are_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let webhook = webhook(dir.path(), "").unwrap();
        let id = |reason: &str, at: i64| {
            let json = serde_json::json!({ "sequence": 7, "reason": reason }).to_string();
            let letter = Letter { sequence: 7, at: None, went_well: true, json };
            let at = OffsetDateTime::from_unix_timestamp(at).unwrap();
            let request = webhook.request(&[letter], at).unwrap();
            request.headers["webhook-id"].to_str().unwrap().to_string()
        };
        assert_eq!(id("one", 1), id("one", 2));
        // As after a restore, from when on numbers are given again.
        assert_ne!(id("one", 1), id("another", 1));
        assert!(id("one", 1).starts_with("broker.example.com#7-7-"), "{}", id("one", 1));
    }

    #[cfg(unix)]
    #[expect(clippy::disallowed_methods, reason = "a file that others may write")]
    #[test]
    fn whom_others_could_add_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt as _;
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("ca.pem");
        files::write_private(&path, b"").unwrap();
        let more = format!("ca_file = {path:?}");
        assert!(webhook(dir.path(), &more).is_ok());
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o666)).unwrap();
        let refused = webhook(dir.path(), &more).err().unwrap().to_string();
        assert!(refused.contains("other users can write"), "{refused}");
    }
}
