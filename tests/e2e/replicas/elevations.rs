//! What several people do about one elevation at once, each at another replica.

use std::collections::BTreeSet;
use std::thread;

use serde_json::Value;

use super::super::elevation::POLICY;
use super::super::support::http::{Http, Reply};
use super::super::support::postgres::Postgres;
use super::super::support::wait::wait_until;
use super::SOON;
use super::site::{ISSUER, Site};

const ROLE: &str = r#"
[role.admin]
audiences = ["https://api.example.com"]
scopes = ["deploy:read", "deploy:write"]
max_ttl = "1h"

[role.admin.elevation]
longest = "1h"
review_within = "1d"
approvals = [{ count = 2, groups = ["leads"] }]
emergency = { longest = "15m", cool_down = "1h" }

[notify.own]
kind = "command"
command = ["/bin/true"]
"#;

/// How often they meet.
const ROUNDS: usize = 12;

/// What ends access, as records have it.
const ENDS: [&str; 6] = ["deny", "withdraw", "lapse", "expire", "revoke", "relinquish"];

fn people() -> String {
    let person = |name: &str, subjects: &[&str], groups: &str| {
        let ids = subjects
            .iter()
            .map(|subject| format!("{{ issuer = \"{ISSUER}\", subject = \"{subject}\" }}"));
        let ids: Vec<_> = ids.collect();
        format!("[person.{name}]\nids = [{}]\ngroups = [{groups}]\n", ids.join(", "))
    };
    [
        "[group.staff]\n[group.leads]\n".into(),
        person("alice", &["alice", "alice-too"], "\"staff\", \"leads\""),
        person("bob", &["bob", "bob-too"], "\"leads\""),
        person("carol", &["carol"], "\"leads\""),
        person("erin", &["erin"], "\"leads\""),
        person("frank", &["frank", "frank-too"], "\"staff\""),
        person("grace", &["grace", "grace-too"], "\"staff\""),
    ]
    .concat()
}

/// Somebody does something about one, at this process.
fn does(site: &Site, who: &str, url: &str, what: &str, form: &[(&str, &str)]) -> Option<Reply> {
    Http::new().form_as(&site.login(who), &format!("{url}/v1/elevations{what}"), form).ok()
}

fn requested(site: &Site, url: &str, ttl: &str) -> Value {
    let form = [("role", "admin"), ("reason", "all is down"), ("ttl", ttl)];
    let reply = does(site, "alice", url, "", &form).unwrap();
    assert_eq!(reply.status, 201, "{}", reply.body);
    reply.json()
}

/// What was done about one, and by whom, in the order of the log.
fn done(site: &Site<Postgres>, id: &str) -> Vec<(String, String)> {
    let rows = site.database.query(&format!(
        "select action || ' ' || subject from audit_record
         where elevation = '{id}' and decision = 'changed' order by sequence"
    ));
    let rows = rows.iter().map(|row| row.split_once(' ').unwrap());
    rows.map(|(action, who)| (action.replace("elevation.", ""), who.to_string())).collect()
}

/// Whatever came first, the log tells a story that can be.
#[track_caller]
fn is_sound(story: &[(String, String)]) {
    let at = |what: &str| story.iter().position(|(action, _)| action == what);
    let ends: Vec<_> = story.iter().filter(|(action, _)| ENDS.contains(&&**action)).collect();
    assert_eq!(ends.len(), 1, "access ends once: {story:?}");
    let end = story.iter().position(|(action, _)| ENDS.contains(&&**action)).unwrap();
    assert_eq!(end, story.len() - 1, "nothing comes after its end: {story:?}");
    let approvers: Vec<_> = story
        .iter()
        .filter(|(action, _)| action == "approve")
        .map(|(_, who)| who.trim_end_matches("-too"))
        .collect();
    let people: BTreeSet<_> = approvers.iter().copied().collect();
    assert_eq!(people.len(), approvers.len(), "each approves once: {story:?}");
    assert!(!people.contains("alice"), "nobody approves their own: {story:?}");
    let began = story.iter().filter(|(action, _)| action == "activate").count();
    assert!(began <= 1, "it begins once: {story:?}");
    if let Some(begun) = at("activate") {
        let before = story[..begun].iter().filter(|(action, _)| action == "approve").count();
        assert!(before >= 2, "it begins when two have approved: {story:?}");
    }
}

/// Who does what, with this form.
type Doing<'a> = (&'a str, &'a str, &'a [(&'a str, &'a str)]);

/// All of them at once, each at the next process.
fn meet(site: &Site, urls: &[String], round: usize, asked: &Value) {
    let id = asked["id"].as_str().unwrap();
    let hash = [("hash", asked["hash"].as_str().unwrap())];
    let why = [("reason", "so it is")];
    let nothing: [(&str, &str); 0] = [];
    let mut doings: Vec<Doing<'_>> = vec![
        ("bob", "approve", &hash),
        ("alice", "approve", &hash),
        ("alice-too", "approve", &hash),
        ("bob-too", "approve", &hash),
        ("carol", "approve", &hash),
        ("carol", "approve", &hash),
        ("alice", "activate", &nothing),
        ("alice-too", "activate", &nothing),
        ("alice", "relinquish", &nothing),
        ("alice-too", "relinquish", &nothing),
        ("erin", "revoke", &why),
        ("bob", "revoke", &why),
    ];
    if round % 3 == 1 {
        doings.push(("erin", "deny", &why));
    }
    if round % 4 == 2 {
        doings.push(("alice", "withdraw", &nothing));
    }
    thread::scope(|scope| {
        for (number, (who, what, form)) in doings.into_iter().enumerate() {
            let url = &urls[(number + round) % urls.len()];
            scope.spawn(move || {
                // What is not possible yet may be in a moment.
                for _ in 0..10 {
                    let reply = does(site, who, url, &format!("/{id}/{what}"), form);
                    if reply.is_some_and(|reply| ![409, 429, 503].contains(&reply.status)) {
                        return;
                    }
                }
            });
        }
    });
    // Whatever is left of it is ended.
    for what in ["withdraw", "relinquish"] {
        does(site, "alice", &urls[0], &format!("/{id}/{what}"), &[]);
    }
}

#[test]
fn of_all_that_is_done_at_three_replicas_at_once_one_thing_is_first() {
    let site = Site::with_people(ROLE, POLICY, &people());
    let mut twins = vec![site.broker.twin(), site.broker.twin()];
    let mut begun = 0;
    for round in 0..ROUNDS {
        // Two are left of three, in the end.
        if round == ROUNDS - 3 {
            drop(twins.pop());
        }
        let mut urls = vec![site.broker.url().to_string()];
        urls.extend(twins.iter().map(|twin| twin.url.clone()));
        let asked = requested(&site, &urls[round % urls.len()], "600");
        meet(&site, &urls, round, &asked);
        let story = done(&site, asked["id"].as_str().unwrap());
        is_sound(&story);
        begun += usize::from(story.iter().any(|(action, _)| action == "activate"));
    }
    assert!(begun > 0, "none of them was ever had: they are not what is to be tested");
    site.broker(&["audit", "verify"]).run().ok();
}

/// What is asked for at once, by both names of one person, each at the next process; that
/// which was had of it.
fn all_ask(site: &Site, urls: &[String], names: [&str; 2], form: &[(&str, &str)]) -> Value {
    let answers: Vec<_> = thread::scope(|scope| {
        let ask = |number: usize| {
            let (who, url) = (names[number % 2], &urls[number % urls.len()]);
            // Whoever is told to come again does.
            scope.spawn(move || {
                let mut replies = (0..10).filter_map(|_| does(site, who, url, "", form));
                replies.find(|reply| ![429, 503].contains(&reply.status)).unwrap()
            })
        };
        let asking: Vec<_> = (0..9).map(ask).collect();
        asking.into_iter().map(|one| one.join().unwrap()).collect()
    });
    let had: Vec<_> = answers.iter().filter(|reply| reply.status == 201).collect();
    for other in answers.iter().filter(|reply| reply.status != 201) {
        assert_eq!(other.status, 409, "{}", other.body);
    }
    let [had] = had[..] else { panic!("{} were had", had.len()) };
    had.json()
}

#[test]
fn of_what_one_person_asks_for_at_three_replicas_at_once_there_is_one() {
    let site = Site::with_people(ROLE, POLICY, &people());
    let twins = [site.broker.twin(), site.broker.twin()];
    let urls = [site.broker.url(), &twins[0].url, &twins[1].url].map(String::from);
    let ordinary = [("role", "admin"), ("reason", "all is down"), ("ttl", "600")];
    let emergency = [&ordinary[..], &[("emergency", "true")]].concat();
    let all = [["alice", "alice-too"], ["frank", "frank-too"], ["grace", "grace-too"]];
    for (names, url) in all.into_iter().zip(&urls) {
        let asked = all_ask(&site, &urls, names, &ordinary);
        let had = all_ask(&site, &urls, names, &emergency);
        assert_eq!(
            (&asked["access"], &had["access"]),
            (&"pending".into(), &"emergency-active".into())
        );
        let path = format!("/{}/relinquish", had["id"].as_str().unwrap());
        let reply = does(&site, names[1], url, &path, &[]).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        // Not before it was reviewed, and not soon after.
        let again = does(&site, names[0], url, "", &emergency).unwrap();
        assert_eq!(again.status, 409, "{}", again.body);
    }
    let begun = site.database.query(
        "select count(*) from audit_record where decision = 'changed'
         and action in ('elevation.request', 'elevation.emergency')",
    );
    assert_eq!(begun, ["6"]);
}

#[test]
fn a_grant_is_over_at_each_replica_and_on_record_once() {
    let site = Site::with_people(ROLE, POLICY, &people());
    let twins = [site.broker.twin(), site.broker.twin()];
    let urls = [site.broker.url(), &twins[0].url, &twins[1].url];
    let asked = requested(&site, urls[0], "2");
    let id = asked["id"].as_str().unwrap();
    let hash = [("hash", asked["hash"].as_str().unwrap())];
    for (who, url) in [("bob", urls[1]), ("carol", urls[2])] {
        let reply = does(&site, who, url, &format!("/{id}/approve"), &hash).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let reply = does(&site, "alice", urls[2], &format!("/{id}/activate"), &[]).unwrap();
    assert_eq!(reply.json()["access"], "active", "{}", reply.body);
    // All of them look at their clocks.
    wait_until("its end", SOON, || {
        let story = done(&site, id);
        story.last().is_some_and(|(action, _)| action == "expire").then_some(())
    });
    for url in urls {
        for (who, what, form) in [
            ("erin", "approve", &hash[..]),
            ("alice", "activate", &[]),
            ("alice", "relinquish", &[]),
            ("erin", "revoke", &[("reason", "late")]),
        ] {
            let reply = does(&site, who, url, &format!("/{id}/{what}"), form).unwrap();
            assert!([403, 409].contains(&reply.status), "{who} {what}: {}", reply.body);
        }
    }
    is_sound(&done(&site, id));
}
