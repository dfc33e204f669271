//! Texts of the configuration in which something in braces stands for what is so of whoever
//! is issued a token.

use std::collections::BTreeSet;
use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::broker::authenticate::Caller;
use crate::broker::elevation::ElevationClaim;

/// What can stand in braces.
const KNOWN: &str = "`{issuer}`, `{subject}`, `{person}`, `{claim:NAME}`, `{elevation}`, `{elevation:path}` and \
    `{elevation:reason_sha256}` are all that can stand in braces, and in a list `{claims:NAME}`, \
    `{groups}` and `{directory_groups}`";

/// A text with something in braces, or with nothing.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(with = "String")]
pub struct Template {
    text: String,
    pieces: Vec<Piece>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Issuer,
    Subject,
    Person,
    Claim(String),
    Elevation(OfElevation),
    Each(Each),
}

/// What can be told of a grant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum OfElevation {
    Id,
    Path,
    Reason,
}

/// What there can be several of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Each {
    Claims(String),
    Groups,
    DirectoryGroups,
}

/// What is known of whoever is issued a token.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    /// Who it is.
    pub(super) caller: &'a Caller,
    /// Who they are in the directory, and their groups there.
    pub(super) person: Option<(&'a str, &'a BTreeSet<String>)>,
    /// The grant under which it is issued, where it is under one.
    pub(super) grant: Option<&'a ElevationClaim>,
}

impl Template {
    /// The one that is the id of the grant.
    pub(super) fn of_grant() -> Self {
        Self { text: "{elevation}".into(), pieces: vec![Piece::Elevation(OfElevation::Id)] }
    }

    /// How many of its pieces stand for what there can be several of.
    pub(super) fn several(&self) -> usize {
        self.pieces.iter().filter(|piece| matches!(piece, Piece::Each(_))).count()
    }

    /// Whether it tells anything of a grant.
    pub(super) fn tells_of_grants(&self) -> bool {
        self.pieces.iter().any(|piece| matches!(piece, Piece::Elevation(_)))
    }

    /// Whether it has the id of the grant.
    pub(super) fn names_grants(&self) -> bool {
        self.pieces.contains(&Piece::Elevation(OfElevation::Id))
    }

    /// Whether it tells anything of what is in the directory of people.
    pub(super) fn reads_directory(&self) -> bool {
        let reads =
            |piece: &Piece| matches!(piece, Piece::Person | Piece::Each(Each::DirectoryGroups));
        self.pieces.iter().any(reads)
    }

    /// Whether it tells anything that nobody knows but by a token of an issuer.
    pub(super) fn reads_tokens(&self) -> bool {
        let reads = |piece: &Piece| {
            matches!(piece, Piece::Claim(_) | Piece::Each(Each::Claims(_) | Each::Groups))
        };
        self.pieces.iter().any(reads)
    }

    /// The text for somebody of whom this is so. `what` is what it is for.
    ///
    /// # Errors
    /// Where they lack something that it tells, or have several of that: a text that said less
    /// than it should could be mistaken for another one's.
    pub(super) fn fill(&self, what: &str, facts: Facts<'_>) -> Result<String, String> {
        self.with(what, facts, "")
    }

    /// The texts for somebody of whom this is so: as many as there are of what it tells that
    /// there can be several of, and one where it tells nothing like that.
    ///
    /// # Errors
    /// As [`fill`](Self::fill), and where it is not known how many there are. There may be none.
    pub(super) fn fill_each(&self, what: &str, facts: Facts<'_>) -> Result<Vec<String>, String> {
        let several = self.pieces.iter().find_map(|piece| match piece {
            Piece::Each(each) => Some(each),
            _ => None,
        });
        let values = match several {
            None => return self.fill(what, facts).map(|one| vec![one]),
            Some(Each::Claims(name)) => claim(what, facts.caller, name)?.cloned(),
            Some(Each::Groups) if !facts.caller.lists_groups() => {
                return Err(format!(
                    "{what} needs the caller's groups, and their token does not list any, nor that there are none"
                ));
            }
            Some(Each::Groups) => Some(facts.caller.group_names()),
            Some(Each::DirectoryGroups) => facts.person.map(|(_, groups)| groups.clone()),
        };
        values.iter().flatten().map(|value| self.with(what, facts, value)).collect()
    }

    /// The text in which this is the one of what there can be several of.
    fn with(&self, what: &str, facts: Facts<'_>, one: &str) -> Result<String, String> {
        let mut filled = String::new();
        for piece in &self.pieces {
            match piece {
                Piece::Text(text) => filled.push_str(text),
                Piece::Issuer => filled.push_str(&facts.caller.principal().issuer),
                Piece::Subject => filled.push_str(&facts.caller.principal().subject),
                Piece::Each(_) => filled.push_str(one),
                Piece::Person => filled.push_str(facts.person.map(|(name, _)| name).ok_or_else(
                    || format!("{what} needs the name that the directory of people has for the caller, who is not in it"),
                )?),
                Piece::Claim(name) => {
                    let values = claim(what, facts.caller, name)?;
                    let one = values.filter(|values| values.len() == 1).and_then(BTreeSet::first);
                    filled.push_str(one.ok_or_else(|| {
                        format!("{what} needs the one value of the claim '{name}', which the caller does not have")
                    })?);
                }
                Piece::Elevation(told) => {
                    let grant = facts.grant.ok_or("there is no grant")?;
                    match told {
                        OfElevation::Id => filled.push_str(&grant.id.to_string()),
                        OfElevation::Path => filled.push_str(grant.path.as_str()),
                        OfElevation::Reason => filled.push_str(&grant.reason_sha256),
                    }
                }
            }
        }
        Ok(filled)
    }
}

/// The values of a claim of the caller's token; nothing where it has none.
///
/// # Errors
/// Where not all of them are known.
fn claim<'a>(
    what: &str,
    caller: &'a Caller,
    name: &str,
) -> Result<Option<&'a BTreeSet<String>>, String> {
    match caller.sees_whole(name) {
        true => Ok(caller.tags().get(name)),
        false => Err(format!(
            "{what} needs the claim '{name}', of which something in the caller's token is no text, or elsewhere"
        )),
    }
}

impl TryFrom<String> for Template {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let wrong = || format!("it has the text {text:?}; {KNOWN}");
        let mut pieces = Vec::new();
        let mut rest = &*text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            pieces.push(Piece::Text(before.into()));
            let (name, after) =
                from.strip_prefix('{').and_then(|from| from.split_once('}')).ok_or_else(wrong)?;
            pieces.push(Piece::named(name).ok_or_else(wrong)?);
            rest = after;
        }
        pieces.push(Piece::Text(rest.into()));
        pieces.retain(|piece| !matches!(piece, Piece::Text(text) if text.is_empty()));
        Ok(Self { pieces, text })
    }
}

impl Piece {
    /// What these braces stand for.
    fn named(name: &str) -> Option<Self> {
        Some(match name.split_once(':') {
            Some(("claim", claim)) if !claim.is_empty() => Self::Claim(claim.into()),
            Some(("claims", claim)) if !claim.is_empty() => Self::Each(Each::Claims(claim.into())),
            Some(("elevation", "path")) => Self::Elevation(OfElevation::Path),
            Some(("elevation", "reason_sha256")) => Self::Elevation(OfElevation::Reason),
            Some(_) => return None,
            None => match name {
                "issuer" => Self::Issuer,
                "subject" => Self::Subject,
                "person" => Self::Person,
                "groups" => Self::Each(Each::Groups),
                "directory_groups" => Self::Each(Each::DirectoryGroups),
                "elevation" => Self::Elevation(OfElevation::Id),
                _ => return None,
            },
        })
    }
}

impl From<Template> for String {
    fn from(template: Template) -> Self {
        template.text
    }
}

impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}
