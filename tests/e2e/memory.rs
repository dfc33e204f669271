//! How the release copies and compares memory: by what is linked into it in place of the C library's own.

use std::path::Path;
use std::process::Command;

#[test]
fn copies_and_comparisons_are_right_for_every_length_and_touch_nothing_else() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let dir = tempfile::tempdir().unwrap();
    let linked = std::fs::read_to_string(root.join("release/link")).unwrap();
    // As it is compiled there, but by a name that leaves the C library's alone.
    let (_, flags) = linked.split_once("\n    cc ").unwrap();
    let (flags, _) = flags.split_once("-c ").unwrap();
    let flags: Vec<_> = flags.split_whitespace().filter(|flag| *flag != "\\").collect();
    assert!(flags.contains(&"-O2") && flags.contains(&"-ffreestanding"), "{flags:?}");
    let run = |command: &mut Command| {
        let output = command.output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned()
            + &String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{command:?}: {said}");
        said
    };
    let object = dir.path().join("memory.o");
    run(Command::new("cc")
        .args(flags)
        .args(["-Wall", "-Wextra", "-Werror", "-c"])
        .args(["-Dmemcpy=our_memcpy", "-Dmemmove=our_memmove"])
        .args(["-Dmemcmp=our_memcmp", "-Dbcmp=our_bcmp", "-o"])
        .arg(&object)
        .arg(root.join("release/memory.c")));
    // A loop that copies or compares may have become a call of what it is part of.
    let calls = run(Command::new("nm").arg("--undefined-only").arg(&object));
    assert_eq!(calls.trim(), "");
    let program = dir.path().join("check");
    run(Command::new("cc")
        .args(["-O1", "-fno-builtin", "-o"])
        .arg(&program)
        .arg(&object)
        .arg(root.join("tests/e2e/memory.c")));
    let said = run(&mut Command::new(&program));
    let (copies, comparisons) = said.trim().split_once(" copies, ").unwrap();
    let comparisons = comparisons.strip_suffix(" comparisons").unwrap();
    for count in [copies, comparisons] {
        assert!(count.parse::<u32>().unwrap() > 50_000, "{said}");
    }
}
