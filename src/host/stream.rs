//! Bytes for a server that takes them and has nothing to say: over TCP, or TLS.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use url::Host;

use super::http::{bad_tls, tls_problem};
use crate::error::{Error, ErrorKind, Result};

/// How long one address of the server is tried.
const TRY: Duration = Duration::from_secs(5);

/// How much a server may say that should say nothing, in bytes.
const MAX_SAID: usize = 64 * 1024;

/// A server.
pub struct Receiver {
    host: Host<String>,
    port: u16,
    tls: Option<Arc<ClientConfig>>,
    #[cfg(target_os = "linux")]
    names: super::names::Names,
}

impl Receiver {
    /// A server that is spoken to in the clear.
    pub fn plain(host: Host<String>, port: u16) -> Self {
        Self {
            host,
            port,
            tls: None,
            #[cfg(target_os = "linux")]
            names: super::names::Names::default(),
        }
    }

    /// A server that has a certificate of an authority that the system trusts, or of one in
    /// `extra_ca_pem`.
    ///
    /// # Errors
    /// [`ErrorKind::Config`] where no authority can be had.
    pub fn secured(host: Host<String>, port: u16, extra_ca_pem: Option<&[u8]>) -> Result<Self> {
        let failed = |cause: rustls::Error| {
            Error::new(ErrorKind::Config, "TLS cannot be set up").because(cause)
        };
        let extra: Vec<_> = CertificateDer::pem_slice_iter(extra_ca_pem.unwrap_or_default())
            .collect::<Result<_, _>>()
            .map_err(|cause| {
                Error::new(
                    ErrorKind::Config,
                    "the file with certificate authorities cannot be read",
                )
                .because(cause)
            })?;
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let verifier = Verifier::new_with_extra_roots(extra, provider.clone()).map_err(failed)?;
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(failed)?
            .dangerous()
            // It is the system's own.
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Ok(Self { tls: Some(Arc::new(config)), ..Self::plain(host, port) })
    }

    /// Sends bytes over a connection of their own, and returns when the server has read them
    /// to the end.
    ///
    /// It is told that there is no more, and closes the connection when it has come to that
    /// point: where it has not read everything, its system resets the connection instead. That
    /// is all that TCP can say; over TLS the server itself says it.
    ///
    /// # Errors
    /// [`ErrorKind::Unreachable`] where that does not come about, [`ErrorKind::Verification`]
    /// where the server is not who it should be. There is no limit of time in it.
    pub async fn send(&self, bytes: &[u8]) -> Result<()> {
        let place = format!("{}:{}", self.host, self.port);
        let lost = |cause: io::Error| match tls_problem(&cause) {
            Some(problem) => bad_tls(&place, problem),
            None => Error::new(ErrorKind::Unreachable, format!("{place} did not take all"))
                .because(cause),
        };
        let stream = self.connect().await.map_err(|cause| {
            Error::new(ErrorKind::Unreachable, format!("nobody answers at {place}")).because(cause)
        })?;
        let Some(tls) = &self.tls else { return tell(stream, bytes).await.map_err(lost) };
        let name = match &self.host {
            Host::Domain(name) => ServerName::try_from(name.clone())
                .map_err(|cause| Error::new(ErrorKind::Config, place.clone()).because(cause))?,
            Host::Ipv4(ip) => ServerName::from(IpAddr::from(*ip)),
            Host::Ipv6(ip) => ServerName::from(IpAddr::from(*ip)),
        };
        let stream = TlsConnector::from(tls.clone()).connect(name, stream).await.map_err(lost)?;
        tell(stream, bytes).await.map_err(lost)
    }

    #[expect(clippy::disallowed_methods, reason = "this is a port to servers")]
    async fn connect(&self) -> io::Result<TcpStream> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "there is no such host name");
        for ip in self.addresses().await? {
            let to = SocketAddr::new(ip, self.port);
            match tokio::time::timeout(TRY, TcpStream::connect(to)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(cause)) => last = cause,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        Err(last)
    }

    async fn addresses(&self) -> io::Result<Vec<IpAddr>> {
        match &self.host {
            Host::Ipv4(ip) => Ok(vec![(*ip).into()]),
            Host::Ipv6(ip) => Ok(vec![(*ip).into()]),
            #[cfg(target_os = "linux")]
            Host::Domain(name) => self.names.addresses(name).await,
            #[cfg(not(target_os = "linux"))]
            Host::Domain(name) => {
                let found = tokio::net::lookup_host((name.as_str(), self.port)).await?;
                Ok(found.map(|address| address.ip()).collect())
            }
        }
    }
}

/// Sends everything, says that it was all, and waits until the other side has read it.
async fn tell(mut stream: impl AsyncRead + AsyncWrite + Unpin, bytes: &[u8]) -> io::Result<()> {
    stream.write_all(bytes).await?;
    stream.shutdown().await?;
    let (mut said, mut buffer) = (0, [0; 1024]);
    loop {
        match stream.read(&mut buffer).await? {
            0 => return Ok(()),
            count => said += count,
        }
        if said > MAX_SAID {
            return Err(io::Error::other("it says much, and should say nothing"));
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::DuplexStream;

    use super::*;

    async fn told(server: impl AsyncFnOnce(DuplexStream)) -> io::Result<()> {
        let (near, far) = tokio::io::duplex(64);
        tokio::join!(tell(near, &[7; 1000]), server(far)).0
    }

    #[tokio::test]
    async fn it_is_told_when_the_other_side_has_read_all() {
        let read_all = async |mut far: DuplexStream| {
            let mut read = Vec::new();
            far.read_to_end(&mut read).await.unwrap();
            assert_eq!(read, [7; 1000]);
            // What it says meanwhile means nothing.
            far.write_all(b"hello").await.unwrap();
        };
        told(read_all).await.unwrap();
        let goes_early = async |mut far: DuplexStream| {
            far.read_exact(&mut [0; 100]).await.unwrap();
        };
        assert_eq!(told(goes_early).await.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
        let talks = async |mut far: DuplexStream| {
            let (mut read, mut write) = tokio::io::split(&mut far);
            let talk = async { while write.write_all(&[1; 64]).await.is_ok() {} };
            let mut sink = Vec::new();
            tokio::select! {
                _ = talk => {}
                _ = async { read.read_to_end(&mut sink).await.ok(); std::future::pending::<()>().await } => {}
            }
        };
        assert!(told(talks).await.unwrap_err().to_string().contains("says much"));
    }

    #[tokio::test]
    async fn a_server_that_ends_with_bytes_unread_has_not_taken_them() {
        #[expect(clippy::disallowed_methods, reason = "a server that misbehaves")]
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let receiver = Receiver::plain(Host::Ipv4([127, 0, 0, 1].into()), port);
        let server = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            stream.read_exact(&mut [0; 10]).await.unwrap();
            stream.readable().await.unwrap();
        };
        let (sent, ()) = tokio::join!(receiver.send(&[7; 100_000]), server);
        assert_eq!(sent.unwrap_err().kind(), ErrorKind::Unreachable);
    }
}
