//! What goes where: results to stdout, everything else to stderr.

use serde_json::{Value, json};

use crate::journey::Journey;
use crate::support::home::{Home, tmpcred, under_test};
use crate::support::peer::program;

#[test]
fn a_shell_reads_what_env_prints() {
    let journey = Journey::start();
    let token = journey.tmpcred(&["token"]).run().ok().stdout;
    for (shell, format) in [("sh", "sh"), ("bash", "sh"), ("zsh", "sh"), ("fish", "fish")] {
        let text = journey.tmpcred(&["env", "--format", format]).run().ok().stdout;
        let script = format!("{text}\necho $TMPCRED_TOKEN");
        let output = journey.home.command(program(shell)).args(["-c", &script]).run().ok();
        assert_eq!(output.stdout, token, "{shell}");
    }
    let json = journey.tmpcred(&["env", "--format", "json"]).run().ok().json();
    assert_eq!(json["TMPCRED_TOKEN"], token.trim_end());
    assert_eq!(json["TMPCRED_ROLE"], "deploy");
}

#[test]
fn a_reader_that_goes_away_and_a_full_disk_are_told_apart() {
    let journey = Journey::start();
    journey.tmpcred(&["login"]).run().ok();
    let copy = journey.home.share(under_test());
    let tmpcred = copy.to_str().unwrap();
    let sh = |script: String| journey.home.command("sh").args(["-c", &script]).run();
    let gone = sh(format!("{{ {tmpcred} token; echo $? >&2; }} | true")).ok();
    assert_eq!(gone.stderr, "0\n", "no panic, no complaint");
    let full = sh(format!("{tmpcred} token > /dev/full")).ended_with(1);
    assert!(full.stderr.contains("cannot write the output"), "{}", full.stderr);
    let full = sh(format!("{tmpcred} status --json > /dev/full")).ended_with(1);
    assert!(full.stderr.contains("error"), "{}", full.stderr);
    for command in ["token", "env --format sh", "status", "status --json"] {
        let closed = sh(format!("{tmpcred} {command} >&-")).ended_with(1);
        assert!(closed.stderr.contains("standard output is closed"), "{}", closed.stderr);
        sh(format!("{tmpcred} {command} >/dev/null")).ok();
    }
    // Of a report there may be more than anybody wants to read.
    let nobody_reads = "pipe(R, W); close(R); open(STDOUT, '>&', W); exec(@ARGV)";
    for command in ["status", "status --json"] {
        let perl = journey.home.command("perl").args(["-e", nobody_reads, tmpcred]);
        let ended = perl.args(command.split(' ')).run().ended_with(1);
        assert_eq!(ended.stderr, "", "{command}");
    }
    // A command may do without.
    sh(format!("{tmpcred} exec -- sh -c 'exit 3' >&-")).ended_with(3);
}

#[test]
fn a_job_is_never_asked() {
    let mut journey = Journey::start();
    journey.home.set("CI", "true");
    let run = journey.tmpcred(&["token"]).env_remove("TMPCRED_NO_INPUT").run().ended_with(4);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("login required: run `tmpcred login corp`"), "{}", run.stderr);
    assert_eq!(journey.provider.count("GET", "/auth"), 0);
}

#[test]
fn without_a_terminal_nobody_is_asked() {
    let journey = Journey::start();
    let token = || journey.tmpcred(&["token"]).env_remove("TMPCRED_NO_INPUT");
    let run = token().run().ended_with(4);
    assert_eq!(run.stdout, "");
    assert!(run.stderr.contains("login required: run `tmpcred login corp`"), "{}", run.stderr);
    assert_eq!(journey.provider.count("GET", "/auth"), 0);
    // Unless somebody says that it may be.
    token().env("TMPCRED_NO_INPUT", "false").run().ok();
    assert_eq!(journey.provider.count("GET", "/auth"), 1);
}

#[test]
fn colours_are_for_terminals() {
    let home = Home::new();
    let plain = tmpcred(&home).args(["token", "nope"]).run().ended_with(3);
    assert!(!plain.stderr.contains('\u{1b}'), "{:?}", plain.stderr);
    let coloured = tmpcred(&home).args(["token", "nope", "--color", "always"]).run();
    assert!(coloured.stderr.contains("\u{1b}["), "{:?}", coloured.stderr);
}

#[test]
fn with_nothing_configured_it_says_what_to_type_next() {
    let home = Home::new();
    let output = tmpcred(&home).args(["exec", "--", "true"]).run().ended_with(125);
    assert!(output.stderr.contains("tmpcred config init"), "{}", output.stderr);
    tmpcred(&home).args(["config", "init"]).run().ok();
    assert!(tmpcred(&home).args(["config", "init"]).run().ended_with(3).stderr.contains("exists"));
    let check = tmpcred(&home).args(["config", "check", "--json"]).run().ok().json();
    assert_eq!(check["ok"], true);
    let explained = tmpcred(&home).args(["explain", "--json"]).run().ok().json();
    assert_eq!(explained["mode"]["name"], "execve");
}

#[test]
fn where_configuration_is_looked_for_is_told_to_programs_as_well() {
    let home = Home::new();
    let paths = || tmpcred(&home).args(["config", "path", "--json"]).run().ok().json();
    let user = home.path(".config/tmpcred/config.toml");
    let of_user = |paths: &Value| {
        let layers = paths.as_array().unwrap().clone();
        layers.into_iter().find(|layer| layer["path"] == user.to_str().unwrap()).unwrap()
    };
    let before = of_user(&paths());
    assert_eq!(before["exists"], false);
    home.config("");
    home.project("");
    let (after, all) = (of_user(&paths()), paths());
    assert_eq!(after, json!({ "layer": before["layer"], "path": user, "exists": true }));
    // Later ones win, and people see the same.
    let shown = tmpcred(&home).args(["config", "path"]).run().ok().stdout;
    let rows: Vec<_> = shown.lines().filter(|line| line.contains(".toml")).collect();
    let layers = all.as_array().unwrap();
    assert_eq!(rows.len(), layers.len(), "{shown}");
    for (row, layer) in rows.into_iter().zip(layers) {
        assert!(row.contains(layer["path"].as_str().unwrap()), "{row}: {layer}");
    }
}

#[test]
fn a_filter_that_is_none_is_said_to_be_none() {
    let home = Home::new();
    let status = |filter: &str| {
        let run = tmpcred(&home).args(["status"]).env("TMPCRED_LOG", filter);
        run.env("TMPCRED_CACHE_STORE", "memory").run().ok().stderr
    };
    let said = status("tmpcred=loud");
    assert!(said.contains("warning: TMPCRED_LOG is no filter: `tmpcred=loud`"), "{said}");
    // The program logs no more than `debug`, and does not advise to build it otherwise.
    let said = status("trace");
    assert!(!said.contains("max_level") && !said.contains("no filter"), "{said}");
}
