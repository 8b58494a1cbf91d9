//! What fuzzing has been begun with, and what it has found, on every day: the targets of `fuzz/`, over their corpora.

use std::{collections::BTreeSet, fs, path::Path};

use pilotlight_relay as subject;

#[path = "../../../../fuzz/src/targets/mod.rs"]
mod targets;

/// TR-02, TR-20, TR-35, T-33: nothing in a corpus breaks what its target claims, and each target has a corpus.
#[test]
fn nothing_in_the_corpora_gets_through() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus");
    let corpora: BTreeSet<String> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let names = targets::ALL.iter().map(|(name, _)| (*name).to_owned());
    assert_eq!(corpora, names.collect(), "one corpus for each target");
    for (name, run) in targets::ALL {
        let files: Vec<_> = fs::read_dir(folder.join(name)).unwrap().collect();
        assert!(files.len() >= 5, "{name} has hardly any");
        for file in files {
            let file = file.unwrap().path();
            let input = fs::read(&file).unwrap();
            let ended = std::panic::catch_unwind(|| run(&input));
            assert!(ended.is_ok(), "{}", file.display());
        }
    }
}
