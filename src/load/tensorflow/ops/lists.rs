//! Lists of tensors: what loops read and write.
//!
//! A list is stated as a tensor, its elements along the first axis.

use std::collections::HashMap;

use super::super::api::{DatumType, EngineTensor, OutletId, TDim, tract_core, tract_ndarray, tvec};
use super::wiring::{Wiring, first, input, invalid};
use super::{Handler, WiringError};
use tract_core::ops::array;

/// The lists of a network: those that are tensors, and those that nothing is in yet, with the number
/// of their elements.
#[derive(Default)]
pub(super) struct Lists {
    pub(super) stacked: std::collections::HashSet<OutletId>,
    pub(super) reserved: HashMap<OutletId, Option<TDim>>,
}

pub(super) fn handler(op: &str) -> Option<Handler> {
    Some(match op {
        "TensorListFromTensor" => |w, _, i| {
            let list = w.plain(first(i)?)?;
            w.lists.stacked.insert(list);
            Ok(tvec!(list))
        },
        "TensorListReserve" | "EmptyTensorList" => |w, n, i| {
            let size = if n.op == "EmptyTensorList" {
                None
            } else {
                Some(w.konst_dims(input(i, 1)?)?.first().cloned().unwrap_or_default())
            };
            // Of a value of its own: the engine keeps equal constants once.
            let name = format!("list {}", w.lists.reserved.len());
            let list = w.tensor(EngineTensor::from(tract_ndarray::arr0(name).into_dyn()))?;
            w.lists.reserved.insert(list, size);
            Ok(tvec!(list))
        },
        "TensorListSetItem" | "TensorListPushBack" => {
            |_, _, _| Err(invalid("fills a list outside a loop, or in one that does not count its turns"))
        }
        "TensorListStack" => |w, _, i| Ok(tvec!(stacked(w, first(i)?)?)),
        "TensorListLength" => |w, _, i| {
            let list = stacked(w, first(i)?)?;
            let length = w.dim(list, 0)?;
            Ok(tvec!(w.number(length)?))
        },
        "TensorListGetItem" => |w, _, i| {
            let list = stacked(w, first(i)?)?;
            let place = w.plain(input(i, 1)?)?;
            let place = w.cast(place, DatumType::I64)?;
            Ok(tvec!(w.one(array::Gather { axis: 0, output_type: None }, &[list, place])?))
        },
        _ => return None,
    })
}

pub(super) fn stacked(w: &Wiring<'_>, list: OutletId) -> Result<OutletId, WiringError> {
    if w.lists.stacked.contains(&list) {
        return Ok(list);
    }
    Err(invalid("reads a list that is filled in a way that is not supported"))
}
