//! A real Secret Service: gnome-keyring on a D-Bus of its own, without a prompt.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use super::home::Home;
use super::peer::{Peer, READY, program, supervised};
use super::wait::wait_until;

/// What unlocks the keyring.
const PASSWORD: &str = "keyring-password";
const SERVICE: &str = "org.freedesktop.secrets";
/// How long secret-tool may take. It waits for ever where nobody answers.
const TOOL: Duration = Duration::from_secs(60);

/// The Secret Service of one home, and the bus it is on. `DBUS_SESSION_BUS_ADDRESS`
/// of the home leads there.
pub(crate) struct Keyring {
    // Dropped in this order: the daemon first, then its bus.
    daemon: Option<Peer>,
    _bus: Peer,
}

impl Keyring {
    /// Starts one that is unlocked, as after logging in at a desktop.
    #[track_caller]
    pub(crate) fn start(home: &mut Home) -> Self {
        let mut keyring = Self::bus(home);
        keyring.unlock(home);
        keyring
    }

    /// Starts one that is locked, and nobody is there to ask for its password.
    #[track_caller]
    pub(crate) fn locked(home: &mut Home) -> Self {
        // It has to exist before it can be locked.
        let mut keyring = Self::start(home);
        keyring.lock(home);
        keyring
    }

    /// Starts a bus on which there is no Secret Service.
    #[track_caller]
    pub(crate) fn bus(home: &mut Home) -> Self {
        assert!(
            home.is_known(),
            "a bus refuses users whom the machine does not know by name: use Home::nobody()"
        );
        let socket = home.path("run/bus");
        let config = home.write("run/bus.conf", bus_config(&socket));
        let mut command = as_user(home, "dbus-daemon", Path::new("/dev/null"));
        command
            .args(["--nofork", "--nopidfile"])
            .arg(format!("--config-file={}", config.display()));
        let mut bus = Peer::start("dbus-daemon", command, log(home, "bus.log"));
        bus.until_ready(|| std::os::unix::net::UnixStream::connect(&socket).is_ok().then_some(()));
        home.set("DBUS_SESSION_BUS_ADDRESS", format!("unix:path={}", socket.display()));
        Self { daemon: None, _bus: bus }
    }

    /// Starts the daemon again, unlocked: what is stored stays.
    #[track_caller]
    pub(crate) fn unlock(&mut self, home: &Home) {
        let password = home.write("run/keyring-password", PASSWORD);
        self.run_daemon(home, &["--unlock"], &password);
    }

    /// Starts the daemon again, locked.
    #[track_caller]
    pub(crate) fn lock(&mut self, home: &Home) {
        self.run_daemon(home, &[], Path::new("/dev/null"));
    }

    /// Ends the daemon: the bus stays, without a Secret Service.
    pub(crate) fn stop(&mut self, home: &Home) {
        self.daemon = None;
        wait_until("the Secret Service to leave its bus", READY, || (!served(home)).then_some(()));
    }

    /// Stops the daemon as it is: whoever calls it waits.
    pub(crate) fn freeze(&self) {
        self.daemon.as_ref().unwrap().freeze();
    }

    /// Lets it go on.
    pub(crate) fn thaw(&self) {
        self.daemon.as_ref().unwrap().thaw();
    }

    #[track_caller]
    fn run_daemon(&mut self, home: &Home, more: &[&str], input: &Path) {
        self.stop(home);
        let mut command = as_user(home, "gnome-keyring-daemon", input);
        command.args(["--foreground", "--components=secrets"]).args(more);
        let mut daemon = Peer::start("gnome-keyring-daemon", command, log(home, "keyring.log"));
        daemon.until_ready(|| served(home).then_some(()));
        self.daemon = Some(daemon);
    }
}

/// Stores an item in the keyring of `home`, as another program would.
#[track_caller]
pub(crate) fn store_item(home: &Home, name: &str, secret: &str) {
    let tool = home.command(program("secret-tool"));
    tool.args(["store", "--label", name, "name", name]).stdin(secret).limit(TOOL).run().ok();
}

/// Looks an item up that [`store_item`] has stored.
pub(crate) fn look_up_item(home: &Home, name: &str) -> Option<String> {
    let tool = home.command(program("secret-tool"));
    let output = tool.args(["lookup", "name", name]).limit(TOOL).run();
    (output.code == Some(0)).then_some(output.stdout)
}

/// Whether a Secret Service is on the bus of `home`.
fn served(home: &Home) -> bool {
    let ask = home.command(program("dbus-send")).args([
        "--session",
        "--print-reply",
        "--dest=org.freedesktop.DBus",
        "/",
        // Any other question would have the bus look for somebody to start.
        "org.freedesktop.DBus.NameHasOwner",
        &format!("string:{SERVICE}"),
    ]);
    ask.run().stdout.contains("boolean true")
}

fn as_user(home: &Home, name: &str, input: &Path) -> std::process::Command {
    let mut command = match home.uid() {
        Some(uid) => {
            let mut command = supervised(&program("setpriv"), input);
            command.arg(format!("--reuid={uid}")).arg(format!("--regid={uid}"));
            command.arg("--clear-groups").arg(program(name));
            command
        }
        None => supervised(&program(name), input),
    };
    command.envs(home.variables());
    command.stdout(log_file(home, &format!("{name}.out")));
    command
}

fn log(home: &Home, name: &str) -> std::path::PathBuf {
    home.path("run").join(name)
}

fn log_file(home: &Home, name: &str) -> File {
    File::create(log(home, name)).unwrap()
}

/// A session bus that starts nothing by itself: no service of this machine.
fn bus_config(socket: &Path) -> String {
    format!(
        r#"<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <type>session</type>
  <listen>unix:path={}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow send_destination="*" eavesdrop="true"/>
    <allow eavesdrop="true"/>
    <allow own="*"/>
  </policy>
</busconfig>
"#,
        socket.display()
    )
}
