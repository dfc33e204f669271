//! What becomes of each setting on the way to a profile's credentials: it is used, it
//! stays with AWS's tools, or it is told that it is not taken over.

use std::collections::BTreeSet;

use aws_runtime::env_config::section::{EnvConfigSections, Profile};

use super::{Root, Way};

/// Settings that say something of requests, and nothing of credentials:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html>.
const KEPT: &[&str] = &[
    "account_id",
    "account_id_endpoint_mode",
    "cli_auto_prompt",
    "cli_binary_format",
    "cli_follow_urlparam",
    "cli_history",
    "cli_pager",
    "cli_timestamp_format",
    "defaults_mode",
    "disable_request_compression",
    "ignore_configured_endpoint_urls",
    "max_attempts",
    "output",
    "parameter_validation",
    "request_checksum_calculation",
    "response_checksum_validation",
    "retry_mode",
    "s3",
    "sdk_ua_app_id",
    "tcp_keepalive",
];

/// The names of all settings of a configuration, whichever section they stand in: the
/// parser tells the value of a setting, and not which ones there are.
pub(super) fn names(text: &str) -> BTreeSet<String> {
    let is_setting = |line: &&str| !line.starts_with(['[', ' ', '\t', '#', ';']);
    let name = |line: &str| Some(line.split_once('=')?.0.trim().to_ascii_lowercase());
    text.lines().filter(is_setting).filter_map(name).collect()
}

/// Of a profile's own settings those that stay with AWS's tools.
pub(super) fn kept(profile: &Profile) -> Vec<&'static str> {
    KEPT.iter().copied().filter(|name| profile.get(name).is_some()).collect()
}

/// Whether AWS's tools use the endpoints that this profile names.
pub(super) fn has_endpoints(profile: &Profile) -> bool {
    !is(profile.get("ignore_configured_endpoint_urls"), "true")
}

/// Whether a setting that is a word has this value.
pub(super) fn is(value: Option<&str>, word: &str) -> bool {
    value.is_some_and(|value| value.eq_ignore_ascii_case(word))
}

/// The settings on a way to credentials that can be no part of the profile here, the
/// profile's own first.
pub(super) fn lacking(
    sections: &EnvConfigSections,
    names: &BTreeSet<String>,
    way: &Way<'_>,
    from: &Profile,
) -> Vec<String> {
    let root = match way.root {
        Root::WebIdentity(..) => None,
        Root::Keys(name) => sections.get_profile(name),
        Root::Sso(profile) => Some(profile),
    };
    let root = root.filter(|root| !way.roles.iter().any(|role| role.name() == root.name()));
    let mut lacking = Vec::new();
    for profile in way.roles.iter().rev().copied().chain(root) {
        let is_own = profile.name() == from.name();
        let of = if is_own { String::new() } else { format!(" of the profile {}", profile.name()) };
        let here = names.iter().filter_map(|name| Some((name.as_str(), profile.get(name)?)));
        for (name, value) in here.filter(|(name, _)| !KEPT.contains(name)) {
            if !is_used(sections, way, from, profile, name, value) {
                lacking.push(format!("`{name}`{of}{}", why(way, name)));
            }
        }
    }
    if let Some((name, session)) = way.session(sections) {
        let used = ["sso_start_url", "sso_region", "sso_registration_scopes"];
        let others = names.iter().filter(|key| ![KEPT, &used].concat().contains(&key.as_str()));
        let there = others.filter(|key| session.get(key).is_some());
        lacking.extend(there.map(|key| format!("`{key}` of the sso-session {name}")));
    }
    lacking
}

/// Whether this setting of a profile on the way is a part of what was made.
fn is_used(
    sections: &EnvConfigSections,
    way: &Way<'_>,
    from: &Profile,
    profile: &Profile,
    name: &str,
    value: &str,
) -> bool {
    let at = way.roles.iter().position(|role| role.name() == profile.name());
    let (is_role, is_first) = (at.is_some(), at == Some(0));
    let asks_sts = !way.roles.is_empty();
    let is_own = profile.name() == from.name();
    let starts_from_token = is_first && matches!(way.root, Root::WebIdentity(..));
    let starts_from_keys = matches!(way.root, Root::Keys(name) if name == profile.name());
    let starts_from_sso = matches!(way.root, Root::Sso(root) if root.name() == profile.name());
    // AWS's tools ask for all sessions as the last profile says.
    let is_said = from.get(name) == Some(value);
    match name {
        "role_arn" | "role_session_name" => is_role,
        "source_profile" => is_role && !starts_from_token,
        "external_id" => is_role && !starts_from_token,
        "mfa_serial" => is_first && matches!(way.root, Root::Keys(_)),
        "web_identity_token_file" => starts_from_token,
        "region" => is_said,
        "ca_bundle" => asks_sts && is_said,
        "endpoint_url" => !has_endpoints(from) || (asks_sts && is_said),
        "services" => !has_endpoints(from),
        "use_fips_endpoint" => is(Some(value), "false") || (asks_sts && is_said),
        "use_dualstack_endpoint" => is(Some(value), "false"),
        "sts_regional_endpoints" => is(Some(value), "regional"),
        "duration_seconds" => is_own && asks_sts,
        "aws_access_key_id" | "aws_secret_access_key" => starts_from_keys,
        "sso_session" | "sso_account_id" | "sso_role_name" => starts_from_sso,
        "sso_start_url" | "sso_region" | "sso_registration_scopes" => {
            let session = way.session(sections);
            starts_from_sso && session.is_none_or(|(_, s)| s.get(name) == Some(value))
        }
        _ => false,
    }
}

/// Why it is not taken over, where that is not plain.
fn why(way: &Way<'_>, name: &str) -> &'static str {
    match name {
        "external_id" if matches!(way.root, Root::WebIdentity(..)) => {
            " (AWS takes none together with a web identity)"
        }
        "services" => " (which may name other endpoints)",
        _ => "",
    }
}
