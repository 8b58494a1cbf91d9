//! No secret reaches a log, an error or a Debug output of this crate.

use std::{
    fmt::{Debug, Write as _},
    sync::{Arc, Mutex},
};

use pilotlight_rmcp::{Transport, connect};
use pilotlight_testkit::Canaries;
use rmcp::model::CallToolRequestParams;
use tracing::{Event, Metadata, Subscriber, field::Field, field::Visit, span};

use crate::{
    origin::{host, lab, log_in},
    support::{Keychain, World},
};

/// T-33: neither seat shows a secret, whatever goes wrong.
#[tokio::test]
async fn neither_seat_shows_a_secret() {
    let log = Log::default();
    let _listening = tracing::subscriber::set_default(log.clone());
    let mut canaries = Canaries::new();

    let lab = lab(|issuer| issuer.confidential_clients = true).await;
    let keychain = Keychain::default();
    let (store, manager) = host(&lab, &keychain).await;
    let manager = log_in(manager).await;
    keychain.lock(true);
    manager.refresh_token().await.unwrap();
    let refused = store.flush().await;
    log.add(&(&store, &refused, store.unpersisted()));
    canaries.extend(lab.with_issuer(|issuer| issuer.issued_secrets().to_vec()));

    let world = World::start(|_| {}).await;
    let client = connect(world.session.clone(), ()).await.unwrap();
    log.add(&client.call_tool(CallToolRequestParams::new("admin")).await);
    world.lab.with_issuer(|issuer| issuer.revoke_all());
    log.add(
        &client
            .call_tool(CallToolRequestParams::new("whoami"))
            .await
            .unwrap_err(),
    );
    log.add(&Transport::new(world.session.clone()));
    canaries.extend(
        world
            .lab
            .with_issuer(|issuer| issuer.issued_secrets().to_vec()),
    );

    let text = log.0.lock().unwrap().clone();
    assert!(
        text.contains("did not persist"),
        "the log was listened to: {text}"
    );
    assert!(canaries.len() >= 6, "{}", canaries.len());
    assert_eq!(canaries.find(text.as_bytes(), "log").len(), 0);
}

/// What this workspace's crates log, as text.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<String>>);

impl Log {
    fn add(&self, value: &dyn Debug) {
        writeln!(self.0.lock().unwrap(), "{value:?} {value:#?}").unwrap();
    }
}

impl Subscriber for Log {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("pilotlight")
    }

    fn new_span(&self, attributes: &span::Attributes<'_>) -> span::Id {
        attributes.record(&mut Fields(self));
        span::Id::from_u64(1)
    }

    fn record(&self, _: &span::Id, values: &span::Record<'_>) {
        values.record(&mut Fields(self));
    }

    fn event(&self, event: &Event<'_>) {
        event.record(&mut Fields(self));
    }

    fn record_follows_from(&self, _: &span::Id, _: &span::Id) {}
    fn enter(&self, _: &span::Id) {}
    fn exit(&self, _: &span::Id) {}
}

struct Fields<'a>(&'a Log);

impl Visit for Fields<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.add(&(field.name(), value));
    }
}
