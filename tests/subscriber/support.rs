//! A format whose models do whatever a test needs, and records of every kind.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use modelswap::load::{LoadError, LoadOptions, Loader, Model, Payload, RunError};
use modelswap::topic::{MemoryTopic, Topic};
use modelswap::wire::{self, Header};
use modelswap::{
    Artifact, Dim, ElementType, Models, Position, Sha256Digest, Shape, Signature, Status, Subscription,
    Tensor, TensorSpec, TensorView,
};

pub(crate) const WAIT: Duration = Duration::from_secs(30);

/// Models of the form `script:<what it does>:<score>`, for one row of two values.
pub(crate) struct ScriptLoader {
    /// How many models were loaded.
    pub loaded: AtomicUsize,
    /// How many models are alive.
    pub alive: Arc<AtomicUsize>,
    /// While a test holds this, a load waits.
    pub gate: Mutex<()>,
}

impl ScriptLoader {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { loaded: AtomicUsize::new(0), alive: Arc::default(), gate: Mutex::new(()) })
    }
}

impl Loader for ScriptLoader {
    fn format(&self) -> &'static str {
        "script"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        payload.peek(7) == b"script:"
    }

    fn load(&self, payload: Payload, _: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        drop(self.gate.lock().unwrap());
        let text = String::from_utf8_lossy(&payload.into_bytes()).into_owned();
        let mut parts = text.split(':').skip(1);
        let act = parts.next().unwrap_or_default().to_owned();
        let score = parts.next().and_then(|s| s.trim().parse().ok()).unwrap_or(0.0);
        assert!(act != "panic-on-load", "the script says so");
        let width = if act == "wide" { 3 } else { 2 };
        self.loaded.fetch_add(1, Ordering::SeqCst);
        self.alive.fetch_add(1, Ordering::SeqCst);
        let input = TensorSpec::new("x", ElementType::F32, &[Dim::Any, Dim::Fixed(width)]);
        let output = TensorSpec::new("y", ElementType::F32, &[Dim::Any, Dim::Fixed(1)]);
        let signature = Signature::new(vec![input], vec![output]);
        Ok(Arc::new(Script { signature, act, score, alive: Arc::clone(&self.alive) }))
    }
}

struct Script {
    signature: Signature,
    act: String,
    score: f32,
    alive: Arc<AtomicUsize>,
}

impl Drop for Script {
    fn drop(&mut self) {
        self.alive.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Model for Script {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        let x = inputs[0].values::<f32>().unwrap();
        assert!(self.act != "panic-on-run", "the script says so");
        assert!(!(self.act == "panic-on-13" && x[0] == 13.0), "the script says so");
        if self.act == "fail-on-run" {
            return Err(RunError::Operator { operator: "script", expected: "to fail" });
        }
        let out = outputs[0].reset::<f32>(Shape::matrix(inputs[0].shape().rows(), 1));
        for (out, x) in out.iter_mut().zip(x.chunks(self.signature.inputs()[0].row_elements().unwrap())) {
            *out = if x[0].is_nan() { f32::NAN } else { self.score };
        }
        Ok(())
    }
}

/// A topic in memory with a subscriber that knows scripts.
pub(crate) struct World {
    pub topic: MemoryTopic,
    pub loader: Arc<ScriptLoader>,
}

impl World {
    pub(crate) fn new() -> Self {
        Self { topic: MemoryTopic::new("models", 2), loader: ScriptLoader::new() }
    }

    pub(crate) fn subscription(&self) -> Subscription {
        Models::subscribe_to(Arc::new(self.topic.clone())).model("fraud").loader(self.loader.clone())
    }

    pub(crate) fn start(&self) -> Models {
        self.subscription().start().unwrap()
    }

    /// Writes one record to partition 0.
    pub(crate) fn put(&self, key: &str, value: Option<&[u8]>, headers: &[(&str, &str)]) -> Position {
        self.put_in(0, key, value, headers)
    }

    pub(crate) fn put_in(
        &self,
        partition: i32,
        key: &str,
        value: Option<&[u8]>,
        headers: &[(&str, &str)],
    ) -> Position {
        let headers: Vec<Header> = headers
            .iter()
            .map(|(n, v)| Header { name: (*n).into(), value: Bytes::copy_from_slice(v.as_bytes()) })
            .collect();
        let mut writer = self.topic.writer("test").unwrap();
        writer.begin().unwrap();
        writer.send(partition, key.as_bytes(), value.map(Bytes::copy_from_slice), &headers).unwrap();
        writer.commit().unwrap()[0]
    }

    /// Publishes a script in one record.
    pub(crate) fn plain(&self, version: &str, script: &str) -> Position {
        let digest = Sha256Digest::of([script.as_bytes()]).to_string();
        self.put("fraud", Some(script.as_bytes()), &[("sha256", &digest), ("version", version)])
    }

    /// Writes the chunks of a script, of the given length each, and answers its artifact.
    pub(crate) fn chunks(&self, script: &str, length: usize) -> Artifact {
        let mut artifact = Artifact::of(script.as_bytes(), None);
        let model = "fraud".parse().unwrap();
        for (i, chunk) in script.as_bytes().chunks(length).enumerate() {
            let index = u32::try_from(i).unwrap();
            self.put(&wire::chunk_key(&model, artifact.sha256, index), Some(chunk), &[]);
            artifact.chunks = index + 1;
        }
        artifact
    }

    /// Writes a release document with these extra fields (JSON, ending in a comma).
    pub(crate) fn commit(&self, version: &str, artifact: &Artifact, extra: &str) -> Position {
        let artifact = serde_json::to_string(artifact).unwrap();
        let document = format!(
            r#"{{{extra}"schema":1,"model":"fraud","version":"{version}","sequence":1,"time_ms":1,"artifact":{artifact}}}"#
        );
        self.put("fraud", Some(document.as_bytes()), &[])
    }
}

/// Waits until the status is as wanted.
pub(crate) async fn wait(models: &Models, what: &str, wanted: impl Fn(&Status) -> bool) -> Arc<Status> {
    let mut watch = models.watch_status();
    match tokio::time::timeout(WAIT, watch.wait_for(wanted)).await {
        Ok(status) => status.unwrap(),
        Err(late) => panic!("{what} did not happen: {late}: {}", models.status()),
    }
}

pub(crate) async fn wait_live(models: &Models, version: &str) -> Arc<Status> {
    wait(models, &format!("{version} live"), |s| s.live_version("fraud") == Some(version)).await
}

/// Waits for a rejection of what stands at `position`, and answers its text.
pub(crate) async fn wait_rejected(models: &Models, position: Position) -> String {
    let rejected = |s: &Status| {
        s.model("fraud").and_then(|m| m.last_rejected.clone()).filter(|r| r.position == position)
    };
    let status = wait(models, "rejection", |s| rejected(s).is_some()).await;
    rejected(&status).unwrap().rejection.to_string()
}
