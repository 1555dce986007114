//! The contender behind a network: `MLServer` on loopback, over gRPC and over REST.
//!
//! Both speak the Open Inference Protocol, version 2.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use http::uri::PathAndQuery;
use serde_json::{Value, json};
use tonic::client::Grpc;
use tonic::transport::{Channel, Endpoint};
use tonic_prost::ProstCodec;

use crate::support::{Work, folder};
use crate::turns::Contender;

/// A running `MLServer`; it ends with this.
pub(crate) struct MlServer {
    process: Child,
    http: u16,
    grpc: u16,
}

impl MlServer {
    /// Starts a server of `pipeline.joblib`; `None` where it is not installed: see `benches/run`.
    pub(crate) fn start() -> Option<Self> {
        let program = folder().join("mlserver-venv/bin/mlserver");
        if !program.exists() {
            return None;
        }
        let [http, grpc, metrics] = [(); 3].map(|()| free_port());
        let home = write_settings(http, grpc, metrics);
        let process = Command::new(program)
            .arg("start")
            .arg(&home)
            .current_dir(&home)
            .stdin(Stdio::null())
            .stdout(std::fs::File::create(home.join("server.log")).unwrap())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let mut server = Self { process, http, grpc };
        let start = Instant::now();
        while !server.is_ready() {
            assert!(start.elapsed() < Duration::from_mins(3), "MLServer does not get ready: see {home:?}");
            assert!(server.process.try_wait().unwrap().is_none(), "MLServer has ended: see {home:?}");
            std::thread::sleep(Duration::from_millis(200));
        }
        Some(server)
    }

    fn is_ready(&self) -> bool {
        let Ok(stream) = TcpStream::connect(("127.0.0.1", self.http)) else { return false };
        let mut stream = BufReader::new(stream);
        let request = "GET /v2/models/pipeline/ready HTTP/1.1\r\nhost: localhost\r\n\r\n";
        stream.get_mut().write_all(request.as_bytes()).is_ok()
            && response(&mut stream).is_some_and(|(status, _)| status == 200)
    }
}

impl Drop for MlServer {
    fn drop(&mut self) {
        // It is ours alone, and holds nothing that it would have to save.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn write_settings(http: u16, grpc: u16, metrics: u16) -> PathBuf {
    let home = folder().join("mlserver");
    std::fs::create_dir_all(&home).unwrap();
    // Without worker processes every request is served where it arrives: the lowest latency.
    let settings = json!({
        "host": "127.0.0.1", "http_port": http, "grpc_port": grpc, "metrics_port": metrics,
        "parallel_workers": 0, "debug": false,
    });
    let model = json!({
        "name": "pipeline",
        "implementation": "mlserver_sklearn.SKLearnModel",
        "parameters": { "uri": folder().join("models/pipeline.joblib") },
    });
    std::fs::write(home.join("settings.json"), settings.to_string()).unwrap();
    std::fs::write(home.join("model-settings.json"), model.to_string()).unwrap();
    home
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// One connection, one request after the other, over gRPC.
pub(crate) struct OverGrpc<'a> {
    runtime: tokio::runtime::Runtime,
    client: Grpc<Channel>,
    batches: Vec<&'a [f32]>,
    shape: Vec<i64>,
    scores: Vec<f32>,
}

impl<'a> OverGrpc<'a> {
    pub(crate) fn new(server: &MlServer, work: &'a Work, batch: usize) -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{}", server.grpc)).unwrap();
        let channel = runtime.block_on(endpoint.tcp_nodelay(true).connect()).unwrap();
        let shape = work.shape(batch).iter().map(|d| i64::try_from(*d).unwrap()).collect();
        Self { runtime, client: Grpc::new(channel), batches: work.batches(batch), shape, scores: Vec::new() }
    }
}

impl Contender for OverGrpc<'_> {
    fn name(&self) -> &'static str {
        "MLServer, gRPC"
    }

    fn call(&mut self, index: usize) {
        let request = InferRequest {
            model_name: "pipeline".to_owned(),
            inputs: vec![InputTensor {
                name: "x".to_owned(),
                datatype: "FP32".to_owned(),
                shape: self.shape.clone(),
                contents: Some(Contents {
                    fp32_contents: self.batches[index % self.batches.len()].to_vec(),
                    fp64_contents: Vec::new(),
                }),
            }],
            outputs: vec![RequestedOutput { name: "predict_proba".to_owned() }],
        };
        let response = self.runtime.block_on(async {
            self.client.ready().await.unwrap();
            let path = PathAndQuery::from_static("/inference.GRPCInferenceService/ModelInfer");
            let codec = ProstCodec::<InferRequest, InferResponse>::default();
            self.client.unary(tonic::Request::new(request), path, codec).await
        });
        let mut response = response.unwrap().into_inner();
        let contents = response.outputs.swap_remove(0).contents.unwrap();
        self.scores = contents.fp32_contents;
        #[expect(clippy::cast_possible_truncation, reason = "the scores are compared as f32")]
        self.scores.extend(contents.fp64_contents.iter().map(|v| *v as f32));
    }

    fn scores(&mut self) -> Option<Vec<f32>> {
        Some(self.scores.clone())
    }
}

/// One connection, one request after the other, over HTTP and JSON.
pub(crate) struct OverRest<'a> {
    stream: BufReader<TcpStream>,
    batches: Vec<&'a [f32]>,
    shape: Vec<usize>,
    scores: Vec<f32>,
}

impl<'a> OverRest<'a> {
    pub(crate) fn new(server: &MlServer, work: &'a Work, batch: usize) -> Self {
        let stream = TcpStream::connect(("127.0.0.1", server.http)).unwrap();
        stream.set_nodelay(true).unwrap();
        let (batches, shape) = (work.batches(batch), work.shape(batch));
        Self { stream: BufReader::new(stream), batches, shape, scores: Vec::new() }
    }
}

impl Contender for OverRest<'_> {
    fn name(&self) -> &'static str {
        "MLServer, REST"
    }

    fn call(&mut self, index: usize) {
        let data = self.batches[index % self.batches.len()];
        let body = json!({
            "inputs": [{ "name": "x", "datatype": "FP32", "shape": self.shape, "data": data }],
            "outputs": [{ "name": "predict_proba" }],
        })
        .to_string();
        let request = format!(
            "POST /v2/models/pipeline/infer HTTP/1.1\r\nhost: localhost\r\n\
             content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
            body.len()
        );
        self.stream.get_mut().write_all(request.as_bytes()).unwrap();
        let (status, body) = response(&mut self.stream).expect("a response");
        assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
        let body: Value = serde_json::from_slice(&body).unwrap();
        let data = body["outputs"][0]["data"].as_array().unwrap();
        #[expect(clippy::cast_possible_truncation, reason = "the scores are compared as f32")]
        let scores = data.iter().map(|v| v.as_f64().unwrap() as f32).collect();
        self.scores = scores;
    }

    fn scores(&mut self) -> Option<Vec<f32>> {
        Some(self.scores.clone())
    }
}

/// Reads one response of HTTP/1.1 whose length is stated.
fn response(stream: &mut BufReader<TcpStream>) -> Option<(u16, Vec<u8>)> {
    let mut line = String::new();
    stream.read_line(&mut line).ok()?;
    let status = line.split(' ').nth(1)?.parse().ok()?;
    let mut length = 0;
    loop {
        line.clear();
        stream.read_line(&mut line).ok()?;
        match line.trim_end().split_once(':') {
            None => break,
            Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                length = value.trim().parse().ok()?;
            }
            Some(_) => {}
        }
    }
    let mut body = vec![0; length];
    stream.read_exact(&mut body).ok()?;
    Some((status, body))
}

#[derive(Clone, PartialEq, prost::Message)]
struct InferRequest {
    #[prost(string, tag = "1")]
    model_name: String,
    #[prost(message, repeated, tag = "5")]
    inputs: Vec<InputTensor>,
    #[prost(message, repeated, tag = "6")]
    outputs: Vec<RequestedOutput>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InputTensor {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, tag = "2")]
    datatype: String,
    #[prost(int64, repeated, tag = "3")]
    shape: Vec<i64>,
    #[prost(message, optional, tag = "5")]
    contents: Option<Contents>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RequestedOutput {
    #[prost(string, tag = "1")]
    name: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct InferResponse {
    #[prost(message, repeated, tag = "5")]
    outputs: Vec<OutputTensor>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct OutputTensor {
    #[prost(message, optional, tag = "5")]
    contents: Option<Contents>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Contents {
    #[prost(float, repeated, tag = "6")]
    fp32_contents: Vec<f32>,
    #[prost(double, repeated, tag = "7")]
    fp64_contents: Vec<f64>,
}
