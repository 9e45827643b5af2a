//! Lines of a text that arrives in pieces, and what a line says that matches.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde_json::json;

use super::Seen;
use super::rule::Line;

/// Of a longer line only the beginning is looked at.
pub const LONGEST: usize = 64 << 10;

/// Puts pieces together to lines.
#[derive(Debug, Default)]
pub struct Lines {
    /// The beginning of a line whose end has not come yet.
    held: Vec<u8>,
}

impl Lines {
    /// Takes the next piece, and hands out each line that ends in it.
    pub fn push(&mut self, piece: &[u8], line: &mut dyn FnMut(&[u8])) {
        for part in piece.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = part.strip_suffix(b"\n").map_or((part, false), |text| (text, true));
            if ends && self.held.is_empty() {
                line(&text[..text.len().min(LONGEST)]);
                continue;
            }
            let room = LONGEST - self.held.len();
            self.held.extend_from_slice(&text[..text.len().min(room)]);
            if ends {
                line(&self.held);
                self.forget();
            }
        }
    }

    /// What was held belongs to nothing any more.
    pub fn forget(&mut self) {
        // A long line's memory is not kept for short ones.
        self.held = Vec::new();
    }
}

/// How much of a line is kept in a dump.
const MOST_SAID: usize = 4096;

/// What a line says, if it matches; `from` is where it stands.
pub fn seen(line: &[u8], matches: &Line, from: &str) -> Option<Seen> {
    let found = matches.0.captures(line)?;
    let value = |name: &str| {
        let text = String::from_utf8_lossy(found.name(name)?.as_bytes()).into_owned();
        Some((name.to_owned(), text))
    };
    let labels: BTreeMap<String, String> =
        matches.0.capture_names().flatten().filter_map(value).collect();
    let said = String::from_utf8_lossy(&line[..line.len().min(MOST_SAID)]);
    let said = json!({ "from": from, "line": said, "labels": labels });
    Some(Seen { began: Timestamp::now(), labels, said })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pieces: &[&[u8]]) -> Vec<String> {
        let mut all = Vec::new();
        let mut lines = Lines::default();
        for piece in pieces {
            lines.push(piece, &mut |line| all.push(String::from_utf8_lossy(line).into_owned()));
        }
        all
    }

    #[test]
    fn pieces_become_lines_however_they_are_cut() {
        let text = b"one\n\ntwo\nthree";
        for cut in 0..text.len() {
            let (a, b) = text.split_at(cut);
            assert_eq!(lines(&[a, b]), ["one", "", "two"], "cut at {cut}");
        }
    }

    #[test]
    fn of_a_long_line_only_the_beginning_is_held() {
        let long = vec![b'x'; 3 * LONGEST];
        let said = lines(&[&long, &long, b"y\nshort\n", &[&long[..], b"\n"].concat()]);
        assert_eq!(said.iter().map(String::len).collect::<Vec<_>>(), [LONGEST, 5, LONGEST]);
    }

    #[test]
    fn what_a_line_names_fills_labels() {
        let matches = Line::try_from("upstream (?<peer>[0-9.:]+) (?<odd>.)?".to_owned());
        let matches = matches.expect("an expression");
        assert!(seen(b"all is well", &matches, "x").is_none());
        let seen = seen(b"error: upstream 127.0.0.1:80 \xff", &matches, "x").expect("it matches");
        assert_eq!(seen.labels["peer"], "127.0.0.1:80");
        assert_eq!(seen.said["line"], "error: upstream 127.0.0.1:80 \u{fffd}");
    }
}
