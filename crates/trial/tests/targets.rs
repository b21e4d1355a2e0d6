//! Servers as they should be and as they should not, over real sockets.

use std::time::Duration;

use firepot_trial::{
    Ask, Clock, Patience, Seen, TargetError, Text, Turn, discover,
    fake::{FakeTarget, Kind, Manner, Script, schedule},
    watch,
};

fn patience() -> Patience {
    Patience { first: Duration::from_secs(1), gap: Duration::from_secs(1) }
}

fn script(kind: Kind, manner: Manner) -> Script {
    let ms = Duration::from_millis;
    Script { kind, manner, ttft: ms(5), gap: ms(1), ..Script::default() }
}

fn question(max_tokens: u32) -> Ask {
    let turns = vec![Turn::user("Tell me of the sea.")];
    Ask {
        model: "fake".into(),
        turns,
        max_tokens,
        ctx: 2048,
        strict: false,
        uncached: false,
        ignore_eos: false,
        schema: None,
    }
}

async fn ask(fake: &FakeTarget, max_tokens: u32) -> (Seen, Option<TargetError>) {
    let target = match discover(&fake.url(), None, patience()).await {
        Ok(target) => target,
        Err(error) => return (Seen::default(), Some(error)),
    };
    let clock = Clock::start();
    let ask = question(max_tokens);
    match target.generate(&ask, clock).await {
        Ok(answering) => watch(answering, clock, |_| {}).await,
        Err(error) => (Seen::default(), Some(error)),
    }
}

async fn outcome(script: Script, max_tokens: u32) -> (Seen, Option<TargetError>) {
    let fake = FakeTarget::start(script).await.expect("a port of loopback");
    ask(&fake, max_tokens).await
}

const KINDS: [Kind; 3] = [Kind::Firepot, Kind::Ollama, Kind::OpenAi];

#[tokio::test]
async fn each_kind_of_server_is_recognized_and_read() {
    for (kind, name) in KINDS.into_iter().zip(["firepot", "ollama", "openai"]) {
        let fake = FakeTarget::start(script(kind, Manner::Answers)).await.unwrap();
        let target = discover(&fake.url(), None, patience()).await.unwrap();
        assert_eq!(target.kind(), name);
        assert!(!target.version().await.unwrap().is_empty());
        let (seen, error) = ask(&fake, 8).await;
        assert!(error.is_none(), "{name}: {error:?}");
        assert_eq!((seen.generated(), seen.tokens().chunks), (Some(8), 8), "{name}");
        assert_eq!(seen.ids.is_some(), kind == Kind::Firepot);
        assert_eq!(seen.steps[0].server_unix_ns.is_some(), kind != Kind::OpenAi);
        assert!(seen.content.split_whitespace().count() == 8, "{}", seen.content);
    }
}

#[tokio::test]
async fn what_goes_wrong_has_a_name_in_every_dialect() {
    for kind in KINDS {
        for (manner, word) in [
            (Manner::ClosesAfter(3), "broke_off"),
            (Manner::FailsAfter(3), "failed"),
            (Manner::Silent, "silent"),
            (Manner::StallsAfter(3), "silent"),
            (Manner::NeverEnds, "endless"),
            (Manner::OnlyThinks, "endless"),
            (Manner::Refuses(503), "refused"),
            (Manner::Garbage, "bad_piece"),
        ] {
            let (seen, error) = outcome(script(kind, manner), 8).await;
            let error = error.unwrap_or_else(|| panic!("{kind:?} {manner:?}: no error, {seen:?}"));
            // To OpenAI's dialect a line that is no event is a comment, and then the answer has no end.
            let expected = if (kind, manner) == (Kind::OpenAi, Manner::Garbage) { "broke_off" } else { word };
            assert_eq!(error.word(), expected, "{kind:?} {manner:?}: {error}");
        }
    }
}

#[tokio::test]
async fn nobody_a_web_page_and_a_wrong_address_are_told_apart() {
    let fake = FakeTarget::start(script(Kind::Ollama, Manner::WebPage)).await.unwrap();
    let url = fake.url();
    let word = async |url: &str| discover(url, None, patience()).await.map(drop).unwrap_err().word();
    assert!(["web_page", "unknown_server"].contains(&word(&url).await));
    drop(fake);
    tokio::time::sleep(Duration::from_millis(20)).await;
    assert_eq!(word(&url).await, "down");
    assert_eq!(word("ftp://127.0.0.1").await, "bad_address");
}

#[tokio::test]
async fn a_reply_without_end_is_given_up() {
    use tokio::io::AsyncWriteExt as _;
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1", listener.local_addr().unwrap());
    let server = tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n\"";
        socket.write_all(head.as_bytes()).await.unwrap();
        // Until the client hangs up.
        while socket.write_all(&[b'x'; 1 << 13]).await.is_ok() {}
    });
    let target = discover(&url, None, patience()).await.unwrap();
    assert_eq!(target.version().await.unwrap_err().word(), "down");
    server.await.unwrap();
}

#[tokio::test]
async fn several_tokens_in_a_piece_and_no_usage_leave_counts_absent_that_nobody_can_know() {
    let (seen, error) =
        outcome(Script { tokens_per_piece: 3, ..script(Kind::Firepot, Manner::Answers) }, 8).await;
    assert!(error.is_none());
    assert_eq!((seen.tokens().chunks, seen.generated()), (3, Some(8)));
    assert_eq!(seen.server(&Clock::start(), false).gaps_us.len(), 7);
    let unsaid = Script { usage: false, tokens_per_piece: 3, ..script(Kind::OpenAi, Manner::Answers) };
    let (seen, error) = outcome(unsaid, 8).await;
    assert!(error.is_none());
    assert_eq!((seen.generated(), seen.tokens().prompt), (None, None));
    let (seen, error) = outcome(script(Kind::OpenAi, Manner::OnePiece), 8).await;
    assert!(error.is_none());
    assert_eq!((seen.client().gaps_us.len(), seen.generated()), (0, Some(8)));
}

#[tokio::test]
async fn thinking_is_told_from_the_answer() {
    for kind in KINDS {
        let (seen, _) = outcome(Script { think_tokens: 3, ..script(kind, Manner::Answers) }, 8).await;
        let thinking = seen.steps.iter().filter(|step| step.text == Text::Thinking).count();
        assert_eq!(thinking, 3, "{kind:?}");
        assert!(seen.client().first_us < seen.client().first_answer_us);
        assert!(!seen.cut_in_thinking());
        let (seen, _) = outcome(Script { think_tokens: 8, ..script(kind, Manner::Answers) }, 8).await;
        assert!(seen.cut_in_thinking(), "{kind:?}");
    }
}

#[tokio::test]
async fn a_token_is_never_stamped_before_it_was_written() {
    let script = Script { jitter: 0.5, ..script(Kind::Firepot, Manner::Answers) };
    let fake = FakeTarget::start(script.clone()).await.unwrap();
    let (seen, _) = ask(&fake, 20).await;
    let due = schedule(&script, "Tell me of the sea.", 20);
    for (step, due) in seen.steps.iter().zip(due) {
        assert!(Duration::from_nanos(step.at_ns - seen.sent_ns) >= due);
    }
}
