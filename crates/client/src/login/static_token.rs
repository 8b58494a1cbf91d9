//! A key that a person has brought: no login, no refresh, no revocation. It lies in the same list as the logins, sealed like
//! them, and goes on requests like any other token, until the server refuses it.

use pilotlight_core::{
    Error,
    credential::{
        Account, BindingKey, Credential, CredentialKey, Generation, Incarnation, Lifetime, Pins,
        TokenType, Version,
    },
    event::{Event, Happened},
    flow::{Commit, Committed, Expects},
    issuer::Issuer,
    registration::{Client, ClientSource},
    resource::Resource,
    scope::Scopes,
    secret::AccessToken,
};

use crate::{
    config::{LoginRequest, Status},
    crypto,
    drive::poll_lock,
    sessions::Sessions,
    store::{Authorization, LockName},
};

impl Sessions {
    /// Stores a key for a server, in the place of whatever login there was. It is durable when this returns; nothing is sent
    /// with it, so whether the server takes it is seen at the first request.
    ///
    /// # Errors
    /// `config.value` where the name is another server's; `unavailable.*`: nothing was changed then.
    pub async fn put_static(
        &self,
        url: &Resource,
        account: &Account,
        name: Option<&str>,
        token: AccessToken,
    ) -> Result<Status, Error> {
        let inner = &self.inner;
        let key = BindingKey::new(url.clone(), account.clone());
        let id = inner.store.binding_id(&key);
        let lease = |name| async move {
            let until = inner.clock.now().mono + inner.limits.lock_wait;
            poll_lock(&*inner.store, &*inner.clock, name, until).await
        };
        let _login = lease(LockName::Login(id))
            .await?
            .map_err(|holder| Error::LoginInProgress { holder })?;
        let request = LoginRequest {
            name: name.map(str::to_owned),
            ..LoginRequest::new(url.clone(), account.clone())
        };
        let mut binding = self.bind(&request, &key).await?;
        let credential = self.with_key(url, account, token)?;
        let of = inner.store.credential_id(&credential.key);
        let _refresh = lease(LockName::Refresh(of))
            .await?
            .map_err(|holder| Error::LeaseHeld { holder })?;
        inner.store.prepare_spool(&credential.key).await?;
        binding = binding.moved_to(credential.key.clone());
        let now = inner.clock.now().wall;
        let happened = Happened::LoggedIn {
            issuer: credential.key.issuer.as_str().to_owned(),
            scopes: Scopes::default(),
            lifetime: credential.lifetime.map(Lifetime::span),
            refresh_token: false,
            former_issuer: None,
        };
        let commit = Commit {
            credential: credential.clone(),
            expects: Expects::Anything,
            binding: Some(binding.clone()),
            forced: None,
            event: Event {
                at: now,
                process: inner.process,
                happened,
            },
        };
        if let Committed::Done {
            superseded: Some(old),
        } = inner.store.commit(&commit).await?
        {
            inner.retire(*old, &credential);
        }
        // Whoever waits for a login of this server goes on with the key. It is stored: that they are not told costs them a wait.
        let before = inner.store.login_outcome(id).await.ok().flatten();
        let outcome =
            before
                .unwrap_or_default()
                .then(Authorization::new(Scopes::default(), now, None));
        drop(inner.store.put_login_outcome(id, &outcome).await);
        if let Some(cell) = self.cell(id) {
            drop(cell.looked().await);
        }
        inner.status(&binding).await
    }

    fn with_key(
        &self,
        url: &Resource,
        account: &Account,
        token: AccessToken,
    ) -> Result<Credential, Error> {
        let now = self.inner.clock.now();
        // Nobody issued it, as far as we know: it stands for the server alone, and is sent nowhere else.
        let issuer = Issuer::parse(&url.url().origin().ascii_serialization())?;
        Ok(Credential {
            key: CredentialKey {
                tenant: String::new(),
                resource: url.clone(),
                issuer,
                account: account.clone(),
            },
            version: Version {
                incarnation: Incarnation(crypto::random()),
                generation: Generation(0),
            },
            pins: Pins {
                resource_parameter: None,
                token_endpoint: url.url().clone(),
                revocation_endpoint: None,
                called: None,
            },
            client: Client {
                source: ClientSource::Static,
                ..Client::brought(String::new())
            },
            access_token: token,
            token_type: TokenType::Bearer,
            proof_key: None,
            unattended: None,
            refresh_token: None,
            received_at: Some(now),
            lifetime: None,
            scopes_requested: Scopes::default(),
            scopes_granted: Scopes::default(),
            logged_in_at: now.wall,
        })
    }
}
