//! One of the demo's processes: an ordinary session, an ordinary MCP client, five calls a second.

use std::time::Duration;

use rmcp::model::JsonObject;
use serde_json::json;
use tokio::{io::AsyncReadExt as _, time::MissedTickBehavior};

use crate::{
    app::{App, Stay},
    args::{DemoWorker, Wire},
    failure::Failure,
    mcp::Client,
};

/// Calls until stdin ends, which it does when the parent goes, whyever.
pub(crate) async fn run(app: &App, args: DemoWorker) -> Result<(), Failure> {
    let (store, target) = app.open_target(&args.url).await?;
    let sessions = app.sessions(store, Stay::Long)?;
    let session = sessions.get(&target.key.url, &target.key.account).await?;
    let client = Client::new(session, target, Wire::Auto, None);
    let mut ticks = tokio::time::interval(Duration::from_millis(args.every_ms.max(1)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let parent_gone = parent_gone();
    tokio::pin!(parent_gone);
    for number in 1u64.. {
        tokio::select! {
            () = &mut parent_gone => break,
            _ = ticks.tick() => {}
        }
        let arguments: JsonObject = [("text".to_owned(), json!(number.to_string()))]
            .into_iter()
            .collect();
        let began = app.clock().now().mono;
        let called = client.call("echo", &arguments).await;
        let took = began.until(app.clock().now().mono);
        let code = match called {
            Ok(result) if result.is_error == Some(true) => Some("tool.is_error".to_owned()),
            Ok(_) => None,
            Err(failure) => Some(failure.code.clone()),
        };
        app.report.object(json!({ "call": number, "code": code, "ms": u64::try_from(took.as_millis()).unwrap_or(u64::MAX) }));
    }
    client.close().await;
    Ok(())
}

async fn parent_gone() {
    let mut stdin = tokio::io::stdin();
    let mut buffer = [0u8; 64];
    while matches!(stdin.read(&mut buffer).await, Ok(1..)) {}
}
