//! The broker as its callers see it: over real sockets.

mod assertion;
mod authz;
mod claims;
mod client;
mod clocks;
mod conformance;
mod cutoff;
mod delegation;
mod denials;
mod directory;
mod dpop;
mod elevation;
mod erasure;
mod exchange;
mod flood;
mod introspection;
mod lineage;
mod once;
mod opaque;
mod operate;
mod origins;
mod overtaken;
mod rates;
mod revocation;
mod transport;
mod types;

fn header_of(response: &crate::host::http::Response, name: &str) -> String {
    response.headers.get(name).map(|v| v.to_str().unwrap().to_string()).unwrap_or_default()
}
