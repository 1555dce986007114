//! Lookup tables.

use std::collections::HashMap;
use std::hash::Hash;

use super::super::api::{
    Datum, DatumType, EngineTensor, IntoTValue, OutletId, TDim, TractResult, TypedFact, bail, f16, tvec,
};
use super::super::graph::Node;
use super::computed::Computed;
use super::wiring::{Wired, Wiring, first, input, invalid};
use super::{Handler, WiringError};

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        // Keys, values, what to look up, and the value for what is not there.
        "LookupTableFindV2" | "LookupTableFind" => find,
        _ => return None,
    })
}

fn find(w: &mut Wiring<'_>, _node: &Node, inputs: &[OutletId]) -> Wired {
    let (keys, values) = (w.konst(first(inputs)?)?, w.konst(input(inputs, 1)?)?);
    let (query, default) = (w.plain(input(inputs, 2)?)?, w.konst(input(inputs, 3)?)?);
    if keys.len() != values.len() {
        return Err(invalid(format!("the table has {} keys and {} values", keys.len(), values.len())));
    }
    let places = match (keys.datum_type(), w.datum(query)?) {
        (DatumType::String, DatumType::String) => places::<String>(&keys)?,
        (DatumType::I64 | DatumType::I32, DatumType::I64 | DatumType::I32) => places::<i64>(&keys)?,
        _ => return Err(WiringError::Unsupported),
    };
    let datum = values.datum_type();
    let op = Computed::new(
        "LookupTable",
        move |facts| Ok(facts.iter().map(|f| TypedFact::dt_shape(datum, f.shape.clone())).collect()),
        move |inputs| {
            let [query] = inputs else { bail!("one input expected") };
            let found = (places)(query)?;
            let picked =
                super::super::api::dispatch_datum!(pick(datum)(&values, &default, &found, query.shape()))?;
            Ok(tvec!(picked.into_tvalue()))
        },
    );
    Ok(tvec!(w.one(op, &[query])?))
}

/// Finds the place in the table of each element.
type Places = Box<dyn Fn(&EngineTensor) -> TractResult<Vec<Option<usize>>> + Send + Sync>;

fn places<K: Datum + Hash + Eq>(keys: &EngineTensor) -> Result<Places, WiringError> {
    let keys = keys.cast_to::<K>()?;
    let map: HashMap<K, usize> =
        keys.try_as_plain_ram()?.as_slice::<K>()?.iter().cloned().enumerate().map(|(i, k)| (k, i)).collect();
    Ok(Box::new(move |query| {
        let query = query.cast_to::<K>()?;
        let plain = query.try_as_plain_ram()?;
        Ok(plain.as_slice::<K>()?.iter().map(|k| map.get(k).copied()).collect())
    }))
}

fn pick<T: Datum>(
    values: &EngineTensor,
    default: &EngineTensor,
    places: &[Option<usize>],
    shape: &[usize],
) -> TractResult<EngineTensor> {
    let default = default.cast_to::<T>()?;
    let default = default.try_as_plain_ram()?.as_slice::<T>()?.first().cloned().unwrap_or_default();
    let plain = values.try_as_plain_ram()?;
    let values = plain.as_slice::<T>()?;
    let picked =
        places.iter().map(|p| p.and_then(|p| values.get(p).cloned()).unwrap_or_else(|| default.clone()));
    Ok(EngineTensor::from(super::super::api::tract_ndarray::ArrayD::from_shape_vec(shape, picked.collect())?))
}
