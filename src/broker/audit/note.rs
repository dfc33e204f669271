//! Checkpoints: how long the log is and the root of its tree, as a signed note
//! (C2SP `tlog-checkpoint` and `signed-note`), for whoever keeps them elsewhere.

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::signature::{ED25519, UnparsedPublicKey};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;

use super::tree::Hash;
use crate::error::{Error, ErrorKind, Result};

/// The type of Ed25519 signatures in notes.
const ED25519_TYPE: u8 = 1;

/// The longest note that is read, in bytes.
pub const MAX_NOTE: usize = 64 * 1024;

/// What a log promises: that its first `size` records have this root.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Checkpoint {
    /// Which log it is of.
    pub origin: String,
    /// How many records it covers.
    pub size: u64,
    /// The root of their tree.
    pub root: Hash,
}

impl Checkpoint {
    /// The text that is signed.
    pub fn text(&self) -> String {
        format!("{}\n{}\n{}\n", self.origin, self.size, STANDARD.encode(self.root))
    }

    /// Which log a note says that it is of, whoever has signed it.
    pub fn origin_of(note: &str) -> Option<&str> {
        note.lines().next().filter(|origin| !origin.is_empty())
    }

    fn parse(text: &str) -> Option<Self> {
        // Lines may follow that extend it.
        let mut lines = text.lines();
        let origin = lines.next().filter(|origin| !origin.is_empty())?;
        let size = lines.next()?;
        let root = STANDARD.decode(lines.next()?).ok()?.try_into().ok()?;
        let parsed: u64 = size.parse().ok()?;
        (parsed.to_string() == size).then(|| Self { origin: origin.into(), size: parsed, root })
    }

    /// The note that these signatures over its [text](Self::text) make of it.
    pub fn signed(&self, signatures: impl IntoIterator<Item = (VerifierKey, Vec<u8>)>) -> String {
        let mut note = self.text() + "\n";
        for (key, signature) in signatures {
            let signature = STANDARD.encode([key.id().as_slice(), &signature].concat());
            note += &format!("\u{2014} {} {signature}\n", key.name);
        }
        note
    }

    /// Reads a note that one of these keys has signed.
    ///
    /// # Errors
    /// [`ErrorKind::Verification`] where it is none, or none of the keys signed it.
    pub fn open(note: &str, keys: &[VerifierKey]) -> Result<Self> {
        Self::open_signed(note, keys).map(|(checkpoint, _)| checkpoint)
    }

    /// The same, and which of the keys signed it.
    ///
    /// # Errors
    /// As with [`open`](Self::open).
    pub fn open_signed(note: &str, keys: &[VerifierKey]) -> Result<(Self, Vec<VerifierKey>)> {
        let refused = |why: &str| {
            Error::new(ErrorKind::Verification, "the checkpoint is not good").because_of(why)
        };
        let malformed = || refused("it is no signed note");
        if note.len() > MAX_NOTE {
            return Err(refused("it is too long"));
        }
        let Note { text, signatures } = Note::parse(note).ok_or_else(malformed)?;
        let mut signers = Vec::new();
        for Signature { name, id, signature } in signatures {
            // Others may sign it as well, whom nobody here knows.
            for key in keys.iter().filter(|key| key.name == name && key.id() == id) {
                if !key.verifies(text.as_bytes(), &signature) {
                    return Err(refused("its signature is not that of the broker's key"));
                }
                signers.push(key.clone());
            }
        }
        if signers.is_empty() {
            return Err(refused("no key of this broker has signed it"));
        }
        let checkpoint = Self::parse(text).ok_or_else(malformed)?;
        // The broker signs nothing of another log.
        if signers.iter().all(|key| key.name != checkpoint.origin) {
            return Err(refused("it is of another log"));
        }
        Ok((checkpoint, signers))
    }
}

/// Whether this is a signed note at all, whoever has signed it and whatever it says.
pub fn is_note(text: &str) -> bool {
    text.len() <= MAX_NOTE && Note::parse(text).is_some()
}

/// A signed note, as it says itself.
struct Note<'a> {
    /// What is signed.
    text: &'a str,
    signatures: Vec<Signature<'a>>,
}

/// One of its signatures, with the name and the id of the key.
struct Signature<'a> {
    name: &'a str,
    id: [u8; 4],
    signature: Vec<u8>,
}

impl<'a> Note<'a> {
    fn parse(note: &'a str) -> Option<Self> {
        let split = note.rfind("\n\n")?;
        let (text, signatures) = (&note[..=split], &note[split + 2..]);
        if !signatures.ends_with('\n') {
            return None;
        }
        let signature = |line: &'a str| {
            let (name, signature) = line.strip_prefix("\u{2014} ")?.split_once(' ')?;
            let signature = STANDARD.decode(signature).ok()?;
            let (id, signature) = signature.split_first_chunk::<4>()?;
            Some(Signature { name, id: *id, signature: signature.to_vec() })
        };
        let signatures = signatures.lines().map(signature).collect::<Option<_>>()?;
        Some(Self { text, signatures })
    }
}

/// The public half of a key that signs checkpoints, and the name of its log.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct VerifierKey {
    name: String,
    public: [u8; 32],
}

impl VerifierKey {
    /// The key of the log with this name.
    pub fn new(name: &str, public: [u8; 32]) -> Self {
        Self { name: name.into(), public }
    }

    /// Reads a key as [`Display`](std::fmt::Display) writes it.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where it is none.
    pub fn parse(text: &str) -> Result<Self> {
        let refused = || {
            Error::new(ErrorKind::Usage, "that is no key of a log")
                .hint("`tmpcred broker audit checkpoint --key` prints it")
        };
        let mut parts = text.trim().splitn(3, '+');
        let (Some(name), Some(id), Some(key)) = (parts.next(), parts.next(), parts.next()) else {
            return Err(refused());
        };
        let key = STANDARD.decode(key).map_err(|_| refused())?;
        let Some((&ED25519_TYPE, public)) = key.split_first() else { return Err(refused()) };
        let key = Self::new(name, public.try_into().map_err(|_| refused())?);
        if name.is_empty() || id != key.hex_id() {
            return Err(refused());
        }
        Ok(key)
    }

    /// What notes name the key by.
    fn id(&self) -> [u8; 4] {
        let named = [self.name.as_bytes(), b"\n", &[ED25519_TYPE], self.public.as_slice()].concat();
        let mut id = [0; 4];
        id.copy_from_slice(&digest(&SHA256, &named).as_ref()[..4]);
        id
    }

    fn hex_id(&self) -> String {
        format!("{:08x}", u32::from_be_bytes(self.id()))
    }

    fn verifies(&self, text: &[u8], signature: &[u8]) -> bool {
        UnparsedPublicKey::new(&ED25519, self.public).verify(text, signature).is_ok()
    }
}

impl std::fmt::Display for VerifierKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let key = [[ED25519_TYPE].as_slice(), &self.public].concat();
        write!(f, "{}+{}+{}", self.name, self.hex_id(), STANDARD.encode(key))
    }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};

    use super::*;

    fn pair(seed: u8) -> (Ed25519KeyPair, VerifierKey) {
        let pair = Ed25519KeyPair::from_seed_unchecked(&[seed; 32]).unwrap();
        let public = pair.public_key().as_ref().try_into().unwrap();
        (pair, VerifierKey::new("broker.example.com", public))
    }

    fn signed(seed: u8, checkpoint: &Checkpoint) -> String {
        let (pair, key) = pair(seed);
        checkpoint.signed([(key, pair.sign(checkpoint.text().as_bytes()).as_ref().to_vec())])
    }

    fn checkpoint() -> Checkpoint {
        Checkpoint { origin: "broker.example.com".into(), size: 7, root: [5; 32] }
    }

    #[test]
    fn the_published_example_of_a_signed_note_is_accepted() {
        // From the documentation of golang.org/x/mod/sumdb/note.
        let key = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
        let key = VerifierKey::parse(key).unwrap();
        let text = "If you think cryptography is the answer to your problem,\n\
                    then you don't know what your problem is.\n";
        let signature = "x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=";
        let raw = STANDARD.decode(signature).unwrap();
        assert_eq!(raw[..4], key.id());
        assert!(key.verifies(text.as_bytes(), &raw[4..]));
        // It says no size and no root.
        let note = format!("{text}\n\u{2014} PeterNeumann {signature}\n");
        assert!(Checkpoint::open(&note, &[key]).unwrap_err().to_string().contains("no signed"));
    }

    #[test]
    fn what_was_signed_comes_back_and_nothing_else() {
        let (_, key) = pair(1);
        let note = signed(1, &checkpoint());
        let keys = [pair(2).1, key.clone()];
        assert_eq!(Checkpoint::open(&note, &keys).unwrap(), checkpoint());
        assert_eq!(VerifierKey::parse(&key.to_string()).unwrap(), key);
        // A witness has signed it too.
        let more = format!("{note}\u{2014} witness.example AAAAAAAA\n");
        assert_eq!(Checkpoint::open(&more, &keys).unwrap(), checkpoint());
        for (bad, noted) in [
            (signed(3, &checkpoint()), true),
            (note.replace("\n7\n", "\n8\n"), true),
            (signed(1, &Checkpoint { origin: "other.example.com".into(), ..checkpoint() }), true),
            (note.replace("\n7\n", "\nseven\n"), true),
            (note.trim_end().to_string(), false),
            (note.replace('\u{2014}', "-"), false),
            (checkpoint().text(), false),
            (checkpoint().text() + "\n", false),
            (String::new(), false),
            ("\n\n".into(), false),
            ("x".repeat(MAX_NOTE + 1), false),
            ("\n".repeat(MAX_NOTE) + &note, false),
        ] {
            let error = Checkpoint::open(&bad, &keys).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Verification, "{bad}");
            assert_eq!(is_note(&bad), noted, "{bad}");
        }
        assert!(is_note(&note) && is_note(&more));
        // Two of the broker's have: it says which of those that are known.
        let second = signed(2, &checkpoint());
        let both = format!("{note}{}", second.rsplit_once("\n\n").unwrap().1);
        let (_, signers) = Checkpoint::open_signed(&both, &keys).unwrap();
        assert_eq!(signers, [key.clone(), keys[0].clone()]);
        assert_eq!(Checkpoint::open_signed(&both, &keys[..1]).unwrap().1, keys[..1]);
        for bad in ["", "a", "a+b+c", &key.to_string().replace("com+", "org+")] {
            assert!(VerifierKey::parse(bad).is_err(), "{bad}");
        }
    }
}
