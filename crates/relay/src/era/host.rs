//! What a host has said that it can do.

use crate::message::json;

/// Says whether capabilities, as they are written, hold what a server's question needs: `sampling/createMessage`,
/// `roots/list`, or `elicitation/create` in a mode. No mode is `form`, and an elicitation without modes can do forms.
pub(crate) fn can(capabilities: &[u8], method: &str, mode: Option<&str>) -> bool {
    let whole = 0..capabilities.len();
    let find = |name| {
        json::member(capabilities, &whole, name).filter(|span| capabilities[span.start] == b'{')
    };
    match method {
        "sampling/createMessage" => find("sampling").is_some(),
        "roots/list" => find("roots").is_some(),
        "elicitation/create" => {
            let Some(elicitation) = find("elicitation") else {
                return false;
            };
            let mode_of = |name| json::member(capabilities, &elicitation, name).is_some();
            match mode {
                None | Some("form") => mode_of("form") || !mode_of("url"),
                Some(mode) => mode_of(mode),
            }
        }
        _ => false,
    }
}

/// Says whether a capability object has `member` in `object`, and that is `true`.
pub(crate) fn flag(capabilities: &[u8], object: &str, member: &str) -> bool {
    json::member(capabilities, &(0..capabilities.len()), object)
        .and_then(|object| json::member(capabilities, &object, member))
        .is_some_and(|value| &capabilities[value] == b"true")
}

/// Says whether a capability is there at all.
pub(crate) fn has(capabilities: &[u8], object: &str) -> bool {
    json::member(capabilities, &(0..capabilities.len()), object)
        .is_some_and(|value| capabilities[value.start] == b'{')
}

/// The severities of log messages, the mildest first.
pub(crate) const LEVELS: &[&str] = &[
    "debug",
    "info",
    "notice",
    "warning",
    "error",
    "critical",
    "alert",
    "emergency",
];

/// How severe a level is, for one that is known.
pub(crate) fn severity(level: &str) -> Option<usize> {
    LEVELS.iter().position(|known| *known == level)
}

#[cfg(test)]
mod tests {
    /// TR-13: a host is asked only for what it has said it can do, in a mode that it knows.
    #[test]
    fn questions_need_their_capability() {
        let can =
            |capabilities: &str, method, mode| super::can(capabilities.as_bytes(), method, mode);
        assert!(can(r#"{"sampling":{}}"#, "sampling/createMessage", None));
        assert!(!can(r#"{"sampling":null}"#, "sampling/createMessage", None));
        assert!(can(r#"{"roots":{"listChanged":true}}"#, "roots/list", None));
        assert!(!can(r#"{"roots":{}}"#, "elicitation/create", None));
        assert!(can(r#"{"elicitation":{}}"#, "elicitation/create", None));
        assert!(can(
            r#"{"elicitation":{}}"#,
            "elicitation/create",
            Some("form")
        ));
        assert!(!can(
            r#"{"elicitation":{}}"#,
            "elicitation/create",
            Some("url")
        ));
        assert!(can(
            r#"{"elicitation":{"url":{}}}"#,
            "elicitation/create",
            Some("url")
        ));
        assert!(!can(
            r#"{"elicitation":{"url":{}}}"#,
            "elicitation/create",
            Some("form")
        ));
        assert!(!can(r#"{"x":{}}"#, "x", None));
        assert!(!can("7", "roots/list", None));
    }
}
