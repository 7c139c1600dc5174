//! What a policy says of itself.

use crate::{Fields, Hooks, bindings::exports::weir::policy::lifecycle};

/// What a policy is and what it needs. Whatever it does not ask for arrives as zero or empty.
#[derive(Clone, Debug)]
pub struct Manifest(lifecycle::Manifest);

/// A [`Manifest`] with the name and the version of the crate that says this.
#[macro_export]
macro_rules! manifest {
    () => {
        $crate::Manifest::new(env!("CARGO_PKG_NAME"), env!("CARGO_PKG_VERSION"))
    };
}

impl Manifest {
    /// A policy that needs nothing but the key's hash.
    #[must_use]
    pub fn new(name: &str, version: &str) -> Self {
        Self(lifecycle::Manifest {
            name: name.to_owned(),
            version: version.to_owned(),
            hooks: Hooks::empty(),
            needs: Fields::empty(),
            payload_prefix: 0,
            route_varies_with: Fields::empty(),
            counters: Vec::new(),
            reasons: Vec::new(),
        })
    }

    /// Asks for these fields too.
    #[must_use]
    pub fn needs(mut self, fields: Fields) -> Self {
        self.0.needs |= fields;
        self
    }

    /// Asks for the first bytes of each payload, 4096 at the most.
    #[must_use]
    pub fn payload_prefix(mut self, bytes: u32) -> Self {
        self.0.needs |= Fields::PAYLOAD;
        self.0.payload_prefix = bytes;
        self
    }

    /// Says that an answer of `route` depends on these fields besides the key, and asks for them.
    /// Without this the host asks once for each key and remembers.
    #[must_use]
    pub fn route_varies_with(mut self, fields: Fields) -> Self {
        self.0.needs |= fields;
        self.0.route_varies_with |= fields;
        self
    }

    /// Names the counters of [`count`](crate::count), by index; 64 at the most.
    #[must_use]
    pub fn counters<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.0.counters = names.into_iter().map(str::to_owned).collect();
        self
    }

    /// Names what the numbers of `Reject` and `Drop` mean, by index; 64 at the most.
    #[must_use]
    pub fn reasons<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.0.reasons = names.into_iter().map(str::to_owned).collect();
        self
    }

    pub(crate) fn for_hooks(mut self, hooks: Hooks) -> lifecycle::Manifest {
        self.0.hooks = hooks;
        self.0
    }

    #[cfg(feature = "testing")]
    pub(crate) fn reason_names(&self) -> &[String] {
        &self.0.reasons
    }

    #[cfg(feature = "testing")]
    pub(crate) fn fields(&self) -> Fields {
        self.0.needs
    }

    #[cfg(feature = "testing")]
    pub(crate) fn prefix_bytes(&self) -> u32 {
        self.0.payload_prefix
    }
}
