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
    #[cfg(target_os = "linux")]
    {
        crate::host::test_user::assert_root();
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

type Interloper = Box<dyn FnOnce(&Path)>;

thread_local! {
    static INTERLOPER: std::cell::RefCell<Option<Interloper>> = const { std::cell::RefCell::new(None) };
}

/// What somebody else does just before a directory that is being made is locked.
pub(super) fn between_opening_and_locking(dir: &Path) {
    if let Some(does) = INTERLOPER.take() {
        does(dir);
    }
}

#[cfg(unix)]
#[test]
fn a_file_that_was_changed_meanwhile_is_not_rewritten() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    let refused = |before: Option<&[u8]>, after: Option<&[u8]>| {
        let held = read(&path, 9).unwrap();
        let error = rewrite(&path, before, after).unwrap_err();
        assert!(error.message().ends_with("was changed meanwhile"), "{error}");
        assert_eq!(read(&path, 9).unwrap(), held);
    };
    // It was removed, or is new.
    refused(Some(b"old"), Some(b"new"));
    rewrite(&path, None, Some(b"old")).unwrap();
    refused(None, Some(b"new"));
    // It has more, less, or something else.
    for before in ["ol", "older", "new", ""] {
        refused(Some(before.as_bytes()), Some(b"new"));
        refused(Some(before.as_bytes()), None);
    }
    rewrite(&path, Some(b"old"), Some(b"new")).unwrap();
    assert_eq!(read(&path, 9).unwrap().unwrap(), b"new");
    rewrite(&path, Some(b"new"), None).unwrap();
    assert!(!exists(&path));
}

#[test]
fn a_directory_that_is_being_made_is_not_lost_to_whoever_tidies_up() {
    let root = tempfile::tempdir().unwrap();
    INTERLOPER.set(Some(Box::new(|dir| {
        remove_abandoned(dir);
        assert!(!exists(dir), "it was not removed: this would show nothing");
    })));
    let run = super::super::dirs::Dirs::below(root.path()).of_this_run().unwrap();
    assert!(is_dir(run.path()) && exists(run.path().join(locks::OCCUPIED)));
    remove_abandoned(run.path());
    assert!(is_dir(run.path()), "it is occupied");
}

#[cfg(target_os = "linux")]
#[test]
fn what_somebody_else_has_made_in_a_shared_directory_is_not_used() {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};
    let mode = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
    };
    let root = tempfile::tempdir().unwrap();
    let shared = root.path().join("shared");
    private_dir(&shared).unwrap();
    mode(&shared, 0o1777);
    // What is ours there is ours.
    private_dir(&shared.join("tmpcred/locks")).unwrap();
    crate::host::test_user::assert_root();
    let message = |path: &Path| private_dir(path).unwrap_err().message().to_string();
    assert_eq!(message(&shared), format!("{} is for everybody", shared.display()));
    let theirs = shared.join("theirs");
    private_dir(&theirs.join("locks")).unwrap();
    chown(&theirs, Some(65534), Some(65534)).unwrap();
    let refused = format!("{} belongs to somebody else", theirs.display());
    assert_eq!(message(&theirs), refused);
    // It is root's, in a directory that its owner may replace.
    assert_eq!(message(&theirs.join("locks")), refused);
    assert!(open_lock(&theirs.join("locks/a.lock")).is_err());
    // A link of theirs to a directory of ours.
    let (ours, link) = (root.path().join("ours"), shared.join("link"));
    private_dir(&ours).unwrap();
    symlink(&ours, &link).unwrap();
    assert!(private_dir(&link).is_ok());
    std::os::unix::fs::lchown(&link, Some(65534), Some(65534)).unwrap();
    assert_eq!(message(&link), format!("{} belongs to somebody else", link.display()));
}

#[test]
fn a_draft_appears_when_it_is_whole_and_over_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("a");
    let draft = Draft::of(&path).unwrap();
    fs::write(draft.path(), "half").unwrap();
    assert!(!exists(&path));
    drop(draft);
    assert_eq!(list(dir.path()).unwrap(), Vec::<PathBuf>::new());
    let (one, other) = (Draft::of(&path).unwrap(), Draft::of(&path).unwrap());
    fs::write(one.path(), "whole").unwrap();
    one.finish(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "whole");
    #[cfg(unix)]
    assert_eq!(readers(&path).unwrap(), Readers::Owner);
    for error in [other.finish(&path).unwrap_err(), Draft::of(&path).err().unwrap()] {
        assert_eq!(error.kind(), ErrorKind::Usage);
        assert!(error.to_string().contains("already"), "{error}");
    }
    let to = dir.path().join("b");
    rename(&path, &to).unwrap();
    assert!(exists(&to) && !exists(&path));
    fs::write(&path, "x").unwrap();
    assert!(rename(&path, &to).is_err() && exists(&path));
}

#[cfg(all(feature = "broker", unix))]
#[test]
fn what_is_appended_for_good_ends_what_was_cut_off_and_goes_through_no_link() {
    use std::os::unix::fs::{PermissionsExt, symlink};
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("log");
    append_durably(&path, b"a\nb\n").unwrap();
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    append_durably(&path, b"c\n").unwrap();
    fs::write(&path, "a\nb\nc\nd").unwrap();
    append_durably(&path, b"d\n").unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\nc\nd\nd\n");
    let link = dir.path().join("link");
    symlink(&path, &link).unwrap();
    append_durably(&link, b"e\n").unwrap_err();
    append_durably(dir.path(), b"e\n").unwrap_err();
    append_durably(&dir.path().join("no/log"), b"e\n").unwrap_err();
    let pipe = dir.path().join("pipe");
    rustix::fs::mkfifoat(rustix::fs::CWD, &pipe, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR)
        .unwrap();
    let refused = append_durably(&pipe, b"e\n").unwrap_err();
    assert!(format!("{:?}", refused.causes()).contains("no regular file"), "{refused:?}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "a\nb\nc\nd\nd\n");
}

#[cfg(unix)]
#[test]
fn a_link_to_what_is_not_there_is_told_as_such() {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("config");
    symlink("../elsewhere/config", &path).unwrap();
    assert_eq!(read(&path, 9).unwrap(), None);
    let refused = rewrite(&path, None, Some(b"x")).unwrap_err();
    let says = "config is a link to ../elsewhere/config, which is not there";
    assert!(refused.to_string().contains(says), "{refused}");
    assert!(refused.hints()[0].contains("make that file, or remove the link"), "{refused:?}");
    assert!(is_link(&path) && !exists(&path));
    // What has come there in between was changed meanwhile.
    fs::remove_file(&path).unwrap();
    fs::write(&path, "mine").unwrap();
    let refused = rewrite(&path, None, Some(b"x")).unwrap_err();
    assert!(refused.to_string().contains("was changed meanwhile"), "{refused}");
    assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
}
