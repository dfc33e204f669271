//! The user's own files of AWS, as a command is to see them that gets its
//! credentials from an endpoint.
//!
//! SDKs ask the endpoint last. Were there keys, a role or a sign-in for the profile
//! `default`, they would take those, and the command would run as somebody else. So it
//! is shown copies without them. All else in there, such as other profiles that it names
//! itself, stays as it is, but for sections with long-lived keys: there shall be no second
//! place where those are in clear. The order is written down at
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.
//! botocore also asks the configuration of boto, which came before it, and is shown an empty one
//! where that has keys.
//!
//! How such a file is laid out is not written down as well, and readers differ (see
//! [`layout`]): what any of them would take for a credential of `default` is taken out.
//!
//! A copy cannot be written to: what a command put there would be lost with it, without a
//! word.

mod layout;

use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use self::layout::{Kind, Layout, indent, lines, section, setting};
use crate::aws::files as files_of_aws;
pub use crate::aws::files::{CONFIG, CREDENTIALS};
use crate::error::{Error, ErrorKind, Result};
use crate::host::env::Env;
use crate::host::files;

/// Where botocore reads the configuration of boto from, and nowhere else.
pub const BOTO: &str = "BOTO_CONFIG";

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

/// What the configuration of boto has a key by, in whichever section.
const KEY_OF_BOTO: &str = "aws_access_key_id";

/// Writes files into `dir` that stand in for the user's own, where those have a
/// credential for the profile `default`, or one of boto. Yields variables and paths.
///
/// # Errors
///
/// One of the user's own is there and cannot be looked through, which it is cannot be told, or they
/// cannot be written.
pub fn stand_ins(env: &Env, dir: &Path) -> Result<Vec<(&'static str, PathBuf)>> {
    let mut written = Vec::new();
    for (variable, name) in [(CONFIG, "config"), (CREDENTIALS, "credentials")] {
        let own = || Some(env.home()?.join(".aws").join(name));
        let Some(path) = named(env, variable)?.or_else(own) else { continue };
        let text = look(&path, variable)?;
        let Some(rest) = text.and_then(|text| stand_in(&text)) else { continue };
        let path = dir.join(name);
        files::write_read_only(&path, &rest)?;
        written.push((variable, path));
    }
    for path in of_boto(env)? {
        let has_key = |text: &[u8]| {
            lines(text).any(|(_, line)| setting(&line).eq_ignore_ascii_case(KEY_OF_BOTO))
        };
        if look(&path, BOTO)?.is_some_and(|text| has_key(&text)) {
            let path = dir.join("boto");
            // What else is in there is of use to boto and gsutil alone, and may be secret too.
            files::write_read_only(&path, b"")?;
            written.push((BOTO, path));
            break;
        }
    }
    Ok(written)
}

/// The path that a variable names, where it is set.
fn named(env: &Env, variable: &str) -> Result<Option<PathBuf>> {
    files_of_aws::named(env, variable).map_err(in_the_way)
}

/// Where botocore looks for the configuration of boto.
fn of_boto(env: &Env) -> Result<Vec<PathBuf>> {
    Ok(match named(env, BOTO)? {
        Some(path) => vec![path],
        None => {
            let own = env.home().map(|home| home.join(".boto"));
            [Some(PathBuf::from("/etc/boto.cfg")), own].into_iter().flatten().collect()
        }
    })
}

/// What is in such a file, if there is one.
fn look(path: &Path, variable: &str) -> Result<Option<Zeroizing<Vec<u8>>>> {
    // What we are not let to, the command is not either.
    if files::is_withheld(path) {
        return Ok(None);
    }
    let other = format!("mend that file, or name another one in {variable}");
    read(path).map_err(|error| in_the_way(error.hint(other)))
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
fn in_the_way(error: Error) -> Error {
    let whose = "AWS SDKs might not use the credentials of this run";
    let around = "with `--on-renew restart` no such file is looked at";
    error.of_kind(ErrorKind::Config).context(whose).hint(around)
}

/// What stands in for a text; `None` where it has no credential of the profile `default`.
fn stand_in(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut rest = without_keys(&without_default(text)?);
    // What was taken out may have kept apart what is read as one now.
    while let Some(less) = without_default(&rest) {
        rest = less;
    }
    Some(rest)
}

/// The text without the credential of the profile `default`; `None` where it has none.
fn without_default(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut rest = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut layout = Layout::default();
    let mut in_default = false;
    // How far the setting is indented that is being taken out.
    let mut dropping: Option<usize> = None;
    for (bytes, line) in lines(text) {
        let drops = match layout.kind(&line) {
            Kind::Head { is_clear } => {
                in_default = is_default(&line) || (in_default && !is_clear);
                dropping = None;
                false
            }
            Kind::Blank => false,
            // For some it is a part of the setting above.
            Kind::Comment => dropping.is_some() && indent(&line) > 0,
            Kind::Other => {
                let indent = indent(&line);
                if dropping.is_none_or(|above| indent <= above) {
                    let yields = |name: &str| YIELD.iter().any(|y| name.eq_ignore_ascii_case(y));
                    // However far it is indented: whether it is a setting of its own is
                    // read in more than one way.
                    dropping = (in_default && yields(setting(&line))).then_some(indent);
                }
                dropping.is_some()
            }
        };
        if !drops {
            rest.extend_from_slice(bytes);
        }
    }
    (rest.len() < text.len()).then_some(rest)
}

/// Whether this is the head of what some reader takes for the profile `default`, or for a part
/// of each: Python's has every section inherit from `[DEFAULT]`.
fn is_default(head: &str) -> bool {
    match section(head).unwrap_or_default().as_slice() {
        ["default" | "DEFAULT" | "profile.default"] => true,
        [first, "default"] => first.starts_with("profile"),
        _ => false,
    }
}

/// The text without sections that have long-lived keys: a secret, and no token that ends.
fn without_keys(text: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut rest = Zeroizing::new(Vec::with_capacity(text.len()));
    let mut layout = Layout::default();
    let mut start = 0;
    let mut at = 0;
    let heads = lines(text).filter_map(|(bytes, line)| {
        let from = at;
        at += bytes.len();
        // What may be no head belongs to what is above.
        matches!(layout.kind(&line), Kind::Head { is_clear: true }).then_some(from)
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

#[cfg(test)]
mod tests;
