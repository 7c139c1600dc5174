//! Links look for upstreams where mirrors look for each other: among the storages that announce
//! themselves.

use std::sync::Arc;

use weir_settings::Peers;

use super::{
    hello::{Address, Hello, Keys, PROTOCOL},
    sightings::Sightings,
};

/// What a link hears of its upstreams: what one says of itself when it is there, or there again, and
/// nothing when it is gone.
pub(crate) type Found = Sightings<Option<Arc<Hello>>>;

/// A link that looks for upstreams.
pub(crate) struct Seeker {
    /// The keys that it forwards.
    pub keys: Keys,
    /// To whom.
    pub to: Peers,
    /// Where it hears of them.
    pub found: Arc<Found>,
}

impl Seeker {
    /// A storage has said what it is.
    pub(super) fn meet(&self, router: &str, address: &Address, hello: &Arc<Hello>) {
        let is_upstream = self.wants(router, hello);
        // What it was before it was asked again it may be no longer.
        let seen = is_upstream.then(|| Arc::clone(hello));
        self.found.note(address.clone(), seen);
    }

    /// A storage is gone.
    pub(super) fn lose(&self, address: &Address) {
        self.found.note(address.clone(), None);
    }

    /// What our own router's storages take, they see for themselves.
    fn wants(&self, router: &str, hello: &Hello) -> bool {
        hello.upstream
            && hello.router != router
            && hello.protocol.contains(&PROTOCOL)
            && self.to.contains(&hello.router, &hello.name)
            && self.keys.meet(&hello.keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_upstream_is_a_storage_elsewhere_that_takes_some_of_the_keys() {
        let keys = |text: &str| Keys {
            key_exprs: vec![text.to_owned()],
            exclude: Vec::new(),
        };
        let named = |names: &[&str]| Peers::Named(names.iter().map(|&n| n.to_owned()).collect());
        let rows = [
            // Router, name, keys, whether it takes anything; to whom the link forwards; the verdict.
            ("c1", "s", "v/**", true, Peers::All, true),
            ("ed", "s", "v/**", true, Peers::All, false),
            ("c1", "s", "v/42/x", true, Peers::All, true),
            ("c1", "s", "w/**", true, Peers::All, false),
            ("c1", "s", "v/**", false, Peers::All, false),
            ("c1", "s", "v/**", true, named(&["c1/s"]), true),
            ("c1", "s", "v/**", true, named(&["c2", "t"]), false),
        ];
        for (router, name, text, upstream, to, expected) in rows {
            let seeker = Seeker {
                keys: keys("v/42/**"),
                to,
                found: Arc::default(),
            };
            let hello = Arc::new(Hello {
                protocol: vec![PROTOCOL],
                router: router.to_owned(),
                name: name.to_owned(),
                keys: keys(text),
                series: true,
                backends: Vec::new(),
                mirror: None,
                upstream,
                now: 0,
            });
            let address = Address {
                router: router.to_owned(),
                storage: name.to_owned(),
            };
            seeker.meet("ed", &address, &hello);
            let found = seeker.found.take();
            assert_eq!(found[&address].is_some(), expected, "{hello:?}");
            seeker.lose(&address);
            assert!(seeker.found.take()[&address].is_none());
        }
    }
}
