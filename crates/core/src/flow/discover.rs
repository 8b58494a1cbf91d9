//! Discovery: from a server's URL to the metadata of the authorization server it trusts.
//!
//! ```text
//!  ask the server without a token -> 401 + challenge
//!      -> resource metadata: the challenge's URL, else path form, else root   (RFC 9728, AUTH-12, AUTH-13)
//!      -> authorization server metadata, in order, issuer equal to the octet  (RFC 8414, AUTH-21 to AUTH-23)
//!  nothing published anywhere, and it was a 401: the endpoints of 2025-03-26  (AUTH-17), at a first login only
//! ```
//!
//! Only a completed answer moves on to the next place; a time-out or a 5xx ends the flow (T-16): whoever can block one
//! document must not choose another.

mod choice;

use url::Url;

use crate::{
    challenge::Demand,
    error::Error,
    exchange::{Exchange, Exchanged, Leg, Reply},
    flow::{Act, Answer, Flow, Step, Turn},
    issuer::{Issuer, IssuerException},
    metadata::{ResourceMetadata, ServerMetadata, resource_metadata_urls},
    resource::Resource,
    scope::Scopes,
    time::Now,
};

pub use choice::{WHICH_ISSUER, Ways};

/// What is to be discovered.
#[derive(Debug, Clone)]
pub struct Task {
    /// The server, as configured.
    pub server: Resource,
    /// The issuer of the login there is, preferred where the server names several, and never to be fallen back from.
    pub known_issuer: Option<Issuer>,
    /// The headers of a 401 that the server has just answered; without them it is asked.
    pub challenge: Option<http::HeaderMap>,
    /// The issuer that a person has chosen among those that the server names.
    pub issuer: Option<Issuer>,
    /// An issuer that a person has accepted although its metadata names another.
    pub exception: Option<IssuerException>,
    /// What there is to become a client with: of several issuers the first is taken that one of these leads to.
    pub ways: Ways,
}

/// What discovery found.
#[derive(Debug, Clone)]
pub struct Discovered {
    /// The resource as published, or as configured where nothing is.
    pub resource: Resource,
    /// The `resource` parameter to send (RFC 8707), octet for octet.
    pub resource_parameter: Option<String>,
    /// The scopes that the challenge asked for.
    pub challenged: Option<Scopes>,
    /// The scopes that the resource metadata lists.
    pub resource_scopes: Option<Scopes>,
    /// Whether the resource takes only tokens that are bound to a key (RFC 9728 section 2).
    pub dpop_required: bool,
    /// Whether the issuer is only the server's own origin, guessed as 2025-03-26 has it.
    pub guessed: bool,
    /// The authorization server.
    pub server: ServerMetadata,
}

/// The flow. See the [module](self).
#[derive(Debug)]
pub struct Discover {
    task: Task,
    state: State,
}

#[derive(Debug)]
enum State {
    Ready,
    ExpectChallenge,
    ExpectResourceMetadata { asked: Asked, left: Vec<Url> },
    ExpectServerMetadata { found: Found, left: Vec<Url> },
}

/// What the server answered to a request without a token.
#[derive(Debug, Clone)]
struct Asked {
    status: u16,
    /// Whether the challenge says where the resource's metadata is: no server of 2025-03-26 does.
    announced: bool,
    challenged: Option<Scopes>,
}

/// What the resource metadata said.
#[derive(Debug, Clone)]
struct Found {
    resource: Resource,
    resource_parameter: Option<String>,
    challenged: Option<Scopes>,
    resource_scopes: Option<Scopes>,
    dpop_required: bool,
    issuer: Issuer,
    /// The others that the server names and that may be taken instead, the next one last.
    others: Vec<Issuer>,
    /// What the first one that could be read said, where nothing leads to it.
    first: Option<Box<Discovered>>,
    /// What was wrong with the first one whose document is of no use.
    trouble: Option<Error>,
    /// Set where the issuer is only the server's own origin, guessed as 2025-03-26 has it.
    guessed: bool,
}

impl Discover {
    /// Sets up the flow.
    #[must_use]
    pub fn new(task: Task) -> Self {
        Self {
            task,
            state: State::Ready,
        }
    }

    fn challenged(self, exchanged: Exchanged) -> Turn<Self> {
        let reply = match exchanged {
            Ok(reply) => reply,
            Err(failure) => return Turn::Done(Err(failure.error())),
        };
        if let Some(error) = server_failed(&reply) {
            return Turn::Done(Err(error));
        }
        self.demanded(reply.status, &reply.headers)
    }

    /// The server's own words are known: where its metadata is, and which scopes it wants.
    fn demanded(self, status: u16, headers: &http::HeaderMap) -> Turn<Self> {
        let demand = Demand::from_headers(headers);
        let announced = demand.resource_metadata.is_some();
        let mut left = match demand.resource_metadata {
            // A server that has a login cannot send it elsewhere for its metadata (T-15).
            Some(url)
                if self.task.known_issuer.is_some()
                    && url.origin() != self.task.server.url().origin() =>
            {
                return Turn::Done(Err(unusable(
                    "resource_metadata",
                    "it leads to another host than the server's",
                )));
            }
            Some(url) => vec![url],
            None => resource_metadata_urls(&self.task.server),
        };
        left.reverse();
        let asked = Asked {
            status,
            announced,
            challenged: demand.scope,
        };
        self.ask_resource(asked, left)
    }

    fn ask_resource(self, asked: Asked, mut left: Vec<Url>) -> Turn<Self> {
        let Some(url) = left.pop() else {
            return self.unpublished(asked);
        };
        let exchange = Exchange::get(Leg::Metadata, url, "resource_metadata");
        let state = State::ExpectResourceMetadata { asked, left };
        Turn::Next(
            Self { state, ..self },
            Step::act(Act::Send(Box::new(exchange))),
        )
    }

    fn resource_metadata(self, asked: Asked, left: Vec<Url>, exchanged: Exchanged) -> Turn<Self> {
        let reply = match exchanged {
            Ok(reply) if absent(&reply) => return self.ask_resource(asked, left),
            Ok(reply) => reply,
            Err(failure) => return Turn::Done(Err(failure.error())),
        };
        if let Some(error) = server_failed(&reply) {
            return Turn::Done(Err(error));
        }
        let metadata = match ResourceMetadata::parse(&reply.body, &self.task.server) {
            Ok(metadata) => metadata,
            // A page where a document should be: a server that answers every path. The next place may have it.
            Err(Error::MetadataInvalid { .. }) if !left.is_empty() && reply.is_page() => {
                return self.ask_resource(asked, left);
            }
            Err(_) if left.is_empty() && reply.is_page() && asked.status != 401 => {
                return Turn::Done(Err(Error::NoOauth {
                    status: asked.status,
                }));
            }
            Err(error) => return Turn::Done(Err(error)),
        };
        let mut others = match self.task.candidates(metadata.authorization_servers) {
            Ok(candidates) => candidates,
            Err(error) => return Turn::Done(Err(error)),
        };
        others.reverse();
        let Some(issuer) = others.pop() else {
            return Turn::Done(Err(unusable("authorization_servers", "it names none")));
        };
        let found = Found {
            resource_parameter: Some(metadata.resource.as_str().to_owned()),
            resource: metadata.resource,
            challenged: asked.challenged,
            resource_scopes: metadata.scopes_supported,
            dpop_required: metadata.dpop_required,
            issuer,
            others,
            first: None,
            trouble: None,
            guessed: false,
        };
        self.ask_server_from_the_start(found)
    }

    /// No resource metadata anywhere: an old server that is its own authorization server, or one without OAuth.
    fn unpublished(self, asked: Asked) -> Turn<Self> {
        if asked.announced {
            return Turn::Done(Err(unusable(
                "document",
                "there is none where the server says that it is",
            )));
        }
        if asked.status != 401 || self.task.known_issuer.is_some() {
            return Turn::Done(Err(Error::NoOauth {
                status: asked.status,
            }));
        }
        let issuer = match Issuer::parse(&self.task.server.url().origin().ascii_serialization()) {
            Ok(issuer) => issuer,
            Err(error) => return Turn::Done(Err(error)),
        };
        let server = self.task.server.clone();
        let parameter = Some(server.as_str().to_owned());
        let (challenged, resource_scopes) = (asked.challenged, None);
        self.ask_server_from_the_start(Found {
            resource: server,
            resource_parameter: parameter,
            challenged,
            resource_scopes,
            dpop_required: false,
            issuer,
            others: Vec::new(),
            first: None,
            trouble: None,
            guessed: true,
        })
    }

    fn ask_server_from_the_start(self, found: Found) -> Turn<Self> {
        let mut left = found.issuer.metadata_urls();
        left.reverse();
        self.ask_server(found, left)
    }

    fn ask_server(self, found: Found, mut left: Vec<Url>) -> Turn<Self> {
        let Some(url) = left.pop() else {
            if found.guessed {
                let server = ServerMetadata::legacy(&self.task.server);
                return Turn::Done(Ok(discovered(
                    Found {
                        resource_parameter: None,
                        ..found
                    },
                    server,
                )));
            }
            return self.next_issuer(found);
        };
        let mut exchange = Exchange::get(Leg::Metadata, url, "authorization_servers");
        if found.guessed {
            // Servers of that revision may tell by it which of their metadata is wanted (2025-03-26, authorization section 2.3.1).
            let revision = http::HeaderValue::from_static("2025-03-26");
            exchange.headers.insert("mcp-protocol-version", revision);
        }
        let state = State::ExpectServerMetadata { found, left };
        Turn::Next(
            Self { state, ..self },
            Step::act(Act::Send(Box::new(exchange))),
        )
    }

    fn described(self, mut found: Found, server: ServerMetadata) -> Turn<Self> {
        if self.task.ways.lead_to(&server) {
            return Turn::Done(Ok(discovered(found, server)));
        }
        if found.first.is_none() {
            found.first = Some(Box::new(discovered(found.clone(), server)));
        }
        self.next_issuer(found)
    }

    /// The issuer at hand is of no use: another that the server names may be, else that is how it ends.
    fn next_issuer(self, mut found: Found) -> Turn<Self> {
        if let Some(issuer) = found.others.pop() {
            return self.ask_server_from_the_start(Found { issuer, ..found });
        }
        if let Some(first) = found.first {
            return Turn::Done(Ok(*first));
        }
        Turn::Done(Err(found.trouble.unwrap_or(Error::MetadataInvalid {
            document: "authorization server metadata",
            field: "document",
            why: "the issuer publishes none at any of its well-known places",
        })))
    }

    /// A document that is of no use, or names somebody else, is this issuer's; the others are independent of it (AUTH-15).
    fn useless(self, mut found: Found, error: Error) -> Turn<Self> {
        found.trouble.get_or_insert(error);
        self.next_issuer(found)
    }

    fn server_metadata(self, found: Found, left: Vec<Url>, exchanged: Exchanged) -> Turn<Self> {
        let reply = match exchanged {
            // A guess is only followed where the server says plainly that there is nothing to know (T-16).
            Ok(reply)
                if found.guessed && absent(&reply) && !matches!(reply.status, 404 | 405 | 410) =>
            {
                return Turn::Done(Err(Error::NoOauth {
                    status: reply.status,
                }));
            }
            Ok(reply) if absent(&reply) => return self.ask_server(found, left),
            Ok(reply) => reply,
            Err(failure) => return Turn::Done(Err(failure.error())),
        };
        if let Some(error) = server_failed(&reply) {
            return Turn::Done(Err(error));
        }
        let expected = self.task.expected_of(&found.issuer);
        match ServerMetadata::parse_of(&reply.body, &found.issuer, &expected) {
            Ok(server) => self.described(found, server),
            Err(Error::IssuerMismatch { expected, got }) => {
                let published = found.issuer.as_str().to_owned();
                let error = Error::MetadataMismatch {
                    published,
                    expected,
                    got,
                };
                self.useless(found, error)
            }
            Err(Error::MetadataInvalid { .. }) if reply.is_page() && !left.is_empty() => {
                self.ask_server(found, left)
            }
            Err(error) => self.useless(found, error),
        }
    }
}

impl Flow for Discover {
    type Outcome = Result<Discovered, Error>;

    fn start(mut self, _now: Now) -> Turn<Self> {
        if let Some(headers) = self.task.challenge.take() {
            return self.demanded(401, &headers);
        }
        let exchange = challenge_request(&self.task.server);
        Turn::Next(
            Self {
                state: State::ExpectChallenge,
                ..self
            },
            Step::act(Act::Send(Box::new(exchange))),
        )
    }

    fn handle(mut self, answer: Answer, _now: Now) -> Turn<Self> {
        let state = std::mem::replace(&mut self.state, State::Ready);
        match (state, answer) {
            (State::ExpectChallenge, Answer::Exchanged(exchanged)) => self.challenged(exchanged),
            (State::ExpectResourceMetadata { asked, left }, Answer::Exchanged(exchanged)) => {
                self.resource_metadata(asked, left, exchanged)
            }
            (State::ExpectServerMetadata { found, left }, Answer::Exchanged(exchanged)) => {
                self.server_metadata(found, left, exchanged)
            }
            _ => Turn::Done(Err(Error::Bug {
                what: "discover: an answer that nothing waits for",
            })),
        }
    }
}

fn unusable(field: &'static str, why: &'static str) -> Error {
    Error::MetadataInvalid {
        document: "protected resource metadata",
        field,
        why,
    }
}

fn discovered(found: Found, server: ServerMetadata) -> Discovered {
    Discovered {
        resource: found.resource,
        resource_parameter: found.resource_parameter,
        challenged: found.challenged,
        resource_scopes: found.resource_scopes,
        dpop_required: found.dpop_required,
        guessed: found.guessed,
        server,
    }
}

/// A JSON-RPC `ping` without a token: every protected server answers it with its challenge, and none starts a session.
fn challenge_request(server: &Resource) -> Exchange {
    let mut headers = http::HeaderMap::new();
    let accept = http::HeaderValue::from_static("application/json, text/event-stream");
    headers.insert(http::header::ACCEPT, accept);
    headers.insert(
        http::header::CONTENT_TYPE,
        http::HeaderValue::from_static("application/json"),
    );
    let body = br#"{"jsonrpc":"2.0","id":0,"method":"ping"}"#.to_vec();
    Exchange::post(
        Leg::Challenge,
        server.url().clone(),
        "server",
        headers,
        zeroize::Zeroizing::new(body),
    )
}

/// A completed answer that says: there is no such document here.
fn absent(reply: &Reply) -> bool {
    matches!(reply.status, 400..=499) && server_failed(reply).is_none()
}

/// An answer that says nothing about documents.
fn server_failed(reply: &Reply) -> Option<Error> {
    let retry_after = reply.retry_after();
    match reply.status {
        429 => Some(Error::RateLimited { retry_after }),
        // 408 and 425 are time-outs in other words (T-16).
        408 | 425 | 500.. => Some(Error::ServerError {
            status: reply.status,
            retry_after,
        }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
