//! What a process keeps in memory stays there.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::PathBuf;
use std::time::Duration;

use crate::cli::Machine;
use crate::support::until;

/// T-35: a process with tokens in it leaves no core file, although its shell would let it, and belongs to nobody who could look into
/// it: as anybody but root, the kernel keeps its files under /proc for root.
#[test]
fn no_core_file_and_no_look_inside() {
    let machine = Machine::new();
    machine.login(&[]);
    let program = env!("CARGO_BIN_EXE_pilotlight");
    let raised = machine.home.beside("raised");
    let body = format!(
        "ulimit -c unlimited && touch '{}'; exec '{program}' \"$@\"",
        raised.display()
    );
    let shell = machine.home.script("loose", &body);
    let args = [
        "call",
        machine.url(),
        "whoami",
        "--every",
        "100ms",
        "--for",
        "30s",
        "--json",
    ];
    let process = machine.home.pilotlight(args).through(&shell).start();
    let of = |name: &str| PathBuf::from(format!("/proc/{}/{name}", process.pid()));
    until("the limit is down", Duration::from_secs(10), || {
        let limits = fs::read_to_string(of("limits")).unwrap_or_default();
        let core = limits
            .lines()
            .find(|line| line.starts_with("Max core file size"))?;
        let words: Vec<_> = core.split_whitespace().collect();
        let running = fs::read_link(of("exe")).is_ok_and(|exe| exe.ends_with("pilotlight"));
        (running && words.get(4..6) == Some(&["0", "0"])).then_some(())
    });
    assert!(raised.exists(), "the shell would have let it");
    if !rustix::process::geteuid().is_root() {
        until("it is closed", Duration::from_secs(10), || {
            let owner = fs::metadata(of("environ")).ok()?.uid();
            (owner == 0).then_some(())
        });
    }
    drop(process);
    machine.assert_nothing_lost();
}
