//! Clients that sign their own assertions.

use pilotlight::core::assertion::ClientKey;
use pilotlight_testkit::authorization_server::PublicKey;
use ring::signature::{EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, RsaKeyPair};
use rustls::pki_types::{PrivatePkcs8KeyDer, pem::PemObject as _};

use super::*;

pub(super) fn public(algorithm: JwsAlgorithm) -> PublicKey {
    let pem = match algorithm {
        JwsAlgorithm::Es256 => EC,
        JwsAlgorithm::Rs256 => RSA,
        _ => ED25519,
    };
    let der = PrivatePkcs8KeyDer::from_pem_slice(pem.as_bytes()).unwrap();
    let der = der.secret_pkcs8_der();
    let random = ring::rand::SystemRandom::new();
    let rule = &ring::signature::ECDSA_P256_SHA256_FIXED_SIGNING;
    let bytes = match algorithm {
        JwsAlgorithm::Es256 => {
            let key = EcdsaKeyPair::from_pkcs8(rule, der, &random).unwrap();
            key.public_key().as_ref().to_vec()
        }
        JwsAlgorithm::Rs256 => {
            let key = RsaKeyPair::from_pkcs8(der).unwrap();
            key.public_key().as_ref().to_vec()
        }
        _ => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(der).unwrap();
            key.public_key().as_ref().to_vec()
        }
    };
    PublicKey {
        algorithm: algorithm.as_str(),
        bytes,
    }
}

pub(super) fn keyed(key: SecretRef, algorithm: Option<JwsAlgorithm>) -> Client {
    let mut client = Client::brought("keyed".into());
    let mut key = ClientKey::new(key);
    key.algorithm = algorithm;
    key.key_id = Some("k1".into());
    client.key = Some(key);
    client
}

/// EXT-10, EXT-11: with each kind of key the issuer takes the assertion, a new one each time; the key is read at each use, so
/// the one that lies there now is the one that signs.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_signs_anew_each_time() {
    for (pem, algorithm) in [
        (EC, JwsAlgorithm::Es256),
        (RSA, JwsAlgorithm::Rs256),
        (ED25519, JwsAlgorithm::EdDsa),
    ] {
        let services = Services::new(|lab| {
            let keys = &mut lab.authorization_server.client_keys;
            keys.insert("keyed".into(), public(algorithm));
        })
        .await;
        let world = &services.world;
        let process = services.process();
        let client = keyed(services.put("key", pem), Some(algorithm));
        let session = login(&process, services.request(client, None), world).await;
        world.advance(Duration::from_secs(57 * 60));
        process.ticked().await;
        renewed(&services, &process, &session, 2).await;
        // A replay would be refused.
        assert!(services.asked().iter().all(|asked| asked.granted));
        let credential = process.record(world).await.credential.unwrap();
        assert_eq!(credential.client.authentication, Method::PrivateKeyJwt);

        // Another key lies there: the issuer does not know it. The token that works is served all the same.
        let other = if algorithm == JwsAlgorithm::EdDsa {
            EC
        } else {
            ED25519
        };
        services.put("key", other);
        world.lab.with_issuer(|issuer| {
            let known = public(algorithm);
            issuer
                .config_mut()
                .client_keys
                .insert("keyed".into(), known);
        });
        world.advance(Duration::from_secs(57 * 60));
        process.ticked().await;
        for _ in 0..5 {
            served(&session, world).await;
            process.idle().await;
        }
        let backoff = process.record(world).await.backoff.unwrap();
        assert_eq!(
            (backoff.code.as_str(), services.asked().len()),
            ("config.value", 2)
        );
    }
}

/// AUTH-44: a key that cannot be used, or is not there, says so, and nothing is sent; one that the issuer does not know is
/// refused, and said to be.
#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_does_not_fit_is_told() {
    let services = Services::new(|lab| {
        let keys = &mut lab.authorization_server.client_keys;
        keys.insert("keyed".into(), public(JwsAlgorithm::Es256));
    })
    .await;
    let process = services.process();
    let absent = SecretRef::file(services.path("absent").to_str().unwrap()).unwrap();
    for (key, algorithm) in [
        (services.put("encrypted", ENCRYPTED), None),
        (services.put("empty", ""), None),
        (services.put("rsa", RSA), Some(JwsAlgorithm::Es256)),
        (absent, None),
    ] {
        let request = services.request(keyed(key, algorithm), None);
        let error = process.sessions.login(request).await.unwrap_err();
        assert_eq!(
            (error.code(), error.exit_code()),
            ("config.value", 2),
            "{error}"
        );
    }
    assert_eq!(services.asked().len(), 0);
    let request = services.request(keyed(services.put("ed", ED25519), None), None);
    let error = process.sessions.login(request).await.unwrap_err();
    let refused = Error::DeniedByIssuer {
        error: "invalid_client".into(),
    };
    assert_eq!(error, refused);
}
