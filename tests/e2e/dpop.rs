//! Tokens that are bound to a key of this device, end to end: made by the command line,
//! issued by a broker, shown through nginx; and with a client that knows nothing of us.

use serde_json::{Value, json};

use super::faults::at_clock;
use super::journey::Journey;
use super::support::broker::API;
use super::support::browser::Browser;
use super::support::home::{Home, tmpcred};
use super::support::nginx::{Nginx, broker_behind_nginx};
use super::support::oidc_provider::OidcProvider;
use super::support::peer::{node_script, program};
use super::support::run::{Output, Run};

/// A provider, a broker and an nginx that asks it; a person with a keyring.
struct World {
    journey: Journey,
    nginx: Nginx,
}

impl World {
    /// `authz` goes into the table of that name.
    fn start(authz: &str) -> Self {
        let provider = OidcProvider::start();
        let (broker, nginx) = broker_behind_nginx(provider.issuer(), "", authz);
        let mut home = Home::stranger();
        Browser::http().user("alice", "x").install(&mut home);
        let journey = Journey::of(provider, broker, home);
        journey.home.config(&format!(
            r#"default_profile = "bound"

[cache]
store = "kernel"

[identity.corp]
type = "oidc"
issuer = "{}"
client_id = "cli"

[broker.main]
url = "{}"
dpop = true

[profile.bound]
role = "bound"
audience = "{API}"

[profile.plain]
extends = "bound"
target = {{ type = "broker", dpop = false }}
"#,
            journey.provider.issuer(),
            journey.broker.url()
        ));
        Self { journey, nginx }
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        self.journey.tmpcred(args)
    }

    /// Sends a request with these headers, and returns the status and the answer.
    fn curl(&self, url: &str, headers: &str) -> (String, String) {
        let run = self.journey.home.command(program("curl"));
        let run = run.args(["-sS", "-i", "-H", "@-", url]).stdin(headers);
        let output = run.run().ok().stdout;
        let (head, body) = output.split_once("\r\n\r\n").unwrap();
        // Names of headers are written in whatever way.
        let line = |line: &str| match line.split_once(": ") {
            Some((name, value)) => format!("{}: {value}\n", name.to_ascii_lowercase()),
            None => format!("{line}\n"),
        };
        (head.lines().map(line).collect(), body.to_string())
    }

    fn proved(&self, url: &str, more: &[&str]) -> String {
        let args = [&["token", "--dpop", "GET", url], more].concat();
        self.tmpcred(&args).run().ok().stdout
    }
}

fn status(head: &str) -> &str {
    head.split(' ').nth(1).unwrap()
}

#[test]
fn a_request_passes_nginx_with_both_headers_once_and_a_stolen_token_never() {
    let world = World::start("");
    let url = format!("{}/a/b?c=d", world.nginx.url());
    let headers = world.proved(&url, &[]);
    let (head, body) = world.curl(&url, &headers);
    assert_eq!(status(&head), "200", "{head}");
    let issuer = world.journey.provider.issuer();
    assert_eq!(body, format!("{issuer}#alice as bound, shown ''\n"));

    let (head, _) = world.curl(&url, &headers);
    assert_eq!(status(&head), "401", "a proof is good once");
    assert!(
        head.contains("www-authenticate: DPoP algs=") && head.contains("invalid_dpop_proof"),
        "{head}"
    );
    let elsewhere = format!("{}/other", world.nginx.url());
    let (head, _) = world.curl(&elsewhere, &world.proved(&url, &[]));
    assert_eq!(status(&head), "401", "it is for one address");
    let token = world.tmpcred(&["token"]).run().ok();
    assert!(token.stderr.contains("--dpop METHOD URL"), "{}", token.stderr);
    let stolen = format!("Authorization: Bearer {}", token.stdout);
    assert_eq!(status(&world.curl(&url, &stolen).0), "401");
    let (head, _) = world.curl(&url, "");
    assert_eq!(status(&head), "401");
    assert!(head.contains("Bearer realm=") && head.contains("DPoP algs="), "{head}");
    // Who somebody is, nobody but the broker says.
    let forged = format!("{}Tmpcred-Subject: mallory\n", world.proved(&url, &[]));
    assert!(!world.curl(&url, &forged).1.contains("mallory"));
    assert_eq!(world.journey.broker.issued(), 1, "all of these are of one token");
}

#[test]
fn a_nonce_that_the_resource_wants_is_passed_on_and_put_in() {
    let world = World::start("nonces = \"required\"");
    let url = format!("{}/a", world.nginx.url());
    let (head, _) = world.curl(&url, &world.proved(&url, &[]));
    assert_eq!(status(&head), "401");
    assert!(head.contains("use_dpop_nonce"), "{head}");
    let nonce = head.lines().find_map(|line| line.strip_prefix("dpop-nonce: ")).unwrap();
    let headers = world.proved(&url, &["--nonce", nonce]);
    assert_eq!(status(&world.curl(&url, &headers).0), "200");
}

#[test]
fn a_clock_that_is_off_or_was_set_right_since_makes_no_difference() {
    let world = World::start("");
    let url = format!("{}/", world.nginx.url());
    let request = ["token", "--dpop", "GET", url.as_str()];
    let off = at_clock(&world.journey.home, "-10m").args(request);
    let (head, _) = world.curl(&url, &off.run().ok().stdout);
    assert_eq!(status(&head), "200", "{head}");
    // The token is that one still.
    let (head, _) = world.curl(&url, &world.proved(&url, &["--no-input"]));
    assert_eq!(status(&head), "200", "{head}");
    assert_eq!(world.journey.broker.issued(), 1);
}

#[test]
fn many_processes_make_one_key_and_one_token_and_the_next_needs_no_other_nonce() {
    let world = World::start("");
    world.tmpcred(&["login"]).run().ok();
    let running: Vec<_> = (0..40).map(|_| world.tmpcred(&["token", "-q"]).spawn()).collect();
    let tokens: Vec<String> =
        running.into_iter().map(|running| running.wait().ok().stdout).collect();
    assert!(tokens.windows(2).all(|two| two[0] == two[1]), "they got one token");
    assert_eq!(world.journey.broker.issued(), 1);
    let explained = world.tmpcred(&["explain", "--json"]).run().ok().json();
    let thumbprint = explained["key"]["thumbprint"].as_str().unwrap();
    let token = tokens[0].trim_end();
    assert_eq!(claims(token)["cnf"]["jkt"], thumbprint);
    assert_eq!(explained["cache"]["state"], "hit");
    let because = explained["key"]["because"].as_str().unwrap();
    assert!(because.contains("tmpcred token --dpop METHOD URL bound"), "{because}");
    let nonces = world.journey.home.path(".local/state/tmpcred/nonces");
    assert_eq!(std::fs::read_dir(nonces).unwrap().count(), 1);

    // A new token is bound to the same key.
    let again = world.tmpcred(&["token", "-q", "--refresh"]).run().ok().stdout;
    assert_ne!(again.trim_end(), token);
    assert_eq!(claims(again.trim_end())["cnf"]["jkt"], thumbprint);
}

#[test]
fn a_command_has_the_token_and_asks_for_the_proof() {
    let world = World::start("");
    let url = format!("{}/from-a-child", world.nginx.url());
    let exe = env!("CARGO_BIN_EXE_tmpcred");
    let script = format!(
        "echo $TMPCRED_TOKEN_TYPE; {exe} token --dpop GET {url} | {} -sS -H @- {url}",
        program("curl").display()
    );
    let exec = ["exec", "--revoke-on-exit=false", "--", "sh", "-c", &script];
    let output = world.tmpcred(&exec).run().ok().stdout;
    let mut lines = output.lines();
    assert_eq!(lines.next(), Some("DPoP"));
    assert!(lines.next().unwrap().ends_with("#alice as bound, shown ''"), "{output}");
    let json = world.proved(&url, &["--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert!(json["Authorization"].as_str().unwrap().starts_with("DPoP "));

    // What nobody could use is not handed on.
    let config = std::fs::read_to_string(world.journey.home.path(".config/tmpcred/config.toml"));
    let in_memory = config.unwrap().replace("\"kernel\"", "\"memory\"");
    world.journey.home.config(&in_memory);
    for args in [&["token"][..], &["env", "--format", "json"], &["exec", "--", "true"]] {
        let refused = world.tmpcred(args).run();
        assert_ne!(refused.code, Some(0));
        assert!(refused.stderr.contains("nobody could use the credential"), "{}", refused.stderr);
    }
    assert_eq!(status(&world.curl(&url, &world.proved(&url, &[])).0), "200");
}

#[test]
fn a_role_that_wants_a_key_says_so_to_whoever_has_none_to_show() {
    let world = World::start("");
    let refused = world.tmpcred(&["token", "plain"]).run().ended_with(9);
    assert!(refused.stderr.contains("'bound'"), "{}", refused.stderr);
    assert!(refused.stderr.contains("dpop = true"), "{}", refused.stderr);
    for (args, says) in [
        (&["token", "plain", "--dpop", "GET", "https://a.example/"][..], "not bound to a key"),
        (&["token", "--dpop", "GET", "a.example"], "the address is none"),
        (&["token", "--dpop", "G T", "https://a.example/"], "the method is none"),
        (&["token", "--dpop", "GET", "https://a.example/", "--nonce", "a b"], "--nonce"),
        (&["token", "--nonce", "n"], "--dpop"),
    ] {
        let refused = world.tmpcred(args).run();
        assert_eq!(refused.code, Some(2), "{args:?}: {}", refused.stderr);
        assert!(refused.stderr.contains(says), "{args:?}: {}", refused.stderr);
    }
}

#[test]
fn a_token_that_is_bound_is_verified_with_its_proof_alone() {
    let world = World::start("");
    let url = "https://api.example.com/a?b=c";
    let json = world.proved(url, &["--format", "json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    let token = json["Authorization"].as_str().unwrap().strip_prefix("DPoP ").unwrap();
    let home = &world.journey.home;
    home.write("work/proof", json["DPoP"].as_str().unwrap());
    let verify = |more: &[&str]| -> Output {
        let args = [&["verify", "--audience", API], more].concat();
        tmpcred(home).args(args).stdin(token).run()
    };
    let proof = ["--dpop-proof", "proof", "--dpop"];
    let good = verify(&[&proof[..], &["GET", url, "--online", "--json"]].concat()).ok().json();
    assert_eq!(good["proved"], true);
    assert_eq!(good["bound_to"], claims(token)["cnf"]["jkt"]);
    let shown = verify(&[&proof[..], &["GET", "https://api.example.com/a"]].concat()).ok().stdout;
    assert!(shown.contains("proved for this request"), "{shown}");
    for (more, says) in [
        (&[][..], "no proof was given"),
        (&["--dpop-proof", "proof", "--dpop", "POST", url], "for the method"),
        (&["--dpop-proof", "proof", "--dpop", "GET", "https://a.example/"], "for the address"),
        (&["--dpop-proof", "proof", "--dpop", "GET", url, "--nonce", "n"], "the nonce"),
    ] {
        let refused = verify(more).ended_with(9);
        assert!(refused.stderr.contains(says), "{more:?}: {}", refused.stderr);
    }
    let alone = verify(&["--without-proof"]).ok().stdout;
    assert!(alone.contains("which was not checked"), "{alone}");
    let other = world.proved(url, &["--refresh"]);
    let other = other.lines().find_map(|line| line.strip_prefix("DPoP: ")).unwrap();
    home.write("work/proof", other);
    let refused = verify(&[&proof[..], &["GET", url]].concat()).ended_with(9);
    assert!(refused.stderr.contains("another token"), "{}", refused.stderr);
}

#[test]
fn a_client_that_knows_nothing_of_us_brings_a_bound_token_of_another_provider() {
    let world = World::start("");
    let broker = world.journey.broker.url();
    let url = format!("{}/from-node", world.nginx.url());
    let node = world.journey.home.command(program("node"));
    let script = node_script("dpop-client.mjs");
    let args =
        [script.to_str().unwrap(), world.journey.provider.issuer(), broker, API, "bound", &url];
    let report = node.args(args).run().ok().json();
    let key = &report["thumbprint"];
    assert_eq!(report["algorithms"], json!(["ES256", "Ed25519", "EdDSA", "RS256"]));
    assert_eq!(report["assertion"]["jkt"], *key, "{report}");
    assert_eq!(report["granted"]["jkt"], *key, "{report}");
    assert_eq!(report["granted"]["token_type"], "dpop");
    for refused in ["unproved", "by_another_key"] {
        assert_eq!(report[refused], "invalid_dpop_proof", "{report}");
    }
    assert_eq!(report["resource"]["status"], 200, "{report}");
    let body = report["resource"]["body"].as_str().unwrap();
    assert!(body.contains("#service as bound"), "{body}");
}

fn claims(token: &str) -> Value {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let payload = URL_SAFE_NO_PAD.decode(token.split('.').nth(1).unwrap()).unwrap();
    serde_json::from_slice(&payload).unwrap()
}
