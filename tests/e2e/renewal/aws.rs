//! AWS: sessions of seconds, at a gateway that lets them end, used by real
//! clients.

use std::path::Path;
use std::time::Duration;

use rustix::process::Signal;
use serde_json::Value;

use crate::support::aws::python_program;
use crate::support::browser::Browser;
use crate::support::canary::Canary;
use crate::support::home::{Home, assert_root, tmpcred};
use crate::support::oidc_provider::{OidcOptions, OidcProvider};
use crate::support::radosgw::Radosgw;
use crate::support::run::Run;
use crate::support::wait::wait_until;

/// A gateway that trusts a provider, a role there for alice, an object that it may
/// read, and the profile `short`, whose credentials are good for six seconds.
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
             [profile.short]\nrole = \"{role}\"\nttl = \"6s\"\n\
             target = {{ type = \"aws\", endpoint_url = \"{}\", region = \"us-east-1\" }}\n",
            provider.issuer(),
            gateway.url(),
        ));
        tmpcred(&home).args(["login"]).run().ok();
        Self { provider, gateway, home }
    }

    /// Adds a line to the profile, in place of the one that was added before.
    fn config_line(&mut self, line: &str) {
        let path = ".config/tmpcred/config.toml";
        let text = std::fs::read_to_string(self.home.path(path)).unwrap();
        let mut lines: Vec<_> = text.lines().filter(|l| !l.contains("expected_runtime")).collect();
        lines.push(line);
        self.home.config(&(lines.join("\n") + "\n"));
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        tmpcred(&self.home).args(args).env("AWS_ENDPOINT_URL", self.gateway.url())
    }
}

/// Reads the object again and again, for as many seconds as it is told or until it has
/// used so many keys, and says how that went.
const READER: &str = r#"
import boto3, sys, time
from botocore.config import Config
config = Config(retries={"max_attempts": 1}, s3={"addressing_style": "path"})
s3 = boto3.client("s3", config=config, endpoint_url=sys.argv[1])
end = time.time() + float(sys.argv[2])
enough = int(sys.argv[3]) if len(sys.argv) > 3 else 1000
keys, count = set(), 0
while time.time() < end and len(keys) < enough:
    try:
        s3.get_object(Bucket="bucket", Key="hello")["Body"].read()
        keys.add(s3._request_signer._credentials.get_frozen_credentials().access_key)
    except Exception as e:
        print("refused after", count, type(e).__name__, e)
        sys.exit(7)
    count += 1
    open("begun", "w").close()
    time.sleep(0.05)
print("read", count, "times with", len(keys), "keys")
"#;

/// Debian's AWS CLI 2.9, besides the one of the Python packages.
const DEBIANS_CLI: &str = "/usr/bin/aws";

#[test]
fn sdks_and_clis_work_for_three_times_the_life_of_a_credential() {
    let world = World::start();
    assert!(
        Path::new(DEBIANS_CLI).exists(),
        "awscli of Debian is missing: run tests/setup, it installs it"
    );
    // Keys of somebody else, which SDKs would find before they ask the endpoint.
    world.home.write(
        ".aws/credentials",
        "[default]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = x\n\
         [other]\naws_access_key_id = AKIAOTHER\naws_secret_access_key = x\n",
    );
    world
        .home
        .write(".aws/config", "[default]\nregion = eu-north-1\ns3 =\n  addressing_style = path\n");
    let python = python_program("python3");
    let read = [python.to_str().unwrap(), "-c", READER, world.gateway.url(), "31"];
    // Half of these are left when it is renewed: enough for a machine that has much to do.
    let exec = |options: &[&str], command: &[&str]| {
        let exec = ["exec", "short", "--ttl", "10s"];
        world.tmpcred(&[&exec[..], options, &["--"], command].concat()).spawn()
    };
    let dies = exec(&[], &read);
    // However long it takes until it has used four.
    let until_four = [&read[..4], &["60", "4"]].concat();
    let reads = exec(&["--renew"], &until_four);
    let loops = [python_program("aws"), DEBIANS_CLI.into()].map(|cli| {
        let script = format!(
            "aws() {{ {} --endpoint-url {} \"$@\"; }}; aws --version; end=$(($(date +%s) + 31)); \
             while [ $(date +%s) -lt $end ]; do \
             aws s3api get-object --bucket bucket --key hello out-$$ >done-$$ || exit 1; done; \
             cat out-$$",
            cli.display(),
            world.gateway.url()
        );
        exec(&["--renew"], &["sh", "-c", &script])
    });

    let died = dies.wait().ended_with(7);
    assert!(died.stdout.contains("refused after"), "{}", died.stdout);
    let read = reads.wait().ok();
    // It may be late, and says so; that it fails or comes too late is neither of these.
    let late = |line: &str| {
        let soon = line.contains(" ends in ") && line.contains("there is no answer yet");
        soon || line.contains("has been renewed after all")
    };
    assert!(read.stderr.lines().all(late), "{}", read.stderr);
    let words: Vec<_> = read.stdout.split(' ').collect();
    let (reads, keys): (u32, u32) = (words[1].parse().unwrap(), words[4].parse().unwrap());
    assert!(reads > 20 && keys >= 4, "{}", read.stdout);
    for (looped, version) in loops.into_iter().zip(["aws-cli/1.", "aws-cli/2.9"]) {
        let looped = looped.wait().ok();
        assert!(looped.stdout.starts_with(version), "{}", looped.stdout);
        assert!(looped.stdout.ends_with("hi"), "{} {}", looped.stdout, looped.stderr);
    }
    assert_eq!(world.provider.count_grants("authorization_code"), 1);
}

#[test]
fn the_command_gets_an_endpoint_and_no_keys() {
    let world = World::start();
    let show = "env | grep -E '^(AWS|TMPCRED)_' | cut -d= -f1 | sort | tr '\\n' ' '";
    let shown = world.tmpcred(&["exec", "short", "--renew", "--", "sh", "-c", show]);
    let shown = shown.env("AWS_ACCESS_KEY_ID", "AKIA").env("AWS_PROFILE", "x").run().ok();
    assert_eq!(
        shown.stdout,
        "AWS_CONTAINER_AUTHORIZATION_TOKEN AWS_CONTAINER_CREDENTIALS_FULL_URI AWS_DEFAULT_REGION \
         AWS_ENDPOINT_URL AWS_REGION TMPCRED_ACTIVE_PROFILE TMPCRED_MAPPED TMPCRED_NO_INPUT \
         TMPCRED_ROLE "
    );
    // A run within a run has the one or the other, and nothing of the outer one.
    let program = env!("CARGO_BIN_EXE_tmpcred");
    let within = format!("{program} exec short --refresh -- sh -c \"{show}\"");
    let inner = world.tmpcred(&["exec", "short", "--renew", "--", "sh", "-c", &within]).run().ok();
    assert!(inner.stdout.contains("AWS_SECRET_ACCESS_KEY"), "{}", inner.stdout);
    assert!(!inner.stdout.contains("AWS_CONTAINER"), "{}", inner.stdout);
    let within = format!("{program} exec short --renew -- sh -c \"{show}\"");
    let inner = world.tmpcred(&["exec", "short", "--", "sh", "-c", &within]).run().ok();
    assert!(!inner.stdout.contains("AWS_SECRET_ACCESS_KEY"), "{}", inner.stdout);
    assert!(inner.stdout.contains("AWS_CONTAINER"), "{}", inner.stdout);
    // The endpoint answers whoever has the token, and nobody when the run has ended.
    let ask = "import json, os, sys, urllib.request, urllib.error
def ask(token):
    url = os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI']
    request = urllib.request.Request(url, headers={'Authorization': token})
    try:
        return json.load(urllib.request.urlopen(request))
    except urllib.error.HTTPError as e:
        return json.load(e)
answer = ask(os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN'])
print(json.dumps([sorted(answer), ask('x')['code'], os.environ['AWS_CONTAINER_CREDENTIALS_FULL_URI']]))";
    let answers =
        world.tmpcred(&["exec", "short", "--renew", "--", "python3", "-c", ask]).run().ok().json();
    assert_eq!(
        answers[0],
        serde_json::json!(["AccessKeyId", "Expiration", "SecretAccessKey", "Token"])
    );
    assert_eq!(answers[1], "WrongToken");
    let url = answers[2].as_str().unwrap();
    assert!(crate::support::http::Http::new().get(url).is_err(), "{url} still listens");
    // Somebody else who has the token is refused all the same.
    assert_root();
    let nobody = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--"];
    let exec = ["exec", "short", "--renew", "--"];
    let ask = ["/usr/bin/python3", "-c", &ask.replace("sorted(answer)", "answer['code']")];
    let refused = world.tmpcred(&[&exec[..], &nobody, &ask].concat()).run().ok().json();
    assert_eq!(refused[0], "WrongPeer");
}

/// Whose keys boto3 and the AWS CLIs would use.
const WHOSE: &str = r#"
import boto3, subprocess, sys
print(boto3.Session().get_credentials().method)
for cli in sys.argv[1:]:
    shown = subprocess.run([cli, "configure", "list"], capture_output=True, text=True, check=True)
    line = next(l for l in shown.stdout.splitlines() if l.split()[0] == "access_key")
    print([word for word in line.split() if word not in ("access_key", ":")][1])
"#;

#[test]
fn no_keys_of_somebody_else_win_over_the_endpoint() {
    let world = World::start();
    let (python, cli) = (python_program("python3"), python_program("aws"));
    let whose = [python.to_str().unwrap(), "-c", WHOSE, cli.to_str().unwrap(), DEBIANS_CLI];
    let exec = ["exec", "short", "--ttl", "1h", "--renew", "--"];
    let keys = "aws_access_key_id = AKIAOTHER\n  aws_secret_access_key = x\n";
    let level = keys.replace("\n  ", "\n");
    world.home.write("keys", "AWSAccessKeyId=AKIAOTHER\nAWSSecretKey=x\n");
    for (file, text) in [
        (".aws/credentials", format!("[default]\n  {keys}")),
        (".aws/credentials", format!("[default]\n\n# mine\n  {keys}")),
        (".aws/credentials", format!("[DEFAULT]\n{level}[default]\n")),
        (".aws/credentials", format!("[default]\nx = y\n [other]\n{level}")),
        (".aws/config", format!("[default]\n  {keys}")),
        (".aws/config", format!("[DEFAULT]\n{level}[profile default]\nregion = x\n")),
        (".boto", format!("[Credentials]\n{level}")),
        (".none", String::new()),
    ] {
        world.home.write(file, &text);
        let keys = world.home.path("keys");
        let run = |args: &[&str]| {
            let whole = world.tmpcred(&[args, &whose].concat());
            whole.env("AWS_CREDENTIAL_FILE", &keys).limit(Duration::from_secs(60)).run().ok()
        };
        let methods: Vec<_> = run(&exec).stdout.lines().map(String::from).collect();
        assert_eq!(methods, ["container-role"; 3], "{file}: {text}");
        std::fs::remove_file(world.home.path(file)).unwrap();
    }
}

#[test]
fn neither_the_token_nor_a_renewed_credential_shows_in_any_log() {
    let world = World::start();
    let script = "import boto3, os, time
print(os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN'])
end = time.time() + 6
while time.time() < end:
    keys = boto3.Session().get_credentials().get_frozen_credentials()
    time.sleep(0.5)
print(keys.secret_key)
print(keys.token)";
    let python = python_program("python3");
    let all = ["-vv", "exec", "short", "--renew", "--", python.to_str().unwrap(), "-c", script];
    let output =
        world.tmpcred(&all).env("TMPCRED_LOG", "trace").env("RUST_LOG", "trace").run().ok();
    assert!(output.stderr.contains("has been renewed"), "{}", output.stderr);
    let mut lines = output.stdout.lines();
    for name in ["the endpoint's token", "the secret key", "the session token"] {
        let found =
            Canary::of(name, lines.next().unwrap()).search("logs", output.stderr.as_bytes());
        assert!(found.is_empty(), "{name}");
    }
}

#[test]
fn the_next_keys_and_the_token_to_ask_for_them_are_masked_too() {
    let world = World::start();
    let script = "import boto3, os, time
print('token', os.environ['AWS_CONTAINER_AUTHORIZATION_TOKEN'], flush=True)
first = keys = boto3.Session().get_credentials().get_frozen_credentials()
print('first', keys.access_key, keys.secret_key, keys.token, flush=True)
end = time.time() + 60
while keys.access_key == first.access_key and time.time() < end:
    time.sleep(0.2)
    keys = boto3.Session().get_credentials().get_frozen_credentials()
print('second', keys.access_key, keys.secret_key, keys.token, first != keys)";
    let python = python_program("python3");
    let all = ["exec", "short", "--renew", "--mask", "--", python.to_str().unwrap(), "-c", script];
    let output = world.tmpcred(&all).limit(Duration::from_secs(120)).run().ok();
    assert_eq!(output.stdout, "token ***\nfirst *** *** ***\nsecond *** *** *** True\n");
}

#[test]
fn a_signal_or_a_new_start_is_there_for_who_does_not_ask() {
    let world = World::start();
    let exec = |action: &str, script: &str| {
        let all = ["exec", "short", "--on-renew", action, "--", "sh", "-c", script];
        world.tmpcred(&all).spawn()
    };
    let signalled = exec(
        "signal:HUP",
        "trap 'n=$((n+1)); echo renewed $n' HUP; echo up; while [ \"$n\" != 2 ]; do sleep 0.1; done",
    );
    // Keys in the environment, new ones at each start; what it does with them goes well.
    let restarted = exec(
        "restart",
        "echo with $AWS_ACCESS_KEY_ID; \
         test $(grep -c . starts 2>/dev/null || echo 0) -ge 2 && exit 5; echo x >>starts; \
         trap 'exit 0' TERM; while :; do sleep 0.1; done",
    );
    // One that reads something again at this signal, and lives on, is as any other.
    let reads = exec(
        "restart",
        "test -e read && exit 5; trap 'echo reads; : >read' HUP; trap 'exit 0' TERM; echo up; \
         while :; do sleep 0.1; done",
    );
    reads.line_on_stdout("up");
    reads.signal(Signal::HUP);
    // Who does not end when asked is made to.
    let signalled = signalled.wait().ok();
    assert_eq!(signalled.stdout, "up\nrenewed 1\nrenewed 2\n");
    let restarted = restarted.wait().ended_with(5);
    let mut keys: Vec<_> = restarted.stdout.lines().collect();
    assert_eq!(keys.len(), 3, "{keys:?}");
    keys.sort_unstable();
    keys.dedup();
    assert!(keys.len() == 3 && keys[0].len() > "with ".len(), "{keys:?}");
    assert_eq!(reads.wait().ended_with(5).stdout, "up\nreads\n");
    // A person who ends it does not want it started again.
    let ended =
        exec("restart", "trap 'echo down; exit 0' TERM; echo up; while :; do sleep 0.1; done");
    ended.line_on_stdout("up");
    ended.signal(Signal::TERM);
    assert_eq!(ended.wait().ok().stdout, "up\ndown\n");
}

/// Waits for its standard input to end, then asks for credentials.
const LATE: &str = r#"
import boto3, sys, time
print("up", flush=True)
session = boto3.Session()
time.sleep(9)
try:
    session.get_credentials().get_frozen_credentials()
    print("renewed")
except Exception as e:
    print(type(e).__name__, e)
"#;

#[test]
fn the_end_of_what_cannot_be_renewed_is_told_in_time() {
    let world = World::start();
    let python = python_program("python3");
    let run = world
        .tmpcred(&["exec", "short", "--renew", "--", python.to_str().unwrap(), "-c", LATE])
        .limit(Duration::from_secs(60))
        .spawn();
    run.line_on_stdout("up");
    // It answers nothing, not even that it cannot.
    world.gateway.freeze();
    let output = run.wait().ok();
    let told: Vec<_> = output.stderr.lines().filter(|line| line.starts_with("warning: ")).collect();
    assert_eq!(told.len(), 2, "{}", output.stderr);
    assert!(told[0].contains(" ends in ") && told[1].contains(" has ended"), "{told:?}");
    assert!(told.iter().all(|line| line.contains("there is no answer yet")), "{told:?}");
    // What the SDK says has our reason in it.
    assert!(output.stdout.contains("has ended and could not be renewed"), "{}", output.stdout);
}

#[test]
fn an_outage_is_ridden_out_while_the_credential_lives() {
    let world = World::start();
    let python = python_program("python3");
    let read = [python.to_str().unwrap(), "-u", "-c", READER, world.gateway.url(), "120", "2"];
    // Half of these are left when it is renewed, and an attempt gives up after eight seconds.
    let exec = ["exec", "short", "--ttl", "40s", "--renew", "--"];
    let run = world.tmpcred(&[&exec[..], &read].concat()).limit(Duration::from_secs(150)).spawn();
    let begun = || world.home.path("work/begun").exists().then_some(());
    wait_until("the first object", Duration::from_secs(60), begun);
    // Who reads meanwhile waits, as with any slow server.
    world.gateway.freeze();
    let told = run.line_on_stderr("could not be renewed");
    assert!(told.contains("keeps the present one"), "{told}");
    world.gateway.thaw();
    run.line_on_stderr("has been renewed after all");
    let output = run.wait().ok();
    assert!(output.stdout.contains("with 2 keys"), "{}", output.stdout);
    for never in ["has ended", " ends in "] {
        assert!(!output.stderr.contains(never), "{}", output.stderr);
    }
}

#[test]
fn explain_tells_whether_a_credential_is_renewed() {
    let mut world = World::start();
    let mode = |world: &World, args: &[&str]| -> Value {
        let all = [&["explain", "short", "--json"], args].concat();
        world.tmpcred(&all).run().ok().json()["mode"].clone()
    };
    assert_eq!(mode(&world, &[])["name"], "execve");
    let renewed = mode(&world, &["--renew"]);
    assert_eq!(renewed["name"], "supervisor");
    assert!(renewed["because"].as_str().unwrap().contains("--renew"), "{renewed}");
    world.config_line("expected_runtime = \"3h\"");
    let renewed = mode(&world, &[]);
    assert_eq!(renewed["name"], "supervisor");
    assert!(renewed["because"].as_str().unwrap().contains("expected_runtime"), "{renewed}");
    assert_eq!(mode(&world, &["--renew=false"])["name"], "execve");
    let show = ["exec", "short", "--", "printenv", "AWS_CONTAINER_CREDENTIALS_FULL_URI"];
    assert!(world.tmpcred(&show).run().ok().stdout.starts_with("http://127.0.0.1:"));
    // Longer than expected: nothing to be done.
    world.config_line("expected_runtime = \"1s\"");
    world.tmpcred(&show).run().ended_with(1);

    let refused = |args: &[&str]| {
        let all = [&["exec", "short"], args, &["--", "true"]].concat();
        world.tmpcred(&all).run().ended_with(125).stderr
    };
    let said = refused(&["--renew=false", "--on-renew", "restart"]);
    assert!(said.contains("no meaning"), "{said}");
    let all = ["exec", "short", "--on-renew", "signal:KILL", "--", "true"];
    let said = world.tmpcred(&all).run().ended_with(125).stderr;
    assert!(said.contains("HUP, USR1"), "{said}");
}
