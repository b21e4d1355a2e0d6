//! The report as Markdown; drawings are left out.

use std::fmt::Write as _;

use super::document::{Block, Table};

pub(super) fn render(blocks: &[Block]) -> String {
    let mut out = String::new();
    for block in blocks {
        match block {
            Block::Heading(level, text) => {
                let _ = write!(out, "{} {}\n\n", "#".repeat(usize::from(*level)), escape(text));
            }
            Block::Text(text) => {
                let _ = write!(out, "{}\n\n", escape(text));
            }
            Block::Verdicts(verdicts) => {
                for verdict in verdicts {
                    let _ = writeln!(out, "- **{}**: {}", verdict.word, escape(&verdict.says));
                    for because in &verdict.because {
                        let _ = writeln!(out, "  - {}", escape(because));
                    }
                }
                out.push('\n');
            }
            Block::Table(table) => push_table(&mut out, table),
            Block::Plot { .. } => {}
        }
    }
    out.truncate(out.trim_end().len());
    out.push('\n');
    out
}

fn push_table(out: &mut String, table: &Table) {
    let _ = write!(
        out,
        "**{}**\n\n| {} |\n|{}\n",
        escape(&table.caption),
        table.head.join(" | "),
        "---|".repeat(table.head.len())
    );
    for row in &table.rows {
        let cells: Vec<String> = row.iter().map(|cell| escape(cell)).collect();
        let _ = writeln!(out, "| {} |", cells.join(" | "));
    }
    out.push('\n');
}

/// Text that is no markup, on one line.
pub(super) fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\\' | '`' | '*' | '[' | ']' | '<' | '>' | '|' | '#' => {
                out.push('\\');
                out.push(c);
            }
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}
