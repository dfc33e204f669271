//! Reads typed values from the tree, with errors that know what they are about
//! and where it was written.

use std::fmt;

use serde::de::value::BorrowedStrDeserializer;
use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, Expected, IntoDeserializer, Unexpected,
    Visitor,
};
use serde::forward_to_deserialize_any;

use super::diagnostic::{MAX_PROBLEMS, Problem, nearest};
use super::mistake::{self, Mistake, Step, What};
use super::source::Origin;
use super::tree::{Entry, Node, Table, Value};

/// Reads a whole tree. Reading goes on after an error, without the entry that
/// was wrong, so that several errors are told at once.
pub(super) fn decode<T: DeserializeOwned>(root: &Node) -> Result<T, Vec<Problem>> {
    let mut problems = Vec::new();
    let mut skipped: Vec<Vec<Step>> = Vec::new();
    loop {
        let skip: Vec<&Origin> = skipped.iter().filter_map(|trail| trail[0].key()).collect();
        let error = match T::deserialize(Reader { node: root, skip: &skip }) {
            Ok(value) if problems.is_empty() => return Ok(value),
            Ok(_) => return Err(problems),
            Err(error) => *error.0,
        };
        // That an entry is missing is no news where it was left out above, or has
        // a wrong name.
        let echo = matches!(&error.what, What::Missing { field, .. } if skipped
            .iter()
            .any(|trail| trail[0].is_about(field) && trail[1..] == error.trail[..]));
        // Where the error lies in an array, the entry that holds the array is left out.
        let entry = error.trail.iter().position(|step| step.key().is_some());
        let next = entry.map(|at| error.trail[at..].to_vec());
        if !echo {
            problems.push(error.describe());
        }
        match next {
            Some(next) if !skipped.contains(&next) && problems.len() < MAX_PROBLEMS => {
                skipped.push(next);
            }
            _ => return Err(problems),
        }
    }
}

/// Why a value could not be read.
#[derive(Debug)]
pub(super) struct Error(Box<Mistake>);

impl Error {
    fn new(what: What) -> Self {
        Self(Box::new(Mistake { what, origin: None, trail: Vec::new() }))
    }

    /// Notes the value that was being read, unless something inside it was noted.
    fn at(mut self, node: &Node) -> Self {
        if self.0.origin.is_some() {
            return self;
        }
        // Serde looks at the keys of some tables only after it has read them whole.
        if let (What::UnknownKey { key, .. }, Some(table)) = (&self.0.what, node.as_table())
            && let Some(entry) = table.get(key)
        {
            let key = key.clone();
            return self.at_key(&key, entry);
        }
        if let (What::Missing { field, near }, Some(table)) = (&mut self.0.what, node.as_table()) {
            *near = table.keys().find(|key| nearest(key, [*field]).is_some()).cloned();
        }
        self.0.origin = Some(node.origin.clone());
        self
    }

    fn at_key(mut self, name: &str, entry: &Entry) -> Self {
        if self.0.origin.is_none() {
            self.0.origin = Some(entry.key.clone());
            if let What::UnknownKey { table, .. } = &mut self.0.what {
                *table = entry.node.as_table().is_some();
            }
        }
        self.within(Step::Key(name.into(), entry.key.clone()))
    }

    fn within(mut self, step: Step) -> Self {
        self.0.trail.push(step);
        self
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0.what)
    }
}

impl std::error::Error for Error {}

impl de::Error for Error {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self::new(What::Custom(message.to_string()))
    }

    fn unknown_field(field: &str, expected: &'static [&'static str]) -> Self {
        Self::new(What::UnknownKey { key: field.into(), known: expected, table: false })
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        Self::new(What::UnknownVariant { found: variant.into(), known: expected })
    }

    fn missing_field(field: &'static str) -> Self {
        Self::new(What::Missing { field, near: None })
    }

    fn invalid_type(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::new(What::Invalid {
            found: mistake::found(found),
            expected: mistake::expected(&expected.to_string()),
        })
    }

    fn invalid_value(found: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::invalid_type(found, expected)
    }

    fn invalid_length(found: usize, expected: &dyn Expected) -> Self {
        Self::new(What::Length { found, expected: mistake::expected(&expected.to_string()) })
    }
}

/// Reads one node. Entries whose key is in `skip` count as absent.
#[derive(Clone, Copy)]
struct Reader<'de, 's> {
    node: &'de Node,
    skip: &'s [&'s Origin],
}

impl<'de> Reader<'de, '_> {
    fn read<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match &self.node.value {
            Value::String(text) => visitor.visit_borrowed_str(text),
            Value::Integer(number) => match (i64::try_from(*number), u64::try_from(*number)) {
                (Ok(number), _) => visitor.visit_i64(number),
                (_, Ok(number)) => visitor.visit_u64(number),
                _ => visitor.visit_i128(*number),
            },
            Value::Float(number) => visitor.visit_f64(*number),
            Value::Boolean(yes) => visitor.visit_bool(*yes),
            Value::Datetime => {
                Err(de::Error::invalid_type(Unexpected::Other("a date or time"), &visitor))
            }
            Value::Array(items) => {
                let mut items =
                    Items { rest: items.iter().enumerate(), all: items.len(), skip: self.skip };
                let value = visitor.visit_seq(&mut items)?;
                match items.rest.len() {
                    0 => Ok(value),
                    left => {
                        let wanted = format!("{} items", items.all - left);
                        Err(de::Error::invalid_length(items.all, &wanted.as_str()))
                    }
                }
            }
            Value::Table(table) => visitor.visit_map(Entries::new(table, self.skip)),
        }
    }
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.read(visitor).map_err(|error| error.at(self.node))
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self).map_err(|error| error.at(self.node))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        let result = match &self.node.value {
            Value::String(text) => {
                visitor.visit_enum(IntoDeserializer::<Error>::into_deserializer(text.as_str()))
            }
            Value::Table(table) if table.len() == 1 => visitor
                .visit_enum(de::value::MapAccessDeserializer::new(Entries::new(table, self.skip))),
            _ => return self.deserialize_any(visitor),
        };
        result.map_err(|error| error.at(self.node))
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        _fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        // Serde would read the fields one by one from an array, too.
        if let Value::Array(_) = &self.node.value {
            let error: Error = de::Error::invalid_type(Unexpected::Seq, &visitor);
            return Err(error.at(self.node));
        }
        self.deserialize_any(visitor)
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map identifier ignored_any
    }
}

struct Items<'de, 's> {
    rest: std::iter::Enumerate<std::slice::Iter<'de, Node>>,
    all: usize,
    skip: &'s [&'s Origin],
}

impl<'de> de::SeqAccess<'de> for &mut Items<'de, '_> {
    type Error = Error;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Error> {
        let Some((index, node)) = self.rest.next() else { return Ok(None) };
        seed.deserialize(Reader { node, skip: self.skip })
            .map(Some)
            .map_err(|error| error.at(node).within(Step::Item(index)))
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.rest.len())
    }
}

/// The entries of a table, `type` first, so that a table can be read by its type.
struct Entries<'de, 's> {
    first: Option<(&'de str, &'de Entry)>,
    rest: std::collections::btree_map::Iter<'de, String, Entry>,
    value: Option<(&'de str, &'de Entry)>,
    skip: &'s [&'s Origin],
}

impl<'de, 's> Entries<'de, 's> {
    fn new(table: &'de Table, skip: &'s [&'s Origin]) -> Self {
        let first = table.get_key_value(TYPE).map(|(name, entry)| (name.as_str(), entry));
        Self { first, rest: table.iter(), value: None, skip }
    }

    fn advance(&mut self) -> Option<(&'de str, &'de Entry)> {
        let wanted = |(_, entry): &(&str, &Entry)| !self.skip.contains(&&entry.key);
        if let Some(first) = self.first.take().filter(wanted) {
            return Some(first);
        }
        self.rest
            .by_ref()
            .filter(|(name, _)| *name != TYPE)
            .map(|(name, entry)| (name.as_str(), entry))
            .find(wanted)
    }
}

impl<'de> de::MapAccess<'de> for Entries<'de, '_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(
        &mut self,
        seed: K,
    ) -> Result<Option<K::Value>, Error> {
        let Some((name, entry)) = self.advance() else { return Ok(None) };
        self.value = Some((name, entry));
        seed.deserialize(BorrowedStrDeserializer::new(name))
            .map(Some)
            .map_err(|error: Error| error.at_key(name, entry))
    }

    fn next_value_seed<V: DeserializeSeed<'de>>(&mut self, seed: V) -> Result<V::Value, Error> {
        let Some((name, entry)) = self.value.take() else {
            return Err(de::Error::custom("a value was read before its key"));
        };
        seed.deserialize(Reader { node: &entry.node, skip: self.skip })
            .map_err(|error| error.at(&entry.node).at_key(name, entry))
    }
}

/// The key that tells what kind of thing a table describes.
pub(super) const TYPE: &str = "type";
