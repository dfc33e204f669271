//! What profiles of `~/.aws/config` come to here. The file is read by the parser of
//! AWS's own SDK.
//!
//! Taken over is what this program has an identity source for: web identities in any
//! case, and roles that are assumed from there. Long-lived keys are not even looked at.

mod settings;

use std::collections::{BTreeMap, BTreeSet};

use aws_runtime::env_config::file::{EnvConfigFileKind, EnvConfigFiles};
use aws_runtime::env_config::section::{EnvConfigSections, Profile, SsoSession};
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
    /// The settings on the way to its credentials that it cannot have here, by name.
    pub lacks: Vec<String>,
    identity: (String, OurIdentity),
    profile: OurProfile,
}

/// A profile that cannot be taken over, and why.
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
    /// The kinds of identity sources that there are.
    pub kinds: &'a [&'a str],
}

#[derive(Clone, Debug, Serialize)]
struct OurProfile {
    identity: String,
    role: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    ttl: Option<String>,
    target: OurTarget,
}

#[derive(Clone, Debug, Default, Serialize)]
struct OurTarget {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    account_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    use_fips: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ca_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    external_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    session_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mfa: Option<OurMfa>,
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

#[derive(Clone, Debug, Serialize)]
struct OurMfa {
    serial: String,
}

#[derive(Clone, Debug, Default, Serialize)]
struct OurIdentity {
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    token_file: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    start_url: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    region: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scopes: Option<Vec<String>>,
}

impl OurIdentity {
    fn of(kind: &'static str) -> Self {
        Self { r#type: kind, ..Self::default() }
    }
}

#[derive(Serialize)]
struct OurFile<'a> {
    identity: BTreeMap<&'a str, &'a OurIdentity>,
    profile: BTreeMap<&'a str, &'a OurProfile>,
}

/// Reads the text of a configuration, and the profiles in it that are `wanted`.
///
/// # Errors
/// [`ErrorKind::Config`] where AWS's own tools could not read it either.
pub fn read(text: &str, wanted: impl Fn(&str) -> bool, existing: Existing<'_>) -> Result<Import> {
    let sections = parse(text)?;
    let mut names: Vec<&str> = sections.profiles().filter(|name| wanted(name)).collect();
    names.sort_unstable();
    let settings = settings::names(text);
    let mut import = Import::default();
    let mut identities = Identities::default();
    for from in names {
        let left = |because: String| Left { profile: from.into(), because };
        let name = plain(from);
        let is_taken = import.taken.iter().any(|other: &Taken| other.name == name);
        if is_taken || existing.profiles.contains(&name) {
            import.left.push(left(format!("there is a profile {name} already")));
            continue;
        }
        match take(&sections, from, existing, &mut identities) {
            Err(why) => import.left.push(left(why)),
            Ok((identity, theirs, profile, way)) => {
                let kept = settings::kept(theirs);
                let lacks = settings::lacking(&sections, &settings, &way, theirs);
                let from = from.into();
                import.taken.push(Taken { from, name, kept, lacks, identity, profile });
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
    let identity = |t: &'a Taken| (t.identity.0.as_str(), &t.identity.1);
    let file = OurFile {
        identity: taken.clone().map(identity).collect(),
        profile: taken.map(|t| (t.name.as_str(), &t.profile)).collect(),
    };
    toml::to_string(&file).map_err(|cause| {
        Error::new(ErrorKind::Other, "the profiles have no TOML form").because(cause)
    })
}

/// The identities that were made so far, by what tells them apart.
type Identities = BTreeMap<String, (String, OurIdentity)>;

type Made<'a> = ((String, OurIdentity), &'a Profile, OurProfile, Way<'a>);

fn take<'a>(
    sections: &'a EnvConfigSections,
    from: &'a str,
    existing: Existing<'_>,
    identities: &mut Identities,
) -> Result<Made<'a>, String> {
    let way = way(sections, from, existing)?;
    let Some(profile) = sections.get_profile(from) else {
        return Err("there is no such profile".into());
    };
    let (of, name, identity) = identity(sections, &way.root)?;
    let known = identities.get(&of).cloned();
    let identity = known.unwrap_or_else(|| {
        let used = |name: &str| {
            existing.identities.contains(name) || identities.values().any(|(n, _)| n == name)
        };
        (unused(&format!("aws-{name}"), used), identity)
    });
    let ours = ours(&identity.0, &way, profile)?;
    identities.insert(of, identity.clone());
    Ok((identity, profile, ours, way))
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

/// Where credentials start from.
enum Root<'a> {
    /// A token in a file, and the profile whose role it is good for.
    WebIdentity(&'a Profile, &'a str),
    /// Long-lived keys: the name of the profile that has them.
    Keys(&'a str),
    /// IAM Identity Center.
    Sso(&'a Profile),
}

/// How a profile gets its credentials: from where, and through which roles, the first first.
struct Way<'a> {
    root: Root<'a>,
    roles: Vec<&'a Profile>,
}

impl<'a> Way<'a> {
    /// The session of IAM Identity Center that it starts from, where that has a name.
    fn session(&self, sections: &'a EnvConfigSections) -> Option<(&'a str, &'a SsoSession)> {
        let Root::Sso(profile) = self.root else { return None };
        let name = profile.get("sso_session")?;
        Some((name, sections.sso_session(name)?))
    }
}

fn way<'a>(
    sections: &'a EnvConfigSections,
    name: &'a str,
    existing: Existing<'_>,
) -> Result<Way<'a>, String> {
    let mut roles = Vec::new();
    let mut seen = BTreeSet::new();
    let mut at = name;
    let root = loop {
        let through = |why: String| {
            if at == name { why } else { format!("it starts from the profile {at}: {why}") }
        };
        if !seen.insert(at) {
            return Err(format!("its `source_profile` leads in a circle, to {at}"));
        }
        let has_keys = existing.keys.contains(at);
        let Some(profile) = sections.get_profile(at) else {
            if has_keys && !roles.is_empty() {
                break Root::Keys(at);
            }
            return Err(through("there is no such profile".into()));
        };
        if profile.get("role_arn").is_none() {
            break root(profile, at, has_keys).map_err(through)?;
        }
        roles.push(profile);
        if let Some(file) = profile.get("web_identity_token_file") {
            if !std::path::Path::new(file).is_absolute() {
                return Err(through("its `web_identity_token_file` is no absolute path".into()));
            }
            break Root::WebIdentity(profile, file);
        }
        if let Some(place) = profile.get("credential_source") {
            return Err(through(format!(
                "it takes credentials from what it runs in (`credential_source = {place}`)"
            )));
        }
        match profile.get("source_profile") {
            None => return Err(through("it says nothing to assume its role with".into())),
            Some(source) if source == at => break Root::Keys(at),
            Some(source) => at = source,
        }
    };
    roles.reverse();
    let way = Way { root, roles };
    can_be(&way, existing.kinds).map_err(|why| {
        if at == name { why } else { format!("it starts from the profile {at}: {why}") }
    })?;
    Ok(way)
}

/// Refuses what this program has no identity source or no setting for.
fn can_be(way: &Way<'_>, kinds: &[&str]) -> Result<(), String> {
    let has = |kind: &str| kinds.contains(&kind);
    // With AWS only the keys of a user go with such a device.
    let with_keys = matches!(way.root, Root::Keys(_)) && has("aws-keys");
    let asks = |role: &&Profile| role.get("mfa_serial").is_some();
    if way.roles.iter().skip(usize::from(with_keys)).any(asks) {
        return Err("the code of an MFA device would have to be asked for".into());
    }
    match way.root {
        Root::WebIdentity(..) => Ok(()),
        Root::Keys(_) if way.roles.is_empty() || !with_keys => Err(KEYS.into()),
        Root::Keys(_) => Ok(()),
        Root::Sso(_) if has("aws-sso") => Ok(()),
        Root::Sso(_) => Err("people log in at IAM Identity Center for it".into()),
    }
}

const KEYS: &str = "it has long-lived keys, which are never copied";

/// Where the credentials of a profile without a role start from, or why nobody can tell.
fn root<'a>(profile: &'a Profile, name: &'a str, has_keys: bool) -> Result<Root<'a>, String> {
    let has = |name: &str| profile.get(name).is_some();
    if has("sso_session") || has("sso_start_url") || has("sso_account_id") {
        return Ok(Root::Sso(profile));
    }
    if let Some(command) = profile.get("credential_process") {
        let ours = command.contains("tmpcred") && command.contains("credential-process");
        return Err(if ours {
            "it asks tmpcred already".into()
        } else {
            "another program is asked for its credentials (`credential_process`)".into()
        });
    }
    if has("login_session") {
        return Err("people log in at the console for it (`login_session`)".into());
    }
    if has("aws_access_key_id") || has_keys {
        return Ok(Root::Keys(name));
    }
    Err("it says nothing of credentials".into())
}

/// The identity of a root: what tells it from others, a name, and what it is.
fn identity(
    sections: &EnvConfigSections,
    root: &Root<'_>,
) -> Result<(String, String, OurIdentity), String> {
    Ok(match root {
        Root::WebIdentity(profile, file) => {
            let identity =
                OurIdentity { token_file: Some((*file).into()), ..OurIdentity::of("file") };
            (format!("file {file}"), plain(profile.name()), identity)
        }
        Root::Keys(name) => {
            (format!("keys {name}"), format!("keys-{}", plain(name)), OurIdentity::of("aws-keys"))
        }
        Root::Sso(profile) => {
            let session = profile.get("sso_session");
            let of = |name: &str| match session {
                Some(session) => sections.sso_session(session).and_then(|s| s.get(name)),
                None => profile.get(name),
            };
            let needed =
                |name: &str| of(name).map(String::from).ok_or_else(|| format!("it lacks `{name}`"));
            let (start_url, region) = (needed("sso_start_url")?, needed("sso_region")?);
            let scopes = of("sso_registration_scopes")
                .map(|scopes| scopes.split(',').map(|scope| scope.trim().to_string()).collect());
            let name = session.unwrap_or(profile.name());
            let identity = OurIdentity {
                start_url: Some(start_url.clone()),
                region: Some(region),
                scopes,
                ..OurIdentity::of("aws-sso")
            };
            (format!("sso {start_url} {name}"), format!("sso-{}", plain(name)), identity)
        }
    })
}

fn ours(identity: &str, way: &Way<'_>, from: &Profile) -> Result<OurProfile, String> {
    let of = |profile: &Profile, name: &str| profile.get(name).map(String::from);
    let region = of(from, "region");
    // What is no number is refused when the profile is tried.
    let ttl = of(from, "duration_seconds").map(|seconds| match seconds.parse() {
        Ok(seconds) => {
            humantime::format_duration(std::time::Duration::from_secs(seconds)).to_string()
        }
        Err(_) => seconds,
    });
    // Of the server that gives sessions of roles.
    let sts = || OurTarget {
        use_fips: settings::is(from.get("use_fips_endpoint"), "true").then_some(true),
        endpoint_url: of(from, "endpoint_url").filter(|_| settings::has_endpoints(from)),
        ca_file: of(from, "ca_bundle"),
        ..OurTarget::default()
    };
    let step = |profile: &&Profile| OurStep {
        role_arn: of(profile, "role_arn").unwrap_or_default(),
        external_id: of(profile, "external_id"),
        session_name: of(profile, "role_session_name"),
    };
    if let Root::Sso(profile) = way.root {
        let needed = |name: &str| of(profile, name).ok_or_else(|| format!("it lacks `{name}`"));
        let is_chain = !way.roles.is_empty();
        return Ok(OurProfile {
            identity: identity.into(),
            role: needed("sso_role_name")?,
            ttl: ttl.filter(|_| is_chain),
            target: OurTarget {
                r#type: "aws-sso",
                account_id: Some(needed("sso_account_id")?),
                region,
                chain: way.roles.iter().map(step).collect(),
                ..if is_chain { sts() } else { OurTarget::default() }
            },
        });
    }
    let Some((first, rest)) = way.roles.split_first() else { return Err(KEYS.into()) };
    // With a web identity AWS takes no external id.
    let with_keys = matches!(way.root, Root::Keys(_));
    Ok(OurProfile {
        identity: identity.into(),
        role: of(first, "role_arn").unwrap_or_default(),
        ttl,
        target: OurTarget {
            r#type: "aws",
            region,
            external_id: of(first, "external_id").filter(|_| with_keys),
            session_name: of(first, "role_session_name"),
            mfa: of(first, "mfa_serial").map(|serial| OurMfa { serial }),
            chain: rest.iter().map(step).collect(),
            ..sts()
        },
    })
}

/// A name as it may be here.
fn plain(name: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    name.chars().map(|c| if good(c) { c } else { '-' }).collect()
}

fn unused(name: &str, used: impl Fn(&str) -> bool) -> String {
    let numbered = (2..).map(|n| format!("{name}-{n}"));
    let mut names = std::iter::once(name.to_string()).chain(numbered);
    names.find(|name| !used(name)).unwrap_or_default()
}

#[cfg(test)]
mod tests;
