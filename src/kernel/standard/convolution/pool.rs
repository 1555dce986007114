//! The largest or the mean of what a window sees: `MaxPool`, `AveragePool` and their global forms.

use pulp::Arch;

use super::conv::{images_of, output_dims};
use super::image::{Order, Source, place, transpose};
use super::plain;
use super::reduce::{Kind, Reduce};
use super::window::{Extent, Grid, Window, count};
use crate::kernel::standard::support::{
    Args, Built, FactDims, Facts, Run, fact, float_type, like, number_type,
};
use crate::kernel::{BuildError, Fact, FactDim, Kernel, Node, RunContext};
use crate::tensor::{DataView, ElementType, Tensor, TensorView};

/// A pooling operator.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    operator: &'static str,
    arch: Arch,
    pub(super) kind: Kind,
    /// `None` where it is the whole grid.
    pub(super) window: Option<Window>,
    /// The places of the largest elements are wanted too.
    with_places: bool,
    /// They are counted column by column.
    column_major: bool,
    pub(super) from: Order,
    pub(super) to: Order,
}

impl Pool {
    /// The pooling that a node states.
    pub(crate) fn of(name: &'static str, node: &Node<'_>) -> Result<Self, BuildError> {
        let attributes = node.attributes;
        let with_borders = attributes.int("count_include_pad")?.unwrap_or(0) != 0;
        let (kind, is_global) = match name {
            "MaxPool" => (Kind::Max, false),
            "AveragePool" => (Kind::Mean { with_borders }, false),
            "GlobalMaxPool" => (Kind::Max, true),
            "GlobalAveragePool" => (Kind::Mean { with_borders: false }, true),
            _ => return Err(BuildError::Unsupported),
        };
        let window = if is_global {
            None
        } else {
            let sizes = attributes.ints("kernel_shape")?;
            let kernel: Option<Vec<usize>> = sizes.iter().map(|s| usize::try_from(*s).ok()).collect();
            let kernel = kernel.ok_or_else(|| BuildError::invalid("kernel_shape: expected sizes"))?;
            Some(Window::read(attributes, &kernel)?)
        };
        Ok(Self {
            operator: name,
            arch: Arch::new(),
            kind,
            window,
            with_places: node.outputs > 1,
            column_major: attributes.int("storage_order")?.unwrap_or(0) != 0,
            from: Order::First,
            to: Order::First,
        })
    }

    /// The same between images that lie so.
    pub(crate) fn between(mut self, from: Order, to: Order) -> Self {
        (self.from, self.to) = (from, to);
        self
    }

    /// True where only the places of all windows see elements, as many as there are taps.
    pub(super) fn is_plain_max(&self) -> bool {
        self.kind == Kind::Max && self.window.is_some()
    }

    pub(super) fn grid(&self, spatial: &[usize]) -> Option<Grid> {
        match &self.window {
            Some(window) => window.grid(spatial),
            None => Window::whole(spatial),
        }
    }

    fn fast(&self, args: Args<'_, '_>, x: &[f32], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let (images, channels, spatial) =
            images_of(args.get(0)?.dims(), self.from).ok_or_else(|| args.fail("a batch of images"))?;
        let grid = self.grid(&spatial).ok_or_else(|| args.fail("an image that its window fits"))?;
        let places = count(&grid, |e| e.output);
        let dims = output_dims(images, channels, &grid, spatial.len(), self.to);
        let elements = count(&grid, |e| e.input);
        let turned = if self.from == Order::First && channels > 1 { elements * channels } else { 0 };
        let made = if self.to == Order::First && channels > 1 { places * channels } else { 0 };
        let [to, rest @ ..] = outputs else { return Err(args.fail("an output")) };
        let to = cx.reset::<f32>(to, &dims)?;
        let mut own = Tensor::default();
        let workspace = cx.reset::<f32>(rest.first_mut().unwrap_or(&mut own), &[turned + made])?;
        if places * channels == 0 || elements == 0 {
            to.fill(0.0);
            return Ok(());
        }
        let (turned, made) = workspace.split_at_mut(turned);
        let work = Work { kind: self.kind, grid: &grid, channels, x, to, turned, made };
        work.run(self.arch);
        Ok(())
    }
}

impl Pool {
    /// For what is rare: other types than `f32`, and the places of the largest elements.
    fn by_definition(
        &self,
        args: Args<'_, '_>,
        input: TensorView<'_>,
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let (images, channels, spatial) =
            images_of(input.dims(), Order::First).ok_or_else(|| args.fail("a batch of images"))?;
        let grid = self.grid(&spatial).ok_or_else(|| args.fail("an image that its window fits"))?;
        let dims = output_dims(images, channels, &grid, spatial.len(), Order::First);
        let (to, rest) = outputs.split_first_mut().ok_or_else(|| args.fail("an output"))?;
        match self.kind {
            Kind::Max => {
                let places = match rest.first_mut() {
                    Some(places) => Some(cx.reset::<i64>(places, &dims)?),
                    None => None,
                };
                number_type!(args, input, v => {
                    plain::largest(v, &grid, cx.reset(to, &dims)?, places, self.column_major);
                    Ok(())
                })
            }
            Kind::Mean { with_borders } => float_type!(args, input, v => {
                plain::mean(v, &grid, with_borders, cx.reset(to, &dims)?);
                Ok(())
            }),
        }
    }
}

/// The kernel of a pooling node.
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    Ok(Box::new(Pool::of(name, node)?))
}

impl Kernel for Pool {
    /// A second output is room to work in where the node states only one.
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let args = Args { operator: self.operator, inputs };
        let input = args.get(0)?;
        match input.data() {
            DataView::F32(x) if !self.with_places => self.fast(args, x, outputs, cx),
            _ => self.by_definition(args, input, outputs, cx),
        }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Facts {
        let element = fact(inputs, 0)?.element;
        if !element.is_float() && self.kind != Kind::Max {
            return Err(BuildError::Unsupported);
        }
        if !element.is_float() && !matches!(element, ElementType::I8 | ElementType::U8) {
            return Err(BuildError::Unsupported);
        }
        let dims = like(inputs, 0).map(|dims| pooled_dims(&dims, |spatial| self.grid(spatial)));
        Ok(smallvec::smallvec![
            Fact { element, dims: dims.clone() },
            Fact { element: ElementType::I64, dims }
        ])
    }
}

/// The dimensions of the output as far as those of the input are known.
pub(super) fn pooled_dims(dims: &FactDims, grid: impl Fn(&[usize]) -> Option<Grid>) -> FactDims {
    let mut out = dims.clone();
    let sizes: Option<Vec<usize>> =
        dims.iter().skip(2).map(|d| if let FactDim::Fixed(n) = d { Some(*n) } else { None }).collect();
    let known = sizes.and_then(|sizes| Some((sizes.len(), grid(&sizes)?)));
    for (index, dim) in out.iter_mut().skip(2).enumerate() {
        let output = known.as_ref().and_then(|(rank, grid)| super::window::outputs(grid, *rank).nth(index));
        *dim = output.map_or(FactDim::Unknown, FactDim::Fixed);
    }
    out
}

/// All images of a run.
struct Work<'a> {
    kind: Kind,
    grid: &'a Grid,
    channels: usize,
    x: &'a [f32],
    to: &'a mut [f32],
    /// Room for an image with its channels last, and for a result; empty where they are so already.
    turned: &'a mut [f32],
    made: &'a mut [f32],
}

impl Work<'_> {
    fn run(self, arch: Arch) {
        let Self { kind, grid, channels, x, to, turned, made } = self;
        let pitch = grid.map(|e| e.input);
        let (image, result) = (count(grid, |e| e.input) * channels, count(grid, |e| e.output) * channels);
        for (x, to) in x.chunks_exact(image).zip(to.chunks_exact_mut(result)) {
            let values = if turned.is_empty() {
                x
            } else {
                place(x, Order::First, &grid.map(bare), channels, turned, pitch);
                &*turned
            };
            let source = Source { values, pitch, channels };
            if made.is_empty() {
                arch.dispatch(Reduce { kind, grid, source, to });
            } else {
                arch.dispatch(Reduce { kind, grid, source, to: &mut *made });
                transpose(made, channels, to);
            }
        }
    }
}

const fn bare(extent: Extent) -> Extent {
    Extent { before: 0, after: 0, ..extent }
}
