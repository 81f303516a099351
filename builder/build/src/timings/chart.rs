//! The steps on a time axis.

use std::fmt::Write;

use super::{Drawn, duration, escape, seconds, shorten};

const WIDTH: f64 = 1160.0;
/// Of a step's line.
const LINE: f64 = 22.0;
/// For the names, at the left.
const NAMES: f64 = 330.0;
/// For the durations, at the right.
const MARGIN: f64 = 70.0;
const AXIS: f64 = 26.0;
/// Letters of a name.
const NAME_LENGTH: usize = 46;

pub(super) fn draw(drawn: &Drawn) -> String {
    let mut order: Vec<_> = drawn.steps.iter().collect();
    order.sort_by_key(|(id, step)| (step.begun, **id));
    let height = AXIS + LINE * order.len() as f64 + 6.0;
    let total = drawn.total.as_secs_f64();
    let at = |time: f64| NAMES + (WIDTH - NAMES - MARGIN) * time / total;
    let mut out = format!("<svg class=\"chart\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" role=\"img\">\n");
    let step = tick(total);
    let mut time = 0.0;
    while time <= total {
        let x = at(time);
        let _ = writeln!(
            out,
            "<line class=\"tick\" x1=\"{x:.1}\" x2=\"{x:.1}\" y1=\"{AXIS}\" y2=\"{height}\"/>\
             <text class=\"tick\" x=\"{x:.1}\" y=\"16\">{}</text>",
            seconds(std::time::Duration::from_secs_f64(time))
        );
        time += step;
    }
    for (line, (id, step)) in order.into_iter().enumerate() {
        let y = AXIS + LINE * line as f64;
        let (begun, took) = (step.begun.as_secs_f64(), duration(step).as_secs_f64());
        let width = (at(begun + took) - at(begun)).max(2.0);
        let middle = y + 15.0;
        let _ = writeln!(
            out,
            "<g class=\"{}\"><title>{}</title><text x=\"{}\" y=\"{middle}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{:.1}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" rx=\"2\"/>\
             <text class=\"time\" x=\"{:.1}\" y=\"{middle}\">{}</text></g>",
            drawn.class(*id),
            escape(&step.name),
            NAMES - 10.0,
            escape(&shorten(&step.name, NAME_LENGTH)),
            at(begun),
            y + 3.0,
            LINE - 6.0,
            at(begun) + width + 5.0,
            if step.cached { "cached".to_owned() } else { seconds(duration(step)) },
        );
    }
    out + "</svg>\n"
}

/// A round distance that gives at most eight ticks.
fn tick(total: f64) -> f64 {
    let mut step = 0.001;
    loop {
        for factor in [1.0, 2.0, 5.0] {
            if total / (step * factor) <= 8.0 {
                return step * factor;
            }
        }
        step *= 10.0;
    }
}
