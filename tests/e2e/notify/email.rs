use super::super::support::mail::{MailServer, PASSWORD, USER};
use super::super::support::tls::Authority;
use super::*;

/// The table of a channel that logs in.
fn table(server: &MailServer, scheme: &str, password: &str, ca: &Authority, more: &str) -> String {
    format!(
        "\n[notify.mail]\nkind = \"email\"\nurl = \"{scheme}://127.0.0.1:{}\"\n\
         user = \"{USER}\"\nsecret_file = {password}\nca_file = {:?}\n\
         from = \"tmpcred <tmpcred@example.com>\"\nto = [\"team@example.com\"]\n{more}\n",
        server.port,
        ca.pem()
    )
}

#[track_caller]
fn all(server: &MailServer, count: usize) -> Vec<Value> {
    wait_until("the mails", SOON, || {
        let mails = server.mails();
        (mails.len() >= count).then_some(mails)
    })
}

fn header<'a>(mail: &'a Value, name: &str) -> &'a str {
    let headers = mail["headers"].as_array().unwrap();
    let found = headers.iter().find(|header| header[0] == name);
    found.unwrap_or_else(|| panic!("no {name}: {headers:?}"))[1].as_str().unwrap()
}

#[test]
fn mail_goes_to_people_and_teams_over_starttls_with_a_login() {
    let (authority, files) = (Authority::new(), Home::new());
    let server = MailServer::start("starttls", Some(authority.certify("127.0.0.1")));
    let password = secret(&files, "password", &format!("{PASSWORD}\n"));
    let (services, metrics) = with(&table(&server, "smtp", &password, &authority, ""));
    let mut evil = message("evil");
    evil["title"] = "Hello\r\nBcc: mallory@example.com\r\n\r\nbody".into();
    tell(&services.broker, &[message("k"), evil]);
    let mails = all(&server, 4);
    let mut to: Vec<_> = mails.iter().map(|mail| mail["to"].to_string()).collect();
    to.sort();
    let [alice, team] = ["[\"alice@example.com\"]", "[\"team@example.com\"]"];
    assert_eq!(to, [alice, alice, team, team]);
    for mail in &mails {
        assert_eq!((&mail["tls"], &mail["user"]), (&true.into(), &USER.into()));
        assert_eq!(mail["from"], "tmpcred@example.com");
        assert_eq!(header(mail, "Auto-Submitted"), "auto-generated");
        let headers = mail["headers"].as_array().unwrap();
        assert!(headers.iter().all(|header| header[0] != "Bcc"), "{headers:?}");
        assert!(header(mail, "Content-Type").starts_with("text/plain"), "{headers:?}");
    }
    let good = mails.iter().find(|mail| header(mail, "Subject").starts_with("Alice took")).unwrap();
    assert_eq!(header(good, "Subject"), "Alice took the role admin \u{2013} an emergency");
    let text = good["text"].as_str().unwrap();
    for part in
        ["Reason: the database is down <!channel> [x](", "Until: 2026-01-01", "elevations/7?a=1&b="]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    // What is about one thing is together, and each mail is told apart.
    let threads: std::collections::BTreeSet<_> =
        mails.iter().map(|mail| header(mail, "References")).collect();
    let ids: std::collections::BTreeSet<_> =
        mails.iter().map(|mail| header(mail, "Message-ID")).collect();
    assert_eq!((threads.len(), ids.len()), (1, 4));
    // Bob has no address: he waits, and it is said why.
    let left = wait_until("Bob to be listed", SOON, || {
        let left = listed(&services.broker);
        (left.len() == 1 && left.values().all(|line| line["why"].is_string())).then_some(left)
    });
    let bob = &left[&("mail".into(), "bob".into())];
    assert!(bob["why"].as_str().unwrap().contains("nobody knows the address of 'bob'"), "{bob}");
    assert_eq!(bob["given_up"], false);
    // Once the directory has it, he is told.
    services
        .broker
        .home
        .write("people.toml", PEOPLE.to_string() + "contacts = { email = \"bob@example.com\" }\n");
    services.broker.hang_up();
    let mails = all(&server, 6);
    assert_eq!(mails.iter().filter(|mail| mail["to"][0] == "bob@example.com").count(), 2);
    wait_until("nothing to be left", SOON, || listed(&services.broker).is_empty().then_some(()));
    let list = notify(&services.broker, &["list"]).run().ok().stdout;
    assert_eq!(list, "Everybody was told everything.\n");
    let delivered = "channel=\"mail\",outcome=\"delivered\"";
    assert_eq!(metric(&metrics, "deliveries_total", delivered), 6.0);
    assert!(!services.broker.said().contains(PASSWORD));
}

#[test]
fn a_test_says_what_came_of_it_and_mail_is_never_sent_in_the_clear() {
    let (authority, files) = (Authority::new(), Home::new());
    let certificate = || Some(authority.certify("127.0.0.1"));
    let password = secret(&files, "password", PASSWORD);
    let try_it = |table: &str, words: &[&str]| {
        let broker = Home::new();
        let people = broker.write("people.toml", PEOPLE);
        let toml = format!(
            "issuer = \"https://broker.example.com\"\n[store]\npath = \"broker.db\"\n\
             [directory]\nfile = {people:?}\n[trusted_issuer.corp]\n\
             issuer = \"https://login.example.com\"\n[policy]\nfiles = [\"policy.cedar\"]\n\
             [role.deploy]\naudiences = [\"https://api.example.com\"]\nmax_ttl = \"1h\"\n{table}"
        );
        let file = broker.write("broker.toml", toml);
        let run = tmpcred(&broker).args(["broker", "notify", "test", "mail"]).args(words);
        let output = run.args(["--config"]).args([file]).run();
        assert!(!output.stdout.contains(PASSWORD) && !output.stderr.contains(PASSWORD));
        output
    };
    for (how, scheme) in [("starttls", "smtp"), ("wrapped", "smtps")] {
        let server = MailServer::start(how, certificate());
        let table = table(&server, scheme, &password, &authority, "");
        let output = try_it(&table, &["--person", "alice", "--json"]).ok();
        let told: Vec<_> = output.json()["deliveries"]
            .as_array()
            .unwrap()
            .iter()
            .map(|d| d["to"].clone())
            .collect();
        assert_eq!(told, ["alice", "team@example.com"], "{how}");
        let mails = server.mails();
        assert_eq!(mails.len(), 2);
        assert!(mails.iter().all(|mail| mail["tls"] == true && mail["user"] == USER), "{mails:?}");
        assert!(header(&mails[0], "Subject").contains("A test"), "{mails:?}");
        // Nobody answers, or says no.
        server.behave("451");
        let said = try_it(&table, &[]).stderr;
        assert!(said.contains("team@example.com") && said.contains("it answered 451"), "{said}");
        server.behave("");
        let other = secret(&files, "other", "wrong");
        let said = try_it(&table.replace(&password, &other), &[]).stderr;
        assert!(said.contains("it answered 535"), "{how}: {said}");
        // Somebody else's certificate.
        let stranger = Authority::new();
        let said = try_it(
            &table.replace(authority.pem().to_str().unwrap(), stranger.pem().to_str().unwrap()),
            &[],
        );
        assert_ne!(said.code, Some(0));
        assert!(said.stderr.contains("did not take it"), "{}", said.stderr);
        let said = try_it(&table, &["--person", "bob"]).stderr;
        assert!(said.contains("nobody knows the address of 'bob'"), "{said}");
        let said = try_it(&table, &["--person", "mallory"]).stderr;
        assert!(said.contains("nobody called 'mallory'"), "{said}");
    }
    // One that offers no TLS gets nothing, not even a password.
    let server = MailServer::start("clear", None);
    let refused = try_it(&table(&server, "smtp", &password, &authority, ""), &[]);
    assert_ne!(refused.code, Some(0));
    assert_eq!(server.mails(), [Value::Null; 0]);
    // Without an authority of its own it is this machine that is meant, and in the clear.
    let clear = format!(
        "\n[notify.mail]\nkind = \"email\"\nurl = \"smtp://127.0.0.1:{}\"\n\
         from = \"tmpcred@example.com\"\nto = [\"team@example.com\", \"nobody@example.com\"]\n",
        server.port
    );
    let said = try_it(&clear, &["--json"]);
    assert_ne!(said.code, Some(0));
    let deliveries = said.json()["deliveries"].clone();
    assert_eq!(deliveries[0]["delivered"], false, "{deliveries}");
    assert!(deliveries[0]["error"].is_string(), "{deliveries}");
    assert_eq!(deliveries[1]["delivered"], true, "{deliveries}");
    assert_eq!(server.mails()[0]["tls"], false);
}

#[test]
fn a_mail_server_that_hangs_refuses_or_is_gone_loses_nothing() {
    let (authority, files) = (Authority::new(), Home::new());
    let mut server = MailServer::start("starttls", Some(authority.certify("127.0.0.1")));
    let password = secret(&files, "password", PASSWORD);
    let (services, metrics) = with(&table(&server, "smtp", &password, &authority, ""));
    let failed = || metric(&metrics, "deliveries_total", "channel=\"mail\",outcome=\"failed\"");
    let mut sent = 0;
    for mode in ["hangs", "451", "gone"] {
        let before = failed();
        match mode {
            "gone" => server.end(),
            mode => server.behave(mode),
        }
        let mut alone = message(mode);
        alone["people"] = json!(["alice"]);
        tell(&services.broker, &[alone]);
        wait_until("a failure", SOON, || (failed() > before).then_some(()));
        assert!(metric(&metrics, "waiting", "channel=\"mail\"") >= 1.0);
        services.token("job", super::super::support::broker::API);
        if mode == "gone" {
            server.begin();
        }
        server.behave("");
        sent += 2;
        all(&server, sent);
        // What it has taken and nobody has heard of is sent again.
        wait_until("nothing to wait", SOON, || {
            (metric(&metrics, "waiting", "channel=\"mail\"") == 0.0).then_some(())
        });
    }
    assert_eq!(server.mails().len(), sent, "each came once");
}
