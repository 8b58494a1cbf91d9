//! Bringing in a login that mcp-remote has made, to share it from then on.

use pilotlight_core::{
    Error,
    credential::{
        Account, Binding, BindingKey, Credential, CredentialKey, Generation, Incarnation, Lifetime,
        Pins, TokenType, Version,
    },
    error::LoginCause,
    event::{Event, Happened},
    flow::{
        Commit, Committed, Expects,
        discover::{self, Discover, Discovered, Ways},
    },
    issuer::Issuer,
    registration::{Client, ClientAuthentication, choose_authentication},
    resource::Resource,
};

use super::{
    files::{Files, Tokens, Unreadable},
    shared::{Shared, theirs::received},
};
use crate::{
    config::{LoginRequest, Status},
    crypto,
    drive::poll_lock,
    sessions::Sessions,
    store::LockName,
};

/// A login that mcp-remote may have.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct Import {
    /// The server.
    pub url: Resource,
    /// Under which of several logins it is kept here.
    pub account: Account,
    /// Where mcp-remote keeps it.
    pub files: Files,
    /// The client, where it was given to mcp-remote rather than registered by it.
    pub client: Option<Client>,
    /// The `resource` parameter that mcp-remote was told to send; `Some(None)` for none; `None`: as published.
    pub resource_parameter: Option<Option<String>>,
}

impl Import {
    /// The login of those files, as mcp-remote makes it by itself.
    #[must_use]
    pub fn new(url: Resource, files: Files) -> Self {
        Self {
            url,
            account: Account::default(),
            files,
            client: None,
            resource_parameter: None,
        }
    }
}

/// What came of it.
#[derive(Debug, Clone)]
pub enum Brought {
    /// mcp-remote has no login for the server, or none that was not here before.
    Nothing,
    /// There is a login here already: it stays as it is.
    Known,
    /// It is here now, and shared.
    Shared(Box<Status>),
    /// It is here now, from an older layout that no running program uses.
    Copied(Box<Status>),
}

/// A login that was found.
struct Found {
    files: Files,
    tokens: Tokens,
    client: Client,
    issuer: Option<String>,
    is_old: bool,
}

impl Sessions {
    /// Brings in the login that mcp-remote has for a server, if there is none here: nobody is asked, and both use it from then
    /// on. `shared` is the store that these sessions were opened over. Nothing is sent but what discovery asks for.
    ///
    /// # Errors
    /// Those of discovery; `login.issuer_changed` where the server names another issuer than the one that the login is from:
    /// nothing of it is used (T-20). `unavailable.store`, also where mcp-remote's files cannot be read.
    pub async fn bring(&self, shared: &Shared, import: Import) -> Result<Brought, Error> {
        let inner = &self.inner;
        let key = BindingKey::new(import.url.clone(), import.account.clone());
        // Mostly there is nothing, which is quickly seen.
        let Some(found) = find(&import).map_err(unreadable)? else {
            return Ok(Brought::Nothing);
        };
        if self.has_login(&key).await? {
            return Ok(Brought::Known);
        }
        let name = LockName::Login(inner.store.binding_id(&key));
        let until = inner.clock.now().mono + inner.limits.lock_wait;
        let got = poll_lock(&*inner.store, &*inner.clock, name, until).await?;
        let _lease = got.map_err(|holder| Error::LoginInProgress { holder })?;
        if self.has_login(&key).await? {
            return Ok(Brought::Known);
        }
        let request = LoginRequest::new(import.url.clone(), import.account.clone());
        let mut binding = self.bind(&request, &key).await?;
        let discovered = self.whose(&import.url, &binding, &found).await?;
        let credential = credential(&import, &found, discovered);
        let id = inner.store.credential_id(&credential.key);
        if shared.was_seen(id, &found.tokens).await? {
            return Ok(Brought::Nothing);
        }
        if import.resource_parameter == Some(None) {
            binding.without_resource_at = Some(credential.key.issuer.clone());
        }
        inner.store.prepare_spool(&credential.key).await?;
        // Before there is a login that could be refreshed: whoever does that must know who else does.
        if !found.is_old {
            shared
                .share(id, found.files.clone(), found.tokens.clone())
                .await?;
        }
        if !self.keep(credential, &mut binding).await? {
            return Ok(Brought::Known);
        }
        if found.is_old {
            // After it is here: noted before, a crash between the two would lose it.
            shared.was_copied(id, found.files, found.tokens).await?;
        }
        let status = Box::new(inner.status(&binding).await?);
        Ok(match found.is_old {
            true => Brought::Copied(status),
            false => Brought::Shared(status),
        })
    }

    async fn has_login(&self, key: &BindingKey) -> Result<bool, Error> {
        let store = &self.inner.store;
        let Some(binding) = store.binding(key).await? else {
            return Ok(false);
        };
        let Some(credential) = &binding.credential else {
            return Ok(false);
        };
        let record = store.read(credential).await?;
        Ok(record.is_some_and(|record| record.credential.is_some()))
    }

    /// Whom the server trusts now: it must be who issued the tokens, where those say so. A slash at the end is no difference:
    /// mcp-remote writes an issuer as a URL.
    async fn whose(
        &self,
        url: &Resource,
        binding: &Binding,
        found: &Found,
    ) -> Result<Discovered, Error> {
        let driver = self.inner.driver(self.inner.http_for(url)?);
        let ask = |known_issuer: Option<Issuer>| {
            let task = discover::Task {
                server: url.clone(),
                known_issuer,
                challenge: None,
                issuer: None,
                exception: binding.exception.clone(),
                ways: Ways {
                    brought: true,
                    document: false,
                },
            };
            Box::pin(driver.run(Discover::new(task)))
        };
        let Some(issuer) = &found.issuer else {
            return ask(None).await;
        };
        let bare = issuer.trim_end_matches('/');
        let mut end = Error::login(LoginCause::IssuerChanged {
            former: issuer.clone(),
            issuer: url.url().origin().ascii_serialization(),
        });
        for written in [bare.to_owned(), format!("{bare}/")] {
            let Ok(known) = Issuer::parse(&written) else {
                continue;
            };
            match ask(Some(known.clone())).await {
                Ok(found) if found.server.issuer == known => return Ok(found),
                Ok(_) => {}
                Err(error @ Error::LoginRequired { .. }) => end = error,
                Err(error) => return Err(error),
            }
        }
        Err(end)
    }

    /// Makes the login durable; answers whether there was none.
    async fn keep(&self, credential: Credential, binding: &mut Binding) -> Result<bool, Error> {
        let inner = &self.inner;
        binding.credential = Some(credential.key.clone());
        let happened = Happened::LoggedIn {
            issuer: credential.key.issuer.as_str().to_owned(),
            scopes: credential.scopes_granted.clone(),
            lifetime: credential.lifetime.map(Lifetime::span),
            refresh_token: credential.refresh_token.is_some(),
            former_issuer: None,
        };
        let commit = Commit {
            credential,
            expects: Expects::Nothing,
            binding: Some(binding.clone()),
            forced: None,
            event: Event {
                at: inner.clock.now().wall,
                process: inner.process,
                happened,
            },
        };
        Ok(matches!(
            inner.store.commit(&commit).await?,
            Committed::Done { .. }
        ))
    }
}

/// Looks in the present layout, then once in those of older versions.
fn find(import: &Import) -> Result<Option<Found>, Unreadable> {
    let older = import.files.older().into_iter().map(|files| (files, true));
    for (files, is_old) in std::iter::once((import.files.clone(), false)).chain(older) {
        let Some(tokens) = files.tokens()? else {
            continue;
        };
        let stored = files.client()?;
        let stamped = stored.as_ref().and_then(|stored| stored.issuer.clone());
        let client = import
            .client
            .clone()
            .or_else(|| stored.map(|stored| stored.client));
        // Tokens without a client can be used, and never renewed: as good as none.
        let Some(client) = client else { continue };
        return Ok(Some(Found {
            issuer: tokens.issuer.clone().or(stamped),
            files,
            tokens,
            client,
            is_old,
        }));
    }
    Ok(None)
}

fn credential(import: &Import, found: &Found, discovered: Discovered) -> Credential {
    let Tokens {
        access_token,
        refresh_token,
        lifetime,
        received_at,
        scopes,
        requested,
        ..
    } = found.tokens.clone();
    let mut client = found.client.clone();
    if client.secret.is_some() && client.authentication == ClientAuthentication::None {
        // Nobody has said how it shows its secret: as the issuer takes it.
        client.authentication = choose_authentication(&discovered.server, true);
    }
    let granted = scopes.or_else(|| requested.clone()).unwrap_or_default();
    Credential {
        key: CredentialKey {
            tenant: String::new(),
            resource: discovered.resource,
            issuer: discovered.server.issuer,
            account: import.account.clone(),
        },
        version: Version {
            incarnation: Incarnation(crypto::random()),
            generation: Generation(0),
        },
        pins: Pins {
            resource_parameter: match &import.resource_parameter {
                Some(told) => told.clone(),
                None => discovered.resource_parameter,
            },
            token_endpoint: discovered.server.token_endpoint,
            revocation_endpoint: discovered.server.revocation_endpoint,
            called: discovered.server.called,
        },
        client,
        access_token,
        token_type: TokenType::Bearer,
        proof_key: None,
        unattended: None,
        refresh_token,
        // A layout without times: the file's date, which is when they were written.
        received_at: Some(received(received_at)),
        lifetime: lifetime.map(Lifetime::Stated),
        scopes_requested: requested.unwrap_or_else(|| granted.clone()),
        scopes_granted: granted,
        logged_in_at: received_at,
    }
}

fn unreadable(error: Unreadable) -> Error {
    Error::StoreUnavailable {
        why: error.to_string(),
    }
}
