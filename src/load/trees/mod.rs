//! The tree libraries' own files, straight from `save_model`: `XGBoost` JSON and UBJSON,
//! `LightGBM` text, `CatBoost` cbm and JSON.
//!
//! Such a model (but one of `CatBoost` with categories of text) takes `features`, `f32` of shape `[rows, features]` with NaN for a missing value
//! and a category as its code, and answers `scores`, what the library's own `predict` gives.

use std::sync::Arc;

use super::{Loader, Payload};

mod catboost;
mod document;
mod lightgbm;
mod lightgbm_tree;
mod model;
mod ubjson;
mod xgboost;
mod xgboost_tree;

/// The loaders of this family.
pub(crate) fn loaders() -> Vec<Arc<dyn Loader>> {
    vec![
        Arc::new(xgboost::XgboostJson),
        Arc::new(xgboost::XgboostUbj),
        Arc::new(lightgbm::Lightgbm),
        Arc::new(catboost::Catboost),
    ]
}

/// True where the bytes begin with a JSON object whose first name is one of these.
fn starts_with_object_of(payload: &Payload, names: &[&str]) -> bool {
    let start = payload.peek(256);
    let text = start.trim_ascii_start();
    let Some(text) = text.strip_prefix(b"{") else { return false };
    let Some(text) = text.trim_ascii_start().strip_prefix(b"\"") else { return false };
    names
        .iter()
        .any(|name| text.strip_prefix(name.as_bytes()).is_some_and(|rest| rest.first() == Some(&b'"')))
}

#[cfg(test)]
mod amplification_tests;
#[cfg(test)]
mod tests;
