//! nginx, with what it serves behind `auth_request`, on loopback.

use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::broker::{API, Broker, BrokerOptions, OPEN_POLICY};
use super::http::Http;
use super::peer::{Peer, program, supervised};
use super::proxy::on_the_page;
use super::wait::free_port;

/// A broker that trusts this issuer and gives a role `bound` to whoever proves a key, with an
/// nginx that asks it about requests for what these roles may read. `keys` and `authz` go into
/// the tables of these names.
#[track_caller]
pub(crate) fn broker_behind_nginx(trusted: &str, keys: &str, authz: &str) -> (Broker, Nginx) {
    let (front, decides) = (free_port(), free_port());
    let mut options = BrokerOptions::trusting(trusted);
    options.policy = format!(
        "{OPEN_POLICY}\n@id(\"bound\") @ttl(\"1h\") @scope(\"deploy:read\")\n\
         permit(principal, action == Action::\"issue\", resource == Role::\"bound\");\n"
    );
    options.more = format!(
        r#"
[keys]
{keys}

[role.bound]
audiences = ["{API}"]
scopes = ["deploy:read"]
max_ttl = "1h"
dpop = "required"

[authz]
proxy = "nginx"
listen = "127.0.0.1:{decides}"
proxies = ["127.0.0.1"]
{authz}

[authz.route.api]
origins = ["http://127.0.0.1:{front}"]
audience = "{API}"
scopes = ["deploy:read"]
"#
    );
    let broker = Broker::start(&options);
    let nginx = Nginx::start(front, &format!("http://127.0.0.1:{decides}/v1/authz/api"));
    (broker, nginx)
}

/// An nginx that runs. Dropping it kills it.
pub(crate) struct Nginx {
    _peer: Peer,
    _files: TempDir,
    url: String,
}

impl Nginx {
    /// Starts one on this port that asks at `authz` about each request. What is behind it
    /// answers with who the caller is, as far as it is told.
    #[track_caller]
    pub(crate) fn start(port: u16, authz: &str) -> Self {
        let behind = free_port();
        let locations = on_the_page("nginx")
            .replace("http://127.0.0.1:9444/v1/authz/api", authz)
            .replace("127.0.0.1:8080", &format!("127.0.0.1:{behind}"));
        let service = format!(
            r#"
server {{
    listen 127.0.0.1:{behind};
    location / {{
        default_type text/plain;
        return 200 "$http_tmpcred_subject as $http_tmpcred_role, shown '$http_authorization'\n";
    }}
}}
"#
        );
        let files = tempfile::tempdir().unwrap();
        let command = prepared(files.path(), port, &locations, &service);
        Self::running(port, files, command)
    }

    /// Starts one that serves the files of this directory to whoever asks within a trace, and
    /// nobody else.
    #[track_caller]
    pub(crate) fn for_the_traced(site: &Path) -> Self {
        let (port, site) = (free_port(), site.display());
        let whole = format!("root {site};\nif ($http_traceparent = \"\") {{ return 503; }}");
        let files = tempfile::tempdir().unwrap();
        let command = prepared(files.path(), port, &whole, "");
        Self::running(port, files, command)
    }

    #[track_caller]
    fn running(port: u16, files: TempDir, command: Command) -> Self {
        let mut peer = Peer::start("nginx", command, files.path().join("log"));
        let url = format!("http://127.0.0.1:{port}");
        peer.until_ready(|| Http::new().get(&url).ok());
        Self { _peer: peer, _files: files, url }
    }

    /// Its address.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }
}

/// nginx, about to run, with these locations on this port, and with other servers.
pub(super) fn prepared(files: &Path, port: u16, locations: &str, servers: &str) -> Command {
    let config = files.join("nginx.conf");
    let at = files.display();
    let text = format!(
        r#"
daemon off;
master_process off;
pid {at}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {at}/body;
    proxy_temp_path {at}/proxy;
    fastcgi_temp_path {at}/fastcgi;
    uwsgi_temp_path {at}/uwsgi;
    scgi_temp_path {at}/scgi;

    server {{
        listen 127.0.0.1:{port};
        {locations}
    }}
    {servers}
}}
"#
    );
    std::fs::write(&config, text).unwrap();
    let mut command = supervised(&program("nginx"), Path::new("/dev/null"));
    command.arg("-e").arg("stderr").arg("-p").arg(files).arg("-c").arg(&config);
    command
}
