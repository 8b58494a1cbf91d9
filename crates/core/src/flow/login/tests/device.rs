//! Logins on another device, under virtual time.

mod clients;

use super::*;
use crate::{
    assertion::ClientKey,
    dpop::ProofKey,
    error::{LoginCause, NetworkFault},
    flow::CodePrompt,
    grant::DEVICE_CODE,
    jws::JwsAlgorithm,
    reference::SecretRef,
    scope::Scopes,
    secret::ClientSecret,
};

const DEVICE: &str = "https://as.example/device_authorization";
const OFFERED: &str =
    r#","device_authorization_endpoint":"https://as.example/device_authorization""#;
const CODE: &str = r#"{"device_code":"dc-1","user_code":"WDJB-MJHT","verification_uri":"https://as.example/device",
    "verification_uri_complete":"https://as.example/device?user_code=WDJB-MJHT","expires_in":300,"interval":5}"#;

fn by_device(device: Device) -> Task {
    Task { device, ..task() }
}

/// An issuer that gives out this code, and answers each question so.
fn stage_with(code: &str, more: &str, answers: Vec<Scripted>) -> Stage {
    let mut stage = with_metadata(&format!("{OFFERED}{more}"));
    stage.page(DEVICE, reply(200, code));
    let mut answers = answers.into_iter().map(noted);
    match answers.next() {
        Some(first) => stage.page(TOKEN, first),
        None => stage.page(TOKEN, |_, _| panic!("nothing is to be asked")),
    };
    for answer in answers {
        stage.answer(answer);
    }
    stage
}

fn stage_of(answers: Vec<Scripted>) -> Stage {
    stage_with(CODE, "", answers)
}

/// The same answer, with a line in the log that says when the question came.
fn noted(answer: Scripted) -> Scripted {
    Box::new(move |exchange, stage| {
        stage.log.push(format!("asked {}", stage.now.mono.0));
        answer(exchange, stage)
    })
}

fn says(error: &str) -> Scripted {
    Box::new(oauth_error(error))
}

fn pending() -> Scripted {
    says("authorization_pending")
}

fn granted() -> Scripted {
    Box::new(tokens(0))
}

/// Whole seconds between two questions.
fn gaps(stage: &Stage) -> Vec<u64> {
    let asked = |line: &String| line.strip_prefix("asked ")?.parse::<u64>().ok();
    let times: Vec<u64> = stage.log.iter().filter_map(asked).collect();
    times
        .windows(2)
        .map(|pair| (pair[1] - pair[0]) / 1000)
        .collect()
}

fn only(stage: &mut Stage) -> Result<Box<LoggedIn>, Error> {
    login(stage, by_device(Device::Only))
}

/// RFC 8628 in full, AUTH-70: the client is registered for it, the code is asked for and shown, and what is granted is a login
/// like any other. There is no listener, no redirect and no PKCE, and none is wanted of the issuer.
#[test]
fn a_login_on_another_device() {
    let mut stage = stage_with(
        CODE,
        r#","code_challenge_methods_supported":null,"scopes_supported":["a"]"#,
        vec![pending(), granted()],
    );
    let done = only(&mut stage).unwrap();
    assert_eq!(done.credential.refresh_token.unwrap().expose(), "rt-0");
    assert_eq!(done.credential.received_at.unwrap().boot, start().boot);
    for none in ["open-callback", "close-callback", "show "] {
        assert_eq!(stage.count(none), 0, "{none}");
    }
    let commits: Vec<_> = stage.commits.iter().map(|commit| commit.expects).collect();
    assert_eq!(commits, [crate::flow::Expects::Anything]);

    let registered: serde_json::Value =
        serde_json::from_slice(&sent_to(&stage, REGISTER)[0].body).unwrap();
    assert_eq!(
        registered["grant_types"],
        serde_json::json!(["authorization_code", "refresh_token", DEVICE_CODE])
    );
    assert_eq!(registered["application_type"], "native");

    let asked = sent_to(&stage, DEVICE)[0];
    assert_eq!(form(asked, "client_id").as_deref(), Some("client-1"));
    assert_eq!(
        form(asked, "resource").as_deref(),
        Some("https://mcp.example")
    );
    let polls = sent_to(&stage, TOKEN);
    assert_eq!(polls.len(), 2);
    for poll in polls {
        let field = |name: &str| form(poll, name);
        assert_eq!(field("grant_type").as_deref(), Some(DEVICE_CODE));
        assert_eq!(field("device_code").as_deref(), Some("dc-1"));
        assert_eq!(field("client_id").as_deref(), Some("client-1"));
        assert_eq!(field("resource").as_deref(), Some("https://mcp.example"));
        assert_eq!((field("code_verifier"), field("scope")), (None, None));
    }
    let CodePrompt {
        user_code,
        verification_uri,
        verification_uri_complete,
        token_host,
        resource,
        expires_in,
        ..
    } = stage.code.clone().unwrap();
    assert_eq!(
        (user_code.as_str(), verification_uri.as_str()),
        ("WDJB-MJHT", "https://as.example/device")
    );
    assert!(verification_uri_complete.is_some() && expires_in.as_secs() == 299);
    assert_eq!(
        (token_host.as_str(), resource.as_str()),
        ("as.example", MCP)
    );
    assert!(!format!("{:?}", stage.code).contains("WDJB"));
}

/// RFC 8628 section 3.5: the interval is kept; `slow_down` makes it five seconds longer for good.
#[test]
fn it_slows_down_for_good() {
    let answers = vec![
        pending(),
        says("slow_down"),
        pending(),
        says("slow_down"),
        pending(),
        granted(),
    ];
    let mut stage = stage_of(answers);
    only(&mut stage).unwrap();
    assert_eq!(gaps(&stage), [5, 10, 10, 15, 15]);

    // Nobody says how often: five seconds; and what is said counts, as a text too.
    for (interval, want) in [("null", 5), ("0", 5), ("2", 2), (r#""7""#, 7)] {
        let code = CODE.replace(r#""interval":5"#, &format!(r#""interval":{interval}"#));
        let mut stage = stage_with(&code, "", vec![pending(), granted()]);
        only(&mut stage).unwrap();
        assert_eq!(gaps(&stage), [want], "{interval}");
    }
}

/// RFC 8628 section 3.5, F-12: no answer doubles the interval, whatever the reason, up to a minute; what the issuer asks for
/// counts where it is more.
#[test]
fn no_answer_makes_it_slower() {
    let broken: Scripted = Box::new(broken);
    let unreachable: Scripted = Box::new(unreachable);
    let silent: Scripted = Box::new(silent);
    let limited: Scripted = Box::new(with_headers(429, &[("retry-after", "90")], ""));
    let failed: Scripted = Box::new(reply(502, "<html>"));
    let code = CODE.replace("300", "3000");
    let answers = vec![
        broken,
        unreachable,
        pending(),
        failed,
        silent,
        limited,
        pending(),
        granted(),
    ];
    let mut stage = stage_with(&code, "", answers);
    let task = Task {
        human_wait: secs(3000),
        ..by_device(Device::Only)
    };
    login(&mut stage, task).unwrap();
    // The silent one takes its own minute first.
    assert_eq!(gaps(&stage), [10, 20, 20, 40, 60 + 60, 90, 60]);
}

/// RFC 8628 section 3.5: how it ends otherwise, each with the error that says who must act. An answer that was lost had the
/// tokens: the network is at fault then, not the person.
#[test]
fn it_ends_as_the_issuer_says() {
    let denied = |error: &str| Error::DeniedByIssuer {
        error: error.into(),
    };
    let lost = Error::Network {
        host: "as.example".into(),
        why: NetworkFault::Broken,
    };
    let abandoned = || Error::login(LoginCause::Abandoned);
    let cases: Vec<(Vec<Scripted>, Error)> = vec![
        (vec![says("access_denied")], Error::DeniedByHuman),
        (vec![pending(), says("expired_token")], abandoned()),
        (vec![says("invalid_grant")], denied("invalid_grant")),
        (
            vec![says("unauthorized_client")],
            denied("unauthorized_client"),
        ),
        (vec![Box::new(broken), says("invalid_grant")], lost),
        (
            vec![Box::new(broken), pending(), says("invalid_grant")],
            denied("invalid_grant"),
        ),
        (
            vec![Box::new(reply(401, r#"{"error":"invalid_client"}"#))],
            Error::login(LoginCause::RegistrationGone),
        ),
    ];
    for (answers, want) in cases {
        let count = answers.len();
        let mut stage = stage_of(answers);
        assert_eq!(only(&mut stage).unwrap_err(), want);
        assert_eq!(sent_to(&stage, TOKEN).len(), count, "{want}");
        assert!(stage.commits.is_empty());
        assert_eq!(
            stage.registrations.is_empty(),
            want.code() == "login.registration_gone"
        );
    }
}

/// RFC 8628 section 3.2: it is over when the code is, or the time that the person has; nothing is asked after that.
#[test]
fn it_is_over_when_the_code_is() {
    for (code_for, person_has, asked) in [(18, 600, 3), (600, 18, 3), (5, 600, 0)] {
        let code = CODE.replace("300", &code_for.to_string());
        let answers = (0..asked).map(|_| pending()).collect();
        let mut stage = stage_with(&code, "", answers);
        let task = Task {
            human_wait: secs(person_has),
            ..by_device(Device::Only)
        };
        let error = login(&mut stage, task).unwrap_err();
        assert_eq!(error, Error::login(LoginCause::Abandoned));
        let took = stage.now.mono.0 - start().mono.0;
        let least = 1000 * code_for.min(person_has);
        assert!((least..least + 1000).contains(&took), "{took}");
    }
}

/// A wake-up that comes too early asks nothing.
#[test]
fn an_early_wake_up_asks_nothing() {
    let mut stage = stage_of(vec![granted()]);
    let mut turn = Login::new(by_device(Device::Only)).start(stage.now);
    let mut early = 0;
    loop {
        let Turn::Next(flow, Step { act, wake_at }) = turn else {
            break;
        };
        let answer = match act {
            Some(act) => stage.perform(act),
            None if early < 3 => {
                early += 1;
                stage.pass(secs(1));
                Answer::Woken
            }
            None => {
                stage.pass(stage.now.mono.until(wake_at.unwrap()));
                Answer::Woken
            }
        };
        turn = flow.handle(answer, stage.now);
    }
    assert_eq!((early, sent_to(&stage, TOKEN).len()), (3, 1));
}

/// GitHub refuses with a 200: it is a refusal all the same.
#[test]
fn a_refusal_with_a_200_is_one() {
    let ok =
        |error: &str| -> Scripted { Box::new(reply(200, &format!(r#"{{"error":"{error}"}}"#))) };
    let answers = vec![
        ok("authorization_pending"),
        ok("slow_down"),
        ok("access_denied"),
    ];
    let mut stage = stage_of(answers);
    assert_eq!(only(&mut stage).unwrap_err(), Error::DeniedByHuman);
    assert_eq!(gaps(&stage), [5, 10]);
}

/// T-02, T-21: a page that must not be visited, and a code that cannot be typed in, are neither shown nor asked about.
#[test]
fn nothing_that_must_not_be_shown_is_shown() {
    let page = r#""verification_uri":"https://as.example/device""#;
    let complete = r#""verification_uri_complete":"https://as.example/device?user_code=WDJB-MJHT""#;
    let mut bad = Vec::new();
    for url in [
        "http://as.example/device",
        "http://127.0.0.1/device",
        "javascript:alert(1)",
        "data:text/html,x",
        "file:///etc/passwd",
        "ms-msdt:/id",
        "https://u:p@as.example/",
        "/device",
        "",
    ] {
        bad.push((
            "verification_uri",
            CODE.replace(page, &format!(r#""verification_uri":"{url}""#)),
        ));
        if !url.is_empty() {
            bad.push((
                "verification_uri_complete",
                CODE.replace(complete, &format!(r#""verification_uri_complete":"{url}""#)),
            ));
        }
    }
    let long = "A".repeat(65);
    for code in [
        "",
        "  ",
        r"A\u001b[2J",
        r"A\nB",
        r"A\u202eB",
        r"A\u200bB",
        r"A\u2028B",
        &long,
    ] {
        bad.push((
            "user_code",
            CODE.replace("\"WDJB-MJHT\"", &format!("\"{code}\"")),
        ));
    }
    bad.push(("device_code", CODE.replace("dc-1", r"d\u00e9")));
    bad.push(("device_code", CODE.replace("device_code", "devicecode")));
    bad.push(("document", "[]".into()));
    bad.push(("document", "<html>".into()));
    for (field, code) in bad {
        assert_ne!(code, CODE);
        let mut stage = stage_with(&code, "", vec![]);
        let error = only(&mut stage).unwrap_err();
        let Error::MetadataInvalid { field: told, .. } = &error else {
            panic!("{error:?} for {code}")
        };
        assert_eq!(*told, field, "{code}");
        assert!(stage.code.is_none() && stage.count("show") == 0);
    }
    let longest = CODE.replace("WDJB-MJHT\",\"v", &format!("{}\",\"v", "\u{e9}".repeat(64)));
    let mut stage = stage_with(&longest, "", vec![granted()]);
    only(&mut stage).unwrap();
}

/// It is used where it is asked for and offered; `Only` believes an endpoint that no list of grants mentions.
#[test]
fn it_is_used_where_it_is_offered() {
    let listed = |grants: &str| format!(r#"{OFFERED},"grant_types_supported":[{grants}]"#);
    let both = format!(r#""authorization_code","{DEVICE_CODE}""#);
    for (more, device, used) in [
        (OFFERED.to_owned(), Device::Never, Some(false)),
        (OFFERED.to_owned(), Device::Prefer, Some(true)),
        (OFFERED.to_owned(), Device::Only, Some(true)),
        (listed(&both), Device::Prefer, Some(true)),
        (
            listed(r#""authorization_code""#),
            Device::Prefer,
            Some(false),
        ),
        (listed(r#""authorization_code""#), Device::Only, Some(true)),
        (String::new(), Device::Prefer, Some(false)),
        (String::new(), Device::Only, None),
    ] {
        let mut stage = with_metadata(&more);
        stage.page(DEVICE, reply(200, CODE));
        let done = login(&mut stage, by_device(device));
        let found = (
            stage.count("show-code") == 1,
            stage.count("open-callback") == 1,
        );
        match used {
            Some(used) => {
                done.unwrap();
                assert_eq!(found, (used, !used), "{device:?} {more}");
            }
            None => {
                assert_eq!(done.unwrap_err(), Error::NoDeviceLogin);
                assert_eq!(found, (false, false));
                assert_eq!(stage.count("send registration"), 0);
            }
        }
    }
}

/// Where it was only preferred, a client that may not log in so logs in by a redirect; an issuer that is down is down.
#[test]
fn a_refusal_leads_to_the_browser_where_it_was_only_preferred() {
    for (status, body, code) in [
        (
            400,
            r#"{"error":"unauthorized_client"}"#,
            "denied.by_issuer",
        ),
        (400, r#"{"error":"invalid_scope"}"#, "denied.scope"),
        (404, "<html>", "denied.by_issuer"),
        (503, "", "unavailable.server_error"),
        (429, "", "unavailable.rate_limited"),
    ] {
        for device in [Device::Prefer, Device::Only] {
            let mut stage = with_metadata(OFFERED);
            stage.page(DEVICE, reply(status, body));
            stage.answer(reply(201, r#"{"client_id":"client-2"}"#));
            let done = login(&mut stage, by_device(device));
            if device == Device::Prefer && code.starts_with("denied") {
                assert_eq!(done.unwrap().credential.client.id, "client-2");
                assert_eq!(shown(&stage, "redirect_uri").as_deref(), Some(ANY_PORT));
            } else {
                assert_eq!(done.unwrap_err().code(), code, "{status}");
                assert_eq!(stage.count("show"), 0);
            }
        }
    }
    // An issuer that registers nobody for it.
    let mut stage = with_metadata(OFFERED);
    stage.page(REGISTER, reply(400, r#"{"error":"unsupported"}"#));
    stage.answer(reply(201, r#"{"client_id":"client-2"}"#));
    let done = login(&mut stage, by_device(Device::Prefer)).unwrap();
    assert_eq!(done.credential.client.id, "client-2");
    let registered: serde_json::Value =
        serde_json::from_slice(&sent_to(&stage, REGISTER)[1].body).unwrap();
    assert_eq!(
        registered["grant_types"],
        serde_json::json!(["authorization_code", "refresh_token"])
    );
}

/// AUTH-56: an issuer that does not grant the scopes says so at either endpoint, and the error names them as after a redirect.
#[test]
fn refused_scopes_are_named() {
    let scopes = vec!["a".to_owned(), "b".to_owned()];
    let wanted = Task {
        scopes: Some(Scopes::parse("a b")),
        ..by_device(Device::Only)
    };
    for at in [DEVICE, TOKEN] {
        let mut stage = stage_of(vec![granted()]);
        stage.page(at, oauth_error("invalid_scope"));
        let error = login(&mut stage, wanted.clone()).unwrap_err();
        let want = Error::ScopeRefused {
            scopes: scopes.clone(),
        };
        assert_eq!(error, want, "{at}");
    }
}

/// AUTH-44, EXT-11, EXT-30: at both endpoints the client shows who it is as it would anywhere else; only the tokens are bound.
#[test]
fn the_client_shows_who_it_is_at_both_endpoints() {
    let key = ClientKey {
        reference: SecretRef::file("/k").unwrap(),
        algorithm: Some(JwsAlgorithm::Es256),
        key_id: None,
    };
    let brought = || Client::brought("brought".into());
    let with_secret = Client {
        secret: ClientSecret::new("s3".into()).ok(),
        authentication: ClientAuthentication::Basic,
        ..brought()
    };
    let elsewhere = Client {
        secret_ref: SecretRef::file("/s").ok(),
        ..brought()
    };
    let with_key = Client {
        key: Some(key.clone()),
        ..brought()
    };
    for (client, methods) in [
        (with_secret.clone(), "client_secret_basic"),
        (with_secret, "client_secret_post"),
        (elsewhere, "client_secret_basic"),
        (with_key, "private_key_jwt"),
        (brought(), "none"),
    ] {
        let more = format!(
            r#","token_endpoint_auth_methods_supported":["{methods}"],"dpop_signing_alg_values_supported":["ES256"]"#
        );
        let mut stage = stage_with(CODE, &more, vec![pending(), granted()]);
        let task = Task {
            client: Some(client.clone()),
            issuer: Some(issuer()),
            proof_key: ProofKey::new(b"key", [1; 32], [2; 32]).ok(),
            ..by_device(Device::Only)
        };
        login(&mut stage, task).unwrap();
        let mut sent = sent_to(&stage, DEVICE);
        let audience = issuer();
        assert!(sent[0].orders.proof.is_none());
        let polls = sent_to(&stage, TOKEN);
        assert!(polls.iter().all(|poll| poll.orders.proof.is_some()));
        sent.extend(polls);
        for exchange in sent {
            let header = exchange.headers.contains_key("authorization");
            let in_body = form(exchange, "client_secret").is_some();
            let id = form(exchange, "client_id").is_some();
            let orders = &exchange.orders;
            let elsewhere = orders.secret.is_some();
            let signed = orders.assertion.as_ref().map(|order| &order.audience);
            let want = match (methods, client.secret_ref.is_some()) {
                ("client_secret_basic", false) => (true, false, false, false, None),
                ("client_secret_basic", true) => (false, false, false, true, None),
                ("client_secret_post", _) => (false, true, true, false, None),
                ("private_key_jwt", _) => (false, false, false, false, Some(&audience)),
                _ => (false, false, true, false, None),
            };
            assert_eq!((header, in_body, id, elsewhere, signed), want, "{methods}");
        }
    }
}

/// AUTH-39: a registration for this is used again; one for redirects was not made for it, nor the other way round.
#[test]
fn its_registration_is_its_own() {
    let device_uri = "http://127.0.0.1/callback";
    for (known, device, id) in [
        (device_uri, Device::Only, "earlier"),
        (ANY_PORT, Device::Only, "client-1"),
        (device_uri, Device::Never, "client-1"),
    ] {
        let mut stage = with_metadata(OFFERED);
        stage.page(DEVICE, reply(200, CODE));
        stage.registrations.push(registration("earlier", known));
        let done = login(&mut stage, by_device(device)).unwrap();
        assert_eq!(done.credential.client.id, id, "{known} {device:?}");
    }
}

/// F-06, I-5: what is granted on another device is spooled where the store refuses it, as after a code.
#[test]
fn what_was_granted_is_kept_in_the_spool() {
    let mut stage = stage_of(vec![granted()]);
    stage.fail("commit");
    let done = only(&mut stage).unwrap();
    let (_, kept) = stage.spool.take().unwrap();
    assert_eq!(kept.access_token, done.credential.access_token);
}
