//! What whoever started the server does with its access: the first key, links, and where its tunnel leads from.

use std::sync::Arc;

use firepot_store::{Scopes, Secret};
use firepot_wire::ApiError;

use crate::{access::Principal, app::App, guard::PublicUrl};

/// A server's access, from inside its process.
#[derive(Clone, Debug)]
pub struct Door(pub(crate) Arc<App>);

impl Door {
    /// Makes the first key where keys are asked for and none is there. It is told this once.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn first_key(&self) -> Result<Option<Secret>, ApiError> {
        if self.0.access.is_required() { self.0.access.first_key(&self.0).await } else { Ok(None) }
    }

    /// What lets commands of the home's owner in, where keys are asked for.
    #[must_use]
    pub fn local_key(&self) -> Option<Secret> {
        self.0.access.local_key()
    }

    /// The path of a link that opens one session, which may do everything.
    ///
    /// # Errors
    /// When it cannot be stored.
    pub async fn login_path(&self, name: &str) -> Result<Secret, ApiError> {
        let (_, secret) =
            self.0.access.create_login(&self.0, name, Scopes::ADMIN, &Principal::owner()).await?;
        Ok(Secret::from(format!("/login#{}", secret.reveal())))
    }

    /// A tunnel opened, and this is where others reach it; or it is no more.
    pub fn set_tunnel(&self, url: Option<PublicUrl>) {
        self.0.guard.set_tunnel(url);
    }
}
