//! From names to addresses, without the C library.
//!
//! The C library asks modules that it loads while it runs, which a program that is
//! linked statically cannot rely on. So names are looked up as resolv.conf(5) and
//! hosts(5) say, here as in every other program without the C library's modules.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Arc, OnceLock};

use hickory_resolver::config::{LookupIpStrategy, NameServerConfig, ResolverConfig, ResolverOpts};
use hickory_resolver::net::runtime::TokioRuntimeProvider;
use hickory_resolver::proto::op::Query;
use hickory_resolver::proto::rr::{Name, RecordType};
use hickory_resolver::system_conf::read_system_conf;
use hickory_resolver::{Hosts, TokioResolver};
use reqwest::dns::{Addrs, Resolve, Resolving};

/// Looks names up. Nothing is read before the first.
#[derive(Clone, Default)]
pub(super) struct Names {
    sources: Arc<OnceLock<Sources>>,
}

struct Sources {
    hosts: Hosts,
    servers: TokioResolver,
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
        let sources = match self.sources.get() {
            Some(sources) => sources,
            None => {
                let made = Sources::of_this_machine()?;
                self.sources.get_or_init(|| made)
            }
        };
        sources.addresses(name).await
    }
}

impl Sources {
    fn of_this_machine() -> io::Result<Self> {
        Ok(Self { hosts: Hosts::from_system().unwrap_or_default(), servers: servers()? })
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

fn servers() -> io::Result<TokioResolver> {
    // resolv.conf(5): without the file, the name server of this machine is asked.
    let (config, mut options) = read_system_conf().unwrap_or_else(|cause| {
        tracing::debug!(%cause, "no name server in /etc/resolv.conf");
        let here = NameServerConfig::udp_and_tcp(IpAddr::V4(Ipv4Addr::LOCALHOST));
        (ResolverConfig::from_parts(None, Vec::new(), vec![here]), ResolverOpts::default())
    });
    // Which of them answers is found by trying both (RFC 8305).
    options.ip_strategy = LookupIpStrategy::Ipv6AndIpv4;
    let mut builder = TokioResolver::builder_with_config(config, TokioRuntimeProvider::default());
    *builder.options_mut() = options;
    builder.build().map_err(io::Error::other)
}
