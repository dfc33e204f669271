//! What those who operate a broker do at one that runs elsewhere, with nothing of it here but
//! its address: as people who log in for that, and as whoever a chain makes of them.

use std::net::TcpStream;
use std::path::Path;

use serde_json::{Value, json};
use tempfile::TempDir;

use super::journey::Journey;
use super::revocation::is_active;
use super::support::broker::{API, Broker, BrokerOptions, KEK, OPEN_POLICY};
use super::support::browser::Browser;
use super::support::home::{Home, tmpcred};
use super::support::http::Http;
use super::support::oidc_provider::{OidcOptions, OidcProvider};
use super::support::peer::{Peer, program, supervised};
use super::support::run::Run;
use super::support::wait::free_port;

/// What a policy says that lets this one operate the broker.
fn operator(who: &str) -> String {
    ["revoke", "administer"]
        .map(|action| {
            format!(
                "@id(\"{action}-{}\") permit (principal == User::\"{who}\", action == Action::\"{action}\", resource);\n",
                who.len()
            )
        })
        .concat()
}

/// A broker that alice operates, and alice, who has not logged in.
fn journey(options: &OidcOptions) -> Journey {
    journey_under(options, "")
}

/// The same with more policies.
fn journey_under(options: &OidcOptions, more: &str) -> Journey {
    let provider = OidcProvider::start_with(options);
    let who = ["alice", "service"].map(|who| operator(&format!("{}#{who}", provider.issuer())));
    let policy = OPEN_POLICY.to_string() + &who.concat() + more;
    let broker =
        Broker::start(&BrokerOptions { policy, ..BrokerOptions::trusting(provider.issuer()) });
    let mut home = Home::stranger();
    Browser::http().user("alice", "x").install(&mut home);
    Journey::of(provider, broker, home)
}

/// The same as whoever has the broker's database does.
fn beside(broker: &Broker, args: &[&str]) -> Run {
    let run = tmpcred(&broker.home).args(["broker"]).args(args);
    run.args(["--config"]).args([broker.home.path("broker.toml")]).env("TMPCRED_BROKER_KEK", KEK)
}

#[test]
fn whoever_logs_in_revokes_looks_after_keys_and_reads_the_log_of_a_running_broker() {
    let journey = journey(&OidcOptions::default());
    let broker = &journey.broker;
    let at = |args: &[&str]| journey.tmpcred(&["broker"]).args(args).args(["--at", "deploy"]);

    // Nobody may be asked, and nothing is done.
    let refused = at(&["keys", "list", "--no-input"]).run().ended_with(4);
    assert!(refused.stderr.contains("login required"), "{}", refused.stderr);
    assert_eq!(journey.provider.count("GET", "/auth"), 0);

    let keys = at(&["keys", "list", "--json"]).run().ok().json();
    let same = beside(broker, &["keys", "list", "--json"]).run().ok().json();
    assert_eq!(keys, same);
    assert_eq!(journey.provider.count("GET", "/auth"), 1, "one login");
    let table = at(&["keys", "list"]).run().ok().stdout;
    assert_eq!(table, beside(broker, &["keys", "list"]).run().ok().stdout);

    let token = journey.tmpcred(&["token"]).run().ok().stdout.trim().to_string();
    let claims = super::stores::claims(&token);
    let jti = claims["jti"].as_str().unwrap();
    let tried = at(&["revoke", "--jti", jti, "--dry-run"]).run().ok().stderr;
    assert!(
        tried.contains("1 token that is good would be revoked. Nothing was changed."),
        "{tried}"
    );
    assert!(is_active(broker, &token));
    let done = at(&["revoke", "--jti", jti, "--reason", "it leaked", "--json"]).run().ok().json();
    assert_eq!(done["tokens"], 1, "{done}");
    assert!(!is_active(broker, &token));
    let shown = journey.tmpcred(&["token", "--refresh"]).run().ok().stdout.trim().to_string();
    let run = at(&["revoke", "--token", "-"]).stdin(shown.clone());
    let said = run.run().ok().stderr;
    assert!(said.contains("1 token that was good is revoked"), "{said}");
    assert!(!is_active(broker, &shown));
    let issuer = journey.provider.issuer().to_string();
    let alices = [
        "revoke",
        "--issuer",
        &issuer,
        "--subject",
        "alice",
        "--before",
        "2026-01-01T12:00:00Z",
        "--json",
    ];
    let report = at(&alices).run().ok().json();
    assert_eq!(
        report,
        json!({
            "revoked": "subject", "tokens": 0, "issued_before": "2026-01-01T12:00:00Z",
            "on_record": true, "revocation_reach": "introspection", "dry_run": false,
        })
    );
    // By the name of its table, as beside the broker; and to the last digit of the moment.
    let before = "2026-01-01T12:00:00.5Z";
    let corp = ["revoke", "--issuer", "corp", "--before", before, "--dry-run", "--json"];
    let report = at(&corp).run().ok().json();
    assert_eq!((&report["on_record"], &report["issued_before"]), (&json!(true), &json!(before)));
    assert_eq!(report, beside(broker, &corp).run().ok().json());
    let crop = ["revoke", "--issuer", "crop", "--dry-run"];
    for refused in [at(&crop).run(), beside(broker, &crop).run()] {
        let said = refused.ended_with(2).stderr;
        assert!(said.contains("trusts no issuer 'crop'"), "{said}");
    }

    // Which roles there are is for whoever asks to know, before they ask for one.
    let roles = journey.tmpcred(&["ls", "--available", "--json"]).run().ok().json();
    let named = |name: &str| {
        let all = roles.as_array().unwrap().iter();
        all.filter(|one| one["role"] == name).cloned().collect::<Vec<_>>()
    };
    let [deploy] = &named("deploy")[..] else { panic!("{roles}") };
    assert_eq!(deploy["broker"], broker.url());
    assert_eq!((&deploy["how"], &deploy["approval"]), (&json!("issue"), &json!(false)), "{roles}");
    assert_eq!(deploy["profiles"], json!(["deploy"]));
    assert_eq!(named("reader")[0]["profiles"], json!(["reader"]), "{roles}");
    let told = journey.tmpcred(&["ls", "--available"]).run().ok().stdout;
    assert!(told.contains("reader") && told.contains("at once"), "{told}");
    let rotated = at(&["keys", "rotate", "--all", "--json"]).run().ok().json();
    let begun = rotated["begun"].as_array().unwrap().len();
    assert!(begun > 0 && rotated["keys"].as_array().unwrap().len() > begun, "{rotated}");
    let again = beside(broker, &["keys", "rotate", "--all", "--json"]).run().ok().json();
    assert_eq!((&again["under_way"], &again["begun"]), (&rotated["begun"], &json!([])));
    let again = at(&["keys", "rotate", "--algorithm", "ES256", "--log"]).run().ok().stderr;
    assert!(again.contains("A rotation is under way."), "{again}");
    let kid = journey_kid(&token);
    let said = at(&["keys", "revoke", &kid, "--reason", "it leaked"]).run().ok().stderr;
    assert!(said.contains("1 key is revoked.") && said.contains("signs tokens"), "{said}");
    let keys = at(&["keys", "list", "--json"]).run().ok().json();
    assert_eq!(keys, beside(broker, &["keys", "list", "--json"]).run().ok().json());
    let of_kid = |key: &&Value| key["kid"] == kid.as_str();
    assert_eq!(keys.as_array().unwrap().iter().find(of_kid).unwrap()["state"], "revoked");
    let again = at(&["keys", "revoke", &kid]).run().ok().stderr;
    assert!(again.contains("was revoked before") && !again.contains("is revoked."), "{again}");
    let revoked = beside(broker, &["keys", "revoke", &kid, "--json"]).run().ok().json();
    assert_eq!((&revoked["revoked"], &revoked["revoked_before"]), (&json!([kid]), &json!([kid])));
    let now = beside(broker, &["keys", "list", "--json"]).run().ok().json();
    assert_eq!(revoked["keys"], now);
    revokes_together(&at);
    let long = "x".repeat(1001);
    for refused in [
        at(&["keys", "revoke", &kid, "--reason", &long]).run(),
        beside(broker, &["keys", "revoke", &kid, "--reason", &long]).run(),
    ] {
        let said = refused.ended_with(2).stderr;
        assert!(said.contains("--reason must be a line of at most 1000 bytes"), "{said}");
    }
    let unknown = at(&["keys", "revoke", "no-such-key"]).run().ended_with(2);
    assert!(unknown.stderr.contains("there is no key with this id"), "{}", unknown.stderr);

    let query = ["audit", "query", "--principal", "alice", "--since", "1h", "--json"];
    let records = at(&query).run().ok().json();
    assert_eq!(records, beside(broker, &query).run().ok().json());
    let of = |action: &str| {
        records.as_array().unwrap().iter().filter(|record| record["action"] == action).count()
    };
    assert_eq!((of("revoke"), of("revoke-many")), (2, 1), "{records}");
    assert!(records[0]["reason"].is_string() && of("key") >= 3, "{records}");
    for (wrong, says) in [
        (&["--since", "2h", "--until", "3h"][..], "--since is not before --until"),
        (&["--limit", "0"], "--limit"),
    ] {
        let wrong = [&["audit", "query"], wrong].concat();
        for refused in [at(&wrong).run(), beside(broker, &wrong).run()] {
            let said = refused.ended_with(2).stderr;
            assert!(said.contains(says), "{said}");
        }
    }
    let nope = beside(broker, &["audit", "query", "--role", "nope"]).run().ok().stderr;
    assert!(nope.contains("The configuration has no role \"nope\"."), "{nope}");
    let nope = ["audit", "query", "--action", "nope"];
    for said in [at(&nope).run().ok().stderr, beside(broker, &nope).run().ok().stderr] {
        assert!(said.contains("knows no action \"nope\""), "{said}");
    }
    let newest = [&query[..], &["--limit", "2"]].concat();
    assert_eq!(at(&newest).run().ok().json(), beside(broker, &newest).run().ok().json());
    let table = at(&query[..4]).run().ok();
    assert_eq!(table.stdout, beside(broker, &query[..4]).run().ok().stdout);
    assert_eq!(journey.provider.count("GET", "/auth"), 1, "one login was for all of it");
}

/// Revokes the key that signs, and the one that would sign instead: that one never does.
fn revokes_together(at: &impl Fn(&[&str]) -> Run) {
    let keys = at(&["keys", "rotate", "--algorithm", "ES256", "--json"]).run().ok().json();
    let of = |state: &str| {
        let keys = keys["keys"].as_array().unwrap().iter();
        let mut keys = keys.filter(|key| key["log_key"].is_null() && key["algorithm"] == "ES256");
        let key = keys.find(|key| key["state"] == state).unwrap_or_else(|| panic!("no {state}"));
        key["kid"].as_str().unwrap()
    };
    let (active, next) = (of("active"), of("published"));
    let done = at(&["keys", "revoke", active, next, "--json"]).run().ok().json();
    assert_eq!(done["revoked"], json!([active, next]));
    let records = at(&["audit", "query", "--action", "key", "--json"]).run().ok().json();
    let said = records.as_array().unwrap().iter().map(|record| record["reason"].to_string());
    let of_next: Vec<_> = said.filter(|said| said.contains(&format!("key {next} "))).collect();
    assert!(of_next.iter().any(|said| said.contains("is revoked")), "{of_next:?}");
    assert!(!of_next.iter().any(|said| said.contains("is active")), "{of_next:?}");
}

#[test]
fn whoever_may_revoke_keys_and_not_list_them_revokes_several() {
    let forbidden = r#"@id("no-lists") forbid (principal, action == Action::"administer", resource)
        when { context.operation == "keys.list" };"#;
    let journey = journey_under(&OidcOptions::default(), forbidden);
    let at = |args: &[&str]| journey.tmpcred(&["broker"]).args(args).args(["--at", "deploy"]);
    let keys = beside(&journey.broker, &["keys", "list", "--json"]).run().ok().json();
    let tokens = keys.as_array().unwrap().iter().filter(|key| key["log_key"].is_null());
    let kids: Vec<_> = tokens.map(|key| key["kid"].as_str().unwrap()).collect();
    assert!(kids.len() > 1, "{keys}");
    at(&["keys", "list"]).run().ended_with(5);
    let revoke = [&["keys", "revoke", "--json"], &kids[..]].concat();
    let done = at(&revoke).run().ok().json();
    assert_eq!(done["revoked"], json!(kids));
}

fn journey_kid(token: &str) -> String {
    use base64::Engine as _;
    use base64::engine::general_purpose::URL_SAFE_NO_PAD;
    let header = URL_SAFE_NO_PAD.decode(token.split('.').next().unwrap()).unwrap();
    let header: Value = serde_json::from_slice(&header).unwrap();
    header["kid"].as_str().unwrap().to_string()
}

#[test]
fn more_records_than_one_answer_has_are_put_together_in_their_order() {
    let journey = journey(&OidcOptions::default());
    let (broker, mut http) = (&journey.broker, Http::new());
    // A service that may do it too, and is quicker than 200 runs.
    let form = [
        ("grant_type", "client_credentials"),
        ("client_id", "service"),
        ("client_secret", "service-secret"),
        ("resource", broker.url()),
    ];
    let token = http.form(&journey.provider.url("/token"), &form).unwrap().json();
    let token = token["access_token"].as_str().unwrap();
    let url = format!("{}/v1/revocations", broker.url());
    for number in 0..205 {
        let client = format!("client-{number}");
        let form = [("client", client.as_str()), ("before", "2026-01-01T12:00:00Z")];
        let reply = http.form_as(token, &url, &form).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
    }
    let query = ["audit", "query", "--limit", "1000", "--json"];
    let at = journey.tmpcred(&["broker"]).args(query).args(["--at", "deploy"]);
    let records = at.run().ok().json();
    assert!(records.as_array().unwrap().len() >= 205);
    assert_eq!(records, beside(broker, &query).run().ok().json());
    let some = ["audit", "query", "--limit", "203", "--json"];
    let at = journey.tmpcred(&["broker"]).args(some).args(["--at", "deploy"]);
    assert_eq!(at.run().ok().json(), beside(broker, &some).run().ok().json());
}

#[test]
fn what_keeps_it_from_being_done_is_told_and_how_scripts_expect_it() {
    let mut journey = journey(&OidcOptions::default());
    let config = std::fs::read_to_string(journey.home.path(".config/tmpcred/config.toml")).unwrap();
    let aws = "\n[profile.cloud]\nrole = \"arn:aws:iam::123456789012:role/x\"\ntarget = { type = \"aws\" }\n";
    journey.home.config(&(config + aws));
    let at = |journey: &Journey, profile: &str, args: &[&str]| {
        journey.tmpcred(&["broker"]).args(args).args(["--at", profile]).run()
    };
    let list = ["keys", "list"];
    let refused = at(&journey, "cloud", &list).ended_with(3);
    assert!(
        refused.stderr.contains("the profile 'cloud' is none of a broker"),
        "{}",
        refused.stderr
    );
    at(&journey, "nothing", &list).ended_with(3);
    // One or the other, and never both.
    journey.tmpcred(&["broker", "keys", "list"]).run().ended_with(2);
    let both = journey.tmpcred(&["broker", "keys", "list", "--at", "deploy", "--config", "x.toml"]);
    both.run().ended_with(2);
    assert_eq!(journey.provider.count("GET", "/auth"), 0);

    Browser::http().user("bob", "x").install(&mut journey.home);
    let denied = at(&journey, "deploy", &["revoke", "--all"]).ended_with(5);
    assert!(denied.stderr.contains("policy says no"), "{}", denied.stderr);
    assert!(denied.stderr.contains("the request is "), "{}", denied.stderr);
    let found = ["audit", "query", "--decision", "denied", "--json"];
    let records = beside(&journey.broker, &found).run().ok().json();
    assert_eq!((&records[0]["subject"], &records[0]["action"]), (&json!("bob"), &json!("revoke")));

    journey.broker.stop();
    let refused = at(&journey, "deploy", &list).ended_with(7);
    assert!(refused.stderr.contains("did not answer"), "{}", refused.stderr);
}

/// A front before a broker that wants a login to be fresh.
struct Front {
    _peer: Peer,
    _files: TempDir,
    url: String,
}

impl Front {
    fn start(broker: &Broker, max_age: u32) -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/step-up.py");
        let behind = url::Url::parse(broker.url()).unwrap().port().unwrap();
        let mut command = supervised(&program("python3"), Path::new("/dev/null"));
        command.arg(script).args([port.to_string(), behind.to_string(), max_age.to_string()]);
        let mut peer = Peer::start("the front", command, files.path().join("log"));
        peer.until_ready(|| TcpStream::connect(("127.0.0.1", port)).ok());
        Self { _peer: peer, _files: files, url: format!("http://127.0.0.1:{port}") }
    }
}

#[test]
fn where_a_fresh_login_is_wanted_the_person_is_asked_once_and_the_request_made_again() {
    for token_auth_time in [false, true] {
        let journey = journey(&OidcOptions { token_auth_time, ..OidcOptions::default() });
        let front = Front::start(&journey.broker, 300);
        let config = journey.home.path(".config/tmpcred/config.toml");
        let config = std::fs::read_to_string(config).unwrap();
        let url = format!("url = \"{}\"", journey.broker.url());
        let fronted = format!("url = \"{}\"\nissuer = \"{}\"", front.url, journey.broker.url());
        journey.home.config(&config.replace(&url, &fronted));
        let at = |args: &[&str]| journey.tmpcred(&["broker"]).args(args).args(["--at", "deploy"]);
        // A session that says nothing of when the login was, or of one long ago, is not enough.
        journey.tmpcred(&["login"]).run().ok();
        let logins = || journey.provider.count("GET", "/auth");
        let before = logins();
        if !token_auth_time {
            let refused = at(&["keys", "list", "--no-input"]).run().ended_with(4);
            assert!(
                refused.stderr.contains("the login may have been 5m ago"),
                "{}",
                refused.stderr
            );
            assert!(!refused.stderr.contains("the session has ended"), "{}", refused.stderr);
        }
        let run = at(&["keys", "list", "--json"]).run().ok();
        assert_eq!(run.stderr.contains("a login is wanted that is fresh"), !token_auth_time);
        assert!(!run.json().as_array().unwrap().is_empty());
        assert_eq!(logins() - before, usize::from(!token_auth_time));
        // An access token that says when it was serves the next one; else the ID token has to
        // be shown again, which the session has.
        at(&["audit", "query", "--json"]).run().ok();
        assert_eq!(logins() - before, usize::from(!token_auth_time), "no second login");
        if !token_auth_time {
            let asked = journey.provider.requests();
            let asked: Vec<_> = asked.iter().filter(|request| request.max_age.is_some()).collect();
            assert_eq!(asked[0].max_age.as_deref(), Some("300"));
        }
    }
}

#[test]
fn a_token_of_another_broker_that_is_bound_to_this_device_is_shown_with_its_proof() {
    let provider = OidcProvider::start();
    let first = Broker::start(&BrokerOptions {
        more: "[role.operator]\naudiences = [\"https://second.example.com\"]\nmax_ttl = \"15m\"\n"
            .into(),
        policy: OPEN_POLICY.to_string()
            + "@id(\"operator\") @ttl(\"15m\") permit (principal, action == Action::\"issue\", resource == Role::\"operator\");",
        ..BrokerOptions::trusting(provider.issuer())
    });
    let subject = format!("{}#{}%23alice", first.url(), provider.issuer());
    let second = Broker::start(&BrokerOptions {
        audiences: vec!["https://second.example.com".into()],
        policy: OPEN_POLICY.to_string() + &operator(&subject),
        ..BrokerOptions::trusting(first.url())
    });
    let mut home = Home::stranger();
    Browser::http().user("alice", "x").install(&mut home);
    home.set("TMPCRED_NO_INPUT", "false");
    home.config(&format!(
        r#"[cache]
store = "kernel"

[identity.corp]
type = "oidc"
issuer = "{}"
client_id = "cli"

[broker.first]
url = "{}"
dpop = true

[broker.second]
url = "{}"
audience = "https://second.example.com"

[profile.second]
role = "reader"
audience = "{API}"
target = {{ type = "broker", broker = "second" }}
exchange = [{{ broker = "first", role = "operator", audience = "https://second.example.com" }}]
"#,
        provider.issuer(),
        first.url(),
        second.url()
    ));
    let list = ["broker", "keys", "list", "--json", "--at", "second"];
    let keys = tmpcred(&home).args(list).run().ok().json();
    assert_eq!(keys, beside(&second, &["keys", "list", "--json"]).run().ok().json());
    // A proof is for one request: each has another.
    let revoke = ["broker", "revoke", "--role", "reader", "--json", "--at", "second"];
    assert_eq!(tmpcred(&home).args(revoke).run().ok().json()["tokens"], 0);
}
