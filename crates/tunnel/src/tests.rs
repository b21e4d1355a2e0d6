//! Programs that follow a script, in place of those that need the world: what we make of what they print, and of their death.

use std::{fs::File, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path, time::Duration};

use tokio::{sync::mpsc, time::timeout};

use crate::{Event, Pauses, SshOptions, Tunnel, Via, keep};

const PATIENCE: Duration = Duration::from_secs(30);

struct Kept {
    events: mpsc::Receiver<Event>,
    task: tokio::task::JoinHandle<()>,
    dir: tempfile::TempDir,
}

impl Kept {
    /// A tunnel whose program is this shell script; it finds `$DIR` to keep notes in.
    fn start(via: Via, script: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let program = dir.path().join("program");
        let mut file = File::create(&program).unwrap();
        write!(file, "#!/bin/sh\nDIR='{}'\n{script}\n", dir.path().display()).unwrap();
        file.set_permissions(std::fs::Permissions::from_mode(0o755)).unwrap();
        drop(file);
        let (send, events) = mpsc::channel(16);
        let tunnel = Tunnel {
            via,
            options: SshOptions::default(),
            address: "127.0.0.1:11434".parse().unwrap(),
            tls: false,
            program: Some(program),
            tether: None,
            pauses: Pauses { first: Duration::from_millis(1), max: Duration::from_millis(4) },
        };
        Self { events, task: tokio::spawn(keep(tunnel, send)), dir }
    }

    async fn next(&mut self) -> Event {
        timeout(PATIENCE, self.events.recv()).await.expect("an event in time").expect("an event")
    }

    fn note(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

fn opened(url: &str) -> Event {
    Event::Opened { url: url.to_owned() }
}

fn is_running(pid: &str) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(pid.trim()).join("stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[tokio::test]
async fn a_quick_tunnel_is_opened_again_under_its_new_name_when_it_dies() {
    let script = r#"
        echo "$@" >> $DIR/arguments
        echo x >> $DIR/runs; n=$(wc -l < $DIR/runs)
        echo "2026-01-02T03:04:05Z INF Requesting new quick Tunnel on trycloudflare.com..." >&2
        echo "2026-01-02T03:04:05Z INF |  https://fox-$n.trycloudflare.com  |" >&2
        [ $n = 1 ] && { echo "2026-01-02T03:04:06Z ERR Lost connection with the edge" >&2; exit 1; }
        exec sleep 600"#;
    let mut kept = Kept::start(Via::Cloudflared, script);
    assert_eq!(kept.next().await, opened("https://fox-1.trycloudflare.com"));
    let Event::Lost { trouble, .. } = kept.next().await else { panic!("it was not lost") };
    assert!(trouble.message.contains("Lost connection"), "{trouble}");
    assert_eq!(kept.next().await, opened("https://fox-2.trycloudflare.com"));
    assert!(kept.note("arguments").starts_with("tunnel --no-autoupdate --url http://127.0.0.1:11434\n"));
    kept.task.abort();
}

#[tokio::test]
async fn a_wrong_ngrok_token_ends_it_with_words_that_do_not_quote_it() {
    let script = r#"
        echo x >> $DIR/runs
        echo '{"err":"authentication failed: Your authtoken: 2hush ERR_NGROK_107","lvl":"eror","msg":"session closing"}'
        exit 1"#;
    let mut kept = Kept::start(Via::Ngrok, script);
    let Event::GaveUp { trouble, was_open: false } = kept.next().await else { panic!("it goes on") };
    assert_eq!(trouble.to_string(), "ngrok does not take the token (ERR_NGROK_107)");
    assert!(trouble.hint.unwrap().contains("NGROK_AUTHTOKEN"));
    timeout(PATIENCE, kept.task).await.unwrap().unwrap();
    assert_eq!(std::fs::read_to_string(kept.dir.path().join("runs")).unwrap(), "x\n", "it was tried once");
}

#[tokio::test]
async fn an_ngrok_tunnel_is_found_in_its_log() {
    let script =
        r#"echo '{"lvl":"info","msg":"started tunnel","url":"https://fox.ngrok-free.app"}'; exec sleep 600"#;
    let mut kept = Kept::start(Via::Ngrok, script);
    assert_eq!(kept.next().await, opened("https://fox.ngrok-free.app"));
    kept.task.abort();
}

#[tokio::test]
async fn a_program_that_is_not_there_is_named_with_where_to_get_it() {
    let (send, mut events) = mpsc::channel(1);
    let tunnel = Tunnel {
        via: Via::Cloudflared,
        options: SshOptions::default(),
        address: "127.0.0.1:1".parse().unwrap(),
        tls: false,
        program: Some("/nowhere/cloudflared".into()),
        tether: None,
        pauses: Pauses::default(),
    };
    keep(tunnel, send).await;
    let Some(Event::GaveUp { trouble, .. }) = events.recv().await else { panic!("it goes on") };
    assert_eq!(trouble.to_string(), "the program cloudflared is not installed");
    assert!(trouble.hint.unwrap().contains("https://"));
}

#[tokio::test]
async fn a_program_that_never_opens_anything_is_started_again_with_its_last_words() {
    let script =
        r#"echo x >> $DIR/runs; echo "ssh: connect to host vps port 22: Connection refused" >&2; exit 255"#;
    let mut kept = Kept::start("ssh:vps".parse().unwrap(), script);
    for _ in 0..4 {
        let Event::Lost { trouble, .. } = kept.next().await else { panic!("it gave up") };
        assert_eq!(trouble.to_string(), "ssh: connect to host vps port 22: Connection refused");
    }
    assert!(kept.note("runs").lines().count() >= 4);
    kept.task.abort();
}

#[tokio::test]
async fn an_ssh_tunnel_asks_for_the_port_it_had_and_takes_another_when_it_does_not_get_it() {
    let script = r#"
        echo x >> $DIR/runs; n=$(wc -l < $DIR/runs)
        echo "$@" | grep -o -- '-R [0-9]*' >> $DIR/ports
        case $n in
        1) echo "Allocated port 4001 for remote forward to 127.0.0.1:11434" >&2; exit 255 ;;
        10) echo "Allocated port 4002 for remote forward to 127.0.0.1:11434" >&2; exec sleep 600 ;;
        *) echo "Error: remote port forwarding failed for listen port 4001" >&2; exit 255 ;;
        esac"#;
    let mut kept = Kept::start("ssh:vps".parse().unwrap(), script);
    assert_eq!(kept.next().await, opened("http://127.0.0.1:4001"));
    loop {
        match kept.next().await {
            Event::Lost { .. } => {}
            event => {
                assert_eq!(event, opened("http://127.0.0.1:4002"));
                break;
            }
        }
    }
    let ports: Vec<String> = kept.note("ports").lines().map(str::to_owned).collect();
    assert_eq!((ports[0].as_str(), ports[1].as_str(), ports[9].as_str()), ("-R 0", "-R 4001", "-R 0"));
    kept.task.abort();
}

#[tokio::test]
async fn the_program_ends_when_nobody_keeps_the_tunnel() {
    let script = r#"echo $$ > $DIR/pid; echo "INF |  https://fox.trycloudflare.com  |" >&2; exec sleep 600"#;
    let mut kept = Kept::start(Via::Cloudflared, script);
    kept.next().await;
    let pid = kept.note("pid");
    assert!(is_running(&pid));
    kept.task.abort();
    let _ = kept.task.await;
    let end = std::time::Instant::now() + PATIENCE;
    while is_running(&pid) {
        assert!(std::time::Instant::now() < end, "it goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
