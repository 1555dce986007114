//! The typed model under construction, and what every operator needs to add to it.

use std::sync::Arc;

use super::super::api::{
    AxisOp, Datum, DatumType, EngineTensor, IntoTensor, OutletId, SpecialOps, Symbol, TDim, TValue, TVec,
    TractResult, TypedFact, TypedModel, TypedOp, tensor0, tract_core, tvec,
};
use super::WiringError;
use crate::kernel::Kernel;
use crate::load::tract::operator::KernelOp;
use crate::load::tract::plan::guarded;

/// Constants of up to this many elements are computed with at once.
const FOLDED_ELEMENTS: usize = 1 << 20;

/// The most turns of a loop that counts, and of all loops in it together.
const MAX_TURNS: i64 = 1 << 20;

/// What stating an operator gives.
pub(in crate::load::tensorflow) type Wired = Result<TVec<OutletId>, WiringError>;
/// The same for one outlet.
pub(super) type One = Result<OutletId, WiringError>;

/// A model under construction.
pub(in crate::load::tensorflow) struct Wiring<'m> {
    pub(in crate::load::tensorflow) model: &'m mut TypedModel,
    pub(super) partitions: super::partition::Partitions,
    /// Whole numbers that are known to be no less than this.
    pub(super) at_least: std::collections::HashMap<OutletId, i64>,
    pub(super) lists: super::lists::Lists,
    /// The outputs that tell the sizes that only a run tells.
    pub(super) open: super::sizes::Witnesses,
    /// True in a loop whose turns the engine counts: it learns a size once, not in each turn.
    pub(super) has_turns: bool,
    /// What is known of the sizes of the model's inputs from the start.
    pub(super) given: std::collections::HashSet<Symbol>,
    /// The outlets that one operator reads, and nothing else.
    pub(super) read_once: std::collections::HashSet<OutletId>,
    /// How many turns a loop may take here: loops in a loop share its turns.
    pub(super) turns: i64,
    budget: u64,
    count: usize,
}

impl<'m> Wiring<'m> {
    pub(in crate::load::tensorflow) fn new(model: &'m mut TypedModel, budget: u64) -> Self {
        Self {
            model,
            partitions: super::partition::Partitions::new(),
            at_least: std::collections::HashMap::new(),
            lists: super::lists::Lists::default(),
            open: super::sizes::Witnesses::new(),
            has_turns: false,
            given: std::collections::HashSet::new(),
            read_once: std::collections::HashSet::new(),
            turns: MAX_TURNS,
            budget,
            count: 0,
        }
    }

    /// The most bytes that a tensor may take.
    pub(super) const fn budget(&self) -> u64 {
        self.budget
    }

    /// A number that no operator has had.
    pub(super) const fn next(&mut self) -> usize {
        self.count += 1;
        self.count
    }

    /// Adds a constant.
    pub(in crate::load::tensorflow) fn constant(
        &mut self,
        value: Arc<EngineTensor>,
    ) -> TractResult<TVec<OutletId>> {
        self.count += 1;
        Ok(tvec!(self.model.add_const(format!("const.{}", self.count), value)?))
    }

    /// Adds a layer that holds its weights.
    pub(super) fn layer(&mut self, layer: &Arc<dyn Kernel>, name: &str, inputs: &[OutletId]) -> Wired {
        let (input, output) = ("input".to_owned(), "output".to_owned());
        let limit = self.budget / 4;
        let scope = &self.model.symbols;
        let op = KernelOp::new(Arc::clone(layer), name, &[input], &[output], limit, scope);
        self.all(op, inputs)
    }

    /// Adds a constant, for operators that need one of their own.
    pub(super) fn tensor(&mut self, value: EngineTensor) -> One {
        let outlets = self.constant(Arc::new(value))?;
        first(&outlets)
    }

    /// A scalar of the type of `like`, of its rank.
    pub(super) fn scalar_like(&mut self, value: f64, like: OutletId) -> One {
        let (datum, rank) = (self.datum(like)?, self.rank(like)?);
        let value = tensor0(value).cast_to_dt(datum)?.into_owned().broadcast_into_rank(rank)?;
        self.tensor(value)
    }

    /// Adds an operator; where all its inputs are constants and small, their result.
    pub(super) fn all(&mut self, op: impl Into<Box<dyn TypedOp>>, inputs: &[OutletId]) -> Wired {
        let op: Box<dyn TypedOp> = op.into();
        let facts = inputs
            .iter()
            .map(|i| Ok(self.model.outlet_fact(*i)?.clone()))
            .collect::<TractResult<Vec<_>>>()?;
        let outputs = op.output_facts(&facts.iter().collect::<Vec<_>>())?;
        let mut elements = 0_usize;
        for fact in &outputs {
            let dims = fact.shape.iter().map(|d| d.as_i64().map_or(Some(1), |d| usize::try_from(d).ok()));
            let size = { dims }.try_fold(1_usize, |n, d| n.checked_mul(d?)).unwrap_or(usize::MAX);
            elements = elements.saturating_add(size);
            let needed = (size as u64).saturating_mul(fact.datum_type.size_of() as u64);
            if needed > self.budget {
                return Err(WiringError::OverBudget { needed, budget: self.budget });
            }
        }
        let values: Option<TVec<TValue>> =
            facts.iter().map(|f| f.konst.clone().map(super::super::api::IntoTValue::into_tvalue)).collect();
        if let Some(values) = values
            && !facts.is_empty()
            && elements.max(values.iter().map(|v| v.len()).sum()) <= FOLDED_ELEMENTS
            // What tract cannot compute now may never be asked for: it fails when it runs.
            && let Ok(Some(results)) = guarded(|| op.eval_out_of_plan(values))
        {
            return results.into_iter().map(|r| self.tensor(r.into_tensor())).collect();
        }
        let inputs = self.in_order(inputs, &outputs)?;
        let name = format!("{}.{}", op.name(), self.next());
        let outlets = self.model.wire_node(name, op, &inputs)?;
        for outlet in &outlets {
            self.note_sizes(*outlet)?;
        }
        Ok(outlets)
    }

    /// The same for an operator of one output.
    pub(super) fn one(&mut self, op: impl Into<Box<dyn TypedOp>>, inputs: &[OutletId]) -> One {
        let outlets = self.all(op, inputs)?;
        first(&outlets)
    }

    /// An operator of two inputs, which are brought to the same type and rank.
    pub(super) fn binary(&mut self, op: impl Into<Box<dyn TypedOp>>, a: OutletId, b: OutletId) -> One {
        let inputs = self.same(&[a, b])?;
        self.one(op, &inputs)
    }

    /// Brings inputs to one type (whole numbers join shapes) and one rank.
    pub(super) fn same(&mut self, inputs: &[OutletId]) -> Wired {
        let inputs = self.same_rank(inputs)?;
        self.agreeing(&inputs, None)
    }

    /// The same for inputs whose dimensions are not those of each other.
    pub(super) fn same_rank(&mut self, inputs: &[OutletId]) -> Wired {
        let inputs = self.same_type(inputs)?;
        let rank = inputs.iter().map(|i| self.rank(*i)).collect::<Result<Vec<_>, _>>()?.into_iter().max();
        inputs.iter().map(|i| self.with_rank(*i, rank.unwrap_or(0))).collect()
    }

    /// Brings whole numbers to one type: that of tract for shapes, where one of them is of it and all
    /// are constants.
    pub(super) fn same_type(&mut self, inputs: &[OutletId]) -> Wired {
        let mut inputs: TVec<OutletId> = inputs.into();
        let mut types = inputs.iter().map(|i| self.datum(*i)).collect::<Result<Vec<_>, _>>()?;
        if types.contains(&DatumType::TDim) {
            let shapes = inputs.iter().zip(&types);
            let computed = |(i, t): (&OutletId, &DatumType)| *t != DatumType::TDim && self.konst(*i).is_err();
            if shapes.into_iter().any(computed) {
                inputs = inputs.iter().map(|i| self.plain(*i)).collect::<Result<_, _>>()?;
                types = inputs.iter().map(|i| self.datum(*i)).collect::<Result<_, _>>()?;
            }
        }
        if !types.contains(&DatumType::TDim) {
            // Types only differ where a shape was made ordinary numbers.
            let differ = types.iter().any(|t| Some(t) != types.first());
            if differ && types.iter().all(|t| t.is_integer()) {
                return inputs.iter().map(|i| self.cast(*i, DatumType::I64)).collect();
            }
            return Ok(inputs);
        }
        let types = types.into_iter().zip(&inputs);
        types
            .map(
                |(t, i)| {
                    if t.is_integer() && t != DatumType::TDim {
                        self.cast(*i, DatumType::TDim)
                    } else {
                        Ok(*i)
                    }
                },
            )
            .collect()
    }

    /// The same tensor with dimensions of size one before its own.
    pub(super) fn with_rank(&mut self, outlet: OutletId, rank: usize) -> One {
        let mut outlet = outlet;
        while self.rank(outlet)? < rank {
            outlet = self.one(AxisOp::Add(0), &[outlet])?;
        }
        Ok(outlet)
    }

    /// The same numbers in another type.
    pub(super) fn cast(&mut self, outlet: OutletId, to: DatumType) -> One {
        if self.datum(outlet)? == to {
            return Ok(outlet);
        }
        self.one(tract_core::ops::cast::cast(to), &[outlet])
    }

    /// A tensor of shapes as ordinary whole numbers.
    pub(super) fn plain(&mut self, outlet: OutletId) -> One {
        if self.datum(outlet)? != DatumType::TDim {
            return Ok(outlet);
        }
        let outlet = self.known_sizes(outlet)?;
        self.cast(outlet, DatumType::I64)
    }

    /// An output as ordinary numbers of a type.
    pub(in crate::load::tensorflow) fn typed(&mut self, outlet: OutletId, datum: DatumType) -> One {
        let outlet = self.plain(outlet)?;
        self.cast(outlet, datum)
    }

    pub(super) fn fact(&self, outlet: OutletId) -> Result<&TypedFact, WiringError> {
        Ok(self.model.outlet_fact(outlet)?)
    }

    pub(super) fn datum(&self, outlet: OutletId) -> Result<DatumType, WiringError> {
        Ok(self.fact(outlet)?.datum_type)
    }

    pub(super) fn rank(&self, outlet: OutletId) -> Result<usize, WiringError> {
        Ok(self.fact(outlet)?.rank())
    }

    pub(super) fn dims(&self, outlet: OutletId) -> Result<TVec<TDim>, WiringError> {
        Ok(self.fact(outlet)?.shape.to_tvec())
    }

    /// One dimension.
    pub(super) fn dim(&self, outlet: OutletId, axis: usize) -> Result<TDim, WiringError> {
        let dims = self.dims(outlet)?;
        dims.get(axis)
            .cloned()
            .ok_or_else(|| invalid(format!("there is no dimension {axis} of {}", dims.len())))
    }

    /// The dimensions, where they are all known.
    pub(super) fn concrete_dims(&self, outlet: OutletId) -> Result<Vec<usize>, WiringError> {
        let dims = self.fact(outlet)?.shape.as_concrete().map(<[usize]>::to_vec);
        dims.ok_or_else(|| invalid("needs a shape that is known"))
    }

    /// The value of an input that has to be a constant.
    pub(super) fn konst(&self, outlet: OutletId) -> Result<Arc<EngineTensor>, WiringError> {
        self.fact(outlet)?
            .konst
            .clone()
            .ok_or_else(|| invalid("an input that has to be a constant is computed from the model's input"))
    }

    /// The values of a constant input as dimensions.
    pub(super) fn konst_dims(&self, outlet: OutletId) -> Result<TVec<TDim>, WiringError> {
        let value = self.konst(outlet)?;
        let cast = value.cast_to::<TDim>()?;
        Ok(cast.try_as_plain_ram()?.as_slice::<TDim>()?.iter().cloned().collect())
    }

    /// The values of a constant input as whole numbers.
    pub(super) fn konst_ints(&self, outlet: OutletId) -> Result<Vec<i64>, WiringError> {
        let value = self.konst(outlet)?;
        let cast = value.cast_to::<i64>()?;
        Ok(cast.try_as_plain_ram()?.as_slice::<i64>()?.to_vec())
    }

    /// The value of a constant scalar input.
    pub(super) fn konst_scalar<T: Datum + Copy>(&self, outlet: OutletId) -> Result<T, WiringError> {
        Ok(self.konst(outlet)?.cast_to_scalar::<T>()?)
    }

    /// Moves axes: output axis `i` is input axis `permutation[i]`.
    pub(super) fn transpose(&mut self, outlet: OutletId, permutation: &[usize]) -> One {
        let mut outlet = outlet;
        for op in tract_core::ops::change_axes::perm_to_ops(permutation) {
            outlet = self.one(op, &[outlet])?;
        }
        Ok(outlet)
    }

    /// The same elements in another shape; -1 in at most one place.
    pub(super) fn reshape(&mut self, outlet: OutletId, spec: &[TDim]) -> One {
        let dims = self.dims(outlet)?;
        if dims.iter().chain(spec).any(|d| self.is_open(d)) {
            return self.reshape_open(outlet, &dims, spec);
        }
        let ops = tract_core::ops::change_axes::to_axis_ops_with_tf_rules(&dims, spec)?;
        let mut outlet = outlet;
        for op in ops {
            outlet = self.one(op, &[outlet])?;
        }
        Ok(outlet)
    }

    /// Repeats along dimensions of size one until the shape is this one.
    pub(super) fn broadcast_to(&mut self, outlet: OutletId, dims: &[TDim]) -> One {
        not_negative(dims)?;
        let outlet = self.with_rank(outlet, dims.len())?;
        if &*self.dims(outlet)? == dims {
            return Ok(outlet);
        }
        let op = tract_core::ops::array::MultiBroadcastTo {
            shape: dims.iter().cloned().collect::<TVec<TDim>>().into(),
        };
        self.one(op, &[outlet])
    }
}

/// The first of the inputs or outputs of an operator.
pub(super) fn first(outlets: &[OutletId]) -> One {
    input(outlets, 0)
}

/// An input by position.
pub(super) fn input(outlets: &[OutletId], position: usize) -> One {
    outlets.get(position).copied().ok_or_else(|| invalid(format!("input {position} is missing")))
}

/// The first two inputs.
pub(super) fn two(outlets: &[OutletId]) -> Result<(OutletId, OutletId), WiringError> {
    Ok((input(outlets, 0)?, input(outlets, 1)?))
}

/// An error where a size that is known is below zero.
pub(super) fn not_negative(dims: &[TDim]) -> Result<(), WiringError> {
    match dims.iter().filter_map(|d| d.as_i64()).find(|d| *d < 0) {
        Some(size) => Err(invalid(format!("expected sizes from 0, found {size}"))),
        None => Ok(()),
    }
}

pub(super) fn invalid(reason: impl Into<String>) -> WiringError {
    WiringError::Invalid(reason.into())
}

/// An axis counted from the front; a negative one counts from the end.
pub(super) fn axis_of(axis: i64, rank: usize) -> Result<usize, WiringError> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let counted = if axis < 0 { axis.saturating_add(signed) } else { axis };
    usize::try_from(counted)
        .ok()
        .filter(|a| *a < rank)
        .ok_or_else(|| invalid(format!("there is no axis {axis} of {rank}")))
}
