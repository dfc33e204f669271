use super::*;
use crate::host::files;

const GOOD: &str = r#"
issuer = "https://broker.example.com"

[tls]
certificate = "tls/broker.pem"
key = "/etc/tls/key.pem"

[store]
path = "broker.db"

[keys]
kek_file = "kek"

[trusted_issuer.corp]
issuer = "https://login.example.com"
algorithms = ["ES256", "EdDSA"]
leeway = "30s"
required_claims = { hd = "example.com", level = 3, verified = true, amr = ["mfa", "hwk"] }

[policy]
files = ["policy.cedar"]

[role.deploy]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"
"#;

fn load_text(text: &str) -> Result<Config> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.toml");
    files::write_private(&path, text.as_bytes()).unwrap();
    let config = load(&path)?;
    assert!(config.store.path.is_absolute());
    Ok(config)
}

fn refused(text: &str) -> String {
    load_text(text).unwrap_err().to_string()
}

#[test]
fn a_good_file_is_read_and_paths_are_relative_to_it() {
    let config = load_text(GOOD).unwrap();
    let tls = config.tls.unwrap();
    assert!(tls.certificate.ends_with("tls/broker.pem") && tls.certificate.is_absolute());
    assert_eq!(tls.key, Path::new("/etc/tls/key.pem"));
    assert_eq!(config.listen, ([127, 0, 0, 1], 8443).into());
    assert_eq!(config.role["deploy"].max_ttl, Duration::from_secs(3600));
    let corp = &config.trusted_issuer["corp"];
    assert_eq!(corp.leeway, Duration::from_secs(30));
    assert_eq!(corp.groups_claim, "groups");
    assert_eq!(corp.required_claims["level"], RequiredClaim::Number(3));
    assert_eq!(corp.required_claims["verified"], RequiredClaim::Flag(true));
    assert!(matches!(&corp.required_claims["amr"], RequiredClaim::AnyOf(a) if a.len() == 2));
}

#[test]
fn others_see_the_metrics_only_where_that_is_said() {
    assert!(load_text(GOOD).unwrap().admin.is_none());
    let exposed = "[admin]\nlisten = \"0.0.0.0:9443\"\nexpose = true\n[store]";
    assert!(load_text(&GOOD.replace("[store]", exposed)).unwrap().admin.unwrap().expose);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (find, replace, says) in [
        ("issuer = \"https://broker", "isuer = \"https://broker", "isuer"),
        ("\"https://login.example.com\"", "\"http://login.example.com\"", "loopback only"),
        ("[store]", "[admin]\n[store]", "listen"),
        ("[store]", "[admin]\nlisten = \"0.0.0.0:9443\"\n[store]", "expose is not true"),
        (
            "[store]",
            "[admin]\nlisten = \"127.0.0.1:8443\"\n[store]",
            "is the address of the broker itself",
        ),
        ("\"ES256\", \"EdDSA\"", "\"HS256\"", "HS256; possible are ES256"),
        ("\"ES256\", \"EdDSA\"", "\"none\"", "none"),
        ("\"ES256\", \"EdDSA\"", "", "empty list of algorithms"),
        ("30s", "10m", "leeway of 10m"),
        ("30s", "30", "not a duration"),
        ("\"1h\"", "\"25h\"", "max_ttl of 1day 1h"),
        ("\"1h\"", "\"0s\"", "max_ttl of 0s"),
        ("\"1h\"", "\"1500ms\"", "whole number of seconds"),
        ("\"deploy:read\"", "\"deploy read\"", "scope \"deploy read\""),
        ("\"https://api.example.com\"", "", "names no audiences"),
        ("\"https://api.example.com\"", "\"\"", "audience \"\""),
        ("[role.deploy]", "[role.\"a b\"]", "\"a b\""),
        ("\"policy.cedar\"", "", "names no files"),
        ("kek_file = \"kek\"", "kek_file = \"kek\"\nkek_env = \"K\"", "both kek_file and kek_env"),
        ("leeway", "jwks_uri = \"http://a.example/k\"\nleeway", "jwks_uri"),
        ("leeway", "audiences = []\nleeway", "nothing can match"),
        ("leeway", "max_key_age = \"59s\"\nleeway", "max_key_age of 59s"),
        ("leeway", "max_key_age = \"31days\"\nleeway", "at most 30days"),
        ("\n[tls]", "trusted_proxies = [\"10.0.0.0/40\"]\n[tls]", "neither an address nor"),
        ("broker.example.com\"", "broker.example.com/a/:x\"", "may be ':x'"),
        ("broker.example.com\"", "broker.example.com/*x\"", "may be '*x'"),
    ] {
        assert!(GOOD.contains(find), "{find}");
        let error = refused(&GOOD.replacen(find, replace, 1));
        assert!(error.contains(says), "{replace}: {error}");
    }
}

#[test]
fn other_machines_are_let_in_only_on_purpose_and_over_tls() {
    let listen = |more: &str| format!("listen = \"0.0.0.0:8443\"\n{more}{GOOD}");
    assert!(refused(&listen("")).contains("expose is not true"));
    assert!(load_text(&listen("expose = true\n")).is_ok());
    let plain =
        GOOD.replace("[tls]\ncertificate = \"tls/broker.pem\"\nkey = \"/etc/tls/key.pem\"", "");
    assert!(load_text(&plain).is_ok());
    let exposed = format!("listen = \"0.0.0.0:8443\"\nexpose = true\n{plain}");
    assert!(refused(&exposed).contains("needs a [tls] table"));
}

#[test]
fn two_tables_for_one_issuer_are_refused() {
    let twice = format!("{GOOD}\n[trusted_issuer.b]\nissuer = \"https://login.example.com\"\n");
    assert!(refused(&twice).contains("the same issuer"));
}

#[test]
fn to_trust_everybody_takes_a_word_on_whose_tokens_count() {
    let with = |more: &str| {
        format!(
            "{GOOD}\n[trusted_issuer.ci]\nissuer = \"https://token.actions.githubusercontent.com\"\n{more}\n"
        )
    };
    let error = load_text(&with("")).unwrap_err();
    assert!(error.to_string().contains("[trusted_issuer.ci] trusts everybody"), "{error}");
    assert!(error.hints()[0].contains("repository_owner_id"), "{:?}", error.hints());
    assert!(load_text(&with("required_claims = { repository_id = \"1\" }")).is_ok());
    assert!(load_text(&with("clients = [\"a\"]")).is_ok());
}

#[test]
fn an_absent_file_is_an_error() {
    let error = load(Path::new("/nonexistent/broker.toml")).unwrap_err();
    assert!(error.to_string().contains("there is no /nonexistent"), "{error}");
}

#[test]
fn signing_keys_are_rotated_as_is_said_and_within_bounds() {
    let with =
        |more: &str| GOOD.replace("kek_file = \"kek\"", &format!("kek_file = \"kek\"\n{more}"));
    let day = Duration::from_secs(24 * 60 * 60);
    let default = load_text(GOOD).unwrap().keys;
    assert_eq!((default.rotate_every, default.publish_before), (Some(90 * day), day));
    let never = load_text(&with("rotate_every = \"never\"")).unwrap().keys;
    assert_eq!(never.rotate_every, None);
    let often = with("rotate_every = \"1h\"\npublish_before = \"15s\"");
    let often = load_text(&often).unwrap().keys;
    assert_eq!(often.rotate_every, Some(Duration::from_secs(3600)));
    for (bad, expected) in [
        ("publish_before = \"14s\"", "[keys] has a publish_before of 14s; it must be at least 15s"),
        ("publish_before = \"31d\"", "[keys] has a publish_before of 1month"),
        (
            "rotate_every = \"47h\"",
            "[keys] has a rotate_every of 1day 23h; it must be at least 2days",
        ),
        ("rotate_every = \"59m\"\npublish_before = \"15s\"", "no less than an hour"),
        ("rotate_every = \"seldom\"", "is not a duration"),
    ] {
        let error = load_text(&with(bad)).unwrap_err();
        let said = format!("{error} {:?}", error.causes());
        assert!(said.contains(expected), "{bad}: {said}");
    }
}
