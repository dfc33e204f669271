//! Traces from the command line through the broker to the audit record, at receivers that are
//! other people's; and what becomes of issuing where a receiver does not answer.

use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::{Value, json};

use super::journey::Journey;
use super::support::broker::{API, Broker, BrokerOptions, KEK, KEK_VARIABLE};
use super::support::browser::Browser;
use super::support::canary::Canary;
use super::support::home::{Home, tmpcred};
use super::support::http::Http;
use super::support::nginx::Nginx;
use super::support::oidc_provider::OidcProvider;
use super::support::otlp::{Otlp, Rotel};
use super::support::wait::{free_port, wait_until};
use super::support::workload::{Workloads, exchange};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// A journey whose broker tells this receiver, with these tables besides.
fn journey(receiver: &str, more: &str) -> Journey {
    let provider = OidcProvider::start();
    let mut options = BrokerOptions::trusting(provider.issuer());
    options.more = format!("\n[telemetry]\nendpoint = \"{receiver}\"\n{more}");
    let broker = Broker::start(&options);
    let mut home = Home::stranger();
    Browser::http().user("alice", "x").install(&mut home);
    Journey::of(provider, broker, home)
}

/// The records of the audit log that a query finds.
#[track_caller]
fn records(broker: &Broker, query: &[&str]) -> Vec<Value> {
    let run = tmpcred(&broker.home).args(["broker", "audit", "query", "--json"]).args(query);
    let found = run.args(["--config"]).args([broker.home.path("broker.toml")]).run().ok().json();
    found.as_array().unwrap().clone()
}

#[test]
fn one_trace_leads_from_the_command_line_to_the_audit_record() {
    let receiver = Otlp::start();
    let journey = journey(&receiver.url(), "");
    let show = ["exec", "--", "sh", "-c", "echo $TRACEPARENT"];
    let run = journey.tmpcred(&show).env("TRACEPARENT", PARENT);
    let handed = run.env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url()).run().ok().stdout;

    let root = receiver.span("tmpcred exec", TRACE);
    assert_eq!(root["parent"], "b7ad6b7169203331");
    assert_eq!(handed.trim(), format!("00-{TRACE}-{}-01", root["span"].as_str().unwrap()));
    let under = |name: &str, above: &Value| {
        let span = receiver.span(name, TRACE);
        assert_eq!(span["parent"], above["span"], "{name}");
        assert_eq!(span["error"], false, "{span}");
        span
    };
    under("plan", &root);
    under("identity", &root);
    let mint = under("mint", &root);
    let asked = under("POST", &mint);
    assert_eq!(
        (&asked["kind"], &asked["attributes"]["http.response.status_code"]),
        (&json!(3), &json!("200"))
    );
    let served = under("POST /token", &asked);
    assert_eq!(
        (&served["kind"], &served["attributes"]["http.route"]),
        (&json!(2), &json!("/token"))
    );
    let who = under("authenticate", &served);
    assert_eq!(who["attributes"]["tmpcred.issuer"], journey.provider.issuer());
    assert!(who["attributes"]["tmpcred.key.id"].is_string(), "{who}");
    assert_eq!(who["attributes"]["tmpcred.jwks.version"].as_str().unwrap().len(), 16);
    // The keys were there: nobody had to wait for the provider.
    let below = receiver.spans().into_iter().filter(|span| span["parent"] == who["span"]);
    assert_eq!(below.count(), 0);
    let decided = under("decide", &served);
    assert_eq!(decided["attributes"]["tmpcred.policy.id"], "deploy");
    assert_eq!(decided["attributes"]["tmpcred.decision"], "granted");
    let recorded = under("record", &served);
    under("store", &recorded);
    assert!(under("sign", &served)["attributes"]["tmpcred.key.id"].is_string());

    let found = records(&journey.broker, &["--trace", TRACE]);
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!((&found[0]["trace_id"], &found[0]["decision"]), (&json!(TRACE), &json!("issued")));
    let sequence = recorded["attributes"]["tmpcred.audit.sequence"].as_str().unwrap();
    assert_eq!(found[0]["sequence"].to_string(), sequence);
    let request = found[0]["request_id"].as_str().unwrap();
    assert_eq!(served["attributes"]["tmpcred.request.id"], request);
    let said = journey.broker.said();
    let line = said.lines().find(|line| line.contains("answered") && line.contains(request));
    assert!(line.unwrap().contains(&format!("trace_id={TRACE}")), "{said}");
    let verify = tmpcred(&journey.broker.home).args(["broker", "audit", "verify", "--config"]);
    let verify = verify.args([journey.broker.home.path("broker.toml")]).env(KEK_VARIABLE, KEK);
    verify.run().ok();
}

/// Brokers fetch keys by themselves, outside of all traces. Here that comes to nothing, and so the
/// first request has to.
#[test]
fn who_has_to_wait_for_the_keys_of_an_issuer_is_told_so() {
    let (receiver, files) = (Otlp::start(), Home::new());
    let jobs = Workloads::of("https://jobs.example.com", &files);
    files.write("site/keys.json", std::fs::read(&jobs.jwks).unwrap());
    let issuer = Nginx::for_the_traced(&files.path("site"));
    let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
    options.policy = options.policy.replace(") @ttl", ") @any_issuer @ttl");
    options.more = format!(
        "\n[telemetry]\nendpoint = \"{}\"\n\n[trusted_issuer.jobs]\nissuer = \"https://jobs.example.com\"\njwks_uri = \"{}/keys.json\"\n",
        receiver.url(),
        issuer.url()
    );
    let broker = Broker::start(&options);
    wait_until("the broker to have tried by itself", Duration::from_secs(60), || {
        let said = broker.said();
        let failed = |line: &str| line.contains("ahead of need") && line.contains("jobs.example");
        said.lines().any(failed).then_some(())
    });
    let assertion = jobs.assertion("job", broker.url(), &Value::Null);
    let form = exchange(&assertion, API, "reader");
    let url = format!("{}/token", broker.url());
    let reply = Http::new().form_with(&url, ("traceparent", PARENT), &form).unwrap();
    assert_eq!(reply.status, 200, "{}: {}", reply.body, broker.said());

    let who = receiver.span("authenticate", TRACE);
    let fetched = receiver.span("GET", TRACE);
    assert_eq!(fetched["parent"], who["span"], "{fetched}");
    let of = |name: &str| fetched["attributes"][name].as_str().unwrap_or_default().to_string();
    let address = format!("http://{}:{}", of("server.address"), of("server.port"));
    assert_eq!((address.as_str(), fetched["error"].as_bool()), (issuer.url(), Some(false)));
    assert_eq!(of("http.response.status_code"), "200");
    // Whoever comes next need not wait.
    let other = TRACE.replace("0af7", "1af7");
    let parent = PARENT.replace(TRACE, &other);
    Http::new().form_with(&url, ("traceparent", &parent), &form).unwrap();
    receiver.span("POST /token", &other);
    let spans = receiver.spans();
    let of_other = spans.iter().filter(|span| span["trace"] == other.as_str());
    assert_eq!(of_other.filter(|span| span["name"] == "GET").count(), 0);
}

#[test]
fn every_record_has_a_trace_also_where_nobody_makes_spans() {
    let journey = Journey::start();
    let token = |args: &[&str]| journey.tmpcred(&[&["token"], args].concat());
    // A run that makes none passes on what it was started with, to brokers alone.
    token(&[]).env("TRACEPARENT", PARENT).run().ok();
    assert_eq!(records(&journey.broker, &["--trace", TRACE]).len(), 1);
    // What is no trace is none: one begins at the broker, a new one each time.
    for parent in ["", "00-00000000000000000000000000000000-b7ad6b7169203331-01", "x"] {
        token(&["--refresh"]).env("TRACEPARENT", parent).run().ok();
    }
    let all = records(&journey.broker, &["--decision", "issued"]);
    let mut traces: Vec<_> =
        all.iter().map(|record| record["trace_id"].as_str().unwrap()).collect();
    assert!(traces.iter().all(|trace| trace.len() == 32), "{traces:?}");
    traces.sort_unstable();
    traces.dedup();
    assert_eq!(traces.len(), 4);
    // Denials and revocations have theirs; what is no trace at all is refused by the query.
    let denied = token(&["--refresh", "--role", "nobody"]).env("TRACEPARENT", PARENT);
    denied.run().ended_with(5);
    let bearer = token(&[]).run().ok().stdout;
    let url = format!("{}/revoke", journey.broker.url());
    Http::new().form(&url, &[("token", bearer.trim())]).unwrap();
    assert_eq!(records(&journey.broker, &["--trace", TRACE, "--decision", "denied"]).len(), 1);
    let revoked = records(&journey.broker, &["--decision", "revoked"]);
    assert_eq!(revoked[0]["trace_id"].as_str().unwrap().len(), 32);
    let query = ["broker", "audit", "query", "--trace", "x", "--config", "broker.toml"];
    tmpcred(&journey.broker.home).args(query).run().ended_with(2);
}

#[test]
fn nothing_secret_is_in_the_bytes_of_spans() {
    let receiver = Otlp::start();
    let mut journey = journey(&receiver.url(), "");
    let secret = Canary::new("a header of the receiver");
    journey.home.set("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url());
    let encoded: String = secret.value().bytes().map(|byte| format!("%{byte:02X}")).collect();
    journey.home.set("OTEL_EXPORTER_OTLP_HEADERS", format!("authorization={encoded}"));
    let token = journey.tmpcred(&["token"]).run().ok().stdout.trim().to_string();
    journey.tmpcred(&["token", "--refresh", "--role", "canary-role-of-nobody"]).run().ended_with(5);
    // What a caller writes where there is nothing is theirs, and so are their methods.
    let query = Canary::new("a query");
    let path: String = query.value().bytes().map(|byte| format!("%{byte:02x}")).collect();
    Http::new().get(&format!("{}/{path}?token={path}", journey.broker.url())).unwrap();
    journey.tmpcred(&["logout"]).run().ok();
    journey.broker.signal(Signal::TERM);
    wait_until("all spans", Duration::from_secs(60), || {
        let names: Vec<_> = receiver.spans().iter().map(|span| span["name"].clone()).collect();
        let wanted = ["authenticate", "POST /token", "tmpcred logout"];
        wanted.iter().all(|name| names.contains(&json!(name))).then_some(())
    });
    let raw = receiver.raw();
    for canary in [&secret, &query, &Canary::of("the token", token)] {
        assert_eq!(canary.search("spans", &raw), []);
    }
    let has = |text: &str| raw.windows(text.len()).any(|part| part == text.as_bytes());
    assert!(!has("alice"), "who it was");
    assert!(has("authenticate"), "the search finds what is there");
}

#[test]
fn a_receiver_that_hangs_or_is_gone_holds_up_nobody() {
    let receiver = Otlp::start();
    let admin = free_port();
    let more = format!("\n[admin]\nlisten = \"127.0.0.1:{admin}\"\n");
    let journey = journey(&receiver.url(), &more);
    let refresh = || journey.tmpcred(&["token", "--refresh"]);
    refresh().run().ok();
    let count = |outcome: &str| {
        let told = Http::new().get(&format!("http://127.0.0.1:{admin}/metrics")).unwrap().body;
        let start = format!("tmpcred_trace_spans_total{{outcome=\"{outcome}\"}} ");
        let line = told.lines().find_map(|line| line.strip_prefix(&start).map(String::from));
        line.unwrap_or_else(|| panic!("{start} is not in:\n{told}")).parse::<f64>().unwrap()
    };
    wait_until("spans to be taken", Duration::from_secs(60), || {
        (count("exported") > 3.0).then_some(())
    });
    assert_eq!(count("dropped") + count("refused"), 0.0);
    receiver.freeze();
    // Neither the broker nor a run is held up for as long as the receiver would have.
    let started = Instant::now();
    let hung = refresh().env("OTEL_EXPORTER_OTLP_ENDPOINT", receiver.url()).run().ok();
    assert_eq!(hung.stderr, "");
    let gone = format!("http://127.0.0.1:{}", free_port());
    let lost = refresh().env("OTEL_EXPORTER_OTLP_ENDPOINT", gone).run().ok();
    assert_eq!(lost.stderr, "");
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
    // More than there is room for are counted, and tokens are issued all the same.
    let url = format!("{}/nowhere", journey.broker.url());
    let mut http = Http::new();
    for _ in 0..3500 {
        http.get(&url).unwrap();
    }
    wait_until("spans to be dropped", Duration::from_secs(60), || {
        (count("dropped") > 0.0).then_some(())
    });
    refresh().run().ok();
    let started = Instant::now();
    journey.broker.signal(Signal::TERM);
    wait_until("the broker to end", Duration::from_secs(60), || {
        journey.broker.said().contains("drained").then_some(())
    });
    assert!(started.elapsed() < Duration::from_secs(20), "{:?}", started.elapsed());
}

#[test]
fn what_the_variables_say_holds_where_the_configuration_says_nothing() {
    let collector = Rotel::start();
    let provider = OidcProvider::start();
    let mut home = Home::new();
    home.set("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url());
    home.set("OTEL_TRACES_SAMPLER", "parentbased_always_off");
    let broker = Broker::start_in(home, &BrokerOptions::trusting(provider.issuer()));
    let (mut http, url) = (Http::new(), format!("{}/healthz", broker.url()));
    http.get(&url).unwrap();
    let unkept = format!("00-{TRACE}-b7ad6b7169203331-00");
    http.get_with(&url, ("traceparent", &unkept)).unwrap();
    // Who begins a trace says whether it is kept.
    http.get_with(&url, ("traceparent", PARENT)).unwrap();
    let said = wait_until("a span", Duration::from_secs(60), || {
        Some(collector.said()).filter(|said| said.contains("GET /healthz"))
    });
    assert_eq!(said.matches("GET /healthz").count(), 1, "{said}");
    assert!(said.contains(TRACE) && said.contains("tmpcred-broker"), "{said}");
    // What only the variables say, and cannot be kept, keeps no broker from working.
    let mut home = Home::new();
    home.set("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector.example:4318");
    let broker = Broker::start_in(home, &BrokerOptions::trusting(provider.issuer()));
    assert!(broker.said().contains("there are no traces"), "{}", broker.said());
}
