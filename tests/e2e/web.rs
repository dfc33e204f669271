//! The pages of break-glass, in a real browser: Chromium without a window, and people who sign
//! in at a certified OpenID provider.

mod journeys;

use std::path::PathBuf;

use serde_json::{Value, json};

use super::elevation::{Company, ROLE, directory};
use super::support::broker::KEK;
use super::support::home::{Home, tmpcred};
use super::support::oidc_provider::{OidcOptions, OidcProvider};
use super::support::peer::{node_script, program};
use super::support::run::Run;
use super::support::wait::wait_until;

/// How long somebody may take in a browser, on a machine that is busy.
const VISIT: std::time::Duration = std::time::Duration::from_secs(180);

const PAGES: &str = "\n[web]\nissuer = \"corp\"\nclient_id = \"pages\"\n";

/// The variable that names a directory where pictures of the pages are left, for people to
/// look at.
const PICTURES: &str = "TMPCRED_TEST_PICTURES";

/// What bob may besides.
const AUDITOR: &str = r#"
@id("bob-audits")
permit (principal in DirectoryGroup::"leads", action == Action::"administer", resource)
when { context.operation == "audit.read" };
"#;

/// What tokens say besides, which whoever approves gets to see.
const SAYS: &str = r#"
[role.admin.claims]
groups = ["the-company-of-everybody:{directory_groups}", "break-glass"]
"https://cluster.example.com/claims" = { elevation = "{elevation}" }
"#;

fn client(changes: Value) -> Value {
    let mut client = json!({
        "client_id": "pages",
        "token_endpoint_auth_method": "none",
        "application_type": "native",
        "redirect_uris": ["http://127.0.0.1/elevations/callback"],
        "response_types": ["code"],
        "grant_types": ["authorization_code"],
    });
    client.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    client
}

/// A broker with pages, a provider, and people with a browser each.
struct Office {
    company: Company,
    /// Where the browsers keep their cookies.
    home: Home,
}

impl Office {
    fn start() -> Self {
        Self::with(ROLE, PAGES)
    }

    fn with(role: &str, pages: &str) -> Self {
        Self::of(vec![client(json!({}))], role, pages)
    }

    fn of(clients: Vec<Value>, role: &str, pages: &str) -> Self {
        drop(program("chromium"));
        let options = OidcOptions { clients, ..OidcOptions::default() };
        let provider = OidcProvider::start_with(&options);
        let people = ["alice", "bob", "carol", "erin"].map(|name| (name, Home::stranger()));
        let company = Company::at(provider, people.into(), &format!("{role}{pages}"), AUDITOR);
        Self { company, home: Home::new() }
    }

    fn page(&self, path: &str) -> String {
        format!("{}/elevations{path}", self.company.broker.url())
    }

    /// What somebody does in their browser, and what they get to see.
    #[track_caller]
    fn browse(&self, who: &str, steps: Value) -> Vec<Value> {
        let seen = self.visit(who, steps).run().ok().json();
        seen.as_array().unwrap().clone()
    }

    fn visit(&self, who: &str, steps: Value) -> Run {
        let state = self.home.path(format!("{who}.json"));
        let options = json!({ "state": state, "user": who, "steps": steps });
        let node = self.home.command(program("node")).args([node_script("pages.mjs")]);
        node.args([options.to_string()]).limit(VISIT)
    }

    /// Signs somebody in, and returns what they see then.
    #[track_caller]
    fn sign_in(&self, who: &str) -> String {
        let seen = self.browse(who, json!([["goto", self.page("")], ["sign_in", who], ["text"]]));
        text(&seen[0])
    }

    fn request(&self, reason: &str) -> String {
        let asked = self.company.request_because("alice", reason, &[]);
        asked["id"].as_str().unwrap().into()
    }

    fn access(&self, id: &str) -> String {
        let shown = self.company.elevate("alice", &["status", id, "--json"]).ok().json();
        shown["access"].as_str().unwrap().into()
    }

    /// Where a picture goes.
    fn picture(&self, name: &str) -> PathBuf {
        let directory = std::env::var_os(PICTURES).map(PathBuf::from);
        directory.unwrap_or_else(|| self.home.path("")).join(format!("{name}.png"))
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_else(|| panic!("{value}")).to_string()
}

#[test]
fn people_look_approve_end_and_review_in_a_browser() {
    let office = Office::start();
    let id = office.request("INC-4711: the disk is full");
    let waits = office.sign_in("bob");
    assert!(waits.contains("Waiting for you") && waits.contains("the disk is full"), "{waits}");
    let seen = office.browse(
        "bob",
        json!([
            ["goto", office.page("")],
            ["click", "link", "admin for ALICE Example"],
            ["url"],
            ["text"],
            ["fill", "Why (may be left out)", "seen on the board"],
            ["click", "button", "Approve"],
            ["text"],
            ["cookies"],
        ]),
    );
    assert_eq!(text(&seen[0]), office.page(&format!("/{id}")));
    let page = text(&seen[1]);
    for part in [
        "INC-4711: the disk is full",
        "ALICE Example",
        &format!("alice at {}", office.company.provider.issuer()),
        "https://api.example.com",
        "30m",
        "deploy:read",
        "0 of 2",
        "bob, carol, erin",
        "127.0.0.1",
    ] {
        assert!(page.contains(part), "{part}: {page}");
    }
    let after = text(&seen[2]);
    assert!(after.contains("You have approved it.") && after.contains("1 of 2: bob"), "{after}");
    assert!(after.contains("seen on the board"), "{after}");
    for cookie in seen[3].as_array().unwrap() {
        if cookie["name"].as_str().unwrap().starts_with("tmpcred-") {
            assert_eq!((&cookie["httpOnly"], &cookie["sameSite"]), (&true.into(), &"Lax".into()));
            assert_eq!(cookie["name"], "tmpcred-session", "the sign-in is forgotten");
        }
    }
    // Carol has no mouse.
    office.sign_in("carol");
    let seen = office.browse(
        "carol",
        json!([
            ["goto", office.page("")],
            ["tab_to", "Skip to the content"],
            ["press", "Enter"],
            ["tab_to", "admin for ALICE Example"],
            ["enter"],
            ["tab_to", "Why (may be left out)"],
            ["type", "by keyboard"],
            ["tab_to", "Approve"],
            ["enter"],
            ["text"],
        ]),
    );
    let after = text(seen.last().unwrap());
    assert!(after.contains("approved, not begun") && after.contains("by keyboard"), "{after}");
    // Alice, who asked, begins; and may decide nothing.
    office.sign_in("alice");
    let seen = office.browse(
        "alice",
        json!([
            ["goto", office.page("/mine")],
            ["click", "link", "admin for ALICE Example"],
            ["html"],
            ["click", "button", "Begin it now"],
            ["text"],
        ]),
    );
    assert!(!text(&seen[0]).contains("/approve\""), "{}", seen[0]);
    assert!(text(&seen[1]).contains("left of 30m"), "{}", seen[1]);
    office.company.run("alice", &["token", "--role", "admin"]).run().ok();
    // It is among those that are had, with the time that is left, until carol ends it.
    let seen = office.browse(
        "carol",
        json!([
            ["goto", office.page("/active")],
            ["html"],
            ["click", "link", "admin for ALICE Example"],
            ["fill", "Why it has to end", "the incident is over"],
            ["click", "button", "Revoke"],
            ["text"],
        ]),
    );
    assert!(text(&seen[0]).contains("<progress max=\"1800\""), "{}", seen[0]);
    let ended = text(&seen[1]);
    assert!(ended.contains("revoked by CAROL Example: the incident is over"), "{ended}");
    // Who approved does not review; erin does.
    let none = office.browse("bob", json!([["goto", office.page("/reviews")], ["text"]]));
    assert!(text(&none[0]).contains("There is nothing for you to review."), "{}", none[0]);
    office.sign_in("erin");
    let seen = office.browse(
        "erin",
        json!([
            ["goto", office.page("/reviews")],
            ["click", "link", "Review: admin for ALICE Example"],
            ["text"],
            ["check", "is disputed"],
            ["fill", "What you found", "a dump was made"],
            ["click", "button", "Record the review"],
            ["text"],
            ["goto", office.page(&format!("/audit?elevation={id}&action=elevation.review"))],
            ["text"],
            ["fill", "Action", ""],
            ["fill", "Elevation", "nonsense"],
            ["click", "button", "Search"],
            ["text"],
            ["status"],
        ]),
    );
    // There is more to look at than the request.
    let done = text(&seen[0]);
    assert!(done.contains("What was done under it") && done.contains("issued: "), "{done}");
    assert!(text(&seen[1]).contains("disputed by ERIN Example"), "{}", seen[1]);
    let log = text(&seen[2]);
    assert!(log.contains("disputes it: a dump was made") && !log.contains("elevation.request"));
    assert!(text(&seen[3]).contains("The elevation is none"), "{}", seen[3]);
    assert_eq!(seen[4], 400);
    assert_eq!(
        office.company.story(&id),
        [
            "elevation.request alice",
            "elevation.approve bob",
            "elevation.approve carol",
            "elevation.activate alice",
            "issue alice",
            "elevation.revoke carol",
            "elevation.review erin",
        ]
    );
    // Whom no policy lets does not get to read the log, and is not shown the way.
    let seen = office.browse(
        "alice",
        json!([["goto", office.page("")], ["html"], ["goto", office.page("/audit")], ["status"]]),
    );
    assert!(!text(&seen[0]).contains("/audit"), "{}", seen[0]);
    assert_eq!(seen[1], 403);
    let said = office.company.broker.said();
    assert!(!said.contains("panicked"), "{said}");
}

#[test]
fn what_people_write_is_text_and_a_denial_says_why() {
    let office = Office::start();
    let nasty = "INC-1 <script>alert(1)</script><img src=x onerror=alert(2)> \"' \u{202e}gnp.exe";
    let id = office.request(nasty);
    // Whoever could approve is told where.
    let (told, page) = (office.company.broker.home.path("told"), office.page(&format!("/{id}")));
    wait_until("a message with a link", VISIT, || {
        std::fs::read_to_string(&told).is_ok_and(|text| text.contains(&page)).then_some(())
    });
    office.sign_in("bob");
    let seen = office.browse(
        "bob",
        json!([
            ["goto", office.page("")],
            ["text"],
            ["goto", office.page(&format!("/{id}"))],
            ["text"],
            ["html"],
            ["fill", "Why not", "<b>not</b> today"],
            ["click", "button", "Deny"],
            ["text"],
            ["said"],
        ]),
    );
    for page in &seen[..2] {
        let page = text(page);
        assert!(page.contains("<script>alert(1)</script><img src=x onerror=alert(2)>"), "{page}");
        assert!(page.contains("\u{fffd}gnp.exe") && !page.contains('\u{202e}'), "{page}");
    }
    assert!(!text(&seen[2]).contains("<script") && !text(&seen[2]).contains("<img"));
    let after = text(&seen[3]);
    assert!(after.contains("denied by BOB Example: <b>not</b> today"), "{after}");
    assert_eq!(seen[4], json!([]), "nothing was loaded, and nothing was kept from it");
    assert_eq!(office.access(&id), "denied");
}

#[test]
fn a_login_that_is_not_fresh_leads_through_the_provider_and_back() {
    let role =
        ROLE.replace("review_within", "approver_login = { max_age = \"5m\" }\nreview_within");
    let office = Office::with(&role, PAGES);
    let id = office.request("INC-4711");
    office.sign_in("bob");
    let asked = |provider: &OidcProvider| {
        let ages = provider.requests().into_iter().filter_map(|request| request.max_age);
        ages.collect::<Vec<_>>()
    };
    assert!(asked(&office.company.provider).is_empty());
    let seen = office.browse(
        "bob",
        json!([
            ["goto", office.page(&format!("/{id}"))],
            ["text"],
            ["html"],
            ["click", "link", "Sign in again"],
            ["sign_in", "bob"],
            ["url"],
            ["click", "button", "Approve"],
            ["text"],
        ]),
    );
    let before = text(&seen[0]);
    assert!(before.contains("no longer than 5m before"), "{before}");
    assert!(!text(&seen[1]).contains("/approve\""), "{}", seen[1]);
    assert_eq!(text(&seen[2]), office.page(&format!("/{id}")));
    assert!(text(&seen[3]).contains("You have approved it."), "{}", seen[3]);
    assert_eq!(asked(&office.company.provider).first().map(String::as_str), Some("300"));
}

#[test]
fn strangers_and_those_who_were_cut_off_are_told_so() {
    let office = Office::start();
    let stranger = office.sign_in("mallory");
    assert!(stranger.contains("You are not in the directory of people"), "{stranger}");
    let seen = office.browse("mallory", json!([["cookies"]]));
    assert!(!seen[0].to_string().contains("tmpcred-session"), "{}", seen[0]);
    // Bob's session ends with all that was given to him.
    assert!(office.sign_in("bob").contains("Waiting for you"));
    let issuer = office.company.provider.issuer();
    let whose = ["--issuer", issuer, "--subject", "bob", "--reason", "stolen laptop"];
    let revoke = [&["broker", "revoke"][..], &whose].concat();
    let config = office.company.broker.home.path("broker.toml");
    let revoke = tmpcred(&office.company.broker.home).args(revoke).args(["--config"]);
    revoke.args([config]).env("TMPCRED_BROKER_KEK", KEK).run().ok();
    let seen =
        office.browse("bob", json!([["goto", office.page("")], ["text"], ["status"], ["cookies"]]));
    assert!(text(&seen[0]).contains("Your session was ended"), "{}", seen[0]);
    assert_eq!(seen[1], 401);
    assert!(!seen[2].to_string().contains("tmpcred-session"), "{}", seen[2]);
    // Carol's ends once she is not in the directory any more.
    assert!(office.sign_in("carol").contains("Waiting for you"));
    let people = directory(office.company.provider.issuer()).replace("\"carol\"", "\"caroline\"");
    office.company.broker.home.write("people.toml", people);
    office.company.broker.hang_up();
    wait_until("the directory to be read", VISIT, || {
        let seen = office.browse("carol", json!([["goto", office.page("")], ["text"]]));
        text(&seen[0]).contains("You are not in the directory").then_some(())
    });
    // Who signs out is out.
    assert!(office.sign_in("erin").contains("Waiting for you"));
    let seen = office.browse(
        "erin",
        json!([["goto", office.page("")], ["click", "button", "Sign out"], ["text"], ["cookies"],]),
    );
    assert!(text(&seen[0]).contains("You are signed out here."), "{}", seen[0]);
    assert!(!seen[1].to_string().contains("tmpcred-session"), "{}", seen[1]);
}

#[test]
fn other_sites_send_no_forms_and_frame_no_pages() {
    let office = Office::start();
    let id = office.request("INC-4711");
    office.sign_in("bob");
    let page = office.page(&format!("/{id}"));
    let seen = office.browse("bob", json!([["goto", page], ["html"]]));
    let html = text(&seen[0]);
    let field = |name: &str| {
        let (_, rest) = html.split_once(&format!("name=\"{name}\" value=\"")).unwrap();
        rest.split('"').next().unwrap().to_string()
    };
    // The cookie goes along, as it is the same site; and somebody has even seen the page.
    let form = json!({ "hash": field("hash"), "csrf": field("csrf") });
    let seen = office.browse(
        "bob",
        json!([["attack", format!("{page}/approve"), form], ["text"], ["framed", page], ["said"]]),
    );
    assert_eq!(seen[0], 403);
    assert!(text(&seen[1]).contains("none of the broker's"), "{}", seen[1]);
    assert!(!seen[2].to_string().contains("INC-4711"), "{}", seen[2]);
    assert!(seen[3].to_string().contains("frame"), "{}", seen[3]);
    let shown = office.company.elevate("bob", &["status", &id, "--json"]).ok().json();
    assert_eq!((&shown["access"], &shown["approvals"]), (&"pending".into(), &json!([])));
}

#[test]
fn everybody_can_read_and_use_each_page() {
    let role = ROLE
        .replace("[role.admin]\n", "[role.admin]\naws = { tags = { team = \"ops\" } }\n")
        + SAYS;
    let office = Office::with(&role, PAGES);
    let had = office.company.request("alice", &[]);
    let had = had["id"].as_str().unwrap().to_string();
    for name in ["bob", "carol"] {
        office.company.approve(name, &had);
    }
    office.company.elevate("alice", &["status", &had, "--wait"]).ok();
    office.company.elevate("alice", &["relinquish", &had]).ok();
    let waits = office.request("INC-4712: the certificate of the load balancer expires tonight");
    let emergency = ["--reason", "INC-4713: nobody else is there", "--for", "15m", "--emergency"];
    office.company.elevate("erin", &[&["request", "admin"][..], &emergency].concat()).ok();
    office.sign_in("bob");
    let mut steps = Vec::new();
    let mut names = Vec::new();
    for (scheme, width, height) in
        [("light", 1280, 800), ("dark", 1280, 800), ("light", 360, 740), ("dark", 360, 740)]
    {
        steps.push(json!(["scheme", scheme]));
        steps.push(json!(["size", width, height]));
        for (name, path) in [
            ("waiting", String::new()),
            ("one", format!("/{waits}")),
            ("past", format!("/{had}")),
            ("active", "/active".into()),
            ("reviews", "/reviews".into()),
            ("mine", "/mine".into()),
            ("audit", "/audit".into()),
            ("missing", "/nothing".into()),
        ] {
            let name = format!("{name}-{scheme}-{width}");
            let picture = office.picture(&name);
            names.push(name);
            steps.extend([
                json!(["goto", office.page(&path)]),
                json!(["shot", picture]),
                json!(["overflow"]),
                json!(["axe"]),
            ]);
        }
    }
    steps.extend([json!(["goto", office.page(&format!("/{waits}"))]), json!(["text"])]);
    let mut seen = office.browse("bob", json!(steps));
    let one = text(&seen.pop().unwrap());
    assert!(one.contains("groups=the-company-of-everybody:{directory_groups}"), "{one}");
    assert_eq!(seen.len(), 2 * names.len());
    for (name, seen) in names.iter().zip(seen.chunks(2)) {
        assert_eq!(seen[0], 0, "{name} is wider than its window");
        assert_eq!(seen[1], json!([]), "{name}");
    }
}

#[test]
fn the_pages_show_which_client_they_are_as_they_are_told_to() {
    let keys = Home::new();
    let key = keys.path("key.pem");
    let curve = "ec_paramgen_curve:P-256";
    let make = ["genpkey", "-algorithm", "EC", "-pkeyopt", curve, "-out"];
    keys.command(program("openssl")).args(make).args([&key]).run().ok();
    let show = "const { createPublicKey } = require('node:crypto');
        const pem = require('node:fs').readFileSync(process.argv[1]);
        console.log(JSON.stringify(createPublicKey(pem).export({ format: 'jwk' })));";
    let public = keys.command(program("node")).args(["-e", show]).args([&key]).run().ok().json();
    let secret = keys.write("secret", "a secret: of & 100% + of the pages\n");
    for file in [&key, &secret] {
        use std::os::unix::fs::PermissionsExt as _;
        std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o600)).unwrap();
    }
    let clients = vec![
        client(json!({
            "client_id": "with-key",
            "token_endpoint_auth_method": "private_key_jwt",
            "token_endpoint_auth_signing_alg": "ES256",
            "jwks": { "keys": [public] },
        })),
        client(json!({
            "client_id": "with-secret",
            "token_endpoint_auth_method": "client_secret_basic",
            "client_secret": "a secret: of & 100% + of the pages",
        })),
    ];
    for (id, shown) in [
        ("with-key", format!("client_key_file = {key:?}")),
        ("with-secret", format!("client_secret_file = {secret:?}")),
    ] {
        let pages = format!("\n[web]\nissuer = \"corp\"\nclient_id = \"{id}\"\n{shown}\n");
        let office = Office::of(clients.clone(), ROLE, &pages);
        let seen = office.sign_in("bob");
        assert!(seen.contains("Nothing waits for you."), "{id}: {seen}");
    }
}
