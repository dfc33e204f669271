//! Listening for connections: on loopback unless somebody said otherwise.
#![expect(clippy::disallowed_methods, reason = "this is the port to listening sockets")]

#[cfg(target_os = "linux")]
mod table;

use std::net::{SocketAddr, TcpListener};

use crate::error::{Error, ErrorKind, Result};

/// Who may connect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exposure {
    /// This machine only: another address is refused.
    LoopbackOnly,
    /// Whoever can reach the address, because the configuration says so.
    AsConfigured,
}

/// Listens on an address; port 0 takes a free one. The socket is non-blocking,
/// as the runtime wants it.
pub fn bind(address: SocketAddr, exposure: Exposure) -> Result<TcpListener> {
    let failed = || Error::new(ErrorKind::Io, format!("cannot listen on {address}"));
    if exposure == Exposure::LoopbackOnly && !address.ip().is_loopback() {
        return Err(failed().because_of("the address is not loopback"));
    }
    let listener = TcpListener::bind(address).map_err(|cause| failed().because(cause))?;
    listener.set_nonblocking(true).map_err(|cause| failed().because(cause))?;
    Ok(listener)
}

/// Whose program is at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Peer {
    /// This user's, or the administrator's.
    Ours,
    /// That of another user of this machine.
    OtherUser(u32),
    /// Nobody's any more: the connection has ended at that side. Whose it was can be
    /// told no longer.
    Gone,
    /// No socket of this system, although the connection lives: the one of a machine
    /// that shares its loopback, as Windows does with WSL.
    Elsewhere,
    /// The system does not tell.
    Untold,
}

/// Whether the program at the other end of a connection over loopback belongs to this
/// user, or to the administrator. Where the system does not tell whose a connection is,
/// that it comes from this machine is all that is asked.
pub fn is_ours(peer: SocketAddr, server: SocketAddr) -> bool {
    peer.ip().is_loopback() && matches!(whose(peer, server), Peer::Ours | Peer::Untold)
}

/// Tells whose program is at the other end of a connection over loopback.
pub fn whose(peer: SocketAddr, server: SocketAddr) -> Peer {
    #[cfg(target_os = "linux")]
    {
        let user = super::process::user_id();
        match table::look(peer, server, user) {
            // A connection that was cut while the system's tables were read looks the
            // same, but once.
            Peer::Elsewhere => table::look(peer, server, user),
            told => told,
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = (peer, server);
        Peer::Untold
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_addresses_than_loopback_need_permission() {
        assert!(bind(([0, 0, 0, 0], 0).into(), Exposure::LoopbackOnly).is_err());
        let listener = bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
        assert!(listener.local_addr().unwrap().port() > 0);
    }
}
