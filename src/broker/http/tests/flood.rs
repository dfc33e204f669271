//! Those who hold what they do not use: connections, and halves of requests.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::http::StatusCode;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::sync::Semaphore;

use crate::broker::http::connections::{Connections, Limits};
use crate::broker::http::guard::{Guard, MAX_BODY, shed_load};
use crate::broker::http::hosts::Hosts;
use crate::broker::testbed::Served;

/// Longer than anything here takes.
const LONG: Duration = Duration::from_secs(30);

/// How an HTTP/2 client begins (RFC 9113 section 3.4): the preface and empty settings;
/// then `GET /`, as RFC 7541 has it.
const HTTP2: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\
    \0\0\x0e\x01\x05\0\0\0\x01\x82\x86\x84\x41\x09localhost";

/// A PING frame (RFC 9113 section 6.7).
const PING: &[u8] = b"\0\0\x08\x06\0\0\0\0\0aliveall";

const NOBODY: [u8; 4] = [127, 0, 0, 1];
const SOMEBODY: [u8; 4] = [127, 0, 0, 2];

/// Endpoints that echo what is posted, within these limits.
fn served(limits: Limits) -> (Served, Connections) {
    served_with(limits, Arc::default())
}

/// The same, with one that answers once somebody has opened it.
fn served_with(limits: Limits, held: Arc<Held>) -> (Served, Connections) {
    guarded(Guard::new(Hosts::Any).within(limits), held)
}

/// The same behind this guard.
fn guarded(guard: Guard, held: Arc<Held>) -> (Served, Connections) {
    let waits = move || {
        let held = held.clone();
        async move {
            held.begun.fetch_add(1, Ordering::SeqCst);
            // It is closed at the end.
            let _ = held.open.acquire().await;
        }
    };
    let app = axum::Router::new()
        .route("/", axum::routing::post(|body: String| async move { body.len().to_string() }))
        .route("/", axum::routing::get(|| async { "{}" }))
        .route("/held", axum::routing::get(waits))
        .layer(axum::middleware::from_fn_with_state(guard.clone(), shed_load));
    let connections = guard.connections();
    (Served::within(|_| guard.around(app), None, connections.clone()), connections)
}

/// Requests that are worked on until they need not be any more.
struct Held {
    begun: AtomicUsize,
    open: Semaphore,
}

impl Default for Held {
    fn default() -> Self {
        Self { begun: AtomicUsize::new(0), open: Semaphore::new(0) }
    }
}

impl Held {
    /// Another request that is worked on.
    async fn another(&self, from: [u8; 4], to: SocketAddr) -> TcpStream {
        let before = self.begun.load(Ordering::SeqCst);
        let mut stream = connect(from, to).await;
        stream.write_all(b"GET /held HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        until("a request", || self.begun.load(Ordering::SeqCst) > before).await;
        stream
    }
}

fn few() -> Limits {
    Limits { total: 8, per_address: 4, ..Limits::default() }
}

async fn connect(from: [u8; 4], to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((from, 0).into()).unwrap();
    socket.connect(to).await.unwrap()
}

/// A connection that speaks HTTP/2 and has been answered once.
async fn idle_http2(from: [u8; 4], to: SocketAddr) -> TcpStream {
    try_http2(from, to).await.expect("the connection ends before it is answered")
}

/// The same; `None` where the connection ends before that.
async fn try_http2(from: [u8; 4], to: SocketAddr) -> Option<TcpStream> {
    let mut stream = connect(from, to).await;
    stream.write_all(HTTP2).await.ok()?;
    let mut answer = Vec::new();
    while !answer.ends_with(b"{}") {
        let read = tokio::time::timeout(LONG, stream.read_buf(&mut answer)).await;
        if read.expect("no answer").ok()? == 0 {
            return None;
        }
    }
    Some(stream)
}

/// Half of a request, of which the server waits for the rest.
async fn half_a_request(from: [u8; 4], to: SocketAddr, length: usize) -> TcpStream {
    let mut stream = connect(from, to).await;
    let head = format!(
        "POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\nExpect: 100-continue\r\n\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 25];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream
}

/// Reads until the server hangs up.
async fn hung_up(stream: &mut TcpStream) -> Vec<u8> {
    let mut answer = Vec::new();
    let read = tokio::time::timeout(LONG, stream.read_to_end(&mut answer)).await;
    // It may be reset as well.
    let _ = read.expect("the connection stays open");
    answer
}

async fn until(what: &str, mut is: impl FnMut() -> bool) {
    let waiting = async {
        while !is() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LONG, waiting).await.unwrap_or_else(|_| panic!("waited for {what}"));
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn connections_without_a_request_give_way() {
    let (served, connections) = served(few());
    let mut held = Vec::new();
    for n in 0..40_u8 {
        held.push(idle_http2([127, 0, 1, n / 4], served.address).await);
        assert_eq!(connections.count(), usize::from(n + 1).min(8));
    }
    for _ in 0..10 {
        assert_eq!(served.get("/").await.status, StatusCode::OK);
    }
    assert!(connections.count() <= 8);
    // The oldest went first.
    hung_up(&mut held[0]).await;
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn one_address_has_only_its_share() {
    let held = Arc::<Held>::default();
    let (served, connections) = served_with(few(), held.clone());
    let mut busy = Vec::new();
    for _ in 0..4 {
        busy.push(held.another(SOMEBODY, served.address).await);
    }
    // None of them is idle, so another one of the same address is turned away.
    let mut fifth = connect(SOMEBODY, served.address).await;
    assert_eq!(hung_up(&mut fifth).await, b"");
    assert_eq!(connections.count(), 4);
    assert_eq!(served.get("/").await.status, StatusCode::OK);
    held.open.close();
    for stream in &mut busy {
        let mut answer = [0; 15];
        stream.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK", "they were not disturbed");
    }
    // Now that they are idle, they make room.
    let _fifth = half_a_request(SOMEBODY, served.address, 2).await;
    assert!(connections.count() <= 8);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_proxy_has_as_many_as_there_are() {
    let proxies = vec!["127.0.0.2".parse().unwrap()];
    let held = Arc::<Held>::default();
    let (served, connections) = served_with(Limits { proxies, ..few() }, held.clone());
    let mut busy = Vec::new();
    for _ in 0..8 {
        busy.push(held.another(SOMEBODY, served.address).await);
    }
    assert_eq!(connections.count(), 8);
    let mut ninth = connect(NOBODY, served.address).await;
    assert_eq!(hung_up(&mut ninth).await, b"");
}

/// From so many addresses that they have all the connections, and from a proxy, which may have
/// all of them: whoever sends the rest of a request slowly, or never, keeps nobody out.
#[cfg(target_os = "linux")]
#[tokio::test]
async fn halves_of_requests_give_way() {
    let proxies = vec!["127.0.0.2".parse().unwrap()];
    for (limits, addresses) in [(few(), [3, 4, 5, 6]), (Limits { proxies, ..few() }, [2; 4])] {
        let (served, connections) = served(limits);
        let mut halves = Vec::new();
        for n in 0..8 {
            let from = [127, 0, 0, addresses[n / 2]];
            halves.push(half_a_request(from, served.address, 2).await);
        }
        assert_eq!(connections.count(), 8);
        for _ in 0..20 {
            // Each time over a connection of its own.
            let mut whole = connect(NOBODY, served.address).await;
            let request = b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\nok";
            whole.write_all(request).await.unwrap();
            let mut answer = [0; 15];
            whole.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"HTTP/1.1 200 OK");
            halves.push(half_a_request([127, 0, 0, addresses[0]], served.address, 2).await);
        }
        assert!(connections.count() <= 8);
        // The first one of them is gone; the last one goes on where the rest of it arrives.
        hung_up(&mut halves[0]).await;
        let last = halves.last_mut().unwrap();
        last.write_all(b"ok").await.unwrap();
        let mut answer = [0; 15];
        last.read_exact(&mut answer).await.unwrap();
        assert_eq!(&answer, b"HTTP/1.1 200 OK");
    }
}

/// When one ends is computed in `connections`; here it is looked that it does. Where a machine is
/// so slow that it ends before it has been answered, it has more time.
#[tokio::test]
async fn pings_keep_no_connection_alive_and_age_ends_it() {
    let idle = |soon| Limits { idle: soon, ..few() };
    let age = |soon| Limits { age: soon, ..few() };
    for limits in [idle as fn(Duration) -> Limits, age] {
        let mut soon = Duration::from_millis(250);
        let (mut stream, connections, _served) = loop {
            let (served, connections) = served(limits(soon));
            match try_http2(NOBODY, served.address).await {
                Some(stream) => break (stream, connections, served),
                None => soon *= 2,
            }
            assert!(soon < LONG / 2, "it ends, however long it may be idle");
        };
        let (mut reading, mut writing) = stream.split();
        let pings = async {
            while writing.write_all(PING).await.is_ok() {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let mut answer = Vec::new();
        let end = async {
            let _ = reading.read_to_end(&mut answer).await;
        };
        let waiting = async {
            tokio::select! { () = pings => {}, () = end => {} }
        };
        tokio::time::timeout(LONG, waiting).await.expect("the connection stays open");
        until("the end", || connections.count() == 0).await;
    }
}

/// It is over the age before it says anything.
#[tokio::test]
async fn a_request_that_is_worked_on_outlasts_the_age_of_its_connection() {
    let (served, _) = served(Limits { age: Duration::ZERO, ..few() });
    let mut stream = half_a_request(NOBODY, served.address, 2).await;
    stream.write_all(b"ok").await.unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200 OK");
    hung_up(&mut stream).await;
}

#[tokio::test]
async fn a_body_that_never_arrives_is_not_waited_for() {
    let guard = Guard::new(Hosts::Any).in_time(Duration::from_millis(50), LONG * 10);
    let (served, connections) = guarded(guard, Arc::default());
    let mut stream = half_a_request(NOBODY, served.address, 2).await;
    let answer = String::from_utf8(hung_up(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    assert!(answer.contains("the body did not arrive in time"), "{answer}");
    until("the end", || connections.count() == 0).await;
    // Who sends theirs is served.
    assert_eq!(served.get("/").await.status, StatusCode::OK);
}

#[tokio::test]
async fn an_answer_that_never_comes_is_not_waited_for() {
    let guard = Guard::new(Hosts::Any).in_time(LONG * 10, Duration::from_millis(50));
    let held = Arc::<Held>::default();
    let (served, _) = guarded(guard, held.clone());
    let answer = served.get("/held").await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE);
    assert_eq!(super::header_of(&answer, "retry-after"), "5");
    let said = String::from_utf8(answer.body.expose().clone()).unwrap();
    assert!(said.contains("it took too long"), "{said}");
    assert_ne!(super::header_of(&answer, "x-request-id"), "");
    assert_eq!(held.begun.load(Ordering::SeqCst), 1);
    // A body has no more time than all of the request.
    let mut stream = half_a_request(NOBODY, served.address, 2).await;
    let answer = String::from_utf8(hung_up(&mut stream).await).unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
}

#[tokio::test]
async fn many_large_bodies_keep_no_small_one_out() {
    let guard = Guard::new(Hosts::Any).with_large_bodies(2);
    let app = axum::Router::new()
        .route("/", axum::routing::post(|body: String| async move { body.len().to_string() }))
        .layer(axum::middleware::from_fn_with_state(guard.clone(), shed_load));
    let served = Served::start(|_| guard.around(app), None);
    let mut slow = Vec::new();
    for _ in 0..2 {
        let mut stream = half_a_request(NOBODY, served.address, MAX_BODY).await;
        stream.write_all(&vec![b'x'; MAX_BODY - 1]).await.unwrap();
        slow.push(stream);
    }
    let post = async |length: usize| {
        let mut stream = half_a_request(NOBODY, served.address, length).await;
        let _ = stream.write_all(&vec![b'x'; length]).await;
        let mut status = [0; 12];
        // Who is refused early may be cut off while they send.
        let read = stream.read_exact(&mut status).await;
        read.is_ok() && &status == b"HTTP/1.1 200"
    };
    // They count once they have arrived.
    let deadline = tokio::time::Instant::now() + LONG;
    while post(MAX_BODY / 2).await {
        assert!(tokio::time::Instant::now() < deadline, "they never count");
    }
    for _ in 0..10 {
        assert!(post(4000).await);
    }
    for stream in &mut slow {
        stream.write_all(b"x").await.unwrap();
        let mut status = [0; 12];
        stream.read_exact(&mut status).await.unwrap();
        assert_eq!(&status, b"HTTP/1.1 200");
    }
    while !post(MAX_BODY / 2).await {
        assert!(tokio::time::Instant::now() < deadline, "they count for ever");
    }
}
