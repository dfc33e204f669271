//! Reading and writing, and what may not be.

use super::*;

#[test]
fn reads_are_bounded_and_absence_is_no_error() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    assert_eq!(read(&path, 10).unwrap(), None);
    write_private(&path, b"0123456789").unwrap();
    assert_eq!(read(&path, 10).unwrap().unwrap(), b"0123456789");
    assert!(read(&path, 9).unwrap_err().to_string().contains("more than 9 bytes"));
    assert!(read(dir.path(), 9).unwrap_err().to_string().contains("is a directory"));
}

#[test]
fn what_was_left_half_written_goes_in_time() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, age: std::time::Duration| {
        let path = dir.path().join(name);
        let file = File::create(&path).unwrap();
        let now = file.metadata().unwrap().modified().unwrap();
        file.set_modified(now.checked_sub(age).unwrap()).unwrap();
        path
    };
    let old = write(".tmpcred-old", ABANDONED * 2);
    let recent = write(".tmpcred-recent", ABANDONED / 2);
    let other = write("other", ABANDONED * 2);
    write_private(&dir.path().join("f"), b"0").unwrap();
    assert!(!exists(old) && exists(recent) && exists(other));
}

#[cfg(unix)]
#[test]
fn a_removed_file_is_told_from_its_successor() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("l");
    let file = open_lock(&path).unwrap();
    assert!(is_at(&file, &path));
    remove(&path).unwrap();
    assert!(!is_at(&file, &path));
    let successor = open_lock(&path).unwrap();
    assert!(!is_at(&file, &path) && is_at(&successor, &path));
}

#[cfg(unix)]
#[test]
fn it_is_told_who_could_have_written_a_file() {
    use std::os::unix::fs::{PermissionsExt, chown, lchown, symlink};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write_private(&path, b"a").unwrap();
    let guard = |path: &Path| {
        let guard = read_guarded(path, 10).unwrap().unwrap().1;
        assert_eq!(guard_of(path).unwrap(), guard);
        guard
    };
    let mode = |mode| fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
    assert_eq!(guard(&path), Guard::Guarded);
    mode(0o644);
    assert_eq!(guard(&path), Guard::Guarded);
    mode(0o646);
    assert_eq!(guard(&path), Guard::OthersMayWrite);
    if rustix::process::geteuid().is_root() {
        mode(0o664);
        assert_eq!(guard(&path), Guard::Guarded);
        chown(&path, None, Some(4321)).unwrap();
        assert_eq!(guard(&path), Guard::OthersMayWrite);
        mode(0o644);
        chown(&path, Some(4321), None).unwrap();
        assert_eq!(guard(&path), Guard::OtherOwner);
        chown(&path, Some(0), Some(0)).unwrap();
        let link = dir.path().join("l");
        symlink(&path, &link).unwrap();
        assert_eq!(guard(&link), Guard::Guarded);
        lchown(&link, Some(4321), None).unwrap();
        assert_eq!(guard(&link), Guard::OtherOwner);
    }
}

#[cfg(unix)]
#[test]
fn the_mode_tells_who_can_read() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    write_private(&path, b"a").unwrap();
    for (mode, who) in [
        (0o600, Readers::Owner),
        (0o640, Readers::Group),
        (0o620, Readers::Group),
        (0o604, Readers::Everyone),
        (0o644, Readers::Everyone),
    ] {
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(readers(&path).unwrap(), who, "{mode:o}");
    }
}

#[cfg(unix)]
#[test]
fn a_replaced_file_is_another_one() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    assert_eq!(identity(&path), None);
    write_private(&path, b"a").unwrap();
    let first = identity(&path);
    let kept = File::open(&path).unwrap();
    write_private(&path, b"a").unwrap();
    assert!(first.is_some() && identity(&path) != first);
    drop(kept);
}

#[cfg(unix)]
#[test]
fn written_files_are_private_and_leave_nothing_beside() {
    use std::os::unix::fs::PermissionsExt;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sub/f");
    write_private(&path, b"a").unwrap();
    write_private(&path, b"b").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let parent = path.parent().unwrap();
    assert_eq!(fs::metadata(parent).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(list(parent).unwrap(), vec![path]);
}
