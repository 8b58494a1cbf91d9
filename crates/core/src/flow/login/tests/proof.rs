//! Logins at issuers that bind tokens to a key.

use super::*;
use crate::{credential::TokenType, dpop::ProofKey};

fn with_key() -> Task {
    Task {
        proof_key: ProofKey::new(b"key", [1; 32], [2; 32]).ok(),
        ..task()
    }
}

/// A login at an issuer with these algorithms, which calls its token so: what came of it, and which key was to be proven.
fn logged_in(algorithms: &str, token_type: &str) -> (Credential, Option<ProofKey>) {
    let more = format!(r#","dpop_signing_alg_values_supported":{algorithms}"#);
    let mut stage = with_metadata(&more);
    let body = format!(r#"{{"access_token":"at-0","refresh_token":"rt-0"{token_type}}}"#);
    stage.page(TOKEN, reply(200, &body));
    let done = login(&mut stage, with_key()).unwrap();
    let proof = sent_to(&stage, TOKEN)[0].orders.proof.clone();
    (done.credential, proof)
}

/// EXT-30: the drawn key is used wherever the issuer lists ES256, and kept with the tokens; a token that the issuer calls a
/// bearer token, or nothing, is one.
#[test]
fn the_key_is_used_where_the_issuer_binds() {
    let key = with_key().proof_key;
    for (said, expected) in [
        (r#","token_type":"DPoP""#, TokenType::Dpop),
        (r#","token_type":"Bearer""#, TokenType::Bearer),
        ("", TokenType::Bearer),
    ] {
        let (credential, proof) = logged_in(r#"["RS256","ES256"]"#, said);
        assert_eq!((&proof, &credential.proof_key), (&key, &key), "{said}");
        assert_eq!(credential.token_type, expected, "{said}");
    }
}

/// EXT-30, EXT-32: an issuer that knows no algorithm of ours gets no proof; whatever it says then, no key is kept.
#[test]
fn without_an_algorithm_of_ours_there_is_no_proof() {
    for algorithms in ["[]", r#"["EdDSA","ES384"]"#, "null", r#""ES256""#] {
        let (credential, proof) = logged_in(algorithms, r#","token_type":"DPoP""#);
        assert_eq!((proof, credential.proof_key), (None, None), "{algorithms}");
        assert_eq!(credential.token_type, TokenType::Bearer, "{algorithms}");
    }
}

/// EXT-30, T-32: a server that takes only bound tokens gets no other: neither where its issuer answers with a bearer token
/// after all, nor where this login has no key to prove.
#[test]
fn where_the_server_insists_a_bearer_token_is_none() {
    let binds = r#","dpop_signing_alg_values_supported":["ES256"]"#;
    let service = Client {
        secret: crate::secret::ClientSecret::new("s".into()).ok(),
        authentication: ClientAuthentication::Basic,
        source: ClientSource::PreRegistered,
        ..client("service")
    };
    for grant in [None, Some(Unattended::ClientCredentials)] {
        for (required, said, key, good) in [
            (true, "DPoP", true, true),
            (true, "Bearer", true, false),
            (true, "DPoP", false, false),
            (false, "Bearer", true, true),
            (false, "Bearer", false, true),
        ] {
            let mut stage = with_metadata(binds);
            let resource = format!(
                r#"{{"resource":"https://mcp.example","authorization_servers":["https://as.example"],
                "dpop_bound_access_tokens_required":{required}}}"#
            );
            stage.page(RESOURCE, reply(200, &resource));
            let body = format!(r#"{{"access_token":"at-0","token_type":"{said}"}}"#);
            stage.page(TOKEN, reply(200, &body));
            let task = Task {
                client: Some(service.clone()),
                unattended: grant.clone(),
                issuer: Some(issuer()),
                proof_key: with_key().proof_key.filter(|_| key),
                ..task()
            };
            let done = login(&mut stage, task);
            let said = format!("{grant:?} {required} {said} {key}");
            match done {
                Ok(_) => assert!(good, "{said}"),
                Err(error) => assert_eq!((error, good), (Error::NoDpop, false), "{said}"),
            }
            assert_eq!(stage.commits.len(), usize::from(good), "{said}");
        }
    }
}
