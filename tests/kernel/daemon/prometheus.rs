//! The whole way, with a real Prometheus and a real Alertmanager and the intervals that they come with: a service
//! is killed, the alert fires a minute or two later, and the dump still holds the cause.

use std::fs;
use std::process::Command;

use super::running::{Running, TOKEN};

/// Scrapes and evaluates every 15 s, as Debian's configuration does; Alertmanager groups for 30 s, as by default.
const WATCHED: &str = "
import glob, http.server, json, subprocess, tempfile, urllib.request

class Metrics(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b'answers_total 1\\n')

    def log_message(self, *_):
        pass

def free():
    with socket.create_server(('127.0.0.1', 0)) as s:
        return s.getsockname()[1]

def until(what, seconds, holds):
    for _ in range(seconds * 5):
        try:
            if holds():
                return
        except OSError:
            pass
        time.sleep(0.2)
    raise TimeoutError(what)

def ask(port, path):
    return json.load(urllib.request.urlopen(f'http://127.0.0.1:{port}{path}', timeout=5))

service, prometheus, manager = free(), free(), free()
folder = tempfile.mkdtemp()
files = {
    'prometheus.yml': f'''
global: {{scrape_interval: 15s, evaluation_interval: 15s}}
rule_files: [rules.yml]
alerting: {{alertmanagers: [{{static_configs: [{{targets: ['127.0.0.1:{manager}']}}]}}]}}
scrape_configs: [{{job_name: shop, static_configs: [{{targets: ['127.0.0.1:{service}']}}]}}]
''',
    'rules.yml': '''
groups:
  - name: shop
    rules: [{alert: ShopDown, expr: up == 0, for: 15s}]
''',
    'alertmanager.yml': f'''
route: {{receiver: wherefore}}
receivers:
  - name: wherefore
    webhook_configs:
      - url: http://127.0.0.1:{DAEMON}/api/v1/alerts
        send_resolved: false
        http_config: {{authorization: {{credentials: {TOKEN}}}}}
''',
}
for name, text in files.items():
    open(f'{folder}/{name}', 'w').write(text)

shop = child('shop', lambda: http.server.HTTPServer(('127.0.0.1', service), Metrics).serve_forever())
quiet = {'stdout': subprocess.DEVNULL, 'stderr': subprocess.DEVNULL}
started = [
    subprocess.Popen(['prometheus', f'--config.file={folder}/prometheus.yml', f'--storage.tsdb.path={folder}/data',
                      f'--web.listen-address=127.0.0.1:{prometheus}'], **quiet),
    subprocess.Popen(['prometheus-alertmanager', f'--config.file={folder}/alertmanager.yml',
                      f'--storage.path={folder}/alerts', f'--web.listen-address=127.0.0.1:{manager}',
                      '--cluster.listen-address='], **quiet),
]
try:
    def is_up():
        result = ask(prometheus, '/api/v1/query?query=up')['data']['result']
        return result and result[0]['value'][1] == '1'

    until('Prometheus does not see the service', 60, is_up)
    killer = child('culprit', lambda: os.kill(shop, signal.SIGKILL))
    os.waitpid(killer, 0)
    os.waitpid(shop, 0)
    until('no dump was made', 150, lambda: glob.glob(DUMPS + '/*-ShopDown'))
finally:
    for program in started:
        program.terminate()
        program.wait()
";

#[test]
fn an_alert_of_prometheus_finds_the_cause_in_the_window() {
    let daemon = Running::with_tcp_and_scope(
        "[[alert]]\nlabels = { alertname = 'ShopDown' }\n\
         symptom = 'comm=prometheus remote={instance} error=ECONNREFUSED'\n",
    );
    let given = [
        format!("DAEMON = {}", daemon.port),
        format!("TOKEN = '{TOKEN}'"),
        format!("DUMPS = '{}'", daemon.path("dumps").display()),
    ];
    daemon.play(&format!("{}\n{WATCHED}", given.join("\n")));
    let folder = daemon.wait_for("-ShopDown");
    let why = fs::read_to_string(folder.join("why.txt")).expect("an answer");
    let first = why.lines().take(5).collect::<Vec<_>>().join("\n");
    assert!(first.contains("culprit[") && first.contains("SIGKILL"), "{why}");
    assert!(!why.contains("\nlate "), "{why}");
    assert!(why.contains("nothing lost"), "{why}");
}

/// What the programs themselves say of the files that are ready for them.
#[test]
fn the_files_that_are_ready_for_prometheus_are_right() {
    for words in [
        ["promtool", "check", "rules", "prometheus-rules.yml"].as_slice(),
        &["amtool", "check-config", "alertmanager.yml"],
    ] {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy");
        let output = Command::new(words[0]).args(&words[1..]).current_dir(folder).output();
        let output = output.expect("it starts");
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{words:?}: {said}{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    let daemon = Running::start("upload = 'file:///nowhere'\n");
    let metrics = daemon.http("GET /metrics HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
    let rules =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/prometheus-rules.yml"));
    let rules = rules.expect("the rules are there");
    let named = rules.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let named: Vec<&str> = named.filter(|word| word.starts_with("wherefore_")).collect();
    assert!(named.len() >= 3, "{named:?}");
    for name in named {
        assert!(metrics.contains(&format!("# TYPE {name} ")), "there is no metric {name}");
    }
}
