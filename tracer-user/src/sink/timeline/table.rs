//! Tables, labelled facts and indented text, none wider than there is room.

use super::{
    names,
    style::{FAINT, Look, STRONG, columns, pad, shorten, wrap},
};

/// Columns of what stands before each fact.
const LABEL: usize = 11;
/// Columns before a table.
const INDENT: usize = 4;

/// A text in lines that begin in this column.
pub(super) fn indented(look: Look, indent: usize, text: &str) -> Vec<String> {
    let margin = " ".repeat(indent);
    wrap(text, look.width().saturating_sub(indent))
        .into_iter()
        .map(|line| format!("{margin}{line}"))
        .collect()
}

/// A label and a text beside it.
pub(super) fn fact(look: Look, label: &str, text: &str) -> Vec<String> {
    let label = names::clean(label);
    let indent = columns(&label).clamp(LABEL, look.width() / 3);
    let lines = wrap(text, look.width().saturating_sub(indent + 4)).into_iter().enumerate();
    let lines = lines.map(|(number, line)| {
        let label = if number == 0 { label.as_str() } else { "" };
        format!("  {}  {line}", look.paint(STRONG, &pad(label, indent)))
    });
    lines.collect()
}

/// Rows in columns, the first to the right. The last takes what room there is, and is cut there,
/// between words.
pub(super) fn table(look: Look, heads: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    if rows.is_empty() {
        return Vec::new();
    }
    let widest = |at: usize| {
        let cells = rows.iter().filter_map(|row| row.get(at)).map(|cell| columns(cell));
        cells.chain(heads.get(at).map(|head| columns(head))).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heads.len()).map(widest).collect();
    let line = |cells: Vec<&str>| {
        let mut line = String::new();
        for (at, (cell, width)) in cells.iter().zip(&widths).enumerate() {
            let room = look.width().saturating_sub(INDENT + columns(&line));
            let cell = match at {
                0 => format!("{}{cell}", " ".repeat(width.saturating_sub(columns(cell)))),
                _ if at + 1 == widths.len() => format!("  {}", first_words(cell, room.saturating_sub(2))),
                _ => format!("  {}", pad(cell, *width)),
            };
            line.push_str(&cell);
        }
        shorten(line.trim_end(), look.width().saturating_sub(INDENT))
    };
    let head = look.paint(FAINT, &line(heads.to_vec()));
    let rows = rows.iter().map(|row| line(row.iter().map(String::as_str).collect()));
    std::iter::once(head).chain(rows).map(|line| format!("{}{line}", " ".repeat(INDENT))).collect()
}

/// As many words as there is room for; an ellipsis stands for the others.
fn first_words(text: &str, room: usize) -> String {
    if columns(text) <= room {
        return text.to_owned();
    }
    match wrap(text, room.saturating_sub(2)).into_iter().next() {
        Some(words) if columns(&words) + 2 <= room => format!("{words} …"),
        _ => shorten(text, room),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_is_cut_between_its_items() {
        assert_eq!(first_words("10.0.0.1:1, 10.0.0.2:2, …", 16), "10.0.0.1:1, …");
        assert_eq!(first_words("10.0.0.1:1, …", 16), "10.0.0.1:1, …");
    }

    #[test]
    fn facts_hang_below_themselves() {
        let lines = fact(Look::new(60, false), "app", &"word ".repeat(12));
        assert_eq!(lines[0].find("word"), Some(15));
        assert_eq!(lines[1].find("word"), Some(15));
    }
}
