//! How often something may be done: so many times at once, and then at intervals (the
//! generic cell rate algorithm). For each a moment is remembered, and nothing else.
//!
//! Moments are told by the time that the machine has been running: a clock that is set
//! makes nobody wait.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use aws_lc_rs::digest::{SHA256, digest};
use time::Duration;

use super::config::{self, Endpoint};
use super::directory::origin_of;
use crate::credential::Principal;

/// How many are remembered of each kind. Beyond, a newcomer is counted among everybody
/// only: whoever has very many names, or addresses, keeps nobody out by that.
const REMEMBERED: usize = 16 * 1024;

/// How many times as often as one of them all machines of one issuer may ask for the same role:
/// which subject a job has is often for whoever starts it to choose.
const MACHINES: u32 = 3;

/// How often it is looked who need not be remembered any more, at most.
const SWEEP_EVERY: Duration = Duration::seconds(1);

/// How many times at once, and how soon there may be another one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rate {
    pub(super) burst: u32,
    pub(super) every: Duration,
}

impl Rate {
    /// So many times as often.
    fn times(self, count: u32) -> Self {
        Self { burst: self.burst.saturating_mul(count), every: self.every / count }
    }
}

impl From<config::Rate> for Rate {
    fn from(rate: config::Rate) -> Self {
        let every = Duration::MINUTE / rate.per_minute.get();
        Self { burst: rate.burst().get(), every }
    }
}

/// What is left of a rate.
#[derive(Clone, Copy, Debug)]
pub(super) struct Bucket {
    /// When it is all there again.
    pub(super) full_at: Duration,
    /// Since when it is not.
    used_since: Duration,
}

impl Bucket {
    pub(super) fn full(up: Duration) -> Self {
        Self { full_at: up, used_since: up }
    }

    /// How long until there may be another one; nothing where there may be at once.
    pub(super) fn wait(&self, rate: &Rate, up: Duration) -> Option<Duration> {
        let allowed = rate.every.saturating_mul(i32::try_from(rate.burst - 1).unwrap_or(i32::MAX));
        let wait = self.full_at - up - allowed;
        wait.is_positive().then_some(wait)
    }

    pub(super) fn take(&mut self, rate: &Rate, up: Duration) {
        if self.full_at <= up {
            *self = Self::full(up);
        }
        self.full_at = self.full_at.saturating_add(rate.every);
    }

    /// What was taken then is there again, unless all of it has been since.
    fn give_back(&mut self, rate: &Rate, taken: Duration) {
        if taken >= self.used_since {
            self.full_at -= rate.every;
        }
    }
}

/// Who has done it of late, and how often each may.
pub(super) struct Each<K> {
    rate: Rate,
    table: Mutex<Table<K>>,
}

/// The same by their names, which are hashed.
type EachNamed = Each<[u8; 32]>;

struct Table<K> {
    buckets: HashMap<K, Bucket>,
    swept: Duration,
}

impl<K: Eq + Hash> Each<K> {
    pub(super) fn of(rate: Rate) -> Self {
        let table = Table { buckets: HashMap::new(), swept: Duration::ZERO };
        Self { rate, table: Mutex::new(table) }
    }

    fn anew(before: Option<&Arc<Self>>, rate: impl Into<Rate>) -> Arc<Self> {
        let rate = rate.into();
        let same = before.filter(|before| before.rate == rate);
        same.cloned().unwrap_or_else(|| Arc::new(Self::of(rate)))
    }

    /// How long until it may be done; nothing where it may be at once.
    pub(super) fn wait(&self, who: &K, up: Duration) -> Option<Duration> {
        let table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        table.buckets.get(who)?.wait(&self.rate, up)
    }

    /// Counts it, or says how long until it may be done.
    pub(super) fn take(&self, who: K, up: Duration) -> Result<(), Duration> {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if table.buckets.len() >= REMEMBERED && !table.buckets.contains_key(&who) {
            if up - table.swept >= SWEEP_EVERY {
                table.swept = up;
                table.buckets.retain(|_, bucket| bucket.full_at > up);
            }
            if table.buckets.len() >= REMEMBERED {
                return Ok(());
            }
        }
        let bucket = table.buckets.entry(who).or_insert_with(|| Bucket::full(up));
        match bucket.wait(&self.rate, up) {
            Some(wait) => Err(wait),
            None => {
                bucket.take(&self.rate, up);
                Ok(())
            }
        }
    }

    /// It was counted at this moment, and nothing came of it.
    fn give_back(&self, who: &K, taken: Duration) {
        let mut table = self.table.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(bucket) = table.buckets.get_mut(who) {
            bucket.give_back(&self.rate, taken);
        }
    }
}

/// Whose rate it was that is used up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limited {
    /// The caller's.
    Principal,
    /// The address's.
    Address,
    /// Everybody's.
    Route,
    /// That of whoever asks for a role.
    Elevation,
    /// That of all machines of an issuer that ask for it.
    Machines,
}

/// Somebody asks too often.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooOften {
    /// Whose rate it was.
    pub whose: Limited,
    /// What was asked for.
    pub endpoint: Endpoint,
    /// When to ask again.
    pub retry_after: std::time::Duration,
}

impl TooOften {
    fn of(whose: Limited, endpoint: Endpoint) -> impl Fn(Duration) -> Self {
        move |wait| {
            // In whole seconds, as the header has it, and never too early.
            let seconds = wait.whole_seconds() + i64::from(wait.subsec_nanoseconds() > 0);
            let retry_after = std::time::Duration::from_secs(seconds.unsigned_abs());
            Self { whose, endpoint, retry_after }
        }
    }
}

/// How often whoever asks may ask.
pub struct Rates {
    principal: HashMap<Endpoint, Arc<EachNamed>>,
    address: Option<Arc<Each<IpAddr>>>,
    elevation: Arc<EachNamed>,
    machines: Arc<EachNamed>,
    route: HashMap<Endpoint, Arc<Each<()>>>,
}

impl Rates {
    pub(super) fn new(config: &config::Limits) -> Self {
        let elevation = Each::anew(None, config.elevation);
        let machines = Each::anew(None, of_machines(config));
        let (principal, route) = (HashMap::new(), HashMap::new());
        Self { principal, address: None, elevation, machines, route }.anew(config)
    }

    /// Those of another configuration. Where a rate is the same, what is used up of it stays so.
    pub(super) fn anew(&self, config: &config::Limits) -> Self {
        let principal = |(route, rate)| (route, Each::anew(self.principal.get(&route), rate));
        let route = |(route, rate): (&Endpoint, &config::Rate)| {
            (*route, Each::anew(self.route.get(route), *rate))
        };
        Self {
            principal: config.of_principals().map(principal).collect(),
            address: config.address.map(|rate| Each::anew(self.address.as_ref(), rate)),
            elevation: Each::anew(Some(&self.elevation), config.elevation),
            machines: Each::anew(Some(&self.machines), of_machines(config)),
            route: config.route.iter().map(route).collect(),
        }
    }

    /// Counts a request that has come from this network, at this moment.
    ///
    /// # Errors
    /// Where there were too many of late. Then it counts for nothing: whoever goes on asking
    /// takes nothing from the others.
    pub fn request(
        &self,
        network: IpAddr,
        endpoint: Endpoint,
        up: Duration,
    ) -> Result<(), TooOften> {
        let each = self.address.as_ref().filter(|_| endpoint.counts_for_address());
        if let Some(each) = each {
            each.take(network, up).map_err(TooOften::of(Limited::Address, endpoint))?;
        }
        let Some(all) = self.route.get(&endpoint) else { return Ok(()) };
        all.take((), up).map_err(TooOften::of(Limited::Route, endpoint)).inspect_err(|_| {
            if let Some(each) = each {
                each.give_back(&network, up);
            }
        })
    }

    /// Whether it is limited how often one caller may ask for this.
    pub(super) fn limit_callers(&self, endpoint: Endpoint) -> bool {
        self.principal.contains_key(&endpoint)
    }

    /// Counts that somebody asks for this.
    ///
    /// # Errors
    /// Where they did so too often of late.
    pub(super) fn caller(
        &self,
        who: Asking<'_>,
        endpoint: Endpoint,
        up: Duration,
    ) -> Result<(), TooOften> {
        let Some(each) = self.principal.get(&endpoint) else { return Ok(()) };
        // Whatever was made of their token by exchange, it is they.
        let who = hashed(&origin_of(who.principal, who.own));
        each.take(who, up).map_err(TooOften::of(Limited::Principal, endpoint))
    }

    /// Counts that whoever is called this asks for a role, for one of these machines where it is
    /// no person, unless nothing comes of it.
    ///
    /// # Errors
    /// Where they did so too often of late, or all of those machines together.
    pub(super) fn elevation(
        &self,
        name: &str,
        machine: Option<&Machine<'_>>,
        up: Duration,
    ) -> Result<Turn, TooOften> {
        let too_often = |whose| TooOften::of(whose, Endpoint::Elevations);
        let mut turn = Turn { taken: Vec::new(), at: up, counts: false };
        turn.take(&self.elevation, hashed(name), too_often(Limited::Elevation))?;
        if let Some(Machine { issuer, role }) = machine {
            // No role has a space in its name.
            let all = hashed(&format!("{role} {issuer}"));
            turn.take(&self.machines, all, too_often(Limited::Machines))?;
        }
        Ok(turn)
    }
}

fn of_machines(config: &config::Limits) -> Rate {
    Rate::from(config.elevation).times(MACHINES)
}

/// A job, or what else is no person, that asks for a role: it is limited with all others of its
/// issuer that ask for the same.
#[derive(Clone, Debug)]
pub(super) struct Machine<'a> {
    pub(super) issuer: String,
    pub(super) role: &'a str,
}

/// Who asks: the broker's own issuer tells who somebody is that comes with one of its tokens.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asking<'a> {
    pub(super) principal: &'a Principal,
    pub(super) own: &'a str,
}

/// What counts only where it is kept.
pub(super) struct Turn {
    taken: Vec<(Arc<EachNamed>, [u8; 32])>,
    at: Duration,
    counts: bool,
}

impl Turn {
    fn take(
        &mut self,
        each: &Arc<EachNamed>,
        who: [u8; 32],
        too_often: impl Fn(Duration) -> TooOften,
    ) -> Result<(), TooOften> {
        each.take(who, self.at).map_err(too_often)?;
        self.taken.push((each.clone(), who));
        Ok(())
    }

    /// It counts.
    pub(super) fn keep(mut self) {
        self.counts = true;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let given_back = std::mem::take(&mut self.taken).into_iter().filter(|_| !self.counts);
        for (each, who) in given_back {
            each.give_back(&who, self.at);
        }
    }
}

/// Names are long, and a hash is not.
fn hashed(name: &str) -> [u8; 32] {
    let mut hash = [0; 32];
    hash.copy_from_slice(digest(&SHA256, name.as_bytes()).as_ref());
    hash
}

#[cfg(test)]
mod tests {
    use super::*;

    fn each<K: Eq + Hash>(per_minute: u32, burst: u32) -> Each<K> {
        let [per_minute, burst] = [per_minute, burst].map(|n| n.try_into().unwrap());
        Each::of(config::Rate { per_minute, burst: Some(burst) }.into())
    }

    #[test]
    fn there_are_as_many_as_allowed_at_once_and_then_one_at_each_interval() {
        let each = each(60, 5);
        let taken = |at: Duration| (0..20).filter(|_| each.take("a", at).is_ok()).count();
        let start = Duration::hours(1);
        assert_eq!(taken(start), 5);
        assert_eq!(each.take("a", start), Err(Duration::SECOND));
        assert_eq!(each.take("b", start), Ok(()), "others are not affected");
        assert_eq!(taken(start + Duration::milliseconds(900)), 0);
        assert_eq!(taken(start + Duration::SECOND), 1);
        assert_eq!(taken(start + Duration::seconds(3)), 2);
        assert_eq!(taken(start + Duration::MINUTE), 5);
    }

    #[test]
    fn very_many_take_bounded_memory_and_keep_nobody_out() {
        let each = each(1, 1);
        let start = Duration::hours(1);
        for n in 0..3 * REMEMBERED {
            assert_eq!(each.take(n, start), Ok(()), "{n}");
        }
        let remembered = || each.table.lock().unwrap().buckets.len();
        assert_eq!(remembered(), REMEMBERED);
        assert!(each.take(0, start).is_err(), "who was there first is limited still");
        // Who need not be remembered makes room.
        let later = start + Duration::MINUTE;
        assert_eq!(each.take(usize::MAX, later), Ok(()));
        assert_eq!(remembered(), 1);
        assert!(each.take(usize::MAX, later).is_err());
    }

    #[test]
    fn what_is_given_back_is_no_more_than_was_taken() {
        let each = each(60, 3);
        let left = |at: Duration| (0..9).filter(|_| each.take("a", at).is_ok()).count();
        let start = Duration::hours(1);
        assert_eq!(left(start), 3);
        each.give_back(&"a", start);
        assert_eq!(left(start), 1);
        // One that is given back after all was there again is not there twice.
        let later = start + Duration::MINUTE;
        assert_eq!(left(later), 3);
        each.give_back(&"a", start);
        assert_eq!(left(later), 0);
        each.give_back(&"a", later);
        assert_eq!(left(later), 1);
    }

    #[test]
    fn nobody_is_told_to_come_too_early() {
        let told = |wait| TooOften::of(Limited::Route, Endpoint::Token)(wait).retry_after.as_secs();
        assert_eq!(told(Duration::milliseconds(1)), 1);
        assert_eq!(told(Duration::SECOND), 1);
        assert_eq!(told(Duration::milliseconds(1001)), 2);
    }

    #[test]
    fn what_all_are_too_many_for_takes_nothing_from_an_address() {
        let rate = |per_minute: u32| config::Rate {
            per_minute: per_minute.try_into().unwrap(),
            burst: None,
        };
        let limits = config::Limits {
            address: Some(rate(60)),
            route: [(Endpoint::Token, rate(2))].into(),
            ..config::Limits::default()
        };
        let (rates, up) = (Rates::new(&limits), Duration::hours(1));
        let ask = |last: u8, endpoint| rates.request(IpAddr::from([10, 0, 0, last]), endpoint, up);
        let whose = |asked: Result<(), TooOften>| asked.unwrap_err().whose;
        while ask(1, Endpoint::Token).is_ok() {}
        for _ in 0..200 {
            assert_eq!(whose(ask(2, Endpoint::Token)), Limited::Route);
        }
        ask(2, Endpoint::Introspect).unwrap();
    }

    #[test]
    fn machines_of_one_issuer_are_limited_together_and_people_never_are() {
        let rates = Rates::new(&config::Limits::default());
        let issuer = "https://ci.example.com";
        let up = Duration::hours(1);
        let asks = |name: &str, of: Option<(&str, &str)>, up: Duration| {
            let machine = of.map(|(issuer, role)| Machine { issuer: issuer.into(), role });
            rates.elevation(name, machine.as_ref(), up).map(Turn::keep)
        };
        let whose = |asked: Result<(), TooOften>| asked.unwrap_err().whose;
        let all = Some((issuer, "admin"));
        for number in 0..30 {
            asks(&format!("job {number}"), all, up).unwrap();
        }
        let told = asks("another job", all, up).unwrap_err();
        assert_eq!((told.whose, told.retry_after.as_secs()), (Limited::Machines, 20));
        // Others are not affected: people, other roles, other issuers.
        asks("person alice", None, up).unwrap();
        asks("another job", Some((issuer, "vault")), up).unwrap();
        asks("another job", Some(("https://other.example.com", "admin")), up).unwrap();
        asks("another job", all, up + Duration::seconds(20)).unwrap();
        // One alone has no more than one person has, and takes no more from the others.
        let up = up + Duration::hours(1);
        for _ in 0..10 {
            asks("job", all, up).unwrap();
        }
        for _ in 0..50 {
            assert_eq!(whose(asks("job", all, up)), Limited::Elevation);
        }
        for number in 0..20 {
            asks(&format!("job {number}"), all, up).unwrap();
        }
        // What comes to nothing counts for neither, nor what all of them are too many for.
        assert_eq!(whose(asks("another job", all, up)), Limited::Machines);
        let later = up + Duration::hours(1);
        for _ in 0..50 {
            let machine = Machine { issuer: issuer.into(), role: "admin" };
            drop(rates.elevation("job", Some(&machine), later).unwrap());
        }
        for _ in 0..10 {
            asks("job", all, later).unwrap();
        }
    }
}
