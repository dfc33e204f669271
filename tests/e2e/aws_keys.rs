//! Access keys of AWS and MFA codes: asked for on a terminal or taken from a program,
//! and signatures that a real server checks.

use rustix::process::{Pid, Signal};
use serde_json::json;

use super::support::aws::{Moto, aws_cli, python_program};
use super::support::canary::Canary;
use super::support::home::{Home, tmpcred};
use super::support::run::Run;
use super::support::terminal::Terminal;

const DEVICE: &str = "arn:aws:iam::123456789012:mfa/alice";
const SPOKE: &str = "arn:aws:iam::210987654321:role/spoke";

/// A user of moto, who may assume roles, and a home in which the profile `hub` is
/// a role of moto's.
struct World {
    home: Home,
    moto: Moto,
    /// The identity. Tests share a keyring, so each has a name of its own.
    name: String,
    id: String,
    secret: String,
}

impl World {
    /// `more` goes into the target of the profile.
    fn start(more: &str) -> Self {
        // From here on moto checks signatures, session tokens and permissions.
        let moto = Moto::start(5);
        let (id, secret) = moto.user("alice", "sts:AssumeRole");
        let trust = json!([{ "Effect": "Allow", "Action": "sts:AssumeRole",
            "Principal": { "AWS": "arn:aws:iam::123456789012:user/alice" },
            "Condition": { "StringEquals": { "sts:ExternalId": "contract" } } }]);
        let hub = moto.role_for("hub", trust, Some("sts:AssumeRole"));
        let name = format!("work-{}", moto.url().rsplit(':').next().unwrap());
        let mut home = Home::new();
        home.set("TMPCRED_NO_INPUT", "false");
        home.config(&format!(
            "[cache]\nstore = \"kernel\"\n\n[identity.{name}]\ntype = \"aws-keys\"\n\n\
             [profile.hub]\nrole = \"{hub}\"\n[profile.hub.target]\ntype = \"aws\"\n\
             region = \"eu-central-1\"\nexternal_id = \"contract\"\n\
             endpoint_url = \"{}\"\n{more}\n",
            moto.url()
        ));
        Self { home, moto, name, id, secret }
    }

    fn tmpcred(&self, args: &[&str]) -> Run {
        tmpcred(&self.home).args(args)
    }

    fn login(&self, secret: &str, more: &[&str]) -> Run {
        let args = [&["login", &self.name, "--stdin"], more].concat();
        self.tmpcred(&args).stdin(format!("{}\n{secret}\n", self.id))
    }

    /// Who somebody is with the role of the profile.
    fn hub(&self) -> String {
        format!("arn:aws:sts::123456789012:assumed-role/hub/tmpcred-{}", self.name)
    }

    /// The codes of the device that arrived, each as often as it came. moto takes any, and
    /// none too.
    fn codes(&self) -> Vec<String> {
        let asked = self.moto.all_asked("AssumeRole");
        assert!(asked.iter().all(|form| form["SerialNumber"] == DEVICE), "{asked:?}");
        let mut codes: Vec<_> = asked.into_iter().map(|form| form["TokenCode"].clone()).collect();
        codes.sort();
        codes
    }

    fn whoami(&self, more: &[&str]) -> Run {
        let aws = python_program("aws");
        let aws = [aws.to_str().unwrap(), "sts", "get-caller-identity", "--output", "json"];
        let all = [&["exec", "hub"], more, &["--"], &aws].concat();
        self.tmpcred(&all).env("AWS_ENDPOINT_URL", self.moto.url())
    }
}

/// A program that prints another code each time.
fn codes(home: &Home) -> String {
    home.write_program(
        "totp",
        "#!/bin/sh\nn=$(cat \"$HOME/count\" 2>/dev/null || echo 0)\necho $((n+1)) >\"$HOME/count\"\nprintf '%06d\\n' $n\n",
    )
    .to_str()
    .unwrap()
    .to_string()
}

#[test]
fn keys_of_the_keyring_sign_for_a_chain_of_roles() {
    let chain =
        format!("chain = [{{ role_arn = \"{SPOKE}\" }}]\nexpect_account = [\"210987654321\"]");
    let world = World::start(&chain);
    let refused = world.tmpcred(&["--no-input", "env", "hub"]).run().ended_with(4);
    assert!(
        refused.stderr.contains(&format!("tmpcred login {}", world.name)),
        "{}",
        refused.stderr
    );

    let said = world.login(&world.secret, &[]).run().ok().stderr;
    let me = world.whoami(&[]).run().ok().json();
    assert_eq!(
        me["Arn"],
        format!("arn:aws:sts::210987654321:assumed-role/spoke/tmpcred-{}", world.name)
    );
    let plan = world.tmpcred(&["explain", "hub"]).run().ok().stdout;
    assert!(plan.contains("AssumeRole of arn:aws:iam::123456789012:role/hub"), "{plan}");
    let status = world.tmpcred(&["status"]).run().ok().stdout;
    let traces = said + &plan + &status;
    for (kind, value) in [("secret access key", &world.secret), ("access key ID", &world.id)] {
        let canary = Canary::of(kind, value);
        assert!(canary.search("what was said", traces.as_bytes()).is_empty(), "{kind}");
        assert!(canary.search_files(&world.home.path("")).is_empty(), "{kind}");
    }

    // Another secret: what the old one got is forgotten, and moto sees the difference.
    world.login("not-the-secret-at-all", &["--force"]).run().ok();
    let wrong = world.whoami(&[]).run().ended_with(125);
    assert!(wrong.stderr.contains("AWS gives no session of the role"), "{}", wrong.stderr);

    // The right keys, but not what the trust policy asks for.
    world.login(&world.secret, &["--force"]).run().ok();
    let config = std::fs::read_to_string(world.home.path(".config/tmpcred/config.toml")).unwrap();
    world.home.config(&config.replace("\"contract\"", "\"another\""));
    let denied = world.whoami(&[]).run().ended_with(125);
    assert!(denied.stderr.contains("status 403"), "{}", denied.stderr);
    world.tmpcred(&["logout"]).run().ok();
    world.tmpcred(&["--no-input", "env", "hub"]).run().ended_with(4);
}

#[test]
fn keys_of_the_environment_are_traded_for_a_session() {
    let world = World::start("");
    let config = std::fs::read_to_string(world.home.path(".config/tmpcred/config.toml")).unwrap();
    world
        .home
        .config(&config.replace("\"aws-keys\"\n", "\"aws-keys\"\nkeys_from = \"environment\"\n"));
    let keys = |run: Run| {
        run.env("AWS_ACCESS_KEY_ID", &world.id).env("AWS_SECRET_ACCESS_KEY", &world.secret)
    };
    let me = keys(world.whoami(&[])).run().ok().json();
    assert_eq!(me["Arn"], world.hub());
    let show = ["exec", "hub", "--", "sh", "-c", "env; cat /proc/$PPID/environ; true"];
    let shown = keys(world.tmpcred(&show)).run().ok().stdout;
    let own = shown.split('\0').next().unwrap();
    assert!(own.contains("AWS_SESSION_TOKEN="), "{own}");
    assert!(!own.lines().any(|line| line == format!("AWS_SECRET_ACCESS_KEY={}", world.secret)));
    let absent = world.tmpcred(&["env", "hub"]).run().ended_with(3);
    for part in ["AWS_ACCESS_KEY_ID is not set", "hint: set what is missing"] {
        assert!(absent.stderr.contains(part), "{part:?} is not in:\n{}", absent.stderr);
    }
    let login = keys(world.tmpcred(&["login"])).run().ended_with(2);
    assert!(login.stderr.contains("needs no login"), "{}", login.stderr);
}

#[test]
fn keys_of_an_identity_that_is_gone_are_forgotten_by_its_name() {
    let world = World::start("");
    world.login(&world.secret, &[]).run().ok();
    let file = world.home.path(".config/tmpcred/config.toml");
    let before = std::fs::read_to_string(file).unwrap();
    world.home.config("[cache]\nstore = \"kernel\"\n[identity.other]\ntype = \"aws-keys\"\n");
    let session = || world.tmpcred(&["status", "--json"]).run().ok().json()["sessions"].clone();
    assert_eq!(
        (&session()[0]["identity"], &session()[0]["configured"]),
        (&json!(world.name), &json!(false))
    );
    let by_name = format!("`tmpcred logout {}`", world.name);
    assert!(world.tmpcred(&["status"]).run().ok().stdout.contains(&by_name));
    // All that is ended can be had again by a login; these cannot.
    let all = world.tmpcred(&["logout", "--all", "--json"]).run().ok();
    assert!(all.stderr.contains("its access keys are left") && all.stderr.contains(&by_name));
    let kept = &all.json()[1];
    assert_eq!((&kept["session"], &kept["identity"]), (&json!("kept"), &json!(world.name)));
    world.home.config(&before);
    assert_eq!(session()[0]["configured"], true);
    assert_eq!(world.whoami(&[]).run().ok().json()["Arn"], world.hub());
    // What is called so now may be something else, which has no sessions.
    let token = "type = \"env\"\nvariable = \"TOKEN\"\n";
    let other = format!("[cache]\nstore = \"kernel\"\n[identity.{}]\n{token}", world.name);
    world.home.config(&other);
    let out = world.tmpcred(&["logout", &world.name, "--json"]).run().ok().json();
    assert_eq!((&out[0]["session"], &out[0]["configured"]), (&json!("forgotten"), &json!(false)));
    assert_eq!(session(), json!([]));
    world.tmpcred(&["logout", &world.name]).run().ended_with(2);
    world.home.config("[cache]\nstore = \"kernel\"\n");
    world.tmpcred(&["logout", &world.name]).run().ended_with(3);
}

#[test]
fn codes_of_a_program_are_sent_once_by_however_many_runs() {
    let world = World::start("");
    let program = codes(&world.home);
    let config = std::fs::read_to_string(world.home.path(".config/tmpcred/config.toml")).unwrap();
    let mfa = format!("mfa = {{ serial = \"{DEVICE}\", command = [\"{program}\"] }}\n");
    world.home.config(&(config + &mfa));
    world.login(&world.secret, &[]).run().ok();
    // Each wants a credential of its own, so each needs a code.
    let runs: Vec<_> = ["15m", "16m", "17m", "18m"]
        .map(|ttl| world.tmpcred(&["--no-input", "env", "hub", "--ttl", ttl]).spawn())
        .into();
    for run in runs {
        run.wait().ok();
    }
    assert_eq!(std::fs::read_to_string(world.home.path("count")).unwrap().trim(), "4");
    assert_eq!(world.codes(), ["000000", "000001", "000002", "000003"]);
    let me = world.whoami(&["--ttl", "15m"]).run().ok().json();
    assert_eq!(me["Arn"], world.hub());
    assert_eq!(std::fs::read_to_string(world.home.path("count")).unwrap().trim(), "4");

    let loud = ["-vv", "env", "hub", "--refresh"];
    let loud = world.tmpcred(&loud).env("TMPCRED_LOG", "trace").env("RUST_LOG", "trace").run().ok();
    assert!(loud.stderr.contains("AssumeRole"), "{}", loud.stderr);
    // It was the fifth.
    assert!(!loud.stderr.contains("000004"), "{}", loud.stderr);
    assert!(!loud.stderr.contains(&world.secret), "{}", loud.stderr);
}

#[test]
fn answers_from_a_program_are_a_line_each() {
    let mut home = Home::new();
    home.set("TMPCRED_NO_INPUT", "false");
    home.config("[cache]\nstore = \"memory\"\n[identity.kr]\ntype = \"aws-keys\"\n");
    let login = |lines: &str| tmpcred(&home).args(["login", "kr", "--stdin"]).stdin(lines).run();
    let one = login("AKIAIOSFODNN7EXAMPLE\n").ended_with(4).stderr;
    assert!(one.contains("the first line, and its secret the second"), "{one}");
    let swapped = login("canary/secret\nAKIAIOSFODNN7EXAMPLE\n").ended_with(2).stderr;
    assert!(swapped.contains("are swapped") && !swapped.contains("canary"), "{swapped}");
}

#[test]
fn a_person_types_keys_and_codes_and_they_do_not_show() {
    let world = World::start(&format!("mfa = {{ serial = \"{DEVICE}\" }}"));
    let terminal = Terminal::start(&world.home, 100, 40);
    terminal.enter("tmpcred login");
    terminal.answer(&format!("Access key ID for '{}'", world.name), &world.id);
    terminal.answer("Secret access key for", &world.secret);
    let screen = terminal.wait_for("logged in to work-");
    assert!(!screen.contains(&world.secret) && !screen.contains(&world.id), "{screen}");

    let nobody = world.tmpcred(&["--no-input", "env", "hub"]).run().ended_with(4);
    assert!(nobody.stderr.contains("an MFA code is needed"), "{}", nobody.stderr);

    // The command's own input is not what is read.
    terminal.enter("clear; echo in | tmpcred exec hub -- cat; echo EN''D 1.");
    terminal.answer(DEVICE, "271828");
    let screen = terminal.wait_for("END 1.");
    assert!(screen.contains("\nin\n") && !screen.contains("271828"), "{screen}");

    terminal.enter("clear; tmpcred exec hub --ttl 20m -- echo fine; echo EN''D 2.");
    terminal.answer(DEVICE, "271828");
    terminal.answer("was sent before", "314159");
    assert!(terminal.wait_for("END 2.").contains("\nfine\n"));
    assert_eq!(world.codes(), ["271828", "314159"]);

    // Who thinks better of it gets the terminal back as it was.
    terminal.enter("clear; tmpcred exec hub --ttl 30m -- echo never");
    terminal.wait_for(DEVICE);
    terminal.press("C-c");
    terminal.enter("echo EN''D 3.");
    let screen = terminal.wait_for("END 3.");
    assert!(screen.contains("echo EN''D 3.") && !screen.contains("\nnever\n"), "{screen}");
}

#[test]
fn whatever_ends_or_stops_a_question_leaves_the_terminal_as_it_was() {
    let mut home = Home::new();
    home.set("TMPCRED_NO_INPUT", "false");
    home.config("[cache]\nstore = \"memory\"\n[identity.kr]\ntype = \"aws-keys\"\n");
    // An interactive shell would put the terminal in order by itself.
    let asks = home.write_program(
        "asks",
        "#!/bin/sh\ntrap : INT QUIT\nsh -c 'echo $$ >\"$HOME/pid\"; exec tmpcred login kr'\n\
         echo WAS $?\nstty -a >\"$HOME/modes\"\necho EN''D $1.\n",
    );
    let terminal = Terminal::start(&home, 100, 40);
    let question = "Access key ID for 'kr'";
    let signal = |signal: Signal| {
        let pid = std::fs::read_to_string(home.path("pid")).unwrap();
        let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    };
    let keys = |key| terminal.press(key);
    // As `systemd` ends what it does not know to run.
    let stopped = || [Signal::STOP, Signal::TERM, Signal::CONT].into_iter().for_each(signal);
    let ends: [(i32, &dyn Fn()); 6] = [
        (130, &|| keys("C-c")),
        (131, &|| keys("C-\\")),
        (143, &|| signal(Signal::TERM)),
        (143, &stopped),
        (129, &|| signal(Signal::HUP)),
        (4, &|| keys("C-d")),
    ];
    for (n, (code, end)) in ends.into_iter().enumerate() {
        terminal.enter(&format!("clear; {} {n}", asks.display()));
        terminal.wait_to_hide(question);
        // A part of an answer, which is for nobody who comes after. (A signal that is sent might
        // be quicker than it.)
        if [130, 131].contains(&code) {
            terminal.write("canary");
        }
        end();
        let screen = terminal.wait_for(&format!("END {n}."));
        assert!(screen.contains(&format!("WAS {code}")) && !screen.contains("canary"), "{screen}");
        let modes = std::fs::read_to_string(home.path("modes")).unwrap();
        for mode in ["echo", "icanon", "isig", "icrnl"] {
            assert!(modes.split_whitespace().any(|one| one == mode), "{code}: {mode}: {modes}");
        }
        assert!(!terminal.run("true").contains("canary"));
    }
    // Who stops it is asked again when they go on with it.
    terminal.enter("clear; tmpcred login kr");
    terminal.wait_to_hide(question);
    keys("C-z");
    terminal.wait_for("Stopped");
    terminal.run("true");
    terminal.enter("fg");
    terminal.answer(question, "AKIAONE");
    terminal.answer("Secret access key for 'kr'", "canary");
    assert!(!terminal.wait_for("logged in to kr").contains("canary"));
}

#[test]
fn keys_go_nowhere_but_to_aws() {
    let home = Home::new();
    let config = |profile: &str| {
        home.config(&format!(
            "[identity.work]\ntype = \"aws-keys\"\n[broker.main]\nurl = \"http://127.0.0.1:9\"\n[profile.p]\n{profile}"
        ));
        tmpcred(&home).args(["config", "check"]).run().ended_with(3).stderr
            + &tmpcred(&home).args(["explain", "p"]).run().ended_with(3).stderr
    };
    let said = config(
        "role = \"r\"\naudience = \"https://api.example.com\"\ntarget = { type = \"broker\" }\n",
    );
    assert_eq!(said.matches("for the target `aws` alone").count(), 2, "{said}");
    let role = "role = \"arn:aws:iam::123456789012:role/x\"\n";
    home.config(&format!(
        "[identity.work]\ntype = \"aws-keys\"\n[broker.main]\nurl = \"http://127.0.0.1:9\"\n\
         [profile.p]\n{role}target = {{ type = \"aws\" }}\nexchange = [{{ role = \"r\" }}]\n"
    ));
    let said = tmpcred(&home).args(["explain", "p"]).run().ended_with(3).stderr;
    assert!(said.contains("without exchanges"), "{said}");
    // And a session of a user for nobody who has no access keys.
    home.config(
        "[identity.corp]\ntype = \"oidc\"\nissuer = \"https://login.example.com\"\nclient_id = \"x\"\n\
         [profile.p]\nrole = \"arn:aws:iam::123456789012:user/alice\"\ntarget = { type = \"aws\" }\n",
    );
    let said = tmpcred(&home).args(["config", "check"]).run().ended_with(3).stderr;
    assert!(said.contains("access keys, and for no token"), "{said}");
    let said = tmpcred(&home).args(["login", "corp", "--stdin"]).run().ended_with(2).stderr;
    assert!(said.contains("reads nothing from standard input"), "{said}");
}

#[test]
fn a_user_who_may_not_is_refused() {
    let moto = Moto::start(4);
    let (id, secret) = moto.user("bob", "s3:GetObject");
    let hub = moto.role("hub", None);
    let home = Home::new();
    home.config(&format!(
        "[cache]\nstore = \"kernel\"\n[identity.bob-{}]\ntype = \"aws-keys\"\n[profile.hub]\nrole = \"{hub}\"\n\
         target = {{ type = \"aws\", endpoint_url = \"{}\" }}\n",
        moto.url().rsplit(':').next().unwrap(),
        moto.url()
    ));
    tmpcred(&home).args(["login", "--stdin"]).stdin(format!("{id}\n{secret}\n")).run().ok();
    // moto says so in the form of another service, so its code is not read.
    let refused = tmpcred(&home).args(["env", "hub"]).run().ended_with(5);
    assert!(refused.stderr.contains("status 403"), "{}", refused.stderr);
    let cli = aws_cli(&home, moto.url()).args(["sts", "get-caller-identity"]);
    let cli = cli
        .env("AWS_DEFAULT_REGION", "us-east-1")
        .env("AWS_ACCESS_KEY_ID", id)
        .env("AWS_SECRET_ACCESS_KEY", secret);
    assert!(cli.run().ok().stdout.contains("user/bob"), "the keys themselves are good");
}
