//! What an old server asks of the host while a request is under way: the request ends with the question, and the server's
//! call goes on; when the host comes back with the answer, it waits for that call again (TR-13).

use super::super::{
    INTERNAL_ERROR, INVALID_PARAMS, METHOD_NOT_FOUND, Output, Refusal, call as request, error,
    host, raw_error, result,
};
use super::{
    Bytes, CLIENT_CAPABILITIES, Call, Id, Message, NewHost, Purpose, Ticket, json, object,
};

/// How many calls may go on while the host thinks. A host that never comes back leaves one each time.
const MAX_HELD: usize = 64;
/// How many questions one call may have open.
const MAX_QUESTIONS: usize = 64;

/// A question of the server's.
#[derive(Debug)]
pub(super) struct Question {
    /// The server's id for it.
    id: Id,
    /// The host's name for it.
    key: String,
    /// Its method and parameters, as the server wrote them.
    raw: Vec<u8>,
}

/// A request that the server refused until URLs have been visited (2025-11-25).
#[derive(Debug)]
pub(super) struct Visit {
    method: String,
    name: Option<String>,
    keys: Vec<String>,
    refused: Bytes,
}

impl NewHost {
    /// The server asks something.
    pub(super) fn question(
        &mut self,
        on: Option<Ticket>,
        message: &Message,
        out: &mut Vec<Output>,
    ) {
        let Some(id) = message.id() else { return };
        if message.method() == "ping" {
            return self.tell(result(id, b"{}"), out);
        }
        let mode = message.param_text("mode");
        let fits = |call: &Call| {
            let capabilities = call.origin.meta(CLIENT_CAPABILITIES).unwrap_or(b"{}");
            call.purpose == Purpose::Host
                && call.early.is_none()
                && call.questions.len() < MAX_QUESTIONS
                && matches!(
                    &*call.origin.method(),
                    "tools/call" | "prompts/get" | "resources/read"
                )
                && host::can(capabilities, &message.method(), mode.as_deref())
        };
        let ticket = match on.filter(|ticket| {
            self.calls
                .get(ticket)
                .is_some_and(|call| call.purpose == Purpose::Host)
        }) {
            Some(ticket) => self.calls.get(&ticket).is_some_and(fits).then_some(ticket),
            // It came on no request's answer: the oldest one that can carry it does.
            None => self
                .calls
                .iter()
                .find(|(_, call)| fits(call))
                .map(|(ticket, _)| *ticket),
        };
        let Some(ticket) = ticket else {
            let text = "no request of the host's is under way that could carry this";
            return self.tell(error(id, METHOD_NOT_FOUND, text), out);
        };
        let mut raw = b"{\"method\":".to_vec();
        raw.extend_from_slice(json::quoted(&message.method()).as_bytes());
        if let Some(params) = message.params() {
            raw.extend_from_slice(b",\"params\":");
            raw.extend_from_slice(params);
        }
        raw.push(b'}');
        let key = self.numbers.id().as_str().trim_matches('"').to_owned();
        if let Some(call) = self.calls.get_mut(&ticket) {
            call.questions.push(Question {
                id: id.clone(),
                key: key.clone(),
                raw,
            });
            call.state.get_or_insert(key);
            if let Some(raw) = put(call) {
                out.push(Output::ToHost(raw));
            }
        }
        self.give_up_the_oldest(out);
    }

    /// The server takes a question back.
    pub(super) fn withdrawn(&mut self, message: &Message) {
        let Some(id) = message.param("requestId").and_then(Id::of_value) else {
            return;
        };
        for call in self.calls.values_mut() {
            call.questions.retain(|question| !question.id.same(&id));
        }
    }

    /// The host comes back with answers.
    pub(super) fn told(&mut self, id: Id, message: Message, out: &mut Vec<Output>) {
        let state = message
            .param_text("requestState")
            .unwrap_or_default()
            .into_owned();
        let bad = Refusal::BadRequest(INVALID_PARAMS);
        if let Some(visit) = self.visits.get(&state) {
            if visit.method != message.method()
                || visit.name.as_deref() != message.name().as_deref()
            {
                return out.push(Output::ToHost(
                    bad.answer(&id, "this state belongs to another request"),
                ));
            }
            let visited = visit
                .keys
                .iter()
                .all(|key| action(&message, key).as_deref() == Some("accept"));
            let refused = visit.refused.clone();
            self.visits.remove(&state);
            if visited {
                return self.forward(id, message, out);
            }
            return out.push(Output::ToHost(raw_error(&id, &refused)));
        }
        let held = self
            .calls
            .iter_mut()
            .find(|(_, call)| call.waits.is_none() && call.state.as_deref() == Some(&state));
        let Some((ticket, call)) = held else {
            return out.push(Output::ToHost(
                bad.answer(&id, "nothing waits for this state"),
            ));
        };
        let ticket = *ticket;
        if call.origin.method() != message.method() || call.origin.name() != message.name() {
            return out.push(Output::ToHost(
                bad.answer(&id, "this state belongs to another request"),
            ));
        }
        if let Some(early) = call.early.take() {
            let origin = call.origin.clone();
            self.calls.remove(&ticket);
            let raw = self.translated(&origin, &id, &early, out);
            return out.push(Output::ToHost(raw));
        }
        call.waits = Some(id);
        call.progress = message.meta("progressToken").map(<[u8]>::to_vec);
        let mut answers = Vec::new();
        call.questions
            .retain(|question| match answer(&message, &question.key) {
                Some(raw) => {
                    answers.push(result(&question.id, &raw));
                    false
                }
                None => true,
            });
        // What is not answered is asked again, and so is what came meanwhile.
        let again = put(call);
        for raw in answers {
            self.tell(raw, out);
        }
        out.extend(again.map(Output::ToHost));
    }

    /// A request was refused until URLs have been visited: asks the host to visit them, if it can.
    pub(super) fn visit(&mut self, id: &Id, call: &Call, message: &Message, out: &mut Vec<Output>) {
        let refused = message
            .error()
            .map(|raw| message.slice(raw))
            .unwrap_or_default();
        let capabilities = call.origin.meta(CLIENT_CAPABILITIES).unwrap_or(b"{}");
        let mut asked = vec![b'{'];
        let mut keys = Vec::new();
        let list = message
            .error_data("elicitations")
            .filter(|_| host::can(capabilities, "elicitation/create", Some("url")));
        if let Some(list) = list {
            json::elements(list, &(0..list.len()), |span| {
                if keys.len() < MAX_QUESTIONS && list[span.start] == b'{' {
                    let key = self.numbers.id();
                    if !keys.is_empty() {
                        asked.push(b',');
                    }
                    asked.extend_from_slice(key.as_str().as_bytes());
                    asked.extend_from_slice(b":{\"method\":\"elicitation/create\",\"params\":");
                    asked.extend_from_slice(&list[span]);
                    asked.push(b'}');
                    keys.push(key.as_str().trim_matches('"').to_owned());
                }
            });
        }
        asked.push(b'}');
        if keys.is_empty() {
            return out.push(Output::ToHost(raw_error(id, &refused)));
        }
        let state = self.numbers.id();
        out.push(Output::ToHost(input_required(id, asked, state.as_str())));
        let name = call.origin.name().map(|name| name.into_owned());
        let visit = Visit {
            method: call.origin.method().into_owned(),
            name,
            keys,
            refused,
        };
        if self.visits.len() >= MAX_HELD {
            self.visits.pop_first();
        }
        self.visits
            .insert(state.as_str().trim_matches('"').to_owned(), visit);
    }

    /// Gives up the call that has been waiting longest for a host that did not come back.
    fn give_up_the_oldest(&mut self, out: &mut Vec<Output>) {
        let held: Vec<_> = self
            .calls
            .iter()
            .filter(|(_, call)| call.state.is_some() && call.waits.is_none())
            .map(|(at, _)| *at)
            .collect();
        if held.len() <= MAX_HELD {
            return;
        }
        let Some(call) = self.calls.remove(&held[0]) else {
            return;
        };
        for question in &call.questions {
            self.tell(
                error(
                    &question.id,
                    INTERNAL_ERROR,
                    "the host did not come back with an answer",
                ),
                out,
            );
        }
        if let Some(id) = call.sent.id().filter(|_| call.early.is_none()) {
            let params = format!("{{\"requestId\":{}}}", id.as_str());
            self.tell(
                request(
                    None,
                    b"\"notifications/cancelled\"",
                    Some(params.as_bytes()),
                ),
                out,
            );
        }
    }
}

/// Puts all open questions of a call to the host, if it waits and there are any.
fn put(call: &mut Call) -> Option<Bytes> {
    if call.questions.is_empty() {
        return None;
    }
    let state = json::quoted(call.state.as_deref()?);
    let id = call.waits.take()?;
    let mut asked = vec![b'{'];
    for (at, question) in call.questions.iter().enumerate() {
        if at > 0 {
            asked.push(b',');
        }
        asked.extend_from_slice(json::quoted(&question.key).as_bytes());
        asked.push(b':');
        asked.extend_from_slice(&question.raw);
    }
    asked.push(b'}');
    Some(input_required(&id, asked, &state))
}

fn input_required(id: &Id, asked: Vec<u8>, state: &str) -> Bytes {
    let members = vec![
        ("resultType", b"\"input_required\"".to_vec()),
        ("inputRequests", asked),
        ("requestState", state.as_bytes().to_vec()),
    ];
    result(id, &object(members))
}

/// The answer to one question, as the host wrote it.
fn answer(message: &Message, key: &str) -> Option<Vec<u8>> {
    let answers = message.param("inputResponses")?;
    json::member(answers, &(0..answers.len()), key).map(|span| answers[span].to_vec())
}

/// What a person did with a question.
fn action(message: &Message, key: &str) -> Option<String> {
    let answer = answer(message, key)?;
    let action = json::member(&answer, &(0..answer.len()), "action")?;
    json::decoded(&answer[action]).map(|action| action.into_owned())
}
