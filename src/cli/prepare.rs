//! From what was typed to what is to be done: configuration, plan and cache,
//! or the embedded broker in their place.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::cache::Cache;
use crate::config::{self, Config};
use crate::credential::{Assertion, Credential};
use crate::deliver::Handout;
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::{ASKED_FOR, CACHE_KEY};
use crate::host::surroundings::is_ci;
use crate::host::{Host, files};
use crate::identity::{self, Candidate};
use crate::mint::Narrowing;
use crate::pipeline::{self, Origin, OwnCredential, Terms};
use crate::plan::{self, Plan};
use crate::secret::Secret;
use crate::trace::{self, Place};

use super::ahead::Ahead;
use super::args::{AtExit, Chosen, Fresh, Output, Wanted};
use super::renewal::Own;
use super::{App, misuse, show};

/// What yields an assertion in place of the plan's identity.
pub(crate) type Proving = Box<dyn FnOnce() -> Result<Assertion> + Send>;

/// All that the pipeline needs.
pub(crate) struct Prepared {
    pub host: Host,
    pub cache: Arc<Cache>,
    pub plan: Plan,
    /// The identity sources that were looked at.
    pub sources: Vec<Candidate>,
    /// What was asked for, where it may be asked for again in the background.
    pub ahead: Option<Wanted>,
    /// Whether the tokens of brokers that are steps to the credential are revoked once they
    /// have served.
    pub revokes_steps: bool,
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
        let (refresh, min_ttl) = (fresh.refresh, fresh.min_ttl);
        let (ahead, revokes_steps) = (self.ahead.is_some(), self.revokes_steps);
        let terms = Terms { refresh, min_ttl, asked_again, ahead, revokes_steps };
        let (credential, origin) =
            pipeline::credential(&self.asking()?, &self.cache, &self.plan, terms)?;
        match origin {
            Origin::Ageing => self.in_background(&credential, Ahead::Renew),
            Origin::Unchecked => self.in_background(&credential, Ahead::Check),
            Origin::Cache | Origin::Minted | Origin::Stale => {}
        }
        Ok(credential)
    }

    /// What gets a credential of this run's own, to be revoked at its end, wherever that is done;
    /// from the assertion that `proving` has, where there is that.
    pub(crate) fn minting(
        &self,
        fresh: &Fresh,
        proving: Option<Proving>,
        own: &Arc<Own>,
    ) -> Result<impl FnOnce() -> Result<Credential> + Send + 'static> {
        let terms = Terms { refresh: fresh.refresh, min_ttl: fresh.min_ttl, ..Terms::default() };
        let (host, cache, plan) = (self.asking()?, Arc::clone(&self.cache), self.plan.clone());
        let (place, own) = (Place::here(), Arc::clone(own));
        Ok(move || {
            own.minting(|begins| {
                place.within(|| match proving {
                    Some(proving) => {
                        let assertion = proving()?;
                        begins()?;
                        pipeline::own_credential_from(&host, &cache, &plan, assertion, terms)
                    }
                    None => pipeline::own_credential(&host, &cache, &plan, terms, begins),
                })
            })
        })
    }

    /// The world for whoever gets the credential. It tells what is started for that which
    /// credential is being asked for, so that none is asked for to get itself: a program may
    /// have an AWS SDK that asks us. The command that the credential is for may ask again,
    /// and is told nothing.
    pub(crate) fn asking(&self) -> Result<Host> {
        let profile = &self.plan.profile;
        let asked_for = self.host.env.get(ASKED_FOR).unwrap_or_default();
        if asked_for.split(' ').any(|name| name == profile) {
            return Err(Error::new(
                ErrorKind::Config,
                format!(
                    "to get credentials for the profile {profile}, credentials for it are asked for"
                ),
            )
            .because_of(format!(
                "{ASKED_FOR} tells that this program is being asked for them already"
            ))
            .hint(
                "what the profile's identity runs must not use an AWS profile that asks tmpcred",
            ));
        }
        let env = self.host.env.clone().with(ASKED_FOR, format!("{asked_for} {profile}"));
        Ok(Host { env, ..self.host.clone() })
    }

    /// The same up to the broker that gives roles for this profile: its target, or the one that
    /// its only exchange asks.
    ///
    /// # Errors
    /// Where no broker is asked, or several are.
    pub(crate) fn at_broker(&self, host: &Host) -> Result<Self> {
        let profile = &self.plan.profile;
        let plan = self.plan.at_broker().ok_or_else(|| {
            Error::new(ErrorKind::Config, format!("the profile '{profile}' is none of a broker"))
                .because_of("neither is its target one, nor does it have one exchange at one")
                .hint("name a profile whose target is the broker to be asked")
        })?;
        Ok(Self {
            host: host.clone(),
            cache: Arc::clone(&self.cache),
            plan,
            sources: Vec::new(),
            ahead: None,
            revokes_steps: false,
            #[cfg(feature = "broker")]
            embedded: None,
        })
    }

    /// Refuses to hand on what nobody could use: a token that is bound to a key which ends
    /// with this process.
    pub(crate) fn can_be_handed_on(&self) -> Result<()> {
        if !self.plan.wants_key() || !self.cache.ends_with_process() {
            return Ok(());
        }
        Err(Error::new(ErrorKind::Config, "nobody could use the credential")
            .because_of("it is bound to a key that is kept in the memory of this run alone")
            .hint(format!("where there is no keyring, set {CACHE_KEY} (openssl rand -base64 32) for this run and for what it starts"))
            .hint("`tmpcred token --dpop METHOD URL` gets a token and proves the key in one run"))
    }

    /// Why the credential is to be revoked when the command has ended, or `None`
    /// where it is not.
    pub(crate) fn revoked_because(&self, at_exit: AtExit) -> Result<Option<&'static str>> {
        let can = self.plan.target.open().revocation().is_some();
        match at_exit.revoke_on_exit {
            Some(true) if !can => {
                Err(Error::new(ErrorKind::Config, "--revoke-on-exit cannot be kept")
                    .because_of("credentials of this profile's target cannot be revoked")
                    .hint("leave it out, and ask for a short lifetime with --ttl"))
            }
            Some(true) => Ok(Some(
                "--revoke-on-exit: the command gets a credential of its own, which is revoked when it ends",
            )),
            Some(false) => Ok(None),
            // What the embedded broker issues ends with the run anyway.
            None if self.is_embedded() || !can || !is_ci(&self.host.env) => Ok(None),
            None => Ok(Some(
                "CI is set: the command gets a credential of its own, which is revoked when it ends (--revoke-on-exit=false turns that off)",
            )),
        }
    }

    /// The same for a run that revokes what it can of a credential that itself cannot be
    /// revoked: the tokens that were steps to it. Where the credential is, they are too.
    #[must_use]
    pub(crate) fn ending(self, at_exit: AtExit) -> Self {
        let wanted = at_exit.revoke_on_exit.unwrap_or_else(|| is_ci(&self.host.env));
        let revokes_steps = wanted && !self.is_embedded();
        Self { revokes_steps, ..self }
    }

    /// Revokes the credentials of a run at its end, all at once: somebody waits. Failing is
    /// told and no more: the command has ended as it ended.
    pub(crate) fn revoke(&self, minted: &[OwnCredential]) {
        let revoked = pipeline::revoke(&self.host, &self.plan, minted);
        for (own, revoked) in minted.iter().zip(revoked) {
            let Err(error) = revoked else { continue };
            let until = show::moment(own.credential.lifetime.expires_at_local());
            self.host.interact.warn(&format!(
                "the credential could not be revoked and stays good until {until}: {error}"
            ));
        }
    }

    pub(crate) fn is_embedded(&self) -> bool {
        #[cfg(feature = "broker")]
        {
            self.embedded.is_some()
        }
        #[cfg(not(feature = "broker"))]
        false
    }

    /// The credential as programs are given it.
    pub(crate) fn handout<'a>(&'a self, credential: &'a Credential) -> Handout<'a> {
        Handout {
            credential,
            profile: &self.plan.profile,
            env: &self.plan.env,
            environment: &self.host.env,
            outlet: None,
        }
    }

    /// Why the secrets in the command's output are to be masked, or `None` where
    /// they are not.
    pub(crate) fn masked_because(&self, output: Output) -> Option<&'static str> {
        match output.mask {
            Some(true) => Some("--mask: the secrets in the command's output are replaced"),
            None if cfg!(unix) && is_ci(&self.host.env) => Some(
                "CI is set: the secrets in the command's output are replaced (--mask=false turns that off)",
            ),
            _ => None,
        }
    }

    /// What must not be seen in the command's output: what it is handed, and what its
    /// job can prove with who it is.
    pub(crate) fn secrets(&self, handout: &Handout<'_>) -> Result<Vec<Secret<String>>> {
        let mut secrets = handout.secrets()?;
        secrets.extend(identity::proofs(&self.host.env, &self.plan.identity.settings));
        Ok(secrets)
    }

    /// Why the command must run under a supervisor, or `None` where tmpcred can
    /// replace itself by it. `renewed` is why the credential is renewed.
    pub(crate) fn supervised_because(
        &self,
        at_exit: AtExit,
        output: Output,
        renewed: Option<&str>,
    ) -> Result<Option<String>> {
        #[cfg(feature = "broker")]
        let embedded = self
            .embedded
            .is_some()
            .then_some("--dev: the embedded broker runs inside this process");
        #[cfg(not(feature = "broker"))]
        let embedded = None;
        let reasons =
            [self.revoked_because(at_exit)?, self.masked_because(output), renewed, embedded];
        let reasons: Vec<&str> = reasons.into_iter().flatten().collect();
        Ok((!reasons.is_empty()).then(|| reasons.join("; ")))
    }
}

/// Resolves what was typed.
pub(crate) fn prepare(app: &App, chosen: &Chosen) -> Result<Prepared> {
    trace::step("plan").within(|| {
        #[cfg(feature = "broker")]
        if chosen.dev {
            return embedded(app, &chosen.wanted);
        }
        configured(app, &chosen.wanted)
    })
}

/// The same for a role that is had under a grant.
pub(crate) fn elevated(app: &App, chosen: &Chosen, role: &str) -> Result<Prepared> {
    #[cfg(feature = "broker")]
    if chosen.dev {
        return Err(misuse("--elevate is for a broker of yours, not for --dev"));
    }
    trace::step("plan").within(|| resolved(app, &chosen.wanted, Some(role)))
}

/// Resolves what was typed where the embedded broker has nothing to give.
pub(crate) fn configured(app: &App, wanted: &Wanted) -> Result<Prepared> {
    resolved(app, wanted, None)
}

fn resolved(app: &App, wanted: &Wanted, elevate: Option<&str>) -> Result<Prepared> {
    let config = config::load(&app.host)?;
    let elevate = elevate.map(String::from);
    let request = plan::Request { elevate, ..request(wanted, &app.host, &config)? };
    let mut plan = plan::plan(&request, &config)?;
    plan.target.complete()?;
    // A job is over before anybody could wait for the next credential.
    let ahead = config.cache.refresh_ahead && !is_ci(&app.host.env);
    Ok(Prepared {
        host: app.host.clone(),
        cache: Arc::new(cache(&app.host, &config)?),
        plan,
        sources: request.detected,
        ahead: ahead.then(|| wanted.clone()),
        revokes_steps: false,
        #[cfg(feature = "broker")]
        embedded: None,
    })
}

/// The cache that the configuration asks for.
pub(crate) fn cache(host: &Host, config: &Config) -> Result<Cache> {
    config.cache.store.check(host)?;
    Ok(Cache::new(host.clone(), config.cache.store))
}

/// The identity of this name; without a name the only one there is, or that of
/// the profile which a run would use.
pub(crate) fn identity(host: &Host, config: &Config, name: Option<&str>) -> Result<plan::Identity> {
    let request = plan::Request { detected: detected(host, config), ..Default::default() };
    if name.is_none()
        && config.identities.len() > 1
        && let Ok(plan) = plan::plan(&request, config)
    {
        return Ok(plan.identity);
    }
    plan::identity(config, name)
}

/// The embedded broker and provider, and the ordinary way through them.
#[cfg(feature = "broker")]
fn embedded(app: &App, wanted: &Wanted) -> Result<Prepared> {
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
    let request = request(wanted, &host, &config)?;
    let plan = plan::plan(&request, &config)?;
    app.host.interact.note(&format!(
        "development broker on {}: credentials are good here only",
        broker.issuer()
    ));
    let cache = Arc::new(Cache::new(host.clone(), StoreChoice::Memory));
    let embedded = Embedded { _broker: broker, _files: files };
    Ok(Prepared {
        host,
        cache,
        plan,
        sources: request.detected,
        ahead: None,
        revokes_steps: false,
        embedded: Some(embedded),
    })
}

/// The identity sources, and whether they can be used here.
pub(crate) fn detected(host: &Host, config: &Config) -> Vec<Candidate> {
    identity::detect(host, config.identities.iter())
}

/// What a run with this profile would do, and nothing else said.
pub(crate) fn planned(config: &Config, detected: &[Candidate], profile: &str) -> Result<Plan> {
    let (profile, detected) = (Some(profile.to_string()), detected.to_vec());
    plan::plan(&plan::Request { profile, detected, ..Default::default() }, config)
}

/// What was typed, as planning takes it.
pub(crate) fn request(wanted: &Wanted, host: &Host, config: &Config) -> Result<plan::Request> {
    let policy = wanted.policy.as_deref().map(read_policy).transpose()?;
    Ok(plan::Request {
        profile: wanted.profile.clone(),
        role: wanted.role.clone(),
        elevate: None,
        scope: wanted.scope.clone(),
        audience: wanted.audience.clone(),
        ttl: wanted.ttl,
        detected: detected(host, config),
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
