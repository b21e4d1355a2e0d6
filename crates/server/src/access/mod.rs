//! Who may come in: keys, login links and sessions, checked before any route.
//!
//! On loopback without a tunnel whoever reaches the server is its owner, and nothing is asked for. Everywhere else each request
//! shows a key (`Authorization: Bearer` or `x-api-key`) or a session's cookie, but for what is [`Need::Open`]. Which names
//! and pages may ask at all is `guard`'s question, and asked before.

mod book;
mod cors;
mod limiter;
mod lockout;
mod net;
mod pass;
mod scope;
mod shown;

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use axum::{
    extract::Request,
    http::{HeaderMap, HeaderValue, Method, Uri, header},
    response::Response,
};
use firepot_store::{Credential, CredentialId, CredentialKind, Scopes, Secret, Token};
use firepot_wire::{ApiError, ErrorCode};
use jiff::{SignedDuration, Timestamp};
use tokio::sync::OnceCell;
use tokio_util::sync::CancellationToken;

use self::{
    book::{Book, Checked, after},
    lockout::Lockouts,
    pass::Held,
    shown::{Shown, is_key_in, shown},
};
pub use self::{
    cors::{allow, preflight},
    limiter::{Allowance, Limiter, Over, Place},
    net::Net,
    pass::Pass,
    scope::{Need, need},
    shown::X_API_KEY,
};
use crate::{
    app::App,
    arrived::Peer,
    limits::{ADDRESS_ALLOWANCE, GUEST_ALLOWANCE, KEY_ALLOWANCE, LOGIN_LIFE, SESSION_LIFE},
    routes::reply::Dialect,
};

/// Who sent a request.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Its credential; `None` for the owner of a server that asks for none, and for somebody who has not logged in.
    pub id: Option<CredentialId>,
    /// The credential's name.
    pub name: String,
    /// What it lets do.
    pub scopes: Scopes,
}

impl Principal {
    fn of(credential: &Credential) -> Self {
        Self { id: Some(credential.id), name: credential.name.clone(), scopes: credential.scopes }
    }

    /// Whoever started the server.
    pub fn owner() -> Self {
        Self { id: None, name: "owner".to_owned(), scopes: Scopes::ADMIN }
    }

    fn guest() -> Self {
        let scopes = Scopes { chat: false, models: false, admin: false };
        Self { id: None, name: "guest".to_owned(), scopes }
    }
}

/// What of a request decides whether it is let in.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// Its method.
    pub method: &'a Method,
    /// Its address.
    pub uri: &'a Uri,
    /// Its headers.
    pub headers: &'a HeaderMap,
    /// Where it comes from.
    pub net: Net,
}

impl<'a> Asked<'a> {
    /// Of a request.
    pub fn of(request: &'a Request) -> Self {
        Self {
            method: request.method(),
            uri: request.uri(),
            headers: request.headers(),
            net: net_of(request),
        }
    }
}

/// Why a request is not let in.
#[derive(Debug)]
pub struct Refused {
    error: ApiError,
    wait: Option<Duration>,
}

impl Refused {
    fn new(code: ErrorCode, message: &str) -> Self {
        Self { error: ApiError::new(code, message), wait: None }
    }

    fn hint(mut self, hint: &str) -> Self {
        self.error = self.error.with_hint(hint);
        self
    }

    fn later(message: &str, wait: Duration) -> Self {
        Self { wait: Some(wait), ..Self::new(ErrorCode::TooManyRequests, message) }
    }

    /// Not for want of a key.
    pub fn is_forbidden(&self) -> bool {
        self.error.code == ErrorCode::Forbidden
    }

    /// The answer.
    pub fn response(&self, dialect: Dialect) -> Response {
        let mut response = dialect.error(&self.error);
        let headers = response.headers_mut();
        if let Some(wait) = self.wait {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(wait.as_secs().saturating_add(1)));
        }
        if self.error.code == ErrorCode::Unauthorized {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer realm=\"firepot\""));
        }
        response
    }
}

impl From<ApiError> for Refused {
    fn from(error: ApiError) -> Self {
        Self { error, wait: None }
    }
}

/// Who may come in.
#[derive(Debug)]
pub struct Access {
    required: bool,
    /// For commands of whoever owns the home; lives as long as the server and is nowhere in the database.
    local: Option<Token>,
    book: OnceCell<Book>,
    /// Held while credentials are changed, so that database and memory change together.
    changing: tokio::sync::Mutex<()>,
    lockouts: Mutex<Lockouts>,
    keys: Limiter<CredentialId>,
    addresses: Limiter<Net>,
    guests: Limiter<Net>,
}

impl Access {
    /// Asks for keys, or not.
    pub fn new(required: bool) -> Self {
        // Without random numbers commands find no way in; making a key says why.
        let local = required.then(|| Token::new(CredentialKind::Key).ok()).flatten();
        Self {
            required,
            local,
            book: OnceCell::new(),
            changing: tokio::sync::Mutex::new(()),
            lockouts: Mutex::default(),
            keys: Limiter::new(KEY_ALLOWANCE),
            addresses: Limiter::new(ADDRESS_ALLOWANCE),
            guests: Limiter::new(GUEST_ALLOWANCE),
        }
    }

    /// Whether keys are asked for.
    pub const fn is_required(&self) -> bool {
        self.required
    }

    /// What lets commands of the home's owner in.
    pub fn local_key(&self) -> Option<Secret> {
        self.local.as_ref().map(Token::text)
    }

    /// Lets a request in, or not.
    pub async fn admit(&self, app: &Arc<App>, asked: Asked<'_>, need: Need) -> Result<Pass, Refused> {
        if !self.required {
            return Ok(Pass { principal: Principal::owner(), held: Held::default(), revoked: None });
        }
        if is_key_in(asked.uri) {
            let message = "a key does not belong into an address, where histories and logs keep it";
            return Err(Refused::new(ErrorCode::InvalidRequest, message)
                .hint("send it as Authorization: Bearer, and revoke this one"));
        }
        let net = asked.net;
        let Some(checked) = self.identify(app, asked).await? else {
            return self.admit_guest(net, need);
        };
        let principal = checked.principal;
        if !need.met_by(principal.scopes) {
            let message = format!("the key '{}' has no {} scope", principal.name, need.word());
            return Err(Refused::new(ErrorCode::Forbidden, &message));
        }
        let key = principal.id.map(|id| self.keys.enter(id, Instant::now())).transpose().map_err(over)?;
        let held = match self.addresses.enter(net, Instant::now()) {
            Ok(net) => Held { key, net: Some(net) },
            // Crowds of other addresses are no reason to keep out whoever has a key.
            Err(Over::Clients) => Held { key, net: None },
            Err(full) => return Err(over(full)),
        };
        Ok(Pass { principal, held, revoked: Some(checked.revoked) })
    }

    fn admit_guest(&self, net: Net, need: Need) -> Result<Pass, Refused> {
        let place = self.guests.enter(net, Instant::now()).map_err(over)?;
        if need != Need::Open {
            return Err(Refused::new(ErrorCode::Unauthorized, "a key is needed")
                .hint("send Authorization: Bearer KEY; make one with: firepot key create NAME"));
        }
        let held = Held { key: None, net: Some(place) };
        Ok(Pass { principal: Principal::guest(), held, revoked: None })
    }

    /// Whose request it is; `None` when it shows nothing. A cookie that is over counts as nothing: its browser is to log in.
    async fn identify(&self, app: &Arc<App>, asked: Asked<'_>) -> Result<Option<Checked>, Refused> {
        let token = match shown(asked.headers, &cookie_name(app)) {
            Shown::Nothing => return Ok(None),
            Shown::Session(token) => return Ok(self.check(app, &token).await?),
            Shown::Key(token) => token,
        };
        let checked = match &token {
            Some(token) => self.check(app, token).await?,
            None => None,
        };
        if checked.is_some() {
            return Ok(checked);
        }
        self.wrong_key(asked.net)
    }

    /// Answers a wrong key: too many of them, and the address must wait.
    fn wrong_key<T>(&self, net: Net) -> Result<T, Refused> {
        let now = Instant::now();
        let mut lockouts = lock(&self.lockouts);
        if let Some(wait) = lockouts.wait(net, now) {
            return Err(Refused::later("too many wrong keys came from this address", wait));
        }
        lockouts.wrong(net, now);
        drop(lockouts);
        self.guests.enter(net, now).map_err(over)?;
        Err(Refused::new(ErrorCode::Unauthorized, "the key is wrong, revoked or expired"))
    }

    async fn check(&self, app: &Arc<App>, token: &Token) -> Result<Option<Checked>, ApiError> {
        if let Some(local) = self.local.as_ref().filter(|local| local.id == token.id) {
            let principal = Principal { id: Some(local.id), ..Principal::owner() };
            let right = local.kind == token.kind && local.hash().matches(token);
            return Ok(right.then(|| Checked {
                principal,
                revoked: CancellationToken::new(),
                note_use: false,
            }));
        }
        let checked = self.book(app).await?.check(token, Timestamp::now());
        if checked.as_ref().is_some_and(|checked| checked.note_use) {
            tokio::spawn(note_use(Arc::clone(app), token.id));
        }
        Ok(checked)
    }

    /// The credentials, read when they are first needed.
    async fn book(&self, app: &App) -> Result<&Book, ApiError> {
        let load = async {
            let now = Timestamp::now();
            app.with_database(move |database| database.credentials().load(now)).await.map(Book::new)
        };
        self.book.get_or_try_init(|| load).await
    }

    /// Keys and sessions.
    pub async fn list(&self, app: &App) -> Result<Vec<Credential>, ApiError> {
        Ok(self.book(app).await?.list())
    }

    /// Makes a key.
    pub async fn create_key(
        &self,
        app: &App,
        name: &str,
        scopes: Scopes,
    ) -> Result<(Credential, Secret), ApiError> {
        let (token, credential) = made(CredentialKind::Key, name, scopes)?;
        let _changing = self.changing.lock().await;
        self.add(app, &credential, Vec::new()).await?;
        Ok((credential, token.text()))
    }

    /// Makes the first key, if there is none.
    pub async fn first_key(&self, app: &App) -> Result<Option<Secret>, ApiError> {
        let known = self.list(app).await?;
        if known.iter().any(|credential| credential.kind == CredentialKind::Key) {
            return Ok(None);
        }
        Ok(Some(self.create_key(app, "first", Scopes::ADMIN).await?.1))
    }

    /// Makes a link's secret, which opens one session that ends with the credential it was made with.
    pub async fn create_login(
        &self,
        app: &App,
        name: &str,
        scopes: Scopes,
        by: &Principal,
    ) -> Result<(Credential, Secret), ApiError> {
        let (token, mut credential) = made(CredentialKind::Login, name, scopes)?;
        let _changing = self.changing.lock().await;
        let parent = by.id.and_then(|id| self.book.get()?.get(id));
        credential.parent_id = parent.as_ref().map(|parent| parent.id);
        credential.expires_at = Some(ends(credential.created_at, LOGIN_LIFE, parent.as_ref()));
        self.add(app, &credential, Vec::new()).await?;
        Ok((credential, token.text()))
    }

    /// Opens a session for whoever shows a link's secret, which is used up, or a key.
    pub async fn log_in(
        &self,
        app: &Arc<App>,
        secret: &str,
        net: Net,
    ) -> Result<(Credential, Secret), Refused> {
        let changing = self.changing.lock().await;
        let shown = Token::parse(secret).filter(|token| token.kind != CredentialKind::Session);
        let checked = match &shown {
            Some(token) => self.check(app, token).await?.and_then(|checked| checked.principal.id),
            None => None,
        };
        let Some(with) = checked.and_then(|id| self.book.get()?.get(id)) else {
            drop(changing);
            return self.wrong_key(net);
        };
        let (token, mut session) = made(CredentialKind::Session, &with.name, with.scopes)?;
        let is_link = with.kind == CredentialKind::Login;
        session.parent_id = if is_link { with.parent_id } else { Some(with.id) };
        let parent = session.parent_id.and_then(|id| self.book.get()?.get(id));
        session.expires_at = Some(ends(session.created_at, SESSION_LIFE, parent.as_ref()));
        self.add(app, &session, is_link.then_some(with.id).into_iter().collect()).await?;
        Ok((session, token.text()))
    }

    /// Revokes a key or session with what was made with it. What runs with them breaks off.
    ///
    /// # Errors
    /// [`ErrorCode::NotFound`].
    pub async fn revoke(&self, app: &App, id: CredentialId) -> Result<(), ApiError> {
        let _changing = self.changing.lock().await;
        let book = self.book(app).await?;
        if book.get(id).is_none() {
            return Err(ApiError::new(ErrorCode::NotFound, format!("there is no key {id}")));
        }
        app.with_database(move |database| database.credentials().change(&[id], None)).await?;
        book.remove(id);
        Ok(())
    }

    /// Adds a credential in place of those that are used up. The caller holds `changing`.
    async fn add(
        &self,
        app: &App,
        credential: &Credential,
        mut gone: Vec<CredentialId>,
    ) -> Result<(), ApiError> {
        let book = self.book(app).await?;
        gone.extend(book.room_for(credential.kind, credential.created_at)?);
        let (remove, stored) = (gone.clone(), credential.clone());
        app.with_database(move |database| database.credentials().change(&remove, Some(&stored))).await?;
        for id in gone {
            book.remove(id);
        }
        book.put(credential.clone());
        Ok(())
    }

    /// Ends a credential's time.
    #[cfg(test)]
    pub fn expire(&self, id: CredentialId) {
        let book = self.book.get().expect("it was loaded");
        let mut credential = book.get(id).expect("it is there");
        credential.expires_at = Some(Timestamp::now());
        book.put(credential);
    }
}

/// The name of this server's cookie. Browsers keep cookies for a host, whatever its port: each server has a name of its own.
pub fn cookie_name(app: &App) -> String {
    format!("firepot-{}", app.settings.address.port())
}

/// A token, and what is kept of it.
fn made(kind: CredentialKind, name: &str, scopes: Scopes) -> Result<(Token, Credential), ApiError> {
    let token = Token::new(kind).map_err(|error| {
        ApiError::new(ErrorCode::Internal, "this machine gives no random numbers")
            .with_detail(error.to_string())
    })?;
    let credential = Credential::new(&token, name, scopes).map_err(|error| crate::app::api_error(&error))?;
    Ok((token, credential))
}

/// When something made now ends: after its life, or with what it was made with.
fn ends(now: Timestamp, life: SignedDuration, parent: Option<&Credential>) -> Timestamp {
    let end = after(now, life);
    parent.and_then(|parent| parent.expires_at).map_or(end, |parents| parents.min(end))
}

async fn note_use(app: Arc<App>, id: CredentialId) {
    let Some(at) = app.access.book.get().and_then(|book| book.used_at(id)) else { return };
    if let Err(error) = app.with_database(move |database| database.credentials().used(&[(id, at)])).await {
        tracing::warn!(%error, "the use of a key was not noted");
    }
}

fn over(over: Over) -> Refused {
    match over {
        Over::Rate(wait) => Refused::later("too many requests", wait),
        Over::InFlight => Refused::later("too many requests at the same time", Duration::ZERO),
        Over::Clients => Refused::later("too many clients", Duration::ZERO),
    }
}

/// Where a request comes from. Without a connection it is a test's.
pub fn net_of(request: &Request) -> Net {
    let loopback = std::net::Ipv4Addr::LOCALHOST.into();
    Net::of(request.extensions().get::<Peer>().map_or(loopback, |peer| peer.0))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
