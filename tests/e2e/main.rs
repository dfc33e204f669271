//! End-to-end tests: the program as people and other programs meet it, with real
//! peers; and the tests of what they stand on.
#![expect(
    clippy::disallowed_methods,
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test reaches the world itself, and ends where something is amiss"
)]

#[cfg(all(target_os = "linux", feature = "broker"))]
mod ahead;
mod architecture;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod attacks;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod audit;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod aws;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod aws_keys;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod browsers;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod canary;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod check;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod checkout;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod claims;
#[cfg(target_os = "linux")]
mod cli;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod clients;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod cutoff;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod deploy;
#[cfg(target_os = "linux")]
mod docs;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod dpop;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod elevation;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod elsewhere;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod ended;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod enrollments;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod faults;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod federation;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod interop;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod issuer_keys;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod jobs;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod journey;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod kek;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod keys;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod log;
#[cfg(target_os = "linux")]
mod login;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod memory;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod names;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod notify;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod openapi;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod operation;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod outbox;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod policy;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod provider_down;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod providers;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod proxies;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod reload;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod renewal;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod replicas;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod revocation;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod sso;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod storage;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod stores;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod storm;
#[cfg(target_os = "linux")]
mod support;
#[cfg(target_os = "linux")]
mod test_bed;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod tls;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod traces;
#[cfg(all(target_os = "linux", feature = "broker"))]
mod web;
