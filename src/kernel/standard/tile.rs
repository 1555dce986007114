//! Sums of products for a few rows and panels of columns at a time, in vector registers: the loop
//! that layers and convolutions spend their time in.

use pulp::Simd;

/// The columns that are computed together; zeros fill the last ones up.
pub(crate) const PANEL: usize = 16;

/// The steps of a product that are done between two looks at where it ends.
const STEPS: usize = 4;

/// The sums of `R` rows and `P` panels, each `V` registers wide.
pub(crate) type Sums<S, const R: usize, const P: usize, const V: usize> = [[[<S as Simd>::f32s; V]; P]; R];

/// Adds the products of `R` stretches of rows with as many rows of `P` panels. The sums go in and
/// out by value: behind a reference the compiler would write them to memory after each row.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds, or slices cut to the length of the loop")]
pub(crate) fn accumulate<S: Simd, const R: usize, const P: usize, const V: usize>(
    simd: S,
    x: [&[f32]; R],
    panels: [&[[f32; PANEL]]; P],
    mut sums: Sums<S, R, P, V>,
) -> Sums<S, R, P, V> {
    let deep = panels.iter().map(|p| p.len()).min().unwrap_or(0);
    let deep = x.iter().map(|x| x.len()).min().unwrap_or(0).min(deep);
    // A few steps at a time: each row is then looked at once for all of them, not once for each.
    let (mut rows, mut rows_rest) = ([[].as_slice(); R], [[].as_slice(); R]);
    for r in 0..R {
        (rows[r], rows_rest[r]) = x[r][..deep].as_chunks::<STEPS>();
    }
    let (mut tables, mut tables_rest) = ([[].as_slice(); P], [[].as_slice(); P]);
    for p in 0..P {
        (tables[p], tables_rest[p]) = panels[p][..deep].as_chunks::<STEPS>();
    }
    for k in 0..deep / STEPS {
        let (mut a, mut b) = ([&[0.0; STEPS]; R], [&[[0.0; PANEL]; STEPS]; P]);
        for r in 0..R {
            a[r] = &rows[r][k];
        }
        for p in 0..P {
            b[p] = &tables[p][k];
        }
        for step in 0..STEPS {
            for p in 0..P {
                let (b, _) = S::as_simd_f32s(&b[p][step]);
                for r in 0..R {
                    let a = simd.splat_f32s(a[r][step]);
                    for v in 0..V {
                        sums[r][p][v] = simd.mul_add_e_f32s(a, b[v], sums[r][p][v]);
                    }
                }
            }
        }
    }
    for k in 0..deep % STEPS {
        for p in 0..P {
            let (b, _) = S::as_simd_f32s(&tables_rest[p][k]);
            for r in 0..R {
                let a = simd.splat_f32s(rows_rest[r][k]);
                for v in 0..V {
                    sums[r][p][v] = simd.mul_add_e_f32s(a, b[v], sums[r][p][v]);
                }
            }
        }
    }
    sums
}

/// [`accumulate`] of values that do not lie beside each other: `offsets` tells where in each stretch.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds, or slices cut to the length of the loop")]
pub(crate) fn accumulate_at<S: Simd, const R: usize, const P: usize, const V: usize>(
    simd: S,
    x: [&[f32]; R],
    offsets: &[usize],
    panels: [&[[f32; PANEL]]; P],
    mut sums: Sums<S, R, P, V>,
) -> Sums<S, R, P, V> {
    let deep = panels.iter().map(|p| p.len()).min().unwrap_or(0).min(offsets.len());
    let span = x.iter().map(|x| x.len()).min().unwrap_or(0);
    let (mut rows, mut tables) = ([[].as_slice(); R], [[].as_slice(); P]);
    for r in 0..R {
        rows[r] = &x[r][..span];
    }
    for p in 0..P {
        tables[p] = &panels[p][..deep];
    }
    for (k, at) in offsets[..deep].iter().enumerate() {
        for p in 0..P {
            let (b, _) = S::as_simd_f32s(&tables[p][k]);
            for r in 0..R {
                let a = simd.splat_f32s(rows[r][*at]);
                for v in 0..V {
                    sums[r][p][v] = simd.mul_add_e_f32s(a, b[v], sums[r][p][v]);
                }
            }
        }
    }
    sums
}

/// [`accumulate_at`] of stretches that begin `C` values apart, of which `x` are all, up to `C` values
/// for each behind the last offset.
#[inline(always)]
#[expect(clippy::indexing_slicing, reason = "constant bounds, or slices cut to the length of the loop")]
pub(crate) fn accumulate_line<S: Simd, const R: usize, const P: usize, const V: usize, const C: usize>(
    simd: S,
    x: &[f32],
    offsets: &[usize],
    panels: [&[[f32; PANEL]]; P],
    mut sums: Sums<S, R, P, V>,
) -> Sums<S, R, P, V> {
    let deep = panels.iter().map(|p| p.len()).min().unwrap_or(0).min(offsets.len());
    let mut tables = [[].as_slice(); P];
    for p in 0..P {
        tables[p] = &panels[p][..deep];
    }
    for (k, at) in offsets[..deep].iter().enumerate() {
        let stretch = x.get(*at..*at + R * C).unwrap_or(&[]);
        let Some(stretch) = stretch.as_chunks::<C>().0.first_chunk::<R>() else { return sums };
        for p in 0..P {
            let (b, _) = S::as_simd_f32s(&tables[p][k]);
            for r in 0..R {
                let a = simd.splat_f32s(stretch[r][0]);
                for v in 0..V {
                    sums[r][p][v] = simd.mul_add_e_f32s(a, b[v], sums[r][p][v]);
                }
            }
        }
    }
    sums
}

#[inline(always)]
pub(crate) fn load<S: Simd>(simd: S, values: &[f32]) -> S::f32s {
    match S::as_simd_f32s(values) {
        ([all], _) => *all,
        _ => simd.partial_load_f32s(values),
    }
}

#[inline(always)]
pub(crate) fn store<S: Simd>(simd: S, to: &mut [f32], values: S::f32s) {
    if to.len() == S::F32_LANES {
        if let ([all], _) = S::as_mut_simd_f32s(to) {
            *all = values;
        }
    } else {
        simd.partial_store_f32s(to, values);
    }
}
