//! The environment file of GitHub Actions, Forgejo and Gitea: what is appended to it
//! is in the environment of the job's later steps
//! (<https://docs.github.com/en/actions/reference/workflow-commands-for-github-actions#setting-an-environment-variable>).

use uuid::Uuid;

use super::{Changes, Dialect, cannot_say, check_name};
use crate::deliver::text::Text;
use crate::error::Result;

pub(super) struct Github;

impl Dialect for Github {
    fn name(&self) -> &'static str {
        "github"
    }

    fn about(&self) -> &'static str {
        "GitHub Actions: the environment of the job's later steps; needs --for-later-steps"
    }

    /// Every value between lines of a random delimiter, so that none can end itself
    /// and begin another variable. The form has no way to remove a variable.
    fn write(&self, changes: &Changes, out: &mut Text) -> Result<()> {
        for variable in &changes.set {
            let (name, value) = (&variable.name, variable.value.expose());
            check_name(self, name)?;
            if is_reserved(name) {
                return Err(cannot_say(self, name, "the platform lets nobody set it"));
            }
            if value.chars().any(|c| c.is_control() && c != '\n' && c != '\t') {
                let why = "its value has a control character, which readers disagree about";
                return Err(cannot_say(self, name, why));
            }
            let delimiter = delimiter(value);
            for piece in [name, "<<", &delimiter, "\n", value, "\n", &delimiter, "\n"] {
                out.push_str(piece);
            }
        }
        Ok(())
    }
}

/// Names that the runner keeps for itself: what is written of them has no effect, or
/// ends the step.
fn is_reserved(name: &str) -> bool {
    let name = name.to_ascii_uppercase();
    name.starts_with("GITHUB_") || name.starts_with("RUNNER_") || name == "NODE_OPTIONS"
}

/// A line that the value does not have. With 122 random bits the first one does.
fn delimiter(value: &str) -> String {
    loop {
        let delimiter = format!("tmpcred_{}", Uuid::new_v4().simple());
        if !value.contains(&delimiter) {
            return delimiter;
        }
    }
}
