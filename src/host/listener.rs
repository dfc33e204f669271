//! Listening for connections: on loopback unless somebody said otherwise.
#![expect(clippy::disallowed_methods, reason = "this is the port to listening sockets")]

#[cfg(target_os = "linux")]
use std::net::{IpAddr, Ipv4Addr};
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

/// Whether the program at the other end of a connection over IPv4 loopback belongs to
/// this user, or to the administrator. Where the system does not tell whose a
/// connection is, that it comes from this machine is all that is asked.
pub fn is_ours(peer: SocketAddr, server: SocketAddr) -> bool {
    if !peer.ip().is_loopback() {
        return false;
    }
    #[cfg(target_os = "linux")]
    {
        /// The table of a machine with some hundred thousand connections.
        const MAX: u64 = 64 * 1024 * 1024;
        let user = super::process::user_id();
        match super::files::read_text("/proc/net/tcp".as_ref(), MAX) {
            Ok(Some(table)) => allows(&table, peer, server, user),
            // It is not mounted here.
            Ok(None) => true,
            Err(_) => false,
        }
    }
    #[cfg(not(target_os = "linux"))]
    {
        let _ = server;
        true
    }
}

/// Whether the table says that the peer is this user or the administrator, or says
/// nothing of the connection at all, as on systems that only look like Linux.
#[cfg(target_os = "linux")]
fn allows(table: &str, peer: SocketAddr, server: SocketAddr, user: u32) -> bool {
    match owner(table, peer, server) {
        Some(uid) => uid == user || uid == 0,
        None => owner(table, server, peer).is_none(),
    }
}

/// Whose the socket is that has the address `local` and is connected to `remote`, by
/// the system's table
/// (<https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html>).
#[cfg(target_os = "linux")]
fn owner(table: &str, local: SocketAddr, remote: SocketAddr) -> Option<u32> {
    table.lines().skip(1).find_map(|line| {
        let mut fields = line.split_ascii_whitespace().skip(1);
        if address(fields.next()?)? != local || address(fields.next()?)? != remote {
            return None;
        }
        let uid = fields.nth(4)?.parse().ok()?;
        // What no program has open any more has no inode, and no owner.
        let inode: u64 = fields.nth(1)?.parse().ok()?;
        (inode != 0).then_some(uid)
    })
}

/// An address as the table has it: the number as it is in memory, and the port.
#[cfg(target_os = "linux")]
fn address(text: &str) -> Option<SocketAddr> {
    let (ip, port) = text.split_once(':')?;
    let ip = u32::from_str_radix(ip, 16).ok()?;
    let ip = IpAddr::V4(Ipv4Addr::from(ip.to_ne_bytes()));
    Some(SocketAddr::new(ip, u16::from_str_radix(port, 16).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(target_os = "linux")]
    #[test]
    fn whose_a_connection_is_can_be_told() {
        let listener = bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
        let server = listener.local_addr().unwrap();
        let client = std::net::TcpStream::connect(server).unwrap();
        let peer = client.local_addr().unwrap();
        assert!(is_ours(peer, server));
        assert!(!is_ours(([192, 0, 2, 1], 80).into(), server));
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 0100007F:0050 01 00000000:00000000 00:00000000 00000000  1000        0 36011 1\n\
            1: 0100007F:1F91 0100007F:0050 06 00000000:00000000 03:00000000 00000000     0        0 0 3\n";
        if cfg!(target_endian = "little") {
            let (a, b) = (([127, 0, 0, 1], 8080).into(), ([127, 0, 0, 1], 80).into());
            assert_eq!(owner(table, a, b), Some(1000));
            assert_eq!(owner(table, b, a), None);
            let closed = ([127, 0, 0, 1], 8081).into();
            assert_eq!(owner(table, closed, b), None);
            assert!(allows(table, a, b, 1000) && !allows(table, a, b, 1001));
            // This end of the connection is known, the other is not.
            assert!(!allows(table, b, a, 1000));
            // Nothing is known.
            assert!(allows("", a, b, 1000));
        }
    }

    #[test]
    fn other_addresses_than_loopback_need_permission() {
        assert!(bind(([0, 0, 0, 0], 0).into(), Exposure::LoopbackOnly).is_err());
        let listener = bind(([127, 0, 0, 1], 0).into(), Exposure::LoopbackOnly).unwrap();
        assert!(listener.local_addr().unwrap().port() > 0);
    }
}
