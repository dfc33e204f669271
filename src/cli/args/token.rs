//! The arguments of `tmpcred token` and `tmpcred verify`.

use std::path::PathBuf;

use clap::{Args, ValueEnum, ValueHint};

use super::{Chosen, Fresh};

/// Print the bare token
///
/// A token that is bound to the key of this device (`dpop = true`) is good only with a
/// proof for each request. With --dpop this prints both headers of one, on standard output
/// and never on a command line: `tmpcred token --dpop GET URL | curl -H @- URL`.
#[derive(Args, Debug)]
pub(crate) struct Token {
    /// Which credential.
    #[command(flatten)]
    pub wanted: Chosen,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Fresh,
    /// What one request needs.
    #[command(flatten)]
    pub proof: TokenProof,
}

/// What one request needs with a token that is bound.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct TokenProof {
    /// Print the headers for one request with this method to this address
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"], help_heading = "Proof of the key")]
    pub dpop: Option<Vec<String>>,
    /// The nonce that the server gave in its header DPoP-Nonce
    #[arg(long, requires = "dpop", help_heading = "Proof of the key")]
    pub nonce: Option<String>,
    /// The form of the headers
    #[arg(long, value_enum, requires = "dpop", help_heading = "Proof of the key")]
    pub format: Option<ProofFormat>,
}

/// The form of the headers for one request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProofFormat {
    /// A line for each, as `curl -H @-` reads them
    #[default]
    Headers,
    /// A JSON object
    Json,
}

/// Check an access token: signature, issuer, audience and time
///
/// A token says of what type it is (RFC 9068): one of another kind, which is shown to
/// somebody else, is refused.
///
/// A token that is bound to a key (DPoP) is refused without a proof by that key for the
/// request that it came with. Whether the proof was used before cannot be told here.
#[derive(Args, Debug)]
pub(crate) struct Verify {
    /// The file with the token; `-` is standard input
    #[arg(default_value = "-", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// The issuer that must have signed it [default: the configured broker that it names]
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// The audience that it must be for (repeatable: one of them)
    #[arg(long, required = true)]
    pub audience: Vec<String>,
    /// Take the issuer's keys from this file instead of asking the issuer
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub jwks: Option<PathBuf>,
    /// Take a token of another type than `at+jwt` too, such as an ID token or that of a CI job
    #[arg(long)]
    pub any_type: bool,
    /// Ask the issuer besides whether the token was revoked (RFC 7662); an opaque one it alone can check
    #[arg(long)]
    pub online: bool,
    /// A PEM file with certificate authorities to trust besides the system's
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub ca_file: Option<PathBuf>,
    /// The file with the proof of the key, the request's header DPoP; `-` is standard input
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, requires = "dpop", help_heading = "Proof of the key")]
    pub dpop_proof: Option<PathBuf>,
    /// The method and the address of the request that the proof is for
    #[arg(long, num_args = 2, value_names = ["METHOD", "URL"], requires = "dpop_proof", help_heading = "Proof of the key")]
    pub dpop: Option<Vec<String>>,
    /// The nonce that the proof must have
    #[arg(long, requires = "dpop_proof", help_heading = "Proof of the key")]
    pub nonce: Option<String>,
    /// Check the token alone, also where it is bound to a key
    #[arg(long, conflicts_with = "dpop_proof", help_heading = "Proof of the key")]
    pub without_proof: bool,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}
