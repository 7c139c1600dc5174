//! Numeric ranges inside a chunk: membership, and the few prefixes that stand for them.

/// Decimal numbers from `first` to `last`, both included.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct NumberRange {
    pub(super) first: u64,
    pub(super) last: u64,
    /// Digits, if all are written with the same number of them; else without leading zeros.
    pub(super) width: Option<usize>,
}

/// A prefix of numbers, as the router declares it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Prefix {
    pub(super) digits: String,
    /// Whether it stands for everything that starts so, or for itself alone.
    pub(super) open: bool,
}

// Every declared expression costs memory and route recomputation on every router that learns it.
// Sixteen are a first digit (ten) and room to split the digit at the range's edge.
const COVER_MAX: usize = 16;

// A prefix that lets in an eighth of the range on top costs the filter less than ten more
// expressions would cost every router. What a prefix of all four-digit numbers lets in of the
// shorter ones (a ninth of it) must not count as a reason to split.
const STRANGERS_SHARE: u64 = 8;

impl NumberRange {
    /// What is left of the text after the number that it starts with, if that is in the range.
    /// All leading digits are the number.
    pub(super) fn strip<'t>(&self, text: &'t str) -> Option<&'t str> {
        let end = text
            .bytes()
            .position(|b| !b.is_ascii_digit())
            .unwrap_or(text.len());
        let (digits, rest) = text.split_at(end);
        let written_right = match self.width {
            Some(width) => digits.len() == width,
            None => digits == "0" || !digits.starts_with('0'),
        };
        // A parse error is an empty run of digits or a number beyond u64: both lie outside.
        let inside = digits
            .parse()
            .is_ok_and(|n: u64| self.first <= n && n <= self.last);
        (written_right && inside).then_some(rest)
    }

    /// At most 16 prefixes, disjoint, that hold every number of the range and few others.
    ///
    /// Starts from the first digits and splits the prefix that lets in most strangers, for as
    /// long as there is room and they are many for the size of the range.
    pub(super) fn cover(&self) -> Vec<Prefix> {
        let tolerated = (self.last - self.first) / STRANGERS_SHARE;
        let mut cover = self.children("");
        while let Some((at, _)) = cover
            .iter()
            .enumerate()
            .map(|(at, prefix)| (at, self.strangers(prefix)))
            .filter(|(_, strangers)| *strangers > u128::from(tolerated))
            .max_by_key(|(at, strangers)| (*strangers, usize::MAX - at))
        {
            let children = self.children(&cover[at].digits);
            if cover.len() - 1 + children.len() > COVER_MAX {
                break;
            }
            cover.splice(at..=at, children);
        }
        cover
    }

    /// The range's numbers below a prefix, by their next digit, the prefix itself first if it is
    /// one of them.
    fn children(&self, digits: &str) -> Vec<Prefix> {
        let own = self.count(digits, digits.len()..=digits.len()) == 1;
        let own = own.then(|| Prefix {
            digits: digits.to_owned(),
            open: false,
        });
        let below = ('0'..='9').filter_map(|digit| {
            let digits = format!("{digits}{digit}");
            let own = self.count(&digits, digits.len()..=digits.len());
            let all = self.count(&digits, digits.len()..=self.digits_max());
            (all > 0).then_some(Prefix {
                digits,
                open: all > own,
            })
        });
        own.into_iter().chain(below).collect()
    }

    /// How many numbers outside the range, none longer than its longest, a prefix lets in.
    fn strangers(&self, prefix: &Prefix) -> u128 {
        if !prefix.open {
            return 0;
        }
        let lengths = self.width.unwrap_or(prefix.digits.len())..=self.digits_max();
        let everything = Self {
            first: 0,
            last: u64::MAX,
            width: self.width,
        };
        everything.count(&prefix.digits, lengths.clone()) - self.count(&prefix.digits, lengths)
    }

    /// How many numbers of the range are written with these digits first and have one of these
    /// lengths.
    fn count(&self, digits: &str, lengths: std::ops::RangeInclusive<usize>) -> u128 {
        let zero_led = digits.starts_with('0') && self.width.is_none();
        let number: u128 = match digits {
            "" => 0,
            _ => digits.parse().unwrap_or(u128::MAX),
        };
        lengths
            .filter(|length| *length >= digits.len().max(1))
            .filter(|length| self.width.is_none_or(|width| width == *length))
            // Without a width, "0" is the only number that starts with a zero.
            .filter(|length| !zero_led || *length == 1)
            .map(|length| {
                let tail = 10_u128.pow(u32::try_from(length - digits.len()).unwrap_or(u32::MAX));
                let mut low = number.saturating_mul(tail);
                if digits.is_empty() && self.width.is_none() && length > 1 {
                    low = tail / 10;
                }
                let high = number.saturating_mul(tail).saturating_add(tail - 1);
                let low = low.max(u128::from(self.first));
                let high = high.min(u128::from(self.last));
                (high + 1).saturating_sub(low)
            })
            .sum()
    }

    /// The range cut where numbers get one digit longer: lowest and highest text of each length.
    pub(super) fn bounds_by_length(&self) -> Vec<(String, String)> {
        if let Some(width) = self.width {
            return vec![(
                format!("{:0width$}", self.first),
                format!("{:0width$}", self.last),
            )];
        }
        (1..=self.digits_max())
            .filter_map(|length| {
                let tail = 10_u128.pow(u32::try_from(length - 1).unwrap_or(u32::MAX));
                let shortest = if length == 1 { 0 } else { tail };
                let low = shortest.max(u128::from(self.first));
                let high = (tail * 10 - 1).min(u128::from(self.last));
                (low <= high).then(|| (low.to_string(), high.to_string()))
            })
            .collect()
    }

    /// The most digits that a number of the range is written with.
    pub(super) fn digits_max(&self) -> usize {
        self.width.unwrap_or_else(|| self.last.to_string().len())
    }
}
