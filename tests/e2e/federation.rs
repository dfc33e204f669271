//! Federation with Ceph's object gateway: it verifies assertions by certified keys,
//! and enforces trust policies and session policies.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::json;

use super::faults::at_clock;
use super::support::aws::python_program;
use super::support::browser::Browser;
use super::support::home::{Home, tmpcred};
use super::support::oidc_provider::{CLIENT, CLIENT_WITHOUT_REFRESH, OidcOptions, OidcProvider};
use super::support::radosgw::Radosgw;
use super::support::run::Run;

/// A gateway that trusts a provider, and a home whose person is about to log in there.
struct World {
    gateway: Radosgw,
    provider: OidcProvider,
    home: Home,
    config: String,
}

impl World {
    fn start() -> Self {
        let provider = certified();
        let gateway = Radosgw::start();
        gateway.trust(provider.issuer());
        gateway.put("bucket", "hello", "hi");
        let mut home = Home::new();
        Browser::http().user("alice", "x").install(&mut home);
        home.set("TMPCRED_NO_INPUT", "false");
        let config =
            "[cache]\nstore = \"kernel\"\n".to_string() + &identity("corp", CLIENT, &provider);
        home.config(&config);
        Self { gateway, provider, home, config }
    }

    fn add(&mut self, toml: &str) {
        self.config += toml;
        self.home.config(&self.config);
    }

    /// Adds a profile with this identity and role; `more` goes into the target.
    fn profile(&mut self, name: &str, identity: &str, role: &str, more: &str) {
        let url = self.gateway.url().to_string();
        self.add(&format!(
            "\n[profile.{name}]\nidentity = \"{identity}\"\nrole = \"{role}\"\n\
             target = {{ type = \"aws\", endpoint_url = \"{url}\", region = \"us-east-1\"{more} }}\n"
        ));
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        tmpcred(&self.home).args(args)
    }

    /// What the AWS CLI says that runs with these options of `exec`.
    fn s3(&self, exec: &[&str], call: &[&str]) -> Run {
        let aws = python_program("aws");
        let all = [&["exec"], exec, &["--", aws.to_str().unwrap(), "s3api"], call].concat();
        self.tmpcred(&all).env("AWS_ENDPOINT_URL", self.gateway.url())
    }
}

fn certified() -> OidcProvider {
    OidcProvider::start_with(&OidcOptions { certified_keys: true, ..Default::default() })
}

fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

fn identity(name: &str, client: &str, provider: &OidcProvider) -> String {
    format!(
        "\n[identity.{name}]\ntype = \"oidc\"\nissuer = \"{}\"\nclient_id = \"{client}\"\n\
         audience_parameter = \"none\"\n",
        provider.issuer()
    )
}

const GET: [&str; 6] = ["get-object", "--bucket", "bucket", "--key", "hello", "out"];
const PUT: [&str; 5] = ["put-object", "--bucket", "bucket", "--key", "mine"];

#[test]
fn trust_policies_and_session_policies_are_enforced() {
    let mut world = World::start();
    let issuer = world.provider.issuer().to_string();
    let may = ["s3:GetObject", "s3:PutObject"];
    let mine = world.gateway.web_role("mine", &issuer, "alice", &may);
    let theirs = world.gateway.web_role("theirs", &issuer, "mallory", &may);
    world.profile("mine", "corp", &mine, "");
    world.profile("theirs", "corp", &theirs, "");
    world.s3(&["mine"], &GET).run().ok();
    assert_eq!(std::fs::read_to_string(world.home.path("work/out")).unwrap(), "hi");
    world.s3(&["mine"], &PUT).run().ok();

    // The same role, less of it. The gateway's reader of policies wants no spaces.
    let policy = json!({ "Version": "2012-10-17", "Statement":
        [{ "Effect": "Allow", "Action": ["s3:GetObject"], "Resource": "arn:aws:s3:::*" }] });
    world.home.write("work/p.json", policy.to_string());
    let narrowed = ["mine", "--policy", "p.json"];
    world.s3(&narrowed, &GET).run().ok();
    // The AWS CLI cannot read how the gateway says no.
    assert_ne!(world.s3(&narrowed, &PUT).run().code, Some(0));

    let denied = world.tmpcred(&["env", "theirs"]).run().ended_with(5);
    assert!(denied.stderr.contains("role/theirs") && denied.stdout.is_empty(), "{}", denied.stderr);

    // As the provider would say it, but the provider has not signed it.
    let encode = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let header = json!({ "alg": "RS256", "typ": "JWT", "kid": "rsa-1" });
    let claims =
        json!({ "iss": issuer, "sub": "alice", "aud": "cli", "iat": now(), "exp": now() + 600 });
    let forged = [header, claims].map(|part| encode(part.to_string().as_bytes())).join(".");
    let forged = format!("{forged}.{}", encode(&[7; 256]));
    world.add("\n[identity.forger]\ntype = \"env\"\nvariable = \"FORGED\"\n");
    world.profile("forged", "forger", &mine, ", audience = \"cli\"");
    let refused = world.tmpcred(&["env", "forged"]).env("FORGED", forged).run().ended_with(5);
    assert!(refused.stderr.contains("AWS gives no session"), "{}", refused.stderr);
}

#[test]
fn an_assertion_for_another_audience_gets_no_session() {
    let mut world = World::start();
    let issuer = world.provider.issuer().to_string();
    let may = ["s3:GetObject"];
    let mine = world.gateway.web_role("mine", &issuer, "alice", &may);
    let theirs =
        world.gateway.web_role_for(CLIENT_WITHOUT_REFRESH, "theirs", &issuer, "alice", &may);
    let another = identity("another", CLIENT_WITHOUT_REFRESH, &world.provider);
    world.add(&another);
    world.profile("mine", "corp", &mine, "");
    world.s3(&["mine"], &GET).run().ok();
    // The gateway knows the issuer, but not for this client; and the one that it knows is
    // not whom the trust policy names.
    world.profile("unknown", "another", &mine, "");
    world.profile("theirs", "corp", &theirs, "");
    for name in ["unknown", "theirs"] {
        let refused = world.tmpcred(&["env", name]).run().ended_with(5);
        assert!(refused.stderr.contains("AWS gives no session"), "{name}: {}", refused.stderr);
        assert_eq!(refused.stdout, "", "{name}");
    }
}

#[test]
fn a_session_assumes_the_next_role_where_that_role_trusts_it() {
    let mut world = World::start();
    let issuer = world.provider.issuer().to_string();
    let hub = world.gateway.web_role("hub", &issuer, "alice", &["sts:AssumeRole"]);
    let trusting = |who: &str| json!({ "Effect": "Allow", "Principal": { "AWS": [who] }, "Action": ["sts:AssumeRole"] });
    let spoke = world.gateway.role("spoke", trusting("arn:aws:iam:::role/hub"), &["s3:GetObject"]);
    let closed =
        world.gateway.role("closed", trusting("arn:aws:iam:::user/nobody"), &["s3:GetObject"]);
    world.profile("spoke", "corp", &hub, &format!(", chain = [{{ role_arn = \"{spoke}\" }}]"));
    world.profile("closed", "corp", &hub, &format!(", chain = [{{ role_arn = \"{closed}\" }}]"));
    world.s3(&["spoke"], &GET).run().ok();
    let denied = world.tmpcred(&["env", "closed"]).run().ended_with(5);
    assert!(denied.stderr.contains("role/closed"), "{}", denied.stderr);
}

#[test]
fn access_keys_get_a_session_of_their_user() {
    let mut world = World::start();
    world.gateway.allow_session_tokens();
    let name = format!("gateway-{}", world.gateway.url().rsplit(':').next().unwrap());
    world.add(&format!("\n[identity.{name}]\ntype = \"aws-keys\"\n"));
    let admin = "arn:aws:iam:::user/admin";
    world.profile("admin", &name, admin, "");
    let trust =
        json!({ "Effect": "Allow", "Principal": { "AWS": [admin] }, "Action": ["sts:AssumeRole"] });
    let spoke = world.gateway.role("spoke", trust, &["s3:GetObject"]);
    world.profile("spoke", &name, admin, &format!(", chain = [{{ role_arn = \"{spoke}\" }}]"));
    let login = world.tmpcred(&["login", &name, "--stdin"]).stdin("ADMIN\nadminsecret\n");
    login.run().ok();
    world.s3(&["admin"], &GET).run().ok();
    world.s3(&["spoke"], &GET).run().ok();
    assert_ne!(world.s3(&["spoke"], &PUT).run().code, Some(0));
    world.s3(&["admin"], &PUT).run().ok();
    // The gateway takes no signature of another time.
    for offset in ["+20m", "-20m"] {
        let env = ["env", "admin", "--refresh", "--format", "json"];
        let late = at_clock(&world.home, offset).args(env).run().ok();
        assert!(late.stderr.contains("clock is"), "{}", late.stderr);
    }
}
