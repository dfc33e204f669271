//! What `broker.toml` says.

mod algorithms;
mod audit;
mod authz;
mod change;
mod client;
mod dpop;
mod elevation;
mod enrollment;
mod keys;
mod limits;
mod log;
mod notify;
mod origins;
mod pattern;
mod role;
mod shared;
mod store;
mod telemetry;
mod token_review;
mod trusted_issuer;
mod web;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, de};
use time::OffsetDateTime;

pub use audit::{Audit, BeginWith, FileSink, SyslogAddress, SyslogSink, WebhookSink};
#[cfg(test)]
pub(in crate::broker) use authz::TAKEN;
pub use authz::{Authz, Proxy, Route};
pub use client::{Client, ClientAuth, Clients};
pub use dpop::{Dpop, Nonces};
pub use elevation::{Elevation, Emergency, Login, ProviderDown, Threshold};
pub use enrollment::Enrollment;
pub use keys::Keys;
pub use limits::{Endpoint, Limits, Rate};
pub use log::Log;
pub use notify::{
    ChannelKind, EMERGENCY, MESSAGES, MailSecurity, MailServer, Notify, NotifyChannel, TEST,
};
pub use origins::Origins;
pub use pattern::Pattern;
pub use role::{Binding, Role, TokenFormat};
pub use store::{Address, Host, PASSWORD_VARIABLE, Place, Postgres, Store};
pub use telemetry::Telemetry;
pub use token_review::TokenReview;
pub use trusted_issuer::{Assertions, MAX_LEEWAY, MappedClaim, RequiredClaim, TrustedIssuer};
pub use web::Web;

use crate::broker::directory::{self, Directory};
use crate::broker::network::Network;
use crate::config::Misfit;
use crate::error::{Error, ErrorKind, Result};
use crate::oidc::Issuer;

/// The longest lifetime that a role may have: what lives longer than a day is
/// no temporary credential.
pub const MAX_TTL: Duration = Duration::from_secs(24 * 60 * 60);

/// The variable that holds the key-encryption key where `[keys]` names nothing else.
pub const KEK_VARIABLE: &str = "TMPCRED_BROKER_KEK";

/// In which header proxies say where a request comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ForwardedHeader {
    /// `X-Forwarded-For`, a list of addresses.
    #[default]
    XForwardedFor,
    /// `Forwarded` (RFC 7239).
    Forwarded,
}

/// A broker's configuration, as `broker.toml` has it. Paths are relative to the
/// directory of that file.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where it was read, so that it can be read again.
    #[serde(skip)]
    pub path: Option<PathBuf>,
    /// The broker's address as its callers see it. Tokens carry it as `iss`, and
    /// it is where the discovery document and the keys are found.
    pub issuer: Issuer,
    /// The address and port to listen on.
    #[serde(default = "default_listen", deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Must be true for another `listen` address than loopback.
    #[serde(default)]
    pub expose: bool,
    /// The proxies in front, as addresses or such as `10.0.0.0/28`: they say in the
    /// `forwarded_header` where requests come from.
    #[serde(default)]
    pub trusted_proxies: Vec<Network>,
    /// The one header in which they say it; another one, callers may have written.
    #[serde(default)]
    pub forwarded_header: ForwardedHeader,
    /// The certificate. Without it plain HTTP is spoken, to loopback only: a proxy
    /// on this machine may stand in front.
    #[serde(default)]
    pub tls: Option<Tls>,
    /// How often this file is looked at, and those of certificate, policies, people and keys
    /// of issuers and clients, to be read again where they have changed; on SIGHUP only where
    /// left out.
    #[serde(default, deserialize_with = "some_duration")]
    #[schemars(with = "Option<String>")]
    pub watch_every: Option<Duration>,
    /// Where those who run the broker look at it; nowhere where left out.
    #[serde(default)]
    pub admin: Option<Admin>,
    /// Where keys and the audit log are kept.
    pub store: Store,
    /// What seals the signing keys, and when they are rotated.
    #[serde(default)]
    pub keys: Keys,
    /// What proofs of a key have to be like.
    #[serde(default)]
    pub dpop: Dpop,
    /// How often somebody may ask.
    #[serde(default)]
    pub limits: Limits,
    /// From where tokens may be used without that being an event.
    #[serde(default)]
    pub origins: Origins,
    /// What the broker decides for a proxy; nothing where left out.
    #[serde(default)]
    pub authz: Option<Authz>,
    /// Where records of the audit log are handed on to; nowhere where left out.
    #[serde(default)]
    pub audit: Audit,
    /// Where people are told what has happened, by a name of your choice; nowhere where left
    /// out.
    #[serde(default)]
    pub notify: Notify,
    /// What the log looks like.
    #[serde(default)]
    pub log: Log,
    /// Where traces go; nowhere where neither this nor a variable says so.
    #[serde(default)]
    pub telemetry: Telemetry,
    /// The issuers whose tokens prove who is calling, by a name of your choice.
    pub trusted_issuer: BTreeMap<String, TrustedIssuer>,
    /// The clients that authenticate, or have to prove a key, by their id.
    #[serde(default)]
    pub client: Clients,
    /// Who the people are; nobody is known where left out.
    #[serde(default)]
    pub directory: Option<directory::Settings>,
    /// Pages on which people approve from a browser; none where left out.
    #[serde(default)]
    pub web: Option<Web>,
    /// Which keys people may enroll.
    #[serde(default)]
    pub enrollment: Enrollment,
    /// Who may have which role.
    pub policy: Policy,
    /// The roles, by name.
    pub role: BTreeMap<String, Role>,
}

/// The table `[tls]`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// A PEM file with the certificate and those that lead to its authority.
    pub certificate: PathBuf,
    /// A PEM file with the private key. It must not be readable by everybody.
    pub key: PathBuf,
}

/// The table `[admin]`: a listener of its own for `/metrics`, `/healthz`, `/readyz`, and
/// for proofs about the audit log.
/// It speaks plain HTTP and asks nobody who they are.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Admin {
    /// The address and port to listen on.
    #[serde(deserialize_with = "address")]
    pub listen: SocketAddr,
    /// Must be true for another `listen` address than loopback.
    #[serde(default)]
    pub expose: bool,
}

/// The table `[policy]`.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Policy {
    /// Files with Cedar policies. What no policy permits is denied.
    pub files: Vec<PathBuf>,
}

fn default_listen() -> SocketAddr {
    ([127, 0, 0, 1], 8443).into()
}

fn address<'de, D: Deserializer<'de>>(deserializer: D) -> Result<SocketAddr, D::Error> {
    let text = String::deserialize(deserializer)?;
    text.parse().map_err(|_| {
        let what = "no IP address with a port, such as 127.0.0.1:8443 or [::1]:8443";
        de::Error::custom(format!("\"{text}\" is {what}"))
    })
}

fn some_address<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<SocketAddr>, D::Error> {
    address(deserializer).map(Some)
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_duration(&text).map_err(de::Error::custom)
}

fn some_duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    duration(deserializer).map(Some)
}

fn seconds<S: serde::Serializer>(duration: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_u64(duration.as_secs())
}

/// Reads a duration of whole seconds, such as `90s`, `15m` or `1h 30m`.
pub(in crate::broker) fn parse_duration(text: &str) -> Result<Duration, String> {
    let duration = humantime::parse_duration(text)
        .map_err(|cause| format!("'{text}' is not a duration such as 15m: {cause}"))?;
    if duration.subsec_nanos() != 0 {
        return Err(format!("'{text}' is not a whole number of seconds"));
    }
    Ok(duration)
}

/// Reads `broker.toml`, makes its paths relative to where it is, and checks it.
pub fn load(path: &Path) -> Result<Config> {
    let checked = crate::config::read_checked(path, |mut config: Config| {
        config.resolve_paths(path.parent().unwrap_or(Path::new("")));
        config.path = Some(path.into());
        config.check().map(|()| config)
    });
    checked.map_err(|error| error.context(format!("{} cannot be used", path.display())))
}

impl Config {
    /// The hosts by which the broker is reached: its own, and those that `[dpop]` names beside it;
    /// and those of requests that it is asked about, for Envoy asks with the host that such a
    /// request is for.
    pub fn hosts(&self) -> Vec<String> {
        let own = [&self.issuer].into_iter().chain(&self.dpop.urls);
        let own = own.filter_map(|url| url.url().host_str().map(String::from));
        own.chain(self.authz.iter().flat_map(Authz::hosts)).collect()
    }

    /// Keys that end in `_file` are resolved by whoever read the file.
    fn resolve_paths(&mut self, base: &Path) {
        let tls = self.tls.iter_mut().flat_map(|tls| [&mut tls.certificate, &mut tls.key]);
        let directory = self.directory.iter_mut().map(|directory| &mut directory.file);
        let store = &mut self.store.path;
        let paths = tls.chain(&mut self.policy.files).chain(store).chain(self.audit.paths());
        for path in paths.chain(directory) {
            *path = base.join(&*path);
        }
        self.keys.resolve_paths(base);
    }

    /// The files that are read again while the broker runs.
    pub(super) fn reread(&self) -> impl Iterator<Item = &Path> {
        let tls = self.tls.iter().flat_map(|tls| [&tls.certificate, &tls.key]);
        let directory = self.directory.iter().map(|directory| &directory.file);
        let issuers = self.trusted_issuer.values();
        let issuers = issuers.flat_map(|issuer| issuer.jwks_file.iter().chain(&issuer.ca_file));
        let clients = self.client.values();
        let clients = clients.flat_map(|client| client.jwks_file.iter().chain(&client.ca_file));
        let web = self.web.iter();
        let web = web.flat_map(|web| web.client_secret_file.iter().chain(&web.client_key_file));
        let named =
            tls.chain(&self.policy.files).chain(web).chain(directory).chain(issuers).chain(clients);
        self.path.iter().chain(named).map(PathBuf::as_path)
    }

    /// Reads the directory of people, where there is one.
    pub fn directory(&self, now: OffsetDateTime) -> Result<Option<Arc<Directory>>> {
        let Some(settings) = &self.directory else { return Ok(None) };
        let of_people = self.trusted_issuer.values().filter(|issuer| issuer.people);
        let directory = Directory::load(settings, &self.issuer, now)?;
        Ok(Some(Arc::new(directory.with_people_of(of_people.map(|issuer| &issuer.issuer)))))
    }

    /// What can be read of a directory that cannot be used of the people in this one; `None` where
    /// there is nothing of that.
    pub(super) fn directory_roughly(&self, known: &Directory) -> Option<Directory> {
        Directory::roughly(self.directory.as_ref()?, known).ok()
    }

    /// Checks that the directory has enough people for what has to be approved.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where nobody could ever have a role.
    pub fn check_people(&self, directory: Option<&Directory>) -> Result<()> {
        let elevated =
            self.role.iter().filter_map(|(name, role)| Some((name, role.elevation.as_ref()?)));
        elevated.into_iter().try_for_each(|(name, rules)| rules.check_people(name, directory))
    }

    /// Checks what the types alone cannot say.
    pub(super) fn check(&self) -> Result<(), Misfit> {
        let wrong = |table: &[&str], why: String| {
            Err(Misfit::of(table, Error::new(ErrorKind::Config, why)))
        };
        let mut segments = self.issuer.url().path().split('/');
        if let Some(bad) = segments.find(|s| s.starts_with([':', '*']) || s.contains(['{', '}'])) {
            return wrong(
                &[],
                format!(
                    "issuer = \"{}\" cannot be served: no part of its path may be '{bad}'",
                    self.issuer
                ),
            );
        }
        if self.watch_every == Some(Duration::ZERO) {
            return wrong(&[], "watch_every must be a second or more".into());
        }
        if !self.listen.ip().is_loopback() {
            if !self.expose {
                let why =
                    format!("listen = \"{}\" is not loopback, and expose is not true", self.listen);
                let error = Error::new(ErrorKind::Config, why)
                    .hint("set expose = true if other machines are to reach the broker");
                return Err(Misfit::of(&[], error));
            }
            if self.tls.is_none() {
                let why = format!("listen = \"{}\" needs a [tls] table", self.listen);
                let error = Error::new(ErrorKind::Config, why)
                    .because_of("tokens are never sent in the clear to other machines");
                return Err(Misfit::of(&[], error));
            }
        }
        if let Some(admin) = &self.admin {
            admin.check(self.listen).map_err(of(&["admin"]))?;
        }
        // Of these, addresses may have a password in them.
        let of_private = |table: &'static str| move |error| Misfit::of_private(&[table], error);
        self.store.check().map_err(of_private("store"))?;
        self.audit.check()?;
        notify::check(&self.notify)?;
        self.telemetry.check().map_err(of_private("telemetry"))?;
        if let Some(authz) = &self.authz {
            let taken = [self.listen].into_iter().chain(self.admin.as_ref().map(|a| a.listen));
            let taken: Vec<_> = taken.collect();
            authz
                .check(&taken, &self.trusted_proxies, self.tls.is_some())
                .map_err(of(&["authz"]))?;
            for (name, route) in &authz.route {
                route.check(name, &self.role).map_err(of(&["authz", "route", name]))?;
            }
        }
        self.keys.check().map_err(of(&["keys"]))?;
        self.limits.check().map_err(of(&["limits"]))?;
        self.origins.check().map_err(of(&["origins"]))?;
        if self.trusted_issuer.is_empty() {
            return wrong(&[], "no [trusted_issuer.NAME] says whose tokens are accepted".into());
        }
        let mut seen: BTreeMap<&Issuer, &str> = BTreeMap::new();
        for (name, issuer) in &self.trusted_issuer {
            let table = ["trusted_issuer", name];
            check_name("trusted_issuer", name).map_err(of(&table))?;
            issuer.check(name).map_err(of(&table))?;
            if issuer.people && self.directory.is_none() {
                let why = format!("[trusted_issuer.{name}] people = true needs a [directory]");
                return wrong(&table, why);
            }
            if let Some(other) = seen.insert(&issuer.issuer, name) {
                let why = format!(
                    "[trusted_issuer.{other}] and [trusted_issuer.{name}] are the same issuer"
                );
                return wrong(&table, why);
            }
        }
        if let Some(web) = &self.web {
            web.check(&self.trusted_issuer, &self.issuer).map_err(of(&["web"]))?;
        }
        for (name, client) in &self.client {
            check_name("client", name).map_err(of(&["client", name]))?;
            client.check(name, &self.client).map_err(of(&["client", name]))?;
            if self.trusted_issuer.get(name).is_some_and(|issuer| issuer.clients.is_none()) {
                let why = format!(
                    "[client.{name}] is called like [trusted_issuer.{name}], whose name stands for the client of tokens that name none; call one of them otherwise, or say which clients the issuer's tokens may be of (clients)"
                );
                return wrong(&["client", name], why);
            }
        }
        if self.role.is_empty() {
            return wrong(&[], "there is no [role.NAME]".into());
        }
        for (name, role) in &self.role {
            check_name("role", name).map_err(of(&["role", name]))?;
            role.check(name).map_err(of(&["role", name]))?;
            if role.told().reads_directory() && self.directory.is_none() {
                let why = format!(
                    "[role.{name}] tells something of the directory of people, and there is no [directory]"
                );
                return wrong(&["role", name], why);
            }
            if let Some(elevation) = &role.elevation {
                let table = ["role", name, "elevation"];
                elevation.check(name).map_err(of(&table))?;
                elevation.check_keys(name, &self.enrollment.kinds).map_err(of(&table))?;
                notify::check_told(&self.notify, name, elevation).map_err(of(&table))?;
            }
        }
        for (name, channel) in &self.notify {
            let unknown = |role: &&String| !self.role.contains_key(role.as_str());
            if let Some(role) = channel.roles.iter().flatten().find(unknown) {
                let why =
                    format!("[notify.{name}] roles has '{role}', and there is no [role.{role}]");
                let error = Error::new(ErrorKind::Config, why);
                return Err(Misfit::of_private(&["notify", name], error));
            }
        }
        let known = |audience: &String| self.role.values().any(|r| r.audiences.contains(audience));
        if let Some(unknown) = self.keys.audiences.keys().find(|audience| !known(audience)) {
            return wrong(
                &["keys"],
                format!("[keys] audiences has '{unknown}', which no role is for"),
            );
        }
        if self.policy.files.is_empty() {
            return wrong(&["policy"], "[policy] names no files".into());
        }
        Ok(())
    }
}

impl Admin {
    fn check(&self, public: SocketAddr) -> Result<()> {
        let listen = self.listen;
        if !listen.ip().is_loopback() && !self.expose {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "[admin] listen = \"{listen}\" is not loopback, and its expose is not true"
                ),
            )
            .hint("set expose = true under [admin] if other machines are to see the metrics"));
        }
        if listen == public && listen.port() != 0 {
            let why = format!("[admin] listen = \"{listen}\" is the address of the broker itself");
            return Err(Error::new(ErrorKind::Config, why));
        }
        Ok(())
    }
}

/// What finds the place of an error that is about this table.
fn of<'a>(table: &'a [&'a str]) -> impl Fn(Error) -> Misfit + 'a {
    move |error| Misfit::of(table, error)
}

/// Whether this may be an audience: short, and without control characters.
pub(super) fn is_audience(text: &str) -> bool {
    !text.is_empty() && text.len() <= 512 && !text.chars().any(char::is_control)
}

/// Whether this may be one scope (RFC 6749 section 3.3).
pub(super) fn is_scope_token(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= 256
        && text.bytes().all(|b| matches!(b, 0x21 | 0x23..=0x5b | 0x5d..=0x7e))
}

/// Whether this may be the name of a role or of another table.
pub(super) fn is_name(text: &str) -> bool {
    crate::wire::is_role(text)
}

fn check_name(table: &str, name: &str) -> Result<()> {
    if is_name(name) {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Config, format!("[{table}.{name:?}] is not a possible name"))
        .hint("use at most 64 letters, digits, dots, dashes and underscores"))
}

#[cfg(test)]
mod tests;
