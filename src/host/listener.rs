//! Listening for connections: on loopback unless somebody said otherwise.
#![expect(clippy::disallowed_methods, reason = "this is the port to listening sockets")]

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
