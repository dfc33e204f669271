//! IAM Identity Center: one login for all accounts and roles, at a stand-in that the
//! AWS CLI takes for the real one.

mod chain;
mod console;
mod ended;

use std::time::Duration;

use rustix::process::Signal;

use super::faults::at_clock;
use super::support::aws::{Moto, python_program};
use super::support::browser::{Browser, Installed};
use super::support::canary::Canary;
use super::support::home::{BROWSER_LOG, Home, tmpcred};
use super::support::identity_center::IdentityCenter;
use super::support::oidc_provider::OidcProvider;
use super::support::run::Run;
use super::support::wait::wait_until;

const IDENTITY: [&str; 4] = ["sts", "get-caller-identity", "--output", "json"];
const DEVICE: &str = "urn:ietf:params:oauth:grant-type:device_code";
/// How long many processes together may take, on a machine that is busy.
const LONG: Duration = Duration::from_secs(280);

/// An Identity Center, and a person with three profiles there.
struct World {
    center: IdentityCenter,
    home: Home,
    browser: Installed,
}

impl World {
    fn start(sts: Option<&str>) -> Self {
        Self::with(sts, Home::new(), Browser::http())
    }

    fn with(sts: Option<&str>, mut home: Home, browser: Browser) -> Self {
        let center = IdentityCenter::start(sts);
        let browser = browser.install(&mut home);
        home.set("TMPCRED_NO_INPUT", "false");
        home.config(&config(&center));
        Self { center, home, browser }
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        tmpcred(&self.home).args(args)
    }

    /// The secret access key that a profile yields.
    #[track_caller]
    fn key(&self, profile: &str) -> String {
        let json = self.tmpcred(&["env", profile, "--format", "json"]).run().ok().json();
        json["AWS_SECRET_ACCESS_KEY"].as_str().unwrap().to_string()
    }
}

fn config(center: &IdentityCenter) -> String {
    let (start_url, url) = (center.start_url(), center.url());
    format!(
        "[cache]\nstore = \"kernel\"\n\n[identity.corp]\ntype = \"aws-sso\"\nstart_url = \"{start_url}/#/\"\n\
         region = \"us-east-1\"\nendpoint_url = \"{url}\"\n\n\
         [profile.prod]\nrole = \"Admin\"\ntarget = {{ type = \"aws-sso\", account_id = \"111122223333\", region = \"eu-central-1\" }}\n\n\
         [profile.look]\nextends = \"prod\"\nrole = \"ReadOnly\"\n\n\
         [profile.dev]\nrole = \"Admin\"\ntarget = {{ type = \"aws-sso\", account_id = \"444455556666\" }}\n"
    )
}

#[test]
fn the_aws_cli_takes_the_stand_in_for_the_real_one() {
    let moto = Moto::start(1000);
    let center = IdentityCenter::start(Some(moto.url()));
    let home = Home::new();
    let profile = |name: &str, role: &str| {
        format!(
            "[profile {name}]\nsso_session = corp\nsso_account_id = 111122223333\n\
             sso_role_name = {role}\nregion = us-east-1\n"
        )
    };
    home.write(
        ".aws/config",
        format!(
            "[sso-session corp]\nsso_start_url = {}\nsso_region = us-east-1\n\
             sso_registration_scopes = sso:account:access\n{}{}{}",
            center.start_url(),
            profile("prod", "Admin"),
            profile("look", "ReadOnly"),
            profile("denied", "Owner")
        ),
    );
    let login = center.aws_cli_2(&home).args(["sso", "login", "--no-browser", "--sso-session"]);
    // Its output is a pipe, which Python fills before it writes.
    let login = login.args(["corp"]).env("PYTHONUNBUFFERED", "1").spawn();
    let page = login.line_on_stdout("?user_code=");
    Browser::http().visit(&home, page.trim());
    let said = login.wait().ok().stdout;
    assert!(said.contains("Successfully logged into Start URL"), "{said}");

    let ask = |name: &str| {
        let run = center.aws_cli_2(&home).args(["--endpoint-url", moto.url(), "--profile", name]);
        run.args(IDENTITY).run()
    };
    let me = ask("prod").ok().json();
    let arn = me["Arn"].as_str().unwrap();
    assert!(arn.contains("assumed-role/AWSReservedSSO_Admin_"), "{arn}");
    let refused = ask("denied");
    assert!(refused.stderr.contains("ForbiddenException"), "{}", refused.stderr);
    // Somebody ended the session there.
    center.end("tokens");
    let expired = ask("look");
    assert!(expired.stderr.contains("expired or is otherwise invalid"), "{}", expired.stderr);
}

#[test]
fn one_login_in_the_browser_serves_all_accounts_and_roles() {
    let moto = Moto::start(1000);
    let world = World::with(Some(moto.url()), Home::new(), Browser::chromium());
    let aws = python_program("aws");
    for (profile, role, account) in [
        ("prod", "Admin", "111122223333"),
        ("look", "ReadOnly", "111122223333"),
        ("dev", "Admin", "444455556666"),
    ] {
        let run = world.tmpcred(&["exec", profile, "--", aws.to_str().unwrap()]).args(IDENTITY);
        let run = run.env("AWS_ENDPOINT_URL", moto.url()).env("AWS_DEFAULT_REGION", "us-east-1");
        let me = run.run().ok().json();
        assert_eq!(me["Account"], account);
        let arn = me["Arn"].as_str().unwrap();
        assert!(arn.contains(&format!("AWSReservedSSO_{role}_")), "{arn}");
    }
    let visit = world.browser.wait_for_visits(1);
    assert!(visit.text.contains("You are logged in"), "{}", visit.text);
    assert_eq!(world.browser.opened().len(), 1);
    assert_eq!(world.center.count("/client/register"), 1);
    assert_eq!(world.center.count_grants("authorization_code"), 1);
    assert_eq!(world.center.count("/federation/credentials"), 3);
    // All of it is cached.
    assert_eq!(world.key("prod"), world.key("prod"));
    assert_eq!(world.center.count("/federation/credentials"), 3);

    let status = world.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["sessions"][0]["issuer"], world.center.start_url());
    let explained = world.tmpcred(&["explain", "dev"]).run().ok().stdout;
    assert!(explained.contains("GetRoleCredentials of Admin in the account 444455556666"));
}

#[test]
fn no_secret_is_in_any_file_or_output() {
    let world = World::start(None);
    let run = world.tmpcred(&["-vv", "exec", "prod", "--", "true"]).run().ok();
    let key = world.key("prod");
    let secrets = world.center.secrets();
    assert_eq!(secrets.len(), 3, "an access token, a refresh token, a client's secret");
    for secret in secrets.into_iter().chain([key]) {
        let canary = Canary::of("secret", secret);
        let mut leaks = canary.search("output", run.stderr.as_bytes());
        leaks.extend(canary.search_files(&world.home.path(".local")));
        leaks.extend(canary.search_files(&world.home.path("run")));
        leaks.extend(canary.search_files(&world.home.path(".config")));
        assert!(leaks.is_empty(), "{leaks:?}");
    }
}

#[test]
fn a_code_to_type_where_there_is_no_browser() {
    let world = World::start(None);
    world.center.set("slow_down", 1);
    let login = world.tmpcred(&["login", "--flow", "device"]).limit(LONG).spawn();
    let page = login.line_on_stderr("To log in, visit");
    let page = page.split_whitespace().last().unwrap().to_string();
    let code = login.line_on_stderr("and enter the code");
    let code = code.split_whitespace().last().unwrap().to_string();
    Browser::http().visit_with_code(&world.home, &page, Some(&code));
    login.wait().ok();
    assert!(world.center.count_grants(DEVICE) >= 2);
    assert_eq!(world.browser.opened().len(), 0);
    world.key("prod");

    let denied = world.tmpcred(&["login", "--flow", "device", "--force"]).spawn();
    let page = denied.line_on_stderr("To log in, visit");
    let page = page.split_whitespace().last().unwrap().to_string();
    let code = denied.line_on_stderr("and enter the code");
    let code = code.split_whitespace().last().unwrap().to_string();
    Browser::http().denies().visit_with_code(&world.home, &page, Some(&code));
    let denied = denied.wait().ended_with(5);
    assert!(denied.stderr.contains("the person said no"), "{}", denied.stderr);
    assert_eq!(world.center.count("/client/register"), 1, "the registration is kept");
}

#[test]
fn a_login_that_is_refused_in_the_browser_says_so() {
    let world = World::with(None, Home::new(), Browser::http().denies());
    let refused = world.tmpcred(&["login"]).run().ended_with(5);
    assert!(refused.stderr.contains("the person said no (access_denied)"), "{}", refused.stderr);
    assert!(world.browser.wait_for_visits(1).text.contains("The login did not succeed"));
    let status = world.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(status["sessions"].as_array().unwrap().len(), 0);
}

#[test]
fn a_session_is_renewed_once_and_quietly() {
    let world = World::start(None);
    world.tmpcred(&["login"]).run().ok();
    // Nine hours on, by this machine's clock; nobody may be asked.
    let later = |profile: &str| {
        let run = at_clock(&world.home, "+9h").args(["env", profile, "--format", "json"]);
        run.args(["--no-input"]).limit(LONG)
    };
    let running: Vec<_> = (0..12).map(|n| later(["prod", "look", "dev"][n % 3]).spawn()).collect();
    for one in running {
        one.wait().ok();
    }
    assert_eq!(world.center.count_grants("refresh_token"), 1);
    assert_eq!(world.browser.opened().len(), 1);

    // Where it cannot be renewed any more, a person is needed.
    world.center.end("refresh_tokens");
    let much_later =
        at_clock(&world.home, "+20h").args(["exec", "prod", "--no-input", "--", "true"]);
    let refused = much_later.run().ended_with(125);
    assert!(
        refused.stderr.contains("login required: run `tmpcred login corp`"),
        "{}",
        refused.stderr
    );
    assert!(refused.stderr.contains("the session has ended"), "{}", refused.stderr);
}

#[test]
fn refusals_say_what_is_refused_and_what_to_do() {
    let world = World::start(None);
    for place in ["header", "body"] {
        world.center.set("say_type", place);
        let denied = world.tmpcred(&["env", "prod", "--role", "Owner"]).run().ended_with(5);
        assert!(denied.stderr.contains("the role Owner in the account 111122223333"));
        assert!(denied.stderr.contains("AWS says: No access (forbidden)"), "{}", denied.stderr);
    }
    for (status, says) in [(429, "it answered 429"), (503, "it answered 503")] {
        world.center.set("status", serde_json::json!({ "/federation/credentials": status }));
        let down = world.tmpcred(&["env", "prod"]).run().ended_with(7);
        assert!(down.stderr.contains(says), "{}", down.stderr);
    }
    world.center.set("status", serde_json::json!({}));
    // Somebody ended the session at AWS.
    world.center.end("tokens");
    let ended = world.tmpcred(&["env", "prod", "--no-input"]).run().ended_with(4);
    assert!(ended.stderr.contains("Session token not found or invalid"), "{}", ended.stderr);
    world.tmpcred(&["login"]).run().ok();
    world.key("prod");

    for (args, says) in [
        (&["--ttl", "1h"][..], "the permission set says how long"),
        (&["--read-only"], "knows no session policies"),
        (&["--role", "no role"], "no name of a permission set"),
    ] {
        let refused = world.tmpcred(&["env", "prod"]).args(args).run().ended_with(2);
        assert!(refused.stderr.contains(says), "{}", refused.stderr);
    }
}

#[test]
fn the_registration_is_kept_until_it_ends() {
    let world = World::start(None);
    world.tmpcred(&["login"]).run().ok();
    world.tmpcred(&["login", "--force"]).run().ok();
    world.tmpcred(&["logout"]).run().ok();
    world.tmpcred(&["login"]).run().ok();
    assert_eq!(world.center.count("/client/register"), 1);
    // Ninety days on it has ended, and with it all that it could renew.
    let later = at_clock(&world.home, "+90d").args(["login"]).run();
    later.ok();
    assert_eq!(world.center.count("/client/register"), 2);
    assert_eq!(world.center.count_grants("refresh_token"), 0);
    // One that will end soon is kept, but no login starts with it.
    world.center.set("client_seconds", 3600);
    let device = |expected: usize| {
        let login = world.tmpcred(&["login", "--flow", "device", "--force"]).limit(LONG).spawn();
        let page = login.line_on_stderr("To log in, visit");
        let code = login.line_on_stderr("and enter the code");
        let last = |line: &str| line.split_whitespace().last().unwrap().to_string();
        Browser::http().visit_with_code(&world.home, &last(&page), Some(&last(&code)));
        login.wait().ok();
        assert_eq!(world.center.count("/client/register"), expected);
    };
    device(3);
    device(4);
    // And one that AWS has forgotten is replaced.
    world.center.set("client_seconds", 90 * 86400);
    device(5);
    world.center.end("clients");
    device(6);
}

#[test]
fn a_registration_that_only_the_browser_knows_to_be_forgotten_does_not_come_back() {
    let world = World::start(None);
    world.tmpcred(&["login"]).run().ok();
    world.center.end("clients");
    // The page says so to the person, and the program hears nothing.
    let login = world.tmpcred(&["login", "--force"]).spawn();
    wait_until("the browser has seen the page", LONG, || {
        let opened = std::fs::read_to_string(world.home.path(BROWSER_LOG)).unwrap_or_default();
        opened.contains("no such client").then_some(())
    });
    login.signal(Signal::INT);
    assert_eq!(login.wait().signal, Some(Signal::INT.as_raw()));
    world.tmpcred(&["login", "--force"]).run().ok();
    assert_eq!(world.center.count("/client/register"), 2);
}

#[test]
fn logging_out_ends_the_session_at_aws() {
    let world = World::start(None);
    world.key("prod");
    let out = world.tmpcred(&["logout", "--json"]).run().ok().json();
    assert_eq!(out[0]["session"], "revoked", "{out}");
    assert_eq!(world.center.count("/logout"), 1);
    let refused = world.tmpcred(&["env", "prod", "--no-input"]).run().ended_with(4);
    assert!(refused.stderr.contains("login required"), "{}", refused.stderr);
}

#[test]
fn many_processes_are_one_login() {
    let world = World::with(None, Home::stranger(), Browser::http());
    let profiles = ["prod", "look", "dev"];
    let running: Vec<_> = (0..30)
        .map(|n| world.tmpcred(&["env", profiles[n % 3], "--format", "json"]).limit(LONG).spawn())
        .collect();
    let mut keys: Vec<_> = running
        .into_iter()
        .map(|one| one.wait().ok().json()["AWS_SECRET_ACCESS_KEY"].to_string())
        .collect();
    keys.sort();
    keys.dedup();
    assert_eq!(keys.len(), 3);
    assert_eq!(world.browser.opened().len(), 1);
    assert_eq!(world.center.count("/client/register"), 1);
    assert_eq!(world.center.count_grants("authorization_code"), 1);
    assert_eq!(world.center.count("/federation/credentials"), 3);
}

#[test]
fn the_accounts_and_roles_are_listed_and_profiles_made_of_them() {
    let world = World::start(None);
    let profiles = world.tmpcred(&["ls", "--json"]).run().ok().json();
    let names: Vec<_> = profiles.as_array().unwrap().iter().map(|one| &one["profile"]).collect();
    assert_eq!(names, ["dev", "look", "prod"]);
    assert_eq!(profiles[1]["role"], "ReadOnly");
    assert_eq!(profiles[1]["target"], "aws-sso (account 111122223333)");
    let shown = world.tmpcred(&["ls"]).run().ok().stdout;
    assert!(shown.contains("PROFILE") && shown.contains("aws-sso (account 444455556666)"));
    // Nobody has logged in for that.
    assert_eq!(world.center.log().len(), 0);

    let refused = world.tmpcred(&["ls", "--available", "--no-input"]).run().ended_with(4);
    assert!(refused.stderr.contains("tmpcred login corp"), "{}", refused.stderr);
    let list = |args: &[&str]| {
        world.tmpcred(&["ls", "--available", "--json"]).args(args).run().ok().json()
    };
    let available = list(&[]);
    // The stand-in has two on each page.
    assert_eq!(world.center.count("/assignment/roles"), 3);
    // Some requests are too many at first.
    world.center.set("throttled", 3);
    assert_eq!(list(&["--identity", "corp"]), available);
    let rows: Vec<_> = available
        .as_array()
        .unwrap()
        .iter()
        .map(|one| {
            format!(
                "{} {} {} {}",
                one["account_id"], one["account_name"], one["role"], one["profiles"]
            )
        })
        .collect();
    assert_eq!(
        rows,
        [
            r#""444455556666" "Dev Box" "Admin" ["dev"]"#,
            r#""111122223333" "Prod" "Admin" ["prod"]"#,
            r#""111122223333" "Prod" "Billing" []"#,
            r#""111122223333" "Prod" "ReadOnly" ["look"]"#,
        ]
    );
    let shown = world.tmpcred(&["ls", "--available"]).run().ok();
    assert!(shown.stderr.contains("1 role without a profile"), "{}", shown.stderr);

    // A file with a comment, behind a link.
    let config = format!("# Mine.\n{}# The end.", config(&world.center));
    let real = world.home.write("dotfiles/tmpcred.toml", &config);
    let link = world.home.path(".config/tmpcred/config.toml");
    std::fs::remove_file(&link).unwrap();
    std::os::unix::fs::symlink(&real, &link).unwrap();
    let readable = std::os::unix::fs::PermissionsExt::from_mode(0o640);
    std::fs::set_permissions(&real, readable).unwrap();
    let added = "[profile.prod-billing]\nidentity = \"corp\"\nrole = \"Billing\"\n\
                 # `region` is that of the Identity Center, to start with: commands are told it.\n\
                 target = { type = \"aws-sso\", account_id = \"111122223333\", region = \"us-east-1\" }\n";
    let diff: String = added.lines().map(|line| format!("+{line}\n")).collect();
    let write =
        |more: &[&str]| world.tmpcred(&["ls", "--available", "--write"]).args(more).run().ok();
    let dry = write(&["--dry-run"]);
    assert!(dry.stdout.ends_with(&diff), "{}", dry.stdout);
    assert_eq!(std::fs::read_to_string(&real).unwrap(), config);
    assert!(write(&[]).stdout.ends_with(&diff));
    assert_eq!(std::fs::read_to_string(&real).unwrap(), format!("{config}\n\n{added}"));
    assert!(std::fs::symlink_metadata(&link).unwrap().is_symlink());
    let mode = std::fs::metadata(&real).unwrap().permissions();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&mode) & 0o7777, 0o640);
    world.key("prod-billing");
    assert!(write(&[]).stderr.contains("Every role has a profile already"));

    // A role that nobody may use is in no list, and other identities have none.
    world.center.set("status", serde_json::json!({ "/assignment/roles": 429 }));
    let slow = world.tmpcred(&["ls", "--available"]).run().ended_with(7);
    assert!(slow.stderr.contains("the accounts and roles cannot be listed"), "{}", slow.stderr);
    assert_eq!(world.browser.opened().len(), 1);
}

#[test]
fn nothing_is_written_where_the_file_could_not_be_read_afterwards() {
    let world = World::start(None);
    let config = config(&world.center);
    let (rest, _) = config.split_once("[profile.prod]").unwrap();
    // The table of the profiles is closed already.
    let target = "{ type = \"aws-sso\", account_id = \"444455556666\" }";
    let config = format!("profile = {{ dev = {{ role = \"Admin\", target = {target} }} }}\n{rest}");
    let path = world.home.config(&config);
    world.key("dev");
    let refused = world.tmpcred(&["ls", "--available", "--write"]).run().ended_with(3);
    assert!(refused.stderr.contains("nothing has been changed"), "{}", refused.stderr);
    assert_eq!(std::fs::read_to_string(path).unwrap(), config);
}
