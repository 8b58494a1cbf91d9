//! Looks at whether the issuer is back.

use super::*;
use crate::error::NetworkFault;

/// An ended login whose first refresh did not reach the issuer.
fn pausing() -> Stage {
    let mut stage = expired();
    stage.answer(unreachable);
    let result = stage.refresh().result;
    let why = NetworkFault::Connect;
    assert!(matches!(result, Err(Error::Network { why: w, .. }) if w == why));
    // A pause too long to wait out.
    let record = stage.record.as_mut().unwrap();
    let backoff = record.backoff.as_mut().unwrap();
    backoff.not_before = backoff.not_before + secs(300);
    stage.sent.clear();
    stage
}

fn pauses(stage: &mut Stage) {
    let result = stage.refresh().result;
    assert!(
        matches!(result, Err(Error::BackingOff { .. })),
        "{result:?}"
    );
}

fn looks(stage: &Stage) -> usize {
    let is_look = |sent: &&Exchange| sent.leg == Leg::Reach;
    stage.exchanges.iter().filter(is_look).count()
}

/// F-12: whoever waits looks every ten seconds, under the lock and without the token; the first answer after none allows one
/// call at once, which counts among those of the hour.
#[test]
fn an_issuer_that_comes_back_is_called_at_once() {
    let mut stage = pausing();
    pauses(&mut stage);
    assert_eq!(looks(&stage), 0, "it was found gone just now");
    stage.pass(secs(10)).answer(unreachable);
    pauses(&mut stage);
    pauses(&mut stage);
    assert_eq!(looks(&stage), 1);
    assert!(stage.sent.is_empty());
    let look = stage.exchanges.last().unwrap();
    assert_eq!(
        (look.url.host_str(), look.body.len()),
        (Some("as.example"), 0)
    );
    stage
        .pass(secs(10))
        .answer(reply(404, ""))
        .answer(unreachable);
    assert!(matches!(stage.refresh().result, Err(Error::Network { .. })));
    assert_eq!((looks(&stage), stage.sent.len()), (2, 1));
    assert_eq!(stage.record().backoff.as_ref().unwrap().extra.len(), 1);
}

/// F-12: an issuer that has answered all along allows no call before its time.
#[test]
fn an_issuer_that_was_there_is_not_called() {
    let mut stage = pausing();
    let failing = |stage: &mut Stage| {
        stage
            .record
            .as_mut()
            .unwrap()
            .backoff
            .as_mut()
            .unwrap()
            .reach = crate::record::Reach::Up;
    };
    failing(&mut stage);
    stage.pass(secs(10)).answer(reply(200, "{}"));
    pauses(&mut stage);
    assert_eq!((looks(&stage), stage.sent.len()), (1, 0));
}

/// I-14, F-12: nobody waits while the token works: nobody looks.
#[test]
fn a_token_that_works_needs_no_look() {
    let mut stage = due();
    stage.answer(unreachable);
    assert!(stage.refresh().result.is_err());
    let backoff = stage.record.as_mut().unwrap().backoff.as_mut().unwrap();
    backoff.not_before = backoff.not_before + secs(200);
    stage.pass(secs(20));
    pauses(&mut stage);
    assert_eq!(looks(&stage), 0);
}

/// F-16, I-6: a client that the issuer has forgotten is forgotten here, so that the next login registers another; the tokens
/// stay.
#[test]
fn a_forgotten_client_is_registered_anew_by_the_next_login() {
    let mut stage = expired();
    stage.answer(reply(401, r#"{"error":"invalid_client"}"#));
    let gone = Error::login(LoginCause::RegistrationGone);
    assert_eq!(stage.refresh().result, Err(gone));
    assert!(
        stage.log.iter().any(|did| did == "forget-registration"),
        "{:?}",
        stage.log
    );
    assert_eq!(stage.record().credential, Some(credential(4)));
}
