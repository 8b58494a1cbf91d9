//! What a server wants to know before it answers: asked of the host, and sent along with the request once more (TR-13).

use std::time::Duration;

use bytes::Bytes;

use super::super::{Output, Refusal, call as request, host, raw_error};
use super::{Call, OldHost};
use crate::message::json::{self, decoded};
use crate::message::{Id, Message};

/// How often a server may ask back on one request.
const MAX_ROUNDS: u32 = 10;
/// How many questions it may ask at once.
const MAX_QUESTIONS: usize = 64;
/// How many requests may wait for the host's answers.
const MAX_WAITING: usize = 1024;

/// Requests that wait for the host's answers.
#[derive(Debug, Default)]
pub(super) struct Rounds(Vec<Round>);

#[derive(Debug)]
struct Round {
    call: Call,
    questions: Vec<Question>,
    /// As the server wrote it. Never read.
    state: Option<Bytes>,
}

#[derive(Debug)]
struct Question {
    /// Its name, as the server wrote it, with quotes.
    key: Bytes,
    /// What the host knows it by.
    id: Id,
    answer: Option<Bytes>,
}

impl Rounds {
    /// The host gave up the request: its questions need no answer.
    pub(super) fn cancel(&mut self, id: &Id, out: &mut Vec<Output>) {
        if let Some(at) = self.0.iter().position(|round| round.call.id().same(id)) {
            withdraw(&self.0.swap_remove(at), out);
        }
    }
}

/// Tells the host that the questions which it has not answered need no answer.
fn withdraw(round: &Round, out: &mut Vec<Output>) {
    for question in round
        .questions
        .iter()
        .filter(|question| question.answer.is_none())
    {
        let params = format!("{{\"requestId\":{}}}", question.id.as_str());
        out.push(Output::ToHost(request(
            None,
            b"\"notifications/cancelled\"",
            Some(params.as_bytes()),
        )));
    }
}

impl OldHost {
    /// A server asks back: puts its questions to the host.
    pub(super) fn asked_back(&mut self, mut call: Call, message: &Message, out: &mut Vec<Output>) {
        let id = call.id();
        call.rounds += 1;
        if call.rounds > MAX_ROUNDS || self.rounds.0.len() >= MAX_WAITING {
            return out.push(Output::ToHost(
                Refusal::Unanswerable.answer(&id, "the server asks back without end"),
            ));
        }
        let state = message
            .result_member("requestState")
            .map(|state| message.slice(state));
        let raw = message
            .result_member("inputRequests")
            .map(|raw| message.slice(raw))
            .unwrap_or_default();
        let mut asked = Vec::new();
        json::members(&raw, &(0..raw.len()), |key, value| {
            asked.push((raw.slice(key.span), raw.slice(value)));
        });
        if asked.len() > MAX_QUESTIONS || (asked.is_empty() && state.is_none()) {
            return out.push(Output::ToHost(
                Refusal::Unanswerable
                    .answer(&id, "the server asks back in a way that cannot be answered"),
            ));
        }
        let mut questions = Vec::new();
        let mut requests = Vec::new();
        for (key, question) in asked {
            let own = self.sender.numbers.id();
            match self.question(&own, &question) {
                Ok(raw) => requests.push(Output::ToHost(raw)),
                Err(why) => {
                    return out.push(Output::ToHost(Refusal::Unanswerable.answer(&id, &why)));
                }
            }
            questions.push(Question {
                key,
                id: own,
                answer: None,
            });
        }
        let round = Round {
            call,
            questions,
            state,
        };
        if requests.is_empty() {
            // Only a state: the server wants to be asked again later.
            let after = Duration::from_millis(100) * 2u32.pow(round.call.rounds.min(MAX_ROUNDS));
            return self.ask_again(round, after, out);
        }
        out.extend(requests);
        self.rounds.0.push(round);
    }

    /// A question as a request that the host knows; or why it cannot be put to it.
    fn question(&self, id: &Id, raw: &Bytes) -> Result<Bytes, String> {
        let whole = 0..raw.len();
        let method = json::member(raw, &whole, "method")
            .map(|span| raw.slice(span))
            .unwrap_or_default();
        let params = json::member(raw, &whole, "params").map(|span| raw.slice(span));
        let name = decoded(&method).unwrap_or_default();
        let text = request(Some(id), &method, params.as_deref());
        let Ok(message) = Message::read(text) else {
            return Err("the server asks back in a way that cannot be answered".to_owned());
        };
        let mode = message.param_text("mode");
        if !host::can(&self.capabilities, &name, mode.as_deref()) {
            return Err(format!(
                "the server asks for {name}, which this host has not declared"
            ));
        }
        // 2025-11-25 names each URL that is to be visited; 2026-07-28 does not.
        if mode.as_deref() == Some("url") && message.param("elicitationId").is_none() {
            return Ok(message.edit().param("elicitationId", id.as_str()).finish());
        }
        Ok(message.into_raw())
    }

    /// The host has answered something; perhaps a question.
    pub(super) fn answered_by_host(&mut self, id: &Id, message: &Message, out: &mut Vec<Output>) {
        let place = self.rounds.0.iter().enumerate().find_map(|(at, round)| {
            round
                .questions
                .iter()
                .position(|question| question.id.same(id))
                .map(|which| (at, which))
        });
        let Some((at, which)) = place else { return };
        if let Some(refusal) = message.error() {
            let mut round = self.rounds.0.swap_remove(at);
            round.questions[which].answer = Some(Bytes::new());
            withdraw(&round, out);
            // The host's own words: whoever asked through it reads why.
            return out.push(Output::ToHost(raw_error(&round.call.id(), refusal)));
        }
        let Some(answer) = message.result().map(|answer| message.slice(answer)) else {
            return;
        };
        self.rounds.0[at].questions[which]
            .answer
            .get_or_insert(answer);
        if self.rounds.0[at]
            .questions
            .iter()
            .all(|question| question.answer.is_some())
        {
            let round = self.rounds.0.swap_remove(at);
            self.ask_again(round, Duration::ZERO, out);
        }
    }

    /// Sends a request once more, with what the server wanted to know.
    fn ask_again(&mut self, round: Round, after: Duration, out: &mut Vec<Output>) {
        let Round {
            call,
            questions,
            state,
        } = round;
        let mut edit = self.dressed(&call.origin).id(&self.sender.numbers.id());
        if !questions.is_empty() {
            let mut answers = vec![b'{'];
            for (at, question) in questions.iter().enumerate() {
                if at > 0 {
                    answers.push(b',');
                }
                answers.extend_from_slice(&question.key);
                answers.push(b':');
                answers.extend_from_slice(question.answer.as_deref().unwrap_or(b"null"));
            }
            answers.push(b'}');
            edit = edit.param("inputResponses", answers);
        }
        if let Some(state) = state {
            edit = edit.param("requestState", state.to_vec());
        }
        let raw = edit.finish();
        self.sender.send(call, raw, after, out);
    }
}
