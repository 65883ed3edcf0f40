//! The plot of memory by live connections.

use std::{fs, path::PathBuf};

use anyhow::{Context, Result, anyhow};
use plotters::prelude::*;

use crate::shell;

/// Where it is kept until it is recorded.
const DRAWN: &str = "target/bench-growth.svg";
const RECORDED: &str = "docs/performance-growth.svg";
const COLOURS: [RGBColor; 2] = [RGBColor(0x1b, 0x6e, 0xc2), RGBColor(0xc2, 0x5a, 0x1b)];

/// A line of the plot.
pub(crate) struct Series {
    /// What it shows.
    pub name: &'static str,
    /// Connections, and MiB.
    pub points: Vec<(f64, f64)>,
}

/// Draws it.
pub(crate) fn draw(series: &[Series]) -> Result<()> {
    let mut svg = String::new();
    chart(series, &mut svg).map_err(|error| anyhow!("cannot draw the plot: {error}"))?;
    let path = path(DRAWN)?;
    fs::write(&path, svg).with_context(|| format!("cannot write {DRAWN}"))
}

/// Puts the plot that was drawn beside the document.
pub(crate) fn record() -> Result<()> {
    fs::copy(path(DRAWN)?, path(RECORDED)?).with_context(|| format!("cannot write {RECORDED}"))?;
    Ok(())
}

fn path(path: &str) -> Result<PathBuf> {
    Ok(shell::workspace()?.join(path))
}

fn chart(series: &[Series], svg: &mut String) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::with_string(svg, (800, 420)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .margin(16)
        .margin_right(40)
        .caption("Peak memory by live connections", ("sans-serif", 18))
        .x_label_area_size(44)
        .y_label_area_size(56)
        .build_cartesian_2d((1e3..1e6).log_scale(), (1f64..1e3).log_scale())?;
    let label = |value: &f64| format!("{value}");
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .x_desc("live connections")
        .y_desc("MiB")
        .x_label_formatter(&label)
        .y_label_formatter(&label)
        .draw()?;
    for (Series { name, points }, colour) in series.iter().zip(COLOURS) {
        let line = LineSeries::new(points.iter().copied(), colour.stroke_width(2)).point_size(3);
        chart
            .draw_series(line)?
            .label(*name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 20, y)], colour.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(BLACK)
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_series_is_drawn_and_named() {
        let series = ["one", "two"].map(|name| Series { name, points: vec![(1e3, 2.0), (1e6, 200.0)] });
        let mut svg = String::new();
        chart(&series, &mut svg).unwrap_or_else(|error| panic!("{error}"));
        assert!(svg.contains("one") && svg.contains("two") && svg.contains("live connections"), "{svg}");
        assert_eq!(svg.matches("<circle").count(), 4);
    }
}
