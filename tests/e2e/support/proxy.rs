//! Proxies that ask the broker about each request, with the configuration that
//! `docs/forward-auth.md` prints, before a service that tells how it was reached.

use std::net::TcpStream;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::aws::python_program;
use super::http::Http;
use super::nginx;
use super::peer::{Peer, supervised};
use super::wait::free_port;

/// Which proxy.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Nginx,
    Traefik,
    Envoy,
    Caddy,
}

impl Kind {
    /// What the broker is told that it is.
    pub(crate) fn told(self) -> &'static str {
        match self {
            Self::Nginx => "nginx",
            Self::Traefik | Self::Caddy => "traefik",
            Self::Envoy => "envoy",
        }
    }
}

/// A proxy that runs, and the service behind it. Dropping it kills both.
pub(crate) struct Proxy {
    _peer: Peer,
    _behind: Peer,
    _files: TempDir,
    url: String,
}

impl Proxy {
    /// Starts one on this port, which asks at `authz` on loopback about each request.
    #[track_caller]
    pub(crate) fn start(kind: Kind, port: u16, authz: u16) -> Self {
        let (files, behind) = (tempfile::tempdir().unwrap(), free_port());
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/behind.py");
        let mut command = supervised(&python_program("python"), Path::new("/dev/null"));
        command.arg(script).arg(behind.to_string());
        let mut service = Peer::start("the service", command, files.path().join("behind.log"));
        service.until_ready(|| TcpStream::connect(("127.0.0.1", behind)).ok());

        let mut command = prepared(kind, files.path(), &Ports { port, authz, behind });
        command.current_dir(files.path()).env("HOME", files.path());
        let mut peer = Peer::start(&format!("{kind:?}"), command, files.path().join("log"));
        let (url, mut http) = (format!("http://127.0.0.1:{port}"), Http::new());
        // Traefik listens before it knows what to do with a request.
        peer.until_ready(|| http.get(&url).ok().filter(|reply| reply.status != 404));
        Self { _peer: peer, _behind: service, _files: files, url }
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// What stands on the page as 8000, 9444 and 8080.
struct Ports {
    port: u16,
    authz: u16,
    behind: u16,
}

/// The block of this kind on the page about proxies.
#[track_caller]
pub(super) fn on_the_page(kind: &str) -> String {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/forward-auth.md");
    let page = std::fs::read_to_string(page).unwrap();
    let fence = format!("\n```{kind}\n");
    let mut blocks = page.split(&fence).skip(1).map(|rest| rest.split("\n```").next().unwrap());
    let block = blocks.next().unwrap_or_else(|| panic!("there is no block {kind}"));
    assert!(blocks.next().is_none(), "there are two blocks {kind}");
    format!("{block}\n")
}

/// The block of this kind, with other ports; with its own one where it says that as well.
#[track_caller]
fn configuration(kind: &str, ports: &Ports, own: bool) -> String {
    let own = own.then_some(("8000", ports.port));
    let ports: Vec<_> =
        [("9444", ports.authz), ("8080", ports.behind)].into_iter().chain(own).collect();
    let mut text = on_the_page(kind);
    // In two steps: what one is replaced by may look like another.
    for (n, (printed, _)) in ports.iter().enumerate() {
        assert!(text.contains(printed), "{kind}: {printed} is not in\n{text}");
        text = text.replace(printed, &format!("{{{{{n}}}}}"));
    }
    for (n, (_, port)) in ports.iter().enumerate() {
        text = text.replace(&format!("{{{{{n}}}}}"), &port.to_string());
    }
    text
}

/// The program, about to run. Here is what the page has no word of: where some listen, and
/// that they ask nobody else for anything.
fn prepared(kind: Kind, files: &Path, ports: &Ports) -> Command {
    let write = |name: &str, text: String| {
        let path = files.join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    let python = |name: &str| supervised(&python_program(name), Path::new("/dev/null"));
    match kind {
        Kind::Nginx => {
            let locations = configuration("nginx", ports, false);
            nginx::prepared(files, ports.port, &locations, "")
        }
        Kind::Traefik => {
            // It takes a file `traefik.yaml` where it runs for another one.
            let file = write("dynamic.yaml", configuration("yaml traefik", ports, false));
            let mut command = python("traefik");
            command.arg(format!("--entrypoints.web.address=127.0.0.1:{}", ports.port));
            command.arg(format!("--providers.file.filename={}", file.display()));
            command.args(["--global.checknewversion=false", "--global.sendanonymoususage=false"]);
            command
        }
        Kind::Envoy => {
            let file = write("envoy.yaml", configuration("yaml envoy", ports, true));
            let mut command = python("envoy");
            command.arg("-c").arg(file);
            command.args(["--disable-hot-restart", "--concurrency", "1", "-l", "warn"]);
            command
        }
        Kind::Caddy => {
            let text = configuration("caddyfile", ports, true);
            let file = write("Caddyfile", format!("{{\n\tadmin off\n}}\n{text}"));
            let mut command = python("caddy");
            command.args(["run", "--adapter", "caddyfile", "--config"]).arg(file);
            command
        }
    }
}
