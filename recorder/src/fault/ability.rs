//! What this kernel can do: each mechanism's programs are loaded and attached, without a rule that could fire,
//! and let go.

use anyhow::{Context, Result};
use aya::{Btf, Ebpf};

use super::arm;
use super::plan::{Ability, Capabilities};
use super::spec::Mechanism;
use crate::capture::Scope;
use crate::capture::attach::family::Family;
use crate::capture::attach::{self, Settings, root_cause};

/// Programs that show whether a mechanism works.
const TRIED: [(Mechanism, &[&str]); 2] = [
    (
        Mechanism::Cgroup,
        &[
            "refuse_connect4",
            "refuse_connect6",
            "call_ended",
            "packet_out",
            "packet_in",
            "socket_made",
        ],
    ),
    (Mechanism::Signal, &["met_received"]),
];

/// Tries every mechanism. Needs the privileges that arming needs; says so where they are missing.
pub fn find_out() -> Capabilities {
    let mut can = Capabilities::default();
    let loaded = load();
    match loaded {
        Ok((btf, mut ebpf)) => {
            for (mechanism, programs) in TRIED {
                let ability = match arm::try_programs(&mut ebpf, &btf, programs) {
                    Ok(()) => Ability::Yes,
                    Err(error) => Ability::No(root_cause(&error)),
                };
                can.mechanisms.insert(mechanism, ability);
            }
        }
        Err(error) => {
            let why = root_cause(&error);
            for (mechanism, _) in TRIED {
                can.mechanisms.insert(mechanism, Ability::Unknown(why.clone()));
            }
        }
    }
    can.mechanisms.insert(Mechanism::Override, Ability::No(no_override().to_owned()));
    can
}

fn load() -> Result<(Btf, Ebpf)> {
    let btf = Btf::from_sys_fs().context("read the kernel's types")?;
    let settings =
        Settings { ring_bytes: 1 << 20, probe_log: false, record_self: false, family: None };
    let ebpf = attach::load(&btf, &Scope::Command(String::new()), &settings, Family::Tracepoint)?;
    Ok((btf, ebpf))
}

/// Nothing in this version attaches to kprobes to change what a call returns; most kernels could not anyway.
fn no_override() -> &'static str {
    if std::path::Path::new("/sys/bus/event_source/devices/kprobe").exists() {
        "this version of wherefore does not attach it"
    } else {
        "it has no kprobes (CONFIG_KPROBES)"
    }
}
