//! Convolutions of each channel by itself: the registers run over channels.

use pulp::Simd;

use super::image::Source;
use super::product::Target;
use super::taps::{Places, Taps};
use super::weights::Packed;
use super::window::{Grid, count};
use crate::kernel::standard::tile::{Sums, load};

/// Each channel by itself: `R` places at a time.
#[inline(always)]
pub(super) fn depthwise<S: Simd, const R: usize>(
    simd: S,
    packed: &Packed,
    grid: &Grid,
    source: Source<'_>,
    taps: &Taps,
    target: &mut Target<'_>,
) {
    let places = count(grid, |e| e.output);
    let mut at = Places::new(grid, source);
    let mut place = 0;
    while place + R <= places {
        channels::<S, R>(simd, packed, source, taps, &mut at, place, target);
        place += R;
    }
    while place < places {
        channels::<S, 1>(simd, packed, source, taps, &mut at, place, target);
        place += 1;
    }
}

#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds")]
fn channels<S: Simd, const R: usize>(
    simd: S,
    packed: &Packed,
    source: Source<'_>,
    taps: &Taps,
    at: &mut Places,
    place: usize,
    target: &mut Target<'_>,
) {
    let (bases, _) = at.several::<R>(0);
    let channels = source.channels;
    for channel in (0..channels).step_by(S::F32_LANES) {
        let end = channels.min(channel + S::F32_LANES);
        let bias = load(simd, packed.bias.get(channel..end).unwrap_or(&[]));
        let mut sums: Sums<S, R, 1, 1> = [[[bias]]; R];
        for (start, weights) in taps.starts.iter().zip(packed.by_channel.chunks_exact(channels)) {
            let weights = load(simd, weights.get(channel..end).unwrap_or(&[]));
            for r in 0..R {
                let from = bases[r] + start;
                let x = load(simd, source.values.get(from + channel..from + end).unwrap_or(&[]));
                sums[r][0][0] = simd.mul_add_e_f32s(x, weights, sums[r][0][0]);
            }
        }
        let line = place * channels;
        target.write::<S, R, 1, 1>(simd, (line + channel, line + end, channels), sums);
    }
}
