//! The batched path is the byte-at-a-time path: whatever messages come, in whatever order and batches, and whatever the
//! breaker does meanwhile, no cut changes a byte for either side, a verdict or a count.

use proptest::prelude::*;

use super::rig::*;

/// What a client sends at once: whole units, and runs that are left open.
fn requests() -> impl Strategy<Value = Step> {
    let units = vec![
        q("SELECT 1"),
        q("BEGIN"),
        q("COMMIT"),
        q("ROLLBACK"),
        q("SET search_path = a"),
        q("LISTEN c"),
        q("COPY t FROM STDIN"),
        q("SELECT 1; SELECT 2"),
        q(""),
        function(),
        pbes(""),
        pbes("s"),
        [bind("s"), execute(), sync()].concat(),
        [describe("s"), sync()].concat(),
        [close("s"), sync()].concat(),
        parse("t", "INSERT INTO t VALUES (1)"),
        bind("t"),
        execute(),
        flush(),
        sync(),
        copy_data(b"1\t2\n"),
        copy_done(),
        copy_fail(),
    ];
    let batch = prop::collection::vec(prop::sample::select(units), 1..8);
    batch.prop_map(|units| Client(units.concat()))
}

/// What a server sends at once.
fn replies() -> impl Strategy<Value = Step> {
    let parts = vec![
        rows(),
        extended_rows(),
        [complete("BEGIN"), z('T')].concat(),
        [complete("COMMIT"), z('I')].concat(),
        [error("ERROR", "23505"), z('I')].concat(),
        [error("ERROR", "25P02"), z('E')].concat(),
        [error("ERROR", "53300"), z('I')].concat(),
        error("ERROR", "58030"),
        notice("NOTICE", "00000"),
        m(b'1', b""),
        m(b'2', b""),
        m(b'G', &[0, 0, 0]),
        m(b'A', b"\0\0\0\x01c\0\0"),
        row(),
        complete("INSERT 0 1"),
        param("TimeZone", "UTC"),
        z('I'),
    ];
    let batch = prop::collection::vec(prop::sample::select(parts), 1..8);
    batch.prop_map(|parts| Server(parts.concat()))
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        8 => requests(),
        8 => replies(),
        1 => Just(Trip),
        1 => Just(HalfOpen),
        2 => Just(Reset),
    ];
    prop::collection::vec(step, 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn no_cut_changes_a_byte_a_verdict_or_a_count(steps in steps(), n in 2usize..90, at in 60usize..700) {
        let steps = [started(), steps].concat();
        let once = |cut| {
            let mut rig = Rig::new();
            play(&mut rig, &steps, cut);
            let outcome = rig.outcome();
            rig.balance();
            outcome.settled()
        };
        let whole = once(Cut::Whole);
        for cut in [Cut::Bytes(1), Cut::Bytes(n), Cut::At(at)] {
            prop_assert_eq!(&once(cut), &whole, "{:?}", cut);
        }
    }
}
