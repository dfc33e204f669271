use std::sync::Mutex;

use async_trait::async_trait;

use super::*;
use crate::broker::store::sql::SqlStore;
use crate::broker::store::sql::tests::{append, record};
use crate::broker::store::{OutboxStore, sqlite};

/// A sink that keeps what it gets, and does as it is told.
#[derive(Clone, Default)]
struct Shelf(Arc<Mutex<Kept>>);

#[derive(Default)]
struct Kept {
    deliveries: Vec<Vec<u64>>,
    lines: Vec<String>,
    refuses: Option<Option<Duration>>,
}

#[async_trait]
impl Sink for Shelf {
    async fn take(&mut self, letters: &[Letter]) -> Result<(), Refused> {
        let mut kept = self.0.lock().unwrap();
        if let Some(retry_after) = kept.refuses {
            return Err(Refused { error: Error::new(ErrorKind::Other, "no"), retry_after });
        }
        kept.deliveries.push(letters.iter().map(|letter| letter.sequence).collect());
        kept.lines.extend(letters.iter().map(|letter| letter.json.clone()));
        Ok(())
    }
}

impl Shelf {
    fn courier(&self, store: &Arc<SqlStore>) -> Courier {
        self.beginning(store, BeginWith::First)
    }

    fn beginning(&self, store: &Arc<SqlStore>, begin_with: BeginWith) -> Courier {
        let counts = Arc::new(Counts::of("shelf".into()));
        Courier::new(store.clone(), Box::new(self.clone()), Format::Jsonl, begin_with, counts)
    }

    fn deliveries(&self) -> Vec<Vec<u64>> {
        self.0.lock().unwrap().deliveries.clone()
    }

    fn refuse(&self, how: Option<Option<Duration>>) {
        self.0.lock().unwrap().refuses = how;
    }
}

async fn with_records(count: usize) -> Arc<SqlStore> {
    let store = Arc::new(sqlite::in_memory().await.unwrap());
    append(store.as_ref(), &vec![record("r"); count]).await.unwrap();
    store
}

async fn turn(store: &SqlStore) -> Turn {
    store.turn("shelf").await.unwrap().unwrap()
}

/// Does steps until there is nothing left to do at once.
async fn settle(courier: &mut Courier) -> Duration {
    loop {
        let pause = courier.step().await;
        if !pause.is_zero() {
            return pause;
        }
    }
}

#[tokio::test]
async fn records_go_in_order_and_the_turn_is_given_back() {
    let store = with_records(600).await;
    let shelf = Shelf::default();
    let mut courier = shelf.courier(&store);
    assert_eq!(settle(&mut courier).await, LOOK);
    let deliveries = shelf.deliveries();
    assert_eq!(deliveries.iter().map(Vec::len).collect::<Vec<_>>(), [256, 256, 88]);
    assert_eq!(deliveries.concat(), (1..=600).collect::<Vec<_>>());
    let now = turn(&store).await;
    assert_eq!((now.delivered, now.holder), (600, None));
    assert_eq!((courier.counts.delivered(), courier.counts.failures()), (600, 0));
    // Where there is nothing, nothing is written.
    assert_eq!(settle(&mut courier).await, LOOK);
    assert_eq!(turn(&store).await.beat, now.beat);
    append(store.as_ref(), &[record("one more")]).await.unwrap();
    settle(&mut courier).await;
    assert_eq!(shelf.deliveries()[3], [601]);
}

#[tokio::test]
async fn a_sink_that_takes_nothing_loses_nothing_and_is_left_alone_for_longer_and_longer() {
    let store = with_records(3).await;
    let shelf = Shelf::default();
    let mut courier = shelf.courier(&store);
    shelf.refuse(Some(None));
    let mut pauses = Vec::new();
    for failures in 1..=9 {
        settle(&mut courier).await;
        assert_eq!((turn(&store).await.delivered, courier.counts.failures()), (0, failures));
        let (_, until) = courier.trouble.as_mut().unwrap();
        pauses.push(until.saturating_duration_since(Instant::now()));
        match courier.held.as_ref().map(|turn| turn.beat) {
            // Meanwhile it only shows that it is alive.
            Some(beat) => {
                assert!(courier.step().await <= BEAT);
                assert_eq!(turn(&store).await.beat, beat + 1);
            }
            // Or nothing at all: whoever wants the turn may have it.
            None => {
                let before = turn(&store).await;
                assert_eq!(courier.step().await, LOOK);
                assert_eq!((turn(&store).await, &before.holder), (before.clone(), &None));
            }
        }
        courier.trouble.as_mut().unwrap().1 = Instant::now();
    }
    assert!(pauses[0] <= PAUSE[0] * 2 && pauses[8] > PAUSE[1] / 2, "{pauses:?}");
    shelf.refuse(Some(Some(Duration::from_secs(3600))));
    settle(&mut courier).await;
    let left = courier.trouble.as_ref().unwrap().1.saturating_duration_since(Instant::now());
    assert!(left > LONGEST_WISH - BEAT && left <= LONGEST_WISH, "{left:?}");
    shelf.refuse(None);
    courier.trouble.as_mut().unwrap().1 = Instant::now();
    settle(&mut courier).await;
    assert_eq!(shelf.deliveries(), [[1, 2, 3]]);
    assert!(courier.trouble.is_none());
}

#[tokio::test]
async fn of_several_processes_one_has_the_turn_until_it_shows_no_more_life() {
    let store = with_records(3).await;
    let (first_shelf, second_shelf) = (Shelf::default(), Shelf::default());
    let (mut first, mut second) = (first_shelf.courier(&store), second_shelf.courier(&store));
    first_shelf.refuse(Some(None));
    settle(&mut first).await;
    assert_eq!(settle(&mut second).await, LOOK);
    assert_eq!(second_shelf.deliveries(), [[0; 0]; 0]);
    // However long it lasts, whoever waits and shows life keeps it.
    let long_ago = |courier: &mut Courier| {
        let (beat, since) = courier.watched.unwrap();
        courier.watched = Some((beat, since.checked_sub(LEASE).unwrap()));
    };
    first.step().await;
    long_ago(&mut second);
    assert_eq!(settle(&mut second).await, LOOK);
    assert_eq!(second_shelf.deliveries(), [[0; 0]; 0]);
    // It stops, as where it was killed.
    long_ago(&mut second);
    settle(&mut second).await;
    assert_eq!(second_shelf.deliveries(), [[1, 2, 3]]);
    append(store.as_ref(), &[record("r")]).await.unwrap();
    // It was only slow: what it does then moves nothing, and is seen as done twice.
    first_shelf.refuse(None);
    first.trouble.as_mut().unwrap().1 = Instant::now();
    first.step().await;
    assert_eq!((turn(&store).await.delivered, first.held.is_none()), (3, true));
    settle(&mut first).await;
    assert_eq!(first_shelf.deliveries().last().unwrap(), &[4]);
    assert_eq!(turn(&store).await.delivered, 4);
}

#[tokio::test]
async fn whoever_does_not_reach_a_sink_leaves_it_to_others_in_the_end() {
    let store = with_records(3).await;
    let (first_shelf, second_shelf) = (Shelf::default(), Shelf::default());
    let (mut first, mut second) = (first_shelf.courier(&store), second_shelf.courier(&store));
    first_shelf.refuse(Some(None));
    settle(&mut first).await;
    let mut failures = 0;
    while second_shelf.deliveries().is_empty() {
        first.step().await;
        // All pauses are over at once where it has the turn.
        if first.held.is_some()
            && let Some((_, until)) = &mut first.trouble
        {
            *until = Instant::now();
        }
        second.step().await;
        failures = first.counts.failures();
        assert!(failures < 20, "it keeps the turn");
    }
    assert!(failures > 3, "a sink that fails a few times is no reason");
    assert_eq!(second_shelf.deliveries(), [[1, 2, 3]]);
}

#[tokio::test]
async fn whoever_ends_lets_others_go_on_at_once() {
    let store = with_records(1).await;
    let shelf = Shelf::default();
    shelf.refuse(Some(None));
    let (stop, stopped) = watch::channel(false);
    let running = tokio::spawn(shelf.courier(&store).run(stopped));
    let held = async {
        while store.turn("shelf").await.unwrap().is_none_or(|turn| turn.holder.is_none()) {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), held).await.unwrap();
    stop.send_replace(true);
    tokio::time::timeout(Duration::from_secs(20), running).await.unwrap().unwrap();
    assert_eq!(turn(&store).await.holder, None);
}

#[tokio::test]
async fn a_sink_may_begin_with_what_comes_next() {
    let store = with_records(3).await;
    let shelf = Shelf::default();
    let mut courier = shelf.beginning(&store, BeginWith::Next);
    settle(&mut courier).await;
    append(store.as_ref(), &[record("r")]).await.unwrap();
    settle(&mut courier).await;
    assert_eq!(shelf.deliveries(), [[4]]);
    // Once it is known, what it has counts.
    settle(&mut shelf.courier(&store)).await;
    assert_eq!(shelf.deliveries(), [[4]]);
}

#[tokio::test]
async fn a_delivery_is_no_longer_than_a_mebibyte_and_a_bad_record_keeps_no_other_back() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.db");
    let store = Arc::new(sqlite::open(&path).await.unwrap());
    append(store.as_ref(), &vec![record(&"x".repeat(60_000)); 40]).await.unwrap();
    let shelf = Shelf::default();
    settle(&mut shelf.courier(&store)).await;
    let deliveries = shelf.deliveries();
    assert_eq!(deliveries.concat(), (1..=40).collect::<Vec<_>>());
    assert_eq!(deliveries.iter().map(Vec::len).collect::<Vec<_>>(), [17, 17, 6]);
    sqlite::tests::tamper(&path, "update audit_record set jti = 'x' where sequence = 7").await;
    let again = Shelf::default();
    let counts = Arc::new(Counts::of("again".into()));
    let sink = Box::new(again.clone());
    settle(&mut Courier::new(store.clone(), sink, Format::Jsonl, BeginWith::First, counts)).await;
    assert_eq!(again.deliveries().concat(), (1..=40).collect::<Vec<_>>());
    let line: serde_json::Value = serde_json::from_str(&again.0.lock().unwrap().lines[6]).unwrap();
    assert_eq!((&line["sequence"], line["unreadable"].is_string()), (&7.into(), true));
}

#[tokio::test]
async fn what_somebody_has_deleted_is_said_in_its_place() {
    for format in [Format::Jsonl, Format::Ecs, Format::Ocsf] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("broker.db");
        let store = Arc::new(sqlite::open(&path).await.unwrap());
        append(store.as_ref(), &vec![record("r"); 9]).await.unwrap();
        let delete = "delete from audit_record where sequence in (1, 4, 5, 9)";
        sqlite::tests::tamper(&path, delete).await;
        append(store.as_ref(), &[record("r")]).await.unwrap();
        let shelf = Shelf::default();
        let counts = Arc::new(Counts::of("shelf".into()));
        let sink = Box::new(shelf.clone());
        settle(&mut Courier::new(store.clone(), sink, format, BeginWith::First, counts)).await;
        assert_eq!(shelf.deliveries().concat(), [1, 2, 3, 5, 6, 7, 8, 9, 10]);
        let lines = shelf.0.lock().unwrap().lines.clone();
        let told = |n: usize| lines[n].contains("gone: somebody has deleted");
        assert_eq!((0..9).filter(|n| told(*n)).collect::<Vec<_>>(), [0, 3, 7]);
        assert!(lines[3].contains("records 4 to 5 are gone"), "{}", lines[3]);
        assert_eq!(turn(&store).await.delivered, 10);
    }
}
