use super::super::replicas::Site;
use super::super::support::tls::Authority;
use super::super::support::webhook::{SECRET, Webhook};
use super::*;

#[track_caller]
fn all_at(receiver: &Webhook, newest: u64) -> Vec<u64> {
    wait_until("the newest record at the receiver", SOON, || {
        let found = receiver.taken();
        found.contains(&newest).then_some(found)
    })
}

#[test]
fn a_webhook_is_signed_and_what_a_receiver_does_loses_no_record() {
    let mut receiver = Webhook::start(None);
    let (admin, metrics) = admin();
    let services = Services::with(&format!("{}{admin}", receiver.table("")));
    issues(&services, 3);
    let mut last = newest(&services.broker);
    assert_eq!(all_at(&receiver, last), (1..=last).collect::<Vec<_>>());
    let first = &receiver.requests()[0];
    let count = first["records"].as_array().unwrap().len();
    let log = first["log"].as_str().unwrap();
    assert_eq!((log, &first["type"]), ("127.0.0.1", &"application/json".into()));
    let id = first["id"].as_str().unwrap();
    assert!(id.starts_with(&format!("{log}#1-{count}-")), "{id}");
    for mode in ["busy", "elsewhere", "garbage", "hangs"] {
        let failures = metric(&metrics, "audit_sink_failures_total", "hook");
        receiver.behave(mode);
        issues(&services, 2);
        last += 2;
        wait_until("a failure", SOON, || {
            (metric(&metrics, "audit_sink_failures_total", "hook") > failures).then_some(())
        });
        assert!(metric(&metrics, "audit_sink_lag_records", "hook") >= 2.0, "{mode}");
        receiver.behave("ok");
        assert_eq!(all_at(&receiver, last), (1..=last).collect::<Vec<_>>(), "{mode}");
    }
    // What it has taken and nobody has heard of is sent again.
    marked(&services.broker, last);
    receiver.end();
    issues(&services, 2);
    receiver.begin();
    assert_eq!(all_at(&receiver, last + 2), (1..=last + 2).collect::<Vec<_>>());
    let requests = receiver.requests();
    assert!(requests.iter().all(|request| request["path"] == "/audit"), "no redirect is followed");
    assert!(requests.iter().all(|request| request["mode"] != "forged"), "{requests:?}");
    assert!(!services.broker.said().contains(SECRET));
}

#[test]
fn a_broker_that_is_killed_amid_it_loses_no_record_of_the_webhook() {
    let receiver = Webhook::start(None);
    let mut services = Services::with(&receiver.table(""));
    killed_amid_issuing(&mut services, 2);
    issues(&services, 1);
    let last = newest(&services.broker);
    nothing_is_missing(&all_at(&receiver, last), last);
}

#[test]
fn a_webhook_over_tls_begins_where_it_is_told_to() {
    let authority = Authority::new();
    let receiver = Webhook::start(Some(authority.certify("127.0.0.1")));
    let more = format!("ca_file = {:?}\nbegin_with = \"next\"", authority.pem());
    let mut services = Services::with("");
    issues(&services, 2);
    services.broker.stop();
    let last = newest(&services.broker);
    let toml = services.broker.home.path("broker.toml");
    let text = std::fs::read_to_string(&toml).unwrap() + &receiver.table(&more);
    std::fs::write(&toml, text).unwrap();
    services.broker.restart();
    marked(&services.broker, last);
    issues(&services, 2);
    assert_eq!(all_at(&receiver, last + 2), [last + 1, last + 2]);
}

#[test]
fn several_processes_hand_each_record_on_and_one_goes_on_for_another() {
    let receiver = Webhook::start(None);
    let site = Site::with_tables("", &receiver.table(""));
    let twin = site.broker.twin();
    let (mut http, assertion) = (Http::new(), site.assertion("job"));
    let urls = [site.broker.url().to_string(), twin.url.clone()];
    let mut issue = |url: &str| {
        wait_until("a token", SOON, || site.ask(&mut http, url, &assertion));
    };
    let number = |query: &str| site.database.query(query)[0].parse::<u64>().unwrap();
    let newest = || number("select last_sequence from audit_head");
    for n in 0..40 {
        issue(&urls[n % 2]);
    }
    // None is handed on by both, and what both wrote comes in one order.
    assert_eq!(all_at(&receiver, newest()), (1..=newest()).collect::<Vec<_>>());
    // The one is killed that has the turn, as it waits for an answer.
    receiver.behave("hangs");
    issue(&urls[0]);
    wait_until("a delivery that hangs", SOON, || {
        receiver.requests().last().filter(|request| request["mode"] == "hangs").map(drop)
    });
    let holder = || site.database.query("select coalesce(holder, '') from audit_sink").remove(0);
    let before = wait_until("somebody to have the turn", SOON, || {
        Some(holder()).filter(|holder| !holder.is_empty())
    });
    drop(twin);
    let alive = &urls[0];
    receiver.behave("ok");
    issue(alive);
    nothing_is_missing(&all_at(&receiver, newest()), newest());
    let once: BTreeSet<_> = receiver.taken().into_iter().collect();
    assert_eq!(once.len() as u64, newest());
    assert!(!before.is_empty());
}
