//! What a client is registered for, and what it asks for.

use super::*;
use crate::scope::Scopes;

/// AUTH-55, AUTH-57: an issuer may hold a client to the scopes of its registration, and a step-up asks as the same client: so all that is
/// listed is registered, and no more than what is wanted is asked for. Where nothing is asked for, nothing is said.
#[test]
fn a_registration_leaves_room_for_a_step_up() {
    let listed = r#","scopes_supported":["mcp:tools","mcp:admin"]"#;
    for (wanted, registered) in [
        (Some("mcp:tools"), Some("mcp:tools mcp:admin")),
        (None, None),
    ] {
        let mut stage = with_metadata(listed);
        let scopes = wanted.map(Scopes::parse);
        login(&mut stage, Task { scopes, ..task() }).unwrap();
        let body: serde_json::Value =
            serde_json::from_slice(&sent_to(&stage, REGISTER)[0].body).unwrap();
        assert_eq!(body["scope"].as_str(), registered, "{body}");
        assert_eq!(shown(&stage, "scope").as_deref(), wanted);
    }
}
