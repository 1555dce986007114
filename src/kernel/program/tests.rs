//! Tests of building and running programs, by graphs of standard operators.

use std::sync::Arc;

use super::{GraphParts, InputParts, NodeParts, Program, ProgramError, Scratch};
use crate::kernel::{Attribute, Fact, FactDim, RunContext};
use crate::load::RunError;
use crate::tensor::{ElementType, Tensor, TensorView};

fn node(operator: &str, inputs: &[&str], outputs: &[&str]) -> NodeParts {
    NodeParts {
        operator: operator.into(),
        version: 17,
        inputs: inputs.iter().map(|n| (*n).into()).collect(),
        outputs: outputs.iter().map(|n| (*n).into()).collect(),
        ..NodeParts::default()
    }
}

fn with(mut node: NodeParts, attributes: Vec<(&str, Attribute)>) -> NodeParts {
    for (name, value) in attributes {
        node.attributes.insert(name, value);
    }
    node
}

fn input(name: &str, element: ElementType, dims: &[Option<usize>]) -> InputParts {
    let dims = dims.iter().map(|d| d.map_or(FactDim::Unknown, FactDim::Fixed)).collect();
    InputParts { name: name.into(), fact: Some(Fact { element, dims: Some(dims) }) }
}

/// A graph of one input `x: f32[?,2]`.
fn graph(nodes: Vec<NodeParts>, constants: Vec<(&str, Tensor)>, outputs: &[&str]) -> GraphParts {
    GraphParts {
        constants: constants.into_iter().map(|(n, t)| (n.into(), Arc::new(t))).collect(),
        inputs: vec![input("x", ElementType::F32, &[None, Some(2)])],
        nodes,
        outputs: outputs.iter().map(|n| (*n).into()).collect(),
        captures: 0,
    }
}

fn answers(program: &Program, x: &[f32]) -> Result<Vec<Tensor>, RunError> {
    let x = TensorView::new(&[x.len() / 2, 2], x).unwrap();
    let (mut scratch, mut outputs) = (Scratch::default(), vec![Tensor::default(); program.outputs()]);
    // Twice, as what the first run leaves behind is what the second one finds.
    program.run_to(&mut scratch, &[x], &mut outputs, &RunContext::default())?;
    program.run_to(&mut scratch, &[x], &mut outputs, &RunContext::default())?;
    Ok(outputs)
}

fn scalar(value: f32) -> Tensor {
    Tensor::scalar(value)
}

#[test]
fn nodes_run_in_the_order_of_their_data_whatever_the_file_says() {
    let nodes =
        vec![node("Exp", &["b"], &["y"]), node("Sub", &["a", "one"], &["b"]), node("Abs", &["x"], &["a"])];
    let program = Program::build(graph(nodes, vec![("one", scalar(1.0))], &["y"])).unwrap();
    let outputs = answers(&program, &[-1.0, 1.0]).unwrap();
    assert_eq!(outputs[0].values::<f32>().unwrap(), [1.0, 1.0]);
    assert_eq!(
        program.fact(0).unwrap().dims.as_deref(),
        Some(&[FactDim::Like { input: 0, axis: 0 }, FactDim::Fixed(2)][..])
    );
}

#[test]
fn what_the_outputs_do_not_need_is_neither_built_nor_kept() {
    let nodes = vec![node("Abs", &["x"], &["y"]), node("NoSuchOperator", &["x"], &["z"])];
    let big = Tensor::vector(vec![0.0_f32; 1000]);
    let program = Program::build(graph(nodes, vec![("big", big)], &["y"])).unwrap();
    assert_eq!((program.steps(), program.memory()), (1, 0));
}

#[test]
fn what_follows_from_constants_is_computed_once() {
    let nodes = vec![
        node("Add", &["one", "one"], &["two"]),
        node("Exp", &["two"], &["e2"]),
        node("Max", &["x", "e2"], &["y"]),
    ];
    let program = Program::build(graph(nodes, vec![("one", scalar(1.0))], &["y"])).unwrap();
    assert_eq!(program.steps(), 1);
    let outputs = answers(&program, &[0.0, 8.0]).unwrap();
    let found = outputs[0].values::<f32>().unwrap();
    assert!((found[0] - 7.389_056).abs() < 1e-5 && found[1] == 8.0, "{found:?}");
}

#[test]
fn a_constant_that_would_be_huge_is_left_to_the_run_and_refused_there() {
    let shape = Tensor::vector(vec![1_i64 << 36, 2]);
    let nodes = vec![node("ConstantOfShape", &["shape"], &["c"]), node("Add", &["x", "c"], &["y"])];
    let program = Program::build(graph(nodes, vec![("shape", shape)], &["y"])).unwrap();
    assert!(matches!(answers(&program, &[0.0, 0.0]), Err(RunError::OverBudget { .. })));
}

#[test]
fn graphs_that_make_no_sense_are_refused_by_name() {
    let cycle = vec![node("Add", &["x", "b"], &["a"]), node("Abs", &["a"], &["b"])];
    assert!(matches!(Program::build(graph(cycle, vec![], &["b"])), Err(ProgramError::Cycle { .. })));
    let itself = vec![node("Add", &["x", "a"], &["a"])];
    assert!(matches!(Program::build(graph(itself, vec![], &["a"])), Err(ProgramError::Cycle { .. })));
    let unknown = Program::build(graph(vec![node("Abs", &["z"], &["y"])], vec![], &["y"])).unwrap_err();
    assert_eq!(unknown.to_string(), "Abs: no tensor `z`");
    let missing = Program::build(graph(vec![], vec![], &["y"])).unwrap_err();
    assert_eq!(missing.to_string(), "outputs: no tensor `y`");
    let twice = vec![node("Abs", &["x"], &["y"]), node("Neg", &["x"], &["y"])];
    assert!(matches!(Program::build(graph(twice, vec![], &["y"])), Err(ProgramError::Duplicate { .. })));
    let foreign = vec![node("NoSuchOperator", &["x"], &["y"])];
    let foreign = Program::build(graph(foreign, vec![], &["y"])).unwrap_err();
    assert_eq!(foreign.to_string(), "unsupported operator NoSuchOperator");
    let mismatch = vec![node("Add", &["x", "c"], &["y"])];
    let three = Tensor::vector(vec![0.0_f32; 3]);
    let mismatch = Program::build(graph(mismatch, vec![("c", three)], &["y"])).unwrap_err();
    assert!(mismatch.to_string().contains("do not broadcast"), "{mismatch}");
}

#[test]
fn a_chain_as_long_as_a_file_can_hold_neither_overflows_the_stack_nor_takes_slots() {
    let count = 50_000;
    let name = |i: usize| if i == 0 { "x".to_owned() } else { format!("t{i}") };
    let nodes = (0..count).rev().map(|i| node("Neg", &[&name(i)], &[&name(i + 1)])).collect();
    let program = Program::build(graph(nodes, vec![], &[&name(count)])).unwrap();
    assert_eq!(program.slots, 2);
    assert_eq!(answers(&program, &[1.0, 2.0]).unwrap()[0].values::<f32>(), Some(&[1.0, 2.0][..]));
}

#[test]
fn one_value_can_be_several_outputs_and_an_input_or_a_constant_can_be_one() {
    let nodes = vec![node("Neg", &["x"], &["y"]), node("Identity", &["y"], &["same"])];
    let program =
        Program::build(graph(nodes, vec![("c", scalar(3.0))], &["y", "same", "x", "c", "y"])).unwrap();
    let outputs = answers(&program, &[1.0, -2.0]).unwrap();
    for i in [0, 1, 4] {
        assert_eq!(outputs[i].values::<f32>(), Some(&[-1.0, 2.0][..]), "{i}");
    }
    assert_eq!(outputs[2].values::<f32>(), Some(&[1.0, -2.0][..]));
    assert_eq!(outputs[3].values::<f32>(), Some(&[3.0][..]));
}

#[test]
fn a_layer_takes_its_bias_and_activation_and_gives_up_its_weights() {
    let weights = Tensor::new(&[2, 3], vec![1.0_f32, 0.0, -1.0, 0.0, 1.0, -1.0]).unwrap();
    let bias = Tensor::vector(vec![0.5_f32, -0.5, 0.0]);
    let nodes = vec![
        node("MatMul", &["x", "w"], &["m"]),
        node("Add", &["b", "m"], &["a"]),
        node("Relu", &["a"], &["y"]),
    ];
    let constants = vec![("w", weights), ("b", bias)];
    let program = Program::build(graph(nodes.clone(), constants.clone(), &["y"])).unwrap();
    assert_eq!((program.steps(), program.constants.len()), (1, 0));
    let outputs = answers(&program, &[1.0, 2.0, f32::NAN, 0.0]).unwrap();
    let found = outputs[0].values::<f32>().unwrap();
    assert_eq!(found[..3], [1.5, 1.5, 0.0]);
    assert!(found[3..].iter().all(|v| v.is_nan()), "{found:?}");
    // What somebody else reads has to stay.
    let program = Program::build(graph(nodes, constants, &["y", "a"])).unwrap();
    assert_eq!(program.steps(), 2);
    assert_eq!(answers(&program, &[1.0, 2.0]).unwrap()[1].values::<f32>(), Some(&[1.5, 1.5, -3.0][..]));
}

#[test]
fn element_wise_steps_with_constant_rows_are_one_pass() {
    let row = |a: f32, b: f32| Tensor::vector(vec![a, b]);
    let nodes = vec![
        node("Sub", &["x", "mean"], &["a"]),
        node("Div", &["a", "deviation"], &["b"]),
        node("Mul", &["two", "b"], &["c"]),
        node("Add", &["c", "two"], &["y"]),
    ];
    let constants = vec![("mean", row(1.0, 2.0)), ("deviation", row(2.0, 4.0)), ("two", scalar(2.0))];
    let program = Program::build(graph(nodes, constants, &["y"])).unwrap();
    assert_eq!(program.steps(), 1);
    assert_eq!(
        answers(&program, &[3.0, 6.0, 1.0, 2.0]).unwrap()[0].values::<f32>(),
        Some(&[4.0, 4.0, 2.0, 2.0][..])
    );
}

/// A graph without inputs of its own: it names values of the graph around it.
fn inner(nodes: Vec<NodeParts>, inputs: Vec<InputParts>, outputs: &[&str]) -> Attribute {
    let outputs = outputs.iter().map(|n| (*n).into()).collect();
    Attribute::Graph(Box::new(GraphParts { inputs, nodes, outputs, ..GraphParts::default() }))
}

#[test]
fn a_branch_sees_the_values_of_the_graph_around_it() {
    let branches = vec![
        ("then_branch", inner(vec![node("Add", &["x", "c"], &["t"])], vec![], &["t"])),
        ("else_branch", inner(vec![node("Neg", &["x"], &["e"])], vec![], &["e"])),
    ];
    let nodes = vec![
        node("ReduceMax", &["x"], &["most"]),
        node("Greater", &["most", "zero"], &["positive"]),
        with(node("If", &["flag"], &["y"]), branches),
        node("Squeeze", &["positive"], &["flag"]),
    ];
    let constants = vec![("c", scalar(10.0)), ("zero", scalar(0.0))];
    let program = Program::build(graph(nodes, constants, &["y"])).unwrap();
    assert_eq!(answers(&program, &[1.0, 2.0]).unwrap()[0].values::<f32>(), Some(&[11.0, 12.0][..]));
    assert_eq!(answers(&program, &[-1.0, -2.0]).unwrap()[0].values::<f32>(), Some(&[1.0, 2.0][..]));
}

fn counting_loop(most: i64) -> GraphParts {
    let body = inner(
        vec![node("Add", &["s", "x"], &["next"]), node("Identity", &["go"], &["on"])],
        vec![
            input("i", ElementType::I64, &[]),
            input("go", ElementType::Bool, &[]),
            input("s", ElementType::F32, &[None, Some(2)]),
        ],
        &["on", "next", "s"],
    );
    let nodes = vec![with(node("Loop", &["most", "", "x"], &["y", "all"]), vec![("body", body)])];
    graph(nodes, vec![("most", Tensor::scalar(most))], &["y", "all"])
}

#[test]
fn a_loop_carries_its_state_and_collects_what_it_is_to_keep() {
    let program = Program::build(counting_loop(3)).unwrap();
    let outputs = answers(&program, &[1.0, 2.0]).unwrap();
    assert_eq!(outputs[0].values::<f32>(), Some(&[4.0, 8.0][..]));
    assert_eq!(outputs[1].dims(), [3, 1, 2]);
    assert_eq!(outputs[1].values::<f32>(), Some(&[1.0, 2.0, 2.0, 4.0, 3.0, 6.0][..]));
}

#[test]
fn a_loop_that_never_ends_is_an_error() {
    let x = TensorView::row(&[1.0_f32, 2.0]);
    let cx = RunContext::new(1 << 16);
    let program = Program::build(counting_loop(i64::MAX)).unwrap();
    assert!(program.run(&mut Scratch::default(), &[x], &cx).is_err());
}

#[test]
fn a_scan_runs_its_graph_for_each_row() {
    let body = inner(
        vec![node("Add", &["sum", "row"], &["next"]), node("Mul", &["row", "k"], &["scaled"])],
        vec![input("sum", ElementType::F32, &[Some(2)]), input("row", ElementType::F32, &[Some(2)])],
        &["next", "scaled"],
    );
    let attributes = vec![("body", body), ("num_scan_inputs", Attribute::Int(1))];
    let nodes = vec![with(node("Scan", &["zero", "x"], &["total", "y"]), attributes)];
    let constants = vec![("zero", Tensor::vector(vec![0.0_f32; 2])), ("k", scalar(10.0))];
    let program = Program::build(graph(nodes, constants, &["total", "y"])).unwrap();
    let outputs = answers(&program, &[1.0, 2.0, 3.0, 4.0]).unwrap();
    assert_eq!(outputs[0].values::<f32>(), Some(&[4.0, 6.0][..]));
    assert_eq!(outputs[1].dims(), [2, 2]);
    assert_eq!(outputs[1].values::<f32>(), Some(&[10.0, 20.0, 30.0, 40.0][..]));
}

#[test]
fn graphs_nested_too_deep_are_refused() {
    let mut nodes = vec![node("Neg", &["x"], &["y"])];
    for _ in 0..20 {
        let branch = || inner(nodes.clone(), vec![], &["y"]);
        let branches = vec![("then_branch", branch()), ("else_branch", inner(vec![], vec![], &["x"]))];
        nodes = vec![with(node("If", &["flag"], &["y"]), branches)];
    }
    let built = Program::build(graph(nodes, vec![("flag", Tensor::scalar(true))], &["y"]));
    assert!(matches!(built, Err(ProgramError::TooDeep { .. })), "{built:?}");
}

#[test]
fn an_error_of_one_run_does_not_reach_the_next() {
    let nodes = vec![node("Reshape", &["x", "shape"], &["y"])];
    let shape = Tensor::vector(vec![1_i64, 4]);
    let program = Program::build(graph(nodes, vec![("shape", shape)], &["y"])).unwrap();
    let mut scratch = Scratch::default();
    let cx = RunContext::default();
    assert!(program.run(&mut scratch, &[TensorView::row(&[1.0_f32, 2.0])], &cx).is_err());
    let four = [1.0_f32, 2.0, 3.0, 4.0];
    let x = TensorView::new(&[2, 2], &four).unwrap();
    program.run(&mut scratch, &[x], &cx).unwrap();
    assert_eq!(program.output(&scratch, &[x], 0).unwrap().dims(), [1, 4]);
    assert!(program.run(&mut scratch, &[], &cx).is_err());
}

#[test]
fn what_two_threads_write_to_lies_on_no_common_cache_line() {
    let pair = |x: usize| node("Split", &["x"], &[["a", "b"][x % 2], ["c", "d"][x % 2]]);
    let mut nodes = vec![with(pair(0), vec![("axis", Attribute::Int(1))])];
    nodes.push(node("Exp", &["a"], &["e"]));
    nodes.push(node("Add", &["e", "c"], &["y"]));
    let program = Program::build(graph(nodes, vec![], &["y"])).unwrap();
    let x = TensorView::new(&[1, 2], &[1.0_f32, 2.0]).unwrap();
    // One thread makes them all: an allocator is likely to lay them side by side.
    let mut scratches: Vec<Scratch> = (0..16).map(|_| Scratch::default()).collect();
    for scratch in &mut scratches {
        program.run(scratch, &[x], &RunContext::default()).unwrap();
    }
    let lines = |scratch: &Scratch| {
        let mut lines = Vec::new();
        let mut add = |from: usize, bytes: usize| lines.extend(from / 128..=(from + bytes - 1) / 128);
        add(scratch.slots.as_ptr().addr(), size_of_val(&*scratch.slots));
        add(scratch.bytes.as_ptr().addr(), size_of_val(&*scratch.bytes));
        for values in scratch.slots.iter().filter_map(Tensor::values::<f32>).filter(|v| !v.is_empty()) {
            add(values.as_ptr().addr(), size_of_val(values));
        }
        lines
    };
    for (i, one) in scratches.iter().enumerate() {
        for other in scratches.iter().skip(i + 1) {
            assert!(!lines(one).iter().any(|line| lines(other).contains(line)));
        }
    }
}
