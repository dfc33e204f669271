//! What people are told, and to whom that has gone.

use async_trait::async_trait;
use time::OffsetDateTime;

use crate::broker::notify::Message;
use crate::error::Result;

/// Messages and their deliveries. A message is put on record by
/// [`Effect::Tell`](super::Effect::Tell).
#[async_trait]
pub trait NotifyStore: Send + Sync {
    /// Messages of which nobody has said to whom they go, the oldest first; without what it says
    /// where one cannot be read.
    async fn unspread(&self, limit: u32) -> Result<Vec<(String, Option<Message>)>>;

    /// Says to whom a message goes, once: where somebody was quicker, what they said counts.
    async fn spread(&self, message: &str, to: &[NewDelivery]) -> Result<()>;

    /// What may be tried now on this channel: what is in more of a hurry first, then what has
    /// waited longest. What is not due before `beyond` counts too: no pause is that long, so that
    /// somebody's clock was ahead.
    async fn due(
        &self,
        channel: &str,
        now: OffsetDateTime,
        beyond: OffsetDateTime,
        limit: u32,
    ) -> Result<Vec<Delivery>>;

    /// Changes deliveries that wait, each where nobody has changed it since it was read. Returns
    /// for each whether that was so.
    async fn change_deliveries(&self, changes: &[(Delivery, Step)]) -> Result<Vec<bool>>;

    /// Gives deliveries up that were written before this and are for none of these channels,
    /// `limit` at most. Returns how many that were.
    async fn give_up_strays(
        &self,
        channels: &[String],
        before: OffsetDateTime,
        why: &str,
        limit: u32,
    ) -> Result<u64>;

    /// What is about this thing and waits to be delivered on this channel, whoever may be trying
    /// it; without what cannot be read.
    async fn waiting_about(&self, channel: &str, about: &str) -> Result<Vec<Message>>;

    /// How much waits on each channel.
    async fn backlog(&self) -> Result<Vec<Backlog>>;

    /// What was not delivered, the oldest first.
    async fn undelivered(&self, limit: u32) -> Result<Vec<Undelivered>>;

    /// Forgets messages that had to be kept until then, with their deliveries, as
    /// [`OnceStore::forget_consumed`](super::OnceStore::forget_consumed) does.
    async fn forget_messages(&self, before: OffsetDateTime, limit: u32) -> Result<u64>;
}

/// To whom a message goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewDelivery {
    /// The channel.
    pub channel: String,
    /// Somebody, or nobody in particular.
    pub addressee: String,
    /// How much of a hurry there is.
    pub hurry: u8,
    /// When the message was written.
    pub at: OffsetDateTime,
}

/// A delivery that waits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// The key of its message.
    pub key: String,
    /// The channel.
    pub channel: String,
    /// Somebody, or nobody in particular.
    pub addressee: String,
    /// When the message was written.
    pub at: OffsetDateTime,
    /// How often it was tried.
    pub attempts: u32,
    /// How often this was changed.
    pub turn: u64,
    /// What it says; `None` where that cannot be read.
    pub message: Option<Message>,
}

/// What becomes of a delivery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Somebody tries it, until then at most.
    Take(OffsetDateTime),
    /// It could not be delivered and may be tried again from then on.
    PutOff(OffsetDateTime, String),
    /// It was not tried to the end, and may be at once.
    PutBack(OffsetDateTime),
    /// It was delivered.
    Delivered,
    /// Nobody tries it any more.
    GiveUp(String),
}

/// How much waits on a channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Backlog {
    /// The channel.
    pub channel: String,
    /// How many deliveries.
    pub waiting: u64,
    /// When the message of the first of them was written.
    pub since: OffsetDateTime,
}

/// A delivery that has not come about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undelivered {
    /// The delivery.
    pub delivery: Delivery,
    /// When it may be tried again; `None` where it was given up.
    pub due_at: Option<OffsetDateTime>,
    /// Why it could not be delivered the last time.
    pub why: Option<String>,
}
