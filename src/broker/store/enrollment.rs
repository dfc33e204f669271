//! Keys that people enrolled, to sign with while no provider can say who they are.

use async_trait::async_trait;
use time::{Duration, OffsetDateTime};
use uuid::Uuid;

use crate::credential::Principal;
use crate::error::Result;

/// How many keys a person may have enrolled at a time.
pub const MAX_KEYS: i64 = 5;

/// How long an enrollment lasts after the last login of its owner.
pub const LASTS: Duration = Duration::days(30);

/// What people enrolled. What is there was written by anybody: the seal tells whether by this
/// broker, and the store does not look at it. It changes by
/// [`Effect::Enroll`](super::Effect::Enroll) and
/// [`Effect::ChangeEnrollment`](super::Effect::ChangeEnrollment).
#[async_trait]
pub trait EnrollmentStore: Send + Sync {
    /// All that were not removed, oldest first.
    async fn enrollments(&self) -> Result<Vec<Enrollment>>;

    /// All that there are, whatever became of them, oldest first.
    async fn all_enrollments(&self) -> Result<Vec<Enrollment>>;

    /// The one with this id, whatever became of it.
    async fn enrollment(&self, id: Uuid) -> Result<Option<Enrollment>>;

    /// The one of the key with this fingerprint, whatever became of it.
    async fn enrollment_of(&self, fingerprint: &str) -> Result<Option<Enrollment>>;

    /// Forgets, as [`OnceStore::forget_consumed`](super::OnceStore::forget_consumed) does, those
    /// that were made before this and that nobody ever approved.
    async fn forget_pending(&self, before: OffsetDateTime, limit: u32) -> Result<u64>;
}

/// A key that somebody enrolled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enrollment {
    /// What names it.
    pub id: Uuid,
    /// The fingerprint of the key.
    pub fingerprint: String,
    /// The key, as a line; empty where it was removed.
    pub public_key: String,
    /// Whose it is, by their name in the directory.
    pub person: String,
    /// As whom they enrolled it.
    pub principal: Principal,
    /// What they call it.
    pub label: String,
    /// What became of it.
    pub state: EnrollmentState,
    /// When it was enrolled.
    pub enrolled_at: OffsetDateTime,
    /// Who approved it, by their name in the directory, and when.
    pub approved: Option<(String, OffsetDateTime)>,
    /// When its owner last logged in.
    pub seen_at: OffsetDateTime,
    /// What shows that the broker wrote this.
    pub seal: Vec<u8>,
}

impl Enrollment {
    /// Until when it lasts, if its owner does not log in meanwhile.
    pub fn lapses_at(&self) -> OffsetDateTime {
        self.seen_at.saturating_add(LASTS)
    }
}

/// What became of an enrollment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EnrollmentState {
    /// Nobody has approved it.
    Pending,
    /// Somebody has.
    Approved,
    /// It was removed.
    Removed,
}

impl EnrollmentState {
    /// Its name in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Approved => "approved",
            Self::Removed => "removed",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Pending, Self::Approved, Self::Removed]
            .into_iter()
            .find(|state| state.as_str() == name)
    }
}
