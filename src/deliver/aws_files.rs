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

use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::host::files;

/// Where settings are read from.
pub const CONFIG: &str = "AWS_CONFIG_FILE";
/// Where keys are read from.
pub const CREDENTIALS: &str = "AWS_SHARED_CREDENTIALS_FILE";

/// How large such a file may be, in bytes.
const MAX: u64 = 4 * 1024 * 1024;

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
/// One of the user's own is there and cannot be looked through, or they cannot be written.
pub fn stand_ins(env: &Env, dir: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut written = Vec::new();
    for (variable, name) in [(CONFIG, "config"), (CREDENTIALS, "credentials")] {
        let Some(path) = path(env, variable, name) else { continue };
        // What we are not let to, the command is not either.
        if files::is_withheld(&path) {
            continue;
        }
        let read = read(&path).map_err(|error| in_the_way(error, variable))?;
        let Some(rest) = read.and_then(|text| without_default(&text)) else { continue };
        let path = dir.join(name);
        files::write_read_only(&path, &without_keys(&rest))?;
        written.push((variable, path));
    }
    Ok(written)
}

fn path(env: &Env, variable: &str, name: &str) -> Option<PathBuf> {
    match env.get_os(variable).map(PathBuf::from) {
        Some(path) => match path.strip_prefix("~") {
            Ok(rest) => Some(env.home()?.join(rest)),
            Err(_) => Some(path),
        },
        None => Some(env.home()?.join(".aws").join(name)),
    }
}

fn read(path: &Path) -> Result<Option<Zeroizing<Vec<u8>>>> {
    let text = files::read(path, MAX)?.map(Zeroizing::new);
    // In UTF-16, which some editors write and some SDKs read, nothing would be found.
    match text {
        Some(text) if text.contains(&0) => {
            Err(Error::new(ErrorKind::Config, format!("{} is not a text file", path.display()))
                .because_of("it has zero bytes"))
        }
        text => Ok(text),
    }
}

/// That the command could get other credentials than those of this run.
fn in_the_way(error: Error, variable: &str) -> Error {
    let whose = "AWS SDKs might not use the credentials of this run";
    error.of_kind(ErrorKind::Config).context(whose).hint(format!(
        "mend that file, or name another one in {variable}; with `--on-renew restart` no such file is looked at"
    ))
}

/// Lines, each with its end, and as they are read. What is not in UTF-8 is no part of a name.
fn lines(text: &[u8]) -> impl Iterator<Item = (&[u8], Zeroizing<String>)> {
    let lines = text.split_inclusive(|byte| *byte == b'\n');
    lines.map(|line| (line, Zeroizing::new(String::from_utf8_lossy(line).into_owned())))
}

/// The text without the credential of the profile `default`; `None` where it has none.
fn without_default(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut rest = Zeroizing::new(Vec::with_capacity(text.len()));
    let (mut in_default, mut dropping) = (false, false);
    for (bytes, line) in lines(text) {
        let indented = line.starts_with([' ', '\t']);
        if let Some(section) = section(&line) {
            in_default = matches!(section.as_slice(), ["default"] | ["profile", "default"]);
            dropping = false;
        } else if !indented {
            let name = setting(&line);
            dropping = in_default && YIELD.iter().any(|key| name.eq_ignore_ascii_case(key));
        }
        // What is indented belongs to the setting above.
        if !dropping {
            rest.extend_from_slice(bytes);
        }
    }
    (rest.len() < text.len()).then_some(rest)
}

/// The text without sections that have long-lived keys: a secret, and no token that ends.
fn without_keys(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut rest = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut start = 0;
    let mut at = 0;
    let heads = lines(text).filter_map(|(bytes, line)| {
        let from = at;
        at += bytes.len();
        section(&line).map(|_| from)
    });
    let ends: Vec<usize> = heads.chain(std::iter::once(text.len())).collect();
    for end in ends {
        let part = &text[start..end];
        let has =
            |name: &str| lines(part).any(|(_, line)| setting(&line).eq_ignore_ascii_case(name));
        let ends_by_itself = has("aws_session_token") || has("aws_security_token");
        if !has("aws_secret_access_key") || ends_by_itself {
            rest.extend_from_slice(part);
        }
        start = end;
    }
    rest
}

/// The name of the setting in a line.
fn setting(line: &str) -> &str {
    line.split(['=', ':']).next().unwrap_or_default().trim()
}

/// The words in the head of a section. Some editors put a byte order mark before the first.
fn section(line: &str) -> Option<Vec<&str>> {
    let line = line.trim_start_matches('\u{feff}').trim_start();
    let (head, _) = line.strip_prefix('[')?.split_once(']')?;
    Some(head.split_whitespace().map(|word| word.trim_matches(['"', '\''])).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rest(text: &str) -> String {
        String::from_utf8(without_default(text.as_bytes()).unwrap().to_vec()).unwrap()
    }

    #[test]
    fn only_the_credential_of_the_default_profile_is_taken_out() {
        let config = "# mine\n[default]\nregion = eu-west-1\nRole_Arn=arn:aws:iam::1:role/x\n\
            source_profile : base\ns3 =\n  addressing_style = path\ncredential_process =\n  /bin/x\n\
            output = json\n[profile base]\naws_access_key_id = AKIA\n";
        assert_eq!(
            rest(config),
            "# mine\n[default]\nregion = eu-west-1\ns3 =\n  addressing_style = path\n\
             output = json\n[profile base]\naws_access_key_id = AKIA\n"
        );
        let quoted = "[ profile \"default\" ] # x\r\nsso_session = y\r\nregion = z\r\n";
        assert_eq!(rest(quoted), "[ profile \"default\" ] # x\r\nregion = z\r\n");
        assert!(without_default(b"[default]\nregion = x\n[other]\nrole_arn = y\n").is_none());
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

    #[test]
    fn keys_are_found_in_a_file_that_is_not_all_in_utf_8() {
        let keys = b"\xef\xbb\xbf[default]\naws_access_key_id = AKIA # J\xfcrgen\nregion = x\n\
            # Gr\xf6\xdfe\n[other]\nnote = \xe9\n";
        assert_eq!(
            without_default(keys).unwrap().as_slice(),
            b"\xef\xbb\xbf[default]\nregion = x\n# Gr\xf6\xdfe\n[other]\nnote = \xe9\n"
        );
    }

    #[test]
    fn a_file_that_cannot_be_looked_through_is_an_error() {
        let dir = tempfile::tempdir().unwrap();
        let (home, out) = (dir.path().to_str().unwrap(), dir.path().join("out"));
        let env = Env::from_pairs([("USERPROFILE", home)]);
        let keys = dir.path().join(".aws/credentials");
        let large = [b"[default]\naws_access_key_id = AKIA\n#", &vec![b'x'; 1 << 22][..]].concat();
        let utf_16: Vec<u8> = "[default]\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, why) in [(large, "is too large"), (utf_16, "is not a text file")] {
            files::write_private(&keys, &bytes).unwrap();
            let error = stand_ins(&env, &out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(why), "{error}");
            assert!(error.hints()[0].contains(CREDENTIALS), "{error:?}");
        }
        files::write_private(&keys, b"[default]\naws_access_key_id = AKIA\n").unwrap();
        assert_eq!(stand_ins(&env, &out).unwrap(), [(CREDENTIALS, out.join("credentials"))]);
        files::remove(&keys).unwrap();
        assert_eq!(stand_ins(&env, &out).unwrap(), []);
    }
}
