use super::*;
use crate::broker::notify::Urgency;
use crate::broker::notify::tests::{Behaviour, Stand, config};
use crate::broker::store::sql::tests::{Ground, record};
use crate::broker::store::{Effect, Unit};
use crate::host::clock::SystemClock;

struct World(Channels);

impl View for World {
    fn channels(&self) -> &Channels {
        &self.0
    }

    fn people(&self) -> Option<&Directory> {
        None
    }
}

/// A process with channels of which this is said.
struct Process {
    world: Arc<World>,
    sorter: Sorter<World>,
}

impl Process {
    fn on(store: &Arc<dyn Store>, channels: &[&str]) -> Self {
        let named = channels.iter().map(|more| {
            let stand: Box<dyn super::super::channel::Channel> =
                Box::new(Stand(Arc::new(Behaviour::default())));
            ("one", config(more), stand)
        });
        let world = Arc::new(World(Channels::of(named.collect())));
        let newest = world.clone();
        let sorter = Sorter {
            store: store.clone(),
            clock: Arc::new(SystemClock),
            newest: Arc::new(move || newest.clone()),
            tally: Tally::default(),
            wake: Arc::default(),
            couriers: BTreeMap::new(),
            left: BTreeSet::new(),
            strays: None,
            failed: false,
        };
        Self { world, sorter }
    }

    /// Looks until there is nothing that it has not seen.
    async fn looks(&mut self) {
        while self.sorter.sort(self.world.as_ref()).await.unwrap() {}
    }
}

/// A message of this kind that was written so long ago.
fn message(key: &str, kind: &str, age: time::Duration) -> Message {
    Message::new(key, kind, Urgency::Info, "A message", SystemClock.now() - age).channels()
}

async fn tell(store: &dyn Store, messages: impl IntoIterator<Item = Message>) {
    let unit = |message| Unit::of(record("told")).with(Effect::Tell(message));
    let units: Vec<_> = messages.into_iter().map(unit).collect();
    store.commit(&units).await.unwrap();
}

/// Of several processes one may have another configuration, still or already.
#[tokio::test]
async fn what_one_process_has_no_channel_for_is_left_for_others_for_a_while() {
    let ages = |seconds: i64| time::Duration::seconds(seconds);
    for ground in Ground::each().await {
        let store: Arc<dyn Store> = Arc::new(ground.open().await);
        let unsorted = async || store.unspread(999).await.unwrap().len();
        let mut without = Process::on(&store, &[]);
        let mut other = Process::on(&store, &["only = [\"emergency\"]"]);
        let mut well = Process::on(&store, &[""]);
        tell(store.as_ref(), [message("k", "drill", ages(240))]).await;
        without.looks().await;
        other.looks().await;
        let is_shared = ground.is_postgres();
        assert_eq!(unsorted().await, usize::from(is_shared));
        well.looks().await;
        assert_eq!(unsorted().await, 0);
        assert_eq!(store.backlog().await.unwrap().len(), usize::from(is_shared));
        // Once nobody had a channel for it for so long, nobody is told.
        tell(store.as_ref(), [message("old", "drill", ages(301))]).await;
        without.looks().await;
        assert_eq!(unsorted().await, 0);
    }
}

/// However many are left, they keep back nothing that is newer.
#[tokio::test]
async fn what_is_left_keeps_nothing_back() {
    for ground in Ground::each().await {
        let store: Arc<dyn Store> = Arc::new(ground.open().await);
        let mut process = Process::on(&store, &["only = [\"emergency\"]"]);
        let age = time::Duration::seconds(60);
        let many = 2 * BATCH + 50;
        tell(store.as_ref(), (0..many).map(|n| message(&n.to_string(), "drill", age))).await;
        tell(store.as_ref(), [message("late", "emergency", time::Duration::ZERO)]).await;
        process.looks().await;
        let [backlog] = &store.backlog().await.unwrap()[..] else { panic!("one is told") };
        assert_eq!(backlog.waiting, 1);
        let left = if ground.is_postgres() { many as usize } else { 0 };
        assert_eq!(process.sorter.left.len(), left);
        assert_eq!(store.unspread(999).await.unwrap().len(), left);
    }
}

/// Whoever replaces a channel is not to make those forgotten whom it has not told.
#[tokio::test]
async fn what_was_for_a_channel_that_is_no_more_is_told_of_and_counted() {
    for ground in Ground::each().await {
        let store: Arc<dyn Store> = Arc::new(ground.open().await);
        let mut process = Process::on(&store, &[""]);
        let kept = STRAYS_KEPT + time::Duration::minutes(1);
        let ages = [kept, time::Duration::minutes(2), time::Duration::ZERO];
        let told = ["a", "b", "c"].into_iter().zip(ages);
        tell(store.as_ref(), told.map(|(key, age)| message(key, "drill", age))).await;
        for (key, channel, age) in
            [("a", "pager", kept), ("b", "chat", ages[1]), ("c", "one", ages[2])]
        {
            let at = SystemClock.now() - age;
            let to = NewDelivery { channel: channel.into(), addressee: "".into(), hurry: 0, at };
            store.spread(key, &[to]).await.unwrap();
        }
        let names = process.world.0.names();
        let look = async |process: &Process| {
            looked(store.backlog().await.unwrap(), &names, &process.sorter.tally)
        };
        let waiting = |looked: &[(String, Counted, Option<Backlog>)]| -> Vec<(String, u64)> {
            let of = |(name, _, backlog): &(String, _, Option<Backlog>)| {
                (name.clone(), backlog.as_ref().map_or(0, |backlog| backlog.waiting))
            };
            looked.iter().map(of).collect()
        };
        let before = look(&process).await;
        assert_eq!(waiting(&before), [("one".into(), 1), (REMOVED.into(), 2)]);
        let since = before[1].2.as_ref().unwrap().since;
        assert!(SystemClock.now() - since >= kept, "the oldest counts");
        process.sorter.strays(&process.world.0).await.unwrap();
        let after = look(&process).await;
        assert_eq!(waiting(&after), [("one".into(), 1), (REMOVED.into(), 1)]);
        assert_eq!(after[1].1, Counted { given_up: 1, ..Counted::default() });
        assert_eq!(after[0].1, Counted::default());
    }
}
