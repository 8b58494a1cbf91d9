//! Where our own flags stand beside mcp-remote's.

use std::ffi::{OsStr, OsString};

/// The same command line, as the parser of commands reads it: our own flags first, then `proxy`, then everything else as it
/// stands. `None` where it is not the bridge that is called.
///
/// A program that is called by a name ending in `mcp-remote` takes mcp-remote's flags and no others.
pub(crate) fn rearranged(line: Vec<OsString>) -> Option<Vec<OsString>> {
    let mut words = line.into_iter();
    let program = words.next()?;
    if is_its_name(&program) {
        let mut done = vec![
            program,
            "proxy".into(),
            "--as-mcp-remote".into(),
            "--".into(),
        ];
        done.extend(words);
        return Some(done);
    }
    let (mut own, mut rest, mut is_bridge) = (Vec::new(), Vec::new(), false);
    while let Some(word) = words.next() {
        let text = word.to_str().unwrap_or_default();
        let name = text.split('=').next().unwrap_or_default();
        if OWN_WITH_VALUE.contains(&name) {
            own.push(word.clone());
            if !text.contains('=') {
                own.extend(words.next());
            }
        } else if OWN_ALONE.contains(&text) || is_verbose(text) {
            own.push(word);
        } else if is_bridge {
            rest.push(word);
        } else if text == "proxy" {
            is_bridge = true;
        } else {
            return None;
        }
    }
    if !is_bridge {
        return None;
    }
    let mut done = vec![program];
    done.append(&mut own);
    done.push("proxy".into());
    let asks_for_help = rest.iter().any(|word| word == "--help" || word == "-h");
    if asks_for_help {
        done.push("--help".into());
        return Some(done);
    }
    done.push("--".into());
    done.append(&mut rest);
    Some(done)
}

/// `-v`, `-vv` and so on.
fn is_verbose(text: &str) -> bool {
    text.strip_prefix('-')
        .is_some_and(|rest| !rest.is_empty() && rest.chars().all(|c| c == 'v'))
}

fn is_its_name(program: &OsStr) -> bool {
    let name = std::path::Path::new(program).file_stem();
    name.and_then(OsStr::to_str)
        .is_some_and(|name| name.ends_with("mcp-remote"))
}

/// Our flags of every command that take a value.
const OWN_WITH_VALUE: [&str; 5] = [
    "--account",
    "--config",
    "--store",
    "--key-file",
    "--allow-private",
];
/// Those that take none.
const OWN_ALONE: [&str; 4] = ["--json", "--quiet", "-q", "--verbose"];
