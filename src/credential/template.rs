//! Texts with places for parts of a credential, as a profile's `env` has them.

use std::fmt;

use zeroize::Zeroizing;

use crate::secret::Secret;

/// The parts that a template can name: those of some kind of credential, and
/// what labels all of them.
pub const PARTS: &[&str] = &[
    "token",
    "access_key_id",
    "secret_access_key",
    "session_token",
    "profile",
    "role",
    "expires_at",
    TOKEN_FILE_PART,
];

/// The part that is the path of a file with the current token, where a command's
/// token is renewed.
pub const TOKEN_FILE_PART: &str = "token_file";

/// A text with places for parts of a credential.
///
/// `{token}` stands for the part of that name, `{{` and `}}` for the braces themselves.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    Part(String),
}

/// What is wrong with a template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TemplateError {
    /// It names a part that no credential has.
    UnknownPart(String),
    /// A `{` has no `}`.
    Unclosed,
    /// A `}` has no `{`.
    Stray,
    /// It has a zero byte, which no environment variable can hold.
    Zero,
    /// The credential at hand has no such part.
    Absent(String),
}

impl fmt::Display for TemplateError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::UnknownPart(name) => {
                write!(f, "no credential has a part `{}`", name.escape_debug())
            }
            Self::Unclosed => f.write_str("a `{` is not closed; write `{{` for the brace itself"),
            Self::Stray => f.write_str("a `}` closes nothing; write `}}` for the brace itself"),
            Self::Zero => f.write_str("a variable cannot hold a zero byte"),
            Self::Absent(name) => write!(f, "this credential has no part `{name}`"),
        }
    }
}

impl std::error::Error for TemplateError {}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        if text.contains('\0') {
            return Err(TemplateError::Zero);
        }
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let (brace, after) = rest[at..].split_at(1);
            rest = if let Some(after) = after.strip_prefix(brace) {
                plain.push_str(brace);
                after
            } else if brace == "}" {
                return Err(TemplateError::Stray);
            } else {
                let (name, after) = after.split_once('}').ok_or(TemplateError::Unclosed)?;
                if !PARTS.contains(&name) {
                    return Err(TemplateError::UnknownPart(name.into()));
                }
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
                pieces.push(Piece::Part(name.into()));
                after
            };
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        Ok(Self(pieces))
    }

    /// The text with these parts in their places.
    pub fn fill(&self, parts: &[(&str, &str)]) -> Result<Secret<String>, TemplateError> {
        let mut pieces = Vec::new();
        for piece in &self.0 {
            pieces.push(match piece {
                Piece::Text(text) => text.as_str(),
                Piece::Part(name) => parts
                    .iter()
                    .find(|(part, _)| part == name)
                    .map(|(_, value)| *value)
                    .ok_or_else(|| TemplateError::Absent(name.clone()))?,
            });
        }
        // Allocated once: growing would leave copies of the secret behind.
        let mut filled =
            Zeroizing::new(String::with_capacity(pieces.iter().map(|piece| piece.len()).sum()));
        pieces.iter().for_each(|piece| filled.push_str(piece));
        Ok(Secret::new(std::mem::take(&mut *filled)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILLING: &[(&str, &str)] = &[("token", "t0k"), ("role", "deploy")];

    #[test]
    fn parts_are_put_in_their_places() {
        for (text, filled) in [
            ("{token}", "t0k"),
            ("Bearer {token}", "Bearer t0k"),
            ("{{{token}}}", "{t0k}"),
            ("{{token}}", "{token}"),
            ("{token}{token}é", "t0kt0ké"),
            ("{role}:{token}", "deploy:t0k"),
            ("plain", "plain"),
            ("", ""),
        ] {
            let template = Template::parse(text).unwrap();
            assert_eq!(template.fill(FILLING).unwrap().expose(), filled, "{text}");
        }
    }

    #[test]
    fn what_is_no_template_is_refused() {
        use TemplateError::{Stray, Unclosed, UnknownPart, Zero};
        for (text, error) in [
            ("{token", Unclosed),
            ("{", Unclosed),
            ("{{{", Unclosed),
            ("token}", Stray),
            ("}}}", Stray),
            ("{}", UnknownPart("".into())),
            ("{tokn}", UnknownPart("tokn".into())),
            ("a\0", Zero),
        ] {
            assert_eq!(Template::parse(text), Err(error), "{text}");
        }
    }

    #[test]
    fn every_part_of_a_credential_can_be_named() {
        let bearer = crate::credential::Material::Bearer { token: Secret::new("t0k".into()) };
        for (name, _) in bearer.parts() {
            assert!(PARTS.contains(&name), "{name}");
        }
        let absent = Template::parse("{profile}").unwrap().fill(FILLING).unwrap_err();
        assert_eq!(absent, TemplateError::Absent("profile".into()));
    }
}
