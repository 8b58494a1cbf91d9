//! What another process was told, in our own words: the store has its code and no more.

use std::time::Duration;

use pilotlight_core::{Error, error::LoginCause, issuer::Issuer};

/// The error of that code, as far as the code says what a person has to know.
pub(super) fn again(code: &str, issuer: &Issuer) -> Option<Error> {
    let issuer = || issuer.to_string();
    Some(match code {
        "denied.by_human" => Error::DeniedByHuman,
        "denied.by_issuer" => Error::DeniedByIssuer {
            error: ELSEWHERE.into(),
        },
        "denied.scope" => Error::ScopeRefused { scopes: Vec::new() },
        "login.abandoned" => Error::login(LoginCause::Abandoned),
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
            "peer.proof_refused",
            "peer.no_registration_way",
            "peer.registration_refused",
            "unavailable.network",
            "unavailable.timeout",
            "unavailable.rate_limited",
            "unavailable.server_error",
            "unavailable.store",
        ] {
            let error = again(code, &issuer).map(|error| error.code());
            assert_eq!(error, Some(code));
        }
        assert_eq!(again("config.callback_port", &issuer), None);
    }
}
