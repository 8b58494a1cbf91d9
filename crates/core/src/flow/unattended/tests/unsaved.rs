//! Tokens that neither store nor spool takes.

use super::*;
use crate::{credential::Lifetime, record::Record};

/// A renewal by a process that has this in memory only.
fn from_memory(known: &Record, refused: bool) -> Task {
    let credential = known.credential.clone().unwrap();
    let version = credential.version;
    Task {
        held: Some(version),
        refused: refused.then_some(version),
        unsaved: Some(Box::new(credential)),
        memory: Some(Box::new(known.clone())),
        ..task(version.generation.0)
    }
}

/// T-45, I-10, F-06: the disk is full, the stored token has ended, and a server refuses whatever it is shown: what it says is
/// about the token that memory holds, so the limits hold as they do with a store, and each new token is a new generation.
#[test]
fn a_full_disk_lifts_no_limit() {
    let mut stage = expired(Kind::ClientCredentials);
    stage
        .answer(granted(5))
        .fail("commit")
        .fail("spool")
        .fail("note");
    let mut known = stage.renew().record.unwrap();
    assert_eq!(known.version(), Some(version(5)));
    stage.pass(secs(60)).answer(granted(6));
    let outcome = stage.run(Unattended::new(from_memory(&known, true)));
    assert_eq!(
        (outcome.result, outcome.unsaved),
        (Ok(Gain::Refreshed), true)
    );
    known = outcome.record.unwrap();
    assert_eq!(
        known.version(),
        Some(version(6)),
        "the next of what memory held"
    );
    for wait in [0, 60, 600] {
        stage.pass(secs(wait));
        let outcome = stage.run(Unattended::new(from_memory(&known, true)));
        assert_eq!(outcome.result, Err(Error::DeniedByResource));
        known = outcome.record.unwrap();
        assert_eq!(known.version(), Some(version(6)));
    }
    assert_eq!(stage.exchanges.len(), 2);
    // Once it takes it again, the newest is in the store.
    stage.heal();
    stage.run(Unattended::new(from_memory(&known, false)));
    assert_eq!(stage.record().version(), Some(version(6)));
}

type Script = Box<dyn FnOnce(&crate::exchange::Exchange, &mut Stage) -> crate::exchange::Exchanged>;

/// F-18: an issuer that never says how long its tokens live teaches it by the server's refusals, as it does with a refresh
/// token; what it does say counts for more.
#[test]
fn a_lifetime_is_learned_from_refusals() {
    let silent = || reply(200, r#"{"access_token":"at-5","token_type":"Bearer"}"#);
    let run = |accepted: bool, answer: Script| {
        let mut stage = Stage::with(Credential {
            lifetime: None,
            ..login(Kind::ClientCredentials)
        });
        let now = stage.now;
        if accepted {
            stage.record.as_mut().unwrap().acceptance = Some(crate::record::Acceptance {
                generation: Generation(4),
                first_at: now.wall,
                last_at: now.wall,
            });
        }
        stage.pass(secs(900)).answer(answer);
        let refused = Task {
            refused: Some(version(4)),
            ..task(4)
        };
        let outcome = stage.run(Unattended::new(refused));
        let life = outcome.record.unwrap().credential.unwrap().lifetime;
        life.map(|life| match life {
            Lifetime::Hint(span) => ("hint", span.as_secs()),
            Lifetime::Stated(span) => ("stated", span.as_secs()),
        })
    };
    assert_eq!(run(true, Box::new(silent())), Some(("hint", 900)));
    assert_eq!(run(false, Box::new(silent())), None);
    assert_eq!(run(true, Box::new(granted(5))), Some(("stated", 3600)));
}
