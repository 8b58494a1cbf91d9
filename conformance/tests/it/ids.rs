//! The lists of requirements beside the suite: which of them bind nothing here, and which the suite itself proves.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Deserialize;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    id: String,
    about: String,
    why: Option<String>,
    row: Option<String>,
    check: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct List {
    id: Vec<Listed>,
}

fn list(text: &str) -> Vec<Listed> {
    toml::from_str::<List>(text).unwrap().id
}

/// The families of requirements, and which numbers each has.
const FAMILIES: [(&str, &[(u32, u32)]); 6] = [
    (
        "AUTH",
        &[
            (1, 3),
            (10, 17),
            (20, 25),
            (30, 44),
            (50, 73),
            (80, 86),
            (90, 94),
            (100, 110),
        ],
    ),
    ("EXT", &[(1, 1), (10, 11), (20, 21), (30, 32), (40, 41)]),
    ("TR", &[(1, 20), (30, 40), (50, 52)]),
    ("T", &[(1, 45)]),
    ("F", &[(1, 35)]),
    ("I", &[(1, 20)]),
];

fn is_real(id: &str) -> bool {
    let Some((family, digits)) = id.split_once('-') else {
        return false;
    };
    let Ok(number) = digits.parse::<u32>() else {
        return false;
    };
    let known = |(name, spans): &(&str, &[(u32, u32)])| {
        *name == family
            && spans
                .iter()
                .any(|(from, to)| (*from..=*to).contains(&number))
    };
    FAMILIES.iter().any(known)
}

/// Each requirement that is said to bind nothing here is a real one, is listed once, says why, and has no test: one that has got a
/// test after all is to be taken out of the list.
#[test]
fn what_is_not_ours_has_a_reason_and_no_test() {
    let listed = list(include_str!("../../not-ours.toml"));
    assert!(listed.len() > 5);
    let mut seen = BTreeSet::new();
    for one in &listed {
        assert!(is_real(&one.id), "{one:?}");
        assert!(seen.insert(&one.id), "{} twice", one.id);
        let why = one.why.as_deref().unwrap_or_default();
        assert!(one.about.len() > 10 && why.len() > 30, "{one:?}");
        assert!(one.row.is_none() && one.check.is_none(), "{one:?}");
    }
    let sources = sources();
    assert!(sources.len() > 100, "{}", sources.len());
    for path in sources {
        let text = fs::read_to_string(&path).unwrap();
        let comments = text
            .lines()
            .filter(|line| line.trim_start().starts_with("///"));
        for word in comments.flat_map(words) {
            assert!(
                !seen.contains(&word),
                "{word} is named in {}",
                path.display()
            );
        }
    }
}

/// What the suite is said to prove is among the checks that it must have made, in the row that is named.
#[test]
fn what_the_suite_proves_is_checked_in_each_run() {
    let checks = super::checks();
    for one in list(include_str!("../../proven.toml")) {
        assert!(is_real(&one.id) && one.about.len() > 10, "{one:?}");
        let row = one.row.as_deref().and_then(|row| checks.get(row));
        let made = row.unwrap_or_else(|| panic!("{one:?}"));
        assert!(
            one.check.is_some_and(|check| made.contains(&check)),
            "{}",
            one.id
        );
    }
}

#[test]
fn an_id_is_told_from_what_only_looks_like_one() {
    assert!(is_real("AUTH-110") && is_real("T-45") && is_real("TR-01"));
    for bad in [
        "AUTH-111", "AUTH-0", "AUTH-4", "T-46", "AUTH", "AUTH-x", "X-1", "AUTH-1a",
    ] {
        assert!(!is_real(bad), "{bad}");
    }
    let line = "/// AUTH-01, T-2: (EXT-3). AUTH-45x";
    assert_eq!(
        words(line).collect::<Vec<_>>(),
        ["AUTH-01", "T-2", "EXT-3", "AUTH-45x"]
    );
}

/// The words of a line that may be ids.
fn words(line: &str) -> impl Iterator<Item = String> + '_ {
    line.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'))
        .filter(|word| word.contains('-'))
        .map(str::to_owned)
}

/// Every source file of the crates that holds a test.
fn sources() -> Vec<PathBuf> {
    let mut folders = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../crates")];
    let mut files = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|end| end == "rs")
                && fs::read_to_string(&path).unwrap().contains("test]")
            {
                files.push(path);
            }
        }
    }
    files
}
