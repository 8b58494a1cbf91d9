use proptest::prelude::*;
use serde_json::Value;

use super::json::{Cursor, MAX_DEPTH};
use super::*;

fn bytes(text: impl AsRef<[u8]>) -> Bytes {
    Bytes::copy_from_slice(text.as_ref())
}

fn read(text: impl AsRef<[u8]>) -> Message {
    Message::read(bytes(text)).unwrap()
}

fn refused(text: impl AsRef<[u8]>) -> Malformed {
    Message::read(bytes(text)).unwrap_err()
}

/// TR-16: an id goes back the way it came, and still names the same request after a peer has written it its own way.
#[test]
fn ids_keep_their_writing_and_their_meaning() {
    for (one, other, same) in [
        ("1", "1", true),
        ("1", "1.0", true),
        ("100", "1e2", true),
        ("1", "\"1\"", false),
        ("\"a\"", "\"\\u0061\"", true),
        ("\"a\"", "\"A\"", false),
        ("18446744073709551616", "18446744073709551617", false),
        ("9007199254740993", "9007199254740992", false),
        ("\"\\ud800\"", "\"\\ud800\"", true),
        ("-0", "0", true),
    ] {
        let message = read(format!("{{\"id\": {one} ,\"method\":\"m\"}}"));
        let id = message.id().unwrap();
        assert_eq!(id.as_str(), one);
        let other = read(format!("{{\"id\":{other},\"result\":{{}}}}"));
        assert_eq!(id.same(other.id().unwrap()), same, "{one} {other:?}");
    }
}

/// TR-13: what a message is, is told by its members.
#[test]
fn kinds_are_told_by_members() {
    assert_eq!(read(r#"{"id":1,"method":"m"}"#).kind(), Kind::Request);
    assert_eq!(read(r#"{"method":"m"}"#).kind(), Kind::Notification);
    assert_eq!(read(r#"{"id":1,"result":null}"#).kind(), Kind::Result);
    assert_eq!(read(r#"{"error":{"code":-1}}"#).kind(), Kind::Error);
    assert_eq!(
        read(r#"{"id":null,"error":{"code":-1}}"#).kind(),
        Kind::Error
    );
    assert_eq!(
        read(r#"{"id":1,"error":{"code":-32601.5}}"#).error_code(),
        None
    );
    for text in [
        "1",
        "null",
        "{}",
        r#"{"id":1}"#,
        r#"{"id":1,"method":7}"#,
        r#"{"id":1,"method":"m","result":1}"#,
        r#"{"result":1}"#,
    ] {
        assert_eq!(refused(text), Malformed::NotAMessage, "{text}");
    }
    assert_eq!(refused(r#"{"id":null,"method":"m"}"#), Malformed::Id);
    assert_eq!(refused(r#"{"id":[1],"method":"m"}"#), Malformed::Id);
    assert_eq!(refused(" [1]"), Malformed::Batch);
}

/// T-14, TR-05: a name that decides something may not be there twice, in whatever writing; others may, and pass.
#[test]
fn names_that_decide_something_are_there_once() {
    for (text, name) in [
        (r#"{"id":1,"method":"a","method":"b"}"#, "method"),
        (r#"{"id":1,"method":"a","\u006dethod":"b"}"#, "method"),
        (
            r#"{"id":1,"method":"tools/call","params":{"name":"a","na\u006de":"b"}}"#,
            "name",
        ),
        (
            r#"{"id":1,"method":"m","params":{"_meta":{"progressToken":1,"progressToken":2}}}"#,
            "progressToken",
        ),
        (
            r#"{"id":1,"result":{"resultType":"complete","resultType":"input_required"}}"#,
            "resultType",
        ),
        (r#"{"id":1,"error":{"code":1,"code":2}}"#, "code"),
    ] {
        assert_eq!(refused(text), Malformed::Duplicate { name }, "{text}");
    }
    let twice = r#"{"id":1,"x":1,"x":2,"method":"m","params":{"y":1,"y":2,"arguments":{"name":1,"name":2}}}"#;
    assert_eq!(read(twice).edit().finish(), twice);
}

/// T-14: broken text, brackets without end and half surrogates: an error with a place, or passed as they are.
#[test]
fn bad_text_is_an_error_with_a_place() {
    assert_eq!(
        refused(b"{\"id\":1,\"method\":\"\xff\"}"),
        Malformed::NotUtf8 { at: 18 }
    );
    assert_eq!(
        refused("{\"id\":1,\"method\":\"a\nb\"}"),
        Malformed::NotJson { at: 19 }
    );
    assert_eq!(
        refused(r#"{"id":1,"method":"\x"}"#),
        Malformed::NotJson { at: 18 }
    );
    assert_eq!(
        refused(r#"{"id":01,"method":"m"}"#),
        Malformed::NotJson { at: 7 }
    );
    assert_eq!(
        refused(r#"{"id":1,"method":"m"} {}"#),
        Malformed::NotJson { at: 22 }
    );
    assert_eq!(refused(""), Malformed::NotJson { at: 0 });
    for open in ["[", "{\"a\":"] {
        let bomb = format!(
            "{{\"id\":1,\"method\":\"m\",\"params\":{{\"arguments\":{}",
            open.repeat(4_000_000)
        );
        assert!(matches!(refused(bomb), Malformed::TooDeep { .. }));
    }
    let deep = format!("{}{}", "[".repeat(MAX_DEPTH), "]".repeat(MAX_DEPTH));
    assert_eq!(
        read(format!("{{\"id\":1,\"result\":{deep}}}"))
            .result()
            .unwrap(),
        deep.as_bytes()
    );
    let half =
        read(r#"{"id":"\udc00","method":"tools/call","params":{"name":"\ud800","\ud800":1}}"#);
    assert_eq!(
        (half.name(), half.id().unwrap().as_str()),
        (None, r#""\udc00""#)
    );
    assert_eq!(read(r#"{"id":1,"method":"\ud800"}"#).method(), "");
}

/// TR-03, TR-04: members are put in and written over, and nothing else changes a byte.
#[test]
fn edits_change_their_place_and_nothing_else() {
    let meta = |text: &str| read(text).edit().meta(LOG_LEVEL, "\"info\"").finish();
    let level = r#""io.modelcontextprotocol/logLevel":"info""#;
    let put = |before: &str, after: &str| {
        assert_eq!(meta(before), after.replace("LEVEL", level), "{before}");
    };
    put(
        r#"{"id":1.0, "method":"m" }"#,
        r#"{"params":{"_meta":{LEVEL}},"id":1.0, "method":"m" }"#,
    );
    put(
        r#"{"id":1,"method":"m","params":null}"#,
        r#"{"id":1,"method":"m","params":{"_meta":{LEVEL}}}"#,
    );
    put(
        r#"{"id":1,"method":"m","params":{ }}"#,
        r#"{"id":1,"method":"m","params":{"_meta":{LEVEL} }}"#,
    );
    put(
        r#"{"id":1,"method":"m","params":{"a":1e2}}"#,
        r#"{"id":1,"method":"m","params":{"_meta":{LEVEL},"a":1e2}}"#,
    );
    put(
        r#"{"id":1,"method":"m","params":{"_meta":7}}"#,
        r#"{"id":1,"method":"m","params":{"_meta":{LEVEL}}}"#,
    );
    put(
        r#"{"id":1,"method":"m","params":{"_meta" : {"z": "\u00e9"},"a":[1.50]}}"#,
        r#"{"id":1,"method":"m","params":{"_meta" : {LEVEL,"z": "\u00e9"},"a":[1.50]}}"#,
    );
    put(
        &format!(
            r#"{{"id":1,"method":"m","params":{{"_meta":{{"a":1,{}, "b":2}}}}}}"#,
            level.replace("info", "debug")
        ),
        r#"{"id":1,"method":"m","params":{"_meta":{"a":1,LEVEL, "b":2}}}"#,
    );
    // By position: nothing can be put in, so nothing is.
    assert_eq!(
        meta(r#"{"id":1,"method":"m","params":[1]}"#),
        r#"{"id":1,"method":"m","params":[1]}"#
    );
}

/// TR-13: an id is written over or put in; so is a member of the parameters, of the result, or all parameters.
#[test]
fn ids_parameters_and_results_are_edited() {
    let id = Id::of_text("n");
    assert_eq!(
        read(r#"{"id" : 1 ,"result":{}}"#).edit().id(&id).finish(),
        r#"{"id" : "n" ,"result":{}}"#
    );
    assert_eq!(
        read(r#"{"error":{"code":-1}}"#).edit().id(&id).finish(),
        r#"{"id":"n","error":{"code":-1}}"#
    );
    assert_eq!(
        read(r#"{"id":null,"error":{"code": -1}}"#)
            .edit()
            .id(&id)
            .code(5)
            .finish(),
        r#"{"id":"n","error":{"code": 5}}"#
    );
    let call = read(r#"{"id":1,"method":"m","params":{"a":1}}"#);
    assert_eq!(
        call.edit().params("{\"b\":2}").finish(),
        r#"{"id":1,"method":"m","params":{"b":2}}"#
    );
    assert_eq!(
        call.edit()
            .param("requestState", "\"\\u0041\"")
            .param("inputResponses", "{}")
            .finish(),
        r#"{"id":1,"method":"m","params":{"requestState":"\u0041","inputResponses":{},"a":1}}"#
    );
    let answer = read(r#"{"id":1,"result":{ "ttlMs":1}}"#);
    assert_eq!(
        answer
            .edit()
            .result("resultType", "\"complete\"")
            .result("ttlMs", "0")
            .finish(),
        r#"{"id":1,"result":{"resultType":"complete", "ttlMs":0}}"#
    );
}

/// TR-17: members go with one comma, wherever they stand; a `_meta` that had nothing else goes with them.
#[test]
fn members_go_with_their_comma() {
    let gone = |text: &str| {
        let message = read(format!("{{\"method\":\"m\",\"params\":{text}}}"));
        let raw = message
            .edit()
            .without_meta(PROTOCOL_VERSION)
            .without_meta(LOG_LEVEL)
            .without_param("requestState")
            .without_param("inputResponses")
            .finish();
        read(raw)
            .params()
            .map(|raw| String::from_utf8(raw.to_vec()).unwrap())
            .unwrap()
    };
    let v = "\"io.modelcontextprotocol/protocolVersion\":1";
    let l = "\"io.modelcontextprotocol/logLevel\":2";
    for (before, after) in [
        (format!("{{\"_meta\":{{{v},{l}}}}}"), "{}"),
        (
            format!("{{\"_meta\":{{ {v} , {l} }},\"a\":1}}"),
            "{\"a\":1}",
        ),
        (format!("{{\"a\":1, \"_meta\":{{{v}}}}}"), "{\"a\":1}"),
        (
            format!("{{\"_meta\":{{\"x\":1,{v},{l}}}}}"),
            "{\"_meta\":{\"x\":1}}",
        ),
        (
            format!("{{\"_meta\":{{{v},\"x\":1,{l}}}}}"),
            "{\"_meta\":{\"x\":1}}",
        ),
        (
            format!("{{\"_meta\":{{{v},{l},\"x\":1}}}}"),
            "{\"_meta\":{\"x\":1}}",
        ),
        (
            format!("{{\"requestState\":1,\"_meta\":{{{v}}},\"inputResponses\":2}}"),
            "{}",
        ),
        (
            format!("{{\"requestState\":1,\"a\":2,\"inputResponses\":3,\"_meta\":{{{l}}}}}"),
            "{\"a\":2}",
        ),
        ("{\"_meta\":{}}".to_owned(), "{\"_meta\":{}}"),
    ] {
        assert_eq!(gone(&before), after, "{before}");
    }
}

/// TR-13: a member leaves a large result without a copy of it, from the front and from the end.
#[test]
fn a_member_leaves_a_large_result_in_place() {
    let rest = format!("\"content\":\"{}\"", "x".repeat(1 << 20));
    for text in [
        format!("{{\"id\":1,\"result\":{{\"resultType\":\"complete\",{rest}}}}}"),
        format!("{{\"id\":1,\"result\":{{{rest},\"resultType\":\"complete\"}}}}"),
    ] {
        let wanted = format!("{{\"id\":1,\"result\":{{{rest}}}}}");
        let raw = Bytes::from(text.clone().into_bytes());
        let end = raw.as_ptr() as usize + raw.len();
        let without = Message::read(raw)
            .unwrap()
            .into_without_result_member("resultType");
        assert_eq!(without, wanted);
        if text.find("resultType").unwrap() < 100 {
            assert_eq!(
                without.as_ptr() as usize + without.len(),
                end,
                "the same memory"
            );
        }
        let shared = Bytes::from(text.clone().into_bytes());
        assert_eq!(
            read(&shared).into_without_result_member("resultType"),
            wanted
        );
        assert_eq!(shared, text);
    }
}

/// JSON as people write it: odd numbers, escapes, white space, names that decide something in odd places.
fn any_json() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just("null".to_owned()),
        Just("true".to_owned()),
        "-?(0|[1-9][0-9]{0,20})(\\.[0-9]{1,4})?([eE][+-]?[0-9]{1,2})?",
        any_string(),
    ];
    leaf.prop_recursive(4, 32, 5, |inner| {
        prop_oneof![
            (
                proptest::collection::vec(inner.clone(), 0..5),
                "[ \t\r\n]{0,2}"
            )
                .prop_map(|(all, white)| format!(
                    "[{white}{}{white}]",
                    all.join(&format!("{white},"))
                )),
            any_object(inner),
        ]
    })
}

fn any_string() -> impl Strategy<Value = String> {
    prop_oneof![
        "\"([a-z é世/{}\\[\\],:]|\\\\n|\\\\\"|\\\\\\\\|\\\\u00e9|\\\\/){0,12}\"",
        any::<String>().prop_map(|text| json::quoted(&text)),
    ]
}

fn any_object(value: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    let name = prop_oneof![
        3 => "[a-z]{1,6}",
        1 => proptest::sample::select(&["_meta", "name", "resultType", "requestState", LOG_LEVEL, PROTOCOL_VERSION][..])
            .prop_map(str::to_owned),
    ];
    (
        proptest::collection::btree_map(name, value, 0..6),
        "[ \n]{0,2}",
    )
        .prop_map(|(all, white)| {
            let all: Vec<_> = all
                .into_iter()
                .map(|(name, value)| format!("{white}\"{name}\"{white}:{white}{value}"))
                .collect();
            format!("{{{}{white}}}", all.join(&format!("{white},")))
        })
}

fn whole(text: &[u8]) -> bool {
    let mut cursor = Cursor::at(text, 0);
    std::str::from_utf8(text).is_ok() && cursor.value().and_then(|_| cursor.end()).is_ok()
}

fn by_serde(text: &[u8]) -> bool {
    serde_json::from_slice::<Box<serde_json::value::RawValue>>(text).is_ok()
}

proptest! {
    /// T-14: the reader takes exactly what another reader of JSON takes.
    #[test]
    fn takes_what_another_reader_takes(
        text in any_json(), at in any::<proptest::sample::Index>(), byte in any::<u8>(), cut in any::<bool>()
    ) {
        prop_assert!(whole(text.as_bytes()), "{}", text);
        let mut broken = text.into_bytes();
        let at = at.index(broken.len());
        if cut { broken.truncate(at) } else { broken[at] = byte }
        prop_assert_eq!(whole(&broken), by_serde(&broken), "{:?}", String::from_utf8_lossy(&broken));
    }

    /// T-14: no bytes make it panic.
    #[test]
    fn no_bytes_make_it_panic(text in proptest::collection::vec(any::<u8>(), 0..200)) {
        prop_assert_eq!(whole(&text), by_serde(&text));
        let _ = Message::read(text.into()).map(|message| message.edit().meta(LOG_LEVEL, "1").without_param("name").finish());
    }

    /// TR-03, TR-13: an edit does to the bytes what it says, and what was put in goes again without a trace.
    #[test]
    fn edits_do_what_they_say(params in any_object(any_json()), other in any_json(), id in -9i64..9) {
        let text = format!("{{\"x\" : {other}, \"id\":{id},\"method\":\"m\" ,\"params\":{params}}}");
        let message = read(&text);
        let put = message.edit().meta(LOG_LEVEL, "\"info\"").param("requestState", "\"s\"").finish();
        let value = |raw: &[u8]| serde_json::from_slice::<Value>(raw).unwrap();
        let mut wanted = value(text.as_bytes());
        if !wanted["params"]["_meta"].is_object() {
            wanted["params"]["_meta"] = Value::Object(Default::default());
        }
        wanted["params"]["_meta"][LOG_LEVEL] = "info".into();
        wanted["params"]["requestState"] = "s".into();
        prop_assert_eq!(value(&put), wanted);
        if message.meta(LOG_LEVEL).is_none() && message.param("requestState").is_none()
            && message.param("_meta").is_none_or(|meta| meta.starts_with(b"{") && meta.contains(&b'"')) {
            let back = read(&put).edit().without_meta(LOG_LEVEL).without_param("requestState").finish();
            prop_assert_eq!(&back, &text);
        }
        let gone = message.edit().without_meta(LOG_LEVEL).without_param("requestState").without_param("name").finish();
        let mut wanted = value(text.as_bytes());
        let params = wanted["params"].as_object_mut().unwrap();
        params.remove("requestState");
        params.remove("name");
        if let Some(meta) = params.get_mut("_meta").and_then(Value::as_object_mut)
            && meta.remove(LOG_LEVEL).is_some() && meta.is_empty() {
            params.remove("_meta");
        }
        prop_assert_eq!(value(&gone), wanted);
    }

    /// TR-13: a result without one member is the same bytes but for it.
    #[test]
    fn a_result_loses_one_member(result in any_object(any_json()), shared in any::<bool>()) {
        let text = Bytes::from(format!("{{\"id\":1,\"result\":{result}}}"));
        let message = Message::read(if shared { text.clone() } else { bytes(&text) }).unwrap();
        let without = message.into_without_result_member("resultType");
        let value = |raw: &[u8]| serde_json::from_slice::<Value>(raw).unwrap();
        let mut wanted = value(&text);
        wanted["result"].as_object_mut().unwrap().remove("resultType");
        prop_assert_eq!(value(&without), wanted);
    }
}
