//! `/v1/models`.

use serde::Serialize;

/// Response of `/v1/models`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelList {
    object: &'static str,
    /// Models in the store.
    data: Vec<ModelObject>,
}

impl ModelList {
    /// A list of these models.
    #[must_use]
    pub const fn new(data: Vec<ModelObject>) -> Self {
        Self { object: "list", data }
    }
}

/// Response of `/v1/models/{model}`, and an entry of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct ModelObject {
    id: String,
    object: &'static str,
    created: i64,
    owned_by: &'static str,
}

impl ModelObject {
    /// The model of this name; `created` is in seconds since 1970.
    #[must_use]
    pub fn new(id: impl Into<String>, created: i64) -> Self {
        // Ollama says `library` for a model without a namespace; some clients filter by it.
        Self { id: id.into(), object: "model", created, owned_by: "library" }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_has_openais_shape() {
        insta::assert_compact_json_snapshot!(
            ModelList::new(vec![ModelObject::new("smollm2:135m", 1_767_323_045)]),
            @r#"{"object": "list", "data": [{"id": "smollm2:135m", "object": "model", "created": 1767323045, "owned_by": "library"}]}"#
        );
    }
}
