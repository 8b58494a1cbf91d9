//! People: they log in when asked, and at bad moments; they log out; they approve more scopes.

use std::time::Duration;

use pilotlight_core::{
    exchange::Exchange,
    flow::{
        Device, Flow, Prompt, Redirect,
        login::{self, Login},
        logout::{self, Logout},
    },
    memory::Want,
    scope::Scopes,
};

use super::{CALM, Event, Loss, LossClass, Run, World, acts::AnyFlow, judge::number};

/// What a person does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum What {
    Login,
    Logout,
    /// The server asks for more scopes from now on.
    WantMore,
}

/// Presses the right button.
pub(super) fn approve(prompt: &Prompt) -> Vec<(String, String)> {
    let state = prompt.state.expose().to_owned();
    vec![("code".into(), "c".into()), ("state".into(), state)]
}

impl World {
    pub(super) fn person(&mut self, login: usize, what: What) {
        match what {
            What::Login => self.begin_login(login),
            What::Logout => self.begin_logout(login),
            What::WantMore => self.targets[login].wants_more = true,
        }
    }

    fn somebody(&mut self) -> Option<usize> {
        if self.now < CALM && self.processes.first().is_some_and(|process| process.alive) {
            return Some(0);
        }
        let ready: Vec<usize> = (0..self.processes.len())
            .filter(|p| self.processes[*p].alive && !self.processes[*p].paused)
            .collect();
        ready
            .get(self.random.below(ready.len() as u64) as usize)
            .copied()
    }

    fn begin_login(&mut self, login: usize) {
        if self.targets[login].login.is_some() {
            return;
        }
        let Some(process) = self.somebody() else {
            return self.after(
                5_000,
                Event::Person {
                    login,
                    what: What::Login,
                },
            );
        };
        let stored = self.store.rows[login].binding.clone();
        let target = &self.targets[login];
        let task = login::Task {
            binding: stored.unwrap_or_else(|| target.binding.clone()),
            challenge: None,
            scopes: target
                .wants_more
                .then(|| Scopes::parse("more"))
                .or_else(|| target.scopes.clone()),
            client: None,
            client_metadata_url: None,
            client_key: None,
            without_resource: None,
            issuer: None,
            trusts_server: false,
            client_name: "Pilotlight".into(),
            redirect: Redirect::default(),
            device: Device::Never,
            authorize_params: Vec::new(),
            human_wait: Duration::from_secs(600),
            process: self.process_id(process),
            proof_key: None,
            unattended: None,
            refused: None,
            entropy: [
                self.random.bytes(),
                self.random.bytes(),
                self.random.bytes(),
            ],
        };
        self.trace.say(self.now, || {
            format!("p{process} login {login}: a person logs in")
        });
        let flow = AnyFlow::Login(Box::new(Login::new(task)));
        let run = self.begin_run(process, login, flow, Want::default());
        if self.runs[run].is_some() {
            self.targets[login].login = Some(run);
        }
    }

    pub(super) fn logged_in(&mut self, _id: usize, run: &Run, done: <Login as Flow>::Outcome) {
        let Run { process, login, .. } = *run;
        let target = &mut self.targets[login];
        (target.login, target.person_called) = (None, false);
        match done {
            Ok(done) => {
                (target.logged_out, target.wants_more) = (false, false);
                self.report.sessions += 1;
                self.judge.served(login, self.now);
                let generation = done.credential.version.generation.0;
                self.trace.say(self.now, || {
                    format!("p{process} login {login}: logged in, generation {generation}")
                });
                drop(self.load(process, login));
            }
            Err(error) => {
                self.trace.say(self.now, || {
                    format!("p{process} login {login}: the login fails: {error}")
                });
                if self.store.rows[login].newest().is_none() {
                    self.after(
                        60_000,
                        Event::Person {
                            login,
                            what: What::Login,
                        },
                    );
                }
            }
        }
    }

    fn begin_logout(&mut self, login: usize) {
        let Some(process) = self.somebody() else {
            return;
        };
        if self.targets[login].logged_out || self.targets[login].login.is_some() {
            return;
        }
        let task = logout::Task {
            key: self.targets[login].key.clone(),
            local: self.random.chance(0.2),
            process: self.process_id(process),
        };
        self.targets[login].logged_out = true;
        self.trace.say(self.now, || {
            format!("p{process} login {login}: a person logs out")
        });
        let flow = AnyFlow::Logout(Box::new(Logout::new(task)));
        self.begin_run(process, login, flow, Want::default());
        let later = self.random.between(60_000, 300_000);
        self.after(
            later,
            Event::Person {
                login,
                what: What::Login,
            },
        );
    }

    pub(super) fn logged_out(&mut self, run: &Run, done: <Logout as Flow>::Outcome) {
        let Run { process, login, .. } = *run;
        self.trace.say(self.now, || {
            format!("p{process} login {login}: logged out: {done:?}")
        });
        if self.store.rows[login].newest().is_some() {
            self.targets[login].logged_out = false;
        } else {
            drop(self.load(process, login));
        }
    }

    /// A program hands a grant back. What it hands back must not be what anybody uses.
    pub(super) fn revoked_by_client(&mut self, exchange: &Exchange, login: usize) {
        let token = url::form_urlencoded::parse(&exchange.body)
            .find(|(name, _)| name == "token")
            .and_then(|(_, token)| number(&token));
        let Some((family, _)) = token else {
            return;
        };
        let used = self.store.rows[login]
            .newest()
            .and_then(|credential| credential.refresh_token.as_ref())
            .and_then(|token| number(token.expose()));
        if used.is_some_and(|(current, _)| current == family)
            && self.issuer.families[family].ended.is_none()
            // A store that has lost a logout holds again what the person gave up.
            && !self.targets[login].buried_at.is_some_and(|buried| {
                self.judge.past.has_lost(login, buried, self.now)
            })
        {
            let story = format!("grant {family} is in use and was handed back");
            self.report.losses.push(Loss {
                class: LossClass::Avoidable,
                at: self.now,
                story,
            });
        }
        self.trace.say(self.now, || {
            format!("login {login}: grant {family} is handed back")
        });
        self.issuer.revoke(family);
    }
}
