//! Requests for a role, and what came of them.

use async_trait::async_trait;
use time::OffsetDateTime;
use uuid::Uuid;

use crate::error::Result;

/// An elevation as the store has it: what it is found by, and the rest as a sealed text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredElevation {
    /// Its id.
    pub id: Uuid,
    /// Grows by one with each change.
    pub version: u64,
    /// How it comes about.
    pub path: &'static str,
    /// Whether it only is practised.
    pub drill: bool,
    /// Whether the role is had.
    pub access: &'static str,
    /// Whether it was reviewed.
    pub review: &'static str,
    /// The role.
    pub role: String,
    /// For whom: the person, where it is one.
    pub owner: String,
    /// Who asked, by issuer and subject.
    pub asker: String,
    /// When it was asked for.
    pub asked_at: OffsetDateTime,
    /// When the clock has come to something.
    pub next_at: Option<OffsetDateTime>,
    /// When access ended.
    pub ended_at: Option<OffsetDateTime>,
    /// What of it says who may approve it, as JSON.
    pub question: String,
    /// Whether somebody acts for whoever asked.
    pub acted: bool,
    /// All of it.
    pub sealed: SealedElevation,
}

/// All of an elevation, and what shows that the broker wrote it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SealedElevation {
    /// The document, as JSON.
    pub document: String,
    /// The seal over it.
    pub seal: Vec<u8>,
}

/// One of many: what tells whether it has to be opened, and all of it. The seal is over the
/// latter alone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FoundElevation {
    /// Its id.
    pub id: Uuid,
    /// When it was asked for.
    pub asked_at: OffsetDateTime,
    /// The role.
    pub role: String,
    /// What of it says who may approve it, where that is known.
    pub question: Option<String>,
    /// All of it.
    pub sealed: SealedElevation,
}

/// What must not be there for another elevation to be added, or for one to begin: nobody gets
/// around it by asking twice at once. Drills count for drills alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Unless {
    /// Which askers are the same one, besides those of the same owner: a person stays who they
    /// are when the directory comes to call them otherwise.
    pub askers: Vec<String>,
    /// One of theirs for the same role that waits, or is had.
    pub under_way: Option<UnderWay>,
    /// One that was had, and ended after this.
    pub ended_after: Option<OffsetDateTime>,
    /// What was to be had until this moment at the latest has ended then, though that is not on
    /// record yet.
    pub over_at: Option<OffsetDateTime>,
    /// An emergency that is under way, or was not reviewed.
    pub emergency: bool,
    /// An emergency that ended after this.
    pub emergency_ended_after: Option<OffsetDateTime>,
}

/// Which of those that wait or are had.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UnderWay {
    /// All of them.
    Any,
    /// Those that come about in this way.
    On(&'static str),
}

/// Which elevations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ElevationFilter {
    /// Of this role; of any where left out.
    pub role: Option<String>,
    /// Those that are one of these; all where left out.
    pub among: Option<Vec<Among>>,
    /// Not for whoever is called one of these.
    pub others_than: Vec<String>,
    /// In one of these states; in any where there are none.
    pub access: Vec<&'static str>,
    /// Only drills, or none of them; both where left out.
    pub drill: Option<bool>,
    /// With this state of review.
    pub review: Option<&'static str>,
    /// Whose time is not over at this moment, though that may not be on record yet.
    pub going_on_at: Option<OffsetDateTime>,
    /// Asked for before this one, where they are listed page by page.
    pub below: Option<(OffsetDateTime, Uuid)>,
}

/// What elevations have alike. Each is looked up by itself, so that it makes no difference how
/// many there are of others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Among {
    /// Their role.
    Role(String),
    /// For whom they are.
    Owner(String),
    /// Who asked, by issuer and subject.
    Asker(String),
    /// That somebody acts for whoever asked, or may.
    Acted,
}

/// How many elevations of a role are in a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CountedElevations {
    /// The role.
    pub role: String,
    /// Their access as it is stored, `review-due`, or `review-overdue`: those are among the ones
    /// before.
    pub state: String,
    /// How many.
    pub count: u64,
}

/// Elevations. They are added and changed by effects of a [`Unit`](super::Unit).
#[async_trait]
pub trait ElevationStore: Send + Sync {
    /// The one with this id.
    async fn elevation(&self, id: Uuid) -> Result<Option<SealedElevation>>;

    /// Those that match, the newest first, at most `limit`.
    async fn elevations(&self, filter: &ElevationFilter, limit: u32)
    -> Result<Vec<FoundElevation>>;

    /// Those for which the clock has come to something, the longest due first, at most `limit`.
    async fn elevations_due(&self, now: OffsetDateTime, limit: u32)
    -> Result<Vec<SealedElevation>>;

    /// How many there are that wait, are had at this moment or are to be reviewed. Of each role
    /// that is given, a review is overdue where access ended before that moment.
    async fn count_elevations(
        &self,
        now: OffsetDateTime,
        overdue: &[(String, OffsetDateTime)],
    ) -> Result<Vec<CountedElevations>>;

    /// The roles of which something is to be reviewed.
    async fn roles_to_review(&self) -> Result<Vec<String>>;

    /// The roles of which tokens were issued under this one, or for such tokens: as the log has
    /// it.
    async fn roles_issued_under(&self, id: Uuid) -> Result<Vec<String>>;

    /// Forgets, as [`OnceStore::forget_consumed`](super::OnceStore::forget_consumed) does, those
    /// that ended before this and are not to be reviewed any more. What they were stays in the
    /// audit log.
    async fn forget_elevations(&self, before: OffsetDateTime, limit: u32) -> Result<u64>;
}
