//! `CatBoost`'s own files: what `save_model` writes, and the JSON of `save_model(format="json")`.
//!
//! A model without categorical features takes `features`, as the other tree libraries' do. So does one whose
//! categories are all whole numbers, which come as such; one with categories of text takes `float_features` and
//! `cat_features`, as `CatBoost`'s own appliers do, each with the features of its kind in their order.

use std::sync::Arc;

mod cbm;
mod city_hash;
mod ctr;
mod encoder;
mod features;
mod flatbuffer;
mod model;
mod trees;

use self::ctr::Tables;
use self::features::Features;
use self::model::CategoricalModel;
use super::document::{Field, Value, Wrong};
use super::model::{Link, Parts, Scorer, TreeModel};
use super::starts_with_object_of;
use crate::kernel::tree::builder::{Builder, MAX_FEATURES};
use crate::load::{LoadError, LoadOptions, Loader, Model, Payload};
use crate::signature::Labels;

/// Loads `model.cbm` and `model.json`.
#[derive(Debug)]
pub(super) struct Catboost;

impl Loader for Catboost {
    fn format(&self) -> &'static str {
        "catboost"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        let names = ["features_info", "model_info", "oblivious_trees", "ctr_data", "trees", "scale_and_bias"];
        payload.peek(4) == cbm::MAGIC || starts_with_object_of(payload, &names)
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        let bytes = payload.into_bytes();
        document(bytes.as_ref(), options.memory_budget)
            .and_then(|(document, tables)| {
                drop(bytes);
                read(&document, tables, options.memory_budget)
            })
            .map_err(|Wrong(reason)| LoadError::Malformed { format: "catboost", reason })
    }
}

/// The document of a file in either form, and its tables of target statistics.
fn document(bytes: &[u8], budget: u64) -> Result<(Value, Tables), Wrong> {
    if bytes.starts_with(cbm::MAGIC) {
        return cbm::read(bytes, budget);
    }
    let document = Value::from_json(bytes, budget)?;
    let tables = ctr::tables(&Field::root(&document), budget)?;
    Ok((document, tables))
}

fn read(document: &Value, tables: Tables, budget: u64) -> Result<Arc<dyn Model>, Wrong> {
    let root = Field::root(document);
    let (scale, mut bias) = scale_and_bias(&root)?;
    let mut features = Features::read(&root, tables)?;
    let mut builder = Builder::new(budget);
    let targets = if let Some(list) = root.find("oblivious_trees") {
        trees::oblivious(&list, &mut features, &mut builder)?
    } else {
        let list = root.get("trees")?;
        trees::asymmetric(&list, &mut features, &mut builder)?
    };
    let targets = targets.unwrap_or(bias.len().max(1));
    match bias.as_slice() {
        [one] if targets > 1 => bias = vec![*one; targets],
        all if all.is_empty() || all.len() == targets => {}
        all => {
            return Err(Wrong::new(format!(
                "`scale_and_bias`: expected {targets} biases, found {}",
                all.len()
            )));
        }
    }
    let forest = builder.finish(targets)?;
    let labels = labels(&root)?;
    let link = link(&root, targets, labels.is_some())?;
    let scorer = Scorer::Double(Scorer::double("CatBoost", forest).map_err(Wrong)?);
    let encoder = features.into_encoder().finish();
    let parts = Parts { library: "CatBoost", features: encoder.width(), scorer, scale, bias, link, labels };
    if encoder.is_plain() {
        return Ok(TreeModel::build(parts));
    }
    Ok(Arc::new(CategoricalModel::new(encoder, TreeModel::new(parts))))
}

/// `[scale, [bias, ..]]`, `[scale, bias]` in old files, or nothing.
fn scale_and_bias(root: &Field<'_>) -> Result<(f64, Vec<f64>), Wrong> {
    let Some(field) = root.find("scale_and_bias") else { return Ok((1.0, Vec::new())) };
    match field.value {
        Value::Numbers(numbers) if let [scale, bias @ ..] = numbers.as_slice() => Ok((*scale, bias.to_vec())),
        Value::List(values) => match values.as_slice() {
            [Value::Number(scale), Value::Numbers(bias)] => Ok((*scale, bias.clone())),
            _ => Err(field.expected("a scale and a list of biases")),
        },
        _ => Err(field.expected("a scale and a list of biases")),
    }
}

/// The names of the classes, where it is a classifier.
fn labels(root: &Field<'_>) -> Result<Option<Labels>, Wrong> {
    let names = |field: Field<'_>| match field.value {
        Value::Numbers(numbers) if numbers.is_empty() => Ok(None),
        Value::Numbers(numbers) => {
            let whole = |n: &f64| {
                #[expect(clippy::cast_possible_truncation, reason = "checked to come back")]
                let int = *n as i64;
                #[expect(clippy::cast_precision_loss, clippy::float_cmp, reason = "exactly whole, or text")]
                let exact = int as f64 == *n;
                exact.then_some(int)
            };
            let ints: Option<Vec<i64>> = numbers.iter().map(whole).collect();
            Ok(Some(ints.map_or_else(
                || Labels::Strings(numbers.iter().map(ToString::to_string).collect()),
                Labels::Ints,
            )))
        }
        Value::List(_) => {
            let names =
                field.items()?.map(|item| item.text().map(str::to_owned)).collect::<Result<_, _>>()?;
            Ok(Some(Labels::Strings(names)))
        }
        _ => Err(field.expected("a list of class names")),
    };
    let Some(info) = root.find("model_info") else { return Ok(None) };
    let Some(params) = info.find("class_params") else { return Ok(None) };
    params.find("class_names").map_or(Ok(None), names)
}

/// What the loss, or without one the classes, make of raw scores.
fn link(root: &Field<'_>, targets: usize, classes: bool) -> Result<Link, Wrong> {
    let loss = match loss(root)? {
        Some(loss) => loss,
        None if classes && targets == 1 => "Logloss".to_owned(),
        None if classes => "MultiClass".to_owned(),
        None => return Ok(Link::Identity),
    };
    Ok(match loss.as_str() {
        "Logloss" | "CrossEntropy" => Link::BothClasses,
        "MultiClass" => Link::Softmax,
        "MultiClassOneVsAll" | "MultiLogloss" | "MultiCrossEntropy" => Link::Logistic { scale: 1.0 },
        "Poisson" | "Tweedie" => Link::Exp,
        "RMSEWithUncertainty" => Link::MeanAndVariance,
        _ => Link::Identity,
    })
}

/// The name of the loss function: an object with a type, or text with parameters behind a colon.
fn loss(root: &Field<'_>) -> Result<Option<String>, Wrong> {
    let Some(info) = root.find("model_info") else { return Ok(None) };
    let Some(params) = info.find("params") else { return Ok(None) };
    let Some(loss) = params.find("loss_function") else { return Ok(None) };
    let name = match loss.find("type") {
        Some(name) => name.text()?,
        None => loss.text()?,
    };
    Ok(name.split(':').next().map(str::to_owned))
}
