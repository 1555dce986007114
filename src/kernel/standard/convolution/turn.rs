//! From channels first to channels last and back, between operators that do not do it themselves.

use super::conv::images_of;
use super::image::{Order, transpose};
use crate::kernel::standard::support::{Args, Dims, Facts, Run, of_rank, rank};
use crate::kernel::{Fact, Kernel, RunContext};
use crate::tensor::{Tensor, TensorView};

/// Turns images of `f32`.
#[derive(Debug)]
pub(crate) struct Turn {
    /// What comes out; the other one goes in.
    pub(crate) to: Order,
}

impl Kernel for Turn {
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], cx: &RunContext) -> Run {
        let args = Args { operator: "a turn of channels", inputs };
        let (view, x) = (args.get(0)?, args.values::<f32>(0)?);
        let from = if self.to == Order::Last { Order::First } else { Order::Last };
        let (images, channels, spatial) =
            images_of(view.dims(), from).ok_or_else(|| args.fail("a batch of images"))?;
        let mut dims = Dims::new();
        dims.push(images);
        if self.to == Order::First {
            dims.push(channels);
        }
        dims.extend_from_slice(&spatial);
        if self.to == Order::Last {
            dims.push(channels);
        }
        let [to, ..] = outputs else { return Err(args.fail("an output")) };
        let to = cx.reset::<f32>(to, &dims)?;
        let places: usize = spatial.iter().product();
        let image = places * channels;
        if image == 0 {
            return Ok(());
        }
        let columns = if self.to == Order::First { channels } else { places };
        for (x, to) in x.chunks_exact(image).zip(to.chunks_exact_mut(image)) {
            transpose(x, columns, to);
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Facts {
        of_rank(inputs, rank(inputs, 0))
    }
}
