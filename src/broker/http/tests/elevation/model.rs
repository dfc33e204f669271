//! What people do to a broker in whatever order, against a model that knows who they are and what
//! the rules are, and nothing of how the broker goes about it.

mod judge;

use std::collections::{BTreeMap, BTreeSet};

use judge::{Asked, COOL_DOWN, EMERGENCY_COOL_DOWN, Had, Model, PENDING, Said, State, TTL, WINDOW};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, RngAlgorithm, TestRng, TestRunner};

use super::*;
use crate::broker::elevation::{Access, Review};

/// To play what failed once more: the seed that was told.
const AGAIN: Option<[u8; 32]> = None;

const CASES: u32 = 16;

/// The subjects of three people, with whose each is.
const IDS: [(&str, usize); 5] =
    [("alice", 0), ("alice-too", 0), ("bob", 1), ("bob-too", 1), ("carol", 2)];

const CLOCK_STEPS: [i64; 3] = [110, 250, 1000];

/// Who does something: one of the ids, or who asked for it, by their first or their last.
#[derive(Clone, Copy, Debug)]
enum By {
    Id(usize),
    First,
    Last,
}

/// What happens. Which request it happens to is counted back from the newest.
#[derive(Clone, Debug)]
enum Step {
    Request(usize),
    Emergency(usize),
    Approve(By, usize),
    Activate(By, usize),
    Relinquish(By, usize),
    Revoke(By, usize),
    Review(By, usize, bool),
    Token(usize),
    /// The clock goes on.
    Later(i64),
    /// What has come about by the clock goes on record.
    Due,
    /// The directory calls somebody otherwise.
    Rename(usize),
    /// It calls two people as it called the other one.
    Swap(usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let id = || 0..IDS.len();
    let by = || prop_oneof![3 => id().prop_map(By::Id), 1 => Just(By::First), 1 => Just(By::Last)];
    let own = || prop_oneof![1 => id().prop_map(By::Id), 3 => Just(By::First), 2 => Just(By::Last)];
    let which = || 0..4_usize;
    let step = prop_oneof![
        6 => id().prop_map(Step::Request),
        4 => id().prop_map(Step::Emergency),
        12 => (by(), which()).prop_map(|(by, which)| Step::Approve(by, which)),
        8 => (own(), which()).prop_map(|(by, which)| Step::Activate(by, which)),
        5 => (own(), which()).prop_map(|(by, which)| Step::Relinquish(by, which)),
        4 => (by(), which()).prop_map(|(by, which)| Step::Revoke(by, which)),
        9 => (by(), which(), any::<bool>()).prop_map(|(by, which, ok)| Step::Review(by, which, ok)),
        3 => id().prop_map(Step::Token),
        8 => prop::sample::select(CLOCK_STEPS.to_vec()).prop_map(Step::Later),
        4 => Just(Step::Due),
        2 => (0..3_usize).prop_map(Step::Rename),
        1 => (0..3_usize).prop_map(Step::Swap),
    ];
    vec(step, 25..60)
}

/// How often each kind of thing was done, and was not.
type Count = BTreeMap<(&'static str, bool), usize>;

struct Play {
    place: Place,
    model: Model,
    count: Count,
    fresh: usize,
}

impl Play {
    async fn new(rules: Had) -> Self {
        let change = |role: &mut Role| {
            let elevation = role.elevation.as_mut().unwrap();
            elevation.renewable = rules.renewable;
            elevation.approvals[0].count = rules.approvals.try_into().unwrap();
            elevation.cool_down = Duration::from_secs(COOL_DOWN.unsigned_abs());
            elevation.pending = Duration::from_secs(PENDING.unsigned_abs());
            elevation.start_window = Duration::from_secs(WINDOW.unsigned_abs());
            let emergency = elevation.emergency.as_mut().unwrap();
            emergency.cool_down = Duration::from_secs(EMERGENCY_COOL_DOWN.unsigned_abs());
        };
        let place = Place::built(None, change, |options| {
            options.policies += "@id(\"all-in-emergencies\") permit (principal in DirectoryGroup::\"staff\", action == Action::\"elevate\", resource);\n";
        })
        .await;
        let names = ["alice", "bob", "carol"].map(String::from);
        let model = Model { rules, now: 0, names, mixed_up: false, asked: Vec::new() };
        Self { place, model, count: Count::new(), fresh: 0 }
    }

    /// Whether it came about, which has to be as the model says.
    fn judged(&mut self, kind: &'static str, response: &Response, said: &Said) -> bool {
        let (status, told) = told(response);
        assert!(status < 500, "{kind}: {status} {told}");
        let done = response.status.is_success();
        assert!(said.may || !done, "{kind} was done: {}", json_of(response));
        let has_to = said.must && !self.model.mixed_up;
        assert!(done || !has_to, "{kind} was not done: {status} {told}");
        *self.count.entry((kind, done)).or_default() += 1;
        done
    }

    /// Which request it is, and who does something about it.
    fn meant(&self, by: By, back: usize) -> Option<(usize, &'static str, usize)> {
        let all = self.model.asked.len();
        let which = all.checked_sub(1)? - back.min(all - 1);
        let asker = self.model.asked[which].by;
        let mut theirs = IDS.iter().filter(|(_, person)| *person == asker);
        let (subject, who) = match by {
            By::Id(id) => IDS[id],
            By::First => *theirs.next()?,
            By::Last => *theirs.next_back()?,
        };
        Some((which, subject, who))
    }

    async fn asks(&mut self, id: usize, is_emergency: bool) {
        let (subject, who) = IDS[id];
        let model = &self.model;
        let (kind, said) = match is_emergency {
            true => ("emergency", model.emergency(who)),
            false => ("request", model.request(who)),
        };
        let mut form = vec![("ttl", "710")];
        form.extend(is_emergency.then_some(("emergency", "true")));
        let response = self.place.request(subject, &form).await;
        if !self.judged(kind, &response, &said) {
            return;
        }
        let now = self.model.now;
        self.model.asked.push(Asked {
            answer: json_of(&response),
            by: who,
            is_emergency,
            at: now,
            state: if is_emergency { State::Had } else { State::Pending },
            approvals: BTreeSet::new(),
            approved_at: None,
            had: is_emergency.then_some((now, now + TTL)),
            is_judged: false,
            ended: None,
            is_due: false,
            reviewed: None,
        });
    }

    async fn decides(&mut self, kind: &'static str, by: By, back: usize, in_order: bool) {
        let Some((which, subject, who)) = self.meant(by, back) else { return };
        let one = &self.model.asked[which];
        let said = match kind {
            "approve" => self.model.approve(who, one),
            "activate" => self.model.activate(who, one),
            "relinquish" => self.model.relinquish(who, one),
            "revoke" => self.model.revoke(who, one),
            _ => self.model.review(who, one),
        };
        let outcome = if in_order { "reviewed" } else { "disputed" };
        let form: &[_] = match kind {
            "revoke" => &[("reason", "enough")],
            "review" => &[("outcome", outcome), ("note", "seen")],
            _ => &[],
        };
        let answer = one.answer.clone();
        let response = self.place.does(subject, kind, &answer, form).await;
        if !self.judged(kind, &response, &said) {
            return;
        }
        let name = self.model.names[who].clone();
        let now = self.model.now;
        let one = &mut self.model.asked[which];
        match kind {
            "approve" => {
                one.approvals.insert((who, name));
            }
            "activate" if one.state == State::Approved => {
                (one.state, one.had) = (State::Had, Some((now, now + TTL)));
            }
            "relinquish" | "revoke" => one.finish(now, now),
            "review" => (one.is_due, one.reviewed) = (false, Some((who, now))),
            _ => {}
        }
        let counted = self.model.counted(&self.model.asked[which]);
        let enough = counted.1 >= self.model.rules.approvals as usize;
        let one = &mut self.model.asked[which];
        if kind == "approve" && one.state == State::Pending {
            let is_approved = json_of(&response)["access"] == "approved";
            assert!(!is_approved || counted.0 >= self.model.rules.approvals as usize, "{one:?}");
            assert!(self.model.mixed_up || is_approved == enough, "{one:?}");
            if is_approved {
                (one.state, one.approved_at) = (State::Approved, Some(now));
            }
        }
    }

    async fn token(&mut self, id: usize) {
        let (subject, who) = IDS[id];
        let response = self.place.issued(subject, &[]).await;
        let said = self.model.token(who);
        if self.judged("token", &response, &said) {
            let token = json_of(&response)["access_token"].as_str().unwrap().to_string();
            let under = claims_of(&token)["elevation"]["id"].clone();
            let now = self.model.now;
            let had = self.model.of(who).filter(|one| one.is_had(now));
            assert!(had.into_iter().any(|one| one.answer["id"] == under), "{under}");
        }
    }

    /// The directory has them by the names of the model.
    async fn is_called(&self) {
        let before = ["alice", "bob", "carol"];
        let mut text = people(&[]);
        for (number, name) in before.iter().enumerate() {
            text = text.replace(&format!("[person.{name}]"), &format!("[person.@{number}]"));
        }
        for (number, name) in self.model.names.iter().enumerate() {
            text = text.replace(&format!("[person.@{number}]"), &format!("[person.{name}]"));
        }
        assert!(self.place.directory(&text).await);
    }

    async fn step(&mut self, step: &Step) {
        match step.clone() {
            Step::Request(id) => self.asks(id, false).await,
            Step::Emergency(id) => self.asks(id, true).await,
            Step::Approve(by, back) => self.decides("approve", by, back, true).await,
            Step::Activate(by, back) => self.decides("activate", by, back, true).await,
            Step::Relinquish(by, back) => self.decides("relinquish", by, back, true).await,
            Step::Revoke(by, back) => self.decides("revoke", by, back, true).await,
            Step::Review(by, back, ok) => self.decides("review", by, back, ok).await,
            Step::Token(id) => self.token(id).await,
            Step::Later(seconds) => {
                self.place.later(seconds);
                self.model.now += seconds;
            }
            Step::Due => {
                self.place.bed.broker.due_elevations().await.unwrap();
                self.model.due();
            }
            Step::Rename(person) => {
                self.fresh += 1;
                self.model.names[person] = format!("person-{}", self.fresh);
                self.is_called().await;
            }
            Step::Swap(person) => {
                self.model.names.swap(person, (person + 1) % 3);
                self.model.mixed_up = true;
                self.is_called().await;
            }
        }
    }

    /// What the broker has of each is what the model has, and each rule holds in it.
    async fn holds(&mut self) {
        self.model.holds();
        let whose = |subject: &str| IDS.iter().find(|(id, _)| *id == subject).unwrap().1;
        for one in &self.model.asked {
            let id = uuid::Uuid::parse_str(one.answer["id"].as_str().unwrap()).unwrap();
            let stored = self.place.bed.broker.elevation_for_tests(id).await;
            let state = match stored.access {
                Access::Pending => State::Pending,
                Access::Approved => State::Approved,
                access if access.is_had() => State::Had,
                _ => State::Over,
            };
            assert_eq!((state, stored.review == Review::Due), (one.state, one.is_due), "{one:?}");
            let asker = whose(&stored.asked.by.subject);
            let approvers: BTreeSet<_> =
                stored.approvals.iter().map(|one| whose(&one.by.subject)).collect();
            assert!(!approvers.contains(&asker), "{stored:?}");
            if let Some(reviewed) = &stored.reviewed {
                let by = whose(&reviewed.by.subject);
                assert!(by != asker && !approvers.contains(&by), "{stored:?}");
            }
        }
    }
}

/// Plays these, and returns what was done.
async fn play(rules: Had, steps: &[Step]) -> Count {
    let mut play = Play::new(rules).await;
    for step in steps {
        play.step(step).await;
        play.holds().await;
    }
    play.count
}

#[test]
fn whatever_people_do_in_whatever_order_nobody_gets_around_the_rules() {
    let mut seed = [0; 32];
    aws_lc_rs::rand::fill(&mut seed).unwrap();
    let seed = AGAIN.unwrap_or(seed);
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        max_shrink_iters: 200,
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(config, rng);
    let rules =
        (any::<bool>(), 1..=2_u32).prop_map(|(renewable, approvals)| Had { renewable, approvals });
    let played = runner.run(&(rules, steps()), |(rules, steps)| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(play(rules, &steps));
        Ok(())
    });
    if let Err(error) = played {
        panic!("with the seed {seed:?}: {error}");
    }
}

#[tokio::test]
async fn each_thing_that_people_do_is_done_and_is_refused() {
    let steps = [
        Step::Request(0),
        Step::Request(1),
        Step::Approve(By::Id(1), 0),
        Step::Token(0),
        Step::Activate(By::First, 0),
        Step::Approve(By::Id(2), 0),
        Step::Activate(By::Id(4), 0),
        Step::Activate(By::Last, 0),
        Step::Token(1),
        Step::Relinquish(By::Id(2), 0),
        Step::Review(By::Id(4), 0, true),
        Step::Revoke(By::First, 0),
        Step::Revoke(By::Id(4), 0),
        Step::Review(By::Id(3), 0, true),
        Step::Review(By::Id(4), 0, false),
        Step::Later(1000),
        Step::Emergency(4),
        Step::Emergency(4),
        Step::Relinquish(By::First, 0),
    ];
    let count = play(Had { renewable: false, approvals: 1 }, &steps).await;
    for kind in
        ["request", "emergency", "approve", "activate", "relinquish", "revoke", "review", "token"]
    {
        for done in [true, false] {
            assert!(count.contains_key(&(kind, done)), "{kind}, {done}: {count:?}");
        }
    }
}

#[tokio::test]
async fn what_is_over_is_over_before_that_is_on_record() {
    let place = Place::with(|role| {
        let rules = role.elevation.as_mut().unwrap();
        (rules.renewable, rules.cool_down) = (true, Duration::from_secs(600));
    })
    .await;
    let ttl = [("ttl", "600")];
    let both = [place.requested("alice", &ttl).await, place.requested("alice", &ttl).await];
    for asked in &both {
        place.done("bob", "approve", asked, &[]).await;
        place.done("carol", "approve", asked, &[]).await;
    }
    let had = place.done("alice", "activate", &both[0], &[]).await;
    let until = had["grant"]["until"].as_str().unwrap();
    let says = format!("you had the role until {}", &until[.."2026-01-01T12:00:00".len()]);
    // As long as it is had, it is renewed.
    place.later(590);
    let renewal = place.requested("alice", &[]).await;
    place.done("alice", "withdraw", &renewal, &[]).await;
    place.later(20);
    // Then it is over, and the clock has not put that on record.
    let shown = place.shown("alice", &both[0]).await;
    assert_eq!((&shown["access"], shown.get("ended")), (&json!("active"), None));
    for subject in ["alice", "alice-too"] {
        let (status, said) = told(&place.request(subject, &[]).await);
        assert!(status == 409 && said.contains(&says), "{says}: {said}");
        let (status, said) = place.not_done(subject, "activate", &both[1], &[]).await;
        assert!(status == 409 && said.contains(&says), "{says}: {said}");
    }
    place.later(590);
    assert_eq!(place.done("alice", "activate", &both[1], &[]).await["access"], "active");
}

#[tokio::test]
async fn who_is_called_otherwise_says_yes_again_by_the_same_id() {
    let place = Place::new().await;
    let asked = place.requested("alice", &[]).await;
    place.done("bob", "approve", &asked, &[]).await;
    assert!(place.directory(&people(&[]).replace("[person.bob]", "[person.robert]")).await);
    let pending = place.done("carol", "approve", &asked, &[]).await;
    assert_eq!(pending["needs"][0]["have"], json!(["carol"]));
    let approved = place.done("bob", "approve", &asked, &[]).await;
    assert_eq!(approved["needs"][0]["have"], json!(["carol", "robert"]));
    assert_eq!(approved["access"], "approved");
    // And once more changes nothing.
    let again = place.done("bob", "approve", &asked, &[]).await;
    assert_eq!(again["version"], approved["version"]);
}
