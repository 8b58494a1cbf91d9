//! Names to addresses: looked up once, filtered, and only what passed is connected to (T-12).

use std::{
    fmt::Debug,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
};

use async_trait::async_trait;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::{Egress, Forbidden, address};

/// Looks a name up. A role, so that tests bring their own answers.
#[async_trait]
pub trait Lookup: Send + Sync + Debug + 'static {
    /// The addresses of a name, in the order to try them.
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>>;
}

/// The operating system's resolver.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemLookup;

#[async_trait]
impl Lookup for SystemLookup {
    async fn lookup(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        Ok(tokio::net::lookup_host((name, 0))
            .await?
            .map(|address| address.ip())
            .collect())
    }
}

/// A resolver that answers with permitted addresses only.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    egress: Egress,
    lookup: Arc<dyn Lookup>,
    /// The proxies' own names: whoever configured a proxy meant it.
    exempt: Arc<[String]>,
    ipv4_only: bool,
}

impl Resolver {
    pub(crate) fn new(egress: Egress, lookup: Arc<dyn Lookup>, exempt: Vec<String>) -> Self {
        Self {
            egress,
            lookup,
            exempt: exempt.into(),
            ipv4_only: false,
        }
    }

    /// Leaves the IPv6 addresses of a name out, or no longer.
    pub(crate) fn ipv4_only(self, ipv4_only: bool) -> Self {
        Self { ipv4_only, ..self }
    }

    /// Checks a name that a proxy will resolve: refused where it is known here and any of its addresses is forbidden;
    /// the rest is the proxy's policy.
    pub(crate) async fn check_proxied(&self, name: &str) -> Result<(), Forbidden> {
        let Ok(found) = self.find(name).await else {
            return Ok(());
        };
        found
            .into_iter()
            .try_for_each(|ip| self.egress.check(Some(name), ip))
    }

    async fn permitted(
        &self,
        name: &str,
    ) -> Result<Vec<IpAddr>, Box<dyn std::error::Error + Send + Sync>> {
        let found = self.find(name).await?;
        if self.exempt.contains(&address::plain(name)) {
            return Ok(found);
        }
        let mut refused = None;
        let mut permitted = Vec::new();
        for ip in found {
            match self.egress.check(Some(name), ip) {
                Ok(()) => permitted.push(ip),
                Err(forbidden) => refused = refused.or(Some(forbidden)),
            }
        }
        match refused {
            Some(forbidden) if permitted.is_empty() => Err(forbidden.into()),
            _ if permitted.is_empty() => {
                Err(io::Error::new(io::ErrorKind::NotFound, "no address").into())
            }
            _ => Ok(permitted),
        }
    }

    /// `localhost` is never asked of anyone (RFC 6761 section 6.3): no DNS server decides where it is.
    async fn find(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        let plain = address::plain(name);
        let mut found = if plain == "localhost" || plain.ends_with(".localhost") {
            vec![Ipv4Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()]
        } else {
            self.lookup.lookup(name).await?
        };
        found.retain(|ip| ip.is_ipv4() || !self.ipv4_only);
        Ok(found)
    }
}

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let this = self.clone();
        Box::pin(async move {
            let permitted = this.permitted(name.as_str()).await?;
            let addresses: Addrs = Box::new(permitted.into_iter().map(|ip| SocketAddr::new(ip, 0)));
            Ok(addresses)
        })
    }
}
