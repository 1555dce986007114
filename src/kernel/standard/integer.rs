//! Products of small whole numbers: `MatMulInteger`, `QLinearMatMul`, `ConvInteger`, `QLinearConv`.

use smallvec::SmallVec;

use super::number::Number;
use super::strided::{Walk, broadcast, stretched};
use super::support::{Args, Built, Dims, FactDims, Facts, Run, fact, first, like, one, op, rank};
use super::window::{Place, Window, each_index};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, ElementType, Tensor, TensorView};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "MatMulInteger" => op(
            name,
            |inputs| one(ElementType::I32, matmul_dims(inputs, 1)),
            |args, outputs, cx| {
                let (dims, sums) = product(args, [0, 1], [2, 3], cx)?;
                cx.reset::<i32>(first(args, outputs)?, &dims)?.copy_from_slice(&sums);
                Ok(())
            },
        ),
        "QLinearMatMul" => op(
            name,
            |inputs| one(fact(inputs, 7)?.element, matmul_dims(inputs, 3)),
            |args, outputs, cx| {
                let (dims, sums) = product(args, [0, 3], [2, 5], cx)?;
                let columns = dims.last().copied().unwrap_or(1);
                let scale = Rescale::new(args, [1, 4, 6], columns)?;
                scale.write(args, &dims, &sums, 7, outputs, cx, |at| at % columns.max(1))
            },
        ),
        "ConvInteger" | "QLinearConv" => convolution(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

/// The shape of a product of the first input and this one.
fn matmul_dims(inputs: &[Option<Fact>], right: usize) -> Option<FactDims> {
    let (mut a, b) = (like(inputs, 0)?, like(inputs, right)?);
    if b.len() == 2 && a.len() >= 2 {
        a.pop();
        a.push(*b.last()?);
        return Some(a);
    }
    Some(SmallVec::from_elem(FactDim::Unknown, a.len().max(b.len())))
}

/// The elements of an 8-bit input, widened.
fn wide(args: Args<'_, '_>, view: TensorView<'_>) -> Result<Vec<i32>, RunError> {
    match view.data() {
        DataView::U8(v) => Ok(v.iter().map(|x| i32::from(*x)).collect()),
        DataView::I8(v) => Ok(v.iter().map(|x| i32::from(*x)).collect()),
        _ => Err(args.fail("8-bit numbers")),
    }
}

/// The zero points of an input, none where it is absent.
fn zeros(args: Args<'_, '_>, index: usize) -> Result<Vec<i32>, RunError> {
    args.maybe(index).map_or_else(|| Ok(vec![0]), |view| wide(args, view))
}

/// The matrix product of two inputs less their zero points.
fn product(
    args: Args<'_, '_>,
    [left, right]: [usize; 2],
    [left_zero, right_zero]: [usize; 2],
    cx: &RunContext,
) -> Result<(Dims, Vec<i32>), RunError> {
    let (a, b) = (args.get(left)?, args.get(right)?);
    let ([a_batch @ .., rows, depth], [b_batch @ .., b_depth, columns]) = (a.dims(), b.dims()) else {
        return Err(args.fail("two matrices"));
    };
    let batch = broadcast(a_batch, b_batch).filter(|_| depth == b_depth);
    let batch = batch.ok_or_else(|| args.fail("shapes that can be multiplied"))?;
    let mut dims = batch.clone();
    dims.extend([*rows, *columns]);
    let needed = dims.iter().try_fold(4_u64, |n, d| n.checked_mul(*d as u64)).unwrap_or(u64::MAX);
    if needed > cx.max_tensor_bytes {
        return Err(RunError::OverBudget { needed });
    }
    let (a_zero, b_zero) = (zeros(args, left_zero)?, zeros(args, right_zero)?);
    let per = |zero: &[i32], count: usize| zero.len() == 1 || zero.len() == count;
    if !per(&a_zero, *rows) || !per(&b_zero, *columns) {
        return Err(args.fail("a zero point for each row or column"));
    }
    let (a, b) = (wide(args, a)?, wide(args, b)?);
    let mut sums = vec![0_i32; dims.iter().product()];
    let mut parts = sums.chunks_exact_mut((rows * columns).max(1));
    let strides = [stretched(a_batch, &batch), stretched(b_batch, &batch)];
    Walk::new(&batch, [&strides[0], &strides[1]]).runs([0, 0], |[a_at, b_at], length, [a_step, b_step]| {
        for i in 0..length.cast_signed() {
            let Some(part) = parts.next() else { return };
            let start = |at: isize, step: isize, size: usize| (at + i * step).cast_unsigned() * size;
            let a = a.get(start(a_at, a_step, rows * depth)..).unwrap_or(&[]);
            let b = b.get(start(b_at, b_step, depth * columns)..).unwrap_or(&[]);
            for (row, to) in part.chunks_exact_mut((*columns).max(1)).enumerate() {
                let zero = a_zero.get(row).or(a_zero.first()).copied().unwrap_or(0);
                let mut total = 0_i32;
                for (x, b) in a.iter().skip(row * depth).take(*depth).zip(b.chunks_exact((*columns).max(1))) {
                    let x = x - zero;
                    total = total.wrapping_add(x);
                    to.iter_mut().zip(b).for_each(|(to, b)| *to = to.wrapping_add(x * b));
                }
                for (column, to) in to.iter_mut().enumerate() {
                    let zero = b_zero.get(column).or(b_zero.first()).copied().unwrap_or(0);
                    *to = to.wrapping_sub(zero.wrapping_mul(total));
                }
            }
        }
    });
    Ok((dims, sums))
}

/// From sums of products to levels of the output.
struct Rescale {
    factors: Vec<f32>,
}

impl Rescale {
    /// `scales` are the inputs with the scales of both factors and of the result; the second has one
    /// or as many as `channels`.
    fn new(args: Args<'_, '_>, scales: [usize; 3], channels: usize) -> Result<Self, RunError> {
        let [a, b, y] = scales.map(|index| args.values::<f32>(index));
        let (a, b, y) = (a?, b?, y?);
        let (Some(a), Some(y)) = (a.first(), y.first()) else { return Err(args.fail("a scale")) };
        if b.len() != 1 && b.len() != channels {
            return Err(args.fail("a scale for each channel"));
        }
        Ok(Self { factors: b.iter().map(|b| a * b / y).collect() })
    }

    #[expect(clippy::too_many_arguments, reason = "one call from each of two operators")]
    fn write(
        &self,
        args: Args<'_, '_>,
        dims: &[usize],
        sums: &[i32],
        zero: usize,
        outputs: &mut [Tensor],
        cx: &RunContext,
        channel: impl Fn(usize) -> usize,
    ) -> Run {
        let to = first(args, outputs)?;
        let point = zeros(args, zero)?.first().copied().unwrap_or(0);
        let level = |at: usize, sum: i32| {
            let factor = self.factors.get(channel(at)).or(self.factors.first()).copied().unwrap_or(1.0);
            #[allow(clippy::cast_precision_loss, reason = "as the other implementations do")]
            let scaled = (sum as f32 * factor).round_ties_even();
            f64::from(scaled) + f64::from(point)
        };
        if args.get(zero)?.element_type() == ElementType::I8 {
            let to = cx.reset::<i8>(to, dims)?;
            to.iter_mut()
                .zip(sums)
                .enumerate()
                .for_each(|(at, (to, s))| *to = Number::from_f64(level(at, *s)));
        } else {
            let to = cx.reset::<u8>(to, dims)?;
            to.iter_mut()
                .zip(sums)
                .enumerate()
                .for_each(|(at, (to, s))| *to = Number::from_f64(level(at, *s)));
        }
        Ok(())
    }
}

fn convolution(name: &'static str, node: &Node<'_>) -> Built {
    let linear = name == "QLinearConv";
    let window = Window::new(node)?;
    let group = node.attributes.int("group")?.unwrap_or(1);
    let group = usize::try_from(group).ok().filter(|g| *g > 0);
    let group = group.ok_or_else(|| BuildError::invalid("attribute `group` is not positive"))?;
    let weights = if linear { 3 } else { 1 };
    let known = window.clone();
    let facts = move |inputs: &[Option<Fact>]| -> Facts {
        let element = if linear { fact(inputs, 7)?.element } else { ElementType::I32 };
        one(
            element,
            known
                .output_fact(inputs, 0, weights)
                .or_else(|| rank(inputs, 0).map(|r| SmallVec::from_elem(FactDim::Unknown, r))),
        )
    };
    op(name, facts, move |args, outputs, cx| {
        let zero = if linear { [2, 5] } else { [2, 3] };
        let (dims, sums) = convolve(args, &window, group, weights, zero, cx)?;
        if !linear {
            cx.reset::<i32>(first(args, outputs)?, &dims)?.copy_from_slice(&sums);
            return Ok(());
        }
        let channels = dims.get(1).copied().unwrap_or(1);
        let inner: usize = dims.get(2..).unwrap_or(&[]).iter().product();
        let scale = Rescale::new(args, [1, 4, 6], channels)?;
        scale.write(args, &dims, &sums, 7, outputs, cx, |at| at / inner.max(1) % channels.max(1))
    })
}

fn convolve(
    args: Args<'_, '_>,
    window: &Window,
    group: usize,
    weights: usize,
    [x_zero, w_zero]: [usize; 2],
    cx: &RunContext,
) -> Result<(Dims, Vec<i32>), RunError> {
    let (x_view, w_view) = (args.get(0)?, args.get(weights)?);
    let ([batch, channels, sizes @ ..], [filters, depth, kernel @ ..]) = (x_view.dims(), w_view.dims())
    else {
        return Err(args.fail("an image and filters"));
    };
    if kernel.len() != sizes.len() || depth * group != *channels || filters % group != 0 {
        return Err(args.fail("filters that fit the image"));
    }
    let places = window.places(args, kernel, sizes)?;
    let mut dims = Dims::from_slice(&[*batch, *filters]);
    dims.extend(places.iter().map(|p| p.out));
    let needed = dims.iter().try_fold(4_u64, |n, d| n.checked_mul(*d as u64)).unwrap_or(u64::MAX);
    if needed > cx.max_tensor_bytes {
        return Err(RunError::OverBudget { needed });
    }
    let x_point = zeros(args, x_zero)?.first().copied().unwrap_or(0);
    let w_points = zeros(args, w_zero)?;
    let bias = if weights == 3 && args.maybe(8).is_some() { args.values::<i32>(8)? } else { &[] };
    let x: Vec<i32> = wide(args, x_view)?.into_iter().map(|x| x - x_point).collect();
    let w = wide(args, w_view)?;
    let mut sums = vec![0_i32; dims.iter().product()];
    let (in_size, taps): (usize, usize) = (sizes.iter().product(), kernel.iter().product());
    let out_size: usize = places.iter().map(|p| p.out).product();
    for (at, to) in sums.chunks_exact_mut(out_size.max(1)).enumerate() {
        let (image, filter) = (at / filters, at % filters);
        to.fill(bias.get(filter).copied().unwrap_or(0));
        let point = w_points.get(filter).or(w_points.first()).copied().unwrap_or(0);
        for inside in 0..*depth {
            let channel = filter / (filters / group) * depth + inside;
            let plane = x.get((image * channels + channel) * in_size..).unwrap_or(&[]);
            let mut tap = 0;
            each_index(kernel, |k| {
                let weight = w.get((filter * depth + inside) * taps + tap).copied().unwrap_or(0) - point;
                tap += 1;
                if weight != 0 {
                    add_tap(&places, k, plane, weight, to);
                }
            });
        }
    }
    Ok((dims, sums))
}

/// Adds one weight's share to all positions of the output.
fn add_tap(places: &[Place], k: &[usize], plane: &[i32], weight: i32, to: &mut [i32]) {
    let Some((last, outer)) = places.split_last() else { return };
    let outs: Dims = outer.iter().map(|p| p.out).collect();
    let k_last = k.last().copied().unwrap_or(0);
    let mut rows = to.chunks_exact_mut(last.out.max(1));
    each_index(&outs, |index| {
        let Some(row) = rows.next() else { return };
        let start = outer
            .iter()
            .zip(index)
            .zip(k)
            .try_fold(0, |at, ((place, out), k)| Some(at * place.size + place.source(*out, *k)?));
        let Some(start) = start else { return };
        let Some(from) = plane.get(start * last.size..(start + 1) * last.size) else { return };
        for (out, to) in row.iter_mut().enumerate() {
            if let Some(x) = last.source(out, k_last).and_then(|at| from.get(at)) {
                *to = to.wrapping_add(x * weight);
            }
        }
    });
}
