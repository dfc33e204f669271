//! Who runs the tests.

/// For a test that needs what belongs to somebody else, which only root can make. Such
/// tests are for Linux, where the suite runs as root.
#[track_caller]
pub(crate) fn assert_root() {
    assert!(
        rustix::process::geteuid().is_root(),
        "this test makes what belongs to somebody else: run the tests as root"
    );
}
