//! Which identity `login` and `logout` mean where none is named.

use crate::support::home::{Home, tmpcred};

const CONFIG: &str = r#"
default_profile = "deploy"

[identity.corp]
type = "oidc"
issuer = "https://login.example.com"
client_id = "cli"

[identity.partner]
type = "oidc"
issuer = "https://login.example.org"
client_id = "cli"

[broker.main]
url = "https://broker.example.com"

[profile.deploy]
identity = "partner"
role = "deploy"
audience = "https://api.example.com"
"#;

#[test]
fn it_is_that_of_the_profile_that_would_be_used() {
    let home = Home::new();
    home.config(CONFIG);
    let report = tmpcred(&home).args(["logout", "--json"]).run().ok().json();
    assert_eq!(report[0]["identity"], "partner");
    let named = tmpcred(&home).args(["logout", "corp", "--json"]).run().ok().json();
    assert_eq!(named[0]["identity"], "corp");
}

#[test]
fn it_is_asked_for_where_nothing_tells() {
    let home = Home::new();
    home.config(&CONFIG.replace("default_profile = \"deploy\"", ""));
    for command in ["login", "logout"] {
        let refused = tmpcred(&home).args([command, "--no-input"]).run().ended_with(3);
        assert!(refused.stderr.contains("`corp`, `partner`"), "{}", refused.stderr);
        assert_eq!(refused.stdout, "");
    }
}
