//! Certificates for peers that speak TLS.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use tempfile::TempDir;
use time::{Duration, OffsetDateTime};

/// A certificate authority that nobody trusts unless told to.
pub(crate) struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
    files: TempDir,
}

/// A server's certificate and its key, as PEM files.
#[derive(Clone, Debug)]
pub(crate) struct ServerCertificate {
    /// The private key.
    pub(crate) key: PathBuf,
    /// The certificate.
    pub(crate) certificate: PathBuf,
}

impl Authority {
    /// A new one.
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "tmpcred tests");
        let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let files = tempfile::tempdir().unwrap();
        std::fs::write(files.path().join("authority.pem"), issuer.pem()).unwrap();
        Self { issuer, files }
    }

    /// The PEM file to trust.
    pub(crate) fn pem(&self) -> PathBuf {
        self.files.path().join("authority.pem")
    }

    /// A certificate for a name or an address that is good from yesterday for
    /// another day from now on.
    pub(crate) fn certify(&self, name: &str) -> ServerCertificate {
        self.issue(name, -Duration::DAY, Duration::DAY)
    }

    /// A certificate that will be good after a while.
    #[cfg(feature = "broker")]
    pub(crate) fn certify_from(&self, name: &str, begins: Duration) -> ServerCertificate {
        self.issue(name, begins, Duration::DAY)
    }

    /// A certificate that ceased to be good an hour ago.
    pub(crate) fn certify_expired(&self, name: &str) -> ServerCertificate {
        self.issue(name, -Duration::DAY, -Duration::HOUR)
    }

    fn issue(&self, name: &str, begins: Duration, ends: Duration) -> ServerCertificate {
        let now = OffsetDateTime::now_utc();
        let mut params = CertificateParams::new(vec![name.to_string()]).unwrap();
        params.not_before = now + begins;
        params.not_after = now + ends;
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let directory = tempfile::tempdir_in(self.files.path()).unwrap().keep();
        ServerCertificate {
            key: write(&directory, "key.pem", &key.serialize_pem()),
            certificate: write(&directory, "certificate.pem", &certificate.pem()),
        }
    }
}

/// Writes a file that is private, as a key has to be.
fn write(directory: &Path, name: &str, text: &str) -> PathBuf {
    let path = directory.join(name);
    std::fs::write(&path, text).unwrap();
    std::fs::set_permissions(&path, Permissions::from_mode(0o600)).unwrap();
    path
}
