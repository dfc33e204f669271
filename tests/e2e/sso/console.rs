//! Signing in to the console of AWS, by a link that one browser gets once.

use super::*;
use crate::support::home::assert_root;

/// Where the stand-in turns credentials into a link.
fn signin(world: &World) -> String {
    format!("\n[console]\nendpoint_url = \"{}/federation\"\n", world.center.url())
}

/// Profiles that need no other identity, and nothing else to sign in with.
fn configure(world: &World) {
    let config = config(&world.center);
    let config = config.replace("[profile.prod]", "[profile.prod]\nidentity = \"corp\"");
    world.home.config(&(config + &signin(world)));
    world.tmpcred(&["login", "corp"]).run().ok();
}

#[test]
fn the_console_opens_signed_in() {
    let moto = Moto::start(1000);
    let provider = OidcProvider::start();
    let world = World::with(Some(moto.url()), Home::new(), Browser::http());
    let own = world.home.write_program(
        "firefox",
        &format!(
            "#!/bin/sh\nprintf '%s\\n' \"$@\" > {}\nfor page; do :; done\nexec {} \"$page\"\n",
            world.home.path("arguments").display(),
            world.home.path("bin/browser").display(),
        ),
    );
    let config =
        config(&world.center).replace("[profile.prod]", "[profile.prod]\nidentity = \"corp\"");
    let config = config.replace("[profile.dev]", "[profile.dev]\nidentity = \"corp\"");
    let oidc = format!(
        "\n[identity.people]\ntype = \"oidc\"\nissuer = \"{}\"\nclient_id = \"cli\"\naudience_parameter = \"none\"\n\
         \n[profile.web]\nidentity = \"people\"\nrole = \"arn:aws:iam::123456789012:role/deploy\"\n\
         target = {{ type = \"aws\", endpoint_url = \"{}\", region = \"eu-west-1\" }}\n",
        provider.issuer(),
        moto.url()
    );
    let console = signin(&world);
    world.home.config(&format!("{config}{oidc}{console}"));
    world.tmpcred(&["login", "corp"]).run().ok();

    // The default browser; each with the page of a service.
    world.tmpcred(&["console", "prod", "--service", "s3"]).run().ok();
    let visit = world.browser.wait_for_visits(2);
    assert!(visit.text.contains("signed in as arn:aws:sts::111122223333:"), "{}", visit.text);
    assert!(
        visit.text.ends_with("console.aws.amazon.com/s3/home?region=eu-central-1"),
        "{}",
        visit.text
    );
    // What the browser was given leads there once, and holds no secret.
    let opened = world.browser.opened().remove(1);
    assert_eq!(opened.host_str(), Some("127.0.0.1"));
    assert!(opened.query().is_none() && !opened.as_str().contains("SigninToken"));

    // The same for a target of another type, printed.
    world.tmpcred(&["login", "people"]).run().ok();
    let printed = world.tmpcred(&["console", "web", "--url", "--region", "eu-north-1"]).run().ok();
    let url = url::Url::parse(printed.stdout.trim()).unwrap();
    let names: Vec<_> = url.query_pairs().map(|(name, _)| name.into_owned()).collect();
    assert_eq!(names, ["Action", "Destination", "SigninToken"]);
    let visit = Browser::http().visit(&world.home, url.as_str());
    assert!(visit.text.contains("assumed-role/deploy/"), "{}", visit.text);
    assert!(visit.text.ends_with("console/home?region=eu-north-1"), "{}", visit.text);
    let asked = world.center.log();
    let federation = asked.iter().filter(|entry| entry["path"] == "/federation");
    let asked: Vec<_> = federation.filter(|entry| entry["method"] == "POST").collect();
    assert!(asked.len() == 2 && asked.iter().all(|entry| entry["duration"].is_null()));

    // A browser profile for each profile.
    let console = format!("{console}browser = \"{}\"\n", own.display());
    world.home.config(&format!("{config}{oidc}{console}"));
    world.tmpcred(&["console", "dev"]).run().ok();
    let visit = world.browser.wait_for_visits(4);
    assert!(visit.text.contains("signed in as arn:aws:sts::444455556666:"), "{}", visit.text);
    let arguments = std::fs::read_to_string(world.home.path("arguments")).unwrap();
    let profile = world.home.path(".local/state/tmpcred/browsers/dev");
    assert!(arguments.starts_with(&format!("--profile\n{}\nhttp://127.0.0.1:", profile.display())));
    assert!(profile.is_dir());

    let refused = world.tmpcred(&["console", "prod", "--no-browser"]).run().ended_with(2);
    assert!(refused.stderr.contains("--url"), "{}", refused.stderr);
    let refused = world.tmpcred(&["console", "prod", "--url", "--service", "s3/../x"]).run();
    refused.ended_with(2);
}

#[test]
fn a_link_that_is_printed_in_a_job_of_buildkite_is_hidden_first() {
    let world = World::start(None);
    configure(&world);
    let agent = "#!/bin/sh\ntest \"$*\" = 'redactor add --format json' && cat >>$HOME/told\n";
    world.home.write_program("buildkite-agent", agent);
    let path = format!("{}:{}", world.home.path("bin").display(), std::env::var("PATH").unwrap());
    let print = world.tmpcred(&["console", "prod", "--url"]);
    let printed = print.env("PATH", path).env("BUILDKITE", "true").run().ok();
    assert_eq!(printed.stderr, "");
    let link = printed.stdout.trim();
    let told = std::fs::read_to_string(world.home.path("told")).unwrap();
    assert!(link.contains("SigninToken=") && told.contains(link), "{told}");
}

/// A browser that comes with the user id of `nobody`, then with root's where `retries`,
/// and writes down which pages it was sent on to.
fn strange_browser(world: &mut World, retries: bool) -> std::path::PathBuf {
    let fetch = "import sys, urllib.request, urllib.error
class Stay(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_): return None
try:
    urllib.request.build_opener(Stay).open(sys.argv[1])
except urllib.error.HTTPError as e:
    print(e.code, e.headers.get('location'))
";
    let fetch = world.home.write("fetch.py", fetch);
    let (fetch, log) = (fetch.display().to_string(), world.home.path("sent-on"));
    let nobody = "setpriv --reuid=65534 --regid=65534 --clear-groups --";
    let ask = format!("/usr/bin/python3 -c \"$(cat {fetch})\" \"$1\" >>{}", log.display());
    let again = if retries { ask.as_str() } else { "" };
    let script = format!("#!/bin/sh\ncd /\n{nobody} {ask}\n{again}\n");
    let browser = world.home.write_program("strange-browser", &script);
    world.home.set("BROWSER", browser);
    log
}

/// What it has written down, once there is as much: the program may end before it has.
fn sent_on(log: &std::path::Path, pages: usize) -> Vec<String> {
    wait_until("what the browser writes down", Duration::from_secs(30), || {
        let text = std::fs::read_to_string(log).unwrap_or_default();
        (text.matches('\n').count() >= pages).then(|| text.lines().map(String::from).collect())
    })
}

#[test]
fn whose_browser_may_sign_in_is_what_it_is_for_logins() {
    assert_root();
    let mut world = World::start(None);
    configure(&world);
    let log = strange_browser(&mut world, true);
    let told = world.tmpcred(&["console", "prod"]).run().ok().stderr;
    assert!(told.contains("another user of this machine (number 65534)"), "{told}");
    assert!(told.contains("`--url`"), "{told}");
    let seen = sent_on(&log, 2);
    assert!(seen[0] == "403 None" && seen[1].starts_with("303 http"), "{seen:?}");

    // Who has become root with `sudo` has a browser of their own.
    std::fs::remove_file(&log).unwrap();
    let log = strange_browser(&mut world, false);
    let console = world.tmpcred(&["console", "prod"]).env("SUDO_UID", "65534").run().ok();
    assert_eq!(console.stderr, "");
    let seen = sent_on(&log, 1);
    assert!(seen[0].starts_with("303 http") && seen[0].contains("SigninToken="), "{seen:?}");
}
