//! Refreshes of tokens that are bound to a key.

use super::*;
use crate::{credential::TokenType, dpop::ProofKey};

fn bound(generation: u64) -> Credential {
    Credential {
        token_type: TokenType::Dpop,
        proof_key: ProofKey::new(b"key", [1; 32], [2; 32]).ok(),
        ..credential(generation)
    }
}

fn refreshed(before: Credential, token_type: &str) -> (Stage, Credential) {
    let mut stage = Stage::with(before);
    stage.pass(secs(3400));
    let body = format!(
        r#"{{"access_token":"at-5","refresh_token":"rt-5","expires_in":3600{token_type}}}"#
    );
    stage.answer(reply(200, &body));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    let after = stage.record().credential.clone().unwrap();
    (stage, after)
}

/// EXT-30, EXT-32: the refresh orders a proof of the stored key, which the next generation has too; a response that is
/// silent about the kind of token changes nothing, and one that names it is believed.
#[test]
fn the_key_goes_along_and_is_carried_forward() {
    for (said, expected) in [
        ("", TokenType::Dpop),
        (r#","token_type":"dpop""#, TokenType::Dpop),
        (r#","token_type":"Bearer""#, TokenType::Bearer),
    ] {
        let (stage, after) = refreshed(bound(4), said);
        assert_eq!(
            stage.exchanges[0].orders.proof,
            bound(4).proof_key,
            "{said}"
        );
        assert_eq!(
            (after.token_type, after.proof_key),
            (expected, bound(4).proof_key),
            "{said}"
        );
    }
}

/// EXT-32: a login without a key proves nothing, and no answer makes it try: what needs a proof that nobody can make would
/// never be of use again.
#[test]
fn without_a_key_it_stays_a_bearer_token() {
    let (stage, after) = refreshed(credential(4), r#","token_type":"DPoP""#);
    assert_eq!(stage.exchanges[0].orders.proof, None);
    assert_eq!(
        (after.token_type, after.proof_key),
        (TokenType::Bearer, None)
    );
}

/// T-32: a repeat under a label orders its proof anew.
#[test]
fn each_call_orders_a_proof() {
    let mut stage = Stage::with(bound(4));
    stage.pass(secs(3400));
    stage.answer(broken).answer(tokens(5));
    assert_eq!(stage.refresh().result, Ok(Gain::Refreshed));
    assert_eq!(stage.labels(), [None, Some(Label::RetryAmbiguous)]);
    let proofs = stage.exchanges.iter().map(|one| &one.orders.proof);
    assert!(proofs.eq([&bound(4).proof_key; 2]));
}

/// EXT-31: a proof that is refused for good has spent nothing; its own error, and a pause.
#[test]
fn a_refused_proof_backs_off() {
    for error in ["use_dpop_nonce", "invalid_dpop_proof"] {
        let mut stage = Stage::with(bound(4));
        stage.pass(secs(3400));
        stage.answer(oauth_error(error));
        assert_eq!(stage.refresh().result, Err(Error::ProofRefused));
        assert_eq!(stage.record().credential, Some(bound(4)));
        let record = stage.record();
        assert!(record.backoff.is_some() && record.suspicion.is_none());
        assert_eq!(record.attempt, None);
    }
}

/// EXT-30: that a token is no longer bound to the key, or is so again, is an event of its own; where nothing changes, or
/// nothing is said, there is none.
#[test]
fn another_kind_of_token_is_told() {
    let told = |before: Credential, said: &str| {
        let (stage, _) = refreshed(before, said);
        let kinds = stage
            .events
            .iter()
            .filter_map(|event| match event.happened {
                Happened::TokenTypeChanged { from, to } => Some((from, to)),
                _ => None,
            });
        kinds.collect::<Vec<_>>()
    };
    let (bearer, dpop) = (TokenType::Bearer, TokenType::Dpop);
    assert_eq!(
        told(bound(4), r#","token_type":"Bearer""#),
        [(dpop, bearer)]
    );
    let unbound = Credential {
        token_type: bearer,
        ..bound(4)
    };
    assert_eq!(told(unbound, r#","token_type":"DPoP""#), [(bearer, dpop)]);
    for same in ["", r#","token_type":"DPoP""#] {
        assert_eq!(told(bound(4), same), [], "{same}");
    }
    assert_eq!(told(credential(4), r#","token_type":"DPoP""#), []);
}
