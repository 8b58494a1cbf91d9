//! Events for programs: as they are stored, with instants in RFC 3339 and spans in seconds.

use pilotlight_core::{attempt::Label, error::LoginCause, event::Event, time::Wall};
use serde_json::{Map, Value, json};

use super::{shown::cause_to_json, words::rfc3339};

/// An event of `--json`.
pub(crate) fn to_json(event: &Event) -> Value {
    let Ok(Value::Object(fields)) = serde_json::to_value(event) else {
        return Value::Null;
    };
    Value::Object(
        fields
            .into_iter()
            .map(|(name, value)| presented(name, value))
            .collect::<Map<_, _>>(),
    )
}

/// Why the call that an event tells of may have repeated an earlier one, where the event says so.
pub(crate) fn label(event: &Event) -> Option<Label> {
    let fields = serde_json::to_value(event).ok()?;
    serde_json::from_value(fields.get("label")?.clone()).ok()
}

fn presented(name: String, value: Value) -> (String, Value) {
    let value = match (name.as_str(), value) {
        (name, Value::Number(ms)) if INSTANTS.contains(&name) => ms
            .as_u64()
            .map_or(Value::Null, |ms| json!(rfc3339(Wall(ms)))),
        ("lifetime", Value::Object(span)) => {
            let part = |name: &str| span.get(name).and_then(Value::as_u64).unwrap_or_default();
            json!(part("secs") as f64 + part("nanos") as f64 / 1e9)
        }
        ("process", Value::Object(mut process)) => {
            // More digits than a JSON number keeps everywhere.
            if let Some(nonce) = process.get("nonce").and_then(Value::as_u64) {
                process.insert("nonce".to_owned(), json!(format!("{nonce:016x}")));
            }
            Value::Object(process)
        }
        ("cause", cause) => match serde_json::from_value::<LoginCause>(cause.clone()) {
            Ok(known) => cause_to_json(&known),
            Err(_) => cause,
        },
        (_, value) => value,
    };
    (name, value)
}

/// The fields that hold an instant.
const INSTANTS: [&str; 6] = [
    "at",
    "sent_at",
    "previous_refresh_point",
    "next",
    "next_probe_at",
    "until",
];

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use pilotlight_core::{
        attempt::ProcessId,
        credential::Generation,
        error::Certainty,
        event::{Happened, Reason},
    };

    use super::*;

    fn event(happened: Happened) -> String {
        to_json(&Event {
            at: Wall(1_795_400_000_123),
            process: ProcessId {
                pid: 7,
                nonce: u64::MAX,
            },
            happened,
        })
        .to_string()
    }

    #[test]
    fn a_refresh_says_when_it_was_sent_and_when_it_was_due() {
        let refreshed = Happened::Refreshed {
            generation: Generation(3),
            reason: Reason::Due,
            label: Some(Label::AfterCrash),
            calls: 2,
            sent_at: Wall(1_795_399_999_000),
            previous_refresh_point: Some(Wall(1_795_399_998_000)),
            lifetime: Some(Duration::from_secs(15)),
        };
        insta::assert_snapshot!(event(refreshed), @r#"{"at":"2026-11-23T02:13:20.123Z","calls":2,"event":"refreshed","generation":3,"label":"after_crash","lifetime":15.0,"previous_refresh_point":"2026-11-23T02:13:18Z","process":{"nonce":"ffffffffffffffff","pid":7},"reason":"due","sent_at":"2026-11-23T02:13:19Z"}"#);
    }

    #[test]
    fn a_refusal_names_its_code() {
        let cause = LoginCause::RefreshRejected {
            certainty: Certainty::Suspect,
            named: None,
        };
        insta::assert_snapshot!(event(Happened::Suspected { cause, next_probe_at: Some(Wall(1_795_400_060_000)), label: None }), @r#"{"at":"2026-11-23T02:13:20.123Z","cause":{"code":"login.refresh_rejected","message":"the authorization server refused to refresh the login; it is asked again, in case that was a mistake"},"event":"suspected","label":null,"next_probe_at":"2026-11-23T02:14:20Z","process":{"nonce":"ffffffffffffffff","pid":7}}"#);
    }
}
