//! The contract on the fake in memory.

use std::collections::BTreeSet;
use std::time::Duration;

use cotter::engine::Operate as _;
use cotter::engine::fake::{Behaviour, Fake, Fault};
use cotter::model::{ContainerId, ContainerState, Health, ImageRef, Instance};

use crate::{Bench, Images, contract};

struct FakeBench {
    engine: Fake,
    neighbour: Fake,
    images: Images,
}

impl Bench for FakeBench {
    type Engine = Fake;

    fn engine(&self) -> &Fake {
        &self.engine
    }

    fn neighbour(&self) -> &Fake {
        &self.neighbour
    }

    fn images(&self) -> &Images {
        &self.images
    }

    fn foreign(&self) -> String {
        String::new()
    }

    fn foreign_runs(&self, _: &str) -> bool {
        true
    }

    async fn start_unheard(&self, id: &ContainerId) {
        self.engine.fail(0, Fault::Late(Duration::from_millis(200)));
        let unheard = tokio::time::timeout(Duration::from_millis(1), self.engine.start(id)).await;
        assert!(unheard.is_err());
    }

    fn kill(&self, id: &ContainerId) {
        self.engine.meddle(|services| {
            for seen in services.iter_mut().filter(|s| s.container == *id) {
                seen.state = ContainerState::Exited { code: 137 };
                seen.status = "Exited (137) 1 second ago".to_owned();
            }
        });
    }

    fn cut_short(&self, id: &ContainerId) {
        self.engine.cut_short(id);
    }

    fn volumes(&self) -> BTreeSet<String> {
        self.engine.volumes().iter().map(ToString::to_string).collect()
    }

    fn networks_of(&self, id: &ContainerId) -> usize {
        self.engine.networks_of(id)
    }

    fn architecture(&self) -> String {
        "riscv64".to_owned()
    }

    fn layers_of(&self, image: &ImageRef) -> BTreeSet<String> {
        let own = if *image == self.images.well { "well" } else { "other" };
        BTreeSet::from(["base".to_owned(), own.to_owned()])
    }

    fn free_port(&self) -> u16 {
        8123
    }
}

#[tokio::test(start_paused = true)]
async fn the_fake_keeps_the_contract() {
    let image = |name: &str| ImageRef::parse(&format!("r/app@sha256:{}", name.repeat(64))).unwrap();
    let images = Images {
        well: image("1"),
        other: image("2"),
        exit: image("3"),
        unhealthy: image("4"),
        slow: image("5"),
        missing: image("6"),
        nowhere: ImageRef::parse("127.0.0.1:1/app:1").unwrap(),
    };
    let engine = Fake::new(Instance::parse("contract").unwrap());
    let neighbour = Fake::new(Instance::parse("neighbour").unwrap());
    engine.publish(&images.well, Behaviour::Runs);
    neighbour.publish(&images.well, Behaviour::Runs);
    engine.publish(&images.other, Behaviour::Runs);
    engine.publish(&images.exit, Behaviour::Crashes);
    engine.publish(&images.unhealthy, Behaviour::Reports(Health::Unhealthy));
    engine.publish(&images.slow, Behaviour::Reports(Health::Starting));
    engine.cut_registry(&images.nowhere);
    engine.make_of(&images.well, &["base", "well"]);
    engine.make_of(&images.other, &["base", "other"]);
    engine.make_of(&images.missing, &["missing"]);
    engine.move_to("riscv64");
    contract(&FakeBench { engine, neighbour, images }).await;
}
