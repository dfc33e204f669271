mod authz;
mod told;

use super::*;
use crate::host::files;

const GOOD: &str = r#"
issuer = "https://broker.example.com"

[tls]
certificate = "tls/broker.pem"
key = "/etc/tls/key.pem"

[store]
path = "broker.db"

[keys]
kek_file = "kek"

[trusted_issuer.corp]
issuer = "https://login.example.com"
algorithms = ["ES256", "EdDSA"]
leeway = "30s"
required_claims = { hd = "example.com", level = 3, verified = true, amr = ["mfa", "hwk"] }

[policy]
files = ["policy.cedar"]

[role.deploy]
audiences = ["https://api.example.com"]
scopes = ["deploy:read"]
max_ttl = "1h"
"#;

fn load_text(text: &str) -> Result<Config> {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("broker.toml");
    files::write_private(&path, text.as_bytes()).unwrap();
    let config = load(&path)?;
    if let Place::File(path) = config.store.place()? {
        assert!(path.is_absolute());
    }
    Ok(config)
}

fn refused(text: &str) -> String {
    load_text(text).unwrap_err().to_string()
}

#[test]
fn a_good_file_is_read_and_paths_are_relative_to_it() {
    let config = load_text(GOOD).unwrap();
    let tls = config.tls.unwrap();
    assert!(tls.certificate.ends_with("tls/broker.pem") && tls.certificate.is_absolute());
    assert_eq!(tls.key, Path::new("/etc/tls/key.pem"));
    assert_eq!(config.listen, ([127, 0, 0, 1], 8443).into());
    assert_eq!(config.role["deploy"].max_ttl, Duration::from_secs(3600));
    let corp = &config.trusted_issuer["corp"];
    assert_eq!(corp.leeway, Duration::from_secs(30));
    assert_eq!(corp.groups_claim, "groups");
    assert_eq!(corp.required_claims["level"], RequiredClaim::Number(3));
    assert_eq!(corp.required_claims["verified"], RequiredClaim::Flag(true));
    assert!(matches!(&corp.required_claims["amr"], RequiredClaim::AnyOf(a) if a.len() == 2));
}

#[test]
fn others_see_the_metrics_only_where_that_is_said() {
    assert!(load_text(GOOD).unwrap().admin.is_none());
    let exposed = "[admin]\nlisten = \"0.0.0.0:9443\"\nexpose = true\n[store]";
    assert!(load_text(&GOOD.replace("[store]", exposed)).unwrap().admin.unwrap().expose);
}

#[test]
fn what_makes_no_sense_is_refused_by_name() {
    for (find, replace, says) in [
        ("issuer = \"https://broker", "isuer = \"https://broker", "isuer"),
        ("\"https://login.example.com\"", "\"http://login.example.com\"", "loopback only"),
        ("[store]", "[admin]\n[store]", "listen"),
        (
            "[store]",
            "[admin]\nlisten = \"localhost:9443\"\n[store]",
            "is no IP address with a port, such as",
        ),
        ("[store]", "[admin]\nlisten = \"0.0.0.0:9443\"\n[store]", "expose is not true"),
        ("[tls]", "watch_every = \"0s\"\n[tls]", "a second or more"),
        (
            "[store]",
            "[limits.principal_route]\ntoken = { per_minute = 1 }\n[store]",
            "has a rate for 'token'",
        ),
        (
            "[store]",
            "[limits.principal_route]\nauthz = { per_minute = 1 }\n[store]",
            "where a proxy asks for everybody",
        ),
        (
            "[store]",
            "[limits.principal_route]\nkeys = { per_minute = 1, burst = 1000001 }\n[store]",
            "a rate beyond 1000000",
        ),
        (
            "[store]",
            "[notify.a]\nkind = \"command\"\ncommand = [\"/bin/true\"]\nroles = [\"deplyo\"]\n[store]",
            "there is no [role.deplyo]",
        ),
        (
            "[store]",
            "[admin]\nlisten = \"127.0.0.1:8443\"\n[store]",
            "is the address of the broker itself",
        ),
        ("\"ES256\", \"EdDSA\"", "\"HS256\"", "there is no such choice"),
        ("\"ES256\", \"EdDSA\"", "\"none\"", "none"),
        ("\"ES256\", \"EdDSA\"", "", "at least one algorithm"),
        ("30s", "10m", "leeway of 10m"),
        ("30s", "30", "not a duration"),
        ("\"1h\"", "\"25h\"", "max_ttl of 1 day 1h"),
        (
            "[store]",
            "[limits]\nprincipal = { per_minute = 0 }\n[store]",
            "must be a whole number from 1",
        ),
        ("\"1h\"", "\"0s\"", "max_ttl of 0s"),
        ("\"1h\"", "\"1500ms\"", "whole number of seconds"),
        ("\"deploy:read\"", "\"deploy read\"", "scope \"deploy read\""),
        ("\"https://api.example.com\"", "", "names no audiences"),
        ("\"https://api.example.com\"", "\"\"", "audience \"\""),
        ("[role.deploy]", "[role.\"a b\"]", "\"a b\""),
        ("\"policy.cedar\"", "", "names no files"),
        ("kek_file = \"kek\"", "kek_file = \"kek\"\nkek_env = \"K\"", "both kek_file and kek_env"),
        (
            "kek_file = \"kek\"",
            "kek_file = \"kek\"\nkek_command = [\"kms\"]",
            "both kek_file and kek_command",
        ),
        ("kek_file = \"kek\"", "kek_command = []", "a command has a program"),
        ("kek_file = \"kek\"", "kek_variables = [\"AWS_REGION\"]", "no kek_command"),
        (
            "kek_file = \"kek\"",
            "kek_command = [\"kms\"]\nkek_variables = [\"TMPCRED_BROKER_KEK\"]",
            "hands TMPCRED_BROKER_KEK",
        ),
        ("leeway", "jwks_uri = \"http://a.example/k\"\nleeway", "jwks_uri"),
        ("leeway", "audiences = []\nleeway", "nothing can match"),
        ("leeway", "max_key_age = \"59s\"\nleeway", "max_key_age of 59s"),
        ("leeway", "max_key_age = \"31days\"\nleeway", "at most 30 days"),
        ("\n[tls]", "trusted_proxies = [\"10.0.0.0/40\"]\n[tls]", "neither an address nor"),
        ("broker.example.com\"", "broker.example.com/a/:x\"", "may be ':x'"),
        ("broker.example.com\"", "broker.example.com/*x\"", "may be '*x'"),
        // Whoever names no client would be that one.
        (
            "[policy]",
            "[client.corp]\nauth = \"none\"\ndpop = \"required\"\n[policy]",
            "is called like",
        ),
    ] {
        assert!(GOOD.contains(find), "{find}");
        let error = refused(&GOOD.replacen(find, replace, 1));
        assert!(error.contains(says), "{replace}: {error}");
    }
}

#[test]
fn other_machines_are_let_in_only_on_purpose_and_over_tls() {
    let listen = |more: &str| format!("listen = \"0.0.0.0:8443\"\n{more}{GOOD}");
    assert!(refused(&listen("")).contains("expose is not true"));
    assert!(load_text(&listen("expose = true\n")).is_ok());
    let plain =
        GOOD.replace("[tls]\ncertificate = \"tls/broker.pem\"\nkey = \"/etc/tls/key.pem\"", "");
    assert!(load_text(&plain).is_ok());
    let exposed = format!("listen = \"0.0.0.0:8443\"\nexpose = true\n{plain}");
    assert!(refused(&exposed).contains("needs a [tls] table"));
}

#[test]
fn two_tables_for_one_issuer_are_refused() {
    let twice = format!("{GOOD}\n[trusted_issuer.b]\nissuer = \"https://login.example.com\"\n");
    assert!(refused(&twice).contains("the same issuer"));
}

#[test]
fn an_issuer_of_people_takes_a_directory_of_them() {
    let people =
        format!("{GOOD}\n[trusted_issuer.b]\nissuer = \"https://b.example\"\npeople = true\n");
    let why = refused(&people);
    assert!(why.contains("[trusted_issuer.b] people = true needs a [directory]"), "{why}");
    assert!(load_text(&format!("{people}\n[directory]\nfile = \"people.toml\"\n")).is_ok());
}

#[test]
fn to_trust_everybody_takes_a_word_on_whose_tokens_count() {
    let with = |more: &str| {
        format!(
            "{GOOD}\n[trusted_issuer.ci]\nissuer = \"https://token.actions.githubusercontent.com\"\n{more}\n"
        )
    };
    let error = load_text(&with("")).unwrap_err();
    assert!(error.to_string().contains("[trusted_issuer.ci] trusts everybody"), "{error}");
    assert!(error.hints()[0].contains("repository_owner_id"), "{:?}", error.hints());
    assert!(load_text(&with("required_claims = { repository_id = \"1\" }")).is_ok());
    assert!(load_text(&with("clients = [\"a\"]")).is_ok());
    // What takes anything says of nobody whether they count.
    let like = |claim: &str, pattern: &str| {
        format!("required_claims = {{ {claim} = {{ matches = '{pattern}' }} }}")
    };
    for (claim, open) in [
        ("repository_id", ".*"),
        ("repository_id", "[0-9]+"),
        ("repository", ".+/deploy"),
        ("sub", "repo:.*"),
        ("ref", "refs/.+"),
    ] {
        assert!(refused(&with(&like(claim, open))).contains("trusts everybody"), "{claim}");
    }
    assert!(load_text(&with(&like("repository_id", "[17]"))).is_ok());
    // What strangers may have of the same text is theirs, too.
    for (claim, good) in [
        ("ref = \"refs/heads/main\"", false),
        ("environment = [\"production\"]", false),
        ("run_attempt = 1", false),
        ("ref_protected = true", false),
        ("repository_id = true", false),
        ("job_workflow_ref = \"acme/deploy/.github/workflows/a.yml@refs/heads/main\"", false),
        ("\"/repository\" = \"acme/deploy\"", true),
        ("repository_owner = [\"acme\", \"acme-labs\"]", true),
        ("sub = \"repo:acme/deploy:ref:refs/heads/main\"", true),
        ("repository_id = 1", true),
        ("workflow_ref = \"acme/deploy/.github/workflows/a.yml@refs/heads/main\"", true),
        ("project_path = \"acme/deploy\"", false),
    ] {
        let text = with(&format!("required_claims = {{ {claim} }}"));
        assert_eq!(load_text(&text).is_ok(), good, "{claim}");
    }
    for (bad, says) in [
        ("{ matches = 'a)|(b' }", "is no regular expression"),
        ("{ match = 'a' }", "{ matches = \"…\" }"),
        ("{}", "{ matches = \"…\" }"),
    ] {
        let said = refused(&with(&format!("required_claims.repository_id = {bad}")));
        assert!(said.contains(says), "{bad}: {said}");
    }
}

#[test]
fn mapped_claims_have_names_and_one_meaning() {
    let with = |more: &str| {
        GOOD.replacen("[trusted_issuer.corp]", &format!("[trusted_issuer.corp]\nclaims.{more}"), 1)
    };
    assert!(load_text(&with("branch = { from = 'ref', matches = 'refs/heads/(.+)' }")).is_ok());
    for (bad, says) in [
        ("branch = { from = '', matches = 'a' }", "has a claims.branch that names no claim"),
        ("branch = { from = 'ref', matches = '(a)(b)' }", "several parentheses"),
        ("branch = { from = 'ref', matches = 'a)|(?:b' }", "is no regular expression"),
        ("branch = { matches = 'a' }", "has no `from`"),
        ("\"/branch\" = { from = 'ref' }", "no possible name"),
        ("branch = { from = 'ref', match = 'a' }", "`match`"),
        ("acr = { from = 'amr' }", "says how somebody logged in"),
        ("auth_time = { from = 'iat' }", "says how somebody logged in"),
    ] {
        let said = refused(&with(bad));
        assert!(said.contains(says), "{bad}: {said}");
    }
}

#[test]
fn an_absent_file_is_an_error() {
    let error = load(Path::new("/nonexistent/broker.toml")).unwrap_err();
    assert!(error.to_string().contains("there is no /nonexistent"), "{error}");
}

#[test]
fn signing_keys_are_rotated_as_is_said_and_within_bounds() {
    let with =
        |more: &str| GOOD.replace("kek_file = \"kek\"", &format!("kek_file = \"kek\"\n{more}"));
    let day = Duration::from_secs(24 * 60 * 60);
    let default = load_text(GOOD).unwrap().keys;
    assert_eq!((default.rotate_every, default.publish_before), (Some(90 * day), day));
    let never = load_text(&with("rotate_every = \"never\"")).unwrap().keys;
    assert_eq!(never.rotate_every, None);
    let often = with("rotate_every = \"1h\"\npublish_before = \"15s\"");
    let often = load_text(&often).unwrap().keys;
    assert_eq!(often.rotate_every, Some(Duration::from_secs(3600)));
    for (bad, expected) in [
        ("publish_before = \"14s\"", "[keys] has a publish_before of 14s; it must be at least 15s"),
        ("publish_before = \"31d\"", "[keys] has a publish_before of 31 days;"),
        (
            "rotate_every = \"47h\"",
            "[keys] has a rotate_every of 1 day 23h; it must be at least 2 days",
        ),
        ("rotate_every = \"59m\"\npublish_before = \"15s\"", "no less than an hour"),
        ("rotate_every = \"seldom\"", "is not a duration"),
    ] {
        let error = load_text(&with(bad)).unwrap_err();
        let said = format!("{error} {:?}", error.causes());
        assert!(said.contains(expected), "{bad}: {said}");
    }
}

#[test]
fn a_store_is_a_file_or_postgresql_and_its_url_has_no_password() {
    let with = |store: &str| GOOD.replace("[store]\npath = \"broker.db\"", store);
    let postgres = |url: &str, more: &str| {
        load_text(&with(&format!("[store.postgres]\nurl = \"{url}\"\n{more}")))
    };
    let url = "postgres://tmpcred@db.example.com/broker";
    let good = postgres(url, "").unwrap().store;
    let Place::Postgres(found) = good.place().unwrap() else { panic!("{good:?}") };
    let address = found.address().unwrap();
    assert_eq!(
        (address.port, &address.user[..], &address.database[..]),
        (5432, "tmpcred", "broker")
    );
    assert_eq!(address.host, Host::Name("db.example.com".into()));
    assert!(!address.host.is_here() && address.to_string() == "db.example.com:5432");
    let here = |url: &str| {
        let store = postgres(url, "").unwrap().store;
        let address = store.postgres.unwrap().address().unwrap();
        (address.host.is_here(), address.to_string())
    };
    let socket = here("postgres://tmpcred@%2Frun%2Fpostgresql/broker");
    assert_eq!(socket, (true, "/run/postgresql/.s.PGSQL.5432".into()));
    assert_eq!(here("postgresql://a@[::1]:1/b"), (true, "[::1]:1".into()));
    assert_eq!(here("postgres://a@127.0.0.1/b"), (true, "127.0.0.1:5432".into()));
    assert!(here("postgres://a@LocalHost/b").0);
    assert!(!here("postgres://a@localhost.example/b").0);
    for (url, more, says) in [
        ("postgres://tmpcred:hunter2@db.example.com/broker", "", "with a password in it"),
        ("postgres://tmpcred:hunter2@db example/broker", "", "that is none"),
        ("postgres://db.example.com/broker", "", "names no user"),
        ("postgres://tmpcred@db.example.com/", "", "no database"),
        ("postgres://tmpcred@db.example.com/b?sslmode=disable", "", "something behind"),
        ("mysql://tmpcred@db.example.com/broker", "", "begin with postgres://"),
        (url, "password = \"hunter2\"", "has a password"),
        (url, "max_connections = 1", "possible are 2 to 100"),
        (url, "answer_within = \"31s\"", "has answer_within = \"31s\""),
        (url, "password_file = \"p\"\npassword_env = \"P\"", "both password_file and"),
    ] {
        let error = postgres(url, more).unwrap_err();
        let said = format!("{error} {:?} {:?}", error.causes(), error.hints());
        assert!(said.contains(says) && !said.contains("hunter2"), "{url} {more}: {said}");
    }
    assert!(refused(&with("[store]")).contains("names neither"));
    let both = with(&format!("[store]\npath = \"a\"\n[store.postgres]\nurl = \"{url}\""));
    assert!(refused(&both).contains("names both"));
}

#[test]
fn a_client_says_how_it_is_known_and_paths_of_its_keys_are_relative_too() {
    let with = |table: &str| GOOD.replace("[policy]", &format!("{table}\n[policy]"));
    let good = "[client.deployer]\njwks_file = \"deployer.json\"\nalgorithms = [\"ES256\"]\n\
                [client.public]\nauth = \"none\"\ndpop = \"required\"\n\
                [client.other]\njwks_uri = \"https://other.example/jwks\"";
    let clients = load_text(&with(good)).unwrap().client;
    let deployer = &clients["deployer"];
    assert!(deployer.authenticates() && !clients["public"].authenticates());
    assert!(deployer.jwks_file.as_ref().unwrap().is_absolute());
    for (table, says) in [
        ("[client.a]", "has to name its keys"),
        ("[client.a]\njwks_file = \"a\"\njwks_uri = \"https://a.example\"", "has to name its keys"),
        ("[client.a]\njwks_uri = \"http://a.example\"", "loopback only"),
        ("[client.a]\njwks_file = \"a\"\nalgorithms = [\"HS256\"]", "there is no such choice"),
        ("[client.a]\njwks_file = \"a\"\nalgorithms = []", "at least one algorithm"),
        ("[client.a]\nauth = \"none\"", "nothing is asked of it"),
        (
            "[client.a]\nauth = \"none\"\ndpop = \"required\"\ntokens_of = [\"a\"]",
            "anybody could show those tokens",
        ),
        ("[client.a]\njwks_file = \"a\"\ntokens_of = [\"b\"]", "there is no [client.b]"),
        ("[client.a]\nauth = \"none\"\ndpop = \"required\"\njwks_file = \"a\"", "needs no keys"),
        ("[client.a]\nauth = \"client_secret_basic\"", "there is no such choice"),
        ("[client.\"https://a.example\"]\njwks_file = \"a\"", "is not a possible name"),
    ] {
        let error = refused(&with(table));
        assert!(error.contains(says), "{table}\n{error}");
    }
}

#[test]
fn tokens_are_verified_by_keys_or_by_a_review() {
    let review = "token_review = { server = \"https://k.example\", token_file = \"token\" }\n";
    let with = |more: &str| GOOD.replace("leeway = \"30s\"", &format!("leeway = \"30s\"\n{more}"));
    let error = refused(&with(review));
    assert!(error.contains("neither keys nor algorithms"), "{error}");
    let without = |more: &str| with(more).replace("algorithms = [\"ES256\", \"EdDSA\"]", "");
    let config = load_text(&without(review)).unwrap();
    let own = config.trusted_issuer["corp"].token_review.as_ref().unwrap().token_file.clone();
    assert!(own.is_absolute());
    let error = refused(&without(&format!("{review}jwks_file = \"x\"")));
    assert!(error.contains("neither keys nor algorithms"), "{error}");
    let error = refused(&without(&review.replace("https:", "http:")));
    assert!(error.contains("loopback only"), "{error}");
}

#[test]
fn a_role_with_emergencies_of_which_nobody_would_be_told_is_refused() {
    let role = r#"
[role.admin]
audiences = ["https://api.example.com"]
max_ttl = "1h"
[role.admin.elevation]
longest = "1h"
review_within = "1d"
approvals = [{ count = 1 }]
"#;
    let emergency = "emergency = { longest = \"15m\", cool_down = \"1h\" }\n";
    let channel =
        |more: &str| format!("[notify.own]\nkind = \"command\"\ncommand = [\"true\"]\n{more}\n");
    let loads = |rest: &str| load_text(&format!("{GOOD}{role}{rest}"));
    // Whoever has to be approved is told of to those who ask.
    loads("").unwrap();
    for (more, why) in [
        (String::new(), "there is no [notify.NAME]"),
        (channel("only = [\"review-due\"]"), "leave it out"),
        (channel("roles = [\"deploy\"]"), "leave it out"),
    ] {
        let error = loads(&format!("{emergency}{more}")).unwrap_err();
        let (said, causes) = (error.to_string(), error.causes().join(" "));
        let whole = format!("{said} {causes} {}", error.hints().join(" "));
        assert!(
            whole.contains("[role.admin.elevation] has emergencies, of which nobody"),
            "{whole}"
        );
        assert!(causes.contains(why) && whole.contains("\"emergency\""), "{whole}");
    }
    for more in ["", "only = [\"emergency\"]", "roles = [\"admin\", \"deploy\"]"] {
        loads(&format!("{emergency}{}", channel(more))).unwrap();
    }
}

#[test]
fn what_is_refused_is_shown_where_it_stands() {
    for (find, replace, line) in [
        ("max_ttl = \"1h\"", "max_ttl = \"25h\"", "max_ttl = \"25h\""),
        ("leeway = \"30s\"", "leeway = \"10m\"", "leeway = \"10m\""),
        ("[tls]", "watch_every = \"0s\"\n[tls]", "watch_every = \"0s\""),
        ("audiences = [\"https://api.example.com\"]", "audiences = []", "audiences = []"),
        ("[role.deploy]", "[role.\"a b\"]", "[role.\"a b\"]"),
        (
            "max_ttl = \"1h\"",
            "max_ttl = \"1h\"\n[role.deploy.elevation]\napprovals = []\nlongest = \"0s\"",
            "longest = \"0s\"",
        ),
    ] {
        assert_eq!(GOOD.matches(find).count(), 1);
        let error = load_text(&GOOD.replace(find, replace)).unwrap_err();
        let shown = error.causes().iter().find(|cause| cause.contains("-->")).unwrap();
        assert!(shown.contains("broker.toml:") && shown.contains(line), "{line}: {shown}");
    }
    // Of what there may be a password in, the place alone; however it is written.
    let url = "url = \"postgres://a:hunter2@localhost/b\"";
    let inline = format!("store = {{ postgres = {{ {url} }} }}\n");
    let dotted = format!("store.postgres.{url}\n");
    let whole = GOOD.replace("[store]\npath = \"broker.db\"\n", "");
    let (head, rest) = whole.split_at(whole.find("[tls]").unwrap());
    let written = [
        GOOD.replace("[store]\npath = \"broker.db\"\n", &format!("[store.postgres]\n{url}\n")),
        format!("{head}{inline}{rest}"),
        format!("{head}{dotted}{rest}"),
    ];
    for text in written {
        let error = load_text(&text).unwrap_err();
        let all = format!("{error} {:?}", error.causes());
        assert!(all.contains("a url with a password") && !all.contains("hunter2"), "{all}");
        assert!(all.contains("it stands in ") && all.contains("broker.toml:"), "{all}");
    }
    let channel = "notify.url = { kind = \"webhook\", url = \"https://hooks.example/hunter2\", secret_env = \"S\", roles = [\"x\"] }\n";
    let error = load_text(&format!("{channel}{GOOD}")).unwrap_err();
    let all = format!("{error} {:?}", error.causes());
    assert!(all.contains("no [role.x]") && !all.contains("hunter2"), "{all}");
}

#[test]
fn what_a_claim_says_is_no_path_whatever_it_is_called() {
    let text = GOOD.replace("level = 3", "level = 3, workflow_file = \"a.yml\"")
        + "claims = { workflow_file = \"x/{claim:workflow_file}\" }\n";
    let config = load_text(&text).unwrap();
    let said = config.role["deploy"].claims.get("workflow_file").unwrap();
    assert_eq!(serde_json::to_value(said).unwrap(), "x/{claim:workflow_file}");
    let required = &config.trusted_issuer["corp"].required_claims["workflow_file"];
    assert_eq!(*required, RequiredClaim::Text("a.yml".into()));
}
