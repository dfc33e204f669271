//! What profiles of `~/.aws/config` come to here. The file is read by the parser of
//! AWS's own SDK.
//!
//! Taken over are roles that are assumed with a web identity, and those that are
//! assumed from there. Long-lived keys are not even looked at.

use std::collections::{BTreeMap, BTreeSet};

use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_runtime::env_config::section::{EnvConfigSections, Profile};
use aws_runtime::env_config::source;
use aws_types::os_shim_internal::{Env, Fs};
use serde::Serialize;

use super::block;
use crate::error::{Error, ErrorKind, Result};
use crate::host::process;

/// What was found.
#[derive(Debug, Default)]
pub struct Import {
    /// Profiles that can be taken over.
    pub taken: Vec<Taken>,
    /// Those that cannot.
    pub left: Vec<Left>,
}

/// A profile that can be taken over.
#[derive(Clone, Debug)]
pub struct Taken {
    /// Its name there.
    pub from: String,
    /// Its name here.
    pub name: String,
    /// Its settings that stay with AWS's tools.
    pub kept: Vec<&'static str>,
    identity: String,
    token_file: String,
    profile: OurProfile,
}

/// A profile, or some of its settings, that cannot be taken over, and why.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Left {
    /// Its name there.
    pub profile: String,
    /// Why.
    pub because: String,
}

/// What the configuration has already.
#[derive(Clone, Copy, Debug)]
pub struct Existing<'a> {
    /// The names of profiles.
    pub profiles: &'a BTreeSet<String>,
    /// The names of identities.
    pub identities: &'a BTreeSet<String>,
    /// The names of the sections of the file with long-lived keys.
    pub keys: &'a BTreeSet<String>,
}

#[derive(Clone, Debug, Serialize)]
struct OurProfile {
    identity: String,
    role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    target: OurTarget,
}

#[derive(Clone, Debug, Serialize)]
struct OurTarget {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_fips: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_name: Option<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    chain: Vec<OurStep>,
}

#[derive(Clone, Debug, Serialize)]
struct OurStep {
    role_arn: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_name: Option<String>,
}

#[derive(Serialize)]
struct OurIdentity<'a> {
    r#type: &'static str,
    token_file: &'a str,
}

#[derive(Serialize)]
struct OurFile<'a> {
    identity: BTreeMap<&'a str, OurIdentity<'a>>,
    profile: BTreeMap<&'a str, &'a OurProfile>,
}

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
    "services",
    "sts_regional_endpoints",
    "tcp_keepalive",
    "use_dualstack_endpoint",
];

/// Reads the text of a configuration, and the profiles in it that are `wanted`.
///
/// # Errors
/// [`ErrorKind::Config`] where AWS's own tools could not read it either.
pub fn read(text: &str, wanted: impl Fn(&str) -> bool, existing: Existing<'_>) -> Result<Import> {
    let sections = parse(text)?;
    let mut names: Vec<&str> = sections.profiles().filter(|name| wanted(name)).collect();
    names.sort_unstable();
    let mut import = Import::default();
    // The identities, by their files.
    let mut identities: BTreeMap<String, String> = BTreeMap::new();
    for from in names {
        let left = |because: String| Left { profile: from.into(), because };
        let name = plain(from);
        let is_taken = import.taken.iter().any(|other: &Taken| other.name == name);
        if is_taken || existing.profiles.contains(&name) {
            import.left.push(left(format!("there is a profile {name} already")));
            continue;
        }
        match way(&sections, from, existing.keys) {
            Err(why) => import.left.push(left(why)),
            Ok(Way { root, file, chain }) => {
                let identity = identities.entry(file.to_string()).or_insert_with(|| {
                    unused(&format!("aws-{}", plain(root.name())), existing.identities)
                });
                let last = chain.last().copied().unwrap_or(root);
                let profile = ours(identity, root, &chain, last);
                let kept = KEPT.iter().copied().filter(|name| last.get(name).is_some()).collect();
                import.taken.push(Taken {
                    from: from.into(),
                    name,
                    kept,
                    identity: identity.clone(),
                    token_file: file.into(),
                    profile,
                });
            }
        }
    }
    // The parser passes over them without a word.
    for name in text.lines().filter_map(|line| block::profile(block::section(line)?)) {
        let is_known = sections.get_profile(name).is_some();
        if wanted(name) && !is_known && !import.left.iter().any(|left| left.profile == name) {
            let because = "AWS's SDKs do not take a profile of such a name".into();
            import.left.push(Left { profile: name.into(), because });
        }
    }
    Ok(import)
}

/// Tables for these profiles, to stand behind what a configuration has already.
///
/// # Errors
/// None that could happen: strings always have a TOML form.
pub fn tables<'a>(taken: impl Iterator<Item = &'a Taken> + Clone) -> Result<String> {
    let identity = |t: &'a Taken| {
        (t.identity.as_str(), OurIdentity { r#type: "file", token_file: &t.token_file })
    };
    let file = OurFile {
        identity: taken.clone().map(identity).collect(),
        profile: taken.map(|t| (t.name.as_str(), &t.profile)).collect(),
    };
    toml::to_string(&file).map_err(|cause| {
        Error::new(ErrorKind::Other, "the profiles have no TOML form").because(cause)
    })
}

fn parse(text: &str) -> Result<EnvConfigSections> {
    let unreadable = |cause: String| {
        // It has two lines, and a name of the file that is empty.
        let cause = cause.replacen("error parsing  on ", "", 1).replace(":\n  ", ": ");
        Error::new(ErrorKind::Config, "the configuration of AWS's tools cannot be read")
            .because_of(cause)
    };
    let files = EnvConfigFiles::builder().with_contents(EnvConfigFileKind::Config, text).build();
    let (env, fs) = (Env::from_slice(&[]), Fs::from_slice(&[]));
    let source = process::runtime()?.block_on(source::load(&env, &fs, &files));
    let source = source.map_err(|cause| unreadable(cause.to_string()))?;
    EnvConfigSections::parse(source).map_err(|cause| unreadable(cause.to_string()))
}

/// How a profile gets its credentials.
struct Way<'a> {
    /// The profile with the web identity.
    root: &'a Profile,
    /// Its token.
    file: &'a str,
    /// Those that are assumed from there, one from the other.
    chain: Vec<&'a Profile>,
}

fn way<'a>(
    sections: &'a EnvConfigSections,
    name: &'a str,
    keys: &BTreeSet<String>,
) -> Result<Way<'a>, String> {
    let mut chain = Vec::new();
    let mut seen = BTreeSet::new();
    let mut at = name;
    loop {
        let through = |why: String| {
            if at == name { why } else { format!("it starts from the profile {at}: {why}") }
        };
        if !seen.insert(at) {
            return Err(format!("its `source_profile` leads in a circle, to {at}"));
        }
        let Some(profile) = sections.get_profile(at) else {
            return Err(through(
                if keys.contains(at) { KEYS } else { "there is no such profile" }.into(),
            ));
        };
        if profile.get("role_arn").is_none() {
            return Err(through(no_role(profile, keys.contains(at))));
        }
        if profile.get("mfa_serial").is_some() {
            return Err(through("the code of an MFA device would have to be asked for".into()));
        }
        if let Some(file) = profile.get("web_identity_token_file") {
            if !std::path::Path::new(file).is_absolute() {
                return Err(through("its `web_identity_token_file` is no absolute path".into()));
            }
            chain.reverse();
            return Ok(Way { root: profile, file, chain });
        }
        if let Some(place) = profile.get("credential_source") {
            return Err(through(format!(
                "it takes credentials from what it runs in (`credential_source = {place}`)"
            )));
        }
        match profile.get("source_profile") {
            None => return Err(through("it says nothing to assume its role with".into())),
            Some(source) if source == at => return Err(through(KEYS.into())),
            Some(source) => {
                chain.push(profile);
                at = source;
            }
        }
    }
}

const KEYS: &str = "it has long-lived keys, which are never copied";

/// Why a profile without a role cannot be taken over.
fn no_role(profile: &Profile, has_keys: bool) -> String {
    let has = |name: &str| profile.get(name).is_some();
    if has("sso_session") || has("sso_start_url") || has("sso_account_id") {
        return "people log in at IAM Identity Center for it".into();
    }
    if let Some(command) = profile.get("credential_process") {
        let ours = command.contains("tmpcred") && command.contains("credential-process");
        return if ours {
            "it asks tmpcred already".into()
        } else {
            "another program is asked for its credentials (`credential_process`)".into()
        };
    }
    if has("login_session") {
        return "people log in at the console for it (`login_session`)".into();
    }
    if has("aws_access_key_id") || has_keys {
        return KEYS.into();
    }
    "it says nothing of credentials".into()
}

fn ours(identity: &str, root: &Profile, chain: &[&Profile], last: &Profile) -> OurProfile {
    let of = |profile: &Profile, name: &str| profile.get(name).map(String::from);
    let step = |profile: &&Profile| OurStep {
        role_arn: of(profile, "role_arn").unwrap_or_default(),
        external_id: of(profile, "external_id"),
        session_name: of(profile, "role_session_name"),
    };
    OurProfile {
        identity: identity.into(),
        role: of(root, "role_arn").unwrap_or_default(),
        // What is no number is refused when the profile is tried.
        ttl: of(last, "duration_seconds").map(|seconds| match seconds.parse() {
            Ok(seconds) => {
                humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
            }
            Err(_) => seconds,
        }),
        target: OurTarget {
            r#type: "aws",
            region: of(last, "region"),
            use_fips: (last.get("use_fips_endpoint") == Some("true")).then_some(true),
            endpoint_url: of(last, "endpoint_url"),
            ca_file: of(last, "ca_bundle"),
            session_name: of(root, "role_session_name"),
            chain: chain.iter().map(step).collect(),
        },
    }
}

/// A name as it may be here.
fn plain(name: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    name.chars().map(|c| if good(c) { c } else { '-' }).collect()
}

fn unused(name: &str, used: &BTreeSet<String>) -> String {
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    let mut names = std::iter::once(name.to_string()).chain(numbered);
    names.find(|name| !used.contains(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
