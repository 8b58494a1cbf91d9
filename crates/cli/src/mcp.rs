//! The MCP client of `tools`, `call` and the demo: one connection over one session, made anew when it breaks.

use std::{error::Error as _, sync::Arc, time::Duration};

use pilotlight::Session;
use pilotlight_core::{Error, error::Waited};
use pilotlight_rmcp::{ConnectError, cause, connect_on};
use rmcp::{
    RoleClient,
    model::{
        CallToolRequestParams, CallToolResult, ClientConfig, Implementation, JsonObject, Tool,
    },
    service::{RunningService, ServiceError},
};
use tokio::sync::Mutex;

use crate::{args::Wire, failure::Failure, target::Target};

type Connection = RunningService<RoleClient, ClientConfig>;

/// A client of one server.
pub(crate) struct Client {
    session: Session,
    target: Target,
    wire: pilotlight_rmcp::Wire,
    timeout: Option<Duration>,
    connection: Mutex<Option<Arc<Connection>>>,
}

impl Client {
    pub(crate) fn new(
        session: Session,
        target: Target,
        wire: Wire,
        timeout: Option<Duration>,
    ) -> Self {
        let wire = match wire {
            Wire::Auto => pilotlight_rmcp::Wire::Auto,
            Wire::Modern => pilotlight_rmcp::Wire::Stateless,
            Wire::Legacy => pilotlight_rmcp::Wire::Stateful,
        };
        Self {
            session,
            target,
            wire,
            timeout,
            connection: Mutex::default(),
        }
    }

    /// The tools, all pages of them.
    pub(crate) async fn tools(&self) -> Result<Vec<Tool>, Failure> {
        self.within(async {
            let connection = self.connection().await?;
            let listed = connection.list_all_tools().await;
            self.judge(&connection, listed).await
        })
        .await
    }

    /// Calls a tool once. There is no second try here: what can be repeated safely, the session has repeated.
    pub(crate) async fn call(
        &self,
        tool: &str,
        arguments: &JsonObject,
    ) -> Result<CallToolResult, Failure> {
        self.within(async {
            let connection = self.connection().await?;
            let parameters =
                CallToolRequestParams::new(tool.to_owned()).with_arguments(arguments.clone());
            let answer = Box::pin(connection.call_tool(parameters)).await;
            self.judge(&connection, answer).await
        })
        .await
    }

    /// Says good-bye, so that a server with sessions can forget this one.
    pub(crate) async fn close(&self) {
        let connection = self.connection.lock().await.take();
        if let Some(mut connection) = connection.and_then(Arc::into_inner) {
            // The end does not depend on it.
            drop(connection.close_with_timeout(GOODBYE).await);
        }
    }

    async fn within<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let Some(limit) = self.timeout else {
            return work.await;
        };
        match tokio::time::timeout(limit, work).await {
            Ok(done) => done,
            Err(_) => Err(Failure::of(
                &Error::Timeout {
                    waited_for: Waited::Answer,
                    limit,
                },
                &self.target,
            )),
        }
    }

    /// The connection there is, or a new one: whoever comes meanwhile waits for the same.
    async fn connection(&self) -> Result<Arc<Connection>, Failure> {
        let mut held = self.connection.lock().await;
        if let Some(connection) = held
            .as_ref()
            .filter(|connection| !connection.is_closed() && !connection.is_transport_closed())
        {
            return Ok(connection.clone());
        }
        let client = ClientConfig::new(
            Default::default(),
            Implementation::new("pilotlight", env!("CARGO_PKG_VERSION")),
        );
        let connected = Box::pin(connect_on(self.wire, self.session.clone(), client)).await;
        let connection = Arc::new(connected.map_err(|error| self.unconnected(&error))?);
        *held = Some(connection.clone());
        Ok(connection)
    }

    /// Turns rmcp's answer into ours, and lets go of a connection that is of no more use.
    async fn judge<T>(
        &self,
        connection: &Arc<Connection>,
        answer: Result<T, ServiceError>,
    ) -> Result<T, Failure> {
        let error = match answer {
            Ok(answer) => return Ok(answer),
            Err(error) => error,
        };
        if let ServiceError::McpError(said) = &error {
            return Err(Failure::server_said(&said.message));
        }
        let mut held = self.connection.lock().await;
        if held
            .as_ref()
            .is_some_and(|current| Arc::ptr_eq(current, connection))
        {
            *held = None;
        }
        drop(held);
        Err(match cause(&error) {
            Some(own) => Failure::of(own, &self.target),
            None => Failure::connection(
                "the connection to the MCP server cannot be used".to_owned(),
                chain(&error),
            ),
        })
    }

    fn unconnected(&self, error: &ConnectError) -> Failure {
        match cause(error) {
            Some(own) => Failure::of(own, &self.target),
            None => Failure::connection(
                error.to_string(),
                error.source().map(chain).unwrap_or_default(),
            ),
        }
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client")
            .field("target", &self.target)
            .finish_non_exhaustive()
    }
}

/// An error and what lies behind it, fit for a terminal.
fn chain(error: &(dyn std::error::Error + 'static)) -> Vec<String> {
    let (mut all, mut current) = (Vec::new(), Some(error));
    while let Some(error) = current.filter(|_| all.len() < DEEPEST) {
        all.push(pilotlight_core::resource::clean(&error.to_string()));
        current = error.source();
    }
    all
}

const DEEPEST: usize = 5;
const GOODBYE: Duration = Duration::from_secs(2);
