//! What else can be asked for, what approvers have to prove, and what a review shows.

use std::path::Path;

use super::*;

/// The role with these lines more.
fn role(more: &str) -> String {
    ROLE.replace("longest = \"1h\"\nreason", &format!("{more}\nlongest = \"1h\"\nreason"))
}

fn claims_of(company: &Company, name: &str, more: &[&str]) -> Value {
    let token = ["token", "--role", "admin"];
    let token = company.run(name, &[&token[..], more].concat()).run().ok().stdout;
    crate::stores::claims(token.trim())
}

#[test]
fn a_ticket_is_looked_up_before_anybody_is_asked() {
    // Like many a program it ends well where it is asked for help.
    let rules = "ticket = \"[A-Z-]+[0-9h]+\"\nticket_command = [\"/bin/sh\", \"-c\", \"[ \\\"$1\\\" = CHG-1 ] || [ \\\"$1\\\" = -h ]\", \"ticket\"]";
    let company = Company::with(&["alice", "bob"], &role(rules));
    let ask = ["request", "admin", "--reason", "INC-1", "--no-wait", "--json"];
    for (ticket, says) in [
        (&[][..], "a ticket is needed"),
        (&["--ticket", "chg"], "the ticket has to be like"),
        (&["--ticket", "CHG-2"], "there is no such ticket"),
        (&["--ticket=-h"], "cannot begin with '-'"),
    ] {
        let refused = company.elevate("alice", &[&ask[..], ticket].concat());
        assert!(
            refused.code != Some(0) && refused.stderr.contains(says),
            "{says}: {}",
            refused.stderr
        );
    }
    let list = company.elevate("bob", &["list", "--which", "to-approve", "--json"]).ok().json();
    assert_eq!(list["to-approve"]["elevations"], serde_json::json!([]), "nobody was asked");
    let asked = company.elevate("alice", &[&ask[..], &["--ticket", "CHG-1"]].concat()).ok().json();
    assert_eq!(asked["ticket"], "CHG-1");
}

/// What is cached of a grant that has ended is not handed out, neither at once nor under the
/// next one.
#[test]
fn a_token_of_an_earlier_grant_is_not_handed_out() {
    let company = Company::with(&["alice", "bob", "carol"], &role("renewable = true"));
    let token = || claims_of(&company, "alice", &[])["elevation"]["id"].clone();
    let begun = || {
        let id = company.request("alice", &[])["id"].as_str().unwrap().to_string();
        company.approve("bob", &id);
        company.approve("carol", &id);
        company.elevate("alice", &["status", &id, "--wait", "--json"]).ok();
        id
    };
    let first = begun();
    assert_eq!(token(), first.as_str());
    // Somebody else ends it, elsewhere.
    company.elevate("bob", &["revoke", &first, "--reason", "mended"]).ok();
    let second = begun();
    assert_eq!(token(), second.as_str());
    // What came of the one that is had stays, whoever looks.
    let kept = claims_of(&company, "alice", &[])["jti"].clone();
    company.elevate("alice", &["status", &second]).ok();
    assert_eq!(claims_of(&company, "alice", &[])["jti"], kept);
    company.elevate("alice", &["relinquish", &second]).ok();
    let refused = company.run("alice", &["token", "--role", "admin"]).run().ended_with(5);
    assert!(refused.stdout.is_empty(), "{}", refused.stdout);
}

/// However often somebody asks, few commands run at once for it.
#[test]
fn few_tickets_are_looked_up_at_once() {
    let place = Home::new();
    let counts = place.path("counts");
    // Each says how many there are, and lasts long enough for others to begin.
    let look = r#"mkdir "$0/$$" && ls "$0" | wc -l >> "$1" && sleep 0.4 && rmdir "$0/$$""#;
    std::fs::create_dir(place.path("running")).unwrap();
    let command = serde_json::json!(["/bin/sh", "-c", look, place.path("running"), counts]);
    let rules = format!("ticket = \"CHG-[0-9]+\"\nticket_command = {command}");
    let often = "\n[limits]\nelevation = { per_minute = 60 }\n";
    let company = Company::with(&["alice"], &(role(&rules) + often));
    let ask =
        ["elevate", "request", "admin", "--reason", "INC-1", "--no-wait", "--ticket", "CHG-1"];
    let askers: Vec<_> = (0..24).map(|_| company.run("alice", &ask)).collect();
    std::thread::scope(|scope| {
        let askers: Vec<_> =
            askers.into_iter().map(|asker| scope.spawn(move || asker.run())).collect();
        let done = askers.into_iter().map(|asker| asker.join().unwrap());
        assert_eq!(done.filter(|done| done.code == Some(0)).count(), 1);
    });
    let counts = std::fs::read_to_string(counts).unwrap();
    let counts: Vec<u32> = counts.lines().map(|line| line.trim().parse().unwrap()).collect();
    assert_eq!(counts.len(), 24);
    assert!(counts.iter().all(|count| (1..=8).contains(count)), "{counts:?}");
    assert!(counts.iter().any(|count| *count > 1), "{counts:?}");
}

#[test]
fn what_starts_later_is_waited_for_and_begins_then() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let asked = company.request("alice", &["--start", "20s"]);
    let id = asked["id"].as_str().unwrap();
    let moment = |value: &Value| {
        let format = &time::format_description::well_known::Rfc3339;
        time::OffsetDateTime::parse(value.as_str().unwrap(), format).unwrap()
    };
    let start = moment(&asked["start"]);
    company.approve("bob", id);
    assert_eq!(company.approve("carol", id)["access"], "approved");
    // It is said when.
    let shown = company.elevate("alice", &["status", id]).ok().stdout;
    assert!(shown.lines().any(|line| line.trim_start().starts_with("starts  ")), "{shown}");
    let active =
        company.run("alice", &["elevate", "status", id, "--wait", "--json"]).limit(SOON).run();
    let active = active.ok().json();
    assert_eq!(active["access"], "active");
    assert!(moment(&active["grant"]["from"]) >= start, "{active}");
}

#[test]
fn a_narrower_scope_is_all_that_its_tokens_cover() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let asked = company.request("alice", &["--scope", "deploy:read"]);
    let id = asked["id"].as_str().unwrap();
    assert_eq!(asked["scope"], "deploy:read");
    company.approve("bob", id);
    company.approve("carol", id);
    company.elevate("alice", &["status", id, "--wait", "--json"]).ok();
    assert_eq!(claims_of(&company, "alice", &[])["scope"], "deploy:read");
    let more = ["token", "--role", "admin", "--scope", "deploy:write"];
    let refused = company.run("alice", &more).run().ended_with(5);
    assert!(refused.stderr.contains("does not cover the scope"), "{}", refused.stderr);
}

/// Somebody whose tokens are bound to the key of their device.
fn with_key(company: &Company, name: &str) -> Home {
    let (issuer, broker) = (company.provider.issuer(), company.broker.url());
    let home = person(name, Home::stranger(), issuer, broker);
    let text = settings(issuer, broker).replace("[broker.main]\n", "[broker.main]\ndpop = true\n");
    home.config(&format!("{text}\n[cache]\nstore = \"kernel\"\n"));
    home
}

#[test]
fn a_grant_for_a_bound_key_is_of_no_use_with_another_one() {
    let mut company = Company::start(&["bob", "carol"]);
    let bound = with_key(&company, "alice");
    company.homes.push(("alice", bound));
    let asked = company.request("alice", &[]);
    let id = asked["id"].as_str().unwrap();
    let key = asked["key"].as_str().unwrap();
    company.approve("bob", id);
    company.approve("carol", id);
    company.elevate("alice", &["status", id, "--wait", "--json"]).ok();
    let claims = claims_of(&company, "alice", &[]);
    assert_eq!((&claims["cnf"]["jkt"], &claims["elevation"]["id"]), (&key.into(), &id.into()));
    // The same person with another device, and with none.
    let issuer = company.provider.issuer().to_string();
    let without = person("alice", Home::stranger(), &issuer, company.broker.url());
    for home in [with_key(&company, "alice"), without] {
        let refused = tmpcred(&home).args(["token", "--role", "admin"]).run().ended_with(5);
        assert!(refused.stderr.contains("bound to another key"), "{}", refused.stderr);
    }
}

/// Bob approves at a terminal, and has to prove more than that he is logged in.
fn approves_at_the_terminal(options: &OidcOptions, login: &str) -> Company {
    let company = Company::at(
        OidcProvider::start_with(options),
        ["alice", "bob"].map(|name| (name, Home::stranger())).into(),
        &role(login),
        "",
    );
    company.request("alice", &[]);
    let id = company.waiting_for("bob");
    let terminal = Terminal::start(company.home("bob"), 80, 45);
    terminal.enter(&format!("tmpcred elevate approve {id}"));
    terminal.wait_for("Approve exactly this?");
    terminal.enter("y");
    terminal.wait_for("1 of 2 approvals");
    company
}

#[test]
fn an_approver_logs_in_again_where_it_is_not_known_how_long_ago_that_was() {
    let login = "approver_login = { max_age = \"5m\" }";
    let company = approves_at_the_terminal(&OidcOptions::default(), login);
    let requests = company.provider.requests().into_iter();
    let asked: Vec<_> = requests.filter_map(|request| request.max_age).collect();
    assert!(!asked.is_empty(), "a fresh login was asked for");
}

#[test]
fn an_approver_logs_in_again_by_the_kind_of_login_that_is_wanted() {
    let options = OidcOptions { token_auth_time: true, token_acr: true, ..OidcOptions::default() };
    let login = "approver_login = { max_age = \"5m\", acr = [\"phr\"] }";
    let company = approves_at_the_terminal(&options, login);
    let requests = company.provider.requests().into_iter();
    let pages = requests.filter(|request| request.path == "/auth");
    let asked: Vec<_> = pages.filter_map(|request| request.acr_values).collect();
    assert_eq!(asked, ["phr"]);
}

#[test]
fn who_is_told_of_emergencies_by_nothing_but_mail_has_to_have_an_address() {
    let company = Company::start(&[]);
    let home = &company.broker.home;
    let toml = std::fs::read_to_string(home.path("broker.toml")).unwrap();
    let check = |channel: &str| {
        let (before, _) = toml.split_once("[notify.own]").unwrap();
        let file = home.write("checked.toml", format!("{before}{channel}"));
        let run = tmpcred(home).args(["broker", "policy", "check", "--json", "--config"]);
        run.args([file]).run()
    };
    let mail =
        "[notify.mail]\nkind = \"email\"\nurl = \"smtp://127.0.0.1:25\"\nfrom = \"a@b.example\"\n";
    let found = check(mail).ok().json();
    let rules = |found: &Value| {
        let all = found["findings"].as_array().unwrap().iter();
        all.map(|one| (one["rule"].clone(), one["message"].clone())).collect::<Vec<_>>()
    };
    let untold =
        "nobody tells bob, carol, erin when somebody takes the role 'admin' in an emergency";
    assert!(rules(&found).contains(&("emergency-untold".into(), untold.into())), "{found}");
    let place = format!("{mail}to = [\"team@b.example\"]\n");
    let found = check(&place).ok().json();
    assert!(rules(&found).iter().all(|(rule, _)| rule != "emergency-untold"), "{found}");
    // Where nobody at all would be told, nothing is checked any further.
    let refused = check(&format!("{mail}only = [\"review-due\"]\n"));
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("of which nobody would be told"), "{}", refused.stderr);
}

/// Alice has the role, because there is an emergency.
fn emergency(company: &Company) -> String {
    let ask = ["request", "admin", "--emergency", "--reason", "INC-1", "--for", "15m", "--json"];
    let had = company.elevate("alice", &ask).ok().json();
    assert_eq!(had["access"], "emergency-active");
    had["id"].as_str().unwrap().to_string()
}

#[test]
fn a_run_under_a_grant_of_before_leaves_the_grant_and_no_token() {
    let company = Company::start(&["alice"]);
    let id = emergency(&company);
    let ended = start(&company, &[], "echo $TMPCRED_TOKEN").wait().ok();
    let token = ended.stdout.trim();
    assert_eq!(crate::stores::claims(token)["elevation"]["id"], id.as_str());
    assert!(!crate::revocation::is_active(&company.broker, token), "it ended with its run");
    let status = company.elevate("alice", &["status", &id, "--json"]).ok().json();
    assert_eq!(status["access"], "emergency-active", "the grant goes on");
}

#[test]
fn a_review_shows_what_was_done_before_it_is_made() {
    let company = Company::start(&["alice", "bob"]);
    let id = emergency(&company);
    let token = company.run("alice", &["token", "--role", "admin"]).run().ok().stdout;
    for _ in 0..2 {
        assert!(crate::revocation::is_active(&company.broker, token.trim()));
    }
    let status = company.elevate("bob", &["status", &id]).ok().stdout;
    for says in ["introspection: ", "introspect https://api.example.com", "active", "issued: "] {
        assert!(status.contains(says), "{says}: {status}");
    }
    company.elevate("alice", &["relinquish", &id]).ok();
    let review =
        company.elevate("bob", &["review", &id, "--note", "only what was needed"]).ok().stdout;
    let (done, reviewed) = (review.find("introspection: "), review.find("only what was needed"));
    assert!(done.is_some() && done < reviewed, "{review}");
    let report = company.elevate("bob", &["status", &id, "--json"]).ok().json();
    let uses = report["uses"]["uses"].as_array().unwrap();
    let of = |kind: &str| uses.iter().find(|one| one["kind"] == kind).unwrap()["count"].clone();
    assert_eq!((of("introspection"), of("issued")), (2.into(), 1.into()));
    assert_eq!(report["review"], "reviewed");
}

#[test]
fn who_could_approve_is_known_where_the_stack_of_a_process_looks_short() {
    let mut company = Company::start(&["alice", "bob", "carol"]);
    company.broker.stop();
    let home = &company.broker.home;
    let (config, short) = (home.path("broker.toml"), home.path("short.so"));
    // The release has the C library that does so by itself.
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/e2e/stack.c");
    let compiled = home.command("cc").args(["-shared", "-fPIC", "-Wall", "-Wextra", "-Werror"]);
    compiled.args(["-o"]).args([&short]).args([source, "-ldl".into()]).run().ok();
    let broker = |command: &[&str]| {
        let run = tmpcred(home).args(["broker"]).args(command).args(["--config"]).args([&config]);
        run.env("LD_PRELOAD", short.to_str().unwrap()).env("TMPCRED_BROKER_KEK", KEK)
    };
    broker(&["policy", "check"]).run().ok();
    let serving = broker(&["serve"]).limit(SOON).spawn();
    serving.line_on_stderr("listens on");
    let id = company.request("alice", &[])["id"].as_str().unwrap().to_string();
    company.approve("bob", &id);
    assert_eq!(company.approve("carol", &id)["access"], "approved");
}
