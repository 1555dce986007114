//! Rows through [`Bits`], a block of them at a time.

use pulp::{Simd, WithSimd};
use smallvec::{SmallVec, smallvec};

use super::LANES;
use super::bits::{Bits, Block, Lanes};
use super::ensemble::{BLOCK_FEATURES, Ensemble};
use super::keyed::Keyed;
use super::leaves::Score;

/// What testing a split for [`LANES`] rows costs is about a fifth of what walking a row through a
/// tree does; a tree costs as much as these many splits beside.
const SPLITS_FOR_A_ROW: usize = 5;
const SPLITS_FOR_A_TREE: usize = 6;

impl<S: Score> Ensemble<S> {
    /// Tests all splits for [`LANES`] rows at a time; the last rows, where they are too few for
    /// that to pay, walk.
    pub(super) fn bits(
        &self,
        (bits, payloads, walk): (&Bits, &[u32], &Keyed),
        rows: &[f32],
        width: usize,
        scores: &mut [S],
    ) {
        let targets = self.targets;
        let pays = |rows: usize| bits.mean_splits() + SPLITS_FOR_A_TREE <= SPLITS_FOR_A_ROW * rows;
        if !pays(scores.len() / targets) {
            return self.keyed(walk, rows, width, scores);
        }
        let mut block: SmallVec<[[f32; LANES]; BLOCK_FEATURES]> = smallvec![[0.0; LANES]; bits.width()];
        let mut sums: SmallVec<[Lanes<S>; 4]> = smallvec![Lanes([S::default(); LANES]); targets];
        let arch = pulp::Arch::new();
        for (rows, scores) in rows.chunks(LANES * width).zip(scores.chunks_mut(LANES * targets)) {
            let count = rows.len() / width;
            if !pays(count) {
                self.keyed(walk, rows, width, scores);
                return;
            }
            for (lane, row) in rows.chunks_exact(width).enumerate() {
                for (values, value) in block.iter_mut().zip(row) {
                    if let Some(slot) = values.get_mut(lane) {
                        *slot = *value;
                    }
                }
            }
            let (block, sums) = (block.as_slice(), sums.as_mut_slice());
            arch.dispatch(Tested { ensemble: self, bits, payloads, block, sums, scores });
        }
    }
}

/// A block of rows through [`Bits`], with instructions as wide as the processor has.
struct Tested<'a, S> {
    ensemble: &'a Ensemble<S>,
    bits: &'a Bits,
    payloads: &'a [u32],
    block: &'a Block,
    sums: &'a mut [Lanes<S>],
    scores: &'a mut [S],
}

impl<S: Score> WithSimd for Tested<'_, S> {
    type Output = ();

    #[inline(always)]
    fn with_simd<V: Simd>(self, _: V) {
        let Self { ensemble, bits, payloads, block, sums, scores } = self;
        let Ensemble { leaves, fold, targets, .. } = ensemble;
        if !ensemble.inline {
            bits.for_each_tree(block, |tree, ends| leaves.fold_rows(*fold, tree, ends, scores, *targets));
            return;
        }
        for (sums, start) in sums.iter_mut().zip(&ensemble.start) {
            *sums = Lanes([*start; LANES]);
        }
        bits.sum(block, payloads, |tree| leaves.target(tree), sums);
        for (lane, scores) in scores.chunks_exact_mut(*targets).enumerate() {
            for (score, sums) in scores.iter_mut().zip(&*sums) {
                *score = sums.0.get(lane).copied().unwrap_or_default();
            }
        }
    }
}
