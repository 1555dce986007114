//! The contenders in this process: this crate, onnxruntime, bare tract.

use modelswap::{ModelScorer, Scorer};
use ort::memory::Allocator;
use ort::session::builder::GraphOptimizationLevel;
use ort::session::{IoBinding, Session};
use ort::value::Tensor;
use tract_onnx::prelude::{Datum, Framework, InferenceModelExt, IntoTValue, TValue, TypedModel, tvec};
use tract_onnx::tract_hir::internal::{InferenceFact, IntoRunnable, Tensor as TractTensor, TypedSimpleState};

use crate::support::{Served, Work};
use crate::turns::Contender;

/// This crate: the scorer of a live model, into the caller's buffer.
pub(crate) struct Ours<'a> {
    work: &'a Work,
    scorer: ModelScorer,
    batches: Vec<&'a [f32]>,
    out: Vec<f32>,
    _served: Served,
}

impl<'a> Ours<'a> {
    pub(crate) fn new(work: &'a Work, batch: usize) -> Self {
        let served = Served::start(work);
        let out = vec![0.0; batch * work.scores().0];
        Self { work, scorer: served.scorer.clone(), batches: work.batches(batch), out, _served: served }
    }
}

impl Contender for Ours<'_> {
    fn name(&self) -> &'static str {
        "modelswap"
    }

    fn call(&mut self, index: usize) {
        let rows = self.work.rows(self.batches[index % self.batches.len()]);
        self.scorer.predict_into(&rows, &mut self.out).unwrap();
    }

    fn scores(&mut self) -> Option<Vec<f32>> {
        Some(self.out.clone())
    }
}

/// onnxruntime at its best on one thread: all optimisations, inputs and outputs bound beforehand,
/// only the scores computed.
pub(crate) struct OnnxRuntime {
    session: Session,
    bindings: Vec<IoBinding>,
    output: String,
    scores: Vec<f32>,
}

impl OnnxRuntime {
    pub(crate) fn new(work: &Work, batch: usize) -> Self {
        let mut builder = Session::builder()
            .unwrap()
            .with_optimization_level(GraphOptimizationLevel::All)
            .unwrap()
            .with_intra_threads(1)
            .unwrap()
            .with_inter_threads(1)
            .unwrap();
        let session = builder.commit_from_memory(work.file()).unwrap();
        let (scores, output) = work.scores();
        let input = session.inputs()[0].name().to_owned();
        let bind = |values: &[f32]| {
            let mut binding = session.create_binding().unwrap();
            let rows = Tensor::from_array((work.shape(batch), values.to_vec())).unwrap();
            binding.bind_input(&input, &rows).unwrap();
            let out = Tensor::<f32>::new(&Allocator::default(), [batch, scores]).unwrap();
            binding.bind_output(&output, out).unwrap();
            binding
        };
        let bindings = work.batches(batch).into_iter().map(bind).collect();
        Self { session, bindings, output, scores: Vec::new() }
    }
}

impl Contender for OnnxRuntime {
    fn name(&self) -> &'static str {
        "onnxruntime"
    }

    fn call(&mut self, index: usize) {
        let binding = &self.bindings[index % self.bindings.len()];
        let outputs = self.session.run_binding(binding).unwrap();
        if self.scores.is_empty() {
            self.scores = outputs[&*self.output].try_extract_tensor::<f32>().unwrap().1.to_vec();
        }
    }

    fn scores(&mut self) -> Option<Vec<f32>> {
        Some(self.scores.clone())
    }
}

/// tract with nothing around it: the plan for exactly this batch, its state reused.
pub(crate) struct BareTract<'a> {
    state: TypedSimpleState,
    shape: Vec<usize>,
    batches: Vec<&'a [f32]>,
    inputs: Vec<TValue>,
    out: Vec<f32>,
    /// True where inputs are made beforehand and outputs left where they are.
    prepared: bool,
}

impl<'a> BareTract<'a> {
    /// `None` where tract cannot run the model, or not rightly.
    pub(crate) fn new(work: &'a Work, batch: usize, prepared: bool) -> Option<Self> {
        if !["mlp", "cnn", "lstm", "mlp_1mb", "mlp_100mb"].contains(&&*work.name) {
            return None;
        }
        let shape = work.shape(batch);
        let fact = InferenceFact::dt_shape(f32::datum_type(), &shape);
        let model: TypedModel = tract_onnx::onnx()
            .model_for_read(&mut work.file())
            .and_then(|model| model.with_input_fact(0, fact)?.into_optimized())
            .ok()?;
        let state = model.into_runnable().and_then(|plan| plan.spawn()).ok()?;
        let batches = work.batches(batch);
        let inputs = batches.iter().map(|b| tensor(&shape, b).into_tvalue()).collect();
        Some(Self { state, shape, batches, inputs, out: vec![0.0; batch * work.scores().0], prepared })
    }
}

impl Contender for BareTract<'_> {
    fn name(&self) -> &'static str {
        if self.prepared { "tract, inputs made beforehand" } else { "tract" }
    }

    fn call(&mut self, index: usize) {
        let index = index % self.batches.len();
        let input = if self.prepared {
            self.inputs[index].clone()
        } else {
            tensor(&self.shape, self.batches[index]).into_tvalue()
        };
        let outputs = self.state.run(tvec!(input)).unwrap();
        if !self.prepared {
            let scores = outputs[0].as_plain_ram().unwrap().as_slice::<f32>().unwrap();
            self.out.copy_from_slice(scores);
        }
    }

    fn scores(&mut self) -> Option<Vec<f32>> {
        (!self.prepared).then(|| self.out.clone())
    }
}

fn tensor(shape: &[usize], values: &[f32]) -> TractTensor {
    TractTensor::from_shape(shape, values).unwrap()
}
