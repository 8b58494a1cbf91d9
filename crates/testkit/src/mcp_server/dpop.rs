//! Tokens that are bound to a key, as a protected resource takes them (RFC 9449 section 7).

use http::StatusCode;

use super::{McpServer, TokenFacts};
use crate::authorization_server::{For, Proofs};
use crate::exchange::{Request, Response};

impl McpServer {
    /// Gives what was seen of proofs.
    #[must_use]
    pub fn proofs(&self) -> &Proofs {
        &self.proofs
    }

    /// Checks that a token comes in the way that it has to: a bound one with a proof of its key, any other without.
    pub(super) fn presented(
        &mut self,
        now_ms: u64,
        request: &Request,
        token: &str,
        facts: &TokenFacts,
    ) -> Result<(), Box<Response>> {
        let bound = request.bearer().is_none();
        let Some(key) = &facts.key else {
            return match bound {
                false => Ok(()),
                true => Err(Box::new(self.refused("invalid_token"))),
            };
        };
        if !bound {
            self.stats.bound_as_bearer += 1;
            return Err(Box::new(self.refused("invalid_token")));
        }
        let url = format!("{}{}", self.origin, request.path());
        let what = For {
            url: &url,
            token: Some(token),
        };
        let rules = self.config.dpop.clone();
        match self.proofs.check(now_ms, &rules, request, what) {
            Ok(found) if found == *key => Ok(()),
            Ok(_) => Err(Box::new(self.refused("invalid_token"))),
            Err((error, _)) => {
                let answer = self.refused(error);
                Err(Box::new(self.proofs.tell(rules.nonces, true, answer)))
            }
        }
    }

    fn refused(&mut self, error: &str) -> Response {
        self.stats.unauthorized += 1;
        self.challenge(
            "DPoP",
            StatusCode::UNAUTHORIZED,
            &[("error", error), ("algs", "ES256")],
        )
    }
}
