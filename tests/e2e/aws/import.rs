//! `config import aws`: what AWS's own tools are configured for works here as well.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::*;

const IMPORT: &[&str] = &["config", "import", "aws", "--yes"];

/// A home with a web identity's token, and this configuration of AWS's tools. `SERVER` and
/// `TOKEN` stand for what their names say.
fn home(config: &str, server: &str) -> Home {
    let home = Home::new();
    let part = |claims: Value| URL_SAFE_NO_PAD.encode(claims.to_string());
    let claims = json!({
        "iss": "https://cluster.example.com",
        "sub": "system:serviceaccount:shop:web",
        "aud": ["sts.amazonaws.com"],
        "iat": 1_700_000_000_u32,
        "exp": 4_000_000_000_u32,
    });
    let token = format!("{}.{}.c2ln", part(json!({ "alg": "RS256" })), part(claims));
    let token = home.write("token", token);
    let config = config.replace("SERVER", server).replace("TOKEN", token.to_str().unwrap());
    home.write(".aws/config", config);
    home
}

const PODS: &str = "[profile pod]
role_arn = arn:aws:iam::123456789012:role/pod
web_identity_token_file = TOKEN
role_session_name = web
region = eu-central-1
endpoint_url = SERVER
output = json

[profile ops]
role_arn = arn:aws:iam::210987654321:role/ops
source_profile = pod
role_session_name = ops
region = eu-central-1
endpoint_url = SERVER
duration_seconds = 900
mfa_process = ask-me

[profile long]
role_arn = arn:aws:iam::210987654321:role/ops
source_profile = pod
duration_seconds = 7200

[profile people]
sso_session = corp
sso_account_id = 123456789012
sso_role_name = admin

[profile old]
role_arn = arn:aws:iam::123456789012:role/x
source_profile = stored

[sso-session corp]
sso_start_url = https://example.awsapps.com/start
sso_region = eu-west-1
";

#[test]
fn what_was_imported_gets_the_sessions_that_the_aws_cli_gets() {
    let moto = Moto::start(10_000);
    let home = home(PODS, moto.url());
    let canary = Canary::new("long-lived key");
    let keys = format!("[stored]\naws_secret_access_key = {}\n", canary.value());
    home.write(".aws/credentials", keys);
    let output = tmpcred(&home).args(IMPORT).run().ok();
    // What this program has an identity source for.
    let has = |kind: &str| tmpcred::identity::KINDS.contains(&kind);
    let people = "not taken over  people log in at IAM Identity Center for it";
    let old = "not taken over  it starts from the profile stored: it has long-lived keys";
    let or_taken = |kind: &str, not: &'static str| if has(kind) { "taken over" } else { not };
    for (profile, part) in [
        ("pod", "taken over      all that it says of credentials; AWS's tools keep output"),
        ("ops", "taken over      what it says of credentials, but without `mfa_process`"),
        ("people", or_taken("aws-sso", people)),
        ("old", or_taken("aws-keys", old)),
        ("long", "not taken over"),
    ] {
        let row = output.stdout.lines().find(|line| line.starts_with(&format!("{profile} ")));
        let row = row.unwrap_or_else(|| panic!("{profile} is not in:\n{}", output.stdout));
        assert!(row[profile.len()..].trim().starts_with(part), "{part:?} is not in:\n{row}");
    }
    assert!(output.stdout.contains("+[profile.ops]"), "{}", output.stdout);
    let text = fs::read_to_string(home.path(".config/tmpcred/config.toml")).unwrap();
    assert_eq!(canary.search("the configuration", text.as_bytes()), []);
    assert_eq!(canary.search("what was said", output.stdout.as_bytes()), []);
    tmpcred(&home).args(["config", "check"]).run().ok();

    let aws = python_program("aws");
    for (profile, arn) in [
        ("pod", "arn:aws:sts::123456789012:assumed-role/pod/web"),
        ("ops", "arn:aws:sts::210987654321:assumed-role/ops/ops"),
    ] {
        let theirs = aws_cli(&home, moto.url()).env("AWS_PROFILE", profile).args(IDENTITY);
        assert_eq!(theirs.run().ok().json()["Arn"], arn);
        let words = [&["exec", profile, "--", aws.to_str().unwrap()], &IDENTITY[..]].concat();
        let ours = tmpcred(&home).args(words).env("AWS_ENDPOINT_URL", moto.url());
        assert_eq!(ours.run().ok().json()["Arn"], arn);
    }
    // Again: everything is there.
    let again = tmpcred(&home).args(["config", "import", "aws", "--json", "--yes"]).run().ok();
    let report = again.json();
    assert_eq!((&report["written"], &report["taken_over"]), (&json!(false), &json!([])));
    let why = |profile: &str| {
        let all = report["not_taken_over"].as_array().unwrap();
        let one = all.iter().find(|left| left["profile"] == profile).unwrap();
        one["because"].as_str().unwrap().to_string()
    };
    let longer = "AWS ends the session of a role that another role assumed after 1h";
    assert!(why("long").contains(longer) && !why("long").contains('\n'), "{report}");
    assert_eq!(why("ops"), "there is a profile ops already");
    assert_eq!(fs::read_to_string(home.path(".config/tmpcred/config.toml")).unwrap(), text);
}

#[test]
fn what_is_configured_already_stays_as_it_is() {
    let home = home(PODS, "https://sts.example.com");
    let before = "# mine\n[identity.corp]\ntype = \"oidc\"\nissuer = \"https://i.example.com\"\n\
                  client_id = \"c\"\n\n[profile.prod]\nIDENTITYrole = \"arn:aws:iam::123456789012:role/p\"\n\
                  target = { type = \"aws\", region = \"eu-west-1\" }";
    let unnamed = before.replace("IDENTITY", "");
    let path = home.config(&unnamed);
    let pod = [IMPORT, &["--profile", "pod"]].concat();
    // With two identities, the profile would not know which is its own.
    let refused = tmpcred(&home).args(&pod).run().ended_with(3);
    for part in ["the profile prod uses corp, and does not say so", "write `identity = \"corp\"`"] {
        assert!(refused.stderr.contains(part), "{part:?} is not in:\n{}", refused.stderr);
    }
    assert_eq!(fs::read_to_string(&path).unwrap(), unnamed);
    let named = before.replace("IDENTITY", "identity = \"corp\"\n");
    home.config(&named);
    // Looking changes nothing.
    let look = ["config", "import", "aws", "--json", "--profile", "pod"];
    let report = tmpcred(&home).args(look).run().ok().json();
    assert_eq!(report["written"], false);
    assert_eq!(report["taken_over"][0]["kept_there"], json!(["output"]));
    assert_eq!(report["taken_over"][0]["lacks"], json!([]));
    let ops = ["config", "import", "aws", "--json", "--profile", "ops"];
    let report = tmpcred(&home).args(ops).run().ok().json();
    assert_eq!(report["taken_over"][0]["lacks"], json!(["`mfa_process`"]), "{report}");
    assert_eq!(fs::read_to_string(&path).unwrap(), named);
    tmpcred(&home).args(&pod).run().ok();
    let text = fs::read_to_string(&path).unwrap();
    assert!(text.starts_with(&(named + "\n\n[identity.aws-pod]\n")), "{text}");
    assert!(!text.contains("[profile.ops]"), "{text}");
    for (profile, identity) in [("prod", "corp"), ("pod", "aws-pod")] {
        let plan = tmpcred(&home).args(["explain", profile, "--json"]).run().ok().json();
        assert_eq!(plan["plan"]["identity"]["name"], identity, "{plan}");
    }
}

#[test]
fn what_cannot_be_read_or_is_not_there_is_named() {
    let home = home("[profile a]\nrole_arn\n", "");
    let broken = tmpcred(&home).args(IMPORT).run().ended_with(3);
    for part in ["AWS's tools cannot be read", "line 2", ".aws/config"] {
        assert!(broken.stderr.contains(part), "{part:?} is not in:\n{}", broken.stderr);
    }
    home.write(".aws/config", "[profile a]\nregion = x\n");
    let none = tmpcred(&home).args(IMPORT).args(["--profile", "b"]).run().ended_with(2);
    assert!(none.stderr.contains("there is no profile b"), "{}", none.stderr);
    let nothing = tmpcred(&home).args(IMPORT).run().ok();
    assert!(nothing.stderr.contains("nothing can be taken over"), "{}", nothing.stderr);
    assert!(!home.path(".config/tmpcred/config.toml").exists());
    fs::remove_file(home.path(".aws/config")).unwrap();
    let gone = tmpcred(&home).args(IMPORT).run().ended_with(3);
    assert!(gone.stderr.contains("there is no"), "{}", gone.stderr);
}
