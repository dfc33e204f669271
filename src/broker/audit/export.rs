//! Records, as programs that collect logs want them.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Decision, Record};

/// How a record is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// The columns of the log, by their names.
    #[default]
    Jsonl,
    /// The Elastic Common Schema.
    Ecs,
    /// The Open Cybersecurity Schema Framework.
    Ocsf,
}

/// The version of ECS that is spoken.
const ECS_VERSION: &str = "9.4.0";

/// The version of OCSF that is spoken.
const OCSF_VERSION: &str = "1.3.0";

/// Authorize Session, of the category Identity & Access Management.
const OCSF_CLASS: u32 = 3003;

/// A record in this format.
pub fn exported(format: Format, sequence: u64, record: &Record) -> Value {
    match format {
        Format::Jsonl => jsonl(sequence, record),
        Format::Ecs => ecs(sequence, record),
        Format::Ocsf => ocsf(sequence, record),
    }
}

/// What stands for a record that cannot be read. The schemas want a time of everything:
/// `near` is that of a record beside it.
pub fn unreadable(format: Format, sequence: u64, near: OffsetDateTime) -> Value {
    let said = "the record cannot be read: somebody has changed it";
    stand_in(format, sequence, ("unreadable", said), near)
}

/// What stands for all records from the first of these numbers to the last, which are gone.
pub fn missing(format: Format, (first, last): (u64, u64), near: OffsetDateTime) -> Value {
    let said = match first == last {
        true => format!("record {first} is gone: somebody has deleted it"),
        false => format!("records {first} to {last} are gone: somebody has deleted them"),
    };
    stand_in(format, last, ("missing", &said), near)
}

fn stand_in(
    format: Format,
    sequence: u64,
    (what, said): (&str, &str),
    near: OffsetDateTime,
) -> Value {
    match format {
        Format::Jsonl => json!({ "sequence": sequence, what: said }),
        Format::Ecs => json!({
            "@timestamp": moment(near),
            "ecs": { "version": ECS_VERSION },
            "message": said,
            "event": {
                "kind": "event",
                "module": "tmpcred",
                "dataset": "tmpcred.audit",
                "outcome": "unknown",
                "sequence": sequence,
            },
        }),
        // Of the class of events of which no more is known: others need a user.
        Format::Ocsf => json!({
            "category_uid": 0,
            "class_uid": 0,
            "activity_id": 0,
            "type_uid": 0,
            "time": millis(near),
            "severity_id": 0,
            "status_id": 0,
            "status_detail": said,
            "metadata": {
                "version": OCSF_VERSION,
                "product": { "name": "tmpcred", "vendor_name": "tmpcred" },
                "log_name": "audit",
                "sequence": sequence,
            },
        }),
    }
}

fn moment(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

fn millis(at: OffsetDateTime) -> i64 {
    i64::try_from(at.unix_timestamp_nanos() / 1_000_000).unwrap_or(i64::MAX)
}

fn jsonl(sequence: u64, record: &Record) -> Value {
    json!({
        "sequence": sequence,
        "at": moment(record.at),
        "request_id": record.request_id,
        "trace_id": trace(record),
        "action": record.action,
        "decision": record.decision.as_str(),
        "reason": record.reason,
        "issuer": record.principal.issuer,
        "subject": record.principal.subject,
        "client": record.client,
        "source": record.source,
        "role": record.role,
        "audience": record.audience,
        "scope": record.scope,
        "ttl": record.ttl,
        "jti": record.jti,
        "parent": record.parent,
        "policy_id": record.policy_id,
        "policy_hash": record.policy_hash,
        "count": record.count,
        "actor": record.actor,
        "elevation": record.elevation,
        "claims": record.claims,
    })
}

/// The trace, as other programs write it.
fn trace(record: &Record) -> Option<String> {
    record.trace_id.map(|id| id.to_string())
}

/// What schemas have no place for, under a name of its own.
fn own(sequence: u64, record: &Record) -> Value {
    json!({
        "sequence": sequence,
        "decision": record.decision.as_str(),
        "issuer": record.principal.issuer,
        "client": record.client,
        "role": record.role,
        "audience": record.audience,
        "scope": record.scope,
        "ttl": record.ttl,
        "jti": record.jti,
        "parent": record.parent,
        "policy_hash": record.policy_hash,
        "count": record.count,
        "actor": record.actor,
        "elevation": record.elevation,
        "claims": record.claims,
    })
}

fn ecs(sequence: u64, record: &Record) -> Value {
    // Each type is one that the schema expects with such a category.
    let (category, kind) = match record.decision {
        Decision::Issued => (json!(["api", "session"]), json!(["access", "allowed", "start"])),
        Decision::Denied => (json!(["api"]), json!(["access", "denied"])),
        Decision::Aborted => (json!(["api", "session"]), json!(["access", "end"])),
        Decision::Revoked => (json!(["api", "session"]), json!(["deletion", "end"])),
        Decision::Changed => (json!(["configuration"]), json!(["change"])),
    };
    let mut event = json!({
        "@timestamp": moment(record.at),
        "ecs": { "version": ECS_VERSION },
        "message": record.reason,
        "event": {
            "kind": "event",
            "module": "tmpcred",
            "dataset": "tmpcred.audit",
            "category": category,
            "type": kind,
            "action": record.action,
            "outcome": if record.went_well() { "success" } else { "failure" },
            "reason": record.reason,
            "sequence": sequence,
        },
        "user": { "id": record.principal.subject, "domain": record.principal.issuer },
        "http": { "request": { "id": record.request_id } },
        "tmpcred": own(sequence, record),
    });
    if !record.role.is_empty() {
        event["user"]["roles"] = json!([record.role]);
    }
    if !record.source.is_empty() {
        event["source"] = json!({ "address": record.source });
    }
    // A field of this type takes nothing else.
    if record.source.parse::<IpAddr>().is_ok() {
        event["source"]["ip"] = json!(record.source);
    }
    if let Some(trace) = trace(record) {
        event["trace"] = json!({ "id": trace });
    }
    if let Some(policy) = &record.policy_id {
        event["rule"] = json!({ "id": policy, "ruleset": record.policy_hash });
    }
    event
}

fn ocsf(sequence: u64, record: &Record) -> Value {
    let (activity, name) = match record.action.as_str() {
        "issue" => (1, "Assign Privileges"),
        _ => (99, record.action.as_str()),
    };
    let (status, status_name) = match record.went_well() {
        true => (1, "Success"),
        false => (2, "Failure"),
    };
    // Informational; what was refused is low.
    let severity = if record.went_well() { 1 } else { 2 };
    let mut session = Map::new();
    session.insert("issuer".into(), json!(record.principal.issuer));
    if let Some(jti) = record.jti {
        session.insert("uid".into(), json!(jti));
    }
    let mut event = json!({
        "category_uid": OCSF_CLASS / 1000,
        "class_uid": OCSF_CLASS,
        "activity_id": activity,
        "activity_name": name,
        "type_uid": OCSF_CLASS * 100 + activity,
        "time": millis(record.at),
        "severity_id": severity,
        "status_id": status,
        "status": status_name,
        "status_detail": record.reason,
        "count": record.count,
        "metadata": {
            "version": OCSF_VERSION,
            "product": { "name": "tmpcred", "vendor_name": "tmpcred" },
            "log_name": "audit",
            "sequence": sequence,
            "correlation_uid": record.request_id,
        },
        "user": { "uid": record.principal.subject, "domain": record.principal.issuer },
        "session": session,
        "privileges": record.scope.split_ascii_whitespace().collect::<Vec<_>>(),
        "unmapped": own(sequence, record),
    });
    if record.source.parse::<IpAddr>().is_ok() {
        event["src_endpoint"] = json!({ "ip": record.source });
    }
    if let Some(trace) = trace(record) {
        event["unmapped"]["trace_id"] = json!(trace);
    }
    if let Some(policy) = &record.policy_id {
        event["unmapped"]["policy_id"] = json!(policy);
    }
    event
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::store::sql::tests::record;

    #[test]
    fn each_format_tells_who_asked_for_what_and_how_it_ended() {
        let denied = Record { decision: Decision::Denied, jti: None, ..record("no") };
        let line = exported(Format::Jsonl, 7, &denied);
        assert_eq!(line["at"], "2026-01-01T12:00:00.123456Z");
        assert_eq!((&line["decision"], &line["jti"]), (&json!("denied"), &Value::Null));
        assert_eq!(line.as_object().unwrap().len(), super::super::leaf::COLUMNS.len());
        let ecs = exported(Format::Ecs, 7, &denied);
        assert_eq!(ecs["@timestamp"], line["at"]);
        assert_eq!(ecs["event"]["outcome"], "failure");
        assert_eq!(ecs["event"]["type"], json!(["access", "denied"]));
        assert_eq!(ecs["event"]["category"], json!(["api"]));
        assert_eq!(
            (&ecs["user"]["id"], &ecs["source"]["ip"]),
            (&json!("alice"), &json!("127.0.0.1"))
        );
        assert_eq!(ecs["rule"]["id"], "p");
        let ocsf = exported(Format::Ocsf, 7, &record("yes"));
        assert_eq!((&ocsf["type_uid"], &ocsf["status_id"]), (&json!(300_301), &json!(1)));
        assert_eq!(ocsf["time"], 1_767_268_800_123_i64);
        assert_eq!(ocsf["privileges"], json!(["a", "b"]));
        assert!(ocsf.get("actor").is_none(), "the class has no such field");
        let revoked = Record {
            decision: Decision::Revoked,
            action: "revoke".into(),
            source: "?".into(),
            ..record("")
        };
        let ocsf = exported(Format::Ocsf, 8, &revoked);
        assert_eq!((&ocsf["activity_id"], &ocsf["activity_name"]), (&json!(99), &json!("revoke")));
        assert!(ocsf.get("src_endpoint").is_none());
        // One id leads through all that was done under a grant, whatever the form.
        let id = uuid::Uuid::from_u128(7);
        let under = Record { elevation: Some(id), ..record("yes") };
        for (format, place) in
            [(Format::Jsonl, ""), (Format::Ecs, "/tmpcred"), (Format::Ocsf, "/unmapped")]
        {
            let line = exported(format, 9, &under);
            assert_eq!(line.pointer(&format!("{place}/elevation")), Some(&json!(id)), "{line}");
        }
        assert!(exported(Format::Ecs, 8, &revoked)["source"].get("ip").is_none());
    }

    #[test]
    fn what_cannot_be_read_has_the_time_of_what_is_beside_it() {
        let near = record("").at;
        let ecs = unreadable(Format::Ecs, 7, near);
        assert_eq!(ecs["@timestamp"], "2026-01-01T12:00:00.123456Z");
        let ocsf = unreadable(Format::Ocsf, 7, near);
        assert_eq!(ocsf["time"], 1_767_268_800_123_i64);
        assert_eq!((&ocsf["class_uid"], &ocsf["type_uid"]), (&json!(0), &json!(0)));
    }
}
