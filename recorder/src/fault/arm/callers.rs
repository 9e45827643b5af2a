//! Who makes a call, on kernels whose control groups' programs cannot look at what hangs on a thread: a program where
//! calls begin notes it for them, and their other form reads that.

use anyhow::Result;
use aya::Ebpf;
use aya::maps::Array;
use aya::programs::ProgramError;

use super::{calls, map};
use crate::fault::spec::Syscall;

/// The calls that control groups' programs look at.
const LOOKED_AT: [Syscall; 6] = [
    Syscall::Connect,
    Syscall::Bind,
    Syscall::Sendto,
    Syscall::Sendmsg,
    Syscall::Sendmmsg,
    Syscall::Socket,
];

/// Whether a program was refused since its kind cannot look at what hangs on a thread.
pub fn are_hidden(error: &anyhow::Error) -> bool {
    let refused = error.downcast_ref::<ProgramError>().map(|error| format!("{error:?}"));
    refused.is_some_and(|said| said.contains("cannot use helper bpf_task_storage_get"))
}

/// The other form of a program: of `refuse_connect4` it is `refuse_noted_connect4`.
pub fn noted(program: &str) -> String {
    program.replacen('_', "_noted_", 1)
}

/// The programs that do it.
pub const PROGRAMS: [&str; 2] = ["call_begun", "call_ended"];

/// Says which calls are to be noted.
///
/// # Errors
/// When the map cannot be written.
pub fn choose(ebpf: &mut Ebpf) -> Result<()> {
    let mut looked_at: Array<_, u32> = map(ebpf, "LOOKED_AT")?.try_into()?;
    for number in LOOKED_AT.into_iter().filter_map(calls::number) {
        looked_at.set(number as u32, 1, 0)?;
    }
    Ok(())
}
