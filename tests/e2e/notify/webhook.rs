use std::collections::BTreeSet;

use super::super::replicas::Site;
use super::super::support::broker::API;
use super::super::support::webhook::{SECRET, Webhook};
use super::*;

fn table(receiver: &Webhook, more: &str) -> String {
    receiver.table(more).replace("[audit.webhook.hook]", "[notify.hook]\nkind = \"webhook\"")
}

/// The keys of the messages that it has taken, in the order in which they came.
fn taken(receiver: &Webhook) -> Vec<String> {
    let taken = receiver.requests().into_iter().filter(|request| request["mode"] == "ok");
    taken.map(|request| request["message"]["key"].as_str().unwrap().to_string()).collect()
}

#[track_caller]
fn all(receiver: &Webhook, wanted: &BTreeSet<String>) -> Vec<String> {
    wait_until("all messages", SOON, || {
        let taken = taken(receiver);
        (taken.iter().cloned().collect::<BTreeSet<_>>() == *wanted).then_some(taken)
    })
}

fn many(name: &str, count: usize) -> (Vec<Value>, BTreeSet<String>) {
    let keys: BTreeSet<_> = (0..count).map(|n| format!("{name}/{n}")).collect();
    (keys.iter().map(|key| message(key)).collect(), keys)
}

#[test]
fn a_webhook_gets_each_message_signed_and_what_a_receiver_does_loses_none() {
    let mut receiver = Webhook::start(None);
    let (services, metrics) = with(&table(&receiver, ""));
    tell(&services.broker, &[message("first")]);
    let mut wanted: BTreeSet<_> = ["first".to_string()].into();
    all(&receiver, &wanted);
    let first = &receiver.requests()[0];
    assert_eq!(first["message"]["facts"][0]["label"], "Reason");
    assert_eq!((&first["broker"], &first["id"]), (&"127.0.0.1".into(), &"127.0.0.1#first".into()));
    let failures = "channel=\"hook\",outcome=\"failed\"";
    for mode in ["busy", "elsewhere", "garbage", "hangs"] {
        let failed = metric(&metrics, "deliveries_total", failures);
        receiver.behave(mode);
        let (messages, keys) = many(mode, 3);
        tell(&services.broker, &messages);
        wanted.extend(keys);
        wait_until("a failure", SOON, || {
            (metric(&metrics, "deliveries_total", failures) > failed).then_some(())
        });
        // Nobody else waits for it.
        services.token("job", API);
        assert!(metric(&metrics, "waiting", "channel=\"hook\"") >= 3.0, "{mode}");
        receiver.behave("ok");
        all(&receiver, &wanted);
    }
    // What it has taken and nobody has heard of is sent again.
    wait_until("the broker to know that it has all", SOON, || {
        (metric(&metrics, "waiting", "channel=\"hook\"") == 0.0).then_some(())
    });
    receiver.end();
    let (messages, keys) = many("gone", 3);
    tell(&services.broker, &messages);
    wanted.extend(keys);
    wait_until("it to be said", SOON, || {
        let said = services.broker.said();
        (said.matches("messages cannot be delivered").count() > 4).then_some(())
    });
    receiver.begin();
    let got = all(&receiver, &wanted);
    assert_eq!(got.len(), wanted.len(), "each came once");
    let requests = receiver.requests();
    assert!(requests.iter().all(|request| request["path"] == "/audit"), "no redirect is followed");
    assert!(requests.iter().all(|request| request["mode"] != "forged"), "{requests:?}");
    assert!(!services.broker.said().contains(SECRET));
}

#[test]
fn a_broker_that_is_killed_amid_sending_tells_everybody_all_the_same() {
    let receiver = Webhook::start(None);
    let (mut services, _) = with(&table(&receiver, ""));
    let mut wanted = BTreeSet::new();
    for round in 0..3 {
        let (messages, keys) = many(&round.to_string(), 300);
        let before = taken(&receiver).len();
        tell(&services.broker, &messages);
        wanted.extend(keys);
        wait_until("some", SOON, || (taken(&receiver).len() > before + 20).then_some(()));
        services.broker.signal(rustix::process::Signal::KILL);
        services.broker.restart();
    }
    let got = all(&receiver, &wanted);
    // What was on its way when it was killed came twice; no more than that.
    assert!(got.len() <= wanted.len() + 3 * 16, "{} of {}", got.len(), wanted.len());
    wait_until("it to know", SOON, || listed(&services.broker).is_empty().then_some(()));
}

#[test]
fn a_broker_that_ends_leaves_what_hangs_to_the_next() {
    let receiver = Webhook::start(None);
    let (mut services, _) = with(&table(&receiver, ""));
    receiver.behave("hangs");
    tell(&services.broker, &[message("k")]);
    wait_until("an attempt", SOON, || {
        receiver.requests().iter().any(|request| request["mode"] == "hangs").then_some(())
    });
    services.broker.signal(rustix::process::Signal::TERM);
    wait_until("it to end", SOON, || services.broker.said().contains("drained").then_some(()));
    let attempts = query(&services.broker, "select attempts, state from notify_delivery");
    assert_eq!(attempts.trim(), "0|waiting", "it is put back");
    receiver.behave("ok");
    services.broker.restart();
    all(&receiver, &["k".to_string()].into());
}

#[test]
fn several_processes_tell_of_each_message_once_and_one_goes_on_for_another() {
    let receiver = Webhook::start(None);
    let site = Site::with_tables("", &table(&receiver, ""));
    let twin = site.broker.twin();
    let (messages, mut wanted) = many("both", 200);
    site.database.query(&insert(&messages));
    let got = all(&receiver, &wanted);
    assert_eq!(got.len(), wanted.len(), "each is told of once");
    // One is killed as it waits for an answer, whichever it is.
    receiver.behave("hangs");
    let (messages, keys) = many("killed", 8);
    site.database.query(&insert(&messages));
    wait_until("deliveries that hang", SOON, || {
        receiver.requests().iter().any(|request| request["mode"] == "hangs").then_some(())
    });
    drop(twin);
    receiver.behave("ok");
    wanted.extend(keys);
    all(&receiver, &wanted);
    let left = "select count(*) from notify_delivery where state <> 'delivered'";
    wait_until("all to be on record", SOON, || (site.database.query(left) == ["0"]).then_some(()));
}

#[test]
fn channels_come_and_go_while_the_broker_runs_and_a_broken_one_is_refused() {
    let receiver = Webhook::start(None);
    let (services, metrics) = with("");
    let toml = services.broker.home.path("broker.toml");
    let before = std::fs::read_to_string(&toml).unwrap();
    let reload = |more: &str, says: &str| {
        let count = services.broker.said().matches(says).count();
        std::fs::write(&toml, format!("{before}{more}")).unwrap();
        services.broker.hang_up();
        wait_until(says, SOON, || {
            (services.broker.said().matches(says).count() > count).then_some(())
        });
    };
    // Nobody is told: it says so.
    tell(&services.broker, &[message("nobody")]);
    wait_until("it to be said", SOON, || {
        services.broker.said().contains("no channel is for a message").then_some(())
    });
    reload("[notify.hook]\nkind = \"webhook\"\n", "is refused");
    reload(&table(&receiver, "only = [\"emergency\"]"), "other settings count from now on");
    let mut drill = message("drill");
    drill["kind"] = "drill".into();
    tell(&services.broker, &[drill, message("emergency")]);
    assert_eq!(all(&receiver, &["emergency".to_string()].into()).len(), 1);
    let delivered = "channel=\"hook\",outcome=\"delivered\"";
    wait_until("it to be counted", SOON, || {
        (metric(&metrics, "deliveries_total", delivered) == 1.0).then_some(())
    });
    reload("", "other settings count from now on");
    tell(&services.broker, &[message("late")]);
    wait_until("it to be looked at", SOON, || {
        let unseen = "select count(*) from notify_message where spread = 0";
        (query(&services.broker, unseen).trim() == "0").then_some(())
    });
    assert_eq!(taken(&receiver), ["emergency"]);
}
