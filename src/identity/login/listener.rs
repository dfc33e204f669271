//! The loopback server to which the provider sends the browser back
//! (RFC 8252 section 7.3).
//!
//! Anybody on this machine, and any web page in the browser, can reach it. A
//! request counts only if it comes from a program of this user and names the right
//! host, path and `state`; every other gets an error, and the login goes on.
//!
//! The same server leads the browser to the provider, from a page with a random name:
//! everybody on this machine can see with what address a browser is started, and the
//! provider's has the `state` in it.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{HOST, LOCATION};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode};
use hyper_util::rt::{TokioIo, TokioTimer};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinSet;
use url::{Url, form_urlencoded};

use super::page;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::door::Door;
use crate::host::listener::{Exposure, bind};
use crate::host::start_page::StartPage;
use crate::secret::Secret;

/// How long a request's head may take to arrive.
const HEAD_LIMIT: Duration = Duration::from_secs(10);
/// How long a connection may last. The one that brings the code waits for the
/// token request and the fetching of keys.
const CONNECTION_LIMIT: Duration = Duration::from_secs(60);
/// How large a request's head may be, in bytes.
const HEAD_MAX: usize = 16 * 1024;
/// How many connections are served at once; more wait.
const CONNECTIONS_MAX: usize = 256;
/// How long the browser may take to fetch the last page.
const GOODBYE: Duration = Duration::from_secs(3);
/// How often a free port is looked for that both addresses of `localhost` have.
const ATTEMPTS: usize = 20;

/// The host name in the redirect address.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RedirectHost {
    /// IPv4 loopback, as RFC 8252 section 7.3 recommends.
    #[default]
    #[serde(rename = "127.0.0.1")]
    V4,
    /// IPv6 loopback.
    #[serde(rename = "::1")]
    V6,
    /// The name, for providers that know nothing else.
    #[serde(rename = "localhost")]
    Localhost,
}

/// The redirect address, as far as it is settled before a port is found.
#[derive(Clone, Copy, Debug)]
pub(in crate::identity) struct Redirect<'a> {
    /// Its host name.
    pub(in crate::identity) host: RedirectHost,
    /// The ports that the provider allows; none: any.
    pub(in crate::identity) ports: &'a [u16],
    /// Its path.
    pub(in crate::identity) path: &'a str,
}

/// What the provider sent along with the browser.
pub(in crate::identity) struct Callback {
    /// The authorization code.
    pub(in crate::identity) code: Option<Secret<String>>,
    /// The code of an error (RFC 6749 section 4.1.2.1).
    pub(in crate::identity) error: Option<String>,
    /// The provider's words for it.
    pub(in crate::identity) error_description: Option<String>,
    /// Who answers (RFC 9207).
    pub(in crate::identity) iss: Option<String>,
    browser: Browser,
}

/// The browser that waits for an answer.
struct Browser {
    answer: oneshot::Sender<Answer>,
    served: oneshot::Receiver<Infallible>,
}

/// What the browser is told.
pub(in crate::identity) enum Answer {
    /// The login succeeded.
    Done,
    /// The login failed; the terminal says why.
    Failed,
    /// Go on at another page.
    GoTo(Url),
}

impl Callback {
    /// Answers the browser, and waits until it has the answer.
    pub(in crate::identity) async fn answer(self, answer: Answer) {
        if self.browser.answer.send(answer).is_ok() {
            // The sender is never used, only dropped: with the connection.
            let _ = tokio::time::timeout(GOODBYE, self.browser.served).await;
        }
    }
}

/// The server. It closes when it is dropped.
pub(in crate::identity) struct Listener {
    redirect: Url,
    shared: Arc<Shared>,
    callbacks: mpsc::Receiver<Callback>,
    _tasks: JoinSet<()>,
}

/// What all connections know.
struct Shared {
    door: Door,
    authority: String,
    path: String,
    /// The page that leads on to the provider.
    start: Mutex<Option<StartPage>>,
    /// The `state` of the login that is waited for. It is used once.
    expected: Mutex<Option<Secret<String>>>,
    callbacks: mpsc::Sender<Callback>,
}

impl Listener {
    /// Listens on the first of the allowed ports that is free, or on any.
    /// Needs a runtime.
    pub(in crate::identity) fn open<'a>(
        host: &Host,
        redirect: impl Into<Redirect<'a>>,
    ) -> Result<Self> {
        let wanted = redirect.into();
        let sockets = sockets(wanted)?;
        let failed =
            |cause: std::io::Error| Error::new(ErrorKind::Io, "cannot listen").because(cause);
        let sockets = sockets
            .into_iter()
            .map(TcpListener::from_std)
            .collect::<Result<Vec<_>, _>>()
            .map_err(failed)?;
        let port = match sockets.first() {
            Some(socket) => socket.local_addr().map_err(failed)?.port(),
            None => return Err(Error::new(ErrorKind::Io, "cannot listen")),
        };
        let redirect = redirect_uri(wanted, port)?;
        let (sender, callbacks) = mpsc::channel(1);
        let shared = Arc::new(Shared {
            door: Door::to("this login", "log in with --flow device", host),
            authority: redirect.authority().to_string(),
            path: redirect.path().to_string(),
            start: Mutex::new(None),
            expected: Mutex::new(None),
            callbacks: sender,
        });
        let mut tasks = JoinSet::new();
        for socket in sockets {
            tasks.spawn(accept(socket, shared.clone()));
        }
        Ok(Self { redirect, shared, callbacks, _tasks: tasks })
    }

    /// The address to which the provider is to send the browser.
    pub(in crate::identity) fn redirect_uri(&self) -> &Url {
        &self.redirect
    }

    /// The page to start the browser with, which leads on to `url` once.
    pub(in crate::identity) fn start_page(&self, url: &Url) -> Result<Url> {
        let start = StartPage::to(Secret::new(url.to_string()))?;
        let mut page = self.redirect.clone();
        page.set_path(start.path().expose());
        *self.shared.start.lock().unwrap_or_else(PoisonError::into_inner) = Some(start);
        Ok(page)
    }

    /// Waits for the browser to come back with this `state`, however many
    /// others come before.
    pub(in crate::identity) async fn callback(
        &mut self,
        state: &Secret<String>,
    ) -> Result<Callback> {
        *self.shared.lock() = Some(state.clone());
        let closed = || Error::new(ErrorKind::Io, "the listener for the login has closed");
        self.callbacks.recv().await.ok_or_else(closed)
    }
}

/// The redirect address for a port.
pub(in crate::identity) fn redirect_uri<'a>(
    redirect: impl Into<Redirect<'a>>,
    port: u16,
) -> Result<Url> {
    let redirect = redirect.into();
    let host = match redirect.host {
        RedirectHost::V4 => "127.0.0.1",
        RedirectHost::V6 => "[::1]",
        RedirectHost::Localhost => "localhost",
    };
    let path = redirect.path;
    let bad = || {
        Error::new(ErrorKind::Config, format!("'{path}' cannot be the path of a redirect address"))
            .hint("correct `redirect_path`: it starts with '/' and has no query")
    };
    if !path.starts_with('/') {
        return Err(bad());
    }
    let url = Url::parse(&format!("http://{host}:{port}{path}")).map_err(|_| bad())?;
    if url.query().is_some() || url.fragment().is_some() || url.path() != path {
        return Err(bad());
    }
    Ok(url)
}

fn sockets(redirect: Redirect<'_>) -> Result<Vec<std::net::TcpListener>> {
    let any = [0; ATTEMPTS];
    let ports = if redirect.ports.is_empty() { &any[..] } else { redirect.ports };
    let mut last = None;
    for &port in ports {
        match sockets_on(redirect.host, port) {
            Ok(sockets) => return Ok(sockets),
            Err(error) => last = Some(error),
        }
    }
    let error = Error::new(ErrorKind::Io, "no port is free for the login to come back to");
    let error = last.iter().fold(error, |error, last| error.because(last));
    Err(if redirect.ports.is_empty() {
        error
    } else {
        error.hint("end what uses the ports in `redirect_ports`, or use the device flow")
    })
}

fn sockets_on(host: RedirectHost, port: u16) -> Result<Vec<std::net::TcpListener>> {
    let on = |ip: IpAddr, port| bind(SocketAddr::new(ip, port), Exposure::LoopbackOnly);
    let (v4, v6) = (IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST));
    match host {
        RedirectHost::V4 => Ok(vec![on(v4, port)?]),
        RedirectHost::V6 => Ok(vec![on(v6, port)?]),
        RedirectHost::Localhost => {
            // Which address a browser takes for the name cannot be told. Where
            // this machine has both, both must be ours, or a stranger could
            // listen on the other.
            let Ok(probe) = on(v6, 0) else { return Ok(vec![on(v4, port)?]) };
            drop(probe);
            let first = on(v4, port)?;
            let taken = first.local_addr().map_err(|cause| {
                Error::new(ErrorKind::Io, "cannot tell which port was taken").because(cause)
            })?;
            let second = on(v6, taken.port())?;
            Ok(vec![first, second])
        }
    }
}

async fn accept(socket: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        while connections.try_join_next().is_some() {}
        if connections.len() >= CONNECTIONS_MAX {
            connections.join_next().await;
        }
        match socket.accept().await {
            Ok((stream, _)) => {
                connections.spawn(serve(stream, shared.clone()));
            }
            // Out of file descriptors, or a connection that is gone already.
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>) {
    // Asked before anything is read: it can be told while the other end is there.
    let admitted = match (stream.peer_addr(), stream.local_addr()) {
        (Ok(peer), Ok(server)) => shared.door.admits(peer, server),
        _ => false,
    };
    // Dropped with the connection, which tells whoever waits for that.
    let (connection, served) = oneshot::channel::<Infallible>();
    let served = Mutex::new(Some(served));
    let service = service_fn(|request| {
        let served = served.lock().unwrap_or_else(PoisonError::into_inner).take();
        let shared = shared.clone();
        async move {
            let response = match admitted {
                true => shared.respond(&request, served).await,
                false => page::another_users(),
            };
            Ok::<_, Infallible>(response)
        }
    });
    let serving = http1::Builder::new()
        .keep_alive(false)
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_LIMIT)
        .max_buf_size(HEAD_MAX)
        .serve_connection(TokioIo::new(stream), service);
    // A peer that misbehaves is no concern of the login.
    let _ = tokio::time::timeout(CONNECTION_LIMIT, serving).await;
    drop(connection);
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Secret<String>>> {
        self.expected.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn respond(
        &self,
        request: &Request<Incoming>,
        served: Option<oneshot::Receiver<Infallible>>,
    ) -> Response<Full<Bytes>> {
        match self.receive(request, served).await {
            Ok(Answer::Done) => page::done(),
            Ok(Answer::Failed) => page::failed(StatusCode::OK),
            Ok(Answer::GoTo(url)) => lead_on(&url),
            Err(status) => {
                tracing::debug!(status = status.as_u16(), "a request that is not the login's");
                page::not_ours(status)
            }
        }
    }

    /// Tells whether a request is the one that is waited for, and hands it over.
    async fn receive(
        &self,
        request: &Request<Incoming>,
        served: Option<oneshot::Receiver<Infallible>>,
    ) -> Result<Answer, StatusCode> {
        // DNS rebinding: a page of another host whose name now leads here.
        let mut hosts = request.headers().get_all(HOST).iter();
        let (host, another) = (hosts.next(), hosts.next());
        let ours =
            host.is_some_and(|h| h.as_bytes().eq_ignore_ascii_case(self.authority.as_bytes()));
        if !ours || another.is_some() || request.uri().authority().is_some() {
            return Err(StatusCode::BAD_REQUEST);
        }
        let path = request.uri().path();
        if request.method() == Method::GET
            && let Some(url) = self.start_of(path)
        {
            let url = Url::parse(url.expose()).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)?;
            return Ok(Answer::GoTo(url));
        }
        // Whatever else comes learns nothing of why it is turned away.
        if path != self.path || request.method() != Method::GET {
            return Err(StatusCode::BAD_REQUEST);
        }
        let mut parameters = Parameters::read(request.uri().query().unwrap_or_default())?;
        let state = parameters.state.take().ok_or(StatusCode::BAD_REQUEST)?;
        {
            let mut expected = self.lock();
            if !expected.as_ref().is_some_and(|expected| expected.ct_eq(state.expose())) {
                return Err(StatusCode::BAD_REQUEST);
            }
            *expected = None;
        }
        let (answer, reply) = oneshot::channel();
        let served = served.ok_or(StatusCode::BAD_REQUEST)?;
        let callback = Callback {
            code: parameters.code,
            error: parameters.error,
            error_description: parameters.error_description,
            iss: parameters.iss,
            browser: Browser { answer, served },
        };
        self.callbacks.send(callback).await.map_err(|_| StatusCode::GONE)?;
        Ok(reply.await.unwrap_or(Answer::Failed))
    }

    /// Where the page at this path leads on to, once.
    fn start_of(&self, path: &str) -> Option<Secret<String>> {
        StartPage::take(&mut self.start.lock().unwrap_or_else(PoisonError::into_inner), path)
    }
}

/// Sends the browser to another page.
fn lead_on(url: &Url) -> Response<Full<Bytes>> {
    let Ok(location) = url.as_str().parse() else {
        return page::failed(StatusCode::INTERNAL_SERVER_ERROR);
    };
    let mut response = page::going_on();
    response.headers_mut().insert(LOCATION, location);
    response
}

#[derive(Default)]
struct Parameters {
    state: Option<Secret<String>>,
    code: Option<Secret<String>>,
    error: Option<String>,
    error_description: Option<String>,
    iss: Option<String>,
}

impl Parameters {
    /// Reads a query. None of the parameters that matter may come twice
    /// (RFC 6749 section 3.1).
    fn read(query: &str) -> Result<Self, StatusCode> {
        let mut read = Self::default();
        for (name, value) in form_urlencoded::parse(query.as_bytes()) {
            let value = value.into_owned();
            let twice = match &*name {
                "state" => read.state.replace(Secret::new(value)).is_some(),
                "code" => read.code.replace(Secret::new(value)).is_some(),
                "error" => read.error.replace(value).is_some(),
                "error_description" => read.error_description.replace(value).is_some(),
                "iss" => read.iss.replace(value).is_some(),
                _ => false,
            };
            if twice {
                return Err(StatusCode::BAD_REQUEST);
            }
        }
        Ok(read)
    }
}

#[cfg(test)]
mod fuzz;
