//! Signatures of people, for when no identity provider can say who they are: SSHSIG, the
//! format of `ssh-keygen -Y sign` (OpenSSH's PROTOCOL.sshsig), for client and broker.
//!
//! What is signed is a [`Statement`], which says in a few lines what somebody wants, of which
//! broker and until when. It goes from hand to hand with its signature as text
//! ([`write()`], [`read()`]). Keys are this program's own ([`OwnKey`]) or those of an agent
//! ([`Agent`]), security keys among them.
//!
//! Making and checking is pure but for the agent: the time is an argument, and whether a key
//! is somebody's, or a statement was used before, is for the broker to say.

mod agent;
mod file;
#[cfg(test)]
mod fuzz;
mod key;
mod own;
mod signature;
mod statement;
#[cfg(test)]
pub(crate) mod tests;

pub use agent::{Agent, AgentKey};
pub use file::{MAX_FILE, Signed, read, write};
pub use key::{Kind, PublicKey};
pub use own::OwnKey;
pub use signature::{Demands, Signature};
pub use statement::{LONGEST, Named, Nonce, Said, Statement, Subject};

/// What signatures are for: one for anything else is none here, and one of these is none
/// for anything else.
pub const NAMESPACE: &str = "elevation@tmpcred";
