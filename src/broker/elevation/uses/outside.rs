//! What logs outside of the broker tell of grants: each event counts once, however often it is
//! sent.

use std::collections::BTreeMap;

use aws_lc_rs::digest::{Context, SHA256};
use data_encoding::HEXLOWER;
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use uuid::Uuid;

use super::{Kind, Times, What};
use crate::broker::Broker;
use crate::broker::audit::{Author, Decision};
use crate::broker::elevation::Refusal;
use crate::broker::store::Unit;
use crate::error::{Error, ErrorKind};

/// How many events a request may have.
const MOST: usize = 500;

/// How many events of a grant are known again; more are not taken.
const REMEMBERED: u64 = 50_000;

/// How long texts may be, in bytes.
const MAX_TEXT: usize = 256;

/// How many times it is done anew because somebody else was quicker.
const TRIES: u32 = 20;

/// Something that was done under a grant, as a log outside of the broker has it.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[schemars(rename = "OutsideUse")]
#[serde(deny_unknown_fields)]
pub(in crate::broker) struct Event {
    /// By what the log tells it from its others: an event with an id that was there before
    /// counts no more.
    id: String,
    /// Which log: `cloudtrail`, for instance.
    source: String,
    /// When (RFC 3339).
    #[serde(deserialize_with = "moment")]
    #[schemars(with = "String")]
    time: OffsetDateTime,
    /// What was done: `ec2.amazonaws.com:TerminateInstances`, for instance.
    action: String,
    /// To what.
    #[serde(default)]
    resource: String,
    /// How it ended.
    #[serde(default = "unknown")]
    outcome: String,
    /// From which address.
    #[serde(default)]
    from: String,
    /// How often; once where left out.
    #[serde(default = "once")]
    count: u64,
}

fn unknown() -> String {
    "unknown".into()
}

fn once() -> u64 {
    1
}

fn moment<'de, D: Deserializer<'de>>(deserializer: D) -> Result<OffsetDateTime, D::Error> {
    let text = String::deserialize(deserializer)?;
    OffsetDateTime::parse(&text, &Rfc3339)
        .map_err(|_| serde::de::Error::custom("'time' is no moment such as 2026-01-31T08:00:00Z"))
}

/// What became of events.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::broker) struct Taken {
    /// How many were new.
    pub(in crate::broker) taken: u64,
    /// How many were known.
    pub(in crate::broker) known: u64,
}

/// Reads events: a list, or one in each line.
///
/// # Errors
/// Which of them is wrong, and why.
pub(in crate::broker) fn read(body: &[u8]) -> Result<Vec<Event>, String> {
    let text = std::str::from_utf8(body).map_err(|_| "the body is not UTF-8".to_string())?;
    let wrong = |number: usize, cause: serde_json::Error| format!("event {number}: {cause}");
    let events: Vec<Event> = match text.trim_start().starts_with('[') {
        true => {
            let values: Vec<serde_json::Value> = serde_json::from_str(text)
                .map_err(|cause| format!("the body is no list: {cause}"))?;
            let one = |(number, value)| {
                serde_json::from_value(value).map_err(|cause| wrong(number, cause))
            };
            (1..).zip(values).map(one).collect::<Result<_, _>>()?
        }
        false => {
            let lines = text.lines().filter(|line| !line.trim().is_empty());
            let one =
                |(number, line)| serde_json::from_str(line).map_err(|cause| wrong(number, cause));
            (1..).zip(lines).map(one).collect::<Result<_, _>>()?
        }
    };
    if events.is_empty() || events.len() > MOST {
        return Err(format!("a request has from one to {MOST} events"));
    }
    for (number, event) in (1..).zip(&events) {
        event.check().map_err(|why| format!("event {number}: {why}"))?;
    }
    Ok(events)
}

impl Event {
    fn check(&self) -> Result<(), String> {
        let Self { id, source, action, resource, outcome, from, .. } = self;
        for (name, text) in
            [("id", id), ("source", source), ("action", action), ("outcome", outcome)]
        {
            if text.is_empty() {
                return Err(format!("'{name}' says nothing"));
            }
        }
        for (name, text) in [
            ("id", id),
            ("source", source),
            ("action", action),
            ("resource", resource),
            ("outcome", outcome),
            ("from", from),
        ] {
            if text.len() > MAX_TEXT || text.chars().any(char::is_control) {
                return Err(format!("'{name}' must be a line of at most {MAX_TEXT} bytes"));
            }
        }
        match self.count {
            1..=1_000_000_000 => Ok(()),
            _ => Err("'count' is from one to a billion".into()),
        }
    }

    /// By what it is known again: ids are those of one log.
    fn known_by(&self) -> String {
        let mut hasher = Context::new(&SHA256);
        for part in [&self.source, &self.id] {
            hasher.update(&(part.len() as u64).to_be_bytes());
            hasher.update(part.as_bytes());
        }
        HEXLOWER.encode(&hasher.finish().as_ref()[..16])
    }

    fn what(&self) -> What {
        let texts = [&self.source, &self.action, &self.resource, &self.outcome, &self.from];
        What::new(Kind::Outside, texts.map(String::as_str))
    }
}

impl Broker {
    /// Takes what a log tells of a grant; durable and on record when it returns.
    ///
    /// # Errors
    /// [`Refusal`].
    pub(in crate::broker) async fn take_uses(
        &self,
        by: &Author,
        id: Uuid,
        events: &[Event],
    ) -> Result<Taken, Refusal> {
        let elevation = self.elevation_with(id).await?.ok_or(Refusal::Unknown)?;
        if elevation.grant.is_none() {
            let why = "the role was never had, so nothing was done with it";
            return Err(Refusal::conflict(why));
        }
        // Twice in one request is once, too.
        let all: BTreeMap<String, &Event> =
            events.iter().map(|event| (event.known_by(), event)).collect();
        let ids: Vec<String> = all.keys().cloned().collect();
        for _ in 0..TRIES {
            let (version, mut sum) = self.uses.stored(id).await?;
            let known = self.store.known_events(id, &ids).await?;
            let new: Vec<_> = all.iter().filter(|(id, _)| !known.contains(*id)).collect();
            let taken = new.len() as u64;
            let known = events.len() as u64 - taken;
            if new.is_empty() {
                return Ok(Taken { taken, known });
            }
            sum.events = sum.events.saturating_add(taken);
            if sum.events > REMEMBERED {
                let why = format!("of one grant {REMEMBERED} events are taken, and no more");
                return Err(Refusal::conflict(why));
            }
            for (_, event) in &new {
                let times = Times { count: event.count, ..Times::once(event.time) };
                sum.add(event.what(), &times);
            }
            let new = new.into_iter().map(|(id, _)| id.clone()).collect();
            let effect = self.uses.effect((id, version), &sum, new)?;
            let now = self.clock.now();
            let mut record = self.record_of(&elevation, by.record(now, "uses", Decision::Changed));
            record.reason = format!("told of {taken} things that were done, {known} of them known");
            record.actor = None;
            let unit = Unit::of(record).with(effect);
            if self.metrics.recording(self.audit.commit(unit)).await?.is_some() {
                return Ok(Taken { taken, known });
            }
        }
        let why = "others tell of the same grant all the time";
        Err(Error::new(ErrorKind::Other, why).into())
    }
}
