//! Who is calling, as policy, audit and tokens name them.

use std::collections::{BTreeMap, BTreeSet};

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};
use serde_json::{Map, Value};
use time::OffsetDateTime;
use uuid::Uuid;

use super::actor::{Actor, MayAct};
use super::names::{self, Names, scalar};
use super::signed::BySignature;
use super::unacceptable;
use crate::broker::elevation::ElevationClaim;
use crate::credential::Principal;
use crate::dpop::Bound;
use crate::error::Result;
use crate::oidc::{Claims, Issuer};

/// What stays as it is in the fragment of a URL (RFC 3986 section 3.5). `%` does
/// not, so that different names never become the same.
const FRAGMENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'&')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b'+')
    .remove(b',')
    .remove(b';')
    .remove(b'=')
    .remove(b':')
    .remove(b'@')
    .remove(b'/')
    .remove(b'?');

/// How long a subject and the name of a client may be, in bytes: every audit record
/// has both.
const MAX_NAME: usize = 1024;

/// How many values of claims policy gets to see.
const MAX_VALUES: usize = 5_000;

/// How deep claims within claims are followed.
const MAX_DEPTH: usize = 4;

/// What stands for something in the store: a SHA-256, or most of one.
pub(in crate::broker) type Fingerprint = [u8; 32];

/// Somebody who proved who they are.
#[derive(Clone, Debug)]
pub struct Caller {
    pub(super) principal: Principal,
    id: String,
    groups: BTreeSet<String>,
    tags: BTreeMap<String, BTreeSet<String>>,
    client: String,
    /// The client that has authenticated.
    authenticated: Option<String>,
    expires_at: OffsetDateTime,
    ends_with_token: bool,
    parent: Option<Parent>,
    /// The thumbprint of the key that the token is bound to.
    key: Option<String>,
    /// The name of the token, where it may be used once.
    used_up: Option<Fingerprint>,
    /// Who acts for the caller: first who does so now, then those before them.
    pub(super) actors: Vec<Actor>,
    /// Who may become the first of them.
    pub(super) may_act: Option<MayAct>,
    /// The first of them, where they proved who they are.
    pub(super) actor: Option<Box<Caller>>,
    /// All that the token says.
    pub(super) claims: Map<String, Value>,
    /// Whether the token lists groups, be it none.
    lists_groups: bool,
    /// A claim of which policy does not get to see all.
    unseen: Option<String>,
    /// The claims that policy sees by another name, and whether it sees all of each.
    mapped: BTreeMap<String, bool>,
    /// What they signed, where that is how they are known.
    signed: Option<Box<BySignature>>,
}

/// The broker's own token by which somebody proved who they are. What they are given
/// for it comes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parent {
    /// Its id.
    pub jti: Uuid,
    /// The ids of those that it came of, the first one first, and its own.
    pub lineage: Vec<Uuid>,
    /// The ids of the keys that signed all of them.
    pub keys: BTreeSet<String>,
    /// What it covers.
    pub scope: BTreeSet<String>,
    /// The grant under which it was issued, where it was under one.
    pub elevation: Option<ElevationClaim>,
}

impl Caller {
    /// Takes a verified token, issued to `client`.
    ///
    /// # Errors
    /// A groups claim that cannot be understood: a policy that forbids something
    /// to a group must not be escaped by it. Names that are too long, or no text.
    pub(super) fn new(claims: Claims, names: &Names, client: String) -> Result<Self> {
        let principal = claims.principal;
        for (what, name) in [("subject", &principal.subject), ("client", &client)] {
            if name.len() > MAX_NAME {
                return Err(unacceptable(format!("its {what} is longer than {MAX_NAME} bytes")));
            }
            // Nobody could tell in a log what it is, and not every store takes all of them.
            if name.chars().any(char::is_control) {
                return Err(unacceptable(format!("its {what} has control characters")));
            }
        }
        let groups = names
            .groups(&claims.all)?
            .into_iter()
            .map(|group| qualified(&principal.issuer, &group))
            .collect();
        let Tags { mut tags, unseen, .. } = tags(&claims.all)?;
        names.map(&claims.all, &mut tags);
        let mapped = names.mapped(&claims.all);
        let key = match Bound::of(&claims.all) {
            Bound::No => None,
            Bound::To(key) => Some(key),
            Bound::Otherwise => {
                return Err(unacceptable("it is bound to something that cannot be proved here"));
            }
        };
        Ok(Self {
            id: qualified(&principal.issuer, &principal.subject),
            lists_groups: names.lists_groups(&claims.all),
            groups,
            tags,
            unseen,
            mapped,
            client,
            authenticated: None,
            principal,
            expires_at: claims.expires_at,
            ends_with_token: false,
            parent: None,
            key,
            used_up: None,
            actors: Vec::new(),
            may_act: None,
            actor: None,
            claims: claims.all,
            signed: None,
        })
    }

    /// A client that has authenticated and asks in its own name: a user of the broker's
    /// own issuer. No token of the broker has such a subject.
    pub(in crate::broker) fn of_client(own: &Issuer, client: &str, now: OffsetDateTime) -> Self {
        let (issuer, subject) = (own.as_str().to_string(), client.to_string());
        let named = Self::named(Principal { issuer, subject }, now);
        Self { client: client.into(), authenticated: Some(client.into()), ..named }
    }

    /// Somebody of whom nothing is known but who they are.
    pub(in crate::broker) fn named(principal: Principal, now: OffsetDateTime) -> Self {
        Self {
            id: qualified(&principal.issuer, &principal.subject),
            principal,
            groups: BTreeSet::new(),
            tags: BTreeMap::new(),
            client: String::new(),
            authenticated: None,
            expires_at: now,
            ends_with_token: true,
            parent: None,
            key: None,
            used_up: None,
            actors: Vec::new(),
            may_act: None,
            actor: None,
            claims: Map::new(),
            lists_groups: true,
            unseen: None,
            mapped: BTreeMap::new(),
            signed: None,
        }
    }

    /// Somebody who is known by what they signed. It is good once, as an assertion may be.
    pub(super) fn by_signature(principal: Principal, client: String, signed: BySignature) -> Self {
        let named = Self::named(principal, signed.expires);
        Self {
            client,
            ends_with_token: false,
            used_up: Some(signed.statement),
            lists_groups: false,
            signed: Some(Box::new(signed)),
            ..named
        }
    }

    /// What they signed, where that is how they are known.
    pub(in crate::broker) fn signed(&self) -> Option<&BySignature> {
        self.signed.as_deref()
    }

    /// The same caller, through this client, which has authenticated; and so who acts for
    /// them, as all of it is one request.
    pub(in crate::broker) fn through(self, client: &str) -> Self {
        let actor = self.actor.map(|actor| Box::new(actor.through(client)));
        Self { client: client.into(), authenticated: Some(client.into()), actor, ..self }
    }

    /// The same caller, who showed this token of the broker's own.
    pub(in crate::broker) fn bound_by(self, parent: Parent) -> Self {
        Self { parent: Some(parent), ends_with_token: true, ..self }
    }

    /// The same caller, for whom nothing is issued that outlives their token.
    pub(super) fn ending_with_token(self) -> Self {
        Self { ends_with_token: true, ..self }
    }

    /// The thumbprint of the key that the token is bound to, where it is.
    pub fn key(&self) -> Option<&str> {
        self.key.as_deref()
    }

    /// The same caller, whose token may be used once.
    pub(super) fn used_up_by(self, token: Fingerprint) -> Self {
        Self { used_up: Some(token), ..self }
    }

    /// The hash of the token by which the caller proved who they are, where it may be
    /// used once.
    pub(in crate::broker) fn used_up(&self) -> Option<Fingerprint> {
        self.used_up
    }

    /// The same caller, for whom these act, as the token says.
    pub(super) fn acted_for(self, actors: Vec<Actor>, may_act: Option<MayAct>) -> Self {
        Self { actors, may_act, ..self }
    }

    /// Who acts for the caller: first who does so now, then those before them.
    pub fn actors(&self) -> &[Actor] {
        &self.actors
    }

    /// Who may become the first of them, where the token says so.
    pub fn may_act(&self) -> Option<&MayAct> {
        self.may_act.as_ref()
    }

    /// The first of them, where they proved who they are.
    pub fn actor(&self) -> Option<&Self> {
        self.actor.as_deref()
    }

    /// Who sent the request: the one who acts, where they proved who they are.
    pub fn requester(&self) -> &Self {
        self.actor().unwrap_or(self)
    }

    /// Who asks by it: who acts, whether they proved who they are or the token says so.
    pub(in crate::broker) fn asking(&self) -> &Principal {
        self.actors.first().map_or(&self.principal, Actor::principal)
    }

    /// All who proved who they are.
    pub(in crate::broker) fn proven(&self) -> impl Iterator<Item = &Self> {
        [self].into_iter().chain(self.actor())
    }

    /// Whether the token lists groups, be it none.
    pub(in crate::broker) fn lists_groups(&self) -> bool {
        self.lists_groups
    }

    /// A claim that is not all among the [`tags`](Self::tags): it has more levels than
    /// are followed, or what is neither text nor number nor true nor false in a list,
    /// or a name that is another one's pointer.
    pub(super) fn unseen(&self) -> Option<&str> {
        self.unseen.as_deref()
    }

    /// Whether all that the token has of a claim is among the [`tags`](Self::tags), be it nothing.
    pub(in crate::broker) fn sees_whole(&self, name: &str) -> bool {
        match self.mapped.get(name) {
            Some(whole) => *whole,
            None => {
                // A list of none is there, and so is what is too deep to be followed.
                let is_there = names::claim(&self.claims, name).is_some_and(|it| !it.is_null());
                names::is_whole(&self.claims, name) && is_there == self.tags.contains_key(name)
            }
        }
    }

    /// Issuer and subject.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// Issuer and subject as one: the issuer, `#`, and the subject with whatever a
    /// URL's fragment cannot have percent-encoded. An issuer has no `#`, so no two
    /// principals share an id. It is the `sub` of tokens and the id of a `User`.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The ids of the caller's groups, formed like [`id`](Self::id).
    pub fn groups(&self) -> &BTreeSet<String> {
        &self.groups
    }

    /// The names of the caller's groups, as the issuer has them.
    pub(in crate::broker) fn group_names(&self) -> BTreeSet<String> {
        let name = |id: &String| {
            let (_, name) = id.split_once('#')?;
            Some(percent_decode_str(name).decode_utf8().ok()?.into_owned())
        };
        self.groups.iter().filter_map(name).collect()
    }

    /// The claims, as policy sees them.
    pub fn tags(&self) -> &BTreeMap<String, BTreeSet<String>> {
        &self.tags
    }

    /// The client that has authenticated; where none has, the one that the token was
    /// issued to; where it names none, the name of the issuer's table in the configuration.
    pub fn client(&self) -> &str {
        &self.client
    }

    /// The client that has authenticated.
    pub fn authenticated_client(&self) -> Option<&str> {
        self.authenticated.as_deref()
    }

    /// When the token ends by which the caller proved who they are.
    pub fn expires_at(&self) -> OffsetDateTime {
        self.expires_at
    }

    /// Whether what is issued to the caller must end no later than that token,
    /// whatever the role says.
    pub fn ends_with_token(&self) -> bool {
        self.ends_with_token
    }

    /// The ids of the broker's own tokens that what is issued comes of.
    pub(in crate::broker) fn lineage(&self) -> Vec<Uuid> {
        // The subject's comes last: it is the parent.
        let parents = self.actor().and_then(Self::parent).into_iter().chain(self.parent());
        let mut lineage = Vec::new();
        for jti in parents.flat_map(|parent| &parent.lineage) {
            lineage.retain(|known| known != jti);
            lineage.push(*jti);
        }
        lineage
    }

    /// The ids of the keys that signed those.
    pub(in crate::broker) fn lineage_keys(&self) -> BTreeSet<String> {
        let parents = self.proven().filter_map(Self::parent);
        parents.flat_map(|parent| &parent.keys).cloned().collect()
    }

    /// The grant under which what they showed was issued, where some of it was: what is issued
    /// for it comes of that grant, too.
    pub(in crate::broker) fn grant(&self) -> Option<&ElevationClaim> {
        let parents = self.parent().into_iter().chain(self.actor().and_then(Self::parent));
        parents.filter_map(|parent| parent.elevation.as_ref()).next()
    }

    /// That token, where it is the broker's own.
    pub fn parent(&self) -> Option<&Parent> {
        self.parent.as_ref()
    }
}

/// Issuer and name as one text.
pub fn qualified(issuer: &str, name: &str) -> String {
    format!("{issuer}#{}", utf8_percent_encode(name, FRAGMENT))
}

/// The id of a user or a group as callers have it, where somebody wrote it in another
/// way, such as without encoding what stands behind `#`.
pub fn respelled(id: &str) -> Option<String> {
    let (issuer, name) = id.split_once('#')?;
    let meant = percent_decode_str(name).decode_utf8().unwrap_or(name.into());
    let spelled = qualified(issuer, &meant);
    (spelled != id).then_some(spelled)
}

/// The claims as policy sees them, and one of which it does not see all.
fn tags(claims: &Map<String, Value>) -> Result<Tags> {
    let mut tags = Tags { tags: BTreeMap::new(), left: MAX_VALUES, unseen: None };
    for (name, value) in claims {
        // What begins so is the pointer of a claim within a claim.
        if name.starts_with('/') {
            tags.unseen.get_or_insert_with(|| name.clone());
        } else {
            tags.add(name.clone(), value, MAX_DEPTH);
        }
    }
    if tags.left == 0 {
        return Err(unacceptable("it has too many claims"));
    }
    Ok(tags)
}

struct Tags {
    tags: BTreeMap<String, BTreeSet<String>>,
    left: usize,
    /// A claim of which something is left out.
    unseen: Option<String>,
}

impl Tags {
    /// Adds a claim by its name, or by its pointer where it is one within another.
    fn add(&mut self, name: String, value: &Value, depth: usize) {
        match value {
            Value::Object(inner) if depth > 0 => {
                let path = if depth == MAX_DEPTH { pointer("", &name) } else { name };
                for (key, value) in inner {
                    self.add(pointer(&path, key), value, depth - 1);
                }
            }
            Value::Array(values) => {
                let found: BTreeSet<_> = values.iter().filter_map(scalar).take(self.left).collect();
                if values.iter().any(|value| scalar(value).is_none()) {
                    self.unseen.get_or_insert_with(|| name.clone());
                }
                self.left = self.left.saturating_sub(found.len().max(1));
                self.tags.insert(name, found);
            }
            // As if it was not there.
            Value::Null => {}
            value => match scalar(value) {
                Some(text) => {
                    self.left = self.left.saturating_sub(1);
                    self.tags.insert(name, [text].into());
                }
                None => {
                    self.unseen.get_or_insert(name);
                }
            },
        }
    }
}

/// RFC 6901.
fn pointer(path: &str, key: &str) -> String {
    format!("{path}/{}", key.replace('~', "~0").replace('/', "~1"))
}

#[cfg(test)]
pub(crate) mod tests;
