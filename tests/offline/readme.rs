//! What documents show can be typed: every command they show is one, with options that exist and patterns
//! that are understood.

use std::fs;

use recorder::pattern::Pattern;
use tests::documents::{Shown, documents, root, shown};

#[test]
fn every_command_shown_can_be_typed() {
    let mut checked = 0;
    for document in documents() {
        let text = fs::read_to_string(&document).expect("a readable document");
        for command in shown(&text) {
            let wrong = fault(&command);
            assert_eq!(wrong, None, "in {}: {}", document.display(), command.words.join(" "));
            checked += 1;
        }
    }
    assert!(checked >= 10, "only {checked} commands were found");
}

#[test]
fn the_readme_shows_every_command_but_help() {
    let text = fs::read_to_string(root().join("README.md")).expect("there is a README");
    let command = recorder::cli::command();
    for command in command.get_subcommands().filter(|command| !command.is_hide_set()) {
        let name = format!("wherefore {}", command.get_name());
        assert!(text.contains(&name), "README.md does not show `{name}`");
    }
}

/// What is wrong with a command, if anything.
fn fault(command: &Shown) -> Option<String> {
    if command.words.first().is_none_or(|program| program != "wherefore") {
        return Some("it is none of ours".to_owned());
    }
    if let Err(error) = recorder::cli::command().try_get_matches_from(&command.words) {
        return Some(error.to_string());
    }
    // `why` takes its pattern among the files, so that the parser cannot tell.
    let ours = command.words.iter().take_while(|word| *word != "--");
    let patterns = ours.filter(|word| word.contains('=') && !word.starts_with('-'));
    patterns.filter_map(|word| word.parse::<Pattern>().err()).map(|e| e.to_string()).next()
}

#[test]
fn what_cannot_be_typed_is_found() {
    let wrong = |text: &str| {
        let all = shown(&format!("```console\n$ {text}\n```\n"));
        fault(&all[0]).is_some()
    };
    assert!(!wrong("sudo wherefore record -o run.parquet -- ls -l > x"));
    assert!(wrong("wherefore recall run.parquet"));
    assert!(wrong("wherefore record --only comm=curl"));
    assert!(wrong("wherefore graph run.parquet"), "it lacks --to");
    assert!(wrong("wherefore why run.parquet 'comm=curl op=receive'"));
    assert!(wrong("wherefore why run.parquet --missing 'peer=nowhere'"));
    assert!(wrong("ls"));
}
