//! Kills the real stack on the real model while clients read, and counts what they lost.
//!
//! Each case asks for an answer that passes through one state, and orders a death in that state (`firepot_fail`): of the runner,
//! of the server, or of both. The client connects again until its answer is whole. Then the answer is read once more, whole, and
//! from the journal: whatever differs is counted. What is drawn follows from the seed.

mod answer;
mod client;
mod report;
mod stack;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use clap::Args as ClapArgs;
use fastrand::Rng;
use firepot_fail::{Order, Point, Victim};

use self::{
    answer::{Answer, Kind},
    client::Told,
    stack::Stack,
};

/// Arguments of `chaos`.
#[derive(Debug, ClapArgs)]
pub struct Args {
    /// Deaths in all, at least half of an even share in each state.
    #[arg(long, default_value_t = 400)]
    pub kills: u32,
    /// Of everything that is drawn.
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// The program.
    #[arg(long, default_value = "target/release/firepot")]
    pub program: PathBuf,
    /// The model.
    #[arg(long, default_value = "target/test-model/SmolLM2-135M-Instruct.Q4_1.gguf")]
    pub model: PathBuf,
    /// Write docs/survival.md.
    #[arg(long)]
    pub write: bool,
}

/// States in which a death is ordered.
const POINTS: [Point; 10] = [
    Point::Loading,
    Point::Prefill,
    Point::Decode,
    Point::Thinking,
    Point::HalfCharacter,
    Point::HalfStop,
    Point::Constraint,
    Point::Commit,
    Point::Committed,
    Point::Snapshot,
];

/// Deaths that one answer may see.
const MAX_DEATHS: u32 = 3;

/// Cases in which the ordered death did not happen, because the answer ended before; more mean that something is wrong.
const MAX_MISSED: u32 = 100;

/// How long a snapshot may take to begin after its answer's end.
const SNAPSHOT_WAIT: Duration = Duration::from_secs(5);

/// How long a case may take.
const PATIENCE: Duration = Duration::from_mins(3);

/// What was counted over all cases.
#[derive(Debug, Default)]
pub struct Counted {
    /// Deaths by state and victim.
    pub deaths: BTreeMap<(Point, &'static str), u32>,
    /// Answers that were read.
    pub answers: u32,
    /// Tokens of them.
    pub tokens: u64,
    /// Positions that a client did not get.
    pub lost: u32,
    /// Positions that a client got twice.
    pub twice: u32,
    /// Answers that differ from the journal or from another reading.
    pub different: u32,
    /// Answers whose text before a death is not the beginning of the whole.
    pub changed: u32,
    /// Strict answers, and those that differ from the undisturbed one.
    pub strict: (u32, u32),
    /// Answers that ended with an error.
    pub failed: Vec<String>,
    /// From a runner's death in decode to the next token at the client, in milliseconds.
    pub pauses_ms: Vec<f64>,
    /// Ordered deaths that the answer's end forestalled.
    pub missed: u32,
}

/// Runs all cases and says what was counted.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let mut rng = Rng::with_seed(args.seed);
    let mut stack = Stack::start(&args.program, &args.model)?;
    let mut counted = Counted::default();
    let undisturbed = undisturbed(&stack)?;
    let begun = Instant::now();
    for number in 0.. {
        let Some(point) = counted.next(number, args.kills) else { break };
        ensure!(counted.missed <= MAX_MISSED, "too many answers ended before their death: {counted:?}");
        case(&mut stack, point, number, &mut rng, &undisturbed, &mut counted)
            .with_context(|| format!("case {number}, {} (seed {})", point.as_str(), args.seed))?;
        if number % 20 == 19 {
            eprintln!("{} of {} deaths after {} s", counted.total(), args.kills, begun.elapsed().as_secs());
        }
    }
    let report = report::markdown(&counted, args, begun.elapsed());
    print!("{report}");
    if args.write {
        report::write(&report)?;
    }
    ensure!(counted.is_clean(), "something was lost; see above");
    println!("chaos: {} deaths survived", counted.total());
    Ok(())
}

impl Counted {
    fn total(&self) -> u32 {
        self.deaths.values().sum()
    }

    /// The state of the next case: one after the other until there were so many deaths, then those with less than half of an even
    /// share.
    fn next(&self, number: u32, kills: u32) -> Option<Point> {
        if self.total() < kills {
            return Some(POINTS[number as usize % POINTS.len()]);
        }
        let least = kills / (2 * POINTS.len() as u32);
        POINTS.into_iter().find(|point| self.at(*point) < least)
    }

    fn at(&self, point: Point) -> u32 {
        self.deaths.iter().filter(|((at, _), _)| *at == point).map(|(_, deaths)| deaths).sum()
    }

    fn is_clean(&self) -> bool {
        self.lost + self.twice + self.different + self.changed + self.strict.1 == 0 && self.failed.is_empty()
    }
}

/// What a strict answer says when nobody dies.
fn undisturbed(stack: &Stack) -> anyhow::Result<String> {
    let answer = Answer::new(Kind::Strict, "strict-0".to_owned(), 0);
    Ok(client::read(stack.url(), &answer, PATIENCE)?.text())
}

fn case(
    stack: &mut Stack,
    point: Point,
    number: u32,
    rng: &mut Rng,
    undisturbed: &str,
    counted: &mut Counted,
) -> anyhow::Result<()> {
    let answer = Answer::new(Kind::of(point, rng), format!("case-{number}"), number);
    if point == Point::Loading {
        stack.unload()?;
    }
    let (url, reading) = (stack.url().to_owned(), answer.clone());
    let mut deaths = Vec::new();
    let once = matches!(point, Point::Loading | Point::Prefill | Point::Snapshot);
    let most = if once { 1 } else { rng.u32(1..=MAX_DEATHS) };
    stack.order(order(point, rng))?;
    let client = thread::spawn(move || client::read(&url, &reading, PATIENCE));
    while !client.is_finished() {
        if let Some(order) = stack.done()? {
            deaths.push((order, Instant::now()));
            stack.live_on()?;
            if (deaths.len() as u32) < most {
                stack.order(self::order(point, rng))?;
            }
        }
        stack.live_on()?;
        thread::sleep(Duration::from_millis(2));
    }
    let end = Instant::now() + SNAPSHOT_WAIT;
    loop {
        if let Some(order) = stack.done()? {
            deaths.push((order, Instant::now()));
        }
        if point != Point::Snapshot || !deaths.is_empty() || Instant::now() > end {
            break;
        }
        thread::sleep(Duration::from_millis(2));
    }
    stack.withdraw();
    stack.live_on()?;
    counted.missed += u32::from(deaths.is_empty());
    for (order, _) in &deaths {
        *counted.deaths.entry((order.point, victim(*order))).or_default() += 1;
    }
    let told = client.join().map_err(|_| anyhow::anyhow!("the client panicked"))??;
    pauses(&told, &deaths, counted);
    check(stack, &answer, &told, undisturbed, counted)
}

/// Compares what the client saw with a second reading and with the journal.
fn check(
    stack: &Stack,
    answer: &Answer,
    told: &Told,
    undisturbed: &str,
    counted: &mut Counted,
) -> anyhow::Result<()> {
    counted.answers += 1;
    counted.lost += told.lost;
    counted.twice += told.twice;
    if let Some(error) = &told.error {
        counted.failed.push(format!("{}: {error}", answer.name()));
        return Ok(());
    }
    let again = client::read(stack.url(), answer, PATIENCE)?;
    let text = told.text();
    let whole = again.text();
    counted.changed += u32::from(!told.beginnings().iter().all(|beginning| whole.starts_with(beginning)));
    let mut same = whole == text;
    if let Some(id) = &told.generation {
        let journal = client::journal(stack.url(), id)?;
        counted.tokens += u64::from(journal.tokens);
        counted.lost += journal.lost;
        counted.twice += journal.twice;
        same &= journal.text == text;
    }
    if answer.kind() == Kind::Strict {
        counted.strict.0 += 1;
        counted.strict.1 += u32::from(text != undisturbed);
    }
    counted.different += u32::from(!same);
    if !same || told.lost + told.twice > 0 {
        eprintln!("{}: told {text:?}, again {whole:?}", answer.name());
    }
    Ok(())
}

/// How long the client waited for the next token after each death of a runner alone in decode.
fn pauses(told: &Told, deaths: &[(Order, Instant)], counted: &mut Counted) {
    for (order, at) in deaths {
        if order.point == Point::Decode && order.victim == Victim::This {
            let next = told.pieces.iter().find(|piece| piece.at > *at);
            counted.pauses_ms.extend(next.map(|piece| (piece.at - *at).as_secs_f64() * 1e3));
        }
    }
}

fn order(point: Point, rng: &mut Rng) -> Order {
    let of_server = matches!(point, Point::Commit | Point::Committed);
    let victims = [Victim::This, Victim::This, Victim::Both, Victim::Parent];
    let victim = if of_server { Victim::This } else { victims[rng.usize(..victims.len())] };
    let spared = match point {
        Point::Loading => rng.u32(..150),
        Point::Snapshot => 0,
        Point::Prefill | Point::HalfCharacter => rng.u32(..2),
        Point::HalfStop => rng.u32(..4),
        _ => rng.u32(..12),
    };
    Order { point, spared, victim }
}

fn victim(order: Order) -> &'static str {
    match order.victim {
        Victim::Both => "both",
        _ if is_of_server(order) => "server",
        _ => "runner",
    }
}

/// Whether the server dies.
fn is_of_server(order: Order) -> bool {
    matches!(order.point, Point::Commit | Point::Committed) || order.victim != Victim::This
}
