//! What another process was told, in our own words: the store has the code, and which scopes were asked for.

use std::time::Duration;

use pilotlight_core::{Error, error::LoginCause, issuer::Issuer, scope::Scopes};

/// What a person or the issuer has decided about a login that asked for these scopes: that is an answer to whoever waited for it.
/// Anything else the next one may fare better with.
pub(super) fn decided(code: &str, asked: &Scopes) -> Option<Error> {
    Some(match code {
        "denied.by_human" => Error::DeniedByHuman,
        "denied.by_issuer" => Error::DeniedByIssuer {
            error: ELSEWHERE.into(),
        },
        "denied.scope" => Error::ScopeRefused {
            scopes: asked.iter().map(str::to_owned).collect(),
        },
        "login.abandoned" => Error::login(LoginCause::Abandoned),
        _ => return None,
    })
}

/// The error of that code, as far as the code says what a person has to know.
pub(crate) fn again(code: &str, asked: &Scopes, issuer: &Issuer) -> Option<Error> {
    decided(code, asked).or_else(|| of_the_issuer(code, issuer))
}

/// What was wrong with the issuer or with the way to it.
fn of_the_issuer(code: &str, issuer: &Issuer) -> Option<Error> {
    let issuer = || issuer.to_string();
    Some(match code {
        "peer.issuer_mismatch" => Error::IssuerMismatch {
            expected: issuer(),
            got: ELSEWHERE.into(),
        },
        "peer.state_mismatch" => Error::StateMismatch,
        "peer.resource_mismatch" => Error::ResourceMismatch {
            published: ELSEWHERE.into(),
        },
        "peer.metadata_invalid" => Error::MetadataInvalid {
            document: "metadata",
            field: "some field",
            why: ELSEWHERE,
        },
        "peer.no_pkce_s256" => Error::NoPkceS256,
        "peer.no_dpop" => Error::NoDpop,
        "peer.no_device_login" => Error::NoDeviceLogin,
        "peer.proof_refused" => Error::ProofRefused,
        "peer.no_registration_way" => Error::NoRegistrationWay {
            issuer: issuer(),
            redirect_uris: Vec::new(),
        },
        "peer.registration_refused" => Error::RegistrationRefused {
            issuer: issuer(),
            error: ELSEWHERE.into(),
            redirect_uris: Vec::new(),
        },
        "unavailable.network"
        | "unavailable.timeout"
        | "unavailable.rate_limited"
        | "unavailable.server_error"
        | "unavailable.store" => Error::BackingOff {
            code: code.to_owned(),
            retry_after: A_SECOND,
        },
        // What else there is depends on how the other process is set up.
        _ => return None,
    })
}

const ELSEWHERE: &str = "as another process was just told";
/// Whoever asks again asks the person again, and may do so at once.
const A_SECOND: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    /// T-31: what is told again has the code that was stored, so that every process acts alike; what cannot be told is not
    /// taken for something else.
    #[test]
    fn what_is_told_again_has_the_same_code() {
        let issuer = Issuer::parse("https://as.example").unwrap();
        let asked = Scopes::parse("a b");
        for code in [
            "denied.by_human",
            "denied.by_issuer",
            "denied.scope",
            "login.abandoned",
            "peer.issuer_mismatch",
            "peer.state_mismatch",
            "peer.resource_mismatch",
            "peer.metadata_invalid",
            "peer.no_pkce_s256",
            "peer.no_dpop",
            "peer.no_device_login",
            "peer.proof_refused",
            "peer.no_registration_way",
            "peer.registration_refused",
            "unavailable.network",
            "unavailable.timeout",
            "unavailable.rate_limited",
            "unavailable.server_error",
            "unavailable.store",
        ] {
            let error = again(code, &asked, &issuer);
            assert_eq!(error.map(|error| error.code()), Some(code));
        }
        assert_eq!(again("config.callback_port", &asked, &issuer), None);
    }

    /// AUTH-56: whoever waited for a login or a step-up reads which scopes the issuer did not grant.
    #[test]
    fn refused_scopes_are_named_again() {
        let issuer = Issuer::parse("https://as.example").unwrap();
        let error = again("denied.scope", &Scopes::parse("a b"), &issuer);
        let scopes = vec!["a".to_owned(), "b".to_owned()];
        assert_eq!(error, Some(Error::ScopeRefused { scopes }));
    }
}
