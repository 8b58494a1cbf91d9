//! Assertions that are replaced where they lie, and when a renewal looks at them.

use super::*;

const ENDPOINT: &str = "https://as.example/token";

/// I-9, EXT-41: a platform that makes another token at each read, none of which the issuer takes, does not make its callers
/// press that issuer: a few calls an hour come of their looks, and all of them stay within what an hour has.
#[test]
fn a_new_token_at_each_look_keeps_to_the_pace() {
    let mut stage = expired(workload());
    let begun = stage.now;
    let mut made: Vec<u64> = Vec::new();
    for look in 0..1440 {
        let token = jwt(&format!("job-{look}"), "https://as.example", 600, &stage);
        stage.secrets.insert(TOKEN, token);
        let sent = stage.exchanges.len();
        stage.page(ENDPOINT, oauth_error("invalid_grant"));
        let error = stage.renew().result.unwrap_err();
        assert_eq!(error.code(), "denied.by_issuer");
        if stage.exchanges.len() > sent {
            made.push(stage.now.since(&begun).unwrap().as_secs());
        }
        stage.pass(secs(5));
    }
    for (i, at) in made.iter().enumerate() {
        let hour = made[i..].iter().take_while(|other| **other < at + 3600);
        assert!(hour.count() <= 24, "{made:?}");
    }
    let longest = made.windows(2).map(|pair| pair[1] - pair[0]).max();
    assert!(longest.unwrap() <= 310, "they last for the hour: {made:?}");
}

/// EXT-40, F-19: a token that only a wrong clock made look over is shown once the clock is right: nobody has refused it.
#[test]
fn what_a_wrong_clock_kept_back_is_shown_later() {
    for kind in [workload(), enterprise()] {
        let mut stage = expired(kind);
        let good = jwt("job", "https://as.example", 600, &stage);
        stage.secrets.insert(TOKEN, good.clone());
        stage.secrets.insert(IDENTITY, good);
        let right = stage.now.wall;
        stage.now.wall = right + secs(3600);
        assert_eq!(stage.renew().result.unwrap_err().code(), "config.assertion");
        assert_eq!(stage.exchanges.len(), 0);
        stage.now.wall = right;
        stage.answer(unreachable);
        assert_eq!(
            stage.renew().result.unwrap_err().code(),
            "unavailable.network"
        );
        assert_eq!(stage.exchanges.len(), 1);
    }
}
