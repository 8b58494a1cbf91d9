//! mcp-remote 0.15.1 itself and `pilotlight proxy`, in turn on one login.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::peers::{Peers, folder, seconds};
use crate::support::{Home, read, until};

/// Storm case (j), I-1, I-10, F-22: a login that mcp-remote made, used by it and by ours, both running on, in turn over ten
/// expiries, with single-use refresh tokens whose reuse ends the grant: every call is answered, nobody is asked again, and no
/// token is spent twice.
#[test]
fn mcp_remote_and_ours_in_turn_on_one_login() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "6"), ("ROTATE", "always")]) else {
        return;
    };
    let home = Home::new();
    let auth = home.beside("mcp-auth");
    let mut theirs = Host::mcp_remote(&peers, &home, &auth);
    theirs.initialize();
    let mut ours = Host::pilotlight(&peers, &home, &auth, &[]);
    ours.initialize();
    assert!(
        ours.said().contains("shared with mcp-remote"),
        "{}",
        ours.said()
    );
    assert_eq!(home.session()["flags"], json!(["shared with mcp-remote"]));
    for expiry in 1..=10 {
        let (first, second) = match expiry % 2 {
            0 => (&mut theirs, &mut ours),
            _ => (&mut ours, &mut theirs),
        };
        for host in [first, second] {
            let text = format!("{} {expiry}", host.name);
            assert_eq!(host.echo(&text), text);
        }
        until("the token expires", seconds(20), || {
            (ends_at(&auth)? < now_ms()).then_some(())
        });
    }
    let issuer = peers.issuer();
    assert_eq!(issuer.code_ok, 1, "nobody was asked again: {issuer:?}");
    assert!(
        issuer.refresh_ok >= 10 && issuer.refresh_err == 0,
        "{issuer:?}"
    );
    assert_eq!(peers.browsers(&home), 1, "only mcp-remote's login");
    assert_eq!(theirs.said().matches("Please authorize").count(), 1);
    assert_eq!(peers.server().echoed.len(), 20);
    assert_eq!((theirs.end(), ours.end()), (Some(0), Some(0)));
    peers.assert_clean(&home);
}

/// `import mcp-remote --move`: the login is ours alone, and lives on; mcp-remote has nothing left to spend.
#[test]
fn a_login_of_mcp_remote_is_moved() {
    let Some(peers) = Peers::start(&[("ACCESS_TTL", "6"), ("ROTATE", "always")]) else {
        return;
    };
    let home = Home::new();
    let auth = home.beside("mcp-auth");
    let mut theirs = Host::mcp_remote(&peers, &home, &auth);
    theirs.initialize();
    assert_eq!(theirs.end(), Some(0));
    let import = |args: &[&str]| {
        home.pilotlight(args)
            .env("MCP_REMOTE_CONFIG_DIR", &auth)
            .run()
    };
    let shared = import(&["import", "mcp-remote", peers.url(), "--json"])
        .ok()
        .json();
    assert_eq!(
        shared["shared"].as_array().map(Vec::len),
        Some(1),
        "{shared}"
    );
    let moved = import(&["import", "mcp-remote", "--move", "--json"])
        .ok()
        .json();
    assert_eq!(moved["moved"].as_array().map(Vec::len), Some(1), "{moved}");
    assert_eq!(home.session()["flags"], json!([]));
    assert!(tokens(&auth).is_none());
    until("the token expires", seconds(20), || {
        (home.session()["state"] == "expired").then_some(())
    });
    peers.call(&home).run().ok();
    assert_eq!(peers.issuer().code_ok, 1);
    peers.assert_clean(&home);
}

/// An MCP host on the other end of a bridge's stdio, of the year 2025.
struct Host {
    name: &'static str,
    child: Child,
    stdin: Option<ChildStdin>,
    messages: mpsc::Receiver<Value>,
    said: Arc<Mutex<String>>,
    next: u64,
}

impl Host {
    fn mcp_remote(peers: &Peers, home: &Home, auth: &Path) -> Self {
        // It prints the URL as well as opening it: the person reads it there.
        let browser = peers.browser(home);
        let mut program = Command::new(folder().join("start"));
        program.args(["mcp-remote", peers.url()]);
        let npm_cache = std::env::var_os("HOME").unwrap_or_default();
        program.env("HOME", npm_cache).env("BROWSER", "/bin/false");
        Self::start("theirs", program, auth, Some(browser))
    }

    fn pilotlight(peers: &Peers, home: &Home, auth: &Path, flags: &[&str]) -> Self {
        let mut program = Command::new(env!("CARGO_BIN_EXE_pilotlight"));
        program.args(["proxy", peers.url()]).args(flags).env_clear();
        program
            .env("HOME", home.beside("home"))
            .env("PILOTLIGHT_HOME", home.data())
            .env("BROWSER", peers.browser(home))
            .env(
                "PATH",
                std::env::var_os("PATH").unwrap_or_else(|| OsString::from("/usr/bin")),
            );
        Self::start("ours", program, auth, None)
    }

    fn start(
        name: &'static str,
        mut program: Command,
        auth: &Path,
        reader: Option<PathBuf>,
    ) -> Self {
        let mut child = program
            .env("MCP_REMOTE_CONFIG_DIR", auth)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the bridge starts");
        let (sends, messages) = mpsc::channel();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        thread::spawn(move || {
            for line in stdout.lines().map_while(Result::ok) {
                let message = serde_json::from_str(&line).expect("nothing but MCP on stdout");
                if sends.send(message).is_err() {
                    return;
                }
            }
        });
        let said = Arc::<Mutex<String>>::default();
        let (copy, stderr) = (said.clone(), BufReader::new(child.stderr.take().unwrap()));
        thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if let (Some(browser), true) = (&reader, line.starts_with("http")) {
                    assert!(
                        Command::new(browser)
                            .arg(line.trim())
                            .status()
                            .unwrap()
                            .success()
                    );
                }
                copy.lock().unwrap().push_str(&(line + "\n"));
            }
        });
        Self {
            name,
            stdin: child.stdin.take(),
            child,
            messages,
            said,
            next: 0,
        }
    }

    fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }

    fn send(&mut self, message: &Value) {
        let stdin = self.stdin.as_mut().expect("open");
        writeln!(stdin, "{message}").expect("the bridge reads");
        stdin.flush().unwrap();
    }

    fn ask(&mut self, method: &str, params: &Value) -> Value {
        self.next += 1;
        let id = self.next;
        self.send(&json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params}));
        loop {
            let message = self.messages.recv_timeout(Duration::from_secs(60));
            let message = message
                .unwrap_or_else(|_| panic!("{} {method}: no answer\n{}", self.name, self.said()));
            if message["id"] == id && message.get("method").is_none() {
                assert!(
                    message["result"].is_object(),
                    "{} {method}: {message}\n{}",
                    self.name,
                    self.said()
                );
                return message["result"].clone();
            }
        }
    }

    fn initialize(&mut self) {
        let params = json!({
            "protocolVersion": "2025-06-18",
            "capabilities": {},
            "clientInfo": {"name": "host", "version": "1"},
        });
        self.ask("initialize", &params);
        self.send(&json!({"jsonrpc": "2.0", "method": "notifications/initialized"}));
    }

    fn echo(&mut self, text: &str) -> String {
        let result = self.ask(
            "tools/call",
            &json!({"name": "echo", "arguments": {"text": text}}),
        );
        result["content"][0]["text"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    /// Closes stdin, as a host does that ends; the exit code.
    fn end(&mut self) -> Option<i32> {
        self.stdin = None;
        let child = &mut self.child;
        until("the bridge ends", seconds(20), || child.try_wait().unwrap()).code()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn tokens(auth: &Path) -> Option<Value> {
    let entries = std::fs::read_dir(auth.join("mcp-remote-v1")).ok()?;
    let found = entries.flatten().find(|entry| {
        entry
            .file_name()
            .to_string_lossy()
            .ends_with("_tokens.json")
    })?;
    serde_json::from_str(&read(&found.path())).ok()
}

fn ends_at(auth: &Path) -> Option<u64> {
    tokens(auth)?["expires_at"].as_u64()
}

fn now_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(since.as_millis()).unwrap()
}
