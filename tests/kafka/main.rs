//! The suite on real Kafka.

mod broker;
mod children;
mod conformance;
mod contents;
mod distance;
mod fleet;
mod foreign;
mod numbers;
mod outages;
mod publishing;
mod subscribers;
mod twins;
