//! What happens in a forwarded history, made of a seed.

use weir_backend_api::fault::Rng;
use weir_core::{admission::History, forward::Order, value::Value};

use crate::scenario::Break;

/// Keys and expressions from a small domain, so that they meet all the time.
const KEYS: [&str; 6] = ["a", "a/b", "a/c", "a/c/d", "b/b", "c"];
const EXPRS: [&str; 4] = ["**", "a/*", "a/**", "*/b"];

/// A history to play.
#[derive(Clone, Debug)]
pub struct Scenario {
    /// Who forwards.
    pub edges: Vec<Edge>,
    /// To whom.
    pub upstreams: Vec<Upstream>,
    /// How wrong the clock of each sensor is (milliseconds).
    pub sensors: Vec<i64>,
    /// What happens, in order.
    pub steps: Vec<Step>,
}

/// A router that forwards.
#[derive(Clone, Copy, Debug)]
pub struct Edge {
    /// How wrong its clock is (milliseconds).
    pub skew: i64,
    /// Entries that its journal keeps at the most.
    pub capacity: usize,
    /// How long what is certified is kept all the same (milliseconds).
    pub keep: u64,
    /// In which order a lane is shipped.
    pub order: Order,
    /// Bytes a second that a link ships at the most.
    pub rate: Option<u64>,
    /// Parcels at once.
    pub in_flight: usize,
    /// Whether its links ask for as much at once as they do in earnest. With less, few samples reach every
    /// branch.
    pub is_large: bool,
}

/// A storage that is forwarded to.
#[derive(Clone, Copy, Debug)]
pub struct Upstream {
    /// What it keeps.
    pub history: History,
    /// How wrong its clock is (milliseconds).
    pub skew: i64,
    /// Every so-manieth parcel it says that it can take nothing now; 0 for never.
    pub full_every: u64,
}

/// How a sample is taken into a journal.
#[derive(Clone, Copy, Debug)]
pub enum Taken {
    /// It is kept.
    Kept,
    /// A policy drops it.
    Dropped,
    /// It is kept, and older ones of its key are not.
    NewestOnly,
}

/// One thing that happens. Numbers choose among what there is at that moment.
#[derive(Clone, Debug)]
pub enum Step {
    /// A sensor stamps a sample, which some edges hear and which is sent on to some upstreams.
    Sample {
        /// Which sensor.
        sensor: usize,
        /// So many milliseconds away from what its clock says.
        away: i64,
        /// On what: a key, or a key expression.
        on: &'static str,
        /// What is put; `None` deletes.
        value: Option<Value>,
        /// Who hears it: a bit for each edge; the first if none would.
        heard: u64,
        /// From whom it is on its way live, and to whom: a bit for each upstream.
        live: u64,
        /// How it is taken.
        taken: Taken,
        /// Its lane.
        lane: u8,
        /// For how long it is worth sending (milliseconds).
        worth: Option<u64>,
    },
    /// Something happens to one of the packets on the way.
    Packet(u64, Packet),
    /// Time passes (milliseconds).
    Pass(u64),
    /// Time passes (milliseconds), and whatever is not cut off arrives at once.
    Calm(u64),
    /// Nothing gets from an edge to an upstream any more (`true`), or back; perhaps nobody notices.
    Cut(usize, usize, bool, bool),
    /// Everything gets through again everywhere, and everybody knows.
    Heal,
    /// What an edge has taken is synced.
    Sync(usize),
    /// An edge dies and comes back.
    EdgeDies(usize),
    /// Another policy decides about what waits at an edge: the number says how.
    Rank(usize, u64),
    /// An edge's journal cannot be read so often.
    Unreadable(usize, u64),
    /// An upstream restarts: it knows what is in its store.
    Restart(usize),
    /// An upstream's next commits fail.
    Break {
        /// Which upstream.
        upstream: usize,
        /// At which commit from now on.
        nth: u64,
        /// How.
        how: Break,
    },
    /// An upstream's disk is copied.
    Backup(usize),
    /// An upstream restarts on the copy of its disk, or on an empty one if there is none.
    Restore(usize),
}

/// What happens to a packet.
#[derive(Clone, Copy, Debug)]
pub enum Packet {
    /// It arrives.
    Arrives,
    /// It arrives, and will arrive again.
    Repeats,
    /// It never arrives.
    Lost,
}

impl Scenario {
    /// The history of a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        let mut rng = Rng::new(seed ^ 0x666f_7277_6172_6400);
        let edges = 1 + index(&mut rng, 3);
        let upstreams = match rng.below(4) {
            0 | 1 => 1,
            2 => 2,
            _ => 3,
        };
        let skew = |rng: &mut Rng| i64::try_from(rng.below(600)).unwrap_or(0) - 300;
        let edges = (0..edges).map(|_| Edge {
            skew: skew(&mut rng),
            capacity: if rng.below(4) == 0 {
                3 + index(&mut rng, 12)
            } else {
                usize::MAX
            },
            keep: if rng.below(2) == 0 { 0 } else { 60_000 },
            order: if rng.below(3) == 0 {
                Order::NewestFirst
            } else {
                Order::OldestFirst
            },
            rate: (rng.below(4) == 0).then(|| 20 + rng.below(400)),
            in_flight: 1 + index(&mut rng, 3),
            is_large: rng.below(8) == 0,
        });
        let edges: Vec<Edge> = edges.collect();
        let upstreams = (0..upstreams).map(|_| Upstream {
            history: if rng.below(3) == 0 {
                History::Latest
            } else {
                History::All
            },
            skew: skew(&mut rng),
            full_every: if rng.below(3) == 0 {
                1 + rng.below(4)
            } else {
                0
            },
        });
        let upstreams: Vec<Upstream> = upstreams.collect();
        let sensors = 1 + index(&mut rng, 3);
        let sensors: Vec<i64> = (0..sensors).map(|_| skew(&mut rng)).collect();
        let mut steps = Vec::new();
        let count = 20 + index(&mut rng, 120);
        let of = (edges.len(), upstreams.len(), sensors.len());
        while steps.len() < count {
            step(&mut rng, of, &mut steps);
        }
        let mut edges = edges;
        if rng.below(2) == 0 {
            nothing_is_given_up(&mut edges, &mut steps);
        }
        // The seeds of what was found before stay what they are.
        if seed > 300 && seed.is_multiple_of(3) {
            others_decide(seed, edges.len(), &mut steps);
        }
        Self {
            edges,
            upstreams,
            sensors,
            steps,
        }
    }
}

/// A history after which every upstream is to hold everything.
fn nothing_is_given_up(edges: &mut [Edge], steps: &mut [Step]) {
    for edge in edges {
        edge.capacity = usize::MAX;
    }
    for step in steps {
        match step {
            Step::Sample { taken, worth, .. } => (*taken, *worth) = (Taken::Kept, None),
            Step::EdgeDies(edge) => *step = Step::Sync(*edge),
            Step::Restore(upstream) => *step = Step::Restart(*upstream),
            _ => {}
        }
    }
}

/// Now and then another policy decides about what waits.
fn others_decide(seed: u64, edges: usize, steps: &mut Vec<Step>) {
    let mut rng = Rng::new(seed ^ 0x7261_6e6b);
    for _ in 0..1 + rng.below(12) {
        let from = index(&mut rng, steps.len());
        // Most of the time something is on its way then.
        let is_packet = |step: &Step| matches!(step, Step::Packet(..));
        let next = steps[from..].iter().position(is_packet);
        let at = from + next.filter(|_| rng.below(4) > 0).unwrap_or(0);
        let edge = index(&mut rng, edges);
        steps.insert(at, Step::Rank(edge, rng.next()));
    }
}

/// Some come late, when others of their second are certified.
fn late(rng: &mut Rng, sensors: usize, steps: &mut Vec<Step>) {
    let sensor = index(rng, sensors);
    let mut of_sensor = |away: i64, steps: &mut Vec<Step>| {
        let mut next = sample(rng, sensors);
        if let Step::Sample {
            sensor: of,
            away: by,
            ..
        } = &mut next
        {
            (*of, *by) = (sensor, away);
        }
        steps.push(next);
    };
    steps.push(Step::Heal);
    for away in [0, 1, 300, 600, 900] {
        of_sensor(away, steps);
    }
    steps.push(Step::Calm(12_000));
    for away in [-11_500, -11_800] {
        of_sensor(away, steps);
    }
}

/// An upstream is sent what it had missed, and some of that has come.
fn while_it_is_shipped(rng: &mut Rng, upstream: usize, sensors: usize, steps: &mut Vec<Step>) {
    steps.extend([Step::Heal, Step::Calm(12_000), Step::Backup(upstream)]);
    for _ in 0..8 {
        let mut next = sample(rng, sensors);
        if let Step::Sample { live, .. } = &mut next {
            *live = 0;
        }
        steps.push(next);
    }
    steps.push(Step::Pass(9_000));
    for _ in 0..10 + rng.below(20) {
        steps.push(Step::Packet(rng.next(), Packet::Arrives));
    }
}

fn sample(rng: &mut Rng, sensors: usize) -> Step {
    Step::Sample {
        sensor: index(rng, sensors),
        away: match rng.below(20) {
            0 => 900 + i64::try_from(rng.below(2_000)).unwrap_or(0),
            1 | 2 => -i64::try_from(rng.below(15_000)).unwrap_or(0),
            // Of a second that is just being asked about.
            3..6 => -1_200 - i64::try_from(rng.below(2_000)).unwrap_or(0),
            _ => 0,
        },
        on: if rng.below(10) == 0 {
            EXPRS[index(rng, EXPRS.len())]
        } else {
            KEYS[index(rng, KEYS.len())]
        },
        value: (rng.below(6) < 5).then(|| Value::bytes(vec![byte(rng)])),
        heard: rng.next(),
        live: match rng.below(3) {
            0 => 0,
            1 => u64::MAX,
            _ => rng.next(),
        },
        taken: match rng.below(16) {
            0 => Taken::Dropped,
            1 => Taken::NewestOnly,
            _ => Taken::Kept,
        },
        lane: u8::try_from(rng.below(8)).unwrap_or(0),
        worth: (rng.below(12) == 0).then(|| 1_000 + rng.below(20_000)),
    }
}

fn step(rng: &mut Rng, (edges, upstreams, sensors): (usize, usize, usize), steps: &mut Vec<Step>) {
    let next = match rng.below(100) {
        0..25 => sample(rng, sensors),
        25..30 => {
            // Some seconds of a tunnel, or of a busy place.
            for _ in 0..rng.below(12) {
                steps.push(sample(rng, sensors));
                if rng.below(3) == 0 {
                    steps.push(Step::Pass(1 + rng.below(900)));
                }
            }
            Step::Sync(index(rng, edges))
        }
        30..58 => Step::Packet(
            rng.next(),
            match rng.below(8) {
                0 => Packet::Lost,
                1 => Packet::Repeats,
                _ => Packet::Arrives,
            },
        ),
        58..75 => {
            let most = match rng.below(9) {
                0 => 60_000,
                1 | 2 => 8_000,
                _ => 900,
            };
            Step::Pass(1 + rng.below(most))
        }
        75..79 => Step::Calm(4_000 + rng.below(30_000)),
        79..82 => Step::Cut(
            index(rng, edges),
            index(rng, upstreams),
            rng.below(2) == 0,
            rng.below(2) == 0,
        ),
        82..84 => Step::Heal,
        84 => {
            late(rng, sensors, steps);
            Step::Calm(1 + rng.below(9_000))
        }
        85..88 => Step::Sync(index(rng, edges)),
        88 | 89 => Step::EdgeDies(index(rng, edges)),
        90 => Step::Unreadable(index(rng, edges), 1 + rng.below(3)),
        91 => Step::Restart(index(rng, upstreams)),
        92..96 => {
            let applied = rng.below(2) == 0;
            Step::Break {
                upstream: index(rng, upstreams),
                nth: 1 + rng.below(4),
                how: match rng.below(3) {
                    0 => Break::Refused,
                    1 => Break::Torn { applied },
                    _ => Break::Crash { applied },
                },
            }
        }
        96 | 97 => Step::Backup(index(rng, upstreams)),
        98 => {
            let upstream = index(rng, upstreams);
            if rng.below(2) == 0 {
                while_it_is_shipped(rng, upstream, sensors, steps);
            }
            Step::Restore(upstream)
        }
        _ => Step::Pass(30_000 + rng.below(60_000)),
    };
    steps.push(next);
}

fn index(rng: &mut Rng, below: usize) -> usize {
    usize::try_from(rng.below(below as u64)).unwrap_or(0)
}

fn byte(rng: &mut Rng) -> u8 {
    u8::try_from(rng.below(256)).unwrap_or(0)
}
