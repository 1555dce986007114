//! How much memory a swap takes at its peak, and what is left of it: by what the system says of this
//! process, so a binary of its own with a single test.
#![cfg(all(target_os = "linux", feature = "onnx"))]

mod feed;
mod files;
mod resident;
#[cfg(feature = "tensorflow")]
mod tensorflow;

use std::sync::Arc;

use feed::{Feed, Variant};
use files::LAYERS;
use modelswap::{Models, Scorer};
use resident::{code, peak, reset_peak, resident};

/// How often a model is swapped.
const SWAPS: usize = 3;

/// Above what was there before: at most 1.6 times the file, at the first load and at every swap; and
/// nothing of it stays.
#[tokio::test]
async fn a_swap_takes_little_more_than_the_new_version_and_leaves_nothing_behind() {
    for (name, format, make) in [
        ("layers", "onnx", files::layers as fn(u8) -> Vec<u8>),
        ("one_layer", "onnx", files::one_layer),
        ("table", "onnx", files::table),
        ("beside_a_convolution", "onnx", files::beside_a_convolution),
        #[cfg(feature = "tensorflow")]
        ("frozen", "tensorflow", tensorflow::frozen),
        #[cfg(feature = "tensorflow")]
        ("saved_model", "saved-model", tensorflow::saved_model),
    ] {
        let variants = [1, 2].map(|version| Variant::new(&make(version), format));
        let file = make(1).len() as u64;
        assert!(file > 20_000_000, "{name} is too small to tell anything");
        let feed = Feed::new(name, variants);
        let models = Models::subscribe_to(Arc::new(feed.clone())).model(name).start().unwrap();
        let scorer = models.scorer(name).unwrap();
        let mut watch = models.watch_status();
        let mut early = 0;
        for swap in 0..=SWAPS {
            let (before, code_before) = (resident(), code());
            reset_peak();
            let version = feed.publish();
            let over = watch.wait_for(|s| {
                let is_live = s.live_version(name) == Some(&*version);
                s.model(name).is_some_and(|m| m.last_rejected.is_some() || (is_live && m.retired == 0))
            });
            let status = over.await.unwrap();
            assert_eq!(status.live_version(name), Some(&*version), "{name}: {status}");
            // The first load of a kind reads the code for it.
            let code_read = code().saturating_sub(code_before);
            let taken = peak().saturating_sub(before + code_read) as f64 / file as f64;
            println!("{name}, swap {swap}: {taken:.2} times the file above {before}");
            assert!(taken <= 1.6, "{name}, swap {swap}: {taken:.2} times the file above what was there");
            scorer.predict(&vec![0.5_f32; LAYERS[0]]).unwrap();
            if swap == 1 {
                early = resident();
            }
        }
        let grown = resident().saturating_sub(early) as f64 / file as f64;
        assert!(grown <= 0.1, "{name}: {grown:.2} times the file more than after the first swap");
        models.shutdown().await;
    }
}
