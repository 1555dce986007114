//! The suite on real Kafka.

mod broker;
mod conformance;
mod numbers;
mod publishing;
mod twins;
