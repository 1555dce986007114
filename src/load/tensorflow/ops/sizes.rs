//! Sizes that only the run tells: how many words a text has, how many entries are not zero.
//!
//! Each is a symbol of its own, which the engine learns when the operator has run whose output has
//! that dimension: its witness. Whatever else needs the size comes after the witness.

use std::collections::HashMap;

use super::super::api::{
    DatumType, EngineTensor, IntoTValue, OutletId, SpecialOps, Symbol, TDim, TVec, ToDim, TypedFact, bail,
    tvec,
};
use super::WiringError;
use super::computed::Computed;
use super::wiring::{One, Wired, Wiring, invalid};

/// The most sizes that one tensor may hold.
const MAX_SIZES: usize = 16;

/// The operators' outputs that tell the sizes.
pub(super) type Witnesses = HashMap<Symbol, OutletId>;

impl Wiring<'_> {
    /// A size that only the run tells. The operator whose output has it has to be added next.
    pub(super) fn open_size(&self) -> TDim {
        self.model.symbols.new_with_prefix("S").to_dim()
    }

    /// An output without elements whose dimensions are these sizes, so that a run learns them.
    pub(super) fn witness_fact(sizes: &[TDim]) -> TypedFact {
        let mut dims: TVec<TDim> = sizes.iter().cloned().collect();
        dims.push(0.to_dim());
        TypedFact::dt_shape(DatumType::U8, &*dims)
    }

    /// What such an output is in a run.
    pub(super) fn witness(sizes: &[usize]) -> super::super::api::TractResult<EngineTensor> {
        let mut dims = sizes.to_vec();
        dims.push(0);
        EngineTensor::zero::<u8>(&dims)
    }

    /// True for a size that depends on what only the run tells.
    pub(super) fn is_open(&self, size: &TDim) -> bool {
        size.symbols().iter().any(|s| self.open.contains_key(s))
    }

    /// Remembers which sizes an output tells.
    pub(super) fn note_sizes(&mut self, outlet: OutletId) -> Result<(), WiringError> {
        for dim in self.dims(outlet)? {
            if let TDim::Sym(symbol) = dim
                && !self.given.contains(&symbol)
            {
                if self.has_turns {
                    return Err(invalid("has a size that may change from turn to turn of a loop"));
                }
                self.open.entry(symbol).or_insert(outlet);
            }
        }
        Ok(())
    }

    /// Adds an input of the model. Its dimensions are known from the start.
    pub(in crate::load::tensorflow) fn source(
        &mut self,
        name: String,
        fact: TypedFact,
    ) -> super::super::api::TractResult<OutletId> {
        self.given.extend(fact.shape.iter().flat_map(TDim::symbols));
        self.model.add_source(name, fact)
    }

    /// The inputs of an operator whose outputs have these shapes: after the witnesses of the sizes that
    /// the inputs themselves do not tell.
    pub(super) fn in_order(
        &mut self,
        inputs: &[OutletId],
        outputs: &[TypedFact],
    ) -> Result<TVec<OutletId>, WiringError> {
        let mut inputs: TVec<OutletId> = inputs.into();
        if self.open.is_empty() || inputs.is_empty() {
            return Ok(inputs);
        }
        let mut told = std::collections::HashSet::new();
        for input in &inputs {
            let fact = self.fact(*input)?;
            told.extend(fact.shape.iter().flat_map(TDim::symbols));
        }
        let needed = outputs.iter().flat_map(|f| f.shape.iter()).flat_map(TDim::symbols);
        let witnesses = self.witnesses(needed.filter(|s| !told.contains(s)));
        if let Some(head) = inputs.first_mut().filter(|_| !witnesses.is_empty()) {
            *head = self.after(*head, &witnesses)?;
        }
        Ok(inputs)
    }

    /// The same tensor, once a run knows those of these sizes that it has to learn.
    pub(super) fn once_known(&mut self, x: OutletId, sizes: &[&TDim]) -> One {
        let witnesses = self.witnesses(sizes.iter().flat_map(|size| size.symbols()));
        if witnesses.is_empty() { Ok(x) } else { self.after(x, &witnesses) }
    }

    /// A constant of sizes, once a run knows those of them that it has to learn.
    pub(super) fn known_sizes(&mut self, outlet: OutletId) -> One {
        if self.open.is_empty() || self.datum(outlet)? != DatumType::TDim {
            return Ok(outlet);
        }
        let Some(value) = self.fact(outlet)?.konst.clone() else { return Ok(outlet) };
        let plain = value.try_as_plain_ram()?;
        let symbols = plain.as_slice::<TDim>()?.iter().flat_map(TDim::symbols);
        let witnesses = self.witnesses(symbols);
        if witnesses.is_empty() { Ok(outlet) } else { self.after(outlet, &witnesses) }
    }

    /// The values of an input as dimensions; what only the run tells becomes symbols.
    pub(super) fn sizes(&mut self, outlet: OutletId) -> Result<TVec<TDim>, WiringError> {
        if self.fact(outlet)?.konst.is_some() {
            return self.konst_dims(outlet);
        }
        let outlet = self.plain(outlet)?;
        let count = match self.concrete_dims(outlet)?.as_slice() {
            [] => 1,
            [count] if *count <= MAX_SIZES => *count,
            _ => return Err(invalid("sizes that are computed have to be a short vector")),
        };
        let outlet = self.cast(outlet, DatumType::I64)?;
        let sizes: TVec<TDim> = (0..count).map(|_| self.open_size()).collect();
        let fact = Self::witness_fact(&sizes);
        let op = Computed::new(
            "Sizes",
            move |_| Ok(tvec!(fact.clone())),
            |values| {
                let [x] = values else { bail!("one input expected") };
                let plain = x.try_as_plain_ram()?;
                let sizes = plain.as_slice::<i64>()?.iter().map(|v| usize::try_from(*v));
                let Ok(sizes) = sizes.collect::<Result<Vec<_>, _>>() else { bail!("a size is negative") };
                Ok(tvec!(Self::witness(&sizes)?.into_tvalue()))
            },
        );
        self.one(op, &[outlet])?;
        Ok(sizes)
    }

    /// Brings inputs of one rank to sizes that agree: two sizes that only the run tells may be the same.
    /// A run in which they are not fails.
    pub(super) fn agreeing(&mut self, inputs: &[OutletId], except: Option<usize>) -> Wired {
        if self.open.is_empty() {
            return Ok(inputs.into());
        }
        let all = inputs.iter().map(|i| self.dims(*i)).collect::<Result<Vec<_>, _>>()?;
        let rank = all.first().map_or(0, |dims| dims.len());
        let one = TDim::from(1);
        let mut wanted: Vec<Option<TDim>> = vec![None; rank];
        for (axis, wanted) in wanted.iter_mut().enumerate().filter(|(a, _)| Some(*a) != except) {
            let sizes = || all.iter().filter_map(|dims| dims.get(axis)).filter(|d| **d != one);
            if let Some(first) = sizes().next()
                && sizes().any(|d| d != first)
            {
                *wanted = sizes().find(|d| d.as_i64().is_some()).or_else(|| sizes().next()).cloned();
            }
        }
        let mut out = TVec::new();
        for (input, dims) in inputs.iter().zip(all) {
            let mut changed = dims.clone();
            for (dim, wanted) in changed.iter_mut().zip(&wanted) {
                if let Some(wanted) = wanted
                    && dim.as_i64().is_none()
                    && self.is_open(dim)
                {
                    *dim = wanted.clone();
                }
            }
            out.push(if changed == dims { *input } else { self.assumed(*input, &changed)? });
        }
        Ok(out)
    }

    /// The same tensor, said to have this shape.
    pub(super) fn assumed(&mut self, x: OutletId, dims: &[TDim]) -> One {
        let fact = TypedFact::dt_shape(self.datum(x)?, dims);
        let op = Computed::new(
            "SameSize",
            move |_| Ok(tvec!(fact.clone())),
            |values| Ok(values.iter().take(1).cloned().collect()),
        );
        self.one(op, &[x])
    }

    fn witnesses(&self, symbols: impl IntoIterator<Item = Symbol>) -> Vec<OutletId> {
        let mut found: Vec<OutletId> = Vec::new();
        for symbol in symbols {
            if let Some(outlet) = self.open.get(&symbol)
                && !found.contains(outlet)
            {
                found.push(*outlet);
            }
        }
        found
    }

    /// The same tensor, once these are there.
    pub(super) fn after(&mut self, x: OutletId, witnesses: &[OutletId]) -> One {
        let op = Computed::new(
            "After",
            |facts| Ok(facts.iter().take(1).map(|f| f.without_value()).collect()),
            |values| Ok(values.iter().take(1).cloned().collect()),
        );
        let mut inputs = vec![x];
        inputs.extend(witnesses);
        let name = format!("after.{}", self.next());
        let outlets = self.model.wire_node(name, op, &inputs)?;
        super::wiring::first(&outlets)
    }
}

impl Wiring<'_> {
    /// The same elements in a shape that only the run tells.
    pub(super) fn reshape_open(&mut self, x: OutletId, dims: &[TDim], spec: &[TDim]) -> One {
        let fact = {
            let free = TDim::from(-1);
            let shape: TVec<TDim> =
                spec.iter().map(|d| if *d == free { self.rest(dims, spec) } else { d.clone() }).collect();
            TypedFact::dt_shape(self.datum(x)?, &*shape)
        };
        let spec = self.dims_tensor(spec)?;
        let spec = self.plain(spec)?;
        let spec = self.cast(spec, DatumType::I64)?;
        let op = Computed::new(
            "Reshape",
            move |_| Ok(tvec!(fact.clone())),
            |values| {
                let [x, spec] = values else { bail!("two inputs expected") };
                let plain = spec.try_as_plain_ram()?;
                let known: Option<usize> = { plain.as_slice::<i64>()?.iter().filter(|d| **d >= 0) }
                    .try_fold(1_usize, |n, d| n.checked_mul(usize::try_from(*d).ok()?));
                let rest = x.len() / known.unwrap_or(1).max(1);
                let size = |d: &i64| usize::try_from(*d).unwrap_or(rest);
                let shape: Vec<usize> = plain.as_slice::<i64>()?.iter().map(size).collect();
                if shape.iter().try_fold(1_usize, |n, d| n.checked_mul(*d)) != Some(x.len()) {
                    bail!("{:?} elements do not make the shape {shape:?}", x.shape());
                }
                Ok(tvec!((**x).clone().into_shape(&shape)?.into_tvalue()))
            },
        );
        self.one(op, &[x, spec])
    }

    /// The dimension of a shape that is left to be what the others leave over.
    pub(super) fn rest(&self, dims: &[TDim], spec: &[TDim]) -> TDim {
        let mut over: Vec<TDim> = dims.to_vec();
        let mut wanted = 1_i64;
        for dim in spec.iter().filter(|d| **d != TDim::from(-1)) {
            match over.iter().position(|d| d == dim) {
                Some(at) => drop(over.swap_remove(at)),
                None => match dim.as_i64() {
                    Some(size) => wanted = wanted.saturating_mul(size),
                    None => return self.open_size(),
                },
            }
        }
        let number: i64 = over.iter().filter_map(TDim::as_i64).fold(1, i64::saturating_mul);
        if wanted == 0 || number % wanted != 0 {
            return self.open_size();
        }
        over.iter().filter(|d| d.as_i64().is_none()).product::<TDim>() * (number / wanted)
    }
}
