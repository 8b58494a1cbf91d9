//! `WWW-Authenticate` (RFC 9110 section 11.6.1), and what a 401 or 403 asks for (RFC 6750 section 3, RFC 9728 section 5.1).
//!
//! The parser is total and linear (T-22): whatever the bytes, it returns what can be understood and skips the rest to
//! the next comma outside a quoted string. It forgives three things seen in the field: auth-params parted by
//! spaces, unquoted values that are no tokens (URLs), and stray words inside a challenge.

use http::{HeaderMap, HeaderValue, header::WWW_AUTHENTICATE};
use url::Url;

use crate::{resource::is_loopback, scope::Scopes};

/// One challenge: a scheme with either a token68 or parameters.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Challenge {
    /// The authentication scheme, in lower case.
    pub scheme: String,
    /// The token68, as `Negotiate` has it; never together with parameters in what follows the grammar.
    pub token68: Option<String>,
    /// The parameters in order: names in lower case, values without quotes and quoted pairs undone.
    pub params: Vec<(String, String)>,
}

impl Challenge {
    /// Reads every challenge of every header value, in order.
    pub fn parse_all<'a>(values: impl IntoIterator<Item = &'a HeaderValue>) -> Vec<Self> {
        let mut challenges = Vec::new();
        for value in values {
            // A parameter belongs to a challenge of the same header: one header cannot add to another's challenge.
            let first = challenges.len();
            Reader {
                bytes: value.as_bytes(),
                at: 0,
            }
            .challenges(first, &mut challenges);
        }
        challenges
    }

    /// The first value of a parameter; `name` in lower case.
    #[must_use]
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(own, _)| own == name)
            .map(|(_, value)| value.as_str())
    }

    /// Whether the challenge is of `scheme`, in any case of letters (RFC 9110 section 11.1).
    #[must_use]
    pub fn is(&self, scheme: &str) -> bool {
        self.scheme.eq_ignore_ascii_case(scheme)
    }
}

/// What a 401 or 403 asks for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Demand {
    /// Where the resource's metadata is (RFC 9728 section 5.1); only an `https` or a loopback `http` URL (AUTH-69).
    pub resource_metadata: Option<Url>,
    /// The scopes that this request needs (RFC 6750 section 3).
    pub scope: Option<Scopes>,
    /// The `error`, as sent.
    pub error: Option<String>,
    /// Whether the server takes DPoP tokens (RFC 9449 section 7.1).
    pub dpop: bool,
}

impl Demand {
    /// Reads an answer's challenges: each value from the first Bearer challenge that has it, else from a DPoP one.
    #[must_use]
    pub fn from_headers(headers: &HeaderMap) -> Self {
        let challenges = Challenge::parse_all(headers.get_all(WWW_AUTHENTICATE));
        let of = |scheme: &'static str| challenges.iter().filter(move |c| c.is(scheme));
        let values = |name: &'static str| {
            of("bearer")
                .chain(of("dpop"))
                .filter_map(move |c| c.param(name))
        };
        Self {
            resource_metadata: values("resource_metadata").find_map(metadata_url),
            scope: values("scope")
                .map(Scopes::parse)
                .find(|scopes| !scopes.is_empty()),
            error: values("error")
                .find(|error| !error.is_empty())
                .map(str::to_owned),
            dpop: of("dpop").next().is_some(),
        }
    }

    /// Whether the token was good but not good enough (RFC 6750 section 3.1): a step-up may help (AUTH-56).
    #[must_use]
    pub fn is_insufficient_scope(&self) -> bool {
        self.error.as_deref() == Some("insufficient_scope")
    }
}

fn metadata_url(text: &str) -> Option<Url> {
    let mut url = Url::parse(text).ok()?;
    let plain = url.username().is_empty() && url.password().is_none();
    url.set_fragment(None);
    (plain && (url.scheme() == "https" || (url.scheme() == "http" && is_loopback(&url))))
        .then_some(url)
}

/// A position in one header value. Each step moves it forward and none looks back further than one token.
struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn challenges(mut self, first: usize, into: &mut Vec<Challenge>) {
        let mut after_comma = true;
        loop {
            self.skip_blanks();
            match self.peek() {
                None => return,
                Some(b',') => {
                    self.at += 1;
                    after_comma = true;
                    continue;
                }
                Some(_) => {}
            }
            let token = self.take_while(is_tchar);
            if token.is_empty() {
                self.skip_junk();
                continue;
            }
            if self.equals_sign() {
                // A parameter before any scheme, or one without a value, is read and dropped.
                if let Some(value) = self.value()
                    && let Some(challenge) = into.get_mut(first..).and_then(<[_]>::last_mut)
                {
                    challenge.params.push((lower(token), value));
                }
            } else if after_comma {
                let token68 = self.token68();
                into.push(Challenge {
                    scheme: lower(token),
                    token68,
                    params: Vec::new(),
                });
            }
            after_comma = false;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.bytes.get(self.at).copied()
    }

    fn take_while(&mut self, fits: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let len = rest.iter().position(|b| !fits(*b)).unwrap_or(rest.len());
        self.at += len;
        rest.get(..len).unwrap_or_default()
    }

    fn skip_blanks(&mut self) {
        self.take_while(|b| matches!(b, b' ' | b'\t'));
    }

    /// `BWS "=" BWS`; stays where it was if there is none.
    fn equals_sign(&mut self) -> bool {
        let start = self.at;
        self.skip_blanks();
        if self.peek() != Some(b'=') {
            self.at = start;
            return false;
        }
        self.at += 1;
        self.skip_blanks();
        true
    }

    /// `1*SP token68` up to a comma or the end; stays where it was if something else follows the scheme.
    fn token68(&mut self) -> Option<String> {
        let start = self.at;
        self.skip_blanks();
        let from = self.at;
        let body = self.take_while(|b| b.is_ascii_alphanumeric() || b"-._~+/".contains(&b));
        self.take_while(|b| b == b'=');
        let to = self.at;
        self.skip_blanks();
        if from > start && !body.is_empty() && matches!(self.peek(), None | Some(b',')) {
            return self.bytes.get(from..to).map(text);
        }
        self.at = start;
        None
    }

    /// A quoted string, or everything up to a blank, a comma or a quote.
    fn value(&mut self) -> Option<String> {
        if self.peek() == Some(b'"') {
            return self.quoted();
        }
        let value = self.take_while(|b| !matches!(b, b' ' | b'\t' | b',' | b'"'));
        (!value.is_empty()).then(|| text(value))
    }

    /// A quoted string with its quoted pairs undone; `None`, at the end, where it is never closed.
    fn quoted(&mut self) -> Option<String> {
        let mut value = Vec::new();
        self.at += 1;
        loop {
            value.extend_from_slice(self.take_while(|b| !matches!(b, b'"' | b'\\')));
            let closes = self.peek()? == b'"';
            self.at += 1;
            if closes {
                return Some(text(&value));
            }
            value.push(self.peek()?);
            self.at += 1;
        }
    }

    /// Up to the next comma that is outside a quoted string.
    fn skip_junk(&mut self) {
        loop {
            self.take_while(|b| !matches!(b, b',' | b'"'));
            match self.peek() {
                Some(b'"') => drop(self.quoted()),
                _ => return,
            }
        }
    }
}

/// `tchar` (RFC 9110 section 5.6.2).
fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn lower(token: &[u8]) -> String {
    text(token).to_ascii_lowercase()
}

#[cfg(test)]
mod tests;
