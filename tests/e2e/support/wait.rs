//! Waiting for something, with an end.

use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener};
use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Calls `look` until it finds something.
///
/// # Panics
/// When `limit` has passed: it says `what` was waited for.
#[track_caller]
pub(crate) fn wait_until<T>(what: &str, limit: Duration, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited {limit:?} in vain for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// A TCP port of loopback that is nobody else's while this process lives, whatever ends and
/// begins there meanwhile.
///
/// It is none of those from which the system serves whoever wants any, be it for a connection:
/// one of theirs could be taken before a peer listens there, or while a peer is started again;
/// or on `::1`, where who goes to `localhost` comes first, while the peer listens on 127.0.0.1.
///
/// # Panics
/// Where all are taken.
#[track_caller]
pub(crate) fn free_port() -> u16 {
    let ports = reserved_for_tests();
    // Tests are processes that begin at the same time: each starts elsewhere.
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let first = std::process::id() as usize * 31;
    let nth = |n| ports.start + u16::try_from((first + n) % ports.len()).unwrap();
    let mut tried = (0..ports.len()).map(|_| nth(NEXT.fetch_add(1, Ordering::Relaxed)));
    tried
        .find(|port| is_free(*port) && reserve(*port))
        .unwrap_or_else(|| panic!("all of {ports:?} are taken"))
}

fn is_free(port: u16) -> bool {
    let free = |address: IpAddr| match TcpListener::bind((address, port)) {
        Ok(_) => true,
        // Where there is no IPv6, nobody is there.
        Err(cause) => cause.kind() == ErrorKind::AddrNotAvailable,
    };
    free(Ipv4Addr::LOCALHOST.into()) && free(Ipv6Addr::LOCALHOST.into())
}

/// Ports that nobody gets who asks for any.
#[cfg(target_os = "linux")]
pub(crate) fn reserved_for_tests() -> Range<u16> {
    let range = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap();
    let first: u16 = range.split_whitespace().next().unwrap().parse().unwrap();
    first.saturating_sub(20_000).max(5_000)..first
}

/// Keeps others from it, by a name that the system knows as long as this process lives, in
/// the same network as the port.
#[cfg(target_os = "linux")]
fn reserve(port: u16) -> bool {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};
    static HELD: std::sync::Mutex<Vec<UnixListener>> = std::sync::Mutex::new(Vec::new());
    let name = SocketAddr::from_abstract_name(format!("tmpcred-test-port-{port}")).unwrap();
    let Ok(held) = UnixListener::bind_addr(&name) else { return false };
    HELD.lock().unwrap().push(held);
    true
}

/// Elsewhere few tests need one: any that is free is good enough.
#[cfg(not(target_os = "linux"))]
fn reserved_for_tests() -> Range<u16> {
    20_000..32_000
}

#[cfg(not(target_os = "linux"))]
fn reserve(_: u16) -> bool {
    true
}
