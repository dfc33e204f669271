//! Prometheus itself, which scrapes two brokers, and is asked whatever the dashboards ask it.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use tempfile::TempDir;
use url::form_urlencoded::byte_serialize;

use super::super::revocation::Services;
use super::super::support::broker::API;
use super::super::support::peer::{Peer, program, supervised};
use super::*;

/// What shows nothing where nothing is amiss, and where nobody configured it, by a part of it.
const SILENT: [&str; 9] = [
    "ALERTS{",
    // They are fetched when the client comes.
    "tmpcred_client_jwks_age_",
    "tmpcred_client_jwks_info{",
    "tmpcred_directory_",
    "tmpcred_elevations{",
    "tmpcred_elevation_requests",
    "tmpcred_elevation_signers",
    // SQLite has the clock of the broker's own machine.
    "tmpcred_store_clock_",
    "tmpcred_tls_certificate_",
];

/// A Prometheus that scrapes these addresses, with our alerts. Dropping it kills it.
struct Prometheus {
    _peer: Peer,
    _files: TempDir,
    url: String,
}

impl Prometheus {
    #[track_caller]
    fn start(targets: &[String]) -> Self {
        let (files, port) = (tempfile::tempdir().unwrap(), free_port());
        let config = format!(
            "global: {{ scrape_interval: 1s, evaluation_interval: 1s }}\n\
             rule_files: [{:?}]\n\
             scrape_configs:\n\
             - job_name: tmpcred-broker\n  static_configs: [{{ targets: {targets:?} }}]\n",
            ours("deploy/prometheus/alerts.yml")
        );
        let file = files.path().join("prometheus.yml");
        std::fs::write(&file, config).unwrap();
        let mut command = supervised(&program("prometheus"), Path::new("/dev/null"));
        command.arg(format!("--config.file={}", file.display()));
        command.arg(format!("--storage.tsdb.path={}", files.path().join("data").display()));
        command.arg(format!("--web.listen-address=127.0.0.1:{port}"));
        command.arg("--log.level=warn").current_dir(files.path());
        let mut peer = Peer::start("Prometheus", command, files.path().join("log"));
        let url = format!("http://127.0.0.1:{port}");
        let ready = format!("{url}/-/ready");
        peer.until_ready(|| Http::new().get(&ready).ok().filter(|reply| reply.status == 200));
        Self { _peer: peer, _files: files, url: format!("{url}/api/v1") }
    }

    /// The answer to a query of this kind.
    #[track_caller]
    fn ask(&self, kind: &str, query: &str, more: &str) -> Value {
        let query: String = byte_serialize(query.as_bytes()).collect();
        let url = format!("{}/{kind}={query}{more}", self.url);
        let answer = Http::new().get(&url).unwrap().json();
        assert_eq!(answer["status"], "success", "{query}: {answer}");
        assert!(answer.get("warnings").is_none(), "{query}: {answer}");
        answer["data"].clone()
    }

    /// What an expression is at present.
    #[track_caller]
    fn now(&self, expression: &str) -> Vec<Value> {
        let data = self.ask("query?query", expression, "");
        data["result"].as_array().unwrap().clone()
    }

    /// The labels of the series that a panel draws over the last minute.
    #[track_caller]
    fn drawn(&self, expression: &str) -> Vec<BTreeMap<String, String>> {
        // Up to a moment that has whatever is there by now.
        let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 1;
        let range = format!("&start={}&end={end}&step=5", end - 60);
        let data = self.ask("query_range?query", expression, &range);
        let series = data["result"].as_array().unwrap().iter();
        series.map(|one| serde_json::from_value(one["metric"].clone()).unwrap()).collect()
    }
}

/// What a dashboard asks, with what Grafana puts in for «All», and how it names the answers.
fn asked(board: &Value) -> Vec<(String, String, String)> {
    let mut found = Vec::new();
    for panel in board["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            if target["datasource"]["type"] == "tempo" {
                continue;
            }
            let text = |name: &str| target[name].as_str().unwrap_or_default().to_string();
            let expression = text("expr").replace("$__rate_interval", "30s");
            // What the parts name them by, and no regular expression that fits all.
            let expression = expression
                .replace("$job", "(tmpcred-broker)")
                .replace("$instance", "(127\\\\.0\\\\.0\\\\.1:[0-9]+)");
            let title = panel["title"].as_str().unwrap().to_string();
            found.push((title, expression, text("legendFormat")));
        }
    }
    found
}

#[test]
fn prometheus_answers_whatever_the_dashboards_ask_it_about_two_brokers() {
    let admins = [free_port(), free_port()].map(|port| format!("127.0.0.1:{port}"));
    let provider = OidcProvider::start();
    let brokers = admins.each_ref().map(|admin| {
        let mut services = Services::with(&format!(
            "\n[admin]\nlisten = {admin:?}\n\n[notify.own]\nkind = \"command\"\ncommand = [\"true\"]\n\n\
             [audit.file.lines]\npath = \"records\"\n\n\
             [authz]\nproxy = \"nginx\"\nproxies = [\"127.0.0.1\"]\n\n[authz.route.api]\norigins = [{API:?}]\naudience = {API:?}\n\n\
             [client.ci]\njwks_uri = \"http://127.0.0.1:9/keys\"\n"
        ));
        // Its keys are fetched, so that there is an age of them, and a clock to compare.
        services.broker.stop();
        let toml = services.broker.home.path("broker.toml");
        let mut toml = std::fs::OpenOptions::new().append(true).open(toml).unwrap();
        let (issuer, ours) = (provider.issuer(), services.broker.url());
        writeln!(toml, "\n[trusted_issuer.idp]\nissuer = {issuer:?}\naudiences = [{ours:?}]").unwrap();
        services.broker.restart();
        services
    });
    let prometheus = Prometheus::start(&admins);
    let up = || (prometheus.now("up == 1").len() == 2).then_some(());
    wait_until("both to be scraped", LONG, up);
    for broker in &brokers {
        for _ in 0..3 {
            broker.token("job", API);
        }
        let garbled = Http::new().form(&format!("{}/token", broker.broker.url()), &[("a", "b")]);
        assert_eq!(garbled.unwrap().status, 400);
    }
    // A rate is one of two scrapes, with what has happened between.
    let issued = "sum by (instance) (increase(tmpcred_issuance_successes_total[30s])) > 0";
    let garbled = "sum by (instance) (rate(tmpcred_http_requests_total{status=\"4xx\"}[30s]))";
    for what in [issued, garbled] {
        wait_until(what, LONG, || (prometheus.now(what).len() == 2).then_some(()));
    }

    let mut empty = Vec::new();
    for name in ["executive", "on-call", "debug"] {
        let text = read(&format!("deploy/grafana/{name}.json"));
        let board: Value = serde_json::from_str(&text).unwrap();
        for variable in board["templating"]["list"].as_array().unwrap() {
            let Some(query) = variable["query"]["query"].as_str() else { continue };
            let values = query.strip_prefix("label_values(").and_then(|q| q.strip_suffix(')'));
            let (series, label) = values.unwrap().rsplit_once(", ").unwrap();
            let series = series.replace("$job", "(tmpcred-broker)");
            let series = prometheus.ask("series?match[]", &series, "");
            let series = series.as_array().unwrap();
            let values: BTreeSet<_> = series.iter().map(|one| one[label].as_str()).collect();
            let expected = if label == "instance" { 2 } else { 1 };
            assert_eq!(values.len(), expected, "{name}: {query}: {values:?}");
        }
        for (title, expression, legend) in asked(&board) {
            let drawn = prometheus.drawn(&expression);
            if drawn.is_empty() {
                empty.push(format!("{name}: {title}: {expression}"));
            }
            for label in legend.split("{{").skip(1).map(|rest| rest.split("}}").next().unwrap()) {
                let named = drawn.iter().all(|series| series.contains_key(label));
                assert!(named, "{name}: {title}: no {label} in {drawn:?}");
            }
        }
    }
    let silent = |one: &String| SILENT.iter().any(|part| one.contains(part));
    let unexpected: Vec<_> = empty.iter().filter(|one| !silent(one)).collect();
    assert!(unexpected.is_empty(), "{unexpected:#?}");
}

/// Nothing here reads TraceQL: what the dashboard asks for has to be what the broker tells.
#[test]
fn what_a_dashboard_asks_of_traces_is_what_there_is() {
    let board: Value = serde_json::from_str(&read("deploy/grafana/debug.json")).unwrap();
    let page = read("docs/traces.md");
    let mut variables = board["templating"]["list"].as_array().unwrap().iter();
    assert!(variables.any(|one| one["name"] == "traces" && one["query"] == "tempo"));
    let mut seen = 0;
    let panels = board["panels"].as_array().unwrap().iter();
    for target in panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten()) {
        let Some(query) = target["query"].as_str() else { continue };
        assert_eq!(target["datasource"]["uid"], "${traces}", "{query}");
        assert!(query.contains("resource.service.name = \"tmpcred-broker\""), "{query}");
        // Of a broker whose issuer has a path that stands before the endpoint's.
        let name = query.split("name =").nth(2).unwrap().split('"').nth(1).unwrap();
        let row = format!("\n| `{}`", name.replace(".*", ""));
        assert!(page.contains(&row), "{query}: there is no span {name}");
        for attribute in query.split("span.").skip(1) {
            let attribute = attribute.split([',', ')', ' ']).next().unwrap();
            let is_known = page.contains(&format!("`{attribute}`"))
                || attribute == "http.response.status_code";
            assert!(is_known, "{query}: there is no attribute {attribute}");
        }
        seen += 1;
    }
    assert_eq!(seen, 2);
}
