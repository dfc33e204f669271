//! The program at the command line, without a provider of its own.

mod complete;
#[cfg(feature = "broker")]
mod dev;
#[cfg(feature = "broker")]
mod dev_server;
#[cfg(feature = "broker")]
mod exec;
#[cfg(feature = "broker")]
mod generated;
mod identity;
#[cfg(feature = "broker")]
mod mask;
#[cfg(feature = "broker")]
mod output;
#[cfg(feature = "broker")]
mod place;
#[cfg(feature = "broker")]
mod schema;
#[cfg(feature = "broker")]
mod screen;
#[cfg(feature = "broker")]
mod terminal;
