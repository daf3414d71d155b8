//! A picture of one table: the ratio of each row, its spread over the pairs, and its target.

use std::path::Path;

use anyhow::anyhow;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use crate::figure::{Figure, Spread, Target};

const WIDTH: u32 = 760;
const ROW: u32 = 34;
const MARGIN: i32 = 40;
const NAMES: i32 = 230;
const OURS: RGBColor = RGBColor(0x2b, 0x6c, 0xb0);
const INK: RGBColor = RGBColor(0x55, 0x55, 0x55);
const GOAL: RGBColor = RGBColor(0xc0, 0x39, 0x2b);

/// One figure of a picture.
struct Bar {
    name: String,
    spread: Spread,
    goal: Option<f64>,
    label: String,
}

/// The figure's ratio; without one, its value as a share of its target. `None` if it has neither.
fn bar(figure: &Figure) -> Option<Bar> {
    let name = figure.bench.clone();
    if let Some(spread) = figure.ratio() {
        let goal = match figure.target {
            Target::AtLeast(ratio) | Target::AtMost(ratio) => Some(ratio),
            Target::Below(_) | Target::ValueAtMost(_) | Target::Reported => None,
        };
        return Some(Bar { name, spread, goal, label: format!("{:.2}", spread.median) });
    }
    let (Target::Below(target) | Target::ValueAtMost(target)) = figure.target else { return None };
    let Spread { min, median, max } = Spread::of(&figure.ours.values)?;
    let label = format!("{median:.2} {}", figure.unit.label());
    let spread = Spread { min: min / target, median: median / target, max: max / target };
    Some(Bar { name, spread, goal: Some(1.0), label })
}

/// Draws the figures that have a ratio or a target into `file`. False, and no file, if there are none.
///
/// # Errors
/// The file cannot be written.
pub(super) fn draw(name: &str, figures: &[&Figure], file: &Path) -> anyhow::Result<bool> {
    let bars: Vec<_> = figures.iter().filter_map(|figure| bar(figure)).collect();
    if bars.is_empty() {
        return Ok(false);
    }
    let values = figures.iter().all(|figure| figure.peer.is_none());
    let ends = bars.iter().flat_map(|bar| [Some(bar.spread.max), bar.goal, Some(1.0)]);
    let most = ends.flatten().fold(0.0, f64::max) * 1.1;
    let scale = f64::from(WIDTH as i32 - NAMES - 70) / most;
    let at = |ratio: f64| NAMES + (ratio * scale) as i32;
    let height = 2 * MARGIN as u32 + ROW * bars.len() as u32;
    let root = SVGBackend::new(file, (WIDTH, height)).into_drawing_area();
    let failed = |error: DrawingAreaErrorKind<_>| anyhow!("{}: {error}", file.display());
    root.fill(&WHITE).map_err(failed)?;
    let text = |size: i32, color: RGBColor, pos| {
        TextStyle { color: color.to_backend_color(), ..TextStyle::from(("sans-serif", size).into_font()) }
            .pos(pos)
    };
    let left = Pos::new(HPos::Left, VPos::Center);
    let right = Pos::new(HPos::Right, VPos::Center);
    let title = if values {
        format!("{name}: values as shares of their targets, median and spread; red: target")
    } else {
        format!("{name}: ratio, median and spread over the pairs; red: target; grey: 1")
    };
    root.draw(&Text::new(title, (10, 18), text(14, INK, left))).map_err(failed)?;
    let bottom = height as i32 - MARGIN + 6;
    root.draw(&PathElement::new([(at(1.0), MARGIN - 4), (at(1.0), bottom)], INK.stroke_width(1)))
        .map_err(failed)?;
    for (index, Bar { name, spread: ratio, goal, label }) in bars.iter().enumerate() {
        let top = MARGIN + (ROW * index as u32) as i32;
        let middle = top + 12;
        root.draw(&Text::new(name.clone(), (NAMES - 10, middle), text(14, BLACK, right))).map_err(failed)?;
        let bar = Rectangle::new([(at(0.0), top + 3), (at(ratio.median), top + 21)], OURS.filled());
        root.draw(&bar).map_err(failed)?;
        let spread =
            PathElement::new([(at(ratio.min), middle), (at(ratio.max), middle)], BLACK.stroke_width(2));
        root.draw(&spread).map_err(failed)?;
        if let Some(goal) = *goal {
            let mark = PathElement::new([(at(goal), top - 1), (at(goal), top + 25)], GOAL.stroke_width(3));
            root.draw(&mark).map_err(failed)?;
        }
        let end = at(ratio.max.max(ratio.median)) + 8;
        root.draw(&Text::new(label.clone(), (end, middle), text(13, BLACK, left))).map_err(failed)?;
    }
    root.present().map_err(failed)?;
    Ok(true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::samples;

    #[test]
    fn a_value_is_drawn_as_a_share_of_its_target() {
        let value = |target| Figure { peer: None, target, ..samples::figure() };
        let drawn = bar(&value(Target::ValueAtMost(20.0))).unwrap();
        assert_eq!((drawn.spread.median, drawn.goal), (0.55, Some(1.0)));
        assert_eq!(drawn.label, "11.00 Mpps");
        assert!(bar(&value(Target::Reported)).is_none());
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(draw("swap", &[&value(Target::Below(20.0))], file.path()).unwrap());
        assert!(std::fs::read_to_string(file.path()).unwrap().contains("shares of their targets"));
    }
}
