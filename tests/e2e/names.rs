//! Host names are found as resolv.conf(5) and hosts(5) say.

use std::path::{Path, PathBuf};

use crate::support::broker::API;
use crate::support::browser::Browser;
use crate::support::home::{Home, assert_root, through};
use crate::support::oidc_provider::{OidcOptions, OidcProvider};
use crate::support::peer::{Peer, program, supervised};
use crate::support::run::Run;
use crate::support::tls::Authority;

/// Becomes a program for which these are the files about names.
const WITH_NAMES: &str = r#"
    set -e
    mount --bind "$1" /etc/resolv.conf; shift
    mount --bind "$1" /etc/hosts; shift
    exec "$@"
"#;

/// The program, on a machine with these files.
fn knowing(home: &Home, resolv_conf: &Path, hosts: &Path, args: &[&str]) -> Run {
    let mut mount: Vec<_> = ["-m", "sh", "-c", WITH_NAMES, "sh"].map(Into::into).to_vec();
    mount.extend([resolv_conf.into(), hosts.into()]);
    through(home, "unshare", |words| [mount, words].concat()).args(args)
}

/// A name server that knows everything about `example.test`: one host, `idp`.
struct NameServer {
    peer: Peer,
    address: String,
}

impl NameServer {
    /// Starts it at an address of its own: the port cannot be chosen.
    fn start(home: &Home) -> Self {
        let id = std::process::id();
        let address = format!("127.53.{}.{}", (id >> 8) & 0xff, (id & 0xff).clamp(1, 254));
        let mut command = supervised(&program("dnsmasq"), Path::new("/dev/null"));
        command.args(["--keep-in-foreground", "--conf-file=/dev/null", "--pid-file="]);
        command.args(["--no-resolv", "--no-hosts", "--bind-interfaces", "--user=root"]);
        command.args(["--log-facility=-", "--log-queries", "--local=/example.test/"]);
        command.args(["--host-record=idp.example.test,127.0.0.1"]);
        command.arg(format!("--listen-address={address}"));
        let mut peer = Peer::start("dnsmasq", command, home.path("dnsmasq.log"));
        let log = home.path("dnsmasq.log");
        peer.until_ready(|| std::fs::read_to_string(&log).ok()?.contains("started").then_some(()));
        Self { peer, address }
    }

    /// The resolv.conf that names it.
    fn resolv_conf(&self, home: &Home, more: &str) -> PathBuf {
        home.write("resolv.conf", format!("nameserver {}\n{more}\n", self.address))
    }
}

fn configuration(home: &Home, issuer: &str) {
    home.config(&format!(
        r#"default_profile = "deploy"

[identity.corp]
type = "oidc"
issuer = "{issuer}"
client_id = "cli"
ca_file = "../../authority.pem"

[broker.main]
url = "http://127.0.0.1:9"

[profile.deploy]
role = "deploy"
audience = "{API}"
"#
    ));
}

#[test]
fn names_come_from_name_servers_and_from_the_file_of_hosts() {
    // It serves port 53 of an address of its own, too.
    assert_root();
    let authority = Authority::new();
    let mut home = Home::stranger();
    let pem = home.write("authority.pem", std::fs::read(authority.pem()).unwrap());
    Browser::http().trusting(&pem).install(&mut home);
    home.set("TMPCRED_NO_INPUT", "false");
    let server = NameServer::start(&home);
    let nowhere = home.write("hosts", "127.0.0.1 localhost\n");
    let login = ["login", "--force"];

    // A name that the server knows.
    let provider = provider(&authority, "idp.example.test");
    configuration(&home, provider.issuer());
    let asking = server.resolv_conf(&home, "");
    knowing(&home, &asking, &nowhere, &login).run().ok();
    assert!(server.peer.said().contains("query[A] idp.example.test"), "{}", server.peer.said());

    // The same by a search domain would be another name in its certificate.
    let port = provider.issuer().rsplit_once(':').unwrap().1;
    configuration(&home, &format!("https://idp:{port}"));
    let searching = server.resolv_conf(&home, "search example.test");
    let another = knowing(&home, &searching, &nowhere, &login).run().ended_with(9);
    assert!(another.stderr.contains("it is for another name"), "{}", another.stderr);

    // A name that nobody knows.
    configuration(&home, &format!("https://absent.example.test:{port}"));
    let absent = knowing(&home, &asking, &nowhere, &login).run().ended_with(7);
    assert!(absent.stderr.contains("there is no such host name"), "{}", absent.stderr);

    // A file without a name server; one that has the name.
    configuration(&home, provider.issuer());
    let empty = home.write("empty", "");
    let hosts = home.write("more-hosts", "127.0.0.1 idp.example.test\n");
    knowing(&home, &empty, &hosts, &login).run().ok();
}

fn provider(authority: &Authority, name: &str) -> OidcProvider {
    OidcProvider::start_with(&OidcOptions {
        tls: Some(authority.certify(name)),
        host: name.into(),
        ..OidcOptions::default()
    })
}
