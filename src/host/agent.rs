//! The agent that holds somebody's SSH keys: one message there, one back, within a time.
//!
//! What is in the messages is for whoever sends them.

use std::path::PathBuf;
use std::time::Duration;

use super::env::Env;
use crate::error::{Error, ErrorKind, Result};

/// Where the agent listens, as every SSH client knows.
const SOCKET: &str = "SSH_AUTH_SOCK";

/// The longest answer that is taken, in bytes; as long as OpenSSH's agent lets messages be.
#[cfg(unix)]
const MAX_ANSWER: usize = 256 * 1024;

/// A way to an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Socket {
    path: PathBuf,
}

impl Socket {
    /// The agent of this environment.
    ///
    /// # Errors
    /// [`ErrorKind::Usage`] where it names none.
    pub fn of(env: &Env) -> Result<Self> {
        match env.get_os(SOCKET).filter(|path| !path.is_empty()) {
            Some(path) => Ok(Self { path: path.into() }),
            None => Err(Error::new(ErrorKind::Usage, "there is no SSH agent")
                .because_of(format!("{SOCKET} is not set"))
                .hint("start one with `eval $(ssh-agent)`, and add a key with `ssh-add`")),
        }
    }

    /// Sends a message, and returns the answer; both without their length. However long the
    /// agent takes, this returns after `limit`.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where there is no answer, or none that is one.
    #[cfg(unix)]
    pub fn ask(&self, message: &[u8], limit: Duration) -> Result<Vec<u8>> {
        use std::sync::mpsc;

        let (path, message) = (self.path.clone(), message.to_vec());
        let (tell, told) = mpsc::sync_channel(1);
        // Connecting has no time limit of its own. A thread that waits for an agent which
        // hangs ends a little later, or with the process.
        let asking = move || {
            let _ = tell.send(exchange(&path, &message, limit));
        };
        let failed =
            |cause: std::io::Error| self.unheard(cause.to_string(), "is the agent running?");
        std::thread::Builder::new().name("ssh-agent".into()).spawn(asking).map_err(failed)?;
        match told.recv_timeout(limit) {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(self.unheard(
                format!("it did not answer within {} s", limit.as_secs()),
                "does it wait for somebody to touch a security key, or to confirm?",
            )),
        }
    }

    /// Agents of this system are not spoken to.
    #[cfg(not(unix))]
    pub fn ask(&self, _message: &[u8], _limit: Duration) -> Result<Vec<u8>> {
        Err(self.unheard("that is not possible on this system".into(), "sign with `ssh-keygen -Y`"))
    }

    fn unheard(&self, why: String, hint: &str) -> Error {
        let what = format!("the SSH agent at {} does not answer", self.path.display());
        Error::new(ErrorKind::Unreachable, what).because_of(why).hint(hint)
    }
}

#[cfg(unix)]
#[expect(clippy::disallowed_methods, reason = "this is the port to the agent")]
fn exchange(path: &std::path::Path, message: &[u8], limit: Duration) -> std::io::Result<Vec<u8>> {
    use std::io::{Error, ErrorKind, Read as _, Write as _};
    use std::os::unix::net::UnixStream;

    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(limit))?;
    stream.set_write_timeout(Some(limit))?;
    let length = u32::try_from(message.len()).map_err(Error::other)?;
    stream.write_all(&[&length.to_be_bytes()[..], message].concat())?;
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let length = usize::try_from(u32::from_be_bytes(length)).map_err(Error::other)?;
    if !(1..=MAX_ANSWER).contains(&length) {
        return Err(Error::new(ErrorKind::InvalidData, format!("its answer has {length} bytes")));
    }
    let mut answer = vec![0; length];
    stream.read_exact(&mut answer)?;
    Ok(answer)
}
