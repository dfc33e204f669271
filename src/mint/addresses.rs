//! The addresses of one broker.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};

use crate::oidc::Issuer;

/// More than these nobody would wait for.
const MOST: usize = 8;

/// The addresses at which one broker is found, in the order in which they are
/// tried. There is at least one, and none is there twice.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Addresses {
    first: Issuer,
    others: Vec<Issuer>,
}

impl Addresses {
    /// The one that is tried first.
    pub fn first(&self) -> &Issuer {
        &self.first
    }

    /// All of them, in their order.
    pub fn iter(&self) -> impl Iterator<Item = &Issuer> {
        std::iter::once(&self.first).chain(&self.others)
    }
}

impl From<Issuer> for Addresses {
    fn from(first: Issuer) -> Self {
        Self { first, others: Vec::new() }
    }
}

impl fmt::Display for Addresses {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.first.fmt(f)?;
        self.others.iter().try_for_each(|other| write!(f, ", {other}"))
    }
}

impl<'de> Deserialize<'de> for Addresses {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(AddressesVisitor)
    }
}

struct AddressesVisitor;

impl<'de> Visitor<'de> for AddressesVisitor {
    type Value = Addresses;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a string or an array of strings")
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Addresses, E> {
        Issuer::parse(text).map(Addresses::from).map_err(E::custom)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Addresses, A::Error> {
        let Some(first) = list.next_element()? else {
            return Err(de::Error::custom("a broker has at least one address"));
        };
        let mut addresses = Addresses { first, others: Vec::new() };
        while let Some(next) = list.next_element::<Issuer>()? {
            // One of them with a slash at its end is the same address.
            let plain = |issuer: &Issuer| issuer.url().as_str().trim_end_matches('/').to_string();
            if addresses.iter().any(|known| plain(known) == plain(&next)) {
                return Err(de::Error::custom(format!("the address '{next}' is there twice")));
            }
            addresses.others.push(next);
        }
        if addresses.iter().count() > MOST {
            return Err(de::Error::custom(format!("a broker has at most {MOST} addresses")));
        }
        Ok(addresses)
    }
}

impl JsonSchema for Addresses {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Addresses".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<Issuer>();
        json_schema!({
            "anyOf": [
                one,
                { "type": "array", "items": one, "minItems": 1, "maxItems": MOST, "uniqueItems": true },
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(value: &Value) -> Result<Addresses, String> {
        Addresses::deserialize(value).map_err(|error| error.to_string())
    }

    #[test]
    fn there_is_one_or_a_list() {
        let one = read(&json!("https://a.example")).unwrap();
        assert_eq!(one, read(&json!(["https://a.example"])).unwrap());
        assert_eq!(one.to_string(), "https://a.example");
        let two = read(&json!(["https://b.example/x", "https://a.example"])).unwrap();
        assert_eq!(two.first().as_str(), "https://b.example/x");
        assert_eq!(two.to_string(), "https://b.example/x, https://a.example");
    }

    #[test]
    fn a_list_that_means_nothing_is_refused() {
        let many: Vec<_> = (0..=MOST).map(|n| format!("https://b{n}.example")).collect();
        for (value, says) in [
            (json!([]), "at least one address"),
            (json!(["https://a.example", "https://a.example/"]), "is there twice"),
            (json!(["https://a.example", "http://b.example"]), "plain http"),
            (json!(["https://a.example", 1]), "invalid type"),
            (json!(1), "a string or an array of strings"),
            (json!(many), "at most 8"),
        ] {
            let error = read(&value).unwrap_err();
            assert!(error.contains(says), "{value}: {error}");
        }
    }
}
