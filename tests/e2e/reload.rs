//! A broker that reads its configuration anew while it serves.

use std::collections::BTreeSet;
use std::time::Duration;

use super::support::broker::API;
use super::support::home::Home;
use super::support::http::Http;
use super::support::services::{ISSUER, Services, new_key};
use super::support::wait::wait_until;

const NEW: &str = "other policies decide from now on";
const OTHER: &str = "other settings count from now on";
const REFUSED: &str = "what was read anew is refused; what was there stays";

/// Everybody may read; and have the roles that are said, by their names.
fn policies(roles: &[&str]) -> String {
    let permit = |role: &&str| {
        format!(
            "@any_issuer @id(\"{role}\") @ttl(\"15m\")\npermit (principal, action == Action::\"issue\", resource == Role::\"{role}\");\n"
        )
    };
    ["reader"].iter().chain(roles).map(permit).collect()
}

/// A role of this name, as a table.
fn role(name: &str) -> String {
    format!("\n[role.{name}]\naudiences = [\"{API}\"]\nmax_ttl = \"1h\"\n")
}

/// The file that a broker was started with.
fn written(services: &Services) -> String {
    std::fs::read_to_string(services.broker.home.path("broker.toml")).unwrap()
}

#[test]
fn roles_issuers_and_limits_change_under_load_and_no_request_fails() {
    let services = Services::start(&policies(&[]));
    let (home, first) = (&services.broker.home, written(&services));
    let statuses = services.under_load(|more| {
        let mut http = Http::new();
        let mut keys = Vec::new();
        for n in 1..=4 {
            let name = format!("role-{n}");
            let (key, set) = new_key();
            keys.push(key);
            let issuer = |n: usize| format!("https://more-{n}.example.com");
            let file = home.write(format!("jwks-{n}.json"), set);
            let toml = format!(
                "{first}{}\n[trusted_issuer.more]\nissuer = \"{}\"\njwks_file = \"{}\"\n\n[limits]\nprincipal.per_minute = {}\n",
                role(&name),
                issuer(n),
                file.display(),
                100_000 + n
            );
            home.write("broker.toml", toml.clone());
            // The policies know the new role alone: with the old ones they would be refused.
            services.reload(&policies(&[&name]), NEW);
            let ask = |http: &mut Http, n: usize, role: &str| {
                let assertion = services.assertion_by(&keys[n - 1], &issuer(n));
                services.exchange(http, &assertion, role).status
            };
            assert_eq!(ask(&mut http, n, &name), 200, "{}", services.broker.said());
            if n > 1 {
                assert_eq!(
                    ask(&mut http, n - 1, "reader"),
                    400,
                    "its issuer is on the list no more"
                );
            }
            more();
            for broken in [
                // Of policies, roles and issuers each lacks something.
                first.clone(),
                toml.replace("[limits]", "[limit]"),
                toml.replace("jwks-", "nothing-"),
                toml.replace(&issuer(n), ISSUER),
                toml.replace("per_minute = ", "per_minute = 9"),
                "issuer = ".into(),
            ] {
                home.write("broker.toml", broken);
                services.hang_up(REFUSED);
                assert_eq!(ask(&mut http, n, &name), 200, "{}", services.broker.said());
            }
            more();
        }
    });
    assert_eq!(statuses, BTreeSet::from([200]), "{}", services.broker.said());

    // And what is taken away is gone.
    home.write("broker.toml", &first);
    services.reload(&policies(&[]), NEW);
    let gone = services.exchange(&mut Http::new(), &services.assertion(), "role-4");
    assert_eq!(gone.status, 400);
}

#[test]
fn limits_and_what_is_decided_for_proxies_change_without_other_policies() {
    let route = |name: &str, role: &str| {
        format!(
            "\n[authz.route.{name}]\norigins = [\"https://{name}.example.com\"]\naudience = \"{API}\"\nroles = [\"{role}\"]\n"
        )
    };
    let authz =
        |routes: &str| format!("\n[authz]\nproxy = \"nginx\"\nproxies = [\"127.0.0.1\"]\n{routes}");
    let services = Services::start_in(Home::new(), &policies(&[]), &authz(&route("one", "reader")));
    let (home, first) = (&services.broker.home, written(&services));
    let change = |toml: String| {
        home.write("broker.toml", toml);
        services.hang_up(OTHER);
    };
    let mut http = Http::new();
    let issued = services.exchange(&mut http, &services.assertion(), "reader");
    let token = issued.json()["access_token"].as_str().unwrap().to_string();
    let url = services.broker.url().to_string();
    let passes = |name: &str| {
        let host = format!("{name}.example.com");
        let headers = [
            ("authorization", format!("Bearer {token}")),
            ("x-original-method", "GET".into()),
            ("x-original-host", host),
            ("x-original-uri", "/".into()),
        ];
        Http::new().get_with_all(&format!("{url}/v1/authz/{name}"), &headers).unwrap().status
    };
    assert_eq!([passes("one"), passes("two")], [200, 403]);
    change(format!("{first}{}", route("two", "reader")));
    assert_eq!([passes("one"), passes("two")], [200, 200]);
    change(first.replace("roles = [\"reader\"]", "roles = [\"deploy\"]"));
    assert_eq!([passes("one"), passes("two")], [403, 403]);

    let limited = format!("{first}\n[limits]\nprincipal = {{ per_minute = 1, burst = 2 }}\n");
    change(limited.clone());
    let statuses: Vec<u16> = (0..3).map(|_| services.ask(&mut http)).collect();
    assert_eq!(statuses, [200, 200, 429]);
    // What is used up stays so where another setting changes.
    change(limited + &route("two", "reader"));
    assert_eq!(services.ask(&mut http), 429);
    change(first);
    assert_eq!(services.ask(&mut http), 200);
}

#[test]
fn what_takes_a_restart_is_named_and_the_rest_counts() {
    let mut services = Services::start(&policies(&[]));
    let first = written(&services);
    let (before, rest) = first.split_once("listen = \"127.0.0.1:").unwrap();
    let (_, rest) = rest.split_once('"').unwrap();
    let toml = format!("{before}listen = \"127.0.0.1:1\"{rest}{}", role("more"));
    let toml = toml.replace("broker.db", "other.db") + "\n[log]\nformat = \"json\"\n";
    let issuer = format!("issuer = \"{}", services.broker.url());
    assert!(toml.contains(&issuer), "{toml}");
    let toml = toml.replacen(&issuer, &format!("{issuer}/other"), 1);
    services.broker.home.write("broker.toml", toml);
    services.reload(&policies(&["more"]), NEW);
    let said = services.broker.said();
    let line = said.lines().find(|line| line.contains("takes a restart")).unwrap();
    assert!(line.contains("listen, [store], [log]") && !line.contains("issuer"), "{line}");
    // No restart takes that in.
    assert!(said.contains("another issuer is for another database"), "{said}");
    let line = said.lines().rfind(|line| line.contains(NEW)).unwrap();
    assert!(line.contains("[role]"), "{line}");
    let mut http = Http::new();
    let more = services.exchange(&mut http, &services.assertion(), "more");
    assert_eq!(more.status, 200, "{said}");
    assert!(!services.broker.home.path("other.db").exists());
    // With the next start the rest of it counts.
    services.broker.home.write("broker.toml", first + "\n[log]\nformat = \"json\"\n");
    services.broker.home.write("policy.cedar", policies(&[]));
    services.broker.restart();
    assert!(services.broker.said().starts_with('{'), "{}", services.broker.said());
}

#[test]
fn keys_in_files_are_read_anew_where_somebody_looks() {
    let services = Services::start(&policies(&[]));
    let (home, first) = (&services.broker.home, written(&services));
    let mut http = Http::new();
    let (key, set) = new_key();
    let new = services.assertion_by(&key, ISSUER);
    assert_eq!(services.exchange(&mut http, &new, "reader").status, 400);
    // First by the signal, and then by itself.
    home.write("broker.toml", format!("watch_every = \"1s\"\n{first}"));
    services.hang_up(OTHER);
    std::fs::write(&services.jwks, set).unwrap();
    let asked = |what: &str, assertion: &str, status: u16| {
        let mut http = Http::new();
        wait_until(what, Duration::from_secs(30), || {
            (services.exchange(&mut http, assertion, "reader").status == status).then_some(())
        });
    };
    asked("the new key", &new, 200);
    assert_eq!(services.ask(&mut http), 400, "the old one is gone");

    // A file that is not there is told once, and nothing is read meanwhile.
    let told = || services.broker.said().matches("a file that is watched cannot be read").count();
    let away = home.path("away");
    std::fs::rename(&services.jwks, &away).unwrap();
    wait_until("the file to be missed", Duration::from_secs(30), || (told() == 1).then_some(()));
    home.write("policy.cedar", policies(&["deploy"]));
    assert_eq!(services.exchange(&mut http, &new, "deploy").status, 400);
    std::fs::rename(&away, &services.jwks).unwrap();
    wait_until("the policies", Duration::from_secs(30), || {
        (services.exchange(&mut Http::new(), &new, "deploy").status == 200).then_some(())
    });
    assert_eq!(told(), 1, "{}", services.broker.said());
}

#[test]
fn who_left_is_gone_while_another_file_cannot_be_read_or_another_entry_is_wrong() {
    let home = Home::new();
    let person = |name: &str, subject: &str| {
        format!(
            "[person.{name}]\nids = [{{ issuer = \"{ISSUER}\", subject = \"{subject}\" }}]\ngroups = [\"staff\"]\n"
        )
    };
    let head = "[group.staff]\n".to_string();
    let all = head.clone() + &person("alice", "alice") + &person("runner", "job");
    let left = head + &person("alice", "alice");
    home.write("people.toml", all.clone());
    let policy = "@id(\"reader\") @ttl(\"15m\")\npermit (principal in DirectoryGroup::\"staff\", action == Action::\"issue\", resource == Role::\"reader\");\n";
    let services = Services::start_in(home, policy, "\n[directory]\nfile = \"people.toml\"\n");
    let home = &services.broker.home;
    let asked = |what: &str, status: u16| {
        wait_until(what, Duration::from_secs(30), || {
            (services.ask(&mut Http::new()) == status).then_some(())
        });
    };
    asked("a token", 200);
    home.write("broker.toml", format!("watch_every = \"1s\"\n{}", written(&services)));
    services.hang_up(OTHER);
    // The policies are being put there.
    let away = home.path("away");
    std::fs::rename(home.path("policy.cedar"), &away).unwrap();
    home.write("people.toml", left.clone());
    asked("who left to be gone", 400);
    std::fs::rename(&away, home.path("policy.cedar")).unwrap();
    home.write("people.toml", all);
    asked("who is back", 200);
    home.write("people.toml", left + "[person.carol]\nids = []\n");
    asked("who left beside a wrong entry to be gone", 400);
    wait_until("it to be told", Duration::from_secs(30), || {
        services.broker.said().contains(REFUSED).then_some(())
    });
}

/// What keeps a configuration from being taken may be in a file that only that one names.
#[test]
fn a_file_that_a_refused_configuration_names_is_looked_at_too() {
    let services = Services::start(&policies(&[]));
    let (home, first) = (&services.broker.home, written(&services));
    home.write("broker.toml", format!("watch_every = \"1s\"\n{first}"));
    services.hang_up(OTHER);
    let refused = || services.broker.said().matches(REFUSED).count();
    home.write("new.cedar", "permit (");
    let other = first.replace("\"policy.cedar\"", "\"new.cedar\"");
    assert_ne!(other, first);
    home.write("broker.toml", format!("watch_every = \"1s\"\n{other}{}", role("more")));
    wait_until("a refusal", Duration::from_secs(30), || (refused() > 0).then_some(()));
    // That alone is mended.
    home.write("new.cedar", policies(&["more"]));
    let mut http = Http::new();
    wait_until("the new policies", Duration::from_secs(30), || {
        let answer = services.exchange(&mut http, &services.assertion(), "more");
        (answer.status == 200).then_some(())
    });
    // One that is not there keeps nobody from going back.
    let gone = first.replace("\"policy.cedar\"", "\"gone.cedar\"");
    let before = refused();
    home.write("broker.toml", format!("watch_every = \"1s\"\n{gone}"));
    wait_until("a refusal", Duration::from_secs(30), || (refused() > before).then_some(()));
    home.write("broker.toml", format!("watch_every = \"1s\"\n{first}"));
    wait_until("the first policies", Duration::from_secs(30), || {
        let answer = services.exchange(&mut http, &services.assertion(), "more");
        (answer.status == 400).then_some(())
    });
}
