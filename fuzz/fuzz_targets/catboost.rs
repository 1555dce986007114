#![no_main]

use libfuzzer_sys::fuzz_target;
use modelswap_fuzz::{Panics, load_and_run};

fuzz_target!(|bytes: &[u8]| load_and_run("catboost", bytes, Panics::AreFindings));
