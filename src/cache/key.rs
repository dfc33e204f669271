//! What identifies an entry, without saying anything about it.

use aws_lc_rs::digest;
use data_encoding::HEXLOWER;

use crate::credential::{Caller, Principal};

/// The version of what entries hold and of how keys are made. Raising it makes
/// every older entry absent.
const FORMAT: &str = "tmpcred cache 1";

/// Identifies a credential: what the plan asks for, and for whom.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct CredentialKey(String);

impl CredentialKey {
    /// The key of the credential that `fingerprint` describes, for `principal`.
    pub fn new(fingerprint: &[u8], principal: &Principal) -> Self {
        Self(digest(&[
            b"credential",
            fingerprint,
            principal.issuer.as_bytes(),
            principal.subject.as_bytes(),
        ]))
    }

    /// The same for a caller who may be a job: no two jobs share a credential,
    /// nor do a job and a person.
    pub fn of(fingerprint: &[u8], caller: &Caller) -> Self {
        let (principal, job) = (caller.principal(), caller.job_digest());
        match (principal, job) {
            (Some(principal), None) => Self::new(fingerprint, principal),
            _ => Self(digest(&[
                b"credential of a job",
                fingerprint,
                principal.map_or(&b""[..], |principal| principal.issuer.as_bytes()),
                principal.map_or(&b""[..], |principal| principal.subject.as_bytes()),
                job.unwrap_or_default(),
            ])),
        }
    }

    /// The same of a credential that is bound to the key with this thumbprint: where that
    /// key is lost, so is the credential.
    #[must_use]
    pub fn bound_to(&self, thumbprint: &str) -> Self {
        Self(digest(&[b"bound credential", self.0.as_bytes(), thumbprint.as_bytes()]))
    }

    /// The item that holds the credential.
    pub(super) fn item(&self) -> ItemKey {
        ItemKey(format!("{CREDENTIAL}{}", self.0))
    }
}

/// Identifies a login session: (issuer, client), and what else the source says.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct SessionKey(String);

impl SessionKey {
    /// The key of the session that these settings lead to. `parts` are all that
    /// makes it another session, such as issuer, client id and scopes.
    pub fn new(parts: &[&str]) -> Self {
        let mut all: Vec<&[u8]> = vec![b"session"];
        all.extend(parts.iter().map(|part| part.as_bytes()));
        Self(digest(&all))
    }

    /// The item that holds the session.
    pub(super) fn item(&self) -> ItemKey {
        ItemKey(format!("{SESSION}{}", self.0))
    }
}

/// Identifies the registration of this program at a server that has programs register
/// themselves.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientKey(String);

impl ClientKey {
    /// The key of the registration that `parts` lead to.
    pub fn new(parts: &[&str]) -> Self {
        let mut all: Vec<&[u8]> = vec![b"client"];
        all.extend(parts.iter().map(|part| part.as_bytes()));
        Self(digest(&all))
    }

    /// The item that holds the registration.
    pub(super) fn item(&self) -> ItemKey {
        ItemKey(format!("{CLIENT}{}", self.0))
    }
}

const CLIENT: &str = "client-";
const CREDENTIAL: &str = "credential-";
const SESSION: &str = "session-";

/// The name of an item in a store. It is also good as a file's name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct ItemKey(String);

impl ItemKey {
    /// The item that holds the key under which large items are sealed.
    pub(super) fn sealing_key() -> Self {
        Self("sealing-key".to_string())
    }

    /// The item that holds the key which tokens are bound to.
    pub(super) fn device_key() -> Self {
        Self("device-key".to_string())
    }

    /// The item that holds the key with which somebody signs.
    pub(super) fn signing_key() -> Self {
        Self("signing-key".to_string())
    }

    /// The item with this name, where it is one that this program would make.
    /// Names come from stores and files, which others can write.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let kinds = [CREDENTIAL, SESSION, CLIENT];
        let hash = kinds.iter().find_map(|kind| name.strip_prefix(kind))?;
        let good = hash.len() == 2 * digest::SHA256_OUTPUT_LEN
            && hash.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        good.then(|| Self(name.to_string()))
    }

    /// The name.
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    /// The key of the session that the item holds.
    pub(super) fn session(&self) -> Option<SessionKey> {
        self.0.strip_prefix(SESSION).map(|hash| SessionKey(hash.to_string()))
    }

    /// Whether the item holds a credential.
    pub(super) fn is_credential(&self) -> bool {
        self.0.starts_with(CREDENTIAL)
    }
}

/// SHA-256 over the format and the parts, each behind its length: no two lists
/// of parts have the same input. In lower-case hex.
pub(super) fn digest(parts: &[&[u8]]) -> String {
    let mut context = digest::Context::new(&digest::SHA256);
    for part in std::iter::once(&FORMAT.as_bytes()).chain(parts) {
        context.update(&(part.len() as u64).to_be_bytes());
        context.update(part);
    }
    HEXLOWER.encode(context.finish().as_ref())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::credential::Job;

    fn principal(issuer: &str, subject: &str) -> Principal {
        Principal { issuer: issuer.into(), subject: subject.into() }
    }

    #[test]
    fn keys_stay_the_same_between_versions_of_the_program() {
        // Worked out by another program. Whoever changes this changes FORMAT too.
        let key = SessionKey::new(&["https://i.example", "client"]);
        assert_eq!(
            key.item().as_str(),
            "session-89656b6b9938bf47f389e40da13e8c88b67f83b6bf2ac6ad5bf3e926dc281fc8"
        );
    }

    #[test]
    fn names_that_this_program_would_not_make_are_refused() {
        let good = SessionKey::new(&["a"]).item();
        assert_eq!(ItemKey::parse(good.as_str()), Some(good.clone()));
        for bad in [
            "",
            "sealing-key",
            "session-",
            "session-../../etc/passwd",
            &good.as_str().to_uppercase(),
            &format!("{}0", good.as_str()),
            &good.as_str()[..good.as_str().len() - 1],
        ] {
            assert_eq!(ItemKey::parse(bad), None, "{bad}");
        }
    }

    #[test]
    fn jobs_of_one_principal_do_not_share_and_people_keep_their_keys() {
        let alice = principal("https://i.example", "alice");
        let job = |id: &str| Caller::job(Job::new("a job").with("ID", id));
        let keys = [
            CredentialKey::of(b"f", &alice.clone().into()),
            CredentialKey::of(b"f", &job("1")),
            CredentialKey::of(b"f", &job("2")),
            CredentialKey::of(b"g", &job("1")),
            CredentialKey::of(b"f", &job("1").known_as(alice.clone())),
            CredentialKey::of(b"f", &job("2").known_as(alice.clone())),
        ];
        for (at, one) in keys.iter().enumerate() {
            assert!(!keys[..at].contains(one), "{at}");
        }
        assert_eq!(keys[0], CredentialKey::new(b"f", &alice));
        assert_eq!(keys[1], CredentialKey::of(b"f", &job("1")));
    }

    proptest! {
        #[test]
        fn different_parts_have_different_keys(
            a in proptest::collection::vec("[ab:/\u{0}]{0,4}", 0..4),
            b in proptest::collection::vec("[ab:/\u{0}]{0,4}", 0..4),
        ) {
            let parts = |list: &[String]| {
                SessionKey::new(&list.iter().map(String::as_str).collect::<Vec<_>>())
            };
            prop_assert_eq!(a == b, parts(&a) == parts(&b));
        }

        #[test]
        fn what_is_asked_issuer_and_subject_do_not_run_into_each_other(
            a in ("[ab]{0,3}", "[ab]{0,3}", "[ab]{0,3}"),
            b in ("[ab]{0,3}", "[ab]{0,3}", "[ab]{0,3}"),
        ) {
            let key = |(fingerprint, issuer, subject): &(String, String, String)| {
                CredentialKey::new(fingerprint.as_bytes(), &principal(issuer, subject))
            };
            prop_assert_eq!(a == b, key(&a) == key(&b));
        }
    }
}
