//! Roles behind the one that IAM Identity Center assigns, and what the region of the
//! Identity Center decides.

use aws_lc_rs::digest::{SHA256, digest};

use super::*;
use crate::support::home::assert_root;

const ACCOUNT: &str = "111122223333";
const SPOKE: &str = "arn:aws:iam::210987654321:role/spoke";

/// What the stand-in calls a permission set of the account, as AWS does.
fn reserved(role: &str) -> String {
    let hash = digest(&SHA256, ACCOUNT.as_bytes());
    let hash: String = hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
    format!("AWSReservedSSO_{role}_{}", &hash[..16])
}

/// A person with a profile that goes on from a permission set to another role.
struct Chain {
    moto: Moto,
    world: World,
}

impl Chain {
    /// `role` is the permission set; `more` is said of the next role.
    fn start(moto: Moto, role: &str, more: &str) -> Self {
        let chain = Self { world: World::start(Some(moto.url())), moto };
        chain.configure(role, more);
        chain
    }

    fn configure(&self, role: &str, more: &str) {
        self.world.home.config(&format!(
            "{}\n[profile.spoke]\nrole = \"{role}\"\n[profile.spoke.target]\ntype = \"aws-sso\"\n\
             account_id = \"{ACCOUNT}\"\nendpoint_url = \"{}\"\n\
             chain = [{{ role_arn = \"{SPOKE}\", session_name = \"me\"{more} }}]\n",
            config(&self.world.center),
            self.moto.url()
        ));
    }

    fn whoami(&self, more: &[&str]) -> String {
        let aws = python_program("aws");
        let all = [&["exec", "spoke"], more, &["--", aws.to_str().unwrap()], &IDENTITY].concat();
        let run = self.world.tmpcred(&all).env("AWS_ENDPOINT_URL", self.moto.url());
        let me = run.env("AWS_DEFAULT_REGION", "us-east-1").run().ok().json();
        me["Arn"].as_str().unwrap().into()
    }

    fn asked(&self) -> usize {
        self.world.center.count("/federation/credentials")
    }
}

const SESSION: &str = "arn:aws:sts::210987654321:assumed-role/spoke/me";

#[test]
fn the_next_role_is_assumed_with_the_session_of_the_permission_set() {
    // From the request behind those of the set-up and of Identity Center on, moto checks
    // signatures, session tokens and permissions.
    let strict = |role: &str, may: &str| {
        let moto = Moto::start(4);
        moto.permission_set(ACCOUNT, &reserved(role), may);
        Chain::start(moto, role, "")
    };
    let may = strict("Admin", "sts:AssumeRole");
    assert_eq!(may.whoami(&[]), SESSION);
    assert_eq!(may.whoami(&[]), SESSION);
    assert_eq!(may.asked(), 1, "it is cached");

    let may_not = strict("ReadOnly", "s3:GetObject");
    let denied = may_not.world.tmpcred(&["env", "spoke"]).run().ended_with(5);
    assert!(denied.stderr.contains(SPOKE), "{}", denied.stderr);
    assert!(denied.stderr.contains("status 403"), "{}", denied.stderr);
}

#[test]
fn what_is_said_of_the_next_role_is_asked_for_and_part_of_the_plan() {
    let chain = Chain::start(Moto::start(1000), "Admin", "");
    chain.whoami(&[]);
    let plan = chain.world.tmpcred(&["explain", "spoke", "--read-only"]).run().ok().stdout;
    let first = format!("GetRoleCredentials of Admin in the account {ACCOUNT}");
    for part in [&*first, &format!("AssumeRole of {SPOKE}, as me"), "policy/ReadOnlyAccess"] {
        assert!(plan.contains(part), "{part}: {plan}");
    }
    // Whatever is said of it makes it another credential.
    chain.configure("Admin", ", external_id = \"contract\"");
    assert_eq!(chain.whoami(&["--ttl", "20m", "--read-only"]), SESSION);
    assert_eq!(chain.asked(), 2);
    let asked = chain.moto.last_asked("ExternalId=contract");
    for part in ["Action=AssumeRole&", "DurationSeconds=1200", "=me", "ReadOnlyAccess"] {
        assert!(asked.contains(part), "{part}: {asked}");
    }
    for (args, says) in [
        (["--ttl", "2h"], "after 1h"),
        (["--role", "ReadOnly"], "it is not said which one to replace"),
    ] {
        let refused = chain.world.tmpcred(&["env", "spoke"]).args(args).run().ended_with(2);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
    chain.configure("Admin", ", mfa = { serial = \"arn:aws:iam::123456789012:mfa/me\" }");
    let refused = chain.world.tmpcred(&["env", "spoke"]).run().ended_with(3);
    assert!(refused.stderr.contains("roles have no MFA device"), "{}", refused.stderr);
}

#[test]
fn a_credential_of_an_account_that_is_not_expected_is_refused() {
    let chain = Chain::start(Moto::start(1000), "Admin", "");
    let written = std::fs::read_to_string(chain.world.home.path(".config/tmpcred/config.toml"));
    let written = written.unwrap();
    let expecting = |account: &str| {
        let line = format!("account_id = \"{ACCOUNT}\"\nexpect_account = [\"{account}\"]");
        let text = written.replace(&format!("account_id = \"{ACCOUNT}\"\n"), &(line + "\n"));
        let inline = format!("account_id = \"{ACCOUNT}\", expect_account = [\"{ACCOUNT}\"]");
        chain.world.home.config(&text.replacen(
            &format!("account_id = \"{ACCOUNT}\","),
            &(inline + ","),
            1,
        ));
    };
    expecting(ACCOUNT);
    chain.world.key("prod");
    let refused = chain.world.tmpcred(&["env", "spoke"]).run().ended_with(3);
    assert!(refused.stderr.contains("its account is 210987654321"), "{}", refused.stderr);
    chain.world.tmpcred(&["config", "check"]).run().ended_with(3);
    assert_eq!(chain.asked(), 1, "nobody is asked for what is refused");
    expecting("210987654321");
    assert_eq!(chain.whoami(&[]), SESSION);
    // Without further roles it is the account itself.
    let dev = written.replace(
        "account_id = \"444455556666\"",
        "account_id = \"444455556666\", expect_account = [\"111122223333\"]",
    );
    chain.world.home.config(&dev);
    let refused = chain.world.tmpcred(&["env", "dev"]).run().ended_with(3);
    assert!(refused.stderr.contains("its account is 444455556666"), "{}", refused.stderr);
}

#[test]
fn an_imported_profile_goes_through_identity_center_too() {
    let moto = Moto::start(1000);
    let world = World::start(Some(moto.url()));
    world.home.write(
        ".aws/config",
        format!(
            "[sso-session corp]\nsso_start_url = {}\nsso_region = us-east-1\n\
             [profile base]\nsso_session = corp\nsso_account_id = {ACCOUNT}\nsso_role_name = Admin\n\
             [profile over]\nrole_arn = {SPOKE}\nsource_profile = base\nrole_session_name = me\n\
             external_id = contract\nregion = eu-north-1\nduration_seconds = 1800\nendpoint_url = {}\n",
            world.center.start_url(),
            moto.url()
        ),
    );
    let path = world.home.config("[cache]\nstore = \"kernel\"\n");
    let said = world.tmpcred(&["config", "import", "aws", "--yes"]).run().ok().stdout;
    assert!(said.contains("over") && !said.contains("not taken over"), "{said}");
    // Its Identity Center is the stand-in.
    let written = std::fs::read_to_string(&path).unwrap();
    let at = format!("type = \"aws-sso\"\nendpoint_url = \"{}\"\nstart_url", world.center.url());
    world.home.config(&written.replace("type = \"aws-sso\"\nstart_url", &at));
    let json = world.tmpcred(&["env", "over", "--format", "json"]).run().ok().json();
    assert_eq!(json["AWS_REGION"], "eu-north-1");
    assert_eq!(json["TMPCRED_ROLE"], SPOKE);
    let asked = moto.last_asked("ExternalId=contract");
    assert!(asked.contains("DurationSeconds=1800"), "{asked}");
}

#[test]
fn what_has_ended_already_is_no_credential() {
    let world = World::start(None);
    world.center.set("role_seconds", -60);
    let refused = world.tmpcred(&["env", "prod"]).run().ended_with(9);
    assert!(refused.stderr.contains("have expired already"), "{}", refused.stderr);
    assert_eq!(refused.stdout, "");
    let status = world.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["credentials"], serde_json::json!([]));
}

#[test]
fn a_portal_that_fails_once_is_asked_again() {
    let world = World::start(None);
    world.center.set("throttled", 2);
    world.key("prod");
    assert_eq!(world.center.count("/federation/credentials"), 3);
}

#[test]
fn the_identity_centers_region_tells_where_to_sign_in() {
    let world = World::start(None);
    let console = format!("\n[console]\nendpoint_url = \"{}/federation\"\n", world.center.url());
    let config = config(&world.center) + &console;
    for (region, host) in [
        ("us-east-1", "console.aws.amazon.com"),
        ("us-gov-west-1", "console.amazonaws-us-gov.com"),
        ("cn-north-1", "console.amazonaws.cn"),
    ] {
        world
            .home
            .config(&config.replace("region = \"us-east-1\"", &format!("region = \"{region}\"")));
        // The target has no region, and an option only chooses the page.
        for (more, page) in
            [(&[][..], "home"), (&["--region", "eu-north-1"], "home?region=eu-north-1")]
        {
            let printed = world.tmpcred(&["console", "dev", "--url"]).args(more).run().ok().stdout;
            let url = url::Url::parse(printed.trim()).unwrap();
            let mut query = url.query_pairs();
            let (_, page_of_it) = query.find(|(name, _)| name == "Destination").unwrap();
            assert_eq!(page_of_it, format!("https://{host}/console/{page}"));
        }
    }
    world.home.config(&config.replace("region = \"us-east-1\"", "region = \"eusc-de-east-1\""));
    let unknown = world.tmpcred(&["console", "dev", "--url"]).run().ended_with(3);
    assert!(unknown.stderr.contains("the partition aws-eusc"), "{}", unknown.stderr);
}

#[test]
fn a_link_that_is_printed_in_a_job_is_hidden_first() {
    let world = World::start(None);
    let console = format!("\n[console]\nendpoint_url = \"{}/federation\"\n", world.center.url());
    world.home.config(&(config(&world.center) + &console));
    let run = world.tmpcred(&["console", "prod", "--url"]).env("GITHUB_ACTIONS", "true").run().ok();
    let link = run.stdout.trim();
    let url = url::Url::parse(link).unwrap();
    let (_, token) = url.query_pairs().find(|(name, _)| name == "SigninToken").unwrap();
    for hidden in [link, &token] {
        let line = format!("::add-mask::{}\n", hidden.replace('%', "%25"));
        assert!(run.stderr.contains(&line), "{hidden}: {}", run.stderr);
    }
}

#[test]
fn nobody_else_on_the_machine_gets_the_sign_in_link() {
    assert_root();
    let world = World::start(None);
    // A stranger who has read the address among the browser's arguments is faster.
    let own = world.home.write_program(
        "firefox",
        &format!(
            "#!/bin/sh\nfor page; do :; done\n\
             setpriv --reuid=65534 --regid=65534 --clear-groups -- /usr/bin/python3 -c '\n\
             import sys, urllib.request, urllib.error\n\
             try:\n  print(urllib.request.urlopen(sys.argv[1]).geturl())\n\
             except urllib.error.HTTPError as e:\n  print(e.code)\n' \"$page\" > {}\n\
             exec {} \"$page\"\n",
            world.home.path("stranger").display(),
            world.home.path("bin/browser").display(),
        ),
    );
    let console = format!(
        "\n[console]\nendpoint_url = \"{}/federation\"\nbrowser = \"{}\"\n",
        world.center.url(),
        own.display()
    );
    world.home.config(&(config(&world.center) + &console));
    world.tmpcred(&["login"]).run().ok();
    world.tmpcred(&["console", "prod"]).run().ok();
    assert_eq!(std::fs::read_to_string(world.home.path("stranger")).unwrap(), "403\n");
    let visit = world.browser.wait_for_visits(2);
    assert!(visit.text.contains("signed in as"), "{}", visit.text);
}
