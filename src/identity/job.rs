//! What tells one job from all others of the same user on the same machine.

use super::Settings;
use crate::credential::Job;
use crate::host::env::Env;
use crate::secret::Secret;

/// The variables by which CI platforms name a run and its jobs, and those with a
/// secret that one job has: a platform's own ids do not tell the jobs of a matrix
/// apart, or the attempts of one. Only a digest of them is kept.
const PARTICULAR: &[&str] = &[
    // GitHub Actions, Forgejo, Gitea
    "GITHUB_SERVER_URL",
    "GITHUB_REPOSITORY",
    "GITHUB_RUN_ID",
    "GITHUB_RUN_ATTEMPT",
    "GITHUB_JOB",
    "RUNNER_NAME",
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    // GitLab
    "CI_SERVER_URL",
    "CI_PIPELINE_ID",
    "CI_JOB_ID",
    // Buildkite
    "BUILDKITE_BUILD_ID",
    "BUILDKITE_JOB_ID",
    "BUILDKITE_RETRY_COUNT",
    // CircleCI
    "CIRCLE_BUILD_URL",
    "CIRCLE_NODE_INDEX",
    "CIRCLE_WORKFLOW_ID",
    "CIRCLE_WORKFLOW_JOB_ID",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    // Azure Pipelines
    "SYSTEM_COLLECTIONURI",
    "SYSTEM_TEAMPROJECTID",
    "SYSTEM_PLANID",
    "SYSTEM_JOBID",
    "SYSTEM_JOBATTEMPT",
    "SYSTEM_ACCESSTOKEN",
    // Bitbucket, Jenkins
    "BITBUCKET_PIPELINE_UUID",
    "BITBUCKET_STEP_UUID",
    "BUILD_URL",
];

/// The variables of CI platforms with which a job proves who it is, or asks for what
/// proves it. Whoever has one can be this job.
const PROOFS: &[&str] = &[
    "ACTIONS_ID_TOKEN_REQUEST_TOKEN",
    "BUILDKITE_AGENT_ACCESS_TOKEN",
    "CIRCLE_OIDC_TOKEN",
    "CIRCLE_OIDC_TOKEN_V2",
    "SYSTEM_ACCESSTOKEN",
];

/// What a job has in its environment to prove who it is: by those variables, and by
/// the one that its identity source reads.
pub fn proofs(env: &Env, used: &Settings) -> Vec<Secret<String>> {
    let own = match used {
        Settings::Gitlab(settings) => Some(settings.variable.as_str()),
        Settings::Env(settings) => Some(settings.variable.as_str()),
        _ => None,
    };
    let names = PROOFS.iter().copied().chain(own);
    names.filter_map(|name| env.get(name)).map(|value| Secret::new(value.to_owned())).collect()
}

/// The job that this run is part of, whichever platform it is on: `name` is what
/// people call it.
pub(super) fn job(env: &Env, name: &str) -> Job {
    PARTICULAR.iter().fold(Job::new(name), |job, variable| match env.get_os(variable) {
        Some(value) => job.with(variable, value.as_encoded_bytes()),
        None => job,
    })
}

/// What people call a job: the platform, and what this variable says of it.
pub(super) fn named(env: &Env, platform: &str, variable: &str) -> String {
    match env.get(variable) {
        Some(id) => format!("job {id} of {platform}"),
        None => format!("this job of {platform}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_variable_makes_another_job_and_an_empty_one_does_not() {
        let of = |pairs: &[(&str, &str)]| job(&Env::from_pairs(pairs.iter().copied()), "a job");
        let mut seen = vec![of(&[])];
        for name in PARTICULAR {
            let one = of(&[(*name, "1")]);
            assert!(!seen.contains(&one), "{name}");
            assert_ne!(one, of(&[(*name, "2")]), "{name}");
            assert_eq!(one, of(&[(*name, "1"), ("STEP", "7")]), "{name}");
            seen.push(one);
        }
        assert_eq!(of(&[("CI_JOB_ID", "")]), seen[0]);
    }
}
