//! `XGBoost`'s own files, JSON and UBJSON, of versions 1 to 3, as `Booster.predict` reads them:
//! all trees count, `best_iteration` is no more than an attribute.

use std::sync::Arc;

use super::document::{Field, Value, Wrong};
use super::model::{Link, Parts, Scorer, TreeModel};
use super::xgboost_tree::{self, Layout};
use super::{starts_with_object_of, ubjson};
use crate::kernel::tree::builder::{Builder, MAX_FEATURES, MAX_TARGETS};
use crate::load::{LoadError, LoadOptions, Loader, Model, Payload};

/// Loads `model.json`.
#[derive(Debug)]
pub(super) struct XgboostJson;

/// Loads `model.ubj`.
#[derive(Debug)]
pub(super) struct XgboostUbj;

impl Loader for XgboostJson {
    fn format(&self) -> &'static str {
        "xgboost-json"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        starts_with_object_of(payload, &["learner", "version"])
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        let bytes = payload.into_bytes();
        let model = Value::from_json(&bytes, options.memory_budget).and_then(|document| {
            drop(bytes);
            read(&document, options.memory_budget)
        });
        finish("xgboost-json", model)
    }
}

impl Loader for XgboostUbj {
    fn format(&self) -> &'static str {
        "xgboost-ubj"
    }

    fn recognises(&self, payload: &Payload) -> bool {
        let start = payload.peek(64);
        // An object whose first name has a length of any width: `{L\0\0\0\0\0\0\0\x07learner`.
        let [b'{', of, ..] = start.as_slice() else { return false };
        matches!(of, b'i' | b'U' | b'I' | b'l' | b'L')
            && [&b"learner"[..], b"version"]
                .iter()
                .any(|name| start.windows(name.len()).take(12).any(|window| window == *name))
    }

    fn load(&self, payload: Payload, options: &LoadOptions) -> Result<Arc<dyn Model>, LoadError> {
        let bytes = payload.into_bytes();
        let model = ubjson::read(&bytes, options.memory_budget).and_then(|document| {
            drop(bytes);
            read(&document, options.memory_budget)
        });
        finish("xgboost-ubj", model)
    }
}

fn finish(format: &'static str, parts: Result<Parts, Wrong>) -> Result<Arc<dyn Model>, LoadError> {
    parts.map_err(|Wrong(reason)| LoadError::Malformed { format, reason }).map(TreeModel::build)
}

fn read(document: &Value, budget: u64) -> Result<Parts, Wrong> {
    let root = Field::root(document);
    let learner = root.get("learner")?;
    let params = learner.get("learner_model_param")?;
    let features = params.get("num_feature")?.count(MAX_FEATURES)?;
    let optional = |name| match params.find(name) {
        Some(field) => field.count(MAX_TARGETS),
        None => Ok(0),
    };
    let targets = optional("num_class")?.max(optional("num_target")?).max(1);
    if features == 0 {
        return Err(params.get("num_feature")?.expected("at least 1"));
    }
    let objective = learner.get("objective")?;
    let objective_name = objective.get("name")?;
    let objective = Objective::of(&objective_name)?;
    let base_score = params.get("base_score")?;
    let start = start(&base_score, &objective, targets)?;
    let booster = learner.get("gradient_booster")?;
    let name = booster.get("name")?;
    let scorer = match name.text()? {
        "gbtree" => {
            let model = booster.get("model")?;
            trees(&model, None, Layout { features, targets }, start, budget)?
        }
        "dart" => {
            let inner = booster.get("gbtree")?;
            let weights = booster.get("weight_drop")?;
            let model = inner.get("model")?;
            trees(&model, Some(&weights), Layout { features, targets }, start, budget)?
        }
        "gblinear" => {
            let model = booster.get("model")?;
            let weights = model.get("weights")?;
            let expected =
                (features + 1).checked_mul(targets).ok_or_else(|| weights.expected("fewer weights"))?;
            let weights = weights.exactly(expected)?.iter().copied().map(single).collect();
            // The linear booster knows one base score, even where the file has one for each class.
            let first = start.first().copied().unwrap_or_default();
            Scorer::Linear { weights, start: vec![first; targets] }
        }
        _ => return Err(name.expected("gbtree, dart or gblinear")),
    };
    Ok(Parts {
        library: "XGBoost",
        features,
        scorer,
        scale: 1.0,
        bias: Vec::new(),
        link: objective.link,
        labels: None,
    })
}

fn trees(
    model: &Field<'_>,
    drops: Option<&Field<'_>>,
    layout: Layout,
    start: Vec<f32>,
    budget: u64,
) -> Result<Scorer, Wrong> {
    let list = model.get("trees")?;
    let count = list.items()?.count();
    let groups = model.get("tree_info")?;
    let groups = groups.exactly(count)?;
    let drops = drops.map(|d| d.exactly(count)).transpose()?;
    let mut builder = Builder::new(budget);
    builder.allow_unreached();
    for (at, tree) in list.items()?.enumerate() {
        let group = groups.get(at).copied().unwrap_or_default();
        let group = super::document::count(group, layout.targets - 1).ok_or_else(|| {
            Wrong::new(format!("`tree_info[{at}]`: expected a group below {}, found {group}", layout.targets))
        })?;
        let factor = drops.and_then(|d| d.get(at)).copied().map_or(1.0, single);
        xgboost_tree::read(&tree, at, layout, group, factor, &mut builder)?;
    }
    let forest = builder.finish(layout.targets)?;
    Scorer::single("XGBoost", forest, start).map_err(Wrong)
}

/// `XGBoost` computes in `f32`.
#[expect(clippy::cast_possible_truncation, reason = "the file holds f32")]
pub(super) const fn single(value: f64) -> f32 {
    value as f32
}

/// The raw scores before the first tree, from `5E-1` (versions 1 and 2) or `[5E-1]`, one for all
/// targets or one for each.
fn start(field: &Field<'_>, objective: &Objective, targets: usize) -> Result<Vec<f32>, Wrong> {
    let scores: Vec<f64> = match field.value {
        Value::Numbers(numbers) => numbers.clone(),
        Value::Text(text) if text.trim_start().starts_with('[') => {
            let inner = text.trim().strip_prefix('[').and_then(|t| t.strip_suffix(']'));
            let parsed =
                inner.map(|t| t.split(',').map(|n| n.trim().parse()).collect::<Result<Vec<f64>, _>>());
            parsed.and_then(Result::ok).ok_or_else(|| field.expected("a list of numbers"))?
        }
        _ => vec![field.number()?],
    };
    let scores: Vec<f32> = scores.into_iter().map(|s| objective.to_raw(single(s))).collect();
    match scores.as_slice() {
        [one] => Ok(vec![*one; targets]),
        all if all.len() == targets => Ok(scores),
        all => Err(Wrong::new(format!("`{field}`: expected 1 or {targets} values, found {}", all.len()))),
    }
}

/// What an objective means for prediction.
struct Objective {
    link: Link,
    base: Base,
}

/// The scale on which the file states the base score.
enum Base {
    Raw,
    Probability,
    Mean,
}

impl Objective {
    fn of(name: &Field<'_>) -> Result<Self, Wrong> {
        let (link, base) = match name.text()? {
            "binary:logistic" | "reg:logistic" => (Link::Logistic { scale: 1.0 }, Base::Probability),
            "binary:hinge" => (Link::Step, Base::Raw),
            "multi:softprob" => (Link::Softmax, Base::Raw),
            "multi:softmax" => (Link::Top, Base::Raw),
            "count:poisson" | "reg:gamma" | "reg:tweedie" | "survival:cox" | "survival:aft" => {
                (Link::Exp, Base::Mean)
            }
            "binary:logitraw"
            | "reg:squarederror"
            | "reg:linear"
            | "reg:squaredlogerror"
            | "reg:pseudohubererror"
            | "reg:absoluteerror"
            | "reg:quantileerror"
            | "reg:expectileerror"
            | "rank:pairwise"
            | "rank:ndcg"
            | "rank:map" => (Link::Identity, Base::Raw),
            _ => return Err(name.expected("an objective of XGBoost")),
        };
        Ok(Self { link, base })
    }

    fn to_raw(&self, base: f32) -> f32 {
        match self.base {
            Base::Raw => base,
            Base::Probability => -(1.0 / base - 1.0).ln(),
            Base::Mean => base.ln(),
        }
    }
}
