//! One guest: booted, watched, and ended when it hangs.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use super::group::Job;
use super::image::{Files, Image};
use super::verdict::{Report, Took};
use crate::process::{root, say};

pub const QEMU: &str = "qemu-system-x86_64";

/// PID 1.
const INIT: &str = include_str!("init.sh");

/// Memory of a guest: what it writes stays there.
const MEMORY_MIB: u32 = 2048;

/// The folders of the system's programs.
const SYSTEM: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Where QEMU's packages put the server of virtiofs.
const VIRTIOFSD: [&str; 3] =
    ["/usr/lib/qemu/virtiofsd", "/usr/libexec/virtiofsd", "/usr/lib/virtiofsd"];

/// Boots the kernel, runs the command in it, and tells what it said. A guest that cannot be booted is a failed report.
pub fn run(job: Job) -> Report {
    let begun = Instant::now();
    let mut cpu = Duration::ZERO;
    let outcome = Guest::boot(&job).and_then(|mut guest| {
        let outcome = guest.watch(&job);
        cpu = guest.cpu;
        outcome
    });
    let took = Took { elapsed: begun.elapsed(), cpu };
    let report = match outcome {
        Ok((output, end)) => Report::of(job, &output, end, took),
        Err(error) => Report::of(job, "", Err(format!("{error:#}")), took),
    };
    say(format_args!("{report}"));
    report
}

struct Guest {
    folder: PathBuf,
    qemu: Running,
    /// Serves the host's files over virtiofs.
    _server: Option<Running>,
    /// What the emulation has taken so far.
    cpu: Duration,
}

/// What a guest says lies here.
fn folder(job: &Job) -> PathBuf {
    root().join("target/vm").join(job.title().replace(' ', "-"))
}

/// Keeps what the job's last guest said, beside what its next one says.
pub fn keep_first(job: &Job) {
    let folder = folder(job);
    let kept = folder.with_added_extension("first");
    // Lost is then only the raw text of what has been printed.
    let _ = fs::remove_dir_all(&kept);
    let _ = fs::rename(folder, kept);
}

impl Guest {
    fn boot(job: &Job) -> Result<Self> {
        let folder = folder(job);
        if folder.exists() {
            fs::remove_dir_all(&folder).with_context(|| format!("empty {}", folder.display()))?;
        }
        fs::create_dir_all(&folder).with_context(|| format!("make {}", folder.display()))?;
        write_script(&folder.join("init"), INIT)?;
        write_script(&folder.join("command"), &command(job))?;
        for name in ["console", "output", "status"] {
            File::create(folder.join(name))?;
        }
        let server = match &job.image.files {
            Files::Plan9 => None,
            Files::Plan9ByModules { modules, .. } => {
                symlink(modules.join("lib/modules"), folder.join("modules"))?;
                None
            }
            Files::Virtiofs { modules } => {
                unpack(modules, &folder)?;
                Some(serve(&folder)?)
            }
        };
        let log = File::create(folder.join("qemu"))?;
        let mut qemu = qemu(job, &folder);
        qemu.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let qemu = Running(qemu.spawn().with_context(|| format!("run {QEMU}"))?);
        Ok(Self { folder, qemu, _server: server, cpu: Duration::ZERO })
    }

    /// Waits for the end; what the command said, and its status or why there is none.
    fn watch(&mut self, job: &Job) -> Result<(String, Result<i32, String>)> {
        let begun = Instant::now();
        let mut ended = false;
        while !ended && begun.elapsed() < job.limit {
            thread::sleep(Duration::from_millis(100));
            self.cpu = cpu_time(self.qemu.0.id()).unwrap_or(self.cpu);
            ended = self.qemu.0.try_wait()?.is_some();
        }
        let output = self.file("output");
        let end = match self.file("status").trim().parse() {
            Ok(status) if ended => Ok(status),
            _ => {
                let what = if ended { "the guest died" } else { "the limit of time has passed" };
                let seconds = begun.elapsed().as_secs();
                let (console, qemu) = (self.file("console"), self.file("qemu"));
                let (said, console) = (tail(&output), tail(&console));
                Err(format!("{what} after {seconds} s\n{said}\n--- console\n{console}\n{qemu}"))
            }
        };
        Ok((output, end))
    }

    fn file(&self, name: &str) -> String {
        let bytes = fs::read(self.folder.join(name)).unwrap_or_default();
        String::from_utf8_lossy(&bytes).replace('\r', "")
    }
}

/// A process that does not outlive this.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // Gone already, most times.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// What a living process has taken: user and system time, the 14th and 15th word, in hundredths of a second.
fn cpu_time(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // A program's name may hold anything but ends with the last parenthesis.
    let (_, after) = stat.rsplit_once(')')?;
    let ticks = after.split_whitespace().skip(11).take(2).map(str::parse::<u64>);
    let ticks: u64 = ticks.collect::<Result<Vec<_>, _>>().ok()?.iter().sum();
    (ticks > 0).then(|| Duration::from_millis(ticks * 10))
}

fn tail(text: &str) -> String {
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(30)..].join("\n")
}

fn write_script(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
    Ok(fs::set_permissions(path, fs::Permissions::from_mode(0o755))?)
}

/// The job's script, in the folder where cargo runs tests, with what programs need of the environment.
fn command(job: &Job) -> String {
    let mut script = format!("cd '{}' || exit 126\n", root().join("tests").display());
    for name in ["PATH", "HOME", "LANG", "PYTHON"] {
        if let Ok(mut value) = std::env::var(name) {
            // A script in front of an interpreter, which chooses its version, takes seconds there.
            if name == "PATH" {
                value = format!("{SYSTEM}:{value}");
            }
            let quoted = value.replace('\'', r"'\''");
            writeln!(script, "export {name}='{quoted}'").expect("strings grow");
        }
    }
    script + &job.command
}

/// Modules as the guest loads them, before it has anything that could unpack them.
fn unpack(modules: &[PathBuf], folder: &Path) -> Result<()> {
    for (number, module) in modules.iter().enumerate() {
        let target = File::create(folder.join(format!("{number}.ko")))?;
        let mut xz = Command::new("xz");
        let status = xz.arg("-dc").arg(module).stdout(target).status().context("run xz")?;
        ensure!(status.success(), "unpack {}: {status}", module.display());
    }
    Ok(())
}

fn serve(folder: &Path) -> Result<Running> {
    let server = VIRTIOFSD.iter().find(|path| Path::new(path).exists());
    let server = server.context("there is no virtiofsd (Debian: package qemu-system-common)")?;
    let socket = folder.join("files");
    let log = File::create(folder.join("virtiofsd"))?;
    let child = Command::new(server)
        .arg(format!("--socket-path={}", socket.display()))
        .args(["-o", "source=/", "-o", "cache=auto", "-o", "sandbox=chroot"])
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .map(Running)
        .with_context(|| format!("run {server}"))?;
    for _ in 0..100 {
        if socket.exists() {
            break;
        }
        thread::sleep(Duration::from_millis(50));
    }
    Ok(child)
}

fn qemu(job: &Job, folder: &Path) -> Command {
    // (It ends with whoever runs it, however that ends.)
    let mut qemu = Command::new("setpriv");
    qemu.args(["--pdeathsig", "KILL", QEMU]);
    let at = |name: &str| folder.join(name).display().to_string();
    qemu.args(accelerator(&job.image));
    qemu.args(["-nodefaults", "-no-user-config", "-display", "none", "-no-reboot", "-nic", "none"]);
    qemu.arg("-smp").arg(job.cpus.to_string()).arg("-m").arg(MEMORY_MIB.to_string());
    let files = match &job.image.files {
        Files::Plan9 | Files::Plan9ByModules { .. } => {
            let options = "local,id=root,path=/,security_model=none,readonly=on,multidevs=remap";
            qemu.args(["-machine", "q35", "-fsdev", options]);
            qemu.args(["-device", "virtio-9p-pci,fsdev=root,mount_tag=/dev/root"]);
            "root=/dev/root rootfstype=9p \
             rootflags=trans=virtio,version=9p2000.L,msize=524288,cache=loose,access=client"
        }
        Files::Virtiofs { .. } => {
            let memory = format!("memory-backend-memfd,id=mem,size={MEMORY_MIB}M,share=on");
            qemu.args(["-machine", "q35,memory-backend=mem", "-object", &memory]);
            qemu.arg("-chardev").arg(format!("socket,id=files,path={}", at("files")));
            qemu.args(["-device", "vhost-user-fs-pci,chardev=files,tag=rootfs"]);
            "root=rootfs rootfstype=virtiofs"
        }
    };
    if let Files::Plan9ByModules { initrd, .. } = &job.image.files {
        qemu.arg("-initrd").arg(initrd);
    }
    qemu.arg("-kernel").arg(&job.image.path).arg("-append").arg(format!(
        "{files} ro init={} wf.job={} console=ttyS0 quiet panic=-1 oops=panic no_timer_check nokaslr {}",
        at("init"),
        folder.display(),
        job.parameters
    ));
    qemu.arg("-chardev").arg(format!("file,id=console,path={}", at("console")));
    qemu.args(["-serial", "chardev:console", "-device", "virtio-rng-pci"]);
    qemu.args(["-device", "virtio-serial-pci"]);
    for port in ["output", "status"] {
        qemu.arg("-chardev").arg(format!("file,id={port},path={}", at(port)));
        qemu.arg("-device").arg(format!("virtserialport,chardev={port},name={port}"));
    }
    qemu
}

/// Whether the processor has what KVM needs; some machines offer the device without.
pub fn has_kvm() -> bool {
    let processor = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let has = processor.split_whitespace().any(|word| word == "vmx" || word == "svm");
    has && fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok()
}

fn accelerator(image: &Image) -> [String; 4] {
    let (accelerator, model) = match (has_kvm(), image.is_own()) {
        (true, _) => ("kvm", "host"),
        // Emulated, the instruction cmpxchg16b miscomputes its flags (QEMU 7.2), and distributions' kernels crash of it. A
        // kernel without it refuses task storage, and those made here have never been seen to crash.
        (false, true) => ("tcg,thread=multi", "max"),
        (false, false) => ("tcg,thread=multi", "max,-cx16"),
    };
    ["-accel", accelerator, "-cpu", model].map(str::to_owned)
}
