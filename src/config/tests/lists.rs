//! Lists of error codes and of commands.

use super::*;

#[test]
fn codes_are_lists_with_the_nearer_list_winning_over_the_farther() {
    let config = loaded(&[
        "--redis",
        "upstream=h:1,failure-errors=READONLY+OOM|BUSY",
        "--postgres",
        "upstream=h:1,ignored_errors=53",
        "--ignored-errors",
        "READONLY+25006+TRYAGAIN",
    ]);
    let list = |codes: &[Arc<str>]| codes.join(" ");
    let Protocol::Redis(redis) = &config.backends[0].protocol else { panic!() };
    assert_eq!(list(&redis.verdicts.failure), "READONLY OOM BUSY");
    assert_eq!(list(&redis.verdicts.ignored), "25006 TRYAGAIN");
    let Protocol::Postgres(postgres) = &config.backends[1].protocol else { panic!() };
    assert_eq!(list(&postgres.verdicts.ignored), "53");
    let config = loaded(&["--postgres", "upstream=h:1", "--ignored-errors", "READONLY+25006+TRYAGAIN"]);
    let Protocol::Postgres(postgres) = &config.backends[0].protocol else { panic!() };
    assert_eq!(list(&postgres.verdicts.ignored), "25006", "a Redis code is not for Postgres");
}

#[test]
fn lists_of_commands_are_read_in_every_notation() {
    let redis = |config: &Config| match &config.backends[0].protocol {
        Protocol::Redis(redis) => redis.clone(),
        Protocol::Postgres(_) => panic!("not Redis"),
    };
    let config =
        loaded(&["--redis", "upstream=h:1,cures=config|set+bgsave,unbounded-commands=FT.*+graph.query"]);
    let read = redis(&config);
    assert_eq!(read.cures, ["CONFIG|SET".into(), "BGSAVE".into()]);
    assert_eq!(read.unbounded_commands, ["FT.*".into(), "GRAPH.QUERY".into()]);
    let file = "[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\ncures = ['script kill', 'DEBUG']\n\
                unbounded_commands = []\nignore_script_errors = true";
    let read = redis(&load_from(&[], &[], Some(file)).unwrap().config);
    assert_eq!(read.cures, ["SCRIPT|KILL".into(), "DEBUG".into()]);
    assert!(read.ignore_script_errors && read.unbounded_commands.is_empty());
    assert!(redis(&loaded(&["--redis", "upstream=h:1,cures=off"])).cures.is_empty());
    for bad in ["*", "A|B|C", "A*|B", "GE T X", "|KILL", "A|", "A,B", "GE*T", "X\u{e9}"] {
        let file = format!("[[backend]]\nprotocol = 'redis'\nupstream = 'h:1'\ncures = ['{bad}']");
        let problems = load_from(&[], &[], Some(&file)).unwrap_err();
        assert!(
            problems.iter().any(|problem| problem.contains("is not the name of a Redis command")),
            "{bad}"
        );
    }
}
