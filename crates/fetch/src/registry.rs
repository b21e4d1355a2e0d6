//! The registry protocol of Ollama and Docker: manifests, layers, and the way to a token. Pure; asking is in `puller`.

use firepot_store::Digest;
use reqwest::Url;
use serde::Deserialize;

/// What is asked for, and the only kind of manifest that is understood.
pub const MANIFEST_MEDIA_TYPE: &str = "application/vnd.docker.distribution.manifest.v2+json";

/// Most layers of a manifest; one with more is refused.
const LAYERS_MAX: usize = 128;

/// A registry's manifest, as far as a download needs it.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryManifest {
    #[serde(default)]
    media_type: String,
    config: RegistryLayer,
    #[serde(default)]
    layers: Vec<RegistryLayer>,
}

/// A blob in a registry.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RegistryLayer {
    /// What it is.
    #[serde(default)]
    pub media_type: String,
    /// Its content.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
}

impl RegistryManifest {
    /// Reads a manifest; says what is wrong with one that cannot be used.
    pub fn parse(bytes: &[u8]) -> Result<Self, String> {
        let manifest: Self = serde_json::from_slice(bytes).map_err(|error| {
            if looks_like_html(bytes) {
                "the registry answered with a web page instead of a manifest".to_owned()
            } else {
                format!("the registry's manifest cannot be read: {error}")
            }
        })?;
        if manifest.media_type != MANIFEST_MEDIA_TYPE {
            let found = if manifest.media_type.is_empty() { "none" } else { &manifest.media_type };
            return Err(format!(
                "the registry's manifest has the media type {found}, not {MANIFEST_MEDIA_TYPE}"
            ));
        }
        if manifest.layers.len() > LAYERS_MAX {
            return Err(format!("the registry's manifest has more than {LAYERS_MAX} layers"));
        }
        let is = |kind: &str| manifest.layers.iter().any(|layer| layer.kind() == kind);
        if is("adapter") {
            return Err("the model needs an adapter (LoRA), which is not supported yet".to_owned());
        }
        if !is("model") {
            return Err("it has no GGUF file: it may be a cloud model or in another format".to_owned());
        }
        Ok(manifest)
    }

    /// Every blob once, the small ones first: they fail early when something is wrong.
    pub fn blobs(&self) -> Vec<RegistryLayer> {
        let mut blobs: Vec<RegistryLayer> = Vec::new();
        for layer in std::iter::once(&self.config).chain(&self.layers) {
            if !blobs.iter().any(|blob| blob.digest == layer.digest) {
                blobs.push(layer.clone());
            }
        }
        blobs.sort_by_key(|blob| blob.size);
        blobs
    }
}

impl RegistryLayer {
    /// `model`, `template`, `config` and so on.
    pub fn kind(&self) -> &str {
        match self.media_type.rsplit_once("image.") {
            Some((_, "v1+json")) | None => "config",
            Some((_, kind)) => kind,
        }
    }
}

/// Whether a body is a web page: of a proxy that wants a login, or of a server that is no registry.
pub fn looks_like_html(bytes: &[u8]) -> bool {
    let begin = String::from_utf8_lossy(&bytes[..bytes.len().min(256)]).trim_start().to_ascii_lowercase();
    begin.starts_with("<!doctype html") || begin.starts_with("<html")
}

/// Where a registry wants a token to be fetched: the parameters of `WWW-Authenticate: Bearer`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Challenge {
    realm: Url,
    service: Option<String>,
    scope: Option<String>,
}

impl Challenge {
    /// Reads the header of an answer of `asked`. A realm on another host is refused: it would be sent there
    /// who asks for what.
    pub fn parse(header: &str, asked: &Url) -> Result<Self, String> {
        let Some(parameters) = header.strip_prefix("Bearer ").or_else(|| header.strip_prefix("bearer "))
        else {
            let scheme = header.split(' ').next().unwrap_or_default();
            return Err(format!("the registry asks for a login ({scheme}), which is not supported"));
        };
        let value = |name: &str| parameter(parameters, name);
        let realm = value("realm").ok_or("the registry asks for a token and does not say where")?;
        let realm =
            Url::parse(&realm).map_err(|error| format!("the registry's token address is no URL: {error}"))?;
        if realm.host_str() != asked.host_str() || (asked.scheme() == "https" && realm.scheme() != "https") {
            let (realm, host) = (realm.host_str().unwrap_or_default(), asked.host_str().unwrap_or_default());
            return Err(format!("the registry {host} sends for a token to another host, {realm}"));
        }
        Ok(Self { realm, service: value("service"), scope: value("scope") })
    }

    /// What is to be asked for the token.
    pub fn url(&self) -> Url {
        let mut url = self.realm.clone();
        for (name, value) in [("service", &self.service), ("scope", &self.scope)] {
            if let Some(value) = value {
                url.query_pairs_mut().append_pair(name, value);
            }
        }
        url
    }
}

/// The answer of a token server.
#[derive(Debug, Deserialize)]
pub struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl TokenAnswer {
    /// The token, by either of its names.
    pub fn token(self) -> Option<String> {
        self.token.or(self.access_token)
    }
}

/// The value of `name="…"` in a header's parameters. A scope has commas in it, so splitting at them does not do.
fn parameter(parameters: &str, name: &str) -> Option<String> {
    let mut rest = parameters;
    loop {
        let (key, after) = rest.split_once('=')?;
        let (value, remainder) = match after.strip_prefix('"') {
            Some(quoted) => quoted.split_once('"')?,
            None => after.split_at(after.find(',').unwrap_or(after.len())),
        };
        if key.trim_matches([',', ' ']).eq_ignore_ascii_case(name) {
            return Some(value.to_owned());
        }
        rest = remainder;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    fn manifest(media_type: &str, kinds: &[&str]) -> Vec<u8> {
        let layer = |(index, kind): (usize, &&str)| {
            let digest = format!("sha256:{index:x}{}", &HEX[1..]);
            serde_json::json!({"mediaType": format!("application/vnd.ollama.image.{kind}"), "digest": digest, "size": 100 - index})
        };
        let layers: Vec<_> = kinds.iter().enumerate().map(layer).collect();
        let config = serde_json::json!({"mediaType": "application/vnd.docker.container.image.v1+json",
            "digest": format!("sha256:f{}", &HEX[1..]), "size": 5});
        serde_json::json!({"schemaVersion": 2, "mediaType": media_type, "config": config, "layers": layers})
            .to_string()
            .into_bytes()
    }

    #[test]
    fn a_manifests_blobs_come_small_ones_first() {
        let manifest = RegistryManifest::parse(&manifest(MANIFEST_MEDIA_TYPE, &["model", "params"])).unwrap();
        let kinds: Vec<String> = manifest.blobs().iter().map(|blob| blob.kind().to_owned()).collect();
        assert_eq!(kinds, ["config", "params", "model"]);
    }

    #[test]
    fn what_cannot_be_used_is_refused_with_the_reason() {
        let check = |bytes: &[u8], reason: &str| {
            let error = RegistryManifest::parse(bytes).unwrap_err();
            assert!(error.contains(reason), "{error}");
        };
        check(
            &manifest("application/vnd.oci.image.index.v1+json", &["model"]),
            "media type application/vnd.oci",
        );
        check(&manifest(MANIFEST_MEDIA_TYPE, &["tensor"]), "no GGUF file");
        check(&manifest(MANIFEST_MEDIA_TYPE, &["model", "adapter"]), "adapter");
        check(b"<!DOCTYPE html><p>Log in", "web page");
        check(b"{}", "cannot be read");
    }

    #[test]
    fn a_challenge_is_read_whatever_the_order_and_commas() {
        let asked = Url::parse("http://127.0.0.1:5000/v2/").unwrap();
        let header =
            r#"Bearer realm="http://127.0.0.1:5001/token",service=registry,scope="repository:a/b:pull,push""#;
        let challenge = Challenge::parse(header, &asked).unwrap();
        assert_eq!(
            challenge.url().as_str(),
            "http://127.0.0.1:5001/token?service=registry&scope=repository%3Aa%2Fb%3Apull%2Cpush"
        );
    }

    #[test]
    fn a_token_is_fetched_from_the_same_host_only() {
        let refused =
            |header: &str, asked: &str| Challenge::parse(header, &Url::parse(asked).unwrap()).unwrap_err();
        assert!(
            refused(r#"Bearer realm="https://evil.example/t""#, "https://registry.example/")
                .contains("another host")
        );
        assert!(
            refused(r#"Bearer realm="http://registry.example/t""#, "https://registry.example/")
                .contains("another host")
        );
        assert!(refused(r#"Basic realm="x""#, "https://registry.example/").contains("login (Basic)"));
        assert!(refused("Bearer service=x", "https://registry.example/").contains("does not say where"));
    }
}
