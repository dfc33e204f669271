//! OpenSSH itself: `ssh-keygen`, `ssh-agent` and `ssh-add`, each with a directory for a home;
//! and a security key made of software, which OpenSSH speaks to as to one of hardware.
#![expect(clippy::disallowed_methods, reason = "tests start the programs that they talk to")]

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::host::env::Env;

/// A directory with keys in it.
pub(crate) struct OpenSsh {
    dir: TempDir,
}

impl OpenSsh {
    pub(crate) fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    pub(super) fn read(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(super) fn write(&self, name: &str, text: impl AsRef<[u8]>) {
        std::fs::write(self.path(name), text).unwrap();
    }

    pub(super) fn remove(&self, name: &str) {
        std::fs::remove_file(self.path(name)).unwrap();
    }

    /// A program of OpenSSH, whatever becomes of it.
    pub(super) fn try_run(&self, program: &str, args: &[&str], env: &[(&str, &Path)]) -> Output {
        let mut command = Command::new(program);
        command.args(args).current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap());
        command.env("HOME", self.dir.path()).env("SSH_ASKPASS", "/bin/false");
        command.envs(env.iter().copied());
        command
            .output()
            .unwrap_or_else(|error| panic!("{program} (Debian's openssh-client): {error}"))
    }

    /// One that has to do what it is told. Returns what it says.
    #[track_caller]
    pub(super) fn run(&self, program: &str, args: &[&str], env: &[(&str, &Path)]) -> String {
        let output = self.try_run(program, args, env);
        let said = [output.stdout, output.stderr].concat();
        let said = String::from_utf8_lossy(&said).into_owned();
        assert!(output.status.success(), "{program} {args:?}: {said}");
        said
    }

    /// Makes a key of this type (`ssh-keygen -t`), and returns its public half.
    pub(crate) fn key(&self, name: &str, kind: &[&str]) -> String {
        let args = [&["-q", "-N", "", "-C", "alice's key", "-f", name, "-t"], kind].concat();
        let token = self.security_key_if(kind[0].ends_with("-sk"));
        let env: Vec<_> = token.iter().map(|path| ("SSH_SK_PROVIDER", path.as_path())).collect();
        self.run("ssh-keygen", &args, &env);
        self.read(&format!("{name}.pub"))
    }

    fn security_key_if(&self, wanted: bool) -> Option<PathBuf> {
        wanted.then(|| self.security_key())
    }

    /// The security key, which is compiled where it is not yet.
    pub(crate) fn security_key(&self) -> PathBuf {
        let library = self.path("security-key.so");
        if !library.exists() {
            let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers/security-key.c");
            let (source, library) = (source.to_str().unwrap(), library.to_str().unwrap());
            let flags = ["-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", "-o", library, source];
            self.run("cc", &[&flags[..], &["-lcrypto"]].concat(), &[]);
        }
        library
    }

    /// An agent, which ends with the test.
    pub(super) fn agent(&self) -> Agent {
        let socket = self.path("agent.sock");
        let allowed = format!("{}/*", self.dir.path().canonicalize().unwrap().display());
        let mut command = Command::new("ssh-agent");
        command.args(["-D", "-P", &allowed, "-a"]).arg(&socket).env_clear();
        command.env("PATH", std::env::var_os("PATH").unwrap()).env("HOME", self.dir.path());
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        let child = child.spawn().expect("ssh-agent (Debian's openssh-client)");
        let agent = Agent { child, socket };
        let end = Instant::now() + Duration::from_secs(20);
        while std::os::unix::net::UnixStream::connect(&agent.socket).is_err() {
            assert!(Instant::now() < end, "ssh-agent does not listen");
            std::thread::sleep(Duration::from_millis(5));
        }
        agent
    }
}

/// A running agent.
pub(super) struct Agent {
    child: Child,
    pub(super) socket: PathBuf,
}

impl Agent {
    pub(super) fn env(&self) -> Env {
        env_with(&self.socket)
    }

    /// Adds the key in this file, and removes the file: nobody but the agent has it now.
    pub(super) fn take(&self, openssh: &OpenSsh, name: &str) {
        let mut env = vec![("SSH_AUTH_SOCK", self.socket.as_path())];
        let token = openssh.path("security-key.so");
        if openssh.read(&format!("{name}.pub")).starts_with("sk-") {
            env.push(("SSH_SK_PROVIDER", &token));
        }
        openssh.run("ssh-add", &["-q", name], &env);
        openssh.remove(name);
    }

    pub(super) fn end(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.end();
    }
}

/// An environment with an agent at this socket.
pub(super) fn env_with(socket: &Path) -> Env {
    Env::from_pairs([("SSH_AUTH_SOCK", socket.as_os_str())])
}
