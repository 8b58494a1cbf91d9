//! An OAuth HTTP client for rmcp that remembers when token requests left, and the secrets that registrations brought.
//!
//! rmcp stamps a token when its answer has been read, and keeps no client secret in what it stores. Both are lost by the
//! time [`CredentialStore::save`](rmcp::transport::CredentialStore::save) is called, so they are noted here, where the
//! requests pass, and looked up there by the token they belong to.

use std::{
    collections::VecDeque,
    fmt,
    sync::{Arc, Mutex, PoisonError},
};

use pilotlight::clock::{Clock, SystemClock};
use pilotlight_core::{
    secret::{AccessToken, ClientSecret},
    time::Wall,
};
use rmcp::transport::{OAuthHttpClient, OAuthHttpClientFuture, OAuthHttpRequest};
use serde::Deserialize;

/// Wraps the [`OAuthHttpClient`] of the host; made by
/// [`PersistingStore::http_client`](crate::PersistingStore::http_client) and given to
/// [`AuthorizationManager::new_with_oauth_http_client`](rmcp::transport::AuthorizationManager::new_with_oauth_http_client).
///
/// Requests and answers pass unchanged: redirects, limits and address rules are the inner client's.
#[derive(Clone)]
pub struct NotingHttpClient {
    inner: Arc<dyn OAuthHttpClient>,
    notes: Notes,
    clock: Arc<dyn Clock>,
}

impl NotingHttpClient {
    pub(crate) fn new(inner: Arc<dyn OAuthHttpClient>, notes: Notes) -> Self {
        Self {
            inner,
            notes,
            clock: Arc::new(SystemClock),
        }
    }

    /// Tells the time by another clock than the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: impl Clock) -> Self {
        self.clock = Arc::new(clock);
        self
    }
}

impl OAuthHttpClient for NotingHttpClient {
    fn execute(&self, request: OAuthHttpRequest) -> OAuthHttpClientFuture<'_> {
        let grant = Grant::of(request.request.body());
        let sent_at = self.clock.now().wall;
        Box::pin(async move {
            let response = self.inner.execute(request).await?;
            if response.status().is_success() {
                match grant {
                    Some(grant) => self.notes.token(response.body(), grant, sent_at),
                    None => self.notes.registration(response.body()),
                }
            }
            Ok(response)
        })
    }
}

impl fmt::Debug for NotingHttpClient {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NotingHttpClient").finish_non_exhaustive()
    }
}

/// Which of rmcp's two lasting grants a token request asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Grant {
    /// `authorization_code`: a person logged in.
    Login,
    /// `refresh_token`.
    Refresh,
}

impl Grant {
    /// Reads `grant_type` of a form; neither value needs decoding.
    fn of(form: &[u8]) -> Option<Self> {
        form.split(|byte| *byte == b'&')
            .find_map(|field| match field {
                b"grant_type=authorization_code" => Some(Self::Login),
                b"grant_type=refresh_token" => Some(Self::Refresh),
                _ => None,
            })
    }
}

/// What was noted; shared by the client and the store. The newest few of each, so that a host that logs in again and
/// again does not grow.
#[derive(Clone, Default)]
pub(crate) struct Notes(Arc<Mutex<Noted>>);

#[derive(Default)]
struct Noted {
    tokens: VecDeque<(AccessToken, Grant, Wall)>,
    secrets: VecDeque<(String, ClientSecret)>,
}

impl Notes {
    /// Tells by which grant an access token came, and when that request left.
    pub(crate) fn of_token(&self, token: &AccessToken) -> Option<(Grant, Wall)> {
        self.with(|noted| {
            noted
                .tokens
                .iter()
                .rev()
                .find(|(known, ..)| known == token)
                .map(|(_, grant, at)| (*grant, *at))
        })
    }

    /// Tells the secret that a registration brought for a client.
    pub(crate) fn secret_of(&self, client_id: &str) -> Option<ClientSecret> {
        self.with(|noted| {
            noted
                .secrets
                .iter()
                .rev()
                .find(|(id, _)| id == client_id)
                .map(|(_, secret)| secret.clone())
        })
    }

    fn token(&self, body: &[u8], grant: Grant, sent_at: Wall) {
        #[derive(Deserialize)]
        struct Answer {
            access_token: String,
        }
        let answer = serde_json::from_slice::<Answer>(body);
        if let Some(token) = answer
            .ok()
            .and_then(|answer| AccessToken::new(answer.access_token).ok())
        {
            self.with(|noted| push(&mut noted.tokens, (token, grant, sent_at)));
        }
    }

    fn registration(&self, body: &[u8]) {
        #[derive(Deserialize)]
        struct Answer {
            client_id: String,
            client_secret: String,
        }
        let Ok(answer) = serde_json::from_slice::<Answer>(body) else {
            return;
        };
        // An empty secret is none: some issuers send one for public clients.
        if let Ok(secret) = ClientSecret::new(answer.client_secret) {
            self.with(|noted| push(&mut noted.secrets, (answer.client_id, secret)));
        }
    }

    fn with<R>(&self, work: impl FnOnce(&mut Noted) -> R) -> R {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn push<T>(list: &mut VecDeque<T>, entry: T) {
    if list.len() == KEPT {
        list.pop_front();
    }
    list.push_back(entry);
}

const KEPT: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    /// Only the two lasting grants are noted; a registration or a discovery request is none.
    #[test]
    fn the_grant_is_read_from_the_form() {
        assert_eq!(
            Grant::of(b"code=x&grant_type=authorization_code&resource=y"),
            Some(Grant::Login)
        );
        assert_eq!(
            Grant::of(b"grant_type=refresh_token&refresh_token=r"),
            Some(Grant::Refresh)
        );
        assert_eq!(Grant::of(b"grant_type=client_credentials"), None);
        assert_eq!(Grant::of(br#"{"grant_types":["refresh_token"]}"#), None);
    }

    /// The secret of a registration is kept by its client ID; an empty or missing one is none.
    #[test]
    fn the_secret_of_a_registration_is_noted() {
        let notes = Notes::default();
        notes.registration(br#"{"client_id":"a","client_secret":"s1"}"#);
        notes.registration(br#"{"client_id":"b","client_secret":""}"#);
        notes.registration(br#"{"client_id":"c"}"#);
        notes.registration(b"<html>");
        assert_eq!(notes.secret_of("a"), ClientSecret::new("s1".into()).ok());
        assert_eq!((notes.secret_of("b"), notes.secret_of("c")), (None, None));
    }

    /// The newest few are kept, so that notes do not grow.
    #[test]
    fn only_the_newest_notes_are_kept() {
        let notes = Notes::default();
        for n in 0..20 {
            notes.token(
                format!(r#"{{"access_token":"t{n}"}}"#).as_bytes(),
                Grant::Refresh,
                Wall(n),
            );
        }
        let token = |n: u64| AccessToken::new(format!("t{n}")).unwrap();
        assert_eq!(notes.of_token(&token(11)), None);
        assert_eq!(notes.of_token(&token(12)), Some((Grant::Refresh, Wall(12))));
        assert_eq!(notes.of_token(&token(19)), Some((Grant::Refresh, Wall(19))));
    }
}
