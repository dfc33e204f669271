//! What a configuration means: the types that its tables are read into.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};

use super::source::Origin;
use super::tagged::Tagged;
use super::tree::Node;
use super::trust::Standing;
use crate::aws::EndpointUrl;
use crate::cache::StoreChoice;
use crate::error::Error;
use crate::{identity, mint};

/// How many profiles may extend each other in a row.
pub(crate) const MAX_LINEAGE: usize = 16;
/// The longest lifetime that can be asked for.
pub const MAX_TTL: Duration = Duration::from_secs(366 * 24 * 60 * 60);

/// The tables of a configuration file.
#[derive(Debug, Default, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "tmpcred", title = "tmpcred configuration")]
pub(super) struct File {
    /// The profile that is used where none is named.
    pub(super) default_profile: Option<String>,
    /// Where credentials and sessions rest.
    pub(super) cache: CacheSettings,
    /// Signing in to the console of a cloud.
    pub(super) console: ConsoleSettings,
    /// Identity sources, by name: what proves who is calling.
    #[serde(deserialize_with = "named")]
    #[schemars(extend("propertyNames" = { "pattern": NAME_PATTERN }))]
    pub(super) identity: BTreeMap<String, Tagged<identity::Settings>>,
    /// Brokers, by name.
    #[serde(deserialize_with = "named")]
    #[schemars(extend("propertyNames" = { "pattern": NAME_PATTERN }))]
    pub(super) broker: BTreeMap<String, mint::broker::Server>,
    /// Profiles, by name: recipes for a credential.
    #[serde(deserialize_with = "named")]
    #[schemars(extend("propertyNames" = { "pattern": NAME_PATTERN }))]
    pub(super) profile: BTreeMap<String, Profile>,
}

/// The `[cache]` table.
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct CacheSettings {
    /// Which store to use.
    pub store: StoreChoice,
    /// Whether a credential that will soon be due for renewal is renewed by a process in
    /// the background, so that nobody has to wait for it.
    pub refresh_ahead: bool,
}

impl Default for CacheSettings {
    fn default() -> Self {
        Self { store: StoreChoice::default(), refresh_ahead: true }
    }
}

/// The `[console]` table.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct ConsoleSettings {
    /// The browser to open, so that each profile has a browser profile of its own: a
    /// bare name or an absolute path of Firefox, Chromium or one of their kin. Where
    /// left out: the default browser, in which all profiles share one session.
    pub browser: Option<String>,
    /// Another sign-in endpoint.
    pub endpoint_url: Option<EndpointUrl>,
}

/// A named recipe for a credential.
#[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Profile {
    /// Another profile, whose values count where this one has none.
    pub extends: Option<String>,
    /// The name of an `[identity.NAME]` table. May be left out where there is just one.
    pub identity: Option<String>,
    /// Steps from one assertion to another, before the target.
    pub exchange: Option<Vec<Exchange>>,
    /// What is asked for the credential. Where left out: the one broker there is.
    pub target: Option<Tagged<mint::Settings>>,
    /// The role to ask for.
    pub role: Option<String>,
    /// What of the role is wanted. Where left out: all that policy gives.
    pub scope: Option<Vec<String>>,
    /// Who the credential is to be shown to.
    pub audience: Option<String>,
    /// The lifetime to ask for, such as `15m` or `1h 30m`. Where left out: as
    /// long as policy gives.
    #[serde(deserialize_with = "ttl")]
    #[schemars(schema_with = "ttl_schema")]
    pub ttl: Option<Duration>,
    /// How long commands are expected to run, such as `3h`. Where a credential is good
    /// for less, `tmpcred exec` renews it.
    #[serde(deserialize_with = "runtime")]
    #[schemars(schema_with = "ttl_schema")]
    pub expected_runtime: Option<Duration>,
    /// Further variables for the child; `{token}` stands for the credential.
    pub env: BTreeMap<String, String>,
    /// Whether a project's `.tmpcred.toml` may choose this profile. It is not
    /// taken over by profiles that extend this one.
    pub project_selectable: bool,
}

/// A step from one assertion to another (RFC 8693).
#[derive(Clone, Debug, PartialEq, Eq, serde::Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exchange {
    /// The name of a `[broker.NAME]` table. May be left out where there is just one.
    #[serde(default)]
    pub broker: Option<String>,
    /// The role under which the next assertion is issued.
    pub role: String,
    /// The scope of the next assertion. Where left out: all that policy gives.
    #[serde(default)]
    pub scope: Vec<String>,
    /// Whom the next assertion is for. Where left out: whoever performs the next step.
    #[serde(default)]
    pub audience: Option<String>,
}

/// What a project's own file says about the profile to use.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Project {
    /// There is no such file, or it chooses none.
    #[default]
    Silent,
    /// It chooses a profile.
    Chooses {
        /// The profile's name.
        profile: String,
        /// Where it says so.
        origin: Origin,
        /// How this very file stands: one that is trusted may choose any profile. `None` where
        /// it was not looked at, because every file may choose this profile.
        standing: Option<Standing>,
    },
    /// It may not choose, and why.
    Refused(Error),
}

/// The whole configuration, all layers merged.
#[derive(Clone, Debug)]
pub struct Config {
    /// The profile that is used where none is named.
    pub default_profile: Option<String>,
    /// What `TMPCRED_PROFILE` says.
    pub environment_profile: Option<String>,
    /// What the project's own file says.
    pub project: Project,
    /// Where credentials and sessions rest.
    pub cache: CacheSettings,
    /// Signing in to the console of a cloud.
    pub console: ConsoleSettings,
    /// The identity sources, by name.
    pub identities: BTreeMap<String, identity::Settings>,
    /// The brokers, by name.
    pub brokers: mint::Brokers,
    /// The profiles, by name.
    pub profiles: BTreeMap<String, Profile>,
    /// Where the user's own configuration is, or would be.
    pub user_file: PathBuf,
    /// What was read, with all its origins.
    pub(super) tree: Node,
}

impl Config {
    pub(super) fn new(file: File, tree: Node, user_file: PathBuf) -> Self {
        Self {
            default_profile: file.default_profile,
            environment_profile: None,
            project: Project::Silent,
            cache: file.cache,
            console: file.console,
            identities: file.identity.into_iter().map(|(name, t)| (name, t.0)).collect(),
            brokers: file.broker,
            profiles: file.profile,
            user_file,
            tree,
        }
    }

    /// Where the value at this path was written, such as `["profile", "deploy",
    /// "role"]`; built-in where it was written nowhere.
    pub fn origin(&self, path: &[&str]) -> Origin {
        self.tree.find(path).map_or(Origin::BuiltIn, |found| found.node.origin.clone())
    }

    /// Where the key at this path was written.
    pub(crate) fn key_origin(&self, path: &[&str]) -> Origin {
        self.tree.find(path).map_or(Origin::BuiltIn, |found| found.key.clone())
    }

    /// A profile and those that it extends, nearest first.
    pub(crate) fn lineage(&self, name: &str) -> Result<Vec<(&str, &Profile)>, Broken> {
        let mut line: Vec<(&str, &Profile)> = Vec::new();
        let mut next = Some(name);
        while let Some(name) = next {
            if let Some(start) = line.iter().position(|(earlier, _)| *earlier == name) {
                let mut names: Vec<_> = line[start..].iter().map(|(n, _)| n.to_string()).collect();
                names.push(name.into());
                return Err(Broken::Loop(names));
            }
            if line.len() > MAX_LINEAGE {
                return Err(Broken::TooLong);
            }
            let Some((name, profile)) = self.profiles.get_key_value(name) else {
                let by = line.last().map(|(name, _)| name.to_string());
                return Err(Broken::Missing { name: name.into(), by });
            };
            line.push((name, profile));
            next = profile.extends.as_deref();
        }
        Ok(line)
    }
}

/// Why the profiles that a profile extends cannot be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Broken {
    /// They go round in a circle; the first and the last are the same.
    Loop(Vec<String>),
    /// There are too many of them.
    TooLong,
    /// There is no such profile; `by` is the one that names it.
    Missing { name: String, by: Option<String> },
}

/// The names of identities, brokers and profiles, as a regular expression.
const NAME_PATTERN: &str = "^[A-Za-z0-9._][A-Za-z0-9._-]*$";

/// Tells what is wrong with the name of an identity, a broker or a profile.
pub fn check_name(name: &str) -> Result<(), &'static str> {
    if name.is_empty() {
        return Err("a name cannot be empty");
    }
    if name.starts_with('-') {
        return Err("a name cannot start with `-`: it would look like an option");
    }
    // No `:` among others, at which shells end the word that they complete.
    if !name.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)) {
        return Err("a name has letters, digits, `.`, `_` and `-` only");
    }
    Ok(())
}

/// Tells what is wrong with a lifetime to ask for.
pub fn check_ttl(ttl: Duration) -> Result<(), &'static str> {
    if ttl < Duration::from_secs(1) {
        return Err("a lifetime is at least one second");
    }
    if ttl.subsec_nanos() != 0 {
        return Err("a lifetime has whole seconds");
    }
    if ttl > MAX_TTL {
        return Err("a lifetime is at most a year");
    }
    Ok(())
}

fn ttl<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let ttl = duration(deserializer)?;
    check_ttl(ttl).map_err(de::Error::custom)?;
    Ok(Some(ttl))
}

fn runtime<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Duration>, D::Error> {
    let runtime = duration(deserializer)?;
    if runtime > MAX_TTL {
        return Err(de::Error::custom("a run is expected to last a year at most"));
    }
    Ok(Some(runtime))
}

fn duration<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Duration, D::Error> {
    let text = String::deserialize(deserializer)?;
    humantime::parse_duration(&text).map_err(|cause| {
        de::Error::custom(format!("this is not a duration such as `15m` or `1h 30m` ({cause})"))
    })
}

fn ttl_schema(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "examples": ["15m", "1h 30m"] })
}

/// Reads a table whose keys are names.
fn named<'de, D, T>(deserializer: D) -> Result<BTreeMap<String, T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    deserializer.deserialize_map(NamedVisitor(PhantomData))
}

struct NamedVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some(name) = map.next_key_seed(Name)? {
            all.insert(name, map.next_value()?);
        }
        Ok(all)
    }
}

struct Name;

impl<'de> DeserializeSeed<'de> for Name {
    type Value = String;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<String, D::Error> {
        let name = String::deserialize(deserializer)?;
        check_name(&name).map_err(de::Error::custom)?;
        Ok(name)
    }
}
