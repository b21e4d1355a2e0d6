//! The notebooks, made from `deployment/kaggle.py`: each `# %%` begins a cell.

use std::path::Path;

use anyhow::{Context as _, ensure};
use firepot_store::write_atomic;
use serde_json::{Value, json};

const SOURCE: &str = "deployment/kaggle.py";

/// A notebook, and the lines of the source that are others in it.
struct Notebook {
    path: &'static str,
    instead: &'static [(&'static str, &'static str)],
}

const NOTEBOOKS: [Notebook; 2] = [
    Notebook { path: "notebooks/kaggle.ipynb", instead: &[] },
    Notebook {
        path: "notebooks/colab.ipynb",
        instead: &[
            ("# # Firepot on Kaggle", "# # Firepot on Colab"),
            (
                "# Settings, by hand: **Accelerator: GPU T4 x2** and **Internet: on** (both need a verified phone number), **Persistence: files** if chats are to",
                "# By hand: **Runtime > Change runtime type > T4 GPU**. Upload Firepot's wheel into the files on the left, or set `FIREPOT_WHEEL_URL`. Nothing outlives",
            ),
            (
                "# outlive the session. Keep the notebook private: what is saved has your chats in it. Then run all cells; running one again attaches to what runs.",
                "# the session unless you copy `/content/saved`. Run all cells; running one again attaches to what runs. The chat is in the notebook, as Colab's rules want.",
            ),
            (
                r#"MODELS = ["deepseek-r1:8b", "qwen2.5-coder:7b", "dolphin-mistral:7b"]"#,
                r#"MODELS = ["deepseek-r1:8b"]"#,
            ),
            (
                r#"INPUT, SAVED, SCRATCH = "/kaggle/input", "/kaggle/working", "/tmp""#,
                r#"INPUT, SAVED, SCRATCH = "/content", "/content/saved", "/tmp""#,
            ),
            (
                "# Attached datasets, the folder that outlives the session (20 GB), and scratch disk for the models.",
                "# Where files are uploaded to, a folder for what is to be kept, and scratch disk for the models.",
            ),
        ],
    },
];

/// Writes the notebooks, or only says whether they are those that the source makes.
///
/// # Errors
/// When one cannot be written, or is stale.
pub fn run(check: bool) -> anyhow::Result<()> {
    let source = std::fs::read_to_string(SOURCE).context(SOURCE)?;
    for notebook in &NOTEBOOKS {
        let made = notebook.make(&source)?;
        if check {
            let kept = std::fs::read_to_string(notebook.path).unwrap_or_default();
            ensure!(kept == made, "{} is stale: cargo xtask notebooks", notebook.path);
        } else {
            let folder = Path::new(notebook.path).parent().context("a notebook lies in a folder")?;
            std::fs::create_dir_all(folder)?;
            write_atomic(Path::new(notebook.path), made.as_bytes())?;
        }
    }
    Ok(())
}

impl Notebook {
    fn make(&self, source: &str) -> anyhow::Result<String> {
        let mut text = source.to_owned();
        for (line, instead) in self.instead {
            ensure!(text.lines().any(|other| other == *line), "{SOURCE} has no line {line:?}");
            text = text.replace(line, instead);
        }
        let cells: Vec<Value> =
            text.split("# %%").skip(1).enumerate().map(|(number, text)| cell(number, text)).collect();
        let notebook = json!({
            "cells": cells,
            "metadata": {
                "kernelspec": { "display_name": "Python 3", "language": "python", "name": "python3" },
                "language_info": { "name": "python" },
            },
            "nbformat": 4,
            "nbformat_minor": 5,
        });
        Ok(serde_json::to_string_pretty(&notebook)? + "\n")
    }
}

/// A cell: its title is on the line of the mark.
fn cell(number: usize, text: &str) -> Value {
    let (title, body) = text.split_once('\n').unwrap_or((text, ""));
    let (title, body) = (title.trim(), body.trim());
    let id = format!("cell-{number}");
    if title == "[markdown]" {
        let words: Vec<&str> =
            body.lines().map(|line| line.trim_start_matches('#').trim_start_matches(' ')).collect();
        let heading = format!("# {}", words.first().unwrap_or(&"").trim_start_matches("# "));
        let lines = std::iter::once(heading).chain(words.into_iter().skip(1).map(str::to_owned));
        return json!({ "cell_type": "markdown", "id": id, "metadata": {}, "source": lines.collect::<Vec<_>>().join("\n") });
    }
    let source = format!("# {title}\n{body}");
    json!({ "cell_type": "code", "execution_count": null, "id": id, "metadata": {}, "outputs": [], "source": source })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source() -> String {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        std::fs::read_to_string(root.join(SOURCE)).unwrap()
    }

    #[test]
    fn the_source_is_short_and_plain() {
        assert!(source().lines().count() <= 80);
    }

    #[test]
    fn the_notebooks_are_those_that_the_source_makes() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
        for notebook in &NOTEBOOKS {
            let kept = std::fs::read_to_string(root.join(notebook.path)).unwrap();
            assert!(
                kept == notebook.make(&source()).unwrap(),
                "{} is stale: cargo xtask notebooks",
                notebook.path
            );
        }
    }

    #[test]
    fn a_mark_begins_a_cell_and_its_title_is_kept() {
        let code = cell(1, " Chat\nfirepot.chat()\n\n");
        assert_eq!(code["source"], "# Chat\nfirepot.chat()");
        let text = cell(0, " [markdown]\n# # Title\n# some **words**\n");
        assert_eq!(
            (text["cell_type"].as_str(), text["source"].as_str()),
            (Some("markdown"), Some("# Title\nsome **words**"))
        );
    }
}
