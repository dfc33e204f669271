//! Whether a broker could start as `broker.toml` has it: each thing that it needs is looked at
//! as it does itself at start, and what is wrong with all of them is told at once. Nothing is
//! changed: no database is made or brought up to date, nobody is asked for a token, no address is
//! taken.
//!
//! Issuers that cannot be reached keep no broker from starting, so they are asked only where
//! somebody wants that.

use std::net::SocketAddr;
use std::path::Path;

use time::Duration;
use time::format_description::well_known::Rfc3339;

use super::audit::outbox::Sinks;
use super::authenticate::{Asked, Authenticator, Misfit};
use super::config::{Config, Tls};
use super::cutoff::apart;
use super::keys::{CheckpointKeys, Kek, RootKey};
use super::notify::Channels;
use super::policy::{self, Severity, Source, World};
use super::rulebook::Rulebook;
use super::store::{self, Found, Store};
use super::traces::Traces;
use super::web::Pages;
use super::{audit, tls};
use crate::error::{Error, ErrorKind, Result};
use crate::host::listener::{self, Exposure};
use crate::host::{Host, files};
use crate::trace::Tracer;

/// A certificate that ends sooner than this is told of: twice as long before as the alert on it
/// fires, so that whoever looks now may mend it before.
const ENDS_SOON: Duration = Duration::days(14);

/// What was looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// The directory of people, and whether it has enough of them.
    People,
    /// The policies.
    Policies,
    /// The issuers that are trusted and the clients that are known, with their files.
    Issuers,
    /// The channels by which people are told.
    Messages,
    /// The pages for browsers.
    Pages,
    /// Where the audit log is handed on to.
    Sinks,
    /// Where traces go.
    Traces,
    /// The broker's certificate and its key.
    Certificate,
    /// The addresses to listen on.
    Addresses,
    /// The key-encryption key.
    Kek,
    /// The database.
    Database,
    /// The keys in it, and the end of its audit log.
    Keys,
}

impl Subject {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::People => "people",
            Self::Policies => "policies",
            Self::Issuers => "issuers",
            Self::Messages => "messages",
            Self::Pages => "pages",
            Self::Sinks => "sinks",
            Self::Traces => "traces",
            Self::Certificate => "certificate",
            Self::Addresses => "addresses",
            Self::Kek => "kek",
            Self::Database => "database",
            Self::Keys => "keys",
        }
    }
}

/// What came of it.
#[derive(Debug)]
pub enum Verdict {
    /// It is as it should be.
    Good(String),
    /// A broker starts with it, and somebody should look at it.
    Warning(Error),
    /// A broker does not start with it, or would not do what is meant.
    Wrong(Error),
}

/// One thing that was looked at, and what came of it.
#[derive(Debug)]
pub struct Look {
    /// What was looked at.
    pub subject: Subject,
    /// What came of it.
    pub verdict: Verdict,
}

/// What was looked at until now.
#[derive(Default)]
struct Looks(Vec<Look>);

impl Looks {
    fn add(&mut self, subject: Subject, found: Result<Verdict>) {
        self.0.push(Look { subject, verdict: found.unwrap_or_else(Verdict::Wrong) });
    }

    fn is_any_wrong(&self) -> bool {
        self.0.iter().any(|look| matches!(look.verdict, Verdict::Wrong(_)))
    }
}

/// Looks at all that a broker with this configuration needs, and, where it is `online`, asks those
/// whom it asks for keys, or to review tokens. Needs a runtime. It reads files, and so blocks.
pub async fn check(config: &Config, host: &Host, online: bool) -> Vec<Look> {
    let mut looks = Looks::default();
    let callers = rules(config, host, online, &mut looks);
    if let Some(callers) = callers.as_ref().filter(|_| online) {
        for Asked { table, answer } in callers.ask(&config.issuer).await {
            let named =
                |error: Error| error.context(format!("[{table}] does not answer as it should"));
            let told = answer.map(|said| good(format!("[{table}] {said}"))).map_err(named);
            looks.add(Subject::Issuers, told);
        }
    }
    for misfit in callers.iter().flat_map(Authenticator::misfits) {
        looks.add(
            Subject::Issuers,
            match misfit {
                Misfit::All(error) => Err(error),
                Misfit::Some(error) => Ok(Verdict::Warning(error)),
            },
        );
    }
    let audit = &config.audit;
    if !(audit.file.is_empty() && audit.syslog.is_empty() && audit.webhook.is_empty()) {
        looks.add(Subject::Sinks, sinks(config, host));
    }
    if config.telemetry.endpoint.is_some() {
        looks.add(Subject::Traces, traces(config, host).await);
    }
    if let Some(files) = &config.tls {
        certificate(files, config, host, &mut looks).await;
    }
    looks.add(Subject::Addresses, addresses(config));
    let kek = Kek::load(&config.keys, &host.env).await;
    looks.add(Subject::Kek, kek.as_ref().map(|kek| good(kek.id())).map_err(Error::clone));
    let store = match store::look(&config.store, &host.env).await {
        Ok(Found::Ready(store)) => store,
        found => {
            looks.add(Subject::Database, found.map(|found| not_yet(&found)));
            return looks.0;
        }
    };
    looks.add(Subject::Database, clocks(store.as_ref(), host).await);
    if let Ok(kek) = &kek {
        looks.add(Subject::Keys, keys(store.as_ref(), kek, config).await);
    }
    store.close().await;
    looks.0
}

/// What a running broker reads anew: see [`Rulebook`]. Returns by whom callers are known, where
/// that can be said.
fn rules(config: &Config, host: &Host, online: bool, looks: &mut Looks) -> Option<Authenticator> {
    let callers = Authenticator::new(&config.trusted_issuer, &config.client, &config.issuer, host);
    let found = callers.as_ref().map(|_| trusted(config, online)).map_err(Error::clone);
    looks.add(Subject::Issuers, found);
    if config.directory.is_some() {
        looks.add(Subject::People, people(config, host));
    }
    if !config.notify.is_empty() {
        looks.add(Subject::Messages, messages(config, host));
    }
    if config.web.is_some() {
        let pages = Pages::new(config, host).map(|_| good("what they need is there"));
        looks.add(Subject::Pages, pages);
    }
    let together = !looks.is_any_wrong();
    looks.add(Subject::Policies, policies(config, host, together));
    callers.ok()
}

fn good(said: impl Into<String>) -> Verdict {
    Verdict::Good(said.into())
}

fn trusted(config: &Config, online: bool) -> Verdict {
    let clients = match config.client.len() {
        0 => String::new(),
        clients => format!(", clients: {clients}"),
    };
    let asked = if online { "" } else { "; they are not asked" };
    good(format!("trusted ones: {}{clients}{asked}", config.trusted_issuer.len()))
}

fn people(config: &Config, host: &Host) -> Result<Verdict> {
    let now = host.clock.now();
    let directory = config.directory(now)?;
    config.check_people(directory.as_deref())?;
    Ok(match directory {
        Some(directory) if directory.is_stale(now) => Verdict::Warning(
            Error::new(ErrorKind::Config, "the directory of people is out of date")
                .hint("export it anew: until then rules that use it deny"),
        ),
        _ => good("all who have to approve are there"),
    })
}

/// Looks at the policies, and, where all else is good, whether they are `together` with that.
fn policies(config: &Config, host: &Host, together: bool) -> Result<Verdict> {
    let (sources, now) = (Source::read_all(&config.policy.files)?, host.clock.now());
    // What is wrong with the people is told of them.
    let directory = config.directory(now).ok().flatten();
    let findings = policy::check(&sources, World::of(config, directory.as_ref()), now)?;
    let found = |severity| findings.iter().filter(|one| one.severity == severity).count();
    let told = |said: String| {
        Error::new(ErrorKind::Config, said)
            .hint("`tmpcred broker policy check` says where, and what to do")
    };
    let (errors, warnings) = (found(Severity::Error), found(Severity::Warning));
    if errors > 0 {
        return Err(told(format!("errors in the policies: {errors}")));
    }
    let book = together.then(|| Rulebook::new(config.clone(), &sources, host, None)).transpose()?;
    Ok(match (warnings, book) {
        (0, Some(book)) => good(format!("their hash is {}", book.hash())),
        (0, None) => good("nothing is wrong with them alone"),
        _ => Verdict::Warning(told(format!("findings about the policies: {warnings}"))),
    })
}

fn messages(config: &Config, host: &Host) -> Result<Verdict> {
    Channels::new(&config.notify, &config.issuer, host)?;
    Ok(good("the channels are complete; `tmpcred broker notify test` tries one"))
}

fn sinks(config: &Config, host: &Host) -> Result<Verdict> {
    Sinks::new(&config.audit, &config.issuer, host, &Tracer::default())?;
    for (name, sink) in &config.audit.file {
        let named = |error: Error| error.context(format!("[audit.file.{name}]"));
        appendable(&sink.path).map_err(named)?;
    }
    Ok(good("what they need is there"))
}

/// Refuses a file that records could not be appended to. Its directory is not made.
fn appendable(path: &Path) -> Result<()> {
    files::require_writable(path)?;
    let wrong = |why: String| Err(Error::new(ErrorKind::Config, why));
    match path.parent() {
        Some(place) if !place.as_os_str().is_empty() && !files::is_dir(place) => {
            wrong(format!("there is no directory {}", place.display()))
        }
        _ if files::is_link(path) || files::exists(path) && !files::is_file(path) => {
            wrong(format!("{} is no file", path.display()))
        }
        _ => Ok(()),
    }
}

async fn traces(config: &Config, host: &Host) -> Result<Verdict> {
    Traces::start(&config.telemetry, host)?.close().await;
    Ok(good("what they need is there"))
}

async fn certificate(files: &Tls, config: &Config, host: &Host, looks: &mut Looks) {
    let read = tls::read(files).await;
    let found = read.as_ref().map_err(Error::clone).and_then(|read| how_long(read, host));
    looks.add(Subject::Certificate, found);
    if let Ok(Err(error)) = read.map(|read| read.check_name(&config.issuer)) {
        looks.add(Subject::Certificate, Ok(Verdict::Warning(error)));
    }
}

fn how_long(certificate: &tls::Certificate, host: &Host) -> Result<Verdict> {
    let now = host.clock.now();
    let end = certificate.check(now)?;
    let said = format!("it is good until {}", end.format(&Rfc3339).unwrap_or_default());
    Ok(match end - now < ENDS_SOON {
        true => Verdict::Warning(Error::new(ErrorKind::Config, said).hint("have it renewed")),
        false => good(said),
    })
}

/// Whether these addresses are this machine's. A broker may be listening there.
fn addresses(config: &Config) -> Result<Verdict> {
    let authz = config.authz.as_ref().and_then(|authz| authz.listen);
    let admin = config.admin.as_ref().map(|admin| admin.listen);
    let all: Vec<_> = [Some(config.listen), admin, authz].into_iter().flatten().collect();
    for address in &all {
        // Any port: whose turn it is at this one is not asked.
        let any = SocketAddr::new(address.ip(), 0);
        // What may be exposed is asked of the configuration when it is read.
        if let Err(error) = listener::bind(any, Exposure::AsConfigured) {
            let said = format!("this machine cannot listen on {address}");
            let causes = error.causes().iter().cloned();
            return Err(causes.fold(Error::new(ErrorKind::Io, said), Error::because_of));
        }
    }
    let named: Vec<_> = all.iter().map(SocketAddr::to_string).collect();
    Ok(good(format!("{}; whether the ports are free is not tried", named.join(", "))))
}

/// A database that is not as this version has it yet.
fn not_yet(found: &Found) -> Verdict {
    if !matches!(found, Found::Earlier) {
        return good("there is none yet; the broker makes it");
    }
    Verdict::Warning(
        Error::new(ErrorKind::Config, "an earlier version of tmpcred made it")
            .because_of("the broker brings it up to date at start, and earlier ones refuse it then")
            .hint("make a backup with that version first: `tmpcred broker backup`"),
    )
}

async fn clocks(store: &dyn Store, host: &Host) -> Result<Verdict> {
    let Some(there) = store.now().await? else {
        return Ok(good("it is there, and of this version"));
    };
    let here = host.clock.now();
    Ok(match apart(there, here) {
        Some(by) => Verdict::Warning(
            Error::new(ErrorKind::Config, format!("its clock and this machine's are {by} apart"))
                .hint("set the one that is wrong: tokens and records would have wrong times"),
        ),
        None => good("it is there, of this version, and its clock is right"),
    })
}

/// Whether the key-encryption key opens the database, this is the broker that it is of, and its
/// log ends as a broker has left it.
async fn keys(store: &dyn Store, kek: &Kek, config: &Config) -> Result<Verdict> {
    let Some(root_key) = RootKey::find(store, kek).await? else {
        return Ok(good("there are none yet; the broker makes them"));
    };
    let keys = CheckpointKeys::of_whole_log(store, &root_key).await?;
    keys.require_name(store, &audit::origin(&config.issuer)).await?;
    let number = store.size().await?;
    Ok(good(format!("the key-encryption key opens them; records in the log: {number}")))
}

#[cfg(test)]
mod tests;
