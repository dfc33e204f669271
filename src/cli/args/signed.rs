//! The arguments of what people sign while no identity provider can say who they are.

use std::path::PathBuf;

use clap::{ArgGroup, Args, Subcommand, ValueHint};
use uuid::Uuid;

use super::{At, ElevateReasoned};

/// Which key signs.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct SigningKey {
    /// Sign with this key of the SSH agent: a file such as ~/.ssh/id_ed25519.pub, or a
    /// fingerprint [default: the one that you enrolled]
    #[arg(long, value_name = "KEY", value_hint = ValueHint::FilePath, conflicts_with_all = ["agent", "keyring"], help_heading = "Signing")]
    pub key: Option<String>,
    /// Sign with the only key that the SSH agent has
    #[arg(long, conflicts_with = "keyring", help_heading = "Signing")]
    pub agent: bool,
    /// Sign with the key that tmpcred made for you, which is in your keyring
    #[arg(long, help_heading = "Signing")]
    pub keyring: bool,
}

/// Asking by a signature.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct ProviderDown {
    /// Ask by a signature of a key that you enrolled, because the identity provider is down
    #[arg(long, conflicts_with = "emergency", help_heading = "Signing")]
    pub provider_down: bool,
    /// Who you are in the broker's directory [default: as when you enrolled a key]
    #[arg(long, value_name = "NAME", requires = "provider_down", help_heading = "Signing")]
    pub person: Option<String>,
    /// Which key.
    #[command(flatten)]
    pub key: SigningKey,
}

/// Ending by a signature.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct EndDown {
    /// End it by a signature of a key that you enrolled, because the identity provider is down
    #[arg(long, help_heading = "Signing")]
    pub provider_down: bool,
    /// Who you are in the broker's directory [default: as when you enrolled a key]
    #[arg(long, value_name = "NAME", requires = "provider_down", help_heading = "Signing")]
    pub person: Option<String>,
    /// Which key.
    #[command(flatten)]
    pub key: SigningKey,
}

/// Look after the keys with which you sign while the identity provider is down
#[derive(Args, Debug)]
pub(crate) struct ElevateKeys {
    /// What to do.
    #[command(subcommand)]
    pub command: KeysCommand,
}

/// The commands below `elevate keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum KeysCommand {
    /// Enroll a key of yours, which somebody else has to approve
    Enroll(KeysEnroll),
    /// List the keys that you enrolled
    List(KeysList),
    /// Approve somebody else's key
    Approve(KeysApprove),
    /// Remove a key: signatures by it count no more
    Remove(ElevateReasoned),
}

/// Enroll a key of yours, which somebody else has to approve
///
/// It has to be done while the identity provider can say who you are. Without any option it is
/// a key that tmpcred makes and keeps in your keyring.
#[derive(Args, Debug)]
pub(crate) struct KeysEnroll {
    /// Which key.
    #[command(flatten)]
    pub key: SigningKey,
    /// What you call it
    #[arg(long, value_name = "TEXT", default_value = "tmpcred")]
    pub label: String,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// List the keys that you enrolled
#[derive(Args, Debug)]
pub(crate) struct KeysList {
    /// Those of everybody, where policy lets you
    #[arg(long)]
    pub all: bool,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// Understands the id of a key.
fn whole_id(text: &str) -> Result<Uuid, String> {
    text.parse()
        .map_err(|_| "the whole id is wanted, which `tmpcred elevate keys list --all` shows".into())
}

/// Approve somebody else's key
///
/// Have its owner read the fingerprint to you.
#[derive(Args, Debug)]
pub(crate) struct KeysApprove {
    /// Its id
    #[arg(value_parser = whole_id)]
    pub id: Uuid,
    /// Its fingerprint, so that no other key is approved by mistake
    #[arg(long, value_name = "FINGERPRINT")]
    pub fingerprint: String,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}

/// Say yes or no to a signed request, or end it, by a signature of yours
///
/// Shows exactly what is asked for, and asks. Neither the broker nor an identity provider is
/// needed for it. What comes of it is the request with your signature added, to be handed back.
#[derive(Args, Debug)]
#[command(group = ArgGroup::new("verdict").required(true).args(["approve", "deny", "end"]))]
pub(crate) struct ElevateSign {
    /// The file with the request; `-` is standard input
    #[arg(value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Say yes
    #[arg(long)]
    pub approve: bool,
    /// Say no
    #[arg(long, requires = "reason")]
    pub deny: bool,
    /// Take your own request or grant back, or end somebody's
    #[arg(long, requires = "reason")]
    pub end: bool,
    /// Why not, or why it ends
    #[arg(long, value_name = "TEXT", conflicts_with = "approve")]
    pub reason: Option<String>,
    /// Sign for the request with this hash, without asking
    #[arg(long, value_name = "HASH")]
    pub hash: Option<String>,
    /// Where to write it [default: standard output]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
    /// Who you are in the broker's directory [default: as when you enrolled a key]
    #[arg(long, value_name = "NAME", help_heading = "Signing")]
    pub person: Option<String>,
    /// Which key.
    #[command(flatten)]
    pub key: SigningKey,
    /// Report as JSON: what was signed, and the text
    #[arg(long)]
    pub json: bool,
}

/// Bring to the broker what people signed
///
/// Anybody may. A request, and all that is said about it, may be in one file or in several.
#[derive(Args, Debug)]
pub(crate) struct ElevateSubmit {
    /// The files; `-` is standard input
    #[arg(required = true, value_hint = ValueHint::FilePath)]
    pub files: Vec<PathBuf>,
    /// Which broker.
    #[command(flatten)]
    pub at: At,
}
