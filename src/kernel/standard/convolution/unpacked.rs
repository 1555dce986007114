//! `Conv` as it is rare: with weights that are computed, or of doubles.

use super::conv::{Conv, OPERATOR, facts, images_of, output_dims};
use super::image::Order;
use super::plain;
use super::weights::{Affine, Packed};
use crate::kernel::standard::support::{Args, Dims, Facts, Run, like, of_rank, rank};
use crate::kernel::{Attributes, Fact, FactDim, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, Tensor, TensorView};

/// A convolution whose weights come with each run, or are of another type.
#[derive(Debug)]
pub(super) struct Unpacked {
    attributes: Attributes,
}

impl Unpacked {
    pub(super) fn new(attributes: &Attributes) -> Self {
        Self { attributes: attributes.clone() }
    }
}

impl Kernel for Unpacked {
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let args = Args { operator: OPERATOR, inputs };
        let (image, weights) = (args.get(0)?, args.get(1)?);
        let conv = Conv::of(&self.attributes, weights.dims());
        let conv = conv.map_err(|_| args.fail("weights of the shape that its attributes state"))?;
        let width_of = |bias: usize| bias == conv.shape.columns;
        match image.data() {
            DataView::F32(x) => {
                let (values, bias) = (args.values::<f32>(1)?, args.maybe(2));
                let bias = bias.map(|_| args.values::<f32>(2)).transpose()?;
                if bias.is_some_and(|b| !width_of(b.len())) {
                    return Err(args.fail("a bias for each output channel"));
                }
                let packed = Packed::new(&conv.shape, (values, bias), &Affine::default(), false);
                conv.run_f32(&packed, args, x, outputs, cx)
            }
            DataView::F64(x) => {
                let (values, bias) = (args.values::<f64>(1)?, args.maybe(2));
                let bias = bias.map(|_| args.values::<f64>(2)).transpose()?;
                if bias.is_some_and(|b| !width_of(b.len())) {
                    return Err(args.fail("a bias for each output channel"));
                }
                let (images, channels, spatial) =
                    images_of(image.dims(), Order::First).ok_or_else(|| args.fail("a batch of images"))?;
                if channels != conv.shape.channels() {
                    let expected = conv.shape.channels();
                    return Err(RunError::Width { operator: OPERATOR, expected, found: channels });
                }
                let grid = conv.window.grid(&spatial);
                let grid = grid.ok_or_else(|| args.fail("an image that its window fits"))?;
                let dims = output_dims(images, conv.shape.columns, &grid, spatial.len(), Order::First);
                let [to, ..] = outputs else { return Err(args.fail("an output")) };
                let to = cx.reset::<f64>(to, &dims)?;
                plain::convolution(x, &conv.shape, &grid, values, bias, to);
                Ok(())
            }
            _ => Err(args.fail("a tensor of floats")),
        }
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Facts {
        let weights = like(inputs, 1).and_then(|dims| {
            dims.iter()
                .map(|d| if let FactDim::Fixed(n) = d { Some(*n) } else { None })
                .collect::<Option<Dims>>()
        });
        match weights {
            Some(weights) => {
                let conv = Conv::of(&self.attributes, &weights)?;
                facts(&conv.window, &conv.shape, inputs)
            }
            None => of_rank(inputs, rank(inputs, 0)),
        }
    }
}
