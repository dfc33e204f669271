//! Very many elevations: a page shows a page's worth, and reads and opens no more for that; and one
//! that cannot be read keeps nobody from the others.

use uuid::Uuid;

use super::*;
use crate::broker::store::{Effect, Unit, Unless, sqlite};
use crate::broker::testbed::failing::Failing;

const MANY: u128 = 10_000;

/// How much a page has.
const PAGE: usize = 25;

const RENEWABLE: &str = "longest = \"1h\"\nrenewable = true\nreview_within = \"1d\"\napprovals = [{ count = 1, groups = [\"leads\"] }]";

struct Crowd {
    place: Place,
    store: Arc<Failing>,
}

/// A page, and what was read and opened for it.
struct Shown {
    text: String,
    rows: usize,
    opened: usize,
}

impl Shown {
    /// How many it lists.
    fn cards(&self) -> usize {
        self.text.matches("<article class=\"card\">").count()
    }

    /// What it tells of others of the same person.
    fn recent(&self) -> &str {
        let (_, recent) =
            self.text.split_once("id=\"recent\"").unwrap_or_else(|| panic!("{}", self.text));
        recent.split("</section>").next().unwrap()
    }

    /// Where the next one is.
    fn next(&self) -> Option<String> {
        let (_, below) = self.text.split_once("?below=")?;
        Some(below.split('"').next().unwrap().to_string())
    }
}

impl Crowd {
    async fn new() -> Self {
        let store = Failing::over(Arc::new(sqlite::in_memory().await.unwrap()));
        let place = Place::built(RENEWABLE, |_| {}, |options| options.store = store.clone()).await;
        Self { place, store }
    }

    /// Alice asks; what she was answered.
    async fn asked(&self) -> Value {
        let form = "role=admin&reason=all+is+down&ttl=600".to_string();
        self.place.api("alice", "", form).await
    }

    /// One that alice has.
    async fn had(&self) -> Value {
        let asked = self.asked().await;
        let id = asked["id"].as_str().unwrap();
        let hash = format!("hash={}", asked["hash"].as_str().unwrap());
        self.place.api("bob", &format!("/{id}/approve"), hash).await;
        let had = self.place.api("alice", &format!("/{id}/activate"), String::new()).await;
        assert_eq!(had["access"], "active", "{had}");
        had
    }

    /// Very many that are like it, each of somebody else where `of_others`.
    async fn like(&self, like: &Value, of_others: bool) {
        let like = Uuid::parse_str(like["id"].as_str().unwrap()).unwrap();
        let change = |number: u128, asked: &mut crate::broker::elevation::Asked| {
            if of_others {
                asked.by.subject = format!("person-{number}");
                asked.by.person = None;
            }
            asked.reason = format!("number {number} is down");
            asked.at += time::Duration::milliseconds(i64::try_from(number).unwrap());
        };
        self.place.bed.broker.multiply(like, (1, MANY), change).await;
    }

    async fn shown(&self, path: &str, jar: &Jar) -> Shown {
        self.store.rows.store(0, Ordering::Relaxed);
        self.place.bed.broker.opened();
        let answer = self.place.get(&format!("/elevations{path}"), jar).await;
        assert_eq!(answer.status, StatusCode::OK, "{path}: {}", answer.text);
        let rows = self.store.rows.swap(0, Ordering::Relaxed);
        Shown { text: answer.text, rows, opened: self.place.bed.broker.opened() }
    }

    /// The first two pages of a list.
    async fn two_pages(&self, path: &str, jar: &Jar) {
        let first = self.shown(path, jar).await;
        assert_eq!((first.cards(), first.rows, first.opened), (PAGE, PAGE, PAGE), "{path}");
        let below = first.next().unwrap_or_else(|| panic!("{path} leads nowhere"));
        let second = self.shown(&format!("{path}?below={below}"), jar).await;
        // The one that the first ended with says where to go on.
        assert_eq!((second.cards(), second.rows, second.opened), (PAGE, PAGE, PAGE + 1), "{path}");
        assert!(second.next().is_some_and(|next| next != below), "{path}");
        let (_, last) = first.text.rsplit_once("<article class=\"card\">").unwrap();
        let href = last.split("href=\"").nth(1).unwrap().split('"').next().unwrap();
        assert!(!second.text.contains(&format!("\"{href}\"")), "{path}: {href} is on both");
    }
}

#[tokio::test]
async fn with_ten_thousand_that_wait_a_page_reads_what_it_shows() {
    let crowd = Crowd::new().await;
    let (bob, alice) = (crowd.place.signed_in("bob").await, crowd.place.signed_in("alice").await);
    let like = crowd.asked().await;
    crowd.like(&like, true).await;
    crowd.two_pages("", &bob).await;
    // Those of others are in the way of nobody's own, nor of a page about one.
    let mine = crowd.shown("/mine", &alice).await;
    assert_eq!((mine.cards(), mine.rows, mine.opened), (1, 1, 1));
    assert_eq!(mine.next(), None);
    let others = [Uuid::from_u128(1).to_string(), Uuid::from_u128(MANY).to_string()];
    for id in others.iter().map(String::as_str).chain(like["id"].as_str()) {
        let one = crowd.shown(&format!("/{id}"), &bob).await;
        assert!(one.recent().contains("Nothing else that you may see."), "{}", one.recent());
        assert_eq!((one.rows, one.opened), (1, 2), "{id}");
    }
    for path in ["/active", "/reviews"] {
        let none = crowd.shown(path, &bob).await;
        assert_eq!((none.cards(), none.rows, none.opened), (0, 0, 0), "{path}");
    }
}

#[tokio::test]
async fn with_ten_thousand_that_are_had_a_page_reads_what_it_shows() {
    let crowd = Crowd::new().await;
    let bob = crowd.place.signed_in("bob").await;
    let like = crowd.had().await;
    crowd.like(&like, true).await;
    crowd.two_pages("/active", &bob).await;
    let one = crowd.shown(&format!("/{}", Uuid::from_u128(7)), &bob).await;
    // What was done under it is a question of its own about that one.
    assert!(one.rows == 1 && one.opened <= 3, "{} {}", one.rows, one.opened);
    let waiting = crowd.shown("", &bob).await;
    assert_eq!((waiting.cards(), waiting.rows, waiting.opened), (0, 0, 0));
}

#[tokio::test]
async fn with_ten_thousand_to_review_a_page_reads_what_it_shows() {
    let crowd = Crowd::new().await;
    let carol = crowd.place.signed_in("carol").await;
    let had = crowd.had().await;
    let path = format!("/{}/relinquish", had["id"].as_str().unwrap());
    let ended = crowd.place.api("alice", &path, String::new()).await;
    assert_eq!(ended["review"], "due", "{ended}");
    crowd.like(&ended, true).await;
    crowd.two_pages("/reviews", &carol).await;
}

#[tokio::test]
async fn with_ten_thousand_of_one_person_the_newest_others_are_beside_one_of_theirs() {
    let crowd = Crowd::new().await;
    let (bob, alice) = (crowd.place.signed_in("bob").await, crowd.place.signed_in("alice").await);
    let like = crowd.asked().await;
    crowd.like(&like, false).await;
    crowd.two_pages("/mine", &alice).await;
    crowd.two_pages("", &bob).await;
    // Beside the oldest, a newer one and the newest.
    let ids = [like["id"].as_str().unwrap().to_string(), Uuid::from_u128(9_000).to_string()];
    for id in ids.into_iter().chain([Uuid::from_u128(MANY).to_string()]) {
        let one = crowd.shown(&format!("/{id}"), &bob).await;
        let newest = (0..6)
            .map(|back| MANY - back)
            .filter(|number| Uuid::from_u128(*number).to_string() != id);
        for number in newest.take(5) {
            let says = format!("number {number} is down");
            assert!(one.recent().contains(&says), "{says}: {}", one.recent());
        }
        assert_eq!(one.recent().matches(" is down").count(), 5, "{}", one.recent());
        assert!(one.rows <= PAGE && one.opened <= PAGE, "{} {}", one.rows, one.opened);
    }
}

#[tokio::test]
async fn one_that_cannot_be_read_keeps_nobody_from_a_page() {
    let crowd = Crowd::new().await;
    let bob = crowd.place.signed_in("bob").await;
    let (first, second) = (crowd.asked().await, crowd.asked().await);
    let broker = &crowd.place.bed.broker;
    let like = Uuid::parse_str(first["id"].as_str().unwrap()).unwrap();
    let like = broker.elevation_for_tests(like).await;
    // Newer than both, and more than are looked at together.
    let forged = (1..=40).map(|number| {
        let mut other = like.clone();
        other.id = Uuid::from_u128(number);
        other.asked.at += time::Duration::seconds(1);
        let mut stored = broker.elevations.over(&other, None).unwrap();
        stored.sealed.seal[0] ^= 1;
        Effect::AddElevation(stored, Unless::default())
    });
    let unit = Unit { records: Vec::new(), effects: forged.collect() };
    assert!(crowd.place.bed.store.commit(&[unit]).await.unwrap()[0].is_committed());
    for (one, other) in [(&first, &second), (&second, &first)] {
        let path = format!("/{}", one["id"].as_str().unwrap());
        let page = crowd.shown(&path, &bob).await;
        let link = format!("/elevations/{}\"", other["id"].as_str().unwrap());
        assert!(page.recent().contains(&link), "{}", page.recent());
    }
    let waiting = crowd.shown("", &bob).await;
    assert_eq!(waiting.cards(), 2);
    // Itself is no page, and says so.
    let forged = Uuid::from_u128(1);
    let answer = crowd.place.get(&format!("/elevations/{forged}"), &bob).await;
    assert_eq!(answer.status, StatusCode::SERVICE_UNAVAILABLE, "{}", answer.text);
}
