//! A model format of one's own: a lookup table, `country,risk` a line, for a model that takes texts.
//!
//! `cargo run --example custom_format` registers it, publishes two versions and a broken one to a
//! topic in memory, and scores with what is live after each. With Kafka only the topic differs:
//! `Models::subscribe("models")` takes the same loader.

use std::collections::HashMap;
use std::error::Error;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use modelswap::load::{LoadError, LoadOptions, Loader, Model, Payload, RunError};
use modelswap::topic::MemoryTopic;
use modelswap::wire::{FORMAT_HEADER, Header, SHA256_HEADER, VERSION_HEADER};
use modelswap::{
    Dim, ElementType, ModelScorer, Models, PredictError, Scorer, Sha256Digest, Shape, Signature, Tensor,
    TensorSpec, TensorView,
};

/// Makes [`LookupTable`]s of files of the format `lookup`.
struct LookupLoader;

impl Loader for LookupLoader {
    fn format(&self) -> &'static str {
        "lookup"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        payload.peek(13) == b"country,risk\n"
    }

    fn load(&self, payload: Payload, _options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        let malformed = |reason: String| LoadError::Malformed { format: "lookup", reason };
        let bytes = payload.into_bytes();
        let text = std::str::from_utf8(&bytes).map_err(|error| malformed(error.to_string()))?;
        let mut risks = HashMap::new();
        for (number, line) in (1..).zip(text.lines()).skip(1) {
            let (country, risk) = line
                .split_once(',')
                .and_then(|(country, risk)| Some((country, risk.parse::<f32>().ok()?)))
                .ok_or_else(|| malformed(format!("line {number}: expected country,risk, found `{line}`")))?;
            risks.insert(country.to_owned(), risk);
        }
        let spec = |name, element| TensorSpec::new(name, element, &[Dim::Any, Dim::Fixed(1)]);
        let signature =
            Signature::new(vec![spec("country", ElementType::String)], vec![spec("risk", ElementType::F32)]);
        Ok(Arc::new(LookupTable { signature, risks }))
    }
}

/// The risk of a country; NaN of one that is not in the table.
struct LookupTable {
    signature: Signature,
    risks: HashMap<String, f32>,
}

impl Model for LookupTable {
    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn run(&self, inputs: &[TensorView<'_>], outputs: &mut [Tensor]) -> Result<(), RunError> {
        // The caller has checked the inputs against the signature.
        let ([countries], [risks]) = (inputs, outputs) else { return Err(RunError::NoScores) };
        let countries = countries.values::<String>().unwrap_or(&[]);
        let risks = risks.reset::<f32>(Shape::matrix(countries.len(), 1));
        for (risk, country) in risks.iter_mut().zip(countries) {
            *risk = self.risks.get(country).copied().unwrap_or(f32::NAN);
        }
        Ok(())
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn Error>> {
    let topic = MemoryTopic::new("models", 1);
    let models =
        Models::subscribe_to(Arc::new(topic.clone())).model("risk").loader(Arc::new(LookupLoader)).start()?;
    let risk = models.scorer("risk")?;
    let mut status = models.watch_status();

    println!("publish v1: two countries");
    publish(&topic, "v1", "country,risk\nNZ,0.1\nXX,0.9\n");
    risk.ready(Duration::from_secs(30)).await?;
    assert_eq!(score(&risk, ["NZ", "XX"])?, [0.1, 0.9]);
    assert!(score(&risk, ["unknown"])?[0].is_nan());

    println!("publish v2: one of them is riskier now");
    publish(&topic, "v2", "country,risk\nNZ,0.4\nXX,0.9\n");
    let live = status.wait_for(|status| {
        let live = status.model("risk").and_then(|model| model.live.as_ref());
        live.is_some_and(|live| live.provenance.version() == "v2")
    });
    live.await.ok_or("the subscription has ended")?;
    assert_eq!(score(&risk, ["NZ", "XX"])?, [0.4, 0.9]);

    println!("publish v3: a line of it is broken");
    publish(&topic, "v3", "country,risk\nNZ;0.4\n");
    let rejected = status
        .wait_for(|status| status.model("risk").is_some_and(|model| model.last_rejected.is_some()))
        .await
        .ok_or("the subscription has ended")?;
    let reason = rejected.model("risk").and_then(|model| model.last_rejected.as_ref());
    let reason = reason.ok_or("v3 was not rejected")?.to_string();
    println!("  rejected: {reason}");
    assert!(reason.contains("line 2: expected country,risk, found `NZ;0.4`"));
    assert_eq!(score(&risk, ["NZ", "XX"])?, [0.4, 0.9], "v2 goes on");

    // What does not fit the signature is an error of the call.
    assert!(matches!(risk.predict(&[1.0_f32]), Err(PredictError::WrongType { .. })));
    models.shutdown().await;
    Ok(())
}

/// Scores one row for each country, and shows which version did it.
fn score<const N: usize>(risk: &ModelScorer, countries: [&str; N]) -> Result<Vec<f32>, PredictError> {
    let prediction = risk.predict(&Tensor::column(countries.map(str::to_owned).to_vec()))?;
    println!("  {}: {countries:?} -> {:?}", prediction.provenance().version(), prediction.values());
    Ok(prediction.values().to_vec())
}

/// A plain publish: one record, as any Kafka client can write it.
fn publish(topic: &MemoryTopic, version: &str, file: &'static str) {
    let header = |name: &str, value: String| Header { name: name.to_owned(), value: value.into() };
    let headers = [
        header(SHA256_HEADER, Sha256Digest::of([file.as_bytes()]).to_string()),
        header(VERSION_HEADER, version.to_owned()),
        header(FORMAT_HEADER, "lookup".to_owned()),
    ];
    topic.append(b"risk", Some(Bytes::from_static(file.as_bytes())), &headers);
}
