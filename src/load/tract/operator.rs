//! Our kernels as operators of tract: one adapter for all of them.
#![allow(clippy::wildcard_imports, reason = "tract is used by its prelude")]

use std::sync::Arc;

use smallvec::{SmallVec, smallvec};

use super::api::tract_core::ops::cast::cast;
use super::api::*;
use super::convert::{datum_type, element_type, from_engine_tensor, to_engine, view};

use crate::kernel::{Fact, FactDim, Kernel, RunContext};
use crate::tensor::Tensor as Ours;

/// A kernel in a tract graph.
#[derive(Clone, Debug)]
pub(in crate::load) struct KernelOp {
    kernel: Arc<dyn Kernel>,
    name: Arc<str>,
    /// For each input of the node, whether it is there; tract is given those that are.
    present: SmallVec<[bool; 4]>,
    outputs: usize,
    max_tensor_bytes: u64,
    /// Where the sizes that are known only after a run get their symbols.
    symbols: SymbolScope,
}

impl KernelOp {
    pub(in crate::load) fn new(
        kernel: Arc<dyn Kernel>,
        name: &str,
        inputs: &[String],
        outputs: &[String],
        max_tensor_bytes: u64,
        symbols: &SymbolScope,
    ) -> Self {
        Self {
            kernel,
            name: name.into(),
            present: inputs.iter().map(|name| !name.is_empty()).collect(),
            outputs: outputs.len(),
            max_tensor_bytes,
            symbols: symbols.clone(),
        }
    }

    /// Types and shapes of the outputs, from those of the inputs that are there.
    fn output_types(&self, inputs: &[(DatumType, TVec<TDim>)]) -> TractResult<TVec<(DatumType, TVec<TDim>)>> {
        let mut given = inputs.iter();
        let facts: Vec<Option<Fact>> = self
            .present
            .iter()
            .map(|present| {
                let Some((datum, dims)) = present.then(|| given.next()).flatten() else { return Ok(None) };
                let element = element_type(*datum).with_context(|| format!("{datum:?} is not supported"))?;
                let dim = |d: &TDim| d.to_usize().map_or(FactDim::Unknown, FactDim::Fixed);
                Ok(Some(Fact { element, dims: Some(dims.iter().map(dim).collect()) }))
            })
            .collect::<TractResult<_>>()?;
        let known = self.kernel.facts(&facts).map_err(|e| format_err!("{e}"))?;
        ensure!(known.len() >= self.outputs, "{} tells the types of {} outputs", self.name, known.len());
        known
            .into_iter()
            .take(self.outputs)
            .enumerate()
            .map(|(output, fact)| {
                let dims = fact.dims.with_context(|| format!("{}: an output of unknown rank", self.name))?;
                let dims = dims.iter().enumerate().map(|(axis, dim)| match *dim {
                    FactDim::Fixed(n) => Ok(n.to_dim()),
                    FactDim::Like { input, axis } => self.dim_of(inputs, input, axis),
                    FactDim::Unknown => {
                        Ok(self.symbols.sym(&format!("{}_{output}_{axis}", self.name)).to_dim())
                    }
                });
                Ok((datum_type(fact.element), dims.collect::<TractResult<_>>()?))
            })
            .collect()
    }

    fn dim_of(&self, inputs: &[(DatumType, TVec<TDim>)], input: usize, axis: usize) -> TractResult<TDim> {
        let position = self.present.iter().take(input).filter(|present| **present).count();
        let dim = inputs.get(position).and_then(|(_, dims)| dims.get(axis));
        dim.cloned().with_context(|| format!("{}: no axis {axis} of input {input}", self.name))
    }
}

/// Kernels are compared by identity; two nodes never share one.
impl PartialEq for KernelOp {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.kernel, &other.kernel)
    }
}

impl Eq for KernelOp {}

impl Op for KernelOp {
    fn name(&self) -> StaticName {
        "Kernel".into()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        Ok(vec![self.name.to_string()])
    }

    fn mints_runtime_symbols(&self) -> bool {
        true
    }

    op_as_typed_op!();
}

impl EvalOp for KernelOp {
    op_out_of_plan!();

    fn eval(&self, _context: &EvalContext, inputs: TVec<TValue>) -> TractResult<TVec<TValue>> {
        // What tract holds in a type of its own is converted, all else is read where it lies.
        let mut converted: SmallVec<[Option<Ours>; 4]> = SmallVec::new();
        for value in &inputs {
            converted.push(match view(value) {
                Some(_) => None,
                None => {
                    let mut tensor = Ours::default();
                    from_engine_tensor(value, &mut tensor)?;
                    Some(tensor)
                }
            });
        }
        let mut given = inputs.iter().zip(&converted).map(|(value, converted)| match converted {
            Some(tensor) => Some(tensor.view()),
            None => view(value),
        });
        let arguments: SmallVec<[_; 4]> =
            self.present.iter().map(|present| if *present { given.next().flatten() } else { None }).collect();
        let mut outputs: SmallVec<[Ours; 2]> = smallvec![Ours::default(); self.outputs];
        let context = RunContext::new(self.max_tensor_bytes);
        self.kernel.run(&arguments, &mut outputs, &context)?;
        outputs.iter().map(|tensor| Ok(to_engine(tensor.view())?.into_tvalue())).collect()
    }
}

impl TypedOp for KernelOp {
    fn output_facts(&self, inputs: &[&TypedFact]) -> TractResult<TVec<TypedFact>> {
        let inputs: Vec<_> = inputs.iter().map(|fact| (fact.datum_type, fact.shape.to_tvec())).collect();
        let types = self.output_types(&inputs)?;
        Ok(types.into_iter().map(|(datum, dims)| datum.fact(&*dims)).collect())
    }

    as_op!();
}

/// The adapter as tract's shape inference sees it.
impl Expansion for KernelOp {
    fn name(&self) -> StaticName {
        "Kernel".into()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        Ok(self.outputs)
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        solver: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        solver.given_all(inputs.iter().map(|i| &i.datum_type), move |solver, datums: Vec<DatumType>| {
            solver.given_all(inputs.iter().map(|i| &i.shape), move |solver, shapes: Vec<TVec<TDim>>| {
                let inputs: Vec<_> = datums.iter().copied().zip(shapes).collect();
                for (output, (datum, dims)) in outputs.iter().zip(self.output_types(&inputs)?) {
                    solver.equals(&output.datum_type, datum)?;
                    solver.equals(&output.shape, ShapeFactoid::from(dims))?;
                }
                Ok(())
            })
        })
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        let mut wired: TVec<OutletId> = tvec!();
        for (index, input) in inputs.iter().enumerate() {
            // Shape values are integers to everybody but tract.
            let input = match model.outlet_fact(*input)?.datum_type {
                DatumType::TDim => model
                    .wire_node(format!("{prefix}.input{index}"), cast(i64::datum_type()), &[*input])?
                    .first()
                    .copied()
                    .unwrap_or(*input),
                _ => *input,
            };
            wired.push(input);
        }
        model.wire_node(prefix, self.clone(), &wired)
    }
}
