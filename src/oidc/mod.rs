//! OpenID Connect, as client and broker both need it: issuers, discovery, keys,
//! verification of tokens.

pub mod discovery;
pub mod documents;
#[cfg(test)]
mod fuzz;
pub mod id_token;
pub mod introspection;
mod issuer;
mod json;
pub mod jwt;
pub mod keys;
pub mod remote_keys;
mod seen;

pub use discovery::Discovery;
pub use documents::{Documents, NoDocuments};
pub use issuer::Issuer;
pub use jwt::{Claims, Expectations};
pub use keys::Keys;
pub use remote_keys::RemoteKeys;
pub use seen::Seen;
