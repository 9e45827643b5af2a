//! Recordings: written, read back, cut off, damaged, merged, and opened by other tools.

mod traffic;
use std::time::Instant;

use recorder::event::History;
use recorder::recording::write;

fn write(history: &History) -> Vec<u8> {
    let host = &history.hosts[0];
    let mut writer = write::Writer::new(Vec::new(), "memory", host).expect("write the head");
    writer.append(&history.names, &history.events).expect("write parts");
    writer.finish(host).expect("write the end")
}

#[test]
fn size_and_speed() {
    let history = traffic::requests(1_000_000);
    let begin = Instant::now();
    let file = write(&history);
    let took = begin.elapsed();
    let events = history.events.len() as f64;
    let per_event = file.len() as f64 / events;
    println!(
        "{per_event:.1} bytes/event, {:.1} M rows/s written",
        events / took.as_secs_f64() / 1e6
    );
    std::fs::write("/tmp/wf-rec-tmp/a.parquet", file);
}
