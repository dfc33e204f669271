//! The key-encryption key from a program: as the page has it, with a token that speaks
//! PKCS#11 and with a stand-in for AWS KMS, and with programs that fail.

use std::path::Path;

use super::revocation::Services;
use super::support::aws::Moto;
use super::support::broker::{API, Broker, BrokerOptions, KEK};
use super::support::home::{Home, tmpcred};
use super::support::http::Http;
use super::support::peer::program;
use super::support::run::Output;

/// Where the page has what is encrypted.
const ON_THE_PAGE: &str = "/etc/tmpcred-broker/";

const PIN: &str = "5678";

/// The blocks of the page about a KMS that begin in this way, for files in this home.
#[track_caller]
fn of_page(kind: &str, begins: &str, home: &Home) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/broker.md");
    let page = std::fs::read_to_string(page).unwrap();
    let section = page.split("\n### From a KMS\n").nth(1).unwrap();
    let fences = section.split("\n```").skip(1).step_by(2);
    let mut texts = fences.filter_map(|fence| fence.strip_prefix(kind)?.strip_prefix('\n'));
    let text = texts.find(|text| text.contains(begins)).unwrap();
    let below = home.path("").display().to_string();
    text.replace(ON_THE_PAGE, &format!("{below}/"))
}

fn trusting(keys: &str) -> BrokerOptions {
    let mut options = BrokerOptions::trusting("http://127.0.0.1:9");
    options.more = format!("\n{keys}\n");
    options
}

/// `tmpcred broker …`, with its configuration.
#[track_caller]
fn broker(home: &Home, args: &[&str]) -> Output {
    let run = tmpcred(home).args(["broker"]).args(args);
    run.args(["--config"]).args([home.path("broker.toml")]).run()
}

/// That the broker signs by keys that are sealed under what the program prints, and
/// its commands have the same.
#[track_caller]
fn serves_and_all_commands_have_it(home: Home, keys: &str) -> Broker {
    let mut served = Broker::start_in(home, &trusting(keys));
    served.restart();
    let list = broker(&served.home, &["keys", "list", "--json"]).ok().json();
    assert!(list.as_array().unwrap().iter().any(|key| key["state"] == "active"), "{list}");
    broker(&served.home, &["revoke", "--all", "--reason", "to try it"]).ok();
    broker(&served.home, &["audit", "verify"]).ok();
    let copy = served.home.path("copy.db").display().to_string();
    let copied = broker(&served.home, &["backup", &copy, "--json"]).ok().json();
    assert_eq!(copied["seal_checked"], true, "{copied}");
    // Nothing of this can be had with another one, such as that in the variable.
    let toml = std::fs::read_to_string(served.home.path("broker.toml")).unwrap();
    served.home.write("other.toml", toml.replace(keys, ""));
    let other = tmpcred(&served.home).args(["broker", "keys", "list", "--config"]);
    let other = other.args([served.home.path("other.toml")]).env("TMPCRED_BROKER_KEK", KEK);
    let refused = other.run().ended_with(3).stderr;
    assert!(refused.contains("the key-encryption key does not open this database"), "{refused}");
    served
}

#[test]
fn a_token_decrypts_it_as_the_page_has_it() {
    let mut home = Home::new();
    let tokens = home.directory("tokens");
    let conf = format!(
        "directories.tokendir = {}\nobjectstore.backend = file\nlog.level = ERROR\n",
        tokens.display()
    );
    let conf = home.write("softhsm2.conf", conf);
    home.set("SOFTHSM2_CONF", conf);
    home.set("TOKEN_PIN", PIN);
    let init = ["--init-token", "--free", "--label", "broker", "--so-pin", "1234", "--pin", PIN];
    home.command(program("softhsm2-util")).args(init).run().ok();
    let make =
        ["--module", "/usr/lib/softhsm/libsofthsm2.so", "--token-label", "broker", "--login"];
    let make = home.command(program("pkcs11-tool")).args(make);
    make.args(["--pin", PIN, "--keypairgen", "--key-type", "rsa:2048", "--id", "01"]).run().ok();

    let wrap = of_page("sh", "pkcs11-tool", &home);
    home.command("sh").args(["-ec", &wrap]).run().ok();
    let keys = of_page("toml broker.toml keys", "pkcs11-tool", &home);
    let mut served = serves_and_all_commands_have_it(home, &keys);

    served.stop();
    served.home.set("TOKEN_PIN", "1111");
    let refused = broker(&served.home, &["serve"]).ended_with(1).stderr;
    assert!(refused.contains("pkcs11-tool gives no key-encryption key"), "{refused}");
    assert!(refused.contains("CKR_PIN_INCORRECT"), "{refused}");
    // A backup says no less than it did before.
    let copy = served.home.path("other.db").display().to_string();
    let refused = broker(&served.home, &["backup", &copy]).ended_with(1).stderr;
    assert!(refused.contains("CKR_PIN_INCORRECT"), "{refused}");
    assert!(refused.contains("a broker.toml without [keys]"), "{refused}");
}

#[test]
fn aws_kms_decrypts_it_as_the_page_has_it() {
    let moto = Moto::start(999);
    let mut home = Home::new();
    for (name, value) in [
        ("AWS_ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"),
        ("AWS_SECRET_ACCESS_KEY", "for-a-stand-in"),
        ("AWS_REGION", "eu-central-1"),
        ("AWS_ENDPOINT_URL", moto.url()),
    ] {
        home.set(name, value);
    }
    let aws = |args: &[&str]| {
        let at = ["--endpoint-url", moto.url(), "--region", "eu-central-1"];
        home.command(program("aws")).args(["kms"]).args(args).args(at).run().ok().stdout
    };
    let key: serde_json::Value = serde_json::from_str(&aws(&["create-key"])).unwrap();
    let id = key["KeyMetadata"]["KeyId"].as_str().unwrap();
    aws(&["create-alias", "--alias-name", "alias/tmpcred-broker", "--target-key-id", id]);

    // The stand-in is elsewhere, and takes other credentials.
    let at = format!("--endpoint-url {} --region eu-central-1", moto.url());
    let wrap = of_page("sh", "aws kms", &home);
    home.command("sh").args(["-ec", &wrap.replace("aws kms", &format!("aws {at} kms"))]).run().ok();
    let keys = of_page("toml broker.toml keys", "kms", &home);
    let words: Vec<_> = at.split(' ').map(|word| format!("{word:?}, ")).collect();
    let keys = keys.replace("\"kms\",", &format!("{}\"kms\",", words.concat()));
    let keys = keys.replace("AWS_ROLE_ARN", "AWS_ACCESS_KEY_ID");
    let keys = keys.replace("AWS_WEB_IDENTITY_TOKEN_FILE", "AWS_SECRET_ACCESS_KEY");
    serves_and_all_commands_have_it(home, &keys);
}

#[test]
fn a_program_that_gives_none_keeps_the_broker_from_starting() {
    let home = Home::new();
    let served = |program: &str, script: &str| {
        home.write_program("kek", &format!("#!/bin/sh\n{script}\n"));
        let toml = format!(
            r#"
            issuer = "http://127.0.0.1:1"
            listen = "127.0.0.1:0"
            [store]
            path = "broker.db"
            [keys]
            kek_command = ["{program}", "one"]
            [trusted_issuer.corp]
            issuer = "http://127.0.0.1:9"
            [policy]
            files = ["policy.cedar"]
            [role.reader]
            audiences = ["https://api.example.com"]
            max_ttl = "1h"
            "#
        );
        home.write("broker.toml", toml);
        let refused = broker(&home, &["serve"]);
        assert!(!refused.stderr.contains(KEK) && !refused.stdout.contains(KEK));
        assert!(!home.path("broker.db").exists(), "{}", refused.stderr);
        refused.stderr
    };
    for (program, script, says) in [
        ("bin/kek", format!("echo {KEK}; echo no access >&2; exit 3"), "it said: no access"),
        (
            "bin/kek",
            format!("while echo {KEK}; do :; done"),
            "more than 1024 bytes, and was killed",
        ),
        ("bin/kek", format!("echo {KEK}{KEK}"), "printed something else than 32 bytes in base64"),
        ("./bin/none", String::new(), "it cannot be started"),
        // It is no program of PATH.
        ("kek", format!("echo {KEK}"), "it cannot be started"),
    ] {
        let said = served(program, &script);
        assert!(said.contains(says), "{program}: {script}: {said}");
    }
}

/// Another one, and yet another.
const NEXT: [&str; 2] = [
    "CQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQkJCQk=",
    "CgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgoKCgo=",
];

/// A file with one, as private as it has to be.
fn file(home: &Home, name: &str, text: &str, mode: u32) -> String {
    use std::os::unix::fs::PermissionsExt as _;
    let path = home.write(name, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    path.display().to_string()
}

#[test]
fn another_one_takes_the_place_of_the_first_while_brokers_run() {
    let mut services = Services::start();
    let mut twin = services.broker.twin();
    let token = services.token("a", API);
    let is_good = |url: &str| {
        let url = format!("{url}/introspect");
        Http::new().form_as(&token, &url, &[("token", &token)]).unwrap().json()["active"] == true
    };
    let config = |home: &Home, name: &str| std::fs::read_to_string(home.path(name)).unwrap();
    let with = |home: &Home, name: &str, args: &[&str]| {
        let run = tmpcred(home).args(["broker"]).args(args).env("TMPCRED_BROKER_KEK", KEK);
        run.args(["--config"]).args([home.path(name)])
    };
    let home = &services.broker.home;
    let first = config(home, "broker.toml");
    home.write("first.toml", &first);
    let listed = |home: &Home, name: &str| -> Vec<(String, bool)> {
        let list = with(home, name, &["kek", "list", "--json"]).run().ok().json();
        let each = |one: &serde_json::Value| {
            let added = one["added_at"].as_str().unwrap();
            assert!(added.starts_with("20") && added.ends_with('Z'), "{added}");
            (one["id"].as_str().unwrap().to_string(), one["configured"] == true)
        };
        list.as_array().unwrap().iter().map(each).collect()
    };
    let [(old, true)] = &listed(home, "broker.toml")[..] else { panic!("there is one") };

    let of_before = home.path("before.db").display().to_string();
    with(home, "broker.toml", &["backup", &of_before]).run().ok();
    let nowhere = with(home, "broker.toml", &["kek", "add", "absent"]).run().ended_with(2).stderr;
    assert!(nowhere.contains("there is no file absent"), "{nowhere}");
    let broken = file(home, "broken", "no key", 0o600);
    let broken = with(home, "broker.toml", &["kek", "add", &broken]).run().ended_with(3).stderr;
    assert!(broken.contains("openssl rand") && !broken.contains("takes no new one"), "{broken}");
    let open = file(home, "open", NEXT[0], 0o644);
    let refused = with(home, "broker.toml", &["kek", "add", &open]).run().ended_with(3).stderr;
    assert!(refused.contains("is not private"), "{refused}");
    let next = file(home, "next", NEXT[0], 0o600);
    for says in ["opens the database, too", "opens the database already"] {
        let added = with(home, "broker.toml", &["kek", "add", &next]).run().ok().stderr;
        assert!(added.contains(says) && !added.contains(NEXT[0]), "{added}");
    }
    let both = listed(home, "broker.toml");
    assert_eq!((both.len(), &both[0], both[1].1), (2, &(old.clone(), true), false));
    let refused = with(home, "broker.toml", &["kek", "remove", old]).run().ended_with(2).stderr;
    assert!(refused.contains("is the one of the configuration"), "{refused}");

    // One after the other has it, and whichever has which, they are one broker.
    let keys = format!("\n[keys]\nkek_file = {next:?}\n");
    home.write("broker.toml", first.clone() + &keys);
    services.broker.restart();
    assert!(is_good(services.broker.url()) && is_good(&twin.url));
    let home = &services.broker.home;
    assert_eq!(listed(home, "broker.toml"), [(old.clone(), false), (both[1].0.clone(), true)]);
    let removed = ["kek", "remove", old, "--reason", "it leaked"];
    with(home, "broker.toml", &removed).run().ok();
    // Who runs needs none until they start again.
    assert!(is_good(services.broker.url()) && is_good(&twin.url));
    let of_twin = config(home, &twin.name);
    let elsewhere = first.replace("listen = \"127.0.0.1:", "listen = \"127.0.0.1:0\" # ");
    home.write("first.toml", elsewhere);
    for args in [&["keys", "list"][..], &["serve"], &["kek", "list"]] {
        let refused = with(home, "first.toml", args).run().ended_with(3).stderr;
        assert!(
            refused.contains("the key-encryption key does not open this database"),
            "{refused}"
        );
        assert!(refused.contains(&format!("it is {old}; {} is needed", both[1].0)), "{refused}");
    }
    home.write(&twin.name, of_twin + &keys);
    services.broker.restart_twin(&mut twin);
    assert!(is_good(&twin.url));
    services.token("b", API);

    // From standard input, and from where another configuration says.
    let home = &services.broker.home;
    let third = with(home, "broker.toml", &["kek", "add", "-"]).stdin(NEXT[1]).run().ok().stderr;
    assert!(!third.contains(NEXT[1]), "{third}");
    let refused = with(home, "broker.toml", &["kek", "add", "-"]).stdin("short").run();
    assert!(refused.ended_with(3).stderr.contains("32 bytes in base64"));
    let other = format!("{first}\n[keys]\nkek_env = \"THIRD\"\n");
    home.write("third.toml", other);
    let other = ["kek", "add", "--of-config", &home.path("third.toml").display().to_string()];
    let again = with(home, "broker.toml", &other).env("THIRD", NEXT[1]).run().ok().stderr;
    assert!(again.contains("opens the database already"), "{again}");
    assert_eq!(listed(home, "broker.toml").len(), 2);

    // All of it goes over with a backup, which says of the seal what it said before.
    with(home, "broker.toml", &["audit", "verify"]).run().ok();
    let copy = home.path("copy.db").display().to_string();
    let copied = with(home, "broker.toml", &["backup", &copy, "--json"]).run().ok().json();
    assert_eq!(
        (&copied["seal_checked"], &copied["key_encryption_keys"]),
        (&true.into(), &2.into())
    );
    home.write("restored.toml", config(home, "third.toml").replace("broker.db", "restored.db"));
    let restore = with(home, "restored.toml", &["restore", &copy, "--json"]).env("THIRD", NEXT[1]);
    assert_eq!(restore.run().ok().json()["seal_checked"], true);
    // Of one from before only the first one knows.
    home.write("other.toml", config(home, "third.toml").replace("broker.db", "other.db"));
    let older = with(home, "other.toml", &["restore", &of_before]).env("THIRD", NEXT[1]).run();
    let refused = older.ended_with(3).stderr;
    assert!(refused.contains(&format!("{old} is needed")), "{refused}");
    assert!(!home.path("other.db").exists());
    home.write("older.toml", first.replace("broker.db", "older.db"));
    with(home, "older.toml", &["restore", &of_before]).run().ok();
    assert_eq!(listed(home, "older.toml"), [(old.clone(), true)]);
    let found = ["audit", "query", "--action", "key", "--json"];
    let found = with(home, "broker.toml", &found).run().ok().stdout;
    let told = [
        format!("{old} opens the database no more: it leaked"),
        format!("{} opens the database as {old} does", both[1].0),
    ];
    assert!(told.iter().all(|one| found.contains(one)), "{found}");
}
