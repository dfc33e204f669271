//! Listening, until somebody says stop.

use std::net::{SocketAddr, TcpListener};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::{Accept, DefaultAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use tokio::net::TcpStream;

use super::config::{self, Config, Tls};
use super::http::connections::{Connections, Limits, MAX_CONNECTIONS, Watched};
use super::http::guard::{Guard, Hosts};
use super::reload::Hangups;
use super::{Broker, http};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::files::{self, Readers};
use crate::host::listener::{self, Exposure};
use crate::host::process;

/// How long requests that are under way may take once the broker is told to end.
const DRAIN: Duration = Duration::from_secs(30);

/// How long the headers of a request may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// How many requests may be under way on one connection. A client with more of them
/// waits, or opens another connection.
const MAX_STREAMS: u32 = 8;

/// How many files the broker has open besides connections, at most.
const OTHER_FILES: u64 = 128;

/// How large the headers of a request may be, in bytes.
const MAX_HEADERS: usize = 32 * 1024;

const MAX_PEM: u64 = 1024 * 1024;

/// Runs the broker that this file describes, until SIGTERM or SIGINT. Then no new
/// request is taken, and those under way are finished; a second signal ends it at
/// once.
pub fn serve(host: &Host, config_path: &Path) -> Result<()> {
    let config = config::load(config_path)?;
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|cause| {
            Error::new(ErrorKind::Io, "the broker cannot start its threads").because(cause)
        })?;
    runtime.block_on(async {
        let signals = Signals::listen()?;
        let hangups = Hangups::listen()?;
        let tls = match &config.tls {
            Some(tls) => Some(read_tls(tls).await?),
            None => None,
        };
        let exposure = if config.expose { Exposure::AsConfigured } else { Exposure::LoopbackOnly };
        // Before a database is made: another broker may be running.
        let listener = listener::bind(config.listen, exposure).map_err(|error| {
            error.hint("is another broker running? `listen` in the configuration names the address")
        })?;
        let broker = Arc::new(Broker::open(&config, host).await?);
        let limits = limits(&config);
        let guard =
            Guard::new(hosts(&config)).believing(config.trusted_proxies.clone()).within(limits);
        let connections = guard.connections();
        let app = http::guarded(http::routes(broker.clone(), &guard), guard);
        let handle = Handle::new();
        tokio::spawn(signals.drain(handle.clone()));
        tokio::spawn(hangups.reload_policies(Arc::downgrade(&broker)));
        host.interact.note(&format!(
            "the broker {} listens on {}{}",
            broker.issuer(),
            listener.local_addr().unwrap_or(config.listen),
            if tls.is_some() { "" } else { " (plain HTTP, loopback only)" }
        ));
        run(listener, tls, app, handle, connections).await?;
        tracing::info!("drained");
        if let Some(broker) = Arc::into_inner(broker) {
            broker.close().await;
        }
        Ok(())
    })
}

/// Serves until the handle says stop.
pub(super) async fn run(
    listener: TcpListener,
    tls: Option<RustlsConfig>,
    app: Router,
    handle: Handle<SocketAddr>,
    connections: Connections,
) -> Result<()> {
    let failed = |cause: std::io::Error| {
        Error::new(ErrorKind::Io, "the broker cannot listen").because(cause)
    };
    let app = app.into_make_service_with_connect_info::<SocketAddr>();
    let mut server = axum_server::from_tcp(listener)
        .map_err(failed)?
        .handle(handle)
        .first_request_timeout(HEADER_TIME)
        .accept_error_handler(|peer, error| tracing::debug!(?peer, %error, "not accepted"));
    server.http_builder().http1().header_read_timeout(HEADER_TIME).max_buf_size(MAX_HEADERS);
    server
        .http_builder()
        .http2()
        .max_header_list_size(MAX_HEADERS as u32)
        .max_concurrent_streams(MAX_STREAMS)
        .initial_stream_window_size(http::guard::MAX_BODY as u32)
        .initial_connection_window_size(2 * http::guard::MAX_BODY as u32)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(HEADER_TIME);
    let outcome = match tls {
        Some(tls) => {
            let acceptor = Bounded { inner: RustlsAcceptor::new(tls), connections };
            server.acceptor(acceptor).serve(app).await
        }
        None => {
            let acceptor = Bounded { inner: DefaultAcceptor::new(), connections };
            server.acceptor(acceptor).serve(app).await
        }
    };
    outcome.map_err(failed)
}

/// As many connections as files may be open for.
fn limits(config: &Config) -> Limits {
    let wanted = MAX_CONNECTIONS as u64 + OTHER_FILES;
    let allowed = process::allow_open_files(wanted);
    if allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "the system allows too few open files, so there can be fewer connections; raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
    let total = allowed.saturating_sub(OTHER_FILES).clamp(16, MAX_CONNECTIONS as u64) as usize;
    let default = Limits::default();
    let per_address = default.per_address.min(total.div_ceil(4));
    Limits { total, per_address, proxies: config.trusted_proxies.clone(), ..default }
}

/// Which hosts a request may name: behind a certificate any; in the clear only
/// loopback and the broker's own name, for a proxy in front.
fn hosts(config: &Config) -> Hosts {
    match &config.tls {
        Some(_) => Hosts::Any,
        None => {
            Hosts::Loopback(config.issuer.url().host_str().map(String::from).into_iter().collect())
        }
    }
}

/// Reads certificate and key.
async fn read_tls(tls: &Tls) -> Result<RustlsConfig> {
    // The label is what a PEM file of that kind has, behind "-----BEGIN".
    let read = |what: &str, path: &Path, label: &str| {
        let failed = |why: &str| {
            Error::new(ErrorKind::Config, format!("the {what} {} cannot be used", path.display()))
                .because_of(why)
        };
        let (pem, _, readers) =
            files::read_secret(path, MAX_PEM)?.ok_or_else(|| failed("there is no such file"))?;
        if !pem.windows(label.len()).any(|part| part == label.as_bytes()) {
            return Err(failed("there is none in it; it must be a PEM file"));
        }
        Ok((pem, readers))
    };
    let (certificate, _) = read("certificate", &tls.certificate, " CERTIFICATE-----")?;
    let (key, readers) = read("private key", &tls.key, "PRIVATE KEY-----")?;
    if readers == Readers::Everyone {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the private key {} is not private", tls.key.display()),
        )
        .because_of("everybody on this machine can read or write it")
        .hint(format!("chmod 600 {}", tls.key.display())));
    }
    RustlsConfig::from_pem(certificate, key).await.map_err(|cause| {
        Error::new(
            ErrorKind::Config,
            format!(
                "the certificate {} and the key {} cannot be used",
                tls.certificate.display(),
                tls.key.display()
            ),
        )
        .because(cause)
    })
}

/// Takes in connections within limits.
#[derive(Clone)]
struct Bounded<A> {
    inner: A,
    connections: Connections,
}

impl<A, S> Accept<TcpStream, S> for Bounded<A>
where
    A: Accept<Watched<TcpStream>, S>,
    A::Stream: Send + 'static,
    A::Service: Send + 'static,
    A::Future: Send + 'static,
{
    type Stream = A::Stream;
    type Service = A::Service;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = std::io::Result<(Self::Stream, Self::Service)>> + Send>,
    >;

    fn accept(&self, stream: TcpStream, service: S) -> Self::Future {
        let peer = stream.peer_addr();
        match peer.and_then(|peer| self.connections.admit(stream, peer)) {
            Ok(watched) => Box::pin(self.inner.accept(watched, service)),
            Err(error) => Box::pin(std::future::ready(Err(error))),
        }
    }
}

/// The signals that end the broker.
pub(super) struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
    #[cfg(unix)]
    interrupt: tokio::signal::unix::Signal,
}

#[cfg(unix)]
impl Signals {
    pub(super) fn listen() -> Result<Self> {
        use tokio::signal::unix::{SignalKind, signal};
        let failed = |cause: std::io::Error| {
            Error::new(ErrorKind::Io, "signals cannot be listened for").because(cause)
        };
        Ok(Self {
            terminate: signal(SignalKind::terminate()).map_err(failed)?,
            interrupt: signal(SignalKind::interrupt()).map_err(failed)?,
        })
    }

    pub(super) async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

#[cfg(not(unix))]
impl Signals {
    pub(super) fn listen() -> Result<Self> {
        Ok(Self {})
    }

    pub(super) async fn next(&mut self) {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

impl Signals {
    async fn drain(mut self, handle: Handle<SocketAddr>) {
        self.next().await;
        tracing::info!("told to end; finishing what is under way");
        handle.graceful_shutdown(Some(DRAIN));
        self.next().await;
        handle.shutdown();
    }
}
