//! Completion, in the shells themselves.

use crate::support::home::{Home, tmpcred, under_test};
use crate::support::peer::program;
use crate::support::run::Run;
use crate::support::terminal::Terminal;
use crate::support::wait::wait_until;

const CONFIG: &str = r#"
[identity.corp]
type = "oidc"
issuer = "https://login.example.com"
client_id = "cli"

[broker.main]
url = "https://broker.example.com"

[profile.deploy-eu]
role = "deploy"
audience = "https://api.example.com"

[profile."deploy.v2-us"]
role = "deploy"
audience = "https://api.example.com"

[profile.reader]
role = "reader"
audience = "https://api.example.com"
"#;

/// A home where `tmpcred` is found, with completion scripts as they are installed.
fn home(config: &str) -> Home {
    let mut home = Home::new();
    let program = under_test();
    let path = std::env::var("PATH").unwrap();
    home.set("PATH", format!("{}:{path}", program.parent().unwrap().display()));
    home.config(config);
    for (shell, file) in [
        ("bash", "tmpcred.bash"),
        ("elvish", "tmpcred.elv"),
        ("zsh", "functions/_tmpcred"),
        ("fish", "tmpcred.fish"),
    ] {
        let script = tmpcred(&home).args(["completions", shell]).run().ok().stdout;
        home.write(file, script);
    }
    home
}

/// What a shell offers for the last word, sorted, without descriptions; and what
/// it says on stderr.
type Ask = fn(&Home, &[&str]) -> (Vec<String>, String);

fn answers(run: Run) -> (Vec<String>, String) {
    let output = run.run().ok();
    let word = |line: &str| line.split('\t').next().unwrap().trim().to_string();
    let mut words: Vec<_> =
        output.stdout.lines().map(word).filter(|word| !word.is_empty()).collect();
    words.sort();
    (words, output.stderr)
}

fn bash(home: &Home, words: &[&str]) -> (Vec<String>, String) {
    const SCRIPT: &str = r#"
        source "$HOME/tmpcred.bash"
        COMP_WORDS=(tmpcred "$@") COMP_CWORD=$# COMP_TYPE=9
        function=$(complete -p tmpcred | sed 's/.* -F \([^ ]*\).*/\1/')
        "$function" tmpcred "${@: -1}" "${COMP_WORDS[COMP_CWORD - 1]}"
        [ ${#COMPREPLY[@]} = 0 ] || printf '%s\n' "${COMPREPLY[@]}"
    "#;
    answers(home.command("bash").args(["--norc", "-c", SCRIPT, "bash"]).args(words))
}

fn fish(home: &Home, words: &[&str]) -> (Vec<String>, String) {
    const SCRIPT: &str = "source $HOME/tmpcred.fish; complete -C \"$argv\"";
    answers(home.command("fish").args(["--no-config", "-c", SCRIPT, "tmpcred"]).args(words))
}

/// An elvish in a terminal of its own, where the tab key is pressed: it completes for a
/// person only. What it is offered is written down.
fn elvish(home: &Home, words: &[&str]) -> (Vec<String>, String) {
    elvish_with(home, words, |_| {})
}

/// The same, with a look at the terminal afterwards.
fn elvish_with(
    home: &Home,
    words: &[&str],
    look: impl FnOnce(&Terminal<'_>),
) -> (Vec<String>, String) {
    const RC: &str = r#"
        eval (slurp < ~/tmpcred.elv)
        var inner = $edit:completion:arg-completer[tmpcred]
        set edit:completion:arg-completer[tmpcred] = {|@words|
            $inner $@words | each {|one| echo $one >> ~/found; put $one }
            echo done > ~/done
        }
        set edit:prompt = { put 'elvish> ' }
        set edit:rprompt = { }
    "#;
    let [found, done] = ["found", "done"].map(|name| home.path(name));
    for path in [&found, &done] {
        let _ = std::fs::remove_file(path);
    }
    home.write("rc.elv", RC);
    let terminal = Terminal::start(home, 90, 20);
    terminal.enter(&format!("exec {} -rc $HOME/rc.elv", program("elvish").display()));
    terminal.wait_for("elvish>");
    terminal.write(&format!("tmpcred {}", words.join(" ")));
    terminal.press("Tab");
    let long = std::time::Duration::from_secs(60);
    wait_until("the completions of elvish", long, || done.exists().then_some(()));
    look(&terminal);
    terminal.end();
    let found = std::fs::read_to_string(found).unwrap_or_default();
    let mut words: Vec<String> = found.lines().map(|line| line.trim().to_string()).collect();
    words.sort();
    (words, String::new())
}

/// A zsh in a terminal of its own, where keys are pressed. What the completer
/// adds is written down instead of being listed, which depends on the width.
fn zsh(home: &Home, words: &[&str]) -> (Vec<String>, String) {
    const SCRIPT: &str = r#"
        rm -f $HOME/ready $HOME/found $HOME/done
        zmodload zsh/zpty
        zpty shell zsh -f -i
        zpty -w shell "PS1=; fpath=($HOME/functions \$fpath); autoload -Uz compinit; compinit -u -D"
        zpty -w shell 'compadd() { local -a found; builtin compadd -O found "$@"
            if [[ ${@[(I)-[OAD]]} = 0 ]]; then print -rl -- "$found[@]" >>$HOME/found; fi
            builtin compadd "$@" }'
        zpty -w shell 'done-completing() { zle complete-word; print done >$HOME/done; zle -I; BUFFER= }'
        zpty -w shell 'zle -N done-completing; bindkey "^T" done-completing; print ready >$HOME/ready'
        zpty -r shell output '*' ; until [[ -e $HOME/ready ]]; do zpty -r -t shell output; done
        zpty -w -n shell "$1"$'\x14'
        until [[ -e $HOME/done ]]; do zpty -r -t shell output; done
        zpty -d shell
        [[ ! -e $HOME/found ]] || cat $HOME/found
    "#;
    let line = format!("tmpcred {}", words.join(" "));
    answers(home.command("zsh").args(["-f", "-c", SCRIPT, "zsh", &line]))
}

const SHELLS: [(&str, Ask); 4] = [("bash", bash), ("elvish", elvish), ("fish", fish), ("zsh", zsh)];

#[test]
fn the_tab_key_completes_the_name_of_a_profile_in_elvish() {
    let home = home(CONFIG);
    elvish_with(&home, &["token", "deploy.v"], |terminal| {
        terminal.wait_for("tmpcred token deploy.v2-us");
    });
}

#[test]
fn profiles_are_completed_as_they_are_configured_now() {
    let home = home(CONFIG);
    for (shell, ask) in SHELLS {
        let (words, said) = ask(&home, &["exec", "de"]);
        assert_eq!(words, ["deploy-eu", "deploy.v2-us"], "{shell}: {said}");
        assert_eq!(ask(&home, &["token", "deploy.v"]).0, ["deploy.v2-us"], "{shell}");
        assert_eq!(ask(&home, &["login", "c"]).0, ["corp"], "{shell}");
        home.config(&CONFIG.replace("deploy-eu", "demo"));
        assert_eq!(ask(&home, &["exec", "de"]).0, ["demo", "deploy.v2-us"], "{shell}");
        home.config(CONFIG);
    }
}

#[test]
fn commands_options_and_values_are_completed() {
    let home = home(CONFIG);
    for (shell, ask) in SHELLS {
        assert_eq!(ask(&home, &["ex"]).0, ["exec", "explain"], "{shell}");
        assert_eq!(ask(&home, &["config", "s"]).0, ["schema"], "{shell}");
        assert_eq!(ask(&home, &["exec", "--min"]).0, ["--min-ttl"], "{shell}");
        assert_eq!(ask(&home, &["login", "--flow", "d"]).0, ["device"], "{shell}");
    }
}

#[test]
fn a_broken_configuration_completes_nothing_and_says_nothing() {
    let home = home("this is = = no configuration");
    for (shell, ask) in SHELLS {
        let (words, said) = ask(&home, &["exec", "de"]);
        assert_eq!((words.len(), said.as_str()), (0, ""), "{shell}: {words:?}");
    }
}
