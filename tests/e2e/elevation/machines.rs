//! A job may ask for a role, where policy lets it. It decides about nothing.

use super::*;
use crate::support::workload::Workloads;

const CI: &str = "https://ci.example.com";

const JOBS: &str = r#"
@id("jobs-ask")
permit (principal == User::"https://ci.example.com#job", action == Action::"elevate", resource == Role::"admin");

@id("jobs-would-approve")
permit (principal == User::"https://ci.example.com#job", action == Action::"approve", resource == Role::"admin");

@id("jobs-have-it") @ttl("1h") @scope("deploy:read")
permit (principal == User::"https://ci.example.com#job", action == Action::"issue", resource == Role::"admin")
when { context has elevation };
"#;

/// A company, and a job of a platform that its broker trusts.
struct Site {
    company: Company,
    job: Home,
    _platform: Home,
}

impl Site {
    fn start(people: &[&'static str]) -> Self {
        let platform = Home::new();
        let workloads = Workloads::of(CI, &platform);
        let mut company = Company::start(people);
        // From now on its broker trusts the platform, too; what is for everybody says so.
        let (toml, policy) = ("broker.toml", "policy.cedar");
        let home = &company.broker.home;
        let text = |name: &str| std::fs::read_to_string(home.path(name)).unwrap();
        let jwks = workloads.jwks.display();
        let table = format!("\n[trusted_issuer.ci]\nissuer = \"{CI}\"\njwks_file = \"{jwks}\"\n");
        home.write(toml, text(toml) + &table);
        let open = ["deploy", "reader"].iter().fold(text(policy), |text, name| {
            let id = format!("@id(\"{name}\")");
            text.replace(&id, &format!("{id} @any_issuer"))
        });
        home.write(policy, open + JOBS);
        // One lead more than elsewhere: three approve what a job asks for, and a fourth reviews it.
        let people = text("people.toml");
        let (before, alice) = people.split_once("[person.alice]").unwrap();
        let lead = alice.replacen("\"staff\"", "\"staff\", \"leads\"", 1);
        home.write("people.toml", format!("{before}[person.alice]{lead}"));
        company.broker.restart();
        let (job, broker) = (Home::stranger(), company.broker.url());
        let groups = serde_json::json!({ "groups": ["leads", "staff"] });
        job.write("token", workloads.assertion("job", broker, &groups));
        let print = job.write_program("print-token", "#!/bin/sh\nexec cat \"$HOME/token\"\n");
        job.config(&format!(
            "default_profile = \"deploy\"\n\n[identity.ci]\ntype = \"command\"\ncommand = [{print:?}]\n\n\
             [broker.main]\nurl = \"{broker}\"\n\n[profile.deploy]\nrole = \"deploy\"\naudience = \"{API}\"\n"
        ));
        Self { company, job, _platform: platform }
    }

    fn elevate(&self, args: &[&str]) -> Output {
        tmpcred(&self.job).args(["elevate"]).args(args).run()
    }

    /// It is refused, and told so.
    #[track_caller]
    fn refused(&self, args: &[&str], code: i32, says: &str) {
        let refused = self.elevate(args).ended_with(code);
        assert!(refused.stderr.contains(says), "{args:?}: {}", refused.stderr);
    }
}

#[test]
fn a_job_has_a_role_that_one_more_approves_than_for_people_and_decides_about_nothing() {
    let site = Site::start(&["alice", "bob", "carol", "erin"]);
    let ask = ["request", "admin", "--reason", "INC-7: deploy", "--for", "30m"];
    let ask = [&ask[..], &["--no-wait", "--json"]].concat();
    let asked = site.elevate(&ask).ok().json();
    let (id, hash) = (asked["id"].as_str().unwrap(), asked["hash"].as_str().unwrap());
    let people = "only people decide, and none of the directory is known by this identity";
    site.refused(&["approve", id, "--hash", hash], 5, people);
    site.refused(&["deny", id, "--reason", "no", "--yes"], 5, people);
    assert_eq!(site.company.approve("bob", id)["access"], "pending");
    site.refused(&["approve", id, "--hash", hash], 5, people);
    // For people these two are enough; who has started the job may be one of them.
    assert_eq!(site.company.approve("carol", id)["access"], "pending");
    assert_eq!(site.company.approve("alice", id)["access"], "approved");
    let active = site.elevate(&["status", id, "--wait", "--json"]).ok().json();
    assert_eq!(active["access"], "active");
    let token = tmpcred(&site.job).args(["token", "--role", "admin"]).run().ok().stdout;
    let claims = crate::stores::claims(token.trim());
    assert_eq!(
        (&claims["elevation"]["id"], &claims["sub_id"]["sub"]),
        (&asked["id"], &"job".into())
    );
    site.elevate(&["relinquish", id]).ok();
    let review = ["review", id, "--note", "all went well"];
    site.refused(&review, 5, people);
    assert_eq!(site.company.elevate("erin", &review[..]).ok().code, Some(0));
    let story = site.company.story(id);
    assert_eq!(
        story,
        [
            "elevation.request job",
            "elevation.approve job",
            "elevation.deny job",
            "elevation.approve bob",
            "elevation.approve job",
            "elevation.approve carol",
            "elevation.approve alice",
            "elevation.activate job",
            "issue job",
            "elevation.relinquish job",
            "elevation.review job",
            "elevation.review erin",
        ]
    );
}

#[test]
fn a_job_does_not_approve_what_a_person_asks_for_though_policy_would_let_it() {
    let site = Site::start(&["alice", "bob"]);
    let asked = site.company.request("alice", &[]);
    let (id, hash) = (asked["id"].as_str().unwrap(), asked["hash"].as_str().unwrap());
    let none = "there is no such elevation, or it is none of yours";
    site.refused(&["approve", id, "--hash", hash], 2, none);
    site.refused(&["deny", id, "--reason", "no", "--yes"], 2, none);
    site.refused(&["review", id, "--note", "seen"], 2, none);
    assert_eq!(site.company.approve("bob", id)["needs"][0]["have"], serde_json::json!(["bob"]));
    let story = site.company.story(id);
    let tried = ["elevation.request alice", "elevation.approve job", "elevation.deny job"];
    assert_eq!(story[..3], tried);
}
