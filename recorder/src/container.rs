//! Which container and which pod a control group belongs to, as its path tells it, and what they are called.
//!
//! Runtimes put a container's processes into a group that bears the container's id; where and how differs by
//! runtime, by who makes the group (the runtime itself, or systemd for it), and by the version of control
//! groups. Only the path is looked at here. Names, which the path does not hold, come from the recording's
//! [`Host`](crate::event::Host).

use std::borrow::Cow;

use serde::{Deserialize, Serialize};

use crate::event::{Event, History, Name};

/// A container, or a pod where a group belongs to a pod but to none of its containers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Container {
    pub runtime: Option<Runtime>,
    /// 64 hexadecimal digits, or the name where the runtime has nothing else. Empty: a pod's group.
    pub id: String,
    /// What people call it. Empty where the host did not know.
    pub name: String,
    /// The pod's uid, as Kubernetes writes it (podman: 64 hexadecimal digits). Empty: no pod.
    pub pod: String,
    /// `namespace/pod`, for podman the pod's name. Empty where the host did not know.
    pub pod_name: String,
}

/// Who made a container, where its path tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runtime {
    Docker,
    Containerd,
    CriO,
    Podman,
    Nspawn,
    Lxc,
}

impl Runtime {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Docker => "docker",
            Self::Containerd => "containerd",
            Self::CriO => "cri-o",
            Self::Podman => "podman",
            Self::Nspawn => "systemd-nspawn",
            Self::Lxc => "lxc",
        }
    }
}

/// What the container or pod of an id is called. A host keeps a list of these.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Called {
    /// A container's id or a pod's uid.
    pub id: String,
    /// The container's name, or `namespace/pod`.
    pub name: String,
}

/// Digits of an id that are shown, as `docker ps` does.
const SHORT: usize = 12;

impl Container {
    /// The name, or else the id as people shorten it. Empty for a pod's group.
    pub fn label(&self) -> &str {
        if self.name.is_empty() { self.short_id() } else { &self.name }
    }

    /// The first twelve digits of an id of 64; a name as it is.
    pub fn short_id(&self) -> &str {
        if is_id(&self.id) { &self.id[..SHORT] } else { &self.id }
    }

    /// `namespace/pod`, or else the pod's uid. Empty without a pod.
    pub fn pod_label(&self) -> &str {
        if self.pod_name.is_empty() { &self.pod } else { &self.pod_name }
    }

    /// Both as one: `shop/web-0/nginx`, `web`, `3f4b1c2d5e6f`.
    pub fn full_label(&self) -> Cow<'_, str> {
        match (self.pod_name.is_empty() && !self.id.is_empty(), self.label()) {
            (true, label) => Cow::Borrowed(label),
            (false, "") => Cow::Borrowed(self.pod_label()),
            (false, label) => Cow::Owned(format!("{}/{label}", self.pod_name)),
        }
    }

    /// Takes over what a host calls the container and its pod.
    #[must_use]
    pub fn called(mut self, names: &[Called]) -> Self {
        let name = |id: &str| {
            let found = names.iter().find(|called| !id.is_empty() && called.id == id);
            found.map(|called| called.name.clone()).unwrap_or_default()
        };
        if self.name.is_empty() {
            self.name = name(&self.id);
        }
        self.pod_name = name(&self.pod);
        self
    }
}

impl History {
    /// The container, or pod, that an event's thread or socket belongs to.
    pub fn container(&self, event: &Event) -> Option<Container> {
        self.container_of(event.host, event.cgroup)
    }

    /// The container, or pod, that a host's control group belongs to.
    pub fn container_of(&self, host: u16, cgroup: Name) -> Option<Container> {
        let found = of(self.names.text(cgroup))?;
        let host = self.hosts.get(usize::from(host));
        Some(found.called(host.map_or(&[], |host| &host.containers)))
    }
}

/// The container, or pod, that the group of this path belongs to: the innermost one, where one runs in another.
pub fn of(path: &str) -> Option<Container> {
    let mut found = Container::default();
    let mut parent = "";
    for part in path.split('/').filter(|part| !part.is_empty()) {
        // containerd told to leave groups to systemd, and the kernel's interface used all the same.
        let (slice, scope) = part.split_once(':').unwrap_or(("", part));
        for unit in [slice, part] {
            if let Some(pod) = pod(unit, parent) {
                found = Container { pod, ..Container::default() };
            }
        }
        if found.pod != part
            && let Some((runtime, id)) = member(scope, parent)
        {
            // A pod's containers stand just below it; another container deeper down is not the pod's.
            let pod =
                if found.id.is_empty() { std::mem::take(&mut found.pod) } else { String::new() };
            found = Container { runtime, id, pod, ..Container::default() };
        }
        parent = part;
    }
    (found != Container::default()).then_some(found)
}

/// The uid of the pod whose group has this name.
fn pod(part: &str, parent: &str) -> Option<String> {
    let unit = part.strip_suffix(".slice").unwrap_or(part);
    if let Some((_, id)) = unit.split_once("libpod_pod_") {
        return is_id(id).then(|| id.to_owned());
    }
    if parent == "libpod_parent" && is_id(unit) {
        return Some(unit.to_owned());
    }
    let uid = match unit.rsplit_once("-pod") {
        Some((slice, uid)) if slice.contains("kubepods") => uid,
        _ => unit.strip_prefix("pod")?,
    };
    // systemd takes a dash for a level of its own, so that the uid's are written otherwise.
    let uid = uid.replace('_', "-");
    is_uid(&uid).then_some(uid)
}

/// The container whose group has this name.
fn member(part: &str, parent: &str) -> Option<(Option<Runtime>, String)> {
    let unit = part.strip_suffix(".scope").unwrap_or(part);
    if is_id(unit) {
        return Some(((parent == "docker").then_some(Runtime::Docker), unit.to_owned()));
    }
    // Amazon's Fargate: the task's id, and a number.
    if unit.strip_prefix(parent).is_some_and(|rest| is_hex(parent, 32) && is_number(rest)) {
        return Some((None, unit.to_owned()));
    }
    let named = named(part, unit, parent);
    if let Some((runtime, name)) = named {
        return (!name.is_empty()).then_some((Some(runtime), name));
    }
    let (prefix, id) = unit.rsplit_once(['-', ':'])?;
    // Beside each container of podman and CRI-O runs its monitor.
    if !is_id(id) || prefix.ends_with("conmon") {
        return None;
    }
    let runtime = match prefix {
        "docker" => Some(Runtime::Docker),
        "cri-containerd" | "containerd" | "nerdctl" => Some(Runtime::Containerd),
        "crio" => Some(Runtime::CriO),
        "libpod" | "libpod-payload" => Some(Runtime::Podman),
        _ => None,
    };
    Some((runtime, id.to_owned()))
}

/// Containers that have a name and no id.
fn named(part: &str, unit: &str, parent: &str) -> Option<(Runtime, String)> {
    let machine = part.strip_prefix("systemd-nspawn@").and_then(|p| p.strip_suffix(".service"));
    if let Some(name) = machine {
        return Some((Runtime::Nspawn, unescape(name)));
    }
    if let Some(name) = unit.strip_prefix("machine-").filter(|_| unit != part) {
        let name = unescape(name);
        // Virtual machines are registered there, too.
        return (!name.starts_with("qemu-")).then_some((Runtime::Nspawn, name));
    }
    if let Some(name) = part.strip_prefix("lxc.payload.") {
        return Some((Runtime::Lxc, name.to_owned()));
    }
    matches!(parent, "lxc" | "lxc.payload").then(|| (Runtime::Lxc, part.to_owned()))
}

/// What systemd wrote as `\x2d` (systemd.unit(5)).
fn unescape(text: &str) -> String {
    let mut pieces = text.split("\\x");
    let mut plain = pieces.next().unwrap_or_default().as_bytes().to_vec();
    for piece in pieces {
        match piece.get(..2).map(|digits| u8::from_str_radix(digits, 16)) {
            Some(Ok(byte)) => {
                plain.push(byte);
                plain.extend_from_slice(&piece.as_bytes()[2..]);
            }
            _ => {
                plain.extend_from_slice(b"\\x");
                plain.extend_from_slice(piece.as_bytes());
            }
        }
    }
    String::from_utf8_lossy(&plain).into_owned()
}

fn is_id(text: &str) -> bool {
    is_hex(text, 64)
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_number(text: &str) -> bool {
    text.strip_prefix('-')
        .is_some_and(|digits| !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// Of a pod that the API server knows: 8-4-4-4-12 digits; of one that a file on the host describes: 32.
fn is_uid(text: &str) -> bool {
    let lengths = text.split('-').map(str::len);
    is_hex(text, 32)
        || (lengths.eq([8, 4, 4, 4, 12]) && text.split('-').all(|part| is_hex(part, part.len())))
}

#[cfg(test)]
mod tests;
