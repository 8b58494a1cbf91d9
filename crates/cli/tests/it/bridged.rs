//! `pilotlight proxy` as a host runs it: a process of its own, with lines in and lines out.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::cli::Machine;

/// A bridge process, and the host that started it.
pub(crate) struct Bridged {
    pub(crate) child: Child,
    pub(crate) stdin: Option<ChildStdin>,
    lines: Receiver<String>,
    errors: Arc<Mutex<String>>,
    early: HashMap<String, Value>,
}

impl Bridged {
    /// Starts a bridge to the machine's server. A browser that opens is noted.
    pub(crate) fn start(machine: &Machine, more: &[&str]) -> Self {
        Self::start_with(machine, more, &[])
    }

    /// The same, with more in its environment.
    pub(crate) fn start_with(
        machine: &Machine,
        more: &[&str],
        variables: &[(&str, &OsStr)],
    ) -> Self {
        let note = machine.home.beside("bridge-browsers");
        let script = format!("echo \"$1\" >>'{}'", note.display());
        let browser = machine.home.script("bridge-browser", &script);
        let mut child = Command::new(env!("CARGO_BIN_EXE_pilotlight"))
            .args(["proxy", machine.url()])
            .args(more)
            .env_clear()
            .env("HOME", machine.home.beside("home"))
            .env("PILOTLIGHT_HOME", machine.home.data())
            .env("PATH", std::env::var("PATH").unwrap())
            .env("BROWSER", browser)
            .envs(variables.iter().copied())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the bridge starts");
        let (sender, lines) = channel();
        let stdout = child.stdout.take().unwrap();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let errors = Arc::<Mutex<String>>::default();
        let (stderr, copy) = (child.stderr.take().unwrap(), errors.clone());
        thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                *copy.lock().unwrap() += &(line + "\n");
            }
        });
        Self {
            stdin: child.stdin.take(),
            child,
            lines,
            errors,
            early: HashMap::new(),
        }
    }

    /// Starts one that has shaken hands.
    pub(crate) fn ready(machine: &Machine) -> Self {
        let mut bridge = Self::start(machine, &[]);
        bridge.begin();
        bridge.welcomed();
        bridge
    }

    pub(crate) fn begin(&mut self) {
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": { "name": "h", "version": "1" },
        });
        self.ask("init", "initialize", &params);
    }

    pub(crate) fn welcomed(&mut self) {
        let answer = self.answer("init");
        assert!(answer["result"].is_object(), "{answer}\n{}", self.errors());
        self.say(&json!({ "jsonrpc": "2.0", "method": "notifications/initialized" }));
    }

    pub(crate) fn say(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().unwrap();
        stdin
            .write_all(format!("{message}\n").as_bytes())
            .expect("the bridge reads");
    }

    pub(crate) fn ask(&mut self, id: &str, method: &str, params: &Value) {
        self.say(&json!({ "jsonrpc": "2.0", "id": id, "method": method, "params": params }));
    }

    pub(crate) fn call(&mut self, id: &str) {
        self.ask(
            id,
            "tools/call",
            &json!({ "name": "echo", "arguments": { "text": id } }),
        );
    }

    /// The answer to a request; what else comes first is kept.
    pub(crate) fn answer(&mut self, id: &str) -> Value {
        self.answer_within(id, Duration::from_secs(100))
    }

    pub(crate) fn answer_within(&mut self, id: &str, limit: Duration) -> Value {
        let until = Instant::now() + limit;
        loop {
            if let Some(answer) = self.early.remove(id) {
                return answer;
            }
            let left = until.saturating_duration_since(Instant::now());
            let Ok(line) = self.lines.recv_timeout(left) else {
                panic!("no answer to {id} in {limit:?}\n{}", self.errors());
            };
            let message: Value = serde_json::from_str(&line)
                .unwrap_or_else(|error| panic!("stdout holds {line:?}: {error}"));
            if let Some(id) = message["id"]
                .as_str()
                .filter(|_| message["method"].is_null())
            {
                self.early.insert(id.to_owned(), message.clone());
            }
        }
    }

    /// The answer, which must be the result of the call with this id.
    pub(crate) fn echoed(&mut self, id: &str) {
        let answer = self.answer(id);
        assert_eq!(
            answer["result"]["content"][0]["text"],
            *id,
            "{answer}\n{}",
            self.errors()
        );
    }

    pub(crate) fn errors(&self) -> String {
        self.errors.lock().unwrap().clone()
    }

    /// The exit code once it has ended.
    pub(crate) fn ended(&mut self) -> Option<i32> {
        let until = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return status.code();
            }
            assert!(Instant::now() < until, "it still runs\n{}", self.errors());
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Bridged {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// How many browsers the bridges of a machine have opened.
pub(crate) fn browsers(machine: &Machine) -> usize {
    crate::support::read(&machine.home.beside("bridge-browsers"))
        .lines()
        .count()
}
