//! What `deploy/ci` has for jobs: the action for GitHub, run by `act`, which runs
//! workflows on this machine; and the template for GitLab, included by a pipeline that
//! `gitlab-ci-local` runs. That one issues no ID tokens, so the job is handed one. The
//! template's script is run by a plain shell besides, with the variables that GitLab
//! documents.

use std::path::{Path, PathBuf};

use rustix::process::Signal;

use super::*;
use crate::support::aws::python_program;
use crate::support::peer::node_script;
use crate::support::schema::{Schema, judge};

fn deployed(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/ci").join(name)
}

/// The documents of a YAML file.
fn yaml(home: &Home, file: &Path) -> serde_json::Value {
    let script = "import json, sys
from ruamel.yaml import YAML
print(json.dumps(list(YAML(typ='safe').load_all(open(sys.argv[1])))))";
    let python = home.command(python_program("python3")).args(["-c", script]);
    python.args([home.share(file)]).run().ok().json()
}

/// Checks a file against a schema that its platform publishes.
#[track_caller]
fn is_valid(home: &Home, schema: &str, file: &Path) {
    judge(home, Schema::Published(schema), &[file.into()]).ok();
}

/// A repository with a workflow in which these are the steps, and how `act` runs it.
struct Workflow {
    site: Site,
    act: PathBuf,
}

impl Workflow {
    fn with(steps: &str) -> Self {
        let site = Site::start("").at(Home::new());
        let workflow = format!(
            "on: push\njobs:\n  deploy:\n    runs-on: ubuntu-latest\n    permissions:\n      \
             id-token: write\n      contents: read\n    steps:\n      - uses: actions/checkout@v5\n\
             {steps}"
        );
        site.home.write("work/.github/workflows/deploy.yml", workflow);
        let action = std::fs::read(deployed("github/action.yml")).unwrap();
        site.home.write("work/deploy/ci/github/action.yml", action);
        let script = "git init -q . && git add . && git -c user.name=a -c user.email=a@example.com \
                      commit -q -m x";
        site.home.command("sh").args(["-c", script]).run().ok();
        Self { site, act: python_program("act") }
    }

    fn run(&self) -> Run {
        let program = self.site.home.share(Path::new(env!("CARGO_BIN_EXE_tmpcred")));
        let mut path = program.parent().unwrap().as_os_str().to_owned();
        path.push(":");
        path.push(std::env::var_os("PATH").unwrap());
        let url = self.site.platform.url("/github?api-version=2.0");
        let config = self.site.home.path(".config/tmpcred/config.toml");
        self.site
            .home
            .command(&self.act)
            .args(["push", "--no-cache-server", "-P", "ubuntu-latest=-self-hosted"])
            .args(["--env".into(), format!("ACTIONS_ID_TOKEN_REQUEST_URL={url}")])
            .args(["--env", "ACTIONS_ID_TOKEN_REQUEST_TOKEN=one"])
            .args(["--env".into(), format!("OUT={}", self.site.home.path("").display())])
            .args(["--env".into(), format!("CONFIG={}", config.display())])
            .env("PATH", path)
    }

    fn file(&self, name: &str) -> String {
        std::fs::read_to_string(self.site.home.path(name)).unwrap()
    }
}

#[test]
fn the_action_is_what_github_takes_for_one() {
    let home = Home::new();
    is_valid(&home, "github-actions", &deployed("github/action.yml"));
    let action = yaml(&home, &deployed("github/action.yml"));
    let steps = action[0]["runs"]["steps"].as_array().unwrap();
    for step in steps {
        let script = step["run"].as_str().unwrap();
        assert!(!script.contains("${{"), "an input could change the script:\n{script}");
        assert!(script.starts_with("set -euo pipefail\n"), "{script}");
    }
}

#[test]
fn a_workflow_runs_a_script_with_a_credential_of_its_own_that_no_log_shows() {
    let workflow = Workflow::with(
        r#"      - uses: ./deploy/ci/github
        with:
          profile: deploy
          config: ${{ env.CONFIG }}
          run: |
            echo "I am a $TMPCRED_ROLE with $TMPCRED_TOKEN"
            printf %s "$TMPCRED_TOKEN" >"$OUT/first"
            ps -eo args >"$OUT/arguments"
            printenv >"$OUT/variables"
      - run: |
          echo "the next step has ${TMPCRED_TOKEN:-none}"
          echo "but finds $(cat "$OUT/first")"
"#,
    );
    let output = workflow.run().run().ok();
    let log = output.stdout + &output.stderr;
    let token = workflow.file("first");
    assert!(token.starts_with("ey"), "{log}");
    assert!(!log.contains(&token), "{log}");
    for part in ["I am a deploy with ***", "the next step has none", "but finds ***"] {
        assert!(log.contains(part), "{part:?} is not in:\n{log}");
    }
    assert!(!workflow.file("arguments").contains(&token));
    assert!(!workflow.file("variables").contains("TMPCRED_ACTION_"));
    // The platform was asked by the job's own secret, and the broker once.
    let [asked] = &workflow.site.platform.asked()[..] else { panic!("asked more than once") };
    assert_eq!((asked.bearer.as_str(), workflow.site.broker.issued()), ("one", 1));
    // It was good, and is not any more.
    let verify = |more: &[&str]| {
        let run = workflow.site.tmpcred(&["verify", "--audience", API]).args(more);
        run.stdin(token.clone()).run()
    };
    verify(&[]).ok();
    let online = verify(&["--online"]).ended_with(9);
    assert!(online.stderr.contains("the token is not good any more"), "{}", online.stderr);
}

#[test]
fn a_workflow_hands_a_credential_to_its_later_steps_where_it_says_so() {
    let workflow = Workflow::with(
        r#"      - run: tmpcred env --format github --for-later-steps
        env:
          TMPCRED_CONFIG: ${{ env.CONFIG }}
      - run: |
          echo "a later step is a $TMPCRED_ROLE with $TMPCRED_TOKEN"
          printf %s "$TMPCRED_TOKEN" >"$OUT/later"
      - run: tmpcred token
        env:
          TMPCRED_CONFIG: ${{ env.CONFIG }}
"#,
    );
    let output = workflow.run().run().ok();
    let log = output.stdout + &output.stderr;
    let token = workflow.file("later");
    assert!(token.starts_with("ey"), "{log}");
    assert!(!log.contains(&token), "{log}");
    assert!(log.contains("a later step is a deploy with ***"), "{log}");
    assert!(log.lines().any(|line| line.ends_with("| ***")), "printed as well:\n{log}");
}

#[test]
fn the_action_ends_as_the_script_ends_and_leaves_nothing() {
    let workflow = Workflow::with(
        r#"      - uses: ./deploy/ci/github
        with:
          config: ${{ env.CONFIG }}
          run: |
            echo "$0" >"$OUT/script"
            # It is gone, and is still read.
            stat -L -c '%a %h' /proc/$$/fd/255 >"$OUT/mode"
            false | true
            echo "not reached"
      - if: failure()
        run: echo "and it is told"
"#,
    );
    let output = workflow.run().run().ended_with(1);
    assert!(output.stdout.contains("| and it is told"), "{}", output.stdout);
    assert!(!output.stdout.contains("| not reached"), "{}", output.stdout);
    assert_eq!(workflow.file("mode"), "600 0\n");
    assert!(!Path::new(workflow.file("script").trim()).exists());
}

#[test]
fn the_command_of_a_cancelled_job_ends_and_its_credential_is_revoked() {
    for (signals, code) in
        [(&[Signal::INT, Signal::TERM][..], 143), (&[Signal::INT], 130), (&[Signal::TERM], 143)]
    {
        let site = Site::start("");
        let action = yaml(&site.home, &deployed("github/action.yml"));
        let step = action[0]["runs"]["steps"][0]["run"].as_str().unwrap();
        // As the runner runs it; the shell is the one process that it knows.
        let file = site.home.write("step.sh", step);
        let program = site.home.share(Path::new(env!("CARGO_BIN_EXE_tmpcred")));
        let path = std::env::var("PATH").unwrap();
        let ignores = if signals.len() > 1 { "trap '' INT; " } else { "" };
        let script = format!(
            "{ignores}printf %s \"$TMPCRED_TOKEN\" >token; echo ready\nwhile :; do sleep 0.1; done"
        );
        // Relative to the workspace, not to where the script runs.
        site.home.write(
            "work/deploy/tmpcred.toml",
            std::fs::read(site.home.path(".config/tmpcred/config.toml")).unwrap(),
        );
        std::fs::remove_file(site.home.path(".config/tmpcred/config.toml")).unwrap();
        let elsewhere = site.home.directory("work/elsewhere");
        let run = site.home.command("bash").args(["--noprofile", "--norc", "-eo", "pipefail"]);
        let run = site.github_variables(run.args([file]).current_dir(&elsewhere), "deploy", "one");
        let step = run
            .env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
            .env("GITHUB_WORKSPACE", site.home.path("work"))
            .env("RUNNER_TEMP", site.home.directory("runner"))
            .env("TMPCRED_ACTION_RUN", script)
            .env("TMPCRED_ACTION_PROFILE", "deploy")
            .env("TMPCRED_ACTION_CONFIG", "deploy/tmpcred.toml")
            .spawn();
        step.line_on_stdout("ready");
        signals.iter().for_each(|signal| step.signal(*signal));
        let output = step.wait();
        assert!(output.code == Some(code) || output.signal == Some(code - 128), "{output:?}");
        let token = std::fs::read_to_string(elsewhere.join("token")).unwrap();
        let verify = site.tmpcred(&["verify", "--audience", API, "--online"]).stdin(token);
        let verify = verify.env("TMPCRED_CONFIG", site.home.path("work/deploy/tmpcred.toml"));
        let online = verify.run().ended_with(9);
        assert!(online.stderr.contains("the token is not good any more"), "{}", online.stderr);
        assert_eq!(std::fs::read_dir(site.home.path("runner")).unwrap().count(), 0);
    }
}

#[test]
fn the_template_is_what_gitlab_takes_for_one_and_its_script_finds_the_identity() {
    let site = Site::start("");
    let file = deployed("gitlab/tmpcred.gitlab-ci.yml");
    let documents = yaml(&site.home, &file);
    let [head, jobs] = &documents.as_array().unwrap()[..] else { panic!("{documents}") };
    let here = Home::new();
    is_valid(&here, "gitlab-ci", &here.write("head.json", head.to_string()));
    is_valid(&here, "gitlab-ci", &here.write("jobs.json", jobs.to_string()));
    let job = &jobs[".tmpcred"];
    assert_eq!(job["id_tokens"]["TMPCRED_ID_TOKEN"]["aud"], "$[[ inputs.broker ]]");
    assert_eq!(head["spec"]["inputs"]["profile"]["default"], "");
    // A runner joins these, and what the job has of its own.
    let before = job["before_script"].as_array().unwrap().iter();
    let before: Vec<_> = before.map(|line| line.as_str().unwrap()).collect();
    let own = "tmpcred exec -- sh -c 'echo I am a $TMPCRED_ROLE with $TMPCRED_TOKEN'";
    let script = format!("set -e\n{}\n{own}\n", before.join("\n"));
    let program = site.home.share(Path::new(env!("CARGO_BIN_EXE_tmpcred")));
    let programs = program.parent().unwrap().display().to_string();
    let path = std::env::var("PATH").unwrap();
    let run = |token: &str, path: String| {
        let run = site.home.command("sh").args(["-c", &script]).env("PATH", path);
        let run = run.env("CI", "true").env("GITLAB_CI", "true").env("CI_JOB_ID", "7");
        run.env("CI_PIPELINE_ID", "1")
            .env("CI_SERVER_URL", "https://gitlab.example.com")
            .env("TMPCRED_PROFILE", "")
            .env("TMPCRED_ID_TOKEN", token)
    };
    let with = || format!("{programs}:{path}");
    let output = run(&site.token(), with()).run().ok();
    assert!(output.stdout.ends_with("I am a deploy with ***\n"), "{}", output.stdout);
    assert!(output.stdout.contains("source gitlab"), "{}", output.stdout);
    assert!(!output.stdout.contains("eyJ"), "{}", output.stdout);
    let without = run("", with()).run().ended_with(3);
    assert!(without.stderr.contains("TMPCRED_ID_TOKEN is not set"), "{}", without.stderr);
    let missing = run("", "/usr/bin:/bin".into()).run().ended_with(127);
    assert!(missing.stderr.contains("tmpcred is not installed"), "{}", missing.stderr);
}

/// A run of the one job of a pipeline that includes the template for this broker.
fn pipeline(site: &Site, broker: &str, token: &str, args: &[&str]) -> Run {
    let home = &site.home;
    let pipeline = format!(
        "include:\n  - local: tmpcred.gitlab-ci.yml\n    inputs:\n      broker: {broker}\n\n\
         deploy:\n  extends: .tmpcred\n  script:\n    \
         - tmpcred exec -- sh -c 'echo I am a $TMPCRED_ROLE with $TMPCRED_TOKEN'\n"
    );
    home.write("work/.gitlab-ci.yml", pipeline);
    let template = std::fs::read(deployed("gitlab/tmpcred.gitlab-ci.yml")).unwrap();
    home.write("work/tmpcred.gitlab-ci.yml", template);
    let variables = format!("GITLAB_CI: 'true'\nTMPCRED_ID_TOKEN: '{token}'\n");
    home.write("work/.gitlab-ci-local-variables.yml", variables);
    let script = "git init -q . && git add . && git -c user.name=a -c user.email=a@example.com \
                  commit -q -m x --allow-empty && \
                  git config remote.origin.url git@gitlab.example.com:example/shop.git";
    home.command("sh").args(["-c", script]).run().ok();
    let program = home.share(Path::new(env!("CARGO_BIN_EXE_tmpcred")));
    let path = std::env::var("PATH").unwrap();
    let run = home.command("node").args([node_script("gitlab-ci-local.mjs")]);
    let run = run.args(["--ignore-predefined-vars", "GITLAB_CI"]).args(args);
    run.env("PATH", format!("{}:{path}", program.parent().unwrap().display()))
}

#[test]
fn a_pipeline_that_includes_the_template_runs_its_job_with_a_credential() {
    let site = Site::start("").at(Home::new());
    let broker = "https://broker.example.com";
    let output = pipeline(&site, broker, &site.token(), &["deploy"]).run().ok();
    let log = output.stdout + &output.stderr;
    for part in ["source gitlab", "I am a deploy with ***", "PASS"] {
        assert!(log.contains(part), "{part:?} is not in:\n{log}");
    }
    assert!(!log.contains("eyJ"), "{log}");
    assert_eq!(site.broker.issued(), 1);
    // The inputs are where GitLab looks for them.
    let whole = pipeline(&site, broker, "", &["--preview"]).run().ok().stdout;
    let whole = yaml(&site.home, &site.home.write("whole.yml", whole));
    let job = &whole[0]["deploy"];
    assert_eq!(job["id_tokens"]["TMPCRED_ID_TOKEN"]["aud"], broker, "{whole}");
    assert_eq!(job["variables"]["TMPCRED_PROFILE"], "");
    let refused = pipeline(&site, "http://broker.example.com", "", &["--preview"]).run();
    assert_ne!(refused.code, Some(0));
    assert!(refused.stderr.contains("`broker` input"), "{}", refused.stderr);
    // Without a token the job ends before its own script.
    let without = pipeline(&site, broker, "", &["deploy"]).run();
    assert_ne!(without.code, Some(0));
    let log = without.stdout + &without.stderr;
    assert!(log.contains("TMPCRED_ID_TOKEN is not set"), "{log}");
    assert!(!log.contains("I am a"), "{log}");
    assert_eq!(site.broker.issued(), 1);
}
