//! A router that remembers its paths, so that a test can ask all of them. `routes::router` takes nothing else.

use std::{convert::Infallible, sync::Arc};

use axum::{Router, routing::MethodRouter};

use crate::app::App;

/// Routes of one module.
#[derive(Debug, Default)]
pub struct Routes {
    router: Router<Arc<App>>,
    paths: Vec<&'static str>,
}

impl Routes {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a path.
    pub fn route(mut self, path: &'static str, methods: MethodRouter<Arc<App>, Infallible>) -> Self {
        self.paths.push(path);
        Self { router: self.router.route(path, methods), ..self }
    }

    /// Adds another module's.
    pub fn merge(mut self, other: Self) -> Self {
        self.paths.extend(other.paths);
        Self { router: self.router.merge(other.router), ..self }
    }

    /// What axum serves.
    pub fn into_router(self) -> Router<Arc<App>> {
        self.router
    }

    /// Every path.
    #[cfg(test)]
    pub fn paths(&self) -> &[&'static str] {
        &self.paths
    }
}
