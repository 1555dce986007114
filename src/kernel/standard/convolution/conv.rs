//! `Conv`, with what a graph has around it: a normalisation in its weights, an addend, an
//! activation, a `MaxPool` behind it.

use pulp::Arch;
use smallvec::SmallVec;

use super::batch::{Batch, Workspace};
use super::image::Order;
use super::pool::{Pool, pooled_dims};
use super::tiles;
use super::unpacked::Unpacked;
use super::weights::{Affine, Packed, Shape};
use super::window::{Grid, Window, count, outputs as output_sizes};
use crate::kernel::program::NodeParts;
use crate::kernel::standard::activation::Activation;
use crate::kernel::standard::matmul::Given;
use crate::kernel::standard::support::{Args, Built, Dims, Facts, Run, fact, like, one};
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, Node, RunContext};
use crate::load::RunError;
use crate::tensor::{Tensor, TensorView};

pub(super) const OPERATOR: &str = "Conv";

/// A convolution.
#[derive(Debug)]
pub(crate) struct Conv {
    pub(super) arch: Arch,
    pub(super) window: Window,
    pub(super) shape: Shape,
    /// `None` where the weights come with each run, or are not laid out yet.
    packed: Option<Packed>,
    affine: Affine,
    /// Something of the shape of the result comes as the last input and is added.
    has_addend: bool,
    pub(super) activation: Activation,
    pool: Option<Pool>,
    pub(super) from: Order,
    to: Order,
}

/// The kernel of a `Conv`.
pub(super) fn build(node: &Node<'_>) -> Built {
    let constant = |index: usize| node.inputs.get(index).copied().flatten().flatten();
    let is_there = |index: usize| node.inputs.get(index).copied().flatten().is_some();
    let Some(weights) = constant(1) else {
        // The channels are known with the weights.
        return Ok(Box::new(Unpacked::new(node.attributes)));
    };
    let mut conv = Conv::of(node.attributes, weights.dims())?;
    if is_there(2) && constant(2).is_none() || weights.values::<f32>().is_none() {
        return Ok(Box::new(Unpacked::new(node.attributes)));
    }
    conv.pack(weights, constant(2))?;
    Ok(Box::new(conv))
}

impl Conv {
    /// The convolution with these attributes and weights of these dimensions, which it does not
    /// have yet.
    pub(super) fn of(attributes: &Attributes, dims: &[usize]) -> Result<Self, BuildError> {
        let ([columns, depth], Some(kernel)) = (dims.get(..2).unwrap_or(&[]), dims.get(2..)) else {
            return Err(BuildError::invalid("weights of at least three dimensions are expected"));
        };
        let stated = attributes.ints("kernel_shape")?;
        let agrees = |(stated, size): (&i64, &usize)| usize::try_from(*stated).is_ok_and(|s| s == *size);
        let agree = stated.len() == kernel.len() && stated.iter().zip(kernel).all(agrees);
        if !agree && !stated.is_empty() {
            return Err(BuildError::invalid(format!("kernel_shape: {stated:?} for weights of {dims:?}")));
        }
        let groups = attributes.int("group")?.unwrap_or(1);
        let groups = usize::try_from(groups).ok().filter(|g| *g > 0 && columns % g == 0);
        let groups = groups
            .ok_or_else(|| BuildError::invalid(format!("group: expected a divisor of {columns} channels")))?;
        let window = Window::read(attributes, kernel)?;
        let shape = Shape { groups, depth: *depth, taps: window.taps(), columns: *columns };
        Ok(Self {
            arch: Arch::new(),
            window,
            shape,
            packed: None,
            affine: Affine::default(),
            has_addend: false,
            activation: Activation::None,
            pool: None,
            from: Order::First,
            to: Order::First,
        })
    }

    /// A convolution that has only its shape yet: weights are laid out once, when it is known what
    /// else goes into them. `None` where they are no `f32` constants.
    pub(crate) fn planned(node: &NodeParts, inputs: &[Given<'_>]) -> Result<Option<Self>, BuildError> {
        let Some(weights) = inputs.get(1).copied().flatten().flatten() else { return Ok(None) };
        let bias = inputs.get(2).copied().flatten();
        if weights.values::<f32>().is_none() || bias.is_some_and(|b| b.is_none()) {
            return Ok(None);
        }
        Self::of(&node.attributes, weights.dims()).map(Some)
    }

    /// Lays out the weights, with all that has been put into them.
    pub(crate) fn pack(&mut self, weights: &Tensor, bias: Option<&Tensor>) -> Result<(), BuildError> {
        let floats = |tensor: &Tensor| tensor.values::<f32>().map(<[f32]>::to_vec);
        let values = weights.values::<f32>().ok_or_else(|| BuildError::invalid("weights of type f32"))?;
        let bias = bias.map(|b| floats(b).filter(|b| b.len() == self.shape.columns));
        let bias = bias.map(|b| b.ok_or_else(|| BuildError::invalid("a bias for each output channel")));
        let bias = bias.transpose()?;
        let is_tiled = tiles::are_for(&self.window, &self.shape);
        self.packed = Some(Packed::new(&self.shape, (values, bias.as_deref()), &self.affine, is_tiled));
        self.affine = Affine::default();
        Ok(())
    }

    /// The output channels.
    pub(crate) const fn columns(&self) -> usize {
        self.shape.columns
    }

    /// `factor` times the result, plus `offset`: of each output channel. Before [`Conv::pack`].
    pub(crate) fn scale(&mut self, factor: &[f32], offset: &[f32]) {
        self.affine.then(self.shape.columns, factor, offset);
    }

    pub(crate) const fn activation(&self) -> Activation {
        self.activation
    }

    pub(crate) fn activate(&mut self, activation: Activation) {
        self.activation = activation;
    }

    pub(crate) const fn has_addend(&self) -> bool {
        self.has_addend
    }

    /// The input behind the image is added to the result. It lies with its channels last.
    pub(crate) fn add(&mut self) {
        self.has_addend = true;
    }

    pub(crate) const fn has_pool(&self) -> bool {
        self.pool.is_some()
    }

    /// The result goes through this; false where it cannot.
    pub(crate) fn pool(&mut self, pool: Pool) -> bool {
        let fits = self.pool.is_none()
            && pool.is_plain_max()
            && pool.window.as_ref().is_some_and(|w| w.rank == self.window.rank);
        if fits {
            self.pool = Some(pool);
        }
        fits
    }

    /// Sets how the images lie that go in and come out.
    pub(crate) fn between(&mut self, from: Order, to: Order) {
        (self.from, self.to) = (from, to);
    }

    pub(super) fn run_f32(
        &self,
        packed: &Packed,
        args: Args<'_, '_>,
        x: &[f32],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let image = args.get(0)?;
        let (images, channels, spatial) =
            images_of(image.dims(), self.from).ok_or_else(|| args.fail("a batch of images"))?;
        if channels != self.shape.channels() {
            let expected = self.shape.channels();
            return Err(RunError::Width { operator: OPERATOR, expected, found: channels });
        }
        let misfit = || args.fail("an image that its window fits");
        let mut grid = self.window.grid(&spatial).ok_or_else(misfit)?;
        let sizes: SmallVec<[usize; 3]> = output_sizes(&grid, self.window.rank).collect();
        let mut pooled = match &self.pool {
            Some(pool) => Some(pool.grid(&sizes).ok_or_else(misfit)?),
            None => None,
        };
        if let (Some(pooled), false) = (&mut pooled, self.has_addend) {
            // What no window of the pooling sees is not computed.
            for (extent, pooled) in grid.iter_mut().zip(pooled) {
                pooled.input = pooled.input.min(pooled.reach());
                extent.output = pooled.input;
            }
        }
        let last = pooled.as_ref().unwrap_or(&grid);
        let places = [&grid, last].map(|g| count(g, |e| e.output));
        let columns = self.shape.columns;
        let dims = output_dims(images, columns, last, self.window.rank, self.to);
        let [to, rest @ ..] = outputs else { return Err(args.fail("an output")) };
        let to = cx.reset::<f32>(to, &dims)?;
        let addend = if self.has_addend { Some(args.values::<f32>(1)?) } else { None };
        if addend.is_some_and(|a| a.len() != images * columns * places[0]) {
            return Err(args.fail("an addend of the shape of the result"));
        }
        if to.is_empty() {
            return Ok(());
        }
        let mut span = [0; 3];
        for (axis, (span, extent)) in span.iter_mut().zip(&grid).enumerate() {
            // Tiles are of two places each way.
            let odd = if packed.is_tiled && axis > 0 { extent.output % 2 } else { 0 };
            *span = extent.span().ok_or_else(misfit)? + odd;
        }
        let is_bare = grid.iter().zip(span).all(|(e, s)| e.before == 0 && s <= e.input);
        let is_in_place = is_bare && (self.from == Order::Last || channels == 1);
        let is_first = self.to == Order::First && columns > 1;
        let bordered =
            if is_in_place { Some(0) } else { span.iter().try_fold(channels, |all, s| all.checked_mul(*s)) };
        // An image with its borders, the result where more becomes of it, and that where it is turned.
        let bordered = bordered.ok_or_else(misfit)?;
        // A function that keeps the order of numbers may come before the largest or after it.
        let is_fused = packed.is_tiled
            && !self.has_addend
            && self.activation.is_short()
            && pooled.as_ref().is_some_and(tiles::are_pooled);
        let is_pooled = pooled.is_some() && !is_fused;
        let convolved = if is_fused { places[1] } else { places[0] };
        let convolved = if is_pooled || is_first { convolved * columns } else { 0 };
        let made = if is_pooled && is_first { places[1] * columns } else { 0 };
        let mut own = Tensor::default();
        let tiles = if packed.is_tiled { tiles::workspace(&self.shape) } else { 0 };
        let room = bordered.checked_add(convolved + made + tiles).ok_or_else(misfit)?;
        let workspace = cx.reset::<f32>(rest.first_mut().unwrap_or(&mut own), &[room])?;
        let (bordered, workspace) = workspace.split_at_mut(bordered);
        let (convolved, workspace) = workspace.split_at_mut(convolved);
        let (made, tiles) = workspace.split_at_mut(made);
        bordered.fill(0.0);
        let pooled = pooled.as_ref();
        let batch = Batch { conv: self, packed, grid: &grid, pooled, is_fused, span, x, addend };
        batch.run(to, &mut Workspace { bordered, convolved, made, tiles });
        Ok(())
    }
}

impl Kernel for Conv {
    /// A second output is room to work in.
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let args = Args { operator: OPERATOR, inputs };
        let packed = self.packed.as_ref().ok_or_else(|| args.fail("weights"))?;
        self.run_f32(packed, args, args.values::<f32>(0)?, outputs, cx)
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Facts {
        facts(&self.window, &self.shape, inputs)
    }

    fn absorbs(&self, input: usize) -> bool {
        !self.has_addend && matches!(input, 1 | 2)
    }

    fn memory(&self) -> usize {
        self.packed.as_ref().map_or(0, Packed::memory)
    }
}

pub(super) fn facts(window: &Window, shape: &Shape, inputs: &[Option<Fact>]) -> Facts {
    let element = fact(inputs, 0)?.element;
    if !element.is_float() {
        return Err(BuildError::Unsupported);
    }
    let Some(dims) = like(inputs, 0) else { return one(element, None) };
    if dims.len() != window.rank + 2 {
        let (found, expected) = (dims.len(), window.rank + 2);
        return Err(BuildError::invalid(format!("{found} dimensions where {expected} are expected")));
    }
    if let Some(FactDim::Fixed(found)) = dims.get(1)
        && *found != shape.channels()
    {
        let expected = shape.channels();
        return Err(BuildError::invalid(format!("{found} channels where {expected} are expected")));
    }
    let mut dims = pooled_dims(&dims, |spatial| window.grid(spatial));
    dims.get_mut(1).into_iter().for_each(|d| *d = FactDim::Fixed(shape.columns));
    one(element, Some(dims))
}

/// How many images there are, how many channels, and the sizes of the other axes.
pub(super) fn images_of(dims: &[usize], order: Order) -> Option<(usize, usize, SmallVec<[usize; 3]>)> {
    let (images, rest) = dims.split_first()?;
    let (channels, spatial) = match order {
        Order::First => rest.split_first()?,
        Order::Last => rest.split_last()?,
    };
    (spatial.len() <= 3).then(|| (*images, *channels, spatial.into()))
}

/// The dimensions of a batch of results.
pub(super) fn output_dims(images: usize, channels: usize, grid: &Grid, rank: usize, order: Order) -> Dims {
    let mut dims = Dims::new();
    dims.push(images);
    if order == Order::First {
        dims.push(channels);
    }
    dims.extend(output_sizes(grid, rank));
    if order == Order::Last {
        dims.push(channels);
    }
    dims
}
