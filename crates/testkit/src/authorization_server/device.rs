//! Logins on another device (RFC 8628): a code is asked for here, typed in there, and polled for in between.
//!
//! Who types it in is the test: [`AuthorizationServer::decide_device`], or the control operation `device`.

use std::time::Duration;

use http::{Method, StatusCode};
use serde_json::json;

use super::token::{Answer, bad};
use super::{AuthorizationServer, RevokedBy, millis};
use crate::exchange::{Fields, Request, Response};

/// How people log in on another device.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRules {
    /// How long must pass between two questions; each that comes too early makes it 5 s longer.
    pub interval: Duration,
    /// How long a code is good.
    pub expires_in: Duration,
}

impl Default for DeviceRules {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(5),
            expires_in: Duration::from_secs(600),
        }
    }
}

/// A login that was begun.
#[derive(Debug, Clone)]
pub(super) struct DeviceLogin {
    client_id: String,
    user_code: String,
    scopes: Vec<String>,
    resource: Option<String>,
    expires_at_ms: u64,
    interval_ms: u64,
    asked_at_ms: u64,
    allowed: Option<bool>,
    /// The grant it was exchanged for.
    family: Option<u64>,
}

impl AuthorizationServer {
    /// Types in a code and answers; tells whether the code was known, still good, and not answered yet.
    pub fn decide_device(&mut self, now_ms: u64, user_code: &str, allow: bool) -> bool {
        let waiting = self.devices.values_mut().find(|login| {
            login.user_code == user_code && login.allowed.is_none() && now_ms < login.expires_at_ms
        });
        match waiting {
            Some(login) => {
                login.allowed = Some(allow);
                true
            }
            None => false,
        }
    }

    /// Gives the codes that nobody has typed in yet, oldest first.
    #[must_use]
    pub fn user_codes(&self) -> Vec<String> {
        let waiting = self.devices.values().filter(|one| one.allowed.is_none());
        waiting.map(|login| login.user_code.clone()).collect()
    }

    /// Answers a device authorization request (section 3.1).
    pub(super) fn device_authorization(&mut self, now_ms: u64, request: &Request) -> Response {
        let Some(rules) = self
            .config
            .device
            .filter(|_| request.method == Method::POST)
        else {
            return Response::empty(StatusCode::METHOD_NOT_ALLOWED);
        };
        let fields = Fields::parse(&request.body);
        let begun = self
            .authenticate(now_ms, request, &fields)
            .and_then(|client_id| {
                if fields.repeated.is_some() {
                    return Err(bad("invalid_request", "repeated parameter"));
                }
                let resource = fields.get("resource");
                let refuse = |(error, description)| bad(error, description);
                self.check_resource(resource).map_err(refuse)?;
                Ok(DeviceLogin {
                    client_id,
                    user_code: String::new(),
                    scopes: self.scopes_asked(&fields).map_err(refuse)?,
                    resource: resource.map(Into::into),
                    expires_at_ms: now_ms + millis(rules.expires_in),
                    interval_ms: millis(rules.interval),
                    asked_at_ms: now_ms,
                    allowed: None,
                    family: None,
                })
            });
        let mut login = match begun {
            Ok(login) => login,
            Err(refused) => return *refused,
        };
        self.stats.device += 1;
        let device_code = self.mint(&format!("dc-{:06}-", self.stats.device));
        login.user_code = typeable(&device_code);
        let page = format!("{}/device/page", self.issuer);
        let body = json!({
            "device_code": device_code,
            "user_code": login.user_code,
            "verification_uri": page,
            "verification_uri_complete": format!("{page}?user_code={}", login.user_code),
            "expires_in": rules.expires_in.as_secs(),
            "interval": rules.interval.as_secs(),
        });
        self.devices.insert(device_code, login);
        Response::json(StatusCode::OK, &body).no_store()
    }

    /// Answers one question (section 3.5).
    pub(super) fn exchange_device(
        &mut self,
        now_ms: u64,
        client_id: &str,
        fields: &Fields,
    ) -> Answer {
        let code = fields.get("device_code").unwrap_or_default();
        let found = self.devices.get(code).cloned();
        let Some(found) = found.filter(|_| self.config.device.is_some()) else {
            return Err(bad("invalid_grant", "the code is not known"));
        };
        if found.client_id != client_id {
            return Err(bad("invalid_grant", "the code is another client's"));
        }
        if let Some(family) = found.family {
            self.revoke_family(family, RevokedBy::CodeReplay);
            return Err(bad("invalid_grant", "the code was used before"));
        }
        if now_ms >= found.expires_at_ms {
            return Err(bad("expired_token", "the code is over"));
        }
        self.same_resource(fields, found.resource.as_deref())?;
        if let Some(login) = self.devices.get_mut(code) {
            login.asked_at_ms = now_ms;
            if now_ms < found.asked_at_ms + found.interval_ms {
                login.interval_ms += 5000;
                return Err(bad("slow_down", "asked too soon"));
            }
        }
        match found.allowed {
            None => Err(bad("authorization_pending", "nobody has answered yet")),
            Some(false) => Err(bad("access_denied", "the person refused")),
            Some(true) => {
                let (family, pair) =
                    self.new_grant(now_ms, client_id, found.scopes, found.resource);
                if let Some(login) = self.devices.get_mut(code) {
                    login.family = Some(family);
                }
                Ok(pair)
            }
        }
    }
}

/// A code that a person can type in: eight consonants (section 6.1).
fn typeable(device_code: &str) -> String {
    let digest = crate::mint::fingerprint(device_code);
    let letters = b"BCDFGHJKLMNPQRST";
    let mut code: String = digest
        .chars()
        .filter_map(|c| c.to_digit(16))
        .map(|digit| char::from(letters[digit as usize]))
        .take(8)
        .collect();
    code.insert(4, '-');
    code
}

pub(super) const DEVICE_CODE: &str = "urn:ietf:params:oauth:grant-type:device_code";
