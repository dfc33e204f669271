//! Bearer tokens of five seconds: from a broker, in a file, for those who read it.

use crate::journey::Journey;
use crate::revocation::recorded;
use crate::support::aws::{Weed, python_program, weed_role};
use crate::support::broker::API;
use crate::support::home::Home;
use crate::support::http::Http;
use crate::support::run::Run;
use crate::support::terminal::Terminal;

fn exec(journey: &Journey, options: &[&str], script: &str) -> Run {
    let all = [&["exec", "--ttl", "5s"], options, &["--", "sh", "-c", script]].concat();
    journey.tmpcred(&all)
}

/// Shows each token that comes into the file, until there have been so many.
fn until_tokens(count: usize) -> String {
    format!(
        "n=0; while [ $n -lt {count} ]; do new=$(cat $TMPCRED_TOKEN_FILE); \
         if [ \"$new\" != \"$old\" ]; then echo \"$new\"; old=$new; n=$((n+1)); fi; sleep 0.02; done"
    )
}

#[test]
fn a_file_always_has_a_token_that_is_good() {
    let journey = Journey::start();
    let script = format!(
        "test $(stat -c %a $TMPCRED_TOKEN_FILE) = 600 && \
         test $(stat -c %a $(dirname $TMPCRED_TOKEN_FILE)) = 700 || exit 9; \
         test \"$(cat $TMPCRED_TOKEN_FILE)\" = \"$TMPCRED_TOKEN\" || exit 8; {}; \
         echo $TMPCRED_TOKEN_FILE",
        until_tokens(3)
    );
    let output = exec(&journey, &["--renew"], &script).run().ok();
    // On a machine that has much to do it may be late to renew, and says so.
    let warned = |line: &str| line.starts_with("warning") && !line.contains("renewed");
    assert!(!output.stderr.lines().any(warned), "{}", output.stderr);
    let mut lines: Vec<_> = output.stdout.lines().collect();
    let file = lines.pop().unwrap();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(!std::path::Path::new(file).exists(), "{file} is still there");
    assert_eq!(journey.broker.issued(), 3);
    assert_eq!(journey.provider.count_grants("authorization_code"), 1);
    // Others share what this run has renewed.
    let last = lines[2];
    let shared = journey.tmpcred(&["token", "--ttl", "5s"]).run().ok().stdout;
    assert!(shared.trim() == last || journey.broker.issued() == 4);
}

#[test]
fn runs_that_renew_at_the_same_time_share_what_one_has_got() {
    let journey = Journey::start();
    journey.tmpcred(&["login"]).run().ok();
    let script = until_tokens(3);
    let runs: Vec<_> = (0..5).map(|_| exec(&journey, &["--renew"], &script).spawn()).collect();
    for run in runs {
        let output = run.wait().ok();
        assert_eq!(output.stdout.lines().count(), 3);
    }
    // Each would have three of its own, or two where the first one alone is shared. Those that are
    // late on a machine that has much to do share what comes later, too.
    let issued = journey.broker.issued();
    assert!((3..=10).contains(&issued), "{issued}");
    assert_eq!(journey.provider.count_grants("authorization_code"), 1);
}

#[test]
fn an_outage_of_the_broker_is_ridden_out() {
    let mut journey = Journey::start();
    let script = format!("echo up; {}", until_tokens(2));
    // Long enough to start the broker again while the token lives, once it is told.
    let all = ["exec", "--ttl", "24s", "--renew", "--", "sh", "-c", &script];
    let running = journey.tmpcred(&all).spawn();
    running.line_on_stdout("up");
    journey.broker.stop();
    let told = running.line_on_stderr("could not be renewed");
    assert!(told.contains("which is good until"), "{told}");
    journey.broker.restart();
    let output = running.wait().ok();
    assert!(output.stderr.contains("has been renewed after all"), "{}", output.stderr);
    assert!(!output.stderr.contains("has ended"), "{}", output.stderr);
    assert_eq!(output.stdout.lines().count(), 3);
}

#[test]
fn nobody_is_asked_from_the_background() {
    let journey = Journey::start();
    let script = "echo up; sleep 13; echo down";
    let all = ["exec", "--ttl", "12s", "--renew", "--", "sh", "-c", script];
    let running = journey.tmpcred(&all).spawn();
    running.line_on_stdout("up");
    // Without a session a new token takes a login.
    journey.tmpcred(&["logout"]).run().ok();
    let output = running.wait().ok();
    assert!(output.stderr.contains("login required"), "{}", output.stderr);
    assert!(output.stderr.contains("tmpcred login corp"), "{}", output.stderr);
    assert_eq!(journey.provider.count_grants("authorization_code"), 1);
}

#[test]
fn what_is_masked_is_renewed_too() {
    let journey = Journey::start();
    let output = exec(&journey, &["--renew", "--mask"], &until_tokens(2)).run().ok();
    assert_eq!(output.stdout, "***\n***\n");
}

#[test]
fn what_a_run_has_renewed_for_itself_is_revoked_at_its_end() {
    let journey = Journey::start();
    let script = until_tokens(2);
    let all = ["exec", "--ttl", "24s", "--renew", "--revoke-on-exit", "--", "sh", "-c", &script];
    let output = journey.tmpcred(&all).run().ok();
    assert_eq!(output.stdout.lines().count(), 2);
    // The first is good for a while yet.
    assert_eq!(recorded(&journey.broker, "revoked"), 2, "{}", output.stderr);
    assert_eq!(journey.broker.issued(), 2);
}

/// Gets an object again and again, and says when that does not go well.
const WEB_IDENTITY: &str = r#"
import boto3, os, sys, time
from botocore.config import Config
end, count, files = time.time() + 22, 0, set()
while time.time() < end:
    # A session of its own each time: it reads the file.
    s3 = boto3.Session().client("s3", config=Config(s3={"addressing_style": "path"}))
    assert s3.get_object(Bucket="bucket", Key="hello")["Body"].read() == b"hi"
    files.add(open(os.environ["AWS_WEB_IDENTITY_TOKEN_FILE"]).read())
    count += 1
print(count, len(files))
"#;

#[test]
fn sdks_trade_the_current_token_for_a_role() {
    // Who can run the Python packages of the tests.
    let journey = Journey::in_home(Home::new());
    let issuer = journey.broker.url();
    let metadata = format!("{issuer}/.well-known/openid-configuration");
    let metadata = Http::new().get(&metadata).unwrap().json();
    let keys = metadata["jwks_uri"].as_str().unwrap();
    let subject = format!("{}#alice", journey.provider.issuer());
    let weed = Weed::start(issuer, API, keys, &[("deploy", &subject)]);
    weed.put("bucket", "hello", "hi");
    let path = journey.home.path(".config/tmpcred/config.toml");
    let config = std::fs::read_to_string(path).unwrap();
    journey.home.config(&format!(
        "{config}\n[profile.web]\nextends = \"reader\"\nttl = \"12s\"\n[profile.web.env]\n\
         AWS_WEB_IDENTITY_TOKEN_FILE = \"{{token_file}}\"\nAWS_ROLE_ARN = \"{}\"\n",
        weed_role("deploy")
    ));
    let python = python_program("python3");
    let run = ["exec", "web", "--", python.to_str().unwrap(), "-c", WEB_IDENTITY];
    let output = journey
        .tmpcred(&run)
        .env("AWS_ENDPOINT_URL", weed.url())
        .env("AWS_DEFAULT_REGION", "us-east-1")
        // They would win.
        .env("AWS_ACCESS_KEY_ID", "AKIAOTHER")
        .env("AWS_SECRET_ACCESS_KEY", "x")
        .run()
        .ok();
    let numbers: Vec<u32> =
        output.stdout.split_whitespace().map(|number| number.parse().unwrap()).collect();
    assert!(numbers[0] > 3 && numbers[1] >= 2, "{}", output.stdout);

    let refused = journey.tmpcred(&["exec", "web", "--renew=false", "--", "true"]).run();
    let said = refused.ended_with(125).stderr;
    assert!(said.contains("names a file with the current token"), "{said}");
    let said = journey.tmpcred(&["env", "web"]).run().ended_with(3).stderr;
    assert!(said.contains("only `tmpcred exec` has a file with a token"), "{said}");
    let mode = journey.tmpcred(&["explain", "web", "--json"]).run().ok().json();
    assert_eq!(mode["mode"]["name"], "supervisor");
}

#[test]
fn a_command_that_is_started_again_has_the_terminal_again() {
    let home = Home::new();
    let terminal = Terminal::start(&home, 80, 24);
    terminal.enter(
        "tmpcred exec --dev --ttl 5s --on-renew restart -- sh -c 'echo x >>starts; \
         test $(wc -l <starts) = 2 || sleep 60; echo REA''DY; read line; echo GO''T $line; exit 3'",
    );
    terminal.wait_for("READY");
    terminal.enter("hello");
    terminal.wait_for("GOT hello");
    terminal.enter("echo EN''D $?");
    let screen = terminal.wait_for("END ");
    assert!(screen.contains("END 3"), "{screen}");
}
