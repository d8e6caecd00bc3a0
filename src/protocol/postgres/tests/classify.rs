//! The verdict table by itself.

use crate::config::Overrides;
use crate::protocol::Class;
use crate::protocol::postgres::Severity;
use crate::protocol::postgres::classify::Table;

fn class(table: &Table, code: &str, severity: Severity) -> Class {
    table.find(code, severity).expect("some row matches everything").class
}

#[test]
fn every_row_of_the_specification() {
    use Class::{Failure, Ignored, Success};
    let table = Table::new(&Overrides::default());
    let both = |code: &str| (class(&table, code, Severity::Error), class(&table, code, Severity::Fatal));
    for code in
        ["53000", "53100", "53200", "53300", "57P03", "57P01", "57P02", "58000", "58030", "XX001", "XX002"]
    {
        assert_eq!(both(code), (Failure, Failure), "{code}");
    }
    for code in ["08000", "08001", "08003", "08004", "08006", "XX000"] {
        assert_eq!(both(code), (Ignored, Failure), "{code}");
    }
    for code in [
        "57014", "55P03", "25006", "25P02", "25P03", "25P04", "57P04", "57P05", "40003", "53400", "58P01",
        "58P02", "F0000", "F0001", "HV00A", "57000",
    ] {
        assert_eq!(both(code), (Ignored, Ignored), "{code}");
    }
    for code in [
        "0A000", "22012", "23505", "25001", "28P01", "28000", "2BP01", "3D000", "3F000", "40001", "40P01",
        "42601", "44000", "54001", "55000", "55006", "P0001", "08P01",
    ] {
        assert_eq!(both(code), (Success, Success), "{code}");
    }
    assert_eq!(both("99999"), (Success, Failure));
    for code in ["23505", "57014", "08P01", "99999"] {
        assert_eq!(class(&table, code, Severity::Panic), Failure, "{code}");
    }
}

#[test]
fn the_longest_row_wins_and_a_tie_is_the_users() {
    let table = Table::new(&Overrides {
        failure: vec!["25006".into(), "57".into()],
        success: vec!["53".into()],
        ignored: vec!["XX001".into()],
    });
    assert_eq!(class(&table, "25006", Severity::Error), Class::Failure);
    assert_eq!(class(&table, "57999", Severity::Error), Class::Failure);
    assert_eq!(class(&table, "57014", Severity::Error), Class::Ignored);
    assert_eq!(class(&table, "53999", Severity::Fatal), Class::Success);
    assert_eq!(class(&table, "53300", Severity::Fatal), Class::Failure);
    assert_eq!(class(&table, "XX001", Severity::Error), Class::Ignored);
    assert_eq!(class(&table, "XX001", Severity::Panic), Class::Failure);
    assert!(table.rows().filter(|row| row.own).count() == 4);
}

#[test]
fn listings_say_when_a_row_applies_and_what_it_says() {
    let table = Table::new(&Overrides::default());
    let row = |code: &str| {
        let row = table.explain(code).next().expect("a row");
        (row.when.label(), row.class.label())
    };
    assert_eq!(row("57P03"), ("any", "failure"));
    assert_eq!(row("57014"), ("any", "ignored"));
    assert_eq!(row("23505"), ("any", "success"));
    assert_eq!(row("XX000"), ("FATAL", "failure"));
    assert_eq!(row("08P01"), ("FATAL (pgbouncer)", "failure"));
    assert_eq!(row("99999"), ("PANIC", "failure"));
}

#[test]
fn an_explanation_names_a_row_for_every_severity() {
    let table = Table::new(&Overrides::default());
    let rows = |code: &str| table.explain(code).map(|row| row.code.as_str().to_owned()).collect::<Vec<_>>();
    assert_eq!(rows("57P03"), ["57P03"]);
    assert_eq!(rows("XX000"), ["XX000", "XX000"]);
    assert_eq!(rows("08006"), ["08006", "08"]);
    assert_eq!(rows("ZZZZZ"), ["PANIC", "FATAL", "other"]);
}
