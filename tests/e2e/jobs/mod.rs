//! CI jobs and workloads: their own tokens become credentials of a real broker, a
//! credential for each job, and nothing is stored beforehand.

mod aws;
mod cache_key;
mod deployed;
mod later_steps;
mod log;
mod platform;
mod tokens;

use platform::{AZURE, Fault, Platform};
use serde_json::json;

use super::support::broker::{API, Broker, BrokerOptions};
use super::support::home::{Home, tmpcred};
use super::support::run::{Output, Run};

/// A platform, a broker that trusts it, and a machine on which one user runs all
/// jobs.
struct Site {
    platform: Platform,
    broker: Broker,
    home: Home,
}

impl Site {
    /// With this much configuration besides broker and profile.
    fn start(more: &str) -> Self {
        let platform = Platform::start();
        let mut trusting = BrokerOptions::trusting(platform.issuer());
        trusting.audiences = vec![AZURE.into()];
        let broker = Broker::start(&trusting);
        let site = Self { platform, broker, home: Home::stranger() };
        site.configure("", more);
        site
    }

    /// The same in another home.
    fn at(self, home: Home) -> Self {
        let site = Self { home, ..self };
        site.configure("", "");
        site
    }

    /// Configures lines of the broker's table, and tables.
    fn configure(&self, broker: &str, more: &str) {
        self.home.config(&format!(
            "default_profile = \"deploy\"\n\n[broker.main]\nurl = \"{}\"\n{broker}\n{more}\n\
             [profile.deploy]\nrole = \"deploy\"\naudience = \"{API}\"\n",
            self.broker.url()
        ));
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        tmpcred(&self.home).args(args)
    }

    /// A run in a job of GitHub Actions, whose variables these are.
    fn in_github(&self, job: &str, secret: &str, args: &[&str]) -> Run {
        self.github_variables(self.tmpcred(args), job, secret)
    }

    /// The same for any program.
    fn github_variables(&self, run: Run, job: &str, secret: &str) -> Run {
        run.env("CI", "true")
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_RUN_ID", "17")
            .env("GITHUB_RUN_ATTEMPT", "1")
            .env("GITHUB_JOB", job)
            .env("ACTIONS_ID_TOKEN_REQUEST_URL", self.platform.url("/github?api-version=2.0"))
            .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", secret)
    }

    /// A token for this site's broker.
    fn token(&self) -> String {
        self.platform.token(self.broker.url(), &json!({}))
    }
}

/// The run ended with this code and said all of this, and nothing secret.
#[track_caller]
fn refused(run: Run, code: i32, says: &[&str]) -> Output {
    let output = run.run().ended_with(code);
    for part in says {
        assert!(output.stderr.contains(part), "{part:?} is not in:\n{}", output.stderr);
    }
    for raw in ["panicked", "ErrorKind", "eyJ", "s3cr3t"] {
        assert!(!output.stderr.contains(raw), "{raw:?} is in:\n{}", output.stderr);
    }
    assert_eq!(output.stdout, "");
    output
}

const TOKEN: &[&str] = &["token"];

#[test]
fn a_github_job_gets_a_credential_of_its_own_and_asks_once() {
    let site = Site::start("");
    // What a job shares, it does not revoke.
    let echo = "echo $TMPCRED_ROLE $TMPCRED_TOKEN";
    let show = ["exec", "--revoke-on-exit=false", "--mask=no", "--", "sh", "-c", echo];
    let first = site.in_github("build", "one", &show).run().ok().stdout;
    assert!(first.starts_with("deploy ey"), "{first}");
    let [asked] = &site.platform.asked()[..] else { panic!("{:?}", site.platform.asked()) };
    assert_eq!(asked.parameter("audience").as_deref(), Some(site.broker.url()));
    assert_eq!(asked.parameter("api-version").as_deref(), Some("2.0"));
    assert_eq!((asked.method.as_str(), asked.bearer.as_str()), ("GET", "one"));

    // A later step of the same job, also when the platform is gone.
    site.platform.fault(Fault::Answers(500, ""));
    let again = site.in_github("build", "one", &show).env("GITHUB_ACTION", "step2").run().ok();
    assert_eq!(again.stdout, first);
    assert_eq!((site.platform.asked().len(), site.broker.issued()), (1, 1));
    site.platform.fault(None);

    // Another job of the run; another leg of the same job's matrix, which has the
    // same ids; another attempt. They all have the same subject.
    let others = [
        site.in_github("test", "two", &show),
        site.in_github("build", "three", &show),
        site.in_github("build", "one", &show).env("GITHUB_RUN_ATTEMPT", "2"),
        site.in_github("build", "one", &show).env("GITHUB_RUN_ID", "18"),
    ];
    let mut seen = vec![first.clone()];
    for (at, other) in others.into_iter().enumerate() {
        let got = other.run().ok().stdout;
        assert!(!seen.contains(&got), "{at} shares a credential");
        seen.push(got);
        assert_eq!((site.platform.asked().len(), site.broker.issued()), (at + 2, at + 2));
    }
    // Each still has its own.
    assert_eq!(site.in_github("build", "one", &show).run().ok().stdout, first);
    let refreshed = site.in_github("build", "one", &["token", "--refresh"]).run().ok().stdout;
    assert!(!first.contains(refreshed.trim()));
    assert_eq!((site.platform.asked().len(), site.broker.issued()), (6, 6));
    // Outside of any job nobody has a credential.
    refused(site.tmpcred(TOKEN), 3, &["no identity can be used here", "GITHUB_ACTIONS is not set"]);
}

#[test]
fn steps_of_a_job_that_start_at_once_share_one_mint() {
    let site = Site::start("");
    let steps: Vec<_> = (0..8).map(|_| site.in_github("build", "one", TOKEN).spawn()).collect();
    let tokens: Vec<_> = steps.into_iter().map(|step| step.wait().ok().stdout).collect();
    assert!(tokens.iter().all(|token| *token == tokens[0]));
    assert_eq!((site.platform.asked().len(), site.broker.issued()), (1, 1));
}

#[test]
fn a_github_job_without_the_permission_is_told_so() {
    let site = Site::start("");
    let run = |args| {
        let run = site.in_github("build", "one", args);
        run.env_remove("ACTIONS_ID_TOKEN_REQUEST_URL").env_remove("ACTIONS_ID_TOKEN_REQUEST_TOKEN")
    };
    let says = [
        "the identity `github-actions` cannot be used here",
        "ACTIONS_ID_TOKEN_REQUEST_URL is not set",
        "hint: say `permissions: id-token: write`",
    ];
    refused(run(TOKEN), 3, &says);
    refused(run(&["exec", "--", "true"]), 125, &says);
    // The same where the source is named.
    site.configure("", "[identity.ci]\ntype = \"github-actions\"\n");
    refused(run(TOKEN), 3, &["the identity 'ci' cannot be used here", says[1], says[2]]);
    assert_eq!(site.broker.issued(), 0);
}

#[test]
fn a_platform_that_lies_or_fails_is_named_and_nothing_reaches_the_broker() {
    let site = Site::start("");
    let now = platform::now();
    let no_token = "GitHub Actions gives this job no token";
    let no_use = "the token of GitHub Actions cannot be used";
    let (theirs, ours) = ("https://evil.example", site.broker.url());
    let for_whom = format!("it is for '{theirs}', not for '{ours}'");
    let opaque = r#"{"value": "s3cr3t"}"#;
    // Who answers is asked once; who does not serve, again for a while, because nobody else
    // can be asked and the job would fail; a platform that says nothing has had all of it.
    for (fault, code, says) in [
        (Fault::Claims(json!({ "aud": theirs })), 9, [no_use, for_whom.as_str()]),
        (Fault::Claims(json!({ "exp": now - 600 })), 9, [no_use, "it expired 10m"]),
        (Fault::Claims(json!({ "exp": null })), 9, [no_use, "it has no expiry"]),
        (Fault::Answers(200, opaque), 9, [no_use, "it is not a signed JWT"]),
        (Fault::Answers(200, "{}"), 9, [no_token, "a member is missing"]),
        (Fault::Answers(200, "<html>"), 9, [no_token, "it looks like a web page"]),
        (Fault::Answers(302, "{}"), 9, [no_token, "redirects are not followed"]),
        (Fault::Answers(403, "s3cr3t"), 5, [no_token, "it answered 403"]),
        (Fault::Answers(503, ""), 7, [no_token, "it answered 503"]),
        (Fault::Huge(50_000_000), 9, [no_token, "is too large"]),
        (Fault::Hangs, 7, [no_token, "did not answer"]),
    ] {
        site.platform.fault(fault.clone());
        let before = site.platform.asked().len();
        refused(site.in_github("build", "one", TOKEN), code, &says);
        let times = if matches!(fault, Fault::Answers(503, _)) { 3 } else { 1 };
        assert_eq!(site.platform.asked().len(), before + times, "{fault:?}");
    }
    let plain = site.in_github("build", "one", TOKEN);
    let plain = plain.env("ACTIONS_ID_TOKEN_REQUEST_URL", "http://t.example/");
    refused(plain, 3, &["plain http is allowed to loopback only"]);
    assert_eq!(site.broker.issued(), 0);
}

#[test]
fn a_platform_that_fails_once_does_not_fail_the_job() {
    let site = Site::start("");
    for fault in [Fault::Answers(503, ""), Fault::Answers(429, ""), Fault::Gone] {
        site.platform.fault(fault.once());
        let before = site.platform.asked().len();
        site.in_github("build", "one", &["token", "--refresh"]).run().ok();
        assert_eq!(site.platform.asked().len(), before + 2);
    }
}

#[test]
fn an_azure_job_gets_a_credential_by_its_one_audience() {
    let site = Site::start("");
    let run = || {
        site.tmpcred(TOKEN)
            .env("TF_BUILD", "True")
            .env("SYSTEM_OIDCREQUESTURI", site.platform.url("/azure"))
            .env("SYSTEM_ACCESSTOKEN", "secret")
    };
    let says = ["'api://AzureADTokenExchange', not for", "hint: Azure Pipelines has tokens for"];
    refused(run(), 9, &says);
    site.configure(&format!("audience = \"{AZURE}\""), "");
    let token = run().run().ok().stdout;
    assert_eq!(run().run().ok().stdout, token);
    let asked = site.platform.asked().pop().unwrap();
    assert_eq!((asked.method.as_str(), asked.bearer.as_str()), ("POST", "secret"));
    let connection =
        "[identity.azure]\ntype = \"azure-pipelines\"\nservice_connection_id = \"c\"\n";
    site.configure(&format!("audience = \"{AZURE}\""), connection);
    assert_ne!(run().run().ok().stdout, token);
    let asked = site.platform.asked().pop().unwrap();
    assert_eq!(asked.parameter("serviceConnectionId").as_deref(), Some("c"));
    let unmapped = run().env_remove("SYSTEM_ACCESSTOKEN");
    refused(unmapped, 3, &["SYSTEM_ACCESSTOKEN is not set", "$(System.AccessToken)"]);
    assert_eq!(site.broker.issued(), 2);
}

#[test]
fn two_identities_that_are_ready_are_not_chosen_between() {
    let site = Site::start(
        "[identity.one]\ntype = \"env\"\nvariable = \"ONE\"\n\
         [identity.two]\ntype = \"env\"\nvariable = \"TWO\"\n",
    );
    let (one, two) = (site.token(), site.token());
    let both = site.tmpcred(TOKEN).env("ONE", &one).env("TWO", &two);
    let says = ["`one`, `two` are ready here", "`identity = \"one\"` in `[profile.deploy]`"];
    refused(both, 3, &says);
    refused(site.tmpcred(TOKEN), 3, &["`one`: ONE is not set", "`two`: TWO is not set"]);
    site.tmpcred(TOKEN).env("TWO", &two).run().ok();
    assert_eq!(site.broker.issued(), 1);
}

#[test]
fn explain_tells_of_every_source_whether_it_can_be_used_and_why() {
    let site = Site::start("");
    let report = site.in_github("build", "one", &["explain", "--json"]).run().ok().json();
    assert_eq!(report["plan"]["identity"]["name"], "github-actions", "{report}");
    assert_eq!(report["sources"].as_array().unwrap().len(), 5);
    assert_eq!(report["sources"][0]["state"], "ready");
    assert_eq!(report["sources"][0]["because"], "ACTIONS_ID_TOKEN_REQUEST_URL is set");
    assert_eq!(report["sources"][1]["name"], "gitlab");
    assert_eq!(report["sources"][1]["state"], "absent");
    let table = site.in_github("build", "one", &["explain"]).run().ok().stdout;
    assert!(table.contains("the only one that is ready here"), "{table}");
    assert!(table.contains("source gitlab"), "{table}");
    assert!(table.contains("no credential for job build of GitHub Actions"), "{table}");
    assert!(site.platform.asked().is_empty(), "explaining asks nobody");
}

#[test]
fn one_configuration_serves_a_person_and_a_job() {
    let site = Site::start(
        "[identity.corp]\ntype = \"oidc\"\nissuer = \"https://login.example.com\"\n\
         client_id = \"x\"\n[identity.ci]\ntype = \"github-actions\"\n",
    );
    site.in_github("build", "one", TOKEN).run().ok();
    assert_eq!(site.broker.issued(), 1);
    let here = site.tmpcred(&["explain", "--json"]).run().ok().json();
    assert_eq!(here["plan"]["identity"]["name"], "corp");
    refused(site.tmpcred(&["token", "--no-input"]), 4, &["run `tmpcred login corp`"]);
}
