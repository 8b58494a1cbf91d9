//! Control requests: how a test in another process drives the server and reads what it saw.
//!
//! `GET stats` · `GET ledger` · `POST fault` (one or a list) · `POST clear-faults` · `POST revoke-access` ·
//! `POST revoke-all` · `POST forget-clients` · `POST device/USER_CODE/allow` (or `deny`)

use http::{Method, StatusCode};
use serde_json::{Value, json};

use super::AuthorizationServer;
use crate::exchange::{Request, Response};
use crate::faults::PlacedFault;

pub(super) fn control(
    server: &mut AuthorizationServer,
    now_ms: u64,
    operation: &str,
    request: &Request,
) -> Option<Response> {
    let body = match (&request.method, operation) {
        (&Method::GET, "stats") => json!(server.stats),
        (&Method::GET, "ledger") => json!(server.ledger),
        (&Method::POST, "fault") => match placed_faults(&request.body) {
            Ok(faults) => {
                for placed in faults {
                    if placed.standing {
                        server.set_standing_fault(placed.at, Some(placed.fault));
                    } else {
                        server.push_fault_at(placed.at, placed.fault);
                    }
                }
                json!({ "queued": server.faults.queued() })
            }
            Err(error) => {
                let body = json!({ "error": error.to_string() });
                return Some(Response::json(StatusCode::BAD_REQUEST, &body));
            }
        },
        (&Method::POST, "clear-faults") => {
            server.clear_faults();
            json!({ "queued": 0 })
        }
        (&Method::POST, "revoke-access") => json!({ "revoked": server.revoke_access() }),
        (&Method::POST, "revoke-all") => json!({ "revoked": server.revoke_all() }),
        (&Method::POST, "forget-clients") => json!({ "forgotten": server.forget_clients() }),
        (&Method::POST, typed) => match typed.strip_prefix("device/")?.split_once('/')? {
            (code, said @ ("allow" | "deny")) => {
                json!({ "known": server.decide_device(now_ms, code, said == "allow") })
            }
            _ => return None,
        },
        _ => return None,
    };
    Some(Response::json(StatusCode::OK, &body))
}

fn placed_faults(body: &[u8]) -> serde_json::Result<Vec<PlacedFault>> {
    match serde_json::from_slice(body)? {
        list @ Value::Array(_) => serde_json::from_value(list),
        one => Ok(vec![serde_json::from_value(one)?]),
    }
}
