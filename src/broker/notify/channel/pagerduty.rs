//! A service of PagerDuty, by its Events API v2.

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;

use super::web::{Server, id_of};
use super::{Channel, Parcel, Refused};
use crate::broker::config::NotifyChannel;
use crate::broker::notify::Urgency;
use crate::broker::private_text::{self, Place};
use crate::broker::signed_post::json_request;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::env::Env;

/// Where events go, where the configuration does not name another region.
const USUAL: &str = "https://events.pagerduty.com/v2/enqueue";

/// How many characters an integration key has.
const KEY_LENGTH: usize = 32;

/// A service.
pub(super) struct PagerDuty {
    server: Server,
    key: Place,
    env: Env,
    origin: String,
}

impl PagerDuty {
    pub(super) fn new(config: &NotifyChannel, origin: String, host: &Host) -> Result<Self> {
        let place = Place::of(config.secret_file.as_ref(), config.secret_env.as_ref());
        let key = place.ok_or_else(|| Error::new(ErrorKind::Config, "it has no secret"))?;
        let server = Server::new(config, Some(USUAL), host)?;
        let service = Self { server, key, env: host.env.clone(), origin };
        service.with_key(Value::Null).map(|_| service)
    }

    /// The event with the integration key, which is read anew each time.
    fn with_key(&self, mut event: Value) -> Result<String> {
        let key = private_text::read(&self.key, "secret", &self.env)?;
        let text = key.expose();
        if text.len() != KEY_LENGTH || !text.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Error::new(ErrorKind::Config, "the secret is no integration key")
                .because_of("those have 32 letters and digits")
                .hint(
                    "PagerDuty shows it where the service has an integration with Events API v2",
                ));
        }
        if let Some(event) = event.as_object_mut() {
            event.insert("routing_key".into(), text.as_str().into());
        }
        Ok(event.to_string())
    }
}

#[async_trait]
impl Channel for PagerDuty {
    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), Refused> {
        let body = self.with_key(event(parcel, &self.origin))?;
        self.server.send(|url| Ok(json_request(url, body)), parcel.now).await
    }
}

/// The event, without the key.
fn event(parcel: &Parcel<'_>, origin: &str) -> Value {
    let message = parcel.message;
    let severity = match message.urgency() {
        Urgency::Alarm => "critical",
        Urgency::ActionWanted => "warning",
        Urgency::Info => "info",
    };
    let mut details: Map<_, _> =
        message.facts().iter().map(|fact| (fact.label.clone(), json!(fact.value))).collect();
    let people: Vec<_> = message.names().iter().map(String::as_str).collect();
    if !people.is_empty() {
        details.insert("people".into(), people.join(", ").into());
    }
    let mut payload = json!({
        "summary": message.title(),
        "source": origin,
        "severity": severity,
        "class": message.kind(),
        "custom_details": details,
    });
    if let (Ok(at), Some(payload)) = (message.at().format(&Rfc3339), payload.as_object_mut()) {
        payload.insert("timestamp".into(), at.into());
        if let Some(role) = message.of_role() {
            payload.insert("component".into(), role.into());
        }
    }
    let link = |page| json!({ "href": page, "text": "Open" });
    json!({
        "event_action": "trigger",
        // The same message is one incident, however often it comes.
        "dedup_key": id_of(&format!("{origin}/{}", message.key())),
        "client": "tmpcred",
        "payload": payload,
        "links": message.page().into_iter().map(link).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use time::OffsetDateTime;

    use super::*;
    use crate::broker::notify::Message;
    use crate::broker::notify::message::tests::message;

    /// What PagerDuty would get.
    fn sample(message: &Message) -> Value {
        let parcel =
            Parcel { message, addressee: "", people: None, now: OffsetDateTime::UNIX_EPOCH };
        let mut event = event(&parcel, "broker.example.com");
        event["routing_key"] = "0".repeat(KEY_LENGTH).into();
        event
    }

    #[test]
    fn an_alarm_is_a_critical_incident_that_its_key_tells_apart() {
        let event = sample(&message("k"));
        assert_eq!(event["dedup_key"], "broker.example.com/k");
        let payload = &event["payload"];
        assert_eq!(
            (&payload["severity"], &payload["class"]),
            (&"critical".into(), &"emergency".into())
        );
        assert_eq!(payload["custom_details"]["people"], "alice, bob");
        assert_eq!(payload["timestamp"], "2026-01-01T12:00:00.5Z");
    }
}
