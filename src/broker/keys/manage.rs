//! What an operator does with the signing keys: `tmpcred broker keys`. The brokers that
//! run on the same database notice within seconds.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use time::OffsetDateTime;

use super::checkpoint::CheckpointKeys;
use super::keeper::Keeper;
use super::life::{self, Rules, Signs};
use super::ring::Snapshot;
use super::{Kek, KeyState, Purpose, SigningAlgorithm, StoredKey, checkpoint};
use crate::broker::audit::{self, Author};
use crate::broker::config::{self, Clients, Config};
use crate::broker::http;
use crate::broker::store;
use crate::error::{Error, ErrorKind, Result};
use crate::host::{Host, files};
use crate::oidc::Issuer;
use crate::wire;

/// What there is to know of a key, besides the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report {
    /// Its id.
    pub kid: String,
    /// What it is for.
    pub purpose: Purpose,
    /// The algorithm by which it signs.
    pub algorithm: String,
    /// Where it is in its life.
    pub state: KeyState,
    /// Whether it is in the JWKS.
    pub shown: bool,
    /// When it was made.
    pub created_at: OffsetDateTime,
    /// When it came to its state.
    pub changed_at: OffsetDateTime,
    /// When it will sign, where it is published.
    pub signs_from: Option<OffsetDateTime>,
    /// Until when it is in the JWKS, where it is retired.
    pub shown_until: Option<OffsetDateTime>,
    /// Its public half, as whoever checks the audit log takes it, where it signs that.
    pub of_log: Option<String>,
}

/// Which keys are rotated.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Which {
    /// Those that sign tokens by these algorithms.
    pub algorithms: Vec<SigningAlgorithm>,
    /// The one that signs the audit log.
    pub log: bool,
    /// All.
    pub all: bool,
}

/// What became of a rotation that was asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotation {
    /// The keys as they are now.
    pub keys: Vec<Report>,
    /// The ids of those that were published now; where there are none, rotations were under
    /// way.
    pub begun: Vec<String>,
    /// The ids of those that were made now and sign at once, as the first of an algorithm does.
    pub made: Vec<String>,
    /// The ids of those whose rotation was asked for, and is under way.
    pub under_way: Vec<String>,
}

/// The keys of a broker's database, for one operation.
pub struct Manager {
    keeper: Keeper,
    /// Whom the metadata tells how to authenticate.
    clients: Clients,
}

impl Manager {
    /// Opens the database of the broker that this file describes. Needs a runtime.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where there is none, or where the broker would not start
    /// with it either.
    pub async fn open(host: &Host, config: &Path) -> Result<Self> {
        let config: Config = config::load(config)?;
        let kek = Kek::load(&config.keys, &host.env).await?;
        let store = store::open_existing(&config.store, &host.env).await?;
        let of_log = CheckpointKeys::of_broker(&store, &kek, &config.issuer).await?;
        let keeper = Keeper {
            store: Arc::new(store),
            root_key: of_log.root_key().clone(),
            clock: host.clock.clone(),
            rules: Rules::from(&config.keys),
            issuer: config.issuer,
            name: "operator",
            seen: Arc::default(),
        };
        let manager = Self { keeper, clients: config.client };
        // Nothing is told, and nothing done, that somebody made up.
        manager.keeper.unseal_all(&manager.keeper.stored().await?).await?;
        manager.keeper.store.seal_with(of_log.root_key().seal_of_log()).await?;
        Ok(manager)
    }

    /// All keys, the oldest first.
    pub async fn list(&self) -> Result<Vec<Report>> {
        self.keeper.list().await
    }

    /// Begins a rotation of these keys, where nobody says which of the one that usually signs
    /// tokens: the next key is published. Where it has been for long enough, it signs. Nothing
    /// is begun where one is under way.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where the broker does not sign by such an algorithm;
    /// [`ErrorKind::Verification`] where the last records of the log are gone.
    pub async fn rotate(&self, which: &Which) -> Result<Rotation> {
        // Nothing is lost by waiting, as it is where a key has to be revoked.
        store::require_last(self.keeper.store.as_ref()).await?;
        self.keeper.rotate(which, None).await
    }

    /// Revokes keys: what they signed is good no more. Where one of them signs, another
    /// one does from then on. Returns all keys, and which of these were revoked before.
    ///
    /// It is done also where records of the log are gone, as at a broker that runs: whoever has
    /// the key does not wait until that is mended.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where there is no such key; then none is revoked.
    pub async fn revoke(
        &self,
        kids: &[String],
        why: &str,
    ) -> Result<(Vec<Report>, BTreeSet<String>)> {
        let before = self.keeper.stored().await?.into_iter();
        let before = before.filter(|key| key.state == KeyState::Revoked).map(|key| key.kid);
        let before = before.filter(|kid| kids.contains(kid)).collect();
        Ok((self.keeper.revoke(kids, why, None).await?, before))
    }

    /// Writes the discovery document and the JWKS into a directory, for a web server that
    /// everybody can reach at the address of the issuer. Returns what was written.
    pub async fn export(&self, directory: &Path) -> Result<Vec<PathBuf>> {
        let keys = Snapshot::of(&self.keeper, self.keeper.stored().await?).await?;
        let (issuer, algorithms) = (&self.keeper.issuer, self.keeper.rules.algorithms);
        let document = http::openid_configuration(issuer, &self.clients, algorithms)?;
        let below = |name: &str| directory.join(name);
        let files = [
            // The keys come first: who reads the document finds them.
            (below(wire::JWKS_PATH), keys.jwks()),
            (below(crate::oidc::discovery::WELL_KNOWN), &document),
        ];
        for (path, bytes) in &files {
            files::write_public(path, bytes)?;
        }
        Ok(files.into_iter().map(|(path, _)| path).collect())
    }

    /// Whose keys they are.
    pub fn issuer(&self) -> &Issuer {
        &self.keeper.issuer
    }

    /// Lets go of the database.
    pub async fn close(self) {
        self.keeper.store.close().await;
    }
}

impl Keeper {
    /// All keys, the oldest first.
    pub(super) async fn list(&self) -> Result<Vec<Report>> {
        let keys = self.stored().await?;
        // Nothing is told that somebody made up.
        self.unseal_all(&keys).await?;
        self.reports(&keys)
    }

    /// Begins a rotation, in somebody's name where they are none of those who run this.
    pub(super) async fn rotate(&self, which: &Which, by: Option<&Author>) -> Result<Rotation> {
        let rules = self.rules;
        let of = self.meant(which)?;
        let before = self.stored().await?;
        let keys = if rules.rotation(&before, &of).is_empty() {
            self.settle(|_| Vec::new()).await?
        } else {
            self.settle_by(by, |keys| rules.rotation(keys, &of)).await?
        };
        let meant = |key: &&StoredKey| of.iter().any(|of| key.is_for(*of));
        let published = keys.iter().filter(meant).filter(|key| key.state == KeyState::Published);
        let published: Vec<_> = published.map(|key| key.kid.clone()).collect();
        let was = |kid: &String| {
            before.iter().any(|key| key.kid == *kid && key.state == KeyState::Published)
        };
        let (under_way, begun) = published.into_iter().partition(was);
        let is_new = |key: &&StoredKey| before.iter().all(|known| known.kid != key.kid);
        let active = keys.iter().filter(meant).filter(|key| key.state == KeyState::Active);
        let made = active.filter(is_new).map(|key| key.kid.clone()).collect();
        Ok(Rotation { keys: self.reports(&keys)?, begun, made, under_way })
    }

    fn meant(&self, which: &Which) -> Result<Vec<Signs>> {
        let rules = self.rules;
        if which.all {
            return Ok(rules.all().collect());
        }
        let mut meant: Vec<_> = which.algorithms.iter().copied().map(Signs::Tokens).collect();
        if let Some(other) = meant.iter().find(|one| !rules.includes(**one)) {
            return Err(Error::new(ErrorKind::Usage, format!("no key is to sign {other}")).hint(
                "[keys] in broker.toml names the algorithms, by `algorithm` and `audiences`",
            ));
        }
        if which.log {
            meant.push(Signs::Log);
        }
        if meant.is_empty() {
            meant.push(Signs::Tokens(rules.algorithms.usual()));
        }
        Ok(meant)
    }

    /// Revokes keys, in the same way.
    pub(super) async fn revoke(
        &self,
        kids: &[String],
        why: &str,
        by: Option<&Author>,
    ) -> Result<Vec<Report>> {
        let keys = self.stored().await?;
        let is_known = |kid: &str| keys.iter().any(|key| key.kid == kid);
        if let Some(unknown) = kids.iter().find(|kid| !is_known(kid)) {
            return Err(Error::new(ErrorKind::Usage, format!("there is no key '{unknown}'"))
                .hint("`tmpcred broker keys list` shows those that there are"));
        }
        let rules = self.rules;
        let keys = self.settle_by(by, |keys| rules.revocation(keys, kids, why)).await?;
        self.reports(&keys)
    }

    fn reports(&self, keys: &[StoredKey]) -> Result<Vec<Report>> {
        keys.iter().map(|key| self.report(key)).collect()
    }

    fn report(&self, key: &StoredKey) -> Result<Report> {
        let now = self.clock.now();
        let of_log = match key.purpose {
            Purpose::Checkpoint => {
                let private = self.root_key.unseal(key)?;
                let origin = audit::origin(&self.issuer);
                Some(checkpoint::verifier(&origin, &private)?.to_string())
            }
            _ => None,
        };
        Ok(Report {
            kid: key.kid.clone(),
            purpose: key.purpose,
            algorithm: key.algorithm.clone(),
            state: key.state,
            shown: life::is_shown(key, now),
            created_at: key.created_at,
            changed_at: key.changed_at,
            signs_from: (key.state == KeyState::Published).then(|| self.rules.signs_from(key)),
            shown_until: life::shown_until(key).filter(|_| key.purpose == Purpose::AccessToken),
            of_log,
        })
    }
}
