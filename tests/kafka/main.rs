//! The suite on real Kafka.

mod broker;
mod conformance;
mod twins;
