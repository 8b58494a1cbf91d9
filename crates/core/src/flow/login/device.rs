//! A login on another device (RFC 8628): here a short code is shown, there it is typed in, where a browser is.
//!
//! ```text
//!  client known -> spool ready -> device authorization -> the code is shown
//!     -> wait, ask, wait, ask ... until it is granted, refused, or over -> stored as after a code
//! ```
//!
//! No redirect comes back: so no callback is opened, and there is no code for PKCE to protect. What is granted goes to whoever
//! has the device code, which only the issuer and this process have seen.

use std::time::Duration;

use serde_json::Value;
use url::Url;

use crate::{
    error::{Error, LoginCause},
    exchange::{Exchange, Exchanged, Leg, Reply},
    flow::{Act, Answer, CodePrompt, Device, Step, Turn, discover::Discovered, ways},
    grant::{Grant, device_request},
    issuer::Issuer,
    metadata::ServerMetadata,
    registration::ClientSource,
    resource::{clean, is_loopback},
    secret::DeviceCode,
    time::{Mono, Now},
    token::{Verdict, lenient_seconds, refusal},
};

use super::{Login, Request};

/// What such a login waits for.
#[derive(Debug)]
#[expect(
    clippy::enum_variant_names,
    reason = "a state is named for what it waits for"
)]
pub(super) enum State {
    ExpectAuthorization(Box<Request>),
    ExpectCodeShown(Box<Pending>),
    ExpectInterval(Box<Pending>, Mono),
    ExpectToken(Box<Pending>),
}

/// A code that the person has been shown, or is about to be.
#[derive(Debug)]
pub(super) struct Pending {
    request: Box<Request>,
    code: DeviceCode,
    interval: Duration,
    /// When it is over.
    ends_at: Mono,
    /// Why the last question brought no answer that says anything; whatever was granted then is lost.
    trouble: Option<Error>,
}

impl Login {
    /// Whether it is to be on another device.
    pub(super) fn wants_device(&self, server: &ServerMetadata) -> Result<bool, Error> {
        match self.task.device {
            Device::Never => Ok(false),
            Device::Prefer => Ok(server.offers_device_login()),
            // Lists of grants are often wrong, an endpoint that is named is there.
            Device::Only if server.device_authorization_endpoint.is_some() => Ok(true),
            Device::Only => Err(Error::NoDeviceLogin),
        }
    }

    /// The issuer does not let this client log in so: where a redirect would do as well, that is tried.
    pub(super) fn not_by_device(self, error: Error, discovered: Discovered) -> Turn<Self> {
        let refused = match &error {
            Error::RegistrationRefused { .. }
            | Error::DeniedByIssuer { .. }
            | Error::ScopeRefused { .. } => true,
            Error::LoginRequired { cause } => *cause == LoginCause::RegistrationGone,
            _ => false,
        };
        match refused {
            true => self.rather_by_redirect(error, discovered),
            false => self.fail(error),
        }
    }

    /// A redirect will do where a device was only preferred and the issuer has one; else this is how it ends.
    pub(super) fn rather_by_redirect(self, error: Error, discovered: Discovered) -> Turn<Self> {
        let by_browser = discovered.server.offers_grant("authorization_code");
        if by_browser && self.task.device == Device::Prefer {
            return self.by_redirect(discovered);
        }
        self.fail(error)
    }

    pub(super) fn ask_for_code(self, request: Box<Request>) -> Turn<Self> {
        let server = &request.discovered.server;
        let Some(endpoint) = server.device_authorization_endpoint.clone() else {
            return self.fail(Error::NoDeviceLogin);
        };
        let form = device_request(
            &request.client,
            request.discovered.server.name(),
            &request.scopes,
            request.discovered.resource_parameter.as_deref(),
        );
        let field = "device_authorization_endpoint";
        let exchange = Exchange::form(Leg::Device, endpoint, field, form);
        self.go(
            State::ExpectAuthorization(request),
            Act::Send(Box::new(exchange)),
        )
    }

    pub(super) fn on_another_device(self, state: State, answer: Answer, now: Now) -> Turn<Self> {
        match (state, answer) {
            (State::ExpectAuthorization(request), Answer::Exchanged(Ok(reply))) => {
                self.authorized(request, &reply, now)
            }
            (State::ExpectAuthorization(_), Answer::Exchanged(Err(failure))) => {
                self.fail(failure.error())
            }
            (State::ExpectCodeShown(pending), Answer::Done(Ok(()))) => {
                self.rest(pending, Duration::ZERO, now)
            }
            (State::ExpectCodeShown(_), Answer::Done(Err(error))) => self.fail(error),
            (State::ExpectInterval(pending, at), Answer::Woken) if now.mono < at => {
                self.wait(pending, at)
            }
            (State::ExpectInterval(pending, _), Answer::Woken) if now.mono >= pending.ends_at => {
                let over = Error::login(LoginCause::Abandoned);
                self.fail(pending.trouble.unwrap_or(over))
            }
            (State::ExpectInterval(pending, _), Answer::Woken) => self.ask(pending),
            (State::ExpectToken(pending), Answer::Exchanged(exchanged)) => {
                self.answered(pending, &exchanged, now)
            }
            _ => self.fail(Error::Bug {
                what: "login: an answer that nothing waits for on another device",
            }),
        }
    }

    fn authorized(self, request: Box<Request>, reply: &Reply, now: Now) -> Turn<Self> {
        let (status, retry_after) = (reply.status, reply.retry_after());
        match status {
            200..=299 => {}
            429 => return self.fail(Error::RateLimited { retry_after }),
            400..=499 if status != 408 => {
                let said = refusal(&reply.body).map(|(error, _)| error);
                if said.as_deref() == Some("invalid_client") {
                    return self.not_known(*request);
                }
                let error = said.unwrap_or_else(|| format!("HTTP {status}"));
                return self.not_by_device(request.refused(error), request.discovered);
            }
            _ => {
                return self.fail(Error::ServerError {
                    status,
                    retry_after,
                });
            }
        }
        let answer = match Authorization::parse(&reply.body, &request.issuer) {
            Ok(answer) => answer,
            Err(error) => return self.fail(error),
        };
        // Counted from when the request left, and by what the person was given besides.
        let expires_at = reply.sent_at.mono + answer.expires_in;
        let ends_at = expires_at.min(now.mono + self.task.human_wait);
        let prompt = CodePrompt {
            user_code: answer.user_code,
            verification_uri: answer.verification_uri,
            verification_uri_complete: answer.verification_uri_complete,
            expires_in: now.mono.until(ends_at),
            issuer: request.issuer.clone(),
            former_issuer: self.former_issuer(&request.issuer),
            token_host: request.token_host(),
            resource: self.task.binding.key.url.to_string(),
            scopes: request.scopes.clone(),
        };
        let pending = Pending {
            request,
            code: answer.device_code,
            interval: answer.interval,
            ends_at,
            trouble: None,
        };
        self.go(
            State::ExpectCodeShown(Box::new(pending)),
            Act::ShowCode(Box::new(prompt)),
        )
    }

    /// The issuer does not know the client, and nobody has typed anything yet: what it gave it itself is forgotten, and another
    /// asks in its place, once in a login (F-16).
    fn not_known(mut self, request: Request) -> Turn<Self> {
        if request.client.source != ClientSource::Dynamic {
            let error = Error::refused("invalid_client".into());
            return self.not_by_device(error, request.discovered);
        }
        if self.forgotten.is_some() {
            let error = Error::login(LoginCause::RegistrationGone);
            return self.not_by_device(error, request.discovered);
        }
        let act = self.forget(&request);
        let discovered = Box::new(request.discovered);
        self.next(super::State::ExpectForgotten(discovered), act)
    }

    /// The same, after a code was typed in: whoever has done that is not shown another.
    fn gone(mut self, request: &Request) -> Turn<Self> {
        if request.client.source != ClientSource::Dynamic {
            return self.fail(Error::refused("invalid_client".into()));
        }
        let act = self.forget(request);
        self.next(super::State::ExpectGone, act)
    }

    /// Waits out the interval, or longer where the issuer asks for that.
    fn rest(self, pending: Box<Pending>, at_least: Duration, now: Now) -> Turn<Self> {
        let pause = pending.interval.max(at_least);
        let at = (now.mono + pause).min(pending.ends_at);
        self.wait(pending, at)
    }

    fn wait(self, pending: Box<Pending>, at: Mono) -> Turn<Self> {
        let state = super::State::OnAnotherDevice(State::ExpectInterval(pending, at));
        Turn::Next(Self { state, ..self }, Step::wait_until(at))
    }

    fn ask(self, pending: Box<Pending>) -> Turn<Self> {
        let grant = Grant::Device {
            code: &pending.code,
        };
        let exchange = self.token_call(&pending.request, &grant);
        self.go(State::ExpectToken(pending), Act::Send(Box::new(exchange)))
    }

    /// Judges the answer to one question (RFC 8628 section 3.5).
    fn answered(self, mut pending: Box<Pending>, exchanged: &Exchanged, now: Now) -> Turn<Self> {
        let sent_at = exchanged
            .as_ref()
            .map_or_else(|failure| failure.sent_at, |reply| reply.sent_at);
        // Some issuers, GitHub among them, refuse with a 200.
        let refused = exchanged.as_ref().ok().and_then(|reply| {
            let (error, _) = refusal(&reply.body).filter(|_| reply.status < 500)?;
            Some(error)
        });
        match refused.as_deref() {
            Some("authorization_pending") => {
                pending.trouble = None;
                return self.rest(pending, Duration::ZERO, now);
            }
            Some("slow_down") => {
                pending.trouble = None;
                pending.interval += SLOWER_BY;
                return self.rest(pending, Duration::ZERO, now);
            }
            Some("access_denied") => return self.fail(Error::DeniedByHuman),
            Some("expired_token") => return self.fail(Error::login(LoginCause::Abandoned)),
            _ => {}
        }
        match Verdict::of(exchanged) {
            Verdict::Granted(answer) => self.granted(&pending.request, *answer, sent_at),
            Verdict::NotDelivered { error, retry_after } => {
                self.no_answer(pending, error, retry_after.unwrap_or_default(), now)
            }
            Verdict::Ambiguous { error, .. } => self.no_answer(pending, error, Duration::ZERO, now),
            Verdict::InvalidClient => self.gone(&pending.request),
            Verdict::Refused { error } => self.fail(pending.request.refused(error)),
            // A code is good once: what it brought was in the answer that never came.
            Verdict::InvalidGrant { .. } => {
                let refused = Error::DeniedByIssuer {
                    error: "invalid_grant".into(),
                };
                self.fail(pending.trouble.unwrap_or(refused))
            }
        }
    }

    /// Who gets no answer asks half as often from then on.
    fn no_answer(
        self,
        mut pending: Box<Pending>,
        error: Error,
        at_least: Duration,
        now: Now,
    ) -> Turn<Self> {
        let doubled = (pending.interval * 2).min(LONGEST_INTERVAL);
        pending.interval = pending.interval.max(doubled);
        pending.trouble = Some(error);
        self.rest(pending, at_least, now)
    }

    fn go(self, state: State, act: Act) -> Turn<Self> {
        self.next(super::State::OnAnotherDevice(state), act)
    }
}

/// The answer of a device authorization endpoint (RFC 8628 section 3.2).
#[derive(Debug, PartialEq, Eq)]
struct Authorization {
    device_code: DeviceCode,
    user_code: String,
    verification_uri: Url,
    verification_uri_complete: Option<Url>,
    expires_in: Duration,
    interval: Duration,
}

impl Authorization {
    fn parse(body: &[u8], issuer: &Issuer) -> Result<Self, Error> {
        let Ok(Value::Object(answer)) = serde_json::from_slice(body) else {
            return Err(bad("document", "it is not a JSON object"));
        };
        let text = |name: &'static str| match answer.get(name) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.as_str())),
            Some(_) => Err(bad(name, "it is not a text")),
        };
        let needed = |name| text(name)?.ok_or(bad(name, "it is missing"));
        let local = issuer.url().is_some_and(|url| is_loopback(&url));
        let page = |name, text: &str| match Url::parse(text) {
            Ok(url) if text.len() <= LONGEST_URL && ways::may_be_visited(&url, local) => Ok(url),
            _ => Err(bad(
                name,
                "it must be an https page (http only on a loopback host, for a loopback issuer)",
            )),
        };
        let device_code = DeviceCode::new(needed("device_code")?.to_owned())
            .map_err(|_| bad("device_code", "it holds characters outside printable ASCII"))?;
        let user_code = needed("user_code")?.trim().to_owned();
        // Somebody is to read it from a terminal and type it in.
        let blank = |c: char| c.is_whitespace() && c != ' ';
        if user_code.is_empty() || user_code.chars().count() > LONGEST_USER_CODE {
            return Err(bad("user_code", "nobody can type it in"));
        }
        if clean(&user_code) != user_code || user_code.contains(blank) {
            return Err(bad(
                "user_code",
                "it holds characters that cannot be printed",
            ));
        }
        let name = "verification_uri_complete";
        let seconds = |name| answer.get(name).and_then(lenient_seconds);
        Ok(Self {
            device_code,
            user_code,
            verification_uri: page("verification_uri", needed("verification_uri")?)?,
            verification_uri_complete: text(name)?.map(|text| page(name, text)).transpose()?,
            expires_in: seconds("expires_in").unwrap_or(USUAL_EXPIRY),
            interval: seconds("interval").unwrap_or(USUAL_INTERVAL),
        })
    }
}

fn bad(field: &'static str, why: &'static str) -> Error {
    Error::MetadataInvalid {
        document: "device authorization answer",
        field,
        why,
    }
}

/// What such a client registers where a redirect URI is asked for, and what its registration is known by: no listener has a
/// redirect URI without a port.
pub(super) const REDIRECT_URI: &str = "http://127.0.0.1/callback";

/// RFC 8628 section 3.2.
const USUAL_INTERVAL: Duration = Duration::from_secs(5);
/// RFC 8628 section 3.5.
const SLOWER_BY: Duration = Duration::from_secs(5);
/// A network that comes back is noticed within a minute.
const LONGEST_INTERVAL: Duration = Duration::from_secs(60);
/// Of a code of which nobody says how long it is good.
const USUAL_EXPIRY: Duration = Duration::from_secs(600);
const LONGEST_USER_CODE: usize = 64;
const LONGEST_URL: usize = 8 * 1024;
