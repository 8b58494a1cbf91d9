//! What a failed exchange means (F-12): by when it failed, and by what the layers below say.

use std::{error::Error as StdError, io};

use pilotlight_core::{
    error::NetworkFault,
    exchange::{Delivery, Fault},
};

use crate::egress::Forbidden;

/// How an exchange ended without an answer.
pub(super) struct Ended {
    pub(super) delivery: Delivery,
    pub(super) fault: Fault,
}

impl Ended {
    pub(super) fn before(fault: Fault) -> Self {
        Self {
            delivery: Delivery::NotDelivered,
            fault,
        }
    }

    pub(super) fn after(fault: Fault) -> Self {
        Self {
            delivery: Delivery::Ambiguous,
            fault,
        }
    }

    pub(super) fn forbidden(forbidden: Forbidden, origin: &str) -> Self {
        Self::before(Fault::Forbidden {
            address: forbidden.address,
            field: origin.to_owned(),
        })
    }

    /// Classifies an error from before the answer's head was there.
    pub(super) fn sending(error: reqwest::Error, origin: &str) -> Self {
        let error = error.without_url();
        let chain = Chain::of(&error);
        if let Some(Forbidden { address }) = chain.forbidden {
            return Self::forbidden(
                Forbidden {
                    address: address.clone(),
                },
                origin,
            );
        }
        if error.is_connect() || error.is_builder() {
            let fault = if error.is_dns() {
                NetworkFault::Dns
            } else if chain.tls || chain.io == Some(io::ErrorKind::UnexpectedEof) {
                NetworkFault::Tls
            } else {
                NetworkFault::Connect
            };
            return Self {
                delivery: Delivery::NotDelivered,
                fault: Fault::Network(fault),
            };
        }
        // The peer vouches that it did nothing (RFC 9113 section 8.7).
        let delivery = if chain.refused_stream {
            Delivery::NotDelivered
        } else {
            Delivery::Ambiguous
        };
        Self {
            delivery,
            fault: Fault::Network(broken(&error, &chain)),
        }
    }

    /// Classifies an error while the answer's body was read.
    pub(super) fn reading(error: reqwest::Error) -> Self {
        let chain = Chain::of(&error);
        Self {
            delivery: Delivery::Ambiguous,
            fault: Fault::Network(broken(&error, &chain)),
        }
    }
}

/// Tells a path that died from a connection that was closed. No time-out of ours is set inside the stack, so a time-out
/// that it reports is that of a keep-alive, of TCP or of a ping.
fn broken(error: &reqwest::Error, chain: &Chain<'_>) -> NetworkFault {
    use io::ErrorKind::{HostUnreachable, NetworkDown, NetworkUnreachable, TimedOut};
    match chain.io {
        Some(TimedOut | HostUnreachable | NetworkUnreachable | NetworkDown) => {
            NetworkFault::DeadPath
        }
        _ if error.is_timeout() => NetworkFault::DeadPath,
        _ if chain.tls => NetworkFault::Tls,
        _ => NetworkFault::Broken,
    }
}

/// What the causes of an error say, all the way down.
#[derive(Default)]
struct Chain<'a> {
    forbidden: Option<&'a Forbidden>,
    tls: bool,
    refused_stream: bool,
    io: Option<io::ErrorKind>,
}

impl<'a> Chain<'a> {
    fn of(error: &'a (dyn StdError + 'static)) -> Self {
        let mut chain = Self::default();
        chain.walk(error, 0);
        chain
    }

    fn walk(&mut self, error: &'a (dyn StdError + 'static), depth: usize) {
        if depth == MAX_DEPTH {
            return;
        }
        if let Some(forbidden) = error.downcast_ref::<Forbidden>() {
            self.forbidden = Some(forbidden);
        }
        self.tls |= error.is::<rustls::Error>();
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            self.refused_stream |=
                h2.is_reset() && h2.is_remote() && h2.reason() == Some(h2::Reason::REFUSED_STREAM);
            if let Some(io) = h2.get_io() {
                self.walk(io, depth + 1);
            }
        }
        if let Some(io) = error.downcast_ref::<io::Error>() {
            self.io = Some(io.kind());
            // `source` of an I/O error skips the error that it wraps.
            if let Some(inner) = io.get_ref() {
                self.walk(inner, depth + 1);
            }
        }
        if let Some(source) = error.source() {
            self.walk(source, depth + 1);
        }
    }
}

const MAX_DEPTH: usize = 16;
