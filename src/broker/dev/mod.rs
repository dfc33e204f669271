//! A broker and an identity provider for a machine that has neither: in memory,
//! on loopback, gone with the process. It is the same broker as in production, and
//! the client takes its ordinary way.

mod home;
mod provider;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use axum::Router;
use axum_server::Handle;
use tokio::sync::oneshot;

use super::config::{self, Config, Policy, Role, TokenFormat, TrustedIssuer};
use super::http::connections::Connections;
use super::http::guard::Guard;
use super::http::hosts::Hosts;
use super::keys::RootKey;
use super::policy::Source;
use super::serve;
use super::signals::Signals;
use super::store::sqlite;
use super::told;
use super::{Broker, Parts, http};
use crate::error::{Error, ErrorKind, Result};
use crate::host::listener::{self, Exposure};
use crate::host::{Host, process};
use crate::oidc::Issuer;
use provider::{Person, Provider};

/// The client id of a provider that asks before it approves.
const CLIENT_ID: &str = "tmpcred-dev";

/// The role that the suggested configuration asks for.
const ROLE: &str = "developer";

/// The other role, which everybody may have.
const READER: &str = "reader";

/// Whom its tokens are for.
const AUDIENCE: &str = "https://api.dev.example";

/// The group that policy gives everything to.
const GROUP: &str = "developers";

/// How the development broker is to run.
#[derive(Clone, Copy, Debug, Default)]
pub struct DevOptions {
    /// The port to listen on; any free one where left out.
    pub port: Option<u16>,
    /// Whether logins are approved without showing a page, in the name of whoever
    /// runs the process. The client id is then a secret of this run, so that others
    /// on this machine cannot log in.
    pub auto_approve: bool,
}

/// A running development broker. It ends when it is dropped.
pub struct DevBroker {
    place: Place,
    configuration: String,
    handle: Handle<SocketAddr>,
    thread: Option<JoinHandle<Result<()>>>,
    /// Closed when the thread ends.
    ended: Option<oneshot::Receiver<()>>,
}

/// Where everything is, and what it is called.
#[derive(Clone, Debug)]
struct Place {
    issuer: Issuer,
    provider: Issuer,
    client_id: String,
}

/// Starts a broker and a provider on a thread of their own.
///
/// # Errors
/// Where the port is taken.
pub fn start(host: &Host, options: DevOptions) -> Result<DevBroker> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, options.port.unwrap_or(0)));
    let listener = listener::bind(address, Exposure::LoopbackOnly).map_err(|error| {
        error.hint("choose another port with --port, or none to take any that is free")
    })?;
    let failed = |cause: std::io::Error| {
        Error::new(ErrorKind::Io, "the development broker cannot start").because(cause)
    };
    let place = Place::at(listener.local_addr().map_err(failed)?, options.auto_approve)?;
    let handle = Handle::new();
    let (ready, started) = mpsc::channel();
    let (alive, ended) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name("tmpcred-dev".into())
        .spawn({
            let (host, place, handle) = (host.clone(), place.clone(), handle.clone());
            move || {
                let _alive = alive;
                process::runtime()?.block_on(async {
                    let (broker, app, connections) =
                        match assemble(&host, &place, options.auto_approve).await {
                            Ok(made) => made,
                            Err(error) => {
                                let _ = ready.send(Err(error));
                                return Ok(());
                            }
                        };
                    let _ = ready.send(Ok(()));
                    let outcome = serve::run(listener, None, app, handle, connections).await;
                    if let Some(broker) = Arc::into_inner(broker) {
                        broker.close().await;
                    }
                    outcome
                })
            }
        })
        .map_err(failed)?;
    started.recv().unwrap_or_else(|_| {
        Err(Error::new(ErrorKind::Other, "the development broker ended before it started"))
    })?;
    let configuration = place.configuration(options.auto_approve);
    Ok(DevBroker { place, configuration, handle, thread: Some(thread), ended: Some(ended) })
}

impl Place {
    fn at(address: SocketAddr, auto_approve: bool) -> Result<Self> {
        let issuer = |path: &str| {
            Issuer::parse(&format!("http://{address}{path}"))
                .map_err(|why| Error::new(ErrorKind::Other, why))
        };
        let client_id = if auto_approve {
            format!("{CLIENT_ID}-{}", provider::random_name()?)
        } else {
            CLIENT_ID.to_string()
        };
        Ok(Self { issuer: issuer("")?, provider: issuer("/provider")?, client_id })
    }

    /// A client's configuration for it.
    fn configuration(&self, auto_approve: bool) -> String {
        let Self { issuer, provider, client_id } = self;
        // Nobody has to see a page that approves by itself, so any visit will do.
        let flow = if auto_approve { "flow = \"browser\"\n" } else { "" };
        format!(
            r#"default_profile = "dev"

[identity.dev]
type = "oidc"
issuer = "{provider}"
client_id = "{client_id}"
{flow}
[broker.dev]
url = "{issuer}"

[profile.dev]
identity = "dev"
target = {{ type = "broker", broker = "dev" }}
role = "{ROLE}"
audience = "{AUDIENCE}"

[profile.dev-reader]
extends = "dev"
role = "{READER}"
"#
        )
    }

    fn broker_config(&self) -> Config {
        let role = |scopes: &[&str], max_ttl| Role {
            audiences: [AUDIENCE.to_string()].into(),
            scopes: scopes.iter().map(ToString::to_string).collect(),
            max_ttl: Duration::from_secs(max_ttl),
            ends_with_token: false,
            dpop: Default::default(),
            token_format: TokenFormat::Jwt,
            ttl_jitter: Duration::ZERO,
            aws: None,
            claims: told::claims::Settings::default(),
            elevation: None,
        };
        let mut provider = TrustedIssuer::new(self.provider.clone());
        provider.clients = Some([self.client_id.clone()].into());
        Config {
            path: None,
            issuer: self.issuer.clone(),
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            expose: false,
            trusted_proxies: Vec::new(),
            forwarded_header: Default::default(),
            watch_every: None,
            tls: None,
            admin: None,
            store: config::Store::at("in memory"),
            keys: config::Keys::default(),
            dpop: config::Dpop::default(),
            limits: Default::default(),
            authz: None,
            audit: config::Audit::default(),
            notify: Default::default(),
            log: config::Log::default(),
            origins: config::Origins::default(),
            telemetry: config::Telemetry::default(),
            directory: None,
            enrollment: Default::default(),
            web: None,
            trusted_issuer: [("dev".to_string(), provider)].into(),
            client: Default::default(),
            policy: Policy { files: vec!["policy.cedar".into()] },
            role: [
                (ROLE.to_string(), role(&["dev:read", "dev:write"], 3600)),
                (READER.to_string(), role(&["dev:read"], 900)),
            ]
            .into(),
        }
    }
}

/// Makes broker and provider.
async fn assemble(
    host: &Host,
    place: &Place,
    auto_approve: bool,
) -> Result<(Arc<Broker>, Router, Connections)> {
    let login = process::user_name(&host.env);
    let provider = Provider::new(
        provider::Options {
            issuer: place.provider.clone(),
            client_id: place.client_id.clone(),
            resources: [place.issuer.as_str().to_string()].into(),
            person: Person { name: login.clone(), login, groups: vec![GROUP.into()] },
            auto_approve,
        },
        host.clock.clone(),
    )?;
    let parts = Parts {
        store: Arc::new(sqlite::in_memory().await?),
        root_key: RootKey::random()?,
        policies: vec![Source {
            path: "policy.cedar".into(),
            text: include_str!("policy.cedar").replace("ISSUER", place.provider.as_str()),
        }],
    };
    let broker = Arc::new(Broker::assemble(&place.broker_config(), parts, host).await?);
    let guard = Guard::new(Hosts::Loopback(Vec::new()));
    let mut app = http::routes(broker.clone(), &guard).merge(provider.routes());
    // Where nobody is asked, only who knows the client id may log in: no page
    // tells it.
    if !auto_approve {
        app = app.merge(home::routes(place.clone()));
    }
    let connections = guard.connections();
    Ok((broker, http::guarded(app, guard), connections))
}

impl DevBroker {
    /// The broker's issuer identifier, which is its address.
    pub fn issuer(&self) -> &Issuer {
        &self.place.issuer
    }

    /// The provider's issuer identifier.
    pub fn provider_issuer(&self) -> &Issuer {
        &self.place.provider
    }

    /// The client id with which to log in at the provider.
    pub fn client_id(&self) -> &str {
        &self.place.client_id
    }

    /// The audience that its tokens are for.
    pub fn audience(&self) -> &'static str {
        AUDIENCE
    }

    /// A client's configuration for it, in TOML.
    pub fn configuration(&self) -> &str {
        &self.configuration
    }

    /// Waits until SIGTERM or SIGINT, then ends it.
    pub fn wait(mut self) -> Result<()> {
        let ended = self.ended.take();
        process::runtime()?.block_on(async {
            let mut signals = Signals::listen()?;
            tokio::select! {
                () = signals.next() => {}
                // It says nothing and only goes away.
                _ = async { ended?.await.ok() } => {}
            }
            Ok::<(), Error>(())
        })?;
        self.end()
    }

    fn end(&mut self) -> Result<()> {
        self.handle.shutdown();
        match self.thread.take().map(JoinHandle::join) {
            None | Some(Ok(Ok(()))) => Ok(()),
            Some(Ok(Err(error))) => Err(error),
            Some(Err(_)) => {
                Err(Error::new(ErrorKind::Other, "the development broker ended abnormally"))
            }
        }
    }
}

impl Drop for DevBroker {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::warn!(%error, "the development broker did not end well");
        }
    }
}

#[cfg(test)]
mod tests;
