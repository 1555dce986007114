//! Pools that are neither a maximum nor a mean, and their inverse: `LpPool`, `GlobalLpPool`,
//! `MaxUnpool`.

use smallvec::SmallVec;

use super::number::Float;
use super::support::{Args, Built, Dims, Facts, Run, fact, first, float_type, like, one, op, rank};
use super::window::{Window, each_index};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::tensor::Tensor;

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "LpPool" | "GlobalLpPool" => power(name, node),
        "MaxUnpool" => unpool(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

/// The p-norm of what is in the window.
fn power(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Float>(
        args: Args<'_, '_>,
        values: &[T],
        (window, global, p): (&Window, bool, f64),
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let shape = args.get(0)?.shape();
        let [batch, channels, sizes @ ..] = shape.dims() else { return Err(args.fail("an image")) };
        let kernel = if global { sizes } else { window.kernel.as_slice() };
        if kernel.len() != sizes.len() || kernel.contains(&0) {
            return Err(args.fail("a window for each axis"));
        }
        let places = window.places(args, kernel, sizes)?;
        let outs: Dims = places.iter().map(|place| place.out).collect();
        let mut dims = Dims::from_slice(&[*batch, *channels]);
        dims.extend(outs.iter().copied());
        let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
        let (plane, positions): (usize, usize) = (sizes.iter().product(), outs.iter().product());
        let blocks = to.chunks_exact_mut(positions.max(1)).zip(values.chunks_exact(plane.max(1)));
        for (to, from) in blocks {
            let mut slots = to.iter_mut();
            each_index(&outs, |out| {
                let mut sum = 0.0;
                each_index(kernel, |k| {
                    let at =
                        places.iter().zip(out).zip(k).try_fold(0, |at, ((place, out), k)| {
                            Some(at * place.size + place.source(*out, *k)?)
                        });
                    sum += at.and_then(|at| from.get(at)).map_or(0.0, |x| x.to_f64().abs().powf(p));
                });
                slots.next().into_iter().for_each(|to| *to = T::from_f64(sum.powf(1.0 / p)));
            });
        }
        Ok(())
    }
    let window = Window::new(node)?;
    let global = name == "GlobalLpPool";
    #[allow(clippy::cast_precision_loss, reason = "a small number")]
    let p = match node.attributes.int("p") {
        Ok(p) => p.unwrap_or(2) as f64,
        // The first version has a float.
        Err(_) => f64::from(node.attributes.float("p")?.unwrap_or(2.0)),
    };
    let known = window.clone();
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let element = fact(inputs, 0)?.element;
        let dims = if global {
            like(inputs, 0).map(|mut dims| {
                dims.iter_mut().skip(2).for_each(|d| *d = FactDim::Fixed(1));
                dims
            })
        } else {
            known.pooled_fact(inputs)
        };
        one(element, dims.or_else(|| rank(inputs, 0).map(|r| SmallVec::from_elem(FactDim::Unknown, r))))
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, (&window, global, p), outputs, cx))
    })
}

/// Back to where the maxima were, zeros elsewhere.
fn unpool(name: &'static str, node: &Node<'_>) -> Built {
    fn typed<T: Float>(
        args: Args<'_, '_>,
        values: &[T],
        sized: impl Fn(&[usize]) -> Option<Dims>,
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Run {
        let shape = args.get(0)?.shape();
        let places = args.values::<i64>(1)?;
        let pooled = sized(shape.dims()).ok_or_else(|| args.fail("an image that the window fits"))?;
        let dims = match args.maybe_ints(2)? {
            Some(sizes) => {
                let sizes: Option<Dims> = sizes.iter().map(|n| usize::try_from(*n).ok()).collect();
                sizes.filter(|s| s.len() == pooled.len()).ok_or_else(|| args.fail("a size for each axis"))?
            }
            None => pooled.clone(),
        };
        if places.len() != values.len() {
            return Err(args.fail("a place for each element"));
        }
        let strides = super::strided::dense(&dims);
        let inner = super::strided::dense(&pooled);
        let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
        to.fill(T::ZERO);
        for (place, value) in places.iter().zip(values) {
            // The place is one in the tensor that was pooled, which may be a corner of the result.
            let Ok(place) = usize::try_from(*place) else { return Err(args.fail("places in the result")) };
            let at = inner.iter().zip(&pooled).zip(strides.iter().zip(&dims)).try_fold(
                0_usize,
                |at, ((step, size), (stride, dim))| {
                    let index = place / step.cast_unsigned().max(1) % (*size).max(1);
                    (index < *dim).then(|| at + index * stride.cast_unsigned())
                },
            );
            let slot = at.and_then(|at| to.get_mut(at)).ok_or_else(|| args.fail("places in the result"))?;
            *slot = *value;
        }
        Ok(())
    }
    let window = node.attributes.ints("kernel_shape")?.to_vec();
    let (strides, pads) = (node.attributes.ints("strides")?.to_vec(), node.attributes.ints("pads")?.to_vec());
    let sized = move |dims: &[usize]| -> Option<Dims> {
        let rank = dims.len().checked_sub(2).filter(|rank| *rank == window.len())?;
        let mut result = Dims::from_slice(dims.get(..2)?);
        for (axis, (size, kernel)) in dims.get(2..)?.iter().zip(&window).enumerate() {
            let pad = |at: usize| pads.get(at).copied().unwrap_or(0);
            let span = i64::try_from(*size)
                .ok()?
                .checked_sub(1)?
                .checked_mul(strides.get(axis).copied().unwrap_or(1))?;
            let size = span.checked_sub(pad(axis))?.checked_sub(pad(axis + rank))?.checked_add(*kernel)?;
            result.push(usize::try_from(size).ok()?);
        }
        Some(result)
    };
    let known = sized.clone();
    let stated = node.inputs.get(2).copied().flatten().is_some();
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let element = fact(inputs, 0)?.element;
        let Some(dims) = like(inputs, 0) else { return one(element, None) };
        let size = |d: &FactDim| if let FactDim::Fixed(n) = d { *n } else { 1 };
        let sizes: Dims = dims.iter().map(size).collect();
        let pooled = known(&sizes).filter(|_| !stated).unwrap_or_default();
        let dim = |(axis, dim): (usize, &FactDim)| match (dim, pooled.get(axis)) {
            (FactDim::Fixed(_), Some(n)) => FactDim::Fixed(*n),
            (dim, _) if axis < 2 && !stated => *dim,
            _ => FactDim::Unknown,
        };
        one(element, Some(dims.iter().enumerate().map(dim).collect()))
    };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        float_type!(args, input, v => typed(args, v, &sized, outputs, cx))
    })
}
