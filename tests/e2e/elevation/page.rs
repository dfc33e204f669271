//! The page for those who are on call, as it is written: each line is typed by whom it is for,
//! in the order of the page.

use std::os::unix::fs::PermissionsExt;

use super::*;

const PAGE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/on-call.md");

/// What stands on the page for the id of a request.
const ID: &str = "018f6a0e-0000-7000-8000-000000000000";

/// The lines of the page that somebody types, with who does.
fn lines() -> Vec<(String, String)> {
    let page = std::fs::read_to_string(PAGE).unwrap();
    let mut lines = Vec::new();
    for fenced in page.split("\n```").skip(1).step_by(2) {
        let (kind, text) = fenced.split_once('\n').unwrap();
        if let Some(who) = kind.strip_prefix("sh ") {
            lines.extend(text.lines().map(|line| (who.to_string(), line.to_string())));
        }
    }
    lines
}

struct Page<'a> {
    company: &'a Company,
    terminals: Vec<(&'static str, Terminal<'a>)>,
}

impl Page<'_> {
    fn of(&self, who: &str) -> &Terminal<'_> {
        &self.terminals.iter().find(|(name, _)| *name == who).unwrap().1
    }

    /// The id of alice's newest request.
    fn newest(&self) -> String {
        let mine = self.company.elevate("alice", &["list", "--which", "mine", "--json"]).ok();
        mine.json()["mine"]["elevations"][0]["id"].as_str().unwrap().to_string()
    }

    fn access(&self, id: &str) -> String {
        let status = self.company.elevate("alice", &["status", id, "--json"]).ok().json();
        status["access"].as_str().unwrap().to_string()
    }

    /// Types what stands there, and answers what is asked.
    fn approves(&self, who: &str, line: &str) {
        let terminal = self.of(who);
        terminal.enter(&format!("clear; {line}"));
        terminal.wait_for("Approve exactly this?");
        terminal.enter("y");
        terminal.wait_for(&format!("by {} Example", who.to_uppercase()));
    }

    /// The lines by which two approve what waits.
    fn two_approve(&self, approve: &str, id: &str) {
        for who in ["bob", "carol"] {
            self.approves(who, &approve.replace(ID, id));
        }
    }
}

#[test]
fn each_line_of_the_page_for_those_on_call_does_what_it_says() {
    let company = Company::start(&["alice", "bob", "carol", "erin"]);
    let script = "#!/bin/sh\necho \"mended as $TMPCRED_ROLE\"\n";
    let script = company.home("alice").write("work/mend.sh", script);
    std::fs::set_permissions(&script, PermissionsExt::from_mode(0o755)).unwrap();
    let terminals = ["alice", "bob", "carol", "erin"]
        .map(|name| (name, Terminal::start(company.home(name), 80, 50)));
    let page = Page { company: &company, terminals: terminals.into() };
    let lines = lines();
    let approve = "tmpcred elevate approve ";
    let approve = lines.iter().find(|(_, line)| line.starts_with(approve)).unwrap().1.clone();
    let mut tried = Vec::new();
    for (who, line) in &lines {
        let line = line.replace("prod-admin", "admin");
        if who == "broker" {
            looks_into_the_log(&company, &line);
            tried.push("audit query".to_string());
            continue;
        }
        let terminal = page.of(who);
        let words: Vec<_> = line.split(' ').collect();
        let emergency = line.contains("--emergency");
        tried.push(words[1..3].join(" "));
        match words[1..3] {
            ["elevate", "request"] if emergency => {
                terminal.run(&line);
                assert_eq!(page.access(&page.newest()), "emergency-active");
                company.elevate("alice", &["relinquish", &page.newest()]).ok();
            }
            ["elevate", "request"] => {
                terminal.enter(&format!("clear; {line}"));
                terminal.wait_for("0 of 2 approvals");
                terminal.press("C-c");
            }
            ["elevate", "status"] => {
                terminal.enter(&format!("clear; {line}"));
                terminal.wait_for("0 of 2 approvals");
                let id = page.newest();
                page.two_approve(&approve, &id);
                terminal.wait_for("active, ");
            }
            ["exec", "--role"] => {
                assert!(terminal.run(&line).contains("mended as admin"));
            }
            ["elevate", "relinquish"] => {
                let id = page.newest();
                assert!(terminal.run(&line.replace(ID, &id)).contains("relinquished"));
            }
            ["exec", "--elevate"] => {
                terminal.enter(&format!("clear; {line}"));
                let id = company.waiting_for("bob");
                page.two_approve(&approve, &id);
                terminal.wait_for("mended as admin");
                wait_until("it to be given back", SOON, || {
                    (page.access(&id) == "relinquished").then_some(())
                });
            }
            ["elevate", "list"] => {
                if line.contains("to-approve") {
                    company.request("alice", &[]);
                }
                let shown = terminal.run(&line);
                assert!(shown.contains(&page.newest()), "{shown}");
            }
            ["elevate", "approve"] => {
                let id = page.newest();
                page.approves(who, &line.replace(ID, &id));
            }
            ["elevate", "deny"] => {
                let id = page.newest();
                terminal.enter(&format!("clear; {}", line.replace(ID, &id)));
                terminal.wait_for("Deny exactly this?");
                terminal.enter("y");
                terminal.wait_for("state  denied");
            }
            ["elevate", "revoke"] => {
                let id = company.request("alice", &[])["id"].as_str().unwrap().to_string();
                page.two_approve(&approve, &id);
                company.elevate("alice", &["status", &id, "--wait"]).ok();
                assert!(terminal.run(&line.replace(ID, &id)).contains("revoked"));
            }
            ["elevate", "review"] => {
                let id = page.newest();
                let shown = terminal.run(&line.replace(ID, &id));
                assert!(shown.contains("reviewed by ERIN Example"), "{shown}");
            }
            ["elevate", "drill"] => {
                terminal.enter(&format!("clear; {line}"));
                let id = company.waiting_for("bob");
                page.two_approve(&approve, &id);
                terminal.wait_for("enough have approved");
            }
            _ => panic!("the page has a line that is not tried: {line}"),
        }
    }
    for command in ["request", "status", "approve", "deny", "revoke", "review", "drill"] {
        assert!(tried.contains(&format!("elevate {command}")), "{command} is not on the page");
    }
    assert_eq!(tried.last().unwrap(), "audit query");
}

/// What whoever runs the broker types: it tells of the drill alone, and how long each step took.
#[track_caller]
fn looks_into_the_log(company: &Company, line: &str) {
    let words = line.strip_prefix("tmpcred ").unwrap();
    let query = || {
        let run = tmpcred(&company.broker.home).current_dir(company.broker.home.path(""));
        run.args(words.split(' ')).args(["--json"]).env("TMPCRED_BROKER_KEK", KEK).run()
    };
    let records = wait_until("the end of the drill", SOON, || {
        let records = query().ok().json();
        let ended = |one: &Value| one["action"] == "elevation.relinquish";
        records.as_array().unwrap().iter().any(ended).then_some(records)
    });
    let records = records.as_array().unwrap();
    let text = |one: &Value, name: &str| one[name].as_str().unwrap().to_string();
    let actions: Vec<_> = records.iter().map(|one| text(one, "action")).collect();
    let approve = "elevation.approve";
    let all = ["elevation.request", approve, approve, "elevation.activate", "elevation.relinquish"];
    assert_eq!(actions, all);
    assert!(records.iter().all(|one| text(one, "reason").starts_with("DRILL: ")), "{records:?}");
    let last = text(records.last().unwrap(), "reason");
    for says in ["first approval after", "begun after", "a token would have been issued"] {
        assert!(last.contains(says), "{says}: {last}");
    }
}
