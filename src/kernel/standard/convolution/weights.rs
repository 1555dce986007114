//! The weights of a convolution, laid out for the vector registers.

use super::tiles;
use crate::kernel::aligned::Aligned;
use crate::kernel::standard::tile::PANEL;

/// The sizes that weights have, whatever they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Shape {
    pub(super) groups: usize,
    /// The input channels of a group.
    pub(super) depth: usize,
    /// The elements that the window sees of each channel.
    pub(super) taps: usize,
    /// The output channels of all groups.
    pub(super) columns: usize,
}

impl Shape {
    /// One input channel makes one output channel.
    pub(super) const fn is_depthwise(&self) -> bool {
        self.groups > 1 && self.depth == 1 && self.columns == self.groups
    }

    pub(super) const fn group_columns(&self) -> usize {
        self.columns / self.groups
    }

    pub(super) const fn group_panels(&self) -> usize {
        self.group_columns().div_ceil(PANEL)
    }

    pub(super) const fn channels(&self) -> usize {
        self.groups * self.depth
    }
}

/// Weights and bias.
#[derive(Debug)]
pub(super) struct Packed {
    /// Group by group, panel by panel, each tap by tap and in that by channel; or as
    /// [`tiles`] has it.
    panels: Aligned,
    /// They are those of tiles.
    pub(super) is_tiled: bool,
    /// Of a depthwise convolution: tap by tap, each by channel.
    pub(super) by_channel: Vec<f32>,
    /// As long as the panels are wide, with what fills them up.
    pub(super) bias: Vec<f32>,
}

impl Packed {
    /// Lays out weights that are stated by output channel, then input channel, then tap.
    /// Each output channel becomes `factor` times what it was, plus `offset`.
    pub(super) fn new(
        shape: &Shape,
        (weights, bias): (&[f32], Option<&[f32]>),
        affine: &Affine,
        is_tiled: bool,
    ) -> Self {
        let Shape { groups, depth, taps, columns } = *shape;
        let factor = |column: usize| affine.factor.get(column).copied().unwrap_or(1.0);
        let weight = |column: usize, channel: usize, tap: usize| {
            factor(column) * weights.get((column * depth + channel) * taps + tap).copied().unwrap_or(0.0)
        };
        let bias_of = |column: usize| {
            let own = bias.and_then(|b| b.get(column)).copied().unwrap_or(0.0);
            own * factor(column) + affine.offset.get(column).copied().unwrap_or(0.0)
        };
        if shape.is_depthwise() {
            let places = (0..taps).flat_map(|tap| (0..columns).map(move |column| (tap, column)));
            let by_channel = places.map(|(tap, column)| weight(column, 0, tap)).collect();
            let bias = (0..columns).map(bias_of).collect();
            return Self { panels: Aligned::default(), is_tiled: false, by_channel, bias };
        }
        let (each, wide) = (shape.group_panels(), shape.group_columns());
        if is_tiled {
            let mut bias: Vec<f32> = (0..columns).map(bias_of).collect();
            bias.resize(each * PANEL, 0.0);
            return Self { panels: tiles::transform(shape, weight), is_tiled, by_channel: Vec::new(), bias };
        }
        let mut panels = Aligned::zeroed(groups * each * taps * depth * PANEL);
        let mut to = panels.registers_mut().iter_mut();
        let mut padded = vec![0.0; groups * each * PANEL];
        for group in 0..groups {
            for panel in 0..each {
                let column = |lane: usize| {
                    let column = panel * PANEL + lane;
                    (column < wide).then_some(group * wide + column)
                };
                for tap in 0..taps {
                    for channel in 0..depth {
                        let Some(to) = to.next() else { continue };
                        *to = std::array::from_fn(|lane| {
                            column(lane).map_or(0.0, |column| weight(column, channel, tap))
                        });
                    }
                }
                let lanes = padded.iter_mut().skip((group * each + panel) * PANEL).take(PANEL);
                for (lane, to) in lanes.enumerate() {
                    *to = column(lane).map_or(0.0, bias_of);
                }
            }
        }
        Self { panels, is_tiled, by_channel: Vec::new(), bias: padded }
    }

    /// One panel, counted through all groups.
    #[inline(always)]
    pub(super) fn panel(&self, shape: &Shape, index: usize) -> &[[f32; PANEL]] {
        let deep = shape.taps * shape.depth;
        self.rows(index, deep)
    }

    /// The panel with this index among such of this depth.
    #[inline(always)]
    pub(super) fn rows(&self, index: usize, deep: usize) -> &[[f32; PANEL]] {
        self.panels.registers().get(index * deep..(index + 1) * deep).unwrap_or(&[])
    }

    pub(super) fn memory(&self) -> usize {
        (self.panels.len() + self.by_channel.len() + self.bias.len()) * size_of::<f32>()
    }
}

/// What is done to each output channel; empty lists do nothing.
#[derive(Clone, Debug, Default)]
pub(super) struct Affine {
    pub(super) factor: Vec<f32>,
    pub(super) offset: Vec<f32>,
}

impl Affine {
    /// `factor` times all of it, plus `offset`.
    pub(super) fn then(&mut self, columns: usize, factor: &[f32], offset: &[f32]) {
        self.factor.resize(columns, 1.0);
        self.offset.resize(columns, 0.0);
        let own = self.factor.iter_mut().zip(&mut self.offset);
        for ((own_factor, own_offset), (factor, offset)) in own.zip(factor.iter().zip(offset)) {
            *own_factor *= factor;
            *own_offset = *own_offset * factor + offset;
        }
    }
}
