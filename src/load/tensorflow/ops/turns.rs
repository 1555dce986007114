//! Loops that end by what they compute.

use super::super::api::{DatumType, IntoRunnable, OutletId, TValue, TVec, TypedFact, TypedModel, bail};
use super::super::graph::{Graph, Loop};
use super::computed::Computed;
use super::state;
use super::wiring::{Wired, Wiring, first, invalid};

/// A loop that has not ended after so many turns never will.
const MAX_TURNS: i64 = 1 << 14;

/// States a loop by running its two graphs in turn. Its states keep their shapes.
pub(super) fn wire(w: &mut Wiring<'_>, repeat: &Loop, inputs: &[OutletId]) -> Wired {
    let mut given: TVec<OutletId> = TVec::new();
    for outlet in inputs {
        given.push(w.plain(*outlet)?);
    }
    let facts: TVec<TypedFact> = given
        .iter()
        .map(|outlet| Ok(TypedFact::dt_shape(w.datum(*outlet)?, &*w.dims(*outlet)?)))
        .collect::<Result<_, super::WiringError>>()?;
    let states: TVec<TypedFact> = facts.iter().take(repeat.states).cloned().collect();
    let bool_fact = TypedFact::dt_shape(DatumType::Bool, TVec::<super::super::api::TDim>::new());
    let limit = MAX_TURNS.min(w.turns);
    let lists: Vec<bool> = inputs.iter().map(|outlet| w.lists.stacked.contains(outlet)).collect();
    let condition = part(w, &repeat.condition, &facts, &lists, &[bool_fact])?.into_runnable()?;
    let body = part(w, &repeat.body, &facts, &lists, &states)?.into_runnable()?;
    let count = repeat.states;
    let op = Computed::new(
        "While",
        move |_| Ok(states.clone()),
        move |values| {
            let (mut condition, mut body) = (condition.spawn()?, body.spawn()?);
            let mut values: TVec<TValue> = values.into();
            for _ in 0..limit {
                let due = condition.run(values.clone())?;
                let Some(due) = due.first() else { bail!("a loop without a condition") };
                if !due.cast_to_scalar::<bool>()? {
                    return Ok(values.into_iter().take(count).collect());
                }
                let next = body.run(values.clone())?;
                for (value, next) in values.iter_mut().zip(next) {
                    *value = next;
                }
            }
            bail!("a loop that does not end within {limit} turns")
        },
    );
    w.all(op, &given)
}

/// One of the graphs of the loop, its outputs of these types and shapes.
fn part(
    w: &Wiring<'_>,
    graph: &Graph,
    inputs: &[TypedFact],
    lists: &[bool],
    outputs: &[TypedFact],
) -> Result<TypedModel, super::WiringError> {
    let mut model = TypedModel { symbols: w.model.symbols.clone(), ..TypedModel::default() };
    let mut inner = Wiring::new(&mut model, w.budget());
    inner.turns = w.turns / MAX_TURNS.min(w.turns).max(1);
    let mut sources = Vec::with_capacity(inputs.len());
    for (position, fact) in inputs.iter().enumerate() {
        let source = inner.source(format!("input.{position}"), fact.clone())?;
        if lists.get(position) == Some(&true) {
            inner.lists.stacked.insert(source);
        }
        sources.push(source);
    }
    let mut results = Vec::with_capacity(outputs.len());
    for (outlet, fact) in state(&mut inner, graph, &sources)?.iter().zip(outputs) {
        let outlet = inner.plain(*outlet)?;
        let outlet = inner.cast(outlet, fact.datum_type)?;
        let outlet = inner.broadcast_to(outlet, &fact.shape.to_tvec())?;
        if inner.fact(outlet)?.shape != fact.shape {
            return Err(invalid("a state of the loop has another shape after each turn"));
        }
        results.push(outlet);
    }
    first(&results)?;
    model.set_input_outlets(&sources)?;
    model.select_output_outlets(&results)?;
    Ok(model.into_decluttered()?)
}
