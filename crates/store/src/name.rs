//! Model names, with Ollama's grammar: `[host/][namespace/]model[:tag]`.
//!
//! Every part is also a directory name, so the grammar is what keeps a name inside the store: a part begins with a
//! letter, a digit or `_` and holds no `/`. Looking a name up is in `models`.

use std::{fmt, path::PathBuf, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{
    file_name::{quantization_of, split_of, strip_gguf},
    limits::NEAREST_NAMES_MAX,
};

/// The hub's host in names, as Ollama has it; its long name is the same host.
pub const HUGGING_FACE: &str = "hf.co";

const DEFAULT_HOST: &str = "registry.ollama.ai";
const DEFAULT_NAMESPACE: &str = "library";
const DEFAULT_TAG: &str = "latest";

const HOST_BYTES_MAX: usize = 350;
const PART_BYTES_MAX: usize = 80;

/// Least similarity (0 to 1) of a name that is worth suggesting.
const NEAREST_SIMILARITY_MIN: f64 = 0.6;

/// The name of a model. Displayed as short as it can be parsed again, always with its tag: `smollm2:135m`,
/// `someone/smollm2:latest`, `hf.co/someone/smollm2:Q4_K_M`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub struct ModelName {
    host: String,
    namespace: String,
    model: String,
    tag: String,
}

/// Text that is no model name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("'{text}' is not a model name: {problem}")]
pub struct NameError {
    /// The text, cut after 100 characters.
    pub text: String,
    /// What is wrong with it.
    pub problem: &'static str,
}

impl ModelName {
    /// The name of given parts.
    ///
    /// # Errors
    /// When a part is empty, too long, or has a character that it may not have.
    pub fn from_parts(host: &str, namespace: &str, model: &str, tag: &str) -> Result<Self, NameError> {
        let problem = check_part(host, HOST_BYTES_MAX, "._-:")
            .or_else(|| check_part(namespace, PART_BYTES_MAX, "_-"))
            .or_else(|| check_part(model, PART_BYTES_MAX, "._-"))
            .or_else(|| check_part(tag, PART_BYTES_MAX, "._-"));
        match problem {
            Some(problem) => Err(name_error(&format!("{host}/{namespace}/{model}:{tag}"), problem)),
            None => Ok(Self {
                host: host.to_owned(),
                namespace: namespace.to_owned(),
                model: model.to_owned(),
                tag: tag.to_owned(),
            }),
        }
    }

    /// A name for the model in a file: `Qwen3-8B-Q4_K_M` becomes `qwen3-8b:q4_k_m`. What a name may not have becomes a
    /// dash; the counting of split files goes.
    ///
    /// # Errors
    /// When nothing is left of it.
    pub fn for_file(stem: &str) -> Result<Self, NameError> {
        let whole = stem.rsplit('/').next().unwrap_or(stem);
        let whole = strip_gguf(whole);
        let whole = split_of(whole).map_or(whole, |(whole, ..)| whole);
        let (model, tag) = match quantization_of(whole) {
            Some(quantization) if quantization.len() < whole.len() => {
                (whole[..whole.len() - quantization.len()].trim_end_matches(['-', '.', '_']), quantization)
            }
            _ => (whole, DEFAULT_TAG),
        };
        let part = |text: &str| -> String {
            let known = |c: char| {
                if c.is_ascii_alphanumeric() || "._-".contains(c) { c.to_ascii_lowercase() } else { '-' }
            };
            let text: String = text.chars().map(known).take(PART_BYTES_MAX).collect();
            text.trim_matches(['-', '.']).to_owned()
        };
        Self::from_parts(DEFAULT_HOST, DEFAULT_NAMESPACE, &part(model), &part(tag))
            .map_err(|error| name_error(stem, error.problem))
    }

    /// The registry, `registry.ollama.ai` unless named.
    #[must_use]
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Whether no other registry than Ollama's own is named.
    #[must_use]
    pub fn is_of_default_registry(&self) -> bool {
        self.host == DEFAULT_HOST
    }

    /// The owner, `library` unless named.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The model.
    #[must_use]
    pub fn model(&self) -> &str {
        &self.model
    }

    /// The variant, `latest` unless named.
    #[must_use]
    pub fn tag(&self) -> &str {
        &self.tag
    }

    /// Whether both are the same to a user: upper and lower case do not differ.
    #[must_use]
    pub fn matches(&self, other: &Self) -> bool {
        self.parts().iter().zip(other.parts()).all(|(a, b)| a.eq_ignore_ascii_case(b))
    }

    /// Where its manifest lies below the directory of manifests.
    pub(crate) fn manifest_path(&self) -> PathBuf {
        self.parts().iter().collect()
    }

    fn parts(&self) -> [&str; 4] {
        [&self.host, &self.namespace, &self.model, &self.tag]
    }
}

impl FromStr for ModelName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if text.contains('@') {
            return Err(name_error(text, "a digest cannot be part of it"));
        }
        let (path, tag) = split_tag(strip_scheme(text));
        let parts: Vec<&str> = path.split('/').collect();
        let (host, namespace, model) = match parts[..] {
            [model] => (DEFAULT_HOST, DEFAULT_NAMESPACE, model),
            [namespace, model] => (DEFAULT_HOST, namespace, model),
            [host, namespace, model] => (canonical_host(host), namespace, model),
            _ => return Err(name_error(text, "it has more than host, namespace and model")),
        };
        Self::from_parts(host, namespace, model, tag).map_err(|error| name_error(text, error.problem))
    }
}

impl fmt::Display for ModelName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host != DEFAULT_HOST {
            write!(f, "{}/{}/", self.host, self.namespace)?;
        } else if self.namespace != DEFAULT_NAMESPACE {
            write!(f, "{}/", self.namespace)?;
        }
        write!(f, "{}:{}", self.model, self.tag)
    }
}

impl From<ModelName> for String {
    fn from(name: ModelName) -> Self {
        name.to_string()
    }
}

impl TryFrom<String> for ModelName {
    type Error = NameError;

    fn try_from(text: String) -> Result<Self, NameError> {
        text.parse()
    }
}

/// The existing names that look most like `name`, best first, at most
/// [`NEAREST_NAMES_MAX`](crate::limits::NEAREST_NAMES_MAX).
#[must_use]
pub fn nearest(name: &ModelName, existing: &[ModelName]) -> Vec<String> {
    let mut scored: Vec<(f64, String)> = existing
        .iter()
        .map(|candidate| (similarity(name, candidate), candidate.to_string()))
        .filter(|&(score, _)| score >= NEAREST_SIMILARITY_MIN)
        .collect();
    scored.sort_by(|(a, a_name), (b, b_name)| b.total_cmp(a).then_with(|| a_name.cmp(b_name)));
    scored.into_iter().map(|(_, name)| name).take(NEAREST_NAMES_MAX).collect()
}

/// How alike two names are, 0 to 1. Mostly that of the models: a forgotten tag is the most frequent mistake.
fn similarity(a: &ModelName, b: &ModelName) -> f64 {
    let alike = |a: &str, b: &str| {
        strsim::normalized_damerau_levenshtein(&a.to_ascii_lowercase(), &b.to_ascii_lowercase())
    };
    0.8 * alike(&a.model, &b.model) + 0.1 * alike(&a.tag, &b.tag) + 0.1 * alike(&a.namespace, &b.namespace)
}

fn canonical_host(host: &str) -> &str {
    let long = ["huggingface.co", "www.huggingface.co"].iter().any(|long| host.eq_ignore_ascii_case(long));
    if long { HUGGING_FACE } else { host }
}

fn strip_scheme(text: &str) -> &str {
    text.strip_prefix("https://").or_else(|| text.strip_prefix("http://")).unwrap_or(text)
}

/// The tag follows the last colon, unless that belongs to the host's port.
fn split_tag(text: &str) -> (&str, &str) {
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (path, tag),
        _ => (text, DEFAULT_TAG),
    }
}

fn check_part(part: &str, bytes_max: usize, marks: &str) -> Option<&'static str> {
    let Some(first) = part.chars().next() else { return Some("a part of it is empty") };
    if part.len() > bytes_max {
        return Some("a part of it is too long");
    }
    if !(first.is_ascii_alphanumeric() || first == '_') {
        return Some("a part of it does not begin with a letter, digit or underscore");
    }
    let known = |c: char| c.is_ascii_alphanumeric() || marks.contains(c);
    (!part.chars().all(known)).then_some("a part of it has a character that it may not have")
}

fn name_error(text: &str, problem: &'static str) -> NameError {
    NameError { text: text.chars().take(100).collect(), problem }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn name(text: &str) -> ModelName {
        text.parse().unwrap()
    }

    #[test]
    fn missing_parts_have_ollamas_defaults() {
        let check = |text: &str, parts: [&str; 4]| assert_eq!(name(text).parts(), parts, "{text}");
        check("smollm2", ["registry.ollama.ai", "library", "smollm2", "latest"]);
        check("smollm2:135m", ["registry.ollama.ai", "library", "smollm2", "135m"]);
        check("me/smollm2", ["registry.ollama.ai", "me", "smollm2", "latest"]);
        check("hf.co/me/SmolLM2-GGUF:Q4_K_M", ["hf.co", "me", "SmolLM2-GGUF", "Q4_K_M"]);
        check("localhost:5000/me/m", ["localhost:5000", "me", "m", "latest"]);
        check("localhost:5000/me/m:1.5b", ["localhost:5000", "me", "m", "1.5b"]);
        check("https://hf.co/me/m:t", ["hf.co", "me", "m", "t"]);
        check("_x", ["registry.ollama.ai", "library", "_x", "latest"]);
    }

    #[test]
    fn the_hubs_long_name_is_its_short_one() {
        assert_eq!(name("huggingface.co/me/m:Q4_0"), name("hf.co/me/m:Q4_0"));
        assert_eq!(name("https://HuggingFace.co/me/m").host(), "hf.co");
    }

    #[test]
    fn a_file_has_a_sensible_name() {
        let check = |stem: &str, expected: &str| {
            assert_eq!(ModelName::for_file(stem).unwrap().to_string(), expected, "{stem}");
        };
        check("Qwen3-8B-Q4_K_M", "qwen3-8b:q4_k_m");
        check("SmolLM2.Q8_0.gguf", "smollm2:q8_0");
        check("gemma-3-UD-IQ2_XXS", "gemma-3:ud-iq2_xxs");
        check("m-BF16-00001-of-00003.gguf", "m:bf16");
        check("gpt-oss-20b-MXFP4", "gpt-oss-20b:mxfp4");
        check("a b (1)", "a-b--1:latest");
        check("dir/llama-2-7b", "llama-2-7b:latest");
        check("Q4_0", "q4_0:latest");
        check("Quiet-2", "quiet-2:latest");
        assert!(ModelName::for_file("").is_err());
        assert!(ModelName::for_file("...").is_err());
    }

    #[test]
    fn the_short_form_hides_only_what_is_default() {
        let check = |text: &str, shown: &str| assert_eq!(name(text).to_string(), shown);
        check("registry.ollama.ai/library/smollm2:135m", "smollm2:135m");
        check("smollm2", "smollm2:latest");
        check("library/smollm2", "smollm2:latest");
        check("me/smollm2:x", "me/smollm2:x");
        check("hf.co/library/smollm2", "hf.co/library/smollm2:latest");
    }

    #[test]
    fn what_would_leave_the_store_is_refused() {
        let check = |text: &str, problem: &str| {
            let error = text.parse::<ModelName>().expect_err(text);
            assert_eq!(error.problem, problem, "{text}");
        };
        let start = "a part of it does not begin with a letter, digit or underscore";
        let character = "a part of it has a character that it may not have";
        check("", "a part of it is empty");
        check("m:", "a part of it is empty");
        check("/etc/passwd", "a part of it is empty");
        check("a//b", "a part of it is empty");
        check("..", start);
        check("../m", start);
        check("hf.co/../m", start);
        check("m:..", start);
        check("m:.hidden", start);
        check(".tmp-x", start);
        check("-m", start);
        check("a.b/m", character);
        check("m\\..\\x", character);
        check("m\0", character);
        check("m m", character);
        check("modèle", character);
        check("a/b/c/d", "it has more than host, namespace and model");
        check("m@sha256:00", "a digest cannot be part of it");
        check(&"m".repeat(81), "a part of it is too long");
        check(&format!("{}/a/b", "h".repeat(351)), "a part of it is too long");
    }

    #[test]
    fn a_very_long_text_is_cut_in_its_error() {
        let error = "x".repeat(1_000_000).parse::<ModelName>().unwrap_err();
        assert_eq!(error.text.len(), 100);
    }

    #[test]
    fn case_does_not_tell_names_apart() {
        assert!(name("SmolLM2:135M").matches(&name("smollm2:135m")));
        assert!(!name("smollm2:135m").matches(&name("smollm2:360m")));
    }

    #[test]
    fn names_alike_are_suggested_best_first() {
        let existing: Vec<_> =
            ["smollm2:135m", "smollm2:360m", "qwen3:8b", "deepseek-r1:7b", "llama3.2:1b"].map(name).into();
        let check = |wanted: &str, expected: &[&str]| {
            assert_eq!(nearest(&name(wanted), &existing), expected, "{wanted}");
        };
        check("smollm2", &["smollm2:135m", "smollm2:360m"]);
        check("smolm2:360m", &["smollm2:360m", "smollm2:135m"]);
        check("SMOLLM:135m", &["smollm2:135m", "smollm2:360m"]);
        check("deepseek-r1", &["deepseek-r1:7b"]);
        check("qwen3:4b", &["qwen3:8b"]);
        check("gpt-oss:20b", &[]);
    }

    #[test]
    fn no_more_names_are_suggested_than_the_limit() {
        let existing: Vec<_> = (0..10).map(|n| name(&format!("model:{n}"))).collect();
        assert_eq!(nearest(&name("model"), &existing).len(), NEAREST_NAMES_MAX);
    }

    proptest! {
        #[test]
        fn a_valid_name_survives_being_shown(
            host in "[A-Za-z0-9_][A-Za-z0-9_.:-]{0,20}",
            namespace in "[A-Za-z0-9_][A-Za-z0-9_-]{0,20}",
            model in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            for (host, namespace) in
                [(&*host, &*namespace), (DEFAULT_HOST, &*namespace), (DEFAULT_HOST, DEFAULT_NAMESPACE)]
            {
                let name = ModelName::from_parts(host, namespace, &model, &tag).unwrap();
                prop_assert_eq!(name.to_string().parse::<ModelName>().unwrap(), name);
            }
        }

        #[test]
        fn whatever_is_accepted_stays_four_directories_deep(text in ".{0,40}") {
            if let Ok(name) = text.parse::<ModelName>() {
                let path = name.manifest_path();
                prop_assert!(path.is_relative());
                prop_assert_eq!(path.components().count(), 4);
                prop_assert!(path.components().all(|c| matches!(c, std::path::Component::Normal(_))));
                prop_assert_eq!(name.to_string().parse::<ModelName>().unwrap(), name);
            }
        }

        #[test]
        fn text_from_the_grammars_own_characters_never_escapes(text in "[a-zA-Z0-9_.:/-]{0,60}") {
            if let Ok(name) = text.parse::<ModelName>() {
                prop_assert_eq!(name.manifest_path().components().count(), 4);
                prop_assert_eq!(name.to_string().parse::<ModelName>().unwrap(), name);
            }
        }
    }
}
