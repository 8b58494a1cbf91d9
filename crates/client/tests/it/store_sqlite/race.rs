//! Many processes that open one place at the same moment.

use super::*;

/// F-27, DESIGN.md section 4: eight processes that open an empty place at once make one store and one key.
#[tokio::test]
async fn a_race_to_open_makes_one_store_and_one_key() {
    let dir = tempfile::tempdir().unwrap();
    let racers: Vec<Child> = (0..RACERS)
        .map(|me| spawn(&format!("race:{me}"), dir.path()))
        .collect();
    for mut racer in racers {
        assert!(racer.wait().unwrap().success());
    }
    for round in 0..ROUNDS {
        let place = dir.path().join(round.to_string());
        let store = SqliteStore::open(&config(&place)).unwrap();
        assert_eq!(
            store.bindings().await.unwrap().len(),
            usize::from(RACERS),
            "round {round}"
        );
        let names = |folder: &str| -> Vec<_> {
            fs::read_dir(place.join(folder))
                .unwrap()
                .map(|file| file.unwrap().file_name())
                .collect()
        };
        assert_eq!(
            names("state"),
            ["key"],
            "round {round}: nothing is left over"
        );
        for me in (0..RACERS).filter(|_| round < SHARED) {
            SqliteStore::open(&sharing(dir.path(), round, me)).unwrap();
        }
        assert!(
            names("data")
                .iter()
                .all(|name| !name.to_string_lossy().contains("new")),
            "round {round}"
        );
    }
}

/// Opens the stores of all rounds, each at the same moment as the other processes do.
pub(super) async fn race(dir: &Path, me: u8) {
    for round in 0..ROUNDS {
        fs::write(dir.join(format!("ready-{round}-{me}")), "").unwrap();
        for other in 0..RACERS {
            wait_for(&dir.join(format!("ready-{round}-{other}")));
        }
        if round < SHARED {
            SqliteStore::open(&sharing(dir, round, me)).unwrap();
        }
        let store = SqliteStore::open(&config(&dir.join(round.to_string()))).unwrap();
        let mine = Binding {
            credential: None,
            ..binding(me, &format!("racer-{me}"))
        };
        store.put_binding(&mine).await.unwrap();
    }
}

/// A store of one racer's own, with the key file that all of them share.
fn sharing(dir: &Path, round: u32, me: u8) -> SqliteStoreConfig {
    let mut config = config(&dir.join(format!("own-{round}-{me}")));
    config.key_file = dir.join(format!("shared-{round}/key"));
    config
}

const ROUNDS: u32 = 50;
/// In how many of them each racer also makes a store of its own, with a key file that all share.
const SHARED: u32 = 10;
const RACERS: u8 = 8;
