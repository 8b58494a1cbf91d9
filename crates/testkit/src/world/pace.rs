//! The pace of calls while they fail (I-9).

use pilotlight_core::attempt::Label;

use super::{World, judge::Judge, network::Call, plan::Kind};

/// The failures of one grant, since its last success.
#[derive(Debug, Clone, Default)]
pub(super) struct Failing {
    grant: usize,
    /// When the last call ended.
    last: Option<u64>,
    /// When those of the last hour left.
    calls: Vec<u64>,
}

impl Judge {
    /// A token call has ended, for its sender.
    pub(super) fn answered(&mut self, call: &Call, status: u16, now: u64) {
        let Some((grant, _)) = call.presents else {
            return;
        };
        let granted = call
            .answer
            .as_ref()
            .is_some_and(|answer| answer.granted.is_some());
        let failing = &mut self.failing[call.login];
        if failing.grant != grant || (status == 200 && granted && call.failed.is_none()) {
            *failing = Failing {
                grant,
                ..Failing::default()
            };
        }
        if status == 200 && granted && call.failed.is_none() {
            return;
        }
        failing.last = Some(now);
        if !matches!(status, 400 | 401) {
            failing.calls.push(call.sent_at);
        }
    }
}

impl World {
    /// I-9: the pace of calls while they fail. A clock that jumps binds nobody, so it is left out there.
    pub(super) fn check_pace(&mut self, login: usize, grant: usize, label: Option<Label>) {
        // Who dies before it can note a failure tells nobody of it.
        let jumps = [Kind::Reboot, Kind::Crash]
            .iter()
            .any(|kind| self.plan.has(*kind));
        let unsure = self.plan.has(Kind::DiskBroken)
            || self.plan.has(Kind::StoreLostAnswer)
            || self.plan.has(Kind::RollBack);
        if jumps || unsure || self.plan.has(Kind::DiskFull) {
            return;
        }
        let failing = &mut self.judge.failing[login];
        if failing.grant != grant {
            return;
        }
        let now = self.now;
        failing.calls.retain(|at| now - at < 3_600_000);
        let (last, calls) = (failing.last, failing.calls.len());
        let repeats = label == Some(Label::RetryAmbiguous);
        if !repeats && last.is_some_and(|at| now - at < 500) {
            self.broken("I-9", || {
                "a call follows a failure within half a second".into()
            });
        }
        if calls >= 24 {
            self.broken("I-9", || format!("{calls} failing calls within an hour"));
        }
    }
}
