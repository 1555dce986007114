//! The plot: latency above, memory below, over the same time.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use crate::{PHASES, Phase, Run};

const WIDTH: f64 = 900.0;
const LEFT: f64 = 70.0;
const RIGHT: f64 = 20.0;
const PANEL: f64 = 200.0;
const TOPS: [f64; 2] = [50.0, 310.0];

/// Writes the plot of a run.
pub(crate) fn write(path: &Path, run: &Run, phase: Duration) {
    let seconds = phase.as_secs_f64() * PHASES.len() as f64;
    let mut svg = format!(
        r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} 550" font-family="sans-serif" font-size="12">
<rect width="{WIDTH}" height="550" fill="white"/>
<text x="{LEFT}" y="22" font-size="15">One-row predictions of a small model while a 100 MB model is swapped in every second (shaded)</text>
"#
    );
    let x = |at: f64| LEFT + at / seconds * (WIDTH - LEFT - RIGHT);
    for (index, _) in PHASES.iter().enumerate().filter(|(_, kind)| **kind == Phase::Swapping) {
        let start = x(index as f64 * phase.as_secs_f64());
        let width = x((index + 1) as f64 * phase.as_secs_f64()) - start;
        for top in TOPS {
            let _ = writeln!(
                svg,
                r##"<rect x="{start:.1}" y="{top}" width="{width:.1}" height="{PANEL}" fill="#eef2fa"/>"##
            );
        }
    }
    latency(&mut svg, run, x);
    memory(&mut svg, run, x);
    let bottom = TOPS[1] + PANEL;
    let step = (seconds / 10.0).ceil();
    let mut at = 0.0;
    while at <= seconds {
        let _ = writeln!(
            svg,
            r#"<text x="{:.1}" y="{}" text-anchor="middle">{at:.0} s</text>"#,
            x(at),
            bottom + 18.0
        );
        at += step;
    }
    svg.push_str("</svg>\n");
    std::fs::write(path, svg).unwrap();
}

/// On a logarithmic scale: a spike must be seen, and so must its absence.
fn latency(svg: &mut String, run: &Run, x: impl Fn(f64) -> f64) {
    let all = run.buckets.iter().flat_map(|b| [b.p50_ns, b.p999_ns]).filter(|ns| *ns > 0);
    let us = |ns: u64| ns.max(1) as f64 / 1e3;
    let low = all.clone().min().map_or(1.0, us).log10().floor();
    let high = all.max().map_or(1.0, us).log10().ceil().max(low + 1.0);
    let y = |us: f64| TOPS[0] + PANEL * (1.0 - (us.log10() - low) / (high - low));
    let mut decade = low;
    while decade <= high {
        let value = 10_f64.powf(decade);
        grid(svg, y(value), &format!("{value} us"));
        decade += 1.0;
    }
    let points = |pick: fn(&crate::Bucket) -> u64| {
        run.buckets.iter().map(|b| (x(b.at.as_secs_f64()), y(us(pick(b))))).collect::<Vec<_>>()
    };
    line(svg, "#1a56b0", &points(|b| b.p50_ns));
    line(svg, "#c0392b", &points(|b| b.p999_ns));
    legend(svg, TOPS[0], &[("#1a56b0", "p50 of each 100 ms"), ("#c0392b", "p99.9 of each 100 ms")]);
}

fn memory(svg: &mut String, run: &Run, x: impl Fn(f64) -> f64) {
    let mb = |bytes: u64| bytes as f64 / 1e6;
    let high = run.memory.iter().map(|m| mb(m.bytes)).fold(100.0, f64::max);
    let step = (high / 4.0 / 100.0).ceil() * 100.0;
    let y = |mb: f64| TOPS[1] + PANEL * (1.0 - mb / (step * 4.0));
    for tick in 0..=4 {
        let value = f64::from(tick) * step;
        grid(svg, y(value), &format!("{value:.0} MB"));
    }
    let points: Vec<_> = run.memory.iter().map(|m| (x(m.at.as_secs_f64()), y(mb(m.bytes)))).collect();
    line(svg, "#2e7d32", &points);
    legend(svg, TOPS[1], &[("#2e7d32", "resident memory of the process")]);
}

fn grid(svg: &mut String, y: f64, label: &str) {
    let _ = writeln!(
        svg,
        r##"<line x1="{LEFT}" x2="{}" y1="{y:.1}" y2="{y:.1}" stroke="#ccc"/><text x="{}" y="{:.1}" text-anchor="end">{label}</text>"##,
        WIDTH - RIGHT,
        LEFT - 8.0,
        y + 4.0
    );
}

fn line(svg: &mut String, colour: &str, points: &[(f64, f64)]) {
    let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        r#"<polyline fill="none" stroke="{colour}" stroke-width="1.2" points="{}"/>"#,
        points.join(" ")
    );
}

fn legend(svg: &mut String, top: f64, entries: &[(&str, &str)]) {
    for ((colour, text), index) in entries.iter().zip(0_u32..) {
        let x = LEFT + f64::from(index) * 190.0;
        let y = top - 8.0;
        let _ = writeln!(svg, r#"<text x="{x}" y="{y}" fill="{colour}">{text}</text>"#);
    }
}
