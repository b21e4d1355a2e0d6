//! What users type where a model is meant: a name, an address, or a file.

use std::{
    fmt,
    path::{Path, PathBuf},
    str::FromStr,
};

use crate::{ModelName, NameError, name::HUGGING_FACE};

/// A model as users name it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum ModelRef {
    /// A name, of whatever host.
    Name(ModelName),
    /// The address of one file.
    Url(String),
    /// A file on this machine.
    File(PathBuf),
}

impl ModelRef {
    /// What a client of the server means: never a file, which would be one of the server's.
    ///
    /// # Errors
    /// When it is neither a name nor an address.
    pub fn remote(text: &str) -> Result<Self, NameError> {
        let Some((scheme, address)) = split_scheme(text) else { return Ok(Self::Name(text.parse()?)) };
        let (address, _) = address.split_once('#').unwrap_or((address, ""));
        let path = address.split('?').next().unwrap_or_default();
        let (host, path) = path.split_once('/').unwrap_or((path, ""));
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        if is_hugging_face(host)
            && let Some(reference) = hugging_face(scheme, address, host, &parts)
        {
            return reference;
        }
        if host.eq_ignore_ascii_case("ollama.com") || host.eq_ignore_ascii_case("www.ollama.com") {
            return Ok(Self::Name(parts.join("/").parse()?));
        }
        let is_file = path.len() > GGUF.len() && is_gguf(path);
        match text.parse() {
            Ok(name) if !is_file && !address.contains('?') => Ok(Self::Name(name)),
            _ if !host.is_empty() && !parts.is_empty() => Ok(Self::Url(format!("{scheme}{address}"))),
            Ok(name) => Ok(Self::Name(name)),
            Err(error) => Err(error),
        }
    }
}

impl ModelRef {
    /// The name that a model gets in the store when the user gives none.
    ///
    /// # Errors
    /// When the name of a file makes none.
    pub fn name(&self) -> Result<ModelName, NameError> {
        let file = match self {
            Self::Name(name) => return Ok(name.clone()),
            Self::Url(url) => url.split(['?', '#']).next().unwrap_or_default().to_owned(),
            Self::File(path) => path.file_name().unwrap_or_default().to_string_lossy().into_owned(),
        };
        ModelName::for_file(&file)
    }
}

impl FromStr for ModelRef {
    type Err = NameError;

    /// What a user at this machine means. A file is meant by what begins as a path, ends in `.gguf`, or is one.
    fn from_str(text: &str) -> Result<Self, NameError> {
        let path = Path::new(text);
        let begins = ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start));
        if begins || (split_scheme(text).is_none() && (is_gguf(text) || path.is_file())) {
            return Ok(Self::File(path.to_owned()));
        }
        Self::remote(text)
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => name.fmt(f),
            Self::Url(url) => f.write_str(url),
            Self::File(path) => path.display().fmt(f),
        }
    }
}

const GGUF: &str = ".gguf";

/// An address at the hub: that of a repository is a name, that of a file in it stays an address.
fn hugging_face(
    scheme: &str,
    address: &str,
    host: &str,
    parts: &[&str],
) -> Option<Result<ModelRef, NameError>> {
    match *parts {
        [_, _, "resolve", _, _, ..] => None,
        // The page about a file is not the file.
        [user, repository, "blob", ref file @ ..] if file.len() > 1 => {
            Some(Ok(ModelRef::Url(format!("{scheme}{host}/{user}/{repository}/resolve/{}", file.join("/")))))
        }
        [_, _, "raw", ..] => Some(Ok(ModelRef::Url(format!("{scheme}{address}")))),
        [user, repository, ..] => {
            Some(format!("{HUGGING_FACE}/{user}/{repository}").parse().map(ModelRef::Name))
        }
        _ => None,
    }
}

fn is_hugging_face(host: &str) -> bool {
    [HUGGING_FACE, "huggingface.co", "www.huggingface.co"]
        .iter()
        .any(|known| host.eq_ignore_ascii_case(known))
}

fn is_gguf(text: &str) -> bool {
    text.get(text.len().saturating_sub(GGUF.len())..).is_some_and(|end| end.eq_ignore_ascii_case(GGUF))
}

fn split_scheme(text: &str) -> Option<(&'static str, &str)> {
    let of = |scheme: &'static str| {
        let start = text.get(..scheme.len())?;
        start.eq_ignore_ascii_case(scheme).then(|| (scheme, &text[scheme.len()..]))
    };
    of("https://").or_else(|| of("http://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_addresses_and_files_are_told_apart() {
        let check = |text: &str, expected: &str| {
            let shown = match text.parse::<ModelRef>().expect(text) {
                ModelRef::Name(name) => format!("name {name}"),
                ModelRef::Url(url) => format!("url {url}"),
                ModelRef::File(path) => format!("file {}", path.display()),
            };
            assert_eq!(shown, expected, "{text}");
        };
        check("qwen3:8b", "name qwen3:8b");
        check("hf.co/me/m-GGUF:Q4_K_M", "name hf.co/me/m-GGUF:Q4_K_M");
        check("huggingface.co/me/m", "name hf.co/me/m:latest");
        check("https://huggingface.co/me/m-GGUF", "name hf.co/me/m-GGUF:latest");
        check("https://huggingface.co/me/m-GGUF/", "name hf.co/me/m-GGUF:latest");
        check("https://hf.co/me/m:Q8_0", "name hf.co/me/m:Q8_0");
        check("https://huggingface.co/me/m/tree/main", "name hf.co/me/m:latest");
        check(
            "https://huggingface.co/me/m/resolve/main/a/b.gguf?download=true",
            "url https://huggingface.co/me/m/resolve/main/a/b.gguf?download=true",
        );
        check(
            "https://huggingface.co/me/m/blob/main/a/b.gguf",
            "url https://huggingface.co/me/m/resolve/main/a/b.gguf",
        );
        check("https://ollama.com/library/qwen3:8b", "name qwen3:8b");
        check("HTTPS://example.com/m.gguf#part", "url https://example.com/m.gguf");
        check("http://localhost:5000/library/m:1b", "name localhost:5000/library/m:1b");
        check("http://localhost:5000/models/deep/m.GGUF", "url http://localhost:5000/models/deep/m.GGUF");
        check("https://example.com/x/file?name=m", "url https://example.com/x/file?name=m");
        check("/models/m", "file /models/m");
        check("./m", "file ./m");
        check("../m", "file ../m");
        check("~/m", "file ~/m");
        check("m.gguf", "file m.gguf");
        check("Cargo.toml", "file Cargo.toml");
    }

    #[test]
    fn what_has_no_name_gets_that_of_its_file() {
        for text in ["https://example.com/a/small.gguf?x=/y", "./a/small.gguf", "small"] {
            assert_eq!(
                text.parse::<ModelRef>().unwrap().name().unwrap().to_string(),
                "small:latest",
                "{text}"
            );
        }
    }

    #[test]
    fn a_client_never_means_a_file_of_the_server() {
        for text in ["/etc/passwd", "./m", "../m", "~/m", "https://", "https:///m.gguf"] {
            assert!(ModelRef::remote(text).is_err(), "{text}");
        }
        for text in ["m.gguf", "Cargo.toml"] {
            assert!(matches!(ModelRef::remote(text), Ok(ModelRef::Name(_))), "{text}");
        }
    }
}
