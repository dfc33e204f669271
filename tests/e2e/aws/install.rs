//! `config install aws`: AWS's own tools get their credentials here.

use std::fs;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;

use super::*;
use crate::support::identity_center::IdentityCenter;
use crate::support::run::Output;

const INSTALL: &[&str] = &["config", "install", "aws", "--yes"];
const UNDO: &[&str] = &["config", "install", "aws", "--undo", "--yes"];

/// Somebody with two profiles of AWS, and one of a broker.
fn world(server: &str) -> World {
    let mut world = World::start();
    world.profile("prod", ROLE, server, "");
    world.profile("stage", ROLE, server, "");
    world.add("\n[broker.b]\nurl = \"https://broker.example.com\"\n\n[profile.other]\nrole = \"x\"\naudience = \"y\"\ntarget = { type = \"broker\" }\n");
    world
}

fn read(world: &World) -> String {
    fs::read_to_string(world.home.path(".aws/config")).unwrap()
}

#[track_caller]
fn refused(output: Output, code: i32, says: &[&str]) {
    let output = output.ended_with(code);
    for part in says {
        assert!(output.stderr.contains(part), "{part:?} is not in:\n{}", output.stderr);
    }
}

#[test]
fn the_aws_cli_and_boto3_find_what_was_installed() {
    let moto = Moto::start(1);
    let world = world(moto.url());
    let before = "[profile mine]\nregion = eu-west-1\n";
    world.home.write(".aws/config", before);
    world.tmpcred(&["login"]).run().ok();
    let output = world.tmpcred(INSTALL).run().ok();
    for line in ["--- ", "@@ -2,0 +3,", "+# >>> tmpcred >>>", "+[profile prod]", "+[profile stage]"]
    {
        assert!(output.stdout.lines().any(|l| l.starts_with(line)), "{line}: {}", output.stdout);
    }
    assert!(!output.stdout.contains("mine"), "what is not changed is not shown: {}", output.stdout);
    assert!(output.stderr.contains("has been written"), "{}", output.stderr);
    let text = read(&world);
    assert!(text.starts_with(before) && !text.contains("other"), "{text}");

    let cli = |profile: &str| {
        let cli = aws_cli(&world.home, moto.url()).env("AWS_PROFILE", profile).args(IDENTITY);
        cli.run().ok().json()["Arn"].as_str().unwrap().to_string()
    };
    let arn = "arn:aws:sts::123456789012:assumed-role/deploy/tmpcred-alice";
    assert_eq!((cli("prod").as_str(), cli("stage").as_str()), (arn, arn));
    let script = "import boto3, sys\n\
        session = boto3.Session(profile_name='prod')\n\
        print(session.region_name, sorted(session.available_profiles))\n\
        print(session.client('sts', endpoint_url=sys.argv[1]).get_caller_identity()['Arn'])";
    let python = world.home.command(python_program("python3")).args(["-c", script, moto.url()]);
    let said = python.run().ok().stdout;
    assert_eq!(said.trim(), format!("eu-central-1 ['mine', 'prod', 'stage']\n{arn}"));

    // Again, nothing; one less; and all of it undone.
    let again = world.tmpcred(INSTALL).run().ok();
    assert_eq!(again.stdout, "");
    assert!(again.stderr.contains("nothing is to be changed"), "{}", again.stderr);
    assert_eq!(read(&world), text);
    world.tmpcred(&[INSTALL, &["--profile", "stage"]].concat()).run().ok();
    assert!(!read(&world).contains("[profile prod]"));
    let undone = world.tmpcred(UNDO).run().ok();
    assert!(undone.stdout.contains("\n-[profile stage]\n"), "{}", undone.stdout);
    assert_eq!(read(&world), before);
    world.tmpcred(UNDO).run().ok();
    assert_eq!(read(&world), before);
}

#[test]
fn profiles_of_identity_center_are_installed_as_well() {
    let moto = Moto::start(1000);
    let center = IdentityCenter::start(Some(moto.url()));
    let mut home = Home::new();
    Browser::http().install(&mut home);
    home.set("TMPCRED_NO_INPUT", "false");
    home.config(&format!(
        "[cache]\nstore = \"kernel\"\n\n[identity.corp]\ntype = \"aws-sso\"\nstart_url = \"{}\"\n\
         region = \"us-east-1\"\nendpoint_url = \"{}\"\n\n[profile.prod]\nrole = \"Admin\"\n\
         target = {{ type = \"aws-sso\", account_id = \"111122223333\", region = \"eu-central-1\" }}\n",
        center.start_url(),
        center.url(),
    ));
    tmpcred(&home).args(["login"]).run().ok();
    tmpcred(&home).args(INSTALL).run().ok();
    let text = fs::read_to_string(home.path(".aws/config")).unwrap();
    for line in ["[profile prod]", "region = eu-central-1"] {
        assert!(text.lines().any(|is| is == line), "{line}: {text}");
    }
    let me = aws_cli(&home, moto.url()).env("AWS_PROFILE", "prod").args(IDENTITY).run().ok().json();
    let arn = me["Arn"].as_str().unwrap();
    assert!(arn.contains("assumed-role/AWSReservedSSO_Admin_"), "{arn}");
}

#[test]
fn the_tools_read_the_configuration_that_is_named_now() {
    let moto = Moto::start(1);
    let world = world(moto.url());
    let usual = world.home.path(".config/tmpcred/config.toml");
    let text = fs::read_to_string(&usual).unwrap();
    fs::remove_file(&usual).unwrap();
    for (name, named) in
        [("work/plain.toml", "plain.toml"), ("work/a place/b.toml", "a place/b.toml")]
    {
        world.home.write(name, &text);
        world.tmpcred(&["login"]).env("TMPCRED_CONFIG", named).run().ok();
        world.tmpcred(INSTALL).env("TMPCRED_CONFIG", named).run().ok();
        let file = world.home.path(name).display().to_string();
        assert!(read(&world).contains(&format!("TMPCRED_CONFIG={file}")), "{}", read(&world));
        // They are started elsewhere, and without the variable.
        let elsewhere = world.home.directory("elsewhere");
        let cli = aws_cli(&world.home, moto.url()).env("AWS_PROFILE", "prod").args(IDENTITY);
        let arn = cli.current_dir(&elsewhere).run().ok().json()["Arn"].clone();
        assert_eq!(arn, "arn:aws:sts::123456789012:assumed-role/deploy/tmpcred-alice");
        let script = "import boto3, sys\n\
            session = boto3.Session(profile_name='prod')\n\
            print(session.client('sts', endpoint_url=sys.argv[1]).get_caller_identity()['Arn'])";
        let python = world.home.command(python_program("python3"));
        let python = python.args(["-c", script, moto.url()]).current_dir(&elsewhere);
        assert_eq!(python.run().ok().stdout.trim(), arn.as_str().unwrap());
    }
    let odd = world.home.write("work/$a.toml", &text);
    refused(world.tmpcred(INSTALL).env("TMPCRED_CONFIG", odd).run(), 3, &["special characters"]);
}

#[test]
fn what_only_a_project_has_is_not_installed() {
    let world = world("https://sts.example.com");
    let project = world.home.write(
        "project/.tmpcred.toml",
        "[profile.ours]\nextends = \"prod\"\n[profile.prod.target]\ntype = \"aws\"\nregion = \"us-west-2\"\n",
    );
    let dir = project.parent().unwrap();
    let trust = ["config", "trust", project.to_str().unwrap()];
    world.tmpcred(&trust).run().ok();
    world.tmpcred(&["explain", "ours"]).current_dir(dir).run().ok();
    let named = [INSTALL, &["--profile", "ours"]].concat();
    let says = ["only this project has the profile ours", "from every directory"];
    refused(world.tmpcred(&named).current_dir(dir).run(), 3, &says);
    world.tmpcred(INSTALL).current_dir(dir).run().ok();
    let text = read(&world);
    assert!(text.contains("[profile prod]") && !text.contains("ours"), "{text}");
    assert!(!text.contains("us-west-2"), "{text}");
    // The same as from elsewhere.
    let again = world.tmpcred(INSTALL).run().ok();
    assert!(again.stderr.contains("nothing is to be changed"), "{}", again.stderr);
}

#[test]
fn the_file_keeps_its_mode_and_its_link_and_goes_where_it_was_made() {
    let world = world("https://sts.example.com");
    let own = world.home.path(".aws/config");
    world.tmpcred(INSTALL).run().ok();
    assert_eq!(own.metadata().unwrap().permissions().mode() & 0o777, 0o600);
    let undone = world.tmpcred(UNDO).run().ok();
    assert!(undone.stdout.contains("+++ /dev/null"), "{}", undone.stdout);
    assert!(!own.exists());
    // Kept elsewhere, as by those who keep their settings in a repository.
    let kept = world.home.write("settings/aws", "region = x");
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o640)).unwrap();
    symlink("../settings/aws", &own).unwrap();
    world.tmpcred(INSTALL).run().ok();
    assert!(own.is_symlink());
    assert_eq!(kept.metadata().unwrap().permissions().mode() & 0o777, 0o640);
    assert!(read(&world).contains("\n# >>> tmpcred, behind a line"), "{}", read(&world));
    world.tmpcred(UNDO).run().ok();
    assert_eq!(read(&world), "region = x");
    let names = |dir: &Path| fs::read_dir(dir).unwrap().count();
    assert_eq!((names(own.parent().unwrap()), names(kept.parent().unwrap())), (1, 1));
    // The file that the tools are told to read is the one that counts.
    let other = world.home.path("other");
    world.tmpcred(INSTALL).env("AWS_CONFIG_FILE", &other).run().ok();
    assert!(fs::read_to_string(&other).unwrap().contains("[profile prod]"));
    assert_eq!(read(&world), "region = x");
}

#[test]
fn what_would_be_in_the_way_is_named_and_nothing_is_changed() {
    let mut world = world("https://sts.example.com");
    let before = "# x\n[profile prod]\nregion = x\n";
    world.home.write(".aws/config", before);
    let config = ".aws/config cannot be changed";
    let says = [config, "the profile prod is there already", "line 2: [profile prod]"];
    refused(world.tmpcred(INSTALL).run(), 3, &says);
    let canary = Canary::new("long-lived key");
    let keys = format!("[x]\n[stage]\naws_secret_access_key = {}\n", canary.value());
    world.home.write(".aws/credentials", keys);
    let stage = [INSTALL, &["--profile", "stage"]].concat();
    let output = world.tmpcred(&[&["-vv"], &stage[..]].concat()).env("TMPCRED_LOG", "trace").run();
    let said = output.stdout.clone() + &output.stderr;
    refused(output, 3, &["keys of another profile stage", ".aws/credentials, line 2"]);
    assert_eq!(canary.search("what was said", said.as_bytes()), []);
    let other = [INSTALL, &["--profile", "other"]].concat();
    refused(world.tmpcred(&other).run(), 2, &["other yields no credentials of AWS"]);
    let none = [INSTALL, &["--profile", "none"]].concat();
    refused(world.tmpcred(&none).run(), 3, &["none"]);
    assert_eq!(read(&world), before);
    // Nobody is there to say yes.
    fs::remove_file(world.home.path(".aws/credentials")).unwrap();
    world.home.write(".aws/config", "# mine\n");
    let ask = &["config", "install", "aws"];
    world.home.set("TMPCRED_NO_INPUT", "true");
    refused(world.tmpcred(ask).run(), 2, &["nobody may be asked", "say --yes"]);
    assert_eq!(read(&world), "# mine\n");
    // Nothing was said, and that is no yes.
    world.home.set("TMPCRED_NO_INPUT", "false");
    for answer in ["", "n\n", "yess\n"] {
        let output = world.tmpcred(ask).stdin(answer).run().ok();
        assert!(output.stderr.contains("nothing has been changed"), "{}", output.stderr);
        assert_eq!(read(&world), "# mine\n");
    }
    world.tmpcred(ask).stdin("y\n").run().ok();
    assert!(read(&world).contains("[profile prod]"));
}
