//! Any bytes: read as another reader of JSON reads them, and edited so that only the edited places change.

use bytes::Bytes;
use serde_json::value::RawValue;

use super::super::subject::{
    batch,
    message::{Id, LOG_LEVEL, Malformed, Message},
    tools::Tools,
};

pub(crate) fn run(text: &[u8]) {
    let json = serde_json::from_slice::<Box<RawValue>>(text).is_ok();
    let raw = Bytes::copy_from_slice(text);
    if let Ok(parts) = batch::split(&raw) {
        assert!(json);
        assert_eq!(batch::split(&batch::join(&parts)).as_ref(), Ok(&parts));
    }
    let message = match Message::read(raw) {
        Ok(message) => message,
        Err(Malformed::NotJson { .. } | Malformed::NotUtf8 { .. }) => return assert!(!json),
        Err(_) => return,
    };
    assert!(json);
    assert_eq!(message.edit().finish(), text);
    let id = Id::of_text("n");
    let edited = message
        .edit()
        .id(&id)
        .meta(LOG_LEVEL, "\"info\"")
        .param("requestState", "\"s\"")
        .finish();
    let edited = Message::read(edited).expect("an edited message is one");
    assert_eq!(edited.id(), Some(&id));
    if message.takes_params() {
        assert_eq!(edited.meta(LOG_LEVEL), Some(&b"\"info\""[..]));
        assert_eq!(edited.param("requestState"), Some(&b"\"s\""[..]));
        let bare = edited
            .edit()
            .without_meta(LOG_LEVEL)
            .without_param("requestState")
            .finish();
        let bare = Message::read(bare).expect("an edited message is one");
        assert_eq!(
            (bare.meta(LOG_LEVEL), bare.param("requestState")),
            (None, None)
        );
        assert_eq!(bare.param("arguments"), message.param("arguments"));
    }
    assert_eq!(edited.result(), message.result());
    let listed = Tools::new(&["a*".to_owned()]).list(&message, true, true);
    Message::read(listed.raw).expect("a list without some tools is a message");
    let bare = Message::read(message.into_without_result_member("resultType")).expect("a message");
    assert_eq!(bare.result_member("resultType"), None);
}
