//! Roles that are had while the identity provider is dead: asked for, approved and used by
//! signatures, which travel as files between users of this machine who never speak to each other.

mod locked_out;
mod waits;

use std::path::Path;

use serde_json::Value;

use super::elevation::aws::{AWS_POLICY, DEPLOY, aws_role, seconds};
use super::elevation::{Company, ROLE, SOON};
use super::support::aws::Moto;
use super::support::home::Home;
use super::support::http::Http;
use super::support::oidc_provider::{OidcOptions, OidcProvider};
use super::support::run::{Output, Running};
use super::support::terminal::Terminal;
use super::support::wait::wait_until;

const KEEPERS: &str = r#"
@id("keepers")
permit (principal == User::"ISSUER#erin", action == Action::"administer", resource)
when { ["enrollments.list", "enrollments.approve"].contains(context.operation) };
"#;

/// A company whose leads have keys: alice's is in her keyring, bob's in an SSH agent, carol's in
/// a file that `ssh-keygen` reads.
pub(super) struct Prepared {
    pub(super) company: Company,
    /// Bob's agent, which ends with his home.
    _agent: Running,
}

impl Prepared {
    fn new() -> Self {
        Self::at(OidcProvider::start_with(&OidcOptions::default()), "")
    }

    /// The same with this provider, and with more tables.
    pub(super) fn at(provider: OidcProvider, more: &str) -> Self {
        let mut bob = Home::nobody();
        let socket = bob.path("agent.sock");
        bob.directory(".ssh");
        ssh_key(&bob);
        let agent = bob.command("ssh-agent").args(["-D", "-a"]).args([&socket]).limit(SOON * 5);
        let agent = agent.spawn();
        wait_until("an agent", SOON, || socket.exists().then_some(()));
        bob.set("SSH_AUTH_SOCK", &socket);
        bob.command("ssh-add").args(["-q", ".ssh/id_ed25519"]).current_dir(bob.path("")).run().ok();
        let carol = Home::new();
        carol.directory(".ssh");
        ssh_key(&carol);
        let homes = vec![
            ("alice", Home::stranger()),
            ("bob", bob),
            ("carol", carol),
            ("erin", Home::stranger()),
        ];
        let down = "\n[role.admin.elevation.provider_down]\n\n[notify.own]";
        let by_one = r#"approvals = [{ count = 1, groups = ["leads"] }]
[role.aws-deploy.elevation.provider_down]"#;
        let role = ROLE.replace("\n[notify.own]", down) + &aws_role(by_one) + more;
        let company = Company::at(provider, homes, &role, &[KEEPERS, AWS_POLICY].concat());
        let prepared = Self { company, _agent: agent };
        prepared.enroll("alice", &[]);
        prepared.enroll("bob", &["--agent", "--label", "my laptop"]);
        prepared
    }

    /// Enrolls a key as it is printed, and has it approved.
    fn enroll(&self, name: &str, more: &[&str]) {
        let args = [&["keys", "enroll", "--json"], more].concat();
        let key = self.company.elevate(name, &args).ok().json();
        assert_eq!((&key["person"], &key["state"]), (&name.into(), &"pending".into()));
        self.approve_key(&key);
    }

    fn approve_key(&self, key: &Value) {
        let text = |name: &str| key[name].as_str().unwrap().to_string();
        let args =
            ["keys", "approve", &text("id"), "--fingerprint", &text("fingerprint"), "--json"];
        let done = self.company.elevate("erin", &args).ok().json();
        assert_eq!(done["state"], "approved");
    }

    /// Carol enrolls without this program: as docs/break-glass-keys.md has it, by her token.
    fn enroll_carol(&self) {
        let carol = self.company.home("carol");
        // The agent of this program's own signs for nobody but whose keyring it is in.
        let agent = "eval $(ssh-agent) >/dev/null; ssh-add -q ~/.ssh/id_ed25519; \
                     tmpcred elevate keys enroll --key ~/.ssh/id_ed25519.pub --json; \
                     ssh-agent -k >/dev/null";
        let program = carol.share(super::support::home::under_test());
        let text = agent.replace("tmpcred", program.to_str().unwrap());
        let key = carol.command("sh").args(["-euc", &text]).run().ok();
        self.approve_key(&key.json());
    }

    /// Alice asks for the role by a signature, two approve it by theirs, and she has it for a
    /// command; the id of the request.
    pub(super) fn had_by_signatures(&self) -> String {
        self.enroll_carol();
        let ask = ["request", "admin", "--provider-down", "--reason", "INC-4711: the disk is full"];
        let out = ["--for", "30m", "--out", "request.txt", "--json"];
        let asked = self.company.elevate("alice", &[&ask[..], &out].concat()).ok().json();
        let hash = asked["request"].as_str().unwrap();
        let request = self.company.home("alice").path("work/request.txt");
        for who in ["bob", "carol"] {
            self.hand(&request, who, "request.txt");
        }
        let sign = ["sign", "request.txt", "--approve", "--hash", hash, "--out", "bob.txt"];
        self.company.elevate("bob", &sign).ok();
        self.shell("carol", &printed("Approving with OpenSSH alone")).ok();
        self.company.elevate("bob", &["submit", "bob.txt"]).ok();
        let brought = self.company.elevate("carol", &["submit", "carol.txt", "--json"]).ok().json();
        assert_eq!(brought["access"], "approved");
        self.shell("alice", &printed("Having it")).ok();
        brought["id"].as_str().unwrap().to_string()
    }

    /// Runs a script of somebody's.
    fn shell(&self, name: &str, script: &str) -> Output {
        let home = self.company.home(name);
        let program = home.share(super::support::home::under_test());
        let script = script.replace("tmpcred elevate", &format!("{} elevate", program.display()));
        let script = script.replace("tmpcred exec", &format!("{} exec", program.display()));
        home.command("sh")
            .args(["-euc", &script])
            .env("BROKER", self.company.broker.url())
            .limit(SOON)
            .run()
    }

    /// A file that one person hands to another.
    fn hand(&self, file: &Path, to: &str, name: &str) -> String {
        let text = std::fs::read_to_string(file).unwrap();
        let path = self.company.home(to).write(Path::new("work").join(name), text);
        path.to_str().unwrap().to_string()
    }
}

fn ssh_key(home: &Home) {
    let args = ["-q", "-t", "ed25519", "-N", "", "-f", ".ssh/id_ed25519"];
    home.command("ssh-keygen").args(args).current_dir(home.path("")).run().ok();
}

/// The commands that docs/break-glass-provider-down.md prints under this heading.
fn printed(heading: &str) -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/break-glass-provider-down.md");
    let page = std::fs::read_to_string(path).unwrap();
    let below = page.split_once(&format!("\n## {heading}\n")).unwrap().1;
    let block = below.split_once("\n```sh\n").unwrap().1.split_once("\n```").unwrap().0;
    block.replace("prod-admin", "admin")
}

#[test]
fn a_role_is_had_by_files_while_the_provider_is_dead() {
    let prepared = Prepared::new();
    prepared.enroll_carol();
    let company = &prepared.company;
    company.provider.kill();
    let address = ("127.0.0.1", company.provider.port());
    wait_until("its end", SOON, || std::net::TcpStream::connect(address).is_err().then_some(()));
    // As the page has it, each step.
    let shell = |name: &str, script: &str| prepared.shell(name, script);
    shell("alice", &printed("Asking")).ok();
    let request = company.home("alice").path("work/request.txt");
    let text = std::fs::read_to_string(&request).unwrap();
    assert!(text.contains("kind: request\n") && text.contains("person: alice\n"), "{text}");
    prepared.hand(&request, "bob", "request.txt");
    prepared.hand(&request, "carol", "request.txt");
    // Nobody signs what they were not asked about.
    let blind = ["elevate", "sign", "request.txt", "--approve"];
    let blind = company.run("bob", &blind).env("TMPCRED_NO_INPUT", "true").run().ended_with(2);
    assert!(blind.stderr.contains("nobody is there to be asked"), "{}", blind.stderr);
    let terminal = Terminal::start(company.home("bob"), 100, 40);
    terminal.enter(&printed("Approving"));
    terminal.wait_for("Approve exactly this?");
    let screen = terminal.screen();
    for says in ["admin, for", "INC-4711", "alice, by the key SHA256:"] {
        assert!(screen.contains(says), "{says}: {screen}");
    }
    terminal.enter("y");
    terminal.wait_for("written to bob.txt");
    shell("carol", &printed("Approving with OpenSSH alone")).ok();
    prepared.hand(&company.home("bob").path("work/bob.txt"), "alice", "bob.txt");
    prepared.hand(&company.home("carol").path("work/carol.txt"), "alice", "carol.txt");
    // One is not enough, and the same again is no second one.
    let once = company.elevate("alice", &["submit", "bob.txt", "--json"]).ok().json();
    assert_eq!((&once["access"], &once["needs"][0]["have"][0]), (&"pending".into(), &"bob".into()));
    shell("alice", &printed("Bringing it to the broker")).ok();
    let ran = shell("alice", &printed("Having it")).ok();
    let (role, token) = ran.stdout.trim().split_once(' ').unwrap();
    assert_eq!(role, "admin");
    let claims = super::stores::claims(token);
    let id = once["id"].as_str().unwrap();
    assert_eq!(
        (&claims["elevation"]["id"], &claims["elevation"]["path"]),
        (&id.into(), &"provider-down".into())
    );
    assert_eq!(claims["sub_id"]["sub"], "alice");
    // With the command, the grant has ended, and all that was issued under it.
    assert!(!super::revocation::is_active(&company.broker, token));
    assert_eq!(company.told("elevation-approved"), ["alice"]);
    assert_eq!(
        company.story(id),
        [
            "elevation.request alice",
            "elevation.approve bob",
            "elevation.approve carol",
            "elevation.activate alice",
            "issue alice",
            "elevation.relinquish alice",
        ]
    );
}

#[test]
fn one_line_waits_for_signatures_and_needs_as_many_as_ever() {
    let prepared = Prepared::new();
    let company = &prepared.company;
    company.provider.kill();
    let args =
        ["exec", "--elevate", "admin", "--provider-down", "--reason", "INC-4711", "--for", "30m"];
    let run = company.run("alice", &args).args(["--", "sh", "-c", "echo $TMPCRED_ROLE"]);
    let running = run.limit(SOON).spawn();
    let line = running.line_on_stderr("hand this file to those who approve");
    let file = line.rsplit_once(": ").unwrap().1.trim().to_string();
    let hash = Path::new(&file).file_stem().unwrap().to_str().unwrap().to_string();
    let sign = |name: &str| {
        prepared.hand(Path::new(&file), name, "request.txt");
        let args = ["sign", "request.txt", "--hash", &hash, "--out", "-"];
        company.elevate(name, &[&args[..], &["--approve"]].concat())
    };
    let signed = sign("bob").ok().stdout;
    // Who asked signs in vain, and so does whoever has no key there.
    let own = sign("alice").ok().stdout;
    let bring = |name: &str, text: &str| {
        let run = company.run(name, &["elevate", "submit", "-", "--json"]);
        run.stdin(text.to_string()).run()
    };
    let told = bring("erin", &own).ok().json();
    assert_eq!(told["access"], "pending");
    assert!(told["not_taken"][0]["why"].as_str().unwrap().contains("for themselves"), "{told}");
    // Anybody brings what somebody signed.
    let told = bring("erin", &signed).ok().json();
    assert_eq!((&told["access"], &told["needs"][0]["have"][0]), (&"pending".into(), &"bob".into()));
    let stranger = sign("erin");
    assert!(
        stranger.stderr.contains("tmpcred elevate keys enroll")
            || stranger.stderr.contains("--person"),
        "{}",
        stranger.stderr
    );
    let args =
        ["sign", "request.txt", "--deny", "--reason", "use the reader role", "--hash", &hash];
    let denied = company.elevate("bob", &args).ok().stdout;
    bring("bob", &denied).ok();
    let ended = running.wait().ended_with(125);
    assert_eq!(ended.stdout, "");
    assert!(ended.stderr.contains("use the reader role"), "{}", ended.stderr);
}

#[test]
fn a_role_of_aws_is_had_by_signatures_too() {
    let prepared = Prepared::new();
    let company = &prepared.company;
    let moto = Moto::start(9);
    company.with_aws(DEPLOY, moto.url(), "");
    company.provider.kill();
    let by_signature = ["--provider-down", "--for", "30m"];
    let running = company.exec_aws("prod", &by_signature, "echo $TMPCRED_ROLE").spawn();
    let line = running.line_on_stderr("hand this file to those who approve");
    let file = line.rsplit_once(": ").unwrap().1.trim().to_string();
    let hash = Path::new(&file).file_stem().unwrap().to_str().unwrap().to_string();
    prepared.hand(Path::new(&file), "bob", "request.txt");
    let sign = ["sign", "request.txt", "--approve", "--hash", &hash, "--out", "signed.txt"];
    company.elevate("bob", &sign).ok();
    let told = company.elevate("bob", &["submit", "signed.txt", "--json"]).ok().json();
    assert_eq!(told["access"], "approved");
    let ended = running.wait().ok();
    assert_eq!(ended.stdout.trim(), DEPLOY);
    assert!(ended.stderr.contains("the session of AWS lasts until"), "{}", ended.stderr);
    let asked = moto.all_asked("AssumeRoleWithWebIdentity");
    let claims = super::stores::claims(&asked[0]["WebIdentityToken"]);
    assert_eq!(
        (&claims["elevation"]["id"], &claims["elevation"]["path"]),
        (&told["id"], &"provider-down".into())
    );
    assert!((1700..1800).contains(&seconds(&asked[0])), "{asked:?}");
    let story = company.story(told["id"].as_str().unwrap());
    assert_eq!(story.last().unwrap(), "elevation.relinquish alice");
}

#[test]
fn a_second_run_goes_on_with_a_grant_that_a_lead_then_ends_by_a_signature() {
    let prepared = Prepared::new();
    prepared.enroll_carol();
    let company = &prepared.company;
    company.provider.kill();
    let args = ["exec", "--elevate", "admin", "--provider-down", "--reason", "INC-4711"];
    // It is for the test to end it.
    let args = [&args[..], &["--on-expiry", "warn", "--"]].concat();
    let exec = |script: &str| {
        company.run("alice", &args).args(["sh", "-c", script]).env("CI", "").limit(SOON)
    };
    let first = exec("echo first $TMPCRED_TOKEN; while [ ! -e over ]; do sleep 0.1; done").spawn();
    let line = first.line_on_stderr("hand this file to those who approve");
    let file = line.rsplit_once(": ").unwrap().1.trim().to_string();
    let hash = Path::new(&file).file_stem().unwrap().to_str().unwrap().to_string();
    let signs = |name: &str, more: &[&str]| {
        prepared.hand(Path::new(&file), name, "request.txt");
        let args = [&["sign", "request.txt", "--hash", &hash, "--out", "signed.txt"], more];
        company.elevate(name, &args.concat()).ok();
        company.elevate(name, &["submit", "signed.txt", "--json"]).ok().json()
    };
    signs("bob", &["--approve"]);
    prepared.hand(Path::new(&file), "carol", "request.txt");
    prepared.shell("carol", &printed("Approving with OpenSSH alone")).ok();
    company.elevate("carol", &["submit", "carol.txt"]).ok();
    let line = first.line_on_stdout("first ");
    let (_, token) = line.trim().split_once(' ').unwrap();
    let other = args.iter().map(|arg| if *arg == "INC-4711" { "INC-9" } else { arg });
    let other = company.run("alice", &other.collect::<Vec<_>>()).env("CI", "").limit(SOON);
    let second = other.args(["sh", "-c", "echo $TMPCRED_TOKEN"]).run().ok();
    for says in ["going on with the request", "the reason 'INC-4711', not 'INC-9'"] {
        assert!(second.stderr.contains(says), "{says}: {}", second.stderr);
    }
    // It takes its own token back, and leaves the grant to the run that began it.
    assert_ne!(second.stdout.trim(), token);
    assert!(!super::revocation::is_active(&company.broker, second.stdout.trim()));
    assert!(super::revocation::is_active(&company.broker, token));
    // Who may approve it ends it, and says why.
    let terminal = Terminal::start(company.home("bob"), 100, 40);
    for line in printed("Ending it").lines() {
        terminal.enter(line);
        if line.contains("elevate sign ") {
            terminal.wait_for("End exactly this?");
            terminal.enter("y");
            terminal.wait_for("written to end.txt");
        }
    }
    let ended = company.elevate("bob", &["submit", "end.txt", "--json"]).ok().json();
    let end = (&ended["access"], &ended["ended"]["reason"]);
    assert_eq!(end, (&"revoked".into(), &"mended".into()));
    assert!(!super::revocation::is_active(&company.broker, token));
    company.home("alice").write("work/over", "");
    first.wait().ok();
    let story = company.story(ended["id"].as_str().unwrap());
    assert_eq!(story.last().unwrap(), "elevation.revoke bob");
}

#[test]
fn a_key_that_ends_with_the_run_is_not_enrolled_and_it_is_said_where_a_restart_loses_it() {
    let prepared = Prepared::new();
    let enroll = |store: &str| {
        let run = prepared.company.run("erin", &["elevate", "keys", "enroll", "--json"]);
        run.env("TMPCRED_CACHE_STORE", store).run()
    };
    let refused = enroll("memory");
    assert_ne!(refused.code, Some(0));
    for says in ["the key would be gone when this run has ended", "--agent"] {
        assert!(refused.stderr.contains(says), "{says}: {}", refused.stderr);
    }
    let list = prepared.company.elevate("erin", &["keys", "list", "--json"]).ok().json();
    assert_eq!(list["keys"], serde_json::json!([]), "nothing was enrolled");
    let warned = enroll("kernel").ok();
    for says in ["a restart of this machine empties it", "--agent"] {
        assert!(warned.stderr.contains(says), "{says}: {}", warned.stderr);
    }
    assert_eq!(warned.json()["state"], "pending");
}

#[test]
fn who_never_reached_the_broker_asks_by_rules_that_somebody_told_them() {
    let prepared = Prepared::new();
    let company = &prepared.company;
    let told = Http::new().get(&format!("{}/v1/rules", company.broker.url())).unwrap().json();
    let rules = told["rules"].as_str().unwrap();
    company.provider.kill();
    let alice = company.home("alice");
    let config = std::fs::read_to_string(alice.path(".config/tmpcred/config.toml")).unwrap();
    let broker = company.broker.url();
    let away = format!("url = \"http://127.0.0.1:9\"\nissuer = \"{broker}\"");
    alice.config(&config.replace(&format!("url = \"{broker}\""), &away));
    std::fs::remove_dir_all(alice.path(".local/state/tmpcred/provider-down")).unwrap();
    let ask = ["request", "admin", "--provider-down", "--reason", "INC-4711", "--out", "asked.txt"];
    let blind = company.elevate("alice", &[&ask[..], &["--person", "alice", "--keyring"]].concat());
    assert_ne!(blind.code, Some(0));
    assert!(blind.stderr.contains("--rules HASH"), "{}", blind.stderr);
    let args = [&ask[..], &["--person", "alice", "--keyring", "--rules", rules]].concat();
    company.elevate("alice", &args).ok();
    prepared.hand(&alice.path("work/asked.txt"), "bob", "asked.txt");
    let brought = company.elevate("bob", &["submit", "asked.txt", "--json"]).ok().json();
    assert_eq!(
        (&brought["access"], &brought["requester"]["person"]),
        (&"pending".into(), &"alice".into())
    );
}

#[test]
fn it_is_practised_by_the_same_signatures_and_nothing_is_issued() {
    let prepared = Prepared::new();
    prepared.enroll_carol();
    let company = &prepared.company;
    company.provider.kill();
    let drill = ["elevate", "drill", "admin", "--provider-down", "--for", "30m", "--json"];
    let running = company.run("alice", &drill).limit(SOON).spawn();
    let line = running.line_on_stderr("hand this file to those who approve");
    let file = line.rsplit_once(": ").unwrap().1.trim().to_string();
    let text = std::fs::read_to_string(&file).unwrap();
    assert!(text.contains("\ndrill: yes\n"), "{text}");
    prepared.hand(Path::new(&file), "bob", "request.txt");
    prepared.hand(Path::new(&file), "carol", "request.txt");
    // Who signs is told what it is.
    let terminal = Terminal::start(company.home("bob"), 100, 40);
    terminal.enter(&printed("Approving"));
    let screen = terminal.wait_for("Approve exactly this?");
    assert!(screen.contains("DRILL  this is practised; nothing is issued"), "{screen}");
    terminal.enter("y");
    terminal.wait_for("written to bob.txt");
    prepared.shell("carol", &printed("Approving with OpenSSH alone")).ok();
    company.elevate("bob", &["submit", "bob.txt"]).ok();
    company.elevate("carol", &["submit", "carol.txt"]).ok();
    let ended = running.wait().ok().json();
    assert_eq!((&ended["path"], &ended["drill"]), (&"provider-down".into(), &true.into()));
    assert_eq!((&ended["access"], &ended["review"]), (&"relinquished".into(), &"due".into()));
    assert_eq!(ended["tried"]["issued"], true, "{ended}");
    let story = company.story(ended["id"].as_str().unwrap());
    assert!(!story.iter().any(|what| what.starts_with("issue ")), "{story:?}");
}
