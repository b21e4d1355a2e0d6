//! The report as one HTML file: style within, drawings within, no script, nothing to fetch.

use std::fmt::Write as _;

use super::document::{Block, Mark, Table, Verdict};

const STYLE: &str = include_str!("style.css");

pub(super) fn render(blocks: &[Block]) -> String {
    let title = blocks
        .iter()
        .find_map(|block| if let Block::Heading(1, text) = block { Some(text.as_str()) } else { None });
    let mut out = String::from("<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n");
    out.push_str("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    out.push_str("<meta name=\"color-scheme\" content=\"light dark\">\n");
    // Also a page that is opened from elsewhere can fetch or run nothing.
    out.push_str("<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'\">\n");
    let _ = write!(
        out,
        "<title>{}</title>\n<style>\n{STYLE}</style>\n</head>\n<body>\n<main>\n",
        escape(title.unwrap_or("Report"))
    );
    for block in blocks {
        push_block(&mut out, block);
    }
    out.push_str("</main>\n</body>\n</html>\n");
    out
}

fn push_block(out: &mut String, block: &Block) {
    match block {
        Block::Heading(level, text) => {
            let _ = writeln!(out, "<h{level}>{}</h{level}>", escape(text));
        }
        Block::Text(text) => {
            let _ = writeln!(out, "<p>{}</p>", escape(text));
        }
        Block::Verdicts(verdicts) => push_verdicts(out, verdicts),
        Block::Table(table) => push_table(out, table),
        Block::Plot { title, svg } => {
            let _ = writeln!(out, "<figure>\n<figcaption>{}</figcaption>\n{svg}\n</figure>", escape(title));
        }
    }
}

fn push_verdicts(out: &mut String, verdicts: &[Verdict]) {
    out.push_str("<ul class=\"verdicts\">\n");
    for verdict in verdicts {
        let class = match verdict.mark {
            Mark::Yes => "yes",
            Mark::No => "no",
            Mark::Open => "open",
        };
        let _ = write!(
            out,
            "<li class=\"{class}\"><b>{}</b> <span>{}",
            escape(verdict.word),
            escape(&verdict.says)
        );
        for because in &verdict.because {
            let _ = write!(out, "<small>{}</small>", escape(because));
        }
        out.push_str("</span></li>\n");
    }
    out.push_str("</ul>\n");
}

fn push_table(out: &mut String, table: &Table) {
    let _ = write!(
        out,
        "<div class=\"table\"><table>\n<caption>{}</caption>\n<thead><tr>",
        escape(&table.caption)
    );
    for name in &table.head {
        let _ = write!(out, "<th scope=\"col\">{}</th>", escape(name));
    }
    out.push_str("</tr></thead>\n<tbody>\n");
    for row in &table.rows {
        out.push_str("<tr>");
        for cell in row {
            let class = if is_number(cell) { " class=\"n\"" } else { "" };
            let _ = write!(out, "<td{class}>{}</td>", escape(cell));
        }
        out.push_str("</tr>\n");
    }
    out.push_str("</tbody>\n</table></div>\n");
}

/// Numbers are aligned to the right.
fn is_number(cell: &str) -> bool {
    cell.starts_with(|c: char| c.is_ascii_digit() || c == '-' || c == '–' || c == '+')
        && !cell.contains(|c: char| c.is_ascii_alphabetic())
}

/// Text that is no markup.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Control characters are no HTML.
            c if c.is_control() && c != '\n' && c != '\t' => out.push('\u{fffd}'),
            c => out.push(c),
        }
    }
    out
}
