//! A client whose secret or key lies elsewhere, and is wrong or missing for a time.

use super::*;
use crate::{
    assertion::ClientKey,
    credential::Credential,
    reference::SecretRef,
    registration::{Client, ClientAuthentication as Method, ClientSource},
    secret::ClientSecret,
};

fn elsewhere() -> SecretRef {
    SecretRef::file("/run/secret").unwrap()
}

/// A login of a person with such a client, which has ended.
fn ended(client: Client) -> Stage {
    let mut stage = Stage::with(Credential {
        client,
        ..credential(4)
    });
    stage.pass(secs(3700));
    stage
}

fn referring() -> Client {
    Client {
        secret_ref: Some(elsewhere()),
        authentication: Method::Basic,
        source: ClientSource::PreRegistered,
        ..client("by-hand")
    }
}

fn keyed() -> Client {
    Client {
        secret_ref: None,
        key: Some(ClientKey::new(elsewhere())),
        authentication: Method::PrivateKeyJwt,
        ..referring()
    }
}

/// F-16, I-7: `invalid_client` says nothing for good of a client whose secret or key is read at each use: the console had the
/// new one before the file did, or our clock is off. The login stays, whoever asks is told, and the next call after the pause
/// heals it. Of what is stored, and of a registration, it says that nobody is known by that name any more.
#[test]
fn a_proof_that_was_wrong_for_a_time_costs_no_login() {
    for client in [referring(), keyed()] {
        let mut stage = ended(client);
        stage.answer(oauth_error("invalid_client"));
        let error = stage.refresh().result.unwrap_err();
        assert_eq!(error.code(), "denied.by_issuer");
        let record = stage.record();
        assert_eq!((&record.suspicion, &record.attempt), (&None, &None));
        assert_eq!(
            stage.refresh().result.unwrap_err().code(),
            "denied.by_issuer"
        );
        assert_eq!(stage.exchanges.len(), 1, "calls pause");
        stage.pass(secs(2)).answer(tokens(5));
        assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
        assert_eq!(stage.labels(), [None, None]);
    }
    let stored = Client {
        secret: ClientSecret::new("s".into()).ok(),
        ..referring()
    };
    for client in [stored, client("registered")] {
        let mut stage = ended(client);
        stage.answer(oauth_error("invalid_client"));
        let error = stage.refresh().result.unwrap_err();
        assert_eq!(error.code(), "login.registration_gone");
    }
}

/// F-12, I-9: while the file is away nothing leaves, so nothing of what an hour has is spent, and whoever needs a token finds
/// the file as soon as it is back, whatever the pause. Nobody else looks before its time.
#[test]
fn a_file_that_is_back_is_found_at_once() {
    for client in [referring(), keyed()] {
        let mut stage = ended(client);
        for _ in 0..40 {
            stage.answer(unsigned);
            assert_eq!(stage.refresh().result.unwrap_err().code(), "config.value");
            stage.pass(secs(5));
        }
        let pause = stage.record().backoff.clone().unwrap();
        assert_eq!((pause.calls.len(), pause.extra.len()), (0, 0));
        assert!(pause.binds(stage.now).is_some());
        assert_eq!(stage.record().attempt, None);
        stage.answer(tokens(5));
        assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
        assert_eq!(stage.record().backoff, None);
    }
    // Who has a token that works sends nothing, and reads nothing, during the pause.
    let mut stage = Stage::with(Credential {
        client: keyed(),
        ..credential(4)
    });
    stage.pass(secs(3400)).answer(unsigned);
    assert!(stage.refresh().result.is_err());
    assert!(matches!(
        stage.refresh().result,
        Err(Error::BackingOff { .. })
    ));
    assert_eq!(stage.exchanges.len(), 1);
}

/// I-9: an issuer that fails is no matter of the file: whoever waits then keeps to the pause.
#[test]
fn an_outage_is_not_looked_through() {
    let mut stage = ended(referring());
    stage.answer(oauth_error("invalid_client"));
    stage.refresh();
    for _ in 0..20 {
        assert!(matches!(
            stage.refresh().result,
            Err(Error::BackingOff { .. })
        ));
    }
    assert_eq!(
        stage
            .exchanges
            .iter()
            .filter(|sent| sent.leg == Leg::Token)
            .count(),
        1
    );
}
