//! Contenders that take short turns, so that a noisy machine hits all of them alike.

use std::time::{Duration, Instant};

use serde::Serialize;

/// Something that does a piece of work.
pub(crate) trait Contender {
    fn name(&self) -> &str;

    /// Does it once, for batch `index` of those that it was made for, around and around.
    fn call(&mut self, index: usize);

    /// The scores of the last call; `None` where there is nothing to compare.
    fn scores(&mut self) -> Option<Vec<f32>> {
        None
    }
}

/// What one contender reached.
#[derive(Clone, Debug, Serialize)]
pub(crate) struct Figure {
    pub work: String,
    pub batch: usize,
    pub contender: String,
    pub p50_ns: f64,
    pub p99_ns: f64,
    pub rows_per_s: f64,
}

/// How long a turn is, and how many there are.
#[derive(Clone, Copy)]
pub(crate) struct Turns {
    pub length: Duration,
    pub count: usize,
    /// How many calls are timed together; 1 but for what is shorter than the clock is fine.
    pub calls: u32,
}

impl Turns {
    /// Turns that take so many seconds in all for each contender.
    pub(crate) fn of(seconds: f64) -> Self {
        let length = Duration::from_millis(20);
        let count = (seconds / length.as_secs_f64()).ceil().max(3.0);
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a small number")]
        Self { length, count: count as usize, calls: 1 }
    }

    pub(crate) const fn calls(self, calls: u32) -> Self {
        Self { calls, ..self }
    }

    /// Lets the contenders work in turns, and answers what each reached.
    pub(crate) fn run(
        self,
        work: &str,
        batch: usize,
        contenders: &mut [Box<dyn Contender + '_>],
    ) -> Vec<Figure> {
        agree(work, contenders);
        let clock = clock_ns();
        let mut samples = vec![Vec::new(); contenders.len()];
        for contender in &mut *contenders {
            self.turn(&mut **contender, &mut Vec::new());
        }
        for _ in 0..self.count {
            for (contender, samples) in contenders.iter_mut().zip(&mut samples) {
                self.turn(&mut **contender, samples);
            }
        }
        let figure = |(contender, samples): (&Box<dyn Contender + '_>, &mut Vec<f64>)| {
            samples.sort_by(f64::total_cmp);
            let corrected = |ns: f64| (ns - clock).max(1.0) / f64::from(self.calls);
            let mean = samples.iter().sum::<f64>() / samples.len() as f64;
            Figure {
                work: work.to_owned(),
                batch,
                contender: contender.name().to_owned(),
                p50_ns: corrected(quantile(samples, 0.5)),
                p99_ns: corrected(quantile(samples, 0.99)),
                rows_per_s: batch as f64 * 1e9 / corrected(mean),
            }
        };
        contenders.iter().zip(&mut samples).map(figure).collect()
    }

    fn turn(self, contender: &mut dyn Contender, samples: &mut Vec<f64>) {
        let turn = Instant::now();
        let mut index = samples.len();
        // The first call of a turn finds the caches full of the others' models.
        for _ in 0..3 {
            contender.call(index);
            if turn.elapsed() > self.length {
                break;
            }
        }
        loop {
            let start = Instant::now();
            for _ in 0..self.calls {
                contender.call(index);
                index += 1;
            }
            samples.push(start.elapsed().as_nanos() as f64);
            if turn.elapsed() >= self.length {
                return;
            }
        }
    }
}

/// Sorted samples' quantile.
pub(crate) fn quantile(sorted: &[f64], q: f64) -> f64 {
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "within the samples")]
    let index = (q * (sorted.len() as f64 - 1.0)).round() as usize;
    sorted.get(index).copied().unwrap_or(f64::NAN)
}

/// What it costs to look at the clock twice.
fn clock_ns() -> f64 {
    let mut samples: Vec<f64> = (0..10_000).map(|_| Instant::now().elapsed().as_nanos() as f64).collect();
    samples.sort_by(f64::total_cmp);
    quantile(&samples, 0.5)
}

/// Contenders that do not give the same scores do not do the same work.
fn agree(work: &str, contenders: &mut [Box<dyn Contender + '_>]) {
    let mut first: Option<(String, Vec<f32>)> = None;
    for contender in contenders {
        contender.call(0);
        let Some(found) = contender.scores() else { continue };
        match &first {
            None => first = Some((contender.name().to_owned(), found)),
            Some((name, expected)) => {
                let close = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-4 + 1e-3 * b.abs();
                let agrees = expected.len() == found.len() && expected.iter().zip(&found).all(close);
                assert!(agrees, "{work}: {name} and {} differ:\n{expected:?}\n{found:?}", contender.name());
            }
        }
    }
}
