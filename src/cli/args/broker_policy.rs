//! The arguments of `tmpcred broker policy`.

use std::net::IpAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use time::OffsetDateTime;

use super::Checked;
use crate::broker::policy::trial::parse_moment;

/// Check, test and explain the policies
#[derive(Args, Debug)]
pub(crate) struct BrokerPolicy {
    /// What to do.
    #[command(subcommand)]
    pub command: PolicyCommand,
}

/// The commands below `broker policy`.
#[derive(Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Find what is wrong with the policies, or looks as if it was not meant
    Check(Checked),
    /// Try cases, each with what is to come of it
    Test {
        /// The broker's own configuration file
        #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
        /// Files of cases
        #[arg(required = true, value_name = "CASES", value_hint = ValueHint::FilePath)]
        cases: Vec<PathBuf>,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Explain a decision: by which policy, and what would have to be different
    Explain(Box<PolicyExplain>),
    /// Print the schema that policies are checked against
    Schema,
}

/// Explain a decision: by which policy, and what would have to be different
#[derive(Args, Debug)]
pub(crate) struct PolicyExplain {
    /// The broker's own configuration file
    #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// A file of cases to take one from
    #[arg(long, value_name = "CASES", value_hint = ValueHint::FilePath, requires = "name")]
    pub cases: Option<PathBuf>,
    /// The name of the case
    #[arg(long, requires = "cases")]
    pub name: Option<String>,
    /// The caller's issuer, or the name of its table
    #[arg(long, required_unless_present = "cases", conflicts_with = "cases")]
    pub issuer: Option<String>,
    /// The caller's subject
    #[arg(long, required_unless_present = "cases", conflicts_with = "cases")]
    pub subject: Option<String>,
    /// A group of the caller's; may be repeated
    #[arg(long = "group", conflicts_with = "cases")]
    pub groups: Vec<String>,
    /// A claim of the caller's token; may be repeated. JSON, or a text
    #[arg(long = "claim", value_name = "NAME=VALUE", conflicts_with = "cases")]
    pub claims: Vec<String>,
    /// The client that the token was issued to
    #[arg(long, conflicts_with = "cases")]
    pub client: Option<String>,
    /// When that token ends
    #[arg(long, value_parser = parse_moment, conflicts_with = "cases")]
    pub expires: Option<OffsetDateTime>,
    /// What the caller does
    #[arg(long, value_enum, default_value = "issue", conflicts_with = "cases")]
    pub action: PolicyAction,
    /// The role; of what is revoked, where that has one
    #[arg(long, conflicts_with = "cases")]
    pub role: Option<String>,
    /// What is done, where the action is to administer, such as keys.rotate
    #[arg(long, value_name = "OPERATION", conflicts_with = "cases")]
    pub operation: Option<String>,
    /// By what those tokens are named that are revoked: token, subject, issuer, role, client or all
    #[arg(long, value_name = "WHAT", conflicts_with = "cases")]
    pub what: Option<String>,
    /// The issuer of whose tokens are revoked, or of for whom something is approved
    #[arg(long, value_name = "URL", conflicts_with = "cases")]
    pub of_issuer: Option<String>,
    /// Their subject, together with --of-issuer
    #[arg(long, value_name = "SUBJECT", requires = "of_issuer", conflicts_with = "cases")]
    pub of_subject: Option<String>,
    /// The client whose tokens are revoked
    #[arg(long, value_name = "CLIENT", conflicts_with = "cases")]
    pub of_client: Option<String>,
    /// The path of the grant under which a token is issued, or on which a role is asked for
    #[arg(long, value_enum, conflicts_with = "cases")]
    pub path: Option<PolicyPath>,
    /// Whom the token is for [default: the only audience of the role]
    #[arg(long, conflicts_with = "cases")]
    pub audience: Option<String>,
    /// The scopes, separated by spaces [default: whatever can be had]
    #[arg(long, conflicts_with = "cases")]
    pub scope: Option<String>,
    /// The lifetime, such as 15m [default: as long as can be had]
    #[arg(long, value_parser = humantime::parse_duration, conflicts_with = "cases")]
    pub ttl: Option<Duration>,
    /// The caller proves a key of their own, which the token is bound to (DPoP)
    #[arg(long, conflicts_with = "cases")]
    pub key_bound: bool,
    /// The client that has authenticated
    #[arg(long, value_name = "CLIENT", conflicts_with = "cases")]
    pub authenticated_client: Option<String>,
    /// The issuer of who acts for the caller, or the name of its table
    #[arg(long, requires = "actor_subject", conflicts_with = "cases")]
    pub actor_issuer: Option<String>,
    /// The subject of who acts for the caller
    #[arg(long, requires = "actor_issuer", conflicts_with = "cases")]
    pub actor_subject: Option<String>,
    /// A group of who acts for the caller; may be repeated
    #[arg(
        long = "actor-group",
        value_name = "GROUP",
        requires = "actor_issuer",
        conflicts_with = "cases"
    )]
    pub actor_groups: Vec<String>,
    /// A claim of the token of who acts for the caller; may be repeated. JSON, or a text
    #[arg(
        long = "actor-claim",
        value_name = "NAME=VALUE",
        requires = "actor_issuer",
        conflicts_with = "cases"
    )]
    pub actor_claims: Vec<String>,
    /// From which address it is asked [default: this machine]
    #[arg(long, value_name = "ADDRESS", conflicts_with = "cases")]
    pub source: Option<IpAddr>,
    /// When it is asked, such as 2026-01-01T12:00:00Z [default: now]
    #[arg(long, value_parser = parse_moment, conflicts_with = "cases")]
    pub time: Option<OffsetDateTime>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// How a grant comes about.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PolicyPath {
    /// By approvals
    Ordinary,
    /// Without, because there is an emergency
    Emergency,
    /// By signatures, because no identity provider can say who somebody is
    ProviderDown,
}

/// What a caller does.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum PolicyAction {
    /// To be issued a token; to exchange one, where the caller is of the broker's own issuer
    Issue,
    /// To be told about a token
    Introspect,
    /// To revoke tokens of others
    Revoke,
    /// To look after the broker
    Administer,
    /// To ask for a role for a while; tells who could approve it, too
    Elevate,
    /// To approve that, for --of-issuer and --of-subject
    Approve,
}
