//! Reaching a server although it, or one of its addresses, does not serve.
//!
//! Addresses are tried in turn, and all of them again after a pause, but only where
//! one cannot serve: it gives no answer, or says «not now» (429, 5xx). Whoever says
//! no, or does not pass verification, has answered, and nobody else is asked.
//!
//! A request that got no answer may have been granted all the same. Then there is a
//! token that nobody has: a broker revokes it where it is asked again, of which its
//! `idempotency_key` tells; at a cloud it is recorded, and ends by itself. That is why
//! asking for one may be repeated.

mod breaker;
#[cfg(test)]
mod tests;

use std::fmt::Display;
use std::pin::pin;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};

pub(crate) use self::breaker::Resting;
use self::breaker::{Breaker, LONGEST_WISH, Verdict};
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::http::{REQUEST_TIMEOUT, Response};

/// How long it takes until the person is told what is being waited for.
const SLOW: Duration = Duration::from_secs(5);
/// How long to wait at most before all addresses are asked for the second time;
/// twice that before the third.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
/// How long a request may take at least.
const LEAST: Duration = Duration::from_secs(1);
/// Whoever has waited for so long without an answer tells all who need not wait.
const IN_VAIN: Duration = Duration::from_secs(2);

/// How much is done to reach a server.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// How often all addresses are asked.
    rounds: usize,
    /// How long after the start the last round may begin.
    last_round: Duration,
    /// How long one address may take while there are others to ask.
    patience: Duration,
    /// How long all of it may take.
    total: Duration,
    /// Whether nobody needs the credential now. Then that is for all steps to it together,
    /// and not for each.
    spare: bool,
    /// Whether addresses that have failed are left alone for a while.
    breaks: bool,
    /// Whether that has been looked at already.
    admitted: bool,
    /// Whether a request that was sent is waited for to its end.
    whole: bool,
}

impl Effort {
    /// For a credential, which somebody waits for.
    pub const MINT: Self = Self {
        rounds: 3,
        last_round: Duration::from_secs(10),
        patience: Duration::from_secs(5),
        total: Duration::from_secs(30),
        spare: false,
        breaks: true,
        admitted: false,
        whole: false,
    };
    /// For a credential that is due for renewal while the cached one still serves.
    pub const RENEW: Self = Self {
        rounds: 1,
        patience: Duration::from_secs(3),
        total: Duration::from_secs(8),
        spare: true,
        ..Self::MINT
    };
    /// For a credential that is renewed before it is due, by a process of its own that nobody
    /// waits for.
    pub(crate) const AHEAD: Self = Self { total: Self::MINT.total, ..Self::RENEW };
    /// For the token of a job: there is nobody but this server, and each job has its own.
    pub(crate) const JOB: Self = Self { total: REQUEST_TIMEOUT, breaks: false, ..Self::MINT };
    /// For a long list: whoever has many accounts asks more than AWS answers at once.
    pub(crate) const LIST: Self = Self { rounds: 5, breaks: false, ..Self::MINT };
    /// For a look at something.
    pub(crate) const LOOK: Self = Self { rounds: 1, breaks: false, ..Self::MINT };
    /// For a revocation: somebody waits for the end of their command.
    pub(crate) const REVOKE: Self =
        Self { patience: Duration::from_secs(2), total: Duration::from_secs(5), ..Self::LOOK };

    /// The same for what must not be sent twice, and so is not cut off on its way either:
    /// whoever was sent it may have taken it.
    #[must_use]
    pub(crate) fn once(self) -> Self {
        Self { rounds: 1, whole: true, ..self }
    }

    /// The same for a look at whether somebody answers, before what must not be sent twice.
    #[must_use]
    pub(crate) fn look(self) -> Self {
        Self { rounds: 1, ..self }
    }

    /// The same for whoever [`admit`] let through.
    #[must_use]
    pub(crate) fn admitted(self) -> Self {
        Self { admitted: true, ..self }
    }

    /// Whether there is a credential that serves, so that nobody needs the new one now.
    pub(crate) fn is_spare(self) -> bool {
        self.spare
    }

    /// How much time there is for all of it.
    pub(crate) fn total(self) -> Duration {
        self.total
    }

    /// How long to wait at most for another process that is at it, where nobody needs the
    /// new credential now: somebody may be logging in there.
    pub(crate) fn to_wait_for_others(self) -> Option<Duration> {
        self.spare.then_some(self.total)
    }

    /// How long it is waited for at most.
    fn longest(self) -> Duration {
        if self.whole { self.total.max(REQUEST_TIMEOUT) } else { self.total }
    }

    /// The same for the next step to a credential, when those before took so long. However
    /// long they took, it gets a moment.
    #[must_use]
    pub(crate) fn after(self, spent: Duration) -> Self {
        if !self.spare {
            return self;
        }
        Self { total: self.total.saturating_sub(spent).max(LEAST), ..self }
    }

    /// The same for what follows the assertion. What took longer than all of it may was a
    /// person who logged in, and whose time does not count.
    #[must_use]
    pub(crate) fn after_assertion(self, spent: Duration) -> Self {
        if spent > self.total { self } else { self.after(spent) }
    }

    /// The pauses between the rounds: a random part of a time that doubles.
    fn pauses(self) -> impl Iterator<Item = Duration> {
        let least = ExponentialBuilder::new()
            .with_min_delay(FIRST_PAUSE)
            .with_max_times(self.rounds.saturating_sub(1));
        // The library's jitter comes on top of the delay. Full jitter is what came on top.
        let most = least.with_jitter();
        most.build().zip(least.build()).map(|(most, least)| most.saturating_sub(least))
    }
}

/// Why one address gave nothing.
pub(crate) struct Failure {
    error: Error,
    /// When it wants to be asked again, where it says so.
    retry_after: Option<Duration>,
    /// Whether the address serves, and something behind it does not.
    behind: bool,
}

impl Failure {
    /// Something behind the address cannot serve: it is asked again, but does not count
    /// as one that fails.
    pub(crate) fn behind(error: Error) -> Self {
        Self { behind: true, ..error.into() }
    }

    /// With how long it wants to be left alone.
    pub(crate) fn wishing(error: Error, wish: Option<Duration>) -> Self {
        Self { retry_after: wish.map(|wish| wish.min(LONGEST_WISH)), ..error.into() }
    }

    /// With what the answer says of when to ask again.
    pub(crate) fn of(error: Error, response: &Response, now: OffsetDateTime) -> Self {
        Self::wishing(error, response.retry_after(now))
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None, behind: false }
    }
}

/// Waits for something that is a part of a step to a credential, and that ends by itself
/// where somebody needs it.
///
/// # Errors
/// Its own, and [`ErrorKind::Unreachable`] where it takes too long.
pub(crate) async fn within<T>(
    effort: Effort,
    who: &str,
    work: impl Future<Output = Result<T>>,
) -> Result<T> {
    if !effort.is_spare() {
        return work.await;
    }
    let ended = timeout(effort.total, work).await;
    ended.unwrap_or_else(|_| Err(silent(who, effort.total)))
}

/// Asks the addresses of a server until one has answered. `who` is its name for people,
/// `until` when asking becomes pointless: the end of what it is shown.
///
/// # Errors
/// What the server answered, or [`ErrorKind::Unreachable`] where no address can serve.
pub(crate) async fn ask<A: Display + ?Sized, T>(
    host: &Host,
    who: &str,
    addresses: &[&A],
    effort: Effort,
    until: Option<OffsetDateTime>,
    attempt: impl AsyncFn(&A) -> Result<T, Failure>,
) -> Result<T> {
    let started = Instant::now();
    let ways = addresses.iter().map(|address| Way::to(host, *address, effort)).collect();
    let search = Search { host, effort, until, started, ways };
    let mut asking = pin!(search.run(attempt));
    match timeout(SLOW, asking.as_mut()).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let most = effort.longest().as_secs_f64();
            host.interact.note(&format!("waiting for {who}, for {most:.0} seconds at most"));
            asking.await
        }
    }
}

/// What becomes of a server's wish to be left alone (`Retry-After`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// It is heeded.
    Heeded,
    /// Somebody said that the server is to be asked all the same.
    Overridden,
}

/// Lets the next run ask an address that is left alone at present.
pub(crate) fn insist(host: &Host, address: &str, wish: Wish) {
    Breaker::of(host, address).wake(host.clock.now(), wish);
}

/// Looks whether an address may be asked, for what has to be done before and should not be
/// done in vain. Whoever may asks then with [`Effort::admitted`].
///
/// # Errors
/// [`ErrorKind::Unreachable`] where it is left alone.
pub(crate) fn admit(host: &Host, address: &str, effort: Effort) -> Result<()> {
    match Way::to(host, address, effort).verdict(host) {
        Some(Verdict::Rests(error)) => Err(error),
        Some(Verdict::Ask) | None => Ok(()),
    }
}

/// Whether an address did not serve when it was asked last.
pub(crate) fn has_failed(host: &Host, address: &str) -> bool {
    Breaker::of(host, address).has_failed(host.clock.now())
}

/// The addresses that this user's processes leave alone at present.
pub(crate) fn resting(host: &Host) -> Vec<Resting> {
    breaker::resting(host)
}

/// The search for an address that answers.
struct Search<'a, A: ?Sized> {
    host: &'a Host,
    effort: Effort,
    until: Option<OffsetDateTime>,
    started: Instant,
    ways: Vec<Way<'a, A>>,
}

/// One address, and how it went so far.
struct Way<'a, A: ?Sized> {
    address: &'a A,
    breaker: Option<Breaker>,
    /// Whether nobody needs the answer now.
    spare: bool,
    admitted: bool,
    state: State,
    error: Option<Error>,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Nobody knows yet whether it is left alone.
    New,
    /// It may be asked from this moment on.
    Open(Instant),
    /// It is left alone.
    Rests,
}

impl<'a, A: Display + ?Sized> Way<'a, A> {
    fn to(host: &Host, address: &'a A, effort: Effort) -> Self {
        let breaker = effort.breaks.then(|| Breaker::of(host, &address.to_string()));
        let (spare, admitted) = (effort.is_spare(), effort.admitted);
        Self { address, breaker, spare, admitted, state: State::New, error: None }
    }

    fn verdict(&self, host: &Host) -> Option<Verdict> {
        let breaker = self.breaker.as_ref().filter(|_| !self.admitted)?;
        Some(breaker.ask(host.clock.now(), self.spare))
    }

    /// Whether it may be asked now.
    fn is_open(&mut self, host: &Host) -> bool {
        if self.state == State::New {
            self.state = match self.verdict(host) {
                Some(Verdict::Rests(error)) => {
                    self.error = Some(error);
                    State::Rests
                }
                Some(Verdict::Ask) | None => State::Open(Instant::now()),
            };
        }
        matches!(self.state, State::Open(from) if from <= Instant::now())
    }

    fn failed(&mut self, host: &Host, failure: Failure, waited: Duration) {
        // A run counts once, however often it asks.
        match (&self.breaker, failure.retry_after) {
            (Some(breaker), _) if failure.behind => breaker.close(),
            (Some(breaker), wish) if self.error.is_none() => {
                let in_vain = waited >= IN_VAIN;
                breaker.failed(host.clock.now(), &failure.error, wish, in_vain);
            }
            (Some(breaker), Some(wish)) => breaker.wishes(host.clock.now(), wish),
            _ => (),
        }
        self.state = State::Open(Instant::now() + failure.retry_after.unwrap_or_default());
        self.error = Some(failure.error);
    }

    fn answered(&self) {
        if let Some(breaker) = &self.breaker {
            breaker.close();
        }
    }
}

impl<A: Display + ?Sized> Search<'_, A> {
    async fn run<T>(mut self, attempt: impl AsyncFn(&A) -> Result<T, Failure>) -> Result<T> {
        let mut pauses = self.effort.pauses();
        loop {
            for at in 0..self.ways.len() {
                // The first request is made in any case.
                let has_asked = self.ways.iter().any(|way| way.error.is_some());
                let is_late = self.started.elapsed() >= self.effort.total;
                if has_asked && (is_late || self.is_pointless(Duration::ZERO)) {
                    break;
                }
                if !self.ways[at].is_open(self.host) {
                    continue;
                }
                let (limit, asked) = (self.limit(at), Instant::now());
                let way = &mut self.ways[at];
                let failure = match timeout(limit, attempt(way.address)).await {
                    Ok(Ok(answer)) => {
                        way.answered();
                        return Ok(answer);
                    }
                    Ok(Err(failure)) if failure.error.kind() != ErrorKind::Unreachable => {
                        way.answered();
                        return Err(failure.error);
                    }
                    Ok(Err(failure)) => failure,
                    Err(_) => silent(way.address, limit).into(),
                };
                tracing::debug!(address = %way.address, error = %failure.error, "cannot serve");
                way.failed(self.host, failure, asked.elapsed());
            }
            match pauses.next().and_then(|pause| self.pause(pause)) {
                Some(pause) => sleep(pause).await,
                None => return Err(self.error()),
            }
        }
    }

    /// How long the address may take: not for ever, and less while there are others.
    fn limit(&self, at: usize) -> Duration {
        if self.effort.whole {
            return REQUEST_TIMEOUT * 2;
        }
        let rest = self.effort.total.saturating_sub(self.started.elapsed());
        let has_others = self.ways[at + 1..].iter().any(|way| way.state != State::Rests);
        rest.min(if has_others { self.effort.patience } else { REQUEST_TIMEOUT * 2 })
    }

    /// How long to wait before the next round; `None` where there is none.
    fn pause(&self, pause: Duration) -> Option<Duration> {
        let now = Instant::now();
        let waits = self.ways.iter().filter_map(|way| match way.state {
            State::Open(from) => Some(pause.max(from.saturating_duration_since(now))),
            State::New | State::Rests => None,
        });
        let wait = waits.min()?;
        let begins = self.started.elapsed().saturating_add(wait);
        (begins <= self.effort.last_round && !self.is_pointless(wait)).then_some(wait)
    }

    /// Whether the assertion will have ended by then.
    fn is_pointless(&self, then: Duration) -> bool {
        let now = self.host.corrected_now();
        self.until.is_some_and(|until| now + then >= until)
    }

    fn error(self) -> Error {
        let mut failed = self.ways.into_iter().filter_map(|way| Some((way.address, way.error?)));
        let Some((first, error)) = failed.next() else {
            // There is an address, and the first is asked or rests; nobody gets here.
            return Error::new(ErrorKind::Unreachable, "no address was asked");
        };
        let others: Vec<_> = failed.collect();
        if others.is_empty() {
            return error;
        }
        let hints = error.hints().to_vec();
        let all = Error::new(ErrorKind::Unreachable, "none of its addresses can serve")
            .because_of(format!("{first}: {error}"));
        let all = others
            .into_iter()
            .fold(all, |all, (address, error)| all.because_of(format!("{address}: {error}")));
        hints.into_iter().fold(all, Error::hint)
    }
}

fn silent<A: Display + ?Sized>(address: &A, limit: Duration) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{address} did not answer"))
        .because_of(format!("the limit is {:.0} seconds", limit.as_secs_f64()))
        .hint("check the network and the address, then try again")
}
