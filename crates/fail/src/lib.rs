//! Planned deaths: a process that passes a named point dies there as by `kill -9`, so that a test of survival knows in which
//! state it struck.
//!
//! A process is armed with the path of an order file ([`arm`]); without one, a [`pass`] costs one load. Whoever wants a death
//! writes an [`Order`] there, at any time. At the point the file is renamed to `<name>.done`, and then the process kills
//! itself, its parent, or both. Each order is carried out once, by whoever renames the file.

use std::{
    fmt, fs,
    path::{Path, PathBuf},
    str::FromStr,
    sync::{Mutex, OnceLock, PoisonError},
    time::Duration,
};

use rustix::process::{Signal, getpid, getppid, kill_process};

/// A place where a process can be told to die.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Point {
    /// A runner loads its model.
    Loading,
    /// A runner has computed a part of a prompt and said nothing of it.
    Prefill,
    /// A runner has a token that is not told yet.
    Decode,
    /// The same within a thinking block.
    Thinking,
    /// The same, and the token ends within a character.
    HalfCharacter,
    /// The same, and its text is held back because it may begin a stop string.
    HalfStop,
    /// The same in an answer whose form is constrained.
    Constraint,
    /// A server has something to tell that is not journalled.
    Commit,
    /// It is journalled and not told.
    Committed,
    /// A runner has written a part of a snapshot.
    Snapshot,
}

/// Who dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Whoever passes the point.
    This,
    /// Its parent, the server of a runner; the runner sees its link end.
    Parent,
    /// Both at once.
    Both,
}

/// A death that is wanted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Order {
    /// Where.
    pub point: Point,
    /// How often the point is passed before, by one process, since it saw the order.
    pub spared: u32,
    /// Who.
    pub victim: Victim,
}

impl Point {
    /// Every point.
    pub const ALL: [Self; 10] = [
        Self::Loading,
        Self::Prefill,
        Self::Decode,
        Self::Thinking,
        Self::HalfCharacter,
        Self::HalfStop,
        Self::Constraint,
        Self::Commit,
        Self::Committed,
        Self::Snapshot,
    ];

    /// A word for it.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Prefill => "prefill",
            Self::Decode => "decode",
            Self::Thinking => "thinking",
            Self::HalfCharacter => "half-character",
            Self::HalfStop => "half-stop",
            Self::Constraint => "constraint",
            Self::Commit => "commit",
            Self::Committed => "committed",
            Self::Snapshot => "snapshot",
        }
    }
}

impl Victim {
    const ALL: [Self; 3] = [Self::This, Self::Parent, Self::Both];

    const fn as_str(self) -> &'static str {
        match self {
            Self::This => "this",
            Self::Parent => "parent",
            Self::Both => "both",
        }
    }
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", self.point.as_str(), self.spared, self.victim.as_str())
    }
}

/// Text that is no order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NoOrder;

impl FromStr for Order {
    type Err = NoOrder;

    fn from_str(text: &str) -> Result<Self, NoOrder> {
        let mut words = text.split_whitespace();
        let (Some(point), Some(spared), Some(victim), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(NoOrder);
        };
        Ok(Self {
            point: Point::ALL.into_iter().find(|known| known.as_str() == point).ok_or(NoOrder)?,
            spared: spared.parse().map_err(|_| NoOrder)?,
            victim: Victim::ALL.into_iter().find(|known| known.as_str() == victim).ok_or(NoOrder)?,
        })
    }
}

/// Where an order that was carried out is found.
#[must_use]
pub fn done(file: &Path) -> PathBuf {
    file.with_added_extension("done")
}

struct Armed {
    file: PathBuf,
    /// The order that was seen last, and how often its point was passed since.
    seen: Mutex<Option<(Order, u32)>>,
}

static ARMED: OnceLock<Armed> = OnceLock::new();

/// Lets this process take orders from a file, which need not be there. Once in its life.
pub fn arm(file: PathBuf) {
    let _ = ARMED.set(Armed { file, seen: Mutex::new(None) });
}

/// Whether this process takes orders: what only finds out where it is need not be done otherwise.
#[must_use]
pub fn is_armed() -> bool {
    ARMED.get().is_some()
}

/// Passes a point, or dies there.
pub fn pass(point: Point) {
    if let Some(armed) = ARMED.get()
        && let Some(victim) = armed.strikes(point)
    {
        die(victim);
    }
}

impl Armed {
    fn strikes(&self, point: Point) -> Option<Victim> {
        let order: Order = fs::read_to_string(&self.file).ok()?.parse().ok()?;
        if order.point != point {
            return None;
        }
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = match *seen {
            Some((known, passed)) if known == order => passed,
            _ => 0,
        };
        *seen = Some((order, passed + 1));
        if passed < order.spared {
            return None;
        }
        *seen = None;
        // Only one process carries an order out.
        fs::rename(&self.file, done(&self.file)).ok()?;
        Some(order.victim)
    }
}

/// Never returns where this process is a victim.
fn die(victim: Victim) {
    if victim != Victim::This
        && let Some(parent) = getppid()
    {
        let _ = kill_process(parent, Signal::KILL);
    }
    if victim != Victim::Parent {
        let _ = kill_process(getpid(), Signal::KILL);
    }
    // The signal is on its way.
    std::thread::sleep(Duration::from_secs(10));
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    fn armed(order: &str) -> (tempfile::TempDir, Armed) {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("order");
        fs::File::create(&file).unwrap().write_all(order.as_bytes()).unwrap();
        (dir, Armed { file, seen: Mutex::new(None) })
    }

    #[test]
    fn an_order_is_what_it_was_written_as() {
        for point in Point::ALL {
            let order = Order { point, spared: 3, victim: Victim::Both };
            assert_eq!(order.to_string().parse(), Ok(order));
        }
        for text in ["", "decode", "decode x this", "decode 1 nobody", "decode 1 this 2"] {
            assert_eq!(text.parse::<Order>(), Err(NoOrder), "{text}");
        }
    }

    #[test]
    fn it_strikes_once_at_its_point_after_so_many_passes() {
        let (_dir, armed) = armed("decode 2 both");
        for _ in 0..3 {
            assert_eq!(armed.strikes(Point::Prefill), None);
        }
        assert_eq!([(); 2].map(|()| armed.strikes(Point::Decode)), [None; 2]);
        assert_eq!(armed.strikes(Point::Decode), Some(Victim::Both));
        assert!(done(&armed.file).exists() && !armed.file.exists());
        assert_eq!(armed.strikes(Point::Decode), None);
    }

    #[test]
    fn a_process_that_is_not_armed_passes() {
        pass(Point::Decode);
        assert!(!is_armed());
    }
}
