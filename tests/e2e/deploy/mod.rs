//! The broker as it is deployed: as an image, by manifests of Kubernetes, and under systemd.

mod image;
mod kubernetes;
mod service;

use std::path::PathBuf;

fn ours(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
