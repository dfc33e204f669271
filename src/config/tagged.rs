//! Tables that their `type` tells apart, such as `[identity.NAME]`.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::value::{MapAccessDeserializer, StringDeserializer};
use serde::de::{self, Deserialize, DeserializeSeed, Deserializer, MapAccess, Visitor};
use serde_json::Value;

use super::de::TYPE;
use crate::{identity, mint};

/// A list of kinds, one of which a table's `type` names.
pub(super) trait Kinds: Sized {
    /// The names of all kinds.
    const KINDS: &'static [&'static str];
    /// The kind of a table without a `type`; `None` where it must have one.
    const DEFAULT: Option<&'static str>;

    /// Reads the settings of this kind; `None` where there is no such kind.
    fn read<'de, D: Deserializer<'de>>(kind: &str, table: D) -> Option<Result<Self, D::Error>>;
}

impl Kinds for identity::Settings {
    const KINDS: &'static [&'static str] = identity::KINDS;
    const DEFAULT: Option<&'static str> = None;

    fn read<'de, D: Deserializer<'de>>(kind: &str, table: D) -> Option<Result<Self, D::Error>> {
        Self::from_kind(kind, table)
    }
}

impl Kinds for mint::Settings {
    const KINDS: &'static [&'static str] = mint::KINDS;
    const DEFAULT: Option<&'static str> = Some("broker");

    fn read<'de, D: Deserializer<'de>>(kind: &str, table: D) -> Option<Result<Self, D::Error>> {
        Self::from_kind(kind, table)
    }
}

/// Settings that are read by the `type` of their table. It must be the table's
/// first entry, as the tree has it, so that nothing is buffered and errors keep
/// their place.
#[derive(Clone, Debug, PartialEq)]
pub struct Tagged<T>(
    /// The settings.
    pub T,
);

impl<'de, T: Kinds> Deserialize<'de> for Tagged<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TaggedVisitor(PhantomData)).map(Self)
    }
}

struct TaggedVisitor<T>(PhantomData<T>);

impl<'de, T: Kinds> Visitor<'de> for TaggedVisitor<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let first = map.next_key::<String>()?;
        let (kind, first) = match (first, T::DEFAULT) {
            (Some(key), _) if key == TYPE => (map.next_value_seed(KindName(T::KINDS))?, None),
            (first, Some(kind)) => (kind, first),
            (_, None) => return Err(de::Error::missing_field(TYPE)),
        };
        T::read(kind, MapAccessDeserializer::new(Rest { first, map }))
            .unwrap_or_else(|| Err(de::Error::unknown_variant(kind, T::KINDS)))
    }
}

/// Reads one of these names.
struct KindName(&'static [&'static str]);

impl<'de> DeserializeSeed<'de> for KindName {
    type Value = &'static str;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<&'static str, D::Error> {
        let name = String::deserialize(deserializer)?;
        let known = self.0.iter().copied().find(|kind| *kind == name);
        known.ok_or_else(|| de::Error::unknown_variant(&name, self.0))
    }
}

/// A table whose first key was read already.
struct Rest<A> {
    first: Option<String>,
    map: A,
}

impl<'de, A: MapAccess<'de>> MapAccess<'de> for Rest<A> {
    type Error = A::Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, A::Error> {
        match self.first.take() {
            Some(key) => seed.deserialize(StringDeserializer::new(key)).map(Some),
            None => self.map.next_key_seed(seed),
        }
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, A::Error> {
        self.map.next_value_seed(seed)
    }
}

impl<T: Kinds + JsonSchema> JsonSchema for Tagged<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut schema = T::json_schema(generator).to_value();
        if let Some(default) = T::DEFAULT {
            make_optional(&mut schema, default);
        }
        // It was a schema a moment ago, and what was taken out cannot change that.
        Schema::try_from(schema).unwrap_or_default()
    }
}

/// Lets tables of this kind leave their `type` out.
fn make_optional(schema: &mut Value, kind: &str) {
    let constant = schema.pointer("/properties/type/const").and_then(Value::as_str);
    if constant == Some(kind)
        && let Some(required) = schema.get_mut("required").and_then(Value::as_array_mut)
    {
        required.retain(|name| name != TYPE);
    }
    for list in ["oneOf", "anyOf"] {
        if let Some(Value::Array(variants)) = schema.get_mut(list) {
            variants.iter_mut().for_each(|variant| make_optional(variant, kind));
        }
    }
}
