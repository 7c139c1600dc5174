//! What guests say: through `tracing`, cut, made printable, and no faster than the limit.

use std::{
    fmt::Write,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Instant,
};

use parking_lot::Mutex;

use crate::{
    bindings::Level,
    environment::Hook,
    limits::{LOG_BYTES_MAX, Limits},
    stats::Stats,
};

/// Who speaks.
#[derive(Clone, Debug)]
pub(crate) struct Speaker {
    pub policy: std::sync::Arc<str>,
    pub hook: Hook,
}

/// Lets a number of lines a second pass. What an idle second left over serves a burst of twice as
/// many, so that a panic's message is not lost behind the line before it.
#[derive(Debug, Default)]
pub(crate) struct Throttle {
    bucket: Mutex<Option<Bucket>>,
    dropped: AtomicU64,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    filled: Instant,
    /// Lines dropped since the last that passed.
    silent: u64,
}

impl Throttle {
    /// Whether a line may pass now; if so, how many were dropped before it.
    fn admit(&self, now: Instant, lines_per_second: u32) -> Option<u64> {
        let rate = f64::from(lines_per_second);
        let mut bucket = self.bucket.lock();
        let bucket = bucket.get_or_insert(Bucket {
            tokens: 2.0 * rate,
            filled: now,
            silent: 0,
        });
        let elapsed = now.saturating_duration_since(bucket.filled).as_secs_f64();
        bucket.tokens = (bucket.tokens + elapsed * rate).min(2.0 * rate);
        bucket.filled = now;
        if bucket.tokens < 1.0 {
            bucket.silent += 1;
            self.dropped.fetch_add(1, Relaxed);
            return None;
        }
        bucket.tokens -= 1.0;
        Some(std::mem::take(&mut bucket.silent))
    }

    /// Lines dropped so far.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Relaxed)
    }
}

/// Says a guest's line.
pub(crate) fn say(speaker: &Speaker, stats: &Stats, limits: &Limits, level: Level, text: &str) {
    let Some(dropped) = stats
        .throttle
        .admit(Instant::now(), limits.log_lines_per_second)
    else {
        return;
    };
    let Speaker { policy, hook } = speaker;
    let text = printable(text);
    macro_rules! event {
        ($level:ident) => {
            tracing::event!(target: "weir::policy", tracing::Level::$level, %policy, %hook, "{text}")
        };
    }
    match level {
        Level::Error => event!(ERROR),
        Level::Warn => event!(WARN),
        Level::Info => event!(INFO),
        Level::Debug => event!(DEBUG),
        Level::Trace => event!(TRACE),
    }
    if dropped > 0 {
        tracing::warn!(
            target: "weir::policy", %policy, %hook,
            "{dropped} lines before this one were dropped: the policy logs too fast"
        );
    }
}

/// A guest must not be able to write lines that look like the router's own: what is no text is
/// written as an escape.
fn printable(text: &str) -> String {
    let kept = &text[..text.floor_char_boundary(LOG_BYTES_MAX)];
    let mut out = String::with_capacity(kept.len() + 3);
    for character in kept.trim_end().chars() {
        if character.is_control() && character != '\t' {
            // Writing to a string cannot fail.
            let _ = write!(out, "{}", character.escape_default());
        } else {
            out.push(character);
        }
    }
    if kept.len() < text.len() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn lines_pass_at_the_rate_and_the_dropped_are_told() {
        let throttle = Throttle::default();
        let start = Instant::now();
        let passed = (0..100)
            .filter(|_| throttle.admit(start, 5).is_some())
            .count();
        assert_eq!(passed, 10, "a burst of two seconds' worth");
        assert_eq!(throttle.dropped(), 90);
        let later = start + Duration::from_secs(1);
        assert_eq!(throttle.admit(later, 5), Some(90));
        assert_eq!(
            (0..100)
                .filter(|_| throttle.admit(later, 5).is_some())
                .count(),
            4
        );
    }

    #[test]
    fn a_line_stays_one_line() {
        assert_eq!(printable("a\nb\x1b[0m\tc\n"), "a\\nb\\u{1b}[0m\tc");
        let long = printable(&"é".repeat(1000));
        assert_eq!(long.chars().count(), LOG_BYTES_MAX / 2 + 1);
    }
}
