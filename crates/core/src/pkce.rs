//! PKCE (RFC 7636) with S256, and the `state` of an authorization request (RFC 6749 section 10.12).
//!
//! Both are made of entropy that comes in as an argument. They may be made of the same bytes: the state passes through
//! the browser, so it is a labelled hash from which the verifier cannot be found.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest as _, Sha256};

use crate::secret::{CodeVerifier, StateParameter};

/// A code verifier and its S256 challenge.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pkce {
    /// The verifier: only the token endpoint sees it.
    pub verifier: CodeVerifier,
    /// The challenge: goes with the authorization request.
    pub challenge: String,
}

impl Pkce {
    /// The only method that is ever used (AUTH-24, AUTH-60): `plain` proves nothing.
    pub const METHOD: &'static str = "S256";

    /// Makes a pair from 32 random bytes, as RFC 7636 section 4.1 recommends.
    #[must_use]
    pub fn from_entropy(entropy: &[u8; 32]) -> Self {
        let verifier =
            CodeVerifier::new(URL_SAFE_NO_PAD.encode(entropy)).expect("base64url is printable");
        let challenge = challenge(&verifier);
        Self {
            verifier,
            challenge,
        }
    }
}

/// Makes a `state` from 32 random bytes (AUTH-61).
#[must_use]
pub fn state_from_entropy(entropy: &[u8; 32]) -> StateParameter {
    let digest = Sha256::new()
        .chain_update(STATE_LABEL)
        .chain_update(entropy)
        .finalize();
    StateParameter::new(URL_SAFE_NO_PAD.encode(digest)).expect("base64url is printable")
}

/// `BASE64URL-ENCODE(SHA256(ASCII(code_verifier)))` (RFC 7636 section 4.2).
fn challenge(verifier: &CodeVerifier) -> String {
    URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.expose().as_bytes()))
}

const STATE_LABEL: &[u8] = b"pilotlight state\0";

#[cfg(test)]
mod tests {
    use super::*;

    /// AUTH-60: the vector of RFC 7636 appendix B.
    #[test]
    fn the_rfc_7636_vector_holds() {
        let octets = [
            116, 24, 223, 180, 151, 153, 224, 37, 79, 250, 96, 125, 216, 173, 187, 186, 22, 212,
            37, 77, 105, 214, 191, 240, 91, 88, 5, 88, 83, 132, 141, 121,
        ];
        let pkce = Pkce::from_entropy(&octets);
        assert_eq!(
            pkce.verifier.expose(),
            "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk"
        );
        assert_eq!(
            pkce.challenge,
            "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM"
        );
    }

    /// AUTH-60, AUTH-61: a state made of the same entropy gives neither the verifier nor the challenge away.
    #[test]
    fn the_state_never_shows_the_verifier() {
        let (pkce, state) = (Pkce::from_entropy(&[7; 32]), state_from_entropy(&[7; 32]));
        assert_ne!(state.expose(), pkce.verifier.expose());
        assert_ne!(state.expose(), pkce.challenge);
        assert_ne!(
            state.expose(),
            URL_SAFE_NO_PAD.encode(Sha256::digest([7; 32])),
            "other hashes of a seed are others'"
        );
        assert_eq!(state.expose().len(), 43);
        assert_ne!(state, state_from_entropy(&[8; 32]));
        assert!(!format!("{pkce:?}").contains(pkce.verifier.expose()));
    }
}
