//! Claims of a role, as services of others read them that go by groups.

use serde_json::{Value, json};

use super::support::aws::python_program;
use super::support::broker::API;
use super::support::home::{Home, tmpcred};
use super::support::http::{Http, Reply};
use super::support::peer::{Peer, node_script, supervised};
use super::support::services::{ISSUER, Services};
use super::support::wait::free_port;

const ROLES: &str = r#"
[role.cluster]
audiences = ["https://api.example.com"]
max_ttl = "15m"

[role.cluster.claims]
groups = ["corp:{groups}"]
"#;

/// A broker whose tokens say in which groups somebody is.
fn services() -> Services {
    let policy = format!(
        "@id(\"cluster\") @ttl(\"15m\")\npermit (principal, action == Action::\"issue\", \
         resource == Role::\"cluster\") when {{ principal.issuer == \"{ISSUER}\" }};\n"
    );
    Services::start_in(Home::new(), &policy, ROLES)
}

/// What the broker answers to somebody in these groups.
fn asked_in(services: &Services, groups: Value) -> Reply {
    let assertion = services.assertion_with(json!({ "groups": groups }));
    services.exchange(&mut Http::new(), &assertion, "cluster")
}

fn token(services: &Services, groups: Value) -> String {
    let reply = asked_in(services, groups);
    let body = reply.json();
    body["access_token"].as_str().unwrap_or_else(|| panic!("{body}")).to_string()
}

/// The tokens of somebody in the group, of somebody who is not, of somebody in a group that
/// is named like it elsewhere, and one that nobody signed.
fn tokens(services: &Services) -> [String; 4] {
    let within = token(services, json!(["platform", "design"]));
    let mut forged = within.clone();
    forged.replace_range(within.len() - 8.., "AAAAAAAA");
    [within, token(services, json!(["design"])), token(services, json!(["corp:platform"])), forged]
}

#[test]
fn authlib_lets_in_by_the_groups_of_rfc_9068() {
    let services = services();
    let home = Home::new();
    let reader = home.command(python_program("python3")).args([node_script("claims.py")]);
    let reader = reader.args([services.broker.url(), API, "corp:platform"]);
    let said = reader.stdin(tokens(&services).join("\n")).run().ok().json();
    assert_eq!(said, json!(["let in", "invalid_token", "invalid_token", "invalid_token"]));
}

/// Envoy's filters for JWTs and for access: by the keys that the broker shows, and by a group.
fn envoy(port: u16, broker: &str) -> String {
    let (_, address) = broker.split_once("://").unwrap();
    let (host, behind) = address.split_once(':').unwrap();
    format!(
        r#"
static_resources:
  listeners:
    - name: api
      address: {{ socket_address: {{ address: 127.0.0.1, port_value: {port} }} }}
      filter_chains:
        - filters:
            - name: envoy.filters.network.http_connection_manager
              typed_config:
                "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
                stat_prefix: api
                http_filters:
                  - name: envoy.filters.http.jwt_authn
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
                      providers:
                        broker:
                          issuer: "{broker}"
                          audiences: ["{API}"]
                          payload_in_metadata: token
                          remote_jwks:
                            http_uri: {{ uri: "{broker}/jwks.json", cluster: broker, timeout: 5s }}
                      rules:
                        - match: {{ prefix: "/" }}
                          requires: {{ provider_name: broker }}
                  - name: envoy.filters.http.rbac
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC
                      rules:
                        action: ALLOW
                        policies:
                          platform:
                            permissions: [{{ any: true }}]
                            principals:
                              - metadata:
                                  filter: envoy.filters.http.jwt_authn
                                  path: [{{ key: token }}, {{ key: groups }}]
                                  value: {{ list_match: {{ one_of: {{ string_match: {{ exact: "corp:platform" }} }} }} }}
                  - name: envoy.filters.http.router
                    typed_config:
                      "@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router
                route_config:
                  virtual_hosts:
                    - name: api
                      domains: ["*"]
                      routes:
                        - match: {{ prefix: "/" }}
                          direct_response: {{ status: 200, body: {{ inline_string: "let in" }} }}
  clusters:
    - name: broker
      connect_timeout: 2s
      load_assignment:
        cluster_name: broker
        endpoints: [{{ lb_endpoints: [{{ endpoint: {{ address: {{ socket_address: {{ address: {host}, port_value: {behind} }} }} }} }}] }}]
"#
    )
}

#[test]
fn envoy_lets_in_by_the_groups_that_a_token_lists() {
    let (services, files, port) = (services(), Home::new(), free_port());
    let file = files.write("envoy.yaml", envoy(port, services.broker.url()));
    let mut command = supervised(&python_program("envoy"), std::path::Path::new("/dev/null"));
    command.arg("-c").arg(file).args(["--disable-hot-restart", "--concurrency", "1", "-l", "warn"]);
    command.current_dir(files.path("")).env("HOME", files.path(""));
    let mut proxy = Peer::start("Envoy", command, files.path("log"));
    let (url, mut http) = (format!("http://127.0.0.1:{port}/"), Http::new());
    proxy.until_ready(|| http.get(&url).ok());
    let mut shown = |token: &str| {
        let reply = http.get_with(&url, ("Authorization", &format!("Bearer {token}"))).unwrap();
        (reply.status, reply.body)
    };
    let [within, without, alike, forged] = tokens(&services);
    assert_eq!(shown(&within), (200, "let in".to_string()), "{}", proxy.said());
    assert_eq!(shown(&without).0, 403);
    assert_eq!(shown(&alike).0, 403, "a group that is called so elsewhere is another one");
    assert_eq!(shown(&forged).0, 401);
}

#[test]
fn who_would_be_told_of_too_much_gets_nothing_and_learns_why() {
    let services = services();
    let many: Vec<_> = (0..300).map(|n| format!("a-group-of-the-company-{n}")).collect();
    let reply = asked_in(&services, json!(many));
    assert_eq!(reply.status, 400, "{}", reply.body);
    let said = reply.json();
    assert_eq!(said["error"], "access_denied", "{said}");
    let why = said["error_description"].as_str().unwrap();
    assert!(why.contains("bytes long in the token; at most 4096 are possible"), "{why}");
}

#[test]
fn what_a_token_would_say_is_shown_and_expected_beforehand() {
    let services = services();
    let home = &services.broker.home;
    let policy = |command: &str| {
        let run = tmpcred(home).args(["broker", "policy", command, "--config"]);
        run.args([home.path("broker.toml")])
    };
    let caller = ["--issuer", "services", "--subject", "job", "--group", "platform", "--role"];
    let said = policy("explain").args(caller).args(["cluster"]).run().ok().stdout;
    assert!(said.contains("\n  The token says: groups = [\"corp:platform\"]\n"), "{said}");
    let case = |expected: &str| {
        let expect = format!("{{ permit = \"cluster\", claims = {{ groups = {expected} }} }}");
        let text = format!(
            "[[case]]\nname = \"platform\"\nexpect = {expect}\n[case.ask]\nrole = \"cluster\"\n\
             caller = {{ issuer = \"services\", subject = \"job\", groups = [\"platform\"] }}\n"
        );
        policy("test").args([home.write("cases.toml", text)])
    };
    case("[\"corp:platform\"]").run().ok();
    let differs = case("[\"corp:design\"]").run().ended_with(1);
    for part in ["claims", "groups = [\"corp:design\"]", "groups = [\"corp:platform\"]"] {
        assert!(differs.stdout.contains(part), "{part}\n{}", differs.stdout);
    }

    // A mistake in the configuration is told with its place.
    let toml = std::fs::read_to_string(home.path("broker.toml")).unwrap();
    for (wrong, why) in [
        ("groups = \"{groups}\"", "put it into a list"),
        ("groups = [\"{group}\"]", "are all that can stand in braces"),
        ("sub = \"x\"", "is not a role's to say"),
        ("person = \"{person}\"", "there is no [directory]"),
        ("grant = \"{elevation}\"", "is not had by elevation"),
    ] {
        let file = home.write("wrong.toml", toml.replace("groups = [\"corp:{groups}\"]", wrong));
        let check = tmpcred(home).args(["broker", "check", "--config"]).args([file]);
        let refused = check.run();
        assert_eq!(refused.code, Some(3), "{wrong}: {} {}", refused.stdout, refused.stderr);
        let all = refused.stdout + &refused.stderr;
        assert!(all.contains(why) && all.contains("wrong.toml"), "{wrong}: {all}");
    }
}
