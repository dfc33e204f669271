use std::sync::atomic::{AtomicI64, Ordering};

use super::*;
use crate::broker::directory::Directory;
use crate::broker::notify::channel::Channels;
use crate::broker::notify::outbox::Outbox;
use crate::broker::notify::tests::{Behaviour, Stand, config, people};
use crate::broker::notify::{Counted, Message, Urgency};
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::{Ground, record};
use crate::broker::store::{Effect, Ledger as _, NotifyStore as _, Unit, sqlite};
use crate::broker::testbed::{Shifted, Standing};
use crate::host::clock::SystemClock;

/// How long something may take that takes moments.
const SOON: Duration = Duration::from_secs(60);

struct World {
    channels: Channels,
    people: Directory,
}

impl View for World {
    fn channels(&self) -> &Channels {
        &self.channels
    }

    fn people(&self) -> Option<&Directory> {
        Some(&self.people)
    }
}

/// Channels of these names, each of which does what is said of it.
fn world(of: &[(&str, &str)]) -> (Arc<World>, Vec<Arc<Behaviour>>) {
    let behaviours: Vec<_> = of.iter().map(|_| Arc::new(Behaviour::default())).collect();
    let channels = of
        .iter()
        .zip(&behaviours)
        .map(|((name, more), behaviour)| {
            let stand: Box<dyn super::super::channel::Channel> = Box::new(Stand(behaviour.clone()));
            (*name, config(more), stand)
        })
        .collect();
    (Arc::new(World { channels: Channels::of(channels), people: people() }), behaviours)
}

fn start(store: &Arc<SqlStore>, world: &Arc<World>) -> Outbox {
    let world = world.clone();
    Outbox::start(store.clone(), Arc::new(SystemClock), move || world.clone())
}

fn telling(key: &str, urgency: Urgency) -> Message {
    Message::new(key, "drill", urgency, "A drill", SystemClock.now()).channels()
}

/// Puts messages on record, with what they tell of.
async fn tell(store: &SqlStore, messages: impl IntoIterator<Item = Message>) {
    let unit = |message| Unit::of(record("told")).with(Effect::Tell(message));
    let units: Vec<_> = messages.into_iter().map(unit).collect();
    for outcome in store.commit(&units).await.unwrap() {
        assert!(outcome.is_committed());
    }
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !holds().await {
        assert!(Instant::now() < end, "it takes too long: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn courier(store: &Arc<SqlStore>, world: &Arc<World>, name: &str) -> Courier<World> {
    courier_by(Arc::new(SystemClock), store, world, name)
}

fn courier_by(
    clock: Arc<dyn Clock>,
    store: &Arc<SqlStore>,
    world: &Arc<World>,
    name: &str,
) -> Courier<World> {
    let world = world.clone();
    let newest: Newest<World> = Arc::new(move || world.clone());
    Courier::new(name.into(), store.clone(), clock, newest, Tally::default())
}

/// Goes one step, as a process does that nobody stops.
async fn step(courier: &mut Courier<World>, world: &World) -> Duration {
    let (_keep, mut stopped) = watch::channel(false);
    let named = world.channels.get(&courier.name).unwrap();
    courier.step(&named, world, &mut stopped).await.unwrap()
}

#[tokio::test]
async fn what_is_recorded_is_told_once_and_the_same_key_tells_nothing_new() {
    for ground in Ground::each().await {
        let store = Arc::new(ground.open().await);
        let (world, on) = world(&[("one", ""), ("two", "only = [\"emergency\"]")]);
        let outbox = start(&store, &world);
        let first = telling("k", Urgency::Info);
        let again = Message::new("k", "emergency", Urgency::Alarm, "Other", SystemClock.now());
        tell(&store, [first.clone(), again.channels(), telling("l", Urgency::Info)]).await;
        until("both", async || on[0].count() == 2).await;
        until("records of it", async || store.undelivered(9).await.unwrap().is_empty()).await;
        // Also later, once it was told.
        tell(&store, [first]).await;
        assert_eq!(store.unspread(9).await.unwrap(), []);
        let look = async || outbox.look(&["one".into(), "two".into()]).await.unwrap();
        until("both to be counted", async || look().await[0].1.delivered == 2).await;
        let seen = look().await;
        assert_eq!((seen[0].1.failed, &seen[0].2), (0, &None));
        assert_eq!((on[0].most(), on[1].count()), (1, 0));
        outbox.close().await;
        assert_eq!(store.records(0, 9).await.unwrap().len(), 4, "what they tell of is on record");
    }
}

#[tokio::test]
async fn who_is_down_or_hangs_keeps_no_other_channel_back_and_is_told_once_it_is_up() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    let (world, on) = world(&[("down", ""), ("hangs", ""), ("well", "")]);
    on[0].is_down.store(true, Ordering::Relaxed);
    on[1].hangs.store(true, Ordering::Relaxed);
    let outbox = start(&store, &world);
    tell(&store, (0..40).map(|n| telling(&n.to_string(), Urgency::Info))).await;
    until("the one that is well", async || on[2].count() == 40).await;
    until("two that fail", async || {
        let names = ["down".into(), "hangs".into()];
        let seen = outbox.look(&names).await.unwrap();
        seen.iter().filter(|(_, counted, _)| counted.failed > 0).count() == names.len()
    })
    .await;
    let listed = store.undelivered(999).await.unwrap();
    assert_eq!(listed.len(), 80);
    let why: Vec<_> = listed.iter().filter_map(|one| one.why.as_deref()).collect();
    assert!(why.iter().any(|why| why.contains("503")), "{why:?}");
    assert!(why.iter().any(|why| why.contains("within 400ms")), "{why:?}");
    on[0].is_down.store(false, Ordering::Relaxed);
    on[1].hangs.store(false, Ordering::Relaxed);
    until("all", async || on.iter().all(|on| on.count() == 40)).await;
    assert!(on.iter().all(|on| on.most() == 1));
    outbox.close().await;
}

#[tokio::test]
async fn a_message_that_is_not_taken_keeps_no_other_back_and_an_alarm_overtakes() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    let (world, on) = world(&[("one", "")]);
    on[0].refuses.lock().unwrap().push("bad".into());
    let rest = (0..40).map(|n| telling(&n.to_string(), Urgency::Info));
    let messages = [telling("bad", Urgency::Alarm)].into_iter().chain(rest);
    tell(&store, messages.chain([telling("alarm", Urgency::Alarm)])).await;
    spread_only(&store, &world).await;
    // It stands still, later than all was told: what is put off is not due again meanwhile.
    let clock = Arc::new(Standing::default());
    clock.set(clock.seconds() + 1);
    let mut courier = courier_by(clock, &store, &world, "one");
    while on[0].count() < 41 {
        assert_eq!(step(&mut courier, &world).await, Duration::ZERO);
    }
    assert_eq!(on[0].order.lock().unwrap()[0], "alarm");
    assert!(courier.trouble.is_none(), "the receiver is in order");
    let [left] = &store.undelivered(9).await.unwrap()[..] else { panic!("one is left") };
    assert_eq!((&*left.delivery.key, left.delivery.attempts), ("bad", 1));
}

/// Says to whom messages go without delivering any.
async fn spread_only(store: &Arc<SqlStore>, world: &Arc<World>) {
    for (key, message) in store.unspread(9999).await.unwrap() {
        let to: Vec<_> = world
            .channels
            .iter()
            .map(|(channel, _)| crate::broker::store::NewDelivery {
                channel: channel.clone(),
                addressee: String::new(),
                hurry: message.as_ref().unwrap().urgency() as u8,
                at: message.as_ref().unwrap().at(),
            })
            .collect();
        store.spread(&key, &to).await.unwrap();
        // Whoever comes second changes nothing.
        store.spread(&key, &to).await.unwrap();
    }
}

#[tokio::test]
async fn a_receiver_is_asked_again_when_it_wants_to_be_and_later_each_time() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    let (world, on) = world(&[("one", "")]);
    on[0].is_down.store(true, Ordering::Relaxed);
    *on[0].wish.lock().unwrap() = Some(Duration::from_secs(600));
    tell(&store, [telling("k", Urgency::Info), telling("l", Urgency::Info)]).await;
    spread_only(&store, &world).await;
    let mut courier = courier(&store, &world, "one");
    step(&mut courier, &world).await;
    let (_, until) = courier.trouble.unwrap();
    let left = until.saturating_duration_since(Instant::now());
    assert!(left > Duration::from_secs(590) && left <= Duration::from_secs(605), "{left:?}");
    let listed = store.undelivered(9).await.unwrap();
    let wait = listed[0].due_at.unwrap() - SystemClock.now();
    assert!(wait > time::Duration::seconds(590), "{wait}");
    assert_eq!(step(&mut courier, &world).await, LOOK, "it is left alone");
    // Whoever asks for more than an hour gets an hour.
    *on[0].wish.lock().unwrap() = Some(Duration::from_secs(999_999));
    courier.suffer(Error::new(ErrorKind::Other, "x"), Some(Duration::from_secs(999_999)));
    let left = courier.trouble.unwrap().1.saturating_duration_since(Instant::now());
    assert!(left <= LONGEST_WISH, "{left:?}");
    // By chance, between nothing and twice as much as before, up to the longest.
    for (failures, most) in [(1, 2), (2, 4), (5, 32), (9, 512), (10, 600), (99, 600)] {
        let pauses: Vec<_> = (0..200).map(|_| pause(failures)).collect();
        let (least, longest) = (pauses.iter().min().unwrap(), pauses.iter().max().unwrap());
        let most = Duration::from_secs(most);
        assert!(*longest <= most && *longest > most.mul_f64(0.8), "{failures}: {longest:?}");
        assert!(*least < most.mul_f64(0.2), "{failures}: {least:?}");
    }
}

#[tokio::test]
async fn what_nobody_takes_is_given_up_in_the_end_and_that_is_seen() {
    for ground in Ground::each().await {
        let store = Arc::new(ground.open().await);
        let (world, on) = world(&[("one", "give_up_after = \"1h\""), ("two", "")]);
        on.iter().for_each(|on| on.is_down.store(true, Ordering::Relaxed));
        let at = SystemClock.now() - time::Duration::minutes(61);
        let old = Message::new("old", "drill", Urgency::Alarm, "A drill", at).channels();
        tell(&store, [old]).await;
        spread_only(&store, &world).await;
        for name in ["one", "two"] {
            let mut courier = courier(&store, &world, name);
            step(&mut courier, &world).await;
            let counted = counted(&courier);
            assert_eq!((counted.failed, counted.given_up), (1, u64::from(name == "one")));
        }
        let listed = store.undelivered(9).await.unwrap();
        let due: Vec<_> = listed.iter().map(|one| one.due_at.is_some()).collect();
        assert_eq!(due, [false, true], "{listed:?}");
        assert_eq!(listed[0].why.as_deref(), Some("it answered 503"));
        assert_eq!(store.backlog().await.unwrap().len(), 1, "what is given up waits no more");
        // The other channel is no more: whatever waits there waits for a day.
        let names = ["one".to_string()];
        let strays = async |before| {
            let before = SystemClock.now() - before;
            store.give_up_strays(&names, before, "gone", 9).await.unwrap()
        };
        assert_eq!(strays(time::Duration::hours(2)).await, 0);
        assert_eq!(strays(time::Duration::hours(1)).await, 1);
        assert_eq!(store.backlog().await.unwrap(), []);
        // Nothing of it is left once it is old enough.
        let later = SystemClock.now() + time::Duration::days(89);
        assert_eq!(store.forget_messages(later, 9).await.unwrap(), 0);
        let later = later + time::Duration::days(2);
        assert_eq!(store.forget_messages(later, 9).await.unwrap(), 1);
        assert_eq!(store.undelivered(9).await.unwrap(), []);
    }
}

/// What was counted of its channel.
fn counted(courier: &Courier<World>) -> Counted {
    let mut seen = Counted::default();
    courier.tally.count(&courier.name, |counted| seen = *counted);
    seen
}

/// As where a process is killed that has begun: another one goes on once its time is over, and
/// where it was only slow, one of the two counts.
#[tokio::test]
async fn what_a_process_has_begun_that_is_gone_is_done_by_another() {
    for ground in Ground::each().await {
        let store = Arc::new(ground.open().await);
        let (world, on) = world(&[("one", "")]);
        tell(&store, [telling("k", Urgency::Info)]).await;
        spread_only(&store, &world).await;
        let at = now(store.as_ref(), &SystemClock).await.unwrap();
        let due = async |at| store.due("one", at, at + BEYOND, 9).await.unwrap();
        let [begun] = &due(at).await[..] else { panic!("one is due") };
        let until = at + time::Duration::seconds(30);
        let take = [(begun.clone(), Step::Take(until))];
        assert_eq!(store.change_deliveries(&take).await.unwrap(), [true]);
        assert_eq!(store.change_deliveries(&take).await.unwrap(), [false], "one has it");
        let mut other = courier(&store, &world, "one");
        assert_eq!(step(&mut other, &world).await, LOOK);
        assert_eq!(due(until).await.len(), 1);
        // A clock that was ahead for a while keeps nothing back for ever.
        let ahead = [(due(until).await.remove(0), Step::PutBack(at + BEYOND * 2))];
        assert_eq!(store.change_deliveries(&ahead).await.unwrap(), [true]);
        assert_eq!(step(&mut other, &world).await, Duration::ZERO);
        assert_eq!(on[0].count(), 1);
        let late = Delivery { turn: begun.turn + 1, ..begun.clone() };
        let late = [(late, Step::PutOff(at, "late".into()))];
        assert_eq!(store.change_deliveries(&late).await.unwrap(), [false]);
        assert_eq!(store.undelivered(9).await.unwrap(), []);
    }
}

/// The machine's clock, where the process is stopped right after it was asked how long that is up.
#[derive(Default)]
struct Stops(AtomicI64);

impl Clock for Stops {
    fn now(&self) -> OffsetDateTime {
        SystemClock.now()
    }

    fn uptime(&self) -> time::Duration {
        time::Duration::seconds(self.0.fetch_add(LEASE.as_secs().cast_signed(), Ordering::Relaxed))
    }
}

/// By then another one may have delivered it, and what ended it.
#[tokio::test]
async fn whoever_was_stopped_for_longer_than_it_may_take_leaves_what_it_took() {
    for ground in Ground::each().await {
        let store = Arc::new(ground.open().await);
        let (world, on) = world(&[("one", "")]);
        tell(&store, [telling("k", Urgency::Info), telling("l", Urgency::Info)]).await;
        spread_only(&store, &world).await;
        let mut late = courier_by(Arc::new(Stops::default()), &store, &world, "one");
        step(&mut late, &world).await;
        assert_eq!(on[0].count(), 0);
        let left = store.undelivered(9).await.unwrap();
        assert_eq!(left.iter().map(|one| one.delivery.attempts).collect::<Vec<_>>(), [0, 0]);
        // Whoever is not late has it at once.
        step(&mut courier(&store, &world, "one"), &world).await;
        assert_eq!((on[0].count(), on[0].most()), (2, 1));
    }
}

#[tokio::test]
async fn whoever_ends_puts_back_what_has_not_come_about() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    let (world, on) = world(&[("one", "")]);
    on[0].hangs.store(true, Ordering::Relaxed);
    on[0].patient.store(true, Ordering::Relaxed);
    tell(&store, [telling("k", Urgency::Info)]).await;
    let outbox = start(&store, &world);
    let attempts = async || {
        let listed = store.undelivered(9).await.unwrap();
        listed.first().map(|one| one.delivery.attempts)
    };
    until("an attempt", async || attempts().await == Some(1)).await;
    outbox.close().await;
    // It was not tried to the end, and is due at once: not when the time of who is gone is over.
    assert_eq!(attempts().await, Some(0));
    let due = store.undelivered(9).await.unwrap()[0].due_at.unwrap();
    assert!(due <= SystemClock.now(), "{due}");
}

#[tokio::test]
async fn of_several_processes_one_delivers_each_and_a_full_outbox_is_emptied() {
    for (number, ground) in Ground::each().await.into_iter().enumerate() {
        // Ten thousand on the one; as many as show that nothing is done twice on the other.
        let many = if number == 0 { 10_000 } else { 500 };
        let stores = [Arc::new(ground.open().await), Arc::new(ground.open().await)];
        let stores = if ground.is_postgres() { &stores[..] } else { &stores[..1] };
        let (world, on) = world(&[("one", "")]);
        for from in (0..many).step_by(1000) {
            let some =
                (from..(from + 1000).min(many)).map(|n| telling(&n.to_string(), Urgency::Info));
            tell(&stores[0], some).await;
        }
        let outboxes: Vec<_> = stores.iter().map(|store| start(store, &world)).collect();
        let end = Instant::now() + Duration::from_secs(240);
        while on[0].count() < many {
            assert!(Instant::now() < end, "{} of {many}", on[0].count());
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for outbox in outboxes {
            outbox.close().await;
        }
        assert_eq!(on[0].most(), 1, "each is told of once");
        assert_eq!(stores[0].backlog().await.unwrap(), []);
    }
}

#[tokio::test]
async fn people_are_told_by_name_and_roles_and_kinds_choose_channels() {
    let (world, _) = world(&[
        ("all", ""),
        ("admins", "roles = [\"admin\"]"),
        ("alarms", "only = [\"emergency\"]"),
    ]);
    let to = |message: &Message| {
        let on = world.channels.iter();
        let to = on.filter(|(_, named)| !named.addressees(message).is_empty());
        to.map(|(name, _)| name.clone()).collect::<Vec<_>>().join(" ")
    };
    let drill = || telling("k", Urgency::Info);
    assert_eq!(to(&drill()), "admins all", "what is about no role is for everybody");
    assert_eq!(to(&drill().role("admin")), "admins all");
    assert_eq!(to(&drill().role("deploy")), "all");
    let at = SystemClock.now();
    let emergency = || Message::new("k", "emergency", Urgency::Alarm, "x", at);
    assert_eq!(to(&emergency().role("deploy").channels()), "alarms all");
    assert_eq!(to(&emergency().people(["alice"])), "", "it is for people alone");
}

/// An emergency, and that it was reviewed, which is over with it.
fn alarm_and_end(alarm_at: OffsetDateTime, about: &str) -> [Message; 2] {
    let told = |key: &str, kind: &str, urgency, at| {
        Message::new(key, kind, urgency, "x", at).about(about).channels()
    };
    let alarm = told("alarm", "emergency", Urgency::Alarm, alarm_at);
    let end = told("end", "reviewed", Urgency::Info, SystemClock.now()).ends(&["emergency"]);
    [alarm, end]
}

#[tokio::test]
async fn what_is_over_never_overtakes_what_it_was() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    let (world, on) = world(&[("one", "give_up_after = \"1h\"")]);
    on[0].follows.store(true, Ordering::Relaxed);
    on[0].refuses.lock().unwrap().push("alarm".into());
    let other = telling("other", Urgency::Info).about("8");
    let both = alarm_and_end(SystemClock.now(), "7");
    tell(&store, both.into_iter().chain([other])).await;
    spread_only(&store, &world).await;
    let clock = Arc::new(Shifted::default());
    let mut courier = courier_by(clock.clone(), &store, &world, "one");
    let order = || on[0].order.lock().unwrap().clone();
    for _ in 0..5 {
        step(&mut courier, &world).await;
        clock.0.fetch_add(3, Ordering::Relaxed);
    }
    assert_eq!(order(), ["other"], "what is about something else goes on");
    on[0].refuses.lock().unwrap().clear();
    while on[0].count() < 3 {
        step(&mut courier, &world).await;
        clock.0.fetch_add(30, Ordering::Relaxed);
    }
    assert_eq!(order(), ["other", "alarm", "end"]);
}

#[tokio::test]
async fn once_it_is_given_up_that_it_is_over_is_told_all_the_same() {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    let (world, on) = world(&[("one", "give_up_after = \"1h\"")]);
    on[0].follows.store(true, Ordering::Relaxed);
    on[0].refuses.lock().unwrap().push("alarm".into());
    tell(&store, alarm_and_end(SystemClock.now() - time::Duration::minutes(61), "7")).await;
    spread_only(&store, &world).await;
    let clock = Arc::new(Shifted::default());
    let mut courier = courier_by(clock.clone(), &store, &world, "one");
    step(&mut courier, &world).await;
    let counted = counted(&courier);
    assert_eq!((counted.given_up, on[0].count()), (1, 0));
    clock.0.fetch_add(3, Ordering::Relaxed);
    step(&mut courier, &world).await;
    assert_eq!(*on[0].order.lock().unwrap(), ["end"]);
}

#[tokio::test]
async fn what_waits_about_a_thing_is_found_whatever_that_is_called() {
    for ground in Ground::each().await {
        let store = Arc::new(ground.open().await);
        let (world, _) = world(&[("one", "")]);
        let about = "a_\"%!\\é";
        tell(&store, alarm_and_end(SystemClock.now(), about)).await;
        tell(&store, [telling("other", Urgency::Info).about("ax\"%!\\é")]).await;
        spread_only(&store, &world).await;
        let waiting = async |channel: &str, about: &str| {
            let found = store.waiting_about(channel, about).await.unwrap();
            let mut keys: Vec<_> = found.iter().map(|one| one.key().to_string()).collect();
            keys.sort();
            keys
        };
        assert_eq!(waiting("one", about).await, ["alarm", "end"]);
        assert_eq!(waiting("two", about).await, [""; 0]);
        assert_eq!(waiting("one", "%").await, [""; 0]);
        // Also what somebody is trying, and nothing that has been delivered.
        let at = now(store.as_ref(), &SystemClock).await.unwrap();
        let due = store.due("one", at, at + BEYOND, 9).await.unwrap();
        let find = |key: &str| due.iter().find(|one| one.key == key).unwrap().clone();
        let steps = [(find("alarm"), Step::Take(at + BEYOND / 2)), (find("end"), Step::Delivered)];
        assert_eq!(store.change_deliveries(&steps).await.unwrap(), [true, true]);
        assert_eq!(waiting("one", about).await, ["alarm"]);
    }
}
