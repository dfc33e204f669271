//! How many connections there are, and for how long. Whoever only holds one open
//! gives way to those who want something.

use std::collections::HashMap;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::broker::network::Network;

/// How many connections may be open.
pub const MAX_CONNECTIONS: usize = 1024;

/// How many of them one address may have, or one network of 64 bits where it is an
/// IPv6 address.
const MAX_PER_ADDRESS: usize = MAX_CONNECTIONS / 4;

/// How long a connection may be open without a request. Proxies that keep some for
/// later drop them after a minute, as a rule.
const MAX_IDLE: Duration = Duration::from_secs(75);

/// How long a connection may be open at all, but for the request that is worked on.
const MAX_AGE: Duration = Duration::from_secs(10 * 60);

/// How long an answer may take on its way to the caller.
const LINGER: Duration = Duration::from_secs(5);

/// The limits.
#[derive(Clone, Debug)]
pub struct Limits {
    /// How many connections may be open.
    pub total: usize,
    /// How many of them one address may have.
    pub per_address: usize,
    /// Addresses that may have more: those of proxies.
    pub proxies: Vec<Network>,
    /// How long one may be open without a request.
    pub idle: Duration,
    /// How long one may be open at all.
    pub age: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            total: MAX_CONNECTIONS,
            per_address: MAX_PER_ADDRESS,
            proxies: Vec::new(),
            idle: MAX_IDLE,
            age: MAX_AGE,
        }
    }
}

/// The connections that are open. Clones share them.
#[derive(Clone, Default)]
pub struct Connections(Arc<Shared>);

#[derive(Default)]
struct Shared {
    limits: Limits,
    open: Mutex<Table>,
    refused: AtomicU64,
}

#[derive(Default)]
struct Table {
    next: u64,
    evicted: u64,
    by_peer: HashMap<SocketAddr, Connection>,
}

struct Connection {
    id: u64,
    opened: Instant,
    /// How many requests have begun to arrive and are not answered.
    requests: usize,
    /// How many of those are there as a whole, and worked on.
    busy: usize,
    /// Since when there is no request.
    idle_since: Instant,
    changed: Arc<Notify>,
}

impl Connections {
    /// No connections yet, within these limits.
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Shared { limits, ..Shared::default() }))
    }

    /// Takes a connection in. Where there are too many, one without a request gives
    /// way, or one whose request is still arriving: of the address that has the most the one
    /// that has done nothing for longest.
    ///
    /// # Errors
    /// Where all of them are busy.
    pub fn admit<S>(&self, stream: S, peer: SocketAddr) -> io::Result<Watched<S>> {
        self.take_in(stream, peer).inspect_err(|_| {
            self.0.refused.fetch_add(1, Ordering::Relaxed);
        })
    }

    fn take_in<S>(&self, stream: S, peer: SocketAddr) -> io::Result<Watched<S>> {
        let now = Instant::now();
        let mut table = self.table();
        let limits = &self.0.limits;
        let same = |other: &SocketAddr| network_of(other.ip()) == network_of(peer.ip());
        let proxy = limits.proxies.iter().any(|network| network.contains(peer.ip()));
        if !proxy && table.by_peer.keys().filter(|p| same(p)).count() >= limits.per_address {
            table.give_way(same).ok_or_else(|| {
                io::Error::other("too many connections are open from this address")
            })?;
        }
        if table.by_peer.len() >= limits.total {
            table
                .give_way(|_| true)
                .ok_or_else(|| io::Error::other("too many connections are open"))?;
        }
        let (id, changed) = (table.next, Arc::new(Notify::new()));
        table.next += 1;
        table.by_peer.insert(
            peer,
            Connection {
                id,
                opened: now,
                requests: 0,
                busy: 0,
                idle_since: now,
                changed: changed.clone(),
            },
        );
        drop(table);
        let place = Place { connections: self.clone(), peer, id };
        let end = Box::pin(self.clone().end(peer, id, changed));
        Ok(Watched { inner: stream, end, ended: false, _place: place })
    }

    /// Tells that a request of this peer has begun to arrive, until the result is dropped. Its
    /// connection still gives way to others.
    pub fn request(&self, peer: SocketAddr) -> Counted {
        self.count_in(peer, |connection| &mut connection.requests)
    }

    /// Tells that a request of this peer is there as a whole and worked on, until the result is
    /// dropped.
    pub fn busy(&self, peer: SocketAddr) -> Counted {
        self.count_in(peer, |connection| &mut connection.busy)
    }

    fn count_in(&self, peer: SocketAddr, what: Which) -> Counted {
        let mut table = self.table();
        let id = table.by_peer.get_mut(&peer).map(|connection| {
            *what(connection) += 1;
            connection.id
        });
        drop(table);
        Counted { connections: self.clone(), peer, id, what }
    }

    /// How many are open.
    pub fn count(&self) -> usize {
        self.table().by_peer.len()
    }

    /// How many were turned away.
    pub fn refused(&self) -> u64 {
        self.0.refused.load(Ordering::Relaxed)
    }

    /// How many gave way to others.
    pub fn evicted(&self) -> u64 {
        self.table().evicted
    }

    /// Waits until a connection is to end.
    async fn end(self, peer: SocketAddr, id: u64, changed: Arc<Notify>) {
        loop {
            let Some(at) = self.deadline(peer, id) else { return };
            if at <= Instant::now() {
                return;
            }
            let changed = pin!(changed.notified());
            let _ = tokio::time::timeout_at(at, changed).await;
        }
    }

    /// When a connection is to end as things are; `None` where it has given way.
    fn deadline(&self, peer: SocketAddr, id: u64) -> Option<Instant> {
        let table = self.table();
        let connection = table.by_peer.get(&peer).filter(|connection| connection.id == id)?;
        Some(connection.ends(&self.0.limits, Instant::now()))
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Connection {
    /// When it is to end as things are.
    fn ends(&self, limits: &Limits, now: Instant) -> Instant {
        match self.requests {
            0 => (self.opened + limits.age)
                .max(self.idle_since + LINGER)
                .min(self.idle_since + limits.idle),
            // Looked at again once it is done, and requests have a limit of their own.
            _ => now + limits.age.max(LINGER),
        }
    }
}

impl Table {
    /// Ends one of these connections that has no request that is there as a whole.
    fn give_way(&mut self, of: impl Fn(&SocketAddr) -> bool) -> Option<()> {
        let mut counts: HashMap<IpAddr, usize> = HashMap::new();
        for peer in self.by_peer.keys() {
            *counts.entry(network_of(peer.ip())).or_default() += 1;
        }
        let count = |peer: &SocketAddr| counts.get(&network_of(peer.ip())).copied();
        let (peer, _) = self
            .by_peer
            .iter()
            .filter(|(peer, connection)| connection.busy == 0 && of(peer))
            .max_by_key(|(peer, connection)| {
                (count(peer), std::cmp::Reverse(connection.idle_since))
            })?;
        let peer = *peer;
        self.by_peer.remove(&peer)?.changed.notify_one();
        self.evicted += 1;
        Some(())
    }
}

/// What counts as one address: of IPv6 everybody has a whole network.
pub(super) fn network_of(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V6(v6) => IpAddr::V6((v6.to_bits() & !u128::from(u64::MAX)).into()),
        v4 => v4,
    }
}

/// What of a connection is counted.
type Which = fn(&mut Connection) -> &mut usize;

/// A request that counts as under way.
pub struct Counted {
    connections: Connections,
    peer: SocketAddr,
    id: Option<u64>,
    what: Which,
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        let connection = table.by_peer.get_mut(&self.peer);
        if let Some(connection) = connection.filter(|connection| Some(connection.id) == self.id) {
            let count = (self.what)(connection);
            *count = count.saturating_sub(1);
            if connection.requests == 0 {
                connection.idle_since = Instant::now();
                connection.changed.notify_one();
            }
        }
    }
}

/// The place of a connection among the others.
struct Place {
    connections: Connections,
    peer: SocketAddr,
    id: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut table = self.connections.table();
        if table.by_peer.get(&self.peer).is_some_and(|connection| connection.id == self.id) {
            table.by_peer.remove(&self.peer);
        }
    }
}

/// A connection that ends when it is time: as though the peer had closed it.
pub struct Watched<S> {
    inner: S,
    end: Pin<Box<dyn Future<Output = ()> + Send>>,
    ended: bool,
    _place: Place,
}

impl<S> Watched<S> {
    fn has_ended(&mut self, cx: &mut Context<'_>) -> bool {
        if !self.ended {
            self.ended = self.end.as_mut().poll(cx).is_ready();
        }
        self.ended
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.has_ended(cx) {
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut self.inner).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        // Whoever does not read their answers is not waited for.
        if self.has_ended(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        Pin::new(&mut self.inner).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.has_ended(cx) {
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        ready!(Pin::new(&mut self.inner).poll_flush(cx))?;
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_ends_when_it_is_idle_or_old_and_never_in_the_middle_of_a_request() {
        let opened = Instant::now();
        let at = |seconds| opened + Duration::from_secs(seconds);
        let limits = Limits::default();
        for (what, requests, idle_since, now, ends) in [
            ("that says nothing", 0, 0, 0, 75),
            ("that was answered a while ago", 0, 500, 510, 575),
            ("that gets old while it is idle", 0, 590, 591, 600),
            ("whose answer is on its way as it gets old", 0, 598, 599, 603),
            ("that was busy for longer than one may be open", 0, 900, 900, 905),
            ("that is busy", 1, 0, 100, 700),
            ("that is busy, and old", 2, 0, 900, 1500),
        ] {
            let idle_since = at(idle_since);
            let changed = Arc::default();
            let one = Connection { id: 0, opened, requests, busy: 0, idle_since, changed };
            assert_eq!(one.ends(&limits, at(now)), at(ends), "one {what}");
        }
        // Where one is old at once, it is not looked at again and again.
        let at_once = Limits { age: Duration::ZERO, ..limits };
        let changed = Arc::default();
        let one = Connection { id: 0, opened, requests: 1, busy: 0, idle_since: opened, changed };
        assert!(one.ends(&at_once, at(9)) > at(9));
    }
}
