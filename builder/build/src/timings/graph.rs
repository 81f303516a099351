//! The DAG: each step to the right of everything it needs.

use std::collections::BTreeMap;
use std::fmt::Write;

use super::{Drawn, duration, escape, seconds, shorten};
use crate::progress::VertexId;

const BOX_WIDTH: f64 = 200.0;
const BOX_HEIGHT: f64 = 40.0;
const COLUMN: f64 = 250.0;
const ROW: f64 = 56.0;
const EDGE: f64 = 12.0;
/// Letters in a box.
const NAME_LENGTH: usize = 30;

pub(super) fn draw(drawn: &Drawn) -> String {
    let places = places(drawn);
    let columns = places.values().map(|(column, _)| column + 1).max().unwrap_or(0);
    let rows = places.values().map(|(_, row)| row + 1).max().unwrap_or(0);
    let (width, height) = (columns as f64 * COLUMN + 2.0 * EDGE - 50.0, rows as f64 * ROW + 2.0 * EDGE);
    let corner = |id: &VertexId| {
        let (column, row) = places[id];
        (EDGE + column as f64 * COLUMN, EDGE + row as f64 * ROW)
    };
    let mut out = format!(
        "<div class=\"scroll\"><svg class=\"graph\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" role=\"img\">\n"
    );
    for (id, step) in &drawn.steps {
        for input in step.inputs.iter().filter(|input| places.contains_key(input)) {
            let ((from_x, from_y), (to_x, to_y)) = (corner(input), corner(id));
            let (from_x, from_y, to_y) = (from_x + BOX_WIDTH, from_y + BOX_HEIGHT / 2.0, to_y + BOX_HEIGHT / 2.0);
            let bend = f64::midpoint(from_x, to_x);
            let on_path = drawn.critical.contains(id) && drawn.critical.contains(input);
            let class = if on_path { "edge critical" } else { "edge" };
            let _ = writeln!(
                out,
                "<path class=\"{class}\" d=\"M{from_x} {from_y} C{bend} {from_y} {bend} {to_y} {to_x} {to_y}\"/>"
            );
        }
    }
    for (id, step) in &drawn.steps {
        let (x, y) = corner(id);
        let took = if step.cached { "cached".to_owned() } else { seconds(duration(step)) };
        let _ = writeln!(
            out,
            "<g class=\"{}\"><title>{}</title><rect x=\"{x}\" y=\"{y}\" width=\"{BOX_WIDTH}\" height=\"{BOX_HEIGHT}\" \
             rx=\"4\"/><text x=\"{}\" y=\"{}\">{}</text><text class=\"time\" x=\"{}\" y=\"{}\">{took}</text></g>",
            drawn.class(*id),
            escape(&step.name),
            x + 8.0,
            y + 17.0,
            escape(&shorten(&step.name, NAME_LENGTH)),
            x + 8.0,
            y + 32.0,
        );
    }
    out + "</svg></div>\n"
}

/// Column and row of each step: the column behind the last of its inputs, the row of its first input where it is free.
fn places(drawn: &Drawn) -> BTreeMap<VertexId, (usize, usize)> {
    let mut places: BTreeMap<VertexId, (usize, usize)> = BTreeMap::new();
    // How many rows of each column are taken, from the top.
    let mut taken: Vec<usize> = Vec::new();
    // Every step comes after its inputs.
    for (id, step) in &drawn.steps {
        let inputs: Vec<(usize, usize)> = step.inputs.iter().filter_map(|input| places.get(input).copied()).collect();
        let column = inputs.iter().map(|(column, _)| column + 1).max().unwrap_or(0);
        if taken.len() <= column {
            taken.resize(column + 1, 0);
        }
        let row = taken[column].max(inputs.first().map_or(0, |(_, row)| *row));
        taken[column] = row + 1;
        places.insert(*id, (column, row));
    }
    places
}
