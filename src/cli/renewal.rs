//! Renewal, as `exec` uses it: when, with what, and what people hear of it.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::cache::Cache;
use crate::credential::{Credential, TOKEN_FILE_PART};
use crate::deliver::renewal::{News, OnRenewal, Renewal, Supply};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::interact::{Interact, Silent};
use crate::pipeline::{self, OwnCredential, Terms};
use crate::plan::Plan;
use crate::reach::Wish;
use crate::trace::{self, Place};

use super::args::Renew;
use super::prepare::Prepared;
use super::{misuse, show};

impl Prepared {
    /// Why the credential is renewed while the command runs, or `None` where it is not.
    /// Without a credential it may be too early to tell.
    pub(crate) fn renewed_because(
        &self,
        renew: Renew,
        credential: Option<&Credential>,
    ) -> Result<Option<String>> {
        let asks_for_file = self.plan.env.iter().find(|(_, value)| names_token_file(value));
        match (renew.renew, renew.on_renew) {
            (Some(false), Some(_)) => {
                return Err(misuse("`--on-renew` has no meaning with `--renew=false`"));
            }
            (Some(false), None) => {
                return match asks_for_file {
                    Some((name, _)) => Err(misuse("--renew=false cannot be kept").because_of(
                        format!("the profile's {name} names a file with the current token"),
                    )),
                    None => Ok(None),
                };
            }
            (_, Some(_)) if cfg!(not(unix)) => {
                return Err(misuse("`--on-renew` cannot be kept")
                    .because_of("commands cannot be reached on this system"));
            }
            (Some(true), _) => {
                return Ok(Some(
                    "--renew: the credential is renewed while the command runs".into(),
                ));
            }
            (None, Some(_)) => {
                return Ok(Some(
                    "--on-renew: the credential is renewed while the command runs".into(),
                ));
            }
            (None, None) => {}
        }
        if let Some((name, _)) = asks_for_file {
            return Ok(Some(format!("{name}: it names a file with the token, which is renewed")));
        }
        let Some(expected) = self.plan.expected_runtime else { return Ok(None) };
        let left = match credential {
            Some(credential) => {
                Some(credential.lifetime.remaining(self.host.clock.now()).unsigned_abs())
            }
            None => self.plan.request.ttl,
        };
        Ok(left.filter(|left| *left < expected).map(|_| {
            let expected = humantime::format_duration(expected);
            format!("expected_runtime: the credential is good for less than {expected}, and is renewed (--renew=false turns that off)")
        }))
    }

    /// Makes ready to renew this credential.
    pub(crate) fn renewal(
        &self,
        credential: &Credential,
        on_renewal: OnRenewal,
        own: Option<Arc<Own>>,
    ) -> Result<Renewal> {
        // Whoever works at the terminal is not asked from the background.
        let host = Host { interact: Arc::new(Silent), ..self.asking()? };
        let supply = Pipeline {
            place: Place::here(),
            host,
            cache: Arc::clone(&self.cache),
            plan: self.plan.clone(),
            own,
            terms: Terms { revokes_steps: self.revokes_steps, ..Terms::default() },
            interact: Arc::clone(&self.host.interact),
        };
        Renewal::prepare(&self.host, credential.clone(), Box::new(supply), on_renewal)
    }
}

fn names_token_file(template: &str) -> bool {
    template.contains(&format!("{{{TOKEN_FILE_PART}}}"))
}

/// The credentials that only this run has, until they are revoked.
#[derive(Debug, Default)]
pub(crate) struct Own {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    all: Vec<OwnCredential>,
    /// The first one is being minted.
    is_minting: bool,
    /// The run is over, and nothing is to begin any more.
    is_over: bool,
}

impl Own {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// One more.
    fn keep(&self, own: &OwnCredential) {
        self.lock().all.push(own.clone());
    }

    /// Keeps what is minted, also where nobody waits for it any more but [`Self::end`]. `mint`
    /// calls what it is given before anything comes into being: that fails once the run is over.
    pub(crate) fn minting(
        &self,
        mint: impl FnOnce(&dyn Fn() -> Result<()>) -> Result<OwnCredential>,
    ) -> Result<Credential> {
        let minted = mint(&|| {
            let mut state = self.lock();
            if state.is_over {
                return Err(Error::new(ErrorKind::Other, "the run has been told to end"));
            }
            state.is_minting = true;
            Ok(())
        });
        let mut state = self.lock();
        state.is_minting = false;
        state.all.extend(minted.as_ref().ok().cloned());
        self.changed.notify_all();
        minted.map(|own| own.credential)
    }

    /// The run is over. Yields all of them; one that is being minted is waited for as long as
    /// this.
    pub(crate) fn end(&self, patience: Duration) -> Vec<OwnCredential> {
        let mut state = self.lock();
        state.is_over = true;
        let waited = self.changed.wait_timeout_while(state, patience, |state| state.is_minting);
        let (mut state, _) = waited.unwrap_or_else(PoisonError::into_inner);
        std::mem::take(&mut state.all)
    }

    /// Revokes one that nobody gets. Where that fails, it is kept to be revoked at the end.
    fn discard(&self, host: &Host, plan: &Plan, useless: &Credential) {
        let secret = useless.material.secret().expose();
        let is_it = |own: &OwnCredential| own.credential.material.secret().ct_eq(secret);
        let own = self.lock().all.iter().find(|own| is_it(own)).cloned();
        let Some(own) = own else { return };
        let [revoked] = &pipeline::revoke(host, plan, &[own])[..] else { return };
        match revoked {
            Ok(()) => self.lock().all.retain(|own| !is_it(own)),
            Err(error) => tracing::debug!(%error, "a credential of no use is not revoked yet"),
        }
    }

    /// Forgets those that have ended by themselves, with all that they came of.
    fn forget_ended(&self, host: &Host) {
        self.lock().all.retain(|own| !own.is_over(host));
    }
}

/// New credentials by the same plan as the first.
struct Pipeline {
    /// What it is a part of, in whichever thread.
    place: Place,
    host: Host,
    cache: Arc<Cache>,
    plan: Plan,
    /// Where each credential is this run's own.
    own: Option<Arc<Own>>,
    terms: Terms,
    interact: Arc<dyn Interact>,
}

impl Supply for Pipeline {
    fn next(&self, old: &Credential) -> Result<Credential> {
        self.place.within(|| trace::step("renew").within(|| self.renewed(old)))
    }

    fn discard(&self, useless: &Credential) {
        if let Some(own) = &self.own {
            own.discard(&self.host, &self.plan, useless);
        }
    }

    fn tell(&self, news: News<'_>) {
        self.told(news);
    }
}

impl Pipeline {
    fn renewed(&self, old: &Credential) -> Result<Credential> {
        // Renewal has pauses of its own, and may have little time.
        self.plan.insist(&self.host, Wish::Heeded);
        let Some(own) = &self.own else {
            let (cache, terms) = (&self.cache, self.terms);
            return pipeline::next_credential(&self.host, cache, &self.plan, old, terms);
        };
        let new =
            pipeline::own_credential(&self.host, &self.cache, &self.plan, self.terms, &|| Ok(()))?;
        own.forget_ended(&self.host);
        own.keep(&new);
        Ok(new.credential)
    }

    fn told(&self, news: News<'_>) {
        let profile = &self.plan.profile;
        let with_hints = |error: &Error| {
            let mut text = error.to_string();
            for hint in error.hints() {
                text.push_str("; hint: ");
                text.push_str(hint);
            }
            text
        };
        match news {
            News::Again { until } => {
                let until = show::moment(until);
                self.interact.warn(&format!(
                    "the credential of {profile} has been renewed after all, and is good until {until}"
                ));
            }
            News::Failed { error, until } => self.interact.warn(&format!(
                "the credential of {profile} could not be renewed. The command keeps the present one, which is good until {}, and it is tried again until then and after: {}",
                show::moment(until),
                with_hints(error)
            )),
            News::EndsSoon { error, left } => self.interact.warn(&format!(
                "the credential of {profile} ends in {} and still could not be renewed. What the command does after that will fail: {}",
                show::duration(left),
                with_hints(error)
            )),
            News::Ended { error } => self.interact.warn(&format!(
                "the credential of {profile} has ended, and the command has none until it can be renewed: {}",
                with_hints(error)
            )),
        }
    }
}

/// Reads what `--on-renew` says.
pub(crate) fn on_renewal(text: &str) -> Result<OnRenewal, String> {
    if text == "restart" {
        return Ok(OnRenewal::Restart);
    }
    let signal = text.strip_prefix("signal:").map(|name| name.strip_prefix("SIG").unwrap_or(name));
    let number = signal.and_then(|name| SIGNALS.iter().find(|(known, _)| *known == name));
    number.map(|(_, number)| OnRenewal::Signal(*number)).ok_or_else(|| {
        let names: Vec<_> = SIGNALS.iter().map(|(name, _)| *name).collect();
        format!("it is `restart`, or `signal:` and one of {}", names.join(", "))
    })
}

/// The signals that a command may be sent, and their numbers.
#[cfg(unix)]
pub(crate) const SIGNALS: &[(&str, i32)] = &[
    ("HUP", libc::SIGHUP),
    ("USR1", libc::SIGUSR1),
    ("USR2", libc::SIGUSR2),
    ("WINCH", libc::SIGWINCH),
    ("INT", libc::SIGINT),
    ("TERM", libc::SIGTERM),
    ("QUIT", libc::SIGQUIT),
];
/// Elsewhere there are none.
#[cfg(not(unix))]
pub(crate) const SIGNALS: &[(&str, i32)] = &[];

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_minted_once_the_run_is_over() {
        let failed = || Error::new(ErrorKind::Unreachable, "nobody answers");
        let own = Own::default();
        let error = own.minting(|begins| begins().and(Err(failed()))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unreachable);
        // Nothing is under way any more.
        assert!(own.end(Duration::MAX).is_empty());
        let late = own.minting(|begins| {
            begins()?;
            panic!("it has begun");
        });
        assert!(late.unwrap_err().to_string().contains("told to end"));
    }

    #[test]
    fn what_is_done_on_renewal_is_a_restart_or_a_known_signal() {
        assert_eq!(on_renewal("restart"), Ok(OnRenewal::Restart));
        for (name, number) in SIGNALS {
            assert_eq!(on_renewal(&format!("signal:{name}")), Ok(OnRenewal::Signal(*number)));
            assert_eq!(on_renewal(&format!("signal:SIG{name}")), Ok(OnRenewal::Signal(*number)));
        }
        for wrong in ["", "signal", "signal:", "signal:KILL", "signal:hup", "HUP", "signal:1"] {
            assert!(on_renewal(wrong).unwrap_err().contains("`restart`"), "{wrong}");
        }
    }
}
