//! Tells people what has happened, and what they have to do.
//!
//! A [`Message`] is put on record in the commit of what it tells of. From there on it goes by
//! itself: an [`Outbox`] finds out to whom it goes, on which channels, and keeps at it until each
//! has it, or has not had it for so long that nobody keeps at it any more. So everybody is told
//! at least once, whatever is killed, and nobody waits for a receiver.
//!
//! It knows nothing of what messages are about.

mod channel;
mod courier;
mod message;
mod outbox;
#[cfg(test)]
mod tests;

use std::time::Duration;

pub use channel::Channels;
pub use message::{Fact, Message, Urgency};
pub use outbox::{Counted, Outbox, View};
use time::OffsetDateTime;

use self::channel::{Parcel, Refused};
use crate::broker::directory::Directory;
use crate::error::{Error, ErrorKind, Result};

/// Sends a message on one channel, now, and past what is on record. Returns to whom it went, or
/// why it did not; an empty name stands for the channel itself.
///
/// # Errors
/// Where there is no such channel.
pub async fn send_now(
    channels: &Channels,
    name: &str,
    message: &Message,
    people: Option<&Directory>,
    now: OffsetDateTime,
) -> Result<Vec<(String, Result<()>)>> {
    let Some(named) = channels.get(name) else {
        let there = channels.names().join(", ");
        let error = Error::new(ErrorKind::Usage, format!("there is no channel '{name}'"));
        return Err(match there.as_str() {
            "" => error.hint("`[notify.NAME]` in the configuration of the broker makes one"),
            there => error.hint(format!("there is {there}")),
        });
    };
    let mut all = Vec::new();
    for addressee in named.channel.addressees(message) {
        let parcel = Parcel { message, addressee: &addressee, people, now };
        let outcome = attempt(named.channel.as_ref(), &parcel).await;
        all.push((addressee, outcome.map_err(|refused| refused.error)));
    }
    Ok(all)
}

/// Brings a message to a channel, within the time that it may take.
async fn attempt(channel: &dyn channel::Channel, parcel: &Parcel<'_>) -> Result<(), Refused> {
    let limit = channel.limit();
    let delivered = tokio::time::timeout(limit, channel.deliver(parcel)).await;
    delivered.unwrap_or_else(|_| Err(late(limit).into()))
}

fn late(limit: Duration) -> Error {
    let limit = humantime::format_duration(limit);
    Error::new(ErrorKind::Unreachable, format!("the receiver did not take it within {limit}"))
}
