use url::Url;

use super::*;
use crate::{
    attempt::Attempt,
    credential::{Account, Generation, Incarnation, Lifetime, Pins, TokenType},
    error::{Certainty, NetworkFault},
    issuer::Issuer,
    record::{Backoff, Failed, Suspicion},
    registration::{Client, ClientAuthentication, ClientSource},
    resource::Resource,
    scope::Scopes,
    secret::{AccessToken, RefreshToken},
    time::{BootId, Mono},
};

const HERE: BootId = BootId([1; 16]);

fn at(seconds: u64) -> Now {
    Now {
        wall: Wall::from_unix_seconds(1_800_000_000 + seconds),
        mono: Mono(seconds * 1000),
        boot: HERE,
    }
}

fn version(generation: u64) -> Version {
    Version {
        incarnation: Incarnation([1; 16]),
        generation: Generation(generation),
    }
}

/// Received at second 0, good for a hundred seconds.
fn login(generation: u64) -> Record {
    let credential = Credential {
        key: CredentialKey {
            tenant: String::new(),
            resource: Resource::parse("https://mcp.example").unwrap(),
            issuer: Issuer::parse("https://as.example").unwrap(),
            account: Account::default(),
        },
        version: version(generation),
        pins: Pins {
            resource_parameter: None,
            token_endpoint: Url::parse("https://as.example/token").unwrap(),
            revocation_endpoint: None,
            called: None,
        },
        client: Client {
            id: "client-1".into(),
            secret: None,
            secret_ref: None,
            key: None,
            secret_expires_at: None,
            authentication: ClientAuthentication::None,
            source: ClientSource::Dynamic,
        },
        access_token: AccessToken::new(format!("at-{generation}")).unwrap(),
        token_type: TokenType::Bearer,
        proof_key: None,
        unattended: None,
        refresh_token: RefreshToken::new(format!("rt-{generation}")).ok(),
        received_at: Some(at(0)),
        lifetime: Some(Lifetime::Stated(Duration::from_secs(100))),
        scopes_requested: Scopes::default(),
        scopes_granted: Scopes::default(),
        logged_in_at: at(0).wall,
    };
    Record {
        credential: Some(credential),
        ..Record::default()
    }
}

fn ended(record: &Record) -> Outcome {
    Outcome {
        record: Some(record.clone()),
        notes: IssuerNotes::default(),
        result: Ok(Gain::Uncertain),
        unsaved: false,
        unnoted: false,
        superseded: None,
    }
}

fn holding(generation: u64) -> Memory {
    Memory {
        record: Some(login(generation)),
        ..Memory::default()
    }
}

/// I-2, I-5: a store that has gone back never takes the place of what memory holds; memory is what has to be saved.
#[test]
fn an_older_version_never_replaces_a_newer_one() {
    let mut memory = holding(3);
    assert_eq!(
        memory.install(Some(login(2)), None, false, HERE),
        Installed::Older
    );
    assert_eq!(memory.version(), Some(version(3)));
    assert!(memory.waits_for_store());
    assert_eq!(
        memory.install(Some(login(4)), None, false, HERE),
        Installed::Changed
    );
    assert!(!memory.waits_for_store());
}

/// I-2: a store that went back has been gone on with by a process that knew nothing of it: what it holds now is what the issuer
/// knows, although its number is the lower one.
#[test]
fn what_a_store_went_on_with_is_adopted() {
    let mut memory = holding(4);
    let mut branch = login(3);
    branch.credential.as_mut().unwrap().received_at = Some(at(60));
    let install = |memory: &mut Memory| memory.install(Some(branch.clone()), None, false, HERE);
    assert_eq!(install(&mut memory), Installed::Changed);
    assert!(!memory.waits_for_store());
    // What was received before the restart is the older one; of two boots that are not this machine's only the number tells.
    for (boot, installed) in [
        (HERE, Installed::Changed),
        (BootId([3; 16]), Installed::Older),
    ] {
        let mut memory = holding(4);
        let held = memory.record.as_mut().and_then(|r| r.credential.as_mut());
        held.unwrap().received_at.as_mut().unwrap().boot = BootId([2; 16]);
        let found = memory.install(Some(branch.clone()), None, false, boot);
        assert_eq!(found, installed, "{boot:?}");
    }
}

/// I-7: a store that went back may hold an earlier verdict on the same version: the one that came after it counts.
#[test]
fn a_later_refusal_outlives_an_earlier_one() {
    let refused = |probes: u32, seconds: u64| {
        let mut record = login(3);
        record.suspicion = Some(Suspicion {
            cause: LoginCause::Never,
            since: at(10).wall,
            probes,
            next_probe_at: None,
            at: Some(at(seconds)),
        });
        record
    };
    let mut memory = holding(3);
    memory.settle(ended(&refused(4, 80)), HERE).1.unwrap();
    memory.install(Some(refused(3, 40)), None, false, HERE);
    let probes = |memory: &Memory| {
        memory
            .record
            .as_ref()
            .unwrap()
            .suspicion
            .clone()
            .unwrap()
            .probes
    };
    assert_eq!(probes(&memory), 4);
    memory.install(Some(refused(5, 90)), None, false, HERE);
    assert_eq!(probes(&memory), 5);
}

/// I-14: before its end a token is served at once, whatever becomes of its refresh; after it, the refresh is waited for.
#[test]
fn only_an_ended_token_makes_a_request_wait() {
    let (mut memory, policy) = (holding(0), Policy::default());
    let service = |memory: &Memory, s| memory.service(at(s), policy);
    assert_eq!(service(&memory, 0), Ok(Service::Serve));
    assert_eq!(service(&memory, 80), Ok(Service::ServeAndRefresh));
    assert_eq!(service(&memory, 101), Ok(Service::Wait));
    let failed = Failed {
        retry_after: Some(Duration::from_secs(60)),
        ..Failed::once(&Error::DeniedByResource)
    };
    let backoff = Backoff::after(None, &failed, 0.5, at(79));
    memory.record.as_mut().unwrap().backoff = Some(backoff);
    assert_eq!(service(&memory, 80), Ok(Service::Serve));
    assert!(Memory::default().service(at(0), policy).is_err());
}

/// I-7: no refresh is begun that could only find out that a probe is not allowed yet.
#[test]
fn a_refused_login_is_left_alone_until_its_probe() {
    let mut memory = holding(0);
    memory.record.as_mut().unwrap().suspicion = Some(Suspicion {
        cause: LoginCause::RefreshRejected {
            certainty: Certainty::Suspect,
            named: None,
        },
        since: at(80).wall,
        probes: 0,
        next_probe_at: Some(at(140).wall),
        at: None,
    });
    assert!(!memory.may_refresh(at(139)));
    assert!(memory.may_refresh(at(140)));
}

/// F-13: an ended token is tried where the issuer cannot be reached, never while its refresh is under way.
#[test]
fn an_ended_token_is_tried_only_when_its_refresh_failed() {
    let unreachable = Error::Network {
        host: "as.example".into(),
        why: NetworkFault::Connect,
    };
    assert!(tries_the_ended(&unreachable));
    let waiting = |waited_for| Error::Timeout {
        waited_for,
        limit: Duration::from_secs(30),
    };
    assert!(!tries_the_ended(&waiting(Waited::Refresh)));
    assert!(tries_the_ended(&waiting(Waited::Answer)));
    assert!(!tries_the_ended(&Error::login(LoginCause::Never)));
}

/// F-02: a refresh that was refused because of somebody else's 401 is no answer to who has an ended token.
#[test]
fn a_refusal_for_anothers_reason_is_no_answer() {
    let (memory, policy) = (holding(0), Policy::default());
    let refused = Want {
        asked: false,
        refused: Some(version(0)),
    };
    let denied = Err(Error::DeniedByResource);
    assert!(memory.answers(refused, &denied, at(0), policy));
    assert!(!memory.answers(Want::default(), &denied, at(0), policy));
    assert!(memory.answers(Want::default(), &Ok(Gain::Nothing), at(0), policy));
    assert!(!memory.answers(refused, &Ok(Gain::Nothing), at(0), policy));
}

/// F-06: a refresh that somebody asks for is not answered by one that only brought to the store what that had refused.
#[test]
fn what_is_asked_for_is_made() {
    let (memory, policy) = (holding(0), Policy::default());
    let asked = Want {
        asked: true,
        refused: None,
    };
    for (gain, answers) in [
        (Gain::Nothing, false),
        (Gain::Uncertain, false),
        (Gain::Adopted, true),
    ] {
        assert_eq!(
            memory.answers(asked, &Ok(gain), at(0), policy),
            answers,
            "{gain:?}"
        );
    }
}

/// What an earlier run could not store goes along with the next: the version, and the facts about it.
#[test]
fn the_next_task_carries_what_nothing_has_taken() {
    let mut memory = holding(2);
    let task = |memory: &Memory| {
        let (process, policy) = (ProcessId::default(), Policy::default());
        let want = Want::default();
        memory.task(want, process, [0; 32], policy).unwrap()
    };
    assert!(task(&memory).unsaved.is_none() && task(&memory).remembered.is_none());
    memory.unsaved = true;
    memory.unnoted = true;
    assert_eq!(task(&memory).unsaved.unwrap().version, version(2));
    assert_eq!(
        task(&memory).remembered.unwrap().version(),
        Some(version(2))
    );
}

/// An acceptance is noted at once for each generation, and at most once a minute after that.
#[test]
fn an_acceptance_is_noted_once_a_minute() {
    let mut memory = holding(0);
    let mut seen = |g, s| memory.accepted(version(g), at(s).wall).is_some();
    assert!(seen(0, 1));
    assert!(!seen(0, 30));
    assert!(!seen(1, 61), "another generation's answer says nothing");
    assert!(seen(0, 61));
}

/// F-03, F-11: an attempt that has stood for some seconds is looked into while it can still be repeated in time, and not after.
#[test]
fn an_abandoned_attempt_is_found_in_time() {
    let (mut memory, policy) = (holding(3), Policy::default());
    let attempt = Attempt {
        generation: Generation(3),
        number: 1,
        label: None,
        fence: 1,
        process: ProcessId::default(),
        first_sent_at: at(80),
        sent_at: at(80),
    };
    let finds = |memory: &Memory, s| memory.finds_abandoned(at(s), policy);
    assert!(!finds(&memory, 85), "there is none");
    memory.record.as_mut().unwrap().attempt = Some(attempt);
    let found = [81, 83, 91, 92].map(|s| finds(&memory, s));
    assert_eq!(found, [false, true, true, false]);
    memory.notes = IssuerNotes::default().repeated_badly(Duration::ZERO, at(0).wall);
    assert!(!finds(&memory, 85), "this issuer forgives nothing");
}

/// I-3, F-21: the store lost the note of a call and nothing else, as a copy that was restored does: whoever sent it knows, until
/// it is told what came of it.
#[test]
fn who_has_sent_a_call_remembers_it() {
    let attempt = Attempt {
        generation: Generation(3),
        number: 1,
        label: None,
        fence: 1,
        process: ProcessId::default(),
        first_sent_at: at(80),
        sent_at: at(80),
    };
    let mut sent = login(3);
    sent.attempt = Some(attempt);
    let mut memory = holding(3);
    memory.settle(ended(&sent), HERE).1.unwrap();
    memory.install(Some(login(3)), None, false, HERE);
    assert_eq!(memory.record.as_ref().unwrap().attempt, Some(attempt));
    let task = memory.task(
        Want::default(),
        ProcessId::default(),
        [0; 32],
        Policy::default(),
    );
    assert_eq!(task.unwrap().remembered.unwrap().attempt, Some(attempt));

    let mut refused = login(3);
    refused.suspicion = Some(Suspicion {
        cause: LoginCause::Never,
        since: at(80).wall,
        probes: 0,
        next_probe_at: None,
        at: None,
    });
    memory.install(Some(refused.clone()), None, false, HERE);
    assert_eq!(
        memory.record.as_ref().unwrap().attempt,
        None,
        "that is what came of it"
    );
    memory.settle(ended(&refused), HERE).1.unwrap();
    memory.install(Some(login(3)), None, false, HERE);
    let known = memory.record.as_ref().unwrap();
    assert_eq!(known.suspicion, refused.suspicion, "lost by the store");
    assert_eq!(known.attempt, None);
    memory.install(Some(login(4)), None, false, HERE);
    memory.install(Some(login(4)), None, false, HERE);
    assert_eq!(
        memory.record.as_ref().unwrap().attempt,
        None,
        "another version"
    );
    memory.settle(ended(&sent), HERE).1.unwrap_or(Gain::Nothing);
    memory.settle(ended(&login(4)), HERE).1.unwrap();
    memory.install(Some(login(4)), None, false, HERE);
    assert_eq!(memory.record.as_ref().unwrap().attempt, None, "taken back");
}

/// I-1: a store that went back forgets probes that this process knows of; another has begun anew from what it said. Each was a
/// probe, and where none was left, none is.
#[test]
fn probes_count_whoever_knows_of_them() {
    let refused = |probes, second: u64, is_last: bool| {
        let mut record = login(3);
        record.suspicion = Some(Suspicion {
            cause: LoginCause::Never,
            since: at(second).wall,
            probes,
            next_probe_at: (!is_last).then(|| at(second + 300).wall),
            at: Some(at(second)),
        });
        record
    };
    // What memory and the store say, and how many of what is held then, from when, and whether it is the last.
    for (known, stored, held) in [
        ((2, 10, false), (1, 20, false), (2, 20, false)),
        ((1, 10, false), (2, 20, false), (2, 20, false)),
        ((2, 30, false), (1, 20, false), (2, 30, false)),
        ((4, 10, true), (1, 20, false), (4, 10, true)),
        ((1, 30, false), (4, 20, true), (4, 20, true)),
    ] {
        let of = |(probes, second, is_last)| refused(probes, second, is_last);
        let mut memory = holding(3);
        memory.settle(ended(&of(known)), at(1).boot).1.unwrap();
        memory.install(Some(of(stored)), None, false, at(1).boot);
        let now = memory.record.unwrap().suspicion;
        assert_eq!(now, of(held).suspicion, "{known:?} {stored:?}");
    }
}

/// I-1, I-3, I-9: what no store could note is not forgotten at the next look at it, until the version is another.
#[test]
fn a_look_at_the_store_forgets_nothing() {
    let mut memory = holding(3);
    let backoff = Backoff::after(None, &Failed::once(&Error::DeniedByResource), 0.5, at(79));
    let known = memory.record.as_mut().unwrap();
    known.backoff = Some(backoff.clone());
    memory.unnoted = true;
    assert_eq!(
        memory.install(Some(login(3)), None, false, HERE),
        Installed::Same
    );
    assert_eq!(memory.record.as_ref().unwrap().backoff, Some(backoff));
    assert!(memory.unnoted);
    memory.install(Some(login(4)), None, false, HERE);
    assert_eq!(memory.record.as_ref().unwrap().backoff, None);
    assert!(!memory.unnoted);
}

/// F-32, I-7: what a server has said of a key that a person brought is kept until it takes the key again, in whichever process: a
/// store that no longer says so has not gone back. Of a login the refusal stands.
#[test]
fn a_key_is_doubted_until_it_is_taken_again() {
    let suspicion = Suspicion {
        cause: LoginCause::StaticTokenRefused,
        since: at(1).wall,
        probes: 0,
        next_probe_at: None,
        at: Some(at(1)),
    };
    let refused = |source: ClientSource| {
        let mut record = login(3);
        record.credential.as_mut().unwrap().client.source = source;
        record.suspicion = Some(suspicion.clone());
        let mut memory = holding(3);
        let (_, ended) = memory.settle(ended(&record), at(1).boot);
        ended.unwrap();
        (memory, record)
    };
    let (mut memory, record) = refused(ClientSource::Static);
    assert!(memory.doubts_key());
    assert_eq!(memory.key_accepted(version(2)), None);
    let key = record.credential.as_ref().map(|held| held.key.clone());
    assert_eq!(memory.key_accepted(version(3)), key);
    assert_eq!(
        (memory.doubts_key(), memory.key_accepted(version(3))),
        (false, None)
    );

    let healed = |record: &Record| Record {
        suspicion: None,
        ..record.clone()
    };
    for (source, stands) in [(ClientSource::Static, false), (ClientSource::Dynamic, true)] {
        let (mut memory, record) = refused(source);
        memory.install(Some(healed(&record)), None, false, at(1).boot);
        let kept = memory.record.and_then(|record| record.suspicion);
        assert_eq!(kept.is_some(), stands, "{source:?}");
    }
}
