//! The few pieces of HTML that the report is made of. Text gets in by [`escaped`] only.

use crate::view::figures::printable;

/// Text from anywhere, as text in HTML and in attributes, without control characters.
pub(super) fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in printable(text).chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            c => out.push(c),
        }
    }
    out
}

/// An element with HTML in it; no class when that is empty.
pub(super) fn tag(name: &str, class: &str, html: &str) -> String {
    let class = if class.is_empty() { String::new() } else { format!(" class=\"{class}\"") };
    format!("<{name}{class}>{html}</{name}>\n")
}

/// A section with its heading, a line about it, and HTML.
pub(super) fn section(heading: &str, about: &str, html: &str) -> String {
    let about = if about.is_empty() { String::new() } else { tag("p", "faint", &escaped(about)) };
    tag("section", "", &(tag("h2", "", &escaped(heading)) + &about + html))
}

/// How a column looks.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Look {
    /// Figures: to the right, never broken.
    Figure,
    /// Short text.
    Text,
    /// Names and paths: broken anywhere.
    Name,
}

/// A table; of more than `most` rows the rest is only counted.
pub(super) fn table(columns: &[(&str, Look)], rows: &[Vec<String>], most: usize) -> String {
    let class = |look: Look| match look {
        Look::Figure => " class=\"n\"",
        Look::Text => "",
        Look::Name => " class=\"name\"",
    };
    let head: String = columns
        .iter()
        .map(|(name, look)| {
            format!("<th{}>{}</th>", if *look == Look::Figure { " class=\"n\"" } else { "" }, escaped(name))
        })
        .collect();
    let row = |cells: &Vec<String>| {
        let cells: String = cells
            .iter()
            .zip(columns)
            .map(|(cell, (_, look))| format!("<td{}>{}</td>", class(*look), escaped(cell)))
            .collect();
        format!("<tr>{cells}</tr>\n")
    };
    let body: String = rows.iter().take(most).map(row).collect();
    let rest = rows.len().saturating_sub(most);
    let more = if rest > 0 { tag("p", "faint", &format!("and {rest} more")) } else { String::new() };
    format!(
        "<div class=\"scroll\"><table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table></div>\n{more}"
    )
}
