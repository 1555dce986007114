//! Models made on the spot: what files must not be able to do, and what NaN must not become.

use prost::Message;

use super::proto::{
    AttributeProto, Dimension, DimensionValue, GraphProto, ModelProto, NodeProto, OperatorSetId, TensorProto,
    TensorShape, TensorType, TypeProto, TypeValue, ValueInfoProto, attribute_type,
};
use crate::load::{Formats, LoadError, LoadOptions, Model, Payload};
use crate::tensor::Tensor;
use std::sync::Arc;

/// A graph in the making: an input `x` of `[N, 4]`, an output `y`.
#[derive(Clone, Default)]
struct Sketch {
    graph: GraphProto,
}

fn sketch() -> Sketch {
    let input = value("x", 1, Some(&[None, Some(4)]));
    Sketch {
        graph: GraphProto { input: vec![input], output: vec![value("y", 1, None)], ..Default::default() },
    }
}

impl Sketch {
    fn constant(mut self, name: &str, tensor: &Tensor) -> Self {
        self.graph.initializer.push(TensorProto::from((name, tensor)));
        self
    }

    fn ints(self, name: &str, values: &[i64]) -> Self {
        self.constant(name, &Tensor::vector(values.to_vec()))
    }

    fn node(self, operator: &str, inputs: &[&str], output: &str) -> Self {
        self.node_with(operator, inputs, output, &[])
    }

    fn node_with(mut self, operator: &str, inputs: &[&str], output: &str, ints: &[(&str, i64)]) -> Self {
        let attribute = ints.iter().map(|(name, i)| AttributeProto {
            name: (*name).into(),
            i: *i,
            r#type: attribute_type::INT,
            ..Default::default()
        });
        self.graph.node.push(NodeProto {
            op_type: operator.into(),
            input: inputs.iter().map(ToString::to_string).collect(),
            output: vec![output.into()],
            attribute: attribute.collect(),
            ..Default::default()
        });
        self
    }

    /// Adds to `from` what a transposed convolution makes of nothing, so that tract has to run the graph.
    fn through_tract(self, from: &str) -> Self {
        self.ints("zero_shape", &[1, 1, 4])
            .constant("zero", &Tensor::scalar(0.0_f32))
            .constant("kernel", &Tensor::new(&[1, 1, 1], vec![1.0_f32]).unwrap())
            .node("ReduceMean", &["x"], "mean")
            .node("Mul", &["mean", "zero"], "nothing")
            .node("Expand", &["zero", "zero_shape"], "zeros")
            .node("ConvTranspose", &["zeros", "kernel"], "convolved")
            .node_with("ReduceSum", &["convolved"], "sum", &[("keepdims", 0)])
            .node("Add", &[from, "sum"], "y")
    }

    fn bytes(&self) -> Vec<u8> {
        ModelProto {
            ir_version: 8,
            graph: Some(self.graph.clone()),
            opset_import: vec![OperatorSetId { domain: String::new(), version: 17 }],
            functions: vec![],
        }
        .encode_to_vec()
    }

    fn load(&self) -> Result<Arc<dyn Model>, LoadError> {
        let options = LoadOptions { memory_budget: 256 << 20, ..LoadOptions::default() };
        load(self.bytes(), &options)
    }
}

fn load(bytes: Vec<u8>, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
    let payload = Payload::from(bytes);
    Formats::default().choose(None, &payload)?.load(payload, options)
}

fn value(name: &str, element: i32, dims: Option<&[Option<i64>]>) -> ValueInfoProto {
    let dim = |size: &Option<i64>| Dimension { value: size.map(DimensionValue::Size) };
    let shape = dims.map(|dims| TensorShape { dim: dims.iter().map(dim).collect() });
    let tensor = TensorType { elem_type: element, shape };
    ValueInfoProto { name: name.into(), r#type: Some(TypeProto { value: Some(TypeValue::Tensor(tensor)) }) }
}

fn run(model: &dyn Model, rows: &[[f32; 4]]) -> Vec<f32> {
    let x = Tensor::new(&[rows.len(), 4], rows.concat()).unwrap();
    let mut outputs = [Tensor::default()];
    model.run(&[x.view()], &mut outputs).unwrap();
    outputs[0].values::<f32>().unwrap().to_vec()
}

#[test]
fn an_expansion_that_a_few_bytes_ask_for_is_refused() {
    let one = Tensor::vector(vec![1.0_f32]);
    let sum = |s: Sketch, of: &str| {
        s.node_with("ReduceSum", &[of], "r", &[("keepdims", 0)]).node("Add", &["x", "r"], "b")
    };
    let tall = Tensor::new(&[1 << 18, 1], vec![1.0_f32; 1 << 18]).unwrap();
    let wide = Tensor::new(&[1, 1 << 18], vec![1.0_f32; 1 << 18]).unwrap();
    let mut bombs = vec![
        ("ConstantOfShape", sum(sketch().ints("s", &[1 << 36]).node("ConstantOfShape", &["s"], "c"), "c")),
        ("Expand", sketch().ints("s", &[1 << 34, 1, 4]).node("Expand", &["x", "s"], "b")),
        (
            "Expand of a constant",
            sum(sketch().ints("s", &[1 << 36]).constant("k", &one).node("Expand", &["k", "s"], "e"), "e"),
        ),
        ("Tile", sketch().ints("s", &[1 << 18, 1 << 16]).node("Tile", &["x", "s"], "b")),
        ("Pad", sketch().ints("s", &[0, 1 << 35, 0, 0]).node("Pad", &["x", "s"], "b")),
        (
            "Range",
            sum(
                sketch()
                    .constant("from", &Tensor::scalar(0_i64))
                    .constant("to", &Tensor::scalar(1_i64 << 36))
                    .constant("by", &Tensor::scalar(1_i64))
                    .node("Range", &["from", "to", "by"], "range")
                    .node_with("Cast", &["range"], "f", &[("to", 1)]),
                "f",
            ),
        ),
        (
            "MatMul",
            sum(sketch().constant("a", &tall).constant("b", &wide).node("MatMul", &["a", "b"], "m"), "m"),
        ),
        ("Add", sum(sketch().constant("a", &tall).constant("c", &wide).node("Add", &["a", "c"], "m"), "m")),
        (
            "a shape times a constant",
            sum(
                sketch()
                    .ints("k", &[1 << 18, 1 << 18])
                    .node("Shape", &["x"], "s")
                    .node("Mul", &["s", "k"], "t")
                    .node("ConstantOfShape", &["t"], "c"),
                "c",
            ),
        ),
    ];
    let mut doubled = sketch().node_with("Concat", &["x", "x"], "c0", &[("axis", 1)]);
    for i in 1..34 {
        let (from, to) = (format!("c{}", i - 1), if i == 33 { "b".to_owned() } else { format!("c{i}") });
        doubled = doubled.node_with("Concat", &[&from, &from], &to, &[("axis", 1)]);
    }
    bombs.push(("Concat", doubled));
    let mut many = sketch().ints("s", &[1 << 20, 1, 4]).node("Expand", &["x", "s"], "e");
    let names: Vec<String> = (0..64).map(|i| format!("n{i}")).collect();
    for name in &names {
        many = many.node("Neg", &["e"], name);
    }
    // tract lets go of each as it adds it up; a program holds them all.
    let many = many.node("Sum", &names.iter().map(String::as_str).collect::<Vec<_>>(), "y");
    // On a machine that is busy its first run may be over its time before it is over its budget.
    assert!(matches!(many.load().err(), Some(LoadError::OverBudget { .. } | LoadError::Engine(_))));
    for (name, bomb) in bombs {
        let direct = bomb.clone().node("Identity", &["b"], "y").load().err();
        assert!(direct.is_some(), "{name} loads");
        let tract = bomb.through_tract("b").load().err();
        assert!(tract.is_some(), "{name} loads beside a convolution");
    }
}

#[test]
fn nan_comes_out_as_nan() {
    let rows = [[f32::NAN; 4], [-1.0, 0.5, 2.0, 30.0]];
    let element_wise = [
        "Relu",
        "LeakyRelu",
        "ThresholdedRelu",
        "HardSigmoid",
        "HardSwish",
        "Elu",
        "Selu",
        "Celu",
        "Softplus",
        "Softsign",
        "Sigmoid",
        "Tanh",
        "Erf",
        "Exp",
        "Log",
        "Sqrt",
        "Abs",
        "Neg",
        "Floor",
        "Ceil",
        "Round",
        "Reciprocal",
        "Sin",
        "Cos",
        "Softmax",
        "LogSoftmax",
        "Identity",
        "Mish",
        "Sign",
    ];
    let reductions =
        ["ReduceMax", "ReduceMin", "ReduceSum", "ReduceMean", "ReduceL2", "ReduceLogSumExp", "ReduceProd"];
    let mut cases: Vec<(String, Sketch)> =
        element_wise.iter().map(|op| ((*op).to_owned(), sketch().node(op, &["x"], "b"))).collect();
    for operator in reductions {
        cases.push((
            operator.to_owned(),
            sketch().node_with(operator, &["x"], "r", &[("keepdims", 1)]).node("Add", &["x", "r"], "b"),
        ));
    }
    let six = Tensor::scalar(6.0_f32);
    let zero = Tensor::scalar(0.0_f32);
    let limits = |s: Sketch| s.constant("low", &zero).constant("high", &six);
    cases.push(("Clip".into(), limits(sketch()).node("Clip", &["x", "low", "high"], "b")));
    cases.push(("Max".into(), limits(sketch()).node("Max", &["x", "low"], "b")));
    cases.push(("Max, the other way round".into(), limits(sketch()).node("Max", &["low", "x"], "b")));
    cases.push(("Min".into(), limits(sketch()).node("Min", &["x", "high"], "b")));
    cases.push(("PRelu".into(), limits(sketch()).node("PRelu", &["x", "high"], "b")));
    for (name, case) in cases {
        for (engine, model) in
            [("direct", case.clone().node("Identity", &["b"], "y")), ("tract", case.through_tract("b"))]
        {
            let model = model.load().unwrap_or_else(|e| panic!("{name}: {e}"));
            assert_eq!(model.engine(), engine, "{name}");
            let found = run(&*model, &rows);
            let lost = found.iter().take(4).filter(|v| !v.is_nan()).count();
            assert_eq!(lost, 0, "{name} on {engine} makes {found:?} of NaN");
        }
    }
}

#[test]
fn pooling_keeps_nan() {
    let mut model = sketch().ints("s", &[0, 1, 4]).node("Reshape", &["x", "s"], "channels");
    let ints = |name: &str, values: &[i64]| AttributeProto {
        name: name.into(),
        ints: values.to_vec(),
        r#type: attribute_type::INTS,
        ..Default::default()
    };
    model.graph.node.push(NodeProto {
        op_type: "MaxPool".into(),
        input: vec!["channels".into()],
        output: vec!["y".into()],
        attribute: vec![ints("kernel_shape", &[2]), ints("strides", &[2])],
        ..Default::default()
    });
    let model = model.load().unwrap();
    let found = run(&*model, &[[1.0, f32::NAN, 3.0, 2.0], [f32::NAN, 1.0, -2.0, -3.0]]);
    assert!(found[0].is_nan() && found[2].is_nan(), "{found:?}");
    assert_eq!((found[1], found[3]), (3.0, -2.0));
}

#[test]
fn names_are_chosen_and_unknown_ones_refused() {
    let bytes = sketch().node("Neg", &["x"], "middle").node("Abs", &["middle"], "y").bytes();
    let ask = |inputs: &[&str], outputs: &[&str]| {
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect();
        load(
            bytes.clone(),
            &LoadOptions { inputs: names(inputs), outputs: names(outputs), ..LoadOptions::default() },
        )
    };
    assert_eq!(ask(&[], &[]).unwrap().signature().to_string(), "(x: f32[?,4]) -> (y: f32[?,4])");
    let both = ask(&["x"], &["y", "middle"]).unwrap();
    assert_eq!(both.signature().to_string(), "(x: f32[?,4]) -> (y: f32[?,4], middle: f32[?,4])");
    assert_eq!(ask(&["z"], &[]).err().unwrap().to_string(), "no input `z`; the model has: x");
    assert_eq!(ask(&[], &["z"]).err().unwrap().to_string(), "no output `z`; the model has: y");
}

#[test]
fn an_operator_that_nothing_runs_is_named_with_its_node() {
    let mut model = sketch().node("Frobnicate", &["x"], "y");
    model.graph.node[0].name = "layer_7".into();
    assert_eq!(model.load().err().unwrap().to_string(), "unsupported operator Frobnicate (node `layer_7`)");
}

#[test]
fn what_is_no_model_is_refused() {
    let options = LoadOptions::default();
    let refused = |bytes: &[u8]| {
        super::loader().load(Payload::from(bytes.to_vec()), &options).err().unwrap().to_string()
    };
    assert_eq!(refused(b""), "malformed ONNX file: the file is empty");
    assert!(refused(b"\x0a").starts_with("malformed ONNX file"));
    assert!(refused(b"hello, world").starts_with("malformed ONNX file"));
    let whole = sketch().node("Neg", &["x"], "y").bytes();
    for length in 0..whole.len() {
        assert!(super::loader().load(Payload::from(whole[..length].to_vec()), &options).is_err(), "{length}");
    }
}

#[test]
fn a_call_that_fails_does_not_spoil_the_next() {
    for model in [sketch().node("Neg", &["x"], "y"), sketch().node("Neg", &["x"], "b").through_tract("b")] {
        let model = model.load().unwrap();
        let right = run(&*model, &[[1.0, 2.0, 3.0, 4.0]]);
        // What the scorer would refuse: too narrow, and of another type.
        for wrong in
            [Tensor::new(&[1, 3], vec![1.0_f32; 3]).unwrap(), Tensor::new(&[1, 4], vec![1_i64; 4]).unwrap()]
        {
            drop(model.run(&[wrong.view()], &mut [Tensor::default()]));
            assert_eq!(run(&*model, &[[1.0, 2.0, 3.0, 4.0]]), right);
        }
    }
}

#[test]
fn quantised_levels_are_the_same_in_both_engines() {
    let quantised = sketch()
        .constant("half", &Tensor::scalar(0.5_f32))
        .constant("ten", &Tensor::scalar(10_u8))
        .constant(
            "weights",
            &Tensor::new(&[4, 4], vec![1_i8, 0, 0, 0, 0, 2, 0, 0, 0, 0, -1, 0, 0, 0, 0, 3]).unwrap(),
        )
        .node("QuantizeLinear", &["x", "half", "ten"], "levels")
        .node("MatMulInteger", &["levels", "weights", "ten"], "sums")
        .node_with("Cast", &["sums"], "b", &[("to", 1)]);
    for model in [quantised.clone().node("Identity", &["b"], "y"), quantised.through_tract("b")] {
        let model = model.load().unwrap();
        // 0.75 lies between two levels, and goes to the even one.
        assert_eq!(run(&*model, &[[1.0, -0.5, 0.75, -100.0]]), [2.0, -2.0, -2.0, -30.0]);
    }
}

#[test]
fn an_axis_is_resized_by_the_scale_that_the_file_states() {
    let resized = sketch()
        .ints("s", &[0, 1, 4])
        .constant("scales", &Tensor::vector(vec![1.0_f32, 1.0, 0.5]))
        .node("Reshape", &["x", "s"], "images")
        .node("Resize", &["images", "", "scales"], "b");
    for model in [resized.clone().node("Identity", &["b"], "y"), resized.through_tract("b")] {
        let model = model.load().unwrap();
        assert_eq!(run(&*model, &[[1.0, 2.0, 3.0, 4.0], [5.0, 6.0, 7.0, 8.0]])[..2], [1.0, 3.0]);
    }
}

#[test]
fn attention_sees_no_further_than_its_window() {
    let model = sketch().ints("s", &[1, 1, -1, 4]).node("Reshape", &["x", "s"], "q").node_with(
        "Attention",
        &["q", "q", "q"],
        "y",
        &[("is_causal", 1), ("left_window_size", 0)],
    );
    let rows = [[1.0, 2.0, 3.0, 4.0], [-1.0, 0.5, 0.0, 2.0]];
    assert_eq!(run(&*model.load().unwrap(), &rows), rows.concat());
}

#[test]
fn what_leaves_as_a_half_float_is_rounded_to_one() {
    let mut model = sketch().node("Identity", &["x"], "y");
    model.graph.output = vec![value("y", 10, None)];
    let found = run(&*model.load().unwrap(), &[[0.1, 65_600.0, 3e-8, f32::NAN]]);
    assert_eq!(found[..3], [0.099_975_586, f32::INFINITY, 5.960_464_5e-8]);
    assert!(found[3].is_nan());
}

#[test]
fn weights_beside_the_file_are_wanted_until_they_are_taken_in() {
    let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("fixtures/external_data/model.onnx");
    let options = LoadOptions::default();
    let refused = load(std::fs::read(&path).unwrap(), &options).err();
    assert!(matches!(refused, Some(LoadError::ExternalData { .. })), "{refused:?}");
    let whole = super::inline_external_data(&path).unwrap();
    assert!(load(whole.into_bytes().to_vec(), &options).is_ok());
}
