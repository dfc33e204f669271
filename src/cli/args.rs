//! The command line as typed. This one definition drives the parser, `--help`,
//! the man pages and the completions.

mod renew;
mod token;

use std::ffi::OsString;
use std::path::PathBuf;
use std::time::Duration;

use clap::builder::{BoolishValueParser, FalseyValueParser, PossibleValue, PossibleValuesParser};
use clap::{Args, Parser, Subcommand, ValueEnum, ValueHint};
use clap_complete::engine::ArgValueCandidates;

#[cfg(feature = "broker")]
mod broker;
#[cfg(feature = "broker")]
mod broker_notify;
#[cfg(feature = "broker")]
mod broker_policy;
mod config;
mod console;
mod elevate;
mod flag;
mod generated;
mod ls;
mod signed;

#[cfg(feature = "broker")]
pub(crate) use self::broker::{
    AuditCheckpoint, AuditCommand, AuditErase, AuditExport, AuditQuery, AuditVerify, Broker,
    BrokerCommand, BrokerFile, BrokerKek, BrokerKeys, BrokerPlace, BrokerRevoke, BrokerStore,
    Checked, ExportFormat, OtherKek,
};
#[cfg(feature = "broker")]
pub(crate) use self::broker_notify::{NotifyCommand, NotifyList, NotifyTest};
#[cfg(feature = "broker")]
pub(crate) use self::broker_policy::{PolicyAction, PolicyCommand, PolicyExplain, PolicyPath};
pub(crate) use self::config::{Import, Install, Tool};
pub(crate) use self::console::Console;
pub(crate) use self::elevate::{
    At, Because, Elevate, ElevateApprove, ElevateCommand, ElevateDeny, ElevateDrill, ElevateEnd,
    ElevateList, ElevateReasoned, ElevateRequest, ElevateReview, ElevateRevoke, ElevateStatus,
    Elevated, OnExpiryArg, Patience,
};
use self::flag::Flag;
pub(crate) use self::generated::{Completions, Man};
pub(crate) use self::ls::Ls;
pub(crate) use self::signed::{
    ElevateKeys, ElevateSign, ElevateSubmit, EndDown, KeysApprove, KeysCommand, KeysEnroll,
    KeysList, ProviderDown, SigningKey,
};
use super::complete;
use super::deferred::Deferred;
use super::help::{STYLES, WIDTH, after_help};
use crate::deliver::env::Format;
pub(crate) use renew::Renew;
pub(crate) use token::{ProofFormat, Token, TokenProof, Verify};

/// Credentials that expire, for people, CI jobs and programs.
///
/// tmpcred proves who is calling to an identity provider, mints a credential
/// that is scoped to one role and that expires, keeps it in the OS keyring and
/// hands it to a command.
#[derive(Debug, Parser)]
#[command(
    name = "tmpcred",
    version,
    styles = STYLES,
    after_long_help = after_help(),
    disable_help_subcommand = true,
    max_term_width = WIDTH,
)]
pub(crate) struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Global {
    /// Never prompt, never open a browser (so it is in CI and without a terminal)
    #[arg(
        long,
        global = true,
        env = "TMPCRED_NO_INPUT",
        hide_env_values = true,
        hide_possible_values = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = Flag::new(),
        help_heading = "Global options",
    )]
    pub no_input: Option<bool>,
    /// Print the login page's address instead of opening a browser
    #[arg(long, global = true, env = "TMPCRED_NO_BROWSER", hide_env_values = true, value_parser = FalseyValueParser::new(), help_heading = "Global options")]
    pub no_browser: bool,
    /// When to use colours
    #[arg(
        long,
        global = true,
        value_name = "WHEN",
        default_value = "auto",
        help_heading = "Global options"
    )]
    pub color: ColorWhen,
    /// Say nothing but warnings, errors and what was asked for
    #[arg(long, short, global = true, help_heading = "Global options")]
    pub quiet: bool,
    /// Tell what is being done (-vv: in detail)
    #[arg(long, short, global = true, action = clap::ArgAction::Count, help_heading = "Global options")]
    pub verbose: u8,
}

/// When to use colours.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(crate) enum ColorWhen {
    /// On a terminal, unless NO_COLOR is set
    #[default]
    Auto,
    /// Always
    Always,
    /// Never
    Never,
}

/// The commands, each with what the list of commands says of it. The description
/// of its arguments may say more.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run a command with credentials
    Exec(Deferred<Exec>),
    /// Print credentials as variables for a shell
    Env(Deferred<Env>),
    /// Print the bare token
    Token(Deferred<Token>),
    /// Sign in to the AWS console with a profile's credential
    Console(Deferred<Console>),
    /// Print AWS credentials for the AWS CLI and SDKs
    CredentialProcess(Deferred<CredentialProcess>),
    /// Log in at an identity provider
    Login(Deferred<Login>),
    /// End a session: revoke it at the provider, then forget it
    Logout(Deferred<Logout>),
    /// Show sessions and cached credentials
    Status(Deferred<Status>),
    /// List the profiles, or the accounts and roles that you may use
    Ls(Deferred<Ls>),
    /// Have a role for a while, because others approve
    Elevate(Deferred<Elevate>),
    /// Show what a run would do, and why
    Explain(Deferred<Explain>),
    /// Look after the configuration
    Config(Deferred<ConfigArgs>),
    /// Show what a token says, without checking it
    Inspect(Deferred<Inspect>),
    /// Check a token: signature, issuer, audience and time
    Verify(Deferred<Verify>),
    /// Print a shell's completion script
    Completions(Deferred<Completions>),
    /// Print or write the manual pages
    Man(Deferred<Man>),
    /// The broker that decides who may have which role
    #[cfg(feature = "broker")]
    Broker(Deferred<Broker>),
    /// Renew a cached credential before it is due; tmpcred starts this by itself
    #[command(hide = true)]
    RenewAhead(Deferred<RenewAhead>),
}

impl Command {
    /// Whether it runs until somebody ends it, and keeps a log.
    pub(crate) fn serves(&self) -> bool {
        match self {
            #[cfg(feature = "broker")]
            Self::Broker(args) => {
                matches!(args.command, BrokerCommand::Serve { .. } | BrokerCommand::Dev { .. })
            }
            _ => false,
        }
    }

    /// Whether it is about a broker whose configuration is here, and nothing of this user's.
    #[cfg(feature = "broker")]
    pub(crate) fn is_of_a_server(&self) -> bool {
        matches!(self, Self::Broker(args) if args.command.at().is_none())
    }
}

/// Which credential is wanted.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Wanted {
    /// The profile [default: TMPCRED_PROFILE, the project's .tmpcred.toml, default_profile]
    #[arg(add = ArgValueCandidates::new(complete::profiles))]
    pub profile: Option<String>,
    /// Ask for this role instead of the profile's
    #[arg(long, help_heading = "Credential")]
    pub role: Option<String>,
    /// Ask for this scope instead of the profile's (repeatable)
    #[arg(long, help_heading = "Credential")]
    pub scope: Vec<String>,
    /// Ask for a credential to be shown to this audience
    #[arg(long, help_heading = "Credential")]
    pub audience: Option<String>,
    /// Ask for this lifetime, such as 15m
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Credential")]
    pub ttl: Option<Duration>,
    /// Give up what this IAM policy does not allow (AWS)
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = "Credential")]
    pub policy: Option<PathBuf>,
    /// Give up what this managed policy does not allow (AWS, repeatable)
    #[arg(long, value_name = "ARN", help_heading = "Credential")]
    pub policy_arn: Vec<String>,
    /// Give up everything but reading (AWS)
    #[arg(long, help_heading = "Credential")]
    pub read_only: bool,
}

/// Which credential is wanted: one that is configured, or one that is good for nothing but
/// trying things.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Chosen {
    /// Which one.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Start a broker and an identity provider inside this run, on loopback
    #[cfg(feature = "broker")]
    #[arg(long, help_heading = "Credential", conflicts_with = "profile")]
    pub dev: bool,
}

/// How fresh the credential has to be.
#[derive(Args, Clone, Debug, Default)]
pub(crate) struct Fresh {
    /// Mint a new credential although one is cached
    #[arg(long, help_heading = "Credential")]
    pub refresh: bool,
    /// Ask for a credential with at least this much lifetime left
    #[arg(long, value_name = "DURATION", value_parser = humantime::parse_duration, help_heading = "Credential")]
    pub min_ttl: Option<Duration>,
}

/// What happens when the command has ended.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct AtExit {
    /// Revoke the credential when the command ends; it is then one of this run alone
    /// (so it is in CI, where the target can revoke)
    #[arg(
        long,
        hide_possible_values = true,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "true",
        value_parser = BoolishValueParser::new(),
        help_heading = "Credential",
    )]
    pub revoke_on_exit: Option<bool>,
}

/// What the command's output goes through.
#[derive(Args, Clone, Copy, Debug, Default)]
pub(crate) struct Output {
    /// Replace the credential's secrets in the command's output by *** (so it is in CI)
    #[arg(long, hide_possible_values = true, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true", value_parser = BoolishValueParser::new(), help_heading = "Credential")]
    pub mask: Option<bool>,
}

/// Run a command with credentials
///
/// The command gets TMPCRED_TOKEN (or the variables of AWS), TMPCRED_ACTIVE_PROFILE,
/// TMPCRED_ROLE, TMPCRED_EXPIRES_AT and what the profile's `env` maps. Variables of an
/// earlier credential are removed. tmpcred replaces itself by the command and
/// stays resident only where it must (`tmpcred explain` tells).
#[derive(Args, Debug)]
pub(crate) struct Exec {
    /// Which credential.
    #[command(flatten)]
    pub wanted: Chosen,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Fresh,
    /// Afterwards.
    #[command(flatten)]
    pub at_exit: AtExit,
    /// Meanwhile.
    #[command(flatten)]
    pub output: Output,
    /// For longer than a credential is good.
    #[command(flatten)]
    pub renew: Renew,
    /// With a role that is had for a while.
    #[command(flatten)]
    pub elevated: Elevated,
    /// The command and its arguments
    #[arg(last = true, required = true, value_name = "COMMAND", value_hint = ValueHint::CommandWithArguments)]
    pub command: Vec<OsString>,
}

/// Print credentials as variables for a shell
///
/// For `eval "$(tmpcred env PROFILE)"`. What is printed is secret: it is yours
/// to take care of.
#[derive(Args, Debug)]
pub(crate) struct Env {
    /// Which credential.
    #[command(flatten)]
    pub wanted: Chosen,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Fresh,
    /// The form [default: that of your shell]
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    pub format: Option<String>,
    /// With --format github: hand the credential to every later step of the job
    #[arg(long)]
    pub for_later_steps: bool,
}

/// The formats, with what help says of each.
fn formats() -> PossibleValuesParser {
    PossibleValuesParser::new(
        Format::all().map(|format| PossibleValue::new(format.name()).help(format.about())),
    )
}

/// Print AWS credentials for the AWS CLI and SDKs
///
/// For `credential_process = tmpcred credential-process PROFILE` in ~/.aws/config.
/// Nobody is asked anything: where a login is needed, this fails with code 4.
#[derive(Args, Debug)]
pub(crate) struct CredentialProcess {
    /// Which credential.
    #[command(flatten)]
    pub wanted: Wanted,
    /// How fresh.
    #[command(flatten)]
    pub fresh: Fresh,
}

/// Renew a cached credential before it is due
#[derive(Args, Debug)]
pub(crate) struct RenewAhead {
    /// Which credential.
    #[command(flatten)]
    pub wanted: Wanted,
    /// Only where the cached one still ends then (seconds since 1970)
    #[arg(long, value_name = "TIME")]
    pub ends: i64,
    /// Only where the cached one was revoked
    #[arg(long)]
    pub if_revoked: bool,
}

/// How to log in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum FlowArg {
    /// The browser where one can be shown, else the device flow
    Auto,
    /// A browser on this machine
    Browser,
    /// A code to type on any device
    Device,
}

/// Log in at an identity provider
#[derive(Args, Debug)]
pub(crate) struct Login {
    /// The identity [default: the only one, or that of the profile that would be used]
    #[arg(add = ArgValueCandidates::new(complete::identities))]
    pub identity: Option<String>,
    /// How to log in [default: as configured]
    #[arg(long)]
    pub flow: Option<FlowArg>,
    /// Log in anew although there is a session
    #[arg(long)]
    pub force: bool,
    /// Read access keys of AWS from standard input: the ID and the secret, a line each
    #[arg(long)]
    pub stdin: bool,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// End a session: revoke it at the provider, then forget it
#[derive(Args, Debug)]
pub(crate) struct Logout {
    /// The identity [default: the only one, or that of the profile that would be used]
    #[arg(add = ArgValueCandidates::new(complete::identities), conflicts_with = "all")]
    pub identity: Option<String>,
    /// End the sessions of all identities, also of those that the configuration has no more
    /// (whose access keys are left, and told of)
    #[arg(long)]
    pub all: bool,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Show sessions and cached credentials
///
/// Reads an index without secrets, so no keyring is unlocked.
#[derive(Args, Debug)]
pub(crate) struct Status {
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Show what a run would do, and why
#[derive(Args, Debug)]
pub(crate) struct Explain {
    /// Which credential.
    #[command(flatten)]
    pub wanted: Chosen,
    /// Afterwards.
    #[command(flatten)]
    pub at_exit: AtExit,
    /// Meanwhile.
    #[command(flatten)]
    pub output: Output,
    /// For longer than a credential is good.
    #[command(flatten)]
    pub renew: Renew,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}

/// Look after the configuration
#[derive(Args, Debug)]
pub(crate) struct ConfigArgs {
    /// What to do.
    #[command(subcommand)]
    pub command: ConfigCommand,
}

/// The commands below `config`.
#[derive(Debug, Subcommand)]
pub(crate) enum ConfigCommand {
    /// Write a configuration file to start from
    Init,
    /// Show which files are read, in which order
    Path {
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Check all of the configuration
    Check {
        /// Report as JSON
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of the configuration
    Schema,
    /// Take profiles over from another program
    ///
    /// Reads that program's configuration and writes into yours what it comes to. The
    /// change is shown first, and so is what could not be taken over, and why. Long-lived
    /// keys are never copied.
    Import(Import),
    /// Let another program get its credentials here
    ///
    /// Writes profiles into that program's configuration, between two comments. What is
    /// outside of these is never touched. The change is shown first.
    Install(Install),
    /// Let a project's .tmpcred.toml say more than which profile to use
    Trust {
        /// The file [default: the one found from here upwards]
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
    /// Take that back
    Untrust {
        /// The file [default: the one found from here upwards]
        #[arg(value_hint = ValueHint::FilePath)]
        file: Option<PathBuf>,
    },
}

/// Show what a token says, without checking it
#[derive(Args, Debug)]
pub(crate) struct Inspect {
    /// The file with the token; `-` is standard input
    #[arg(default_value = "-", value_hint = ValueHint::FilePath)]
    pub file: PathBuf,
    /// Report as JSON
    #[arg(long)]
    pub json: bool,
}
