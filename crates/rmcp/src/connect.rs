//! From a session to a running rmcp client in one call, whatever era the server is of.

use pilotlight::Session;
use pilotlight_core::Error;
use rmcp::{
    RoleClient,
    model::ProtocolVersion,
    service::{
        ClientInitializeError, ClientLifecycleMode, ClientServiceExt, RunningService, Service,
        ServiceError,
    },
    transport::{
        DynamicTransportError,
        streamable_http_client::{SseError, StreamableHttpError},
    },
};

use crate::transport::{Broken, Transport};

/// Which revisions of MCP to speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Wire {
    /// Asks the server: 2026-07-28 where it speaks it, else the newest revision with sessions (TR-15).
    #[default]
    Auto,
    /// 2026-07-28 only: every request stands alone.
    Stateless,
    /// 2025-11-25 and before, as the server chooses: `initialize`, then a session.
    Stateful,
}

/// Why there is no running client.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConnectError {
    /// The session cannot be used: its own error says who must act.
    #[error(transparent)]
    Session(Error),
    /// The server was reached, and the two did not come to terms.
    #[error("the MCP server could not be initialized")]
    Protocol(#[source] Box<ClientInitializeError>),
}

/// Connects `handler` to the session's server on whichever wire it speaks. `()` is a handler for clients that only ask.
///
/// The token is brought up to date first, so that a refresh that takes its time is not taken for a silent server.
///
/// # Errors
/// [`ConnectError::Session`] where the session ended the attempt, else [`ConnectError::Protocol`].
pub async fn connect<H: Service<RoleClient>>(
    session: Session,
    handler: H,
) -> Result<RunningService<RoleClient, H>, ConnectError> {
    connect_on(Wire::Auto, session, handler).await
}

/// Connects like [`connect`], on a wire that is decided beforehand.
///
/// # Errors
/// Those of [`connect`].
pub async fn connect_on<H: Service<RoleClient>>(
    wire: Wire,
    session: Session,
    handler: H,
) -> Result<RunningService<RoleClient, H>, ConnectError> {
    session.prepare().await.map_err(ConnectError::Session)?;
    let transport = Transport::new(session);
    let running = handler.serve_with_lifecycle(transport.clone().start(), wire.lifecycle());
    Box::pin(running).await.map_err(|error| {
        match cause(&error).cloned().or_else(|| transport.last_error()) {
            Some(error) => ConnectError::Session(error),
            None => ConnectError::Protocol(Box::new(error)),
        }
    })
}

/// Finds the session's own error in what rmcp answered, if that is where it began: in a [`ServiceError`], a
/// [`ClientInitializeError`], a [`ConnectError`] or anything that has one of them as its source.
#[must_use]
pub fn cause<'a>(error: &'a (dyn std::error::Error + 'static)) -> Option<&'a Error> {
    if let Some(own) = error.downcast_ref::<Error>() {
        return Some(own);
    }
    if let Some(error) = error.downcast_ref::<ConnectError>() {
        return match error {
            ConnectError::Session(error) => Some(error),
            ConnectError::Protocol(error) => cause(&**error),
        };
    }
    if let Some(error) = error.downcast_ref::<ClientInitializeError>() {
        return match error {
            ClientInitializeError::TransportError { error, .. } => cause(error),
            ClientInitializeError::LegacyFallbackFailed { discover, fallback } => {
                cause(&**fallback).or_else(|| cause(&**discover))
            }
            _ => None,
        };
    }
    if let Some(error) = error.downcast_ref::<StreamableHttpError<Error>>() {
        return match error {
            StreamableHttpError::Client(error) => Some(error),
            StreamableHttpError::Sse(SseError::Body(body)) => match body.downcast_ref() {
                Some(Broken::Body(error)) => Some(error),
                _ => None,
            },
            _ => None,
        };
    }
    if let Some(ServiceError::TransportSend(error)) = error.downcast_ref() {
        return cause(error);
    }
    if let Some(error) = error.downcast_ref::<DynamicTransportError>() {
        return cause(&*error.error);
    }
    cause(error.source()?)
}

impl Wire {
    fn lifecycle(self) -> ClientLifecycleMode {
        let preferred_versions = vec![ProtocolVersion::V_2026_07_28];
        match self {
            Self::Auto => ClientLifecycleMode::Auto {
                preferred_versions,
                legacy_version: Some(ProtocolVersion::LATEST_WITH_INITIALIZE),
            },
            Self::Stateless => ClientLifecycleMode::Discover { preferred_versions },
            Self::Stateful => ClientLifecycleMode::Initialize,
        }
    }
}
