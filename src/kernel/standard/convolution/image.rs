//! One image: its two orders in memory, and room for borders around it.

use super::window::{AXES, Grid};

/// Where the channels of an image are in memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    /// One plane for each channel, as ONNX has it.
    First,
    /// All channels of a place beside each other, as vector registers want it.
    Last,
}

/// Where an image with all channels of a place beside each other is to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Source<'a> {
    pub(super) values: &'a [f32],
    /// The places along each axis, of what is there and not of what is read.
    pub(super) pitch: [usize; AXES],
    pub(super) channels: usize,
}

/// Copies an image into the middle of one with borders, of which this leaves what is there.
pub(super) fn place(
    from: &[f32],
    order: Order,
    grid: &Grid,
    channels: usize,
    to: &mut [f32],
    span: [usize; AXES],
) {
    let [z, y, x] = *grid;
    let width = x.input.min(span[2].saturating_sub(x.before));
    let plane = z.input * y.input * x.input;
    for at_z in 0..z.input.min(span[0].saturating_sub(z.before)) {
        for at_y in 0..y.input.min(span[1].saturating_sub(y.before)) {
            let line = (at_z * y.input + at_y) * x.input;
            let start = ((at_z + z.before) * span[1] + at_y + y.before) * span[2] + x.before;
            let Some(to) = to.get_mut(start * channels..(start + width) * channels) else { continue };
            if order == Order::Last || channels == 1 {
                if let Some(from) = from.get(line * channels..(line + width) * channels) {
                    to.copy_from_slice(from);
                }
                continue;
            }
            for channel in 0..channels {
                let from = from.get(channel * plane + line..).unwrap_or(&[]);
                let to = to.get_mut(channel..).unwrap_or(&mut []).iter_mut().step_by(channels);
                to.zip(from).for_each(|(to, v)| *to = *v);
            }
        }
    }
}

/// Writes a table column by column.
pub(super) fn transpose(from: &[f32], columns: usize, to: &mut [f32]) {
    /// So many rows stay in the first-level cache while they are read once for each column.
    const ROWS: usize = 64;
    if columns == 0 {
        return;
    }
    if columns == 1 {
        to.iter_mut().zip(from).for_each(|(to, v)| *to = *v);
        return;
    }
    let rows = from.len() / columns;
    for (block, from) in from.chunks(ROWS * columns).enumerate() {
        for (column, to) in to.chunks_exact_mut(rows.max(1)).enumerate() {
            let to = to.get_mut(block * ROWS..).unwrap_or(&mut []);
            let from = from.get(column..).unwrap_or(&[]).iter().step_by(columns);
            to.iter_mut().zip(from).for_each(|(to, v)| *to = *v);
        }
    }
}
