//! One database of one server, whatever its generation.

use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;
use weir_backend_api::Direction;

use crate::{
    http::{self, Http, Payload, Trouble},
    point::Point,
    query::{self, Span},
    settings::{Closure, Fields, Generation, InfluxSettings},
    text,
};

/// Bytes of answers that one request for points is meant to bring.
const PAGE_BYTES: u64 = 4 << 20;
/// Rows of one request, at least and at most.
const PAGE_ROWS: (u64, u64) = (16, 20_000);

/// One database of one server.
pub(crate) struct Server {
    http: Http,
    settings: InfluxSettings,
    db: String,
    /// What the server is, once it has said so.
    known: Mutex<Option<Generation>>,
    /// Bytes of a row, as seen last.
    row_bytes: AtomicU64,
}

/// The points of one statement: those that are complete, and where to go on.
#[derive(Debug, Default)]
pub(crate) struct Page {
    pub points: Vec<Point>,
    /// The nanosecond up to which the page is complete, if there is more: the first that is not.
    pub cut: Option<u64>,
    /// Whether one nanosecond alone filled the page.
    pub is_stuck: bool,
    /// Whether there were points of others among them.
    pub has_others: bool,
}

/// One question for points.
#[derive(Clone, Debug)]
pub(crate) struct Question {
    pub names: Vec<String>,
    pub span: Span,
    pub limit: usize,
}

impl Server {
    /// Asks nobody.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(crate) fn new(settings: &InfluxSettings, store: &str) -> Result<Self, String> {
        let known = match settings.generation {
            Generation::Auto => None,
            known => Some(known),
        };
        Ok(Self {
            http: Http::new(settings)?,
            db: settings.db.replace("{name}", store),
            settings: settings.clone(),
            known: Mutex::new(known),
            row_bytes: AtomicU64::new(64 << 10),
        })
    }

    pub(crate) const fn fields(&self) -> Fields {
        self.settings.fields
    }

    /// Which interface it speaks; asks once.
    ///
    /// # Errors
    /// [`Trouble`] of the question.
    pub(crate) fn generation(&self) -> Result<Generation, Trouble> {
        if let Some(known) = *self.known.lock() {
            return Ok(known);
        }
        let answer = self.http.send("GET", "/ping", &[], &Payload::None)?;
        let version = http::header(&answer, "x-influxdb-version").unwrap_or_default();
        let found = match version.trim_start_matches('v').split('.').next() {
            Some("2") => Generation::Two,
            Some("3") => Generation::Three,
            Some("0" | "1") => Generation::One,
            _ => {
                let message = format!(
                    "the server does not say which version it is ({version:?}); set `version` to 1, 2 or 3"
                );
                return Err(Trouble::Blocked(message));
            }
        };
        tracing::info!(url = %self.settings.url, version, "asked InfluxDB for its version");
        *self.known.lock() = Some(found);
        Ok(found)
    }

    /// Writes lines. All of them are stored, or an error says what is known of them.
    ///
    /// # Errors
    /// [`Trouble::Bad`]: some are not, all others are.
    pub(crate) fn write(&self, lines: &str) -> Result<(), Trouble> {
        self.creating(|| {
            let (path, parameters): (_, Vec<(&str, &str)>) = match self.generation()? {
                Generation::Two => {
                    let org = self.settings.org.as_deref().unwrap_or_default();
                    let parameters = vec![("org", org), ("bucket", &self.db), ("precision", "ns")];
                    ("/api/v2/write", parameters)
                }
                Generation::Three => {
                    let parameters = vec![("db", &*self.db), ("precision", "nanosecond")];
                    ("/api/v3/write_lp", parameters)
                }
                Generation::One | Generation::Auto => {
                    ("/write", vec![("db", &*self.db), ("precision", "ns")])
                }
            };
            let lines = Payload::Lines(lines);
            self.http.send("POST", path, &parameters, &lines).map(drop)
        })
    }

    /// Answers several questions in one request.
    ///
    /// # Errors
    /// [`Trouble`] of any of them.
    pub(crate) fn select(
        &self,
        questions: &[Question],
        direction: Direction,
    ) -> Result<Vec<Page>, Trouble> {
        let generation = self.generation()?;
        let queries: Vec<String> = questions
            .iter()
            .map(|q| query::select(generation, &q.names, q.span, direction, q.limit))
            .collect();
        self.creating(|| {
            let mut found: Vec<Found> = questions.iter().map(|_| Found::default()).collect();
            let mut rows = 0;
            let mut bytes = 0;
            self.queries(&queries, |statement, series| {
                let (count, last, points) = series.into_points()?;
                rows += count;
                bytes += points.iter().map(bytes_of).sum::<usize>();
                if let (Some(found), Some(question)) =
                    (found.get_mut(statement), questions.get(statement))
                {
                    found.has_others |= points.len() < count;
                    found.points.extend(points);
                    if count >= question.limit {
                        found.cut =
                            Some(found.cut.map_or(last, |cut| first_of(cut, last, direction)));
                    }
                }
                Ok(())
            })?;
            if let Some(mean) = bytes.checked_div(rows) {
                let mean = u64::try_from(mean).unwrap_or(u64::MAX);
                self.row_bytes.store(mean.max(1), Ordering::Relaxed);
            }
            Ok(found
                .into_iter()
                .map(|found| found.into_page(direction))
                .collect())
        })
    }

    /// How many rows one request is best for, given what rows were like lately.
    pub(crate) fn page_rows(&self) -> usize {
        let rows = PAGE_BYTES / self.row_bytes.load(Ordering::Relaxed).max(1);
        usize::try_from(rows.clamp(PAGE_ROWS.0, PAGE_ROWS.1)).unwrap_or(16)
    }

    /// Tells every name that is there and begins with `prefix`, and some others, in no order.
    ///
    /// # Errors
    /// [`Trouble`] of the question.
    pub(crate) fn names(&self, prefix: &str, mut each: impl FnMut(String)) -> Result<(), Trouble> {
        let generation = self.generation()?;
        let query = query::names(generation, prefix);
        let mut is_empty = true;
        self.creating(|| {
            self.query(&query, true, |_, series| {
                is_empty = false;
                series.into_names().for_each(&mut each);
                Ok(())
            })
        })?;
        if is_empty {
            // 1.x lists a database that is not there as one that is empty; a reader must be told.
            let nothing = Question {
                names: vec!["a".to_owned()],
                span: Span::at(0),
                limit: 1,
            };
            self.select(&[nothing], Direction::Forward)?;
        }
        Ok(())
    }

    /// Removes points, each alone, and whole spans. Only where [`Server::can_delete`].
    ///
    /// # Errors
    /// [`Trouble`]; some may be removed.
    pub(crate) fn delete(&self, points: &[Point], spans: &[(String, Span)]) -> Result<(), Trouble> {
        let mut queries: Vec<String> = points.iter().map(query::delete_point).collect();
        queries.extend(
            spans
                .iter()
                .map(|(name, span)| query::delete_span(name, *span)),
        );
        self.queries(&queries, |_, _| Ok(()))
    }

    /// Whether single points can be removed from it.
    ///
    /// # Errors
    /// [`Trouble`] of asking what it is.
    pub(crate) fn can_delete(&self) -> Result<bool, Trouble> {
        Ok(self.generation()? == Generation::One)
    }

    /// Removes everything, as the settings say.
    ///
    /// # Errors
    /// [`Trouble`].
    pub(crate) fn destroy(&self) -> Result<(), Trouble> {
        let query = match self.settings.closure {
            Closure::DropSeries => "DROP SERIES FROM /.*/".to_owned(),
            Closure::DropDatabase => format!("DROP DATABASE {}", text::identifier(&self.db)),
        };
        match self.query(&query, false, |_, _| Ok(())) {
            Err(Trouble::NoDatabase(_)) => Ok(()),
            done => done,
        }
    }

    /// Does something, and once more if the database was not there and could be made.
    fn creating<T>(&self, mut act: impl FnMut() -> Result<T, Trouble>) -> Result<T, Trouble> {
        match act() {
            Err(Trouble::NoDatabase(message)) if self.settings.create_db => {
                tracing::info!(db = %self.db, url = %self.settings.url, "making the database: {message}");
                self.create()?;
                act()
            }
            done => done,
        }
    }

    fn create(&self) -> Result<(), Trouble> {
        match self.generation()? {
            Generation::One | Generation::Auto => {
                let mut query = format!("CREATE DATABASE {}", text::identifier(&self.db));
                if let Some(retention) = self.settings.retention {
                    // The server keeps an hour at least.
                    query += &format!(" WITH DURATION {}s", retention.as_secs().max(3_600));
                }
                self.query(&query, false, |_, _| Ok(()))
            }
            Generation::Three => {
                let body = serde_json::json!({ "db": self.db }).to_string();
                let path = "/api/v3/configure/database";
                self.http
                    .send("POST", path, &[], &Payload::Json(body))
                    .map(drop)
            }
            Generation::Two => Err(Trouble::Blocked(format!(
                "there is no bucket {}, and in a 2.x server it must be made there: influx bucket create",
                self.db
            ))),
        }
    }

    /// Several statements in one request.
    fn queries(
        &self,
        queries: &[String],
        each: impl FnMut(usize, query::Series) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let done = self.query(&queries.join(";"), false, each);
        match (&done, queries.first()) {
            // Of several statements 1.x tells that they were not executed, and of one alone why.
            (Err(trouble), Some(first)) if trouble.message() == query::NOT_EXECUTED => {
                self.query(first, false, |_, _| Ok(()))?;
                done
            }
            _ => done,
        }
    }

    fn query(
        &self,
        query: &str,
        is_chunked: bool,
        each: impl FnMut(usize, query::Series) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        let mut form = vec![("q", query), ("db", &*self.db), ("epoch", "ns")];
        if is_chunked {
            form.extend([("chunked", "true"), ("chunk_size", "10000")]);
        }
        let answer = self
            .http
            .send("POST", "/query", &[], &Payload::Form(&form))?;
        query::read(http::reader(answer), each)
    }
}

/// The points of one statement before the last, incomplete nanosecond is cut off.
#[derive(Default)]
struct Found {
    points: Vec<Point>,
    cut: Option<u64>,
    has_others: bool,
}

impl Found {
    fn into_page(self, direction: Direction) -> Page {
        let Some(cut) = self.cut else {
            return Page {
                points: self.points,
                cut: None,
                is_stuck: false,
                has_others: self.has_others,
            };
        };
        let is_before = |nanos: u64| match direction {
            Direction::Forward => nanos < cut,
            Direction::Backward => nanos > cut,
        };
        let mut points = self.points;
        let is_stuck = !points.iter().any(|point| is_before(point.nanos));
        points.retain(|point| is_before(point.nanos));
        Page {
            points,
            cut: Some(cut),
            is_stuck,
            has_others: self.has_others,
        }
    }
}

/// Which of two nanoseconds is read first.
fn first_of(a: u64, b: u64, direction: Direction) -> u64 {
    match direction {
        Direction::Forward => a.min(b),
        Direction::Backward => a.max(b),
    }
}

fn bytes_of(point: &Point) -> usize {
    // Beside the value a row takes about this.
    200 + point
        .record
        .value
        .as_ref()
        .map_or(0, weir_core::value::Value::len)
}
