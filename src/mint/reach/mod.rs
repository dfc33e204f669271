//! Reaching a broker although some of its addresses do not serve.
//!
//! Addresses are tried in turn, and all of them again after a pause, but only where
//! one cannot serve: it gives no answer, or says «not now» (429, 5xx). Whoever says
//! no, or does not pass verification, has answered, and nobody else is asked.
//!
//! A request that got no answer may have been granted all the same. Then there is a
//! token that nobody has: the broker has recorded it, and it ends by itself. That is
//! why an exchange may be repeated.

mod breaker;
#[cfg(test)]
mod tests;

use std::pin::pin;
use std::time::{Duration, Instant};

use backon::{BackoffBuilder, ExponentialBuilder};
use time::OffsetDateTime;
use tokio::time::{sleep, timeout};

use self::breaker::{Breaker, LONGEST_WISH, Verdict};
use super::broker::Server;
use crate::error::{Error, ErrorKind, Result};
use crate::host::Host;
use crate::host::http::{REQUEST_TIMEOUT, Response};
use crate::oidc::Issuer;

/// How long it takes until the person is told what is being waited for.
const SLOW: Duration = Duration::from_secs(5);
/// How long to wait at most before all addresses are asked for the second time;
/// twice that before the third.
const FIRST_PAUSE: Duration = Duration::from_millis(500);

/// How much is done to reach a broker.
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
    /// Whether addresses that have failed are left alone for a while.
    breaks: bool,
}

impl Effort {
    /// For a credential, which somebody waits for.
    pub const MINT: Self = Self {
        rounds: 3,
        last_round: Duration::from_secs(10),
        patience: Duration::from_secs(5),
        total: Duration::from_secs(30),
        breaks: true,
    };
    /// For a credential that is due for renewal while the cached one still serves.
    pub const RENEW: Self = Self {
        rounds: 1,
        patience: Duration::from_secs(3),
        total: Duration::from_secs(8),
        ..Self::MINT
    };
    /// For a look at something.
    pub(crate) const LOOK: Self = Self { rounds: 1, breaks: false, ..Self::MINT };
    /// For a revocation: somebody waits for the end of their command.
    pub(crate) const REVOKE: Self =
        Self { patience: Duration::from_secs(2), total: Duration::from_secs(5), ..Self::LOOK };

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
}

impl Failure {
    /// With what the answer says of when to ask again.
    pub(crate) fn of(error: Error, response: &Response, now: OffsetDateTime) -> Self {
        Self { error, retry_after: response.retry_after(now).map(|wish| wish.min(LONGEST_WISH)) }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self { error, retry_after: None }
    }
}

/// Asks the addresses of a broker until one has answered. `until` is when asking
/// becomes pointless: the end of the assertion.
///
/// # Errors
/// What the broker answered, or [`ErrorKind::Unreachable`] where no address can serve.
pub(crate) async fn ask<T>(
    host: &Host,
    server: &Server,
    effort: Effort,
    until: Option<OffsetDateTime>,
    attempt: impl AsyncFn(&Issuer) -> Result<T, Failure>,
) -> Result<T> {
    let started = Instant::now();
    let ways = server.url.iter().map(|address| Way::to(host, address, effort)).collect();
    let search = Search { host, effort, until, started, ways };
    let mut asking = pin!(search.run(attempt));
    match timeout(SLOW, asking.as_mut()).await {
        Ok(outcome) => outcome,
        Err(_) => {
            let most = effort.total.as_secs();
            host.interact.note(&format!(
                "waiting for the broker {}, for {most} seconds at most",
                server.issuer()
            ));
            asking.await
        }
    }
}

/// Lets the next run ask addresses that are left alone at present.
pub(super) fn insist(host: &Host, server: &Server) {
    for address in server.url.iter() {
        Breaker::of(host, address).wake(host.clock.now());
    }
}

/// The search for an address that answers.
struct Search<'a> {
    host: &'a Host,
    effort: Effort,
    until: Option<OffsetDateTime>,
    started: Instant,
    ways: Vec<Way<'a>>,
}

/// One address, and how it went so far.
struct Way<'a> {
    address: &'a Issuer,
    breaker: Option<Breaker>,
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

impl<'a> Way<'a> {
    fn to(host: &Host, address: &'a Issuer, effort: Effort) -> Self {
        let breaker = effort.breaks.then(|| Breaker::of(host, address));
        Self { address, breaker, state: State::New, error: None }
    }

    /// Whether it may be asked now.
    fn is_open(&mut self, host: &Host) -> bool {
        if self.state == State::New {
            let verdict = self.breaker.as_ref().map(|breaker| breaker.ask(host.clock.now()));
            self.state = match verdict {
                Some(Verdict::Rests(error)) => {
                    self.error = Some(error);
                    State::Rests
                }
                Some(Verdict::Ask) | None => State::Open(Instant::now()),
            };
        }
        matches!(self.state, State::Open(from) if from <= Instant::now())
    }

    fn failed(&mut self, host: &Host, failure: Failure) {
        // A run counts once, however often it asks.
        match (&self.breaker, failure.retry_after) {
            (Some(breaker), wish) if self.error.is_none() => {
                breaker.failed(host.clock.now(), &failure.error, wish);
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

impl Search<'_> {
    async fn run<T>(mut self, attempt: impl AsyncFn(&Issuer) -> Result<T, Failure>) -> Result<T> {
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
                let limit = self.limit(at);
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
                way.failed(self.host, failure);
            }
            match pauses.next().and_then(|pause| self.pause(pause)) {
                Some(pause) => sleep(pause).await,
                None => return Err(self.error()),
            }
        }
    }

    /// How long the address may take: not for ever, and less while there are others.
    fn limit(&self, at: usize) -> Duration {
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

fn silent(address: &Issuer, limit: Duration) -> Error {
    Error::new(ErrorKind::Unreachable, format!("{address} did not answer"))
        .because_of(format!("the limit is {:.0} seconds", limit.as_secs_f64()))
        .hint("check the network and the address, then try again")
}
