//! The arguments of `tmpcred elevate`.

use std::path::PathBuf;
use std::time::Duration;

use clap::{Arg, Args, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCandidates;
use uuid::Uuid;

use super::{ElevateKeys, ElevateSign, ElevateSubmit, EndDown, ProviderDown, complete};

/// Have a role for a while, because others approve
///
/// Roles that policy gives to nobody for good are had under a grant: you ask for one and say
/// why, others approve, and it ends by itself. The broker is that of a profile.
#[derive(Args, Debug)]
pub(crate) struct Elevate {
    /// What to do.
    #[command(subcommand)]
    pub command: ElevateCommand,
}

/// The commands below `elevate`.
#[derive(Debug, Subcommand)]
pub(crate) enum ElevateCommand {
    /// Ask for a role, and wait until it is approved
    Request(ElevateRequest),
    /// Show what became of a request, or go on waiting for it
    Status(ElevateStatus),
    /// Practise: ask, wait and begin as in earnest, with nothing issued
    Drill(ElevateDrill),
    /// List what you asked for, what waits for you, what is active and what is to be reviewed
    List(ElevateList),
    /// Approve what somebody else asks for
    Approve(ElevateApprove),
    /// Say no to what somebody else asks for
    Deny(ElevateDeny),
    /// Take your own request back
    Withdraw(ElevateEnd),
    /// End somebody's grant at once
    Revoke(ElevateRevoke),
    /// Give your own grant back
    Relinquish(ElevateEnd),
    /// Say that you have looked at what was done under a grant
    Review(ElevateReview),
    /// Look after the keys with which you sign while the identity provider is down
    Keys(ElevateKeys),
    /// Say yes or no to a signed request, or end it, by a signature of yours
    Sign(ElevateSign),
    /// Bring to the broker what people signed
    Submit(ElevateSubmit),
}

/// Which broker, and how it is reported.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct At {
    /// A profile whose target is the broker [default: the profile that would be used]
    #[arg(long, value_name = "PROFILE", add = ArgValueCandidates::new(complete::profiles))]
    pub at: Option<String>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// What is asked for, besides the role.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Because {
    /// Why; those who approve read it, and it goes on record
    #[arg(long, value_name = "TEXT", help_heading = "Elevation")]
    pub reason: Option<String>,
    /// The ticket, where the role wants one
    #[arg(long, value_name = "ID", help_heading = "Elevation")]
    pub ticket: Option<String>,
    /// For how long, such as 30m [default: as long as the role allows; with --provider-down 30m,
    /// which has to be no longer than that]
    #[arg(long = "for", value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Elevation")]
    pub lasting: Option<Duration>,
    /// At once, without approval; others are told, and it is reviewed
    #[arg(long, help_heading = "Elevation")]
    pub emergency: bool,
}

/// How long approval is waited for.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Patience {
    /// Wait for approval so long at most, such as 10m; what was asked for stays
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Elevation")]
    pub wait_at_most: Option<Duration>,
}

/// A command that runs under a grant. What is said of one is of no use without it.
#[derive(Args, Clone, Debug, Default)]
#[command(mut_args(needs_elevate))]
pub(crate) struct Elevated {
    /// Have this role while the command runs: ask for it, wait until it is approved, and give
    /// it back when the command has ended
    #[arg(long, value_name = "ROLE", requires = "reason", conflicts_with_all = ["role", "revoke_on_exit"], help_heading = "Elevation")]
    pub elevate: Option<String>,
    /// Why, and for how long.
    #[command(flatten)]
    pub because: Because,
    /// By a signature.
    #[command(flatten)]
    pub down: ProviderDown,
    /// How long approval is waited for.
    #[command(flatten)]
    pub patience: Patience,
    /// What happens to the command at the end of the grant [default: term]
    #[arg(
        long,
        value_enum,
        value_name = "ACTION",
        requires = "elevate",
        help_heading = "Elevation"
    )]
    pub on_expiry: Option<OnExpiryArg>,
}

/// What is said of a grant, by the names of its arguments.
const OF_A_GRANT: [&str; 10] = [
    "reason",
    "ticket",
    "lasting",
    "emergency",
    "provider_down",
    "person",
    "key",
    "agent",
    "keyring",
    "wait_at_most",
];

fn needs_elevate(arg: Arg) -> Arg {
    match OF_A_GRANT.contains(&arg.get_id().as_str()) {
        true => arg.requires("elevate"),
        false => arg,
    }
}

/// What happens to a command at the end of its grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum OnExpiryArg {
    /// It goes on, and you are told
    Warn,
    /// It is warned, and then ended
    Term,
}

/// Ask for a role, and wait until it is approved
///
/// Shows who may approve and how many are needed. Ctrl-C ends the waiting, not the request:
/// `tmpcred elevate status` goes on with it. Once it is approved it begins, and profiles with
/// the role get credentials until it ends.
#[derive(Args, Debug)]
pub(crate) struct ElevateRequest {
    /// The role
    pub role: String,
    /// Why, and for how long.
    #[command(flatten)]
    pub because: Because,
    /// By a signature.
    #[command(flatten)]
    pub down: ProviderDown,
    /// Write the signed request there in place of sending it; `-` is standard output
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "provider_down", help_heading = "Signing")]
    pub out: Option<PathBuf>,
    /// The rules of the broker, where it cannot be reached and others can tell
    /// [default: those that it says, or said last]
    #[arg(long, value_name = "HASH", requires = "out", help_heading = "Signing")]
    pub rules: Option<String>,
    /// When it is to start, such as 2026-01-31T08:00:00Z, or in how long, such as 2h
    #[arg(long, value_name = "TIME", conflicts_with_all = ["emergency", "provider_down"])]
    pub start: Option<String>,
    /// Whom its credentials are for, where the role is for several
    #[arg(long)]
    pub audience: Option<String>,
    /// Only with this scope (repeatable)
    #[arg(long)]
    pub scope: Vec<String>,
    /// Wait until it is approved [default: on a terminal]
    #[arg(long, conflicts_with = "no_wait")]
    pub wait: bool,
    /// Do not wait
    #[arg(long, conflicts_with = "wait_at_most")]
    pub no_wait: bool,
    /// How long it is waited for.
    #[command(flatten)]
    pub patience: Patience,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// Show what became of a request, or go on waiting for it
#[derive(Args, Debug)]
pub(crate) struct ElevateStatus {
    /// Its id, or the beginning of it [default: your newest]
    pub id: Option<String>,
    /// Wait until it is approved, and begin
    #[arg(long)]
    pub wait: bool,
    /// How long it is waited for at most, such as 10m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub wait_at_most: Option<Duration>,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// Practise: ask, wait and begin as in earnest, with nothing issued
///
/// Those who approve are told and asked as ever, by messages that say that it is a drill, and
/// what comes of it is reviewed. No credential is issued. It ends once it has begun; how long
/// each step took is shown, and is on record. It counts for nothing but other drills: who
/// practises can have the role in earnest at the same time.
#[derive(Args, Debug)]
pub(crate) struct ElevateDrill {
    /// The role
    pub role: String,
    /// Why, and for how long.
    #[command(flatten)]
    pub because: Because,
    /// Whom its credentials would be for, where the role is for several
    #[arg(long)]
    pub audience: Option<String>,
    /// Do not wait: `tmpcred elevate status --wait` goes on with it
    #[arg(long, conflicts_with = "provider_down")]
    pub no_wait: bool,
    /// By signatures.
    #[command(flatten)]
    pub down: ProviderDown,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// List what you asked for, what waits for you, what is active and what is to be reviewed
#[derive(Args, Debug)]
pub(crate) struct ElevateList {
    /// Only these
    #[arg(long, value_name = "WHICH", value_parser = ["mine", "to-approve", "active", "to-review"])]
    pub which: Option<String>,
    /// The newest so many of each
    #[arg(long, value_name = "NUMBER", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// Understands the id of a request or a grant.
fn whole_id(text: &str) -> Result<Uuid, String> {
    text.parse().map_err(|_| "the whole id is wanted, which `tmpcred elevate list` shows".into())
}

/// Approve what somebody else asks for
///
/// Shows exactly what is approved, and asks. What is approved has a hash: if anything of it
/// changes, the approval does not count.
#[derive(Args, Debug)]
pub(crate) struct ElevateApprove {
    /// Its id
    #[arg(value_parser = whole_id)]
    pub id: Uuid,
    /// Why, where you want to say so
    #[arg(long, value_name = "TEXT")]
    pub reason: Option<String>,
    /// Approve what has this hash, without asking
    #[arg(long, value_name = "HASH")]
    pub hash: Option<String>,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// Say no to what somebody else asks for
///
/// Shows exactly what is denied, and asks. One who says no ends the request, as long as it waits
/// for approval; after that `elevate revoke` does.
#[derive(Args, Debug)]
pub(crate) struct ElevateDeny {
    /// Its id
    #[arg(value_parser = whole_id)]
    pub id: Uuid,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Deny it without asking
    #[arg(long, short)]
    pub yes: bool,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// A request or grant of one's own, which ends.
#[derive(Args, Debug)]
pub(crate) struct ElevateEnd {
    /// Its id
    #[arg(value_parser = whole_id)]
    pub id: Uuid,
    /// Why, where it is signed
    #[arg(
        long,
        value_name = "TEXT",
        requires = "provider_down",
        default_value = "it is not needed any more"
    )]
    pub reason: String,
    /// By a signature.
    #[command(flatten)]
    pub down: EndDown,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// End somebody's grant at once
#[derive(Args, Debug)]
pub(crate) struct ElevateRevoke {
    /// Its id
    #[arg(value_parser = whole_id)]
    pub id: Uuid,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// By a signature.
    #[command(flatten)]
    pub down: EndDown,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// One request, and why something is done about it.
#[derive(Args, Debug)]
pub(crate) struct ElevateReasoned {
    /// Its id
    #[arg(value_parser = whole_id)]
    pub id: Uuid,
    /// Why
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// Say that you have looked at what was done under a grant
#[derive(Args, Debug)]
pub(crate) struct ElevateReview {
    /// Its id
    #[arg(value_parser = whole_id)]
    pub id: Uuid,
    /// What is to be known of it
    #[arg(long, value_name = "TEXT")]
    pub note: String,
    /// It was not in order
    #[arg(long)]
    pub dispute: bool,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use crate::cli::args::Cli;

    #[test]
    fn an_id_that_is_none_is_refused_with_where_the_whole_one_is() {
        let reason = ["--reason", "x"];
        for (command, more, list) in [
            (&["approve"][..], &[][..], "elevate list"),
            (&["deny"], &reason, "elevate list"),
            (&["withdraw"], &[], "elevate list"),
            (&["revoke"], &reason, "elevate list"),
            (&["relinquish"], &[], "elevate list"),
            (&["review"], &["--note", "x"], "elevate list"),
            (&["keys", "approve"], &["--fingerprint", "x"], "elevate keys list --all"),
        ] {
            let with = |id| {
                let words = [&["tmpcred", "elevate"], command, &[id], more].concat();
                Cli::try_parse_from(words).map_err(|error| error.to_string())
            };
            for id in ["abc", "0198f6b2-9a5e-7c31"] {
                let said = with(id).unwrap_err();
                let says = format!("the whole id is wanted, which `tmpcred {list}` shows");
                assert!(said.contains(&says), "{said}");
            }
            assert!(with("0198f6b2-9a5e-7c31-8d0f-3f6a2b1c4d5e").is_ok(), "{command:?}");
        }
    }
}
