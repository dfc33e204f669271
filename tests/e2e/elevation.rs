//! Roles that are had for a while, from the command line: who asks, and two who approve, each
//! a user of this machine of their own.

mod alarms;
pub(crate) mod aws;
mod between;
mod drill;
mod machines;
mod more;
mod page;
mod runs;
mod waits;

use std::time::Duration;

use serde_json::Value;

use super::support::broker::{API, Broker, BrokerOptions, KEK, OPEN_POLICY};
use super::support::browser::Browser;
use super::support::home::{Home, tmpcred};
use super::support::oidc_provider::{OidcOptions, OidcProvider};
use super::support::run::{Output, Run, Running};
use super::support::terminal::Terminal;
use super::support::wait::wait_until;

pub(super) const SOON: Duration = Duration::from_secs(60);

pub(super) const POLICY: &str = r#"
@id("staff-asks")
permit (principal in DirectoryGroup::"staff", action == Action::"elevate", resource == Role::"admin");

@id("leads-approve")
permit (principal in DirectoryGroup::"leads", action == Action::"approve", resource == Role::"admin");

@id("admins") @ttl("1h") @scope("deploy:read deploy:write")
permit (principal in DirectoryGroup::"staff", action == Action::"issue", resource == Role::"admin")
when { context has elevation };
"#;

pub(super) const ROLE: &str = r#"
[directory]
file = "people.toml"

[role.admin]
audiences = ["https://api.example.com"]
scopes = ["deploy:read", "deploy:write"]
max_ttl = "1h"

[role.admin.elevation]
longest = "1h"
reason = "INC-[0-9]+.*"
review_within = "1d"
approvals = [{ count = 2, groups = ["leads"] }]
emergency = { longest = "15m", cool_down = "1h" }

[notify.own]
kind = "command"
command = ["/bin/sh", "-c", "cat >>TOLD; echo >>TOLD"]
"#;

/// A broker, a provider, and people with a home each.
pub(super) struct Company {
    pub(super) broker: Broker,
    pub(super) provider: OidcProvider,
    homes: Vec<(&'static str, Home)>,
}

impl Company {
    fn start(people: &[&'static str]) -> Self {
        Self::with(people, ROLE)
    }

    fn with(people: &[&'static str], role: &str) -> Self {
        let homes = people.iter().map(|name| (*name, Home::stranger())).collect();
        Self::of(homes, role, "")
    }

    /// The same in these homes, with more policies.
    pub(super) fn of(homes: Vec<(&'static str, Home)>, role: &str, policies: &str) -> Self {
        let provider = OidcProvider::start_with(&OidcOptions::default());
        Self::at(provider, homes, role, policies)
    }

    /// With this provider.
    pub(super) fn at(
        provider: OidcProvider,
        homes: Vec<(&'static str, Home)>,
        role: &str,
        policies: &str,
    ) -> Self {
        let issuer = provider.issuer().to_string();
        let home = Home::new();
        home.write("people.toml", directory(&issuer));
        let policy = [OPEN_POLICY, POLICY, &policies.replace("ISSUER", &issuer)].concat();
        let more = role.replace("TOLD", home.path("told").to_str().unwrap());
        let options = BrokerOptions { policy, more, ..BrokerOptions::trusting(&issuer) };
        let broker = Broker::start_in(home, &options);
        let settled = |(name, home)| (name, person(name, home, &issuer, broker.url()));
        let homes = homes.into_iter().map(settled).collect();
        Self { broker, provider, homes }
    }

    /// Has the broker take no assertion any more once it has expired.
    fn without_leeway(&mut self) {
        let toml = self.broker.home.path("broker.toml");
        let table = "[trusted_issuer.corp]\n";
        let text = std::fs::read_to_string(&toml).unwrap();
        std::fs::write(&toml, text.replace(table, &format!("{table}leeway = \"0s\"\n"))).unwrap();
        self.broker.restart();
    }

    pub(super) fn home(&self, name: &str) -> &Home {
        &self.homes.iter().find(|(known, _)| *known == name).unwrap().1
    }

    /// A command of somebody's.
    pub(super) fn run(&self, name: &str, args: &[&str]) -> Run {
        tmpcred(self.home(name)).args(args)
    }

    pub(super) fn elevate(&self, name: &str, args: &[&str]) -> Output {
        self.run(name, &["elevate"]).args(args).run()
    }

    /// Asks for the role, and returns the request.
    pub(super) fn request(&self, name: &str, more: &[&str]) -> Value {
        self.request_because(name, "INC-4711: the disk is full", more)
    }

    /// The same for this reason.
    pub(super) fn request_because(&self, name: &str, reason: &str, more: &[&str]) -> Value {
        let ask = ["request", "admin", "--reason", reason, "--for", "30m"];
        self.elevate(name, &[&ask, more, &["--no-wait", "--json"]].concat()).ok().json()
    }

    /// Approves what was shown, as somebody who was asked and said yes.
    pub(super) fn approve(&self, name: &str, id: &str) -> Value {
        let shown = self.elevate(name, &["status", id, "--json"]).ok().json();
        let hash = shown["hash"].as_str().unwrap();
        self.elevate(name, &["approve", id, "--hash", hash, "--json"]).ok().json()
    }

    /// The one request that waits for somebody.
    fn waiting_for(&self, name: &str) -> String {
        wait_until("a request", SOON, || {
            let list = self.elevate(name, &["list", "--which", "to-approve", "--json"]).ok().json();
            Some(list["to-approve"]["elevations"].get(0)?["id"].as_str()?.to_string())
        })
    }

    /// Waits until people were told so, and returns whom.
    pub(super) fn told(&self, kind: &str) -> Vec<String> {
        wait_until(kind, SOON, || {
            let text = std::fs::read_to_string(self.broker.home.path("told")).unwrap_or_default();
            let messages = text.lines().filter_map(|line| serde_json::from_str(line).ok());
            let message = messages.map(|one: Value| one["message"].clone());
            let people = message.into_iter().find(|one| one["kind"] == kind)?["people"].clone();
            serde_json::from_value(people).ok()
        })
    }

    /// What is on record of it.
    pub(super) fn story(&self, id: &str) -> Vec<String> {
        let query = ["broker", "audit", "query", "--elevation", id, "--json", "--config"];
        let run =
            tmpcred(&self.broker.home).args(query).args([self.broker.home.path("broker.toml")]);
        let records = run.env("TMPCRED_BROKER_KEK", KEK).run().ok().json();
        let text = |record: &Value, name: &str| record[name].as_str().unwrap().to_string();
        let records = records.as_array().unwrap().iter();
        records.map(|one| format!("{} {}", text(one, "action"), text(one, "subject"))).collect()
    }
}

pub(super) fn directory(issuer: &str) -> String {
    let person = |name: &str, groups: &str| {
        format!(
            "[person.{name}]\nname = \"{} Example\"\nids = [{{ issuer = \"{issuer}\", subject = \"{name}\" }}]\ngroups = [{groups}]\n",
            name.to_uppercase()
        )
    };
    [
        "[group.staff]\n[group.leads]\n".into(),
        person("alice", "\"staff\""),
        person("bob", "\"staff\", \"leads\""),
        person("carol", "\"staff\", \"leads\""),
        person("erin", "\"staff\", \"leads\""),
    ]
    .concat()
}

fn person(name: &str, mut home: Home, issuer: &str, broker: &str) -> Home {
    Browser::http().user(name, "x").install(&mut home);
    home.config(&settings(issuer, broker));
    home.set("TMPCRED_NO_INPUT", "false");
    home
}

/// What somebody has configured.
fn settings(issuer: &str, broker: &str) -> String {
    format!(
        r#"default_profile = "deploy"

[identity.corp]
type = "oidc"
issuer = "{issuer}"
client_id = "cli"

[broker.main]
url = "{broker}"

[profile.deploy]
role = "deploy"
audience = "{API}"
"#
    )
}

#[test]
fn a_request_is_approved_by_two_had_given_back_and_reviewed() {
    let company = Company::start(&["alice", "bob", "carol", "erin"]);
    // Without a grant the role is not had, and it is said what to do.
    let token = ["token", "--role", "admin"];
    let refused = company.run("alice", &token).run().ended_with(5);
    for says in ["under a grant only", "tmpcred elevate request admin"] {
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    let asked = company.request("alice", &[]);
    let id = asked["id"].as_str().unwrap();
    assert_eq!(
        (&asked["access"], &asked["needs"][0]["could"][0]),
        (&"pending".into(), &"bob".into())
    );
    let refused = company.run("alice", &token).run().ended_with(6);
    let waits = format!("tmpcred elevate status {id} --wait");
    assert!(refused.stderr.contains(&waits), "{}", refused.stderr);
    // Whoever is not asked may not even see it; who asks does not approve.
    assert_eq!(company.waiting_for("bob"), id);
    let own = company.elevate("alice", &["approve", id, "--hash", asked["hash"].as_str().unwrap()]);
    assert!(own.ended_with(5).stderr.contains("nobody decides about what is for themselves"));
    assert_eq!(company.approve("bob", id)["access"], "pending");
    assert_eq!(company.approve("carol", id)["access"], "approved");
    let active = company.elevate("alice", &["status", id, "--wait", "--json"]).ok().json();
    assert_eq!(active["access"], "active");
    let token = company.run("alice", &token).run().ok().stdout.trim().to_string();
    let claims = super::stores::claims(&token);
    assert_eq!((&claims["elevation"]["id"], &claims["role"]), (&asked["id"], &"admin".into()));
    assert!(super::revocation::is_active(&company.broker, &token));
    let ended = company.elevate("alice", &["relinquish", id, "--json"]).ok().json();
    assert_eq!((&ended["access"], &ended["review"]), (&"relinquished".into(), &"due".into()));
    assert!(!super::revocation::is_active(&company.broker, &token), "it is revoked with its grant");
    assert_eq!(company.told("elevation-requested"), ["bob", "carol", "erin"]);
    assert_eq!(company.told("elevation-approved"), ["alice"]);
    assert_eq!(company.told("grant-ended"), ["alice", "bob", "carol"]);
    // Who approved it does not review it.
    assert_eq!(company.told("review-due"), ["erin"]);
    let note = ["review", id, "--note", "only what the ticket says"];
    let refused = company.elevate("bob", &note).ended_with(5);
    assert!(refused.stderr.contains("who approved does not review it"), "{}", refused.stderr);
    assert_eq!(
        company.elevate("erin", &[&note[..], &["--json"]].concat()).ok().json()["review"],
        "reviewed"
    );
    let story = company.story(id);
    assert_eq!(
        story,
        [
            "elevation.request alice",
            "elevation.approve alice",
            "elevation.approve bob",
            "elevation.approve carol",
            "elevation.activate alice",
            "issue alice",
            "elevation.relinquish alice",
            "elevation.review bob",
            "elevation.review erin",
        ]
    );
}

/// `exec --elevate` of alice's.
fn start(company: &Company, more: &[&str], script: &str) -> Running {
    let args = ["exec", "--elevate", "admin", "--reason", "INC-4711", "--for", "30m"];
    let run = company.run("alice", &args).args(more).args(["--", "sh", "-c", script]);
    run.limit(SOON).spawn()
}

/// The same, once its request is there.
fn exec(company: &Company, more: &[&str], script: &str) -> (Running, String) {
    (start(company, more, script), company.waiting_for("bob"))
}

#[test]
fn one_line_asks_waits_runs_and_gives_it_back() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let (running, id) = exec(&company, &[], "echo $TMPCRED_ROLE $TMPCRED_TOKEN; exit 7");
    company.approve("bob", &id);
    company.approve("carol", &id);
    let ended = running.wait().ended_with(7);
    let (role, token) = ended.stdout.trim().split_once(' ').unwrap();
    assert_eq!(role, "admin");
    assert_eq!(super::stores::claims(token)["elevation"]["id"], id.as_str());
    assert!(!super::revocation::is_active(&company.broker, token));
    let status = company.elevate("alice", &["status", &id, "--json"]).ok().json();
    assert_eq!(status["access"], "relinquished");
    // Nothing of it is kept.
    let status = company.run("alice", &["status", "--json"]).run().ok().json();
    assert_eq!(status["credentials"], Value::Array(Vec::new()));
}

#[test]
fn who_is_denied_is_told_by_whom_and_why() {
    let company = Company::start(&["alice", "bob"]);
    let (running, id) = exec(&company, &[], "echo ran");
    company.elevate("bob", &["deny", &id, "--reason", "use the reader role", "--yes"]).ok();
    let ended = running.wait().ended_with(125);
    assert_eq!(ended.stdout, "");
    for says in ["somebody said no", "BOB Example", "use the reader role"] {
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
    }
}

#[test]
fn an_interrupted_wait_goes_on_where_it_was() {
    let company = Company::start(&["alice", "bob", "carol"]);
    let (running, id) = exec(&company, &[], "echo ran");
    running.line_on_stderr("waiting for approval");
    running.signal(rustix::process::Signal::INT);
    running.wait();
    company.approve("bob", &id);
    // The same line again is the same request.
    let running = start(&company, &[], "echo ran");
    running.line_on_stderr(&format!("going on with the request {id}"));
    company.approve("carol", &id);
    assert_eq!(running.wait().ok().stdout, "ran\n");
}

#[test]
fn the_command_does_not_outlive_its_grant() {
    let company = Company::start(&["alice"]);
    let script = "trap 'echo ended; exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let emergency =
        ["exec", "--elevate", "admin", "--reason", "INC-1", "--emergency", "--for", "10s"];
    let run = company.run("alice", &emergency).args(["--", "sh", "-c", script]).limit(SOON);
    let ended = run.run().ended_with(3);
    assert_eq!(ended.stdout, "up\nended\n");
    assert!(ended.stderr.contains("the grant has ended"), "{}", ended.stderr);
    // All who were skipped are told, and whose account it was.
    assert_eq!(company.told("emergency"), ["alice", "bob", "carol", "erin"]);
}

#[test]
fn policies_about_it_are_tried_and_say_who_could_approve() {
    let company = Company::start(&[]);
    let home = &company.broker.home;
    let policy = |args: &[&str]| {
        let run = tmpcred(home).args(["broker", "policy"]).args(args).args(["--config"]);
        run.args([home.path("broker.toml")]).run()
    };
    let asks = ["explain", "--issuer", "corp", "--subject", "bob", "--action", "elevate"];
    let asks = [&asks[..], &["--role", "admin", "--json"]].concat();
    let told = policy(&asks).ok().json();
    assert_eq!(told["outcome"]["policy"], "staff-asks", "{told}");
    // Bob is none of those who could approve for bob.
    assert_eq!(told["approvers"][0]["people"], serde_json::json!(["carol", "erin"]));
    let issuer = company.provider.issuer();
    let cases = format!(
        r#"
[[case]]
name = "carol approves for alice"
expect = {{ permit = "the approvals of the role 'admin'" }}
ask = {{ action = "approve", role = "admin", caller = {{ issuer = "corp", subject = "carol" }}, of_issuer = "{issuer}", of_subject = "alice" }}

[[case]]
name = "nobody approves for themselves"
expect = {{ deny = "forbidden" }}
ask = {{ action = "approve", role = "admin", caller = {{ issuer = "corp", subject = "carol" }}, of_issuer = "corp", of_subject = "carol" }}

[[case]]
name = "alice approves nothing"
expect = {{ deny = "no-permit" }}
ask = {{ action = "approve", role = "admin", caller = {{ issuer = "corp", subject = "alice" }}, of_issuer = "corp", of_subject = "bob" }}

[[case]]
name = "without a grant it is not had"
expect = {{ deny = "elevation" }}
ask = {{ role = "admin", caller = {{ issuer = "corp", subject = "alice" }} }}

[[case]]
name = "with one it is"
expect = {{ permit = "admins", ttl = "1h" }}
ask = {{ role = "admin", path = "ordinary", caller = {{ issuer = "corp", subject = "alice" }} }}
"#
    );
    let cases = home.write("cases.toml", cases);
    policy(&["test", cases.to_str().unwrap()]).ok();
    // What nobody could ever have is found, and the broker does not start with it.
    let toml = home.path("broker.toml");
    let text = std::fs::read_to_string(&toml).unwrap().replace("count = 2", "count = 4");
    std::fs::write(&toml, text).unwrap();
    let found = policy(&["check"]).ended_with(3);
    assert!(found.stderr.contains("nobody could ever have"), "{}", found.stderr);
}

#[test]
fn what_people_see_is_readable_at_80_columns() {
    let company = Company::start(&["alice", "bob"]);
    company.request("alice", &[]);
    let terminal = Terminal::start(company.home("bob"), 80, 40);
    terminal.enter("tmpcred elevate list --which to-approve");
    terminal.wait_for("TO APPROVE");
    let id = company.waiting_for("bob");
    terminal.enter(&format!("clear; tmpcred elevate approve {id}"));
    terminal.wait_for("Approve exactly this?");
    let screen = terminal.screen();
    for says in
        ["admin, for https://api.example.com", "INC-4711: the disk is full", "0 of 2 approvals"]
    {
        assert!(screen.contains(says), "{says}: {screen}");
    }
    terminal.enter("y");
    terminal.wait_for("1 of 2 approvals");
    drop(company.provider);
}
