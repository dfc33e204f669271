//! The project's own file: what it may, and what trust is.

use std::fs;
use std::path::{Path, PathBuf};

use super::{World, shown};
use crate::config::{
    Candidate, Project, Standing, load, load_without_project, project_file, untrust,
};
use crate::error::Result;
use crate::plan::{Plan, Request, plan};

const USER: &str = r#"
default_profile = "dev"
[identity.corp]
type = "oidc"
issuer = "https://login.example.com"
client_id = "x"
[broker.main]
url = "https://broker.example.com"
[profile.dev]
role = "dev"
audience = "https://api.example.com"
[profile.staging]
extends = "dev"
project_selectable = true
[profile.prod]
extends = "dev"
"#;

fn world(project: &str) -> World {
    let world = World::with(USER);
    world.write("checkout/.tmpcred.toml", project);
    world
}

fn run(world: &World, profile: Option<&str>) -> Result<Plan> {
    let request = Request { profile: profile.map(String::from), ..Request::default() };
    plan(&request, &load(&world.host)?)
}

fn trust(world: &World, path: &Path) -> Result<()> {
    Candidate::read(&world.host, path)?.trust(&world.host)
}

fn trust_it(world: &World) -> PathBuf {
    let path = project_file(&world.host).unwrap();
    trust(world, &path).unwrap();
    path
}

fn complaint(world: &World, profile: Option<&str>) -> String {
    world.neutral(&shown(&run(world, profile).unwrap_err()))
}

#[test]
fn the_nearest_file_counts() {
    let world = world("profile = 'staging'\n");
    assert_eq!(run(&world, None).unwrap().profile, "staging");
    world.write("checkout/deep/.tmpcred.toml", "");
    assert_eq!(run(&world, None).unwrap().profile, "dev");
}

#[test]
fn where_the_working_directory_is_unknown_there_is_no_project() {
    let mut world = world("profile = 'staging'\n");
    world.host.dirs.working = None;
    assert_eq!(run(&world, None).unwrap().profile, "dev");
}

#[test]
fn what_it_may_not_choose_can_still_be_named() {
    let world = world("profile = 'prod'\n");
    let said = complaint(&world, None);
    assert!(said.contains("DIR/checkout/.tmpcred.toml:1:11"), "{said}");
    assert!(said.contains("project_selectable"), "{said}");
    assert_eq!(run(&world, Some("prod")).unwrap().profile, "prod");
    assert_eq!(run(&world, Some("dev")).unwrap().profile, "dev");
    let world = world.set("TMPCRED_PROFILE", "dev");
    assert_eq!(run(&world, None).unwrap().profile, "dev");
}

#[test]
fn a_file_that_defines_anything_must_be_trusted() {
    for text in [
        "default_profile = 'prod'\n",
        "[profile.prod]\nproject_selectable = true\n",
        "[identity.corp]\nissuer = 'https://evil.example'\n",
        "[broker.main]\nurl = 'https://evil.example'\n",
        "[cache]\nstore = 'memory'\n",
        "profile = 'staging'\n[broker.main]\nurl = 'https://evil.example'\n",
        "profile = 'staging'\nunknown = 1\n",
    ] {
        let world = world(text);
        for profile in [None, Some("dev")] {
            let said = complaint(&world, profile);
            assert!(said.contains("it is not trusted"), "{text}: {said}");
            assert!(said.contains("tmpcred config trust"), "{text}: {said}");
            assert!(said.contains("--> DIR/checkout/.tmpcred.toml:"), "{text}: {said}");
        }
    }
}

#[test]
fn a_trusted_file_is_a_layer() {
    let world = world("profile = 'ours'\n");
    fs::write(
        world.path("checkout/.tmpcred.toml"),
        "default_profile = 'ours'\n[profile.ours]\nextends = 'dev'\nrole = 'ours'\n\
         [broker.main]\nca_file = 'ca.pem'\n",
    )
    .unwrap();
    trust_it(&world);
    let plan = run(&world, None).unwrap();
    assert_eq!((plan.profile.as_str(), plan.request.role.as_str()), ("ours", "ours"));
    let crate::mint::Plan::Broker(server) = plan.target else { panic!("a broker") };
    assert_eq!(server.ca_file, Some(world.path("checkout/ca.pem")));
    assert_eq!(run(&world, Some("prod")).unwrap().profile, "prod");
}

#[test]
fn what_holds_everywhere_is_told_without_the_project() {
    let world = world("[profile.ours]\nextends = 'dev'\n");
    // Where it is not trusted either.
    assert!(load(&world.host).is_err() && load_without_project(&world.host).is_ok());
    trust_it(&world);
    let everywhere = load_without_project(&world.host).unwrap();
    assert_eq!(everywhere.project, Project::Silent);
    assert!(load(&world.host).unwrap().profiles.contains_key("ours"));
    assert!(!everywhere.profiles.contains_key("ours") && everywhere.profiles.contains_key("dev"));
}

#[test]
fn a_trusted_file_may_choose_any_profile() {
    let world = world("profile = 'prod'\n");
    let said = complaint(&world, None);
    assert!(!said.contains("changed"), "{said}");
    trust_it(&world);
    let config = load(&world.host).unwrap();
    let Project::Chooses { standing, .. } = config.project else { panic!("it chooses") };
    assert_eq!(standing, Some(Standing::Trusted));
    assert_eq!(run(&world, None).unwrap().profile, "prod");
    // One that has changed is said to have changed.
    world.write("checkout/.tmpcred.toml", "profile = 'prod' # now\n");
    let said = complaint(&world, None);
    assert!(said.contains("`prod`, and has changed since it was trusted"), "{said}");
    assert!(said.contains("if you trust it as it is"), "{said}");
    world.write("checkout/.tmpcred.toml", "profile = 'staging'\n");
    assert_eq!(run(&world, None).unwrap().profile, "staging", "this one every file may choose");
}

#[cfg(target_os = "linux")]
#[test]
fn a_file_whose_path_is_no_text_cannot_be_trusted_and_it_is_told_what_can_be_done() {
    use std::os::unix::ffi::OsStringExt as _;
    let mut world = World::with(USER);
    let name = std::ffi::OsString::from_vec(b"caf\xe9".to_vec());
    let dir = world.path("checkout").join(name);
    fs::create_dir_all(&dir).unwrap();
    fs::write(dir.join(".tmpcred.toml"), "profile = 'staging'\n").unwrap();
    world.host.dirs.working = Some(dir);
    let path = project_file(&world.host).unwrap();
    let refused = trust(&world, &path).unwrap_err();
    assert!(refused.message().ends_with(".tmpcred.toml cannot be trusted"), "{refused}");
    assert_eq!(refused.causes(), ["its path is not valid Unicode"]);
    let says = ["rename the directory", "`project_selectable`"];
    assert!(refused.hints().iter().zip(says).all(|(hint, says)| hint.contains(says)), "{refused}");
    // For what the hint says no trust is needed.
    assert_eq!(run(&world, None).unwrap().profile, "staging");
}

#[test]
fn trust_ends_with_the_smallest_change() {
    let text = "[profile.ours]\nextends = 'dev'\n";
    let world = world(text);
    trust_it(&world);
    run(&world, Some("ours")).unwrap();
    world.write("checkout/.tmpcred.toml", format!("{text} "));
    let said = complaint(&world, Some("dev"));
    assert!(said.contains("has changed since it was trusted"), "{said}");
    world.write("checkout/.tmpcred.toml", text);
    run(&world, Some("ours")).unwrap();

    world.write("checkout/.tmpcred.toml", "profile = 'prod'\n");
    assert!(run(&world, None).is_err());
}

#[test]
fn trust_ends_with_a_change_of_a_file_that_goes_with_it() {
    let text = "[broker.main]\nca_file = 'certs/ca.pem'\n[profile.dev]\nidentity = 'corp'\n\
        [profile.aws]\nrole = 'x'\n\
        [profile.aws.target]\ntype = 'aws'\n[[profile.aws.target.chain]]\n\
        role_arn = 'arn:aws:iam::123456789012:role/x'\npolicy_file = '../policy.json'\n\
        [profile.aws.env]\nanother_file = 'note'\n\
        [identity.pod]\ntype = 'file'\ntoken_file = 'token'\n\
        [identity.tool]\ntype = 'command'\ncommand = ['python3', 'tool.py', 'nothing']\n";
    let mut world = world(text);
    let all = ["checkout/certs/ca.pem", "policy.json", "checkout/tool.py"];
    all.iter().for_each(|file| world.write(file, "one"));
    trust_it(&world);
    run(&world, Some("dev")).unwrap();
    for file in all {
        world.write(file, "two");
        let said = complaint(&world, Some("dev"));
        assert!(said.contains("which it names, has changed"), "{said}");
        assert!(said.contains(Path::new(file).file_name().unwrap().to_str().unwrap()), "{said}");
        fs::remove_file(world.path(file)).unwrap();
        assert!(complaint(&world, Some("dev")).contains("which it names, has changed"), "{file}");
        world.write(file, "one");
        run(&world, Some("dev")).unwrap();
    }
    // Tokens come and go, and these are no files of the configuration.
    ["token", "note"].iter().for_each(|file| world.write(&format!("checkout/{file}"), "x"));
    run(&world, Some("dev")).unwrap();
    world.write("checkout/nothing", "x");
    assert!(complaint(&world, Some("dev")).contains("nothing, which it names"));
    fs::remove_file(world.path("checkout/nothing")).unwrap();
    // The program is started where its user is, and finds its words there.
    world.write("checkout/deep/tool.py", "other");
    assert!(complaint(&world, Some("dev")).contains("tool.py, which it names"));
    trust_it(&world);
    run(&world, Some("dev")).unwrap();
    world.host.dirs.working = Some(world.path("checkout"));
    run(&world, Some("dev")).unwrap();
    world.write("checkout/deep/tool.py", "third");
    assert!(complaint(&world, Some("dev")).contains("tool.py, which it names"));
}

#[test]
fn trust_ends_when_a_file_comes_that_was_not_there() {
    let world = world("[broker.main]\nca_file = 'ca.pem'\n");
    let path = trust_it(&world);
    let candidate = Candidate::read(&world.host, &path).unwrap();
    let [(file, false)] = candidate.files().collect::<Vec<_>>()[..] else { panic!("one") };
    assert_eq!(file, world.path("checkout/ca.pem"));
    run(&world, Some("dev")).unwrap();
    world.write("checkout/ca.pem", "evil");
    assert!(complaint(&world, Some("dev")).contains("ca.pem, which it names, has changed"));
    trust_it(&world);
    run(&world, Some("dev")).unwrap();
    // What cannot be read as a whole cannot be trusted.
    fs::remove_file(world.path("checkout/ca.pem")).unwrap();
    fs::create_dir(world.path("checkout/ca.pem")).unwrap();
    assert!(trust(&world, &path).unwrap_err().to_string().contains("cannot be trusted"));
}

#[test]
fn trust_of_an_earlier_version_does_not_cover_the_files() {
    let world = world("[broker.main]\nca_file = 'ca.pem'\n");
    trust_it(&world);
    let record = fs::read_dir(world.path("state/trusted")).unwrap().next().unwrap().unwrap().path();
    let mut old: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    old.as_object_mut().unwrap().remove("files").unwrap();
    fs::write(&record, old.to_string()).unwrap();
    assert!(complaint(&world, Some("dev")).contains("ca.pem, which it names, has changed"));
}

#[test]
fn trust_is_for_one_path() {
    let text = "[profile.ours]\nextends = 'dev'\n";
    let world = world(text);
    trust_it(&world);
    world.write("checkout/deep/.tmpcred.toml", text);
    assert!(complaint(&world, None).contains("not trusted"));
}

#[test]
fn trust_can_be_taken_back() {
    let world = world("[profile.ours]\nextends = 'dev'\n");
    let path = trust_it(&world);
    run(&world, Some("ours")).unwrap();
    assert!(untrust(&world.host, &path).unwrap());
    assert!(!untrust(&world.host, &path).unwrap());
    assert!(run(&world, Some("ours")).is_err());
    trust_it(&world);
    fs::remove_file(&path).unwrap();
    assert!(untrust(&world.host, &path).unwrap());
}

#[test]
fn a_broken_record_trusts_nobody() {
    let world = world("[profile.ours]\nextends = 'dev'\n");
    trust_it(&world);
    let folder = world.path("state/trusted");
    let record = fs::read_dir(&folder).unwrap().next().unwrap().unwrap().path();
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        assert_eq!(fs::metadata(&record).unwrap().permissions().mode() & 0o777, 0o600);
    }
    let good = fs::read(&record).unwrap();
    for cut in 0..good.len() {
        fs::write(&record, &good[..cut]).unwrap();
        assert!(run(&world, Some("ours")).is_err());
    }
    fs::write(&record, good).unwrap();
    run(&world, Some("ours")).unwrap();
}

#[test]
fn what_is_no_toml_cannot_be_trusted() {
    let world = world("[profile\n");
    let path = project_file(&world.host).unwrap();
    assert!(trust(&world, &path).unwrap_err().to_string().contains(".tmpcred.toml:1:9"));
    assert!(trust(&world, &world.path("nothing")).is_err());
}

#[test]
fn what_is_no_file_has_no_say() {
    let world = World::with(USER);
    fs::create_dir_all(world.path("checkout/.tmpcred.toml")).unwrap();
    assert!(complaint(&world, None).contains("no regular file"));
    run(&world, Some("dev")).unwrap();
}

#[cfg(target_os = "linux")]
#[test]
fn somebody_elses_file_has_no_say() {
    use std::os::unix::fs::chown;
    crate::host::test_user::assert_root();
    let world = world("profile = 'staging'\n");
    let path = project_file(&world.host).unwrap();
    trust_it(&world);
    chown(&path, Some(4321), Some(4321)).unwrap();
    let said = complaint(&world, None);
    assert!(said.contains("belongs to somebody else"), "{said}");
    assert!(said.contains("name the profile"), "{said}");
    run(&world, Some("dev")).unwrap();
    assert!(trust(&world, &path).is_err());
    // Not even its errors are shown.
    fs::write(&path, "= broken").unwrap();
    run(&world, Some("dev")).unwrap();
}

#[cfg(unix)]
#[test]
fn a_link_to_a_file_that_is_trusted_elsewhere_is_refused() {
    use std::os::unix::fs::symlink;
    let world = world("profile = 'staging'\n");
    let path = project_file(&world.host).unwrap();
    trust_it(&world);
    let elsewhere = world.path("elsewhere.toml");
    fs::rename(&path, &elsewhere).unwrap();
    symlink(&elsewhere, &path).unwrap();
    let said = complaint(&world, None);
    assert!(said.contains("it is a symbolic link"), "{said}");
    assert!(trust(&world, &path).is_err());
}

#[test]
fn what_was_looked_at_is_trusted_and_not_what_took_its_place() {
    let world = world("[profile.ours]\nextends = 'dev'\n");
    let path = project_file(&world.host).unwrap();
    let candidate = Candidate::read(&world.host, &path).unwrap();
    assert!(candidate.text().contains("ours"));
    world.write("checkout/.tmpcred.toml", "[profile.theirs]\nextends = 'dev'\n");
    candidate.trust(&world.host).unwrap();
    assert!(run(&world, Some("theirs")).is_err());
}
