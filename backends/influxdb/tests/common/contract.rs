//! A server that does what the documentation of InfluxDB 2.x or 3.x says of a few calls.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::{
    collections::{BTreeMap, BTreeSet},
    io::{BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
};

use flate2::read::GzDecoder;
use serde_json::{Value as Json, json};

use self::ql::Statement;

#[path = "contract_ql.rs"]
mod ql;

pub struct Contract {
    url: String,
    state: Arc<Mutex<State>>,
}

/// A series: its tags by name.
type Tags = BTreeMap<String, String>;

/// Fields by time and series.
type Table = BTreeMap<(i64, Tags), BTreeMap<String, Json>>;

#[derive(Default)]
struct State {
    generation: u8,
    databases: BTreeSet<String>,
    tables: BTreeMap<String, Table>,
    /// What the next writes are answered with.
    failures: Vec<u16>,
}

struct Request {
    method: String,
    path: String,
    parameters: BTreeMap<String, String>,
    headers: BTreeMap<String, String>,
    body: Vec<u8>,
}

impl Contract {
    pub fn start(generation: u8) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State {
            generation,
            ..State::default()
        }));
        let shared = Arc::clone(&state);
        // Ends with the test's process.
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let state = Arc::clone(&shared);
                thread::spawn(move || serve(&stream, &state));
            }
        });
        Self { url, state }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Makes a database or bucket.
    pub fn make(&self, db: &str) {
        self.state.lock().unwrap().databases.insert(db.to_owned());
    }

    /// Answers the next writes with a status.
    pub fn fail_next(&self, status: u16, times: usize) {
        self.state
            .lock()
            .unwrap()
            .failures
            .extend(vec![status; times]);
    }

    pub fn points(&self) -> usize {
        self.state
            .lock()
            .unwrap()
            .tables
            .values()
            .map(BTreeMap::len)
            .sum()
    }

    pub fn tables(&self) -> Vec<String> {
        self.state.lock().unwrap().tables.keys().cloned().collect()
    }
}

fn serve(stream: &TcpStream, state: &Mutex<State>) {
    let mut reader = BufReader::new(stream);
    while let Some(request) = read(&mut reader) {
        let (status, body) = state.lock().unwrap().answer(&request);
        let version = if state.lock().unwrap().generation == 2 {
            "v2.7.10"
        } else {
            "3.2.1"
        };
        let retry = if status == 429 {
            "Retry-After: 0\r\n"
        } else {
            ""
        };
        let head = format!(
            "HTTP/1.1 {status} X\r\nX-Influxdb-Version: {version}\r\nContent-Length: {}\r\n{retry}\r\n",
            body.len()
        );
        let mut out = stream;
        if out
            .write_all(head.as_bytes())
            .and_then(|()| out.write_all(body.as_bytes()))
            .is_err()
        {
            return;
        }
    }
}

fn read(reader: &mut impl BufRead) -> Option<Request> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|read| *read > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = BTreeMap::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else {
            break;
        };
        headers.insert(name.to_ascii_lowercase(), value.trim().to_owned());
    }
    let len = headers
        .get("content-length")
        .and_then(|len| len.parse().ok())
        .unwrap_or(0);
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    if headers
        .get("content-encoding")
        .is_some_and(|encoding| encoding == "gzip")
    {
        let mut plain = Vec::new();
        GzDecoder::new(&*body).read_to_end(&mut plain).ok()?;
        body = plain;
    }
    let (path, query) = target.split_once('?').unwrap_or((&target, ""));
    let mut parameters = form(query);
    if headers
        .get("content-type")
        .is_some_and(|kind| kind.contains("form-urlencoded"))
    {
        parameters.extend(form(std::str::from_utf8(&body).ok()?));
    }
    Some(Request {
        method,
        path: path.to_owned(),
        parameters,
        headers,
        body,
    })
}

fn form(text: &str) -> BTreeMap<String, String> {
    let plain = |text: &str| {
        let mut bytes = Vec::new();
        let mut rest = text.bytes();
        while let Some(byte) = rest.next() {
            bytes.push(match byte {
                b'+' => b' ',
                b'%' => {
                    let digits = [rest.next().unwrap(), rest.next().unwrap()];
                    u8::from_str_radix(std::str::from_utf8(&digits).unwrap(), 16).unwrap()
                }
                byte => byte,
            });
        }
        String::from_utf8(bytes).unwrap()
    };
    let pairs = text.split('&').filter_map(|pair| pair.split_once('='));
    pairs
        .map(|(name, value)| (plain(name), plain(value)))
        .collect()
}

fn error(status: u16, message: &str) -> (u16, String) {
    (
        status,
        json!({ "error": message, "message": message }).to_string(),
    )
}

impl State {
    fn answer(&mut self, request: &Request) -> (u16, String) {
        let parameter = |name: &str| request.parameters.get(name).map_or("", String::as_str);
        if (request.method.as_str(), request.path.as_str()) == ("GET", "/ping") {
            return (204, String::new());
        }
        if request.headers.get("authorization").map(String::as_str) != Some("Token secret") {
            return error(401, "unauthorized access");
        }
        match (
            self.generation,
            request.method.as_str(),
            request.path.as_str(),
        ) {
            (2, "POST", "/api/v2/write") => {
                assert_eq!(
                    (parameter("org"), parameter("precision")),
                    ("acme & co", "ns")
                );
                self.write(parameter("bucket"), &request.body)
            }
            (3, "POST", "/api/v3/write_lp") => {
                assert_eq!(parameter("precision"), "nanosecond");
                self.write(parameter("db"), &request.body)
            }
            (3, "POST", "/api/v3/configure/database") => {
                let body: Json = serde_json::from_slice(&request.body).unwrap();
                self.databases
                    .insert(body["db"].as_str().unwrap().to_owned());
                (200, String::new())
            }
            (_, "POST", "/query") if !self.databases.contains(parameter("db")) => {
                error(404, "database not found")
            }
            (_, "POST", "/query") => self.query(parameter("q")),
            _ => error(404, "page not found"),
        }
    }

    fn write(&mut self, db: &str, body: &[u8]) -> (u16, String) {
        if !self.failures.is_empty() {
            return error(self.failures.remove(0), "not now");
        }
        if !self.databases.contains(db) {
            return error(404, &format!("bucket or database \"{db}\" not found"));
        }
        let text = std::str::from_utf8(body).unwrap();
        for line in text.lines() {
            let Some((table, tags, fields, time)) = ql::line(line) else {
                return error(400, &format!("unable to parse '{line}'"));
            };
            if self.generation == 3 && tags.values().any(String::is_empty) {
                return error(400, "a tag is empty");
            }
            self.tables
                .entry(table)
                .or_default()
                .entry((time, tags))
                .or_default()
                .extend(fields);
        }
        (204, String::new())
    }

    fn query(&self, text: &str) -> (u16, String) {
        let Some(statements) = ql::statements(text) else {
            return error(400, &format!("error parsing query: {text}"));
        };
        let results = statements.iter().enumerate().map(|(number, statement)| {
            let series = self.series(statement);
            json!({ "statement_id": number, "series": series })
        });
        (
            200,
            json!({ "results": results.collect::<Vec<_>>() }).to_string(),
        )
    }

    fn series(&self, statement: &Statement) -> Vec<Json> {
        match statement {
            Statement::Measurements(prefixes) => {
                let names = self.tables.keys().filter(|name| ql::begins(name, prefixes));
                let values: Vec<Json> = names.map(|name| json!([name])).collect();
                vec![json!({ "name": "measurements", "columns": ["name"], "values": values })]
            }
            Statement::TagValues {
                table,
                tag,
                prefixes,
            } => {
                let rows = self.tables.get(table).into_iter().flat_map(BTreeMap::keys);
                let values: BTreeSet<&String> =
                    rows.filter_map(|(_, tags)| tags.get(tag)).collect();
                let values = values
                    .into_iter()
                    .filter(|value| ql::begins(value, prefixes));
                let values: Vec<Json> = values.map(|value| json!([tag, value])).collect();
                vec![json!({ "name": table, "columns": ["key", "value"], "values": values })]
            }
            Statement::Select {
                columns,
                tables,
                keys,
                first,
                last,
                is_backward,
                limit,
            } => {
                let tables = tables
                    .iter()
                    .filter_map(|name| Some((name, self.tables.get(name)?)));
                let series = tables.map(|(name, rows)| {
                    let fits = |(time, tags): &(i64, Tags)| {
                        let is_key = keys.is_empty()
                            || tags.get("key").is_some_and(|key| keys.contains(key));
                        (*first..=*last).contains(time) && is_key
                    };
                    let mut rows: Vec<_> = rows.iter().filter(|(place, _)| fits(place)).collect();
                    if *is_backward {
                        rows.reverse();
                    }
                    let values = rows.into_iter().take(*limit).map(|((time, tags), fields)| {
                        let cell = |name: &String| match (tags.get(name), fields.get(name)) {
                            (Some(tag), _) => json!(tag),
                            (None, Some(field)) => field.clone(),
                            (None, None) => Json::Null,
                        };
                        let cells = columns.iter().map(cell);
                        std::iter::once(json!(time))
                            .chain(cells)
                            .collect::<Vec<_>>()
                    });
                    let values: Vec<Vec<Json>> = values.collect();
                    let names: Vec<&str> = std::iter::once("time")
                        .chain(columns.iter().map(|c| &**c))
                        .collect();
                    json!({ "name": name, "columns": names, "values": values })
                });
                series.collect()
            }
        }
    }
}
