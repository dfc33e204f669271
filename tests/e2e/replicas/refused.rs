//! What is said where a broker cannot have its database.

use super::*;

#[test]
fn what_keeps_a_broker_from_its_database_is_told_and_no_password_is() {
    use super::super::support::tls::Authority;
    let site = Site::start();
    let toml = std::fs::read_to_string(site.broker.home.path("broker.toml")).unwrap();
    let table = site.database.table(&site.files);
    assert!(toml.contains(&table));
    let port = super::super::support::wait::free_port();
    let (before, rest) = toml.split_once("listen = \"").unwrap();
    let toml = format!("{before}listen = \"127.0.0.1:{port}\"{}", rest.split_once('"').unwrap().1);
    let home = &site.broker.home;
    let refused = |new: &str, code: i32, says: &[&str]| {
        let file = home.write("other.toml", toml.replace(&table, new));
        let serve = tmpcred(home).args(["broker", "serve", "--config"]).args([file]);
        let ended = serve.env("TMPCRED_BROKER_KEK", KEK).run().ended_with(code);
        for part in says {
            assert!(ended.stderr.contains(part), "{part:?} is not in:\n{}", ended.stderr);
        }
        for secret in [PASSWORD, "hunter2"] {
            assert!(!ended.stderr.contains(secret), "{}", ended.stderr);
        }
    };
    let url = site.database.url();
    let at =
        |url: &str, more: &str| format!("{}{more}\n", table.replace(&site.database.url(), url));
    let nobody = url.replace(&url[url.rfind(':').unwrap()..], ":9/broker");
    refused(&at(&nobody, ""), 7, &["nobody answers at localhost:9", "Connection refused"]);
    let nobody = nobody.replace("localhost", "127.0.0.1");
    refused(
        &at(&nobody, ""),
        7,
        &["the broker's database broker at 127.0.0.1:9", "nobody answers"],
    );
    refused(&at(&url.replace("/broker", "/other"), ""), 3, &["there is no database 'other'"]);
    let wrong = site.files.path("wrong");
    std::fs::copy(password_file(&site.files, "hunter2"), &wrong).unwrap();
    password_file(&site.files, PASSWORD);
    let wrong = format!("[store.postgres]\nurl = \"{url}\"\npassword_file = {wrong:?}\n");
    refused(&wrong, 3, &["it does not let the user 'tmpcred' in", "hint: check the password"]);
    let inline = url.replace("tmpcred@", "tmpcred:hunter2@");
    refused(&at(&inline, ""), 3, &["a url with a password in it", "password_file"]);
    refused(&at(&url, "password = \"hunter2\""), 3, &["has a password", "password_file"]);

    // With an authority, it has to prove who it is.
    let (authority, stranger) = (Authority::new(), Authority::new());
    let trusting = |authority: &Authority| format!("ca_file = {:?}", authority.pem());
    refused(&at(&url, &trusting(&authority)), 3, &["the server speaks no TLS", "turn `ssl` on"]);
    let mut secured = Postgres::with(&["fsync=off"]);
    secured.end();
    secured.speak_tls(&authority.certify("localhost"));
    secured.begin();
    let there = secured.url();
    let untrusted = ["its certificate cannot be trusted", "ca_file"];
    refused(&at(&there, &trusting(&stranger)), 3, &untrusted);
    // It is another name that it has a certificate for.
    let other = there.replace("localhost", "127.0.0.1");
    refused(&at(&other, &trusting(&authority)), 3, &untrusted);
    // It is let in there, and would not keep anything.
    refused(&at(&there, &trusting(&authority)), 3, &["its setting fsync is off"]);
}
