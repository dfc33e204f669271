//! A way to a server by its name, for a library that would ask the C library for the
//! address: a socket that nobody else can reach, and behind it the server.
//!
//! What goes through is not looked at. Whoever speaks TLS speaks it with the server.
#![expect(clippy::disallowed_methods, reason = "this is the port to a server by its name")]

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;
use tokio::net::{TcpStream, UnixListener, UnixStream};
use tokio::task::JoinHandle;

use super::names::Names;
use crate::error::{Error, ErrorKind, Result};

/// How long one address of the server is tried.
const TRY: Duration = Duration::from_secs(5);

/// How long a server may take to end a connection that was ended here.
const LINGER: Duration = Duration::from_secs(5);

/// How long is waited where no connection can be taken, as when too many files are open.
const PAUSE: Duration = Duration::from_millis(100);

/// Takes connections to a server until it is dropped.
pub struct Relay {
    dir: TempDir,
    server: Arc<Server>,
    task: JoinHandle<()>,
}

struct Server {
    names: Names,
    host: String,
    port: u16,
}

/// Where there is memory to share, also in a container that has no `/tmp` and may write nowhere
/// else.
const SHARED_MEMORY: &str = "/dev/shm";

/// A directory that nobody else can look into, with mode 0700.
fn own_dir() -> io::Result<TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("tmpcred-");
        builder
    };
    builder().tempdir().or_else(|cause| builder().tempdir_in(SHARED_MEMORY).map_err(|_| cause))
}

impl Relay {
    /// Takes connections to this server, at a socket that is called `socket`, in a
    /// directory of its own. Needs a runtime.
    ///
    /// # Errors
    /// Where there can be no such socket.
    pub fn start(socket: &str, host: &str, port: u16) -> Result<Self> {
        let failed = |cause: io::Error| {
            Error::new(ErrorKind::Io, format!("there can be no way to {host}")).because(cause)
        };
        let dir = own_dir().map_err(|cause| {
            failed(cause).hint("there has to be a directory for a socket: name it by TMPDIR")
        })?;
        let listener = UnixListener::bind(dir.path().join(socket)).map_err(failed)?;
        let server = Arc::new(Server { names: Names::default(), host: host.into(), port });
        let task = tokio::spawn(serve(listener, server.clone()));
        Ok(Self { dir, server, task })
    }

    /// The directory of the socket.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Looks whether somebody answers there.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`], and why.
    pub async fn reach(&self) -> Result<()> {
        let Server { host, port, .. } = &*self.server;
        self.server.connect().await.map(drop).map_err(|cause| {
            Error::new(ErrorKind::Unreachable, format!("nobody answers at {host}:{port}"))
                .because(cause)
        })
    }
}

impl Drop for Relay {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: UnixListener, server: Arc<Server>) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                tokio::spawn(pass(stream, server.clone()));
            }
            Err(error) => {
                tracing::debug!(%error, "not accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Lets a connection through, until one of the two ends it. Where it is not the server, and
/// that says nothing more, it is given up after a while: it may be gone, or hang.
async fn pass(mut near: UnixStream, server: Arc<Server>) {
    let mut far = match server.connect().await {
        Ok(far) => far,
        Err(error) => {
            let Server { host, port, .. } = &*server;
            tracing::warn!(host, port, %error, "nobody answers");
            return;
        }
    };
    let ((mut from_near, mut to_near), (mut from_far, mut to_far)) = (near.split(), far.split());
    let there = async {
        tokio::io::copy(&mut from_near, &mut to_far).await?;
        to_far.shutdown().await?;
        tokio::time::sleep(LINGER).await;
        io::Result::Ok(())
    };
    let back = async { tokio::io::copy(&mut from_far, &mut to_near).await.map(drop) };
    let ended = tokio::select! { ended = there => ended, ended = back => ended };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection was lost");
    }
}

impl Server {
    async fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no such host name");
        for ip in self.names.addresses(&self.host).await? {
            let to = SocketAddr::new(ip, self.port);
            match tokio::time::timeout(TRY, TcpStream::connect(to)).await {
                Ok(Ok(stream)) => {
                    stream.set_nodelay(true)?;
                    return Ok(stream);
                }
                Ok(Err(cause)) => last = cause,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }
}
