//! The load: a redis server of our own, and redis-benchmark's GETs by 50 clients.

use std::fs::{self, File};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command};
use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

use crate::process;

/// A server without persistence, on a free port; it ends with this value.
pub struct Server {
    process: Child,
    port: u16,
}

/// What one run of the load came to.
#[derive(Clone, Copy)]
pub struct Run {
    pub requests_per_second: f64,
    /// Time on a CPU that the server took for one request.
    pub server_ns_per_request: f64,
}

impl Server {
    pub fn start(directory: &Path) -> Result<Self> {
        let port = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port();
        let log = File::create(directory.join("redis.log"))?;
        let mut command = Command::new("redis-server");
        command.args(["--bind", "127.0.0.1", "--port", &port.to_string(), "--save", "", "--dir"]);
        let process = command.arg(directory).stdout(log).spawn().context("start redis-server")?;
        let server = Self { process, port };
        let begin = Instant::now();
        while TcpStream::connect((Ipv4Addr::LOCALHOST, port)).is_err() {
            if begin.elapsed() > Duration::from_secs(10) {
                bail!("redis-server does not answer on port {port}");
            }
            sleep(Duration::from_millis(20));
        }
        Ok(server)
    }

    /// Runs the load once.
    pub fn run(&self, requests: u32) -> Result<Run> {
        let before = cpu_ns(self.process.id())?;
        let (port, count) = (self.port.to_string(), requests.to_string());
        let load = ["-h", "127.0.0.1", "-p", &port, "-c", "50", "-n", &count, "-t", "get", "--csv"];
        let said = process::stdout(Command::new("redis-benchmark").args(load))?;
        let server_ns = cpu_ns(self.process.id())? - before;
        let rate = said.lines().find_map(|line| line.strip_prefix("\"GET\",\"")?.split('"').next());
        let rate = rate.with_context(|| format!("read redis-benchmark's result: {said}"))?;
        Ok(Run {
            requests_per_second: rate.parse()?,
            server_ns_per_request: server_ns as f64 / f64::from(requests),
        })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // It holds nothing worth saving.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Time on a CPU of all threads of a process so far, from the scheduler's own nanoseconds.
pub fn cpu_ns(pid: u32) -> Result<u64> {
    let mut sum = 0;
    for thread in fs::read_dir(format!("/proc/{pid}/task"))? {
        let path = thread?.path().join("schedstat");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let on_cpu = text.split(' ').next().unwrap_or_default();
        sum += on_cpu.parse::<u64>().with_context(|| format!("understand {}", path.display()))?;
    }
    Ok(sum)
}
