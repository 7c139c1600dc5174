//! Two storages that mirror each other, without a network between them.

use weir_core::mirror::{
    answer::{Limits, answer},
    round::{self, Effect, Event, Mirror, Report},
};

use super::{
    resolving::{set, world},
    *,
};

/// Everything.
fn all() -> KeySet {
    KeySet::from(KeyPattern::parse("**").unwrap())
}

/// Lets one storage compare itself with another until a round ends; what the round did.
async fn mirror(asking: &World, asked: &World) -> Result<Report, String> {
    let mut machine = Mirror::new(round::Rules::default(), 7);
    let mut events = vec![Event::Wake];
    while let Some(event) = events.pop() {
        let now = asking.storage.now();
        let mut replica = asking.storage.replica(&all());
        for effect in machine.handle(now, event, &mut replica) {
            match effect {
                Effect::Ask { ask, frame, .. } => {
                    let mut other = asked.storage.replica(&all());
                    let answered = answer(&frame, &mut other, &Limits::default());
                    let answered = answered.map_err(|refused| refused.to_string())?;
                    if let Some(admit) = answered.admit {
                        asked.storage.admit(admit).await?;
                    }
                    let frame = answered.reply.into();
                    events.push(Event::Reply { ask, frame });
                }
                Effect::Admit { batch, admit } => {
                    asking.storage.admit(admit).await?;
                    events.push(Event::Admitted { batch });
                }
                Effect::InStep(report) => return Ok(report),
                Effect::Differs { report, live } => {
                    return Err(format!("differs, live: {live}, {report:?}"));
                }
                Effect::Failed { why, .. } => return Err(why.to_string()),
                Effect::Told { .. } | Effect::Horizon(_) => {}
            }
        }
        if events.is_empty() && machine.deadline().is_some() {
            // Nothing is under way: it waits before it looks again.
            events.push(Event::Tick);
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Err("the round never ended".into())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_one_has_and_the_other_has_not_goes_both_ways() {
    for history in [History::Latest, History::All] {
        let shape = Shape {
            history,
            ..Shape::default()
        };
        let a = World::new(RocksdbVolume::default(), shape.clone());
        let b = World::new(MemoryVolume::new(), Shape { shards: 3, ..shape });
        let expected = numbered(0..500);
        for (index, (key, value)) in expected.iter().enumerate() {
            let world = if index % 3 == 0 { &a } else { &b };
            world.put(key, 1, value);
        }
        // Deleted on one side, not known to be on the other.
        for world in [&a, &b] {
            assert!(matches!(
                world.ask("gone", a.stamp(1), Some("x")),
                Outcome::Decided(..)
            ));
        }
        assert!(matches!(
            a.ask("gone", a.stamp(5), None),
            Outcome::Decided(..)
        ));
        for world in [&a, &b] {
            world.eventually("taken", |world| world.storage.queued() == 0);
        }
        let report = mirror(&a, &b).await.unwrap();
        assert!(report.fetched > 300 && report.pushed > 100, "{report:?}");
        a.holds(&expected);
        b.holds(&expected);
        let report = mirror(&b, &a).await.unwrap();
        assert_eq!((report.fetched, report.pushed), (0, 0));
        // Half of what is written now is known to one only; sums that were known are so no more.
        b.put("k/250", 9, "new");
        assert!(matches!(
            a.ask("k/251", b.stamp(9), None),
            Outcome::Decided(..)
        ));
        b.eventually("taken", |world| {
            world.read().is_ok_and(|read| read["k/250"] == "new")
        });
        mirror(&b, &a).await.unwrap();
        let mut expected = expected;
        expected.insert("k/250".into(), "new".into());
        expected.remove("k/251");
        a.holds(&expected);
        b.holds(&expected);
        a.storage.close().await;
        b.storage.close().await;
    }
}

/// S13: what both have made of different changes is merged, and both end with all of it.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_policy_has_merged_is_merged_again() {
    let (a, _) = world(RocksdbVolume::default());
    let (b, _) = world(MemoryVolume::new());
    for (world, millis, letter) in [(&a, 1, "a"), (&a, 4, "d"), (&b, 2, "b"), (&b, 3, "c")] {
        let stamp = world.stamp(millis);
        assert!(matches!(
            world.ask("set/a", stamp, Some(letter)),
            Outcome::Decided(..)
        ));
    }
    mirror(&a, &b).await.unwrap();
    a.holds(&set("abcd"));
    b.holds(&set("abcd"));
    a.storage.close().await;
    b.storage.close().await;
}
