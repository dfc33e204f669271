//! Listening, until somebody says stop.

use std::net::{SocketAddr, TcpListener};
use std::sync::{Arc, Weak};
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use axum_server::accept::{Accept, DefaultAcceptor};
use axum_server::tls_rustls::{RustlsAcceptor, RustlsConfig};
use tokio::net::TcpStream;
use tokio::sync::watch;

use super::config::{Admin, Authz, Config};
use super::http::connections::{Connections, Limits, MAX_CONNECTIONS, Watched};
use super::http::guard::Guard;
use super::http::hosts::{Hosts, Names};
use super::metrics::Reload;
use super::signals::{Hangups, Signals};
use super::survive::survive;
use super::tls::Certificate;
use super::watch::{Seen, Watch};
use super::{Broker, http, tls};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::listener::{self, Exposure};
use crate::host::process;
use crate::telemetry::{Format, LogCounts};

/// How long requests that are under way may take once the broker is told to end.
const DRAIN: Duration = Duration::from_secs(30);

/// How long what goes on without a connection may take after that, such as a
/// revocation whose caller has gone.
const FLUSH: Duration = Duration::from_secs(5);

/// How many connections there may be to the admin listener.
const ADMIN_CONNECTIONS: usize = 32;

/// How long the headers of a request may take to arrive.
const HEADER_TIME: Duration = Duration::from_secs(10);

/// How many requests may be under way on one connection. A client with more of them
/// waits, or opens another connection.
const MAX_STREAMS: u32 = 8;

/// How many files the broker has open besides connections, at most.
const OTHER_FILES: u64 = 128;

/// How large the headers of a request may be, in bytes.
const MAX_HEADERS: usize = 32 * 1024;

/// Runs the broker that this configuration describes, until SIGTERM or SIGINT. Then no new
/// request is taken, and those under way are finished; a second signal cuts them off. What is
/// counted of the log is among the metrics.
pub fn serve(host: &Host, config: Config, log: LogCounts) -> Result<()> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(|cause| {
            Error::new(ErrorKind::Io, "the broker cannot start its threads").because(cause)
        })?;
    let outcome = runtime.block_on(async {
        let (mut signals, hangups) = (Signals::listen()?, Hangups::listen()?);
        // Before any of them is read: what is exchanged meanwhile is new.
        let watch = Watch::start(&config).await;
        let certificate = match &config.tls {
            Some(tls) => Some(tls::read(tls).await?),
            None => None,
        };
        if let Some(certificate) = &certificate {
            tell_for_whom(certificate, &config);
        }
        let certificate_end = certificate.as_ref().and_then(Certificate::end);
        if let Some(Err(error)) = certificate.as_ref().map(|it| it.check(host.clock.now())) {
            // To end would help nobody: whoever heeds it is refused either way, and those who
            // come by a proxy or to the admin listener are served.
            tracing::error!(%error, "clients refuse the broker's certificate; it starts all the same, so put a valid one there and send SIGHUP");
        }
        let tls = certificate.map(|certificate| certificate.config);
        let exposure = if config.expose { Exposure::AsConfigured } else { Exposure::LoopbackOnly };
        // Before a database is made: another broker may be running.
        let listener = listener::bind(config.listen, exposure).map_err(|error| {
            error.hint("is another broker running? `listen` in the configuration names the address")
        })?;
        let admin_listener = config.admin.as_ref().map(bind_admin).transpose()?;
        let authz_listener = config.authz.as_ref().map(bind_authz).transpose()?;
        let authz_listener = authz_listener.flatten();
        let decided_at = authz_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let seen_at = admin_listener.as_ref().and_then(|listener| listener.local_addr().ok());
        let opened = tokio::select! {
            opened = Broker::open(&config, host) => opened?,
            // A database may take long to be migrated, and a command for the key as well.
            () = signals.next() => {
                tracing::info!("told to end before there was anything to serve");
                return Ok(());
            }
        };
        let broker = Arc::new(opened);
        broker.metrics.certificate_ends(certificate_end);
        broker.metrics.tell_of_log(log);
        broker.see_to_elevations();
        let limits = limits(&config);
        let names = Names::default();
        names.set(config.hosts());
        let guard = Guard::new(hosts(tls.as_ref(), &names))
            .believing(config.trusted_proxies.clone(), config.forwarded_header)
            .within(limits.clone());
        let guard = guard.counting(broker.metrics()).tracing(broker.tracer());
        let connections = guard.connections();
        let app = http::guarded(http::routes(broker.clone(), &guard), guard);
        let handle = Handle::new();
        let names_of = names.clone();
        let reloading = Reloading { watch, names: names_of, tls: tls.clone(), refused: None };
        let reloading = tokio::spawn(reloading.whenever(hangups, broker.clone()));
        let authz = authz_listener.map(|listener| {
            SideServer::for_proxies(listener, limits, (tls.clone(), &names), &broker)
        });
        let both = [Some(handle.clone()), authz.as_ref().map(|authz| authz.handle.clone())];
        let (at_once, mut ended_at_once) = watch::channel(false);
        let ending = End { signals, handles: both.into_iter().flatten().collect(), at_once };
        let draining = tokio::spawn(ending.drain(Arc::downgrade(&broker)));
        let admin = admin_listener.map(|listener| {
            SideServer::admin(listener, &config, broker.clone(), connections.clone())
        });
        let tell = |said: String| match config.log.format {
            Format::Text => host.interact.note(&said),
            Format::Json => tracing::info!("{said}"),
        };
        tell(format!(
            "the broker {} listens on {}{}",
            broker.issuer(),
            listener.local_addr().unwrap_or(config.listen),
            if tls.is_some() { "" } else { " (plain HTTP, loopback only)" }
        ));
        if let Some(address) = seen_at {
            tell(format!("its metrics are at http://{address}/metrics"));
        }
        if let Some(address) = decided_at {
            tell(format!("it decides for proxies at {address}"));
        }
        let serving = async {
            let outcome = run(listener, tls, app, handle, connections).await;
            if let Some(authz) = authz {
                authz.end(DRAIN).await;
            }
            // It is looked at until the last request is answered.
            if let Some(admin) = admin {
                admin.end(Duration::from_secs(1)).await;
            }
            reloading.abort();
            close(broker).await;
            outcome
        };
        let outcome = tokio::select! {
            outcome = serving => outcome,
            Ok(_) = ended_at_once.wait_for(|at_once| *at_once) => {
                tracing::warn!("told again to end; what was not written by now is lost");
                Ok(())
            }
        };
        draining.abort();
        outcome
    });
    // What a thread still does for nobody is not waited for.
    runtime.shutdown_background();
    outcome
}

/// What ends the broker.
struct End {
    signals: Signals,
    /// The listeners of those whose requests are finished.
    handles: Vec<Handle<SocketAddr>>,
    /// Whether it has to end, whatever is not written.
    at_once: watch::Sender<bool>,
}

impl End {
    /// Finishes what is under way once the first signal comes, and cuts it off with the second.
    /// What is queued may still be written then, for a while, or until there is a third.
    async fn drain(mut self, broker: Weak<Broker>) {
        self.signals.next().await;
        tracing::info!("told to end; finishing what is under way");
        if let Some(broker) = broker.upgrade() {
            broker.drain();
        }
        for handle in &self.handles {
            handle.graceful_shutdown(Some(DRAIN));
        }
        self.signals.next().await;
        for handle in &self.handles {
            handle.shutdown();
        }
        let _ = tokio::time::timeout(FLUSH, self.signals.next()).await;
        self.at_once.send_replace(true);
    }
}

/// Writes what is queued once nobody works with the broker any more.
async fn close(mut broker: Arc<Broker>) {
    let end = tokio::time::Instant::now() + FLUSH;
    loop {
        match Arc::try_unwrap(broker) {
            Ok(broker) => {
                broker.close().await;
                tracing::info!("drained");
                return;
            }
            Err(shared) if tokio::time::Instant::now() < end => {
                broker = shared;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Err(_) => {
                tracing::warn!("somebody still works with the broker; ending all the same");
                return;
            }
        }
    }
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

/// As many connections as files may be open for: each listener that strangers, or proxies for them,
/// can reach has its share, so that none takes what another one, or the database, needs.
fn limits(config: &Config) -> Limits {
    let listeners = 1 + u64::from(config.authz.as_ref().is_some_and(|it| it.listen.is_some()));
    // (By a name each goes through a socket of this process, which has two ends.)
    let database = config.store.postgres.as_ref().map_or(0, |it| 3 * u64::from(it.max_connections));
    let others = OTHER_FILES + ADMIN_CONNECTIONS as u64 + database;
    let wanted = listeners * MAX_CONNECTIONS as u64 + others;
    let allowed = process::allow_open_files(wanted);
    if allowed < wanted {
        tracing::warn!(
            allowed,
            wanted,
            "the system allows too few open files, so there can be fewer connections; raise the limit (ulimit -n, LimitNOFILE)"
        );
    }
    let total = allowed.saturating_sub(others) / listeners;
    let total = total.clamp(16, MAX_CONNECTIONS as u64) as usize;
    let default = Limits::default();
    let per_address = default.per_address.min(total.div_ceil(4));
    Limits { total, per_address, proxies: config.trusted_proxies.clone(), ..default }
}

/// Which hosts a request may name: behind a certificate any; in the clear only loopback and
/// these.
fn hosts(tls: Option<&RustlsConfig>, names: &Names) -> Hosts {
    match tls {
        Some(_) => Hosts::Any,
        None => Hosts::Told(names.clone()),
    }
}

/// What is to be told of other settings, besides the broker.
struct Reloading {
    watch: Watch,
    names: Names,
    tls: Option<RustlsConfig>,
    /// Why the certificate was refused that was read last, where it was.
    refused: Option<String>,
}

impl Reloading {
    /// Reads configuration, policies and certificate again whenever SIGHUP says so, or their
    /// files do.
    async fn whenever(mut self, mut hangups: Hangups, broker: Arc<Broker>) {
        loop {
            survive("reload", self.once(&mut hangups, &broker)).await;
        }
    }

    async fn once(&mut self, hangups: &mut Hangups, broker: &Arc<Broker>) {
        let seen = tokio::select! {
            () = hangups.next() => Seen::All,
            seen = self.watch.changed() => {
                if seen != Seen::Again {
                    tracing::info!("files have changed");
                }
                seen
            }
        };
        let (reading, before) = (broker.clone(), broker.configuration().tls);
        // What comes of it is in the log.
        let read = tokio::task::spawn_blocking(move || match seen {
            Seen::PeopleAlone => reading.let_go_who_left(),
            // It may be the certificate alone that was refused.
            Seen::Again if reading.refused_files().is_none() => {}
            Seen::Again => reading.reload_once_more(),
            Seen::All => drop(reading.reload_policies()),
        });
        let _ = read.await;
        if seen == Seen::PeopleAlone {
            return;
        }
        let config = broker.configuration();
        self.names.set(config.hosts());
        if seen == Seen::All || self.refused.is_some() || config.tls != before {
            self.certificate(&config, broker, seen).await;
        }
        let refused = broker.refused_files();
        self.watch.follow(&config, refused.or(self.refused.is_some().then(Vec::new)));
    }

    /// Reads the certificate again. Where it is tried once more and refused as it was before, that
    /// was told then.
    async fn certificate(&mut self, config: &Config, broker: &Broker, seen: Seen) {
        let (Some(files), Some(current)) = (&config.tls, &self.tls) else { return };
        match tls::reload(files, current, broker.clock.now()).await {
            Ok(new) => {
                self.refused = None;
                broker.metrics.reloaded(Reload::Done);
                broker.metrics.certificate_ends(new.end());
                tracing::info!("the certificate was read again; new connections get it");
                tell_for_whom(&new, config);
            }
            Err(error) => {
                let told = self.refused.replace(error.to_string());
                if seen == Seen::Again && told == self.refused {
                    return;
                }
                broker.metrics.reloaded(Reload::Refused);
                tracing::error!(%error, "the new certificate cannot be used; the old one stays");
            }
        }
    }
}

/// Says where a certificate is not for the host by which clients come.
fn tell_for_whom(certificate: &Certificate, config: &Config) {
    if let Err(error) = certificate.check_name(&config.issuer) {
        tracing::warn!(%error, "clients that come straight to the broker refuse its certificate");
    }
}

fn bind_admin(admin: &Admin) -> Result<TcpListener> {
    let exposure = if admin.expose { Exposure::AsConfigured } else { Exposure::LoopbackOnly };
    listener::bind(admin.listen, exposure)
        .map_err(|error| error.hint("`listen` under [admin] names the address"))
}

/// The listener for proxies, where they have one of their own.
fn bind_authz(authz: &Authz) -> Result<Option<TcpListener>> {
    let exposure = if authz.expose { Exposure::AsConfigured } else { Exposure::LoopbackOnly };
    let bind = |listen| listener::bind(listen, exposure);
    authz
        .listen
        .map(bind)
        .transpose()
        .map_err(|error| error.hint("`listen` under [authz] names the address"))
}

/// A listener for those who run the broker, or for proxies. Its limits are its own, so that
/// it answers while the public one is full.
struct SideServer {
    handle: Handle<SocketAddr>,
    task: tokio::task::JoinHandle<Result<()>>,
}

impl SideServer {
    fn admin(
        listener: TcpListener,
        config: &Config,
        broker: Arc<Broker>,
        public: Connections,
    ) -> Self {
        let exposed = config.admin.as_ref().is_some_and(|admin| admin.expose);
        let hosts = if exposed { Hosts::Any } else { Hosts::Loopback(Vec::new()) };
        let limits = Limits {
            total: ADMIN_CONNECTIONS,
            per_address: ADMIN_CONNECTIONS,
            ..Limits::default()
        };
        let guard = Guard::new(hosts).within(limits);
        let connections = guard.connections();
        let app = http::guarded(http::admin::routes(broker, public, &guard), guard);
        Self::start(listener, None, app, connections)
    }

    /// The broker's certificate is for other machines: what does not leave this one needs
    /// none.
    fn for_proxies(
        listener: TcpListener,
        limits: Limits,
        (tls, names): (Option<RustlsConfig>, &Names),
        broker: &Arc<Broker>,
    ) -> Self {
        let local = listener.local_addr().is_ok_and(|address| address.ip().is_loopback());
        let tls = tls.filter(|_| !local);
        let hosts = hosts(tls.as_ref(), names);
        // A proxy opens one connection or two for each request that it holds up.
        let limits = Limits { per_address: limits.total, ..limits };
        let guard = Guard::new(hosts).within(limits);
        let guard = guard.counting(broker.metrics()).tracing(broker.tracer());
        let connections = guard.connections();
        let app = http::guarded(http::authz::routes(broker.clone(), &guard), guard);
        Self::start(listener, tls, app, connections)
    }

    fn start(
        listener: TcpListener,
        tls: Option<RustlsConfig>,
        app: Router,
        connections: Connections,
    ) -> Self {
        let handle = Handle::new();
        let task = tokio::spawn(run(listener, tls, app, handle.clone(), connections));
        Self { handle, task }
    }

    async fn end(self, within: Duration) {
        self.handle.graceful_shutdown(Some(within));
        if let Ok(Err(error)) = self.task.await {
            tracing::warn!(%error, "a listener beside the public one did not end well");
        }
    }
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
