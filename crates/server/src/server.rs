//! The server's life: takes home and address, accepts connections, ends in order.

use std::{
    convert::Infallible,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use axum::{Router, http::Request};
use firepot_store::{Generation, GenerationState, Home, ServerLock, state::Mirror};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    server::graceful::{GracefulShutdown, Watcher},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpListener, TcpStream},
    sync::Semaphore,
    time::{sleep, timeout},
};
use tokio_rustls::TlsAcceptor;
use tower::ServiceExt as _;

use crate::{
    access::{Limiter, Net, Over, Place},
    app::App,
    arrived::Peer,
    deadline::ending,
    door::Door,
    journal::recover,
    limits,
    mirror::Mirroring,
    pool::{Launcher, Planner, ProcessLauncher},
    pulls::Fetcher,
    reload::Keeper,
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
    mirror: Option<Mirror>,
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
        tidy(home.clone());
        let tls = settings.tls.is_some();
        let app = Arc::new(App::new(settings, home, planner, launcher, fetcher));
        lock.announce(address, env!("CARGO_PKG_VERSION"), tls, app.access.local_key())?;
        Ok(Self { app, listener, address, mirror: None, lock })
    }

    /// The same, mirroring its state while it serves.
    #[must_use]
    pub fn with_mirror(self, mirror: Option<Mirror>) -> Self {
        Self { mirror, ..self }
    }

    /// What whoever started the server does with its access.
    #[must_use]
    pub fn door(&self) -> Door {
        Door(Arc::clone(&self.app))
    }

    /// Where it listens.
    #[must_use]
    pub const fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves until `shutdown` is done, or the session is about to end. Then nobody is let in any more, running answers get
    /// [`Times::shutdown_grace`](crate::Times::shutdown_grace), runners are stopped, what was said in chats is
    /// stored and mirrored, pulls are left for the next start, those who watch are let go, and the home is freed. Says how many
    /// answers were cut off.
    pub async fn serve(self, shutdown: impl Future<Output = ()>) -> usize {
        let Self { app, listener, mirror, lock, .. } = self;
        recover(&app).await;
        let keeper = Keeper::start(&app);
        let mirroring = mirror.map(|mirror| Mirroring::start(&app, mirror));
        let connections = GracefulShutdown::new();
        let entrance = Entrance::new(&app);
        tokio::select! {
            never = entrance.accept(&listener, &connections) => match never {},
            () = shutdown => {}
            () = ending(&app) => {}
        }
        drop(listener);
        keeper.stop().await;
        tracing::info!(in_flight = app.pool.in_flight(), "shutting down");
        app.talks.close();
        app.pulls.close().await;
        app.trials.close().await;
        let closing = tokio::spawn(connections.shutdown());
        app.pool.shutdown().await;
        app.talks.ended().await;
        app.journal.written().await;
        let cut = cut_off(&app).await;
        if let Some(mirroring) = mirroring {
            mirroring.stop().await;
        }
        if timeout(limits::CLOSE_GRACE, closing).await.is_err() {
            tracing::info!("some connections were cut");
        }
        drop(lock);
        cut
    }
}

/// How many answers the journal has that are neither ended nor made any more.
async fn cut_off(app: &App) -> usize {
    if !app.home().has_database() {
        return 0;
    }
    let list = app.with_database(|database| database.journal().list(limits::MAX_IN_FLIGHT)).await;
    let running = |one: &Generation| one.state == GenerationState::Running;
    list.map_or(0, |list| list.iter().filter(|one| running(one)).count())
}

/// Removes what killed processes left in the home, beside the first requests.
fn tidy(home: Home) {
    tokio::task::spawn_blocking(move || match home.sweep() {
        Ok(0) => {}
        Ok(freed_bytes) => tracing::info!(freed_bytes, "removed what was left behind"),
        Err(error) => tracing::warn!(%error, "the home could not be tidied"),
    });
}

/// What every connection needs.
struct Entrance {
    router: Router,
    places: Arc<Semaphore>,
    /// Where keys are asked for, so that one address cannot take all places.
    of_address: Option<Limiter<Net>>,
    tls: Option<TlsAcceptor>,
    head_read: Duration,
}

impl Entrance {
    fn new(app: &Arc<App>) -> Self {
        Self {
            router: router(Arc::clone(app)),
            places: Arc::new(Semaphore::new(limits::MAX_CONNECTIONS)),
            of_address: app.access.is_required().then(|| Limiter::new(limits::ADDRESS_CONNECTIONS)),
            tls: app.settings.tls.clone().map(TlsAcceptor::from),
            head_read: app.settings.times.head_read,
        }
    }

    async fn accept(&self, listener: &TcpListener, connections: &GracefulShutdown) -> Infallible {
        loop {
            let Ok(place) = Arc::clone(&self.places).acquire_owned().await else { continue };
            match listener.accept().await {
                Ok((stream, address)) => {
                    let Ok(address_place) = self.place_of(address.ip()) else { continue };
                    let places = (place, address_place);
                    self.serve(stream, Peer(address.ip()), connections.watcher(), places);
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection could not be accepted");
                    sleep(limits::ACCEPT_RETRY_PAUSE).await;
                }
            }
        }
    }

    /// A place among those of an address; this machine needs none.
    ///
    /// # Errors
    /// When the address has them all.
    fn place_of(&self, address: IpAddr) -> Result<Option<Place<Net>>, Over> {
        let net = Net::of(address);
        match self.of_address.as_ref().filter(|_| !net.is_loopback()) {
            Some(limiter) => limiter.enter(net, Instant::now()).map(Some),
            None => Ok(None),
        }
    }

    /// Serves a connection in a task of its own, which holds `places` to its end.
    fn serve(&self, stream: TcpStream, peer: Peer, watcher: Watcher, places: impl Send + 'static) {
        // A token is one small write; it must not wait for the next one.
        let _ = stream.set_nodelay(true);
        let (router, tls, head_read) = (self.router.clone(), self.tls.clone(), self.head_read);
        tokio::spawn(async move {
            match tls {
                None => serve_connection(stream, router, peer, watcher, head_read).await,
                Some(tls) => match timeout(limits::TLS_HANDSHAKE_TIMEOUT, tls.accept(stream)).await {
                    Ok(Ok(stream)) => serve_connection(stream, router, peer, watcher, head_read).await,
                    Ok(Err(error)) => tracing::debug!(%error, "a TLS handshake failed"),
                    Err(_) => tracing::debug!("a TLS handshake took too long"),
                },
            }
            drop(places);
        });
    }
}

async fn serve_connection<S>(stream: S, router: Router, peer: Peer, watcher: Watcher, head_read: Duration)
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(head_read)
        .max_buf_size(limits::MAX_HEAD_BYTES)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    if let Err(error) = watcher.watch(connection).await {
        tracing::debug!(%error, "a connection broke");
    }
}
