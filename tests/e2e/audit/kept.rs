//! Checkpoints that are kept elsewhere, and files that are none.

use super::super::revocation::Services;
use super::super::support::broker::API;
use super::{audit, checkpoint, wrong};

#[test]
fn a_checkpoint_is_written_as_a_whole_or_not_at_all() {
    let services = Services::start();
    let broker = &services.broker;
    services.token("job", API);
    let shown = std::fs::read_to_string(checkpoint(broker, 3)).unwrap();
    let kept = broker.home.path("kept.note");
    let kept = kept.to_str().unwrap();
    let told = audit(broker, "checkpoint", &["--out", kept]).run().ok();
    assert_eq!((told.stdout.as_str(), std::fs::read_to_string(kept).unwrap()), ("", shown.clone()));
    assert_eq!(wrong(broker, &["--checkpoint", kept]), []);
    assert_eq!(audit(broker, "checkpoint", &["--out", "-"]).run().ok().stdout, shown);
    let keys = audit(broker, "checkpoint", &["--key"]).run().ok().stdout;
    let (file, key) = (broker.home.path("log.key"), ["--key", "--out"]);
    audit(broker, "checkpoint", &[&key[..], &[file.to_str().unwrap()]].concat()).run().ok();
    assert_eq!(std::fs::read_to_string(&file).unwrap(), keys);

    // Where the database is away, what was kept stays, and no file is made.
    let database = broker.home.path("broker.db");
    std::fs::rename(&database, broker.home.path("moved.db")).unwrap();
    let other = broker.home.path("other.note");
    for out in [kept, other.to_str().unwrap()] {
        audit(broker, "checkpoint", &["--out", out]).run().ended_with(3);
    }
    assert_eq!(std::fs::read_to_string(kept).unwrap(), shown);
    assert!(!other.exists());
    std::fs::rename(broker.home.path("moved.db"), &database).unwrap();
    // What is no file is left alone.
    let none = audit(broker, "checkpoint", &["--out", "/dev/null"]).run().ended_with(2).stderr;
    assert!(none.contains("/dev/null is no file"), "{none}");
}

#[test]
fn what_is_no_checkpoint_at_all_is_no_tampering() {
    let services = Services::start();
    let broker = &services.broker;
    services.token("job", API);
    let note = std::fs::read_to_string(checkpoint(broker, 3)).unwrap();
    let verified = |text: &[u8], code: i32| {
        let kept = broker.home.write("kept.note", text);
        let kept = kept.to_str().unwrap();
        audit(broker, "verify", &["--checkpoint", kept]).run().ended_with(code).stderr
    };
    assert!(verified(b"", 2).contains("it is empty"));
    let long = "a line\n".repeat(20_000);
    let unsigned = note.split_once("\n\n").unwrap().0;
    for text in ["a text", "\n\n", unsigned, &long, note.trim_end()] {
        let said = verified(text.as_bytes(), 2);
        assert!(said.contains("it is no signed note"), "{said}");
        assert!(said.contains("tmpcred broker audit checkpoint --out"), "{said}");
    }
    verified(b"\xff\xfe\n\n", 2);
    // A note that does not fit is what it was.
    let other = note.replacen("\n3\n", "\n2\n", 1);
    assert_ne!(other, note);
    assert!(verified(other.as_bytes(), 9).contains("its signature is not that"));
    let stranger = note.replace("127.0.0.1", "192.0.2.1");
    assert!(verified(stranger.as_bytes(), 9).contains("no key of this broker has signed it"));
    verified(note.as_bytes(), 0);
}
