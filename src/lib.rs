//! Credentials that expire, for people, CI jobs and programs.
//!
//! `tmpcred` proves who is calling to an identity provider, mints a credential
//! that is scoped to one role and one audience, keeps it in the OS keyring
//! until shortly before it expires, and hands it to a child process.
//!
//! # Map
//!
//! | module | what it does |
//! |---|---|
//! | [`secret`] | values that must not leak |
//! | [`error`] | errors for the person who reads them, and exit codes |
//! | [`host`] | ports to the world: clock, environment, files, HTTP, browser, people |
//! | [`credential`] | assertions, credentials, lifetimes |
//! | [`config`] | files to typed configuration, with where each value came from |
//! | [`plan`] | what a run will do, resolved before it does anything |
//! | [`identity`] | identity sources: what proves who is calling |
//! | [`mint`] | targets: what turns an assertion into a credential |
//! | [`api`] | what is asked of a broker besides credentials |
//! | [`cache`] | where credentials and sessions rest, and the locks |
//! | [`deliver`] | ways out: command, variables, bare token |
//! | [`pipeline`] | the order of the steps |
//! | [`aws`] | what sources, targets and commands know alike of AWS |
//! | [`reach`] | asking servers that do not always serve |
//! | [`oidc`] | issuers, discovery, keys, verification of tokens |
//! | [`dpop`] | tokens that are bound to a key (RFC 9449) |
//! | [`sshsig`] | signatures of people by SSH keys, for when no provider can say who they are |
//! | [`wire`] | the messages between client and broker |
//! | `broker` | the broker, with the feature of that name |
//! | [`telemetry`] | logs, and where spans go |
//! | [`trace`] | where work stands in a trace, and its spans |
//! | [`cli`] | the command line |

pub mod api;
pub mod aws;
#[cfg(feature = "broker")]
pub mod broker;
pub mod cache;
pub mod cli;
pub mod config;
pub mod credential;
pub mod deliver;
pub mod dpop;
pub mod error;
#[cfg(test)]
mod fuzz;
pub mod host;
pub mod identity;
pub mod mint;
pub mod oidc;
pub mod pipeline;
pub mod plan;
pub mod reach;
mod registry;
pub mod secret;
pub mod sshsig;
pub mod telemetry;
pub mod trace;
pub mod wire;
