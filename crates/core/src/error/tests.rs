//! Codes, actions and exits.

use super::*;
use crate::{
    exchange::{Delivery, Failure, Fault},
    time::Now,
};

/// The category decides the exit code, and the code's first word is the category.
#[test]
fn each_category_has_its_exit_code() {
    for (error, exit) in [
        (Error::login(LoginCause::Never), 3),
        (Error::DeniedByHuman, 4),
        (Error::RateLimited { retry_after: None }, 75),
        (Error::StateMismatch, 5),
        (Error::NoPkceS256, 5),
        (Error::ConfigRuntime, 2),
        (
            Error::StoreCorrupt {
                what: "header".into(),
            },
            6,
        ),
        (Error::Bug { what: "x" }, 70),
    ] {
        assert_eq!(error.exit_code(), exit, "{}", error.code());
    }
}

/// F-12: who asks while refreshes pause is told what they pause for, and whose affair it is: a file that is missing here is
/// no failure of the issuer's. A code that no build of ours has written is one.
#[test]
fn a_pause_has_the_code_of_its_reason() {
    let paused = |code: &str| Error::BackingOff {
        code: code.into(),
        retry_after: Duration::from_secs(1),
    };
    for code in PAUSED_FOR {
        assert_eq!(paused(code).code(), code);
    }
    let network = NetworkFault::Connect;
    let endings = [
        Fault::Network(network),
        Fault::Deadline(Duration::from_secs(60)),
        Fault::TooLate,
        Fault::Forbidden {
            address: "10.0.0.1".into(),
            field: "token_endpoint".into(),
        },
    ];
    let unsigned = [
        Error::ConfigRuntime,
        Error::StoreCorrupt { what: "key".into() },
        Error::Bug { what: "x" },
        Error::ConfigValue {
            what: "x".into(),
            why: "y".into(),
        },
    ];
    let unsigned = unsigned.map(|error| Fault::Unsigned(Box::new(error)));
    for fault in endings.into_iter().chain(unsigned) {
        let failure = Failure {
            delivery: Delivery::NotDelivered,
            fault,
            host: "as.example".into(),
            sent_at: Now::default(),
        };
        let error = failure.error();
        assert_eq!(
            paused(error.code()).exit_code(),
            error.exit_code(),
            "{error}"
        );
    }
    assert_eq!(paused("config.value").action(), Action::FixOwnSide);
    assert_eq!(paused("x").code(), "unavailable.server_error");
}

/// T-21: what a peer says is cleaned before it is shown.
#[test]
fn words_of_a_peer_are_cleaned() {
    let error = Error::DeniedByIssuer {
        error: "a\u{1b}[2J".into(),
    };
    assert!(!error.to_string().contains('\u{1b}'));
}
