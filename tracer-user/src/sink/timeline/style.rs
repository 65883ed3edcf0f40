//! How wide the text may be and whether it has colour: decided here and nowhere else.

use std::{
    env,
    io::{self, IsTerminal},
};

use anstyle::{AnsiColor, Style};

/// The width where there is no terminal to ask.
const FALLBACK_WIDTH: usize = 80;
/// Below, tables and lanes cannot be read; lines wrap instead.
const LEAST_WIDTH: usize = 60;

/// Time stamps and other things of little weight.
pub(super) const FAINT: Style = Style::new().dimmed();
/// Headings and phases.
pub(super) const STRONG: Style = Style::new().bold();
/// Losses, and what is wrong.
pub(super) const BAD: Style = AnsiColor::Red.on_default().bold();
/// What may be a loss.
pub(super) const DOUBT: Style = AnsiColor::Yellow.on_default();
/// What is well.
pub(super) const GOOD: Style = AnsiColor::Green.on_default().bold();
/// What is neither.
pub(super) const NEUTRAL: Style = AnsiColor::Blue.on_default().bold();
/// Connections.
pub(super) const TRAFFIC: Style = AnsiColor::Cyan.on_default();
/// As the terminal has it.
pub(super) const PLAIN: Style = Style::new();

/// Width and colour.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    width: usize,
    colour: bool,
}

impl Look {
    /// Text of this width, with or without colour.
    #[must_use]
    pub fn new(width: usize, colour: bool) -> Self {
        Self { width: width.max(LEAST_WIDTH), colour }
    }

    /// What fits stdout: the terminal's width, and colour unless `NO_COLOR` or `TERM=dumb` is set.
    #[must_use]
    pub fn of_stdout() -> Self {
        let terminal = io::stdout().is_terminal();
        let size = terminal.then(terminal_size::terminal_size).flatten();
        let width = size.map_or(FALLBACK_WIDTH, |(width, _)| width.0.into());
        let refused = env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
            || env::var_os("TERM").is_none_or(|term| term == "dumb");
        Self::new(width, terminal && !refused)
    }

    /// Columns.
    pub(super) fn width(self) -> usize {
        self.width
    }

    /// Text in a style, if there is colour.
    pub(super) fn paint(self, style: Style, text: &str) -> String {
        if self.colour && style != PLAIN { format!("{style}{text}{style:#}") } else { text.to_owned() }
    }
}

/// Columns that a text takes.
pub(super) fn columns(text: &str) -> usize {
    unicode_width::UnicodeWidthStr::width(text)
}

/// A text cut or filled to exactly these columns.
pub(super) fn pad(text: &str, width: usize) -> String {
    let mut cut = shorten(text, width);
    cut.extend(std::iter::repeat_n(' ', width.saturating_sub(columns(&cut))));
    cut
}

/// A text cut to these columns; an ellipsis says so.
pub(super) fn shorten(text: &str, width: usize) -> String {
    if columns(text) <= width {
        return text.to_owned();
    }
    let mut cut = String::new();
    for character in text.chars() {
        let mut longer = cut.clone();
        longer.push(character);
        if columns(&longer) >= width {
            break;
        }
        cut = longer;
    }
    cut.push('…');
    cut
}

/// A text in lines of at most these columns, broken between words.
pub(super) fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split(' ') {
        match lines.last_mut() {
            Some(line) if columns(line) + 1 + columns(word) <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_fit_their_columns() {
        assert_eq!(shorten("frontend", 8), "frontend");
        assert_eq!(shorten("frontends", 8), "fronten…");
        assert_eq!(pad("日本", 5), "日本 ");
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
    }

    #[test]
    fn without_colour_there_are_no_escapes() {
        assert_eq!(Look::new(80, false).paint(BAD, "x"), "x");
        assert!(Look::new(80, true).paint(BAD, "x").starts_with('\x1b'));
    }
}
