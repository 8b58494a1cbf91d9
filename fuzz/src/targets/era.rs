//! Any sequence of what both sides may do, a line each: the first byte says who does what, the rest is what is written.
//!
//! `h` the host; `a`..`d` the answer to one of the last four POSTs; `e` the last one ends; `r` it is refused; `s` a message
//! on no answer. `{id}` stands for the id of the last POST.

use bytes::Bytes;

use super::super::subject::{
    era::{Identity, Input, NewHost, OldHost, Output, Stateless, Ticket},
    message::{Kind, Message},
    tools::Tools,
};

pub(crate) fn run(script: &[u8]) {
    let bridge = || Identity {
        name: "b".to_owned(),
        version: "1".to_owned(),
    };
    let mut old = OldHost::new(bridge(), Tools::default(), None);
    let mut new = NewHost::new(bridge(), Tools::default());
    let mut same = Stateless::new(Tools::default());
    play(script, false, |input| old.step(input));
    play(script, true, |input| new.step(input));
    play(script, false, |input| same.step(input));
}

fn play(script: &[u8], sessions: bool, mut step: impl FnMut(Input) -> Vec<Output>) {
    let mut posts: Vec<(Ticket, String)> = Vec::new();
    for line in script.split(|byte| *byte == b'\n').take(200) {
        let Some((who, what)) = line.split_first() else {
            continue;
        };
        let back = usize::from(who.saturating_sub(b'a')).min(posts.len().saturating_sub(1));
        let last = posts
            .iter()
            .rev()
            .nth(if matches!(who, b'a'..=b'd') { back } else { 0 })
            .cloned();
        let (to, id) = last.unwrap_or((Ticket(0), "0".to_owned()));
        let raw = match std::str::from_utf8(what) {
            Ok(text) => Bytes::from(text.replace("{id}", &id)),
            Err(_) => Bytes::copy_from_slice(what),
        };
        let input = match who {
            b'h' => Input::Host(raw),
            b'a'..=b'd' => Input::Answer { to, raw },
            b'e' => Input::Ended { to },
            b'r' => Input::Refused {
                to,
                status: 400 + u16::from(what.len() as u8 % 6),
                body: raw,
            },
            b's' => Input::Server(raw),
            _ => continue,
        };
        for output in step(input) {
            match output {
                Output::ToHost(raw) => drop(Message::read(raw).expect("the host gets messages")),
                Output::Post(post) => {
                    let message = Message::read(post.raw).expect("the server gets messages");
                    assert!(
                        sessions || matches!(message.kind(), Kind::Request | Kind::Notification)
                    );
                    assert_eq!(post.answered, message.kind() == Kind::Request);
                    assert!(posts.iter().all(|(ticket, _)| *ticket != post.ticket));
                    if let Some(id) = message.id().filter(|_| post.answered) {
                        posts.push((post.ticket, id.as_str().to_owned()));
                    }
                }
                Output::CloseStream(_) | Output::Fail(_) | Output::Note(_) => {}
            }
        }
    }
}
