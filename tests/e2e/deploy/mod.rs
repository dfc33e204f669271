//! The broker as it is deployed: as an image, and by manifests of Kubernetes.

mod image;
mod kubernetes;

use std::path::PathBuf;

fn ours(path: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(path)
}
