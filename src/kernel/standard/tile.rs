//! Sums of products for a few rows and panels of columns at a time, in vector registers: the loop
//! that layers and convolutions spend their time in.

use pulp::Simd;

/// The columns that are computed together; zeros fill the last ones up.
pub(crate) const PANEL: usize = 16;

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
    let panels = panels.map(|p| &p[..deep]);
    let x = x.map(|x| &x[..deep]);
    for k in 0..deep {
        for p in 0..P {
            let (b, _) = S::as_simd_f32s(&panels[p][k]);
            for r in 0..R {
                let a = simd.splat_f32s(x[r][k]);
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
