//! The arguments of `tmpcred broker`.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCandidates;
use time::OffsetDateTime;
use uuid::Uuid;

use super::broker_notify::BrokerNotify;
use super::broker_policy::BrokerPolicy;
use crate::broker::policy::trial::parse_moment;
use crate::cli::{complete, misuse};
use crate::error::Result;
use crate::trace::{TraceId, w3c};

/// The broker that decides who may have which role
#[derive(Args, Debug)]
pub(crate) struct Broker {
    /// What to do.
    #[command(subcommand)]
    pub command: BrokerCommand,
}

/// What is checked before a broker does by it.
#[derive(Args, Debug)]
pub(crate) struct Checked {
    /// The broker's own configuration file
    #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Fail on warnings too
    #[arg(long)]
    pub strict: bool,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// The commands below `broker`.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerCommand {
    /// Run the broker
    Serve {
        /// The broker's own configuration file
        #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
        file: PathBuf,
    },
    /// Look at all that a broker needs to start: files, certificate, keys, database
    ///
    /// Nothing is changed, and a broker may be running. It says of all of it at once what is wrong, and ends with another
    /// code than 0 where a broker would not start, or nobody could use it.
    Check {
        /// What to look at.
        #[command(flatten)]
        what: Checked,
        /// Also ask issuers and clients for their keys, and API servers of clusters to review a token
        #[arg(long)]
        online: bool,
    },
    /// Run a broker and an identity provider to try things with, on loopback
    Dev {
        /// The port [default: any free one]
        #[arg(long)]
        port: Option<u16>,
    },
    /// List, rotate, revoke and export the keys that sign
    #[command(subcommand)]
    Keys(BrokerKeys),
    /// Change the key-encryption key, while the broker runs
    #[command(subcommand)]
    Kek(BrokerKek),
    /// Revoke a token, or all that were issued to somebody; the broker may be running
    Revoke(BrokerRevoke),
    /// Look into the audit log, and check it; the broker may be running
    Audit(Audit),
    /// Check, test and explain the policies
    Policy(BrokerPolicy),
    /// Look at what people are told, and try a channel
    Notify(BrokerNotify),
    /// Print the OpenAPI description of the broker's HTTP interface
    Openapi {
        /// Of the listener for those who run the broker, instead of the public one
        #[arg(long)]
        admin: bool,
    },
    /// Write a copy of the store into a file, while the broker runs
    Backup(BrokerStore),
    /// Fill the store from a backup; nothing is overwritten
    Restore(BrokerStore),
    /// Move a SQLite database into the PostgreSQL database of the configuration
    Move(BrokerStore),
}

/// The commands below `broker keys`.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerKeys {
    /// List the keys, and what state they are in
    List {
        /// Which broker.
        #[command(flatten)]
        at: BrokerPlace,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Publish the next key; it signs once everybody can know it
    Rotate {
        /// Of those that sign tokens by this algorithm [default: the usual one, `algorithm` in `[keys]`]
        #[arg(long = "algorithm", value_name = "NAME")]
        algorithms: Vec<String>,
        /// Of the one that signs the audit log, which signs besides the one before for a day
        #[arg(long)]
        log: bool,
        /// Of all that sign anything
        #[arg(long, conflicts_with_all = ["algorithms", "log"])]
        all: bool,
        /// Which broker.
        #[command(flatten)]
        at: BrokerPlace,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke keys: what they signed is good no more, and another key signs at once
    Revoke {
        /// The keys, by their ids
        #[arg(required = true, value_name = "KID")]
        kids: Vec<String>,
        /// Which broker.
        #[command(flatten)]
        at: BrokerPlace,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Write the public keys and the discovery document, for a web server in the broker's place
    Export {
        /// The directory that the web server shows at the broker's address
        #[arg(value_name = "DIRECTORY", value_hint = ValueHint::DirPath)]
        directory: PathBuf,
        /// The broker's configuration.
        #[command(flatten)]
        of: BrokerFile,
    },
}

impl BrokerCommand {
    /// The profile whose broker is asked, where it is one that runs elsewhere.
    pub(crate) fn at(&self) -> Option<&str> {
        let place = match self {
            Self::Revoke(args) => &args.at,
            Self::Audit(Audit { command: AuditCommand::Query(args) }) => &args.at,
            Self::Keys(
                BrokerKeys::List { at, .. }
                | BrokerKeys::Rotate { at, .. }
                | BrokerKeys::Revoke { at, .. },
            ) => at,
            _ => return None,
        };
        place.at.as_deref()
    }
}

/// The commands below `broker kek`.
#[derive(Debug, Subcommand)]
pub(crate) enum BrokerKek {
    /// List the key-encryption keys that open the database, by names that tell nothing of them
    List {
        /// The broker's configuration.
        #[command(flatten)]
        of: BrokerFile,
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Have another one open the database, too
    Add {
        /// Where the other one is.
        #[command(flatten)]
        other: OtherKek,
        /// The broker's configuration.
        #[command(flatten)]
        of: BrokerFile,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
    /// Have one open the database no more, once the configuration names another
    Remove {
        /// Its name, as `list` shows it
        #[arg(value_name = "NAME", allow_hyphen_values = true)]
        id: String,
        /// The broker's configuration.
        #[command(flatten)]
        of: BrokerFile,
        /// Why, for the audit log
        #[arg(long, value_name = "TEXT")]
        reason: Option<String>,
    },
}

/// Where another key-encryption key is.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct OtherKek {
    /// A file with it, as private as `kek_file` has to be; `-` for standard input
    #[arg(value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub kek: Option<PathBuf>,
    /// A configuration whose `[keys]` says where it is: what broker.toml is to become
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub of_config: Option<PathBuf>,
}

/// A file, and which broker's store.
#[derive(Args, Debug)]
pub(crate) struct BrokerStore {
    /// The SQLite database: the backup, or what is moved
    #[arg(value_name = "DATABASE", value_hint = ValueHint::FilePath)]
    pub database: PathBuf,
    /// The broker's configuration.
    #[command(flatten)]
    pub of: BrokerFile,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Revoke a token, or all that were issued to somebody; the broker may be running
#[derive(Args, Debug)]
pub(crate) struct BrokerRevoke {
    /// Which broker.
    #[command(flatten)]
    pub at: BrokerPlace,
    /// The tokens that are revoked.
    #[command(flatten)]
    pub what: Revoking,
    /// Together with --issuer: only those of this subject, letter by letter as its tokens have it
    #[arg(long, value_name = "SUBJECT", requires = "issuer")]
    pub subject: Option<String>,
    /// Only what was issued before this moment, such as 2026-01-01T12:00:00Z [default: now]
    #[arg(long, value_name = "TIME", value_parser = parse_moment, conflicts_with_all = ["token", "jti"])]
    pub before: Option<OffsetDateTime>,
    /// Why, for the audit log
    #[arg(long, value_name = "TEXT", default_value = "no reason was given")]
    pub reason: String,
    /// Count what would be revoked, and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Which tokens are revoked.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct Revoking {
    /// The token in this file, or on standard input (-)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub token: Option<PathBuf>,
    /// The token with this id
    #[arg(long, value_name = "ID")]
    pub jti: Option<Uuid>,
    /// All tokens of callers of this issuer: its URL, or the name of its table in the broker's configuration
    #[arg(long, value_name = "URL")]
    pub issuer: Option<String>,
    /// All tokens with this role
    #[arg(long, value_name = "ROLE")]
    pub role: Option<String>,
    /// All tokens that were issued to this client
    #[arg(long, value_name = "CLIENT")]
    pub client: Option<String>,
    /// All tokens of this broker
    #[arg(long)]
    pub all: bool,
}

/// Which broker.
#[derive(Args, Debug)]
pub(crate) struct BrokerFile {
    /// The broker's own configuration file
    #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
}

/// Which broker: one whose configuration is here, or one that runs elsewhere.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub(crate) struct BrokerPlace {
    /// The broker's own configuration file: it is done on the broker's database
    #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: Option<PathBuf>,
    /// Ask the running broker that is this profile's target, as whoever the profile is for
    #[arg(long, value_name = "PROFILE", add = ArgValueCandidates::new(complete::profiles))]
    pub at: Option<String>,
}

impl BrokerPlace {
    /// The configuration file, where no running broker is to be asked.
    pub(crate) fn file(&self) -> Result<&Path> {
        // One of the two is there.
        self.file.as_deref().ok_or_else(|| misuse("there is no --config"))
    }
}

/// Look into the audit log, and check it; the broker may be running
#[derive(Args, Debug)]
pub(crate) struct Audit {
    /// What to do.
    #[command(subcommand)]
    pub command: AuditCommand,
}

/// The commands below `broker audit`.
#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Check that no record was changed, removed or added since it was signed
    Verify(AuditVerify),
    /// Print the newest signed checkpoint, to be kept on another machine
    Checkpoint(AuditCheckpoint),
    /// Find records
    Query(AuditQuery),
    /// Print all records, a line of JSON each
    Export(AuditExport),
    /// Erase what the log has of a person; all proofs stay what they were
    Erase(AuditErase),
}

/// Check that no record was changed, removed or added since it was signed
#[derive(Args, Debug)]
pub(crate) struct AuditVerify {
    /// The broker's own configuration file
    #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// A checkpoint that was kept elsewhere: the log must go on from it, and from each that is given
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub checkpoint: Vec<PathBuf>,
    /// The key of the log, as `checkpoint --key` prints it [default: what is sealed in the database]
    #[arg(long, value_name = "KEY")]
    pub key: Vec<String>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Print the newest signed checkpoint, to be kept on another machine
#[derive(Args, Debug)]
pub(crate) struct AuditCheckpoint {
    /// The broker's own configuration file
    #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Print the public keys that verify checkpoints instead, a line each: first the one that signs
    #[arg(long)]
    pub key: bool,
    /// Where to write it, as a whole or not at all; `-` is standard output [default: standard output]
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub out: Option<PathBuf>,
}

/// Find records
#[derive(Args, Debug)]
pub(crate) struct AuditQuery {
    /// Which broker.
    #[command(flatten)]
    pub at: BrokerPlace,
    /// Not before this time, such as 2026-01-31T08:00:00Z, or so long ago, such as 2h
    #[arg(long, value_name = "TIME")]
    pub since: Option<String>,
    /// Before this time
    #[arg(long, value_name = "TIME")]
    pub until: Option<String>,
    /// Of this caller: the subject, or issuer, `#` and subject
    #[arg(long, value_name = "PRINCIPAL")]
    pub principal: Option<String>,
    /// About this role
    #[arg(long, value_name = "NAME")]
    pub role: Option<String>,
    /// Of this action, such as `issue` or `elevation.approve`
    #[arg(long, value_name = "ACTION")]
    pub action: Option<String>,
    /// With this decision
    #[arg(long, value_name = "DECISION", value_parser = ["issued", "denied", "aborted", "revoked", "changed"])]
    pub decision: Option<String>,
    /// Of this request (`x-request-id`)
    #[arg(long, value_name = "ID")]
    pub request: Option<Uuid>,
    /// Of this trace (the second part of `traceparent`)
    #[arg(long, value_name = "ID", value_parser = parse_trace)]
    pub trace: Option<TraceId>,
    /// About this token (its `jti`)
    #[arg(long, value_name = "ID")]
    pub token: Option<Uuid>,
    /// Of this elevation: the request, what became of it, and what was issued under its grant
    #[arg(long, value_name = "ID")]
    pub elevation: Option<Uuid>,
    /// Of drills alone
    #[arg(long)]
    pub drill: bool,
    /// The newest so many
    #[arg(long, value_name = "NUMBER", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Print all records, a line of JSON each
#[derive(Args, Debug)]
pub(crate) struct AuditExport {
    /// The broker's own configuration file
    #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// How they are written
    #[arg(long, value_enum, default_value_t = ExportFormat::Jsonl)]
    pub format: ExportFormat,
    /// Only those after this record
    #[arg(long, value_name = "RECORD", default_value_t = 0)]
    pub after: u64,
}

/// Erase what the log has of a person; all proofs stay what they were
#[derive(Args, Debug)]
pub(crate) struct AuditErase {
    /// The broker's own configuration file
    #[arg(long = "config", value_name = "FILE", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Whose: issuer, `#` and subject
    #[arg(long, value_name = "PRINCIPAL")]
    pub subject: String,
    /// Why, as it goes on record; it must not name the person
    #[arg(long, value_name = "TEXT")]
    pub reason: String,
    /// Who asks for it, as it goes on record [default: who runs this]
    #[arg(long, value_name = "NAME")]
    pub by: Option<String>,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// How records are written.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum ExportFormat {
    /// The columns of the log, by their names
    Jsonl,
    /// The Elastic Common Schema
    Ecs,
    /// The Open Cybersecurity Schema Framework
    Ocsf,
}

fn parse_trace(text: &str) -> Result<TraceId, String> {
    w3c::trace_id(text).ok_or_else(|| "it is no trace: those have 32 digits from 0 to f".into())
}
