//! The user's own files of AWS, as a command is to see them that gets its
//! credentials from an endpoint.
//!
//! SDKs ask the endpoint last. Were there keys, a role or a sign-in for the profile
//! `default`, they would take those, and the command would run as somebody else. So it
//! is shown copies without them. All else in there, such as other profiles that it names
//! itself, stays as it is, but for sections with long-lived keys: there shall be no second
//! place where those are in clear. The order is written down at
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.
//!
//! A copy cannot be written to: what a command put there would be lost with it, without a
//! word.

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::error::Result;
use crate::host::env::Env;
use crate::host::files;

/// Where settings are read from.
pub const CONFIG: &str = "AWS_CONFIG_FILE";
/// Where keys are read from.
pub const CREDENTIALS: &str = "AWS_SHARED_CREDENTIALS_FILE";

/// A larger file is left to the SDKs.
const MAX: u64 = 1024 * 1024;

/// The settings by which a profile yields a credential:
/// <https://docs.aws.amazon.com/sdkref/latest/guide/settings-reference.html>.
const YIELD: &[&str] = &[
    "aws_access_key_id",
    "aws_secret_access_key",
    "aws_session_token",
    "aws_security_token",
    "credential_process",
    "credential_source",
    "login_session",
    "role_arn",
    "source_profile",
    "sso_account_id",
    "sso_region",
    "sso_role_name",
    "sso_session",
    "sso_start_url",
    "web_identity_token_file",
];

/// Writes files into `dir` that stand in for the user's own, where those have a
/// credential for the profile `default`. Yields variables and paths.
///
/// # Errors
///
/// They cannot be written.
pub fn stand_ins(env: &Env, dir: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut written = Vec::new();
    for (variable, name) in [(CONFIG, "config"), (CREDENTIALS, "credentials")] {
        // What we cannot read, the command cannot either.
        let text = path(env, variable, name).and_then(|path| files::read_text(&path, MAX).ok());
        let Some(text) = text.flatten().map(Zeroizing::new) else { continue };
        if let Some(rest) = without_default(&text) {
            let path = dir.join(name);
            files::write_read_only(&path, without_keys(&rest).as_bytes())?;
            written.push((variable, path));
        }
    }
    Ok(written)
}

fn path(env: &Env, variable: &str, name: &str) -> Option<PathBuf> {
    let home = || env.get_os("HOME").map(PathBuf::from);
    match env.get_os(variable).map(PathBuf::from) {
        Some(path) => match path.strip_prefix("~") {
            Ok(rest) => Some(home()?.join(rest)),
            Err(_) => Some(path),
        },
        None => Some(home()?.join(".aws").join(name)),
    }
}

/// The text without the credential of the profile `default`; `None` where it has none.
fn without_default(text: &str) -> Option<Zeroizing<String>> {
    let mut rest = Zeroizing::new(String::with_capacity(text.len()));
    let (mut in_default, mut dropping) = (false, false);
    for line in text.split_inclusive('\n') {
        let indented = line.starts_with([' ', '\t']);
        if let Some(section) = section(line) {
            in_default = matches!(section.as_slice(), ["default"] | ["profile", "default"]);
            dropping = false;
        } else if !indented {
            let name = setting(line);
            dropping = in_default && YIELD.iter().any(|key| name.eq_ignore_ascii_case(key));
        }
        // What is indented belongs to the setting above.
        if !dropping {
            rest.push_str(line);
        }
    }
    (rest.len() < text.len()).then_some(rest)
}

/// The text without sections that have long-lived keys: a secret, and no token that ends.
fn without_keys(text: &str) -> Zeroizing<String> {
    let mut rest = Zeroizing::new(String::with_capacity(text.len()));
    let mut start = 0;
    let mut at = 0;
    let heads = text.split_inclusive('\n').filter_map(|line| {
        let from = at;
        at += line.len();
        section(line).map(|_| from)
    });
    let ends: Vec<usize> = heads.chain(std::iter::once(text.len())).collect();
    for end in ends {
        let part = &text[start..end];
        let has = |name: &str| part.lines().any(|line| setting(line).eq_ignore_ascii_case(name));
        let ends_by_itself = has("aws_session_token") || has("aws_security_token");
        if !has("aws_secret_access_key") || ends_by_itself {
            rest.push_str(part);
        }
        start = end;
    }
    rest
}

/// The name of the setting in a line.
fn setting(line: &str) -> &str {
    line.split(['=', ':']).next().unwrap_or_default().trim()
}

/// The words in the head of a section.
fn section(line: &str) -> Option<Vec<&str>> {
    let (head, _) = line.trim_start().strip_prefix('[')?.split_once(']')?;
    Some(head.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_credential_of_the_default_profile_is_taken_out() {
        let config = "# mine\n[default]\nregion = eu-west-1\nRole_Arn=arn:aws:iam::1:role/x\n\
            source_profile : base\ns3 =\n  addressing_style = path\ncredential_process =\n  /bin/x\n\
            output = json\n[profile base]\naws_access_key_id = AKIA\n";
        assert_eq!(
            without_default(config).unwrap().as_str(),
            "# mine\n[default]\nregion = eu-west-1\ns3 =\n  addressing_style = path\n\
             output = json\n[profile base]\naws_access_key_id = AKIA\n"
        );
        let quoted = "[ profile \"default\" ] # x\r\nsso_session = y\r\nregion = z\r\n";
        assert_eq!(
            without_default(quoted).unwrap().as_str(),
            "[ profile \"default\" ] # x\r\nregion = z\r\n"
        );
        assert!(without_default("[default]\nregion = x\n[other]\nrole_arn = y\n").is_none());
    }

    #[test]
    #[expect(clippy::disallowed_methods, reason = "a test of who may read the file")]
    fn files_stand_in_only_where_they_must() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().to_str().unwrap();
        files::write_private(&dir.path().join(".aws/config"), b"[default]\nregion = x\n").unwrap();
        let keys = b"[default]\naws_access_key_id = AKIA\naws_secret_access_key = canary\n\
            # those of others\n[other]\naws_access_key_id = B\nAWS_Secret_Access_Key = canary\n\
            [short]\naws_secret_access_key = s\naws_session_token = t\n[none]\nregion = x\n";
        files::write_private(&dir.path().join("keys"), keys).unwrap();
        let env = Env::from_pairs([("HOME", home), (CREDENTIALS, "~/keys")]);
        let out = dir.path().join("out");
        let written = stand_ins(&env, &out).unwrap();
        assert_eq!(written, [(CREDENTIALS, out.join("credentials"))]);
        let text = files::read_text(&out.join("credentials"), MAX).unwrap().unwrap();
        let expected = "[default]\n# those of others\n[short]\naws_secret_access_key = s\n\
            aws_session_token = t\n[none]\nregion = x\n";
        assert_eq!(text, expected);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let metadata = std::fs::metadata(out.join("credentials")).unwrap();
            assert_eq!(metadata.permissions().mode() & 0o777, 0o400);
        }
        // Once more, over the copy that nobody can write to.
        stand_ins(&env, &out).unwrap();
    }
}
