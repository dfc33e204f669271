//! What a page says of what whoever looks has just done.

use serde::Deserialize;

use crate::broker::Broker;
use crate::broker::elevation::Seen;
use crate::broker::operate::Asked as Who;
use crate::broker::rulebook::Rulebook;
use crate::wire::RevocationReach;
use crate::wire::elevation as wire;

/// What was just done, as the address says, which anybody may have written.
#[derive(Default, Deserialize)]
pub(super) struct Done {
    done: Option<String>,
}

impl Done {
    /// What is said of it, where it is so of whoever looks.
    pub(super) fn said(
        &self,
        (broker, book, who): (&Broker, &Rulebook, &Who),
        seen: &Seen,
        shown: &wire::Elevation,
    ) -> Option<&'static str> {
        let event = self.done.as_deref()?;
        broker.has_done(book, who, seen, event).then(|| said(event, shown)).flatten()
    }
}

/// What is said after it was done.
fn said(event: &str, shown: &wire::Elevation) -> Option<&'static str> {
    let aws = shown.aws_sessions.is_some();
    Some(match event {
        "approve" => "You have approved it.",
        "deny" => "You have denied it.",
        "withdraw" => "You have taken it back.",
        "activate" => "It has begun.",
        "relinquish" => match shown.revocation_reach {
            Some(RevocationReach::Introspection) if aws => {
                "You have given it back. Sessions of AWS that came of it last on."
            }
            Some(RevocationReach::Introspection) => {
                "You have given it back. Whoever does not ask the broker takes what was issued under it until that expires."
            }
            _ => "You have given it back.",
        },
        "revoke" => match shown.revocation_reach {
            Some(RevocationReach::Everywhere) => "You have ended it, and what was issued under it.",
            Some(RevocationReach::Introspection) if aws => {
                "You have ended it. Sessions of AWS that came of it last on, unless their role denies them."
            }
            Some(RevocationReach::Introspection) => {
                "You have ended it. Whoever does not ask the broker takes what was issued under it until that expires."
            }
            None => "You have ended it.",
        },
        "review" => "Your review is on record.",
        _ => return None,
    })
}
