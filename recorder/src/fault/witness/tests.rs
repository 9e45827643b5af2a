//! What shows that a cut kept its sides apart, on written histories.

use super::{Seen, Witness};
use crate::graph::written::history;

/// What is seen of the cut `split`, which begins with the first line of the history, and the event after it.
fn seen(text: &str) -> Seen {
    let history = history(&format!("k fault fault=split\n{text}"));
    let mut witness = Witness::default();
    witness.see(&history.events);
    witness.of(&history.names, "split")
}

/// Confirmed and contradicted.
fn check(text: &str, expected: (u64, u64)) {
    let seen = seen(text);
    assert_eq!((seen.confirmed, seen.contradicted), expected, "{text}");
}

const LOST: &str = "k fault fault=split lost incoming 2 0..9 / a send 1 0..9";

#[test]
fn its_own_word_is_not_enough() {
    check("k fault fault=split lost 1 0..9", (0, 0));
    // Who sent it is not recorded, nor, where it left, who was to receive it.
    check("k fault fault=split lost incoming 2 0..9", (0, 0));
    check("k fault fault=split lost 1 0..9 / a send 1 0..9", (0, 0));
    assert_eq!(seen("k fault fault=split lost 1 0..9 / k fault fault=split healed").injected, 3);
}

#[test]
fn a_receiver_that_has_nothing_until_it_healed_confirms_it() {
    check(LOST, (1, 0));
    check(&format!("{LOST} / k fault fault=split healed / b recv 2 0..9"), (1, 0));
    // What it reads from before the loss is another matter.
    check("k fault fault=split lost incoming 2 5..9 / b recv 2 0..5 / a send 1 5..9", (1, 0));
}

#[test]
fn the_same_bytes_again_confirm_it_and_others_do_not() {
    for (lost, again, confirmed) in [
        ("lost incoming 2 0..9", "1 0..9", 1),
        ("lost incoming 2 0..9", "1 9..12", 0),
        ("lost incoming 2 0..9", "3 0..9", 0),
        ("lost incoming 2 0..9", "2 0..9", 0),
        ("lost 1 0..9", "1 0..9", 1),
        ("lost 1 0..9", "1", 0),
        ("lost 1", "1", 1),
    ] {
        let text = format!("k fault fault=split {lost} / k retransmit {again}");
        check(&text, (confirmed, 0));
    }
}

#[test]
fn a_sender_that_gives_up_confirms_it_while_it_holds() {
    let lost = "k fault fault=split lost 1 unknown";
    check(&format!("{lost} / k error 1 error=ETIMEDOUT"), (1, 0));
    check(&format!("{lost} / k error 1 error=ECONNREFUSED"), (0, 0));
    check(&format!("{lost} / k error 3 error=ETIMEDOUT"), (0, 0));
    check(&format!("{lost} / k fault fault=split healed / k error 1 error=ETIMEDOUT"), (0, 0));
}

#[test]
fn bytes_that_went_across_contradict_it() {
    check(&format!("a exec / {LOST} / b recv 2 0..9"), (0, 1));
    // Of another connection; sent before it began; of the other direction.
    check(&format!("a exec / {LOST} / b recv 4 0..9"), (1, 0));
    check(&format!("{LOST} begin=1 / b recv 2 0..9"), (0, 0));
    check(&format!("a exec / {LOST} / a recv 1 0..9"), (1, 0));
    let healed = "k fault fault=split healed / b recv 2 0..9 / k retransmit 1 0..9";
    check(&format!("a exec / {LOST} / {healed}"), (1, 0));
}

#[test]
fn a_datagram_that_did_not_come_confirms_it() {
    let udp = "protocol=udp unknown";
    let sent = format!("a send 1 {udp} result=4");
    // Where it was lost when it left, its receiver is one that does something there.
    for (lost, awaited) in [("incoming 2 netns=1", ""), ("1", "/ b send 2 protocol=udp unknown")] {
        let lost = format!("k fault fault=split lost {lost} {udp}");
        check(&lost, (0, 0));
        check(&format!("{lost} {awaited} / a send 3 {udp}"), (0, 0));
        check(&format!("{lost} / {sent} {awaited}"), (1, 0));
        for (received, confirmed) in [
            (format!("b recv 2 {udp}"), 0),
            (format!("b recv 2 {udp} remote=none"), 0),
            (format!("b recv 2 {udp} remote=1.2.3.4:5"), 1),
            (format!("b recv 2 {udp} error=EAGAIN"), 1),
            (format!("k fault fault=split healed / b recv 2 {udp}"), 1),
        ] {
            check(&format!("{lost} / {sent} / {received}"), (confirmed, 0));
        }
    }
    for unknown in ["incoming 2", "1"] {
        check(&format!("k fault fault=split lost {unknown} {udp} / {sent}"), (0, 0));
    }
}
