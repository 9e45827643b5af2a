//! What this kernel can do: each mechanism's programs are loaded and attached, without a rule that could fire,
//! and let go.

use anyhow::{Context, Result};
use aya::{Btf, Ebpf};

use super::act::destroy::Pair;
use super::arm;
use super::plan::{Ability, Capabilities};
use super::spec::{Mechanism, Syscall};
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
            "silent_out",
            "silent_in",
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
                let tried = arm::try_programs(&mut ebpf, &btf, programs);
                can.mechanisms.insert(mechanism, ability(tried));
            }
            // The call that processes make least often.
            let call = [Syscall::Shutdown];
            let tried = arm::calls::attach(&mut ebpf, &call)
                .and_then(|()| arm::calls::prove_effect(&mut ebpf, &call));
            can.mechanisms.insert(Mechanism::Override, ability(tried));
            // Its events are met by the same programs as the signal's.
            let met = can.mechanisms[&Mechanism::Signal].clone();
            let destroy = if met == Ability::Yes { destroying() } else { met };
            can.mechanisms.insert(Mechanism::Destroy, destroy);
        }
        Err(error) => {
            let why = root_cause(&error);
            for mechanism in Mechanism::ALL {
                can.mechanisms.insert(mechanism, Ability::Unknown(why.clone()));
            }
        }
    }
    can
}

/// Destroys a connection of our own.
fn destroying() -> Ability {
    match Pair::connect() {
        Ok(pair) => ability(pair.destroy()),
        Err(error) => Ability::Unknown(format!("no connection over loopback: {error:#}")),
    }
}

fn ability(tried: Result<()>) -> Ability {
    tried.map_or_else(|error| Ability::No(root_cause(&error)), |()| Ability::Yes)
}

fn load() -> Result<(Btf, Ebpf)> {
    let btf = Btf::from_sys_fs().context("read the kernel's types")?;
    let settings =
        Settings { ring_bytes: 1 << 20, probe_log: false, record_self: false, family: None };
    let ebpf = attach::load(&btf, &Scope::Command(String::new()), &settings, Family::Tracepoint)?;
    Ok((btf, ebpf))
}
