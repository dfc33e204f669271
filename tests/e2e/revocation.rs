//! Tokens that are ended before their time: by hand, and at the end of a run.

use std::time::Duration;

use rustix::process::Signal;
use serde_json::{Value, json};

use super::journey::Journey;
use super::support::broker::{API, Broker, BrokerOptions};
use super::support::browser::Browser;
use super::support::home::{Home, under_test};
use super::support::http::{Http, Reply};
use super::support::oidc_provider::OidcProvider;
use super::support::run::Output;

/// The token that runs share; whoever has none logs in for it.
#[track_caller]
pub(crate) fn cached(journey: &Journey) -> String {
    journey.tmpcred(&["token"]).run().ok().stdout.trim().into()
}

/// Revokes a token as anybody can who holds it.
#[track_caller]
fn revoke(broker: &Broker, token: &str) {
    let url = format!("{}/revoke", broker.url());
    let reply = Http::new().form(&url, &[("token", token)]).unwrap();
    assert_eq!((reply.status, reply.body.as_str()), (200, ""));
}

fn introspect(broker: &Broker, bearer: &str, token: &str) -> Reply {
    let url = format!("{}/introspect", broker.url());
    Http::new().form_as(bearer, &url, &[("token", token)]).unwrap()
}

#[track_caller]
pub(crate) fn is_active(broker: &Broker, token: &str) -> bool {
    let reply = introspect(broker, token, token);
    assert_eq!(reply.status, 200, "{}", reply.body);
    reply.json()["active"].as_bool().unwrap()
}

/// How many records of the audit log have this decision.
pub(crate) fn recorded(broker: &Broker, decision: &str) -> usize {
    let count = "import sqlite3,sys; print(sqlite3.connect(sys.argv[1]).execute(
        'select count(*) from audit_record where decision = ?', [sys.argv[2]]).fetchone()[0])";
    let python = broker.home.command("python3").args(["-c", count]);
    let python = python.args([broker.home.path("broker.db")]).args([decision]);
    python.run().ok().stdout.trim().parse().unwrap()
}

#[test]
fn a_revoked_token_is_refused_online_also_after_a_crash_of_the_broker() {
    let mut journey = Journey::start();
    let token = cached(&journey);
    let verify = |journey: &Journey, more: &[&str]| {
        let run = journey.tmpcred(&["verify", "--audience", API]).args(more);
        run.stdin(token.clone()).run()
    };
    let good = verify(&journey, &["--online", "--json"]).ok().json();
    assert_eq!((&good["verified"], &good["online"]), (&json!(true), &json!(true)));
    assert_eq!(good["claims"]["role"], "deploy");
    let said = verify(&journey, &["--online"]).ok().stdout;
    assert!(said.starts_with("The token is good, and its issuer says so."), "{said}");

    revoke(&journey.broker, &token);
    let refused = |journey: &Journey, output: Output| {
        let output = output.ended_with(9);
        assert!(output.stderr.contains("the token is not good any more"), "{}", output.stderr);
        assert_eq!(output.stdout, "");
        assert!(!is_active(&journey.broker, &token));
    };
    refused(&journey, verify(&journey, &["--online"]));
    refused(&journey, verify(&journey, &["--online", "--json"]));
    // Nobody who does not ask can know.
    assert_eq!(verify(&journey, &["--json"]).ok().json()["online"], false);

    journey.broker.restart();
    refused(&journey, verify(&journey, &["--online"]));
    let keys = Http::new().get(&format!("{}/jwks.json", journey.broker.url())).unwrap();
    let keys = journey.home.write("keys.json", keys.body);
    let keys = ["--jwks", keys.to_str().unwrap()];
    refused(&journey, verify(&journey, &[&keys[..], &["--online"]].concat()));

    journey.broker.stop();
    verify(&journey, &keys).ok();
    let unreachable = verify(&journey, &[&keys[..], &["--online"]].concat()).ended_with(7);
    assert!(unreachable.stderr.contains("did not answer"), "{}", unreachable.stderr);
}

#[test]
fn a_storm_of_revocations_of_one_token_is_one() {
    let journey = Journey::start();
    let token = cached(&journey);
    std::thread::scope(|scope| {
        for _ in 0..50 {
            scope.spawn(|| revoke(&journey.broker, &token));
        }
    });
    assert!(!is_active(&journey.broker, &token));
    assert_eq!(recorded(&journey.broker, "revoked"), 1);
}

/// Services that prove who they are by tokens of an issuer whose keys are in a file.
pub(crate) struct Services {
    pub(crate) broker: Broker,
    key: jsonwebtoken::EncodingKey,
}

pub(crate) const ISSUER: &str = "https://services.example.com";
pub(crate) const OTHER: &str = "https://other.example.com";

impl Services {
    pub(crate) fn start() -> Self {
        Self::with("")
    }

    /// The same, at a broker with further tables in its configuration.
    pub(crate) fn with(more: &str) -> Self {
        use aws_lc_rs::rand::SystemRandom;
        use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair};
        use jsonwebtoken::jwk::{Jwk, JwkSet};
        let pkcs8 =
            EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new());
        let key = jsonwebtoken::EncodingKey::from_ec_der(pkcs8.unwrap().as_ref());
        let public = Jwk::from_encoding_key(&key, jsonwebtoken::Algorithm::ES256).unwrap();
        let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
        // Of two trusted issuers, a permit names the one that it is for.
        options.policy = options.policy.replace(
            "resource == Role::\"deploy\");",
            &format!("resource == Role::\"deploy\") when {{ principal.issuer == \"{ISSUER}\" }};"),
        );
        options.policy = options.policy.replace("@id(\"reader\")", "@id(\"reader\") @any_issuer");
        options.policy += &format!(
            r#"
@id("handle") @ttl("15m") @any_issuer
permit (principal, action == Action::"issue", resource == Role::"handle");
@id("api-introspects")
permit (
    principal == User::"{ISSUER}#api",
    action == Action::"introspect",
    resource
) when {{ context.audience == "{API}" }};
"#
        );
        // Its policy speaks of an issuer that the first start does not know. What that start
        // was at when it was killed is nothing that a test shall see the end of: it has none of
        // the further tables.
        let policy =
            std::mem::replace(&mut options.policy, super::support::broker::OPEN_POLICY.into());
        let mut broker = Broker::start(&options);
        broker.stop();
        broker.home.write("policy.cedar", policy);
        let jwks = JwkSet { keys: vec![public] };
        broker.home.write("services.json", serde_json::to_string(&jwks).unwrap());
        let toml = std::fs::read_to_string(broker.home.path("broker.toml")).unwrap();
        let toml = toml.replace(&format!("[\"{API}\"]"), &format!("[\"{API}\", \"{OTHER}\"]"));
        let services = format!(
            "\n[role.handle]\naudiences = [\"{API}\"]\nscopes = [\"deploy:read\"]\nmax_ttl = \"15m\"\n\
             token_format = \"opaque\"\n\
             [trusted_issuer.services]\nissuer = \"{ISSUER}\"\njwks_file = \"{}\"\n",
            broker.home.path("services.json").display()
        );
        let more = more.replace("{self}", broker.url());
        broker.home.write("broker.toml", toml + &services + &more);
        broker.restart();
        Self { broker, key }
    }

    /// Who proves to be this service.
    pub(crate) fn assertion(&self, service: &str) -> String {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        let claims = json!({
            "iss": ISSUER, "sub": service, "aud": self.broker.url(),
            "iat": now.as_secs(), "exp": now.as_secs() + 300,
        });
        let header = jsonwebtoken::Header::new(jsonwebtoken::Algorithm::ES256);
        jsonwebtoken::encode(&header, &claims, &self.key).unwrap()
    }

    /// A token for this service, to be shown to this audience.
    #[track_caller]
    pub(crate) fn token(&self, service: &str, audience: &str) -> String {
        self.token_of("reader", service, audience)
    }

    /// The same with this role.
    #[track_caller]
    pub(crate) fn token_of(&self, role: &str, service: &str, audience: &str) -> String {
        let reply = self.asked(role, service, audience).json();
        reply["access_token"].as_str().unwrap_or_else(|| panic!("{reply}")).to_string()
    }

    /// The answer to whoever asks for such a token.
    pub(crate) fn asked(&self, role: &str, service: &str, audience: &str) -> Reply {
        let url = format!("{}/token", self.broker.url());
        let form = [
            ("grant_type", "urn:ietf:params:oauth:grant-type:token-exchange"),
            ("subject_token", &self.assertion(service)),
            ("subject_token_type", "urn:ietf:params:oauth:token-type:jwt"),
            ("audience", audience),
            ("role", role),
        ];
        Http::new().form(&url, &form).unwrap()
    }
}

#[test]
fn a_resource_owner_is_told_about_tokens_for_its_own_audience_only() {
    let services = Services::start();
    let broker = &services.broker;
    let (own, others) = (services.token("job", API), services.token("job", OTHER));
    let api = services.assertion("api");
    let told = introspect(broker, &api, &own).json();
    assert_eq!((&told["active"], &told["aud"]), (&json!(true), &json!(API)));
    assert_eq!((&told["role"], &told["token_type"]), (&json!("reader"), &json!("Bearer")));
    let inactive: Value = json!({"active": false});
    assert_eq!(introspect(broker, &api, &others).json(), inactive);
    assert_eq!(introspect(broker, &services.assertion("job"), &own).json(), inactive);
    assert!(is_active(broker, &others), "it may ask about itself");
    // The token of another, which a resource owner may have been shown.
    let shown = introspect(broker, &services.token("api", API), &own);
    assert_eq!(shown.status, 401, "{}", shown.body);
    assert_eq!(introspect(broker, "x", &own).status, 401);

    revoke(broker, &own);
    assert_eq!(introspect(broker, &api, &own).json(), inactive);
    let document = format!("{}/.well-known/oauth-authorization-server", broker.url());
    let document = Http::new().get(&document).unwrap().json();
    assert_eq!(document["introspection_endpoint"], format!("{}/introspect", broker.url()));
    assert_eq!(document["revocation_endpoint"], format!("{}/revoke", broker.url()));
}

const REVOKE: [&str; 3] = ["exec", "--revoke-on-exit", "--"];

fn exec(journey: &Journey, options: &[&str], script: &str) -> super::support::run::Run {
    journey.tmpcred(options).args(["sh", "-c", script])
}

#[test]
fn at_the_end_of_a_run_its_own_credential_is_revoked_and_no_other() {
    let journey = Journey::start();
    let shared = cached(&journey);
    let own = exec(&journey, &REVOKE, "echo $TMPCRED_TOKEN; exit 7").run().ended_with(7);
    assert_eq!(own.stderr, "");
    let own = own.stdout.trim();
    assert_ne!(own, shared);
    assert!(!is_active(&journey.broker, own));
    assert!(is_active(&journey.broker, &shared));
    assert_eq!(cached(&journey), shared);
    let status = journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["credentials"].as_array().unwrap().len(), 1, "{status}");
    // While the command runs, the credential is good.
    let within = format!(
        "echo $TMPCRED_TOKEN | {} verify --online --audience {API}",
        journey.home.share(under_test()).display()
    );
    exec(&journey, &REVOKE, &within).run().ok();
    // A command that cannot be started has an end too.
    journey.tmpcred(&REVOKE).args(["no-such-command"]).run().ended_with(127);
    assert_eq!(recorded(&journey.broker, "issued"), 4);
    assert_eq!(recorded(&journey.broker, "revoked"), 3);
}

#[test]
fn in_ci_it_is_so_unless_somebody_says_no() {
    let journey = Journey::start();
    let shared = cached(&journey);
    let ci = |args: &[&str]| journey.tmpcred(args).env("CI", "true");
    let show = ["sh", "-c", "echo $TMPCRED_TOKEN"];
    let own = ci(&["exec", "--mask=no", "--"]).args(show).run().ok().stdout;
    assert_ne!(own.trim(), shared);
    assert!(!is_active(&journey.broker, own.trim()));
    let kept = ["exec", "--revoke-on-exit=false", "--mask=no", "--"];
    let kept = ci(&kept).args(show).run().ok().stdout;
    assert_eq!(kept.trim(), shared);
    assert!(is_active(&journey.broker, &shared));
    for (args, ci, mode, because) in [
        (
            &["explain", "--json"][..],
            "true",
            "supervisor",
            "CI is set: the command gets a credential of its own",
        ),
        (&["explain", "--json"], "", "execve", "nothing has to happen"),
        (
            &["explain", "--json", "--revoke-on-exit=no", "--mask=no"],
            "true",
            "execve",
            "nothing has to happen",
        ),
        (&["explain", "--json", "--revoke-on-exit"], "", "supervisor", "--revoke-on-exit: "),
    ] {
        let plan = journey.tmpcred(args).env("CI", ci).run().ok().json();
        assert_eq!(plan["mode"]["name"], mode, "{args:?}");
        assert!(plan["mode"]["because"].as_str().unwrap().starts_with(because), "{plan}");
    }
}

#[test]
fn a_credential_is_revoked_also_where_a_signal_ends_the_command_or_tmpcred() {
    let journey = Journey::start();
    let killed = exec(&journey, &REVOKE, "echo $TMPCRED_TOKEN; kill -9 $$").run();
    assert_eq!((killed.code, killed.signal), (None, Some(9)), "{killed:?}");
    assert!(!is_active(&journey.broker, killed.stdout.trim()));

    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let running = exec(&journey, &REVOKE, "echo $TMPCRED_TOKEN.; exec sleep 50").spawn();
        let token = running.line_on_stdout(".").trim_end_matches('.').to_string();
        assert!(is_active(&journey.broker, &token));
        running.signal(signal);
        let ended = running.wait();
        assert_eq!(ended.signal, Some(signal.as_raw()), "{ended:?}");
        assert_eq!(ended.stderr, "");
        assert!(!is_active(&journey.broker, &token), "{signal:?}");
    }
    assert_eq!(recorded(&journey.broker, "revoked"), 4);
}

#[test]
fn where_it_cannot_be_revoked_that_is_told_and_the_command_ends_as_it_ended() {
    let mut journey = Journey::start();
    cached(&journey);
    let script = "echo $TMPCRED_TOKEN; echo $TMPCRED_EXPIRES_AT; echo UP; \
                  while ! test -e go; do sleep 0.02; done; exit 3";
    let warned = |journey: &Journey, ended: Output| {
        std::fs::remove_file(journey.home.path("work/go")).unwrap();
        let ended = ended.ended_with(3);
        let until = ended.stdout.lines().nth(1).unwrap();
        let warning =
            format!("warning: the credential could not be revoked and stays good until {until}: ");
        assert!(ended.stderr.starts_with(&warning), "{}", ended.stderr);
        assert_eq!(ended.stderr.lines().count(), 1, "{}", ended.stderr);
        assert!(!ended.stderr.contains(ended.stdout.lines().next().unwrap()));
    };
    let running = exec(&journey, &REVOKE, script).spawn();
    running.line_on_stdout("UP");
    journey.broker.stop();
    journey.home.write("work/go", "");
    warned(&journey, running.wait());

    journey.broker.restart();
    let running = exec(&journey, &REVOKE, script).limit(Duration::from_secs(40)).spawn();
    running.line_on_stdout("UP");
    journey.broker.freeze();
    journey.home.write("work/go", "");
    let ended = running.wait();
    assert!(ended.stderr.contains("the limit is 5 seconds"), "{}", ended.stderr);
    warned(&journey, ended);
    journey.broker.thaw();
}

/// A journey whose credential comes of another one of the same broker.
fn with_a_step() -> Journey {
    let provider = OidcProvider::start();
    let mut options = BrokerOptions::trusting(provider.issuer());
    options.more = r#"
[trusted_issuer.self]
issuer = "{self}"

[role.step]
audiences = ["{self}"]
scopes = ["deploy:read", "deploy:write"]
max_ttl = "1h"
"#
    .into();
    options.policy = r#"
@id("all") @ttl("30m") @scope("deploy:read deploy:write") @any_issuer
permit(principal, action == Action::"issue", resource);
@id("exchanges") @ttl("30m") @scope("deploy:read deploy:write")
permit(principal, action == Action::"exchange", resource) when { principal.issuer == "{self}" };
"#
    .into();
    let broker = Broker::start(&options);
    let mut home = Home::stranger();
    Browser::http().user("alice", "x").install(&mut home);
    let journey = Journey::of(provider, broker, home);
    let config = journey.home.path(".config/tmpcred/config.toml");
    let toml = std::fs::read_to_string(&config).unwrap();
    let steps = format!(
        "[profile.deploy]\nexchange = [{{ role = \"step\", audience = \"{}\" }}]",
        journey.broker.url()
    );
    std::fs::write(&config, toml.replace("[profile.deploy]", &steps)).unwrap();
    journey
}

#[test]
fn a_step_at_the_same_broker_lasts_as_long_as_the_run_and_no_longer() {
    let journey = with_a_step();
    let program = journey.home.share(under_test());
    let verify = format!(
        "printf %s \"$TMPCRED_TOKEN\" >token; '{}' verify --online --audience {API} <token",
        program.display()
    );
    let exec = ["exec", "--revoke-on-exit", "--", "sh", "-c", &verify];
    let run = journey.tmpcred(&exec).run().ok();
    assert!(run.stdout.starts_with("The token is good, and its issuer says so."), "{}", run.stdout);
    assert!(!run.stderr.contains("warning"), "{}", run.stderr);
    let token = std::fs::read(journey.home.path("work/token")).unwrap();
    let after = ["verify", "--online", "--audience", API];
    let refused = journey.tmpcred(&after).stdin(token).run().ended_with(9);
    assert!(refused.stderr.contains("the token is not good any more"), "{}", refused.stderr);
    assert_eq!(recorded(&journey.broker, "revoked"), 2, "the step and the credential");
}

#[test]
fn a_step_is_revoked_although_the_credential_has_ended_by_itself() {
    let journey = with_a_step();
    journey.tmpcred(&["login"]).run().ok();
    let exec = ["exec", "--revoke-on-exit", "--ttl", "4s", "--", "sleep", "5"];
    journey.tmpcred(&exec).run().ok();
    assert_eq!(recorded(&journey.broker, "issued"), 2);
    assert_eq!(recorded(&journey.broker, "revoked"), 1, "the step");
    // The same for all that were renewed meanwhile.
    let exec = ["exec", "--revoke-on-exit", "--renew", "--ttl", "4s", "--", "sh", "-c", "sleep 10"];
    let said = journey.tmpcred(&exec).run().ok().stderr;
    // On a machine that has much to do it may be late to renew, and says so.
    let warned = |line: &str| line.contains("warning") && !line.contains("renewed");
    assert!(!said.lines().any(warned), "{said}");
    let steps = (recorded(&journey.broker, "issued") - 2) / 2;
    let revoked = recorded(&journey.broker, "revoked") - 1;
    assert!(steps >= 2 && revoked >= steps, "{revoked} of {steps} steps");
}

#[test]
fn a_credential_that_is_too_short_for_its_run_does_not_stay_alive() {
    let journey = Journey::start();
    journey.tmpcred(&["login"]).run().ok();
    let exec = ["exec", "--revoke-on-exit", "--ttl", "1m", "--min-ttl", "5m", "--", "true"];
    let refused = journey.tmpcred(&exec).run().ended_with(125);
    assert!(refused.stderr.contains("no credential with 5m left can be had"), "{}", refused.stderr);
    assert_eq!(recorded(&journey.broker, "issued"), 1);
    assert_eq!(recorded(&journey.broker, "revoked"), 1);
}

#[test]
fn many_denials_are_denials_and_no_outage() {
    let provider = OidcProvider::start();
    let mut options = BrokerOptions::trusting(provider.issuer());
    options.policy = r#"
@id("reader") @ttl("15m") @scope("deploy:read")
permit(principal, action == Action::"issue", resource == Role::"reader");
"#
    .into();
    let broker = Broker::start(&options);
    let mut home = Home::stranger();
    Browser::http().user("alice", "x").install(&mut home);
    let journey = Journey::of(provider, broker, home);
    journey.tmpcred(&["login"]).run().ok();
    for _ in 0..33 {
        journey.tmpcred(&["token", "--no-input"]).run().ended_with(5);
    }
    // What is permitted is had at once.
    journey.tmpcred(&["token", "reader", "--no-input"]).run().ok();
}
