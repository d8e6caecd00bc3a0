//! Whatever is written, there is an answer in one line.

use std::path::Path;

use proptest::prelude::*;

use super::super::settings::SETTINGS;
use super::*;

proptest! {
    #[test]
    fn no_spec_makes_it_panic(text in ".*", name in "[a-z_-]{0,20}", value in ".{0,40}") {
        let mut problems = Vec::new();
        for text in [text.clone(), format!("upstream=h:1,{name}={value}"), format!("upstream={value}")] {
            raw::spec("--redis", 1, Speaks::Redis, &text, &mut problems);
            let inputs = Inputs { redis: vec![text.clone()], postgres: vec![text], ..Inputs::default() };
            if let Err(problems) = load_all(&inputs, &Env::new()) {
                for problem in problems {
                    prop_assert_eq!(problem.to_string().lines().count(), 1);
                }
            }
        }
    }

    #[test]
    fn every_setting_takes_or_refuses_any_text(value in ".{0,30}", n in any::<i64>(), unit in "(ms|s|m|h|M|y|)") {
        for setting in SETTINGS {
            for text in [value.clone(), n.to_string(), format!("{n}{unit}")] {
                let _ = super::super::value::read(setting, &raw::Written::One(text), None);
            }
        }
    }

    #[test]
    fn no_file_makes_it_panic(key in "[a-z_]{1,12}", value in ".{0,40}", text in ".*") {
        let path = Path::new("f.toml");
        for text in [text, format!("[[backend]]\n{key} = {value}"), format!("{key} = {value:?}")] {
            let mut problems = Vec::new();
            File::parse(path, &text, &mut problems);
            for problem in problems {
                prop_assert_eq!(problem.to_string().lines().count(), 1, "{:?}", problem);
            }
        }
    }
}
