//! What a window sees: where its places begin, and where from there its taps are.

use smallvec::SmallVec;

use super::image::Source;
use super::weights::Shape;
use super::window::{AXES, Grid};

/// Shorter stretches are not worth a loop each.
const LONG: usize = 16;

/// Where the stretches of values that one place of the window sees begin, beside its first value.
pub(super) struct Taps {
    pub(super) starts: SmallVec<[usize; 64]>,
    pub(super) length: usize,
    /// Where each value lies; empty where the stretches are long enough to be gone through one by one.
    pub(super) offsets: SmallVec<[usize; 256]>,
}

impl Taps {
    pub(super) fn new(grid: &Grid, pitch: [usize; AXES], shape: &Shape) -> Self {
        let [z, y, x] = *grid;
        let ([_, high, wide], channels) = (pitch, shape.channels());
        // Values of neighbouring taps lie beside each other where nothing is between them.
        let is_joined = shape.groups == 1 && x.dilation == 1;
        let (steps, length) = if is_joined { (1, x.kernel * shape.depth) } else { (x.kernel, shape.depth) };
        let mut starts = SmallVec::with_capacity(z.kernel * y.kernel * steps);
        for at_z in 0..z.kernel {
            for at_y in 0..y.kernel {
                for at_x in 0..steps {
                    let line = at_z * z.dilation * high + at_y * y.dilation;
                    starts.push((line * wide + at_x * x.dilation) * channels);
                }
            }
        }
        let offsets = if length < LONG {
            starts.iter().flat_map(|start| (0..length).map(move |i| start + i)).collect()
        } else {
            SmallVec::new()
        };
        Self { starts, length, offsets }
    }
}

/// Where the first value lies that the window sees at each of its places, one after the other.
pub(super) struct Places {
    at: usize,
    line: usize,
    plane: usize,
    x: usize,
    y: usize,
    counts: [usize; 2],
    /// From one plane, line and place to the next.
    pub(super) steps: [usize; 3],
}

impl Places {
    pub(super) fn new(grid: &Grid, source: Source<'_>) -> Self {
        let [z, y, x] = *grid;
        let [_, high, wide] = source.pitch;
        let steps = [z.stride * high * wide, y.stride * wide, x.stride].map(|s| s * source.channels);
        Self { at: 0, line: 0, plane: 0, x: 0, y: 0, counts: [y.output, x.output], steps }
    }

    /// The next `R`, each plus `offset`, and whether they are in one line, as they mostly are.
    #[inline(always)]
    pub(super) fn several<const R: usize>(&mut self, offset: usize) -> ([usize; R], bool) {
        let mut found = [0; R];
        if self.x + R > self.counts[1] {
            for found in &mut found {
                *found = self.next() + offset;
            }
            return (found, R == 1);
        }
        let first = self.at + offset;
        for (i, found) in found.iter_mut().enumerate() {
            *found = first + i * self.steps[2];
        }
        (self.x, self.at) = (self.x + R, self.at + R * self.steps[2]);
        if self.x == self.counts[1] {
            self.begin_line();
        }
        (found, true)
    }

    #[inline(always)]
    fn begin_line(&mut self) {
        self.x = 0;
        self.y += 1;
        self.line += self.steps[1];
        if self.y == self.counts[0] {
            self.y = 0;
            self.plane += self.steps[0];
            self.line = self.plane;
        }
        self.at = self.line;
    }

    #[inline(always)]
    fn next(&mut self) -> usize {
        let found = self.at;
        self.at += self.steps[2];
        self.x += 1;
        if self.x == self.counts[1] {
            self.begin_line();
        }
        found
    }
}
