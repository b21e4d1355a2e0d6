//! Every limit of the server, with what happens when it is reached. What a request may contain is limited in
//! `firepot_wire::limits`, what the store keeps in `firepot_store::limits`.

use std::time::Duration;

use jiff::SignedDuration;

use crate::access::Allowance;

/// Open connections. Further ones wait in the kernel's backlog until one closes.
pub const MAX_CONNECTIONS: usize = 4096;

/// Files that a process may have open for [`MAX_CONNECTIONS`] to be possible, with room for models and logs.
pub const OPEN_FILES_WANTED: u64 = 8192;

/// How long a connection may take to send a request's head, idle time before it included; then it is closed.
/// Longer than the official clients keep idle connections, so that they and not we close them.
pub const HEADER_READ_TIMEOUT: Duration = Duration::from_secs(75);

/// Pause after the operating system refused a connection (no more files); then the next one is tried.
pub const ACCEPT_RETRY_PAUSE: Duration = Duration::from_millis(50);

/// Answers that wait or run at the same time, over all models, unless set otherwise. One more is 503.
pub const MAX_IN_FLIGHT: usize = 256;

/// Events of one generation that wait for their client. When they are not read, the answer is cancelled with
/// an error: a client that does not read must not keep a place in the engine. About a minute of a fast small
/// model, beside what the socket holds.
pub const MAX_WAITING_EVENTS: usize = 4096;

/// Runners that may end in a row at one answer without a further token of it; then it ends with an error. A request that kills
/// its runner would go on for ever.
pub const MAX_RUNNERS_WITHOUT_TOKEN: u32 = 3;

/// Frames that wait to be written to one runner. A runner that does not read its link counts as hung.
pub const MAX_WAITING_FRAMES: usize = 1024;

/// Bytes read from a link at once.
pub const LINK_READ_BYTES: usize = 64 * 1024;

/// Starts of a runner in a row without a stable one between; then the model counts as failed until the next
/// request.
pub const MAX_STARTS: u32 = 5;

/// Pause before the second restart in a row; it doubles with each further one. The first restart is
/// immediate.
pub const FIRST_RESTART_PAUSE: Duration = Duration::from_millis(500);

/// Longest pause before a restart.
pub const MAX_RESTART_PAUSE: Duration = Duration::from_secs(30);

/// A runner that lived this long after its load, or finished an answer, was stable: the next restart is
/// immediate again.
pub const STABLE_AFTER: Duration = Duration::from_secs(30);

/// A heartbeat comes about twice a second; without one for this long, the runner is hung.
pub const MAX_SILENCE: Duration = Duration::from_secs(10);

/// Least time without progress, while busy, after which a runner is hung.
pub const MIN_STALL: Duration = Duration::from_secs(10);

/// The same while it loads: one tensor can take long from a cold disk.
pub const MIN_LOAD_STALL: Duration = Duration::from_mins(1);

/// A call that makes no progress for this many times its expected duration is hung.
pub const STALL_FACTOR: u32 = 10;

/// How long a runner may take to end after it was asked to; then it is killed.
pub const STOP_GRACE: Duration = Duration::from_secs(3);

/// After end of file, how long to wait for the exit status that goes into the error's text.
pub const EXIT_STATUS_WAIT: Duration = Duration::from_millis(100);

/// How long running answers may go on after the server was asked to end; then they are cancelled.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(5);

/// How long before the session's end nobody is let in any more; a client is told 503 with the reason. Enough for what runs to
/// end or to be cut off, and for the server's own end.
pub const DEADLINE_CLOSES: Duration = Duration::from_mins(1);

/// At most this part of what is left when the end becomes known is closed to clients.
pub const DEADLINE_CLOSES_PART: u32 = 4;

/// This part of the closed time is kept for the server's own end: answers that run are cut off before it.
pub const DEADLINE_CUTS_PART: u32 = 2;

/// From when on the session's end is a warning.
pub const DEADLINE_WARNED: Duration = Duration::from_mins(15);

/// The farthest end of a session; one farther off counts as this.
pub const MAX_DEADLINE: Duration = Duration::from_hours(366 * 24);

/// Bytes that are read of a file that says the session's end.
pub const MAX_DEADLINE_FILE_BYTES: u64 = 256;

/// How often such a file is looked at.
pub const DEADLINE_FILE_INTERVAL: Duration = Duration::from_secs(2);

/// How long the last state may take to be mirrored when the server ends.
pub const MIRROR_END_WAIT: Duration = Duration::from_secs(10);

/// How long connections may take to close after the last answer; then they are cut.
pub const CLOSE_GRACE: Duration = Duration::from_secs(1);

/// Silence after which a comment is sent on a stream of server-sent events, so that proxies keep it open.
pub const SSE_COMMENT_INTERVAL: Duration = Duration::from_secs(15);

/// Pages that watch at the same time. One more is 503.
pub const MAX_WATCHERS: usize = 256;

/// Events that wait for a watcher. One that lags by more gets a snapshot instead.
pub const MAX_MISSED_EVENTS: usize = 1024;

/// Longest event, in bytes, that is kept for watchers. In place of a longer one they get a snapshot, so that
/// what waits for those who read slowly stays below 64 MiB for all of them together.
pub const MAX_EVENT_BYTES: usize = 64 * 1024;

/// Bytes of events that are sent in one piece; the rest follows in the next.
pub const MAX_CHUNK_BYTES: usize = 64 * 1024;

/// Least time between two overviews of the runners that a watcher gets, when the pool changes.
pub const RUNNERS_CHANGED_INTERVAL: Duration = Duration::from_millis(250);

/// Time between two of them while answers run.
pub const RUNNERS_BUSY_INTERVAL: Duration = Duration::from_secs(1);

/// Time between two of them while nothing happens. They also keep the stream open for proxies.
pub const RUNNERS_IDLE_INTERVAL: Duration = Duration::from_secs(5);

/// Steps of answers that wait to be journalled; then their drivers wait, and what the runners say waits in
/// [`MAX_WAITING_EVENTS`].
pub const MAX_WAITING_ORDERS: usize = 1024;

/// Steps of answers that one commit of the journal takes; the rest follows in the next.
pub const MAX_JOURNAL_BATCH: usize = 256;

/// How long it takes until a commit of the journal is on the disk: what a power cut can cost. The death of a process costs
/// nothing.
pub const JOURNAL_SYNC_INTERVAL: Duration = Duration::from_secs(1);

/// How long the last steps of answers may take to be journalled when the server ends.
pub const JOURNAL_END_WAIT: Duration = Duration::from_secs(5);

/// How often the journal forgets old answers.
pub const JOURNAL_PRUNE_INTERVAL: Duration = Duration::from_mins(1);

/// How long an answer that ended can be read again.
pub const KEEP_ENDED: Duration = Duration::from_mins(10);

/// The same when its request came with a key.
pub const KEEP_ENDED_WITH_KEY: Duration = Duration::from_hours(24);

/// How long an interrupted answer can be continued.
pub const KEEP_INTERRUPTED: Duration = Duration::from_hours(7 * 24);

/// Answers that have ended or were interrupted and are kept; the oldest go.
pub const MAX_KEPT_GENERATIONS: usize = 1000;

/// Answers on a list of generations, the newest.
pub const MAX_LISTED_GENERATIONS: usize = 200;

/// Longest `Idempotency-Key`, in characters; a longer one is refused.
pub const MAX_KEY_CHARS: usize = 255;

/// How long a stopped answer of a chat is waited for, for its counts and times; then it ends without them.
pub const TALK_STOP_WAIT: Duration = Duration::from_secs(2);

/// How long the last text of answers may take to be stored when the server ends.
pub const TALKS_END_WAIT: Duration = Duration::from_secs(5);

/// Models that are loaded again after a restart; of more, those used longest ago are not.
pub const MAX_RELOADED: usize = 8;

/// How often in a row a model may be loaded again while the server ends each time; then it waits for a request. A load that
/// takes the whole machine down would do so for ever.
pub const MAX_RELOAD_ATTEMPTS: u32 = 3;

/// Longest record of what was loaded that is read, in bytes; a longer one counts as damaged.
pub const MAX_RELOAD_RECORD_BYTES: u64 = 64 * 1024;

/// Least time between two writes of what is loaded: what a killed server may not know of.
pub const RELOAD_RECORD_PAUSE: Duration = Duration::from_millis(250);

/// How long what was loaded lets the model that `up` names come first.
pub const RELOAD_WAITS_FOR_FIRST: Duration = Duration::from_secs(10);

/// How long the last note of what is loaded may take when the server ends.
pub const RELOAD_END_WAIT: Duration = Duration::from_secs(2);

/// Models that are pulled at the same time. One more is 503.
pub const MAX_PULLS: usize = 8;

/// Pulls of pages that failed and are still shown; with one more, the oldest is forgotten.
pub const MAX_FAILED_PULLS: usize = 16;

/// How long pulls may take to let go of their files when the server ends; then they are cut off, and resumed
/// when they are asked for again.
pub const PULLS_END_WAIT: Duration = Duration::from_secs(2);

/// Least time between two overviews of the pulls that a watcher gets.
pub const PULLS_INTERVAL: Duration = Duration::from_millis(250);

/// Least time between two lines about the same file that `/api/pull` sends.
pub const PULL_LINES_INTERVAL: Duration = Duration::from_millis(100);

/// Lines about pulls and new models that wait for a client who reads slowly; then whoever makes them waits.
pub const MAX_WAITING_LINES: usize = 64;

/// Trials that are listed, the newest; older ones stay on disk.
pub const MAX_TRIALS_LISTED: usize = 200;

/// Longest name of a trial's directory, in bytes; longer ones are not trials.
pub const MAX_TRIAL_ID_BYTES: usize = 128;

/// Largest file of a bundle that a listing reads, in bytes; of a larger one nothing is shown.
pub const MAX_TRIAL_FILE_BYTES: u64 = 1 << 20;

/// Bytes that a running trial may tell; what is beyond is not read, and the trial goes on.
pub const MAX_TRIAL_TOLD_BYTES: u64 = 16 << 20;

/// Trials whose failure is remembered; with one more, the oldest is forgotten.
pub const MAX_FAILED_TRIALS: usize = 64;

/// How long a report may take to be made; then it is given up.
pub const REPORT_WAIT: Duration = Duration::from_secs(30);

/// Longest report that is sent, in bytes.
pub const MAX_REPORT_BYTES: usize = 8 << 20;

/// How long a running trial may take to end when the server does; then it is killed, and can be taken up again all the same.
pub const TRIAL_END_WAIT: Duration = Duration::from_secs(2);

/// Files that are sent to `/api/blobs` at the same time. One more is 503.
pub const MAX_UPLOADS: usize = 8;

/// Pieces of a file that were received and wait for the disk; then the connection waits.
pub const MAX_WAITING_PIECES: usize = 16;

/// How long a deleted chat can be restored; then it is removed when the next one is deleted, or when the
/// database is opened.
pub const UNDO_DELETE_FOR: Duration = Duration::from_mins(10);

/// Hits of a search when no number is asked for.
pub const SEARCH_HITS_DEFAULT: usize = 20;

/// Longest plain name of a downloaded file, in characters; the rest is left out. The full one stands beside
/// it.
pub const MAX_FILE_NAME_CHARS: usize = 60;

/// Models whose capabilities are remembered; with one more, all are found out anew.
pub const MAX_KNOWN_MODELS: usize = 1024;

/// Size at which a runner's log file is set aside (`.1`) when the runner starts; the one set aside before
/// goes.
pub const MAX_LOG_BYTES: u64 = 8 * 1024 * 1024;

/// How long whoever holds our port may take to say what it is.
pub const PROBE_TIMEOUT: Duration = Duration::from_millis(500);

/// Bytes of its answer that are read.
pub const MAX_PROBE_BYTES: u64 = 4096;

/// Ports after a taken one that are tried to name a free one.
pub const NEXT_PORTS: u16 = 32;

/// What one key may ask for. Far more than people and their programs do; one more is 429.
pub const KEY_ALLOWANCE: Allowance = Allowance { per_second: 100.0, burst: 500.0, in_flight: 128 };

/// What all keys of one address may ask for together: a tunnel, or a company, is one address.
pub const ADDRESS_ALLOWANCE: Allowance = Allowance { per_second: 400.0, burst: 2000.0, in_flight: 512 };

/// What may be asked for from one address without a key. A page and its files, some times over.
pub const GUEST_ALLOWANCE: Allowance = Allowance { per_second: 20.0, burst: 300.0, in_flight: 64 };

/// Keys, and addresses, whose requests are counted. With one more, guests of further addresses are refused until others have
/// been quiet.
pub const MAX_LIMITED_CLIENTS: usize = 8192;

/// Least time between two looks for those who have been quiet.
pub const LIMITER_SWEEP_INTERVAL: Duration = Duration::from_secs(1);

/// Wrong keys of an address after which it must wait.
pub const FREE_WRONG_KEYS: u32 = 5;

/// How long it waits at first; it doubles with each further wrong key.
pub const FIRST_LOCKOUT: Duration = Duration::from_secs(1);

/// The longest wait after a wrong key.
pub const MAX_LOCKOUT: Duration = Duration::from_mins(5);

/// How long after its wait an address has to be quiet until its wrong keys are forgotten.
pub const LOCKOUT_FORGOTTEN_AFTER: Duration = Duration::from_mins(10);

/// Keys. One more is 409.
pub const MAX_KEYS: usize = 200;

/// Links that were not used. With one more, the oldest ends.
pub const MAX_LOGINS: usize = 100;

/// Sessions. With one more, the one that was not used for longest ends.
pub const MAX_SESSIONS: usize = 200;

/// How long a login link can be used.
pub const LOGIN_LIFE: SignedDuration = SignedDuration::from_mins(10);

/// How long a session lasts.
pub const SESSION_LIFE: SignedDuration = SignedDuration::from_hours(7 * 24);

/// How exactly it is known when a key was last used: the database hears of it so often.
pub const LAST_USED_STEP: SignedDuration = SignedDuration::from_mins(1);

/// Longest body of a request to log in, in bytes.
pub const MAX_LOGIN_BYTES: usize = 1024;

/// How long the body of a request to log in may take; then it is refused.
pub const LOGIN_BODY_TIMEOUT: Duration = Duration::from_secs(10);

/// Open connections of one address that is not this machine, where keys are asked for. Further ones are closed at once.
pub const ADDRESS_CONNECTIONS: Allowance = Allowance { per_second: 100.0, burst: 512.0, in_flight: 256 };

/// Largest head of a request, in bytes, to within what one read brings, and what is read or written at once. A larger head is 431.
pub const MAX_HEAD_BYTES: usize = 64 * 1024;

/// How long a TLS handshake may take; then the connection is closed.
pub const TLS_HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
