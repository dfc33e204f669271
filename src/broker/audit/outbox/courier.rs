//! Takes records to one sink.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBackoff, ExponentialBuilder};
use time::OffsetDateTime;
use tokio::sync::watch;
use tokio::time::Instant;
use uuid::Uuid;

use super::{Letter, Refused, Sink};
use crate::broker::audit::export::Format;
use crate::broker::config::BeginWith;
use crate::broker::store::{Row, Store, Turn};
use crate::broker::survive::survive;
use crate::error::{Error, ErrorKind, Result};

/// How many records are handed on at a time, and how long they may be together, in bytes.
/// One that is longer goes alone.
const BATCH: u32 = 256;
const MAX_BYTES: usize = 1024 * 1024;

/// How often is looked whether there are records, where there were none.
const LOOK: Duration = Duration::from_secs(1);

/// How long a sink may take for what it is handed.
const ATTEMPT: Duration = Duration::from_secs(10);

/// How often whoever has the turn shows that they are alive while they wait.
const BEAT: Duration = Duration::from_secs(5);

/// How long somebody else watches that nothing happens before they take the turn. It is
/// longer than an attempt.
const LEASE: Duration = Duration::from_secs(20);

/// How long is waited after a failure, at least and, after many, at most; chance makes
/// that up to twice as long.
const PAUSE: [Duration; 2] = [Duration::from_secs(1), Duration::from_secs(30)];

/// The longest that a sink may ask for.
const LONGEST_WISH: Duration = Duration::from_secs(5 * 60);

/// What is counted of a sink.
pub struct Counts {
    sink: String,
    delivered: AtomicU64,
    failures: AtomicU64,
}

impl Counts {
    pub(super) fn of(sink: String) -> Self {
        Self { sink, delivered: AtomicU64::new(0), failures: AtomicU64::new(0) }
    }

    /// The name of the sink.
    pub fn sink(&self) -> &str {
        &self.sink
    }

    /// How many records this process has handed on.
    pub fn delivered(&self) -> u64 {
        self.delivered.load(Ordering::Relaxed)
    }

    /// How often it failed at that.
    pub fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }
}

/// Takes records to one sink, for as long as the process lives.
///
/// Of several processes one has the turn. Every change of the row that says so counts its
/// `beat` up, and whoever changes it names the beat that they know. Whoever finds a turn
/// taken watches the beat: where it stands still for [`LEASE`] by their own clock, they take
/// the turn. So no two clocks are compared, and whoever was only slow finds out before they
/// move the mark. Whoever has nothing left to hand on gives the turn back, and so does whoever
/// leaves the sink alone for long: another one may reach it.
pub(super) struct Courier {
    store: Arc<dyn Store>,
    sink: Box<dyn Sink>,
    format: Format,
    begin_with: BeginWith,
    counts: Arc<Counts>,
    /// The name of this process, among those that take turns.
    me: String,
    /// The turn, while it is this process's.
    held: Option<Turn>,
    /// Somebody else's beat, and since when it has been that one.
    watched: Option<(u64, Instant)>,
    /// The pauses that come, while the sink fails, and when it may be asked again.
    trouble: Option<(ExponentialBackoff, Instant)>,
    /// Why the last step failed.
    failure: Option<Error>,
}

impl Courier {
    pub(super) fn new(
        store: Arc<dyn Store>,
        sink: Box<dyn Sink>,
        format: Format,
        begin_with: BeginWith,
        counts: Arc<Counts>,
    ) -> Self {
        Self {
            store,
            sink,
            format,
            begin_with,
            counts,
            me: Uuid::new_v4().to_string(),
            held: None,
            watched: None,
            trouble: None,
            failure: None,
        }
    }

    /// Goes until it is stopped.
    pub(super) async fn run(mut self, mut stopped: watch::Receiver<bool>) {
        loop {
            let step = async {
                let pause = survive("sink", self.step()).await;
                tokio::time::sleep(pause.unwrap_or(LOOK)).await;
            };
            // Whatever it was at is as if it had not begun, or is done twice.
            tokio::select! {
                () = step => {}
                _ = stopped.wait_for(|stopped| *stopped) => break,
            }
        }
        // Others need not watch first.
        if let Err(error) = self.leave().await {
            tracing::debug!(%error, sink = self.counts.sink(), "the turn could not be given back");
        }
    }

    /// Does one thing, and says how long to wait before the next.
    pub(super) async fn step(&mut self) -> Duration {
        let outcome = match self.held.take() {
            None => self.look().await,
            Some(turn) => self.go_on(turn).await,
        };
        let (pause, failure) = match outcome {
            Ok(pause) => (pause, None),
            // The store fails: others say that louder.
            Err(error) => (LOOK, Some(error)),
        };
        if self.trouble.is_none() {
            self.tell(failure);
        }
        pause
    }

    /// Says why nothing is handed on, once, and that it is again.
    fn tell(&mut self, failure: Option<Error>) {
        let sink = self.counts.sink();
        match (&failure, &self.failure) {
            (Some(error), before) if before.as_ref() != Some(error) => {
                tracing::warn!(sink, %error, "records of the audit log cannot be handed on");
            }
            (None, Some(_)) => tracing::info!(sink, "records of the audit log are handed on again"),
            _ => {}
        }
        self.failure = failure;
    }

    /// Looks whether there is something to hand on, and takes the turn where it is free.
    async fn look(&mut self) -> Result<Duration> {
        let Some(turn) = self.store.turn(self.counts.sink()).await? else {
            return self.introduce().await.map(|()| Duration::ZERO);
        };
        if turn.delivered > turn.last {
            return Err(Error::new(ErrorKind::Verification, "the sink has more than there is")
                .because_of(format!("it has record {}, the log {}", turn.delivered, turn.last)));
        }
        if turn.delivered == turn.last || !self.is_free(&turn) || !self.left().is_zero() {
            return Ok(LOOK);
        }
        match self.change(turn, 0).await? {
            true => Ok(Duration::ZERO),
            // Somebody was quicker.
            false => Ok(LOOK),
        }
    }

    /// Speaks of the sink for the first time.
    async fn introduce(&self) -> Result<()> {
        let after = match self.begin_with {
            BeginWith::First => 0,
            BeginWith::Next => self.store.size().await?,
        };
        self.store.add_sink(self.counts.sink(), after).await
    }

    fn is_free(&mut self, turn: &Turn) -> bool {
        if turn.holder.as_ref().is_none_or(|holder| *holder == self.me) {
            self.watched = None;
            return true;
        }
        match self.watched {
            Some((beat, since)) if beat == turn.beat => since.elapsed() >= LEASE,
            _ => {
                self.watched = Some((turn.beat, Instant::now()));
                false
            }
        }
    }

    /// Moves the mark by what was handed on, and keeps the turn. Returns whether it was
    /// still ours.
    async fn change(&mut self, turn: Turn, by: u64) -> Result<bool> {
        let delivered = turn.delivered + by;
        let done =
            self.store.change_turn(self.counts.sink(), &turn, delivered, Some(&self.me)).await?;
        let holder = Some(self.me.clone());
        self.held = done.then(|| Turn { delivered, holder, beat: turn.beat + 1, ..turn });
        Ok(done)
    }

    /// Hands on what comes next, or shows that this process is alive.
    async fn go_on(&mut self, turn: Turn) -> Result<Duration> {
        let left = self.left();
        if !left.is_zero() {
            let kept = self.change(turn, 0).await?;
            return Ok(if kept { left.min(BEAT) } else { LOOK });
        }
        let letters = self.next_letters(turn.delivered).await?;
        let Some(last) = letters.last().map(|letter| letter.sequence) else {
            self.held = Some(turn);
            return self.give_back().await.map(|()| LOOK);
        };
        let taken = tokio::time::timeout(ATTEMPT, self.sink.take(&letters)).await;
        match taken.unwrap_or_else(|_| Err(late().into())) {
            Ok(()) => {
                self.trouble = None;
                self.counts.delivered.fetch_add(letters.len() as u64, Ordering::Relaxed);
                let by = last - turn.delivered;
                self.change(turn, by).await.map(|kept| if kept { Duration::ZERO } else { LOOK })
            }
            Err(refused) => {
                self.held = Some(turn);
                let has_spoken = refused.retry_after.is_some();
                let pause = self.suffer(refused);
                if pause >= PAUSE[1] && !has_spoken {
                    // It may be this process alone that does not reach the sink.
                    self.give_back().await?;
                }
                Ok(pause.min(BEAT))
            }
        }
    }

    /// The records after this one, as many as go at a time.
    async fn next_letters(&self, after: u64) -> Result<Vec<Letter>> {
        let rows: Vec<Row> = self.store.page(after, BATCH).await?;
        let mut letters: Vec<Letter> = Vec::with_capacity(rows.len());
        // Not the time at present: what is handed on again has to be the same.
        let mut near = rows.iter().find_map(|(_, record)| record.as_ref()).map(|record| record.at);
        let mut bytes = 0;
        let mut last = after;
        for row in &rows {
            near = row.1.as_ref().map(|record| record.at).or(near);
            let time = near.unwrap_or(OffsetDateTime::UNIX_EPOCH);
            // Numbers are given without gaps.
            if row.0 > last.saturating_add(1) {
                let gone = (last + 1, row.0 - 1);
                if self.trouble.is_none() {
                    let (first, last) = gone;
                    tracing::error!(first, last, "records of the audit log are gone");
                }
                letters.push(Letter::of_missing(gone, self.format, time));
            }
            last = row.0;
            let letter = Letter::of(row, self.format, time);
            bytes += letter.json.len();
            if bytes > MAX_BYTES && !letters.is_empty() {
                break;
            }
            letters.push(letter);
        }
        Ok(letters)
    }

    /// How long to leave the sink alone still.
    fn left(&self) -> Duration {
        let until = self.trouble.as_ref().map(|(_, until)| *until);
        until.map_or(Duration::ZERO, |until| until.saturating_duration_since(Instant::now()))
    }

    /// Counts a failure of the sink, and says how long to leave it alone.
    fn suffer(&mut self, Refused { error, retry_after }: Refused) -> Duration {
        self.counts.failures.fetch_add(1, Ordering::Relaxed);
        self.tell(Some(error));
        let (mut pauses, _) = self.trouble.take().unwrap_or_else(|| (pauses(), Instant::now()));
        let wish = retry_after.unwrap_or_default().min(LONGEST_WISH);
        let pause = pauses.next().unwrap_or(PAUSE[1]).max(wish);
        self.trouble = Some((pauses, Instant::now() + pause));
        pause
    }

    /// Lets others have the turn, also where it was taken or kept a moment ago, and that
    /// was not seen to its end.
    async fn leave(&mut self) -> Result<()> {
        let turn = self.store.turn(self.counts.sink()).await?;
        self.held = turn.filter(|turn| turn.holder.as_ref() == Some(&self.me));
        self.give_back().await
    }

    /// Lets others have the turn.
    async fn give_back(&mut self) -> Result<()> {
        let Some(turn) = self.held.take() else { return Ok(()) };
        self.store.change_turn(self.counts.sink(), &turn, turn.delivered, None).await.map(drop)
    }
}

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::new()
        .with_min_delay(PAUSE[0])
        .with_max_delay(PAUSE[1])
        .with_jitter()
        .without_max_times()
        .build()
}

fn late() -> Error {
    let limit = humantime::format_duration(ATTEMPT);
    Error::new(ErrorKind::Unreachable, format!("the sink did not take it within {limit}"))
}

#[cfg(test)]
mod tests;
