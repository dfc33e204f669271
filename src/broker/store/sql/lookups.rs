//! Whether something was revoked, for many who ask at once: whoever asks while a question is
//! under way is part of the next one. Each answer rests on a question that was begun after it
//! was wanted, so what was revoked until then is known.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

use super::engine::Engine;
use super::revoked::{Found, Question, UNREADABLE};
use crate::broker::store::Revocable;
use crate::error::{Error, ErrorKind, Result};

/// How many are part of one question at most.
const GROUP: usize = 64;

/// How many questions are under way at once at most: where one takes its time, because a
/// connection hangs or much was revoked, not all wait for it.
const AT_ONCE: usize = 2;

/// Those who want to know, and the way to the database.
pub(super) struct Lookups {
    engine: Arc<Engine>,
    queue: Mutex<Queue>,
}

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Wanted>,
    /// How many tasks ask.
    tasks: usize,
}

/// What somebody wants to know.
struct Wanted {
    these: Revocable,
    answer: oneshot::Sender<Result<bool>>,
}

impl Lookups {
    /// Lookups in this database.
    pub(super) fn new(engine: Arc<Engine>) -> Arc<Self> {
        Arc::new(Self { engine, queue: Mutex::default() })
    }

    /// Whether any of these was revoked, be it together with others.
    pub(super) async fn any_revoked(self: &Arc<Self>, these: Revocable) -> Result<bool> {
        if these.is_empty() {
            return Ok(false);
        }
        self.engine.require_lead().await?;
        let (answer, told) = oneshot::channel();
        if self.wait_in_line(Wanted { these, answer }) {
            tokio::spawn(Task { lookups: Arc::clone(self), has_left: false }.run());
        }
        let told = async {
            told.await.unwrap_or_else(|_| {
                let error = Error::new(ErrorKind::Other, UNREADABLE);
                Err(error.because_of("who looked it up ended abnormally"))
            })
        };
        // Those before who wait for the same hanging connections take no longer either.
        self.engine.in_time(UNREADABLE, told).await
    }

    /// Returns whether another task is needed, which is counted then.
    fn wait_in_line(&self, wanted: Wanted) -> bool {
        let mut queue = self.queue();
        queue.waiting.push_back(wanted);
        let is_needed = queue.tasks < AT_ONCE;
        queue.tasks += usize::from(is_needed);
        is_needed
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Asks as long as anybody wants to know.
struct Task {
    lookups: Arc<Lookups>,
    has_left: bool,
}

impl Task {
    async fn run(mut self) {
        while let Some(group) = self.next() {
            let mut question = Question::default();
            for wanted in &group {
                question.add(&wanted.these);
            }
            let found = self.ask(&question).await;
            for wanted in group {
                let told = match &found {
                    Ok(found) => Ok(found.revokes(&wanted.these)),
                    Err(error) => Err(error.clone()),
                };
                // Who has given up waits no more.
                let _ = wanted.answer.send(told);
            }
        }
    }

    async fn ask(&self, question: &Question<'_>) -> Result<Found> {
        let engine = &self.lookups.engine;
        let ask = || async {
            let mut connection = engine.pool.acquire().await?;
            question.ask(engine.values, &mut connection).await
        };
        engine.work(UNREADABLE, ask).await
    }

    /// Those who wait, as many as one question is asked for; `None` once nobody does: then this
    /// task counts no more.
    fn next(&mut self) -> Option<Vec<Wanted>> {
        let mut queue = self.lookups.queue();
        queue.waiting.retain(|wanted| !wanted.answer.is_closed());
        let count = queue.waiting.len().min(GROUP);
        if count > 0 {
            return Some(queue.waiting.drain(..count).collect());
        }
        queue.tasks -= 1;
        drop(queue);
        self.has_left = true;
        None
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        // However it ends: else nobody would be asked for any more.
        if !self.has_left {
            let mut queue = self.lookups.queue();
            queue.tasks -= 1;
            if queue.tasks == 0 {
                // Nobody is left who would ask for these: they are told so.
                queue.waiting.clear();
            }
        }
    }
}

#[cfg(test)]
mod tests;
