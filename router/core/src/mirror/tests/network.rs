//! Random contents over a network that loses, repeats, reorders and delays.

use std::{collections::BTreeMap, time::Duration};

use bytes::Bytes;
use proptest::prelude::*;

use super::model::{Admitting, Model, op, stamp, state};
use crate::mirror::{
    answer::{Admit, Limits, answer},
    round::{Effect, Event, Mirror, Rules},
};

const SECOND: u64 = 1 << 32;

/// What is on its way, to a replica.
enum Parcel {
    /// A question of a peer's.
    Ask { from: usize, ask: u64, frame: Bytes },
    /// A peer's answer.
    Reply { from: usize, ask: u64, frame: Bytes },
    /// What was pushed is being stored; then the answer goes.
    Stored {
        from: usize,
        ask: u64,
        admit: Admit,
        reply: Bytes,
    },
    /// What was fetched is being stored.
    Admitted {
        from: usize,
        batch: u64,
        admit: Admit,
    },
}

struct Network {
    now: u64,
    chance: u64,
    /// Of 100 frames: lost, and repeated.
    lost: u64,
    repeated: u64,
    replicas: Vec<Model>,
    mirrors: BTreeMap<(usize, usize), Mirror>,
    ways: BTreeMap<(u64, u64), (usize, Parcel)>,
    frames: u64,
}

impl Network {
    fn new(replicas: Vec<Model>, seed: u64, lost: u64, repeated: u64, both: bool) -> Self {
        let mut mirrors = BTreeMap::new();
        for a in 0..replicas.len() {
            for b in 0..replicas.len() {
                if a < b || (both && a != b) {
                    let rules = Rules {
                        lead: a < b,
                        period: Duration::from_secs(3),
                        timeout: Duration::from_millis(500),
                        ..Rules::default()
                    };
                    mirrors.insert(
                        (a, b),
                        Mirror::new(rules, seed ^ (a as u64) << 8 ^ b as u64),
                    );
                }
            }
        }
        Self {
            now: 1_000 * SECOND,
            chance: seed,
            lost,
            repeated,
            replicas,
            mirrors,
            ways: BTreeMap::new(),
            frames: 0,
        }
    }

    fn roll(&mut self, below: u64) -> u64 {
        self.chance = self
            .chance
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695);
        (self.chance >> 33) % below
    }

    fn later(&mut self, most_ms: u64, to: usize, parcel: Parcel) {
        let at = self.now + (1 + self.roll(most_ms)) * SECOND / 1000;
        let serial = self.ways.len() as u64 + (self.frames << 20) + self.roll(1 << 19);
        self.ways.insert((at, serial), (to, parcel));
    }

    fn send(&mut self, to: usize, parcel: impl Fn() -> Parcel) {
        self.frames += 1;
        if self.roll(100) >= self.lost {
            self.later(400, to, parcel());
        }
        if self.roll(100) < self.repeated {
            self.later(3_000, to, parcel());
        }
    }

    fn tell(&mut self, us: usize, peer: usize, event: Event) {
        let Some(mirror) = self.mirrors.get_mut(&(us, peer)) else {
            return;
        };
        let effects = mirror.handle(self.now, event, &mut self.replicas[us]);
        for effect in effects {
            match effect {
                Effect::Ask { ask, frame, .. } => {
                    self.send(peer, || Parcel::Ask {
                        from: us,
                        ask,
                        frame: frame.clone(),
                    });
                }
                Effect::Admit { batch, admit } => {
                    self.later(
                        50,
                        us,
                        Parcel::Admitted {
                            from: peer,
                            batch,
                            admit,
                        },
                    );
                }
                // The status says so.
                Effect::Told { .. }
                | Effect::Horizon(_)
                | Effect::InStep(_)
                | Effect::Differs { .. }
                | Effect::Failed { .. } => {}
            }
        }
    }

    fn arrive(&mut self, to: usize, parcel: Parcel) {
        match parcel {
            Parcel::Ask { from, ask, frame } => {
                let answered = answer(&frame, &mut self.replicas[to], &Limits::default()).unwrap();
                let reply = Bytes::from(answered.reply);
                if let Some(in_step) = answered.probed {
                    self.tell(to, from, Event::Probed { in_step });
                }
                match answered.admit {
                    Some(admit) => {
                        self.later(
                            50,
                            to,
                            Parcel::Stored {
                                from,
                                ask,
                                admit,
                                reply,
                            },
                        );
                    }
                    None => {
                        self.send(from, || Parcel::Reply {
                            from: to,
                            ask,
                            frame: reply.clone(),
                        });
                    }
                }
            }
            Parcel::Stored {
                from,
                ask,
                admit,
                reply,
            } => {
                self.replicas[to].admit(&admit);
                self.send(from, || Parcel::Reply {
                    from: to,
                    ask,
                    frame: reply.clone(),
                });
            }
            Parcel::Reply { from, ask, frame } => {
                self.tell(to, from, Event::Reply { ask, frame });
            }
            Parcel::Admitted { from, batch, admit } => {
                self.replicas[to].admit(&admit);
                self.tell(to, from, Event::Admitted { batch });
            }
        }
    }

    fn is_equal(&self) -> bool {
        let first = self.replicas[0].contents();
        self.replicas
            .iter()
            .all(|replica| replica.contents() == first)
    }

    /// Until all are equal and every mirror says so; `false` if that takes
    /// more than an hour.
    fn run(&mut self) -> bool {
        let pairs: Vec<_> = self.mirrors.keys().copied().collect();
        for (us, peer) in pairs {
            self.tell(us, peer, Event::Wake);
        }
        let end = self.now + 3_600 * SECOND;
        while self.now < end {
            let deadlines = self
                .mirrors
                .iter()
                .map(|(pair, mirror)| (mirror.deadline(), *pair));
            let tick = deadlines.filter_map(|(at, pair)| Some((at?, pair))).min();
            let arrival = self.ways.first_key_value().map(|((at, _), _)| *at);
            match (tick, arrival) {
                (Some((at, (us, peer))), arrival) if arrival.is_none_or(|arrival| at < arrival) => {
                    self.now = self.now.max(at);
                    self.tell(us, peer, Event::Tick);
                }
                (_, Some(at)) => {
                    self.now = self.now.max(at);
                    let (_, (to, parcel)) = self.ways.pop_first().unwrap();
                    self.arrive(to, parcel);
                }
                _ => return false,
            }
            let told = |mirror: &Mirror| mirror.status().in_step_since.is_some();
            let told = self.mirrors.values().all(told);
            if told && self.is_equal() {
                return true;
            }
        }
        false
    }
}

/// Contents: (key, time, whether deleted, which replicas hold it).
type Row = (u16, u64, bool, u8);

fn filled(rows: &[Row], ops: &[(u16, u64, bool, u8)], count: usize, series: bool) -> Vec<Model> {
    let mut replicas: Vec<Model> = (0..count).map(|at| Model::new(5 + 3 * at)).collect();
    for (at, replica) in replicas.iter_mut().enumerate() {
        replica.marks.series = series;
        for (key, time, is_deleted, held) in rows {
            if held >> at & 1 == 1 {
                let stamp = stamp(
                    (100 + time / 7) * SECOND + time % 7,
                    u8::try_from(key % 250).unwrap(),
                );
                let key = format!("k/{}/{}", key % 20, key / 20);
                replica.put(state(&key, stamp, (!is_deleted).then_some("payload")));
            }
        }
        for (key, time, is_deleted, held) in ops {
            if held >> at & 1 == 1 {
                let expr = format!("k/{}/*", key % 20);
                let op = op(
                    &expr,
                    stamp((100 + time) * SECOND, 9),
                    (!is_deleted).then_some("w"),
                );
                replica.journal.insert(op);
            }
        }
    }
    replicas
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    /// Whatever they held, and whatever the network does.
    #[test]
    fn replicas_become_equal(
        rows in proptest::collection::vec((0u16..400, 0u64..200, prop::bool::weighted(0.2), 0u8..8), 0..300),
        ops in proptest::collection::vec((0u16..20, 0u64..40, any::<bool>(), 0u8..8), 0..4),
        count in 2usize..4,
        series in any::<bool>(),
        both in any::<bool>(),
        seed in any::<u64>(),
        lost in 0u64..30,
        repeated in 0u64..30,
    ) {
        let replicas = filled(&rows, &ops, count, series);
        let mut network = Network::new(replicas, seed, lost, repeated, both);
        prop_assert!(network.run(), "not equal after {} frames", network.frames);
        // A few hundred records are a few pages and lists for each pair.
        prop_assert!(network.frames < 3_000, "{} frames", network.frames);
    }
}

/// On a network that does nothing wrong the cost is known better.
#[test]
fn few_frames_make_equal_what_nothing_disturbs() {
    let rows: Vec<Row> = (0..400)
        .map(|key| (key, u64::from(key) % 90, false, 3))
        .collect();
    let mut replicas = filled(&rows, &[], 2, false);
    replicas[0].put(state("k/3/3", stamp(900 * SECOND, 1), Some("new")));
    replicas[1].put(state("k/9/9", stamp(900 * SECOND, 1), Some("new")));
    let mut network = Network::new(replicas, 7, 0, 0, false);
    assert!(network.run());
    // Questions and answers: probe, two or three looks, fetch, push, probe.
    assert!(network.frames <= 14, "{} frames", network.frames);
    assert_eq!(
        network.replicas[0].sent + network.replicas[1].sent,
        3,
        "one of them old"
    );
}
