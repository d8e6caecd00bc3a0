//! The list of deliberate bugs keeps up with the code. That each is caught is shown by `proto-tests/mutants.sh`.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use proto_tests::mutants;
use proto_tests::tools::repository;

/// Whether some file below `dir` has a test of this name.
fn has_test(dir: &Path, name: &str) -> bool {
    fs::read_dir(dir).expect("a directory of sources").flatten().any(|entry| {
        let path = entry.path();
        match path.is_dir() {
            true => has_test(&path, name),
            false => fs::read_to_string(&path).is_ok_and(|text| text.contains(&format!("fn {name}("))),
        }
    })
}

#[test]
fn every_mutant_still_applies_and_names_tests_that_exist() {
    let mutants = mutants::all();
    let names: BTreeSet<&str> = mutants.iter().map(|mutant| mutant.name.as_str()).collect();
    assert_eq!(names.len(), mutants.len(), "two mutants of one name");
    assert!(mutants.len() >= 25);
    for mutant in &mutants {
        let broken = mutant.applied(repository()).unwrap_or_else(|why| panic!("{why}"));
        let sound = fs::read_to_string(repository().join(&mutant.file)).expect("a source file");
        assert_ne!(broken, sound, "{}", mutant.name);
        assert!(!mutant.caught_by.is_empty(), "{}", mutant.name);
        for test in &mutant.caught_by {
            let name = test.rsplit("::").next().unwrap_or_default();
            assert!(has_test(&repository().join("src"), name), "{}: no test `{test}`", mutant.name);
        }
    }
}
