//! The way out `credential-process`: AWS credentials, as the AWS SDKs and the AWS
//! CLI take them from a program that their configuration names
//! (<https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>).

use serde::Serialize;
use zeroize::Zeroizing;

use super::rfc3339;
use super::text::Text;
use crate::credential::{Credential, Material};
use crate::error::{Error, ErrorKind, Result};
use crate::secret::Secret;

/// How much lifetime must be left for botocore not to ask again at once.
pub const ASKED_AGAIN: std::time::Duration = std::time::Duration::from_secs(15 * 60);

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Answer<'a> {
    version: u8,
    access_key_id: &'a str,
    secret_access_key: &'a str,
    session_token: &'a str,
    expiration: &'a str,
}

/// The answer, version 1, in one line.
///
/// # Errors
///
/// A credential that is not for AWS.
pub fn answer(credential: &Credential) -> Result<Secret<String>> {
    let Material::Aws { access_key_id, secret_access_key, session_token, .. } =
        &credential.material
    else {
        return Err(not_aws(OF_AWS));
    };
    let answer = Answer {
        version: 1,
        access_key_id: access_key_id.expose(),
        secret_access_key: secret_access_key.expose(),
        session_token: session_token.expose(),
        expiration: &rfc3339(credential.lifetime.expires_at_local())?,
    };
    let json = serde_json::to_string(&answer).map(Zeroizing::new).map_err(|cause| {
        Error::new(ErrorKind::Other, "the credentials cannot be written down").because(cause)
    })?;
    let mut text = Text::default();
    text.push_str(&json);
    text.push('\n');
    Ok(text.into_secret())
}

/// Why no other credential will do here.
pub const OF_AWS: &str =
    "AWS SDKs take credentials of AWS from `credential_process`, and no others";

/// The error for a credential of another kind; with why this takes one of AWS.
pub fn not_aws(why: &str) -> Error {
    Error::new(ErrorKind::Usage, "the profile's credential is not for AWS")
        .because_of(why)
        .hint("name a profile whose target has `type = \"aws\"`; for a token, use `tmpcred token`")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{aws, bearer};
    use super::*;

    #[test]
    fn it_is_what_the_sdks_expect() {
        let answer = answer(&aws(Some("eu-central-1"))).unwrap();
        let expected = concat!(
            r#"{"Version":1,"AccessKeyId":"canary-id","SecretAccessKey":"canary-key","#,
            r#""SessionToken":"canary-token","Expiration":"2026-01-01T12:15:00Z"}"#,
            "\n"
        );
        assert_eq!(answer.expose(), expected);
    }

    #[test]
    fn a_bearer_token_is_refused_without_showing_it() {
        let error = answer(&bearer("canary")).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(!format!("{error:?}").contains("canary"));
    }
}
