//! A chain of element-wise steps in one pass.

use pulp::{Arch, Simd, WithSimd};

use super::support::{Args, Facts, Run, first, same};
use crate::kernel::{Fact, Kernel, RunContext};
use crate::load::RunError;
use crate::tensor::{Tensor, TensorView};

/// One step: a row of constants, or one constant for all columns.
#[derive(Debug)]
pub(crate) enum Link {
    Add(Vec<f32>),
    Sub(Vec<f32>),
    Mul(Vec<f32>),
    Div(Vec<f32>),
    Relu,
}

/// Steps in their order, row by row, while the row is in the registers' reach.
#[derive(Debug)]
pub(crate) struct Chain {
    arch: Arch,
    links: Vec<Link>,
    /// The width of a row, where a step has a constant a column.
    width: Option<usize>,
}

impl Chain {
    pub(crate) fn new(links: Vec<Link>, width: Option<usize>) -> Self {
        Self { arch: Arch::new(), links, width }
    }
}

impl Kernel for Chain {
    fn run(&self, inputs: &[Option<TensorView<'_>>], outputs: &mut [Tensor], _cx: &RunContext) -> Run {
        let args = Args { operator: "Chain", inputs };
        let (input, from) = (args.get(0)?, args.values::<f32>(0)?);
        let width = match self.width {
            Some(width) => {
                let found = input.dims().last().copied().unwrap_or(1);
                if found != width {
                    return Err(RunError::Width { operator: "Chain", expected: width, found });
                }
                width
            }
            None => from.len(),
        };
        let to = first(args, outputs)?.reset::<f32>(input.shape());
        if width > 0 {
            self.arch.dispatch(Pass { links: &self.links, width, from, to });
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Facts {
        same(inputs)
    }

    fn memory(&self) -> usize {
        let row = |link: &Link| match link {
            Link::Add(row) | Link::Sub(row) | Link::Mul(row) | Link::Div(row) => row.len() * size_of::<f32>(),
            Link::Relu => 0,
        };
        self.links.iter().map(row).sum()
    }
}

struct Pass<'a> {
    links: &'a [Link],
    width: usize,
    from: &'a [f32],
    to: &'a mut [f32],
}

impl WithSimd for Pass<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, _simd: S) {
        for (to, from) in self.to.chunks_exact_mut(self.width).zip(self.from.chunks_exact(self.width)) {
            to.copy_from_slice(from);
            for link in self.links {
                match link {
                    Link::Add(row) => apply(to, row, |x, c| x + c),
                    Link::Sub(row) => apply(to, row, |x, c| x - c),
                    Link::Mul(row) => apply(to, row, |x, c| x * c),
                    Link::Div(row) => apply(to, row, |x, c| x / c),
                    Link::Relu => apply(to, &[0.0], |x, zero| if x < zero { zero } else { x }),
                }
            }
        }
    }
}

#[inline(always)]
fn apply(to: &mut [f32], row: &[f32], f: impl Fn(f32, f32) -> f32) {
    if let [one] = row {
        for x in to {
            *x = f(*x, *one);
        }
    } else {
        for (x, c) in to.iter_mut().zip(row) {
            *x = f(*x, *c);
        }
    }
}
