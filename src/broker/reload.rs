//! Policies read anew while the broker runs.
//!
//! A request takes the policies once, when it begins, and goes by them to its end: they
//! say what its token must tell, they decide, and their hash is in its record.

use std::sync::{Arc, Mutex, PoisonError, RwLock};

use time::OffsetDateTime;

use super::Broker;
use super::config::Config;
use super::metrics::Reload;
use super::policy::{Policy, Source, World};
use crate::error::Result;

/// The policies that decide now, and from where others are read.
pub(super) struct Policies {
    config: Config,
    /// Held while files are read, so that what was read last is what counts.
    reading: Mutex<()>,
    current: RwLock<Arc<Policy>>,
}

impl Policies {
    pub(super) fn new(config: &Config, policy: Policy) -> Self {
        Self {
            config: config.clone(),
            reading: Mutex::default(),
            current: RwLock::new(Arc::new(policy)),
        }
    }

    fn current(&self) -> Arc<Policy> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns those that were there before, and the new ones.
    fn reload(&self, now: OffsetDateTime) -> Result<(Arc<Policy>, Arc<Policy>)> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let sources = Source::read_all(&self.config.policy.files)?;
        let directory = self.config.directory(now)?;
        let world = World::of(&self.config, directory.as_ref());
        let new = Arc::new(Policy::load(&sources, world)?);
        let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
        Ok((std::mem::replace(&mut current, new.clone()), new))
    }
}

/// What came of reading the policies anew.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reloaded {
    /// The hash of those that decided until now.
    pub before: String,
    /// The hash of those that decide from now on; the same where nothing has changed.
    pub now: String,
}

impl Broker {
    /// The policies that decide now. Whoever decides takes them once and goes by them.
    pub fn policies(&self) -> Arc<Policy> {
        self.policies.current()
    }

    /// Reads the policies and the directory of people anew, checks them, and lets them decide from now on; all of
    /// them at once. Requests under way go by those that they began with.
    ///
    /// It reads files, and so blocks.
    ///
    /// # Errors
    /// Policies that cannot be read or used. Then those that were there stay.
    pub fn reload_policies(&self) -> Result<Reloaded> {
        match self.policies.reload(self.clock.now()) {
            Ok((before, now)) => {
                self.metrics.policies_reloaded(Reload::Done);
                let (before, now) = (before.hash().to_string(), now.hash().to_string());
                if before == now {
                    tracing::info!(hash = now, "the policies were read anew and are the same");
                } else {
                    tracing::info!(before, hash = now, "other policies decide from now on");
                }
                Ok(Reloaded { before, now })
            }
            Err(error) => {
                self.metrics.policies_reloaded(Reload::Refused);
                tracing::error!(
                    %error,
                    hash = self.policies().hash(),
                    "the new policies are refused; those that were there stay"
                );
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use serde_json::json;

    use crate::broker::testbed::{Bed, CORP};

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
    async fn a_version_that_was_taken_does_not_change() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("policy.cedar");
        let bed = bed(&path).await;
        let taken = bed.broker.policies();
        let hash = taken.hash().to_string();
        write(&path, &permit("// other\n"));
        bed.broker.reload_policies().unwrap();
        assert_eq!(taken.hash(), hash);
        assert_ne!(bed.broker.policies().hash(), hash);
    }
}
