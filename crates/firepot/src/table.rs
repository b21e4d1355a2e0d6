//! Plain tables for the terminal.

use std::fmt::Write as _;

/// Columns padded to their widest cell, two spaces apart; the last column is not padded.
pub fn render(header: &[&str], rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([header[column].chars().count()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..header.len()).map(width).collect();
    let mut out = String::new();
    let header = header.iter().map(ToString::to_string).collect();
    for row in std::iter::once(&header).chain(rows) {
        push_row(&mut out, row, &widths);
    }
    out
}

fn push_row(out: &mut String, row: &[String], widths: &[usize]) {
    for (index, cell) in row.iter().enumerate() {
        if index + 1 == row.len() {
            out.push_str(cell);
        } else {
            let _ = write!(out, "{cell:width$}  ", width = widths[index]);
        }
    }
    out.push('\n');
}

/// Bytes with a decimal unit, as disk sizes are usually given: `98.4 MB`.
pub fn bytes(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    while value >= 999.95 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{value:.1} {}", UNITS[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_and_the_last_is_not_padded() {
        let rows = vec![vec!["smollm2:135m".into(), "98.4 MB".into()], vec!["q".into(), "1.0 GB".into()]];
        assert_eq!(
            render(&["NAME", "SIZE"], &rows),
            "NAME          SIZE\nsmollm2:135m  98.4 MB\nq             1.0 GB\n"
        );
    }

    #[test]
    fn bytes_carry_a_decimal_unit() {
        for (value, text) in
            [(0, "0 B"), (999, "999 B"), (1000, "1.0 kB"), (98_362_432, "98.4 MB"), (999_999_999, "1.0 GB")]
        {
            assert_eq!(bytes(value), text);
        }
    }
}
