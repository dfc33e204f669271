//! The tables in which Linux lists its connections
//! (<https://www.kernel.org/doc/html/latest/networking/proc_net_tcp.html>).

use std::fs::File;
use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::Peer;

/// A connection over IPv4 is in the second where a program opened it with a socket for
/// both, as Java does.
const TABLES: [&str; 2] = ["/proc/net/tcp", "/proc/net/tcp6"];
/// The table of a machine with some hundred thousand connections.
const MAX: u64 = 64 * 1024 * 1024;
/// The states, as the kernel numbers them.
const ESTABLISHED: &str = "01";
const LISTEN: &str = "0A";

/// Whose the other end of a connection is, for `user`.
pub(super) fn look(peer: SocketAddr, server: SocketAddr, user: u32) -> Peer {
    let mut tables = String::new();
    for table in TABLES {
        // It may not be mounted here, or not be readable. One that is cut short lacks
        // connections, so that they count as gone.
        let read = File::open(table).map(|file| {
            let mut bytes = Vec::new();
            file.take(MAX).read_to_end(&mut bytes).map(|_| bytes)
        });
        if let Ok(Ok(bytes)) = read {
            tables.push_str(&String::from_utf8_lossy(&bytes));
            tables.push('\n');
        }
    }
    tell(&tables, peer, server, user)
}

/// The same, by the tables' text.
fn tell(tables: &str, peer: SocketAddr, server: SocketAddr, user: u32) -> Peer {
    let (peer, server) = (Place::of(peer), Place::of(server));
    let (mut this_end_lives, mut this_end_is_known, mut is_our_table) = (false, false, false);
    for entry in tables.lines().filter_map(Entry::read) {
        if entry.local == peer && entry.remote == server {
            return match entry.owner {
                Some(uid) if uid == user || uid == 0 => Peer::Ours,
                Some(uid) => Peer::OtherUser(uid),
                None => Peer::Gone,
            };
        }
        if entry.local == server && entry.remote == peer {
            this_end_is_known = true;
            this_end_lives |= entry.state == ESTABLISHED;
        }
        is_our_table |= entry.local == server && entry.state == LISTEN;
    }
    match (this_end_lives, this_end_is_known || is_our_table) {
        // What the other side of this system closes or cuts is not established here.
        (true, _) => Peer::Elsewhere,
        (false, true) => Peer::Gone,
        // Not even the socket that listens is in it.
        (false, false) => Peer::Untold,
    }
}

/// One end of a connection. An IPv4 address is one, however it is written.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Place(IpAddr, u16);

impl Place {
    fn of(address: SocketAddr) -> Self {
        Self(address.ip().to_canonical(), address.port())
    }

    /// Reads an address as the tables have it: the numbers as they are in memory, and
    /// the port.
    fn read(text: &str) -> Option<Self> {
        let (ip, port) = text.split_once(':')?;
        let word = |at: usize| {
            let word = u32::from_str_radix(ip.get(at..at + 8)?, 16).ok()?;
            Some(word.to_ne_bytes())
        };
        let ip = match ip.len() {
            8 => IpAddr::V4(Ipv4Addr::from(word(0)?)),
            32 => {
                let mut bytes = [0; 16];
                for (number, four) in bytes.chunks_exact_mut(4).enumerate() {
                    four.copy_from_slice(&word(number * 8)?);
                }
                IpAddr::V6(Ipv6Addr::from(bytes))
            }
            _ => return None,
        };
        Some(Self(ip.to_canonical(), u16::from_str_radix(port, 16).ok()?))
    }
}

/// A line of a table.
struct Entry<'a> {
    local: Place,
    remote: Place,
    state: &'a str,
    /// `None` where no program has it open any more.
    owner: Option<u32>,
}

impl<'a> Entry<'a> {
    fn read(line: &'a str) -> Option<Self> {
        let mut fields = line.split_ascii_whitespace().skip(1);
        let (local, remote) = (Place::read(fields.next()?)?, Place::read(fields.next()?)?);
        let state = fields.next()?;
        let uid = fields.nth(3)?.parse().ok()?;
        let inode: u64 = fields.nth(1)?.parse().ok()?;
        Some(Self { local, remote, state, owner: (inode != 0).then_some(uid) })
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;
    use std::net::TcpStream;

    use super::super::{Exposure, bind, is_ours, whose};
    use super::*;
    use crate::host::process::user_id;

    fn connected(ip: IpAddr) -> Option<(TcpStream, TcpStream, SocketAddr)> {
        let listener = bind(SocketAddr::new(ip, 0), Exposure::LoopbackOnly).ok()?;
        listener.set_nonblocking(false).unwrap();
        let server = listener.local_addr().unwrap();
        #[expect(clippy::disallowed_methods, reason = "a program that connects")]
        let client = TcpStream::connect(server).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        Some((client, accepted, server))
    }

    #[test]
    fn whose_a_connection_is_can_be_told_over_both_kinds_of_loopback() {
        for ip in [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)] {
            // A machine may have no IPv6.
            let Some((client, _accepted, server)) = connected(ip) else { continue };
            let peer = client.local_addr().unwrap();
            assert_eq!(whose(peer, server), Peer::Ours, "{ip}");
            assert!(is_ours(peer, server), "{ip}");
            assert_eq!(
                look(peer, server, user_id() + 1),
                match user_id() {
                    0 => Peer::Ours,
                    user => Peer::OtherUser(user),
                }
            );
        }
        assert!(!is_ours(([192, 0, 2, 1], 80).into(), ([127, 0, 0, 1], 80).into()));
    }

    #[test]
    fn who_asks_and_leaves_at_once_is_nobody_any_more() {
        let (mut client, accepted, server) = connected(Ipv4Addr::LOCALHOST.into()).unwrap();
        client.write_all(b"GET / HTTP/1.1\r\n").unwrap();
        let peer = client.local_addr().unwrap();
        drop(client);
        assert_eq!(whose(peer, server), Peer::Gone);
        assert!(!is_ours(peer, server));
        drop(accepted);
    }

    #[cfg(target_endian = "little")]
    #[test]
    fn the_tables_are_read() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n\
            0: 0100007F:1F90 0100007F:0050 01 00000000:00000000 00:00000000 00000000  1000        0 36011 1\n\
            1: 0100007F:1F91 0100007F:0050 06 00000000:00000000 03:00000000 00000000     0        0 0 3\n\
            2: 0100007F:0050 0100007F:1F92 01 00000000:00000000 00:00000000 00000000  1000        0 36012 1\n\
            3: 0100007F:0050 0100007F:1F93 08 00000000:00000000 00:00000000 00000000  1000        0 36013 1\n\
            4: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 36014 1\n\
            0: 0000000000000000FFFF00000100007F:1F95 0000000000000000FFFF00000100007F:0050 01 00000000:00000000 00:00000000 00000000  1001        0 36015 1\n\
            1: 00000000000000000000000001000000:1F96 00000000000000000000000001000000:0050 01 00000000:00000000 00:00000000 00000000  1000        0 36016 1\n";
        let server = SocketAddr::from(([127, 0, 0, 1], 80));
        let by = |port: u16| tell(table, ([127, 0, 0, 1], port).into(), server, 1000);
        assert_eq!(by(0x1F90), Peer::Ours);
        assert_eq!(tell(table, ([127, 0, 0, 1], 0x1F90).into(), server, 7), Peer::OtherUser(1000));
        assert_eq!(by(0x1F91), Peer::Gone, "closed");
        assert_eq!(by(0x1F92), Peer::Elsewhere);
        assert_eq!(by(0x1F93), Peer::Gone, "closed, and out of the table");
        assert_eq!(by(0x1F94), Peer::Gone, "cut");
        assert_eq!(by(0x1F95), Peer::OtherUser(1001), "of the other table");
        let v6 = |port: u16| SocketAddr::from((Ipv6Addr::LOCALHOST, port));
        assert_eq!(tell(table, v6(0x1F96), v6(80), 1000), Peer::Ours);
        assert_eq!(tell(table, v6(0x1F97), v6(80), 1000), Peer::Untold, "another's table");
        assert_eq!(tell("", v6(0x1F96), v6(80), 1000), Peer::Untold);
    }
}
