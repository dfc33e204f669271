//! The broker's certificate: read at start, and again on SIGHUP.

use std::path::Path;

use axum_server::tls_rustls::RustlsConfig;

use super::config::Tls;
use crate::error::{Error, ErrorKind, Result};
use crate::host::files::{self, Readers};

const MAX_PEM: u64 = 1024 * 1024;

/// Reads certificate and key.
pub(super) async fn read(tls: &Tls) -> Result<RustlsConfig> {
    // The label is what a PEM file of that kind has, behind "-----BEGIN".
    let read = |what: &str, path: &Path, label: &str| {
        let failed = |why: &str| {
            Error::new(ErrorKind::Config, format!("the {what} {} cannot be used", path.display()))
                .because_of(why)
        };
        let (pem, _, readers) =
            files::read_secret(path, MAX_PEM)?.ok_or_else(|| failed("there is no such file"))?;
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
        .hint(format!("chmod 600 {}", tls.key.display())));
    }
    RustlsConfig::from_pem(certificate, key).await.map_err(|cause| {
        Error::new(
            ErrorKind::Config,
            format!(
                "the certificate {} and the key {} cannot be used",
                tls.certificate.display(),
                tls.key.display()
            ),
        )
        .because(cause)
    })
}

/// Reads certificate and key again. Connections that come from now on get the new one;
/// those that are open keep the old one, and nothing is cut.
///
/// # Errors
/// Where the new one cannot be used: then the old one stays.
pub(super) async fn reload(tls: &Tls, current: &RustlsConfig) -> Result<()> {
    current.reload_from_config(read(tls).await?.get_inner());
    Ok(())
}
