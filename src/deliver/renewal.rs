//! Keeps a credential good while a command runs.
//!
//! A thread fetches a new credential when the refresh window of the old one has come,
//! and hands it on: AWS SDKs ask an endpoint, others read a file, and a command that
//! does neither is sent a signal or started again. While no new one can be had, the old
//! one serves to its end, and whoever watches is told in time.

mod schedule;

use std::path::PathBuf;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use time::OffsetDateTime;

use self::schedule::{Schedule, Step};
use super::aws_files;
use super::credential_process::ASKED_AGAIN;
use super::endpoint::{Current, Endpoint};
use super::mask::Patterns;
use super::outlet::Outlet;
use super::reach::Reach;
use super::supervisor::Beside;
use crate::credential::{Credential, Material};
use crate::error::{Error, ErrorKind, Result};
use crate::host::clock::Clock;
use crate::host::dirs::RunDir;
use crate::host::{Host, files};

/// How long a command that is to be started again may take to end.
const PATIENCE: Duration = Duration::from_secs(10);

/// Yields new credentials.
pub trait Supply: Send + Sync {
    /// A credential to follow this one.
    ///
    /// # Errors
    /// Whatever is in its way. It is asked again later.
    fn next(&self, old: &Credential) -> Result<Credential>;

    /// One that it has yielded is of no use, and nobody gets it.
    fn discard(&self, useless: &Credential);

    /// Something happened that is worth telling.
    fn tell(&self, news: News<'_>);
}

/// How the renewal goes.
#[derive(Clone, Copy, Debug)]
pub enum News<'a> {
    /// There is a new credential, after all; the old one lived, or had ended.
    Again {
        /// When the new one ends, by this machine's clock.
        until: OffsetDateTime,
    },
    /// No new credential could be had. It is tried again.
    Failed {
        /// Why not.
        error: &'a Error,
        /// When the old one ends, by this machine's clock.
        until: OffsetDateTime,
    },
    /// The credential ends soon.
    EndsSoon {
        /// Why there is no new one.
        error: &'a Error,
        /// What is left.
        left: time::Duration,
    },
    /// The credential has ended.
    Ended {
        /// Why there is no new one.
        error: &'a Error,
    },
}

/// What is done to the command when there is a new credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnRenewal {
    /// Nothing: it finds out by itself.
    #[default]
    Nothing,
    /// It gets this signal.
    Signal(i32),
    /// It is ended and started again, with the new credential in its environment.
    Restart,
}

/// The renewal of one command's credential.
pub struct Renewal {
    watch: Arc<Watch>,
    outlet: Option<Outlet>,
    _endpoint: Option<Endpoint>,
    /// The file with the token, and others, are removed with it.
    _files: RunDir,
}

impl std::fmt::Debug for Renewal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Renewal").field("outlet", &self.outlet).finish_non_exhaustive()
    }
}

impl Renewal {
    /// Makes the place where the command finds the current credential. Nothing is
    /// renewed yet.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]
    pub fn prepare(
        host: &Host,
        credential: Credential,
        supply: Box<dyn Supply>,
        on_renewal: OnRenewal,
    ) -> Result<Self> {
        let files = host.dirs.of_this_run()?;
        let file = match &credential.material {
            Material::Bearer { token } | Material::Bound { token, .. } => {
                let path = files.path().join("token");
                files::write_private(&path, token.expose().as_bytes())?;
                Some(path)
            }
            Material::Aws { .. } => None,
        };
        let is_asked = file.is_none() && on_renewal != OnRenewal::Restart;
        let watch = Arc::new(Watch {
            state: Mutex::new(State::of(credential, &*host.clock)),
            changed: Condvar::new(),
            reach: Reach::default(),
            clock: Arc::clone(&host.clock),
            supply,
            on_renewal,
            file: file.clone(),
            asked_again: if is_asked { ASKED_AGAIN } else { Duration::ZERO },
        });
        let mut endpoint = None;
        let outlet = match file {
            Some(file) => Some(Outlet::File(file)),
            // What is started again has the keys in its environment.
            None if !is_asked => None,
            None => {
                let open = endpoint.insert(Endpoint::open(Arc::clone(&watch) as Arc<dyn Current>)?);
                let (url, token) = (open.url(), open.token().clone());
                let files = aws_files::stand_ins(&host.env, files.path())?;
                Some(Outlet::Endpoint { url, token, files })
            }
        };
        Ok(Self { watch, outlet, _endpoint: endpoint, _files: files })
    }

    /// Where the command finds the current credential; `None` where that is its
    /// environment.
    pub fn outlet(&self) -> Option<&Outlet> {
        self.outlet.as_ref()
    }

    /// Begins to renew, in a thread of its own. New secrets are added to what is masked
    /// before anybody can have them.
    ///
    /// # Errors
    /// [`ErrorKind::Io`]
    pub fn begin(&self, masked: Option<Arc<Patterns>>) -> Result<()> {
        let watch = Arc::clone(&self.watch);
        let thread = std::thread::Builder::new().name("renewal".into());
        thread.spawn(move || watch.run(masked.as_deref())).map(drop).map_err(|cause| {
            Error::new(ErrorKind::Io, "the credential cannot be renewed").because(cause)
        })
    }

    /// Renews no more. An attempt that is under way is waited for as long as this, so
    /// that nothing comes into being unnoticed.
    pub fn end(&self, patience: Duration) {
        let mut state = self.watch.lock();
        state.has_ended = true;
        self.watch.changed.notify_all();
        let is_busy = |state: &mut State| state.is_busy;
        // Whether it was in time, nobody could do anything about.
        drop(self.watch.changed.wait_timeout_while(state, patience, is_busy));
    }
}

impl Beside for Renewal {
    fn reach(&self) -> &Reach {
        &self.watch.reach
    }

    fn again(&self) -> Option<Credential> {
        let again = self.watch.lock().again.take();
        again.filter(|_| !self.watch.reach.is_asked_to_end())
    }
}

/// What the thread works on, and the endpoint looks at.
struct Watch {
    state: Mutex<State>,
    changed: Condvar,
    reach: Reach,
    clock: Arc<dyn Clock>,
    supply: Box<dyn Supply>,
    on_renewal: OnRenewal,
    file: Option<PathBuf>,
    /// When less than this is left, whoever uses the credential asks again.
    asked_again: Duration,
}

struct State {
    credential: Credential,
    /// Since when it has been here.
    since: Instant,
    /// What was left of it then.
    left_then: Duration,
    /// Why there is no newer one.
    error: Option<Error>,
    is_busy: bool,
    /// What came of the last attempt.
    answer: Option<Answer>,
    has_ended: bool,
    /// The command is to be started again with this.
    again: Option<Credential>,
}

/// What came of an attempt.
enum Answer {
    /// A credential that lasts longer.
    New(Credential),
    /// One that ends as early as the present one.
    InVain,
    Failed(Error),
}

impl State {
    fn of(mut credential: Credential, clock: &dyn Clock) -> Self {
        // As it is written down for the command.
        let end = credential.lifetime.expires_at;
        credential.lifetime.expires_at = end.replace_nanosecond(0).unwrap_or(end);
        let left_then = credential.lifetime.remaining(clock.now()).unsigned_abs();
        Self {
            credential,
            since: Instant::now(),
            left_then,
            error: None,
            is_busy: false,
            answer: None,
            has_ended: false,
            again: None,
        }
    }
}

impl Watch {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(self: &Arc<Self>, masked: Option<&Patterns>) {
        let mut schedule = Schedule::of(&self.lock().credential, self.asked_again);
        loop {
            let (credential, left, answer) = {
                let mut state = self.lock();
                if state.has_ended {
                    return;
                }
                (state.credential.clone(), self.left(&state), state.answer.take())
            };
            if let Some(answer) = answer {
                let is_in_vain = matches!(answer, Answer::InVain);
                let new = match answer {
                    Answer::New(new) => self.accept(new, masked),
                    Answer::InVain => Err(ends_as_early()),
                    Answer::Failed(error) => Err(error),
                };
                match new {
                    Ok(new) => {
                        let until = new.lifetime.expires_at_local();
                        if schedule.has_told() {
                            self.tell(News::Again { until });
                        }
                        schedule = Schedule::of(&new, self.asked_again);
                    }
                    Err(error) => {
                        let until = credential.lifetime.expires_at_local();
                        let is_first = match is_in_vain {
                            true => schedule.was_in_vain(Instant::now()),
                            false => schedule.failed(Instant::now()),
                        };
                        if is_first && !left.is_zero() {
                            self.tell(News::Failed { error: &error, until });
                        }
                        self.lock().error = Some(error);
                    }
                }
                continue;
            }
            match schedule.next(left, Instant::now()) {
                Step::Wait(time) => self.wait(time),
                Step::Tell => self.tell_end(left),
                Step::Renew => {
                    schedule.began(Instant::now());
                    self.ask(credential);
                }
            }
        }
    }

    /// Asks for a credential, in a thread of its own: an answer may take long.
    fn ask(self: &Arc<Self>, old: Credential) {
        {
            let mut state = self.lock();
            // Whoever ends the renewal waits for what is under way, and for nothing else.
            if state.has_ended {
                return;
            }
            state.is_busy = true;
        }
        let watch = Arc::clone(self);
        let thread = std::thread::Builder::new().name("renewal".into()).spawn(move || {
            let answer = watch.judged(watch.supply.next(&old), &old);
            watch.answered(answer);
        });
        if let Err(cause) = thread {
            let error = Error::new(ErrorKind::Io, "no thread can be started").because(cause);
            self.answered(Answer::Failed(error));
        }
    }

    /// Whether what came is of use. What is not is discarded while whoever ends the renewal
    /// still waits.
    fn judged(&self, answer: Result<Credential>, old: &Credential) -> Answer {
        let new = match answer {
            Ok(new) => new,
            Err(error) => return Answer::Failed(error),
        };
        let left = self.left(&self.lock());
        let gained = self.left(&State::of(new.clone(), &*self.clock)).saturating_sub(left);
        if gained <= old.refresh_window().unsigned_abs() / 4 && !left.is_zero() {
            self.supply.discard(&new);
            return Answer::InVain;
        }
        Answer::New(new)
    }

    fn answered(&self, answer: Answer) {
        let mut state = self.lock();
        state.is_busy = false;
        state.answer = Some(answer);
        self.changed.notify_all();
    }

    /// What is left of the credential. A clock that was set back adds nothing, and one
    /// that stood still while the machine slept takes nothing away.
    fn left(&self, state: &State) -> Duration {
        let by_clock = state.credential.lifetime.remaining(self.clock.now()).unsigned_abs();
        by_clock.min(state.left_then.saturating_sub(state.since.elapsed()))
    }

    fn wait(&self, time: Duration) {
        let state = self.lock();
        let goes_on = |state: &mut State| !state.has_ended && state.answer.is_none();
        drop(self.changed.wait_timeout_while(state, time, goes_on));
    }

    /// The command may have the terminal: writing there from the background would stop
    /// the whole process where `stty tostop` says so.
    fn tell(&self, news: News<'_>) {
        #[cfg(unix)]
        let _undisturbed = crate::host::process::signals::Undisturbed::begin();
        self.supply.tell(news);
    }

    fn tell_end(&self, left: Duration) {
        let no_answer = || Error::new(ErrorKind::Unreachable, "there is no answer yet");
        let error = &self.lock().error.clone().unwrap_or_else(no_answer);
        self.tell(match time::Duration::try_from(left) {
            Ok(left) if left.is_positive() => News::EndsSoon { error, left },
            _ => News::Ended { error },
        });
    }

    /// Hands a new credential on.
    fn accept(&self, new: Credential, masked: Option<&Patterns>) -> Result<Credential> {
        let mut next = State::of(new, &*self.clock);
        if let Some(masked) = masked {
            masked.add(next.credential.material.parts().into_iter().map(|(_, part)| part));
        }
        if let (Some(file), Some(token)) = (&self.file, next.credential.material.token()) {
            files::write_private(file, token.expose().as_bytes())?;
        }
        let new = next.credential.clone();
        {
            let mut state = self.lock();
            next.has_ended = state.has_ended;
            *state = next;
        }
        tracing::info!("the credential has been renewed");
        match self.on_renewal {
            OnRenewal::Nothing => {}
            OnRenewal::Signal(number) => self.reach.signal(number),
            OnRenewal::Restart => {
                // A command that has ended by itself is not started again, nor one that
                // was asked to.
                self.reach.end_for_another(PATIENCE, || self.lock().again = Some(new.clone()));
            }
        }
        Ok(new)
    }
}

fn ends_as_early() -> Error {
    Error::new(ErrorKind::Other, "a new credential ends as early")
}

impl Current for Watch {
    fn current(&self) -> Result<Credential, String> {
        let state = self.lock();
        if !self.left(&state).is_zero() {
            return Ok(state.credential.clone());
        }
        let why = match &state.error {
            Some(error) => {
                let hints: Vec<_> = error.hints().iter().map(|hint| format!("; {hint}")).collect();
                format!(": {error}{}", hints.concat())
            }
            None => ", a new one is under way".into(),
        };
        Err(format!("tmpcred: the credential has ended and could not be renewed{why}"))
    }
}

#[cfg(test)]
mod tests;
