//! Issuers at which anybody can have tokens. To trust one of them says nothing about
//! who is calling, unless something of the token is required besides.

use super::Pattern;
use crate::oidc::Issuer;

/// An issuer of everybody.
struct Shared {
    issuer: &'static str,
    /// What to require of its tokens.
    advice: &'static str,
    /// The claims that say whose somebody is where all of their text is required, besides
    /// [`WHOSE`]. By a pattern strangers may come under a name of their own; and what a token says
    /// else, such as a branch or an environment, anybody may call as they like.
    in_full: &'static [&'static str],
}

/// All of them.
const SHARED: [Shared; 8] = [
    Shared {
        issuer: "https://token.actions.githubusercontent.com",
        advice: "required_claims = { repository_owner_id = \"…\" }, or better repository_id",
        // (`job_workflow_ref` may be of a workflow that anybody can call.)
        in_full: &[
            "sub",
            "repository",
            "repository_owner",
            "workflow_ref",
            "enterprise",
            "enterprise_id",
        ],
    },
    Shared {
        issuer: "https://gitlab.com",
        advice: "required_claims = { namespace_id = \"…\" }, or better project_id",
        in_full: &["sub", "project_path", "namespace_path"],
    },
    Shared {
        issuer: "https://agent.buildkite.com",
        advice: "required_claims = { organization_slug = \"…\" }",
        in_full: &["sub", "organization_id", "pipeline_id"],
    },
    Shared {
        issuer: "https://app.terraform.io",
        advice: "required_claims = { terraform_organization_id = \"…\" }",
        in_full: &[
            "sub",
            "terraform_organization_name",
            "terraform_project_id",
            "terraform_workspace_id",
            "terraform_full_workspace",
        ],
    },
    Shared {
        issuer: "https://accounts.google.com",
        advice: "clients = [\"…\"], or required_claims = { hd = \"…\" }",
        in_full: &[
            "sub",
            "email",
            "google/compute_engine/project_id",
            "google/compute_engine/project_number",
        ],
    },
    Shared {
        issuer: "https://appleid.apple.com",
        advice: "clients = [\"…\"]",
        in_full: &["sub", "email"],
    },
    // (An `email` there is whatever somebody's own administrator says.)
    Shared { issuer: "https://login.microsoftonline.com", advice: MICROSOFT, in_full: OF_ENTRA },
    Shared { issuer: "https://sts.windows.net", advice: MICROSOFT, in_full: OF_ENTRA },
];

const OF_ENTRA: &[&str] = &["sub", "oid", "tid"];

/// The claims that say whose somebody is, by ids and by names that nobody else can have.
const WHOSE: [&str; 7] = [
    "repository_owner_id",
    "repository_id",
    "namespace_id",
    "project_id",
    "organization_slug",
    "terraform_organization_id",
    "hd",
];

/// What strangers have there.
const STRANGERS: [&str; 3] = ["1234567890", "stranger", "stranger.example"];

/// Whether a claim like this says whose somebody is.
pub(super) fn says_whose(name: &str, pattern: &Pattern) -> bool {
    WHOSE.contains(&name.trim_start_matches('/'))
        && !STRANGERS.iter().any(|stranger| pattern.matches(stranger))
}

/// Whether a claim of this issuer does that has just one of some values.
pub(super) fn says_whose_in_full(issuer: &Issuer, name: &str) -> bool {
    let name = name.trim_start_matches('/');
    let in_full = shared(issuer).is_some_and(|shared| shared.in_full.contains(&name));
    in_full || WHOSE.contains(&name)
}

const MICROSOFT: &str = "clients = [\"…\"], or the issuer of your own tenant";

/// What stands for all tenants at Microsoft; the last one is that of personal accounts.
const TENANTS: [&str; 4] =
    ["common", "organizations", "consumers", "9188040d-6c67-4c5b-b112-36a304b66dad"];

/// What to require of tokens of this issuer, where anybody can have them.
pub(super) fn advice(issuer: &Issuer) -> Option<&'static str> {
    shared(issuer).map(|shared| shared.advice)
}

fn shared(issuer: &Issuer) -> Option<&'static Shared> {
    let url = issuer.url();
    let origin = url.origin().ascii_serialization();
    let shared = SHARED.iter().find(|shared| shared.issuer == origin)?;
    let path = url.path().trim_matches('/');
    let is_shared = if shared.advice == MICROSOFT {
        // Other tenants are somebody's own.
        path.split('/').next().is_some_and(|tenant| TENANTS.contains(&tenant))
    } else {
        // GitHub gives enterprises a path of their own.
        path.is_empty()
    };
    is_shared.then_some(shared)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn issuers_of_everybody_are_known_and_those_of_somebody_are_not_taken_for_them() {
        let shared = |issuer: &str| advice(&Issuer::parse(issuer).unwrap()).is_some();
        for everybody in [
            "https://token.actions.githubusercontent.com",
            "https://gitlab.com",
            "https://accounts.google.com",
            "https://login.microsoftonline.com/common/v2.0",
            "https://login.microsoftonline.com/organizations/v2.0",
            "https://login.microsoftonline.com/9188040d-6c67-4c5b-b112-36a304b66dad/v2.0",
            "https://agent.buildkite.com",
        ] {
            assert!(shared(everybody), "{everybody}");
        }
        for somebody in [
            "https://token.actions.githubusercontent.com/acme",
            "https://gitlab.example.com",
            "https://login.microsoftonline.com/8e7f0000-0000-0000-0000-000000000000/v2.0",
            "https://gitlab.com.example",
        ] {
            assert!(!shared(somebody), "{somebody}");
        }
    }
}
