//! Configuration and policies read anew while the broker runs.
//!
//! All of it is read, checked and put into force as one [`Rulebook`], or none of it; but for
//! people who have left the directory, who are gone at once. What a running process cannot
//! change, such as where it listens, stays as it is, and is named.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use super::Broker;
use super::authenticate::{Ahead, KeysSeal};
use super::config::{self, Config};
use super::metrics::Reload;
use super::notify::Outbox;
use super::policy::Source;
use super::rulebook::Rulebook;
use super::store::Store;
use crate::error::Result;
use crate::host::Host;

/// The rulebook that is in force.
pub(super) struct Current {
    host: Host,
    /// Held while files are read, so that what was read last is what counts.
    reading: Mutex<()>,
    book: Arc<RwLock<Arc<Rulebook>>>,
    /// Whether the configuration that was read last has what takes a restart.
    restart_pending: AtomicBool,
    /// The files that it names, where it was refused.
    refused: Mutex<Vec<PathBuf>>,
}

impl Current {
    pub(super) fn new(book: Rulebook, host: &Host) -> Self {
        let book = Arc::new(RwLock::new(Arc::new(book)));
        let restart_pending = AtomicBool::new(false);
        let (reading, refused) = (Mutex::default(), Mutex::default());
        Self { host: host.clone(), reading, book, restart_pending, refused }
    }

    fn book(&self) -> Arc<Rulebook> {
        newest(&self.book)
    }

    /// Tells people what is put on record for them, from now on, by the channels and the
    /// directory that are in force.
    pub(super) fn tell_people(&self, store: &Arc<dyn Store>) -> Outbox {
        let book = self.book.clone();
        Outbox::start(store.clone(), self.host.clock.clone(), move || newest(&book))
    }

    fn reload(&self) -> Result<Reloaded> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let before = self.book();
        self.read_anew(&before).inspect_err(|_| self.let_go(&before))
    }

    /// Only that: nothing else is read.
    fn let_go_now(&self) {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        self.let_go(&self.book());
    }

    /// Whoever has left the directory decides about nothing any more, whatever else is wrong.
    fn let_go(&self, before: &Rulebook) {
        match before.without_who_left(&self.host) {
            Ok(None) => {}
            Ok(Some(book)) => {
                tracing::warn!("those who have left the directory of people are gone all the same");
                self.put(book);
            }
            Err(error) => {
                let causes = error.causes().join(": ");
                tracing::error!(%error, causes, "who has left the directory of people is not known");
            }
        }
    }

    fn put(&self, book: Rulebook) {
        *self.book.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(book);
    }

    fn read_anew(&self, before: &Rulebook) -> Result<Reloaded> {
        let wanted = match &before.config().path {
            Some(path) => config::load(path)?,
            // It was never in a file; but what it names is.
            None => before.config().clone(),
        };
        let named = wanted.reread().map(PathBuf::from).collect();
        self.names_refused(named);
        let change = before.config().change_to(wanted);
        // That is so whatever becomes of the rest.
        self.restart_pending.store(!change.fixed.is_empty(), Ordering::Relaxed);
        // What is new has to fit what stays.
        change.config.check()?;
        let sources = Source::read_all(&change.config.policy.files)?;
        let new = Rulebook::new(change.config, &sources, &self.host, Some(before))?;
        let reloaded = Reloaded {
            before: before.hash().to_string(),
            now: new.hash().to_string(),
            changed: change.changed,
            fixed: change.fixed,
        };
        self.put(new);
        self.names_refused(Vec::new());
        Ok(reloaded)
    }

    /// These are the files of what was refused; until it is known whether it is.
    fn names_refused(&self, files: Vec<PathBuf>) {
        *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = files;
    }
}

fn newest(book: &RwLock<Arc<Rulebook>>) -> Arc<Rulebook> {
    book.read().unwrap_or_else(PoisonError::into_inner).clone()
}

/// What came of reading all anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The hash of the policies that decided until now.
    pub before: String,
    /// The hash of those that decide from now on; the same where nothing has changed.
    pub now: String,
    /// The keys and tables of the configuration that are others from now on.
    pub changed: Vec<&'static str>,
    /// Those that take a restart: they are as they were.
    pub fixed: Vec<&'static str>,
}

impl Broker {
    /// The policies that decide now, with all that is in force with them. Whoever decides
    /// takes them once and goes by them.
    pub fn policies(&self) -> Arc<Rulebook> {
        self.current.book()
    }

    /// Fetches the keys of all issuers that are in force, from now on, ahead of all need, and
    /// keeps them in the store. It goes on with those that were kept, and waits for no issuer.
    pub(super) async fn fetch_ahead(&self, seal: KeysSeal) -> Ahead {
        let book = self.current.book.clone();
        Ahead::start(move || newest(&book).authenticator().remote(), &self.store, seal).await
    }

    /// The files that the configuration names which was read last, where that was refused.
    pub(super) fn refused_files(&self) -> Vec<PathBuf> {
        self.current.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether the configuration that was read last has changes that take a restart.
    pub(super) fn is_restart_pending(&self) -> bool {
        self.current.restart_pending.load(Ordering::Relaxed)
    }

    /// The configuration that is in force.
    pub(super) fn configuration(&self) -> Config {
        self.policies().config().clone()
    }

    /// Lets those go who have left the directory of people, and changes nothing else, because not
    /// all can be read that there would be to read anew.
    ///
    /// It reads files, and so blocks.
    pub(super) fn let_go_who_left(&self) {
        self.current.let_go_now();
    }

    /// Reads the configuration and all that it names anew, checks it, and goes by it from now
    /// on; by all of it at once. Requests under way go by what they began with.
    ///
    /// It reads files, and so blocks.
    ///
    /// # Errors
    /// Whatever of it cannot be read or used. Then all that was there stays.
    pub fn reload_policies(&self) -> Result<Reloaded> {
        let reloaded = self.current.reload();
        match &reloaded {
            Ok(Reloaded { before, now, changed, fixed }) => {
                self.metrics.policies_reloaded(Reload::Done);
                if fixed.contains(&"issuer") {
                    tracing::error!(
                        "another issuer is for another database: a broker that is started with it on this one refuses; put it back"
                    );
                }
                let fixed: Vec<_> =
                    fixed.iter().copied().filter(|name| *name != "issuer").collect();
                let (changed, fixed) = (changed.join(", "), fixed.join(", "));
                if !fixed.is_empty() {
                    tracing::warn!(
                        fixed,
                        "what was changed there takes a restart; until then it stays as it was"
                    );
                }
                if before != now {
                    tracing::info!(
                        before,
                        hash = now,
                        changed,
                        "other policies decide from now on"
                    );
                } else if changed.is_empty() {
                    tracing::info!(hash = now, "the policies were read anew and are the same");
                } else {
                    tracing::info!(hash = now, changed, "other settings count from now on");
                }
            }
            Err(error) => {
                self.metrics.policies_reloaded(Reload::Refused);
                let hash = self.policies().hash().to_string();
                tracing::error!(%error, hash, "what was read anew is refused; what was there stays");
            }
        }
        reloaded
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use crate::broker::issue::Ask;
    use crate::broker::testbed::{API, Bed, CORP, IssuerKey, Served};
    use crate::credential::TokenType;
    use crate::secret::Secret;

    fn permit(more: &str) -> String {
        format!(
            "@id(\"p\") @ttl(\"15m\") @scope(\"deploy:read\") permit (principal, action == Action::\"issue\", resource == Role::\"deploy\");\n{more}"
        )
    }

    fn write(path: &Path, text: &str) {
        crate::host::files::write_private(path, text.as_bytes()).unwrap();
    }

    async fn bed(path: &Path) -> Bed {
        write(path, &permit(""));
        Bed::with(|options| {
            options.config.policy.files = vec![path.into()];
            options.policies = permit("");
        })
        .await
    }

    async fn status(bed: &Bed, claims: serde_json::Value) -> u16 {
        bed.exchange(&bed.key.token(claims), &[]).await.status.as_u16()
    }

    #[tokio::test]
    async fn new_policies_decide_and_broken_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.cedar");
        let bed = bed(&path).await;
        let first = bed.broker.policies().hash().to_string();
        assert_eq!(status(&bed, json!({})).await, 200);

        for broken in ["permit (", "", &permit("@id(\"p\") forbid (principal, action, resource);")]
        {
            write(&path, broken);
            assert!(bed.broker.reload_policies().is_err(), "{broken}");
            assert_eq!(bed.broker.policies().hash(), first);
            assert_eq!(status(&bed, json!({})).await, 200);
        }
        crate::host::files::remove(&path).unwrap();
        assert!(bed.broker.reload_policies().is_err());

        let user = format!("User::\"{CORP}#alice\"");
        write(
            &path,
            &permit(&format!("@id(\"no\") forbid (principal == {user}, action, resource);")),
        );
        let reloaded = bed.broker.reload_policies().unwrap();
        assert_eq!(reloaded.before, first);
        assert_eq!(reloaded.now, bed.broker.policies().hash());
        assert_ne!(reloaded.now, first);
        assert_eq!(status(&bed, json!({})).await, 400);
        assert_eq!(status(&bed, json!({"sub": "bob"})).await, 200);
        // Whoever compares several brokers sees which decide by the same.
        let metrics = bed.admin.get("/metrics").await.body;
        let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
        let told: Vec<_> =
            metrics.lines().filter(|line| line.starts_with("tmpcred_policy_info{")).collect();
        assert_eq!(told, [format!("tmpcred_policy_info{{hash=\"{}\"}} 1", reloaded.now)]);
    }

    #[tokio::test]
    async fn what_new_policies_need_is_demanded_of_tokens_at_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.cedar");
        let bed = bed(&path).await;
        let without_groups = json!({"groups": null});
        assert_eq!(status(&bed, without_groups.clone()).await, 200);
        let group = format!("Group::\"{CORP}#interns\"");
        write(
            &path,
            &permit(&format!("@id(\"no\") forbid (principal in {group}, action, resource);")),
        );
        bed.broker.reload_policies().unwrap();
        assert_eq!(status(&bed, without_groups.clone()).await, 400);
        assert_eq!(status(&bed, json!({})).await, 200);
        // And no longer, once no policy needs it.
        write(&path, &permit(""));
        bed.broker.reload_policies().unwrap();
        assert_eq!(status(&bed, without_groups).await, 200);
    }

    /// A request that has begun goes by what it began with.
    #[tokio::test]
    async fn a_version_that_was_taken_does_not_change_nor_do_its_roles() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.cedar");
        let file = dir.path().join("broker.toml");
        let jwks = dir.path().join("jwks.json");
        let bed = Bed::with(|options| {
            write(&path, &permit(""));
            options.config.policy.files = vec![path.clone()];
            options.config.path = Some(file.clone());
            options.policies = permit("");
        })
        .await;
        write(&jwks, &bed.key.jwks().to_string());
        let toml = format!(
            "issuer = \"https://broker.example.com\"\n[store]\npath = \"other.db\"\n\
             [trusted_issuer.corp]\nissuer = \"{CORP}\"\njwks_file = \"jwks.json\"\n\
             [policy]\nfiles = [\"policy.cedar\"]\n\
             [role.other]\naudiences = [\"{API}\"]\nscopes = [\"deploy:read\"]\nmax_ttl = \"1h\"\n"
        );
        let taken = bed.broker.policies();
        let token = Secret::new(bed.key.token(json!({})));
        let caller = bed.broker.caller(&token, TokenType::Jwt, &taken, None).await.unwrap();
        write(&file, &toml);
        assert!(bed.broker.reload_policies().is_err(), "the policies are about another role");
        write(&path, &permit("").replace("Role::\"deploy\"", "Role::\"other\""));
        let reloaded = bed.broker.reload_policies().unwrap();
        assert_eq!(reloaded.changed, ["[trusted_issuer]", "[role]"]);
        assert_eq!(reloaded.fixed, ["listen", "[store]"]);
        let ask = Ask {
            role: "deploy".into(),
            audience: API.into(),
            scope: None,
            ttl: None,
            proof: None,
            elevation: None,
            idempotency_key: None,
            jwt: false,
            source: [127, 0, 0, 1].into(),
            request_id: uuid::Uuid::nil(),
        };
        let issued = bed.broker.issue(&taken, &caller, &ask).await.unwrap();
        assert_eq!(issued.role, "deploy");
        let now = bed.broker.policies();
        assert!(bed.broker.issue(&now, &caller, &ask).await.is_err());
        assert_eq!(taken.hash(), reloaded.before);
        assert_eq!(now.hash(), reloaded.now);
    }

    /// It is told for as long as it is so, whatever becomes of the rest.
    #[tokio::test]
    async fn what_takes_a_restart_is_told_until_it_is_put_back() {
        let dir = tempfile::tempdir().unwrap();
        let (path, file) = (dir.path().join("policy.cedar"), dir.path().join("broker.toml"));
        let bed = Bed::with(|options| {
            write(&path, &permit(""));
            options.config.policy.files = vec![path.clone()];
            options.config.path = Some(file.clone());
            options.policies = permit("");
        })
        .await;
        write(&dir.path().join("jwks.json"), &bed.key.jwks().to_string());
        let config = bed.broker.configuration();
        let (listen, store) = (config.listen, config.store.path.unwrap());
        let put = |listen: &str, role: &str| {
            let toml = format!(
                "issuer = \"https://broker.example.com\"\nlisten = \"{listen}\"\n[store]\npath = {store:?}\n\
                 [trusted_issuer.corp]\nissuer = \"{CORP}\"\njwks_file = \"jwks.json\"\n\
                 [policy]\nfiles = [\"policy.cedar\"]\n\
                 [role.{role}]\naudiences = [\"{API}\"]\nscopes = [\"deploy:read\"]\nmax_ttl = \"1h\"\n"
            );
            write(&file, &toml);
            bed.broker.reload_policies().map(|reloaded| reloaded.fixed)
        };
        let told = async || {
            let metrics = bed.admin.get("/metrics").await.body;
            let metrics = String::from_utf8(metrics.expose().clone()).unwrap();
            let told = metrics.lines().find(|line| line.starts_with("tmpcred_restart_pending "));
            told.unwrap().to_string()
        };
        let (here, other) = (listen.to_string(), "127.0.0.1:9");
        assert_eq!(told().await, "tmpcred_restart_pending 0");
        assert_eq!(put(other, "deploy").unwrap(), ["listen"]);
        assert_eq!(told().await, "tmpcred_restart_pending 1");
        // As it is where nothing else was changed since.
        assert_eq!(put(other, "deploy").unwrap(), ["listen"]);
        assert_eq!(told().await, "tmpcred_restart_pending 1");
        assert!(put(&here, "deploy").unwrap().is_empty());
        assert_eq!(told().await, "tmpcred_restart_pending 0");
        // Policies that are about another role than there is are refused.
        assert!(put(other, "gone").is_err());
        assert_eq!(told().await, "tmpcred_restart_pending 1");
    }

    /// Whoever is the same goes on with the keys that were fetched.
    #[tokio::test]
    async fn keys_that_were_fetched_outlast_other_policies() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.cedar");
        let key = IssuerKey::new();
        let (jwks, asked) = (key.jwks().to_string(), Arc::new(AtomicUsize::new(0)));
        let counted = asked.clone();
        let answer = move || {
            counted.fetch_add(1, Ordering::Relaxed);
            let jwks = jwks.clone();
            async move { jwks }
        };
        let route = axum::routing::get(answer);
        let issuer = Served::start(|_| axum::Router::new().route("/keys", route), None);
        let any = permit("").replace("@id", "@any_issuer @id");
        write(&path, &any);
        let bed = Bed::with(|options| {
            options.config.policy.files = vec![path.clone()];
            options.policies = any.clone();
            let id = crate::oidc::Issuer::parse("https://fetched.example").unwrap();
            let mut trusted = crate::broker::config::TrustedIssuer::new(id);
            trusted.jwks_uri = Some(format!("http://{}/keys", issuer.address).parse().unwrap());
            options.config.trusted_issuer.insert("fetched".into(), trusted);
        })
        .await;
        let token = || key.token(json!({"iss": "https://fetched.example"}));
        assert_eq!(bed.exchange(&token(), &[]).await.status.as_u16(), 200);
        write(&path, &(any + "// other\n"));
        bed.broker.reload_policies().unwrap();
        assert_eq!(bed.exchange(&token(), &[]).await.status.as_u16(), 200);
        assert_eq!(asked.load(Ordering::Relaxed), 1);
    }
}
