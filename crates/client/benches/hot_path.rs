//! What a fresh token costs, beside the least it could cost, in one run.
//!
//! The two are measured in turn, round by round, so that a busy machine slows both; medians and their ratio are printed.
//! The floor is a bare atomic pointer load plus a `HeaderValue` clone. The budget is twice the floor, guard on, and no
//! allocation.

use std::{hint::black_box, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use pilotlight::{
    Sessions,
    clock::{Clock, SystemClock},
    core::{
        attempt::ProcessId,
        credential::{
            Account, Binding, BindingKey, Credential, CredentialKey, Generation, Incarnation,
            Lifetime, Pins, TokenType, Version,
        },
        event::{Event, Happened},
        flow::{Commit, Expects},
        issuer::Issuer,
        registration::{Client, ClientAuthentication, ClientSource},
        resource::Resource,
        scope::Scopes,
        secret::{AccessToken, RefreshToken},
        time::Wall,
    },
    store::{MemoryStore, Store},
};

const OPERATIONS: u32 = 200_000;

#[expect(clippy::print_stdout, reason = "a benchmark prints its figures")]
#[tokio::main(flavor = "multi_thread", worker_threads = 1)]
async fn main() {
    let rounds = if std::env::args().any(|argument| argument == "--smoke") {
        5
    } else {
        51
    };
    let url = Resource::parse("https://mcp.example.com/mcp").expect("a URL");
    let store = Arc::new(MemoryStore::new(Arc::new(SystemClock)));
    seed(&store, &url).await;
    let sessions = Sessions::builder(store).open().expect("a runtime");
    let session = sessions
        .get(&url, &Account::default())
        .await
        .expect("a session");
    let header = session.header().await.expect("a fresh token");

    let floor = ArcSwapOption::from_pointee(header);
    let bare = || {
        floor
            .load()
            .as_ref()
            .map(|header: &Arc<HeaderValue>| HeaderValue::clone(header))
    };
    let (mut lows, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        lows.push(time(|| black_box(bare()).is_some()));
        ours.push(time(|| black_box(session.ready()).is_some()));
    }
    let (low, own) = (median(&mut lows), median(&mut ours));
    let allocated = allocation_counter::measure(|| {
        for _ in 0..1000 {
            black_box(session.ready());
        }
    });
    println!(
        "hot path: floor {low:.2} ns, session {own:.2} ns, ratio {:.2} (budget 2.00), allocations {} in 1000",
        own / low,
        allocated.count_total
    );
    assert_eq!(allocated.count_total, 0, "the hot path allocates nothing");
}

/// Nanoseconds for one operation.
#[expect(clippy::disallowed_methods, reason = "a benchmark reads the clock")]
fn time(operation: impl Fn() -> bool) -> f64 {
    let start = std::time::Instant::now();
    for _ in 0..OPERATIONS {
        assert!(operation());
    }
    start.elapsed().as_secs_f64() * 1e9 / f64::from(OPERATIONS)
}

fn median(values: &mut [f64]) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Stores a login with an hour to live.
async fn seed(store: &MemoryStore, url: &Resource) {
    let now = SystemClock.now();
    let issuer = Issuer::parse("https://issuer.example.com").expect("an issuer");
    let token_endpoint = url::Url::parse("https://issuer.example.com/token").expect("a URL");
    let key = CredentialKey {
        tenant: String::new(),
        resource: url.clone(),
        issuer,
        account: Account::default(),
    };
    let binding = Binding {
        key: BindingKey::new(url.clone(), Account::default()),
        name: "example".into(),
        credential: Some(key.clone()),
        created_at: now.wall,
        exception: None,
        without_resource_at: None,
        former: Vec::new(),
    };
    let credential = Credential {
        key,
        version: Version {
            incarnation: Incarnation([7; 16]),
            generation: Generation(0),
        },
        pins: Pins {
            resource_parameter: None,
            token_endpoint,
            revocation_endpoint: None,
            called: None,
        },
        client: Client {
            id: "client".into(),
            secret: None,
            secret_ref: None,
            key: None,
            secret_expires_at: None,
            authentication: ClientAuthentication::None,
            source: ClientSource::Dynamic,
        },
        access_token: AccessToken::new("at-".repeat(20)).expect("a token"),
        token_type: TokenType::Bearer,
        proof_key: None,
        unattended: None,
        refresh_token: RefreshToken::new("rt-".repeat(20)).ok(),
        received_at: Some(now),
        lifetime: Some(Lifetime::Stated(Duration::from_secs(3600))),
        scopes_requested: Scopes::default(),
        scopes_granted: Scopes::default(),
        logged_in_at: Wall(0),
    };
    let happened = Happened::LoggedIn {
        issuer: credential.key.issuer.as_str().into(),
        scopes: Scopes::default(),
        lifetime: None,
        refresh_token: true,
        former_issuer: None,
    };
    let event = Event {
        at: now.wall,
        process: ProcessId::default(),
        happened,
    };
    let commit = Commit {
        credential,
        expects: Expects::Anything,
        binding: Some(binding),
        forced: None,
        event,
    };
    store.commit(&commit).await.expect("a commit");
}
