//! What the documentation prints of the broker.

use super::*;
use tmpcred::broker::{Broker, Config, config};
use tmpcred::host::browser::SystemBrowser;
use tmpcred::host::clock::{SkewMeter, SystemClock};
use tmpcred::host::dirs::Dirs;
use tmpcred::host::env::Env;
use tmpcred::host::interact::Silent;
use tmpcred::host::{Host, process};

/// Makes the broker that these texts describe, all but listening.
#[track_caller]
fn open(toml: &str, cedar: &str) -> Config {
    open_with(toml, cedar, &[])
}

/// The same with these files beside.
#[track_caller]
fn open_with(toml: &str, cedar: &str, files: &[(&str, &str)]) -> Config {
    let home = Home::new();
    for (name, text) in files {
        home.write(name, text);
    }
    home.write("policy.cedar", cedar);
    write_kek(&home);
    let path = home.write("broker.toml", toml);
    let host = Host {
        clock: std::sync::Arc::new(SystemClock),
        env: Env::default(),
        dirs: Dirs::below(&home.path("")),
        browser: std::sync::Arc::new(SystemBrowser),
        interact: std::sync::Arc::new(Silent),
        skew: SkewMeter::default(),
    };
    let opened = config::load(&path).and_then(|config| {
        process::runtime()?.block_on(async {
            Broker::open(&config, &host).await?.close().await;
            Ok(config)
        })
    });
    opened.unwrap_or_else(|error| panic!("{error}\n{toml}\n{cedar}"))
}

#[test]
fn configurations_and_policies_of_the_broker_load() {
    let start = &of_kind("toml broker.toml", 1)[0];
    let policies = of_kind("cedar", 2);
    let loaded = |toml: String| {
        let home = Home::new();
        config::load(&home.write("broker.toml", toml)).unwrap()
    };
    let (first, others) = policies.split_first().unwrap();
    open(&start.text, &first.text);
    for policy in others {
        open(&start.text, &format!("{}\n{}", first.text, policy.text));
    }
    for more in of_kind("toml broker.toml more", 1) {
        let config = open(&format!("{}\n{}", start.text, more.text), &first.text);
        assert_eq!(config.trusted_issuer.len(), 2);
    }
    for more in of_kind("toml broker.toml more-roles", 1) {
        let config = open(&format!("{}\n{}", start.text, more.text), &first.text);
        assert!(config.role.values().any(|role| role.aws.is_some()));
    }
    for more in of_kind("toml broker.toml more-role-claims", 1) {
        let config = open(&format!("{}\n{}", start.text, more.text), &first.text);
        let told = ["cluster", "cloud"].map(|role| !config.role[role].claims.is_empty());
        assert_eq!(told, [true; 2]);
    }
    for more in of_kind("toml broker.toml more-elevation", 1) {
        let page = |kind: &str| {
            let mut blocks = of_kind(kind, 1).into_iter();
            blocks.find(|block| block.page == more.page).unwrap().text
        };
        let asks = [page("cedar more-elevation"), page("cedar more-uses")].concat();
        let policy = format!("{}\n{asks}", first.text);
        let people = page("toml people.toml");
        let text = format!("{}\n{}", start.text, more.text);
        let config = open_with(&text, &policy, &[("people.toml", &people)]);
        assert!(config.role["prod-admin"].elevation.is_some());
        for down in of_kind("toml broker.toml more-provider-down", 1) {
            let text = format!("{text}\n{}", down.text);
            let config = open_with(&text, &policy, &[("people.toml", &people)]);
            let rules = config.role["prod-admin"].elevation.as_ref().unwrap();
            assert!(rules.provider_down.is_some());
        }
    }
    for more in of_kind("toml broker.toml more-enrollment", 1) {
        let keepers = &of_kind("cedar more-enrollment", 1)[0].text;
        let policy = format!("{}\n{keepers}", first.text);
        let config = open(&format!("{}\n{}", start.text, more.text), &policy);
        assert!(config.enrollment.user_verification && config.enrollment.kinds.len() == 2);
    }
    for more in of_kind("toml broker.toml more-admin", 1) {
        let config = open(&format!("{}\n{}", start.text, more.text), &first.text);
        assert!(config.admin.is_some_and(|admin| admin.listen.ip().is_loopback()));
    }
    for (kind, key) in [("store", "path = \"broker.db\""), ("keys", "kek_file = \"kek\"")] {
        for instead in of_kind(&format!("toml broker.toml {kind}"), 2) {
            let at = format!("[{kind}]\n{key}\n");
            let (before, rest) = start.text.split_once(&at).unwrap();
            loaded(format!("{before}{}{rest}", instead.text)).store.place().unwrap();
        }
    }
    // What is opened hands records on to them.
    for more in of_kind("toml broker.toml more-sinks", 1) {
        let audit = loaded(format!("{}\n{}", start.text, more.text)).audit;
        assert_eq!([audit.file.len(), audit.syslog.len(), audit.webhook.len()], [1, 1, 1]);
    }
    for more in of_kind("toml broker.toml more-dpop", 1) {
        let config = open(&format!("{}\n{}", start.text, more.text), &first.text);
        assert!(config.role.values().any(|role| role.dpop == config::Binding::Required));
    }
    let each = |kind: &str, holds: fn(&Config) -> bool| {
        for more in of_kind(&format!("toml broker.toml more-{kind}"), 1) {
            assert!(holds(&loaded(format!("{}\n{}", start.text, more.text))), "{kind}");
        }
    };
    each("claims", |config| config.trusted_issuer["ci"].claims.len() == 3);
    each("client", |config| config.client["deployer"].authenticates());
    each("review", |config| config.trusted_issuer["cluster"].token_review.is_some());
    each("web", |config| config.web.as_ref().is_some_and(|web| web.client_id == "tmpcred-pages"));
    each("telemetry", |config| config.telemetry.endpoint.is_some());
    each("notify", |config| config.notify.len() == 6);
    for more in of_kind("toml broker.toml more-limits", 1) {
        let config = open(&format!("{}\n{}", start.text, more.text), &first.text);
        assert!(config.limits.principal.is_some() && config.limits.address.is_some());
    }
    for more in of_kind("toml broker.toml more-authz", 1) {
        let config = open(&format!("{}\n{}", start.text, more.text), &first.text);
        assert!(config.authz.is_some_and(|authz| authz.route.contains_key("api")));
    }
    for proxy in of_kind("toml broker.toml behind-a-proxy", 1) {
        let config = open(&format!("{}{}", proxy.text, start.text), &first.text);
        assert_eq!(config.trusted_proxies.len(), 1);
    }
    for tls in of_kind("toml broker.toml with-tls", 1) {
        let (_, tables) = start.text.split_once("\n[").unwrap();
        let config = open(&format!("{}\n[{tables}", tls.text), &first.text);
        assert!(config.expose && config.tls.is_some());
    }
}

#[test]
fn the_start_serves() {
    let home = Home::new();
    let start = &of_kind("toml broker.toml", 1)[0];
    let port = crate::support::wait::free_port();
    assert!(start.text.contains("127.0.0.1:8443"));
    home.write("broker.toml", start.text.replace("8443", &port.to_string()));
    home.write("policy.cedar", &of_kind("cedar", 1)[0].text);
    write_kek(&home);
    let config = home.path("broker.toml");
    let mut serving = tmpcred(&home).args(["broker", "serve", "--config"]).args([config]).spawn();
    serving.line_on_stderr("listens on");
    serving.kill();
}

#[test]
fn the_cases_of_the_page_are_as_expected() {
    let home = Home::new();
    let config = home.write("broker.toml", &of_kind("toml broker.toml", 1)[0].text);
    home.write("policy.cedar", &of_kind("cedar", 1)[0].text);
    let cases = home.write("cases.toml", &of_kind("toml cases.toml", 1)[0].text);
    let policy = |command: &str| {
        let run = tmpcred(&home).args(["broker", "policy", command, "--json", "--config"]);
        run.args([&config])
    };
    let report = policy("test").args([&cases]).run().ok().json();
    assert_eq!((&report["cases"], &report["failed"]), (&3.into(), &0.into()), "{report}");
    let report = policy("check").args(["--strict"]).run().ok().json();
    assert_eq!(report["findings"], serde_json::json!([]), "{report}");
    // Nor is anything found in what is shown of CI platforms.
    let start = &of_kind("toml broker.toml", 1)[0].text;
    for kind in ["toml broker.toml more", "toml broker.toml more-claims"] {
        home.write("broker.toml", format!("{start}\n{}", of_kind(kind, 1)[0].text));
        let report = policy("check").args(["--strict"]).run().ok().json();
        assert_eq!(report["findings"], serde_json::json!([]), "{kind}: {report}");
    }
}

#[test]
fn the_page_about_policies_lists_each_rule_and_each_reason() {
    use tmpcred::broker::decide::Why;
    use tmpcred::broker::policy::Rule;
    let text = page("docs/policy.md");
    let names = Rule::REFUSED.into_iter().chain(Rule::LINTS).map(Rule::name);
    for name in names.chain(Why::ALL.map(Why::name)) {
        assert!(text.contains(&format!("\n| `{name}` |")), "{name}");
    }
}

#[test]
fn the_table_of_the_brokers_keys_is_whole() {
    let schema = serde_json::to_value(schemars::schema_for!(Config)).unwrap();
    let tables =
        ["admin", "authz", "dpop", "keys", "policy", "role", "store", "tls", "trusted_issuer"];
    names_all("docs/broker.md", &schema, &tables);
}
