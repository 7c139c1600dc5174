//! The laws of a resolver, tried on versions: an answer for everything, commutative, associative,
//! idempotent.

use crate::{Environment, Hlc, Resolution, Resolve, Value, Version, policy::start};

/// What a key holds, in a test: a stamp's time and the value, or nothing if it is deleted.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Held {
    /// Seconds of the stamp.
    pub time: u32,
    /// The value.
    pub value: Option<Value>,
}

impl Held {
    /// A text that was put.
    #[must_use]
    pub fn put(time: u32, payload: impl Into<Vec<u8>>) -> Self {
        let value = Value {
            encoding: 0,
            schema: Vec::new(),
            payload: payload.into(),
            attachment: None,
        };
        Self {
            time,
            value: Some(value),
        }
    }

    /// A delete.
    #[must_use]
    pub fn delete(time: u32) -> Self {
        Self { time, value: None }
    }

    fn version(&self) -> Version {
        let timestamp = Hlc {
            ntp64: u64::from(self.time) << 32,
            id_high: 1,
            id_low: 0,
        };
        Version {
            timestamp,
            value: self.value.clone(),
        }
    }

    /// The total order of versions: the stamp, a tombstone after live, then the values somehow.
    fn order(&self) -> (u32, bool, &Option<Value>) {
        (self.time, self.value.is_none(), &self.value)
    }
}

/// Tries the laws on three versions. Makes a fresh policy for every question, as the host does.
///
/// # Errors
/// The law that is broken, and by what.
pub fn check_laws<P: Resolve>(settings: &str, versions: [&Held; 3]) -> Result<(), String> {
    let merge = |a: &Held, b: &Held| merge::<P>(settings, a, b);
    let [a, b, c] = versions;
    let equal = |law: &str, left: &Held, right: &Held| {
        if left.value == right.value {
            return Ok(());
        }
        Err(format!(
            "not {law}: a = {a:?}, b = {b:?}, c = {c:?}: {left:?} is not {right:?}"
        ))
    };
    equal("idempotent: a.a = a", &merge(a, a)?, a)?;
    equal("commutative: a.b = b.a", &merge(a, b)?, &merge(b, a)?)?;
    let left = merge(&merge(a, b)?, c)?;
    let right = merge(a, &merge(b, c)?)?;
    equal("associative: (a.b).c = a.(b.c)", &left, &right)?;
    equal("absorbing: ((a.b).c).a = (a.b).c", &merge(&left, a)?, &left)
}

/// Tries the laws on every three of these versions.
///
/// # Panics
/// At the first three that break one.
pub fn check_laws_of_all<P: Resolve>(settings: &str, versions: &[Held]) {
    for a in versions {
        for b in versions {
            for c in versions {
                if let Err(broken) = check_laws::<P>(settings, [a, b, c]) {
                    panic!("{broken}");
                }
            }
        }
    }
}

fn merge<P: Resolve>(settings: &str, a: &Held, b: &Held) -> Result<Held, String> {
    let environment = Environment {
        router_id: String::new(),
        zone: String::new(),
        shards: Vec::new(),
        settings: settings.to_owned(),
    };
    let mut policy = start::<P>(&environment).map_err(|error| format!("{error:?}"))?;
    let (first, second) = if a.order() <= b.order() {
        (a, b)
    } else {
        (b, a)
    };
    let answer = policy.resolve("a/key", &first.version(), &second.version());
    // What is made of the two is as new as the newer of them.
    let made = |value| Held {
        time: second.time,
        value,
    };
    Ok(
        match answer.map_err(|error| format!("not total: {error} for {first:?}, {second:?}"))? {
            Resolution::Default | Resolution::KeepSecond => second.clone(),
            Resolution::KeepFirst => first.clone(),
            Resolution::Merge(value) => made(Some(value)),
            Resolution::Delete => made(None),
        },
    )
}
