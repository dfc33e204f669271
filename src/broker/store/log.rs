//! What is read of the audit log: to look something up, and to check it.

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::broker::audit::leaf::Leaf;
use crate::broker::audit::seal::SealedEnd;
use crate::broker::audit::tree::Hash;
use crate::broker::audit::{Decision, Record};
use crate::error::{Error, ErrorKind, Result};
use crate::trace::TraceId;

/// The audit log, and what was signed of it.
#[async_trait]
pub trait LogStore: Send + Sync {
    /// How many records were appended to it, as its end has it.
    async fn size(&self) -> Result<u64>;

    /// Where it ends, as each place has it. All records are looked at, which takes as long as
    /// it takes.
    async fn ends(&self) -> Result<LogEnds>;

    /// How many records there are behind the first of these numbers, up to the second.
    async fn count(&self, after: u64, until: u64) -> Result<u64>;

    /// The end as it was sealed, where it was.
    async fn sealed_end(&self) -> Result<Option<SealedEnd>>;

    /// What of the records after this sequence number is in the tree, in order, at most
    /// `limit`; as it is, whatever was done to it.
    async fn leaves(&self, after: u64, limit: u32) -> Result<Vec<Leaf>>;

    /// A tile of the tree, as it is.
    async fn tile(&self, level: u32, number: u64) -> Result<Option<Vec<u8>>>;

    /// The root of the tree when it had this size, by its tiles.
    async fn root_at(&self, size: u64) -> Result<Hash>;

    /// The checkpoints of more than so many records, in order, at most `limit`.
    async fn notes(&self, after: u64, limit: u32) -> Result<Vec<Noted>>;

    /// The checkpoint of the most records.
    async fn latest_note(&self) -> Result<Option<Noted>>;

    /// The newest records that are as `filter` says, in order, at most `limit`.
    async fn find(&self, filter: &Filter, limit: u32) -> Result<Vec<Row>>;

    /// The latest moment that is on record under a lower number than `below`, where it is not
    /// before `since`.
    async fn latest(&self, since: OffsetDateTime, below: u64) -> Result<Option<OffsetDateTime>>;

    /// The records after this sequence number, in order, at most `limit`.
    async fn page(&self, after: u64, limit: u32) -> Result<Vec<Row>>;
}

/// How many of the last records are counted at most, to see that they are there.
const COUNTED: u64 = 100_000;

/// Refuses a log of whose records since the last checkpoint some are gone, as
/// [`require_end`] does. (Whatever is signed of more than that is found where the next one is.)
///
/// # Errors
/// [`ErrorKind::Verification`] where that is so.
pub async fn require_last(store: &dyn LogStore) -> Result<()> {
    let signed = store.latest_note().await?.map_or(0, |noted| noted.size);
    // The end says how many there were.
    require_end(store, signed, store.size().await?).await
}

/// Refuses a log whose end says that it has so many records, and of whose last ones some are
/// gone. Of those before `known`, which were there once, it looks at the last one only.
///
/// # Errors
/// [`ErrorKind::Verification`] where that is so.
pub async fn require_end(store: &dyn LogStore, known: u64, size: u64) -> Result<()> {
    let after = known.min(size).saturating_sub(1).max(size.saturating_sub(COUNTED));
    let there = store.count(after, size).await?;
    let gone = (size - after).saturating_sub(there);
    if gone == 0 {
        return Ok(());
    }
    let first = after + 1;
    Err(self::gone(format!("{gone} of those from {first} on, which were appended, are not there")))
}

/// Says that records are gone, and which.
pub fn gone(why: String) -> Error {
    Error::new(ErrorKind::Verification, "records of the audit log are gone")
        .because_of(why)
        .hint("`tmpcred broker audit verify` tells which; keep the database as it is, and restore a backup")
}

/// The number of a record, and the record; none where there is something in it that no
/// broker has written.
pub type Row = (u64, Option<Record>);

/// Where the log ends, as three places have it that should be the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LogEnds {
    /// How many rows have something else instead of a sequence number.
    pub without_number: u64,
    /// The smallest sequence number of a record; 1 where there is none.
    pub first_record: i64,
    /// The largest one.
    pub last_record: u64,
    /// The last number that was given.
    pub promised: u64,
    /// How many records are in the tree.
    pub in_tree: u64,
}

/// A checkpoint, as it rests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Noted {
    /// How many records it covers.
    pub size: u64,
    /// When it was signed, in microseconds, as whoever signed it had it.
    pub at: i64,
    /// The signed note.
    pub note: String,
}

/// Which records are looked for: those for which everything holds that is said here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter {
    /// With a lower number than this.
    pub below: Option<u64>,
    /// Not before this moment.
    pub since: Option<OffsetDateTime>,
    /// Before this moment.
    pub until: Option<OffsetDateTime>,
    /// Of this issuer's callers.
    pub issuer: Option<String>,
    /// Of the caller with this subject.
    pub subject: Option<String>,
    /// About this role.
    pub role: Option<String>,
    /// With this action.
    pub action: Option<String>,
    /// With this decision.
    pub decision: Option<Decision>,
    /// Of this request.
    pub request_id: Option<Uuid>,
    /// Of this trace.
    pub trace_id: Option<TraceId>,
    /// About this token.
    pub jti: Option<Uuid>,
    /// Of this elevation.
    pub elevation: Option<Uuid>,
    /// Of drills alone.
    pub drill: bool,
}
