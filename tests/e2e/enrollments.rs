//! Keys that people enroll with nothing but OpenSSH and curl, as docs/break-glass-keys.md prints
//! it, at a broker that runs.

use serde_json::{Value, json};

use super::support::broker::{Broker, BrokerOptions};
use super::support::home::Home;
use super::support::workload::Workloads;

const ISSUER: &str = "https://people.example.com";

/// What the page has people type: to enroll, and to approve.
fn printed() -> [String; 2] {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/break-glass-keys.md");
    let page = std::fs::read_to_string(path).unwrap();
    let blocks = page.split("\n```sh\n").skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let blocks: Vec<_> = blocks.map(String::from).collect();
    blocks.try_into().unwrap_or_else(|blocks| panic!("other blocks than expected: {blocks:?}"))
}

#[test]
fn a_key_is_enrolled_and_approved_as_it_is_printed_and_outlasts_a_restart() {
    let files = Home::new();
    let people = Workloads::of(ISSUER, &files);
    let jwks = &people.jwks;
    files.write(
        "people.toml",
        ["alice", "bob"]
            .map(|name| {
                format!(
                    "[person.{name}]\nids = [{{ issuer = \"{ISSUER}\", subject = \"{name}\" }}]\n"
                )
            })
            .concat(),
    );
    let mut options = BrokerOptions::trusting("https://unused.example.com");
    let directory = files.path("people.toml");
    options.more = format!(
        "\n[trusted_issuer.people]\nissuer = \"{ISSUER}\"\njwks_file = {jwks:?}\n\n\
         [directory]\nfile = {directory:?}\n",
    );
    options.policy += &format!(
        "@id(\"keeper\") permit (principal == User::\"{ISSUER}#bob\", action == Action::\"administer\", resource);",
    );
    // Of whichever of the two issuers.
    options.policy = options.policy.replace("@ttl(", "@any_issuer @ttl(");
    let mut broker = Broker::start(&options);
    let assertion = |who: &str| people.assertion(who, broker.url(), &json!({}));
    let (alice, bob) = (assertion("alice"), assertion("bob"));
    let home = Home::new();
    let keygen = ["-q", "-t", "ed25519", "-N", "", "-f"];
    home.directory(".ssh");
    let key = home.path(".ssh/id_ed25519");
    home.command("ssh-keygen").args(keygen).args([&key]).run().ok();
    let [enroll, approve] = printed();
    let shell = |script: &str, more: &[(&str, &str)]| -> Vec<Value> {
        let curl = script.replace("curl ", "curl --silent --show-error --write-out '\\n' ");
        let mut run = home.command("sh").args(["-euc", &curl]).env("BROKER", broker.url());
        for (name, value) in more {
            run = run.env(name, value);
        }
        let said = run.run().ok().stdout;
        said.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
    };
    let [enrolled] = &shell(&enroll, &[("ASSERTION", &alice)])[..] else { panic!() };
    assert_eq!((&enrolled["person"], &enrolled["state"]), (&json!("alice"), &json!("pending")));
    let public = std::fs::read_to_string(home.path(".ssh/id_ed25519.pub")).unwrap();
    assert!(public.starts_with(enrolled["public_key"].as_str().unwrap()));
    let text = |name: &str| enrolled[name].as_str().unwrap().to_string();
    let (id, fingerprint) = (text("id"), text("fingerprint"));
    let named = [("ID", &id[..]), ("FINGERPRINT", &fingerprint), ("APPROVER", &alice)];
    let [listed, approved] = &shell(&approve, &named)[..] else { panic!() };
    assert_eq!(
        (&listed["error"], &approved["error"]),
        (&json!("access_denied"), &json!("access_denied"))
    );
    let named = [("ID", &id[..]), ("FINGERPRINT", &fingerprint), ("APPROVER", &bob)];
    let [listed, approved] = &shell(&approve, &named)[..] else { panic!() };
    assert_eq!(listed["keys"][0]["state"], "pending");
    let state = (&approved["state"], &approved["approved_by"]);
    assert_eq!(state, (&json!("approved"), &json!("bob")), "{approved}");
    // The same statement is good once.
    let again = "curl -H \"Authorization: Bearer $ASSERTION\" \"$BROKER/v1/enrollments\" --data-urlencode statement@signed";
    let [again] = &shell(again, &[("ASSERTION", &alice)])[..] else { panic!() };
    assert!(again["error_description"].as_str().unwrap().contains("used before"), "{again}");

    broker.restart();
    let list = "curl -H \"Authorization: Bearer $ASSERTION\" \"$BROKER/v1/enrollments?mine=true\"";
    let url = broker.url().to_string();
    let run = home.command("sh").args(["-euc", list]).env("BROKER", url).env("ASSERTION", &alice);
    let listed: Value = serde_json::from_str(&run.run().ok().stdout).unwrap();
    assert_eq!(listed["keys"][0]["state"], "approved", "{listed}");
}
