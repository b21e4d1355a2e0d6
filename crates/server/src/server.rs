//! The server's life: takes home and address, accepts connections, ends in order.

use std::{convert::Infallible, net::SocketAddr, sync::Arc};

use axum::{Router, http::Request};
use firepot_store::{Home, ServerLock};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tower::ServiceExt as _;

use crate::{
    app::App,
    arrived::Peer,
    journal::recover,
    limits,
    pool::{Launcher, Planner, ProcessLauncher},
    pulls::Fetcher,
    routes::router,
    settings::ServerSettings,
    start::{StartError, listen, raise_open_files},
};

/// A server that holds its home and listens.
#[derive(Debug)]
pub struct Server {
    app: Arc<App>,
    listener: TcpListener,
    address: SocketAddr,
    /// Freed, and the record removed, when the server has ended.
    lock: ServerLock,
}

impl Server {
    /// Takes the home, then the address, and tells both in the home's record. Requests wait until
    /// [`serve`](Self::serve).
    ///
    /// # Errors
    /// When another server holds the home, or somebody the address.
    pub async fn bind(
        settings: ServerSettings,
        home: Home,
        planner: Arc<dyn Planner>,
        fetcher: Arc<dyn Fetcher>,
    ) -> Result<Self, StartError> {
        let launcher = ProcessLauncher::new(settings.runner.clone(), settings.log_dir.clone());
        Self::bind_with(settings, home, planner, Arc::new(launcher), fetcher).await
    }

    /// The same with another way to start runners.
    ///
    /// # Errors
    /// As [`bind`](Self::bind).
    pub async fn bind_with(
        mut settings: ServerSettings,
        home: Home,
        planner: Arc<dyn Planner>,
        launcher: Arc<dyn Launcher>,
        fetcher: Arc<dyn Fetcher>,
    ) -> Result<Self, StartError> {
        raise_open_files();
        let wanted = settings.address;
        let lock = home.lock_server()?;
        let bound = tokio::task::spawn_blocking(move || listen(wanted)).await;
        let failed = |source| StartError::Bind { address: wanted, source };
        let listener = bound.map_err(|error| failed(error.into()))??;
        listener.set_nonblocking(true).map_err(failed)?;
        let listener = TcpListener::from_std(listener).map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        settings.address = address;
        lock.announce(address, env!("CARGO_PKG_VERSION"))?;
        tidy(home.clone());
        let app = Arc::new(App::new(settings, home, planner, launcher, fetcher));
        Ok(Self { app, listener, address, lock })
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done. Then nobody is let in any more, running answers get
    /// [`Times::shutdown_grace`](crate::Times::shutdown_grace), runners are stopped, what was said in chats is
    /// stored, pulls are left for the next start, those who watch are let go, and the home is freed.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) {
        let Self { app, listener, lock, .. } = self;
        recover(&app).await;
        let connections = GracefulShutdown::new();
        let router = router(Arc::clone(&app));
        tokio::select! {
            never = accept(&listener, &router, &connections) => match never {},
            () = shutdown => {}
        }
        drop(listener);
        tracing::info!(in_flight = app.pool.in_flight(), "shutting down");
        app.talks.close();
        app.pulls.close().await;
        let closing = tokio::spawn(connections.shutdown());
        app.pool.shutdown().await;
        app.talks.ended().await;
        app.journal.written().await;
        if timeout(limits::CLOSE_GRACE, closing).await.is_err() {
            tracing::info!("some connections were cut");
        }
        drop(lock);
    }
}

/// Removes what killed processes left in the home, beside the first requests.
fn tidy(home: Home) {
    tokio::task::spawn_blocking(move || match home.sweep() {
        Ok(0) => {}
        Ok(freed_bytes) => tracing::info!(freed_bytes, "removed what was left behind"),
        Err(error) => tracing::warn!(%error, "the home could not be tidied"),
    });
}

async fn accept(listener: &TcpListener, router: &Router, connections: &GracefulShutdown) -> Infallible {
    let places = Arc::new(Semaphore::new(limits::MAX_CONNECTIONS));
    loop {
        let Ok(place) = Arc::clone(&places).acquire_owned().await else { continue };
        match listener.accept().await {
            Ok((stream, address)) => {
                let peer = Peer(address.ip());
                tokio::spawn(serve_connection(stream, router.clone(), peer, connections.watcher(), place));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(limits::ACCEPT_RETRY_PAUSE).await;
            }
        }
    }
}

async fn serve_connection(
    stream: TcpStream,
    router: Router,
    peer: Peer,
    watcher: Watcher,
    _place: OwnedSemaphorePermit,
) {
    // A token is one small write; it must not wait for the next one.
    let _ = stream.set_nodelay(true);
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits::HEADER_READ_TIMEOUT)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection broke");
    }
}
