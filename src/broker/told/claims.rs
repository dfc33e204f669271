//! The claims that tokens of a role have besides the broker's own: what the services read of them
//! to which they are shown, such as `groups` (RFC 9068 section 2.2.3.1).

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, de};
use serde_json::{Map, Value};

use super::template::{Facts, Template};
use crate::broker::authenticate::names;

/// How many claims a role may add, with those within others; how long a name may be, in bytes;
/// and how deep they may be within others.
const MAX_CLAIMS: usize = 64;
const MAX_NAME: usize = 256;
const MAX_DEPTH: usize = 4;
/// How long all that is added may be in a token, in bytes: a header of a request often has
/// no more than eight kibibytes, in which the whole token has to be, as base64.
const MAX_LENGTH: usize = 4 * 1024;

/// The claims that the broker says itself, or that say something in all tokens, in introspection
/// (RFC 7662 section 2.2) or of a login: they are not a role's to say. In order.
const OWN: [&str; 35] = [
    "acr",
    "act",
    "active",
    "amr",
    "ancestor_keys",
    "ancestors",
    "at_hash",
    "aud",
    "auth_time",
    "authorization_details",
    "azp",
    "c_hash",
    "client_id",
    "cnf",
    "crit",
    "elevation",
    "events",
    "exp",
    "https://aws.amazon.com/source_identity",
    "https://aws.amazon.com/tags",
    "iat",
    "iss",
    "jti",
    "log_sequence",
    "may_act",
    "nbf",
    "nonce",
    "revocation_reach",
    "role",
    "scope",
    "sid",
    "sub",
    "sub_id",
    "token_type",
    "txn",
];

/// Whether a claim is the broker's own.
pub(in crate::broker) fn is_own(name: &str) -> bool {
    OWN.binary_search(&name).is_ok()
}

/// The table `[role.NAME.claims]`: claims by their names. In their texts `{issuer}` and `{subject}`
/// stand for the caller's issuer and subject, `{person}` for the name that the directory of people
/// has for them, and `{claim:NAME}` for the one value of a claim of the caller's token. In a list `{claims:NAME}`
/// stands for each value of such a claim, `{groups}` for each group that the caller's issuer names,
/// and `{directory_groups}` for each group of the directory. Of a role that is had by elevation
/// `{elevation}` is the id of the grant, `{elevation:path}` how it came about, and
/// `{elevation:reason_sha256}` the SHA-256 of the reason for it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Settings(BTreeMap<String, Said>);

/// What a claim says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(untagged)]
pub enum Said {
    /// A text.
    Text(Template),
    /// A list of texts.
    Texts(Vec<Template>),
    /// Claims of its own.
    Claims(BTreeMap<String, Said>),
}

/// The same as it is written: what is wrong with it can be said then.
#[derive(Deserialize)]
#[serde(untagged, expecting = "it is a text, a list of texts, or a table of such claims")]
enum Written {
    Text(String),
    Texts(Vec<String>),
    Claims(BTreeMap<String, Self>),
}

impl<'de> Deserialize<'de> for Said {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Written::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
    }
}

impl TryFrom<Written> for Said {
    type Error = String;

    fn try_from(written: Written) -> Result<Self, String> {
        Ok(match written {
            Written::Text(text) => Self::Text(text.try_into()?),
            Written::Texts(texts) => {
                Self::Texts(texts.into_iter().map(Template::try_from).collect::<Result<_, _>>()?)
            }
            Written::Claims(inner) => {
                let said = |(name, written)| Ok((name, Self::try_from(written)?));
                Self::Claims(inner.into_iter().map(said).collect::<Result<_, String>>()?)
            }
        })
    }
}

impl Settings {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Tells what no token can say, whoever calls.
    pub(in crate::broker) fn check(&self) -> Result<(), String> {
        if let Some(own) = self.0.keys().find(|name| is_own(name)) {
            return Err(format!(
                "has the claim '{own}', which says something in every token, and is not a role's to say"
            ));
        }
        let mut count = 0;
        check(&self.0, MAX_DEPTH, &mut count)?;
        match count > MAX_CLAIMS {
            true => Err(format!("has {count} claims; at most {MAX_CLAIMS} are possible")),
            false => Ok(()),
        }
    }

    /// Whether it tells anything of a grant.
    pub(in crate::broker) fn tells_of_grants(&self) -> bool {
        self.any(Template::tells_of_grants)
    }

    /// Whether something is so of any of its texts.
    pub(super) fn any(&self, is: fn(&Template) -> bool) -> bool {
        let mut any = false;
        each(&self.0, "", &mut |_, template| any |= is(template));
        any
    }

    /// The texts, and the names of the claims that have them, with those that they are within
    /// before them.
    pub(in crate::broker) fn texts(&self) -> Vec<(String, &Template)> {
        let mut texts = Vec::new();
        each(&self.0, "", &mut |name, template| texts.push((name.to_string(), template)));
        texts
    }

    /// What a claim says, by its name or its JSON pointer.
    pub(in crate::broker) fn get(&self, name: &str) -> Option<&Said> {
        let mut path = names::path(name).into_iter();
        let first = self.0.get(&path.next()?);
        path.fold(first, |said, name| match said? {
            Said::Claims(inner) => inner.get(&name),
            Said::Text(_) | Said::Texts(_) => None,
        })
    }

    /// The claims for somebody of whom this is so.
    ///
    /// # Errors
    /// Where something is missing, or all of it is too long.
    pub(super) fn fill(&self, facts: Facts<'_>) -> Result<Map<String, Value>, String> {
        if self.is_empty() {
            return Ok(Map::new());
        }
        let claims = fill(&self.0, "", facts)?;
        let length = serde_json::to_string(&claims).map_or(usize::MAX, |text| text.len());
        match length > MAX_LENGTH {
            true => Err(format!(
                "its claims would be {length} bytes long in the token; at most {MAX_LENGTH} are possible"
            )),
            false => Ok(claims),
        }
    }
}

fn check(claims: &BTreeMap<String, Said>, depth: usize, count: &mut usize) -> Result<(), String> {
    for (name, said) in claims {
        *count += 1;
        let legal = !name.starts_with('/') && !name.chars().any(char::is_control);
        if name.is_empty() || name.len() > MAX_NAME || !legal {
            return Err(format!(
                "has the claim {name:?}; a name has up to {MAX_NAME} bytes, no control characters, and no `/` before it"
            ));
        }
        match said {
            Said::Text(text) if text.several() > 0 => {
                return Err(format!(
                    "has the claim '{name}' with the text \"{text}\", which may stand for several: put it into a list, [\"{text}\"]"
                ));
            }
            Said::Text(_) => {}
            Said::Texts(texts) => {
                if let Some(text) = texts.iter().find(|text| text.several() > 1) {
                    return Err(format!(
                        "has the claim '{name}' with the text \"{text}\", which stands for each of more than one list"
                    ));
                }
            }
            Said::Claims(_) if depth == 1 => {
                return Err(format!("has the claim '{name}' deeper than {MAX_DEPTH} levels"));
            }
            Said::Claims(inner) => check(inner, depth - 1, count)?,
        }
    }
    Ok(())
}

fn each<'a>(
    claims: &'a BTreeMap<String, Said>,
    within: &str,
    look: &mut impl FnMut(&str, &'a Template),
) {
    for (name, said) in claims {
        let name = format!("{within}{name}");
        match said {
            Said::Text(text) => look(&name, text),
            Said::Texts(texts) => texts.iter().for_each(|text| look(&name, text)),
            Said::Claims(inner) => each(inner, &format!("{name}/"), look),
        }
    }
}

fn fill(
    claims: &BTreeMap<String, Said>,
    within: &str,
    facts: Facts<'_>,
) -> Result<Map<String, Value>, String> {
    let fill_one = |(name, said): (&String, &Said)| {
        let what = format!("the claim '{within}{name}'");
        let value = match said {
            Said::Text(text) => Value::String(text.fill(&what, facts)?),
            Said::Texts(texts) => {
                let mut all = BTreeSet::new();
                for text in texts {
                    all.extend(text.fill_each(&what, facts)?);
                }
                all.into_iter().map(Value::String).collect()
            }
            Said::Claims(inner) => Value::Object(fill(inner, &format!("{within}{name}/"), facts)?),
        };
        Ok((name.clone(), value))
    };
    claims.iter().map(fill_one).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(claims: Value) -> Result<Settings, String> {
        let settings: Settings =
            serde_json::from_value(claims).map_err(|cause| cause.to_string())?;
        settings.check().map(|()| settings)
    }

    #[test]
    fn mistakes_are_found_before_anybody_calls() {
        assert!(OWN.is_sorted());
        let many: BTreeMap<_, _> = (0..65).map(|n| (n.to_string(), "x")).collect();
        for (bad, why) in [
            (json!({"sub": "{subject}"}), "is not a role's to say"),
            (json!({"https://aws.amazon.com/tags": {}}), "is not a role's to say"),
            (json!({"amr": ["{claims:amr}"]}), "is not a role's to say"),
            (json!({"": "x"}), "a name has"),
            (json!({"a\n": "x"}), "a name has"),
            (json!({"/a": "x"}), "a name has"),
            (json!({"x".repeat(257): "x"}), "a name has"),
            (json!({"a": {"": "x"}}), "a name has"),
            (json!(many), "at most 64"),
            (json!({"a": {"b": {"c": {"d": {"e": "x"}}}}}), "deeper than 4"),
            (json!({"groups": "{groups}"}), "put it into a list, [\"{groups}\"]"),
            (json!({"groups": ["{groups}{claims:x}"]}), "more than one list"),
            (json!({"groups": ["{group}"]}), "are all that can stand in braces"),
            (json!({"a": "{claim:}"}), "are all that can stand in braces"),
            (json!({"a": "{claims:}"}), "are all that can stand in braces"),
            (json!({"a": "{subject"}), "are all that can stand in braces"),
            (json!({"a": "subject}"}), "are all that can stand in braces"),
            (json!({"a": "{elevation:who}"}), "are all that can stand in braces"),
            (json!({"a": 1}), "a text, a list of texts, or a table"),
            (json!({"a": [["x"]]}), "a text, a list of texts, or a table"),
        ] {
            let said = read(bad.clone()).unwrap_err();
            assert!(said.contains(why), "{bad}: {said}");
        }
        // Below others a name is nobody's own.
        read(json!({"a": {"sub": "{subject}", "b": {"c": {"d": ["{claims:x}"]}}}})).unwrap();
    }

    #[test]
    fn what_is_written_is_what_is_read_again() {
        let text = json!({"a": "x{subject}", "b": ["{groups}"], "c": {"d": "{elevation:path}"}});
        let settings = read(text.clone()).unwrap();
        assert_eq!(serde_json::to_value(&settings).unwrap(), text);
        assert!(settings.tells_of_grants() && !settings.any(Template::reads_directory));
        for texts in [json!("{person}"), json!(["{directory_groups}"]), json!({"x": "{person}"})] {
            assert!(read(json!({ "a": texts })).unwrap().any(Template::reads_directory));
        }
        let said = |name: &str| settings.get(name).map(|said| serde_json::to_value(said).unwrap());
        assert_eq!(said("/c/d"), Some(json!("{elevation:path}")));
        assert_eq!(
            (said("a"), said("/b/0"), said("/a/x")),
            (Some(json!("x{subject}")), None, None)
        );
        let names: Vec<_> = settings.texts().into_iter().map(|(name, _)| name).collect();
        assert_eq!(names, ["a", "b", "c/d"]);
    }
}
