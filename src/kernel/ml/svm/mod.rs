//! Support vector machines: `SVMClassifier` and `SVMRegressor`.

mod classifier;
mod coupling;
mod function;
mod regressor;

pub(super) use classifier::SvmClassifier;
pub(super) use regressor::SvmRegressor;
