//! The page as a browser shows it: at two widths, in light and dark, by keyboard.

use std::fs;

use anyhow::{Context, Result, ensure};
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::{Value, json};

use super::{
    devtools::Chromium,
    page::{Page, artefacts},
};

/// A screen of a desk and one of a phone.
const WIDTHS: [u32; 2] = [1280, 400];

/// Lanes with their names and sizes; texts that lie on each other or leave their lane.
const MEASURE: &str = "(() => {
  const lanes = [...document.querySelectorAll('.lane[data-lane]')].map(lane => {
    const box = lane.querySelector('svg').getBoundingClientRect();
    const texts = [...lane.querySelectorAll('text')].map(text => text.getBoundingClientRect()).filter(one => one.width > 0);
    const outside = texts.filter(one => one.left < box.left - 1 || one.right > box.right + 1).length;
    texts.sort((one, other) => one.left - other.left);
    const onto = texts.filter((one, at) => at > 0 && one.left < texts[at - 1].right).length;
    return { name: lane.dataset.lane, kind: lane.classList[1], width: box.width, height: box.height, outside, onto };
  });
  const ticks = [...document.querySelectorAll('.axis svg')].map(axis => {
    const texts = [...axis.querySelectorAll('text')].map(text => text.getBoundingClientRect());
    return texts.filter((one, at) => at > 0 && one.left < texts[at - 1].right + 2).length;
  });
  return { lanes, ticks, wide: document.documentElement.scrollWidth, window: innerWidth, hacked: typeof hacked };
})()";

/// Opens the page in every way, and keeps a screenshot of each.
pub fn check(name: &str, page: &Page) -> Result<()> {
    let mut browser = Chromium::start()?;
    let url = format!("file://{}", page.path.display());
    for width in WIDTHS {
        let size = json!({"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": false});
        browser.call("Emulation.setDeviceMetricsOverride", &size)?;
        browser.open(&url)?;
        browser.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")?;
        let measured = browser.evaluate(MEASURE)?;
        sound(page, &measured, width).with_context(|| format!("{width} pixels wide: {measured:#}"))?;
        for scheme in ["light", "dark"] {
            let media = json!({"features": [{"name": "prefers-color-scheme", "value": scheme}]});
            browser.call("Emulation.setEmulatedMedia", &media)?;
            screenshot(&mut browser, &format!("{name}-{width}-{scheme}"))?;
        }
        let complaints = browser.complaints();
        ensure!(complaints.is_empty(), "the browser complains: {complaints:?}");
    }
    keyboard(&mut browser)
}

fn sound(page: &Page, measured: &Value, width: u32) -> Result<()> {
    let lanes = measured["lanes"].as_array().context("no lanes")?;
    let names = |kind: &str| {
        let lanes = lanes.iter().filter(|lane| lane["kind"] == kind);
        lanes.map(|lane| lane["name"].as_str().unwrap_or_default()).collect::<Vec<_>>()
    };
    ensure!(names("container").len() == page.containers.len(), "lanes of containers are missing");
    ensure!(names("peer").len() == page.peers, "{} lanes of peers, not {}", names("peer").len(), page.peers);
    for lane in lanes {
        let size = |key: &str| lane[key].as_f64().unwrap_or(0.0);
        ensure!(
            size("width") > f64::from(width) * 0.5 && size("height") > 10.0,
            "no room for a lane: {lane}"
        );
        ensure!(lane["outside"] == 0 && lane["onto"] == 0, "labels lie on each other or outside: {lane}");
    }
    let ticks = measured["ticks"].as_array().context("no axis")?;
    ensure!(ticks.iter().all(|onto| *onto == 0), "marks of the axis lie on each other");
    ensure!(measured["wide"] == measured["window"], "the page must be scrolled sideways");
    ensure!(measured["hacked"] == "undefined", "a name was run as a script");
    Ok(())
}

/// The arrow keys go along a lane, and what they come to is told.
fn keyboard(browser: &mut Chromium) -> Result<()> {
    browser.evaluate("document.querySelector('.lane.container svg').focus()")?;
    let mut told = Vec::new();
    for _ in 0..2 {
        for kind in ["keyDown", "keyUp"] {
            let key =
                json!({"type": kind, "key": "ArrowRight", "code": "ArrowRight", "windowsVirtualKeyCode": 39});
            browser.call("Input.dispatchKeyEvent", &key)?;
        }
        told.push(browser.evaluate("detail.hidden ? '' : detail.textContent")?);
    }
    let told: Vec<&str> = told.iter().filter_map(Value::as_str).collect();
    ensure!(told.iter().all(|text| text.contains(" at ")) && told[0] != told[1], "by keyboard: {told:?}");
    Ok(())
}

fn screenshot(browser: &mut Chromium, name: &str) -> Result<()> {
    let shot = browser.call("Page.captureScreenshot", &json!({"captureBeyondViewport": true}))?;
    let image = STANDARD.decode(shot["data"].as_str().context("no picture")?)?;
    Ok(fs::write(artefacts()?.join(format!("{name}.png")), image)?)
}
