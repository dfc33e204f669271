//! The public keys by which signatures are checked.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256,
    RSA_PKCS1_2048_8192_SHA512, RsaPublicKeyComponents, UnparsedPublicKey, VerificationAlgorithm,
};
use ssh_key::encoding::{Decode as _, Encode as _};
use ssh_key::public::KeyData;
use ssh_key::{Algorithm, EcdsaCurve, HashAlg, Mpint};

use crate::error::{Error, ErrorKind, Result, foreign};

/// The longest line with a key that is looked at, in bytes. One of RSA with 8192 bits has 1,400.
const MAX_LINE: usize = 4096;

/// The longest comment of a key that is taken over, in bytes.
const MAX_COMMENT: usize = 256;

/// How many bits a key of RSA has.
const RSA_BITS: std::ops::RangeInclusive<usize> = 3072..=8192;

/// How the application of a key on a security key begins (OpenSSH's PROTOCOL.u2f). One of a web
/// site is not for this.
const APPLICATION: &str = "ssh:";

/// What a security key says of a signature: somebody touched it.
const PRESENT: u8 = 0x01;

/// And showed who they are, by a PIN or a finger.
const VERIFIED: u8 = 0x04;

/// How many bytes a security key adds to a signature: what it says, and how many it made.
const TRAILER: usize = 5;

/// The kinds of keys that there may be. There are no others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// Ed25519.
    Ed25519,
    /// ECDSA over P-256.
    EcdsaP256,
    /// ECDSA over P-384.
    EcdsaP384,
    /// RSA with 3072 bits or more.
    Rsa,
    /// Ed25519 on a security key.
    SkEd25519,
    /// ECDSA over P-256 on a security key.
    SkEcdsaP256,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 6] = [
        Self::Ed25519,
        Self::EcdsaP256,
        Self::EcdsaP384,
        Self::Rsa,
        Self::SkEd25519,
        Self::SkEcdsaP256,
    ];

    /// Its name in keys.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ssh-ed25519",
            Self::EcdsaP256 => "ecdsa-sha2-nistp256",
            Self::EcdsaP384 => "ecdsa-sha2-nistp384",
            Self::Rsa => "ssh-rsa",
            Self::SkEd25519 => "sk-ssh-ed25519@openssh.com",
            Self::SkEcdsaP256 => "sk-ecdsa-sha2-nistp256@openssh.com",
        }
    }

    /// The one with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// Whether the private half is on a security key.
    pub fn is_on_security_key(self) -> bool {
        matches!(self, Self::SkEd25519 | Self::SkEcdsaP256)
    }
}

/// A public key of a kind that there may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicKey {
    data: KeyData,
    kind: Kind,
}

impl PublicKey {
    /// Reads the line of a file such as `id_ed25519.pub`. Returns also what is behind the key,
    /// which is a label.
    ///
    /// # Errors
    /// Where it is none, or of another kind.
    pub fn parse(line: &str) -> Result<(Self, String)> {
        let line = line.trim();
        if line.len() > MAX_LINE {
            return Err(unacceptable(format!("it is longer than {MAX_LINE} bytes")));
        }
        if line.contains("PRIVATE KEY") {
            return Err(unacceptable("it is the private half")
                .hint("hand over the public half, a file that ends in .pub, and nothing else"));
        }
        let key = ssh_key::PublicKey::from_openssh(line)
            .map_err(|cause| unacceptable(format!("it cannot be read: {cause}")))?;
        let comment = key.comment().as_str_lossy();
        let end = comment.floor_char_boundary(MAX_COMMENT);
        Ok((Self::of(key.key_data().clone())?, foreign(&comment[..end])))
    }

    /// Reads a key as protocols have it.
    pub(super) fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let key = ssh_key::PublicKey::from_bytes(bytes)
            .map_err(|cause| unacceptable(format!("it cannot be read: {cause}")))?;
        Self::of(key.key_data().clone())
    }

    /// Takes a key that is of a kind there may be.
    pub(super) fn of(data: KeyData) -> Result<Self> {
        let uncompressed = |point: &[u8]| match point.first() {
            Some(4) => Ok(()),
            _ => Err(unacceptable("its point is not written in full")),
        };
        let for_ssh = |application: &str| match application.starts_with(APPLICATION) {
            true => Ok(()),
            false => Err(unacceptable(format!(
                "it is for '{}', and not for something that begins with '{APPLICATION}'",
                foreign(application)
            ))),
        };
        let kind = match &data {
            KeyData::Ed25519(_) => Kind::Ed25519,
            KeyData::Ecdsa(key) => {
                uncompressed(key.as_sec1_bytes())?;
                match key.curve() {
                    EcdsaCurve::NistP256 => Kind::EcdsaP256,
                    EcdsaCurve::NistP384 => Kind::EcdsaP384,
                    EcdsaCurve::NistP521 => return Err(of_another_kind(&data)),
                }
            }
            KeyData::Rsa(key) => {
                let bits = key.n().as_positive_bytes().map_or(0, bits);
                if !RSA_BITS.contains(&bits) {
                    let (least, most) = (RSA_BITS.start(), RSA_BITS.end());
                    return Err(unacceptable(format!(
                        "it is of RSA with {bits} bits, and not with {least} to {most}"
                    ))
                    .hint("make one with `ssh-keygen -t ed25519`"));
                }
                Kind::Rsa
            }
            KeyData::SkEd25519(key) => {
                for_ssh(key.application())?;
                Kind::SkEd25519
            }
            KeyData::SkEcdsaSha2NistP256(key) => {
                uncompressed(key.ec_point().as_bytes())?;
                for_ssh(key.application())?;
                Kind::SkEcdsaP256
            }
            _ => return Err(of_another_kind(&data)),
        };
        Ok(Self { data, kind })
    }

    /// Of which kind it is.
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// What names it for people: `SHA256:` and 43 characters.
    pub fn fingerprint(&self) -> String {
        self.data.fingerprint(HashAlg::Sha256).to_string()
    }

    /// Kind and key, as a line of a file.
    ///
    /// # Errors
    /// Never, of a key that was read.
    pub fn line(&self) -> Result<String> {
        ssh_key::PublicKey::new(self.data.clone(), "")
            .to_openssh()
            .map_err(|cause| unacceptable(format!("it cannot be written: {cause}")))
    }

    pub(super) fn data(&self) -> &KeyData {
        &self.data
    }

    /// The key as protocols have it.
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = Vec::new();
        self.data
            .encode(&mut bytes)
            .map_err(|cause| unacceptable(format!("it cannot be written: {cause}")))?;
        Ok(bytes)
    }

    /// Whether it made this signature of these bytes; `None` where not.
    pub(super) fn made(&self, signature: &ssh_key::Signature, signed: &[u8]) -> Option<Shown> {
        let raw = signature.as_bytes();
        match (&self.data, signature.algorithm()) {
            (KeyData::Ed25519(key), Algorithm::Ed25519) => {
                check(&ED25519, &key.0, signed, raw)?;
                Some(Shown::Nothing)
            }
            (KeyData::Ecdsa(key), Algorithm::Ecdsa { curve }) if curve == key.curve() => {
                match curve {
                    EcdsaCurve::NistP256 => {
                        let raw = fixed::<32>(raw)?;
                        check(&ECDSA_P256_SHA256_FIXED, key.as_sec1_bytes(), signed, &raw)?;
                    }
                    EcdsaCurve::NistP384 => {
                        let raw = fixed::<48>(raw)?;
                        check(&ECDSA_P384_SHA384_FIXED, key.as_sec1_bytes(), signed, &raw)?;
                    }
                    EcdsaCurve::NistP521 => return None,
                }
                Some(Shown::Nothing)
            }
            (KeyData::Rsa(key), Algorithm::Rsa { hash: Some(hash) }) => {
                let by = match hash {
                    HashAlg::Sha256 => &RSA_PKCS1_2048_8192_SHA256,
                    HashAlg::Sha512 => &RSA_PKCS1_2048_8192_SHA512,
                    _ => return None,
                };
                let (n, e) = (key.n().as_positive_bytes()?, key.e().as_positive_bytes()?);
                RsaPublicKeyComponents { n, e }.verify(by, signed, raw).ok()?;
                Some(Shown::Nothing)
            }
            (KeyData::SkEd25519(key), Algorithm::SkEd25519) => {
                let (raw, trailer) = raw.split_at_checked(raw.len().checked_sub(TRAILER)?)?;
                let signed = by_security_key(key.application(), trailer, signed);
                check(&ED25519, &key.public_key().0, &signed, raw)?;
                Shown::said(trailer)
            }
            (KeyData::SkEcdsaSha2NistP256(key), Algorithm::SkEcdsaSha2NistP256) => {
                let (raw, trailer) = raw.split_at_checked(raw.len().checked_sub(TRAILER)?)?;
                let signed = by_security_key(key.application(), trailer, signed);
                let raw = fixed::<32>(raw)?;
                check(&ECDSA_P256_SHA256_FIXED, key.ec_point().as_bytes(), &signed, &raw)?;
                Shown::said(trailer)
            }
            _ => None,
        }
    }
}

/// What a signature shows of whoever was there when it was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shown {
    /// Nothing: the key is no security key's.
    Nothing,
    /// What the security key says.
    Said {
        /// Somebody touched it.
        present: bool,
        /// They showed who they are.
        verified: bool,
    },
}

impl Shown {
    fn said(trailer: &[u8]) -> Option<Self> {
        let flags = trailer.first()?;
        Some(Self::Said { present: flags & PRESENT != 0, verified: flags & VERIFIED != 0 })
    }
}

/// What a security key signs (OpenSSH's PROTOCOL.u2f).
fn by_security_key(application: &str, trailer: &[u8], signed: &[u8]) -> Vec<u8> {
    let hash = |bytes| digest(&SHA256, bytes);
    [hash(application.as_bytes()).as_ref(), trailer, hash(signed).as_ref()].concat()
}

fn check(
    by: &'static dyn VerificationAlgorithm,
    key: &[u8],
    signed: &[u8],
    signature: &[u8],
) -> Option<()> {
    UnparsedPublicKey::new(by, key).verify(signed, signature).ok()
}

/// The two numbers of a signature by ECDSA (RFC 5656 section 3.1.2), each in this many bytes.
fn fixed<const BYTES: usize>(mut raw: &[u8]) -> Option<Vec<u8>> {
    let mut both = Vec::with_capacity(2 * BYTES);
    for _ in 0..2 {
        let number = Mpint::decode(&mut raw).ok()?;
        let number = number.as_positive_bytes()?;
        both.extend(std::iter::repeat_n(0, BYTES.checked_sub(number.len())?));
        both.extend_from_slice(number);
    }
    raw.is_empty().then_some(both)
}

/// How many bits a number has.
fn bits(number: &[u8]) -> usize {
    let first = number.first().map_or(0, |byte| byte.leading_zeros() as usize);
    (number.len() * 8).saturating_sub(first)
}

fn of_another_kind(data: &KeyData) -> Error {
    let accepted = Kind::ALL.map(Kind::name).join(", ");
    unacceptable(format!("it is of the kind {}", foreign(data.algorithm().as_str())))
        .hint(format!("accepted are {accepted}"))
}

fn unacceptable(why: impl Into<String>) -> Error {
    Error::new(ErrorKind::Verification, "the public key is not acceptable").because_of(why)
}
