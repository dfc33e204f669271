//! From names to addresses, without the C library.
//!
//! The C library asks modules that it loads while it runs, which a program that is
//! linked statically cannot rely on. So names are looked up as resolv.conf(5) and
//! hosts(5) say, here as in every other program without the C library's modules.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::parse_resolv_conf;
use hickory_resolver::{Hosts, TokioResolver};
use reqwest::dns::{Addrs, Resolve, Resolving};

use super::files::{self, Stamp};

/// Where it is said which hosts there are, and which name servers are asked.
const FILES: [&str; 2] = ["/etc/hosts", "/etc/resolv.conf"];

/// How much of such a file is read.
const MAX_FILE: u64 = 16 * 1024 * 1024;

/// Looks names up. Nothing is read before the first, and what was read is read again where it
/// has changed.
#[derive(Clone)]
pub(super) struct Names {
    files: [PathBuf; 2],
    sources: Arc<Mutex<Option<Arc<Sources>>>>,
}

struct Sources {
    /// The files as they were.
    of: [Option<Stamp>; 2],
    hosts: Hosts,
    servers: TokioResolver,
}

impl Default for Names {
    fn default() -> Self {
        Self { files: FILES.map(PathBuf::from), sources: Arc::default() }
    }
}

impl Resolve for Names {
    fn resolve(&self, name: reqwest::dns::Name) -> Resolving {
        let names = self.clone();
        Box::pin(async move {
            let addresses = names.addresses(name.as_str()).await?;
            Ok(Box::new(addresses.into_iter().map(|ip| SocketAddr::new(ip, 0))) as Addrs)
        })
    }
}

impl Names {
    /// The addresses of this name.
    pub(super) async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        self.sources()?.addresses(name).await
    }

    fn sources(&self) -> io::Result<Arc<Sources>> {
        let of = [0, 1].map(|file| files::stamp(&self.files[file]));
        let mut known = self.sources.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(sources) = known.as_ref().filter(|sources| sources.of == of) {
            return Ok(sources.clone());
        }
        let made = Arc::new(Sources::read(&self.files, of)?);
        *known = Some(made.clone());
        Ok(made)
    }
}

impl Sources {
    fn read([hosts, servers]: &[PathBuf; 2], of: [Option<Stamp>; 2]) -> io::Result<Self> {
        let read = |path: &Path| files::read(path, MAX_FILE).ok().flatten();
        let mut known = Hosts::default();
        if let Some(text) = read(hosts)
            && let Err(cause) = known.read_hosts_conf(&text[..])
        {
            tracing::warn!(%cause, path = %hosts.display(), "not all of it can be read");
        }
        Ok(Self { of, hosts: known, servers: self::servers(read(servers))? })
    }

    async fn addresses(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        // A name that the file has is no question for a name server, not even where
        // the file knows addresses of one kind only.
        let known = self.known(name);
        if !known.is_empty() {
            return Ok(known);
        }
        let found = self.servers.lookup_ip(name).await.map_err(|cause| {
            if cause.is_nx_domain() || cause.is_no_records_found() {
                io::Error::new(io::ErrorKind::NotFound, "there is no such host name")
            } else {
                io::Error::other(format!("no name server answers: {cause}"))
            }
        })?;
        Ok(found.iter().collect())
    }

    /// What the file of hosts says.
    fn known(&self, name: &str) -> Vec<IpAddr> {
        let Ok(name) = Name::from_utf8(name) else { return Vec::new() };
        let kinds = [RecordType::AAAA, RecordType::A].into_iter();
        let found = kinds
            .filter_map(|kind| self.hosts.lookup_static_host(&Query::query(name.clone(), kind)));
        found
            .flat_map(|found| {
                found
                    .answers()
                    .iter()
                    .filter_map(|answer| answer.data.ip_addr())
                    .collect::<Vec<_>>()
            })
            .collect()
    }
}

fn servers(resolv_conf: Option<Vec<u8>>) -> io::Result<TokioResolver> {
    let said = resolv_conf.map(parse_resolv_conf).transpose().unwrap_or_else(|cause| {
        tracing::warn!(%cause, "resolv.conf cannot be read");
        None
    });
    // resolv.conf(5): without the file, the name server of this machine is asked.
    let (config, mut options) = said.unwrap_or_else(|| {
        let here = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        (ResolverConfig::from_parts(None, Vec::new(), vec![here]), ResolverOpts::default())
    });
    // Which of them answers is found by trying both (RFC 8305).
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_is_said_of_names_counts_as_soon_as_it_is_said() {
        let dir = tempfile::tempdir().unwrap();
        let files = ["hosts", "resolv.conf"].map(|name| dir.path().join(name));
        let say = |text: &str| files::write_private(&files[0], text.as_bytes()).unwrap();
        let names = Names { files: files.clone(), sources: Arc::default() };
        let found = async || names.addresses("db.example.test").await.unwrap();
        say("127.0.0.7 db.example.test\n");
        assert_eq!(found().await, [IpAddr::from([127, 0, 0, 7])]);
        let before = names.sources().unwrap();
        assert!(Arc::ptr_eq(&before, &names.sources().unwrap()), "it is read once");
        // The one that serves from now on.
        say("127.0.0.8 db.example.test\n");
        assert_eq!(found().await, [IpAddr::from([127, 0, 0, 8])]);
        let before = names.sources().unwrap();
        files::write_private(&files[1], b"nameserver 127.0.0.9\n").unwrap();
        assert!(!Arc::ptr_eq(&before, &names.sources().unwrap()));
    }
}
