//! The broker's certificate: read at start, and again on SIGHUP.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use axum_server::tls_rustls::RustlsConfig;
use rustls::client::{verify_server_cert_signed_by_trust_anchor, verify_server_name};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::{CertificateError, RootCertStore};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::Host;

use super::config::Tls;
use crate::error::{Error, ErrorKind, Result};
use crate::host::files::{self, Readers};
use crate::oidc::Issuer;

const MAX_PEM: u64 = 1024 * 1024;

/// The broker's certificate with its key.
pub(super) struct Certificate {
    /// As connections get it.
    pub(super) config: RustlsConfig,
    path: PathBuf,
    /// The broker's own, which is the first in its file.
    own: Option<CertificateDer<'static>>,
    validity: Option<Validity>,
}

/// Reads certificate and key. It may be one that clients refuse by their clock:
/// [`Certificate::check`] tells.
pub(super) async fn read(tls: &Tls) -> Result<Certificate> {
    // The label is what a PEM file of that kind has, behind "-----BEGIN".
    let read = |what: &str, path: &Path, label: &str| {
        let failed = |why: &str| {
            Error::new(ErrorKind::Config, format!("the {what} {} cannot be used", path.display()))
                .because_of(why)
        };
        let found = files::read_secret(path, MAX_PEM).map_err(|error| {
            if !files::is_withheld(path) {
                return error;
            }
            // A service with a user of its own owns no file that is put there for it.
            let hint = "the user that the broker runs as has to be able to read it: where it is not that user's, \
                        by a group that the broker is in (under systemd SupplementaryGroups=), with mode 0640";
            error.of_kind(ErrorKind::Config).hint(hint)
        })?;
        let (pem, _, readers) = found.ok_or_else(|| failed("there is no such file"))?;
        if !pem.windows(label.len()).any(|part| part == label.as_bytes()) {
            return Err(failed("there is none in it; it must be a PEM file"));
        }
        Ok((pem, readers))
    };
    let (certificate, _) = read("certificate", &tls.certificate, " CERTIFICATE-----")?;
    let (key, readers) = read("private key", &tls.key, "PRIVATE KEY-----")?;
    if readers == Readers::Everyone {
        return Err(Error::new(
            ErrorKind::Config,
            format!("the private key {} is not private", tls.key.display()),
        )
        .because_of("everybody on this machine can read or write it")
        // A group may be how the broker reads it.
        .hint(format!("chmod o-rwx {}", tls.key.display())));
    }
    let own = CertificateDer::from_pem_slice(&certificate).ok();
    let validity = own.as_ref().and_then(Validity::of);
    let config = RustlsConfig::from_pem(certificate, key).await.map_err(|cause| {
        Error::new(
            ErrorKind::Config,
            format!(
                "the certificate {} and the key {} cannot be used",
                tls.certificate.display(),
                tls.key.display()
            ),
        )
        .because(cause)
    })?;
    Ok(Certificate { config, path: tls.certificate.clone(), own, validity })
}

/// Reads certificate and key again. Connections that come from now on get the new one;
/// those that are open keep the old one, and nothing is cut. Returns the new one.
///
/// # Errors
/// Where the new one cannot be used, or every client would refuse it: then the old one stays.
pub(super) async fn reload(
    tls: &Tls,
    current: &RustlsConfig,
    now: OffsetDateTime,
) -> Result<Certificate> {
    let new = read(tls).await?;
    new.check(now)?;
    current.reload_from_config(new.config.get_inner());
    Ok(new)
}

impl Certificate {
    /// When it ends, as far as that can be read in it.
    pub(super) fn end(&self) -> Option<OffsetDateTime> {
        self.validity.map(|validity| validity.until)
    }

    /// When it ends, where it is good now.
    ///
    /// # Errors
    /// Where it has ended, or is not valid yet.
    pub(super) fn check(&self, now: OffsetDateTime) -> Result<OffsetDateTime> {
        let what = format!("the certificate {} is not valid", self.path.display());
        let failed = |why: String| Error::new(ErrorKind::Config, &what).because_of(why);
        let Some(Validity { from, until }) = self.validity else {
            return Err(failed("when it is valid cannot be read in it".into()));
        };
        // It says seconds, and is good through the last of them.
        let now = now.unix_timestamp();
        if now < from.unix_timestamp() {
            return Err(failed(format!("it will be from {} on", moment(from))));
        }
        if now > until.unix_timestamp() {
            return Err(failed(format!("it was until {}", moment(until))));
        }
        Ok(until)
    }

    /// Looks whether it is for the host of this issuer, by which clients come. Another one is no
    /// mistake where all of them come by a proxy that takes it. What cannot be read is told
    /// elsewhere.
    ///
    /// # Errors
    /// For which names it is, where that host is none of them.
    pub(super) fn check_name(&self, issuer: &Issuer) -> Result<()> {
        let parsed = self.own.as_ref().and_then(|own| ParsedCertificate::try_from(own).ok());
        let (Some(parsed), Some(host)) = (parsed, issuer.url().host()) else { return Ok(()) };
        let name = match host {
            Host::Domain(name) => ServerName::try_from(name.to_string()).ok(),
            Host::Ipv4(address) => Some(IpAddr::from(address).into()),
            Host::Ipv6(address) => Some(IpAddr::from(address).into()),
        };
        let verified = name.map_or(Ok(()), |name| verify_server_name(&parsed, &name));
        let Err(rustls::Error::InvalidCertificate(CertificateError::NotValidForNameContext {
            presented,
            ..
        })) = verified
        else {
            return Ok(());
        };
        let names: Vec<_> = presented.iter().map(|name| plain(name)).collect();
        let names = if names.is_empty() { "no name".into() } else { names.join(", ") };
        let what = format!("the certificate {} is not for {host}", self.path.display());
        Err(Error::new(ErrorKind::Config, what).because_of(format!("it is for {names}")).hint(
            "clients that come straight to the broker refuse it; have one made for the host of `issuer`, unless a proxy stands before the broker that takes it",
        ))
    }
}

fn moment(at: OffsetDateTime) -> String {
    at.format(&Rfc3339).unwrap_or_default()
}

/// A name as it is, of one like `DnsName("a.example")` or `IpAddress(192.0.2.1)`.
fn plain(name: &str) -> &str {
    let inner = name.split_once('(').and_then(|(_, rest)| rest.strip_suffix(')'));
    inner.map_or(name, |inner| inner.trim_matches('"'))
}

/// When a certificate is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Validity {
    from: OffsetDateTime,
    until: OffsetDateTime,
}

impl Validity {
    fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = ParsedCertificate::try_from(der).ok()?;
        // Whoever verifies a certificate says when it is good where it is not. So it is asked
        // for the first moment that there is, and for the last, and no library is needed that
        // reads certificates. Nobody is trusted, so nothing else comes of it.
        let refused = |seconds| {
            let at = UnixTime::since_unix_epoch(Duration::from_secs(seconds));
            let nobody = RootCertStore::empty();
            let verified =
                verify_server_cert_signed_by_trust_anchor(&certificate, &nobody, &[], at, &[]);
            match verified {
                Err(rustls::Error::InvalidCertificate(why)) => Some(why),
                _ => None,
            }
        };
        let time = |time: UnixTime| {
            OffsetDateTime::from_unix_timestamp(i64::try_from(time.as_secs()).ok()?).ok()
        };
        let from = match refused(0)? {
            CertificateError::NotValidYetContext { not_before, .. } => time(not_before)?,
            // It is so already then.
            _ => OffsetDateTime::UNIX_EPOCH,
        };
        let CertificateError::ExpiredContext { not_after, .. } = refused(u64::MAX)? else {
            return None;
        };
        Some(Self { from, until: time(not_after)? })
    }
}

#[cfg(test)]
mod tests {
    use rcgen::{CertificateParams, KeyPair};
    use tempfile::TempDir;
    use time::macros::datetime;

    use super::*;

    const FROM: OffsetDateTime = datetime!(2026-01-01 12:00 UTC);
    const UNTIL: OffsetDateTime = datetime!(2026-04-01 12:00 UTC);
    const SECOND: time::Duration = time::Duration::SECOND;

    /// The files of a certificate.
    struct Files {
        tls: Tls,
        _place: TempDir,
    }

    impl Files {
        fn new() -> Self {
            let place = tempfile::tempdir().unwrap();
            let path = |name: &str| place.path().join(name);
            let tls = Tls { certificate: path("certificate.pem"), key: path("key.pem") };
            Self { tls, _place: place }
        }

        /// Puts another one there.
        fn put(&self, from: OffsetDateTime, until: OffsetDateTime) -> &Self {
            let key = KeyPair::generate().unwrap();
            let certify = |from, until| {
                let mut params = CertificateParams::new(vec!["localhost".into()]).unwrap();
                (params.not_before, params.not_after) = (from, until);
                params.self_signed(&key).unwrap().pem()
            };
            // Those that lead to its authority follow, and have times of their own.
            let other = certify(datetime!(2000-01-01 0:00 UTC), datetime!(2001-01-01 0:00 UTC));
            let pem = certify(from, until) + &other;
            files::write_private(&self.tls.certificate, pem.as_bytes()).unwrap();
            files::write_private(&self.tls.key, key.serialize_pem().as_bytes()).unwrap();
            self
        }
    }

    #[tokio::test]
    async fn when_a_certificate_is_good_is_told_to_the_second() {
        let files = Files::new();
        let read = read(&files.put(FROM, UNTIL).tls).await.unwrap();
        assert_eq!(read.end(), Some(UNTIL));
        for now in [FROM, FROM + SECOND, UNTIL, UNTIL + SECOND / 2] {
            assert_eq!(read.check(now).unwrap(), UNTIL, "{now}");
        }
        let why = |now| read.check(now).unwrap_err().to_string();
        let early = why(FROM - SECOND / 2);
        assert!(
            early.ends_with("is not valid: it will be from 2026-01-01T12:00:00Z on"),
            "{early}"
        );
        let late = why(UNTIL + SECOND);
        assert!(late.ends_with("is not valid: it was until 2026-04-01T12:00:00Z"), "{late}");
    }

    /// As far as certificates reach: in two forms, and «for good» (RFC 5280, 4.1.2.5).
    #[tokio::test]
    async fn whatever_a_certificate_may_say_of_its_time_is_read() {
        let files = Files::new();
        for (from, until) in [
            (OffsetDateTime::UNIX_EPOCH, datetime!(2049-12-31 23:59:59 UTC)),
            (datetime!(2049-12-31 23:59:59 UTC), datetime!(2050-01-01 0:00 UTC)),
            (datetime!(2051-06-01 0:00 UTC), datetime!(9999-12-31 23:59:59 UTC)),
        ] {
            let read = read(&files.put(from, until).tls).await.unwrap();
            assert_eq!(read.validity, Some(Validity { from, until }));
        }
        // It never is.
        let read = read(&files.put(UNTIL, FROM).tls).await.unwrap();
        assert_eq!(read.end(), None);
        let why = read.check(FROM).unwrap_err().to_string();
        assert!(why.contains("when it is valid cannot be read in it"), "{why}");
    }

    #[cfg(unix)]
    #[tokio::test]
    #[expect(clippy::disallowed_methods, reason = "a test of who may read the key")]
    async fn a_key_may_be_read_by_a_group_and_not_by_everybody() {
        use std::os::unix::fs::PermissionsExt;
        let files = Files::new();
        let tls = &files.put(FROM, UNTIL).tls;
        for (mode, is_private) in [(0o600, true), (0o640, true), (0o644, false), (0o604, false)] {
            std::fs::set_permissions(&tls.key, std::fs::Permissions::from_mode(mode)).unwrap();
            match read(tls).await {
                Ok(_) => assert!(is_private, "{mode:o}"),
                Err(error) => {
                    assert!(!is_private && error.message().ends_with("is not private"), "{error}");
                    assert!(error.hints()[0].starts_with("chmod o-rwx "), "{error:?}");
                }
            }
        }
    }

    #[tokio::test]
    async fn it_is_told_for_whom_a_certificate_is_that_is_not_for_the_host_of_the_issuer() {
        let files = Files::new();
        let certify = async |names: &[&str]| {
            let names: Vec<_> = names.iter().map(ToString::to_string).collect();
            let made = rcgen::generate_simple_self_signed(names).unwrap();
            files::write_private(&files.tls.certificate, made.cert.pem().as_bytes()).unwrap();
            let key = made.signing_key.serialize_pem();
            files::write_private(&files.tls.key, key.as_bytes()).unwrap();
            read(&files.tls).await.unwrap()
        };
        for (names, issuer, other) in [
            (&["a.example"][..], "https://a.example:8443/team", None),
            (&["b.example", "*.a.example"], "https://x.a.example", None),
            (&["192.0.2.1"], "https://192.0.2.1", None),
            (&["::1"], "https://[::1]:8443", None),
            (&["b.example", "192.0.2.1"], "https://a.example", Some("b.example, 192.0.2.1")),
            (&["*.a.example"], "https://a.example", Some("*.a.example")),
            (&["localhost"], "https://127.0.0.1", Some("localhost")),
            (&[], "https://a.example", Some("no name")),
        ] {
            let found = certify(names).await.check_name(&Issuer::parse(issuer).unwrap());
            let told = found.err().map(|error| error.causes()[0].clone());
            assert_eq!(told, other.map(|names| format!("it is for {names}")), "{names:?}");
        }
    }

    #[tokio::test]
    async fn a_reload_takes_no_certificate_that_clients_refuse() {
        let files = Files::new();
        let now = FROM + SECOND;
        let current = read(&files.put(FROM, UNTIL).tls).await.unwrap().config;
        let old = current.get_inner();
        for (from, until) in
            [(FROM - SECOND * 9, FROM), (now + SECOND, UNTIL), (UNTIL, FROM), (now, FROM)]
        {
            assert!(reload(&files.put(from, until).tls, &current, now).await.is_err());
            assert!(std::sync::Arc::ptr_eq(&current.get_inner(), &old), "{from} {until}");
        }
        let end = UNTIL + SECOND;
        let new = reload(&files.put(now, end).tls, &current, now).await.unwrap();
        assert_eq!(new.end(), Some(end));
        assert!(!std::sync::Arc::ptr_eq(&current.get_inner(), &old));
    }
}
