//! What is configured wrongly, or is just not there: each a typed error that says who must act, and nothing is lost.

use pilotlight_testkit::Fault;
use pilotlight_testkit::faults::Endpoint;

use super::*;

/// EXT-41, T-33: a secret where a reference belongs is refused before anything is opened, and told to nobody.
#[test]
fn a_secret_on_the_command_line_is_not_taken() {
    let services = Services::new(|_| {});
    let url = services.lab.resource_url();
    for flag in [
        "--client-key",
        "--workload-token",
        "--idp-client-secret",
        "--subject-token",
    ] {
        let run = services
            .run(&["login", url, flag, "hunter2canary", "--json"])
            .run();
        let error = run.refused(2, "config.value");
        assert!(text(&error, "message").contains(flag), "{error}");
        assert!(!(run.stdout + &run.stderr).contains("canary"), "{flag}");
    }
    for key in [
        "client_secret",
        "client_key",
        "workload_token",
        "subject_token",
    ] {
        services.configure(&format!("client_id = \"job\"\n{key} = \"hunter2canary\""));
        let error = services.fails(2, "config.value");
        assert!(text(&error, "message").contains(key), "{error}");
    }
    assert!(services.asked().is_empty());
    fs::remove_file(services.home.data().join("config.toml")).unwrap();
    services.home.assert_no_leak(&["hunter2canary".to_owned()]);
}

/// EXT-10, AUTH-44: what cannot work is known before a token request is made, and the message names what to change: the client's
/// ID, a key that is not there, that others can read, that signs in another way, or that the issuer does not take.
#[test]
fn what_a_service_lacks_is_named() {
    let services = Services::new(|_| {});
    services.put("key.pem", KEY);
    services.put("rubbish", "no key at all");
    let keyed = |more: &str| {
        format!(
            "grant = \"client_credentials\"\nclient_id = \"keyed\"\nclient_key = \"file:key.pem\"\n{more}"
        )
    };
    let named = |keys: &str, said: &str| {
        services.configure(keys);
        let error = services.fails(2, "config.value");
        assert_eq!(error["action"], "fix_own_side");
        assert!(text(&error, "message").contains(said), "{keys}: {error}");
    };
    named(
        "grant = \"client_credentials\"\nclient_secret = \"file:key.pem\"",
        "client_id",
    );
    named(
        "grant = \"client_credentials\"\nclient_id = \"keyed\"",
        "client_secret or a client_key",
    );
    named(
        "grant = \"workload\"\nclient_id = \"job\"",
        "workload_token",
    );
    named(
        &keyed("client_key_algorithm = \"ES256\""),
        "it signs with EdDSA, and ES256 is wanted",
    );
    named(&keyed("").replace("key.pem", "nowhere.pem"), "nowhere.pem");
    named(&keyed("").replace("key.pem", "rubbish"), "rubbish");
    let path = services.home.data().join("key.pem");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
    named(&keyed(""), "chmod 600");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    services.lab.with_issuer(|issuer| {
        issuer.config_mut().token_endpoint_auth_methods = vec![ClientAuthentication::Basic];
    });
    named(
        &keyed(""),
        "it has a private key, and the authorization server takes client_secret_basic",
    );
    assert!(services.asked().is_empty(), "nobody was asked for a token");

    // Set right, the same command goes through: nothing stands in its way.
    services.lab.with_issuer(|issuer| {
        issuer.config_mut().token_endpoint_auth_methods = vec![ClientAuthentication::PrivateKeyJwt];
    });
    services.configure(&keyed(""));
    services.call().run().ok();
    services.assert_no_leak(&["MC4CAQAwBQYDK2VwBCIEIAkJ"]);
}

/// AUTH-30, AUTH-35: where nobody may register and no client is configured, a pipeline is told what is missing, with the hint
/// that sets it right, and no browser is waited for.
#[test]
fn a_server_without_a_way_to_register_names_the_way_out() {
    let services = Services::new(|lab| {
        lab.authorization_server.grant_types =
            vec!["authorization_code".into(), "refresh_token".into()];
    });
    services.configure("");
    // Before it has a client, a server of the configuration is an ordinary one: somebody must log in.
    services.fails(3, "login.never");
    let args = [
        "login",
        "tracker",
        "--browser-command",
        "/bin/true",
        "--json",
    ];
    let error = services
        .home
        .run(args)
        .refused(5, "peer.no_registration_way");
    assert_eq!(error["action"], "configure");
    assert!(text(&error, "hint").contains("--client-id ID"), "{error}");
    services.assert_no_leak(&[]);
}

/// EXT-40, EXT-41, T-32: a token that is over, for somebody else, or made by a clock that is an hour off is not sent: not by the
/// command that finds it and not by a grant of another kind. Once it is replaced, the next command goes through.
#[test]
fn a_platforms_token_of_no_use_is_not_sent() {
    let services = Services::new(|_| {});
    let expired = services.job(-1);
    let stranger = services.job_for("https://as.example", 9000);
    let hour_off = services.job(-3600 + 600);
    for (token, said) in [(&expired, "exp"), (&stranger, "aud"), (&hour_off, "clock")] {
        services.workload(token);
        for _ in 0..2 {
            let error = services.fails(2, "config.assertion");
            assert_eq!(error["action"], "fix_own_side");
            assert!(text(&error, "message").contains(said), "{error}");
        }
    }
    assert!(services.asked().is_empty());
    services.workload(&services.job(600));
    services.call().run().ok();

    // The login is there now. Its token lives on although the platform's does not, and a forced renewal says why.
    services.put("token", &expired);
    services.call().run().ok();
    let forced = services
        .run(&["refresh", "tracker", "--force", "--json"])
        .run();
    assert_eq!(forced.code, Some(2), "{forced:?}");
    services.call().run().ok();
    assert_eq!(services.asked().len(), 1);
    assert_eq!(services.home.session()["grant"], "workload");
    services.assert_no_leak(&[&expired, &stranger]);
}

/// EXT-41: what the issuer refused is shown to it once, by however many commands, and no other grant is tried.
#[test]
fn a_refused_token_is_shown_once() {
    let services = Services::new(|lab| {
        lab.authorization_server.believes = vec![Platform::new(8).public()];
    });
    services.put("secret", SECRET);
    services.workload(&services.job(9000));
    let error = services.fails(4, "denied.by_issuer");
    assert!(text(&error, "message").contains("invalid_grant"), "{error}");
    for _ in 0..3 {
        services.fails(2, "config.assertion");
    }
    assert_eq!(services.asked().len(), 1);
    assert_eq!(services.asked()[0].grant_type, JWT_BEARER);
    services.assert_no_leak(&[]);
}

/// T-32, EXT-11: with an issuer whose clock is an hour from ours a key signs by that clock, at a first grant and at a renewal:
/// neither asks anybody, and neither is lost.
#[test]
fn a_clock_an_hour_off_costs_no_login() {
    let services = Services::new(|_| {});
    services.put("key.pem", KEY);
    services.configure(
        "grant = \"client_credentials\"\nclient_id = \"keyed\"\nclient_key = \"file:key.pem\"",
    );
    services.lab.clock().advance(Duration::from_secs(3600));
    services.call().run().ok();
    services.lab.clock().advance(Duration::from_secs(1800));
    let forced = services.run(&["refresh", "tracker", "--force"]).run();
    forced.ok();
    services.call().run().ok();
    let granted = services.asked();
    let granted = granted.iter().filter(|asked| asked.granted).count();
    assert_eq!(granted, 2);
    services.assert_no_leak(&["MC4CAQAwBQYDK2VwBCIEIAkJ"]);
}

/// EXT-11: a key that the issuer does not know is refused by its word for that, with what to look at; what was granted to the
/// key before is served meanwhile, and the right key is all that it takes.
#[test]
fn a_key_that_the_issuer_does_not_know_costs_no_login() {
    const OTHER: &str = "-----BEGIN PRIVATE KEY-----\nMC4CAQAwBQYDK2VwBCIEIAgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI\n-----END PRIVATE KEY-----\n";
    let services = Services::new(|_| {});
    let keyed =
        "grant = \"client_credentials\"\nclient_id = \"keyed\"\nclient_key = \"file:key.pem\"";
    services.put("key.pem", OTHER);
    services.configure(keyed);
    let error = services.fails(4, "denied.by_issuer");
    assert!(
        text(&error, "message").contains("invalid_client"),
        "{error}"
    );
    assert!(text(&error, "hint").contains("date -u"), "{error}");
    services.put("key.pem", KEY);
    services.call().run().ok();

    services.put("key.pem", OTHER);
    let forced = services
        .run(&["refresh", "tracker", "--force", "--json"])
        .run();
    assert_eq!(forced.code, Some(4), "{forced:?}");
    services.call().run().ok();
    assert_eq!(services.home.session()["grant"], "client_credentials");
    services.assert_no_leak(&["MC4CAQAwBQYDK2VwBCIE"]);
}

/// F-12: with the identity provider down a first grant is tried again later, and one that has been made is used: both commands
/// say so in the words for that, and the login goes on when the provider is back.
#[test]
fn an_identity_provider_that_is_down_costs_no_login() {
    let mut services = Services::new(|_| {});
    let end = services.lab.clock().now_ms() / 1000 + 9000;
    let identity = Platform::new(7).token(&json!({ "sub": "alice", "aud": "at-idp", "exp": end }));
    services.enterprise(&identity);
    let down = Fault::Status {
        status: 503,
        retry_after: None,
        body: None,
    };
    let set = |fault| {
        let mut provider = services.provider.lock().unwrap();
        provider.set_standing_fault(Endpoint::Token, fault);
    };
    set(Some(down));
    let error = services.fails(75, "unavailable.server_error");
    assert_eq!(error["action"], "retry_later");
    assert!(
        services.asked().is_empty(),
        "nothing was shown to the issuer"
    );
    set(None);
    services.call().run().ok();
    assert_eq!(services.asked().len(), 1);

    // Gone altogether: what was granted is served, and a renewal that is asked for says what is missing.
    drop(services.provider_runs.take());
    services.call().run().ok();
    let forced = services
        .run(&["refresh", "tracker", "--force", "--json"])
        .run();
    assert_eq!(forced.code, Some(75), "{forced:?}");
    services.call().run().ok();
    assert_eq!(services.asked().len(), 1);
    assert_eq!(services.home.session()["grant"], "enterprise");
    services.assert_no_leak(&[&identity]);
}

/// EXT-10: a secret cannot come by stdin where each renewal needs it again.
#[test]
fn a_secret_that_nobody_can_read_again_is_not_taken() {
    let services = Services::new(|_| {});
    let url = services.lab.resource_url();
    let args = [
        "login",
        url,
        "--grant",
        "client_credentials",
        "--client-id",
        "service",
        "--client-secret-stdin",
        "--json",
    ];
    let error = services.run(&args).run().refused(2, "config.value");
    assert!(
        text(&error, "message").contains("--client-secret-file"),
        "{error}"
    );
    assert!(services.asked().is_empty());
}

/// AUTH-16, T-15, T-20: what the configuration holds was made at the issuer that it names: a server that names another one gets
/// nothing of it, whatever is typed, and no hint leads there.
#[test]
fn the_configured_secret_goes_to_no_other_issuer() {
    let (services, stranger) = (Services::new(|_| {}), Services::new(|_| {}));
    services.service();
    // The server has been taken over: another issuer is behind its name now.
    let keys = read(&services.home.data().join("config.toml"));
    let taken = keys.replace(services.lab.resource_url(), stranger.lab.resource_url());
    services.put("config.toml", &taken);
    let run = services.run(&["login", "tracker"]).run();
    assert_ne!(run.code, Some(0));
    assert!(!run.stderr.contains("--issuer ISSUER"), "{}", run.stderr);
    let strange = stranger.lab.issuer();
    let typed = services.run(&["login", "tracker", "--issuer", strange, "--json"]);
    let error = typed.run().refused(2, "config.value");
    assert!(text(&error, "message").contains("--client-id"), "{error}");
    assert!(stranger.asked().is_empty());
}

/// T-24: an exception that is for a person's login is refused beside a configured grant, not dropped without a word.
#[test]
fn an_exception_for_people_is_refused_beside_a_grant() {
    let services = Services::new(|_| {});
    services.service();
    let run = services.run(&["login", "tracker", "--quirk", "no-resource", "--json"]);
    let error = run.run().refused(2, "config.value");
    assert!(text(&error, "message").contains("--quirk"), "{error}");
    assert!(services.asked().is_empty());
}
