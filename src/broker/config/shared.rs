//! Issuers at which anybody can have tokens. To trust one of them says nothing about
//! who is calling, unless something of the token is required besides.

use super::Pattern;
use crate::oidc::Issuer;

/// Issuers of everybody, and what to require of their tokens.
const SHARED: [(&str, &str); 8] = [
    (
        "https://token.actions.githubusercontent.com",
        "required_claims = { repository_owner_id = \"…\" }, or better repository_id",
    ),
    ("https://gitlab.com", "required_claims = { namespace_id = \"…\" }, or better project_id"),
    ("https://agent.buildkite.com", "required_claims = { organization_slug = \"…\" }"),
    ("https://app.terraform.io", "required_claims = { terraform_organization_id = \"…\" }"),
    ("https://accounts.google.com", "clients = [\"…\"], or required_claims = { hd = \"…\" }"),
    ("https://appleid.apple.com", "clients = [\"…\"]"),
    ("https://login.microsoftonline.com", MICROSOFT),
    ("https://sts.windows.net", MICROSOFT),
];

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

/// Others that do, where all of their text is required. By a pattern strangers may come under a
/// name of their own; and what a token says besides, such as a branch or an environment, anybody
/// may call as they like.
const IN_FULL: [&str; 13] = [
    "sub",
    "repository",
    "repository_owner",
    "enterprise",
    "enterprise_id",
    "project_path",
    "namespace_path",
    "organization_id",
    "pipeline_id",
    "terraform_organization_name",
    "terraform_workspace_id",
    "email",
    "tid",
];

/// What strangers have there.
const STRANGERS: [&str; 3] = ["1234567890", "stranger", "stranger.example"];

/// Whether a claim like this says whose somebody is.
pub(super) fn says_whose(name: &str, pattern: &Pattern) -> bool {
    WHOSE.contains(&name.trim_start_matches('/'))
        && !STRANGERS.iter().any(|stranger| pattern.matches(stranger))
}

/// Whether a claim does that has just one of some values.
pub(super) fn says_whose_in_full(name: &str) -> bool {
    let name = name.trim_start_matches('/');
    WHOSE.contains(&name) || IN_FULL.contains(&name)
}

const MICROSOFT: &str = "clients = [\"…\"], or the issuer of your own tenant";

/// What stands for all tenants at Microsoft; the last one is that of personal accounts.
const TENANTS: [&str; 4] =
    ["common", "organizations", "consumers", "9188040d-6c67-4c5b-b112-36a304b66dad"];

/// What to require of tokens of this issuer, where anybody can have them.
pub(super) fn advice(issuer: &Issuer) -> Option<&'static str> {
    let url = issuer.url();
    let origin = url.origin().ascii_serialization();
    let (_, advice) = SHARED.iter().find(|(shared, _)| *shared == origin)?;
    let path = url.path().trim_matches('/');
    let shared = if *advice == MICROSOFT {
        // Other tenants are somebody's own.
        path.split('/').next().is_some_and(|tenant| TENANTS.contains(&tenant))
    } else {
        // GitHub gives enterprises a path of their own.
        path.is_empty()
    };
    shared.then_some(advice)
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
