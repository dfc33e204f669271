//! What servers and clients that are not ours make of it: tokens of the broker that are
//! another's or not whole, and the AWS CLI that Debian packages.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use super::*;
use crate::faults::Impostor;
use crate::support::wait::free_port;

/// Debian's AWS CLI 2.9, besides the one of the Python packages.
const DEBIANS_CLI: &str = "/usr/bin/aws";

/// Somebody whom tokens of the broker may be for besides [`API`].
const ELSEWHERE: &str = "https://elsewhere.example.com";

#[test]
fn tokens_of_the_broker_are_good_for_their_own_subject_and_whole_only() {
    let mut world = World::start();
    let issuer = world.provider.issuer().to_string();
    let mut options = BrokerOptions::trusting(&issuer);
    options.more =
        format!("\n[role.elsewhere]\naudiences = [\"{ELSEWHERE}\"]\nmax_ttl = \"15m\"\n");
    options.policy += "\n@id(\"elsewhere\") @ttl(\"15m\")\n\
        permit(principal, action == Action::\"issue\", resource == Role::\"elsewhere\");";
    let broker = Broker::start(&options);
    let keys = format!("{}/jwks.json", broker.url());
    let roles = [("mine", &*format!("{issuer}#alice")), ("theirs", &*format!("{issuer}#mallory"))];
    let weed = Weed::start(broker.url(), API, &keys, &roles);
    world.add(&format!(
        "\n[broker.main]\nurl = \"{}\"\n\n[identity.raw]\ntype = \"env\"\nvariable = \"RAW\"\n",
        broker.url()
    ));
    world.add(&format!(
        "\n[profile.token]\nidentity = \"corp\"\nrole = \"deploy\"\naudience = \"{API}\"\n"
    ));
    for name in ["mine", "theirs"] {
        let target = format!(
            "role = \"{}\"\ntarget = {{ type = \"aws\", endpoint_url = \"{}\", audience = \"{API}\" }}\n",
            weed_role(name),
            weed.url()
        );
        world.add(&format!(
            "\n[profile.{name}]\nidentity = \"corp\"\nexchange = [{{ role = \"deploy\" }}]\n{target}\
             \n[profile.raw-{name}]\nidentity = \"raw\"\n{target}"
        ));
    }
    let ask = |name: &str| world.tmpcred(&["env", name, "--format", "json"]);
    assert!(ask("mine").run().ok().stdout.contains("AWS_SESSION_TOKEN"));
    let denied = ask("theirs").run().ended_with(5);
    assert!(denied.stderr.contains("AWS gives no session of the role"), "{}", denied.stderr);

    let token = world.tmpcred(&["token", "token"]).run().ok().stdout;
    let token = token.trim();
    ask("raw-mine").env("RAW", token).run().ok();
    ask("raw-theirs").env("RAW", token).run().ended_with(5);
    // The same subject and signature, for somebody else.
    let other = ["token", "token", "--role", "elsewhere", "--audience", ELSEWHERE];
    let other = world.tmpcred(&other).run().ok().stdout;
    let refused = ask("raw-mine").env("RAW", other.trim()).run();
    assert!(refused.code != Some(0) && refused.stdout.is_empty());
    assert!(refused.stderr.contains("audience"), "{}", refused.stderr);
    // Mallory's name in place of Alice's, under the broker's signature of Alice's.
    let parts: Vec<&str> = token.split('.').collect();
    let claims = URL_SAFE_NO_PAD.decode(parts[1]).unwrap();
    let claims = String::from_utf8(claims).unwrap();
    let changed = claims.replace("#alice", "#mallory");
    assert_ne!(changed, claims);
    let changed = [parts[0], &URL_SAFE_NO_PAD.encode(changed), parts[2]].join(".");
    // And the signature of nobody.
    let signature = URL_SAFE_NO_PAD.decode(parts[2]).unwrap();
    let signature: Vec<u8> = signature.iter().map(|byte| byte ^ 1).collect();
    let unsigned = [parts[0], parts[1], &URL_SAFE_NO_PAD.encode(signature)].join(".");
    for (name, tampered) in [("raw-theirs", changed), ("raw-mine", unsigned)] {
        let refused = ask(name).env("RAW", &tampered).run();
        assert!(refused.code != Some(0) && refused.stdout.is_empty(), "{name}");
        assert!(refused.stderr.contains("signature is invalid"), "{}", refused.stderr);
    }
}

#[test]
fn a_session_policy_narrows_what_a_token_of_the_broker_gets() {
    let mut world = World::start();
    let issuer = world.provider.issuer().to_string();
    let broker = Broker::start(&BrokerOptions::trusting(&issuer));
    let keys = format!("{}/jwks.json", broker.url());
    let subject = format!("{issuer}#alice");
    let weed = Weed::start(broker.url(), API, &keys, &[(WRITER, &subject)]);
    weed.put("bucket", "hello", "hi");
    world.add(&format!(
        "\n[broker.main]\nurl = \"{}\"\n\n[profile.mine]\nexchange = [{{ role = \"deploy\" }}]\n\
         role = \"{}\"\ntarget = {{ type = \"aws\", endpoint_url = \"{}\", audience = \"{API}\" }}\n",
        broker.url(),
        weed_role(WRITER),
        weed.url()
    ));
    let policy = serde_json::json!({ "Version": "2012-10-17", "Statement": [{ "Effect": "Allow",
        "Action": ["s3:GetObject"], "Resource": ["arn:aws:s3:::bucket/*"] }] });
    world.home.write("work/p.json", policy.to_string());
    let aws = python_program("aws");
    let s3 = |more: &[&str], call: &[&str]| {
        let all = [&["exec", "mine"], more, &["--", aws.to_str().unwrap(), "s3api"], call].concat();
        let run = world.tmpcred(&all).env("AWS_ENDPOINT_URL", weed.url());
        run.env("AWS_DEFAULT_REGION", "us-east-1").run()
    };
    let get = ["get-object", "--bucket", "bucket", "--key", "hello", "out"];
    let put = ["put-object", "--bucket", "bucket", "--key", "mine"];
    let list = ["list-objects-v2", "--bucket", "bucket"];
    s3(&[], &put).ok();
    s3(&[], &list).ok();
    s3(&["--policy", "p.json"], &get).ok();
    assert_eq!(std::fs::read_to_string(world.home.path("work/out")).unwrap(), "hi");
    for call in [&put[..], &list] {
        let refused = s3(&["--policy", "p.json"], call);
        assert!(refused.stderr.contains("AccessDenied"), "{call:?}: {}", refused.stderr);
    }
}

#[test]
fn a_session_of_another_account_than_expected_reaches_no_command() {
    let elsewhere = ROLE.replace("123456789012", "210987654321").replace(":iam:", ":sts:");
    let session = elsewhere.replace(":role/", ":assumed-role/");
    // Every real peer gives a session of the role that was asked for.
    let body = format!(
        "<AssumeRoleWithWebIdentityResponse><AssumeRoleWithWebIdentityResult><Credentials>\
         <AccessKeyId>ASIAELSEWHERE</AccessKeyId><SecretAccessKey>x</SecretAccessKey>\
         <SessionToken>x</SessionToken><Expiration>2099-01-01T00:00:00Z</Expiration></Credentials>\
         <AssumedRoleUser><AssumedRoleId>AROA:x</AssumedRoleId><Arn>{session}/x</Arn></AssumedRoleUser>\
         </AssumeRoleWithWebIdentityResult></AssumeRoleWithWebIdentityResponse>"
    );
    let port = free_port();
    let _sts = Impostor::at(port, "200 OK", "Content-Type: text/xml\r\n", &body);
    let mut world = World::start();
    let url = format!("http://127.0.0.1:{port}");
    world.profile("any", ROLE, &url, "");
    world.profile("ours", ROLE, &url, ", expect_account = [\"123456789012\"]");
    let exec = |name: &str| world.tmpcred(&["exec", name, "--", "touch", name]);
    exec("any").run().ok();
    assert!(world.home.path("work/any").exists());
    let refused = exec("ours").run().ended_with(125);
    assert!(refused.stderr.contains("210987654321"), "{}", refused.stderr);
    assert!(!world.home.path("work/ours").exists());
}

#[test]
fn the_aws_cli_of_a_distribution_takes_both_ways() {
    let moto = Moto::start(1);
    let mut world = World::start();
    world.profile("prod", ROLE, moto.url(), "");
    world.aws_profile("prod");
    world.tmpcred(&["login"]).run().ok();
    let cli = |version: &str| {
        let said = world.home.command(DEBIANS_CLI).args(["--version"]).run().ok().stdout;
        assert!(said.starts_with(version), "{said}: run tests/setup, it installs awscli");
        ["--endpoint-url", moto.url(), "sts", "get-caller-identity", "--output", "json"]
    };
    let whoami = cli("aws-cli/2.9");
    let arn = "arn:aws:sts::123456789012:assumed-role/deploy/tmpcred-alice";
    let plain = [&["exec", "prod", "--", DEBIANS_CLI], &whoami[..]].concat();
    assert_eq!(world.tmpcred(&plain).run().ok().json()["Arn"], arn);
    let asks = world.home.command(DEBIANS_CLI).env("AWS_EC2_METADATA_DISABLED", "true");
    let asks = asks.env("AWS_PROFILE", "work").args(whoami);
    assert_eq!(asks.run().ok().json()["Arn"], arn);
}

#[test]
fn a_brokers_token_that_was_a_step_is_dead_once_it_has_served_a_ci_job() {
    let moto = Moto::start(99);
    let mut world = World::start();
    let broker = Broker::start(&BrokerOptions::trusting(world.provider.issuer()));
    world.add(&format!(
        "\n[broker.main]\nurl = \"{}\"\n\n[profile.cloud]\nidentity = \"corp\"\nexchange = [{{ role = \"deploy\" }}]\nrole = \"{ROLE}\"\n\
         target = {{ type = \"aws\", endpoint_url = \"{}\", audience = \"{API}\" }}\n",
        broker.url(),
        moto.url()
    ));
    // The last token that was shown to STS, as STS itself wrote it down.
    let active = || {
        let request = moto.last_asked("WebIdentityToken=");
        let mut form = url::form_urlencoded::parse(request.as_bytes());
        let token = form.find(|(name, _)| name == "WebIdentityToken").unwrap().1.into_owned();
        assert_eq!(token.split('.').count(), 3, "{token}");
        let url = format!("{}/introspect", broker.url());
        let reply = Http::new().form_as(&token, &url, &[("token", &token)]).unwrap();
        assert_eq!(reply.status, 200, "{}", reply.body);
        reply.json()["active"].clone()
    };
    let exec = |more: &[&str]| {
        let whoami = [&["exec", "cloud"], more, &["--", "printenv", "AWS_SESSION_TOKEN"]].concat();
        world.tmpcred(&whoami).env("CI", "true").run().ok()
    };
    // A person's, and that of whoever turned it off, ends by itself.
    world.tmpcred(&["exec", "cloud", "--", "true"]).run().ok();
    assert_eq!(active(), true);
    exec(&["--refresh", "--revoke-on-exit=false", "--mask=false"]);
    assert_eq!(active(), true);
    let job = exec(&["--refresh", "--mask=false"]);
    assert!(!job.stdout.is_empty() && !job.stderr.contains("warning"), "{}", job.stderr);
    assert_eq!(active(), false);
}
