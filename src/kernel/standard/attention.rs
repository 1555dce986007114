//! `Attention`: softmax(QKᵀ)V with masks, a cache and groups of heads.

use smallvec::{SmallVec, smallvec};

use super::matmul::{MAX_SINGLE_PRODUCTS, multiplications};
use super::number::Float;
use super::strided::stretched;
use super::support::{Args, Built, FactDims, Facts, Run, fact, float_type, ints, like, op};
use crate::kernel::{BuildError, Fact, FactDim, Node, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, Tensor};

/// The kernel of a node of this family, or [`BuildError::Unsupported`].
pub(super) fn build(name: &'static str, node: &Node<'_>) -> Built {
    if name == "Attention" { attention(name, node) } else { Err(BuildError::Unsupported) }
}

/// Which stage of the logits is the fourth output.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Shown {
    Products,
    Capped,
    Masked,
    Probabilities,
}

#[derive(Clone, Debug)]
struct Settings {
    causal: bool,
    heads: [Option<usize>; 2],
    scale: Option<f32>,
    cap: f64,
    shown: Shown,
    /// How far a query sees back and ahead, where that is bounded.
    window: [Option<i64>; 2],
}

/// A tensor of `[batch, heads, length, size]`, or of `[batch, length, heads * size]`.
#[derive(Clone, Copy)]
pub(super) struct Heads<'a, T> {
    values: &'a [T],
    pub(super) batch: usize,
    pub(super) heads: usize,
    pub(super) length: usize,
    pub(super) size: usize,
    merged: bool,
}

impl<'a, T: Float> Heads<'a, T> {
    pub(super) fn new(args: Args<'a, 'a>, index: usize, heads: Option<usize>) -> Result<Self, RunError> {
        let values = args.values::<T>(index)?;
        match (args.get(index)?.dims(), heads) {
            ([batch, heads, length, size], _) => {
                Ok(Self { values, batch: *batch, heads: *heads, length: *length, size: *size, merged: false })
            }
            ([batch, length, width], Some(heads)) if heads > 0 && width % heads == 0 => {
                Ok(Self { values, batch: *batch, heads, length: *length, size: width / heads, merged: true })
            }
            _ => Err(args.fail("three dimensions with a number of heads, or four")),
        }
    }

    pub(super) fn place(&self, batch: usize, head: usize, at: usize) -> usize {
        if self.merged {
            ((batch * self.length + at) * self.heads + head) * self.size
        } else {
            ((batch * self.heads + head) * self.length + at) * self.size
        }
    }

    pub(super) fn row(&self, batch: usize, head: usize, at: usize) -> &'a [T] {
        let start = self.place(batch, head, at);
        self.values.get(start..start + self.size).unwrap_or(&[])
    }
}

fn attention(name: &'static str, node: &Node<'_>) -> Built {
    let count = |name: &str| -> Result<Option<usize>, BuildError> {
        Ok(node.attributes.int(name)?.and_then(|n| usize::try_from(n).ok()).filter(|n| *n > 0))
    };
    let bound = |name: &str| -> Result<Option<i64>, BuildError> {
        Ok(node.attributes.int(name)?.filter(|n| *n >= 0))
    };
    let shown = match node.attributes.int("qk_matmul_output_mode")?.unwrap_or(0) {
        0 => Shown::Products,
        // Version 24 says before the mask, version 23 after: both agree on the names of the stages.
        1 => Shown::Capped,
        2 => Shown::Masked,
        3 => Shown::Probabilities,
        other => {
            return Err(BuildError::invalid(format!("attribute `qk_matmul_output_mode`: found {other}")));
        }
    };
    let settings = Settings {
        causal: node.attributes.int("is_causal")?.unwrap_or(0) != 0,
        heads: [count("q_num_heads")?, count("kv_num_heads")?],
        scale: node.attributes.float("scale")?,
        cap: f64::from(node.attributes.float("softcap")?.unwrap_or(0.0)),
        shown,
        window: [bound("left_window_size")?, bound("right_window_size")?],
    };
    let (heads, outputs) = (settings.heads, node.outputs);
    let facts = move |inputs: &[Option<Fact>]| -> Facts { attention_facts(inputs, heads, outputs) };
    op(name, facts, move |args, outputs, cx| {
        let input = args.get(0)?;
        float_type!(args, input, v => {
            let _ = v;
            attend(args, v, &settings, outputs, cx)
        })
    })
}

fn attention_facts(inputs: &[Option<Fact>], heads: [Option<usize>; 2], outputs: usize) -> Facts {
    let element = fact(inputs, 0)?.element;
    let (q, k, v) = (like(inputs, 0), like(inputs, 1), like(inputs, 2));
    let fixed = |d: &FactDim| if let FactDim::Fixed(n) = d { Some(*n) } else { None };
    let y = q.as_ref().map(|q| -> FactDims {
        let mut dims = q.clone();
        let last = v.as_ref().and_then(|v| v.last().copied()).unwrap_or(FactDim::Unknown);
        let last = match (q.len(), fixed(&last), heads) {
            (4, ..) => last,
            (_, Some(width), [Some(own), Some(shared)]) => FactDim::Fixed(width / shared * own),
            _ => FactDim::Unknown,
        };
        dims.pop();
        dims.push(last);
        dims
    });
    let cached = |from: &Option<FactDims>| -> Option<FactDims> {
        Some(match from.as_deref()? {
            [batch, heads, _, size] => smallvec![*batch, *heads, FactDim::Unknown, *size],
            _ => SmallVec::from_elem(FactDim::Unknown, 4),
        })
    };
    let logits: FactDims = SmallVec::from_elem(FactDim::Unknown, 4);
    let all = [y, cached(&k), cached(&v), Some(logits)];
    Ok(all.into_iter().take(outputs.max(1)).map(|dims| Fact { element, dims }).collect())
}

/// What a mask adds to a logit: minus infinity where the key is not to be seen.
struct Mask<'a, T> {
    values: Option<MaskValues<'a, T>>,
    strides: super::strided::Strides,
    /// The keys that the mask knows; those after it are not seen.
    width: usize,
}

enum MaskValues<'a, T> {
    Seen(&'a [bool]),
    Added(&'a [T]),
}

impl<T: Float> Mask<'_, T> {
    fn at(&self, index: [usize; 4]) -> f64 {
        let Some(values) = &self.values else { return 0.0 };
        if index[3] >= self.width {
            return f64::NEG_INFINITY;
        }
        let at: usize = index.iter().zip(&self.strides).map(|(i, s)| i * s.cast_unsigned()).sum();
        match values {
            MaskValues::Seen(seen) => {
                if seen.get(at) == Some(&true) {
                    0.0
                } else {
                    f64::NEG_INFINITY
                }
            }
            MaskValues::Added(added) => added.get(at).map_or(0.0, |x| x.to_f64()),
        }
    }
}

fn mask<'a, T: Float>(
    args: Args<'a, 'a>,
    [batch, heads, queries, keys]: [usize; 4],
) -> Result<Mask<'a, T>, RunError> {
    let Some(view) = args.maybe(3) else {
        return Ok(Mask { values: None, strides: SmallVec::new(), width: keys });
    };
    let values = match view.data() {
        DataView::Bool(seen) => MaskValues::Seen(seen),
        _ => MaskValues::Added(args.values::<T>(3)?),
    };
    let width = view.dims().last().copied().unwrap_or(1);
    let full = [batch, heads, queries, width];
    let fits = view.dims().len() <= 4
        && view.dims().iter().rev().zip(full.iter().rev()).all(|(d, n)| d == n || *d == 1);
    if !fits {
        return Err(args.fail("a mask that broadcasts to the logits"));
    }
    // A single column broadcasts to all keys.
    let width = if width == 1 { keys } else { width };
    Ok(Mask { values: Some(values), strides: stretched(view.dims(), &full), width })
}

#[expect(clippy::too_many_lines, reason = "one pass over queries, with what it reads checked before")]
fn attend<T: Float>(
    args: Args<'_, '_>,
    _queries: &[T],
    settings: &Settings,
    outputs: &mut [Tensor],
    cx: &RunContext,
) -> Run {
    let q = Heads::<T>::new(args, 0, settings.heads[0])?;
    let (k, v) = (Heads::<T>::new(args, 1, settings.heads[1])?, Heads::<T>::new(args, 2, settings.heads[1])?);
    let past = match (args.maybe(4), args.maybe(5)) {
        (Some(_), Some(_)) => Some((Heads::<T>::new(args, 4, None)?, Heads::<T>::new(args, 5, None)?)),
        (None, None) => None,
        _ => return Err(args.fail("a past of both keys and values")),
    };
    let before = past.map_or(0, |(keys, _)| keys.length);
    let same_heads = k.heads == v.heads && k.length == v.length && k.heads > 0 && q.heads % k.heads == 0;
    let past_fits = past.is_none_or(|(pk, pv)| {
        (pk.batch, pk.heads, pk.size) == (k.batch, k.heads, k.size)
            && (pv.batch, pv.heads, pv.size, pv.length) == (v.batch, v.heads, v.size, pk.length)
    });
    if q.batch != k.batch || q.batch != v.batch || q.size != k.size || !same_heads || !past_fits {
        return Err(args.fail("queries, keys and values of matching sizes"));
    }
    let valid = match args.maybe(6) {
        Some(lengths) => Some(
            ints(lengths).filter(|l| l.len() == q.batch).ok_or_else(|| args.fail("a length for each row"))?,
        ),
        None => None,
    };
    let keys = before + k.length;
    let sizes = [q.batch, q.heads, q.length, keys];
    let products = multiplications(sizes.iter().chain([&q.size.saturating_add(v.size)]));
    cx.time_for(products, MAX_SINGLE_PRODUCTS)?;
    let mask = mask::<T>(args, sizes)?;
    #[allow(clippy::cast_precision_loss, reason = "a size")]
    let scale = settings.scale.map_or_else(|| 1.0 / (q.size as f64).sqrt(), f64::from);
    let key = |b: usize, h: usize, j: usize| match past {
        Some((keys, _)) if j < before => keys.row(b, h, j),
        _ => k.row(b, h, j - before),
    };
    let value = |b: usize, h: usize, j: usize| match past {
        Some((_, values)) if j < before => values.row(b, h, j),
        _ => v.row(b, h, j - before),
    };
    let mut outputs = outputs.iter_mut();
    let dims: SmallVec<[usize; 4]> = if q.merged {
        smallvec![q.batch, q.length, q.heads * v.size]
    } else {
        smallvec![q.batch, q.heads, q.length, v.size]
    };
    let y = cx.reset::<T>(outputs.next().ok_or_else(|| args.fail("an output"))?, &dims)?;
    y.fill(T::ZERO);
    for (output, size, row) in [(outputs.next(), k.size, true), (outputs.next(), v.size, false)] {
        let Some(output) = output else { continue };
        let to = cx.reset::<T>(output, &[q.batch, k.heads, keys, size])?;
        for (at, to) in to.chunks_exact_mut(size.max(1)).enumerate() {
            let (b, h, j) = (at / (keys * k.heads), at / keys % k.heads, at % keys);
            to.copy_from_slice(if row { key(b, h, j) } else { value(b, h, j) });
        }
    }
    let mut shown = match outputs.next() {
        Some(output) => Some(cx.reset::<T>(output, &sizes)?),
        None => None,
    };
    let place = Heads { size: v.size, ..q };
    let mut logits = vec![0.0_f64; keys];
    for b in 0..q.batch {
        let length = valid.as_ref().and_then(|v| v.get(b)).copied();
        let offset = match (past, length) {
            (None, Some(length)) => length - i64::try_from(q.length).unwrap_or(0),
            _ => i64::try_from(before).unwrap_or(0),
        };
        for h in 0..q.heads {
            let shared = h / (q.heads / k.heads);
            for i in 0..q.length {
                let query = q.row(b, h, i);
                let here = i64::try_from(i).unwrap_or(0).saturating_add(offset);
                let mut seen = false;
                let shown = shown.as_deref_mut().and_then(|s| {
                    let start = ((b * q.heads + h) * q.length + i) * keys;
                    s.get_mut(start..start + keys)
                });
                let mut early = None;
                for (j, logit) in logits.iter_mut().enumerate() {
                    let product = dot(query, key(b, shared, j)) * scale;
                    let capped = if settings.cap > 0.0 {
                        (product / settings.cap).tanh() * settings.cap
                    } else {
                        product
                    };
                    let at = i64::try_from(j).unwrap_or(0);
                    let hidden = (settings.causal && at > here)
                        || settings.window[0].is_some_and(|w| here - at > w)
                        || settings.window[1].is_some_and(|w| at - here > w)
                        || length.is_some_and(|n| at >= n);
                    let bias = if hidden { f64::NEG_INFINITY } else { mask.at([b, h, i, j]) };
                    seen |= bias != f64::NEG_INFINITY;
                    *logit = capped + bias;
                    let stage = match settings.shown {
                        Shown::Products => product,
                        Shown::Capped => capped,
                        Shown::Masked => *logit,
                        Shown::Probabilities => continue,
                    };
                    early.get_or_insert_with(|| Vec::with_capacity(keys)).push(stage);
                }
                softmax(&mut logits, seen);
                if let Some(shown) = shown {
                    let stage = early.as_deref().unwrap_or(&logits);
                    shown.iter_mut().zip(stage).for_each(|(to, x)| *to = T::from_f64(*x));
                }
                let start = place.place(b, h, i);
                let to = y.get_mut(start..start + v.size).unwrap_or(&mut []);
                for (j, weight) in logits.iter().enumerate() {
                    let weight = T::from_f64(*weight);
                    to.iter_mut()
                        .zip(value(b, shared, j))
                        .for_each(|(to, x)| *to = to.plus(weight.times(*x)));
                }
            }
        }
    }
    Ok(())
}

/// In place; all zero where no key is seen.
fn softmax(logits: &mut [f64], seen: bool) {
    if !seen {
        logits.fill(0.0);
        return;
    }
    let most = logits
        .iter()
        .fold(f64::NEG_INFINITY, |most, x| if x.is_nan() || most.is_nan() { f64::NAN } else { most.max(*x) });
    let mut sum = 0.0;
    for x in logits.iter_mut() {
        *x = (*x - most).exp();
        sum += *x;
    }
    logits.iter_mut().for_each(|x| *x /= sum);
}

/// In eight sums side by side.
fn dot<T: Float>(a: &[T], b: &[T]) -> f64 {
    let (mut sums, (a_parts, b_parts)) = ([T::ZERO; 8], (a.chunks_exact(8), b.chunks_exact(8)));
    let rest = a_parts.remainder().iter().zip(b_parts.remainder());
    let rest = rest.fold(0.0, |sum, (a, b)| sum + a.times(*b).to_f64());
    for (a, b) in a_parts.zip(b_parts) {
        for ((sum, a), b) in sums.iter_mut().zip(a).zip(b) {
            *sum = sum.plus(a.times(*b));
        }
    }
    sums.iter().fold(rest, |sum, x| sum + x.to_f64())
}
