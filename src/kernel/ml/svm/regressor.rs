//! `SVMRegressor`: a regression, or the outlier test of a one-class machine.

use smallvec::{SmallVec, smallvec};

use super::function::{Function, SupportVectors};
use crate::kernel::ml::affine::Affine;
use crate::kernel::ml::common::{Number, first_fact, input, matrix_fact, rows_of_width, with_numbers};
use crate::kernel::transform::PostTransform;
use crate::kernel::{Attributes, BuildError, Fact, FactDim, Kernel, PerThread, RunContext};
use crate::load::RunError;
use crate::tensor::{DataView, ElementType, Tensor, TensorView};

const OPERATOR: &str = "SVMRegressor";

/// f32 values `[n, 1]`; of a one-class machine 1 for an inlier and -1 for an outlier. A NaN feature
/// makes the value of its row NaN, of a one-class machine too.
#[derive(Debug)]
pub(in crate::kernel::ml) struct SvmRegressor {
    machine: Machine,
    one_class: bool,
    transform: PostTransform,
}

#[derive(Debug)]
enum Machine {
    Linear(Affine),
    Vectors {
        vectors: SupportVectors,
        coefficients: Vec<f32>,
        rho: f64,
        /// How alike a row and each vector are.
        kernels: Box<PerThread<Vec<f32>>>,
    },
}

impl SvmRegressor {
    pub(in crate::kernel::ml) fn new(attributes: &Attributes) -> Result<Self, BuildError> {
        let coefficients = attributes.floats("coefficients")?;
        let rho = match *attributes.floats("rho")? {
            [] => 0.0,
            [rho, ..] => rho,
        };
        let count = attributes.int("n_supports")?.unwrap_or(0);
        let count = usize::try_from(count).map_err(|_| {
            BuildError::invalid(format!("attribute `n_supports`: expected a count, found {count}"))
        })?;
        let machine = if count == 0 {
            Machine::Linear(Affine::new(coefficients, 1, &[rho])?)
        } else {
            let function = Function::from_attributes(attributes)?;
            let vectors = SupportVectors::new(function, attributes.floats("support_vectors")?, count)?;
            if coefficients.len() != count {
                return Err(BuildError::invalid(format!(
                    "attribute `coefficients`: expected {count} values, found {}",
                    coefficients.len()
                )));
            }
            Machine::Vectors {
                vectors,
                coefficients: coefficients.to_vec(),
                rho: rho.into(),
                kernels: Box::default(),
            }
        };
        Ok(Self {
            machine,
            one_class: attributes.int("one_class")?.unwrap_or(0) != 0,
            transform: PostTransform::from_attributes(attributes)?,
        })
    }

    fn features(&self) -> usize {
        match &self.machine {
            Machine::Linear(affine) => affine.features(),
            Machine::Vectors { vectors, .. } => vectors.features(),
        }
    }

    fn values<T: Number>(&self, values: &[T], out: &mut [f32]) {
        match &self.machine {
            Machine::Linear(affine) => match T::view(values) {
                DataView::F32(values) => affine.apply_f32(values, out),
                _ => affine.apply(values, out),
            },
            Machine::Vectors { vectors, coefficients, rho, kernels } => kernels.with(
                || vec![0.0; vectors.count()],
                |kernels| {
                    for (out, row) in out.iter_mut().zip(values.chunks_exact(vectors.features())) {
                        match T::view(row) {
                            DataView::F32(row) => vectors.compare(row, kernels),
                            _ => vectors.compare_wide(row, kernels),
                        }
                        let terms = coefficients.iter().zip(&*kernels);
                        *out =
                            (terms.map(|(c, k)| f64::from(*c) * f64::from(*k)).sum::<f64>() + rho).to_f32();
                    }
                },
            ),
        }
    }
}

impl Kernel for SvmRegressor {
    fn run(
        &self,
        inputs: &[Option<TensorView<'_>>],
        outputs: &mut [Tensor],
        cx: &RunContext,
    ) -> Result<(), RunError> {
        let x = input(inputs, 0, OPERATOR)?;
        let rows = rows_of_width(x.shape(), self.features(), OPERATOR)?;
        let Some(out) = outputs.first_mut() else { return Ok(()) };
        let out = cx.reset::<f32>(out, &[rows, 1])?;
        with_numbers!(x, OPERATOR, values => {
            self.values(values, out);
            Ok(())
        })?;
        if self.one_class {
            for value in out {
                if !value.is_nan() {
                    *value = if *value > 0.0 { 1.0 } else { -1.0 };
                }
            }
        } else {
            self.transform.apply(out, 1);
        }
        Ok(())
    }

    fn facts(&self, inputs: &[Option<Fact>]) -> Result<SmallVec<[Fact; 2]>, BuildError> {
        first_fact(inputs)?;
        Ok(smallvec![matrix_fact(inputs, ElementType::F32, FactDim::Fixed(1))])
    }

    fn memory(&self) -> usize {
        match &self.machine {
            Machine::Linear(affine) => affine.memory(),
            Machine::Vectors { vectors, coefficients, .. } => {
                vectors.memory() + size_of_val(coefficients.as_slice())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::Attribute;
    use crate::kernel::ml::common::testing::{build, close, floats, one, text};

    const NAN: f32 = f32::NAN;

    fn x() -> Tensor {
        Tensor::new(&[4, 2], vec![1.0_f32, 2.0, -1.0, 0.5, 0.2, 0.1, NAN, 1.0]).unwrap()
    }

    fn settings(kernel: &str, one_class: i64) -> Vec<(&'static str, Attribute)> {
        vec![
            ("kernel_type", text(kernel)),
            ("kernel_params", floats(&[0.5, 0.3, 2.0])),
            ("coefficients", floats(&[0.5, -1.0])),
            ("support_vectors", floats(&[1.0, 0.0, 0.0, 1.0])),
            ("n_supports", Attribute::Int(2)),
            ("rho", floats(&[0.1])),
            ("one_class", Attribute::Int(one_class)),
        ]
    }

    /// The expected numbers are onnxruntime 1.32's, but for the NaN of one-class machines.
    #[test]
    fn every_kernel_function_regresses_and_tests() {
        let cases = [
            ("LINEAR", [-1.4, -0.9, 0.1], [-1.0, -1.0, 1.0]),
            ("POLY", [-1.269_999_7, -0.182_5, 0.057_499_99], [-1.0, -1.0, 1.0]),
            ("RBF", [-0.200_211_82, -0.375_544_97, -0.192_506_13], [-1.0; 3]),
            ("SIGMOID", [-0.429_704_76, -0.499_207_88, -0.046_401_03], [-1.0; 3]),
        ];
        for (kernel, [a, b, c], [p, q, r]) in cases {
            close(&one("SVMRegressor", settings(kernel, 0), x()).unwrap(), &[4, 1], &[a, b, c, NAN]);
            close(&one("SVMRegressor", settings(kernel, 1), x()).unwrap(), &[4, 1], &[p, q, r, NAN]);
        }
    }

    #[test]
    fn without_vectors_the_machine_is_linear_whatever_its_kernel() {
        let settings = vec![
            ("coefficients", floats(&[0.5, 2.0])),
            ("rho", floats(&[0.1])),
            ("kernel_type", text("RBF")),
            ("kernel_params", floats(&[0.5, 0.3, 2.0])),
        ];
        close(&one("SVMRegressor", settings, x()).unwrap(), &[4, 1], &[4.6, 0.6, 0.4, NAN]);
    }

    #[test]
    fn integers_are_features_too_and_no_rows_give_no_rows() {
        let y = one("SVMRegressor", settings("LINEAR", 0), Tensor::new(&[1, 2], vec![1_i64, 2]).unwrap());
        close(&y.unwrap(), &[1, 1], &[-1.4]);
        let y = one("SVMRegressor", settings("RBF", 0), Tensor::new(&[0, 2], Vec::<f32>::new()).unwrap());
        close(&y.unwrap(), &[0, 1], &[]);
    }

    #[test]
    fn lengths_that_contradict_are_refused() {
        let mut short = settings("RBF", 0);
        short.push(("coefficients", floats(&[0.5])));
        let error = build("SVMRegressor", short).unwrap_err().to_string();
        assert_eq!(error, "attribute `coefficients`: expected 2 values, found 1");
        let mut negative = settings("RBF", 0);
        negative.push(("n_supports", Attribute::Int(-2)));
        assert!(build("SVMRegressor", negative).is_err());
    }

    #[test]
    fn a_row_of_another_width_is_refused() {
        let error = one("SVMRegressor", settings("RBF", 0), Tensor::column(vec![1.0_f32])).unwrap_err();
        assert_eq!(error.to_string(), "SVMRegressor expected 2 values a row, found 1");
    }
}
