//! `MatMul` and `Gemm`.

use std::sync::Arc;

use super::dense::Dense;
use super::given_weights::GivenWeights;
use super::number::Number;
use super::strided::{broadcast, stretched};
use super::support::{
    Args, Built, Dims, FactDims, Facts, Run, fact, first, like, number_type, of_rank, one, op, rank,
};
use crate::kernel::program::NodeParts;
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Node, RunContext};
use crate::tensor::{ElementType, Tensor, TensorView};

/// An input as [`Node`] states it: absent, a constant, or something that comes at run time.
pub(crate) type Given<'a> = Option<Option<&'a Tensor>>;

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    match name {
        "MatMul" => matmul(name, node),
        "Gemm" => gemm(name, node),
        _ => Err(BuildError::Unsupported),
    }
}

fn constant<'a>(inputs: &[Given<'a>], index: usize) -> Option<&'a Tensor> {
    inputs.get(index).copied().flatten().flatten()
}

fn matmul(name: &'static str, node: &Node<'_>) -> Built {
    if let Some(weights) = constant(node.inputs, 1)
        && let Some(layer) = plain_layer(weights)
    {
        return Ok(Box::new(layer));
    }
    op(name, matmul_facts, |args, outputs, cx| {
        let a = args.get(0)?;
        number_type!(args, a, v => stacked(args, v, outputs, cx))
    })
}

/// How a `Gemm` or `MatMul` with constant weights, and no addend or a constant row, is a layer.
#[derive(Clone, Copy)]
pub(crate) struct LayerForm {
    operator: &'static str,
    shape: (usize, usize),
    transposed: bool,
    alpha: f32,
    beta: f32,
}

impl LayerForm {
    /// From this many weights on, a layer in a graph that tract runs is taken out of it.
    pub(crate) const LARGE: usize = 1 << 16;

    /// The layer that a node is; `None` where it is none.
    pub(crate) fn of(node: &NodeParts, inputs: &[Given<'_>]) -> Result<Option<Self>, BuildError> {
        if node.operator == "MatMul" {
            let shape = constant(inputs, 1).and_then(plain_shape);
            return Ok(shape.map(|shape| Self::product(shape, false)));
        }
        let form = Form::of(&node.attributes)?;
        Ok(gemm_shape(inputs, form).map(|shape| Self {
            operator: "Gemm",
            shape,
            transposed: form.b_transposed,
            alpha: form.alpha,
            beta: form.beta,
        }))
    }

    /// A product with weights of this depth and these columns, which lie column by column where
    /// they are `transposed`.
    pub(crate) const fn product(shape: (usize, usize), transposed: bool) -> Self {
        Self { operator: "MatMul", shape, transposed, alpha: 1.0, beta: 1.0 }
    }

    /// The layer without its weights, which tells its facts.
    pub(crate) fn planned(&self) -> Dense {
        Dense::planned(self.operator, self.shape)
    }

    /// The layer of these weights. Their memory goes over to the layer piece by piece where nobody
    /// else holds them.
    pub(crate) fn layer(&self, weights: Arc<Tensor>, bias: Option<&Tensor>) -> Option<Dense> {
        let absorbed: &[usize] = if self.operator == "MatMul" { &[1] } else { &[1, 2] };
        // A copy of what was not decoded yet shares its bytes.
        let weights = Arc::try_unwrap(weights).unwrap_or_else(|shared| (*shared).clone());
        let how = (self.transposed, self.alpha);
        let given = GivenWeights::of(weights)?;
        let mut layer = Dense::consuming(self.operator, self.shape, given, how, absorbed);
        if let Some(bias) = bias.and_then(Tensor::values::<f32>) {
            layer.add_bias(bias, self.beta);
        }
        Some(layer)
    }
}

fn plain_shape(weights: &Tensor) -> Option<(usize, usize)> {
    let ([depth, columns], ElementType::F32) = (weights.dims(), weights.element_type()) else { return None };
    Some((*depth, *columns))
}

fn plain_layer(weights: &Tensor) -> Option<Dense> {
    let ((depth, columns), values) = (plain_shape(weights)?, weights.values::<f32>()?);
    let weight = |r: usize, c: usize| values.get(r * columns + c).copied().unwrap_or(0.0);
    Some(Dense::new("MatMul", (depth, columns), weight, &[1]))
}

fn matmul_facts(inputs: &[Option<Fact>]) -> Facts {
    let element = fact(inputs, 0)?.element;
    let (Some(a), Some(b)) = (like(inputs, 0), like(inputs, 1)) else { return one(element, None) };
    match (a.as_slice(), b.as_slice()) {
        ([.., _], [_]) => one(element, Some(FactDims::from_slice(a.get(..a.len() - 1).unwrap_or(&[])))),
        ([.., _], [_, n]) => {
            let mut dims = FactDims::from_slice(a.get(..a.len() - 1).unwrap_or(&[]));
            dims.push(*n);
            one(element, Some(dims))
        }
        _ => {
            let rank = a.len().max(b.len());
            let mut dims = FactDims::from_elem(FactDim::Unknown, rank);
            if let (Some([m, _]), Some([_, n]), true) = (a.last_chunk(), b.last_chunk(), a.len() == rank) {
                if let Some(last) = dims.last_chunk_mut() {
                    *last = [*m, *n];
                }
                return one(element, Some(dims));
            }
            of_rank(inputs, None)
        }
    }
}

/// The most multiplications of one product in a run that has an end in time: some seconds of them.
const MAX_PRODUCTS: u64 = 1 << 36;

/// The same of loops that take them one by one.
pub(super) const MAX_SINGLE_PRODUCTS: u64 = 1 << 31;

/// How many multiplications axes of these sizes make.
pub(super) fn multiplications<'a>(sizes: impl IntoIterator<Item = &'a usize>) -> u64 {
    sizes.into_iter().fold(1, |all, size| all.saturating_mul(*size as u64))
}

/// The product of matrices, or of stacks of them.
#[expect(clippy::many_single_char_names, reason = "what the sizes of a product are called")]
fn stacked<T: Number>(args: Args<'_, '_>, a: &[T], outputs: &mut [Tensor], cx: &RunContext) -> Run {
    let b = args.values::<T>(1)?;
    let (a_shape, b_shape) = (args.get(0)?.shape(), args.get(1)?.shape());
    let (mut a_dims, mut b_dims) = (Dims::from_slice(a_shape.dims()), Dims::from_slice(b_shape.dims()));
    let (a_vector, b_vector) = (a_dims.len() == 1, b_dims.len() == 1);
    if a_vector {
        a_dims.insert(0, 1);
    }
    if b_vector {
        b_dims.push(1);
    }
    let ([a_lead @ .., m, k], [b_lead @ .., k2, n]) = (a_dims.as_slice(), b_dims.as_slice()) else {
        return Err(args.fail("matrices"));
    };
    if k != k2 {
        return Err(crate::load::RunError::Width { operator: args.operator, expected: *k2, found: *k });
    }
    let lead = broadcast(a_lead, b_lead).ok_or_else(|| args.fail("shapes that broadcast"))?;
    let mut dims = lead.clone();
    if !a_vector {
        dims.push(*m);
    }
    if !b_vector {
        dims.push(*n);
    }
    cx.time_for(multiplications(lead.iter().chain([m, k, n])), MAX_PRODUCTS)?;
    let mut rest = cx.reset::<T>(first(args, outputs)?, &dims)?;
    let (a_strides, b_strides) = (stretched(a_lead, &lead), stretched(b_lead, &lead));
    super::strided::Walk::new(&lead, [&a_strides, &b_strides]).runs(
        [0, 0],
        |[a_at, b_at], length, [a_step, b_step]| {
            for i in (0_isize..).take(length) {
                let Some((to, after)) = std::mem::take(&mut rest).split_at_mut_checked(m * n) else { return };
                rest = after;
                let a_from = (a_at + i * a_step).cast_unsigned() * m * k;
                let b_from = (b_at + i * b_step).cast_unsigned() * k * n;
                to.fill(T::ZERO);
                product(
                    (a.get(a_from..a_from + m * k).unwrap_or(&[]), *k, false),
                    (b.get(b_from..b_from + k * n).unwrap_or(&[]), *n, false),
                    to,
                    T::ONE,
                );
            }
        },
    );
    Ok(())
}

/// Adds `factor a b` to a matrix. `a` comes with its depth, `b` with its columns; either may lie
/// transposed.
pub(super) fn product<T: Number>(
    (a, depth, a_transposed): (&[T], usize, bool),
    (b, columns, b_transposed): (&[T], usize, bool),
    to: &mut [T],
    factor: T,
) {
    if columns == 0 || depth == 0 {
        return;
    }
    let rows = to.len() / columns;
    for (i, to) in to.chunks_exact_mut(columns).enumerate() {
        let at = |k: usize| {
            a.get(if a_transposed { k * rows + i } else { i * depth + k }).copied().unwrap_or(T::ZERO)
        };
        if b_transposed {
            for (to, b) in to.iter_mut().zip(b.chunks_exact(depth)) {
                let sum = b.iter().enumerate().fold(T::ZERO, |sum, (k, b)| sum.plus(at(k).times(*b)));
                *to = to.plus(factor.times(sum));
            }
        } else if let [to] = to {
            let sum = b.iter().enumerate().fold(T::ZERO, |sum, (k, b)| sum.plus(at(k).times(*b)));
            *to = to.plus(factor.times(sum));
        } else {
            for (k, b) in b.chunks_exact(columns).enumerate() {
                let x = factor.times(at(k));
                to.iter_mut().zip(b).for_each(|(to, b)| *to = to.plus(x.times(*b)));
            }
        }
    }
}

/// `alpha A B + beta C`, `A` and `B` transposed where so stated.
#[derive(Clone, Copy)]
struct Form {
    alpha: f32,
    beta: f32,
    a_transposed: bool,
    b_transposed: bool,
}

impl Form {
    fn of(attributes: &Attributes) -> Result<Self, BuildError> {
        Ok(Self {
            alpha: attributes.float("alpha")?.unwrap_or(1.0),
            beta: attributes.float("beta")?.unwrap_or(1.0),
            a_transposed: attributes.int("transA")?.unwrap_or(0) != 0,
            b_transposed: attributes.int("transB")?.unwrap_or(0) != 0,
        })
    }
}

fn gemm(name: &'static str, node: &Node<'_>) -> Built {
    let form = Form::of(node.attributes)?;
    if let Some(layer) = gemm_layer(node.inputs, form) {
        return Ok(Box::new(layer));
    }
    let facts = move |inputs: &[Option<Fact>]| {
        let element = fact(inputs, 0)?.element;
        let pick = |index: usize, axis: usize| {
            like(inputs, index).and_then(|d| d.get(axis).copied()).unwrap_or(FactDim::Unknown)
        };
        if rank(inputs, 0).is_some_and(|r| r != 2) || rank(inputs, 1).is_some_and(|r| r != 2) {
            return Err(BuildError::invalid("matrices are expected"));
        }
        let dims = [pick(0, usize::from(form.a_transposed)), pick(1, usize::from(!form.b_transposed))];
        one(element, Some(FactDims::from_slice(&dims)))
    };
    op(name, facts, move |args, outputs, cx| {
        let a = args.get(0)?;
        number_type!(args, a, v => general(args, v, outputs, cx, form))
    })
}

/// The shape of a Gemm with constant weights, and no addend or a constant one that is a row.
fn gemm_shape(inputs: &[Given<'_>], form: Form) -> Option<(usize, usize)> {
    let weights = constant(inputs, 1).filter(|_| !form.a_transposed)?;
    let (rows, columns) = plain_shape(weights)?;
    let shape = if form.b_transposed { (columns, rows) } else { (rows, columns) };
    if let Some(addend) = inputs.get(2).copied().flatten() {
        let addend = addend?;
        let row = matches!(addend.dims(), [] | [_] | [1, _]) && addend.element_type() == ElementType::F32;
        let length = addend.shape().elements();
        if !row || (length != 1 && length != shape.1) {
            return None;
        }
    }
    Some(shape)
}

fn gemm_layer(inputs: &[Given<'_>], form: Form) -> Option<Dense> {
    let shape = gemm_shape(inputs, form)?;
    let weights = constant(inputs, 1)?;
    let ([_, columns], Some(values)) = (weights.dims(), weights.values::<f32>()) else { return None };
    let at = |r: usize, c: usize| if form.b_transposed { c * columns + r } else { r * columns + c };
    let weight = |r: usize, c: usize| form.alpha * values.get(at(r, c)).copied().unwrap_or(0.0);
    let mut layer = Dense::new("Gemm", shape, weight, &[1, 2]);
    if let Some(bias) = constant(inputs, 2).and_then(Tensor::values::<f32>) {
        layer.add_bias(bias, form.beta);
    }
    Some(layer)
}

#[expect(clippy::many_single_char_names, reason = "what the sizes of a product are called")]
fn general<T: Number>(
    args: Args<'_, '_>,
    a: &[T],
    outputs: &mut [Tensor],
    cx: &RunContext,
    form: Form,
) -> Run {
    let Form { alpha, beta, a_transposed, b_transposed } = form;
    let b = args.values::<T>(1)?;
    let oriented = |view: TensorView<'_>, transposed: bool| match (view.dims(), transposed) {
        ([rows, columns], false) | ([columns, rows], true) => Ok((*rows, *columns)),
        _ => Err(args.fail("matrices")),
    };
    let (m, depth) = oriented(args.get(0)?, a_transposed)?;
    let (depth2, n) = oriented(args.get(1)?, b_transposed)?;
    if depth != depth2 {
        return Err(crate::load::RunError::Width { operator: args.operator, expected: depth2, found: depth });
    }
    let dims = [m, n];
    let to = cx.reset::<T>(first(args, outputs)?, &dims)?;
    match args.maybe(2) {
        None => to.fill(T::ZERO),
        Some(addend) => {
            if broadcast(addend.dims(), &dims).as_deref() != Some(&dims) {
                return Err(args.fail("an addend of the shape of the product"));
            }
            let c = args.values::<T>(2)?;
            super::strided::copy(c, 0, &dims, &stretched(addend.dims(), &dims), to);
            if beta.to_bits() != 1.0_f32.to_bits() {
                for to in &mut *to {
                    *to = T::from_f64(to.to_f64() * f64::from(beta));
                }
            }
        }
    }
    // A factor that is no whole number is not lost on whole numbers: they have none.
    product((a, depth, a_transposed), (b, n, b_transposed), to, T::from_f64(f64::from(alpha)));
    Ok(())
}
