//! The unit of work.

use std::borrow::Cow;
use std::collections::BTreeSet;

use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use super::Enrollment;
use super::elevation::{StoredElevation, Unless};
use super::uses::StoredUses;
use crate::broker::audit::Record;
use crate::broker::keys::{SealedRoot, StoredKey};
use crate::broker::notify::Message;

/// What belongs together: all of it is kept, or nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unit {
    /// What is put on record.
    pub records: Vec<Record>,
    /// What comes about with it. Each has a condition; where one does not hold,
    /// nothing of the unit is kept.
    pub effects: Vec<Effect>,
}

impl Unit {
    /// A record of something that changes nothing in the store.
    pub fn of(record: Record) -> Self {
        Self { records: vec![record], effects: Vec::new() }
    }

    /// The same, with an effect.
    pub fn with(mut self, effect: Effect) -> Self {
        self.effects.push(effect);
        self
    }
}

/// A change, and what has to be so for it to be made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Uses something up, if it was not before.
    Consume(Consumed),
    /// Adds a signing key, if there is no active one for the same purpose and
    /// algorithm, nor one with its id.
    AddKey(StoredKey),
    /// Changes a signing key, if it still has the state and the seal of `before`.
    ChangeKey {
        /// The key as it was read.
        before: StoredKey,
        /// The key as it is to be; its id is the same.
        after: StoredKey,
    },
    /// Adds the root key as it is sealed under a key-encryption key, if nothing is in its place, it
    /// is not sealed under that yet, and it is under the one of who adds it, or that is this one.
    AddRoot {
        /// What is added.
        root: SealedRoot,
        /// The name of the key-encryption key of who adds it.
        by: String,
    },
    /// Removes the root key as it is sealed under a key-encryption key, if it is sealed under this
    /// other one, too.
    RemoveRoot {
        /// The name of the key-encryption key.
        kek_id: String,
        /// That of the other one.
        other: String,
    },
    /// Adds a checkpoint of the audit log, if there is none of the same size.
    AddCheckpoint {
        /// How many records it covers.
        size: u64,
        /// The signed note.
        note: String,
        /// When it was signed.
        at: OffsetDateTime,
    },
    /// Revokes what was issued before a time. Where there is a later one already, that
    /// stays; it always holds.
    CutOff(Cutoff),
    /// Keeps what a token says that can only be introspected.
    AddOpaque(OpaqueToken),
    /// Adds a key that somebody enrolls, if it is not enrolled yet, is not and was not anybody
    /// else's, and they have not as many as they may.
    Enroll(Enrollment),
    /// Changes what is known of such a key, if it still has the seal of `before`.
    ChangeEnrollment {
        /// As it was read.
        before: Enrollment,
        /// As it is to be; its key and its id are the same, and whose it is, or it was erased.
        after: Box<Enrollment>,
    },
    /// Erases what is personal in these records, if all of them have it still, and a salt
    /// that goes with it. What is left is as good a leaf of the tree.
    Erase(Vec<u64>),
    /// Puts on record what people are told, if nothing with the same key is; it always holds.
    Tell(Message),
    /// Changes nothing: it holds if the log says that this request was issued this token, and
    /// not that nothing came of it. Another request may have been issued a token with the
    /// same id: where an assertion may be used once, its uses have ids that all can tell.
    IfIssued {
        /// The id of the token.
        jti: Uuid,
        /// The request.
        request_id: Uuid,
    },
    /// Adds an elevation, unless there is one that speaks against it.
    AddElevation(StoredElevation, Unless),
    /// Changes an elevation, if it still has the version before this one, and unless there is
    /// another one that speaks against it.
    ChangeElevation(StoredElevation, Unless),
    /// Changes nothing: it holds if the elevation still has this version.
    IfElevation {
        /// Which one.
        id: Uuid,
        /// The version that was looked at.
        version: u64,
    },
    /// Changes nothing: it holds if each of these enrolled keys still is approved, and has not
    /// lapsed at this moment.
    IfEnrolled {
        /// Their fingerprints.
        keys: Vec<String>,
        /// When.
        at: OffsetDateTime,
    },
    /// Writes what was done under a grant, if it still has the version before this one, with
    /// the events of outside logs that are new in it.
    SumUses(StoredUses, Vec<String>),
    /// Forgets what people were told of an elevation and, where that is wanted, what was done
    /// under it; it always holds.
    ForgetBeside {
        /// Which one.
        elevation: Uuid,
        /// The keys of all messages by which people may have been told.
        messages: Vec<String>,
        /// Whether what was done is forgotten, too.
        uses: bool,
    },
    /// Changes nothing: it holds if none of these was revoked.
    IfNotRevoked(Revocable),
    /// Changes nothing: it holds if the store has no clock of its own, or one by which it is this
    /// moment, or not so far from it.
    IfClocksAgree {
        /// What this machine's clock says.
        at: OffsetDateTime,
        /// How far they may be apart.
        within: Duration,
    },
}

impl Effect {
    /// Whether it is nothing but a condition.
    pub fn changes_nothing(&self) -> bool {
        matches!(
            self,
            Self::IfIssued { .. }
                | Self::IfNotRevoked(_)
                | Self::IfElevation { .. }
                | Self::IfEnrolled { .. }
                | Self::IfClocksAgree { .. }
        )
    }
}

/// Whose tokens are good no more, and until when they were issued.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cutoff {
    /// Whose.
    pub whose: Whose,
    /// Those that were issued before this.
    pub before: OffsetDateTime,
    /// When that was said.
    pub at: OffsetDateTime,
    /// When they have all expired.
    pub keep_until: OffsetDateTime,
}

/// A token, as far as it can be revoked together with others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issuance {
    /// When it was issued, as it says itself.
    pub at: OffsetDateTime,
    /// Whose it is.
    pub names: BTreeSet<Whose>,
    /// Whether nobody knows any more whose it is: then it may be anybody's who is meant.
    pub erased: bool,
}

/// All by which a token may be good no more.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revocable {
    /// The ids of the token and of those that it came of.
    pub tokens: Vec<String>,
    /// The keys that signed them.
    pub keys: Vec<String>,
    /// The tokens, as far as they can be revoked together with others.
    pub issued: Vec<Issuance>,
}

impl Revocable {
    /// These tokens, as far as they can be revoked together with others.
    pub fn together(issued: impl Into<Vec<Issuance>>) -> Self {
        Self { issued: issued.into(), ..Self::default() }
    }

    /// These keys.
    pub fn keys(keys: impl Into<Vec<String>>) -> Self {
        Self { keys: keys.into(), ..Self::default() }
    }

    /// Whether there is nothing that could have been revoked.
    pub fn is_empty(&self) -> bool {
        self.tokens.is_empty() && self.keys.is_empty() && self.issued.is_empty()
    }
}

/// Tokens that are revoked together.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// All.
    Everybodys,
    /// Those of this issuer's callers.
    Issuer(String),
    /// Those of this subject, or with which they act for somebody; an id as
    /// [`Caller::id`](crate::broker::authenticate::Caller::id) has it.
    Subject(String),
    /// Those with this role.
    Role(String),
    /// Those that were issued to this client.
    Client(String),
    /// Those that were issued under this grant.
    Grant(Uuid),
}

impl Whose {
    /// The kinds of those that tell of a person.
    pub const PERSONAL: [&str; 3] = ["subject", "issuer", "client"];

    /// Kind and id, as the store has them.
    pub fn parts(&self) -> (&'static str, Cow<'_, str>) {
        match self {
            Self::Everybodys => ("all", Cow::Borrowed("")),
            Self::Issuer(id) => ("issuer", id.into()),
            Self::Subject(id) => ("subject", id.into()),
            Self::Role(id) => ("role", id.into()),
            Self::Client(id) => ("client", id.into()),
            Self::Grant(id) => ("grant", id.to_string().into()),
        }
    }
}

/// What a token says that can only be introspected.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpaqueToken {
    /// The hash of the token.
    pub hash: String,
    /// Its claims, as JSON.
    pub claims: String,
    /// What shows that the broker wrote them.
    pub seal: Vec<u8>,
    /// When nobody would accept it any more.
    pub keep_until: OffsetDateTime,
}

/// Something that was used up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumed {
    /// What kind of thing it is. Ids of different kinds are never the same.
    pub kind: Once,
    /// Which one.
    pub id: String,
    /// When it was used up.
    pub at: OffsetDateTime,
    /// When nobody would accept it any more anyway, so that this may be forgotten.
    pub keep_until: OffsetDateTime,
}

/// Things that can be used up once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Once {
    /// A token's being good: who revokes it uses that up.
    RevokedToken,
    /// A signing key's being good: who revokes it uses that up, for ever.
    RevokedKey,
    /// A proof of a key (RFC 9449).
    DpopProof,
    /// What a client has shown to authenticate (RFC 7523).
    ClientAssertion,
    /// An assertion that may be exchanged once, by its hash.
    Assertion,
    /// That what such an assertion was exchanged for was asked for once more, by a hash of the
    /// request.
    AssertionUse,
    /// What somebody signed with a key of theirs, by its nonce.
    Statement,
}

impl Once {
    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RevokedToken => "revoked-token",
            Self::RevokedKey => "revoked-key",
            Self::DpopProof => "dpop-proof",
            Self::ClientAssertion => "client-assertion",
            Self::Assertion => "assertion",
            Self::AssertionUse => "assertion-use",
            Self::Statement => "statement",
        }
    }
}

/// What became of a unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was committed.
    Committed {
        /// The sequence number of its first record; the next one to be given where it
        /// has none.
        first: u64,
    },
    /// The condition of an effect did not hold.
    Refused,
}

impl Outcome {
    /// Whether the unit was committed.
    pub fn is_committed(self) -> bool {
        matches!(self, Self::Committed { .. })
    }
}
