//! Counters of the branches that a history is to reach.

/// A struct of counters that can be added up and shown by name.
macro_rules! counted {
    ($(#[$of:meta])* $type:ident { $($(#[$doc:meta])* $name:ident,)* }) => {
        $(#[$of])*
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $type { $($(#[$doc])* pub $name: u64,)* }

        impl $type {
            /// Adds another history's.
            pub fn add(&mut self, other: &Self) {
                $(self.$name += other.$name;)*
            }

            /// Names and counts.
            pub fn each(&self) -> impl Iterator<Item = (&'static str, u64)> {
                [$((stringify!($name), self.$name),)*].into_iter()
            }
        }
    };
}

pub(crate) use counted;
