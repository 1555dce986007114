//! The windows of poolings and convolutions, checked before tract runs them: its loops over the taps
//! read and write without looking at bounds, so that a window of other dimensions than its image
//! ends the process.

use super::api::tract_core::ops::cnn::{Conv, Deconv, MaxPool, PaddingSpec, PoolSpec, SumPool};
use super::api::tract_core::ops::nn::DataFormat;
use super::api::tract_core::ops::scan::Scan;
use super::api::{TypedModel, TypedNode};
use crate::load::LoadError;

/// An error where a window has other dimensions than the image that it goes over.
pub(super) fn check(model: &TypedModel) -> Result<(), LoadError> {
    for node in model.nodes() {
        if let Some(scan) = node.op_as::<Scan>() {
            check(&scan.body)?;
        }
        let Some(window) = window(node) else { continue };
        let image = node.inputs.first().and_then(|input| model.outlet_fact(*input).ok());
        let axes = image.and_then(|image| image.rank().checked_sub(non_spatial(window.data_format)));
        let lists = [Some(window.kernel_shape.len()), window.strides.as_ref().map(|s| s.len())];
        let lists = lists.into_iter().chain([window.dilations.as_ref().map(|d| d.len())]);
        let wrong = lists.chain(borders(&window.padding)).flatten().find(|found| Some(*found) != axes);
        if let Some(found) = wrong.or(axes.filter(|axes| *axes == 0)) {
            return Err(LoadError::Engine(format!(
                "node `{}` ({}): expected a window and an image of as many dimensions, found {found} of the \
                 window and {} of the image",
                node.name,
                node.op.name(),
                axes.unwrap_or(0),
            )));
        }
    }
    Ok(())
}

fn window(node: &TypedNode) -> Option<&PoolSpec> {
    let conv = node.op_as::<Conv>().map(|op| &op.pool_spec);
    conv.or_else(|| node.op_as::<Deconv>().map(|op| &op.pool_spec))
        .or_else(|| node.op_as::<MaxPool>().map(|op| &op.pool_spec))
        .or_else(|| node.op_as::<SumPool>().map(|op| &op.pool_spec))
}

/// How many axes of the image are its number and its channels.
const fn non_spatial(format: DataFormat) -> usize {
    match format {
        DataFormat::NCHW | DataFormat::NHWC => 2,
        DataFormat::CHW | DataFormat::HWC => 1,
    }
}

/// How many borders are stated, before the image and behind it.
fn borders(padding: &PaddingSpec) -> [Option<usize>; 2] {
    match padding {
        PaddingSpec::Explicit(before, after) | PaddingSpec::ExplicitOnnxPool(before, after, _) => {
            [Some(before.len()), Some(after.len())]
        }
        PaddingSpec::Valid | PaddingSpec::SameUpper | PaddingSpec::SameLower => [None, None],
    }
}
