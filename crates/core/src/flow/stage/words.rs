//! What was done, in words that a test can compare.

use crate::{
    flow::{Act, Expects, Lock},
    record::Fact,
};

/// An act in words: its kind, then what tells it from others of its kind.
pub(super) fn words(act: &Act) -> String {
    match act {
        Act::Send(exchange) => format!("send {:?}", exchange.leg).to_lowercase(),
        Act::Lock(Lock::Refresh(_)) => "lock".into(),
        Act::Lock(Lock::Register(_)) => "lock registering".into(),
        Act::Unlock(Lock::Refresh(_)) => "unlock".into(),
        Act::Unlock(Lock::Register(_)) => "unlock registering".into(),
        Act::Reread(_) => "reread".into(),
        Act::Note { facts, .. } => format!(
            "note {}",
            facts.iter().map(fact).collect::<Vec<_>>().join(", ")
        ),
        Act::Commit(commit) => {
            let over = match commit.expects {
                Expects::Version(version) => version.generation.0.to_string(),
                other => format!("{other:?}").to_lowercase(),
            };
            format!(
                "commit {} over {over}",
                commit.credential.version.generation.0
            )
        }
        Act::Spool {
            follows,
            credential,
        } => {
            let follows =
                follows.map_or("nothing".into(), |version| version.generation.0.to_string());
            format!("spool {} after {follows}", credential.version.generation.0)
        }
        Act::SpoolAttempt { attempt, .. } => format!("spool {}", fact(&Fact::Attempt(*attempt))),
        Act::PrepareSpool(_) => "prepare-spool".into(),
        Act::Learn(..) => "learn".into(),
        Act::FindRegistrations(_) => "find-registrations".into(),
        Act::KeepRegistration(_) => "keep-registration".into(),
        Act::ForgetRegistration(_) => "forget-registration".into(),
        Act::OpenCallback(callback) => match callback.port {
            Some(port) => format!("open-callback {port}"),
            None => "open-callback".into(),
        },
        Act::Show(_) => "show".into(),
        Act::ShowCode(_) => "show-code".into(),
        Act::CloseCallback => "close-callback".into(),
        Act::Bury { .. } => "bury".into(),
        Act::Revoked(..) => "revoked".into(),
        Act::PutBinding(_) => "bind".into(),
        Act::Record(..) => "record".into(),
        Act::ReadSecret(_) => "read-secret".into(),
    }
}

fn fact(fact: &Fact) -> String {
    match fact {
        Fact::Attempt(Some(attempt)) => match attempt.label {
            Some(label) => format!(
                "attempt {}",
                serde_json::to_string(&label).unwrap().trim_matches('"')
            ),
            None => "attempt".into(),
        },
        Fact::Attempt(None) => "no attempt".into(),
        Fact::Acceptance(_) => "acceptance".into(),
        Fact::Suspicion(Some(suspicion)) => format!("suspicion {}", suspicion.probes),
        Fact::Suspicion(None) => "no suspicion".into(),
        Fact::Backoff(Some(_)) => "backoff".into(),
        Fact::Backoff(None) => "no backoff".into(),
        Fact::Forced(_) => "forced".into(),
    }
}
