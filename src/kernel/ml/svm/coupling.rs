//! From the probabilities of pairs of classes to one probability for each class.
//!
//! Wu, Lin and Weng, "Probability estimates for multi-class classification by pairwise coupling"
//! (2004), the second method, solved by the iteration of its algorithm 2; the stopping rule is that of
//! libsvm, whose answers the exported models are compared with.

/// Scratch of one run: nothing is allocated for each row.
#[derive(Debug, Default)]
pub(super) struct Coupling {
    /// `[classes, classes]`: how likely the row's class is, of this row's and this column's.
    pairwise: Vec<f64>,
    /// The quadratic form whose minimum the probabilities are.
    form: Vec<f64>,
    /// The form times the current probabilities.
    product: Vec<f64>,
    probabilities: Vec<f64>,
}

impl Coupling {
    pub(super) fn new(classes: usize) -> Self {
        let square = classes.saturating_mul(classes);
        Self {
            pairwise: vec![0.0; square],
            form: vec![0.0; square],
            product: vec![0.0; classes],
            probabilities: vec![0.0; classes],
        }
    }

    /// States that of classes `i` and `j`, `i` has this probability. Libsvm keeps them off 0 and 1.
    pub(super) fn set(&mut self, i: usize, j: usize, probability: f64) {
        let classes = self.probabilities.len();
        let probability = probability.clamp(1e-7, 1.0 - 1e-7);
        if let Some(cell) = self.pairwise.get_mut(i * classes + j) {
            *cell = probability;
        }
        if let Some(cell) = self.pairwise.get_mut(j * classes + i) {
            *cell = 1.0 - probability;
        }
    }

    /// The probabilities of all classes. A pair that is NaN makes them all NaN.
    pub(super) fn solve(&mut self) -> &[f64] {
        let classes = self.probabilities.len();
        if classes == 0 || self.pairwise.iter().any(|p| p.is_nan()) {
            self.probabilities.fill(f64::NAN);
            return &self.probabilities;
        }
        self.set_form(classes);
        #[expect(clippy::cast_precision_loss, reason = "classes are few")]
        let count = classes as f64;
        self.probabilities.fill(1.0 / count);
        for _ in 0..classes.max(100) {
            let total = self.set_product(classes);
            let error = self.product.iter().map(|p| (p - total).abs()).fold(0.0, f64::max);
            if error < 0.005 / count {
                break;
            }
            self.improve(classes, total);
        }
        &self.probabilities
    }

    /// On the diagonal the squares of how likely the other class is, off it the negated products.
    fn set_form(&mut self, classes: usize) {
        let pairwise = &self.pairwise;
        let of = |i: usize, j: usize| pairwise.get(i * classes + j).copied().unwrap_or(0.0);
        for (i, row) in self.form.chunks_exact_mut(classes).enumerate() {
            for (j, cell) in row.iter_mut().enumerate() {
                *cell = if i == j {
                    (0..classes).filter(|k| *k != i).map(|k| of(k, i) * of(k, i)).sum()
                } else {
                    -of(j, i) * of(i, j)
                };
            }
        }
    }

    /// Computes the product anew, against drift, and gives the value of the form.
    fn set_product(&mut self, classes: usize) -> f64 {
        let rows = self.product.iter_mut().zip(self.form.chunks_exact(classes));
        for (product, row) in rows {
            *product = row.iter().zip(&self.probabilities).map(|(q, p)| q * p).sum();
        }
        self.product.iter().zip(&self.probabilities).map(|(q, p)| q * p).sum()
    }

    /// One pass over the classes: each probability in turn goes where the form is smallest, and all
    /// are scaled to a sum of one.
    fn improve(&mut self, classes: usize, mut total: f64) {
        for (t, row) in self.form.chunks_exact(classes).enumerate() {
            let (Some(diagonal), Some(product)) = (row.get(t).copied(), self.product.get(t).copied()) else {
                return;
            };
            let step = (total - product) / diagonal;
            let scale = 1.0 + step;
            if let Some(p) = self.probabilities.get_mut(t) {
                *p += step;
            }
            total = (total + step * (step * diagonal + 2.0 * product)) / (scale * scale);
            for ((product, p), q) in self.product.iter_mut().zip(&mut self.probabilities).zip(row) {
                *product = (*product + step * q) / scale;
                *p /= scale;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consistent_pairs_give_the_probabilities_they_come_from() {
        let truth = [0.5, 0.3, 0.2];
        let mut coupling = Coupling::new(3);
        for (i, j) in [(0, 1), (0, 2), (1, 2)] {
            coupling.set(i, j, truth[i] / (truth[i] + truth[j]));
        }
        let found = coupling.solve();
        assert!((found.iter().sum::<f64>() - 1.0).abs() < 1e-9);
        // The iteration stops once the form is flat to 0.005 / classes.
        assert!(found.iter().zip(truth).all(|(f, t)| (f - t).abs() < 0.01), "{found:?}");
    }

    #[test]
    fn a_pair_that_is_nan_makes_all_nan() {
        let mut coupling = Coupling::new(2);
        coupling.set(0, 1, f64::NAN);
        assert!(coupling.solve().iter().all(|p| p.is_nan()));
    }
}
