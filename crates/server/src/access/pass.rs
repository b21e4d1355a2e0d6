//! What a request that was let in holds until its answer is over: its places, and the right to go on.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::{
    body::{Body, Bytes},
    response::Response,
};
use firepot_store::CredentialId;
use hyper::body::{Body as HttpBody, Frame, SizeHint};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};

use super::{Principal, limiter::Place, net::Net};

/// A request that was let in.
#[derive(Debug)]
pub struct Pass {
    /// Who it is.
    pub principal: Principal,
    pub(super) held: Held,
    /// Done when the credential is revoked; nothing without one.
    pub(super) revoked: Option<CancellationToken>,
}

/// Places of one request.
#[derive(Debug, Default)]
pub struct Held {
    pub key: Option<Place<CredentialId>>,
    pub net: Option<Place<Net>>,
}

impl Held {
    const fn is_empty(&self) -> bool {
        self.key.is_none() && self.net.is_none()
    }
}

impl Pass {
    /// The same answer, which holds the places until it is over and breaks off when the credential is revoked.
    pub fn around(self, response: Response) -> Response {
        if self.held.is_empty() && self.revoked.is_none() {
            return response;
        }
        let revoked = self.revoked.map(|token| Box::pin(token.cancelled_owned()));
        response.map(|body| Body::new(HeldBody { body, revoked, _held: self.held }))
    }
}

struct HeldBody {
    body: Body,
    revoked: Option<Pin<Box<WaitForCancellationFutureOwned>>>,
    _held: Held,
}

/// The credential was revoked while its answer was being sent.
#[derive(Debug, thiserror::Error)]
#[error("the key was revoked")]
struct Revoked;

impl HttpBody for HeldBody {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if let Some(revoked) = &mut self.revoked
            && revoked.as_mut().poll(context).is_ready()
        {
            return Poll::Ready(Some(Err(axum::Error::new(Revoked))));
        }
        Pin::new(&mut self.body).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
