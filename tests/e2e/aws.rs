//! Credentials of AWS: minted by real servers that speak the protocol of STS,
//! used by the AWS CLI and boto3.

mod ahead;
mod import;
mod install;
mod outages;
mod proofs;

use serde_json::Value;

use super::faults::at_clock;
use super::support::aws::{Moto, WRITER, Weed, aws_cli, python_program, weed_role};
use super::support::broker::{API, Broker, BrokerOptions};
use super::support::browser::Browser;
use super::support::canary::Canary;
use super::support::home::{Home, tmpcred, under_test};
use super::support::http::Http;
use super::support::oidc_provider::OidcProvider;
use super::support::run::Run;

/// A provider, and a person who is about to log in there.
struct World {
    provider: OidcProvider,
    home: Home,
    config: String,
}

impl World {
    fn start() -> Self {
        let provider = OidcProvider::start();
        let mut home = Home::new();
        Browser::http().user("alice", "x").install(&mut home);
        home.set("TMPCRED_NO_INPUT", "false");
        // Nothing is renewed in the background, so that each run has what it asked for.
        let config = format!(
            "[cache]\nstore = \"kernel\"\nrefresh_ahead = false\n\n[identity.corp]\ntype = \"oidc\"\nissuer = \"{}\"\n\
             client_id = \"cli\"\naudience_parameter = \"none\"\n",
            provider.issuer()
        );
        home.config(&config);
        Self { provider, home, config }
    }

    /// Adds this to the configuration.
    fn add(&mut self, toml: &str) {
        self.config += toml;
        self.home.config(&self.config);
    }

    /// Adds a profile with this role at this server; `more` goes into the target.
    fn profile(&mut self, name: &str, role: &str, server: &str, more: &str) {
        self.add(&format!(
            "\n[profile.{name}]\nrole = \"{role}\"\n\
             target = {{ type = \"aws\", endpoint_url = \"{server}\", region = \"eu-central-1\"{more} }}\n"
        ));
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        tmpcred(&self.home).args(args)
    }

    /// Lets the AWS profile `work` ask tmpcred for `profile`.
    fn aws_profile(&self, profile: &str) {
        let program = under_test().display();
        self.home.write(
            ".aws/config",
            format!(
                "[profile work]\nregion = eu-central-1\n\
                 credential_process = {program} credential-process {profile}\n"
            ),
        );
    }
}

const ROLE: &str = "arn:aws:iam::123456789012:role/deploy";
const IDENTITY: [&str; 4] = ["sts", "get-caller-identity", "--output", "json"];

#[test]
fn a_command_gets_what_the_aws_cli_needs_and_nothing_that_contradicts_it() {
    let moto = Moto::start(1);
    let mut world = World::start();
    world.profile("prod", ROLE, moto.url(), "");
    let aws = python_program("aws");
    let whoami = [&["exec", "prod", "--", aws.to_str().unwrap()], &IDENTITY[..]].concat();
    let run = world.tmpcred(&whoami).env("AWS_ENDPOINT_URL", moto.url());
    // Were one of these left, the AWS CLI would not get far.
    let run = run.env("AWS_PROFILE", "none").env("AWS_SECURITY_TOKEN", "stale");
    let me = run.run().ok().json();
    assert_eq!(me["Arn"], "arn:aws:sts::123456789012:assumed-role/deploy/tmpcred-alice");

    let show =
        "env | grep -E '^(AWS|TMPCRED)_' | sort | cut -d= -f1 | tr '\\n' ' '; echo $AWS_REGION";
    let shown = world.tmpcred(&["exec", "prod", "--", "sh", "-c", show]).env("AWS_PROFILE", "x");
    assert_eq!(
        shown.run().ok().stdout,
        "AWS_ACCESS_KEY_ID AWS_CREDENTIAL_EXPIRATION AWS_DEFAULT_REGION AWS_REGION \
         AWS_SECRET_ACCESS_KEY AWS_SESSION_TOKEN TMPCRED_ACTIVE_PROFILE TMPCRED_EXPIRES_AT \
         TMPCRED_MAPPED TMPCRED_NO_INPUT TMPCRED_ROLE eu-central-1\n"
    );
    let json = world.tmpcred(&["env", "prod", "--format", "json"]).run().ok().json();
    assert!(json.to_string().contains("AWS_SESSION_TOKEN"), "{json}");
    let refused = world.tmpcred(&["token", "prod"]).run().ended_with(2);
    assert!(refused.stderr.contains("tmpcred credential-process"), "{}", refused.stderr);
}

#[test]
fn the_aws_cli_and_boto3_ask_for_credentials_themselves() {
    let moto = Moto::start(1);
    let mut world = World::start();
    world.profile("prod", ROLE, moto.url(), "");
    world.aws_profile("prod");
    // Nobody is logged in, and nobody may be asked.
    let ask = ["credential-process", "prod"];
    let refused = world.tmpcred(&ask).run().ended_with(4);
    assert!(refused.stderr.contains("login required"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    world.tmpcred(&["login"]).run().ok();

    let answered = world.tmpcred(&ask).run().ok();
    assert_eq!(answered.stderr, "");
    let answer = answered.json();
    assert_eq!(answer["Version"], 1);
    let mut names: Vec<_> = answer.as_object().unwrap().keys().map(String::as_str).collect();
    names.sort_unstable();
    let expected = ["AccessKeyId", "Expiration", "SecretAccessKey", "SessionToken", "Version"];
    assert_eq!(names, expected);
    assert_eq!(world.tmpcred(&ask).run().ok().json(), answer, "the second answer is cached");

    // moto checks the signatures of these.
    let cli = aws_cli(&world.home, moto.url()).env("AWS_PROFILE", "work").args(IDENTITY);
    let arn = "arn:aws:sts::123456789012:assumed-role/deploy/tmpcred-alice";
    assert_eq!(cli.run().ok().json()["Arn"], arn);
    let script = "import boto3, sys\n\
        client = boto3.Session(profile_name='work').client('sts', endpoint_url=sys.argv[1])\n\
        print(client.get_caller_identity()['Arn'])";
    let python = world.home.command(python_program("python3")).args(["-c", script, moto.url()]);
    assert_eq!(python.run().ok().stdout.trim(), arn);
}

#[test]
fn who_asks_again_below_fifteen_minutes_gets_more_than_that() {
    let moto = Moto::start(9);
    let mut world = World::start();
    world.profile("prod", ROLE, moto.url(), "");
    world.tmpcred(&["login"]).run().ok();
    let get = |ttl: &str, offset: &str, command: &[&str]| {
        let all = [command, &["prod", "--ttl", ttl]].concat();
        at_clock(&world.home, offset).args(all).run().ok().json()
    };
    let answer =
        |ttl: &str, offset: &str| get(ttl, offset, &["credential-process"])["AccessKeyId"].clone();
    // What is good for 20 minutes is cached until a quarter of it is left; but not for
    // those who would ask again.
    let first = answer("20m", "+0m");
    assert_eq!(answer("20m", "+4m"), first, "it has 16 minutes left");
    let environment = get("20m", "+6m", &["env", "--format", "json"]);
    assert!(environment.to_string().contains(first.as_str().unwrap()), "{environment}");
    assert_ne!(answer("20m", "+6m"), first);
    let first = answer("1h", "+0m");
    assert_eq!(answer("1h", "+44m"), first);
    assert_ne!(answer("1h", "+46m"), first);
    // Where no new one would have more, not each call mints.
    let first = answer("15m", "+0m");
    assert_eq!(answer("15m", "+7m"), first, "more than half of its lifetime is left");
    assert_ne!(answer("15m", "+8m"), first);
}

#[test]
fn a_narrowed_credential_is_another_one() {
    let moto = Moto::start(9);
    let mut world = World::start();
    world.profile("prod", ROLE, moto.url(), "");
    world.tmpcred(&["login"]).run().ok();
    let policy = world.home.write("work/p.json", r#"{"Version":"2012-10-17","Statement":[]}"#);
    let get = |more: &[&str]| {
        let all = [&["credential-process", "prod"], more].concat();
        world.tmpcred(&all).run().ok().json()["AccessKeyId"].clone()
    };
    let path = policy.to_str().unwrap();
    let ways: [&[&str]; 4] = [
        &[],
        &["--read-only"],
        &["--policy", path],
        &["--policy-arn", "arn:aws:iam::aws:policy/AmazonS3ReadOnlyAccess"],
    ];
    let all: Vec<_> = ways.iter().map(|more| get(more)).collect();
    for (index, way) in ways.iter().enumerate() {
        assert_eq!(get(way), all[index], "{way:?} is cached");
        assert!(!all[..index].contains(&all[index]), "{way:?}");
    }
    std::fs::write(&policy, r#"{"Version":"2012-10-17"}"#).unwrap();
    assert_ne!(get(ways[2]), all[2], "what the file holds counts, not its name");
    let missing = world.tmpcred(&["env", "prod", "--policy", "none.json"]).run().ended_with(2);
    assert!(missing.stderr.contains("there is no file none.json"), "{}", missing.stderr);
}

#[test]
fn without_any_setting_the_id_token_is_what_aws_gets() {
    let moto = Moto::start(9);
    let mut world = World::start();
    world.config = world.config.replace("audience_parameter = \"none\"\n", "");
    world.profile("prod", ROLE, moto.url(), "");
    world.tmpcred(&["env", "prod"]).run().ok();
    // RFC 8707 knows URLs only, and what AWS is called in assertions is none.
    let requests = world.provider.requests();
    assert!(requests.iter().all(|request| request.resource.is_none()), "{requests:?}");
}

#[test]
fn credential_process_answers_only_what_it_can() {
    let mut world = World::start();
    world.profile("prod", ROLE, "http://127.0.0.1:9", "");
    world.add(&format!(
        "\n[broker.main]\nurl = \"http://127.0.0.1:9\"\n[profile.api]\nrole = \"r\"\naudience = \"{API}\"\n"
    ));
    let refused = world.tmpcred(&["credential-process", "api"]).run().ended_with(2);
    assert!(refused.stderr.contains("is not for AWS"), "{}", refused.stderr);
    // A credential process that is asked for by what it has started itself.
    let inner = world.tmpcred(&["credential-process", "prod"]);
    let refused = inner.env("TMPCRED_CREDENTIAL_PROCESS", "other prod").run().ended_with(3);
    assert!(refused.stderr.contains("are asked for"), "{}", refused.stderr);
    let other = world.tmpcred(&["credential-process", "prod"]);
    other.env("TMPCRED_CREDENTIAL_PROCESS", "other").run().ended_with(4);
    let refused = world.tmpcred(&["exec", "api", "--read-only", "--", "true"]).run();
    assert!(refused.stderr.contains("no session policies"), "{}", refused.stderr);
}

#[test]
fn an_identity_that_asks_for_the_credential_it_is_for_ends_at_once() {
    let home = Home::new();
    let program = under_test().display();
    home.config(&format!(
        "[identity.circle]\ntype = \"command\"\ncommand = [\"{program}\", \"credential-process\", \"prod\"]\n\
         [profile.prod]\nrole = \"{ROLE}\"\ntarget = {{ type = \"aws\", endpoint_url = \"http://127.0.0.1:9\" }}\n"
    ));
    // Whichever way it is asked for.
    for ask in [
        &["credential-process", "prod"][..],
        &["exec", "prod", "--", "true"],
        &["exec", "prod", "--renew", "--", "true"],
        &["env", "prod", "--format", "json"],
        &["token", "prod"],
        &["console", "prod", "--url"],
    ] {
        let refused = tmpcred(&home).args(ask).run();
        assert!(refused.code.is_some_and(|code| code != 0), "{ask:?}");
        if ask[0] != "token" {
            let said = "credentials for it are asked for";
            assert!(refused.stderr.contains(said), "{ask:?}: {}", refused.stderr);
        }
    }
}

#[test]
fn so_does_one_that_asks_the_aws_cli_which_asks_exec() {
    let home = Home::new();
    let (program, aws) = (env!("CARGO_BIN_EXE_tmpcred"), python_program("aws"));
    home.config(&format!(
        "[identity.circle]\ntype = \"command\"\n\
         command = [\"{}\", \"sts\", \"get-caller-identity\", \"--profile\", \"circle\", \"--region\", \"eu-central-1\"]\n\
         [profile.prod]\nrole = \"{ROLE}\"\ntarget = {{ type = \"aws\", endpoint_url = \"http://127.0.0.1:9\" }}\n",
        aws.display()
    ));
    home.write(
        ".aws/config",
        format!("[profile circle]\ncredential_process = {program} exec prod -- printenv\n"),
    );
    let refused = tmpcred(&home).args(["exec", "prod", "--", "printenv"]).run().ended_with(125);
    assert!(refused.stderr.contains("credentials for it are asked for"), "{}", refused.stderr);
    // The command itself is not one of those that are started to get it.
    let marked = tmpcred(&home).args(["exec", "--dev", "--", "printenv"]).run().ok();
    assert!(!marked.stdout.contains("TMPCRED_CREDENTIAL_PROCESS"), "{}", marked.stdout);
}

#[test]
fn a_role_is_assumed_with_another_ones_session() {
    // From the request behind the web identity on, moto checks everything.
    let (moto, strict) = (Moto::start(3), Moto::start(2));
    let (hub, plain) = (moto.role("hub", Some("sts:AssumeRole")), strict.role("plain", None));
    let mut world = World::start();
    let spoke = "arn:aws:iam::210987654321:role/spoke";
    let chain = format!(", chain = [{{ role_arn = \"{spoke}\", session_name = \"{{subject}}\" }}]");
    let accounts = format!("{chain}, expect_account = [\"210987654321\"]");
    world.profile("spoke", &hub, moto.url(), &accounts);
    world.profile("denied", &plain, strict.url(), &chain);
    let aws = python_program("aws");
    let whoami = [&["exec", "spoke", "--", aws.to_str().unwrap()], &IDENTITY[..]].concat();
    let me = world.tmpcred(&whoami).env("AWS_ENDPOINT_URL", moto.url()).run().ok().json();
    assert_eq!(me["Arn"], "arn:aws:sts::210987654321:assumed-role/spoke/alice");
    // moto writes this refusal in the form of another service, so its code is not read.
    let denied = world.tmpcred(&["env", "denied"]).run().ended_with(5);
    for part in ["role/spoke", "status 403"] {
        assert!(denied.stderr.contains(part), "{part}: {}", denied.stderr);
    }
    let long = world.tmpcred(&["env", "spoke", "--ttl", "2h"]).run().ended_with(2);
    assert!(long.stderr.contains("after 1h"), "{}", long.stderr);
    let plan = world.tmpcred(&["explain", "spoke", "--read-only"]).run().ok().stdout;
    for part in ["AssumeRoleWithWebIdentity of", "AssumeRole of", "policy/ReadOnlyAccess"] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
}

#[test]
fn what_the_settings_cannot_mean_is_an_error_of_the_configuration() {
    let mut world = World::start();
    world.profile("short", ROLE, "http://127.0.0.1:9", ", expect_account = [\"1\"]");
    let said = world.tmpcred(&["config", "check"]).run().ended_with(3).stderr;
    assert!(said.contains("twelve digits"), "{said}");
    let mut world = World::start();
    world.profile("role", "deploy", "http://127.0.0.1:9", "");
    world.profile("plain", ROLE, "http://sts.example", "");
    let said = world.tmpcred(&["config", "check"]).run().ended_with(3).stderr;
    assert!(said.contains("plain http is allowed to loopback only"), "{said}");
    let mut world = World::start();
    world.profile("role", "deploy", "http://127.0.0.1:9", "");
    let said = world.tmpcred(&["config", "check"]).run().ended_with(3).stderr;
    assert!(said.contains("this is no ARN such as"), "{said}");
    world.add("[profile.idle]\nextends = \"role\"\naudience = \"x\"\n");
    let said = world.tmpcred(&["explain", "idle"]).run().ended_with(3).stderr;
    assert!(said.contains("has no audience"), "{said}");
    let said = world.tmpcred(&["explain", "role", "--audience", "x"]).run().ended_with(2).stderr;
    assert!(said.contains("`--audience` cannot be used here"), "{said}");
    // What the SDK would make a name of that nobody has, or refuse when it is used.
    for (more, why) in [
        ("", "no global endpoint complies with FIPS 140"),
        (", endpoint_url = \"https://sts.example\"", "`endpoint_url` names another server"),
    ] {
        let mut world = World::start();
        world.add(&format!(
            "[profile.fips]\nrole = \"{ROLE}\"\ntarget = {{ type = \"aws\", use_fips = true{more} }}\n"
        ));
        let said = world.tmpcred(&["config", "check"]).run().ended_with(3).stderr;
        assert!(said.contains(why), "{said}");
    }
    // Which Identity Center it will be, and so whose region, is not known here.
    let mut world = World::start();
    world.add(&format!(
        "[identity.center]\ntype = \"aws-sso\"\nstart_url = \"https://example.awsapps.com/start\"\n\
         region = \"us-east-1\"\n[profile.fips]\nrole = \"Admin\"\ntarget = {{ type = \"aws-sso\", \
         account_id = \"111122223333\", use_fips = true, chain = [{{ role_arn = \"{ROLE}\" }}] }}\n"
    ));
    world.tmpcred(&["config", "check"]).run().ok();
}

#[test]
fn trust_policies_and_signatures_of_assertions_are_checked_for_real() {
    let mut world = World::start();
    let issuer = world.provider.issuer().to_string();
    let roles = [("alice", "alice"), ("mallory", "mallory")];
    let weed = Weed::start(&issuer, "cli", &world.provider.url("/jwks"), &roles);
    weed.put("bucket", "hello", "hi");
    world.profile("mine", &weed_role("alice"), weed.url(), "");
    world.profile("theirs", &weed_role("mallory"), weed.url(), "");
    let aws = python_program("aws");
    let get = ["s3api", "get-object", "--bucket", "bucket", "--key", "hello", "out"];
    let put = ["s3api", "put-object", "--bucket", "bucket", "--key", "mine"];
    let exec = |what: &[&str]| {
        let all = [&["exec", "mine", "--", aws.to_str().unwrap()], what].concat();
        world.tmpcred(&all).env("AWS_ENDPOINT_URL", weed.url()).run()
    };
    exec(&get).ok();
    assert_eq!(std::fs::read_to_string(world.home.path("work/out")).unwrap(), "hi");
    assert!(exec(&put).stderr.contains("AccessDenied"), "the role may only read");

    let denied = world.tmpcred(&["env", "theirs"]).run().ended_with(5);
    assert!(denied.stderr.contains("AWS gives no session of the role"), "{}", denied.stderr);

    // The same issuer, but these are not its keys: the signature is not good.
    let stranger = OidcProvider::start();
    let weed = Weed::start(&issuer, "cli", &stranger.url("/jwks"), &roles);
    world.profile("forged", &weed_role("alice"), weed.url(), "");
    // SeaweedFS says so in another way than AWS does, so the code is not looked at.
    let refused = world.tmpcred(&["env", "forged"]).run();
    assert!(refused.code != Some(0) && refused.stdout.is_empty());
    assert!(refused.stderr.contains("token signature is invalid"), "{}", refused.stderr);
}

#[test]
fn the_broker_is_an_issuer_for_clouds() {
    let mut world = World::start();
    let issuer = world.provider.issuer().to_string();
    let mut options = BrokerOptions::trusting(&issuer);
    options.more = format!(
        "\n[role.cloud]\naudiences = [\"{API}\"]\nmax_ttl = \"15m\"\n[role.cloud.aws]\n\
         tags = {{ team = \"platform\", who = \"{{subject}}\" }}\ntransitive_tags = [\"team\"]\n\
         source_identity = \"{{subject}}\"\n\n[role.lacking]\naudiences = [\"{API}\"]\n\
         max_ttl = \"15m\"\naws = {{ tags = {{ repo = \"{{claim:repository}}\" }} }}\n"
    );
    for role in ["cloud", "lacking"] {
        options.policy += &format!(
            "\n@id(\"{role}\") @ttl(\"15m\")\npermit(principal, action == Action::\"issue\", resource == Role::\"{role}\");"
        );
    }
    let broker = Broker::start(&options);
    let subject = format!("{issuer}#alice");
    let keys: Value = {
        let metadata = format!("{}/.well-known/openid-configuration", broker.url());
        Http::new().get(&metadata).unwrap().json()
    };
    let keys = keys["jwks_uri"].as_str().unwrap();
    let weed = Weed::start(broker.url(), API, keys, &[("deploy", &subject)]);
    world.add(&format!(
        "\n[broker.main]\nurl = \"{}\"\n\n[profile.cloud]\nexchange = [{{ role = \"cloud\" }}]\nrole = \"{}\"\n\
         target = {{ type = \"aws\", endpoint_url = \"{}\", audience = \"{API}\" }}\n",
        broker.url(),
        weed_role("deploy"),
        weed.url()
    ));
    let json = world.tmpcred(&["env", "cloud", "--format", "json"]).run().ok().json();
    assert!(json.to_string().contains("AWS_SESSION_TOKEN"), "{json}");
    assert_eq!(broker.issued(), 1);

    // What it was that AWS would read; SeaweedFS has no use for it.
    world.add(&format!("[profile.bare]\nrole = \"cloud\"\naudience = \"{API}\"\n"));
    let token = world.tmpcred(&["token", "bare"]).run().ok().stdout;
    let claims = world.tmpcred(&["inspect", "--json"]).stdin(token).run().ok().json();
    let claims = &claims["claims"];
    assert_eq!(
        claims["https://aws.amazon.com/tags"],
        serde_json::json!({
            "principal_tags": { "team": ["platform"], "who": ["alice"] },
            "transitive_tag_keys": ["team"],
        }),
        "{claims}"
    );
    assert_eq!(claims["https://aws.amazon.com/source_identity"], "alice");
    let lacking = world.tmpcred(&["token", "bare", "--role", "lacking"]).run().ended_with(5);
    assert!(lacking.stderr.contains("the claim 'repository'"), "{}", lacking.stderr);
    let plain = world.tmpcred(&["token", "bare", "--role", "deploy"]).run().ok().stdout;
    let claims = world.tmpcred(&["inspect", "--json"]).stdin(plain).run().ok().stdout;
    assert!(!claims.contains("aws.amazon.com"), "{claims}");
}

#[test]
fn no_part_of_a_credential_shows_in_any_log() {
    let moto = Moto::start(9);
    let mut world = World::start();
    let chain = ", chain = [{ role_arn = \"arn:aws:iam::210987654321:role/spoke\" }]";
    world.profile("prod", ROLE, moto.url(), chain);
    let all = |args: &[&str]| {
        let args = [&["-vv"], args].concat();
        world.tmpcred(&args).env("TMPCRED_LOG", "trace").env("RUST_LOG", "trace").run().ok()
    };
    let login = all(&["login"]);
    let answered = all(&["credential-process", "prod"]);
    let answer = answered.json();
    let said = login.stderr + &answered.stderr + &all(&["status"]).stderr;
    assert!(said.contains("AssumeRole"), "the SDK has logged something: {said}");
    for (name, part) in answer.as_object().unwrap() {
        if ["SecretAccessKey", "SessionToken"].contains(&name.as_str()) {
            let part = part.as_str().unwrap();
            assert!(Canary::of(name, part).search("logs", said.as_bytes()).is_empty(), "{name}");
        }
    }
    // Every JWT starts with this: `{"` in base64.
    assert!(!said.contains("eyJ"), "{said}");
}
