//! Statements with their signatures as text, to be kept in a file, mailed or pasted.
//!
//! ```text
//! -----BEGIN TMPCRED STATEMENT-----
//! tmpcred statement 1
//! …
//! -----END TMPCRED STATEMENT-----
//! -----BEGIN SSH SIGNATURE-----
//! …
//! -----END SSH SIGNATURE-----
//! ```
//!
//! What is signed are the lines between the first two, each with its end of line, so that
//! `ssh-keygen -Y` makes and checks the same.

use super::{Demands, Signature, Statement};
use crate::error::{Error, ErrorKind, Result};

/// The longest file that is looked at, in bytes.
pub const MAX_FILE: usize = 128 * 1024;

/// How many statements a file may have: a request, and what everybody says to it.
const MAX_STATEMENTS: usize = 32;

/// How many signatures a statement may have.
const MAX_SIGNATURES: usize = 4;

const BEGIN: &str = "-----BEGIN TMPCRED STATEMENT-----\n";
const END: &str = "-----END TMPCRED STATEMENT-----\n";
const SIGNATURE: &str = "-----BEGIN SSH SIGNATURE-----\n";
const SIGNATURE_END: &str = "-----END SSH SIGNATURE-----\n";

/// A statement that was signed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Signed {
    /// What is said.
    pub statement: Statement,
    /// Signatures of it; each is good, and by another key. There is one at least.
    pub signatures: Vec<Signature>,
}

impl Signed {
    /// A statement, signed by whatever `sign` signs with.
    ///
    /// # Errors
    /// Where it cannot be said, or signed.
    pub fn make(
        statement: Statement,
        sign: impl FnOnce(&[u8]) -> Result<Signature>,
    ) -> Result<Self> {
        let signature = sign(statement.text()?.as_bytes())?;
        Ok(Self { statement, signatures: vec![signature] })
    }
}

/// Writes statements one after the other.
///
/// # Errors
/// Where one cannot be said.
pub fn write(statements: &[Signed]) -> Result<String> {
    let mut text = String::new();
    for Signed { statement, signatures } in statements {
        text.push_str(&[BEGIN, &statement.text()?, END].concat());
        for signature in signatures {
            text.push_str(&signature.armored()?);
        }
    }
    Ok(text)
}

/// Reads statements of which every signature is good, and nothing besides. Whose keys made
/// them is not known by that, nor whether they are for this broker and this time. Ends of line
/// may be those of Windows, and there may be blanks before and after everything.
///
/// # Errors
/// Where something is in it that is neither a statement nor a good signature of one.
pub fn read(text: &str, demands: Demands<'_>) -> Result<Vec<Signed>> {
    if text.len() > MAX_FILE {
        return Err(unreadable(format!("there are more than {MAX_FILE} bytes")));
    }
    let text = text.replace("\r\n", "\n");
    let text = format!("{}\n", text.trim());
    let (mut rest, mut found) = (text.as_str(), Vec::new());
    while !rest.is_empty() {
        if found.len() == MAX_STATEMENTS {
            return Err(unreadable(format!("there are more than {MAX_STATEMENTS} statements")));
        }
        let said = between(&mut rest, BEGIN, END)
            .ok_or_else(|| unreadable("something in it is no statement with a signature"))?;
        let statement = Statement::parse(said)?;
        let mut signatures: Vec<Signature> = Vec::new();
        while rest.starts_with(SIGNATURE) {
            let whole = rest;
            between(&mut rest, SIGNATURE, SIGNATURE_END)
                .ok_or_else(|| unreadable("a signature in it has no end"))?;
            let signature = Signature::parse(&whole[..whole.len() - rest.len()])?;
            signature.verify(said.as_bytes(), demands)?;
            if signatures.len() == MAX_SIGNATURES
                || signatures.iter().any(|other| other.key() == signature.key())
            {
                let why =
                    format!("there are more than {MAX_SIGNATURES} signatures, or two by one key");
                return Err(unreadable(why));
            }
            signatures.push(signature);
        }
        if signatures.is_empty() {
            return Err(unreadable("a statement in it is not signed"));
        }
        found.push(Signed { statement, signatures });
    }
    Ok(found)
}

/// What is between two lines that come next.
fn between<'a>(rest: &mut &'a str, begin: &str, end: &str) -> Option<&'a str> {
    let behind = rest.strip_prefix(begin)?;
    let at = behind.find(end)?;
    *rest = &behind[at + end.len()..];
    Some(&behind[..at])
}

fn unreadable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Verification, "these are no statements with signatures")
        .because_of(why)
        .hint("hand over what was made, whole and as it is")
}
