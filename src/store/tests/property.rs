//! A store equals a struct in memory after any sequence of saves, reopenings and losses of one copy.

use proptest::prelude::*;

use super::*;

#[derive(Debug, Clone)]
enum Act {
    Identity(u64),
    Target(u64, usize),
    Ledger(Vec<(u64, u64, usize)>),
    Retry,
    Reopen,
    LoseDatabase,
    LoseMirrors,
}

fn any_act() -> impl Strategy<Value = Act> {
    prop_oneof![
        (0u64..3).prop_map(Act::Identity),
        (0u64..3, 0usize..5_000).prop_map(|(n, bytes)| Act::Target(n, bytes)),
        prop::collection::vec((0u64..6, 0u64..4, 0usize..4_000), 0..7).prop_map(Act::Ledger),
        Just(Act::Retry),
        Just(Act::Reopen),
        Just(Act::LoseDatabase),
        Just(Act::LoseMirrors),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn a_store_equals_a_struct(acts in prop::collection::vec(any_act(), 1..16)) {
        let dir = tempfile::tempdir().unwrap();
        let mut model = Remembered::default();
        let mut store = Some(open(dir.path()).0);
        for act in acts {
            let open_store = store.as_ref().unwrap();
            match act {
                Act::Identity(n) => {
                    model.identity = Some(identity(n));
                    open_store.save_identity(&identity(n)).unwrap();
                }
                Act::Target(n, bytes) => {
                    model.target = Some(target(n, bytes));
                    open_store.save_target(&target(n, bytes)).unwrap();
                }
                Act::Ledger(apps) => {
                    model.ledger = ledger(&apps);
                    open_store.save_ledger(&model.ledger).unwrap();
                }
                Act::Retry => open_store.retry().unwrap(),
                Act::Reopen | Act::LoseDatabase | Act::LoseMirrors => {
                    drop(store.take());
                    if matches!(act, Act::LoseDatabase) {
                        fs::remove_dir_all(dir.path().join("db")).unwrap();
                    }
                    if matches!(act, Act::LoseMirrors) {
                        let _ = fs::remove_file(dir.path().join("mirror-a.json"));
                        let _ = fs::remove_file(dir.path().join("mirror-b.json"));
                    }
                    store = Some(open(dir.path()).0);
                }
            }
            prop_assert_eq!(&store.as_ref().unwrap().load(), &model);
        }
    }
}
