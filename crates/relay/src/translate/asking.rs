//! Which of the two is of which era: the server is asked where a host of the new era begins, or where a refusal leaves it open.

use std::{collections::VecDeque, sync::Arc};

use bytes::Bytes;
use http::HeaderMap;

use super::{Machine, Mode, Permit, Waiting, era_of, identity};
use crate::{
    bridge::Core,
    era::{
        Era, NEW, NewHost, OldHost, Stateless,
        detect::{self, Asked, Discovery, Verdict},
    },
    message::{Id as MessageId, Message},
    refusal::Fault,
    scan::{Kind, Scan},
    upstream::{Place, refused},
};

impl Core {
    /// Asks the server what it speaks, for a host of the new era, and begins with what the host has said meanwhile.
    pub(crate) async fn ask_era(self: &Arc<Self>, first: Bytes) {
        let old = match self.asked_era(&first).await {
            Ok(Verdict::Legacy) => true,
            Ok(Verdict::TrySse) => self.begin_sse().await.is_ok(),
            Ok(_) => false,
            Err(fault) => return self.not_told(&fault).await,
        };
        let machine: Box<dyn Machine> = match old {
            true => Box::new(NewHost::new(identity(), self.new_tools())),
            false => Box::new(Stateless::new(self.new_tools())),
        };
        self.put_to_work(machine);
    }

    /// The server could not be asked. Whoever waits hears why, and the next message has it asked again: an era that was guessed
    /// would hold for the life of the process. A host that has fallen back meanwhile goes on from there (TR-16).
    async fn not_told(self: &Arc<Self>, fault: &Fault) {
        tracing::info!(
            code = fault.code(),
            "the server could not be asked what it speaks"
        );
        let waiting = {
            let mut mode = self.translation.mode();
            let Mode::Asking(waiting) = &mut *mode else {
                return;
            };
            let mut waiting = std::mem::take(waiting);
            *mode = Mode::Undecided;
            let is_old = |(message, _): &Waiting| era_of(message) == Some(Era::Old);
            if let Some(first) = waiting.iter().position(is_old) {
                *mode = Mode::Passing;
                // It keeps its place: nothing passes while the mode is held.
                for (message, permit) in waiting.split_off(first) {
                    self.pass_on(message, permit);
                }
            }
            waiting
        };
        self.refuse_all(waiting, fault).await;
    }

    pub(super) async fn refuse_all(&self, waiting: VecDeque<Waiting>, fault: &Fault) {
        for (message, _) in waiting {
            let peek = Scan::of(&message);
            if let (Kind::Request, Some(id)) = (peek.kind, &peek.id) {
                let answer = fault.answer(Some(id), &self.config.login_command);
                // A host that has gone is noticed elsewhere.
                drop(self.out.message(&answer).await);
            }
        }
    }

    /// Begins to translate for a host of the old era; tells whether the server is one of the new.
    pub(crate) async fn translated(
        self: &Arc<Self>,
        initialize: &Bytes,
        status: u16,
        body: &Bytes,
        permit: &Permit,
    ) -> bool {
        let permit = Some(permit.clone());
        let known = match detect::detect(Asked::Initialize, status, body) {
            Verdict::Modern(known) => known,
            Verdict::Retry(_) => None,
            _ => return false,
        };
        self.translate_for_old(initialize, known, permit);
        true
    }

    /// The same, where the answer to `initialize` does not tell: the server is asked.
    pub(crate) async fn translated_if_asked(
        self: &Arc<Self>,
        initialize: &Bytes,
        permit: Option<Permit>,
    ) -> bool {
        let Ok(Verdict::Modern(known)) = self.asked_era(initialize).await else {
            return false;
        };
        self.translate_for_old(initialize, known, permit);
        true
    }

    fn translate_for_old(
        self: &Arc<Self>,
        initialize: &Bytes,
        known: Option<Discovery>,
        permit: Option<Permit>,
    ) {
        tracing::info!("the server knows no sessions; the host is translated for");
        // What it may have called one is of the era that it does not speak.
        self.wire.begin(&HeaderMap::new());
        let machine = OldHost::new(identity(), self.new_tools(), known);
        let waiting = [(initialize.clone(), permit)];
        *self.translation.mode() = Mode::Asking(waiting.into());
        self.put_to_work(Box::new(machine));
    }

    /// Asks the server what it speaks; a fault where that tells nothing.
    async fn asked_era(self: &Arc<Self>, first: &Bytes) -> Result<Verdict, Fault> {
        let message = Message::read(first.clone()).ok();
        let id = MessageId::of_text("pilotlight-probe");
        let probe = detect::probe(&id, message.as_ref(), &identity());
        let read = Message::read(probe.clone()).ok();
        let wanted = read.and_then(|read| crate::headers::of(&read, NEW, &[]).ok());
        let mut fields = HeaderMap::new();
        fields.extend(wanted.unwrap_or_default());
        let response = Box::pin(self.post(&probe, &fields, Place::Alone)).await?;
        let status = response.status().as_u16();
        if response.status().is_success() {
            let answer = Box::pin(self.own_answer(response)).await?;
            return Ok(detect::detect(Asked::New, status, &answer));
        }
        let told = refused(response).await;
        let body = match &told {
            Fault::Status { error, .. } => error.clone().unwrap_or_default(),
            _ => Bytes::new(),
        };
        match detect::detect(Asked::New, status, &body) {
            Verdict::Challenge | Verdict::Unavailable => Err(told),
            verdict => Ok(verdict),
        }
    }
}
