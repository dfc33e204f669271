//! What shows that a row about an enrolled key was written by this broker.

use aws_lc_rs::hmac;

use crate::broker::audit::micros;
use crate::broker::keys::RootKey;
use crate::broker::store::Enrollment;

/// What seals rows about enrolled keys. It follows from the root key.
pub(in crate::broker) struct EnrollmentSeal(hmac::Key);

impl EnrollmentSeal {
    pub(in crate::broker) fn new(root_key: &RootKey) -> Self {
        Self(root_key.derive("which keys people enrolled"))
    }

    /// The same row, sealed.
    pub(in crate::broker) fn over(&self, row: Enrollment) -> Enrollment {
        let seal = hmac::sign(&self.0, &covered(&row)).as_ref().to_vec();
        Enrollment { seal, ..row }
    }

    /// Whether it was sealed by this broker.
    pub(in crate::broker) fn is_good(&self, row: &Enrollment) -> bool {
        let is_good = hmac::verify(&self.0, &covered(row), &row.seal).is_ok();
        if !is_good {
            tracing::error!(
                key = row.fingerprint,
                "what the database says of an enrolled key was not written by this broker"
            );
        }
        is_good
    }
}

/// All of it, each part behind its length: no two rows are covered by the same.
fn covered(row: &Enrollment) -> Vec<u8> {
    let Enrollment {
        id,
        fingerprint,
        public_key,
        person,
        principal,
        label,
        state,
        enrolled_at,
        approved,
        seen_at,
        seal: _,
    } = row;
    let (approver, approved_at) = match approved {
        Some((approver, at)) => (approver.as_str(), micros(*at)),
        None => ("", 0),
    };
    let mut covered = b"tmpcred broker: an enrolled key v1\0".to_vec();
    for part in [
        &id.to_string()[..],
        fingerprint,
        public_key,
        person,
        &principal.issuer,
        &principal.subject,
        label,
        state.as_str(),
        &micros(*enrolled_at).to_string(),
        approver,
        &approved_at.to_string(),
        &micros(*seen_at).to_string(),
    ] {
        covered.extend((part.len() as u64).to_be_bytes());
        covered.extend(part.as_bytes());
    }
    covered
}
