//! Writes the manual pages and the shells' completions into a folder: `cargo xtask dist` puts them into the package.
//! An example, so that the command itself carries neither of the crates that make them.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::path::PathBuf;

use anyhow::{Context, Result};
use clap::Command;
use clap_complete::Shell;

fn main() -> Result<()> {
    let folder: OsString = env::args_os().nth(1).context("name a folder to write into")?;
    let folder = PathBuf::from(folder);
    fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
    let command = shown(&recorder::cli::command());
    clap_mangen::generate_to(command.clone(), &folder).context("write the manual pages")?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut command.clone(), "wherefore", &folder)
            .with_context(|| format!("write the completions for {shell}"))?;
    }
    Ok(())
}

/// The command as people know it: what the recorder starts by itself is left out.
fn shown(whole: &Command) -> Command {
    let shown = whole.get_subcommands().filter(|command| !command.is_hide_set());
    let mut command = Command::new("wherefore").subcommands(shown.cloned());
    command = command.version(env!("CARGO_PKG_VERSION"));
    match whole.get_about() {
        Some(about) => command.about(about.clone()),
        None => command,
    }
}
