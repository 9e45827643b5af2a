fn main() -> anyhow::Result<()> {
    use recorder::capture::*;
    let mut c =
        Capture::start(Scope::All, attach::Settings { ring_bytes: 64 << 20, probe_log: false })?;
    std::thread::sleep(std::time::Duration::from_secs(3));
    let ev = c.drain_rest();
    for e in ev.iter().take(60) {
        println!(
            "{} {} {}/{} {} {:?}->{:?} [{}..{}) res={} err={} {:?}",
            e.time_ns,
            e.op,
            e.pid,
            e.tid,
            c.names().text(e.comm),
            c.names().address(e.local),
            c.names().address(e.remote),
            e.stream_start,
            e.stream_end,
            e.result,
            e.error,
            e.proof
        );
    }
    let h = c.host();
    println!(
        "{} events; raised {} lost {} hooks {:?} missing {:?}",
        ev.len(),
        h.raised,
        h.lost,
        h.hooks,
        h.missing_hooks
    );
    Ok(())
}
