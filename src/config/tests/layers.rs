//! Files and what can be wrong with them, and the layers they make.

use std::ffi::OsString;
use std::fs;
use std::path::Path;

use super::{World, shown};
use crate::config::{Layer, MAX_BYTES, check, layers, load, read_file, read_str};
use crate::error::ErrorKind;
use crate::host::env::Env;
use crate::identity;
use crate::mint;

/// What loading a world with this user configuration says.
fn complaint(bytes: impl AsRef<[u8]>) -> String {
    let world = World::new();
    world.write("config.toml", bytes);
    let error = load(&world.host).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    world.neutral(&shown(&error))
}

#[test]
fn no_file_at_all_is_fine() {
    let config = load(&World::new().host).unwrap();
    assert!(config.profiles.is_empty() && config.identities.is_empty());
    assert!(load(&World::with("").host).is_ok());
    assert!(load(&World::with("# nothing\n").host).is_ok());
}

#[test]
fn what_is_no_text_is_told() {
    assert!(
        complaint(b"a = 1\nb = '\xff'\n").contains("DIR/config.toml is not a text file: line 2")
    );
    assert!(complaint(b"\x7fELF\0\0").contains("zero bytes"));
    assert!(complaint([0xff, 0xfe, b'a', 0]).contains("UTF-16"));
    assert!(complaint([0xfe, 0xff, 0, b'a']).contains("UTF-16"));
}

#[test]
fn a_huge_file_is_told_without_being_shown() {
    let said = complaint(vec![b'#'; MAX_BYTES as usize + 1]);
    assert!(said.contains("DIR/config.toml is too large"), "{said}");
    let said = complaint(format!("x = '{}'", "y".repeat(1_000_000)));
    assert!(said.contains("--> DIR/config.toml:1:1\n") && said.len() < 1000, "{said}");
    let said = complaint("[x".repeat(500_000));
    assert!(said.contains("DIR/config.toml:1:") && said.len() < 1000, "{said}");
    let said = complaint("a=0\n".repeat(200_000));
    assert!(said.contains("duplicate key") && said.len() < 1000, "{said}");
}

#[test]
fn a_directory_instead_of_a_file_is_told() {
    let world = World::new();
    fs::create_dir(world.path("config.toml")).unwrap();
    let error = load(&world.host).unwrap_err();
    assert!(error.to_string().contains("it is a directory"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[cfg(unix)]
#[test]
fn a_file_that_cannot_be_read_is_told() {
    // A loop of links cannot be opened by anybody, not even by root.
    let world = World::new();
    std::os::unix::fs::symlink("config.toml", world.path("config.toml")).unwrap();
    let error = load(&world.host).unwrap_err();
    assert!(error.to_string().contains("cannot read"), "{error}");
    assert_eq!(error.kind(), ErrorKind::Config);
}

#[cfg(unix)]
#[test]
fn files_that_others_could_have_written_are_refused() {
    for name in ["config.toml", "system.toml"] {
        let world = World::new();
        world.write(name, "");
        world.mode(name, 0o666);
        let said = world.neutral(&shown(&load(&world.host).unwrap_err()));
        assert!(said.contains(&format!("chmod go-w DIR/{name}")), "{said}");
        world.mode(name, 0o644);
        load(&world.host).unwrap();
        #[cfg(target_os = "linux")]
        {
            crate::host::test_user::assert_root();
            std::os::unix::fs::chown(world.path(name), Some(4321), None).unwrap();
            let said = world.neutral(&shown(&load(&world.host).unwrap_err()));
            assert!(said.contains("belongs to somebody else"), "{said}");
        }
    }
    let world = World::new();
    world.write("broker.toml", "");
    world.mode("broker.toml", 0o602);
    assert!(read_file::<toml::Table>(&world.path("broker.toml")).is_err());
}

#[test]
fn a_named_file_must_exist() {
    let mut world = World::new();
    let path = world.path("elsewhere.toml");
    world.host.dirs.user_config = path.clone();
    load(&world.host).unwrap();
    let world = world.set("TMPCRED_CONFIG", path.to_str().unwrap());
    let said = world.neutral(&shown(&load(&world.host).unwrap_err()));
    assert!(said.contains("there is no DIR/elsewhere.toml"), "{said}");
    assert!(said.contains("TMPCRED_CONFIG"), "{said}");
}

#[test]
fn both_files_are_complained_about_at_once() {
    let world = World::with("x = 1 2\n");
    world.write("system.toml", "\n[a\n");
    let said = world.neutral(&shown(&load(&world.host).unwrap_err()));
    assert!(said.contains("DIR/config.toml:1:5") && said.contains("DIR/system.toml:2:3"), "{said}");
}

#[test]
fn paths_are_relative_to_the_file_they_are_written_in() {
    let identity = "type = 'oidc'\nissuer = 'https://a.example'\nclient_id = 'x'\n";
    let world = World::with(&format!("[identity.here]\n{identity}ca_file = 'ca.pem'\n"));
    let world = world.set("HOME", "/home/me");
    world.write(
        "system.toml",
        format!(
            "[identity.home]\n{identity}ca_file = '~/ca.pem'\n\
             [identity.there]\n{identity}ca_file = '/etc/ca.pem'\n"
        ),
    );
    let config = load(&world.host).unwrap();
    for (name, path) in [
        ("here", world.path("ca.pem")),
        ("home", "/home/me/ca.pem".into()),
        ("there", "/etc/ca.pem".into()),
    ] {
        let identity::Settings::Oidc(settings) = &config.identities[name] else { unreachable!() };
        assert_eq!(settings.ca_file.as_deref(), Some(path.as_path()), "{name}");
    }
}

#[test]
fn places_are_written_as_a_person_would() {
    let world = World::with("\n[profile.a]\nrole = 'r'\n");
    let home = world.path("");
    let world = world.set("HOME", home.to_str().unwrap());
    let config = load(&world.host).unwrap();
    assert_eq!(config.origin(&["profile", "a", "role"]).to_string(), "~/config.toml:3");
    assert_eq!(config.origin(&["profile", "a", "ttl"]).to_string(), "built-in");
}

#[test]
fn the_environment_is_a_layer_above_the_files() {
    let world =
        World::with("default_profile = 'a'\n[cache]\nstore = 'auto'\n[profile.a]\n[profile.b]\n")
            .set("TMPCRED_DEFAULT_PROFILE", "b")
            .set("TMPCRED_CACHE_STORE", "memory")
            // What a run above left for its child is no setting.
            .set("TMPCRED_ROLE", "admin")
            .set("TMPCRED_TOKEN", "t")
            .set("TMPCRED_ACTIVE_PROFILE", "zzz")
            .set("TMPCRED_EXPIRES_AT", "zzz");
    let config = load(&world.host).unwrap();
    assert_eq!(config.default_profile.as_deref(), Some("b"));
    assert_eq!(config.cache.store, crate::cache::StoreChoice::Memory);
    assert_eq!(config.origin(&["cache", "store"]).to_string(), "TMPCRED_CACHE_STORE");
    assert_eq!(config.environment_profile, None);
}

#[cfg(unix)]
#[test]
fn a_variable_that_is_no_text_is_told() {
    use std::os::unix::ffi::OsStringExt;
    for name in ["TMPCRED_PROFILE", "TMPCRED_CACHE_STORE"] {
        let mut world = World::new();
        world.host.env =
            Env::from_pairs([(OsString::from(name), OsString::from_vec(vec![b'a', 0xff]))]);
        let error = load(&world.host).unwrap_err();
        assert!(error.to_string().contains(name), "{error}");
    }
}

#[test]
fn only_checking_minds_what_a_profile_lacks() {
    let world = World::with("[profile.a]\n[profile.b]\nextends = 'c'\n[profile.c]\nrole = 'r'\n");
    load(&world.host).unwrap();
    let said = world.neutral(&shown(&check(&world.host).unwrap_err()));
    for part in ["`a` has no role", "`a` has no audience", "`b` has no audience", "config.toml:2:1"]
    {
        assert!(said.contains(part), "{part}: {said}");
    }
    assert!(!said.contains("profile `c`") && !said.contains("`b` has no role"), "{said}");
}

#[test]
fn the_layers_are_named() {
    let world = World::with("");
    world.write("checkout/.tmpcred.toml", "");
    let all: Vec<_> =
        layers(&world.host).into_iter().map(|l| (l.layer, l.path, l.exists)).collect();
    assert_eq!(
        all,
        [
            (Layer::System, world.path("system.toml"), false),
            (Layer::User, world.path("config.toml"), true),
            (Layer::Project, world.path("checkout/.tmpcred.toml"), true),
        ]
    );
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Other {
    listen: std::net::SocketAddr,
    key_file: std::path::PathBuf,
    #[serde(default)]
    mode: Mode,
    #[serde(default)]
    nested: Vec<Nested>,
    size: Option<u64>,
    ratio: Option<f64>,
    pair: Option<(u8, String)>,
    letter: Option<char>,
}

#[derive(Debug, Default, PartialEq, serde::Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Mode {
    #[default]
    Plain,
    Sealed {
        key: String,
    },
    Wrapped(u8),
}

#[derive(Debug, PartialEq, serde::Deserialize)]
#[serde(tag = "kind", rename_all = "kebab-case", deny_unknown_fields)]
enum Nested {
    One { x: u8 },
    Two,
}

/// Other programs' types, with all that serde has, are read like our own.
#[test]
fn any_type_can_be_read() {
    let world = World::new();
    world.write(
        "broker.toml",
        "listen = '127.0.0.1:80'\nkey_file = 'k'\nmode = { sealed = { key = 'x' } }\nsize = 0xffff_ffff_ffff_ffff\n\
         ratio = 0.5\npair = [1, 'a']\nletter = 'z'\n[[nested]]\nkind = 'one'\nx = 1\n[[nested]]\nkind = 'two'\n",
    );
    let other: Other = read_file(&world.path("broker.toml")).unwrap();
    let expected = Other {
        listen: "127.0.0.1:80".parse().unwrap(),
        key_file: world.path("k"),
        mode: Mode::Sealed { key: "x".into() },
        nested: vec![Nested::One { x: 1 }, Nested::Two],
        size: Some(u64::MAX),
        ratio: Some(0.5),
        pair: Some((1, "a".into())),
        letter: Some('z'),
    };
    assert_eq!(other, expected);
    let error = read_file::<Other>(Path::new("/nonexistent/b.toml")).unwrap_err();
    assert!(error.to_string().contains("there is no /nonexistent/b.toml"), "{error}");
}

#[test]
fn errors_of_any_type_know_their_place() {
    let good = "listen = '127.0.0.1:80'\nkey_file = 'k'\n";
    for (text, place, says) in [
        ("mode = 'plian'", "3:8", "`mode` cannot be `plian`"),
        ("mode = { sealde = 1 }", "3:10", "cannot be `sealde`"),
        ("mode = { sealed = { } }", "3:19", "`mode.sealed` has no `key`"),
        ("mode = { wrapped = 256 }", "3:20", "from 0 to 255"),
        ("mode = 5", "3:8", "this is the number 5"),
        ("[[nested]]\nkind = 'one'\nx = 1\ny = 2", "6:1", "unknown key `y` in `nested[0]`"),
        ("[[nested]]\nkind = 'three'", "4:8", "`nested[0].kind` cannot be `three`"),
        ("[[nested]]\nx = 1", "3:1", "has no `kind`"),
        ("pair = [1, 'a', 2]", "3:8", "`pair` must have 2 items"),
        ("pair = [1]", "3:8", "tuple of size 2"),
        ("size = -1", "3:8", "this is the number -1"),
        ("letter = 'zz'", "3:10", "a character"),
        ("ratio = nan\nsize = 1.5", "4:8", "the number 1.5"),
    ] {
        let error = read_str::<Other>("b.toml", &format!("{good}{text}\n")).unwrap_err();
        let said = shown(&error);
        assert!(said.contains(&format!("--> b.toml:{place}\n")), "{text}: {said}");
        assert!(said.contains(says), "{text}: {said}");
    }
}

#[test]
fn of_very_many_errors_some_are_shown() {
    let profiles = |line: fn(usize) -> String| {
        (0..3000).map(|i| format!("[profile.p{i}]\n{}\n", line(i))).collect::<String>()
    };
    for text in [
        profiles(|_| "rol = 'r'".into()),
        profiles(|i| format!("extends = 'q{i}'")),
        profiles(|_| "env = { A = '{', B = '}', C = '{x}' }".into()),
    ] {
        let said = complaint(text);
        assert!(said.starts_with("error: the configuration has 20 errors or more\n"), "{said}");
        assert_eq!(said.matches("--> ").count(), 20, "{said}");
    }
}

#[test]
fn a_profile_that_can_never_run_is_complained_about() {
    let sso = |exchange: &str| {
        format!(
            "[identity.people]\ntype = 'aws-sso'\nstart_url = 'https://x.awsapps.com/start'\n\
             region = 'us-east-1'\n[broker.main]\nurl = 'https://b.example'\n\
             [profile.p]\nrole = 'Admin'\n{exchange}\
             target = {{ type = 'aws-sso', account_id = '111122223333' }}\n"
        )
    };
    let step = "exchange = [{ role = 'x', audience = 'https://b.example' }]\n";
    let said = shown(&check(&World::with(&sso(step)).host).unwrap_err());
    assert!(said.contains("a session at IAM Identity Center cannot be exchanged"), "{said}");
    check(&World::with(&sso("exchange = []\n")).host).unwrap();
    check(&World::with(&sso("")).host).unwrap();
}

#[test]
fn names_of_ones_own_that_end_like_a_path_are_none() {
    let world = World::with(
        "[identity.env]\ntype = 'oidc'\nissuer = 'https://a.example'\nclient_id = 'x'\n\
         ca_file = 'ca.pem'\nlogin_parameters = { x_file = 'y' }\n\
         [profile.tags]\nrole = 'arn:aws:iam::111122223333:role/x'\nidentity = 'keys'\n\
         env = { auth_file = 'Bearer {token}' }\n\
         [profile.tags.target]\ntype = 'aws'\npolicy_file = 'p.json'\ntags = { of_file = 'z' }\n\
         [identity.keys]\ntype = 'aws-keys'\n",
    );
    let config = load(&world.host).unwrap();
    let profile = &config.profiles["tags"];
    assert_eq!(profile.env["auth_file"], "Bearer {token}");
    let identity::Settings::Oidc(settings) = &config.identities["env"] else { unreachable!() };
    assert_eq!(settings.login_parameters["x_file"], "y");
    assert_eq!(settings.ca_file.as_deref(), Some(world.path("ca.pem").as_path()));
    let mint::Settings::Aws(target) = &profile.target.as_ref().unwrap().0 else { unreachable!() };
    assert_eq!(target.tags["of_file"], "z");
    assert_eq!(target.policy_file.as_deref(), Some(world.path("p.json").as_path()));
}
