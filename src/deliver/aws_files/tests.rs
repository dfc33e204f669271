use super::*;

fn rest(text: &str) -> String {
    String::from_utf8(without_default(text.as_bytes()).unwrap().to_vec()).unwrap()
}

#[test]
fn only_the_credential_of_the_default_profile_is_taken_out() {
    let config = "# mine\n[default]\nregion = eu-west-1\nRole_Arn=arn:aws:iam::1:role/x\n\
        source_profile : base\ns3 =\n  addressing_style = path\ncredential_process =\n  /bin/x\n\
        output = json\n[profile base]\naws_access_key_id = AKIA\n";
    assert_eq!(
        rest(config),
        "# mine\n[default]\nregion = eu-west-1\ns3 =\n  addressing_style = path\n\
         output = json\n[profile base]\naws_access_key_id = AKIA\n"
    );
    let quoted = "[ profile \"default\" ] # x\r\nsso_session = y\r\nregion = z\r\n";
    assert_eq!(rest(quoted), "[ profile \"default\" ] # x\r\nregion = z\r\n");
    assert!(without_default(b"[default]\nregion = x\n[other]\nrole_arn = y\n").is_none());
}

#[test]
fn whatever_some_reader_takes_for_the_credential_of_the_default_profile_is_taken_out() {
    for (text, left) in [
        // Behind a head, an indented line is a setting; for some also below one with a value.
        ("[default]\n  aws_access_key_id = A\n  region = x\n", "[default]\n  region = x\n"),
        (
            "[default]\n\n  # mine\n\trole_arn = A\n\t  more\n\tregion = x\n",
            "[default]\n\n  # mine\n\tregion = x\n",
        ),
        ("[default]\nregion = x\n  role_arn = A\n", "[default]\nregion = x\n"),
        // What goes on with it goes too, whatever stands in between.
        (
            "[default]\ncredential_process =\n# c\n\n  # d\n  /bin/x\nregion = x\n",
            "[default]\n# c\n\nregion = x\n",
        ),
        // What Python takes for a part of the setting above is no head for it.
        (
            "[default]\nregion = x\n [other]\nrole_arn = A\n[more]\nrole_arn = B\n",
            "[default]\nregion = x\n [other]\n[more]\nrole_arn = B\n",
        ),
        ("[a]\nx = y\n  [default]\n  role_arn = A\n", "[a]\nx = y\n  [default]\n"),
        ("[default]\n[other] x\nrole_arn = A\n", "[default]\n[other] x\n"),
        // Every section inherits from this one there.
        ("[DEFAULT]\nrole_arn = A\n[default]\n", "[DEFAULT]\n[default]\n"),
        ("[profile.default]\nrole_arn = A\n", "[profile.default]\n"),
        ("[default]\rrole_arn = A\rregion = x\r", "[default]\rregion = x\r"),
    ] {
        assert_eq!(rest(text), left, "{text:?}");
        assert!(without_default(left.as_bytes()).is_none(), "{text:?}");
    }
    // A file that is indented all over.
    let other = b"  [default]\n  region = x\n  [other]\n  role_arn = A\n";
    assert!(without_default(other).is_none());
}

#[test]
fn what_is_taken_out_joins_nothing_to_the_default_profile() {
    let text = b"[default]\nrole_arn = A\nregion = x\n[keys]\naws_secret_access_key = s\n  \
        [other]\n[last]\n";
    assert_eq!(stand_in(text).unwrap().as_slice(), b"[default]\nregion = x\n[last]\n");
}

#[test]
fn botocore_finds_no_keys_of_boto_either() {
    let dir = tempfile::tempdir().unwrap();
    let (home, out) = (dir.path().to_str().unwrap(), dir.path().join("out"));
    let env = Env::from_pairs([("HOME", home)]);
    let boto = dir.path().join(".boto");
    files::write_private(&boto, b"[GSUtil]\nparallel_composite_upload_threshold = 1M\n").unwrap();
    assert_eq!(stand_ins(&env, &out).unwrap(), []);
    files::write_private(&boto, b"[Credentials]\n AWS_access_key_id : A\n").unwrap();
    let empty = out.join("boto");
    assert_eq!(stand_ins(&env, &out).unwrap(), [(BOTO, empty.clone())]);
    assert_eq!(files::read(&empty, MAX).unwrap().unwrap(), b"");
    // The one that is named counts, and no other.
    let named = env.with(BOTO, "~/none".to_string());
    assert_eq!(stand_ins(&named, &out).unwrap(), []);
    files::write_private(&dir.path().join("none"), b"[DEFAULT]\naws_access_key_id = A").unwrap();
    assert_eq!(stand_ins(&named, &out).unwrap(), [(BOTO, empty)]);
}

#[test]
#[expect(clippy::disallowed_methods, reason = "a test of who may read the file")]
fn files_stand_in_only_where_they_must() {
    let dir = tempfile::tempdir().unwrap();
    let home = dir.path().to_str().unwrap();
    files::write_private(&dir.path().join(".aws/config"), b"[default]\nregion = x\n").unwrap();
    let keys = b"[default]\naws_access_key_id = AKIA\naws_secret_access_key = canary\n\
        # those of others\n[other]\naws_access_key_id = B\nAWS_Secret_Access_Key = canary\n\
        [short]\naws_secret_access_key = s\naws_session_token = t\n[none]\nregion = x\n";
    files::write_private(&dir.path().join("keys"), keys).unwrap();
    let env = Env::from_pairs([("HOME", home), (CREDENTIALS, "~/keys")]);
    let out = dir.path().join("out");
    let written = stand_ins(&env, &out).unwrap();
    assert_eq!(written, [(CREDENTIALS, out.join("credentials"))]);
    let text = files::read_text(&out.join("credentials"), MAX).unwrap().unwrap();
    let expected = "[default]\n# those of others\n[short]\naws_secret_access_key = s\n\
        aws_session_token = t\n[none]\nregion = x\n";
    assert_eq!(text, expected);
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt as _;
        let metadata = std::fs::metadata(out.join("credentials")).unwrap();
        assert_eq!(metadata.permissions().mode() & 0o777, 0o400);
    }
    // Once more, over the copy that nobody can write to.
    stand_ins(&env, &out).unwrap();
}

#[test]
fn keys_are_found_in_a_file_that_is_not_all_in_utf_8() {
    let keys = b"\xef\xbb\xbf[default]\naws_access_key_id = AKIA # J\xfcrgen\nregion = x\n\
        # Gr\xf6\xdfe\n[other]\nnote = \xe9\n";
    assert_eq!(
        without_default(keys).unwrap().as_slice(),
        b"\xef\xbb\xbf[default]\nregion = x\n# Gr\xf6\xdfe\n[other]\nnote = \xe9\n"
    );
}

#[test]
fn a_file_that_cannot_be_looked_through_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (home, out) = (dir.path().to_str().unwrap(), dir.path().join("out"));
    let env = Env::from_pairs([("USERPROFILE", home)]);
    let keys = dir.path().join(".aws/credentials");
    let large = [b"[default]\naws_access_key_id = AKIA\n#", &vec![b'x'; 1 << 22][..]].concat();
    let utf_16: Vec<u8> = "[default]\r\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
    for (bytes, why) in [(large, "is too large"), (utf_16, "is not a text file")] {
        files::write_private(&keys, &bytes).unwrap();
        let error = stand_ins(&env, &out).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains(why), "{error}");
        assert!(error.hints()[0].contains(CREDENTIALS), "{error:?}");
    }
    files::write_private(&keys, b"[default]\naws_access_key_id = AKIA\n").unwrap();
    assert_eq!(stand_ins(&env, &out).unwrap(), [(CREDENTIALS, out.join("credentials"))]);
    files::remove(&keys).unwrap();
    assert_eq!(stand_ins(&env, &out).unwrap(), []);
}

#[test]
fn a_path_that_not_all_read_alike_is_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let (home, out) = (dir.path().to_str().unwrap(), dir.path().join("out"));
    let env = Env::from_pairs([("HOME", home)]);
    files::write_private(&dir.path().join("keys"), b"[default]\nregion = x\n").unwrap();
    for variable in [CONFIG, CREDENTIALS, BOTO] {
        for path in ["$HOME/keys", "${HOME}/keys", "/a/$x", "/$é", "~root/keys", "~x"] {
            let error = stand_ins(&env.clone().with(variable, path.to_string()), &out).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let said = error.to_string();
            assert!(said.contains(variable) && said.contains(path), "{said}");
            let hint = format!("write the whole path into {variable}");
            assert!(error.hints()[0].starts_with(&hint), "{error:?}");
            assert!(error.hints()[1].contains("--on-renew restart"), "{error:?}");
        }
        // For all of them the same, whatever it looks like.
        for path in ["~/keys", "/a/b$", "/a/$/b", "/a/~b", "/$-"] {
            let written = stand_ins(&env.clone().with(variable, path.to_string()), &out).unwrap();
            assert_eq!(written, [], "{path}");
        }
    }
}
