//! Which addresses this program may talk to (T-11, T-12).
//!
//! A hostile server may name any URL as its metadata or its authorization server, and may let any name resolve to any
//! address. So the policy is enforced where a connection is made: IP literals before each send, by
//! [`Egress::check_literal`]; names in our own resolver, once, and the connection goes to one of the very addresses
//! that passed. Nothing is looked up twice.
//!
//! ```text
//! the server's URL is        opens beyond the public internet
//! loopback                   loopback
//! a private address or name  that very host
//! anything else              nothing
//! ```
//!
//! Everything else private needs an allowed range ([`Cidr`]); link-local and cloud metadata addresses need one that
//! names exactly that address, so that `--allow-private 169.254.0.0/16` opens no metadata service.

mod address;
mod cidr;
mod resolver;

use std::net::{IpAddr, Ipv4Addr};

use pilotlight_core::resource::{Resource, is_loopback};
use url::{Host, Url};

pub use cidr::Cidr;
pub(crate) use resolver::Resolver;
pub use resolver::{Lookup, SystemLookup};

use address::{Place, place, unmapped};

/// The egress policy of one server: a value, decided when its session is made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Egress {
    opened: Opened,
    allow: Vec<Cidr>,
}

/// Why nothing was sent: the address is not one to talk to.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the address {address} is not allowed here")]
pub struct Forbidden {
    /// The address, or the name of a cloud's metadata service.
    pub address: String,
}

impl Egress {
    /// Makes the policy of a server that was configured by a person: its own host is open, other private ones are not.
    #[must_use]
    pub fn for_server(resource: &Resource, allow: &[Cidr]) -> Self {
        let opened = match resource.url().host() {
            _ if resource.is_loopback() => Opened::Loopback,
            Some(Host::Ipv4(ip)) => Opened::private_address(ip.into()),
            Some(Host::Ipv6(ip)) => Opened::private_address(ip.into()),
            Some(Host::Domain(name)) if address::is_local_name(name) => {
                Opened::Name(address::plain(name))
            }
            _ => Opened::Nothing,
        };
        Self {
            opened,
            allow: allow.to_vec(),
        }
    }

    /// Makes the policy that opens the public internet and what is allowed explicitly.
    #[must_use]
    pub fn public(allow: &[Cidr]) -> Self {
        Self {
            opened: Opened::Nothing,
            allow: allow.to_vec(),
        }
    }

    /// Checks what can be told from a URL without a look-up: the scheme, IP literals, `localhost` and the names of cloud
    /// metadata services. The standard parser has already turned decimal, octal, hexadecimal and short forms, full-width
    /// digits and ideographic dots into plain addresses.
    ///
    /// # Errors
    /// [`Forbidden`] with the address; nothing may be sent then.
    pub fn check_literal(&self, url: &Url) -> Result<(), Forbidden> {
        let refuse = |address: String| Err(Forbidden { address });
        if url.scheme() != "https" && !(url.scheme() == "http" && is_loopback(url)) {
            return refuse(format!(
                "{}:{}",
                url.scheme(),
                url.host_str().unwrap_or_default()
            ));
        }
        match url.host() {
            Some(Host::Ipv4(ip)) => self.check(None, ip.into()),
            Some(Host::Ipv6(ip)) => self.check(None, ip.into()),
            Some(Host::Domain(_)) if is_loopback(url) => {
                self.check(None, Ipv4Addr::LOCALHOST.into())
            }
            Some(Host::Domain(name))
                if address::is_metadata_name(name) && !self.opens_a_guarded_address() =>
            {
                refuse(address::plain(name))
            }
            Some(Host::Domain(_)) => Ok(()),
            None => refuse("(no host)".into()),
        }
    }

    /// Checks one address that `name` resolved to, or that stood in the URL itself.
    pub(crate) fn check(&self, name: Option<&str>, ip: IpAddr) -> Result<(), Forbidden> {
        let allowed = |exactly: bool| {
            self.allow.iter().any(|range| {
                (range.contains(ip) || range.contains(unmapped(ip)))
                    && (range.is_single() || !exactly)
            })
        };
        let open = match place(ip) {
            Place::Public => true,
            Place::Loopback => self.opened == Opened::Loopback || allowed(false),
            Place::Private => self.opened.is_own(name, ip) || allowed(false),
            Place::Guarded => allowed(true),
        };
        if open {
            Ok(())
        } else {
            Err(Forbidden {
                address: unmapped(ip).to_string(),
            })
        }
    }

    fn opens_a_guarded_address(&self) -> bool {
        self.allow
            .iter()
            .any(|range| range.is_single() && place(range.first()) == Place::Guarded)
    }
}

/// What a server's own URL opens.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
enum Opened {
    #[default]
    Nothing,
    Loopback,
    Address(IpAddr),
    Name(String),
}

impl Opened {
    fn private_address(ip: IpAddr) -> Self {
        if place(ip) == Place::Private {
            Self::Address(unmapped(ip))
        } else {
            Self::Nothing
        }
    }

    fn is_own(&self, name: Option<&str>, ip: IpAddr) -> bool {
        match self {
            Self::Address(own) => *own == unmapped(ip),
            Self::Name(own) => name.is_some_and(|name| address::plain(name) == *own),
            Self::Nothing | Self::Loopback => false,
        }
    }
}
