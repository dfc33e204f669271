//! The way out `token`: the bare secret, for whatever reads it from a pipe.

use super::text::Text;
use crate::credential::Credential;
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// The secret and the end of the line, ready to be [printed](super::print()).
///
/// # Errors
///
/// A credential that is no token; a secret that is more than one line, or has a control character that would
/// tell a reader something else than the secret.
pub fn line(credential: &Credential) -> Result<Secret<String>> {
    let secret = credential.material.token().ok_or_else(no_token)?.expose();
    if secret.chars().any(char::is_control) {
        return Err(Error::new(ErrorKind::Other, "the token cannot be printed")
            .because_of("it has a line break or another control character"));
    }
    let mut text = Text::default();
    text.push_str(secret);
    text.push('\n');
    Ok(text.into_secret())
}

/// The error for a credential of several parts that are good only together.
pub fn no_token() -> Error {
    Error::new(ErrorKind::Usage, "the profile's credential is no token")
        .because_of("credentials of AWS are three values that belong together")
        .hint(
            "use `tmpcred exec` or `tmpcred env`; for an AWS profile, `tmpcred credential-process`",
        )
}

#[cfg(test)]
mod tests {
    use super::super::tests::{aws, bearer};
    use super::*;

    #[test]
    fn it_is_the_secret_and_nothing_else() {
        assert_eq!(line(&bearer("a b.c=é")).unwrap().expose(), "a b.c=é\n");
    }

    #[test]
    fn what_is_no_token_is_refused_with_a_way_out() {
        let error = line(&aws(None)).unwrap_err();
        assert!(error.hints()[0].contains("tmpcred exec"), "{error:?}");
        assert!(!format!("{error:?}").contains("canary"));
    }

    #[test]
    fn what_is_more_than_a_line_is_refused_without_showing_it() {
        for bad in ["canary\nx", "canary\r", "canary\0", "canary\u{1b}[2J", "canary\u{85}"] {
            let error = line(&bearer(bad)).unwrap_err();
            assert!(!format!("{error:?}").contains("canary"));
        }
    }
}
