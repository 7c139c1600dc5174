//! A change that goes to several shards is answered for all of them.

use weir_backend_api::{Capability, Store};

use super::*;

/// The first shard in memory, the others on the disk.
struct Mixed(MemoryVolume, RocksdbVolume);

impl Volume for Mixed {
    fn kind(&self) -> &'static str {
        "mixed"
    }

    fn capability(&self) -> Capability {
        self.0.capability()
    }

    fn open(&self, spec: &StoreSpec) -> weir_backend_api::Result<Box<dyn Store>> {
        match &*spec.name {
            "shard-0" => self.0.open(spec),
            _ => self.1.open(spec),
        }
    }
}

fn sharded<V: Volume + 'static>(volume: V) -> World {
    let shape = Shape {
        shards: 2,
        ..Shape::default()
    };
    let world = World::new(volume, shape);
    world.eventually("up", |world| world.storage.condition().current);
    world
}

/// Stamped and unstamped.
fn deletes(world: &World) -> [Option<Stamp>; 2] {
    [world.stamp(1), None]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_operation_is_as_durable_as_in_the_least_of_its_shards() {
    let world = sharded(Mixed(MemoryVolume::new(), RocksdbVolume::default()));
    for stamp in deletes(&world) {
        let outcome = world.ask_for(Durability::Synced, "a/**", stamp, None);
        assert!(
            matches!(
                outcome,
                Outcome::Decided(Admission::Applied(_), Durability::Memory)
            ),
            "{outcome:?}"
        );
    }
    world.storage.close().await;
    let world = sharded(RocksdbVolume::default());
    for stamp in deletes(&world) {
        let outcome = world.ask_for(Durability::Synced, "a/**", stamp, None);
        assert!(
            matches!(
                outcome,
                Outcome::Decided(Admission::Applied(_), Durability::Synced)
            ),
            "{outcome:?}"
        );
    }
    world.storage.close().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wildcard_operation_that_one_shard_cannot_take_has_failed() {
    for nth in 1..=2 {
        let world = sharded(RocksdbVolume::default());
        let down = Fault::Error(ErrorKind::Unavailable);
        world.faults.at(Operation::Commit, nth, down);
        let outcome = world.ask("a/**", world.stamp(1), None);
        assert!(matches!(outcome, Outcome::Failed(_)), "{outcome:?}");
        // The other has it already, which says less than that this one takes it now.
        world.eventually("applied", |world| {
            let outcome = world.ask("a/**", world.stamp(1), None);
            matches!(outcome, Outcome::Decided(Admission::Applied(_), _))
        });
        world.storage.close().await;
    }
}
