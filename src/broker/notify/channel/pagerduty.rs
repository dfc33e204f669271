//! A service of PagerDuty, by its Events API v2.
//!
//! What messages of one kind say of one thing is one incident, which is resolved once it is over.

use std::collections::BTreeSet;

use async_trait::async_trait;
use serde_json::{Map, Value, json};
use time::format_description::well_known::Rfc3339;

use super::web::{Server, id_of};
use super::{Channel, Parcel, Refused};
use crate::broker::config::{NotifyChannel, TEST};
use crate::broker::notify::{Message, Urgency};
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
    /// The kinds of messages of which there are incidents; all where left out.
    only: Option<BTreeSet<String>>,
}

impl PagerDuty {
    pub(super) fn new(config: &NotifyChannel, origin: String, host: &Host) -> Result<Self> {
        let place = Place::of(config.secret_file.as_ref(), config.secret_env.as_ref());
        let key = place.ok_or_else(|| Error::new(ErrorKind::Config, "it has no secret"))?;
        let server = Server::new(config, Some(USUAL), host)?;
        let (env, only) = (host.env.clone(), config.only.clone());
        let service = Self { server, key, env, origin, only };
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
    /// One after the other: what is over has to come after what it was.
    fn at_once(&self) -> u32 {
        1
    }

    fn follows(&self) -> bool {
        true
    }

    async fn deliver(&self, parcel: &Parcel<'_>) -> Result<(), Refused> {
        for event in events(parcel, &self.origin, self.only.as_ref()) {
            let body = self.with_key(event)?;
            self.server.send(|url| Ok(json_request(url, body)), parcel.now).await?;
        }
        Ok(())
    }
}

/// The events, without the key.
fn events(parcel: &Parcel<'_>, origin: &str, only: Option<&BTreeSet<String>>) -> Vec<Value> {
    let message = parcel.message;
    let over = message.ended().iter().map(
        |kind| json!({ "event_action": "resolve", "dedup_key": incident(message, kind, origin) }),
    );
    // That something is over is nothing to be woken for.
    let only_ends = message.urgency() == Urgency::Info && !message.ended().is_empty();
    // Nobody sends a test but to see it.
    let is_told = !only_ends
        && (message.kind() == TEST || only.is_none_or(|only| only.contains(message.kind())));
    over.chain(is_told.then(|| event(parcel, origin))).collect()
}

/// What is one incident: all that messages of this kind say of the same thing. What is about
/// nothing is told apart by its key.
fn incident(message: &Message, kind: &str, origin: &str) -> String {
    id_of(&match message.id() {
        "" => format!("{origin}/{}", message.key()),
        id => format!("{origin}/{id}/{kind}"),
    })
}

/// The event that something has come about, without the key.
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
        "dedup_key": incident(message, message.kind(), origin),
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

    /// What PagerDuty would get where there are incidents of these kinds only.
    fn samples(message: &Message, only: &[&str]) -> Vec<Value> {
        let parcel =
            Parcel { message, addressee: "", people: None, now: OffsetDateTime::UNIX_EPOCH };
        let only: BTreeSet<_> = only.iter().map(ToString::to_string).collect();
        events(&parcel, "broker.example.com", Some(&only).filter(|only| !only.is_empty()))
    }

    #[test]
    fn an_alarm_is_a_critical_incident_that_its_key_tells_apart() {
        let [event] = &samples(&message("k"), &[])[..] else { panic!() };
        assert_eq!(event["event_action"], "trigger");
        assert_eq!(event["dedup_key"], "broker.example.com/7/emergency");
        let payload = &event["payload"];
        assert_eq!(
            (&payload["severity"], &payload["class"]),
            (&"critical".into(), &"emergency".into())
        );
        assert_eq!(payload["custom_details"]["people"], "alice, bob");
        assert_eq!(payload["timestamp"], "2026-01-01T12:00:00.5Z");
        // Whoever is told again is told of the same one; where somebody has resolved that by hand,
        // PagerDuty makes another.
        let [again] = &samples(&message("later"), &[])[..] else { panic!() };
        assert_eq!(again["dedup_key"], event["dedup_key"]);
        // What is about nothing in particular is one by itself.
        let [event] = &samples(&message("k").about(""), &[])[..] else { panic!() };
        assert_eq!(event["dedup_key"], "broker.example.com/k");
    }

    #[test]
    fn what_is_over_is_resolved_by_the_key_by_which_it_came_about() {
        let told = |kind: &str, urgency| {
            let at = OffsetDateTime::UNIX_EPOCH;
            Message::new("k", kind, urgency, "It is over", at).about("7")
        };
        let (over, disputed) = ("emergency", &["review-due", "review-overdue"]);
        let resolved = json!([{
            "event_action": "resolve", "dedup_key": "broker.example.com/7/emergency",
        }]);
        // Nobody is woken by it, whether there are incidents of that kind or not.
        for only in [&[][..], &[over]] {
            let ended = told("grant-ended", Urgency::Info).ends(&[over]);
            assert_eq!(json!(samples(&ended, only)), resolved);
        }
        // An alarm is told besides, but not where there are to be none of its kind.
        let alarm = told("review-disputed", Urgency::Alarm).ends(disputed);
        let keys = |only: &[&str]| {
            let events = samples(&alarm, only).into_iter();
            let what = events.map(|one| (one["event_action"].clone(), one["dedup_key"].clone()));
            what.map(|(what, key)| format!("{what} {key}").replace('"', "")).collect::<Vec<_>>()
        };
        let due = "resolve broker.example.com/7/review-due";
        let overdue = "resolve broker.example.com/7/review-overdue";
        let trigger = "trigger broker.example.com/7/review-disputed";
        assert_eq!(keys(&[]), [due, overdue, trigger]);
        assert_eq!(keys(&["review-due"]), [due, overdue]);
        // Whoever tries whether somebody is told wants to see that.
        assert_eq!(samples(&told(TEST, Urgency::Info), &["emergency"]).len(), 1);
    }
}
