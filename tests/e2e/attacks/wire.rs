//! Requests to the letter: what HTTP libraries would tidy up is part of some attacks.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpSocket, TcpStream};
use url::form_urlencoded;

/// How long an answer is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// Whoever sends requests, unless an attack says otherwise.
pub(super) const ANYBODY: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// Somebody at another address.
pub(super) const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What is answered about a token that is none, or is none of the business of who asks.
pub(super) const INACTIVE: &str = r#"200 {"active":false}"#;

/// Bytes that go over one connection, and all that came back.
pub(super) struct Exchange {
    pub(super) to: SocketAddr,
    pub(super) from: IpAddr,
    pub(super) bytes: Vec<u8>,
}

impl Exchange {
    /// Sends them and reads until the other side ends the connection.
    pub(super) fn run(&self) -> Result<Answers, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let came = runtime.block_on(async {
            let mut stream = connect(self.from, self.to).await;
            // It may be refused half-way.
            let _ = stream.write_all(&self.bytes).await;
            let mut came = Vec::new();
            let reading = tokio::time::timeout(PATIENCE, stream.read_to_end(&mut came)).await;
            reading.is_ok().then_some(came)
        });
        let came = came.ok_or_else(|| format!("the connection was open after {PATIENCE:?}"))?;
        Ok(Answers(String::from_utf8_lossy(&came).into_owned()))
    }
}

/// What came back over a connection.
#[derive(Debug)]
pub(super) struct Answers(pub(super) String);

impl Answers {
    /// The status codes, in their order.
    pub(super) fn statuses(&self) -> Vec<u16> {
        let after = self.0.split("HTTP/1.1 ").skip(1);
        after.filter_map(|rest| rest.get(..3)?.parse().ok()).collect()
    }

    /// Whether somebody got what they were after: a token, a word about one, or through.
    pub(super) fn is_granted(&self) -> bool {
        let text = self.0.to_ascii_lowercase();
        ["\"access_token\"", "\"active\":true", "tmpcred-subject:"].iter().any(|x| text.contains(x))
    }

    /// What each comes down to: its status, and the error that its body names where it does; of a
    /// word about a token [`INACTIVE`].
    pub(super) fn in_short(&self) -> Vec<String> {
        let short = |answer: &str| {
            let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((answer, ""));
            // What is left of the version is before it.
            let status = head.split(' ').nth(1).unwrap_or_default();
            let body: Value = serde_json::from_str(body).unwrap_or_default();
            match (&body["error"], &body["active"]) {
                (Value::String(error), _) => format!("{status} {error}"),
                (_, Value::Bool(false)) => INACTIVE.into(),
                _ => status.into(),
            }
        };
        self.0.split("HTTP/1.").skip(1).map(short).collect()
    }

    /// As much of it as there is room for.
    pub(super) fn beginning(&self) -> String {
        self.0.chars().take(600).collect()
    }

    /// What comes behind the head of the only answer.
    pub(super) fn body(&self) -> &str {
        self.0.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
}

/// Opens a connection from this address.
pub(super) async fn connect(from: IpAddr, to: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    socket.connect(to).await.unwrap()
}

/// Holds connections open on which nothing more comes, while something is done.
pub(super) fn while_held<T>(
    count: usize,
    from: IpAddr,
    to: SocketAddr,
    begun: &[u8],
    done: impl FnOnce() -> T,
) -> T {
    while_held_from(std::iter::repeat_n(from, count), to, begun, done)
}

/// The same, so many from each of these addresses of 127.0.0.0/24.
pub(super) fn while_all_are_held<T>(
    each: usize,
    from: [u8; 4],
    to: SocketAddr,
    begun: &[u8],
    done: impl FnOnce() -> T,
) -> T {
    let from = from.map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)));
    let all = from.into_iter().flat_map(|from| std::iter::repeat_n(from, each));
    while_held_from(all, to, begun, done)
}

fn while_held_from<T>(
    from: impl Iterator<Item = IpAddr>,
    to: SocketAddr,
    begun: &[u8],
    done: impl FnOnce() -> T,
) -> T {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let held = runtime.block_on(async {
        let mut held = Vec::new();
        for from in from {
            let mut stream = connect(from, to).await;
            let _ = stream.write_all(begun).await;
            held.push(stream);
        }
        held
    });
    let done = done();
    drop(held);
    done
}

/// How long something takes.
pub(super) fn timed<T>(something: impl FnOnce() -> T) -> (T, Duration) {
    let started = Instant::now();
    (something(), started.elapsed())
}

/// A form.
pub(super) fn form(fields: &[(&str, &str)]) -> String {
    form_urlencoded::Serializer::new(String::new()).extend_pairs(fields).finish()
}

/// A request with these lines as they are, and a body of the length that it says.
pub(super) fn request(first: &str, lines: &[&str], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{first}\r\n").into_bytes();
    for line in lines {
        bytes.extend_from_slice(line.as_bytes());
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

/// The lines of a form that is the only request of its connection.
pub(super) const FORM: [&str; 3] =
    ["Host: 127.0.0.1", "Connection: close", "Content-Type: application/x-www-form-urlencoded"];

/// A form for this path, with further lines.
pub(super) fn post(path: &str, more: &[&str], body: impl AsRef<[u8]>) -> Vec<u8> {
    request(&format!("POST {path} HTTP/1.1"), &[&FORM[..], more].concat(), body.as_ref())
}
