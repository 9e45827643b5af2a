//! A program that has no more of this machine than a container would give it.

use std::collections::BTreeSet;
use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use caps::{CapSet, Capability};
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_no_new_privs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, chdir, chroot};
use tempfile::TempDir;

use crate::daemon::running::{PATIENCE, TOKEN, new_cgroup, remove};
use crate::recorded::require_root;

/// A folder in the container.
pub struct Place {
    /// What it is of this machine; one of its own where there is nothing.
    pub from: Option<PathBuf>,
    pub to: PathBuf,
    pub writable: bool,
}

/// Has a program start with these capabilities at most, and never get others.
pub fn bound(command: &mut Command, allowed: &BTreeSet<String>) {
    let unwanted = unwanted(allowed);
    // SAFETY: only system calls, on numbers.
    unsafe { command.pre_exec(move || give_up(&unwanted)) };
}

fn unwanted(allowed: &BTreeSet<String>) -> Vec<Capability> {
    let allowed: Vec<Capability> = allowed
        .iter()
        .map(|name| format!("CAP_{}", name.to_uppercase()).parse().expect("a capability"))
        .collect();
    caps::all().into_iter().filter(|capability| !allowed.contains(capability)).collect()
}

fn give_up(unwanted: &[Capability]) -> io::Result<()> {
    for capability in unwanted {
        // One that this kernel does not know is not had, either.
        if caps::has_cap(None, CapSet::Bounding, *capability).unwrap_or(false) {
            caps::drop(None, CapSet::Bounding, *capability).map_err(io::Error::other)?;
        }
    }
    set_no_new_privs()?;
    Ok(())
}

/// A daemon in a container of its own.
pub struct Confined {
    home: TempDir,
    child: Child,
    cgroup: PathBuf,
}

/// What is mounted where, before the container's root becomes the root.
struct Binding {
    from: PathBuf,
    to: PathBuf,
    flags: MsFlags,
}

impl Confined {
    /// Starts `/usr/bin/wherefore` there, as root, with these words.
    pub fn start(
        words: &[String],
        places: &[Place],
        allowed: &BTreeSet<String>,
        configuration: &str,
    ) -> Self {
        require_root();
        let home = tempfile::tempdir().expect("a folder");
        let root = home.path().join("root");
        let bindings = lay_out(home.path(), &root, places, configuration);
        let (cgroup, unwanted) = (new_cgroup(), unwanted(allowed));
        let procs = cgroup.join("cgroup.procs");
        let log = File::create(home.path().join("log")).expect("a file");
        let mut command = Command::new("/usr/bin/wherefore");
        command.args(words).env_clear().stdin(Stdio::null()).stderr(log);
        let enter = move || {
            fs::write(&procs, "0")?;
            unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWCGROUP)?;
            bind_all(&root, &bindings)?;
            chroot(&root)?;
            chdir("/")?;
            give_up(&unwanted)
        };
        // SAFETY: system calls, on what was made ready before; the one thread here allocates a few short texts.
        unsafe { command.pre_exec(enter) };
        let child = command.spawn().expect("it starts");
        let confined = Self { home, child, cgroup };
        let begun = Instant::now();
        while UnixStream::connect(confined.own("run/wherefore").join("wherefore.sock")).is_err() {
            assert!(begun.elapsed() < PATIENCE, "it does not answer: {}", confined.log());
            thread::sleep(Duration::from_millis(20));
        }
        confined
    }

    /// Where a folder of its own lies.
    fn own(&self, path: &str) -> PathBuf {
        self.home.path().join("own").join(path)
    }

    fn log(&self) -> String {
        fs::read_to_string(self.home.path().join("log")).unwrap_or_default()
    }

    /// Runs a client outside; it must be answered.
    pub fn ask(&self, words: &[&str]) -> String {
        let socket = self.own("run/wherefore").join("wherefore.sock");
        let mut command = Command::new(tests::command::wherefore());
        command.arg(words[0]).arg("--socket").arg(socket).args(&words[1..]);
        let output = command.output().expect("it starts");
        assert!(output.status.success(), "{words:?}: {output:?}\n{}", self.log());
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// Has it make a dump; where its folder lies outside.
    pub fn dump(&self, words: &[&str]) -> PathBuf {
        let words: Vec<&str> = ["dump"].iter().chain(words).copied().collect();
        let said = self.ask(&words);
        let folder = said.lines().next().expect("a folder");
        self.own(folder.trim_start_matches('/'))
    }
}

/// Makes the container's root and what it is made of.
fn lay_out(home: &Path, root: &Path, places: &[Place], configuration: &str) -> Vec<Binding> {
    let program = root.join("usr/bin/wherefore");
    fs::create_dir_all(root.join("usr/bin")).expect("a folder");
    File::create(&program).expect("a file");
    let recursive = MsFlags::MS_REC;
    let mut bindings = Vec::new();
    let mut add = |from: &Path, to: PathBuf, flags| {
        fs::create_dir_all(if from.is_file() { to.parent().expect("a folder") } else { &to })
            .expect("a folder");
        bindings.push(Binding { from: from.to_owned(), to, flags });
    };
    let binary = tests::command::wherefore();
    add(&binary, program, MsFlags::empty());
    // No system's libraries, where it needs none.
    let names_interpreter =
        fs::read(&binary).expect("a program").windows(9).any(|w| w == b"/ld-linux");
    for folder in ["lib", "lib64", "usr/lib"].iter().filter(|_| names_interpreter) {
        add(&Path::new("/").join(folder), root.join(folder), MsFlags::MS_RDONLY);
    }
    add(Path::new("/proc"), root.join("proc"), MsFlags::empty());
    // Without what is mounted in it.
    add(Path::new("/sys"), root.join("sys"), MsFlags::MS_RDONLY);
    for Place { from, to, writable } in places {
        let below = to.strip_prefix("/").expect("an absolute path");
        let own = home.join("own").join(below);
        match from.as_ref().filter(|_| !writable) {
            Some(from) => add(from, root.join(below), recursive),
            // Not the machine's own: a test leaves nothing there.
            None => {
                fs::create_dir_all(&own).expect("a folder");
                add(&own, root.join(below), MsFlags::empty());
            }
        }
    }
    let secret = home.join("own/run/secrets/wherefore/token");
    fs::write(&secret, TOKEN).expect("the manifest has a place for the token");
    fs::set_permissions(&secret, Permissions::from_mode(0o400)).expect("it is ours");
    let file = home.join("own/etc/wherefore/wherefore.toml");
    fs::write(file, configuration).expect("the manifest has a place for the configuration");
    bindings
}

/// In a namespace of mounts that nobody else sees.
fn bind_all(root: &Path, bindings: &[Binding]) -> nix::Result<()> {
    const NOTHING: Option<&str> = None;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(NOTHING, "/", NOTHING, private, NOTHING)?;
    mount(Some(root), root, NOTHING, MsFlags::MS_BIND, NOTHING)?;
    for Binding { from, to, flags } in bindings {
        let bind = MsFlags::MS_BIND | (*flags & MsFlags::MS_REC);
        mount(Some(from.as_path()), to.as_path(), NOTHING, bind, NOTHING)?;
    }
    let unwritable = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    let read_only = bindings.iter().filter(|b| b.flags.contains(MsFlags::MS_RDONLY));
    for path in read_only.map(|b| b.to.as_path()).chain([root]) {
        mount(NOTHING, path, NOTHING, unwritable, NOTHING)?;
    }
    Ok(())
}

impl Drop for Confined {
    fn drop(&mut self) {
        let pid = Pid::from_raw(self.child.id().try_into().expect("a pid"));
        let _ = kill(pid, Signal::SIGTERM);
        let status = self.child.wait();
        remove(&self.cgroup);
        if !thread::panicking() {
            assert!(status.is_ok_and(|status| status.success()), "{}", self.log());
        }
    }
}
