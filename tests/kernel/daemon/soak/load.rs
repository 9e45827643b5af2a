//! Real programs that talk all the time: redis and its benchmark, nginx and wrk.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::daemon::running::Running;
use crate::load::{folder, free_port};

pub struct Load {
    shell: Child,
    cgroup: PathBuf,
    _folder: TempDir,
}

impl Load {
    /// Starts them in the daemon's scope, which is this cgroup.
    pub fn start(daemon: &Running, cgroup: PathBuf) -> Self {
        let folder = folder();
        let (path, redis, web) = (folder.path().display(), free_port(), free_port());
        let configuration = format!(
            "daemon off; worker_processes 1; pid {path}/nginx.pid; error_log {path}/error.log; events {{}}
            http {{ access_log off; client_body_temp_path {path}/b; proxy_temp_path {path}/p;
            fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;
            server {{ listen 127.0.0.1:{web}; root {path}; }} }}"
        );
        fs::write(folder.path().join("nginx.conf"), configuration).expect("it is ours");
        fs::write(folder.path().join("page"), vec![b'x'; 2000]).expect("it is ours");
        let script = format!(
            "redis-server --port {redis} --save '' --dir {path} &
            nginx -c {path}/nginx.conf &
            until redis-cli -p {redis} ping; do sleep 0.05; done
            until curl -sf -o /dev/null http://127.0.0.1:{web}/page; do sleep 0.05; done
            while true; do
                redis-benchmark -q -p {redis} -c 20 -n 2000 -t get,set
                wrk -t 1 -c 4 -d 1 http://127.0.0.1:{web}/page
                sleep 2
            done"
        );
        let mut program = Command::new("/bin/sh");
        program.args(["-ec", &script]);
        let mut command = daemon.in_scope(&program);
        let command = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        Self { shell: command.spawn().expect("a shell starts"), cgroup, _folder: folder }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        fs::write(self.cgroup.join("cgroup.kill"), "1").expect("the cgroup is ours");
        self.shell.wait().expect("it is our child");
    }
}
