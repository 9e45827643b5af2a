//! `build`: the command `wherefore`, with its probes inside.

use anyhow::Result;

use crate::process::{self, cargo};
use crate::setup;

pub fn run() -> Result<()> {
    setup::toolchain()?;
    process::run(&mut cargo(["build", "--workspace"]))
}
