//! An HTTP server that takes records as JSON, signed as Standard Webhooks says: an HMAC over
//! the id of the delivery, its time and its body.

use std::sync::Arc;

use async_trait::async_trait;
use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;
use time::OffsetDateTime;
use url::Url;

use super::{Letter, Refused, Sink};
use crate::broker::audit::origin;
use crate::broker::config::WebhookSink;
use crate::broker::private_text::Place;
use crate::broker::signed_post::Signer;
use crate::broker::trusted_file;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::clock::Clock;
use crate::host::http::{HttpClient, Request, place};
use crate::oidc::Issuer;
use crate::trace::Tracer;

/// How much of the hash of a delivery is in its id, in bytes.
const HASH: usize = 8;

/// A server.
pub(super) struct Webhook {
    http: HttpClient,
    url: Url,
    signer: Signer,
    clock: Arc<dyn Clock>,
    /// The name of the log.
    origin: String,
    tracer: Tracer,
}

impl Webhook {
    pub(super) fn new(config: &WebhookSink, issuer: &Issuer, host: &Host) -> Result<Self> {
        let place = Place::of(config.secret_file.as_ref(), config.secret_env.as_ref());
        let place = place.ok_or_else(|| Error::new(ErrorKind::Config, "it has no secret"))?;
        let ca = trusted_file::read_authorities(config.ca_file.as_ref())?;
        Ok(Self {
            http: HttpClient::new(host.clock.clone(), host.skew.clone(), ca).telling_trace(),
            url: config.url.clone(),
            signer: Signer::new(place, &host.env)?,
            clock: host.clock.clone(),
            origin: origin(issuer),
            tracer: Tracer::default(),
        })
    }

    /// The same, of which each delivery is a trace: what it hands on is of many.
    pub(super) fn traced_by(self, tracer: Tracer) -> Self {
        Self { tracer, ..self }
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
        let hash = HEXLOWER.encode(&digest(&SHA256, body.as_bytes()).as_ref()[..HASH]);
        let id = format!("{}#{}-{}-{hash}", self.origin, first.sequence, last.sequence);
        self.signer.request(&self.url, &id, body, now)
    }
}

#[async_trait]
impl Sink for Webhook {
    async fn take(&mut self, letters: &[Letter]) -> Result<(), Refused> {
        let now = self.clock.now();
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
    use base64::Engine as _;
    use base64::engine::general_purpose::STANDARD;

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
