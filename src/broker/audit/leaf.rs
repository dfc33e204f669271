//! What of a record goes into the tree: the same bytes for the same record, for ever.
//!
//! Each column goes in with its length, so that nothing can move from one to the
//! next. What tells of a person goes in as an HMAC under a salt of the record's own:
//! whoever erases text and salt leaves the tree as it was, and nobody can guess from
//! it what the text had been.

use aws_lc_rs::hmac;

use super::tree::{HASH, Hash, leaf_hash};
use super::{ACTIONS, Record, micros};
use crate::error::{Error, ErrorKind, Result};

/// The columns, in the order in which they go in.
pub const COLUMNS: [&str; 23] = [
    "sequence",
    "at",
    "request_id",
    "action",
    "decision",
    "reason",
    "issuer",
    "subject",
    "client",
    "source",
    "role",
    "audience",
    "scope",
    "ttl",
    "jti",
    "parent",
    "policy_id",
    "policy_hash",
    "count",
    ACTOR,
    TRACE,
    ELEVATION,
    CLAIMS,
];

/// The column that only the forms from [`WITH_ACTOR`] on have.
const ACTOR: &str = "actor";

/// The column that only the forms from [`WITH_TRACE`] on have.
const TRACE: &str = "trace_id";

/// The column that only the forms from [`WITH_ELEVATION`] on have.
const ELEVATION: &str = "elevation";

/// The column that only the form [`WITH_CLAIMS`] has.
const CLAIMS: &str = "claims";

/// Those that hold numbers.
pub const NUMBERS: [&str; 4] = ["sequence", "at", "ttl", "count"];

/// Those that tell of a person.
const PERSONAL: [&str; 6] = ["reason", "subject", "client", "source", ACTOR, CLAIMS];

/// Everything as it is: records from before there was a tree have no salt.
pub const PLAIN: i64 = 1;

/// What is personal as an HMAC.
pub const SALTED: i64 = 2;

/// The same, of a record that says who acted.
pub const WITH_ACTOR: i64 = 3;

/// The same, of a record that says which trace it belongs to, whoever acted.
pub const WITH_TRACE: i64 = 4;

/// The same, of a record that belongs to an elevation, whoever acted, traced or not.
pub const WITH_ELEVATION: i64 = 5;

/// The same, of a record of a token that says something besides, whoever acted, traced or not,
/// of an elevation or not.
pub const WITH_CLAIMS: i64 = 6;

/// What stands in a column that was erased.
pub const ERASED: &str = "(erased)";

/// The length of a salt in bytes.
pub const SALT: usize = 16;

/// The longest leaf, in bytes.
const MAX_LEAF: usize = u16::MAX as usize;

/// A record as it goes into the tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// The place of the record in the log.
    pub sequence: u64,
    /// Which of the forms it has.
    pub version: i64,
    /// Random bytes, where the form wants them.
    pub salt: Option<Vec<u8>>,
    /// The HMACs of what is personal, where that and the salt were erased.
    pub erased: Option<Vec<u8>>,
    /// What is in the columns; nothing where there is something that cannot be there.
    pub values: Option<[Option<String>; COLUMNS.len()]>,
}

impl Leaf {
    /// The leaf of a new record.
    pub fn new(sequence: u64, record: &Record, salt: [u8; SALT]) -> Self {
        let number = |number: u64| Some(stored(number).to_string());
        let text = |text: &str| Some(text.to_string());
        let values = [
            number(sequence),
            Some(micros(record.at).to_string()),
            Some(record.request_id.to_string()),
            text(&record.action),
            text(record.decision.as_str()),
            text(&record.reason),
            text(&record.principal.issuer),
            text(&record.principal.subject),
            text(&record.client),
            text(&record.source),
            text(&record.role),
            text(&record.audience),
            text(&record.scope),
            number(record.ttl),
            record.jti.map(|jti| jti.to_string()),
            record.parent.map(|jti| jti.to_string()),
            record.policy_id.clone(),
            text(&record.policy_hash),
            number(record.count),
            record.actor.clone(),
            record.trace_id.map(|id| id.to_string()),
            record.elevation.map(|id| id.to_string()),
            record.claims.clone(),
        ];
        let version = match (&record.claims, record.elevation, record.trace_id, &record.actor) {
            (Some(_), ..) => WITH_CLAIMS,
            (None, Some(_), ..) => WITH_ELEVATION,
            (None, None, Some(_), _) => WITH_TRACE,
            (None, None, None, Some(_)) => WITH_ACTOR,
            (None, None, None, None) => SALTED,
        };
        Self { sequence, version, salt: Some(salt.to_vec()), erased: None, values: Some(values) }
    }

    /// Its hash; `None` where there is nothing that it could be the hash of.
    pub fn hash(&self) -> Option<Hash> {
        self.bytes().map(|bytes| leaf_hash(&bytes))
    }

    /// What is kept of what is personal where it is erased: its HMACs. `None` where the
    /// record has no salt, or is erased already.
    pub fn kept(&self) -> Option<Vec<u8>> {
        let Hidden::Salted(key) = self.hidden()? else { return None };
        let mut kept = Vec::new();
        for (column, value) in COLUMNS.iter().zip(self.values.as_ref()?) {
            if let Some(value) = value
                && PERSONAL.contains(column)
            {
                kept.extend(hmac_of(&key, column, value).as_ref());
            }
        }
        Some(kept)
    }

    fn hidden(&self) -> Option<Hidden<'_>> {
        Some(match (self.version, self.salt.as_deref(), self.erased.as_deref()) {
            (PLAIN, None, None) => Hidden::Nothing,
            // Of another length it could be padded to the same key.
            (SALTED..=WITH_CLAIMS, Some(salt), None) if salt.len() == SALT => {
                Hidden::Salted(Box::new(hmac::Key::new(hmac::HMAC_SHA256, salt)))
            }
            (SALTED..=WITH_CLAIMS, None, Some(kept)) => {
                let (hashes, rest) = kept.as_chunks::<HASH>();
                if !rest.is_empty() {
                    return None;
                }
                Hidden::Erased(hashes)
            }
            _ => return None,
        })
    }

    /// How many bytes it can have at most. Nothing is hashed for that: each record is looked
    /// at when somebody waits for it, and hashed when its place is known.
    fn longest(&self) -> usize {
        let name = self.name().len();
        let columns = COLUMNS.iter().zip(self.values.iter().flatten());
        let length = |(column, value): (&&str, &Option<String>)| match value {
            None => 1,
            Some(_) if PERSONAL.contains(column) => 1 + HASH,
            Some(value) => 1 + size_of::<u32>() + value.len(),
        };
        name + columns.map(length).sum::<usize>()
    }

    /// What its bytes begin with.
    fn name(&self) -> String {
        format!("tmpcred audit record v{}\0", self.version)
    }

    fn bytes(&self) -> Option<Vec<u8>> {
        let mut hidden = self.hidden()?;
        let mut bytes = self.name().into_bytes();
        for (column, value) in COLUMNS.iter().zip(self.values.as_ref()?) {
            match (value, &mut hidden) {
                // The earlier forms have no place for it.
                (value, _) if !has_place(self.version, column) => {
                    if value.is_some() {
                        return None;
                    }
                }
                (None, _) => bytes.push(0),
                (Some(value), Hidden::Salted(key)) if PERSONAL.contains(column) => {
                    bytes.push(2);
                    bytes.extend(hmac_of(key, column, value).as_ref());
                }
                (Some(value), Hidden::Erased(kept)) if PERSONAL.contains(column) => {
                    // Nobody puts anything else there, which would be in no hash.
                    let (first, rest) = kept.split_first().filter(|_| value == ERASED)?;
                    bytes.push(2);
                    bytes.extend(first);
                    *kept = rest;
                }
                (Some(value), _) => {
                    bytes.push(1);
                    bytes.extend(u32::try_from(value.len()).ok()?.to_be_bytes());
                    bytes.extend(value.as_bytes());
                }
            }
        }
        matches!(hidden, Hidden::Nothing | Hidden::Salted(_) | Hidden::Erased([])).then_some(bytes)
    }
}

/// How what is personal goes in.
enum Hidden<'a> {
    /// As it is.
    Nothing,
    /// As an HMAC.
    Salted(Box<hmac::Key>),
    /// As the HMACs that were kept of it.
    Erased(&'a [Hash]),
}

/// Whether this form has a place for this column.
fn has_place(version: i64, column: &str) -> bool {
    match column {
        ACTOR => version >= WITH_ACTOR,
        TRACE => version >= WITH_TRACE,
        ELEVATION => version >= WITH_ELEVATION,
        CLAIMS => version >= WITH_CLAIMS,
        _ => true,
    }
}

fn hmac_of(key: &hmac::Key, column: &str, value: &str) -> hmac::Tag {
    let mut context = hmac::Context::with_key(key);
    context.update(column.as_bytes());
    context.update(&[0]);
    context.update(value.as_bytes());
    context.sign()
}

/// Refuses a record that the log cannot have: one that is too long, or has a NUL in it,
/// which not every database can keep.
pub fn check(record: &Record) -> Result<()> {
    let action = record.action.as_str();
    debug_assert!(ACTIONS.contains(&action), "who looks for {action} has to be able to find it");
    let refused = |why: &str| {
        Err(Error::new(ErrorKind::Other, "the audit log cannot be written").because_of(why))
    };
    // The store's own columns take less than a KiB, whatever their values.
    let personal = [&record.reason, &record.principal.subject, &record.client, &record.source];
    let personal = personal.into_iter().chain(&record.actor).chain(&record.claims);
    let leaf = Leaf::new(u64::MAX, record, [0; SALT]);
    if leaf.longest() > MAX_LEAF || personal.into_iter().any(|text| text.len() > MAX_LEAF) {
        return refused("the record is longer than 64 KiB");
    }
    if leaf.values.iter().flatten().flatten().any(|text| text.contains('\0')) {
        return refused("the record has a NUL in it");
    }
    Ok(())
}

/// A number as the store has it.
pub fn stored(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use data_encoding::HEXLOWER;

    use super::*;
    use crate::broker::store::sql::tests::record;
    use crate::trace::{TraceId, w3c};

    #[test]
    #[should_panic(expected = "who looks for elevation.nope")]
    fn an_action_that_no_list_has_is_on_no_record() {
        let _ = check(&Record { action: "elevation.nope".into(), ..record("a reason") });
    }

    #[test]
    fn a_leaf_is_the_same_in_every_version_of_the_program() {
        let leaf = Leaf::new(7, &record("a reason"), [9; SALT]);
        let plain = Leaf { version: PLAIN, salt: None, ..leaf.clone() };
        let traced = Leaf::new(7, &Record { trace_id: trace(), ..record("a reason") }, [9; SALT]);
        let claims = Some(r#"{"groups":["a"]}"#.to_string());
        let says = Leaf::new(7, &Record { claims, ..record("a reason") }, [9; SALT]);
        // Computed by Python's hashlib and hmac.
        assert_eq!(HEXLOWER.encode(&says.hash().unwrap()), SAYS_HASH);
        assert_eq!(HEXLOWER.encode(&traced.hash().unwrap()), TRACED_HASH);
        assert_eq!(HEXLOWER.encode(&leaf.hash().unwrap()), SALTED_HASH);
        assert_eq!(HEXLOWER.encode(&plain.hash().unwrap()), PLAIN_HASH);
    }

    fn trace() -> Option<TraceId> {
        w3c::trace_id("12345678901234567890123456789012")
    }

    const SAYS_HASH: &str = "b272a369e8c96bdd6f84db6f5c0a881822d1ea23387591f034dd2dcbf8926a24";
    const TRACED_HASH: &str = "bdfa3918988f90e0205a31d1ef1538760ecec8b8f54f2d058813472ce3f9d6df";
    const SALTED_HASH: &str = "bf14d5e61f8cd19af3e5efd4435627de11b1e154d3a98af2adca3c31598badcd";
    const PLAIN_HASH: &str = "5e05fa83cc37a71a867d37cf558672718ba89811647b25c480c0b97a810a83e5";

    #[test]
    fn every_change_changes_the_leaf() {
        let acted = Record { actor: Some("https://i.example#bot".into()), ..record("a reason") };
        let leaf = Leaf::new(7, &acted, [9; SALT]);
        assert_eq!(leaf.version, WITH_ACTOR);
        // One that says who acted is none of the earlier forms.
        assert_eq!(Leaf { version: SALTED, ..leaf.clone() }.hash(), None);
        assert_ne!(Leaf { version: WITH_TRACE, ..leaf.clone() }.hash(), leaf.hash());
        let traced = Record { trace_id: trace(), ..acted };
        let leaf = Leaf::new(7, &traced, [9; SALT]);
        assert_eq!(leaf.version, WITH_TRACE);
        assert_eq!(Leaf { version: WITH_ACTOR, ..leaf.clone() }.hash(), None);
        assert_ne!(Leaf { version: WITH_ELEVATION, ..leaf.clone() }.hash(), leaf.hash());
        let elevated = Record { elevation: Some(Uuid::from_u128(7)), ..traced };
        let leaf = Leaf::new(7, &elevated, [9; SALT]);
        assert_eq!(leaf.version, WITH_ELEVATION);
        assert_eq!(Leaf { version: WITH_TRACE, ..leaf.clone() }.hash(), None);
        assert_ne!(Leaf { version: WITH_CLAIMS, ..leaf.clone() }.hash(), leaf.hash());
        let says = Record { claims: Some(r#"{"groups":["a"]}"#.into()), ..elevated };
        let leaf = Leaf::new(7, &says, [9; SALT]);
        let hash = leaf.hash().unwrap();
        assert_eq!(leaf.version, WITH_CLAIMS);
        assert_eq!(Leaf { version: WITH_ELEVATION, ..leaf.clone() }.hash(), None);
        for at in 0..COLUMNS.len() {
            for value in [None, Some("".to_string()), Some("other".to_string())] {
                let mut other = leaf.clone();
                let values = other.values.as_mut().unwrap();
                if values[at] != value {
                    values[at] = value;
                    assert_ne!(other.hash().unwrap(), hash, "{}", COLUMNS[at]);
                }
            }
        }
        // From one column to the next.
        let mut moved = leaf.clone();
        let values = moved.values.as_mut().unwrap();
        values[10] = Some("deployh".into());
        values[11] = Some("ttps://api.example".into());
        assert_ne!(moved.hash().unwrap(), hash);
        let mut salt = leaf.salt.clone().unwrap();
        salt[0] ^= 1;
        assert_ne!(Leaf { salt: Some(salt.clone()), ..leaf.clone() }.hash().unwrap(), hash);
        // An HMAC pads its key with zeros.
        salt.push(0);
        assert_eq!(Leaf { salt: Some(salt), ..leaf.clone() }.hash(), None);
        assert_eq!(Leaf { version: PLAIN, ..leaf.clone() }.hash(), None);
        assert_eq!(Leaf { version: 7, ..leaf.clone() }.hash(), None);
        assert_eq!(Leaf { values: None, ..leaf }.hash(), None);
    }

    #[test]
    fn what_is_erased_leaves_the_hash_as_it_was() {
        for actor in [None, Some("https://i.example#bot".to_string())] {
            let trace_id = trace().filter(|_| actor.is_none());
            let claims = actor.as_ref().map(|_| r#"{"groups":["a"]}"#.to_string());
            let record = Record { actor, trace_id, claims, ..record("a reason") };
            let leaf = Leaf::new(7, &record, [9; SALT]);
            let mut values = leaf.values.clone().unwrap();
            for (column, value) in COLUMNS.iter().zip(&mut values) {
                if PERSONAL.contains(column) && value.is_some() {
                    *value = Some(ERASED.into());
                }
            }
            let values = Some(values);
            let erased = Leaf { salt: None, erased: leaf.kept(), values, ..leaf.clone() };
            assert_eq!(erased.hash(), leaf.hash());
            assert_eq!(erased.kept(), None, "it is not erased twice");
            // Nobody says something else in its place, or lets some of it go.
            for at in 0..COLUMNS.len() {
                for value in [None, Some("other".to_string())] {
                    let mut other = erased.clone();
                    let values = other.values.as_mut().unwrap();
                    if values[at] != value {
                        values[at] = value;
                        assert_ne!(other.hash(), leaf.hash(), "{}", COLUMNS[at]);
                    }
                }
            }
            let kept = erased.erased.clone().unwrap();
            for length in [0, HASH, kept.len() - 1] {
                let shorter = Some(kept[..length].to_vec());
                assert_eq!(Leaf { erased: shorter, ..erased.clone() }.hash(), None);
            }
            let longer = Some([kept.clone(), vec![0; HASH]].concat());
            assert_eq!(Leaf { erased: longer, ..erased.clone() }.hash(), None);
            assert_eq!(Leaf { salt: leaf.salt.clone(), ..erased.clone() }.hash(), None);
            assert_eq!(Leaf { version: PLAIN, ..erased }.hash(), None);
            assert_eq!(Leaf { version: PLAIN, salt: None, ..leaf }.kept(), None);
        }
    }

    #[test]
    fn what_is_personal_is_not_in_the_leaf() {
        let actor = Some("https://i.example#bot".into());
        let claims = Some(r#"{"name":"a-smith"}"#.into());
        let acted = Record { actor, claims, ..record("a reason") };
        let bytes = Leaf::new(7, &acted, [9; SALT]).bytes().unwrap();
        let has = |text: &str| bytes.windows(text.len()).any(|part| part == text.as_bytes());
        assert!(has("deploy") && has("https://i.example"));
        for personal in ["alice", "a reason", "127.0.0.1", "cli", "bot", "a-smith"] {
            assert!(!has(personal), "{personal}");
        }
    }

    #[test]
    fn a_record_beyond_64_kib_or_with_a_nul_is_refused() {
        assert!(check(&record("a\0b")).is_err());
        for text in ["a\0b".to_string(), "x".repeat(MAX_LEAF + 1)] {
            assert!(check(&Record { claims: Some(text.clone()), ..record("") }).is_err());
            assert!(check(&Record { actor: Some(text), ..record("") }).is_err());
        }
        assert!(check(&Record { scope: "x".repeat(64_000), ..record("") }).is_ok());
        let actor = Some("https://i.example#bot".to_string());
        for record in [record("a reason"), Record { actor, trace_id: trace(), ..record("") }] {
            let leaf = Leaf::new(u64::MAX, &record, [0; SALT]);
            let length = leaf.bytes().unwrap().len();
            assert!((length..length + 8).contains(&leaf.longest()), "as it is hashed");
        }
        assert!(check(&Record { scope: "x".repeat(65_536), ..record("") }).is_err());
        assert!(check(&record(&"x".repeat(65_536))).is_err());
    }
}
