//! Configuration and policies read anew while the broker runs.
//!
//! All of it is read, checked and put into force as one [`Rulebook`], or none of it; but for
//! people who have left the directory, who are gone at once. What a running process cannot
//! change, such as where it listens, stays as it is, and is named.

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};

use super::Broker;
use super::authenticate::{Ahead, KeysSeal};
use super::config::{self, Config};
use super::metrics::Reload;
use super::notify::Outbox;
use super::policy::Source;
use super::rulebook::Rulebook;
use super::store::Store;
use crate::error::{Error, Result};
use crate::host::Host;

/// The rulebook that is in force.
pub(super) struct Current {
    host: Host,
    /// Held while files are read, so that what was read last is what counts.
    reading: Mutex<()>,
    book: Arc<RwLock<Arc<Rulebook>>>,
    /// Whether the configuration that was read last has what takes a restart.
    restart_pending: AtomicBool,
    /// What is known of it, where it was refused.
    refused: Mutex<Refused>,
}

/// What was refused when all was read last.
#[derive(Clone, Debug, Default)]
struct Refused {
    /// The files that it names, as far as it could be read.
    files: Vec<PathBuf>,
    /// Why; none where it was not refused.
    why: Option<String>,
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
        let (reloaded, people) = self.read_or_let_go();
        tell_of_people(people);
        reloaded
    }

    /// The same, or nothing where it is refused as it was before.
    fn reload_once_more(&self) -> Option<Result<Reloaded>> {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        let told = self.refused().why.take();
        let (reloaded, people) = self.read_or_let_go();
        if reloaded.is_err() && self.refused().why == told {
            return None;
        }
        tell_of_people(people);
        Some(reloaded)
    }

    /// Reads all anew. Where that is refused those are gone all the same who have left the
    /// directory; if it is not known who they are, that is the other thing that is returned.
    fn read_or_let_go(&self) -> (Result<Reloaded>, Option<Error>) {
        let before = self.book();
        let reloaded = self.read_anew(&before);
        let people = reloaded.as_ref().err().and_then(|_| self.let_go(&before).err());
        let why = reloaded.as_ref().err().into_iter().chain(&people).map(Error::to_string);
        let why = why.reduce(|one, other| format!("{one}; {other}"));
        self.refused().why = why;
        (reloaded, people)
    }

    fn refused(&self) -> MutexGuard<'_, Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Only that: nothing else is read.
    fn let_go_now(&self) {
        let _reading = self.reading.lock().unwrap_or_else(PoisonError::into_inner);
        tell_of_people(self.let_go(&self.book()).err());
    }

    /// Whoever has left the directory decides about nothing any more, whatever else is wrong.
    ///
    /// # Errors
    /// Where it is not known who they are.
    fn let_go(&self, before: &Rulebook) -> Result<()> {
        if let Some(book) = before.without_who_left(&self.host)? {
            tracing::warn!("those who have left the directory of people are gone all the same");
            self.put(book);
        }
        Ok(())
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
        // Until it is known whether it is.
        self.refused().files = wanted.reread().map(PathBuf::from).collect();
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
        self.refused().files.clear();
        Ok(reloaded)
    }
}

fn tell_of_people(error: Option<Error>) {
    if let Some(error) = error {
        tracing::error!(%error, "who has left the directory of people is not known");
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

    /// The files that the configuration names which was read last, as far as it could be; none
    /// where that was not refused.
    pub(super) fn refused_files(&self) -> Option<Vec<PathBuf>> {
        let refused = self.current.refused();
        refused.why.is_some().then(|| refused.files.clone())
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
        self.tell_of_reload(&reloaded);
        reloaded
    }

    /// The same for what was refused and may be good by now: where it is refused as it was
    /// before, that was told then.
    ///
    /// It reads files, and so blocks.
    pub(super) fn reload_once_more(&self) {
        if let Some(reloaded) = self.current.reload_once_more() {
            self.tell_of_reload(&reloaded);
        }
    }

    fn tell_of_reload(&self, reloaded: &Result<Reloaded>) {
        match reloaded {
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
    }
}

#[cfg(test)]
mod tests;
