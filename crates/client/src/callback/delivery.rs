//! Redirects that come to the program which embeds this library: by a scheme of its own, or at a page that it serves.

use std::sync::{Arc, Mutex};

use pilotlight_core::secret::StateParameter;
use tokio::sync::oneshot;
use url::{Url, form_urlencoded};

use super::carries;
use crate::cell::lock;

type Parameters = Vec<(String, String)>;

/// The logins of this process that wait for a redirect.
#[derive(Debug, Default)]
pub(crate) struct Deliveries(Mutex<Vec<Waiting>>);

#[derive(Debug)]
struct Waiting {
    state: StateParameter,
    owner: Option<String>,
    sender: oneshot::Sender<Parameters>,
}

impl Deliveries {
    /// Begins to wait for the redirect with this `state`, which only this owner may hand in.
    pub(crate) fn expect(
        self: &Arc<Self>,
        state: &StateParameter,
        owner: Option<&str>,
    ) -> Expected {
        let (sender, receiver) = oneshot::channel();
        let state = state.clone();
        lock(&self.0).push(Waiting {
            state: state.clone(),
            owner: owner.map(str::to_owned),
            sender,
        });
        Expected {
            all: self.clone(),
            state,
            receiver,
        }
    }

    /// Hands in a redirect; tells whether a login of this owner waited for it. Each `state` is used once.
    pub(crate) fn deliver(&self, redirect: &str, owner: Option<&str>) -> bool {
        let Ok(url) = Url::parse(redirect.trim()) else {
            return false;
        };
        let query = url.query().unwrap_or_default();
        let parameters: Parameters = form_urlencoded::parse(query.as_bytes())
            .into_owned()
            .collect();
        let mut all = lock(&self.0);
        let found = all.iter().position(|waiting| {
            carries(&parameters, &waiting.state) && waiting.owner.as_deref() == owner
        });
        found.is_some_and(|at| all.swap_remove(at).sender.send(parameters).is_ok())
    }
}

/// A redirect that is waited for; nobody waits any more once this is dropped.
#[derive(Debug)]
pub(crate) struct Expected {
    all: Arc<Deliveries>,
    state: StateParameter,
    receiver: oneshot::Receiver<Parameters>,
}

impl Expected {
    /// Waits for it, for ever where it does not come. Cancel-safe.
    pub(crate) async fn wait(&mut self) -> Parameters {
        match (&mut self.receiver).await {
            Ok(parameters) => parameters,
            Err(_) => std::future::pending().await,
        }
    }
}

impl Drop for Expected {
    fn drop(&mut self) {
        lock(&self.all.0).retain(|waiting| waiting.state != self.state);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn state(text: &str) -> StateParameter {
        StateParameter::new(text.into()).unwrap()
    }

    /// T-04: a redirect goes to the login with its `state`, once; whatever else is handed in ends nothing.
    #[tokio::test]
    async fn each_redirect_finds_its_login() {
        let all = Arc::new(Deliveries::default());
        let (mut one, mut two) = (
            all.expect(&state("one"), None),
            all.expect(&state("two"), None),
        );
        for nothing in [
            "com.example.app:/login?code=abc",
            "com.example.app:/login?code=abc&state=three",
            "com.example.app:/login?code=abc&state=one&state=one",
            "com.example.app:/login#code=abc&state=one",
            "code=abc&state=one",
            "",
        ] {
            assert!(!all.deliver(nothing, None), "{nothing}");
        }
        assert!(all.deliver("https://app.example/login?code=two%201&state=two#x", None));
        assert!(all.deliver("com.example.app:/login?error=access_denied&state=one", None));
        assert!(!all.deliver("com.example.app:/login?code=abc&state=one", None));
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            two.wait().await,
            [pair("code", "two 1"), pair("state", "two")]
        );
        assert_eq!(one.wait().await[0], pair("error", "access_denied"));
        drop((one, two));
        let three = all.expect(&state("three"), None);
        drop(three);
        assert!(!all.deliver("https://app.example/login?state=three", None));
        assert!(lock(&all.0).is_empty());
    }

    /// T-10: a login that somebody owns ends only by what its owner hands in; a redirect that another brings stays of use to them.
    #[tokio::test]
    async fn only_its_owner_ends_a_login() {
        let all = Arc::new(Deliveries::default());
        let mut mine = all.expect(&state("one"), Some("mallory"));
        let back = "https://app.example/login?code=of-alice&state=one";
        for stranger in [None, Some("alice"), Some("")] {
            assert!(!all.deliver(back, stranger), "{stranger:?}");
        }
        assert!(all.deliver(back, Some("mallory")));
        assert_eq!(mine.wait().await.len(), 2);
        let _nobodys = all.expect(&state("two"), None);
        assert!(!all.deliver("https://app.example/login?state=two", Some("alice")));
    }
}
