//! The catalogue of models.

use std::sync::LazyLock;

use firepot_gguf::{GgufError, Layout};
use serde::{Deserialize, Serialize};

use crate::{Quant, Shape};

/// What a model is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// It thinks before it answers.
    Reasoning,
    /// It writes programs.
    Coding,
    /// It answers at once.
    Chat,
}

/// What Ollama's library has under a model's name, beside the usual mix of llama.cpp's quantizer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OllamaFile {
    /// The usual mix.
    #[default]
    Usual,
    /// `Q4_0`.
    Q4_0,
    /// `Q8_0`.
    Q8_0,
    /// `F16`.
    F16,
    /// A mix of Ollama's own that has more bits than the usual one.
    Larger,
    /// A file for Ollama's own engine, which llama.cpp refuses.
    Foreign,
}

/// A published file.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublishedFile {
    /// Its mix.
    pub quant: String,
    /// Its length.
    pub bytes: u64,
    /// Who published it.
    pub source: String,
}

/// A model that people run.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// Its name here.
    pub id: String,
    /// Its name for people.
    pub title: String,
    /// What it is for.
    pub kind: Kind,
    /// When its weights were published: year and month, as 202504.
    pub published: u32,
    /// SPDX identifier, or the licence's own name.
    pub licence: String,
    /// In Ollama's library, where it is there.
    pub ollama: Option<String>,
    /// What is there.
    #[serde(default)]
    pub ollama_file: OllamaFile,
    /// Repository of GGUF files at Hugging Face.
    pub hugging_face: Option<String>,
    /// It is distributed in a mix of its own.
    #[serde(default)]
    pub mxfp4: bool,
    /// Bytes of a published file, in units of 10 MB, by the mix of that file: for tests.
    #[serde(default)]
    pub published_10mb: Option<u64>,
    /// Published files of which the length is known to the byte.
    #[serde(default)]
    pub files: Vec<PublishedFile>,
    /// Sizes.
    pub shape: Shape,
}

impl Model {
    /// The mix that is taken when none is named.
    #[must_use]
    pub const fn usual_quant(&self) -> Quant {
        if self.mxfp4 { Quant::Mxfp4 } else { Quant::Q4KM }
    }

    /// Whether the tables of tensors are right for a mix: a model that is published in `MXFP4` keeps its experts so in every
    /// other one, and no other model has it.
    #[must_use]
    pub const fn offers(&self, quant: Quant) -> bool {
        matches!(quant, Quant::Mxfp4) == self.mxfp4
    }

    /// The mix of what Ollama's library has; the usual one where that is none of [`Quant`].
    #[must_use]
    pub const fn ollama_quant(&self) -> Quant {
        match self.ollama_file {
            OllamaFile::Q4_0 => Quant::Q4_0,
            OllamaFile::Q8_0 => Quant::Q8_0,
            OllamaFile::F16 => Quant::F16,
            OllamaFile::Usual | OllamaFile::Larger | OllamaFile::Foreign => self.usual_quant(),
        }
    }

    /// What the model takes in a mix.
    ///
    /// # Errors
    /// Never for the models of the catalogue: a test makes all of them.
    pub fn layout(&self, quant: Quant) -> Result<Layout, GgufError> {
        self.shape.layout(quant)
    }

    /// By what the usual mix is pulled: Ollama's name where that is what Ollama has. The mix is named at the other hub, where a
    /// repository may hold a draft model beside it.
    #[must_use]
    pub fn pull_name(&self) -> Option<String> {
        let quant = self.usual_quant().name();
        let hub = || self.hugging_face.as_ref().map(|repository| format!("hf.co/{repository}:{quant}"));
        let ollama = self.ollama.clone().filter(|_| self.ollama_file == OllamaFile::Usual);
        ollama.or_else(hub)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    model: Vec<Model>,
}

static MODELS: LazyLock<Vec<Model>> = LazyLock::new(|| {
    let file: Result<File, _> = toml::from_str(include_str!("../data/models.toml"));
    file.map(|file| file.model).unwrap_or_default()
});

/// All models, in the order of the list.
#[must_use]
pub fn models() -> &'static [Model] {
    &MODELS
}

/// A model of the catalogue that somebody named.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Found {
    /// The model.
    pub model: &'static Model,
    /// The mix: the named one, or the usual one.
    pub quant: Quant,
}

/// Finds a model by its name here, in Ollama's library, or of its repository, each with a mix behind it or without:
/// `qwen3-8b`, `qwen3-8b:Q8_0`, `qwen3:8b`, `qwen3:8b-q8_0`, `hf.co/Qwen/Qwen3-8B-GGUF:Q8_0`.
#[must_use]
pub fn find(name: &str) -> Option<Found> {
    let plain = name.trim_start_matches("hf.co/").trim_start_matches("huggingface.co/");
    let named = |wanted: &str| {
        models().iter().find(|model| {
            let names = [Some(&model.id), model.ollama.as_ref(), model.hugging_face.as_ref()];
            names.into_iter().flatten().any(|name| name.eq_ignore_ascii_case(wanted))
        })
    };
    if let Some(model) = named(plain) {
        let by_ollama = model.ollama.as_ref().is_some_and(|name| name.eq_ignore_ascii_case(plain));
        let quant = if by_ollama { model.ollama_quant() } else { model.usual_quant() };
        return Some(Found { model, quant });
    }
    [':', '-'].into_iter().find_map(|mark| {
        let (rest, quant) = plain.rsplit_once(mark)?;
        let found = Found { model: named(rest)?, quant: quant.parse().ok()? };
        found.model.offers(found.quant).then_some(found)
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::TensorSpec;

    #[test]
    fn the_list_is_read_and_has_the_models_that_were_promised() {
        let file: File = toml::from_str(include_str!("../data/models.toml")).unwrap();
        assert_eq!(file.model.len(), models().len());
        let names = [
            "smollm2:135m",
            "deepseek-r1:1.5b",
            "deepseek-r1:7b",
            "deepseek-r1:14b",
            "deepseek-r1:32b",
            "deepseek-r1:70b",
            "deepseek-r1:8b",
            "qwen3:4b",
            "qwen3:8b",
            "qwen3:14b",
            "qwen3:32b",
            "qwen3:30b-a3b",
            "qwen2.5-coder:7b",
            "dolphin-mistral:7b",
            "llama3.1:8b",
            "gemma3:1b",
            "gemma3:4b",
            "gemma3:12b",
            "gemma3:27b",
            "phi4:14b",
            "gpt-oss:20b",
            "gpt-oss:120b",
        ];
        for name in names {
            assert!(find(name).is_some(), "{name}");
        }
    }

    #[test]
    fn names_are_unique() {
        let mut seen = HashSet::new();
        for model in models() {
            let names = [Some(&model.id), model.ollama.as_ref(), model.hugging_face.as_ref()];
            for name in names.into_iter().flatten() {
                assert!(seen.insert(name.to_lowercase()), "{name} twice");
            }
            assert!(model.pull_name().is_some(), "{} can be pulled nowhere", model.id);
        }
    }

    #[test]
    fn every_model_can_be_planned_in_every_mix() {
        for model in models() {
            for quant in Quant::ALL {
                let layout = model.layout(quant).unwrap_or_else(|error| panic!("{}: {error}", model.id));
                assert_eq!(layout.layers.len() as u64, model.shape.layers);
                assert_eq!(
                    (layout.vocab_size, layout.tied),
                    (model.shape.vocab, model.shape.tied),
                    "{}",
                    model.id
                );
            }
        }
    }

    /// The title ends with the number of parameters that the model's page gives.
    #[test]
    fn shapes_have_the_parameters_of_their_titles() {
        for model in models() {
            let (_, size) = model.title.rsplit_once(' ').unwrap();
            let (number, unit) = size.split_at(size.len() - 1);
            let scale = if unit == "B" { 1e9 } else { 1e6 };
            let told = number.parse::<f64>().unwrap() * scale;
            let ratio = model.shape.parameters() as f64 / told;
            assert!((0.98..1.02).contains(&ratio), "{}: {}", model.title, model.shape.parameters());
        }
    }

    #[test]
    fn files_are_as_large_as_the_published_ones() {
        let mut compared = 0;
        for model in models() {
            let Some(published) = model.published_10mb else { continue };
            let tensors = model.shape.tensors(model.usual_quant());
            let bytes: u64 = tensors.iter().map(TensorSpec::bytes).sum();
            // A tokenizer takes up to 8 MB, and the page rounds to 10 MB.
            let off = bytes.abs_diff(published * 10_000_000);
            assert!(off <= 13_000_000.max(bytes / 100), "{}: {bytes}", model.id);
            compared += 1;
        }
        assert!(compared >= 20, "{compared}");
    }

    /// Whatever is not weights is the header: at most 16 MB, of which a large tokenizer takes 13.
    #[test]
    fn files_have_the_published_bytes_but_for_the_header() {
        let mut compared = 0;
        for model in models() {
            for file in &model.files {
                let quant: Quant = file.quant.parse().unwrap();
                let weights: u64 = model.shape.tensors(quant).iter().map(TensorSpec::bytes).sum();
                let header = file.bytes.checked_sub(weights);
                assert!(
                    header.is_some_and(|bytes| (1_000_000..16_000_000).contains(&bytes)),
                    "{} {} of {}: {weights} of {}",
                    model.id,
                    file.quant,
                    file.source,
                    file.bytes
                );
                compared += 1;
            }
        }
        assert!(compared >= 30, "{compared}");
    }

    /// 112 MB as listed, header and all: rows of 576 are no multiple of a super-block, and most of the file falls back.
    #[test]
    fn a_file_that_falls_back_to_smaller_blocks_is_as_large_as_listed() {
        let tensors = find("smollm2-135m").unwrap().model.shape.tensors(Quant::Q5KM);
        let weights: u64 = tensors.iter().map(TensorSpec::bytes).sum();
        assert!((109_500_000..111_500_000).contains(&weights), "{weights}");
    }

    #[test]
    fn what_ollama_published_is_the_mix_that_its_name_stands_for() {
        let ollamas = |model: &'static Model| model.files.iter().filter(|file| file.source == "Ollama");
        let mut compared = 0;
        for (model, file) in models().iter().flat_map(|model| ollamas(model).map(move |file| (model, file))) {
            assert_eq!(file.quant.parse(), Ok(model.ollama_quant()), "{}", model.id);
            compared += 1;
        }
        assert!(compared >= 7, "{compared}");
    }

    /// One header of a model serves all its mixes, so files of one publisher differ by their weights alone.
    #[test]
    fn mixes_of_one_model_differ_by_their_weights() {
        let model = find("llama-3.1-8b").unwrap().model;
        let headers: Vec<u64> = model
            .files
            .iter()
            .filter(|file| file.source == "bartowski")
            .map(|file| {
                let tensors = model.shape.tensors(file.quant.parse().unwrap());
                file.bytes - tensors.iter().map(TensorSpec::bytes).sum::<u64>()
            })
            .collect();
        assert_eq!(headers.len(), 3);
        assert!(headers.iter().all(|header| header.abs_diff(headers[0]) < 1024), "{headers:?}");
    }

    #[test]
    fn what_ollama_has_in_another_mix_is_planned_so_and_pulled_elsewhere() {
        let found = find("llama3.2:1b").unwrap();
        assert_eq!(found.quant, Quant::Q8_0);
        assert_eq!(
            found.model.pull_name().as_deref(),
            Some("hf.co/bartowski/Llama-3.2-1B-Instruct-GGUF:Q4_K_M")
        );
        assert_eq!(find("llama-3.2-1b").unwrap().quant, Quant::Q4KM);
        let pulled = |name| find(name).unwrap().model.pull_name().unwrap();
        assert_eq!(pulled("gpt-oss:20b"), "hf.co/ggml-org/gpt-oss-20b-GGUF:MXFP4");
        assert_eq!(pulled("gemma3:4b"), "hf.co/ggml-org/gemma-3-4b-it-GGUF:Q4_K_M");
        assert_eq!(pulled("qwen2.5-coder:7b"), "qwen2.5-coder:7b");
        for model in models() {
            let found = find(&model.pull_name().unwrap()).unwrap();
            assert_eq!((&found.model.id, found.quant), (&model.id, model.usual_quant()));
        }
    }

    #[test]
    fn a_mix_that_a_model_is_not_published_in_is_not_made_up() {
        assert_eq!(find("gpt-oss-20b:Q8_0"), None);
        assert_eq!(find("qwen3-8b:MXFP4"), None);
    }

    #[test]
    fn models_are_found_by_each_of_their_names() {
        let quant = |name| find(name).map(|found| (found.model.id.as_str(), found.quant));
        for name in ["qwen3-8b", "qwen3:8b", "hf.co/Qwen/Qwen3-8B-GGUF", "Qwen/qwen3-8b-gguf"] {
            assert_eq!(quant(name), Some(("qwen3-8b", Quant::Q4KM)), "{name}");
        }
        for name in ["qwen3-8b:Q8_0", "qwen3:8b-q8_0", "hf.co/Qwen/Qwen3-8B-GGUF:q8_0"] {
            assert_eq!(quant(name), Some(("qwen3-8b", Quant::Q8_0)), "{name}");
        }
        assert_eq!(quant("gpt-oss:20b"), Some(("gpt-oss-20b", Quant::Mxfp4)));
        assert_eq!(quant("qwen3"), None);
        assert_eq!(quant("qwen3-8b:Q3_K_M"), Some(("qwen3-8b", Quant::Q3KM)));
        assert_eq!(quant("qwen3-8b:IQ3_M"), None);
    }
}
