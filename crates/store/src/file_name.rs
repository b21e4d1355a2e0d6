//! What the names of model files say, as their makers write them.

/// The name of a file without its ending.
#[must_use]
pub fn strip_gguf(name: &str) -> &str {
    let ending = name.len().saturating_sub(".gguf".len());
    match name.get(ending..) {
        Some(end) if end.eq_ignore_ascii_case(".gguf") => &name[..ending],
        _ => name,
    }
}

/// The name without its counting, the place from 1 and the number of files, of one of the files of a split model
/// (`m-00001-of-00003`).
#[must_use]
pub fn split_of(stem: &str) -> Option<(&str, u32, u32)> {
    let (rest, count) = stem.rsplit_once("-of-")?;
    let (whole, number) = rest.rsplit_once('-')?;
    let digits = |text: &str| text.len() == 5 && text.bytes().all(|byte| byte.is_ascii_digit());
    if !digits(number) || !digits(count) || whole.is_empty() {
        return None;
    }
    Some((whole, number.parse().ok()?, count.parse().ok()?))
}

/// The end of a file's name that says how it is quantized (`Q4_K_M`, `UD-IQ2_XXS`, `BF16`).
pub fn quantization_of(stem: &str) -> Option<&str> {
    let begin = stem.rfind(['-', '.']).map_or(0, |mark| mark + 1);
    let known = is_quantization(&stem[begin..]).then_some(&stem[begin..])?;
    let dynamic =
        begin >= 3 && stem.get(begin - 3..begin).is_some_and(|mark| mark.eq_ignore_ascii_case("UD-"));
    Some(if dynamic { &stem[begin - 3..] } else { known })
}

/// Whether a word of a file's name says how it is quantized.
#[must_use]
pub fn is_quantization(text: &str) -> bool {
    let upper = text.to_ascii_uppercase();
    if matches!(&*upper, "F16" | "F32" | "BF16" | "FP16" | "FP32") {
        return true;
    }
    let kinds = ["IQ", "TQ", "MXFP", "NVFP", "Q"];
    let Some(rest) = kinds.iter().find_map(|kind| upper.strip_prefix(kind)) else { return false };
    let mut words = rest.split('_');
    let bits =
        words.next().is_some_and(|bits| bits.len() == 1 && bits.bytes().all(|bit| bit.is_ascii_digit()));
    bits && words.all(|word| {
        matches!(word, "0" | "1" | "K" | "S" | "M" | "L" | "XL" | "XS" | "XXS" | "NL" | "MOE" | "4" | "8")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_counting_of_a_split_file_is_told_from_what_looks_like_it() {
        let check = |stem: &str, expected| assert_eq!(split_of(stem), expected, "{stem}");
        check("m-Q4_0-00002-of-00013", Some(("m-Q4_0", 2, 13)));
        check("m-2-of-3", None);
        check("one-of-00003", None);
        check("-00001-of-00002", None);
    }

    #[test]
    fn a_quantization_is_told_from_what_looks_like_it() {
        let check = |stem: &str, expected| assert_eq!(quantization_of(stem), expected, "{stem}");
        check("m-IQ4_NL", Some("IQ4_NL"));
        check("m-Q2_K_XL", Some("Q2_K_XL"));
        check("m.q4_0_4_8", Some("q4_0_4_8"));
        check("m-UD-Q6_K", Some("UD-Q6_K"));
        check("m-TQ1_0", Some("TQ1_0"));
        check("m-Q", None);
        check("m-Q4_new", None);
        check("m-IQtest", None);
        check("m-16", None);
        check("é-Q4_0", Some("Q4_0"));
    }
}
