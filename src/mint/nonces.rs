//! The newest nonce of each server (RFC 9449 section 8), so that the next run need not be
//! told one first. A small file for each address in the state directory, with nothing
//! secret in it; what cannot be read or written is not missed.

use std::path::PathBuf;

use aws_lc_rs::digest::{SHA256, digest};
use data_encoding::HEXLOWER;

use crate::dpop::is_nonce;
use crate::host::{Host, files};
use crate::oidc::Issuer;

/// How large a file may be, in bytes.
const LIMIT: u64 = 1024;

/// The newest nonce of the server at this address.
pub(super) fn newest(host: &Host, address: &Issuer) -> Option<String> {
    let bytes = files::read(&path(host, address), LIMIT).ok()??;
    String::from_utf8(bytes).ok().filter(|nonce| is_nonce(nonce))
}

/// Keeps a nonce that the server gave.
pub(super) fn keep(host: &Host, address: &Issuer, nonce: &str) {
    if newest(host, address).as_deref() == Some(nonce) {
        return;
    }
    if let Err(error) = files::write_private(&path(host, address), nonce.as_bytes()) {
        tracing::debug!(%error, "a nonce cannot be kept");
    }
}

fn path(host: &Host, address: &Issuer) -> PathBuf {
    let hash = digest(&SHA256, address.as_str().as_bytes());
    host.dirs.state.join("nonces").join(HEXLOWER.encode(hash.as_ref()))
}
