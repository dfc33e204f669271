//! Jobs whose own token AWS takes, without a broker: a real SeaweedFS checks its
//! signature, audience and subject.

use super::*;
use crate::support::aws::{Weed, python_program, weed_role};

const AUDIENCE: &str = "sts.amazonaws.com";
/// The subject of the jobs here.
const MAIN: &str = "repo:example/shop:ref:refs/heads/main";

/// A platform, a server that trusts it for this audience, with one role for this
/// subject and one for another, and a home that knows both as profiles.
fn site(audience: &str, subject: &str, target: &str) -> (Platform, Weed, Home) {
    let platform = Platform::start();
    let roles = [("main", subject), ("other", "repo:example/other:ref:refs/heads/main")];
    let weed = Weed::start(platform.issuer(), audience, &platform.url("/jwks"), &roles);
    weed.put("bucket", "hello", "hi");
    let home = Home::new();
    let profile = |name: &str, role: &str| {
        format!(
            "[profile.{name}]\nrole = \"{}\"\nttl = \"15m\"\ntarget = {{ type = \"aws\", \
             endpoint_url = \"{}\", region = \"eu-central-1\"{target} }}\n",
            weed_role(role),
            weed.url()
        )
    };
    home.config(&(profile("prod", "main") + &profile("theirs", "other")));
    (platform, weed, home)
}

/// The command of the pages: it reads with the credential.
fn reads(home: &Home, weed: &Weed, job: impl Fn(Run) -> Run) {
    let aws = python_program("aws");
    let get = ["s3api", "get-object", "--bucket", "bucket", "--key", "hello", "out"];
    let words = [&["exec", "prod", "--", aws.to_str().unwrap()], &get[..]].concat();
    job(tmpcred(home).args(words)).env("AWS_ENDPOINT_URL", weed.url()).run().ok();
    let out = home.path("work/out");
    assert_eq!(std::fs::read_to_string(&out).unwrap(), "hi");
    std::fs::remove_file(&out).unwrap();
    // The trust policy of this role names another repository.
    let theirs = job(tmpcred(home).args(["exec", "theirs", "--", "touch", "ran"]));
    refused(theirs, 125, &["AWS gives no session of the role"]);
    assert!(!home.path("work/ran").exists());
}

#[test]
fn a_github_or_gitlab_job_gets_a_session_of_aws_with_its_own_token() {
    let (platform, weed, home) = site(AUDIENCE, MAIN, "");
    let github = |run: Run| {
        run.env("CI", "true")
            .env("GITHUB_ACTIONS", "true")
            .env("GITHUB_RUN_ID", "17")
            .env("GITHUB_JOB", "deploy")
            .env("ACTIONS_ID_TOKEN_REQUEST_URL", platform.url("/github?api-version=2.0"))
            .env("ACTIONS_ID_TOKEN_REQUEST_TOKEN", "one")
    };
    reads(&home, &weed, github);
    let asked = platform.asked();
    assert!(!asked.is_empty());
    for request in &asked {
        assert_eq!(request.parameter("audience").as_deref(), Some(AUDIENCE));
    }
    // A token for somebody else gets no session, and does not get as far as that.
    platform.fault(Fault::Claims(json!({ "aud": "https://broker.example.com" })));
    let theirs = github(tmpcred(&home).args(["env", "prod", "--refresh"]));
    refused(theirs, 9, &["it is for 'https://broker.example.com', not for 'sts.amazonaws.com'"]);

    let gitlab = |audience: &str| {
        let token = platform.token(audience, &json!({}));
        move |run: Run| {
            run.env("CI", "true")
                .env("GITLAB_CI", "true")
                .env("CI_JOB_ID", "1")
                .env("TMPCRED_ID_TOKEN", &token)
        }
    };
    reads(&home, &weed, gitlab(AUDIENCE));
    let theirs = gitlab("https://broker.example.com")(tmpcred(&home).args(["env", "prod"]));
    let hint = "id_tokens: { TMPCRED_ID_TOKEN: { aud: sts.amazonaws.com } }";
    refused(theirs, 9, &["not for 'sts.amazonaws.com'", hint]);
}

#[test]
fn a_job_of_azure_pipelines_says_its_one_audience_in_the_target() {
    let target = format!(", audience = \"{AZURE}\"");
    let (platform, weed, home) = site(AZURE, "p://org/project/pipe", &target);
    reads(&home, &weed, |run| {
        run.env("TF_BUILD", "True")
            .env("SYSTEM_OIDCREQUESTURI", platform.url("/azure"))
            .env("SYSTEM_ACCESSTOKEN", "secret")
    });
}
