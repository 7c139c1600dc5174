//! One server over HTTP: requests, and what their answers mean for whoever asked.

use std::{
    io::{BufReader, Read, Write},
    time::Duration,
};

use flate2::{Compression, write::GzEncoder};
use ureq::{
    Agent, Body,
    http::Response,
    tls::{Certificate, PemItem, RootCerts, TlsConfig, parse_pem},
};

use crate::{settings::InfluxSettings, text};

/// Bytes of an answer that says what went wrong; more are not read.
const MESSAGE_BYTES_MAX: u64 = 64 << 10;
/// Bytes of an answer to a query. Pages are sized to a few MiB; this is where a wrong guess ends.
const ANSWER_BYTES_MAX: u64 = 512 << 20;
/// A body that is smaller (as sent) is never why a connection is closed while it is being sent.
const ASK_FIRST_BYTES: usize = 16 << 10;
/// How long a server can ask to be left alone.
const RETRY_AFTER_MAX: Duration = Duration::from_secs(60);

/// Why something was not done, by what to do about it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Trouble {
    /// The server is away, busy or broken: try again, not before the time it asks for.
    Later(String, Option<Duration>),
    /// It does not let us, or is not what the settings say: somebody has to act. Try again, seldom.
    Blocked(String),
    /// There is no such database.
    NoDatabase(String),
    /// It will never take this.
    Bad(String),
    /// It is too much at once.
    TooLarge(String),
}

impl Trouble {
    /// What the server, or the way to it, said.
    pub(crate) fn message(&self) -> &str {
        match self {
            Self::Later(message, _)
            | Self::Blocked(message)
            | Self::NoDatabase(message)
            | Self::Bad(message)
            | Self::TooLarge(message) => message,
        }
    }
}

/// A connection to one server, kept open between requests.
pub(crate) struct Http {
    agent: Agent,
    url: String,
    authorization: Option<String>,
    timeout: Duration,
}

/// What a request carries.
pub(crate) enum Payload<'a> {
    None,
    /// Line protocol; sent as gzip.
    Lines(&'a str),
    /// Fields of a form.
    Form(&'a [(&'a str, &'a str)]),
    Json(String),
}

impl Http {
    /// Connects to nothing yet.
    ///
    /// # Errors
    /// What is wrong with the settings.
    pub(crate) fn new(settings: &InfluxSettings) -> Result<Self, String> {
        let url = settings.url.trim_end_matches('/').to_owned();
        if !url.starts_with("http://") && !url.starts_with("https://") {
            return Err(format!(
                "{url:?} is no address of a server: write http://HOST:PORT"
            ));
        }
        if url.contains(['?', '#', ' ']) {
            return Err(format!("{url:?} holds more than the address of a server"));
        }
        let roots = match &settings.ca_pem {
            None => RootCerts::WebPki,
            Some(pem) => RootCerts::from(certificates(pem)?),
        };
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A proxy of the environment is for browsing; a database is reached as it is written.
            .proxy(None)
            .max_idle_connections_per_host(8)
            .timeout_connect(Some(settings.timeout))
            .tls_config(TlsConfig::builder().root_certs(roots).build())
            .user_agent(concat!("weir/", env!("CARGO_PKG_VERSION")))
            .build();
        let authorization = match (&settings.token, &settings.login) {
            (Some(token), _) => Some(format!("Token {token}")),
            (None, Some((name, password))) => {
                use base64::{Engine, engine::general_purpose::STANDARD};
                Some(format!(
                    "Basic {}",
                    STANDARD.encode(format!("{name}:{password}"))
                ))
            }
            (None, None) => None,
        };
        Ok(Self {
            agent: config.into(),
            url,
            authorization,
            timeout: settings.timeout,
        })
    }

    /// Sends a request and gives its answer, if that is one of success.
    ///
    /// # Errors
    /// What the answer means, or [`Trouble::Later`] if there is none.
    pub(crate) fn send(
        &self,
        method: &str,
        path: &str,
        parameters: &[(&str, &str)],
        payload: &Payload<'_>,
    ) -> Result<Response<Body>, Trouble> {
        let body = match payload {
            Payload::None => Vec::new(),
            Payload::Lines(lines) => gzip(lines.as_bytes()),
            Payload::Form(fields) => form(fields).into_bytes(),
            Payload::Json(json) => json.clone().into_bytes(),
        };
        let answer = match self.attempt(method, path, parameters, payload, &body, false) {
            // A server that finds a body too large answers and closes while we still send, and the
            // answer is lost: ask it before sending, once.
            Attempt::Lost(_) if body.len() >= ASK_FIRST_BYTES => {
                self.attempt(method, path, parameters, payload, &body, true)
            }
            attempt => attempt,
        };
        match answer {
            Attempt::Answered(answer) if answer.status().is_success() => Ok(answer),
            Attempt::Answered(answer) => Err(trouble(answer)),
            Attempt::Lost(error) => Err(Trouble::Later(format!("{}: {error}", self.url), None)),
            Attempt::Invalid(error) => Err(Trouble::Blocked(error)),
        }
    }

    fn attempt(
        &self,
        method: &str,
        path: &str,
        parameters: &[(&str, &str)],
        payload: &Payload<'_>,
        body: &[u8],
        asks_first: bool,
    ) -> Attempt {
        let url = format!("{}{path}{}", self.url, query_of(parameters));
        let mut request = ureq::http::Request::builder().method(method).uri(&url);
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        request = match payload {
            Payload::None => request,
            Payload::Lines(_) => request
                .header("Content-Type", "text/plain; charset=utf-8")
                .header("Content-Encoding", "gzip"),
            Payload::Form(_) => request.header("Content-Type", "application/x-www-form-urlencoded"),
            Payload::Json(_) => request.header("Content-Type", "application/json"),
        };
        if asks_first {
            request = request.header("Expect", "100-continue");
        }
        let timeout = Some(self.timeout);
        let sent = if method == "GET" {
            match request.body(()) {
                Ok(request) => {
                    let request = self.agent.configure_request(request);
                    self.agent.run(request.timeout_global(timeout).build())
                }
                Err(error) => return Attempt::Invalid(error.to_string()),
            }
        } else {
            match request.body(body) {
                Ok(request) => {
                    let request = self.agent.configure_request(request);
                    self.agent.run(request.timeout_global(timeout).build())
                }
                Err(error) => return Attempt::Invalid(error.to_string()),
            }
        };
        match sent {
            Ok(answer) => Attempt::Answered(answer),
            Err(error @ ureq::Error::Tls(_)) => Attempt::Invalid(error.to_string()),
            Err(error) => Attempt::Lost(error.to_string()),
        }
    }
}

/// What became of a request.
enum Attempt {
    Answered(Response<Body>),
    /// There was no answer.
    Lost(String),
    /// It could not be sent as it is.
    Invalid(String),
}

/// The body of an answer, up to a limit that no page comes near.
pub(crate) fn reader(answer: Response<Body>) -> impl Read {
    let body = answer.into_body();
    BufReader::new(body.into_with_config().limit(ANSWER_BYTES_MAX).reader())
}

/// A header of an answer.
pub(crate) fn header<'a>(answer: &'a Response<Body>, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// What an answer that is no success means.
fn trouble(answer: Response<Body>) -> Trouble {
    let status = answer.status().as_u16();
    let after = header(&answer, "retry-after").and_then(|text| text.parse().ok());
    let after = after.map(|seconds| Duration::from_secs(seconds).min(RETRY_AFTER_MAX));
    let mut text = String::new();
    let body = answer.into_body().into_reader().take(MESSAGE_BYTES_MAX);
    // A message that cannot be read leaves the status.
    let _ = BufReader::new(body).read_to_string(&mut text);
    let text = message_of(&text);
    let message = format!("the server answered {status}: {text}");
    match status {
        404 if is_about_database(&text) => Trouble::NoDatabase(message),
        400 if text.contains("database not found") => Trouble::NoDatabase(message),
        400 | 422 => Trouble::Bad(message),
        413 => Trouble::TooLarge(message),
        429 | 500.. => Trouble::Later(message, after),
        _ => Trouble::Blocked(message),
    }
}

/// Whether a 404 speaks of the database or bucket, and not of the path.
pub(crate) fn is_about_database(text: &str) -> bool {
    let text = text.to_ascii_lowercase();
    (text.contains("database") || text.contains("bucket")) && text.contains("not")
}

/// The words of an answer: of its JSON, if it is that.
fn message_of(text: &str) -> String {
    let json: Option<serde_json::Value> = serde_json::from_str(text).ok();
    let words = json.as_ref().and_then(|json| {
        let member = |name| json.get(name).and_then(serde_json::Value::as_str);
        member("error").or_else(|| member("message"))
    });
    let mut words = words.unwrap_or(text).trim().to_owned();
    if words.len() > 500 {
        words = words.chars().take(500).collect();
    }
    words
}

fn query_of(parameters: &[(&str, &str)]) -> String {
    if parameters.is_empty() {
        String::new()
    } else {
        format!("?{}", form(parameters))
    }
}

fn form(fields: &[(&str, &str)]) -> String {
    let pairs = fields
        .iter()
        .map(|(name, value)| format!("{}={}", text::percent(name), text::percent(value)));
    pairs.collect::<Vec<_>>().join("&")
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    // Fast: on a local network the processor is dearer than the wire.
    let mut out = GzEncoder::new(Vec::new(), Compression::fast());
    // Writing to memory cannot fail.
    let _ = out.write_all(bytes);
    out.finish().unwrap_or_default()
}

fn certificates(pem: &[u8]) -> Result<Vec<Certificate<'static>>, String> {
    let mut found = Vec::new();
    for item in parse_pem(pem) {
        match item {
            Ok(PemItem::Certificate(certificate)) => found.push(certificate),
            Ok(_) => {}
            Err(error) => return Err(format!("the certificates cannot be read: {error}")),
        }
    }
    if found.is_empty() {
        return Err("the file of certificates holds none".to_owned());
    }
    Ok(found)
}
