//! nginx, with what it serves behind `auth_request`, on loopback.

use std::path::Path;

use tempfile::TempDir;

use super::broker::{API, Broker, BrokerOptions, OPEN_POLICY};
use super::http::Http;
use super::peer::{Peer, program, supervised};
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
        Self::serving(port, &asking(port, free_port(), authz))
    }

    /// Starts one that serves the files of this directory to whoever asks within a trace, and
    /// nobody else.
    #[track_caller]
    pub(crate) fn for_the_traced(site: &Path) -> Self {
        let (port, site) = (free_port(), site.display());
        let server = format!(
            r#"
    server {{
        listen 127.0.0.1:{port};
        root {site};
        if ($http_traceparent = "") {{ return 503; }}
    }}
"#
        );
        Self::serving(port, &server)
    }

    #[track_caller]
    fn serving(port: u16, servers: &str) -> Self {
        let files = tempfile::tempdir().unwrap();
        let config = files.path().join("nginx.conf");
        std::fs::write(&config, configuration(files.path(), servers)).unwrap();
        let mut command = supervised(&program("nginx"), Path::new("/dev/null"));
        command.arg("-e").arg("stderr").arg("-p").arg(files.path()).arg("-c").arg(&config);
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

fn configuration(files: &Path, servers: &str) -> String {
    let files = files.display();
    format!(
        r#"
daemon off;
master_process off;
pid {files}/pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {files}/body;
    proxy_temp_path {files}/proxy;
    fastcgi_temp_path {files}/fastcgi;
    uwsgi_temp_path {files}/uwsgi;
    scgi_temp_path {files}/scgi;
{servers}
}}
"#
    )
}

/// The part of it that matters is in `docs/forward-auth.md`.
fn asking(port: u16, behind: u16, authz: &str) -> String {
    format!(
        r#"
    server {{
        listen 127.0.0.1:{port};

        location / {{
            auth_request /_authz;
            auth_request_set $subject $upstream_http_tmpcred_subject;
            auth_request_set $role $upstream_http_tmpcred_role;
            auth_request_set $nonce $upstream_http_dpop_nonce;
            add_header DPoP-Nonce $nonce always;
            proxy_set_header Tmpcred-Subject $subject;
            proxy_set_header Tmpcred-Role $role;
            proxy_set_header Authorization "";
            proxy_set_header DPoP "";
            proxy_pass http://127.0.0.1:{behind};
        }}

        location = /_authz {{
            internal;
            proxy_pass {authz};
            proxy_pass_request_body off;
            proxy_set_header Content-Length "";
            proxy_set_header X-Original-Method $request_method;
            proxy_set_header X-Original-Host $http_host;
            proxy_set_header X-Original-URI $request_uri;
        }}
    }}

    server {{
        listen 127.0.0.1:{behind};
        location / {{
            default_type text/plain;
            return 200 "$http_tmpcred_subject as $http_tmpcred_role, shown '$http_authorization'\n";
        }}
    }}
"#
    )
}
