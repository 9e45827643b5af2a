//! Whether racing calls can have shared out a stretch of a stream so that one of them took none of some bytes.
//!
//! A flow from the calls to the pieces that their limits cut the stretch into: each call has its length to
//! place, each piece takes as much as it is long.

/// A call's length, and the bytes that it lies within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Limits {
    pub len: u64,
    pub start: u64,
    pub end: u64,
}

impl Limits {
    pub(super) fn is_exact(&self) -> bool {
        self.end - self.start == self.len
    }

    /// Without what lies below.
    pub(super) fn above(&self, base: u64) -> Self {
        Self { start: self.start.max(base.min(self.end - self.len)), ..*self }
    }
}

/// Whether all calls find room though call `without` keeps out of `range`.
pub(super) fn fits(calls: &[Limits], without: usize, range: (u64, u64)) -> bool {
    let ends = calls.iter().flat_map(|call| [call.start, call.end]);
    let mut cuts: Vec<u64> = ends.chain([range.0, range.1]).collect();
    cuts.sort_unstable();
    cuts.dedup();
    let pieces: Vec<(u64, u64)> = cuts.windows(2).map(|pair| (pair[0], pair[1])).collect();
    let allowed = |call: usize, piece: usize| {
        let ((start, end), limits) = (pieces[piece], &calls[call]);
        let out = call == without && range.0 <= start && end <= range.1;
        limits.start <= start && end <= limits.end && !out
    };
    let mut flow = vec![vec![0; pieces.len()]; calls.len()];
    for (call, limits) in calls.iter().enumerate() {
        let mut left = limits.len;
        while left > 0 {
            let moved = augment(&pieces, &allowed, &mut flow, call, left);
            if moved == 0 {
                return false;
            }
            left -= moved;
        }
    }
    true
}

/// Places up to `most` bytes of a call, moving those of others where that makes room; returns how many.
fn augment(
    pieces: &[(u64, u64)],
    allowed: &impl Fn(usize, usize) -> bool,
    flow: &mut [Vec<u64>],
    call: usize,
    most: u64,
) -> u64 {
    // By piece: the call that came to it, and the piece that this call would leave.
    let mut came: Vec<Option<(usize, Option<usize>)>> = vec![None; pieces.len()];
    let mut queue = std::collections::VecDeque::from([(call, None)]);
    while let Some((from, left)) = queue.pop_front() {
        for piece in 0..pieces.len() {
            if came[piece].is_some() || !allowed(from, piece) {
                continue;
            }
            came[piece] = Some((from, left));
            let used: u64 = flow.iter().map(|row| row[piece]).sum();
            let room = pieces[piece].1 - pieces[piece].0 - used;
            if room > 0 {
                return shift(flow, &came, piece, room.min(most));
            }
            let holders = (0..flow.len()).filter(|&other| flow[other][piece] > 0);
            queue.extend(holders.map(|other| (other, Some(piece))));
        }
    }
    0
}

/// Moves bytes along the way that was found, back from its free piece.
fn shift(
    flow: &mut [Vec<u64>],
    came: &[Option<(usize, Option<usize>)>],
    free: usize,
    most: u64,
) -> u64 {
    let mut amount = most;
    let mut at = Some(free);
    while let Some((call, left)) = at.and_then(|piece| came[piece]) {
        amount = left.map_or(amount, |piece| amount.min(flow[call][piece]));
        at = left;
    }
    let mut at = Some(free);
    while let Some((piece, (call, left))) = at.and_then(|piece| Some((piece, came[piece]?))) {
        flow[call][piece] += amount;
        if let Some(left) = left {
            flow[call][left] -= amount;
        }
        at = left;
    }
    amount
}
