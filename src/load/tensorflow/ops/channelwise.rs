//! What a factor or a summand for each channel does to a convolution: it goes into its kernel and bias.

use super::super::api::{DatumType, EngineTensor, OutletId, tensor1, tract_core, tract_ndarray};
use super::WiringError;
use super::wiring::Wiring;
use tract_core::ops::cnn::{Conv, KernelFormat};

/// What is done to each channel.
#[derive(Clone, Copy, PartialEq)]
pub(super) enum Each {
    Factor,
    Summand,
}

impl Wiring<'_> {
    /// The convolution with what is done to its channels; `None` where it is not one that nothing else
    /// reads, or the operand is not one number for each channel. The engine would do the same later,
    /// but not in every graph.
    pub(super) fn absorbed(
        &mut self,
        x: OutletId,
        operand: OutletId,
        each: Each,
    ) -> Result<Option<OutletId>, WiringError> {
        let node = self.model.node(x.node);
        let (Some(conv), [input, kernel, bias]) = (node.op_as::<Conv>().cloned(), node.inputs.as_slice())
        else {
            return Ok(None);
        };
        let (input, kernel, bias) = (*input, *kernel, *bias);
        let (channels, group) = (conv.pool_spec.output_channels, conv.group);
        let is_plain = conv.q_params.is_none() && conv.kernel_fmt == KernelFormat::HWIO;
        let dims = self.dims(x)?;
        let axis = if conv.pool_spec.data_format == tract_core::ops::nn::DataFormat::NHWC {
            dims.len() - 1
        } else {
            1
        };
        let operand_dims = self.dims(operand)?;
        let Some(from_end) = dims.len().checked_sub(axis) else { return Ok(None) };
        let one_a_channel = operand_dims.iter().rev().enumerate().all(|(at, dim)| {
            dim.as_i64() == Some(if at + 1 == from_end { i64::try_from(channels).unwrap_or(0) } else { 1 })
        }) && operand_dims.len() >= from_end
            && operand_dims.len() <= dims.len();
        if !is_plain || !one_a_channel || !self.read_once.contains(&x) || self.datum(x)? != DatumType::F32 {
            return Ok(None);
        }
        let known = [kernel, bias, operand].map(|outlet| self.konst(outlet));
        let [Ok(weights), Ok(offsets), Ok(operand)] = known else { return Ok(None) };
        let operand = numbers(&operand)?;
        let before = numbers(&offsets)?;
        let offset = |channel: usize| before.get(channel).or_else(|| before.first()).copied().unwrap_or(0.0);
        let after: Vec<f32> = { operand.iter().enumerate() }
            .map(|(channel, value)| match each {
                Each::Factor => offset(channel) * value,
                Each::Summand => offset(channel) + value,
            })
            .collect();
        let kernel =
            if each == Each::Factor { self.tensor(scaled(&weights, &operand, group)?)? } else { kernel };
        let bias = self.tensor(tensor1(&after))?;
        let out = self.one(conv, &[input, kernel, bias])?;
        // What stands behind a convolution is often two steps.
        self.read_once.insert(out);
        Ok(Some(out))
    }
}

fn numbers(tensor: &EngineTensor) -> Result<Vec<f32>, WiringError> {
    Ok(tensor.try_as_plain_ram()?.as_slice::<f32>()?.to_vec())
}

/// A kernel of height, width, all inputs and the outputs of one group, times a factor for each output.
fn scaled(kernel: &EngineTensor, factors: &[f32], group: usize) -> Result<EngineTensor, WiringError> {
    let mut values = numbers(kernel)?;
    let [.., inputs, outputs] = kernel.shape() else { return Err(WiringError::Unsupported) };
    let of_group = (inputs / group.max(1)).max(1);
    for (row, weights) in values.chunks_mut((*outputs).max(1)).enumerate() {
        let first = row % inputs.max(&1) / of_group * outputs;
        let factors = factors.iter().skip(first);
        weights.iter_mut().zip(factors).for_each(|(weight, factor)| *weight *= factor);
    }
    let scaled = tract_ndarray::ArrayD::from_shape_vec(kernel.shape(), values);
    Ok(EngineTensor::from(scaled.map_err(|e| super::wiring::invalid(e.to_string()))?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_factor_goes_to_the_weights_of_its_own_output() {
        let kernel = |shape: &[usize]| {
            let ones = vec![1.0_f32; shape.iter().product()];
            EngineTensor::from(tract_ndarray::ArrayD::from_shape_vec(shape, ones).unwrap())
        };
        let scale = |shape: &[usize], factors: &[f32], group| {
            numbers(&scaled(&kernel(shape), factors, group).unwrap()).unwrap()
        };
        assert_eq!(scale(&[1, 1, 2, 2], &[2.0, 3.0], 1), [2.0, 3.0, 2.0, 3.0]);
        // Two groups of one input and two outputs each.
        assert_eq!(scale(&[1, 1, 2, 2], &[2.0, 3.0, 4.0, 5.0], 2), [2.0, 3.0, 4.0, 5.0]);
        assert_eq!(scale(&[2, 1, 2, 1], &[2.0, 3.0], 2), [2.0, 3.0, 2.0, 3.0]);
    }
}
