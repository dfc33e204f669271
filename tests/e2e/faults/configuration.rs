//! Configuration that is broken, and projects that want too much.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use super::refused;
use crate::journey::Journey;
use crate::support::home::{Home, assert_root, tmpcred};
use crate::support::run::Run;

const CONFIG: &str = ".config/tmpcred/config.toml";

/// Every command that reads the configuration says the same of it.
fn each_command(home: &Home) -> Vec<(Run, i32)> {
    let commands: [(&[&str], i32); 6] = [
        (&["token"], 3),
        (&["env"], 3),
        (&["login"], 3),
        (&["explain"], 3),
        (&["config", "check"], 3),
        (&["exec", "--", "true"], 125),
    ];
    commands.map(|(args, code)| (tmpcred(home).args(args), code)).into()
}

#[track_caller]
fn all_refuse(home: &Home, says: &[&str]) {
    for (run, code) in each_command(home) {
        refused(run, code, says);
    }
}

#[test]
fn a_broken_file_is_shown_with_file_line_and_column() {
    let home = Home::stranger();
    let path = home
        .config("[identity.corp]\ntype = \"oidc\"\nissuer = \"https://i.example\nclient_id = 1\n");
    let place = format!("{}:3:", path.display());
    all_refuse(&home, &["this is not TOML", &place, "issuer = …"]);

    let path = home.config(
        "[identity.corp]\ntype = \"oidc\"\nissuer = \"https://i.example\"\nclient_idd = \"cli\"\n",
    );
    let place = format!("{}:4:1", path.display());
    all_refuse(&home, &["client_idd", &place, "did you mean `client_id`"]);
    // Commands that need no configuration go on.
    tmpcred(&home).args(["config", "path"]).run().ok();
    tmpcred(&home).args(["config", "schema"]).run().ok();
    tmpcred(&home).args(["--version"]).run().ok();
}

#[test]
fn what_is_cached_is_shown_although_the_configuration_is_broken() {
    let journey = Journey::start();
    journey.tmpcred(&["token"]).run().ok();
    journey.home.config("[profile.deploy\n");
    let shown = journey.tmpcred(&["status"]).run().ok();
    assert!(shown.stdout.contains("alice") && shown.stdout.contains("deploy"), "{}", shown.stdout);
    assert!(!shown.stdout.contains("kept in"), "{}", shown.stdout);
    let said = shown.stderr.trim_end();
    assert!(
        said.contains("the configuration cannot be used, as `tmpcred config check` shows"),
        "{said}"
    );
    let report = journey.tmpcred(&["status", "--json"]).run().ok().json();
    assert_eq!(report["credentials"][0]["profile"], "deploy");
    assert!(report["store"].is_null(), "{report}");
}

#[test]
fn a_file_that_is_no_configuration_at_all_is_refused() {
    let home = Home::stranger();
    let path = home.config("");
    let name = path.display().to_string();
    fs::write(&path, "# big\n".repeat(2_000_000 / 6)).unwrap();
    all_refuse(&home, &["a configuration file cannot be read", &name, "1048576"]);
    fs::write(&path, [0x7f, b'E', b'L', b'F', 0xff, 0xfe, 0, 1]).unwrap();
    all_refuse(&home, &["cannot be read", &name, "is not a text file", "hint: a configuration"]);
    fs::write(&path, "a = 1\n\0").unwrap();
    all_refuse(&home, &["cannot be read", &name, "it has zero bytes"]);
    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    all_refuse(&home, &["cannot be read", &name, "Permission denied"]);
    fs::set_permissions(&path, Permissions::from_mode(0o666)).unwrap();
    fs::write(&path, "").unwrap();
    all_refuse(&home, &[&name, "is not safe", "chmod go-w"]);
    fs::remove_file(&path).unwrap();
    home.directory(CONFIG);
    all_refuse(&home, &["cannot be read", &name]);
}

#[test]
fn an_unknown_profile_is_named_with_its_neighbour() {
    let journey = Journey::start();
    let before = journey.asked();
    let says = ["there is no profile `reder`", "did you mean `reader`", "`deploy`, `reader`"];
    refused(journey.tmpcred(&["token", "reder"]), 3, &says);
    refused(journey.tmpcred(&["exec", "reder", "--", "true"]), 125, &says);
    let variable = journey.tmpcred(&["token"]).env("TMPCRED_PROFILE", "reder");
    refused(variable, 3, &["`reder`", "TMPCRED_PROFILE", "did you mean `reader`"]);
    assert_eq!(journey.asked(), before);
}

#[test]
fn nothing_configured_says_what_to_type_next() {
    let home = Home::stranger();
    for (args, code) in [(&["exec", "--", "true"][..], 125), (&["token"], 3), (&["login"], 3)] {
        let output = refused(tmpcred(&home).args(args), code, &["hint: "]);
        assert!(output.stderr.contains("tmpcred "), "{}", output.stderr);
    }
}

/// The profile that a command without one would use.
#[track_caller]
fn chosen(run: Run) -> String {
    run.args(["explain", "--json"]).run().ok().json()["plan"]["profile"].as_str().unwrap().into()
}

#[test]
fn a_clone_cannot_pick_a_profile_that_is_not_for_projects() {
    let journey = Journey::start();
    let config = fs::read_to_string(journey.home.path(CONFIG)).unwrap();
    let admin =
        "\n[profile.prod-admin]\nrole = \"deploy\"\naudience = \"https://api.example.com\"\n";
    journey.home.config(&format!("{config}project_selectable = true\n{admin}"));
    let run = || tmpcred(&journey.home);
    let before = journey.asked();
    assert_eq!(chosen(run()), "deploy");

    journey.home.project("profile = \"reader\"\n");
    assert_eq!(chosen(run()), "reader");
    assert_eq!(chosen(run().env("TMPCRED_PROFILE", "prod-admin")), "prod-admin");
    // From below, too.
    let below = journey.home.directory("work/src/deep");
    assert_eq!(chosen(run().current_dir(below)), "reader");

    let file = journey.home.project("profile = \"prod-admin\"\n");
    let place = format!("{}:1:11", file.display());
    let may_not = ["a project may not choose the profile `prod-admin`", &place];
    let make = ["exec", "--", "make"];
    refused(run().args(make), 125, &may_not);
    refused(run().args(["token"]), 3, &may_not);
    assert_eq!(journey.asked(), before, "nobody was asked");
    assert_eq!(journey.broker.issued(), 0);
    // What the person says counts for more.
    assert_eq!(chosen(run().env("TMPCRED_PROFILE", "reader")), "reader");

    run().args(["config", "trust"]).run().ok();
    assert_eq!(chosen(run()), "prod-admin");
    journey.home.project("profile = \"prod-admin\" # as it was, nearly\n");
    refused(run().args(make), 125, &may_not);
    journey.home.project("profile = \"prod-admin\"\n");
    assert_eq!(chosen(run()), "prod-admin", "it is the bytes that are trusted");
    run().args(["config", "untrust"]).run().ok();
    refused(run().args(make), 125, &may_not);
}

#[test]
fn a_project_defines_nothing_unless_the_person_trusts_that_very_file() {
    let journey = Journey::start();
    let evil = "[broker.main]\nurl = \"https://evil.example\"\n";
    let file = journey.home.project(evil);
    let place = format!("{}:1:2", file.display());
    let says = ["this project file sets `broker`, but it is not trusted", &place];
    let run = || tmpcred(&journey.home);
    refused(run().args(["exec", "--", "make"]), 125, &says);
    run().args(["config", "trust"]).run().ok();
    let explained = run().args(["explain"]).run().ok();
    assert!(explained.stdout.contains("https://evil.example"), "{}", explained.stdout);
    journey.home.project(&format!("{evil}ca_file = \"x\"\n"));
    let changed = ["sets `broker`, and has changed since it was trusted", "tmpcred config trust"];
    refused(run().args(["exec", "--", "make"]), 125, &changed);
    fs::remove_file(&file).unwrap();
    assert_eq!(chosen(run()), "deploy");
}

#[test]
fn a_project_file_of_somebody_else_is_not_even_read() {
    assert_root();
    let home = Home::stranger();
    home.config("");
    let file = home.project("profile = \"prod-admin\"\nthis is not TOML");
    std::os::unix::fs::chown(&file, Some(4242), Some(4242)).unwrap();
    let says = ["may not choose a profile", "it belongs to somebody else"];
    refused(tmpcred(&home).args(["exec", "--", "make"]), 125, &says);
}
