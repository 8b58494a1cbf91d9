//! Exchanges: token calls with all that the network does to them, and the documents that a login reads.

use std::time::Duration;

use http::{HeaderMap, HeaderValue};
use pilotlight_core::{
    error::NetworkFault,
    exchange::{self, Delivery, Exchange, Failure, Fault, Leg, Reply},
    flow::Answer,
    time::{Mono, Now},
};

use super::{
    Call, CallId, Event, ISSUER, Variant, World,
    judge::number,
    network::{DEADLINE, Failed, Fate, Outage, fate, stands_after},
};

impl World {
    pub(super) fn send_exchange(&mut self, run: usize, step: u32, mut exchange: Exchange) {
        let Some(own) = self.runs[run].as_deref() else {
            return;
        };
        let (process, login) = (own.process, own.login);
        let (sent_at, within) = (self.clock(process), super::ms(exchange.within));
        if exchange.leg != Leg::Token {
            if let Some(own) = self.runs[run].as_deref_mut() {
                own.early |= exchange.leg == Leg::Reach;
            }
            let reply = self.document(&exchange, login, sent_at);
            let mut takes = 20 + self.random.below(80);
            if matches!(&reply, Err(failure) if matches!(failure.fault, Fault::Deadline(_))) {
                takes = LOOKS_FOR;
            }
            self.answer_at(run, self.now + takes, Answer::Exchanged(reply));
            return;
        }
        let field = |name: &str| {
            url::form_urlencoded::parse(&exchange.body)
                .find(|(key, _)| key == name)
                .map(|(_, value)| value.into_owned())
        };
        let presents = field("refresh_token").and_then(|token| number(&token));
        if presents.is_some() && self.is(Variant::DiscoveryAtRefresh) && self.hostile_metadata {
            exchange.url.set_host(Some("evil.example")).expect("a host");
        }
        if exchange.url.host_str() != Some("as.example") {
            self.broken("I-15", || format!("secrets go to {}", exchange.url));
        }
        let mut none = None;
        let (plan, outage) = if self.now < super::CALM || self.quiet {
            let faults = super::Faults::default();
            let calm = none.insert(super::Plan {
                faults,
                ..self.plan.clone()
            });
            (&*calm, None)
        } else {
            (&self.plan, self.outage)
        };
        let mut stands = stands_after(plan, &mut self.random);
        // How long a dead path is waited for is settled as the body leaves: who began in a hurry begins another connection.
        let waits = |at: Mono| exchange.patient_from.is_some_and(|from| at >= from);
        let patient = waits(sent_at.mono + Duration::from_millis(stands));
        if patient && !waits(sent_at.mono) {
            stands += stands_after(plan, &mut self.random);
        }
        let mut fate = fate(self.now + stands, plan, outage, &mut self.random);
        let sent_at = Now {
            wall: sent_at.wall + Duration::from_millis(stands),
            mono: sent_at.mono + Duration::from_millis(stands),
            ..sent_at
        };
        if let Some((at, Failed::Deadline)) = &mut fate.fails {
            *at = self.now + within;
        }
        if patient && let Some((at, Failed::DeadPath)) = &mut fate.fails {
            *at = self.now + within;
        }
        let id = self.calls.len();
        let epoch = self.processes[process].epoch;
        let Some(own) = self.runs[run].as_deref_mut() else {
            return;
        };
        let other = |call: &&Call| call.version == own.attempt.map(|(version, ..)| version);
        if self
            .calls
            .iter()
            .rfind(|call| call.run == run)
            .filter(other)
            .is_none()
        {
            own.calls = 0;
        }
        own.calls += 1;
        own.attempts = false;
        let (attempt, nth, early) = (own.attempt, own.calls, own.early);
        let version = attempt.map(|(version, ..)| version);
        let mut call = Call {
            run,
            step,
            process,
            epoch,
            login,
            set_out_at: self.now,
            nth,
            early,
            sent_at: self.now + stands,
            presents,
            version,
            label: attempt.and_then(|(_, attempt, _)| attempt.label),
            fate,
            noted: true,
            not_delivered: false,
            processed_at: None,
            answer: None,
            answered_at: None,
            failed: None,
        };
        if exchange.not_after.is_some_and(|end| sent_at.mono >= end) {
            return self.stays(call, sent_at);
        }
        let (label, noted) = self.check_send(run, presents, nth, call.sent_at);
        self.leaves_beside_a_trial(&call);
        self.report.calls += 1;
        self.report.labelled += u64::from(label.is_some());
        self.trace.say(self.now, || match presents {
            Some((family, number)) => format!(
                "p{process} login {login}: call {id} presents {family}.{number} {label:?} {:?}",
                call.fate
            ),
            None => format!("p{process} login {login}: call {id} presents a code"),
        });
        self.schedule_call(id, &call.fate);
        (call.label, call.noted) = (label, noted);
        self.calls.push(call);
        // The client stamps a request as it leaves; the answer carries that stamp.
        if let Some(own) = self.runs[run].as_deref_mut() {
            own.answer = Some(Answer::Exchanged(Err(failure(Failed::Deadline, sent_at))));
        }
    }

    /// The connection stood too late for a repeat: it is not sent.
    fn stays(&mut self, mut call: Call, sent_at: Now) {
        let (process, login, run, stood) = (call.process, call.login, call.run, call.sent_at);
        self.trace.say(self.now, || {
            format!("p{process} login {login}: a repeat is not sent: its connection stood too late")
        });
        if let Some(own) = self.runs[run].as_deref_mut() {
            own.calls = 0;
        }
        call.fate = Fate::default();
        call.not_delivered = true;
        call.failed = Some((stood, Failed::NotConnected));
        call.sent_at = self.now;
        self.calls.push(call);
        let late = Failure {
            fault: Fault::TooLate,
            ..failure(Failed::NotConnected, sent_at)
        };
        self.answer_at(run, stood, Answer::Exchanged(Err(late)));
    }

    fn schedule_call(&mut self, call: CallId, fate: &Fate) {
        if let Some(at) = fate.arrives {
            self.at(at, Event::AtIssuer { call });
        }
        if let Some(at) = fate.again {
            self.at(at, Event::Again { call });
        }
        if let Some(at) = fate.replies {
            self.at(at, Event::Reply { call });
        }
        if let Some((at, _)) = fate.fails {
            self.at(at, Event::Fail { call });
        }
    }

    /// The issuer reads a token request.
    pub(super) fn at_issuer(&mut self, id: CallId) {
        let Call {
            process,
            epoch,
            sent_at,
            ..
        } = self.calls[id];
        let died = self.judge.died.get(&(process, epoch));
        let connects = self.calls[id].fate.arrives.is_some();
        if !connects || died.is_some_and(|died| *died < sent_at) {
            return;
        }
        let (presents, login) = (self.calls[id].presents, self.calls[id].login);
        let was =
            presents.and_then(|(family, _)| self.issuer.families.get(family).map(|f| f.ended));
        let answer = match presents {
            Some((family, number)) => {
                self.issuer
                    .refresh(family, number, id, self.now, &mut self.random)
            }
            None => self.issuer.exchange(login, self.now),
        };
        let status = answer.status;
        self.trace
            .mark([self.now, 1_000_000, id as u64, status.into()]);
        self.trace.say(self.now, || {
            format!(
                "the issuer answers call {id}: {} {}",
                answer.status, answer.body
            )
        });
        let call = &mut self.calls[id];
        // Of a request that came twice, the sender sees the first answer.
        if call.processed_at.is_none() {
            call.processed_at = Some(self.now);
            call.answer = Some(call.fate.spoilt.clone().unwrap_or_else(|| answer.clone()));
            if call.fate.spoilt.is_some() {
                // Nobody can read what it carries.
                if let Some(answer) = &mut call.answer {
                    answer.granted = None;
                }
            }
        }
        if let Some((family, _)) = presents
            && was == Some(None)
            && self.issuer.families[family].ended.is_some()
        {
            self.judge.deaths.push((self.now, family));
        }
    }

    fn waits(&self, call: &Call) -> bool {
        call.failed.is_none()
            && call.answered_at.is_none()
            && self.runs[call.run]
                .as_deref()
                .is_some_and(|run| run.step == call.step)
    }

    /// An answer reaches its sender, if it still waits.
    pub(super) fn reply(&mut self, id: CallId) {
        let call = &self.calls[id];
        let Some(answer) = call.fate.instead.clone().or_else(|| call.answer.clone()) else {
            return;
        };
        if !self.waits(call) || call.fate.replies.is_none() {
            return;
        }
        let (run, process, epoch) = (call.run, call.process, call.epoch);
        self.calls[id].answered_at = Some(self.now);
        self.calls[id].not_delivered =
            answer.status == 429 || (answer.status == 503 && answer.retry_after.is_some());
        if let Some((family, number, _)) = answer.granted {
            let info = &mut self.issuer.families[family].refresh[number];
            info.delivered.get_or_insert((self.now, process, epoch));
        }
        self.judge
            .answered(&self.calls[id], answer.status, self.now);
        let Some(sent_at) = self.sent_at(run) else {
            return;
        };
        let mut headers = HeaderMap::new();
        if let Some(seconds) = answer.retry_after {
            headers.insert(http::header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        let reply = Reply {
            status: answer.status,
            headers,
            body: answer.body.into_bytes().into(),
            sent_at,
        };
        self.answer_at(run, self.now, Answer::Exchanged(Ok(reply)));
    }

    /// A sender gives a call up.
    pub(super) fn fail_call(&mut self, id: CallId) {
        let call = &self.calls[id];
        if !self.waits(call) {
            return;
        }
        let (run, login) = (call.run, call.login);
        let how = call.fate.fails.map_or(Failed::Broken, |(_, how)| how);
        self.calls[id].failed = Some((self.now, how));
        self.calls[id].not_delivered = how == Failed::NotConnected;
        self.judge.answered(&self.calls[id], 0, self.now);
        self.trace.say(self.now, || {
            format!("login {login}: call {id} is given up: {how:?}")
        });
        let Some(sent_at) = self.sent_at(run) else {
            return;
        };
        self.answer_at(run, self.now, Answer::Exchanged(Err(failure(how, sent_at))));
    }

    fn sent_at(&self, run: usize) -> Option<Now> {
        match self.runs[run].as_deref()?.answer.as_ref()? {
            Answer::Exchanged(Err(failure)) => Some(failure.sent_at),
            _ => None,
        }
    }

    /// The documents that a login reads, and the calls that are not for tokens.
    fn document(&mut self, exchange: &Exchange, login: usize, sent_at: Now) -> exchange::Exchanged {
        let mut headers = HeaderMap::new();
        if exchange.leg == Leg::Reach {
            // Where nothing listens, or nothing is answered, that goes for the whole issuer.
            match self.outage {
                Some(Outage::Refused) => return Err(failure(Failed::NotConnected, sent_at)),
                Some(Outage::Silent) => return Err(failure(Failed::Deadline, sent_at)),
                _ => {}
            }
        }
        let (status, body) = match exchange.leg {
            Leg::Challenge => {
                headers.insert(
                    http::header::WWW_AUTHENTICATE,
                    HeaderValue::from_static("Bearer"),
                );
                (401, String::new())
            }
            Leg::Metadata if exchange.url.path().contains("protected-resource") => {
                let resource = &self.targets[login].resource;
                (
                    200,
                    format!(r#"{{"resource":"{resource}","authorization_servers":["{ISSUER}"]}}"#),
                )
            }
            Leg::Metadata | Leg::Reach => (200, METADATA.to_owned()),
            Leg::Registration => {
                let client = self.issuer.client;
                (
                    201,
                    format!(
                        r#"{{"client_id":"client-{client}","token_endpoint_auth_method":"none"}}"#
                    ),
                )
            }
            Leg::Preflight => (302, String::new()),
            Leg::Revocation => {
                self.revoked_by_client(exchange, login);
                (200, String::new())
            }
            // No login here is on another device.
            Leg::Token | Leg::Device => (500, String::new()),
        };
        Ok(Reply {
            status,
            headers,
            body: body.into_bytes().into(),
            sent_at,
        })
    }
}

fn failure(how: Failed, sent_at: Now) -> Failure {
    let (delivery, fault) = match how {
        Failed::NotConnected => (
            Delivery::NotDelivered,
            Fault::Network(NetworkFault::Connect),
        ),
        Failed::Broken => (Delivery::Ambiguous, Fault::Network(NetworkFault::Broken)),
        Failed::DeadPath => (Delivery::Ambiguous, Fault::Network(NetworkFault::DeadPath)),
        Failed::Deadline => (
            Delivery::Ambiguous,
            Fault::Deadline(Duration::from_millis(DEADLINE)),
        ),
    };
    Failure {
        delivery,
        fault,
        host: "as.example".into(),
        sent_at,
    }
}

/// How long a look at the issuer waits for an answer.
const LOOKS_FOR: u64 = 5_000;

const METADATA: &str = r#"{"issuer":"https://as.example","authorization_endpoint":"https://as.example/authorize",
"token_endpoint":"https://as.example/token","registration_endpoint":"https://as.example/register",
"revocation_endpoint":"https://as.example/revoke","code_challenge_methods_supported":["S256"],
"token_endpoint_auth_methods_supported":["none"]}"#;
