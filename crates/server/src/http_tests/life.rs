//! A server on a real socket: from its start to its end.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use firepot_store::{ChatId, Home, MessageState, StoreError};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    sync::oneshot,
    task::JoinHandle,
};

use crate::{
    Server, ServerSettings, StartError,
    testing::{BudgetPlanner, Script, ScriptLauncher, ScriptedFetcher, TestHome, ask, eventually, settings},
};

struct Running {
    home: TestHome,
    address: SocketAddr,
    script: Arc<Script>,
    stop: oneshot::Sender<()>,
    ended: JoinHandle<usize>,
}

async fn bind(settings: ServerSettings, home: &Home) -> Result<(Server, Arc<Script>), StartError> {
    let launcher = ScriptLauncher::default();
    let script = Arc::clone(&launcher.script);
    let planner = Arc::new(BudgetPlanner::default());
    let fetcher = Arc::new(ScriptedFetcher::default());
    Ok((Server::bind_with(settings, home.clone(), planner, Arc::new(launcher), fetcher).await?, script))
}

impl Running {
    async fn start(change: impl FnOnce(&mut ServerSettings)) -> Self {
        let home = TestHome::new();
        home.add("tiny", "");
        let mut settings = settings(home.dir.path());
        change(&mut settings);
        let (server, script) = bind(settings, &home.home).await.unwrap();
        let address = server.address();
        let (stop, stopped) = oneshot::channel();
        let ended = tokio::spawn(server.serve(async { drop(stopped.await) }));
        Self { home, address, script, stop, ended }
    }

    async fn connect(&self, request: String) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream
    }

    async fn chat(&self, question: &str, streamed: bool) -> TcpStream {
        let body = ask(question, streamed).to_string();
        let head =
            format!("POST /api/chat HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n", body.len());
        self.connect(head + &body).await
    }

    async fn post(&self, path: &str, body: &str) -> TcpStream {
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        self.connect(head + body).await
    }

    /// Makes a chat and asks in it; its id.
    async fn ask_in_chat(&self, question: &str) -> ChatId {
        let made = rest(self.post("/firepot/v1/chats", r#"{"model":"tiny"}"#).await).await;
        let chat: Value = serde_json::from_str(made.split("\r\n\r\n").nth(1).unwrap()).unwrap();
        let id = chat["id"].as_str().unwrap();
        let body = json!({ "kind": "send", "content": question }).to_string();
        let begun = rest(self.post(&format!("/firepot/v1/chats/{id}/answer"), &body).await).await;
        assert!(begun.starts_with("HTTP/1.1 202"), "{begun}");
        id.parse().unwrap()
    }

    async fn get(&self, path: &str) -> String {
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        rest(self.connect(request).await).await
    }
}

async fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    // A connection that is cut has said what it has said.
    let _ = stream.read_to_end(&mut bytes).await;
    String::from_utf8(bytes).unwrap()
}

#[tokio::test]
async fn the_record_tells_where_the_server_is_until_it_ends() {
    let server = Running::start(|_| {}).await;
    let record = server.home.home.server_record().unwrap().unwrap();
    assert_eq!((record.address, record.pid), (server.address, std::process::id()));
    assert!(server.get("/healthz").await.ends_with("ok"));
    server.stop.send(()).unwrap();
    server.ended.await.unwrap();
    assert_eq!(server.home.home.server_record().unwrap(), None);
    assert!(TcpStream::connect(server.address).await.is_err());
}

#[tokio::test]
async fn a_home_and_an_address_are_for_one_server() {
    let server = Running::start(|_| {}).await;
    let second = bind(settings(server.home.dir.path()), &server.home.home).await;
    let Err(StartError::Home(StoreError::ServerRunning { address, .. })) = second else {
        panic!("{second:?}")
    };
    assert_eq!(address, Some(server.address));

    let other = TestHome::new();
    let mut settings = settings(other.dir.path());
    settings.address = server.address;
    let Err(StartError::AddressInUse { occupant, .. }) = bind(settings, &other.home).await else { panic!() };
    assert_eq!(occupant, crate::Occupant::Firepot);
    assert_eq!(other.home.server_record().unwrap(), None);
}

#[tokio::test]
async fn a_connection_that_closes_cancels_its_answer_streamed_or_not() {
    let server = Running::start(|_| {}).await;
    for (count, streamed) in [(1, true), (2, false)] {
        let connection = server.chat("long", streamed).await;
        eventually("the request", || server.script.requests.lock().unwrap().len() == count).await;
        drop(connection);
        eventually("the cancel", || server.script.cancelled.lock().unwrap().len() == count).await;
    }
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_stop_the_others() {
    let server = Running::start(|_| {}).await;
    let mut idle = Vec::new();
    for _ in 0..200 {
        idle.push(server.connect("GET /healthz HTTP/1.1\r\n".into()).await);
    }
    assert!(server.get("/healthz").await.ends_with("ok"));
}

#[tokio::test]
async fn an_answer_that_does_not_end_in_time_is_cut_with_an_error_when_the_server_ends() {
    let server = Running::start(|settings| settings.times.shutdown_grace = Duration::from_millis(50)).await;
    let mut connection = server.chat("long", true).await;
    let mut first = [0; 1];
    connection.read_exact(&mut first).await.unwrap();
    server.stop.send(()).unwrap();
    let rest = rest(connection).await;
    assert!(rest.contains(r#"{"error":"the answer was cut off because tiny:latest was stopped"}"#), "{rest}");
    server.ended.await.unwrap();
}

#[tokio::test]
async fn an_answer_that_ends_in_time_is_whole_when_the_server_ends() {
    let server = Running::start(|settings| settings.times.shutdown_grace = Duration::from_secs(30)).await;
    let connection = server.chat("hi", true).await;
    eventually("the request", || server.script.requests.lock().unwrap().len() == 1).await;
    server.stop.send(()).unwrap();
    let (answer, ended) = tokio::join!(rest(connection), server.ended);
    assert!(answer.contains(r#""done":true"#), "{answer}");
    ended.unwrap();
}

#[tokio::test]
async fn an_answer_in_a_chat_that_is_cut_off_when_the_server_ends_goes_on_with_the_next_one() {
    let server = Running::start(|settings| settings.times.shutdown_grace = Duration::from_millis(50)).await;
    let chat = server.ask_in_chat("hold two").await;
    let request = format!("GET /firepot/v1/events?chat={chat} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    let mut watching = server.connect(request).await;
    let mut seen = Vec::new();
    while !String::from_utf8_lossy(&seen).contains("two ") {
        watching.read_buf(&mut seen).await.unwrap();
    }
    server.stop.send(()).unwrap();
    server.ended.await.unwrap();
    assert!(rest(watching).await.ends_with("0\r\n\r\n"), "the stream has an end");

    let (next, _) = bind(settings(server.home.dir.path()), &server.home.home).await.unwrap();
    let ended = tokio::spawn(next.serve(std::future::pending()));
    let database = server.home.home.database().unwrap();
    let answer = || database.chats().get(chat).unwrap().messages[1].body.clone();
    eventually("the rest of the answer", || answer().state == MessageState::Complete).await;
    assert_eq!(answer().content, "one two three");
    assert_eq!(answer().stats.unwrap()["completion_tokens"], 3);
    ended.abort();
}

#[tokio::test]
async fn an_answer_in_a_chat_that_ends_in_time_is_whole_when_the_server_ends() {
    let server = Running::start(|settings| settings.times.shutdown_grace = Duration::from_secs(30)).await;
    let chat = server.ask_in_chat("hi").await;
    eventually("the request", || server.script.requests.lock().unwrap().len() == 1).await;
    server.stop.send(()).unwrap();
    server.ended.await.unwrap();
    let stored = server.home.home.database().unwrap().chats().get(chat).unwrap();
    let answer = &stored.messages[1].body;
    assert_eq!((answer.content.as_str(), answer.state), ("Hello world", MessageState::Complete));
}

#[tokio::test]
async fn a_head_that_comes_too_slowly_is_cut_and_one_that_is_too_long_is_431() {
    let running = Running::start(|settings| {
        settings.require_key = true;
        settings.times.head_read = Duration::from_millis(50);
    })
    .await;
    let slow = running.connect("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ".into()).await;
    // The server closes it although the client never ends.
    assert!(!rest(slow).await.starts_with("HTTP/1.1 200"));

    let long = "x".repeat(3 * crate::limits::MAX_HEAD_BYTES);
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Long: {long}\r\n\r\n");
    let answer = rest(running.connect(head).await).await;
    assert!(answer.starts_with("HTTP/1.1 431") || answer.is_empty(), "{answer}");
    let many = "X-Many: y\r\n".repeat(2000);
    let head = format!("GET /healthz HTTP/1.1\r\nHost: localhost\r\n{many}\r\n");
    let answer = rest(running.connect(head).await).await;
    assert!(answer.starts_with("HTTP/1.1 431"), "{answer}");
    assert!(running.get("/healthz").await.starts_with("HTTP/1.1 200"));
}

#[tokio::test]
async fn a_body_for_the_login_that_comes_too_slowly_is_refused() {
    let running = Running::start(|settings| {
        settings.require_key = true;
        settings.times.login_body = Duration::from_millis(50);
    })
    .await;
    let head = "POST /firepot/v1/login HTTP/1.1\r\nHost: localhost\r\nContent-Length: 40\r\n\r\n{\"secret\":";
    let answer = rest(running.connect(head.into()).await).await;
    assert!(answer.starts_with("HTTP/1.1 400") && answer.contains("in time"), "{answer}");
}

#[tokio::test]
async fn whoever_owns_the_home_finds_a_way_in_by_its_record_alone() {
    let running = Running::start(|settings| settings.require_key = true).await;
    assert!(running.get("/api/tags").await.starts_with("HTTP/1.1 401"));
    let record = running.home.home.server_record().unwrap().unwrap();
    let key = record.key.unwrap();
    let head = format!(
        "GET /api/tags HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer {}\r\n\r\n",
        key.reveal()
    );
    assert!(rest(running.connect(head).await).await.starts_with("HTTP/1.1 200"));
    let open = Running::start(|_| {}).await;
    assert_eq!(open.home.home.server_record().unwrap().unwrap().key, None);
}
