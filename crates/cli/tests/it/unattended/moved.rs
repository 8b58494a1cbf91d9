//! A login without a person keeps to the endpoint that it was made at.

use serde_json::json;

use super::{Services, text};

/// T-15: a login without a person that would go to another origin than the one before is not made, since nobody looks at it; the
/// hint takes away what it keeps to, and after it the same login works.
#[test]
fn a_move_is_confirmed_by_a_logout() {
    let services = Services::new(|lab| lab.issuer_proxied = true);
    services.service();
    services.call().run().ok();
    let control = services.lab.issuer_control();
    let (elsewhere, _) = control.split_once("/__ctl").unwrap();
    services.lab.with_issuer(|issuer| {
        let config = issuer.config_mut();
        config.metadata_overrides = json!({ "token_endpoint": format!("{elsewhere}/token") });
    });
    // Another than the one of a moment ago, which would else be adopted.
    let again = || {
        services
            .run(&["login", "tracker", "--scope", "mcp:admin", "--json"])
            .run()
    };
    let error = again().refused(3, "login.endpoint_moved");
    let hint = text(&error, "hint").to_owned();
    let (command, why) = hint.split_once("   (").expect("a command and why");
    assert_eq!(command, "pilotlight logout tracker");
    assert!(why.contains("log in again"), "{hint}");
    assert_eq!(services.asked().len(), 1, "nothing was sent there");
    services.call().run().ok();

    let words: Vec<_> = command.split(' ').skip(1).collect();
    services.run(&words).run().ok();
    again().ok();
    assert_eq!(services.asked().len(), 2);
    services.call().run().ok();
    services.assert_no_leak(&[]);
}
