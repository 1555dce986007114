//! The activation functions that the recurrent operators can be given.

use crate::kernel::standard::vector;
use crate::kernel::{Attributes, BuildError};

/// A function of each element.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Activation {
    Sigmoid,
    Tanh,
    Relu,
    Affine { alpha: f32, beta: f32 },
    LeakyRelu { alpha: f32 },
    ThresholdedRelu { alpha: f32 },
    ScaledTanh { alpha: f32, beta: f32 },
    HardSigmoid { alpha: f32, beta: f32 },
    Elu { alpha: f32 },
    Softsign,
    Softplus,
}

impl Activation {
    /// The activations of each direction: what the attributes say, or the operator's defaults.
    pub(super) fn read(
        attributes: &Attributes,
        defaults: &[Self],
        directions: usize,
    ) -> Result<Vec<[Self; 3]>, BuildError> {
        let names = attributes.strings("activations")?;
        let (mut alphas, mut betas) =
            (attributes.floats("activation_alpha")?.iter(), attributes.floats("activation_beta")?.iter());
        let each = defaults.len();
        if !names.is_empty() && names.len() != each * directions {
            return Err(BuildError::invalid(format!(
                "expected {} activations, found {}",
                each * directions,
                names.len()
            )));
        }
        (0..directions)
            .map(|direction| {
                let mut chosen = [Self::Tanh; 3];
                for (index, (slot, default)) in chosen.iter_mut().zip(defaults).enumerate() {
                    *slot = match names.get(direction * each + index) {
                        Some(name) => Self::parse(name, &mut alphas, &mut betas)?,
                        None => *default,
                    };
                }
                Ok(chosen)
            })
            .collect()
    }

    /// An activation takes as many parameters off the lists as it has.
    fn parse<'a>(
        name: &str,
        alphas: &mut impl Iterator<Item = &'a f32>,
        betas: &mut impl Iterator<Item = &'a f32>,
    ) -> Result<Self, BuildError> {
        let mut alpha = |default: f32| alphas.next().copied().unwrap_or(default);
        let mut beta = |default: f32| betas.next().copied().unwrap_or(default);
        Ok(match name.to_ascii_lowercase().as_str() {
            "sigmoid" => Self::Sigmoid,
            "tanh" => Self::Tanh,
            "relu" => Self::Relu,
            "affine" => Self::Affine { alpha: alpha(1.0), beta: beta(0.0) },
            "leakyrelu" => Self::LeakyRelu { alpha: alpha(0.01) },
            "thresholdedrelu" => Self::ThresholdedRelu { alpha: alpha(1.0) },
            "scaledtanh" => Self::ScaledTanh { alpha: alpha(1.0), beta: beta(1.0) },
            "hardsigmoid" => Self::HardSigmoid { alpha: alpha(0.2), beta: beta(0.5) },
            "elu" => Self::Elu { alpha: alpha(1.0) },
            "softsign" => Self::Softsign,
            "softplus" => Self::Softplus,
            _ => return Err(BuildError::invalid(format!("unknown activation `{name}`"))),
        })
    }

    /// Writes the function of each element of `from` to `to`. NaN stays NaN.
    pub(super) fn apply(self, from: &[f32], to: &mut [f32]) {
        match self {
            Self::Sigmoid => vector::sigmoid(from, to),
            Self::Tanh => vector::tanh(from, to),
            _ => {
                for (to, x) in to.iter_mut().zip(from) {
                    *to = self.of(*x);
                }
            }
        }
    }

    fn of(self, x: f32) -> f32 {
        // Comparisons are written so that NaN goes the way that keeps it.
        match self {
            Self::Sigmoid => vector::sigmoid_one(x),
            Self::Tanh => vector::tanh_one(x),
            Self::Relu => {
                if x < 0.0 {
                    0.0
                } else {
                    x
                }
            }
            Self::Affine { alpha, beta } => alpha * x + beta,
            Self::LeakyRelu { alpha } => {
                if x < 0.0 {
                    alpha * x
                } else {
                    x
                }
            }
            Self::ThresholdedRelu { alpha } => {
                if x < alpha {
                    0.0
                } else {
                    x
                }
            }
            Self::ScaledTanh { alpha, beta } => alpha * vector::tanh_one(beta * x),
            Self::HardSigmoid { alpha, beta } => {
                let y = alpha * x + beta;
                if y < 0.0 {
                    0.0
                } else if y > 1.0 {
                    1.0
                } else {
                    y
                }
            }
            Self::Elu { alpha } => {
                if x < 0.0 {
                    alpha * x.exp_m1()
                } else {
                    x
                }
            }
            Self::Softsign => x / (1.0 + x.abs()),
            Self::Softplus => {
                if x > 20.0 {
                    x
                } else {
                    x.exp().ln_1p()
                }
            }
        }
    }
}
