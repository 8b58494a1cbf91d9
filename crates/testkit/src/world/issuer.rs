//! The issuer: grants, rotation, reuse detection, and what it does wrong. It is the oracle too: it knows every call.

use super::{network::CallId, random::Random};

/// One grant: every refresh token that descends from one login.
#[derive(Debug)]
pub(super) struct Family {
    /// Whose login.
    pub(super) login: usize,
    /// Which registration it belongs to.
    client: u32,
    pub(super) ended: Option<Ended>,
    /// Refresh tokens by number; the last is the current one.
    pub(super) refresh: Vec<RefreshTokenInfo>,
    pub(super) access: Vec<AccessTokenInfo>,
}

/// How a grant ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// A spent refresh token was presented: which, by which call.
    Reuse { number: usize, call: CallId },
    /// The issuer's own decision, or the person's.
    Revoked,
}

#[derive(Debug, Default, Clone)]
pub(super) struct RefreshTokenInfo {
    /// When it was spent, and by which call.
    pub(super) spent: Option<(u64, CallId)>,
    /// When an answer that carried it first reached a living process, and which.
    pub(super) delivered: Option<(u64, usize, u32)>,
    /// When store or spool first held it.
    pub(super) durable_at: Option<u64>,
}

#[derive(Debug, Clone)]
pub(super) struct AccessTokenInfo {
    pub(super) issued_at: u64,
    expires_at: u64,
    /// Ended before its time.
    ended: bool,
    /// Whether somebody has met it at or after its refresh point, or refused.
    pub(super) due: bool,
}

/// What the token endpoint answers.
#[derive(Debug, Clone)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<u64>,
    pub(super) body: String,
    /// The grant, refresh token and access token it carries.
    pub(super) granted: Option<(usize, usize, usize)>,
}

impl Answer {
    pub(super) fn error(status: u16, error: &str) -> Self {
        Self::page(status, format!(r#"{{"error":"{error}"}}"#))
    }

    pub(super) fn page(status: u16, body: String) -> Self {
        Self {
            status,
            retry_after: None,
            body,
            granted: None,
        }
    }
}

/// The issuer of one run.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) grace: u64,
    pub(super) lifetime: u64,
    pub(super) rotates: bool,
    /// How often it leaves the refresh token out.
    pub(super) omits: f64,
    pub(super) states_lifetime: bool,
    /// Whether it says so when a grant ended by reuse.
    pub(super) names_reuse: bool,
    pub(super) caches: bool,
    /// The registration that it knows.
    pub(super) client: u32,
    pub(super) families: Vec<Family>,
    /// Every access token it gave out in answer to a refresh.
    pub(super) refreshes: u64,
}

impl Issuer {
    /// A code was exchanged: a new grant.
    pub(super) fn exchange(&mut self, login: usize, now: u64) -> Answer {
        let family = self.families.len();
        self.families.push(Family {
            login,
            client: self.client,
            ended: None,
            refresh: vec![RefreshTokenInfo::default()],
            access: Vec::new(),
        });
        self.answer(family, 0, now, false)
    }

    /// A refresh token was presented.
    pub(super) fn refresh(
        &mut self,
        family: usize,
        number: usize,
        call: CallId,
        now: u64,
        random: &mut Random,
    ) -> Answer {
        let (grace, known) = (self.grace, self.client);
        let Some(grant) = self.families.get_mut(family) else {
            return Answer::error(400, "invalid_grant");
        };
        if grant.client != known {
            return Answer::error(401, "invalid_client");
        }
        let current = grant.refresh.len() - 1;
        if grant.ended.is_some() || number > current {
            return self.refusal(family);
        }
        let mut omit = false;
        if let Some((spent_at, _)) = grant.refresh[number].spent {
            let unused = number + 1 == current || grace == u64::MAX;
            if !unused || now - spent_at > grace {
                grant.ended = Some(Ended::Reuse { number, call });
                return self.refusal(family);
            }
        } else if self.rotates && !random.chance(self.omits) {
            grant.refresh[number].spent = Some((now, call));
            grant.refresh.push(RefreshTokenInfo::default());
        } else {
            // An issuer that does not rotate repeats the token as often as not.
            omit = self.omits > 0.0 || random.chance(0.5);
        }
        self.refreshes += 1;
        let current = self.families[family].refresh.len() - 1;
        self.answer(family, current, now, omit)
    }

    fn answer(&mut self, family: usize, number: usize, now: u64, omit: bool) -> Answer {
        let lifetime = self.lifetime;
        let grant = &mut self.families[family];
        let cached = grant
            .access
            .last()
            .filter(|token| self.caches && !token.ended && token.expires_at > now + lifetime / 15)
            .map(|token| token.expires_at);
        if cached.is_none() {
            grant.access.push(AccessTokenInfo {
                issued_at: now,
                expires_at: now + lifetime,
                ended: false,
                due: false,
            });
        }
        let access = grant.access.len() - 1;
        let left = cached.map_or(lifetime, |end| end - now) / 1000;
        let mut body = format!(r#"{{"access_token":"a.{family}.{access}","token_type":"Bearer""#);
        if self.states_lifetime {
            body.push_str(&format!(r#","expires_in":{left}"#));
        }
        if !omit {
            body.push_str(&format!(r#","refresh_token":"r.{family}.{number}""#));
        }
        body.push('}');
        Answer {
            granted: Some((family, number, access)),
            ..Answer::page(200, body)
        }
    }

    fn refusal(&self, family: usize) -> Answer {
        let reuse = matches!(self.families[family].ended, Some(Ended::Reuse { .. }));
        if self.names_reuse && reuse {
            let body =
                r#"{"error":"invalid_grant","error_description":"refresh token reuse detected"}"#;
            return Answer::page(400, body.to_owned());
        }
        Answer::error(400, "invalid_grant")
    }

    /// Whether a server takes this access token.
    pub(super) fn accepts(
        &self,
        family: usize,
        access: usize,
        now: u64,
        introspects: bool,
    ) -> bool {
        let Some(grant) = self.families.get(family) else {
            return false;
        };
        let live = !introspects || grant.ended.is_none();
        grant
            .access
            .get(access)
            .is_some_and(|token| live && !token.ended && now < token.expires_at)
    }

    /// Ends every access token of a login before its time.
    pub(super) fn end_access(&mut self, login: usize) {
        for grant in self
            .families
            .iter_mut()
            .filter(|grant| grant.login == login)
        {
            grant.access.iter_mut().for_each(|token| token.ended = true);
        }
    }

    /// Whether it knows the client that a grant belongs to.
    pub(super) fn knows(&self, family: usize) -> bool {
        self.families[family].client == self.client
    }

    pub(super) fn revoke(&mut self, family: usize) {
        if let Some(grant) = self.families.get_mut(family) {
            grant.ended.get_or_insert(Ended::Revoked);
        }
    }

    /// Restarts with what it had on disk: rotations of the last moments are forgotten. Whoever holds one of them is refused,
    /// by the issuer's own doing.
    pub(super) fn restart(&mut self, forgotten_since: u64) {
        for grant in &mut self.families {
            let recent =
                |info: &RefreshTokenInfo| info.spent.is_some_and(|(at, _)| at >= forgotten_since);
            if grant.refresh.iter().any(recent) {
                grant.ended.get_or_insert(Ended::Revoked);
            }
        }
    }
}
