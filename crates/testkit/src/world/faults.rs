//! What goes wrong at an instant, whatever anybody does: processes, clocks, disks, the issuer.

use std::time::Duration;

use pilotlight_core::attempt::repeat_window;

use super::{
    CALM, Event, Kind, Level, Loss, LossClass, Outage, World, network::Failed, people::What,
    store::Health,
};

/// A timed fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Timed {
    Crash {
        process: usize,
        back_after: u64,
    },
    Pause {
        process: usize,
        lasts: u64,
    },
    /// The whole machine sleeps.
    Sleep {
        lasts: u64,
    },
    ClockJump {
        by: i64,
    },
    ClockRight,
    Reboot {
        lasts: u64,
    },
    Outage {
        how: Outage,
        lasts: u64,
    },
    OutageOver,
    Disk(Health, u64),
    DiskWell,
    Stall {
        lasts: u64,
    },
    RollBack {
        writes: usize,
    },
    IssuerRestart,
    Revoke {
        login: usize,
    },
    ForgetClient,
    RefuseAll {
        lasts: u64,
    },
    EndAccess {
        login: usize,
    },
    Hostile,
    Roam,
    Ambush(Ambush),
    Quiet,
}

/// Whoever next takes this step of a flow is killed or stopped just before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Ambush {
    pub(super) step: u32,
    pub(super) crashes: bool,
    pub(super) lasts: u64,
}

impl World {
    pub(super) fn schedule_faults(&mut self) {
        let harsh = self.setup.level == Level::Harsh;
        for kind in Kind::ALL {
            let most: u64 = match (kind, harsh) {
                (Kind::Crash, true) => 6,
                (Kind::Pause, true) => 4,
                (Kind::ClockJump, true) => 3,
                (_, true) => 2,
                (Kind::Crash | Kind::Pause | Kind::Roaming | Kind::EarlyEnd, false) => {
                    3 * u64::from(self.plan.times)
                }
                (Kind::Logout | Kind::Login | Kind::StepUp | Kind::Revocation, false) => 2,
                (_, false) => u64::from(self.plan.times),
            };
            // Drawn for every kind, so that a seed without one is the same run otherwise.
            let count = self.random.between(u64::from(!harsh), most);
            for _ in 0..count {
                let at = self.random.between(CALM, self.plan.length);
                let event = self.draw(*kind, harsh);
                if let Some(event) = event.filter(|_| self.plan.has(*kind)) {
                    self.at(at, event);
                }
            }
        }
        self.at(self.plan.length, Event::Fault(Timed::Quiet));
    }

    fn draw(&mut self, kind: Kind, harsh: bool) -> Option<Event> {
        let processes = self.processes.len() as u64;
        let logins = self.targets.len() as u64;
        let random = &mut self.random;
        let (process, login) = (
            random.below(processes) as usize,
            random.below(logins) as usize,
        );
        let (number, which) = (random.f64(), random.below(4));
        let upto = |most: f64| (number * most) as u64 + 1;
        let signed = |most: f64| ((number - 0.5) * 2.0 * most) as i64;
        Some(match kind {
            Kind::Crash | Kind::Pause if which != 0 && !harsh => {
                let crashes = kind == Kind::Crash;
                let lasts = upto(if crashes { 60_000.0 } else { 90_000.0 });
                // A refresh has six steps if nothing goes wrong, a login fifteen.
                let most = if which == 1 { 16 } else { 7 };
                let step = 1 + random.below(most) as u32;
                Event::Fault(Timed::Ambush(Ambush {
                    step,
                    crashes,
                    lasts,
                }))
            }
            Kind::Crash => Event::Fault(Timed::Crash {
                process,
                back_after: upto(60_000.0),
            }),
            Kind::Pause if which == 0 && !harsh => Event::Fault(Timed::Sleep {
                lasts: upto(1_800_000.0),
            }),
            Kind::Pause => Event::Fault(Timed::Pause {
                process,
                lasts: upto(90_000.0),
            }),
            Kind::ClockJump if which == 0 && !harsh => {
                Event::Fault(Timed::ClockJump { by: signed(3.2e11) })
            }
            Kind::ClockJump => Event::Fault(Timed::ClockJump {
                by: signed(600_000.0),
            }),
            Kind::Reboot => Event::Fault(Timed::Reboot {
                lasts: 10_000 + upto(120_000.0),
            }),
            Kind::Outage => {
                let how = match which {
                    0 => Outage::Refused,
                    1 => Outage::Unavailable {
                        retry_after: (number < 0.5).then(|| upto(120.0)),
                    },
                    2 => Outage::Failing,
                    _ => Outage::Silent,
                };
                Event::Fault(Timed::Outage {
                    how,
                    lasts: upto(400_000.0),
                })
            }
            Kind::DiskFull => Event::Fault(Timed::Disk(
                Health::Full,
                upto(if harsh { 60_000.0 } else { 900_000.0 }),
            )),
            Kind::DiskBroken => Event::Fault(Timed::Disk(Health::Broken, upto(600_000.0))),
            Kind::StoreStall => Event::Fault(Timed::Stall {
                lasts: upto(15_000.0),
            }),
            Kind::RollBack => Event::Fault(Timed::RollBack {
                writes: 1 + which as usize,
            }),
            Kind::IssuerRestart => Event::Fault(Timed::IssuerRestart),
            Kind::Revocation => Event::Fault(Timed::Revoke { login }),
            Kind::RegistrationForgotten => Event::Fault(Timed::ForgetClient),
            Kind::ServerRefusesAll => Event::Fault(Timed::RefuseAll {
                lasts: upto(600_000.0),
            }),
            Kind::EarlyEnd => Event::Fault(Timed::EndAccess { login }),
            Kind::HostileMetadata => Event::Fault(Timed::Hostile),
            Kind::Roaming => Event::Fault(Timed::Roam),
            Kind::Login => Event::Person {
                login,
                what: What::Login,
            },
            Kind::Logout => Event::Person {
                login,
                what: What::Logout,
            },
            Kind::StepUp => Event::Person {
                login,
                what: What::WantMore,
            },
            _ => return None,
        })
    }

    pub(super) fn fault(&mut self, fault: Timed) {
        if self.quiet {
            return;
        }
        self.trace.say(self.now, || format!("** {fault:?}"));
        let over = |lasts: u64, fault| (lasts, Event::Fault(fault));
        match fault {
            Timed::Crash {
                process,
                back_after,
            } => {
                self.crash(process);
                self.after(back_after, Event::Start { process });
            }
            Timed::Pause { process, lasts } => self.pause(process, lasts),
            Timed::Sleep { lasts } => {
                (0..self.processes.len()).for_each(|process| self.pause(process, lasts));
                self.roam();
            }
            Timed::ClockJump { by } => self.set_wall(self.machine.wall_offset + by),
            Timed::ClockRight => self.set_wall(0),
            Timed::Reboot { lasts } => {
                for process in 0..self.processes.len() {
                    self.crash(process);
                    self.after(lasts, Event::Start { process });
                }
                self.machine.boot += 1;
                self.machine.booted_at = self.now;
                if self.plan.has(Kind::ClockJump) {
                    // No battery: 1970, until the network says what time it is.
                    self.set_wall(-((super::START_WALL + self.now) as i64) + 1_000);
                    self.after(lasts + 45_000, Event::Fault(Timed::ClockRight));
                }
            }
            Timed::Outage { how, lasts } => {
                self.outage = Some(how);
                let (lasts, event) = over(lasts, Timed::OutageOver);
                self.after(lasts, event);
            }
            Timed::OutageOver => self.outage = None,
            Timed::Disk(health, lasts) => {
                self.set_disk(health);
                self.after(lasts, Event::Fault(Timed::DiskWell));
            }
            Timed::DiskWell => self.set_disk(Health::Well),
            Timed::Stall { lasts } => {
                self.stalled_until = self.now + lasts;
                self.judge.past.stalled(self.now, self.stalled_until);
            }
            Timed::RollBack { writes } => {
                for (login, written_at) in self.store.roll_back(writes) {
                    self.judge.rolled_back(login, written_at, self.now);
                }
                self.store.commits += 1;
            }
            Timed::IssuerRestart => {
                let before: Vec<bool> = self
                    .issuer
                    .families
                    .iter()
                    .map(|f| f.ended.is_none())
                    .collect();
                self.issuer.restart(self.now.saturating_sub(60_000));
                for (family, alive) in before.into_iter().enumerate() {
                    if alive && self.issuer.families[family].ended.is_some() {
                        self.decided_by_issuer(family, "the issuer forgot its last rotation");
                    }
                }
            }
            Timed::Revoke { login } => {
                if let Some(family) = self.current_family(login) {
                    self.issuer.revoke(family);
                    self.decided_by_issuer(family, "the issuer revoked it");
                }
            }
            Timed::ForgetClient => {
                self.trial_is_hidden();
                self.issuer.client += 1;
                for login in 0..self.targets.len() {
                    if let Some(family) = self.current_family(login) {
                        self.decided_by_issuer(family, "the issuer forgot this client");
                    }
                }
            }
            Timed::RefuseAll { lasts } => self.server_refuses_until = self.now + lasts,
            Timed::EndAccess { login } => self.issuer.end_access(login),
            Timed::Hostile => self.hostile_metadata = true,
            Timed::Roam => self.roam(),
            Timed::Ambush(ambush) => self.ambushes.push(ambush),
            Timed::Quiet => self.heal(),
        }
    }

    /// What lay in wait for a process comes over it in the middle of something; people have a way of logging in just there
    /// and then.
    pub(super) fn spring(
        &mut self,
        process: usize,
        login: Option<usize>,
        crashes: bool,
        lasts: u64,
    ) {
        self.trace.say(self.now, || {
            format!(
                "** p{process} is {}",
                if crashes { "killed" } else { "stopped" }
            )
        });
        if crashes {
            self.crash(process);
            self.after(lasts, Event::Start { process });
        } else {
            self.pause(process, lasts);
        }
        if self.plan.has(Kind::Login) {
            let any = self.random.below(self.targets.len() as u64) as usize;
            let login = login.filter(|_| self.random.chance(0.7)).unwrap_or(any);
            let soon = self.random.between(500, 5_000);
            let what = What::Login;
            self.after(soon, Event::Person { login, what });
        }
    }

    fn decided_by_issuer(&mut self, family: usize, story: &str) {
        let story = format!("grant {family}: {story}");
        self.report.losses.push(Loss {
            class: LossClass::Revoked,
            at: self.now,
            story,
        });
    }

    /// The grant that a login lives from.
    pub(super) fn current_family(&self, login: usize) -> Option<usize> {
        let live = |family: &usize| {
            let grant = &self.issuer.families[*family];
            grant.login == login && grant.ended.is_none()
        };
        (0..self.issuer.families.len()).rev().find(live)
    }

    fn crash(&mut self, process: usize) {
        let own = &mut self.processes[process];
        if !std::mem::replace(&mut own.alive, false) {
            return;
        }
        let (epoch, at) = (own.epoch, if own.paused { own.paused_at } else { self.now });
        own.paused = false;
        own.deferred.clear();
        self.judge.died.insert((process, epoch), at);
        self.judge.past.goes_on(process, self.now);
        for lock in 0..self.locks.len() {
            self.unlock(lock, |(p, e, _)| (p, e) == (process, epoch));
        }
        // What a run of it had found out may be noted nowhere.
        let of_it = |run: &usize| {
            let run = self.runs[*run].as_deref();
            run.is_some_and(|run| (run.process, run.epoch) == (process, epoch))
        };
        let dead = (0..self.runs.len()).filter(of_it);
        self.judge.untold.extend(dead);
        for login in 0..self.targets.len() {
            let of_dead = |run: usize| {
                self.runs[run]
                    .as_deref()
                    .is_none_or(|run| run.process == process)
            };
            if self.targets[login].login.is_some_and(of_dead) {
                (self.targets[login].login, self.targets[login].person_called) = (None, false);
                if self.store.rows[login].newest().is_none() {
                    self.after(
                        30_000,
                        Event::Person {
                            login,
                            what: What::Login,
                        },
                    );
                }
            }
        }
    }

    fn pause(&mut self, process: usize, lasts: u64) {
        let own = &mut self.processes[process];
        if own.alive && !own.paused {
            (own.paused, own.paused_at) = (true, self.now);
            self.judge.past.stopped(process, self.now);
            self.after(lasts, Event::Resume { process });
        }
    }

    pub(super) fn resume(&mut self, process: usize) {
        let own = &mut self.processes[process];
        if !std::mem::replace(&mut own.paused, false) {
            return;
        }
        let deferred = std::mem::take(&mut own.deferred);
        self.judge.past.goes_on(process, self.now);
        for event in deferred {
            self.at(self.now, event);
        }
    }

    /// Every connection dies: what is in flight may still reach the issuer, and is never answered.
    fn roam(&mut self) {
        for id in 0..self.calls.len() {
            let call = &mut self.calls[id];
            if call.failed.is_some()
                || call.answered_at.is_some()
                || call.sent_at + super::network::DEADLINE < self.now
            {
                continue;
            }
            call.fate.replies = None;
            let found = self.now + self.random.between(8_400, 10_000);
            let how = if call.sent_at > self.now {
                // Its connection does not stand yet, and never will.
                call.fate.arrives = None;
                Failed::NotConnected
            } else {
                Failed::DeadPath
            };
            call.fate.fails = Some((found, how));
            self.at(found, Event::Fail { call: id });
        }
    }

    fn set_wall(&mut self, offset: i64) {
        let windows = |world: &mut Self| -> Vec<Option<Duration>> {
            let clocks = (0..world.processes.len()).map(|process| world.clock(process).wall);
            let clocks: Vec<_> = clocks.collect();
            let limit = world.setup.policy.repeat_limit;
            let notes = &world.store.notes;
            let window = |wall| repeat_window(notes.grace(wall), limit);
            clocks.into_iter().map(window).collect()
        };
        let before = windows(self);
        self.machine.wall_offset = offset;
        self.judge.past.jumped_at = Some(self.now);
        // A lesson that seemed to be a month old counts again.
        let after = windows(self);
        if after
            .iter()
            .zip(&before)
            .any(|(after, before)| after < before)
        {
            self.judge.past.narrowed(self.now);
        }
    }

    fn set_disk(&mut self, health: Health) {
        self.store.health = health;
        self.judge.past.disk(health, self.now);
    }

    /// Faults are over.
    fn heal(&mut self) {
        self.quiet = true;
        self.outage = None;
        self.ambushes.clear();
        self.set_disk(Health::Well);
        self.stalled_until = 0;
        self.server_refuses_until = 0;
        self.hostile_metadata = false;
        self.set_wall(0);
        for process in 0..self.processes.len() {
            self.resume(process);
            if !self.processes[process].alive {
                self.after(1_000, Event::Start { process });
            }
        }
    }
}
