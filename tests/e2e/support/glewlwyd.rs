//! Glewlwyd, an OpenID provider that has nothing in common with the other one:
//! another language, other habits. It has redirect addresses with fixed ports,
//! a real `slow_down`, and renews no ID token.

use std::fs;
use std::path::Path;

use rcgen::{KeyPair, PKCS_RSA_SHA256};
use reqwest::Method;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::http::Http;
use super::peer::{Peer, program, supervised};
use super::wait::free_port;

/// The public client: browser and device flow, refresh tokens for one use each.
pub(crate) const CLIENT: &str = "cli";
/// The only person there.
pub(crate) const USER: &str = "admin";
/// That person's password.
pub(crate) const PASSWORD: &str = "password";

/// Where the Debian package keeps the web pages and the first database.
const PAGES: &str = "/usr/share/glewlwyd/webapp";
const DATABASE: &str = "/usr/share/dbconfig-common/data/glewlwyd/install/sqlite3";

/// What a [`Glewlwyd`] does otherwise than by default.
#[derive(Clone, Debug)]
pub(crate) struct GlewlwydOptions {
    /// Seconds for which an access token is good.
    pub(crate) access_token: u32,
    /// Seconds for which a refresh token is good.
    pub(crate) refresh_token: u32,
    /// Seconds that a device must wait between polls, or hear `slow_down`.
    pub(crate) device_interval: u32,
    /// The resources (RFC 8707) for which it issues access tokens. Where there
    /// are none, it takes no notice of a resource that is asked for.
    pub(crate) resources: Vec<&'static str>,
    /// The port by which everybody comes to it, where that is not its own.
    pub(crate) behind: Option<u16>,
}

impl Default for GlewlwydOptions {
    fn default() -> Self {
        Self {
            access_token: 3600,
            refresh_token: 86400,
            device_interval: 1,
            resources: Vec::new(),
            behind: None,
        }
    }
}

/// A running server.
pub(crate) struct Glewlwyd {
    origin: String,
    port: u16,
    redirect_ports: [u16; 2],
    peer: Peer,
    _files: TempDir,
}

impl Glewlwyd {
    /// Starts one as it is by default.
    #[track_caller]
    pub(crate) fn start() -> Self {
        Self::start_with(&GlewlwydOptions::default())
    }

    /// Starts one.
    #[track_caller]
    pub(crate) fn start_with(options: &GlewlwydOptions) -> Self {
        let files = tempfile::tempdir().unwrap();
        let directory = files.path();
        prepare(directory);
        // Somebody else may take a port between its choice and its use.
        let (mut peer, port) = (0..5)
            .find_map(|_| launch(directory, free_port(), options.behind))
            .unwrap_or_else(|| panic!("glewlwyd: {}", log(directory)));
        let redirect_ports = [free_port(), free_port()];
        let mut http = Http::new();
        let own = origin(port);
        let ready = peer.until_ready(|| http.get(&format!("{own}/config")).ok());
        assert_eq!(ready.status, 200, "{}", log(directory));
        let origin = origin(options.behind.unwrap_or(port));
        configure(&mut http, &own, &origin, options, redirect_ports);
        Self { origin, port, redirect_ports, peer, _files: files }
    }

    /// Its issuer identifier.
    pub(crate) fn issuer(&self) -> String {
        format!("{}/api/oidc", self.origin)
    }

    /// The port that it listens on.
    pub(crate) fn port(&self) -> u16 {
        self.port
    }

    /// The ports to which it sends a browser back: at 127.0.0.1, `/callback`.
    pub(crate) fn redirect_ports(&self) -> [u16; 2] {
        self.redirect_ports
    }

    /// What it said.
    pub(crate) fn said(&self) -> String {
        self.peer.said()
    }
}

fn origin(port: u16) -> String {
    format!("http://localhost:{port}")
}

fn log(directory: &Path) -> String {
    fs::read_to_string(directory.join("log")).unwrap_or_default()
}

/// Lays out pages and database in `directory`.
fn prepare(directory: &Path) {
    let pages = directory.join("pages");
    copy(Path::new(PAGES), &pages);
    // The package has the pages' settings in a directory by their own name.
    let settings = pages.join("config.json");
    if settings.is_dir() {
        fs::rename(&settings, directory.join("settings")).unwrap();
        fs::rename(directory.join("settings/config.json"), &settings).unwrap();
    }
    let schema = fs::File::open(DATABASE)
        .unwrap_or_else(|cause| panic!("{DATABASE}: {cause}: run tests/setup, it installs it"));
    let made = std::process::Command::new(program("sqlite3"))
        .args(["-bail", "-cmd", "pragma synchronous = off"])
        .arg(directory.join("database"))
        .stdin(schema)
        .stdout(std::process::Stdio::null())
        .status()
        .unwrap();
    assert!(made.success(), "sqlite3 cannot make Glewlwyd's database: {made}");
}

/// Copies what links lead to: Glewlwyd serves no file outside its directory.
fn copy(from: &Path, to: &Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap_or_else(|cause| panic!("{from:?}: {cause}")) {
        let (path, name) = entry.map(|entry| (entry.path(), entry.file_name())).unwrap();
        if path.is_dir() {
            copy(&path, &to.join(name));
        } else if path.exists() {
            fs::copy(path, to.join(name)).unwrap();
        }
    }
}

/// Starts the server, unless somebody else has the port.
fn launch(directory: &Path, port: u16, behind: Option<u16>) -> Option<(Peer, u16)> {
    let config = directory.join("config");
    let external = origin(behind.unwrap_or(port));
    fs::write(&config, settings(directory, port, &external)).unwrap();
    let mut command = supervised(&program("glewlwyd"), Path::new("/dev/null"));
    command.arg(format!("--config-file={}", config.display()));
    command.stdout(fs::File::create(directory.join("out")).unwrap());
    let mut peer = Peer::start("glewlwyd", command, directory.join("log"));
    let mut http = Http::new();
    let url = format!("{}/config", origin(port));
    super::wait::wait_until("Glewlwyd to start or to give up", super::peer::READY, || {
        match (http.get(&url), peer.runs()) {
            (_, false) => Some(false),
            (Ok(_), true) => Some(true),
            _ => None,
        }
    })
    .then_some((peer, port))
}

fn settings(directory: &Path, port: u16, origin: &str) -> String {
    let directory = directory.display();
    format!(
        r#"
port={port}
bind_address="127.0.0.1"
external_url="{origin}"
login_url="login.html"
api_prefix="api"
static_files_path="{directory}/pages/"
log_mode="console"
log_level="WARNING"
cookie_domain="localhost"
cookie_secure=0
cookie_same_site="empty"
session_expiration=86400
session_key="GLEWLWYD2_SESSION_ID"
admin_scope="g_admin"
profile_scope="g_profile"
user_module_path="/usr/lib/glewlwyd/user"
user_middleware_module_path="/usr/lib/glewlwyd/user_middleware"
client_module_path="/usr/lib/glewlwyd/client"
user_auth_scheme_module_path="/usr/lib/glewlwyd/scheme"
plugin_module_path="/usr/lib/glewlwyd/plugin"
hash_algorithm="SHA512"
database = {{ type="sqlite3" path="{directory}/database" }};
static_files_mime_types = (
  {{ extension=".html" mime_type="text/html" }},
  {{ extension=".css" mime_type="text/css" }},
  {{ extension=".js" mime_type="application/javascript" }},
  {{ extension=".json" mime_type="application/json" }}
)
"#
    )
}

/// Adds the OpenID provider, its client and its user through the server's own API.
fn configure(http: &mut Http, own: &str, origin: &str, options: &GlewlwydOptions, ports: [u16; 2]) {
    let api = |path: &str| format!("{own}/api/{path}");
    let login = json!({ "username": USER, "password": PASSWORD });
    http.json(Method::POST, &api("auth/"), &login);
    let plugin = json!({
        "module": "oidc", "name": "oidc", "display_name": "oidc", "enabled": true,
        "parameters": provider(&format!("{origin}/api/oidc"), options),
    });
    http.json(Method::POST, &api("mod/plugin/"), &plugin);
    let scope = json!({
        "name": "api", "display_name": "api", "description": "api",
        "password_required": false, "scheme": {},
    });
    http.json(Method::POST, &api("scope/"), &scope);
    let client = json!({
        "client_id": CLIENT, "name": "tmpcred", "confidential": false, "enabled": true,
        "token_endpoint_auth_method": ["none"],
        "redirect_uri": ports.map(|port| format!("http://127.0.0.1:{port}/callback")),
        "authorization_type": ["code", "device_authorization", "refresh_token"],
        "scope": [],
    });
    http.json(Method::POST, &api("client/"), &client);
    let user = json!({
        "username": USER, "name": "Admin", "email": "admin@example.com", "enabled": true,
        "scope": ["g_admin", "g_profile", "openid", "api"],
    });
    http.json(Method::PUT, &api(&format!("user/{USER}?source=database")), &user);
}

fn provider(issuer: &str, options: &GlewlwydOptions) -> Value {
    let key = KeyPair::generate_for(&PKCS_RSA_SHA256).unwrap();
    let mut parameters = json!({
        "iss": issuer,
        "jwt-type": "rsa", "jwt-key-size": "256",
        "key": key.serialize_pem(), "cert": key.public_key_pem(),
        "access-token-duration": options.access_token,
        "refresh-token-duration": options.refresh_token,
        "code-duration": 60,
        "refresh-token-rolling": true, "refresh-token-one-use": "always",
        "allow-non-oidc": true,
        "auth-type-code-enabled": true, "auth-type-code-revoke-replayed": true,
        "auth-type-device-enabled": true, "auth-type-refresh-enabled": true,
        "auth-type-token-enabled": false, "auth-type-implicit-enabled": false,
        "auth-type-password-enabled": false, "auth-type-client-enabled": false,
        "auth-type-none-enabled": false,
        "device-authorization-expiration": 120,
        "device-authorization-interval": options.device_interval,
        "pkce-allowed": true, "pkce-required": false, "pkce-required-public-client": true,
        "pkce-method-plain-allowed": false,
        "introspection-revocation-allowed": true,
        "introspection-revocation-allow-target-client": true,
        "introspection-revocation-auth-scope": [],
        "jwks-show": true, "jwks-uri": "",
        "request-parameter-allow": false,
        "secret-type": "pairwise", "subject-type": "public",
        "address-claim": { "type": "no" },
        "scope": [], "additional-parameters": [], "claims": [],
    });
    if !options.resources.is_empty() {
        parameters["resource-allowed"] = json!(true);
        parameters["resource-scope"] = json!({ "openid": options.resources });
        parameters["resource-client-property"] = json!("");
        parameters["resource-scope-and-client-property"] = json!(false);
    }
    parameters
}
