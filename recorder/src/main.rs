//! The command `wherefore`. It owns the exit code: 0 done, 1 found or differs, 2 error.

use std::process::ExitCode;

fn main() -> ExitCode {
    match recorder::cli::run(std::env::args_os()) {
        Ok(code) => code,
        Err(error) if recorder::cli::is_broken_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            recorder::cli::explain(&error);
            ExitCode::from(2)
        }
    }
}
