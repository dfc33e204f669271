//! Roles of AWS that are had for a while: by one line, not for longer than the grant, and what is
//! said of the sessions that last.

use std::collections::BTreeMap;

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::*;
use crate::support::aws::{Moto, Weed, python_program, weed_role};
use crate::support::http::Http;

/// Whom tokens for AWS are for.
const STS: &str = "sts.amazonaws.com";

/// A role at moto.
pub(crate) const DEPLOY: &str = "arn:aws:iam::123456789012:role/deploy";

/// A role of a broker that AWS reads, with these lines of its elevation more.
pub(crate) fn aws_role(more: &str) -> String {
    format!(
        r#"
[role.aws-deploy]
audiences = ["{STS}"]
max_ttl = "15m"

[role.aws-deploy.aws]
tags = {{ team = "platform" }}

[role.aws-deploy.elevation]
longest = "1h"
review_within = "1d"
emergency = {{ longest = "10m", cool_down = "1h" }}
{more}
"#
    )
}

const BY_TWO: &str = r#"approvals = [{ count = 2, groups = ["leads"] }]"#;

pub(crate) const AWS_POLICY: &str = r#"
@id("staff-asks-for-aws")
permit (principal in DirectoryGroup::"staff", action == Action::"elevate", resource == Role::"aws-deploy");

@id("leads-approve-aws")
permit (principal in DirectoryGroup::"leads", action == Action::"approve", resource == Role::"aws-deploy");

@id("aws") @ttl("15m")
permit (principal in DirectoryGroup::"staff", action == Action::"issue", resource == Role::"aws-deploy")
when { context has elevation };
"#;

/// A company whose role AWS reads.
fn company(people: &[&'static str], policies: &str) -> Company {
    of(people.iter().map(|name| (*name, Home::stranger())).collect(), policies)
}

/// The same in these homes.
fn of(homes: Vec<(&'static str, Home)>, policies: &str) -> Company {
    let role = [ROLE, &aws_role(BY_TWO)].concat();
    Company::of(homes, &role, &[AWS_POLICY, policies].concat())
}

impl Company {
    /// Alice has profiles with this role at this server, by way of the broker.
    pub(crate) fn with_aws(&self, role: &str, server: &str, more: &str) {
        let own = settings(self.provider.issuer(), self.broker.url());
        let target = format!("type = \"aws\", endpoint_url = \"{server}\"");
        let chain = "chain = [{ role_arn = \"arn:aws:iam::210987654321:role/spoke\" }]";
        self.home("alice").config(&format!(
            r#"{own}
[profile.prod]
exchange = [{{ role = "aws-deploy" }}]
role = "{role}"
target = {{ {target} }}

[profile.chained]
extends = "prod"
target = {{ {target}, {chain} }}

[profile.twice]
extends = "prod"
exchange = [{{ role = "deploy", audience = "{API}" }}, {{ role = "aws-deploy" }}]

[profile.bare]
extends = "prod"
exchange = []
{more}"#
        ));
    }

    /// `exec --elevate` of alice's with this profile.
    pub(crate) fn exec_aws(&self, profile: &str, more: &[&str], script: &str) -> Run {
        let args = ["exec", profile, "--elevate", "aws-deploy", "--reason", "INC-4711"];
        self.run("alice", &args).args(more).args(["--", "sh", "-c", script]).limit(SOON)
    }

    /// The same with two who approve, and the id of its grant.
    fn approved(&self, profile: &str, more: &[&str], script: &str) -> (Running, String) {
        let running = self.exec_aws(profile, more, script).spawn();
        let id = self.waiting_for("bob");
        self.approve("bob", &id);
        self.approve("carol", &id);
        (running, id)
    }

    /// What became of one.
    pub(crate) fn became(&self, id: &str) -> Value {
        self.elevate("alice", &["status", id, "--json"]).ok().json()
    }

    /// The newest that alice asked for.
    fn newest(&self) -> Value {
        self.elevate("alice", &["status", "--json"]).ok().json()
    }
}

fn moment(text: &str) -> OffsetDateTime {
    OffsetDateTime::parse(text, &Rfc3339).unwrap()
}

/// For how long a session was asked for.
pub(crate) fn seconds(asked: &BTreeMap<String, String>) -> u32 {
    asked["DurationSeconds"].parse().unwrap()
}

#[test]
fn a_role_of_aws_is_had_by_one_line_and_ends_before_its_grant() {
    // Strangers do not reach the AWS CLI of the tests.
    let homes =
        vec![("alice", Home::new()), ("bob", Home::stranger()), ("carol", Home::stranger())];
    let company = of(homes, "");
    let subject = format!("{}#alice", company.provider.issuer());
    let metadata = format!("{}/.well-known/openid-configuration", company.broker.url());
    let keys: Value = Http::new().get(&metadata).unwrap().json();
    let keys = keys["jwks_uri"].as_str().unwrap();
    let weed = Weed::start(company.broker.url(), STS, keys, &[("deploy", &subject)]);
    weed.put("bucket", "hello", "hi");
    company.with_aws(&weed_role("deploy"), weed.url(), "");
    let aws = python_program("aws");
    let script = format!(
        "set -e; export AWS_ENDPOINT_URL={} AWS_DEFAULT_REGION=us-east-1; {} s3api get-object --bucket bucket --key hello out >/dev/null; cat out; \
         echo; echo $AWS_CREDENTIAL_EXPIRATION",
        weed.url(),
        aws.display()
    );
    let (running, id) = company.approved("prod", &["--for", "30m"], &script);
    let ended = running.wait().ok();
    let (content, expiration) = ended.stdout.trim().split_once('\n').unwrap();
    assert_eq!(content, "hi");
    let became = company.became(&id);
    assert_eq!(became["access"], "relinquished");
    let until = became["grant"]["until"].as_str().unwrap();
    assert!(moment(expiration) <= moment(until), "{expiration} {until}");
    // It is said what lasts, and how it is ended.
    for says in ["the session of AWS lasts until", &format!("tmpcred elevate status {id}")] {
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
    }
    let shown = company.elevate("alice", &["status", &id]).ok().stdout;
    for says in ["sessions last until they expire", "aws:TokenIssueTime"] {
        assert!(shown.contains(says), "{says}: {shown}");
    }
    let sessions = &became["aws_sessions"];
    let statement = &sessions["deny"]["Statement"][0];
    let before = &statement["Condition"]["DateLessThan"]["aws:TokenIssueTime"];
    assert_eq!((&statement["Effect"], before), (&"Deny".into(), &sessions["begun_before"]));
    // No token of the grant is good at AWS for longer than the grant.
    assert!(moment(before.as_str().unwrap()) >= moment(until), "{before} {until}");
}

#[test]
fn the_token_names_the_grant_to_aws_and_each_session_ends_with_it() {
    let company = company(&["alice", "bob", "carol"], "");
    let moto = Moto::start(9);
    company.with_aws(DEPLOY, moto.url(), "");
    let (running, id) = company.approved("chained", &["--for", "30m"], "echo $TMPCRED_ROLE");
    assert_eq!(running.wait().ok().stdout, "arn:aws:iam::210987654321:role/spoke\n");
    let asked = moto.all_asked("AssumeRoleWithWebIdentity");
    let claims = crate::stores::claims(&asked[0]["WebIdentityToken"]);
    assert_eq!((&claims["role"], &claims["aud"]), (&"aws-deploy".into(), &STS.into()));
    assert_eq!(claims["elevation"]["id"], id.as_str());
    // Nobody has said what the source identity is.
    assert_eq!(claims["https://aws.amazon.com/source_identity"], id.as_str());
    // The token lives for a quarter of an hour, the grant for twice as long.
    assert_eq!(seconds(&asked[0]), 900);
    let last = seconds(&moto.all_asked("AssumeRole")[0]);
    assert!((1700..1800).contains(&last), "{last}");
}

#[test]
fn where_less_is_left_than_aws_gives_it_is_not_asked_and_the_grant_is_given_back() {
    let company = company(&["alice"], "");
    let moto = Moto::start(9);
    company.with_aws(DEPLOY, moto.url(), "");
    for profile in ["prod", "chained"] {
        let short = company.exec_aws(profile, &["--emergency", "--for", "10m"], "echo ran").run();
        let said = short.ended_with(125).stderr;
        assert!(said.contains("--for 30m"), "{said}");
    }
    let list = company.elevate("alice", &["list", "--which", "mine", "--json"]).ok().json();
    assert_eq!(list["mine"]["elevations"], serde_json::json!([]), "nobody was asked");
    // The role is had for ten minutes at most in an emergency.
    let short = company.exec_aws("prod", &["--emergency"], "echo ran").run().ended_with(125);
    assert_eq!(short.stdout, "");
    for says in ["too little is left of the grant", "15m", "--for 30m"] {
        assert!(short.stderr.contains(says), "{says}: {}", short.stderr);
    }
    assert!(moto.all_asked("AssumeRoleWithWebIdentity").is_empty());
    assert_eq!(company.newest()["access"], "relinquished");
}

#[test]
fn a_grant_of_before_bounds_what_is_had_without_exec() {
    let company = company(&["alice", "bob", "carol"], "");
    let moto = Moto::start(9);
    company.with_aws(DEPLOY, moto.url(), "");
    let ask = ["request", "aws-deploy", "--at", "prod", "--reason", "INC-1", "--for", "20m"];
    let asked =
        company.elevate("alice", &[&ask[..], &["--no-wait", "--json"]].concat()).ok().json();
    let id = asked["id"].as_str().unwrap();
    company.approve("bob", id);
    company.approve("carol", id);
    company.elevate("alice", &["status", id, "--at", "prod", "--wait", "--json"]).ok();
    company.run("alice", &["env", "prod", "--format", "json"]).run().ok();
    let lasts = seconds(&moto.all_asked("AssumeRoleWithWebIdentity")[0]);
    assert!((1100..1200).contains(&lasts), "{lasts}");
    // A run goes on with it, says what lasts, and leaves it.
    let ran = company.exec_aws("prod", &[], "echo ran").run().ok();
    assert!(ran.stderr.contains("going on with the request"), "{}", ran.stderr);
    assert!(ran.stderr.contains("the session of AWS lasts until"), "{}", ran.stderr);
    assert_eq!(company.became(id)["access"], "active");
}

#[test]
fn a_profile_without_just_one_exchange_is_refused_and_says_what_to_do() {
    let company = company(&["alice"], "");
    company.with_aws(DEPLOY, "http://127.0.0.1:9", "");
    for (profile, says) in [
        ("twice", "has 2 exchanges, and it is not said which of them the role is for"),
        ("bare", "no broker is asked for a role on the way"),
    ] {
        let refused = company.exec_aws(profile, &[], "echo ran").run().ended_with(125);
        assert!(refused.stderr.contains("`--elevate` cannot be used here"), "{}", refused.stderr);
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
}

#[test]
fn who_is_denied_the_credential_gives_the_grant_back() {
    let never = r#"
@id("not-today")
forbid (principal == User::"ISSUER#alice", action, resource == Role::"admin")
when { context has elevation };
"#;
    let company = company(&["alice", "bob", "carol"], never);
    let (running, id) = exec(&company, &[], "echo ran");
    company.approve("bob", &id);
    company.approve("carol", &id);
    let ended = running.wait().ended_with(125);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("policy says no"), "{}", ended.stderr);
    let story = company.story(&id);
    assert_eq!(story.last().unwrap(), "elevation.relinquish alice");
    assert!(!story.contains(&"issue alice".to_string()), "{story:?}");
}

#[test]
fn who_is_interrupted_while_a_credential_is_had_gives_the_grant_back() {
    let company = company(&["alice", "bob", "carol"], "");
    let moto = Moto::start(9);
    moto.freeze();
    company.with_aws(DEPLOY, moto.url(), "");
    let (running, id) = company.approved("prod", &["--for", "30m"], "echo ran");
    // The broker has done its part, and AWS answers nothing.
    wait_until("a token", SOON, || {
        company.story(&id).contains(&"issue alice".to_string()).then_some(())
    });
    running.signal(rustix::process::Signal::INT);
    let ended = running.wait();
    assert_eq!((ended.stdout.as_str(), ended.signal), ("", Some(libc::SIGINT)), "{}", ended.stderr);
    assert_eq!(company.became(&id)["access"], "relinquished");
    assert_eq!(company.story(&id).last().unwrap(), "elevation.relinquish alice");
}

#[test]
fn a_session_that_lasts_after_somebody_revoked_the_grant_is_told_of() {
    let company = company(&["alice", "bob", "carol"], "");
    let moto = Moto::start(9);
    company.with_aws(DEPLOY, moto.url(), "");
    let script = "trap 'exit 3' TERM; echo up; while :; do sleep 0.1; done";
    let (running, id) = company.approved("prod", &["--for", "30m"], script);
    running.line_on_stdout("up");
    company.elevate("bob", &["revoke", &id, "--reason", "it is mended"]).ok();
    let ended = running.wait().ended_with(3);
    let status = format!("`tmpcred elevate status {id}` has the policy");
    for says in ["the grant is revoked by BOB Example", "the session of AWS lasts until", &status] {
        assert!(ended.stderr.contains(says), "{says}: {}", ended.stderr);
    }
}

#[test]
fn a_run_names_its_own_grant_where_another_one_lasts_longer() {
    let role =
        ROLE.replace("longest = \"1h\"\nreason", "renewable = true\nlongest = \"1h\"\nreason");
    let company = Company::with(&["alice", "bob", "carol"], &role);
    let ids = ["50m", "20m"].map(|lasting| {
        let ask = ["request", "admin", "--reason", "INC-1", "--for", lasting];
        let ask = [&ask[..], &["--no-wait", "--json"]].concat();
        let asked = company.elevate("alice", &ask).ok().json();
        let id = asked["id"].as_str().unwrap().to_string();
        company.approve("bob", &id);
        company.approve("carol", &id);
        company.elevate("alice", &["status", &id, "--wait", "--json"]).ok();
        id
    });
    let token = company.run("alice", &["token", "--role", "admin"]).run().ok().stdout;
    let of = |token: &str| crate::stores::claims(token.trim())["elevation"]["id"].clone();
    assert_eq!(of(&token), ids[0].as_str(), "where none is named, the one that lasts longest");
    // The run goes on with the newest.
    let ran = start(&company, &[], "echo $TMPCRED_TOKEN").wait().ok();
    assert!(
        ran.stderr.contains(&format!("going on with the request {}", ids[1])),
        "{}",
        ran.stderr
    );
    assert_eq!(of(&ran.stdout), ids[1].as_str());
}

#[test]
fn what_is_said_of_a_grant_needs_one() {
    let home = Home::new();
    for option in [
        &["--reason", "x"][..],
        &["--ticket", "x"],
        &["--for", "5m"],
        &["--emergency"],
        &["--on-expiry", "warn"],
        &["--provider-down"],
        &["--person", "x"],
        &["--key", "x"],
        &["--agent"],
        &["--keyring"],
        &["--wait-at-most", "5m"],
    ] {
        let run = tmpcred(&home).args(["exec"]).args(option).args(["--", "true"]).run();
        let said = run.ended_with(125).stderr;
        assert!(said.contains("--elevate <ROLE>"), "{option:?}: {said}");
    }
}
