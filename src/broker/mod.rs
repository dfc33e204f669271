//! The broker: it decides who may have which role, for how long, and issues
//! short-lived tokens for it.
//!
//! A request goes through these rooms, and ends at the first that refuses:
//!
//! | room | what it does |
//! |---|---|
//! | [`http`] | takes the request (RFC 8693), within limits |
//! | [`authenticate`] | verifies who is calling, by a token of a trusted issuer |
//! | [`policy`], [`decide`] | decides, by Cedar policies |
//! | [`audit`] | records the decision, durably, and gives a receipt for it |
//! | [`issue`] | signs the token, in exchange for the receipt |
//!
//! A token may be bound to a key of its caller's ([`proof`]).
//!
//! Clients of its own may have to authenticate ([`client`]).
//!
//! People may enroll keys (`enroll`), for when no provider can say who they are.
//!
//! Its own tokens come back ([`own`]) to be revoked ([`revoke`]) and to be asked
//! about ([`introspect`]). Whom policy lets, revokes those of others and looks after the
//! broker from elsewhere (`operate`).
//!
//! [`keys`] holds what signs, [`store`] what must outlive the process, [`config`]
//! what `broker.toml` says, and [`dev`] a broker and a small OpenID provider for
//! a machine that has neither.
//!
//! They approve from a browser on pages (`web`), where the OpenID provider says who they are.
//!
//! People are told what has happened, and what they have to do ([`notify`]).
//!
//! It also decides about requests that a proxy holds up (`authz`), by the tokens that come
//! with them.
//!
//! [`check`] says beforehand whether it could start. [`metrics`] is what can be seen of it from outside. [`told`] is what tokens say besides of whoever has a role, to AWS and to others.
//!
//! There are no globals: two brokers fit in one process.

pub mod audit;
pub mod authenticate;
mod authz;
mod available;
pub mod check;
pub mod client;
pub mod config;
pub mod cutoff;
pub mod decide;
mod denials;
pub mod dev;
pub mod directory;
pub mod elevation;
mod enroll;
pub mod forget;
#[cfg(test)]
mod fuzz;
mod grounds;
pub mod http;
mod ids;
pub mod introspect;
pub mod issue;
pub mod keys;
pub mod metrics;
pub mod network;
pub mod notify;
mod once;
mod opaque;
mod operate;
mod origins;
pub mod own;
pub mod policy;
mod private_file;
mod private_text;
pub mod proof;
pub mod rate;
mod readiness;
mod reload;
mod renewals;
pub mod restored;
pub mod revoke;
pub mod rulebook;
mod serve;
mod signals;
mod signed_post;
pub mod store;
mod survive;
mod sweep;
#[cfg(test)]
mod testbed;
mod tls;
pub mod told;
mod traces;
mod trusted_file;
mod watch;
mod web;

use std::collections::BTreeMap;
use std::sync::Arc;

pub use config::Config;
pub use enroll::Signer;
pub use policy::schema as policy_schema;
pub use reload::Reloaded;
pub use serve::serve;

use audit::outbox::{Outbox, Sinks};
use audit::{Audit, Notary, Whole};
use authenticate::{Ahead, KeysSeal};
use denials::Denials;
use elevation::uses::Gathering;
use elevation::{Crowds, ElevationSeal, Tickets};
use enroll::{EnrollmentSeal, Logins};
use keys::{Algorithms, CheckpointKeys, Keeper, Kek, KeyRing, RootKey, Rules, SigningAlgorithm};
use metrics::{Active, Metrics, StoreClock};
use network::Network;
use opaque::OpaqueSeal;
use origins::Origins;
use policy::Source;
use proof::Proofs;
use readiness::Readiness;
use reload::Current;
use renewals::Renewals;
use rulebook::Rulebook;
use store::Store;
use sweep::Sweeping;
use traces::Traces;
use web::PageSeal;

use crate::error::{Error, Result};
use crate::host::Host;
use crate::host::clock::Clock;
use crate::host::env::Env;
use crate::oidc::Issuer;
use crate::trace::Tracer;

/// A broker, ready to answer.
pub struct Broker {
    issuer: Issuer,
    /// By which algorithm tokens for an audience are signed, where not by the usual one.
    signing: BTreeMap<String, SigningAlgorithm>,
    algorithms: Algorithms,
    current: Current,
    /// What fetches the keys of issuers before anybody needs them.
    ahead: Option<Ahead>,
    keys: KeyRing,
    audit: Audit,
    notary: Notary,
    outbox: Outbox,
    /// What tells people.
    notices: notify::Outbox,
    store: Arc<dyn Store>,
    readiness: Readiness,
    sweeping: Sweeping,
    denials: Denials,
    proofs: Proofs,
    opaque_seal: OpaqueSeal,
    elevations: ElevationSeal,
    uses: Gathering,
    /// Places for the commands that say whether there is a ticket.
    tickets: Tickets,
    /// Turns for those who have policy asked about very many people.
    crowds: Crowds,
    /// What browsers carry.
    pages_seal: PageSeal,
    env: Env,
    enrollment_seal: EnrollmentSeal,
    logins: Logins,
    trusted_proxies: Vec<Network>,
    metrics: Arc<Metrics>,
    active: Active,
    store_clock: Arc<StoreClock>,
    renewals: Renewals,
    origins: Origins,
    traces: Traces,
    clock: Arc<dyn Clock>,
}

/// What a broker is made of besides its configuration.
pub struct Parts {
    /// Where keys and audit log are kept.
    pub store: Arc<dyn Store>,
    /// What seals the keys, and all else.
    pub root_key: RootKey,
    /// The policies.
    pub policies: Vec<Source>,
}

impl Broker {
    /// Makes a broker from what `broker.toml` says. Needs a runtime.
    ///
    /// # Errors
    /// Whatever keeps it from working: it does not start half.
    pub async fn open(config: &Config, host: &Host) -> Result<Self> {
        // The key comes first: without one, no database is made.
        let kek = Kek::load(&config.keys, &host.env).await?;
        let policies = Source::read_all(&config.policy.files)?;
        // What needs no store is checked before one is made.
        let traces = Traces::start(&config.telemetry, host)?;
        let prepared = Prepared::new(config, &policies, host, &traces.tracer())?;
        let store: Arc<dyn Store> = Arc::new(store::open(&config.store, &host.env).await?);
        let root_key = RootKey::open_or_make(store.as_ref(), &kek, host.clock.now()).await?;
        let seal = KeysSeal::new(&root_key);
        let broker = prepared.assemble(config, store, root_key, host).await?;
        let ahead = Some(broker.fetch_ahead(seal).await);
        Ok(Self { traces, ahead, ..broker })
    }

    /// Makes a broker from these parts. Needs a runtime.
    pub async fn assemble(config: &Config, parts: Parts, host: &Host) -> Result<Self> {
        let prepared = Prepared::new(config, &parts.policies, host, &Tracer::default())?;
        prepared.assemble(config, parts.store, parts.root_key, host).await
    }

    /// The broker's issuer identifier.
    pub fn issuer(&self) -> &Issuer {
        &self.issuer
    }

    /// What it counts and measures.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// What makes the spans of its requests.
    pub(crate) fn tracer(&self) -> Tracer {
        self.traces.tracer()
    }

    /// Tells those who ask whether it is ready that it is not any more.
    pub fn drain(&self) {
        self.readiness.end();
    }

    /// Writes what is queued and closes the store.
    pub async fn close(mut self) {
        if let Some(ahead) = self.ahead.take() {
            ahead.close().await;
        }
        self.summarize(self.denials.all()).await;
        self.uses.close().await;
        self.audit.close().await;
        self.outbox.close().await;
        self.notices.close().await;
        self.notary.close().await;
        self.keys.close().await;
        self.store.close().await;
        // The last, so that what was done until now is told.
        self.traces.close().await;
    }
}

/// What can be made, and found wrong, without a store.
struct Prepared {
    book: Rulebook,
    sinks: Sinks,
}

impl Prepared {
    fn new(config: &Config, policies: &[Source], host: &Host, tracer: &Tracer) -> Result<Self> {
        let book = Rulebook::new(config.clone(), policies, host, None)?;
        let now = host.clock.now();
        if book.directory().is_some_and(|directory| directory.is_stale(now)) {
            tracing::warn!("the directory of people is out of date: rules that use it deny");
        }
        let sinks = Sinks::new(&config.audit, &config.issuer, host, tracer)?;
        Ok(Self { book, sinks })
    }

    async fn assemble(
        self,
        config: &Config,
        store: Arc<dyn Store>,
        root_key: RootKey,
        host: &Host,
    ) -> Result<Broker> {
        let checkpoints = CheckpointKeys::open(store.as_ref(), &root_key, host.clock.as_ref())
            .await
            .map_err(|error| error.context("the broker's signing keys cannot be used"))?;
        let origin = audit::origin(&config.issuer);
        checkpoints.require_name(store.as_ref(), &origin).await?;
        let (proofs, opaque_seal) = (Proofs::new(config, &root_key), OpaqueSeal::new(&root_key));
        let [elevations, of_uses] = [(); 2].map(|()| ElevationSeal::new(&root_key, &config.issuer));
        let enrollment_seal = EnrollmentSeal::new(&root_key);
        let pages_seal = PageSeal::new(&root_key, &config.issuer);
        let keeper = Keeper {
            store: store.clone(),
            root_key,
            clock: host.clock.clone(),
            rules: Rules::from(&config.keys),
            issuer: config.issuer.clone(),
            name: "broker",
            // Tokens of its own come to it as those of any issuer, too.
            seen: self.book.authenticator().seen().clone(),
        };
        let keys = KeyRing::open(keeper)
            .await
            .map_err(|error: Error| error.context("the broker's signing keys cannot be used"))?;
        let metrics = Arc::<Metrics>::default();
        let (clock, failures) = (host.clock.clone(), metrics.unsigned());
        let origins = Origins::start(store.clone(), metrics.clone());
        let uses = Gathering::start(store.clone(), of_uses, metrics.clone());
        let whole = Whole::default();
        let found = (failures, whole.clone());
        let notary = Notary::start(store.clone(), checkpoints, &origin, clock, found);
        let current = Current::new(self.book, host);
        Ok(Broker {
            issuer: config.issuer.clone(),
            signing: config.keys.audiences.clone(),
            algorithms: config.keys.algorithms(),
            notices: current.tell_people(&store),
            current,
            ahead: None,
            keys,
            audit: Audit::start(store.clone(), whole),
            notary,
            outbox: Outbox::start(store.clone(), self.sinks),
            store,
            readiness: Readiness::default(),
            sweeping: Sweeping::default(),
            denials: Denials::default(),
            proofs,
            opaque_seal,
            elevations,
            uses,
            tickets: Tickets::default(),
            crowds: Crowds::default(),
            pages_seal,
            env: host.env.clone(),
            enrollment_seal,
            logins: Logins::default(),
            trusted_proxies: config.trusted_proxies.clone(),
            metrics,
            active: Active::default(),
            store_clock: Arc::default(),
            renewals: Renewals::default(),
            origins,
            traces: Traces::default(),
            clock: host.clock.clone(),
        })
    }
}
