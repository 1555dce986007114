//! Convolutions and poolings against their definition.

use super::*;
use crate::kernel::{Attribute, Attributes, RunContext};
use crate::tensor::Tensor;

/// What is tried: sizes, and the attributes of the window.
#[derive(Clone, Debug)]
struct Case {
    images: usize,
    channels: usize,
    columns: usize,
    groups: usize,
    input: Vec<usize>,
    kernel: Vec<usize>,
    strides: Vec<usize>,
    dilations: Vec<usize>,
    pads: Vec<usize>,
}

impl Case {
    fn new(channels: usize, columns: usize, input: &[usize], kernel: &[usize]) -> Self {
        let rank = input.len();
        Self {
            images: 2,
            channels,
            columns,
            groups: 1,
            input: input.to_vec(),
            kernel: kernel.to_vec(),
            strides: vec![1; rank],
            dilations: vec![1; rank],
            pads: vec![0; 2 * rank],
        }
    }

    fn attributes(&self) -> Attributes {
        let ints = |values: &[usize]| Attribute::Ints(values.iter().map(|v| *v as i64).collect());
        let mut attributes = Attributes::default();
        attributes.insert("kernel_shape", ints(&self.kernel));
        attributes.insert("strides", ints(&self.strides));
        attributes.insert("dilations", ints(&self.dilations));
        attributes.insert("pads", ints(&self.pads));
        attributes.insert("group", Attribute::Int(self.groups as i64));
        attributes
    }

    fn outputs(&self) -> Vec<usize> {
        let rank = self.input.len();
        let output = |a: usize| {
            let reach = (self.kernel[a] - 1) * self.dilations[a] + 1;
            (self.input[a] + self.pads[a] + self.pads[a + rank] - reach) / self.strides[a] + 1
        };
        (0..rank).map(output).collect()
    }

    /// The element that a tap sees at a place, as an index into a plane.
    fn seen(&self, place: &[usize], tap: &[usize]) -> Option<usize> {
        let mut at = 0;
        for a in 0..self.input.len() {
            let position =
                (place[a] * self.strides[a] + tap[a] * self.dilations[a]) as i64 - self.pads[a] as i64;
            let position = usize::try_from(position).ok().filter(|p| *p < self.input[a])?;
            at = at * self.input[a] + position;
        }
        Some(at)
    }
}

/// All positions of a grid.
fn positions(sizes: &[usize]) -> Vec<Vec<usize>> {
    sizes.iter().fold(vec![Vec::new()], |all, size| {
        let next = |p: &Vec<usize>| (0..*size).map(|i| [p.as_slice(), &[i]].concat()).collect::<Vec<_>>();
        all.iter().flat_map(next).collect()
    })
}

fn value(index: usize) -> f32 {
    ((index * 37 + 11) % 23) as f32 * 0.125 - 1.25
}

fn values(count: usize) -> Vec<f32> {
    (0..count).map(value).collect()
}

fn convolved(case: &Case, x: &[f32], weights: &[f32], bias: &[f32]) -> Vec<f64> {
    let (taps, places) = (positions(&case.kernel), positions(&case.outputs()));
    let plane: usize = case.input.iter().product();
    let depth = case.channels / case.groups;
    let mut out = Vec::new();
    for image in 0..case.images {
        for column in 0..case.columns {
            let group = column / (case.columns / case.groups);
            for place in &places {
                let mut sum = f64::from(bias[column]);
                for channel in 0..depth {
                    for (t, tap) in taps.iter().enumerate() {
                        let Some(at) = case.seen(place, tap) else { continue };
                        let x = x[(image * case.channels + group * depth + channel) * plane + at];
                        sum += f64::from(x) * f64::from(weights[(column * depth + channel) * taps.len() + t]);
                    }
                }
                out.push(sum);
            }
        }
    }
    out
}

fn node<'a>(
    operator: &'a str,
    attributes: &'a Attributes,
    inputs: &'a [Option<Option<&'a Tensor>>],
) -> Node<'a> {
    Node { operator, domain: "", version: 17, attributes, inputs, outputs: 1 }
}

fn cases() -> Vec<Case> {
    let wide = Case::new(5, 19, &[7, 9], &[3, 2]);
    vec![
        Case::new(1, 16, &[8, 8], &[3, 3]),
        Case::new(16, 32, &[6, 5], &[3, 3]),
        // Tile by tile: odd sizes, channels and columns that fill no register, many tiles, large weights.
        Case { pads: vec![1; 4], ..Case::new(16, 17, &[5, 6], &[3, 3]) },
        Case { pads: vec![0, 1, 2, 0], ..Case::new(21, 40, &[9, 12], &[3, 3]) },
        Case { images: 1, ..Case::new(96, 96, &[5, 40], &[3, 3]) },
        Case::new(17, 33, &[3, 3], &[3, 3]),
        Case { pads: vec![1, 0, 2, 1], ..wide.clone() },
        Case { strides: vec![2, 3], pads: vec![1, 1, 1, 1], ..wide.clone() },
        Case { dilations: vec![2, 3], pads: vec![2, 3, 0, 1], ..wide },
        Case { groups: 3, ..Case::new(6, 9, &[5, 5], &[3, 3]) },
        Case { groups: 20, pads: vec![1; 4], strides: vec![2, 2], ..Case::new(20, 20, &[9, 7], &[3, 3]) },
        Case { groups: 4, ..Case::new(4, 8, &[4, 4], &[2, 2]) },
        Case { pads: vec![2, 1], ..Case::new(3, 40, &[11], &[4]) },
        Case::new(4, 3, &[5], &[1]),
        Case { pads: vec![1; 6], strides: vec![1, 2, 1], ..Case::new(2, 5, &[3, 5, 4], &[2, 3, 3]) },
        Case { strides: vec![2, 2], ..Case::new(33, 65, &[4, 4], &[1, 1]) },
        Case::new(3, 70, &[4, 4], &[4, 4]),
        Case { strides: vec![4, 4], ..Case::new(3, 8, &[9, 9], &[2, 2]) },
    ]
}

fn close(got: &Tensor, want: &[f64], what: &str) {
    let got = got.values::<f32>().unwrap();
    assert_eq!(got.len(), want.len(), "{what}");
    for (i, (got, want)) in got.iter().zip(want).enumerate() {
        assert!((f64::from(*got) - want).abs() < 1e-3, "{what}: {i}: {got} {want}");
    }
}

#[test]
fn a_convolution_of_any_form_is_the_plain_sum_of_products() {
    for case in cases() {
        let taps: usize = case.kernel.iter().product();
        let plane: usize = case.input.iter().product();
        let depth = case.channels / case.groups;
        let x = values(case.images * case.channels * plane);
        let (weights, bias) = (values(case.columns * depth * taps), values(case.columns));
        let want = convolved(&case, &x, &weights, &bias);
        let dims = |first: usize, second: usize, rest: &[usize]| [&[first, second], rest].concat();
        let x = Tensor::new(&dims(case.images, case.channels, &case.input), x).unwrap();
        let weights = Tensor::new(&dims(case.columns, depth, &case.kernel), weights).unwrap();
        let bias = Tensor::vector(bias);
        let attributes = case.attributes();
        let run = |inputs: &[Option<Option<&Tensor>>]| {
            let kernel = build("Conv", &node("Conv", &attributes, inputs)).unwrap();
            let mut out = [Tensor::default()];
            let given = [Some(x.view()), Some(weights.view()), Some(bias.view())];
            kernel.run(&given, &mut out, &RunContext::default()).unwrap();
            let [out] = out;
            out
        };
        let constant = run(&[Some(None), Some(Some(&weights)), Some(Some(&bias))]);
        assert_eq!(constant.dims(), dims(case.images, case.columns, &case.outputs()));
        close(&constant, &want, &format!("{case:?}"));
        close(&run(&[Some(None), Some(None), Some(None)]), &want, &format!("weights that come: {case:?}"));
    }
}

#[test]
fn a_convolution_of_doubles_is_one_of_doubles() {
    let case = Case { pads: vec![1, 0, 0, 1], ..Case::new(2, 3, &[4, 3], &[2, 2]) };
    let (x, weights, bias) = (values(48), values(24), values(3));
    let want = convolved(&case, &x, &weights, &bias);
    let double = |values: &[f32]| values.iter().map(|v| f64::from(*v)).collect::<Vec<f64>>();
    let x = Tensor::new(&[2, 2, 4, 3], double(&x)).unwrap();
    let weights = Tensor::new(&[3, 2, 2, 2], double(&weights)).unwrap();
    let bias = Tensor::vector(double(&bias));
    let (attributes, inputs) = (case.attributes(), [Some(None), Some(Some(&weights)), Some(Some(&bias))]);
    let kernel = build("Conv", &node("Conv", &attributes, &inputs)).unwrap();
    let mut out = [Tensor::default()];
    let given = [Some(x.view()), Some(weights.view()), Some(bias.view())];
    kernel.run(&given, &mut out, &RunContext::default()).unwrap();
    for (got, want) in out[0].values::<f64>().unwrap().iter().zip(&want) {
        assert!((got - want).abs() < 1e-12);
    }
}

fn pooled(case: &Case, x: &[f32], of: impl Fn(&[f32], usize) -> f32) -> Vec<f64> {
    let (taps, places) = (positions(&case.kernel), positions(&case.outputs()));
    let plane: usize = case.input.iter().product();
    let mut out = Vec::new();
    for x in x.chunks_exact(plane) {
        for place in &places {
            let seen: Vec<f32> = taps.iter().filter_map(|tap| Some(x[case.seen(place, tap)?])).collect();
            out.push(f64::from(of(&seen, taps.len())));
        }
    }
    out
}

#[test]
fn poolings_see_what_their_window_sees() {
    let cases = [
        Case { strides: vec![2, 2], ..Case::new(18, 18, &[6, 5], &[2, 2]) },
        Case { pads: vec![1, 1, 1, 1], strides: vec![2, 2], ..Case::new(3, 3, &[7, 7], &[3, 3]) },
        Case { dilations: vec![2], ..Case::new(1, 1, &[9], &[3]) },
        Case { pads: vec![0, 1, 0, 0, 0, 1], ..Case::new(2, 2, &[3, 4, 3], &[2, 2, 2]) },
    ];
    for case in cases {
        let plane: usize = case.input.iter().product();
        let x = values(case.images * case.channels * plane);
        let mean = |seen: &[f32], taps: usize| seen.iter().sum::<f32>() / taps as f32;
        let wants = [
            ("MaxPool", 0, pooled(&case, &x, |seen, _| seen.iter().copied().fold(f32::MIN, f32::max))),
            ("AveragePool", 0, pooled(&case, &x, |seen, _| mean(seen, seen.len()))),
            ("AveragePool", 1, pooled(&case, &x, mean)),
        ];
        let dims = [&[case.images, case.channels], case.input.as_slice()].concat();
        let x = Tensor::new(&dims, x).unwrap();
        for (operator, with_borders, want) in wants {
            let mut attributes = case.attributes();
            attributes.insert("count_include_pad", Attribute::Int(with_borders));
            let kernel = build(operator, &node(operator, &attributes, &[Some(None)])).unwrap();
            let mut out = [Tensor::default()];
            kernel.run(&[Some(x.view())], &mut out, &RunContext::default()).unwrap();
            close(&out[0], &want, &format!("{operator} {case:?}"));
        }
    }
}

#[test]
fn the_largest_of_numbers_and_nan_is_nan_and_is_found_where_it_is() {
    let case = Case { strides: vec![2], ..Case::new(1, 1, &[4], &[2]) };
    let x = Tensor::new(&[1, 1, 4], vec![f32::NAN, 9.0, 3.0, 4.0]).unwrap();
    let attributes = case.attributes();
    let run = |outputs: usize| {
        let kernel =
            build("MaxPool", &Node { outputs, ..node("MaxPool", &attributes, &[Some(None)]) }).unwrap();
        let mut out = vec![Tensor::default(); outputs];
        kernel.run(&[Some(x.view())], &mut out, &RunContext::default()).unwrap();
        out
    };
    for outputs in [1, 2] {
        let out = run(outputs);
        let largest = out[0].values::<f32>().unwrap();
        assert!(largest[0].is_nan() && largest[1] == 4.0, "{largest:?}");
    }
    assert_eq!(run(2)[1].values::<i64>(), Some(&[0_i64, 3][..]));
}

#[test]
fn global_poolings_see_all_of_a_plane() {
    let x = Tensor::new(&[1, 2, 1, 3], vec![1.0_f32, 2.0, 6.0, -1.0, -2.0, -6.0]).unwrap();
    for (operator, want) in [("GlobalAveragePool", [3.0, -3.0]), ("GlobalMaxPool", [6.0, -1.0])] {
        let attributes = Attributes::default();
        let kernel = build(operator, &node(operator, &attributes, &[Some(None)])).unwrap();
        let mut out = [Tensor::default()];
        kernel.run(&[Some(x.view())], &mut out, &RunContext::default()).unwrap();
        assert_eq!((out[0].dims(), out[0].values::<f32>().unwrap()), (&[1, 2, 1, 1][..], &want[..]));
    }
}

#[test]
fn an_image_that_is_too_small_or_of_other_channels_is_an_error() {
    let case = Case::new(2, 3, &[4, 4], &[3, 3]);
    let weights = Tensor::new(&[3, 2, 3, 3], values(54)).unwrap();
    let (attributes, inputs) = (case.attributes(), [Some(None), Some(Some(&weights))]);
    let kernel = build("Conv", &node("Conv", &attributes, &inputs)).unwrap();
    for dims in [[1, 2, 2, 4], [1, 3, 4, 4]] {
        let x = Tensor::new(&dims, values(dims.iter().product())).unwrap();
        assert!(kernel.run(&[Some(x.view())], &mut [Tensor::default()], &RunContext::default()).is_err());
    }
}
