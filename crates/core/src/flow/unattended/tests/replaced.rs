//! Assertions that are replaced where they lie, and when a renewal looks at them.

use super::*;
use crate::{credential::TokenType, dpop::ProofKey};

const ENDPOINT: &str = "https://as.example/token";

/// I-9, EXT-41: a platform that makes another token at each read, none of which the issuer takes, does not make its callers
/// press that issuer: a few calls an hour come of their looks, and all of them stay within what an hour has.
#[test]
fn a_new_token_at_each_look_keeps_to_the_pace() {
    let mut stage = expired(workload());
    let begun = stage.now;
    let mut made: Vec<u64> = Vec::new();
    for look in 0..1440 {
        let token = jwt(&format!("job-{look}"), "https://as.example", 600, &stage);
        stage.secrets.insert(TOKEN, token);
        let sent = stage.exchanges.len();
        stage.page(ENDPOINT, oauth_error("invalid_grant"));
        let error = stage.renew().result.unwrap_err();
        assert_eq!(error.code(), "denied.by_issuer");
        if stage.exchanges.len() > sent {
            made.push(stage.now.since(&begun).unwrap().as_secs());
        }
        stage.pass(secs(5));
    }
    for (i, at) in made.iter().enumerate() {
        let hour = made[i..].iter().take_while(|other| **other < at + 3600);
        assert!(hour.count() <= 24, "{made:?}");
    }
    let longest = made.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest.unwrap() <= 310, "they last for the hour: {made:?}");
}

/// EXT-40, F-19: a token that only a wrong clock made look over is shown once the clock is right: nobody has refused it.
#[test]
fn what_a_wrong_clock_kept_back_is_shown_later() {
    for kind in [workload(), enterprise()] {
        let mut stage = expired(kind);
        let good = jwt("job", "https://as.example", 600, &stage);
        stage.secrets.insert(TOKEN, good.clone());
        stage.secrets.insert(IDENTITY, good);
        let right = stage.now.wall;
        stage.now.wall = right + secs(3600);
        assert_eq!(stage.renew().result.unwrap_err().code(), "config.assertion");
        assert_eq!(stage.exchanges.len(), 0);
        stage.now.wall = right;
        stage.answer(unreachable);
        assert_eq!(
            stage.renew().result.unwrap_err().code(),
            "unavailable.network"
        );
        assert_eq!(stage.exchanges.len(), 1);
    }
}

/// EXT-41, I-9: a refusal of the client, its scopes or its secret says nothing about the token that was shown beside them:
/// calls pause, for whoever waits too, and then it is shown again.
#[test]
fn what_was_not_refused_is_shown_again() {
    for error in ["invalid_client", "unauthorized_client", "invalid_scope"] {
        for kind in [workload(), enterprise()] {
            let mut stage = expired(kind);
            let good = jwt("job", "https://as.example", 100_000, &stage);
            stage.secrets.insert(TOKEN, good.clone());
            stage.secrets.insert(IDENTITY, good);
            stage.answer(oauth_error(error));
            for _ in 0..3 {
                assert_eq!(stage.renew().result.unwrap_err().code(), "denied.by_issuer");
            }
            assert_eq!(stage.exchanges.len(), 1);
            stage.pass(secs(2)).answer(unreachable);
            stage.renew();
            assert_eq!(stage.exchanges.len(), 2, "{error}");
        }
    }
}

/// EXT-41: what a login has shown in vain is not shown by a renewal.
#[test]
fn what_a_login_was_refused_is_not_shown_at_a_renewal() {
    let mut stage = expired(workload());
    let token = jwt("job", "https://as.example", 100_000, &stage);
    stage.secrets.insert(TOKEN, token.clone());
    let refused = crate::unattended::digest(&token);
    let flow = Unattended::new(task(4)).after_login(Some(refused));
    assert_eq!(
        stage.run(flow).result.unwrap_err().code(),
        "config.assertion"
    );
    assert_eq!(stage.exchanges.len(), 0);
    stage.answer(granted(5));
    let flow = Unattended::new(task(4)).after_login(Some([1; 32]));
    assert_eq!(stage.run(flow).result, Ok(Gain::Refreshed));
}

/// EXT-21: an assertion that an identity provider has made for another issuer is not handed to this one, which could use it
/// there.
#[test]
fn an_assertion_for_another_issuer_goes_nowhere() {
    let mut stage = expired(enterprise());
    let identity = jwt("alice", "at-idp", 600, &stage);
    stage.secrets.insert(IDENTITY, identity);
    let foreign = jwt("jag", "https://as.other", 300, &stage);
    stage.page("https://idp.example/token", reply(200, &id_jag(&foreign)));
    assert_eq!(
        stage.renew().result.unwrap_err().code(),
        "peer.metadata_invalid"
    );
    assert_eq!(stage.asked(), ["https://idp.example/token"]);
}

/// I-9, F-09: two slow servers in a row do not hold the lease for longer than others wait for it: the second call has what is
/// left, and one that has nothing left is not made.
#[test]
fn both_exchanges_have_one_limit() {
    for (first, left) in [(55, Some(16)), (60, Some(11)), (72, None)] {
        let mut stage = expired(enterprise());
        let identity = jwt("alice", "at-idp", 600, &stage);
        stage.secrets.insert(IDENTITY, identity);
        let assertion = jwt("jag", "https://as.example", 300, &stage);
        let answer = reply(200, &id_jag(&assertion));
        stage.page("https://idp.example/token", move |exchange, stage| {
            stage.pass(secs(first));
            answer(exchange, stage)
        });
        stage.page(ENDPOINT, silent);
        assert_eq!(
            stage.renew().result.unwrap_err().code(),
            "unavailable.timeout"
        );
        let within: Vec<_> = stage
            .exchanges
            .iter()
            .skip(1)
            .map(|sent| sent.within.as_secs())
            .collect();
        assert_eq!(within, left.into_iter().collect::<Vec<u64>>());
    }
}

/// EXT-30: a renewal that brings a token of another kind tells so, as a refresh does.
#[test]
fn another_kind_of_token_is_told() {
    let mut stage = due(Kind::ClientCredentials);
    let mut bound = login(Kind::ClientCredentials);
    bound.token_type = TokenType::Dpop;
    bound.proof_key = ProofKey::new(b"key", [1; 32], [2; 32]).ok();
    stage.put(bound);
    stage.answer(granted(5));
    assert_eq!(stage.renew().result, Ok(Gain::Refreshed));
    let told = Happened::TokenTypeChanged {
        from: TokenType::Dpop,
        to: TokenType::Bearer,
    };
    assert!(stage.events.iter().any(|event| event.happened == told));
    stage.pass(secs(3400)).answer(granted(6));
    assert_eq!(
        stage.run(Unattended::new(task(5))).result,
        Ok(Gain::Refreshed)
    );
    let times = stage.events.iter().filter(|event| event.happened == told);
    assert_eq!(times.count(), 1);
}
