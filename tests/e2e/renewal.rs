//! Renewal: credentials of a few seconds, at a server that lets them end, in the
//! hands of programs that run for longer.

use super::support::aws::python_program;
use super::support::browser::Browser;
use super::support::home::{Home, tmpcred};
use super::support::oidc_provider::{OidcOptions, OidcProvider};
use super::support::radosgw::Radosgw;
use super::support::run::Run;

/// A gateway that trusts a provider, a role there for alice, an object that it may
/// read, and the profile `short`, whose credentials are good for three seconds.
struct World {
    provider: OidcProvider,
    gateway: Radosgw,
    home: Home,
}

impl World {
    fn start() -> Self {
        let options = OidcOptions { certified_keys: true, ..Default::default() };
        let provider = OidcProvider::start_with(&options);
        let gateway = Radosgw::start();
        gateway.trust(provider.issuer());
        gateway.put("bucket", "hello", "hi");
        let role = gateway.web_role("reader", provider.issuer(), "alice", &["s3:GetObject"]);
        let mut home = Home::new();
        Browser::http().user("alice", "x").install(&mut home);
        home.set("TMPCRED_NO_INPUT", "false");
        home.config(&format!(
            "[cache]\nstore = \"kernel\"\n\n[identity.corp]\ntype = \"oidc\"\nissuer = \"{}\"\n\
             client_id = \"cli\"\naudience_parameter = \"none\"\n\n\
             [profile.short]\nrole = \"{role}\"\nttl = \"3s\"\n\
             target = {{ type = \"aws\", endpoint_url = \"{}\", region = \"us-east-1\" }}\n",
            provider.issuer(),
            gateway.url(),
        ));
        Self { provider, gateway, home }
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        tmpcred(&self.home).args(args).env("AWS_ENDPOINT_URL", self.gateway.url())
    }
}

/// Reads the object again and again for as many seconds as it is told, and says how
/// that went.
const READER: &str = r#"
import boto3, sys, time
from botocore.config import Config
config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
s3 = boto3.client("s3", config=config, endpoint_url=sys.argv[1])
end = time.time() + float(sys.argv[2])
keys, count = set(), 0
while time.time() < end:
    try:
        s3.get_object(Bucket="bucket", Key="hello")["Body"].read()
    except Exception as e:
        print("refused after", count, type(e).__name__, e)
        sys.exit(7)
    keys.add(s3._request_signer._credentials.get_frozen_credentials().access_key)
    count += 1
    time.sleep(0.05)
print("read", count, "times with", len(keys), "keys")
"#;

#[test]
fn without_renewal_a_run_dies_of_an_expired_credential() {
    let world = World::start();
    let python = python_program("python3");
    let run = ["exec", "short", "--", python.to_str().unwrap(), "-c", READER, world.gateway.url()];
    let refused = world.tmpcred(&[&run[..], &["9"]].concat()).run().ended_with(7);
    assert!(refused.stdout.contains("refused after"), "{}", refused.stdout);
    assert_eq!(world.provider.count_grants("authorization_code"), 1);
}

#[test]
fn aws_sdks_and_clis_work_for_longer_than_a_credential_lives() {
    let world = World::start();
    let python = python_program("python3");
    // More than three times three seconds.
    let read = [python.to_str().unwrap(), "-c", READER, world.gateway.url(), "11"];
    let exec = ["exec", "short", "--renew", "--"];
    let running = world.tmpcred(&[&exec[..], &read].concat()).spawn();
    let loops = [python_program("aws"), "/usr/bin/aws".into()].map(|cli| {
        let cli = cli.to_str().unwrap().to_string();
        let script = format!(
            "{cli} --version; for i in 1 2 3 4 5 6; do \
             {cli} --endpoint-url {} s3api get-object --bucket bucket --key hello out-$$ >done-$$ \
             || exit 1; sleep 1.5; done; cat out-$$",
            world.gateway.url()
        );
        world.tmpcred(&[&exec[..], &["sh", "-c", &script]].concat()).spawn()
    });
    let read = running.wait().ok();
    assert!(read.stdout.starts_with("read "), "{}", read.stdout);
    assert_eq!(read.stderr, "");
    for looped in loops {
        let looped = looped.wait().ok();
        assert!(looped.stdout.starts_with("aws-cli/"), "{}", looped.stdout);
        assert!(looped.stdout.ends_with("hi"), "{} {}", looped.stdout, looped.stderr);
    }
    assert_eq!(world.provider.count_grants("authorization_code"), 1);
}
