//! From what was typed to what is to be done: configuration, plan and cache,
//! or the embedded broker in their place.

use std::path::Path;
use std::time::Duration;

use crate::cache::Cache;
use crate::config::{self, Config};
use crate::credential::Credential;
use crate::deliver::Handout;
use crate::error::Result;
use crate::host::{Host, files};
use crate::mint::Narrowing;
use crate::pipeline::{self, Freshness};
use crate::plan::{self, Plan};

use super::args::{Fresh, Wanted};
use super::{App, misuse};

/// All that the pipeline needs.
pub(crate) struct Prepared {
    pub host: Host,
    pub cache: Cache,
    pub plan: Plan,
    /// Keeps the embedded broker running as long as this lives.
    #[cfg(feature = "broker")]
    pub embedded: Option<Embedded>,
}

/// What `--dev` runs inside this process.
#[cfg(feature = "broker")]
pub(crate) struct Embedded {
    _broker: crate::broker::dev::DevBroker,
    /// Where the run may write. Removed at its end.
    _files: tempfile::TempDir,
}

impl Prepared {
    /// Gets the credential.
    pub(crate) fn credential(&self, fresh: &Fresh) -> Result<Credential> {
        self.credential_for(fresh, None)
    }

    /// The same for a program that asks again when less than this is left.
    pub(crate) fn credential_for(
        &self,
        fresh: &Fresh,
        asked_again: Option<Duration>,
    ) -> Result<Credential> {
        let freshness = Freshness { refresh: fresh.refresh, min_ttl: fresh.min_ttl, asked_again };
        let (credential, _) = pipeline::credential(&self.host, &self.cache, &self.plan, freshness)?;
        Ok(credential)
    }

    /// The credential as programs are given it.
    pub(crate) fn handout<'a>(&'a self, credential: &'a Credential) -> Handout<'a> {
        Handout {
            credential,
            profile: &self.plan.profile,
            env: &self.plan.env,
            environment: &self.host.env,
        }
    }

    /// Why the command must run under a supervisor, or `None` where tmpcred can
    /// replace itself by it.
    pub(crate) fn supervised_because(&self) -> Option<&'static str> {
        #[cfg(feature = "broker")]
        if self.embedded.is_some() {
            return Some("--dev: the embedded broker runs inside this process");
        }
        None
    }
}

/// Resolves what was typed.
pub(crate) fn prepare(app: &App, wanted: &Wanted) -> Result<Prepared> {
    #[cfg(feature = "broker")]
    if wanted.dev {
        return embedded(app, wanted);
    }
    let config = config::load(&app.host)?;
    let mut plan = plan::plan(&request(wanted)?, &config)?;
    plan.target.complete()?;
    Ok(Prepared {
        host: app.host.clone(),
        cache: cache(&app.host, &config),
        plan,
        #[cfg(feature = "broker")]
        embedded: None,
    })
}

/// The cache that the configuration asks for.
pub(crate) fn cache(host: &Host, config: &Config) -> Cache {
    Cache::new(host.clone(), config.cache.store)
}

/// The identity of this name; without a name the only one there is, or that of
/// the profile which a run would use.
pub(crate) fn identity(config: &Config, name: Option<&str>) -> Result<plan::Identity> {
    if name.is_none()
        && config.identities.len() > 1
        && let Ok(plan) = plan::plan(&plan::Request::default(), config)
    {
        return Ok(plan.identity);
    }
    plan::identity(config, name)
}

/// The embedded broker and provider, and the ordinary way through them.
#[cfg(feature = "broker")]
fn embedded(app: &App, wanted: &Wanted) -> Result<Prepared> {
    use std::sync::Arc;

    use crate::broker::dev;
    use crate::cache::StoreChoice;
    use crate::host::browser::LoopbackBrowser;

    let options = dev::DevOptions { port: None, auto_approve: true };
    let broker = dev::start(&app.host, options)?;
    let (dirs, files) = app.host.dirs.passing()?;
    let host = Host {
        dirs,
        browser: Arc::new(LoopbackBrowser),
        interact: app.ui.clone().embedded().interact(),
        ..app.host.clone()
    };
    let config = config::parse("the embedded configuration", broker.configuration())?;
    let plan = plan::plan(&request(wanted)?, &config)?;
    app.host.interact.note(&format!(
        "development broker on {}: credentials are good here only",
        broker.issuer()
    ));
    let cache = Cache::new(host.clone(), StoreChoice::Memory);
    let embedded = Embedded { _broker: broker, _files: files };
    Ok(Prepared { host, cache, plan, embedded: Some(embedded) })
}

/// What was typed, as planning takes it.
pub(crate) fn request(wanted: &Wanted) -> Result<plan::Request> {
    let policy = wanted.policy.as_deref().map(read_policy).transpose()?;
    Ok(plan::Request {
        profile: wanted.profile.clone(),
        role: wanted.role.clone(),
        scope: wanted.scope.clone(),
        audience: wanted.audience.clone(),
        ttl: wanted.ttl,
        narrowing: Narrowing {
            policy,
            policy_arns: wanted.policy_arn.clone(),
            read_only: wanted.read_only,
        },
    })
}

fn read_policy(file: &Path) -> Result<String> {
    /// What is longer is no policy.
    const MAX: u64 = 64 * 1024;
    files::read_text(file, MAX)?
        .ok_or_else(|| misuse(format!("`--policy`: there is no file {}", file.display())))
}
