//! A line between two processes that can be cut.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    thread,
    time::{Duration, Instant},
};

/// One of the two ways of a line.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Way {
    /// From who connects to whom the line leads to.
    There,
    /// The other.
    Back,
}

/// Listens, and passes on what comes until it is cut. It stands until the test ends.
#[derive(Clone, Debug)]
pub struct Line {
    /// Where to connect, as Zenoh writes it.
    pub endpoint: String,
    state: Arc<Mutex<State>>,
    moves: Arc<Condvar>,
}

#[derive(Debug, Default)]
struct State {
    passed: Arc<AtomicU64>,
    /// Bytes a second that pass each way; 0 for as many as come.
    rate: Arc<AtomicU64>,
    is_cut: bool,
    /// Nothing moves there, and back, and nobody is told.
    is_stalled: [bool; 2],
    open: Vec<TcpStream>,
}

impl Line {
    /// A line to an endpoint `tcp/127.0.0.1:PORT`.
    #[must_use]
    pub fn to(endpoint: &str) -> Self {
        let far = endpoint.trim_start_matches("tcp/").to_owned();
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let line = Self {
            endpoint: format!("tcp/{}", listener.local_addr().unwrap()),
            state: Arc::default(),
            moves: Arc::default(),
        };
        let accepting = line.clone();
        thread::spawn(move || {
            for near in listener.incoming() {
                // Who finds nobody at the other end is hung up on, and tries again.
                let _ = near.and_then(|near| accepting.connect(near, &far));
            }
        });
        line
    }

    /// Nothing passes any more, and what was connected is hung up on.
    pub fn cut(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_cut = true;
        for stream in state.open.drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }

    /// From now on it passes on again, what has stalled included.
    pub fn mend(&self) {
        let mut state = self.state.lock().unwrap();
        state.is_cut = false;
        state.is_stalled = [false; 2];
        self.moves.notify_all();
    }

    /// Nothing passes any more, and neither end is told: what was connected stays so.
    pub fn stall(&self) {
        self.state.lock().unwrap().is_stalled = [true; 2];
    }

    /// Nothing passes one way any more, and neither end is told.
    pub fn stall_way(&self, way: Way) {
        self.state.lock().unwrap().is_stalled[way as usize] = true;
    }

    /// Waits until one way is free.
    fn wait(&self, way: Way) {
        let state = self.state.lock().unwrap();
        let is_stalled = |state: &mut State| state.is_stalled[way as usize];
        drop(self.moves.wait_while(state, is_stalled));
    }

    /// The bytes that have passed, both ways, without headers of TCP and IP.
    #[must_use]
    pub fn passed(&self) -> u64 {
        self.state.lock().unwrap().passed.load(Relaxed)
    }

    /// From now on no more than so many bytes a second pass each way; all that come if 0.
    pub fn limit(&self, bytes_per_s: u64) {
        self.state.lock().unwrap().rate.store(bytes_per_s, Relaxed);
    }

    fn connect(&self, near: TcpStream, far: &str) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        if state.is_cut {
            return near.shutdown(Shutdown::Both);
        }
        let far = TcpStream::connect(far)?;
        let (there, back) = (Way::There, Way::Back);
        for (way, source, sink) in [(there, &near, &far), (back, &far, &near)] {
            state.open.push(source.try_clone()?);
            let (mut source, mut sink) = (source.try_clone()?, sink.try_clone()?);
            let (passed, rate) = (Arc::clone(&state.passed), Arc::clone(&state.rate));
            let line = self.clone();
            thread::spawn(move || {
                let mut buffer = [0; 65_536];
                // When the line is free again.
                let mut free = Instant::now();
                loop {
                    let rate = rate.load(Relaxed);
                    // Of a slow line a few milliseconds' worth at once.
                    let most = match rate {
                        0 => buffer.len(),
                        rate => usize::try_from(rate / 200).unwrap_or(buffer.len()),
                    };
                    let most = most.clamp(512, buffer.len());
                    let Ok(count) = source.read(&mut buffer[..most]) else {
                        break;
                    };
                    if rate > 0 {
                        let took = Duration::from_secs_f64(count as f64 / rate as f64);
                        free = free.max(Instant::now()) + took;
                        thread::sleep(free.saturating_duration_since(Instant::now()));
                    }
                    line.wait(way);
                    if count == 0 || sink.write_all(&buffer[..count]).is_err() {
                        break;
                    }
                    passed.fetch_add(count as u64, Relaxed);
                }
                // One end is gone: so is the other, as soon as that can come through to it.
                line.wait(way);
                let _ = sink.shutdown(Shutdown::Both);
                line.wait(if way == there { back } else { there });
                let _ = source.shutdown(Shutdown::Both);
            });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is there within a moment.
    fn arrives(stream: &mut TcpStream) -> bool {
        stream
            .set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        stream.read(&mut [0; 8]).is_ok_and(|count| count > 0)
    }

    #[test]
    fn one_way_stalls_alone_and_what_stalled_comes_later() {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let line = Line::to(&format!("tcp/{}", listener.local_addr().unwrap()));
        let mut near = TcpStream::connect(line.endpoint.trim_start_matches("tcp/")).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        for way in [Way::There, Way::Back] {
            line.stall_way(way);
            near.write_all(b"there").unwrap();
            far.write_all(b"back").unwrap();
            assert_eq!(arrives(&mut far), way == Way::Back, "{way:?}");
            assert_eq!(arrives(&mut near), way == Way::There, "{way:?}");
            line.mend();
            assert!(arrives(if way == Way::There {
                &mut far
            } else {
                &mut near
            }));
        }
        // Nor is who is behind a stalled way told that the other is gone.
        line.stall_way(Way::Back);
        drop(far);
        near.set_read_timeout(Some(Duration::from_millis(200)))
            .unwrap();
        assert!(near.read(&mut [0; 8]).is_err());
        line.mend();
        near.set_read_timeout(None).unwrap();
        assert_eq!(near.read(&mut [0; 8]).unwrap_or(0), 0);
    }
}
