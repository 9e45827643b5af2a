//! Runs other programs, and says on stderr which.

use std::fmt::Arguments;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::{env, fs};

use anyhow::{Context, Result, bail, ensure};

/// The top of the repository.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("xtask lies in the repository")
}

/// Where the build leaves the command.
pub fn wherefore() -> PathBuf {
    root().join("target/debug/wherefore")
}

#[expect(clippy::print_stderr, reason = "telling the person at the terminal is what it is for")]
pub fn say(text: Arguments) {
    eprintln!("{text}");
}

/// `cargo` with these arguments, at the top of the repository. By name, not `$CARGO`: rustup's proxy
/// sets the library path in which bpf-linker finds its LLVM.
pub fn cargo<const N: usize>(arguments: [&str; N]) -> Command {
    let mut command = Command::new("cargo");
    command.args(arguments).current_dir(root());
    command
}

/// Shows the command, runs it, and fails if it fails.
pub fn run(command: &mut Command) -> Result<()> {
    say(format_args!("$ {}", shown(command)));
    let status = command.status().with_context(|| format!("run {}", shown(command)))?;
    ensure!(status.success(), "`{}`: {status}", shown(command));
    Ok(())
}

/// What the command prints on stdout. Its stderr goes where ours goes.
pub fn stdout(command: &mut Command) -> Result<String> {
    let output = command
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output()
        .with_context(|| format!("run {}", shown(command)))?;
    ensure!(output.status.success(), "`{}`: {}", shown(command), output.status);
    Ok(String::from_utf8(output.stdout)?)
}

/// Whether the command runs and succeeds; nothing of it is shown.
pub fn succeeds(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// The command as one would type it; a script given as an argument is left out.
fn shown(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let quoted = words.map(|word| {
        let word = word.to_string_lossy();
        match word {
            _ if word.contains('\n') => "'…'".to_owned(),
            _ if word.contains(' ') => format!("'{word}'"),
            _ => word.into_owned(),
        }
    });
    quoted.collect::<Vec<_>>().join(" ")
}

pub fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|process| process.uid() == 0)
}

/// The program, to be run as root: as it is when we are, else through sudo. An error when neither will do:
/// a password can only be asked for at a terminal.
pub fn as_root(program: &Path) -> Result<Command> {
    if is_root() {
        return Ok(Command::new(program));
    }
    let asks_nothing = succeeds(Command::new("sudo").args(["-n", "true"]));
    let at_terminal = std::io::IsTerminal::is_terminal(&std::io::stdin());
    if asks_nothing || (at_terminal && find("sudo").is_some()) {
        let mut command = Command::new("sudo");
        command.arg("--").arg(program);
        return Ok(command);
    }
    bail!("this needs root, and sudo is missing or asks for a password")
}

/// Where the program lies: in `$PATH`, or where administrators' programs are for those whose `$PATH`
/// leaves them out.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut directories: Vec<_> = env::split_paths(&path).collect();
    directories.extend(["/usr/local/sbin", "/usr/sbin", "/sbin"].map(PathBuf::from));
    directories.extend(env::var_os("HOME").map(|home| Path::new(&home).join(".cargo/bin")));
    directories.into_iter().map(|directory| directory.join(program)).find(|p| is_executable(p))
}

pub fn is_executable(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
}
