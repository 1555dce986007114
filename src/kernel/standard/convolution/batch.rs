//! The images of one run, one after the other: borders, convolution, activation, pooling, order.
//!
//! Each step is a loop of its own: all of them in one function would fill the registers with each
//! other's constants.

use pulp::{Simd, WithSimd};

use super::conv::Conv;
use super::image::{Source, place, transpose};
use super::product::{Target, convolve};
use super::reduce::{Kind, Reduce};
use super::taps::Taps;
use super::tiles;
use super::weights::Packed;
use super::window::{AXES, Grid, count};

/// All images of a run.
pub(super) struct Batch<'a> {
    pub(super) conv: &'a Conv,
    pub(super) packed: &'a Packed,
    pub(super) grid: &'a Grid,
    pub(super) pooled: Option<&'a Grid>,
    /// The convolution does the pooling.
    pub(super) is_fused: bool,
    /// The sizes of an image with its borders.
    pub(super) span: [usize; AXES],
    pub(super) x: &'a [f32],
    pub(super) addend: Option<&'a [f32]>,
}

/// Room for one image; empty where it is not needed.
pub(super) struct Workspace<'a> {
    /// The image with its borders, which are there already.
    pub(super) bordered: &'a mut [f32],
    /// The result, where more becomes of it.
    pub(super) convolved: &'a mut [f32],
    /// What the pooling makes, where it is turned.
    pub(super) made: &'a mut [f32],
    pub(super) tiles: &'a mut [f32],
}

impl Batch<'_> {
    pub(super) fn run(&self, to: &mut [f32], workspace: &mut Workspace<'_>) {
        let Self { conv, packed, grid, pooled, is_fused, span, x, addend } = *self;
        let (channels, columns) = (conv.shape.channels(), conv.shape.columns);
        let image = count(grid, |e| e.input) * channels;
        let result = count(pooled.unwrap_or(grid), |e| e.output) * columns;
        let between = count(grid, |e| e.output) * columns;
        let pitch = if workspace.bordered.is_empty() { grid.map(|e| e.input) } else { span };
        let taps = Taps::new(grid, pitch, &conv.shape);
        for (index, to) in to.chunks_exact_mut(result).enumerate() {
            let Some(x) = x.get(index * image..(index + 1) * image) else { return };
            let Workspace { bordered, convolved, made, tiles } = workspace;
            let values = if bordered.is_empty() {
                x
            } else {
                place(x, conv.from, grid, channels, bordered, span);
                &**bordered
            };
            let source = Source { values, pitch, channels };
            let addend = addend.and_then(|a| a.get(index * between..(index + 1) * between));
            let values = if convolved.is_empty() { &mut *to } else { &mut **convolved };
            let mut target = Target { values, addend, activation: conv.activation };
            let (taps, target) = (&taps, &mut target);
            if packed.is_tiled {
                conv.arch.dispatch(InTiles { conv, packed, grid, source, tiles, is_fused, target });
            } else {
                conv.arch.dispatch(ByPlaces { conv, packed, grid, source, taps, target });
            }
            conv.activation.finish(conv.arch, target.values);
            if let (Some(grid), false) = (pooled, is_fused) {
                let source = Source { values: convolved, pitch: grid.map(|e| e.input), channels: columns };
                let pooled = if made.is_empty() { &mut *to } else { &mut **made };
                conv.arch.dispatch(Reduce { kind: Kind::Max, grid, source, to: pooled });
                if !made.is_empty() {
                    transpose(made, columns, to);
                }
            } else if !convolved.is_empty() {
                transpose(convolved, columns, to);
            }
        }
    }
}

struct ByPlaces<'a, 'v> {
    conv: &'a Conv,
    packed: &'a Packed,
    grid: &'a Grid,
    source: Source<'a>,
    taps: &'a Taps,
    target: &'a mut Target<'v>,
}

impl WithSimd for ByPlaces<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { conv, packed, grid, source, taps, target } = self;
        convolve(simd, &conv.shape, packed, grid, source, taps, target);
    }
}

struct InTiles<'a, 'v> {
    conv: &'a Conv,
    packed: &'a Packed,
    grid: &'a Grid,
    source: Source<'a>,
    tiles: &'a mut [f32],
    is_fused: bool,
    target: &'a mut Target<'v>,
}

impl WithSimd for InTiles<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { conv, packed, grid, source, tiles, is_fused, target } = self;
        tiles::convolve(simd, &conv.shape, packed, grid, source, (tiles, is_fused), target);
    }
}
