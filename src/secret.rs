//! A wrapper for values that must not leak.

use std::borrow::Borrow;
use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use subtle::ConstantTimeEq;
use zeroize::Zeroize;

/// A value that is wiped when dropped and that no formatting shows.
///
/// There is no `Display`, no `Serialize` (but [`bare`], for single fields), no `PartialEq` and no `Deref`: whoever
/// needs the value says so with [`Secret::expose`], which makes each such place
/// easy to find and to review.
#[derive(Clone)]
pub struct Secret<T: Zeroize>(T);

impl<T: Zeroize> Secret<T> {
    /// Takes a value into custody.
    pub fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. The caller takes care that it goes nowhere else.
    pub fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: Zeroize> Secret<T> {
    /// The value itself, to be filled or changed where it is.
    pub fn expose_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Zeroize + AsRef<[u8]>> Secret<T> {
    /// Compares in time that depends on the lengths only.
    pub fn ct_eq(&self, other: impl AsRef<[u8]>) -> bool {
        self.0.as_ref().ct_eq(other.as_ref()).into()
    }
}

impl<T: Zeroize> Drop for Secret<T> {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl<T: Zeroize> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(redacted)")
    }
}

impl<T: Zeroize> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<'de, T: Zeroize + Deserialize<'de>> Deserialize<'de> for Secret<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self)
    }
}

/// Writes a secret down, where its field says so (`#[serde(serialize_with = …)]`): as a part of
/// what is a secret itself, such as what rests in a keyring.
pub fn bare<S: Serializer>(secret: &Secret<String>, serializer: S) -> Result<S::Ok, S::Error> {
    secret.expose().serialize(serializer)
}

/// The same, where there may be one.
pub fn bare_option<S: Serializer>(
    secret: &Option<impl Borrow<Secret<String>>>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    secret.as_ref().map(|secret| secret.borrow().expose()).serialize(serializer)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_shows_nothing_of_the_value() {
        let secret = Secret::new(String::from("hunter2"));
        assert_eq!(format!("{secret:?}"), "Secret(redacted)");
        assert_eq!(format!("{:?}", Some(&secret)), "Some(Secret(redacted))");
    }

    #[test]
    fn only_a_field_that_says_so_writes_a_secret_down() {
        #[derive(Serialize)]
        struct Resting<'a> {
            #[serde(serialize_with = "bare")]
            one: Secret<String>,
            #[serde(serialize_with = "bare_option")]
            other: Option<&'a Secret<String>>,
            #[serde(serialize_with = "bare_option")]
            none: Option<Secret<String>>,
        }
        let secret = Secret::new(String::from("hunter2"));
        let resting = Resting { one: secret.clone(), other: Some(&secret), none: None };
        let written = serde_json::to_string(&resting).unwrap();
        assert_eq!(written, r#"{"one":"hunter2","other":"hunter2","none":null}"#);
    }

    #[test]
    fn comparison_tells_equal_from_different() {
        let secret = Secret::new(String::from("abc"));
        assert!(secret.ct_eq("abc"));
        assert!(!secret.ct_eq("abd"));
        assert!(!secret.ct_eq("ab"));
    }
}
