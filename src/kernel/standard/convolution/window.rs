//! Where a window stands on a grid: kernel, strides, dilations, borders. Pure arithmetic.
//!
//! As the ONNX specification has it (<https://onnx.ai/onnx/operators/onnx__Conv.html>). Grids of one
//! and two axes are worked on as ones of three, with axes of size 1 in front.

use crate::kernel::{Attributes, BuildError};

/// The axes of a grid.
pub(super) const AXES: usize = 3;

/// No size in a model is larger; products of two fit a `usize`.
const MAX_SIZE: i64 = 1 << 31;

/// A window as a node states it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Window {
    /// How many axes the grid has.
    pub(super) rank: usize,
    axes: [Axis; AXES],
    border: Border,
    /// The number of places is rounded up, not down.
    ceil: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Axis {
    kernel: usize,
    stride: usize,
    dilation: usize,
    before: usize,
    after: usize,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Border {
    /// What the node says of each axis.
    Stated,
    /// As much as it takes to have a place for each stride; an odd one more at the end.
    SameUpper,
    /// The same, an odd one more at the beginning.
    SameLower,
}

/// One axis of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Extent {
    pub(super) input: usize,
    pub(super) output: usize,
    pub(super) kernel: usize,
    pub(super) stride: usize,
    pub(super) dilation: usize,
    /// The border before the first element.
    pub(super) before: usize,
    /// And behind the last one.
    pub(super) after: usize,
}

/// The axes of a run.
pub(super) type Grid = [Extent; AXES];

impl Window {
    /// The window of a node with a kernel of this shape.
    pub(super) fn read(attributes: &Attributes, kernel: &[usize]) -> Result<Self, BuildError> {
        let rank = kernel.len();
        if rank == 0 {
            return Err(BuildError::invalid("kernel_shape: expected a size for each axis, found none"));
        }
        if rank > AXES {
            return Err(BuildError::Unsupported);
        }
        let list = |name: &str, count: usize, default: usize, least: i64| -> Result<Vec<usize>, BuildError> {
            let given = attributes.ints(name)?;
            if given.is_empty() {
                return Ok(vec![default; count]);
            }
            if given.len() != count {
                let found = given.len();
                return Err(BuildError::invalid(format!("{name}: expected {count} numbers, found {found}")));
            }
            let size = |v: &i64| match usize::try_from(*v) {
                Ok(size) if (least..=MAX_SIZE).contains(v) => Ok(size),
                _ => Err(BuildError::invalid(format!("{name}: expected sizes, found {v}"))),
            };
            given.iter().map(size).collect()
        };
        let (strides, dilations) = (list("strides", rank, 1, 1)?, list("dilations", rank, 1, 1)?);
        let border = match attributes.string("auto_pad")?.unwrap_or("NOTSET") {
            "NOTSET" | "VALID" | "" => Border::Stated,
            "SAME_UPPER" => Border::SameUpper,
            "SAME_LOWER" => Border::SameLower,
            other => return Err(BuildError::invalid(format!("attribute `auto_pad`: found `{other}`"))),
        };
        let is_stated =
            !matches!(attributes.string("auto_pad")?, Some("VALID" | "SAME_UPPER" | "SAME_LOWER"));
        let pads = if is_stated { list("pads", 2 * rank, 0, 0)? } else { vec![0; 2 * rank] };
        let (before, after) = pads.split_at(rank);
        let mut axes = [Axis { kernel: 1, stride: 1, dilation: 1, before: 0, after: 0 }; AXES];
        let stated = kernel.iter().zip(&strides).zip(&dilations).zip(before.iter().zip(after));
        for (axis, (((kernel, stride), dilation), (before, after))) in
            axes.iter_mut().skip(AXES - rank).zip(stated)
        {
            if *kernel == 0 || *kernel > 1 << 31 {
                return Err(BuildError::invalid(format!("kernel_shape: expected sizes, found {kernel}")));
            }
            *axis = Axis {
                kernel: *kernel,
                stride: *stride,
                dilation: *dilation,
                before: *before,
                after: *after,
            };
        }
        let ceil = attributes.int("ceil_mode")?.unwrap_or(0) != 0;
        Ok(Self { rank, axes, border, ceil })
    }

    /// The window that is the whole grid is known only with the grid.
    pub(super) fn whole(input: &[usize]) -> Option<Grid> {
        let mut grid = [Extent::of_one(1, 1); AXES];
        let rank = input.len();
        for (extent, size) in grid.iter_mut().skip(AXES.checked_sub(rank)?).zip(input) {
            *extent = Extent::of_one(*size, *size);
        }
        Some(grid)
    }

    /// Where the window stands on a grid of these sizes; `None` where it does not fit.
    pub(super) fn grid(&self, input: &[usize]) -> Option<Grid> {
        if input.len() != self.rank {
            return None;
        }
        let mut grid = [Extent::of_one(1, 1); AXES];
        let skip = AXES - self.rank;
        for ((extent, axis), size) in grid.iter_mut().zip(&self.axes).skip(skip).zip(input) {
            *extent = self.extent(*axis, *size)?;
        }
        Some(grid)
    }

    fn extent(&self, axis: Axis, input: usize) -> Option<Extent> {
        let Axis { kernel, stride, dilation, mut before, mut after } = axis;
        let reach = (kernel - 1).checked_mul(dilation)?.checked_add(1)?;
        let output = match self.border {
            Border::Stated => {
                let room = input.checked_add(before)?.checked_add(after)?.checked_sub(reach)?;
                let mut places = if self.ceil { room.div_ceil(stride) } else { room / stride } + 1;
                // A window that begins behind the last element has nothing to see.
                if self.ceil && (places - 1).checked_mul(stride)? >= input.checked_add(before)? {
                    places -= 1;
                }
                places
            }
            Border::SameUpper | Border::SameLower => {
                let places = input.div_ceil(stride);
                let needed = places.saturating_sub(1).checked_mul(stride)?.checked_add(reach)?;
                let border = needed.saturating_sub(input);
                let half = border / 2;
                (before, after) = match self.border {
                    Border::SameLower => (border - half, half),
                    _ => (half, border - half),
                };
                places
            }
        };
        Some(Extent { input, output, kernel, stride, dilation, before, after })
    }

    /// True where it is of 3 by 3 elements and goes on by one.
    pub(super) fn is_plain_3_by_3(&self) -> bool {
        let is_plain = |axis: &Axis| axis.kernel == 3 && axis.stride == 1 && axis.dilation == 1;
        self.rank == 2 && self.axes.iter().skip(AXES - 2).all(is_plain)
    }

    /// The elements that the window sees at a time.
    pub(super) fn taps(&self) -> usize {
        self.axes.iter().map(|a| a.kernel).fold(1, usize::saturating_mul)
    }
}

impl Extent {
    const fn of_one(input: usize, kernel: usize) -> Self {
        Self { input, output: 1, kernel, stride: 1, dilation: 1, before: 0, after: 0 }
    }

    /// The elements from the first to the last that any place of the window sees, with borders.
    pub(super) fn span(&self) -> Option<usize> {
        let last = self.output.checked_sub(1)?.checked_mul(self.stride)?;
        last.checked_add((self.kernel - 1).checked_mul(self.dilation)?)?.checked_add(1)
    }

    /// The elements from the first of all to the last that any place of the window sees.
    pub(super) fn reach(&self) -> usize {
        let last = self.output.saturating_sub(1).saturating_mul(self.stride);
        let end = last.saturating_add((self.kernel - 1).saturating_mul(self.dilation)).saturating_add(1);
        end.saturating_sub(self.before)
    }

    /// The taps that see an element, not the border, at this place: from the first to before the last.
    pub(super) fn seen(&self, place: usize) -> (usize, usize) {
        let start = place * self.stride;
        let first = self.before.saturating_sub(start).div_ceil(self.dilation);
        let end = (self.input + self.before).saturating_sub(start).div_ceil(self.dilation);
        (first.min(self.kernel), end.min(self.kernel))
    }

    /// The places at which this tap sees an element: from the first to before the last.
    pub(super) fn seeing(&self, tap: usize) -> (usize, usize) {
        let reach = tap * self.dilation;
        let first = self.before.saturating_sub(reach).div_ceil(self.stride).min(self.output);
        let end = (self.input + self.before).saturating_sub(reach).div_ceil(self.stride).min(self.output);
        (first, end.max(first))
    }

    /// The element that a tap sees that sees one.
    pub(super) fn at(&self, place: usize, tap: usize) -> usize {
        (place * self.stride + tap * self.dilation).saturating_sub(self.before)
    }
}

/// The sizes of the output grid, without the axes that are not the node's.
pub(super) fn outputs(grid: &Grid, rank: usize) -> impl Iterator<Item = usize> + '_ {
    grid.iter().skip(AXES.saturating_sub(rank)).map(|e| e.output)
}

/// All places of the window, or all elements: the product over the axes.
pub(super) fn count(grid: &Grid, size: impl Fn(&Extent) -> usize) -> usize {
    grid.iter().map(size).product()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Attribute;

    fn window(kernel: usize, attributes: &[(&str, Attribute)]) -> Window {
        let mut all = Attributes::default();
        attributes.iter().for_each(|(name, value)| all.insert(*name, value.clone()));
        Window::read(&all, &[kernel]).unwrap()
    }

    fn ints(values: &[i64]) -> Attribute {
        Attribute::Ints(values.to_vec())
    }

    fn places(window: &Window, input: usize) -> (usize, usize, usize) {
        let extent = window.grid(&[input]).unwrap()[2];
        (extent.output, extent.before, extent.after)
    }

    #[test]
    fn the_number_of_places_is_as_specified() {
        assert_eq!(places(&window(3, &[]), 5), (3, 0, 0));
        assert_eq!(places(&window(3, &[("strides", ints(&[2]))]), 6), (2, 0, 0));
        assert_eq!(places(&window(3, &[("dilations", ints(&[2])), ("pads", ints(&[1, 2]))]), 5), (4, 1, 2));
        assert_eq!(window(3, &[]).grid(&[2]), None);
    }

    #[test]
    fn same_borders_are_uneven_at_the_stated_end() {
        let auto = |name: &str| Attribute::String(name.into());
        let strides = ("strides", ints(&[2]));
        assert_eq!(places(&window(3, &[("auto_pad", auto("SAME_UPPER")), strides.clone()]), 4), (2, 0, 1));
        assert_eq!(places(&window(3, &[("auto_pad", auto("SAME_LOWER")), strides]), 4), (2, 1, 0));
        // What is stated beside it does not count.
        let stated = ("pads", ints(&[1, 1]));
        assert_eq!(places(&window(3, &[("auto_pad", auto("VALID")), stated]), 4), (2, 0, 0));
    }

    #[test]
    fn rounding_up_adds_no_window_that_sees_nothing() {
        let ceil = ("ceil_mode", Attribute::Int(1));
        let strides = ("strides", ints(&[2]));
        assert_eq!(places(&window(3, &[ceil.clone(), strides.clone()]), 4).0, 2);
        assert_eq!(places(&window(1, &[ceil, strides, ("pads", ints(&[0, 1]))]), 4).0, 2);
    }

    #[test]
    fn taps_on_the_border_see_nothing() {
        let extent = window(3, &[("pads", ints(&[1, 1])), ("dilations", ints(&[2]))]).grid(&[5]).unwrap()[2];
        assert_eq!(extent.output, 3);
        assert_eq!((extent.seen(0), extent.seen(1), extent.seen(2)), ((1, 3), (0, 3), (0, 2)));
        assert_eq!((extent.at(0, 1), extent.at(2, 1)), (1, 3));
        assert_eq!(extent.span(), Some(7));
    }

    #[test]
    fn impossible_attributes_are_named() {
        let mut attributes = Attributes::default();
        attributes.insert("strides", ints(&[0]));
        let error = Window::read(&attributes, &[3]).unwrap_err();
        assert_eq!(error, BuildError::invalid("strides: expected sizes, found 0"));
    }
}
