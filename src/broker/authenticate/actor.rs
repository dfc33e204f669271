//! Those who act for a caller (RFC 8693 section 4).

use serde_json::{Map, Value};

use super::caller::qualified;
use super::{Caller, unacceptable};
use crate::credential::Principal;
use crate::error::{Result, foreign};

/// How many may act one for the other.
pub const MAX_ACTORS: usize = 4;

/// How long a name in `act` and `may_act` may be, in bytes.
const MAX_NAME: usize = 1024;

/// How many members `may_act` may have.
const MAX_MEMBERS: usize = 8;

/// Claims that name nobody: in `may_act` they mean nothing, and are not used (RFC 8693 section
/// 4.4). What is not known might name somebody, so it counts.
const NO_IDENTITY: [&str; 5] = ["exp", "nbf", "iat", "aud", "jti"];

/// Somebody who acts for another.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Actor {
    principal: Principal,
    id: String,
}

impl Actor {
    fn new(principal: Principal) -> Self {
        Self { id: qualified(&principal.issuer, &principal.subject), principal }
    }

    /// Issuer and subject.
    pub fn principal(&self) -> &Principal {
        &self.principal
    }

    /// The same as one text, formed like [`Caller::id`].
    pub fn id(&self) -> &str {
        &self.id
    }
}

/// Who may become the actor of a token's subject: every member of the claim `may_act`
/// that names somebody has to be in the actor's own token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MayAct(Map<String, Value>);

impl MayAct {
    /// The claim, with the issuer in it.
    pub fn claim(&self) -> Value {
        Value::Object(self.0.clone())
    }

    /// Reads the claim of a token of this issuer, which counts where it names none.
    pub(in crate::broker) fn read(
        claims: &Map<String, Value>,
        issuer: &str,
    ) -> Result<Option<Self>> {
        let Some(claim) = claims.get("may_act").filter(|claim| !claim.is_null()) else {
            return Ok(None);
        };
        let refused = || unacceptable("its claim 'may_act' does not say who");
        let mut members = claim.as_object().cloned().ok_or_else(refused)?;
        members.retain(|name, _| !NO_IDENTITY.contains(&name.as_str()));
        members.entry("iss").or_insert_with(|| issuer.into());
        let is_short = |value: &Value| value.as_str().is_none_or(|text| text.len() <= MAX_NAME);
        let names = members.contains_key("sub") || members.contains_key("client_id");
        let is_simple = |value: &Value| !value.is_object() && !value.is_array() && !value.is_null();
        let mut values = members.values();
        if !names || members.len() > MAX_MEMBERS || !values.all(|v| is_simple(v) && is_short(v)) {
            return Err(refused());
        }
        Ok(Some(Self(members)))
    }

    /// Looks whether this actor may be the one.
    pub(super) fn admit(&self, actor: &Map<String, Value>) -> Result<()> {
        match self.0.iter().find(|(name, wanted)| actor.get(*name) != Some(wanted)) {
            Some((name, _)) => Err(unacceptable(format!(
                "its claim 'may_act' lets somebody else act, by '{}'",
                foreign(name)
            ))),
            None => Ok(()),
        }
    }
}

/// Reads the claim `act`: the one who acts now first, then those before them.
///
/// An issuer can only speak for its own users; the broker, by its own tokens, for those
/// that it has seen itself (`any_issuer`).
pub(in crate::broker) fn chain(
    claims: &Map<String, Value>,
    issuer: &str,
    any_issuer: bool,
) -> Result<Vec<Actor>> {
    let refused = |why: &str| unacceptable(format!("its claim 'act' {why}"));
    let mut actors = Vec::new();
    let mut next = claims.get("act").filter(|act| !act.is_null());
    while let Some(act) = next {
        let act = act.as_object().ok_or_else(|| refused("is not an object"))?;
        if actors.len() == MAX_ACTORS {
            return Err(refused(&format!("names more than {MAX_ACTORS}")));
        }
        let named = act.get("iss").map_or(Some(issuer), Value::as_str);
        let subject = act.get("sub").and_then(Value::as_str).filter(|sub| !sub.is_empty());
        let (Some(named), Some(subject)) = (named, subject) else {
            return Err(refused("does not say who"));
        };
        if named != issuer && !any_issuer {
            return Err(refused("names somebody of another issuer"));
        }
        if named.len() > MAX_NAME || subject.len() > MAX_NAME {
            return Err(refused(&format!("has a name longer than {MAX_NAME} bytes")));
        }
        actors.push(Actor::new(Principal { issuer: named.into(), subject: subject.into() }));
        next = act.get("act").filter(|act| !act.is_null());
    }
    Ok(actors)
}

/// The claim `act` that names these (RFC 8693 section 4.1).
pub(in crate::broker) fn claim(actors: &[Actor]) -> Option<Value> {
    actors.iter().rev().fold(None, |before, actor| {
        let mut act = Map::new();
        act.insert("iss".into(), actor.principal.issuer.as_str().into());
        act.insert("sub".into(), actor.principal.subject.as_str().into());
        if let Some(before) = before {
            act.insert("act".into(), before);
        }
        Some(Value::Object(act))
    })
}

impl Caller {
    /// The same caller, for whom somebody else acts who proved who they are.
    ///
    /// # Errors
    /// Where the caller's token lets only others act, the actor acts for somebody
    /// already, or too many act one for the other.
    pub(in crate::broker) fn acted_for_by(mut self, actor: Self) -> Result<Self> {
        if !actor.actors.is_empty() {
            return Err(unacceptable("it is of somebody who acts for another"));
        }
        if let Some(may_act) = &self.may_act {
            may_act.admit(&actor.claims)?;
        }
        let new = Actor::new(actor.principal.clone());
        // Who shows again that they are the one is no other.
        if self.actors.first() != Some(&new) {
            self.actors.insert(0, new);
        }
        if self.actors.len() > MAX_ACTORS {
            return Err(unacceptable(format!("more than {MAX_ACTORS} act one for the other")));
        }
        self.actor = Some(Box::new(actor));
        Ok(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const A: &str = "https://a.example";

    fn names(claims: Value, any_issuer: bool) -> Result<Vec<String>> {
        let actors = chain(claims.as_object().unwrap(), A, any_issuer)?;
        Ok(actors.iter().map(|actor| actor.id().to_string()).collect())
    }

    #[test]
    fn who_acts_now_comes_first_and_the_claim_is_as_it_was() {
        let act = json!({"iss": A, "sub": "now", "act": {"iss": A, "sub": "before"}});
        let read = names(json!({"act": act}), false).unwrap();
        assert_eq!(read, ["https://a.example#now", "https://a.example#before"]);
        let actors = chain(json!({"act": act}).as_object().unwrap(), A, false).unwrap();
        assert_eq!(claim(&actors).unwrap(), act);
        assert_eq!(claim(&[]), None);
        // Without an issuer it is somebody of the same one.
        assert_eq!(names(json!({"act": {"sub": "x"}}), false).unwrap(), ["https://a.example#x"]);
        assert!(names(json!({"act": null}), false).unwrap().is_empty());
    }

    #[test]
    fn those_of_the_rfc() {
        const VECTORS: &str = include_str!("../../../tests/vectors/rfc8693.json");
        let vectors: Value = serde_json::from_str(VECTORS).unwrap();
        let of = |kind: &str| vectors[kind].as_array().unwrap().clone();
        let issuer = |claims: &Value| claims["iss"].as_str().unwrap().to_string();
        for vector in of("act") {
            let mut claims = vector["claims"].clone();
            let subjects = |claims: &Value| -> Vec<String> {
                let actors = chain(claims.as_object().unwrap(), &issuer(claims), false).unwrap();
                actors.into_iter().map(|actor| actor.principal.subject).collect()
            };
            assert_eq!(json!(subjects(&claims)), vector["actors"], "{vector}");
            // Section 4.1: what names nobody means nothing there.
            for name in ["exp", "nbf", "aud"] {
                claims["act"][name] = json!(0);
            }
            assert_eq!(json!(subjects(&claims)), vector["actors"], "{vector}");
        }
        for vector in of("may_act") {
            let (claims, actor) = (&vector["claims"], &vector["actor"]);
            let may_act = MayAct::read(claims.as_object().unwrap(), &issuer(claims)).unwrap();
            let may_act = may_act.unwrap();
            may_act.admit(actor.as_object().unwrap()).unwrap();
            // Section 4.4: what names nobody means nothing there.
            let mut claims = claims.clone();
            for name in NO_IDENTITY {
                claims["may_act"][name] = json!(["0"]);
            }
            let more = MayAct::read(claims.as_object().unwrap(), &issuer(&claims)).unwrap();
            assert_eq!(more.as_ref(), Some(&may_act), "nor is it handed on: {vector}");
            assert!(may_act.admit(claims.as_object().unwrap()).is_err(), "{vector}");
        }
    }

    #[test]
    fn a_claim_that_does_not_say_who_is_refused() {
        let deep = |levels| {
            (0..levels).fold(json!(null), |act, n| json!({"sub": format!("{n}"), "act": act}))
        };
        assert_eq!(names(json!({"act": deep(MAX_ACTORS)}), false).unwrap().len(), MAX_ACTORS);
        for act in [
            json!("x"),
            json!({}),
            json!({"sub": 7}),
            json!({"sub": ""}),
            json!({"sub": "x", "iss": 7}),
            json!({"sub": "x", "act": "y"}),
            json!({"sub": "x".repeat(MAX_NAME + 1)}),
            deep(MAX_ACTORS + 1),
        ] {
            assert!(names(json!({ "act": act }), true).is_err(), "{act}");
        }
        let foreign = json!({"act": {"sub": "x", "iss": "https://b.example"}});
        assert!(names(foreign.clone(), false).is_err());
        assert_eq!(names(foreign, true).unwrap(), ["https://b.example#x"]);
    }

    #[test]
    fn only_who_is_all_that_may_act_says_may_act() {
        let read =
            |may_act: Value| MayAct::read(json!({ "may_act": may_act }).as_object().unwrap(), A);
        let admits = |may_act: Value, actor: Value| {
            read(may_act).unwrap().unwrap().admit(actor.as_object().unwrap()).is_ok()
        };
        let bot = json!({"iss": A, "sub": "bot", "client_id": "c", "aud": ["x"]});
        assert!(admits(json!({"sub": "bot"}), bot.clone()));
        assert!(admits(json!({"sub": "bot", "iss": A, "client_id": "c"}), bot.clone()));
        assert!(admits(json!({"client_id": "c"}), bot.clone()));
        assert!(!admits(json!({"sub": "other"}), bot.clone()));
        assert!(!admits(json!({"sub": "bot", "iss": "https://b.example"}), bot.clone()));
        assert!(!admits(json!({"sub": "bot", "email": "b@example.com"}), bot.clone()));
        // What names nobody is not compared; what nobody knows is.
        let past = json!({"sub": "bot", "exp": 1, "nbf": "x", "iat": {}, "aud": [], "jti": null});
        assert!(admits(past, bot.clone()));
        assert!(!admits(json!({"sub": "bot", "expires": 1}), bot));
        let nobody = json!({"aud": ["x"], "jti": "1"});
        for wrong in [json!("bot"), json!({}), json!({"iss": A}), json!({"sub": ["bot"]}), nobody] {
            assert!(read(wrong.clone()).is_err(), "{wrong}");
        }
        assert!(read(json!(null)).unwrap().is_none());
    }
}
