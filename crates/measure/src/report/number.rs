//! Numbers for people.

/// A figure with three or four meaningful digits; large ones with separators of thousands.
#[must_use]
pub fn number(value: f64) -> String {
    if !value.is_finite() {
        return "–".to_owned();
    }
    let size = value.abs();
    if size >= 1e9 {
        return format!("{:.2} · 10⁹", value / 1e9);
    }
    if size >= 1000.0 {
        return thousands(value.round() as i64);
    }
    let decimals = if size >= 100.0 || value.fract() == 0.0 {
        usize::from(size < 1000.0 && value.fract() != 0.0 && size < 100.0)
    } else if size >= 10.0 {
        1
    } else if size >= 1.0 {
        2
    } else {
        3
    };
    format!("{value:.decimals$}")
}

fn thousands(value: i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    if value < 0 { format!("-{text}") } else { text }
}

#[cfg(test)]
mod tests {
    use super::number;

    #[test]
    fn figures_have_the_digits_that_mean_something() {
        let written = [0.0, 5.0, 0.1234, 1.234, 12.34, 123.4, 1234.4, -1_234_567.0, 4.38e10].map(number);
        assert_eq!(written, ["0", "5", "0.123", "1.23", "12.3", "123", "1,234", "-1,234,567", "43.80 · 10⁹"]);
    }
}
