//! A Hub on this machine: the parts of the Hugging Face Hub's API that clients use, over plain HTTP, in memory.
//!
//! It speaks what the clients of the Hub speak and knows none of this repository's code, so that `huggingface_hub` in Python, which
//! no one here wrote, can show that it is an honest one. Large files lie on a second server, as the Hub's do: whoever
//! shows it a token has leaked it. What can go wrong on the wire goes wrong when [`LocalHub::fault`] asks for it.

#![allow(dead_code, reason = "each of the programs that include this uses its own part")]

mod api;
mod http;
pub mod repos;
mod storage;

use std::net::{Ipv4Addr, TcpListener};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

pub use http::{Request, Response};
use repos::State;

/// The tokens that there are: of somebody who may write, of somebody who may only read, and one that has expired.
pub const TOKEN: &str = "hf_LocalSecretThatMayWrite";
pub const READ_TOKEN: &str = "hf_LocalSecretThatMayRead";
pub const EXPIRED_TOKEN: &str = "hf_LocalSecretThatExpired";

/// The name of the user to whom they belong.
pub const USER: &str = "me";

/// What goes wrong.
#[derive(Clone, Debug)]
pub enum Wrong {
    /// The answer is this status with this header.
    Status(u16, &'static str, &'static str),
    /// The connection ends after so many bytes of the body.
    Cut(usize),
    /// The length that is announced differs from the true one by so much.
    Length(i64),
    /// A byte of the body is another.
    Flip,
    /// The answer lacks this header.
    Without(&'static str),
    /// This happens before the answer.
    Before(fn(&LocalHub)),
}

/// What goes wrong, with which requests, and how often.
#[derive(Clone, Debug)]
pub struct Fault {
    pub method: &'static str,
    /// A part of the path.
    pub path: &'static str,
    pub wrong: Wrong,
    pub times: usize,
}

/// A running Hub. Its threads end with the process.
#[derive(Clone)]
pub struct LocalHub {
    shared: Arc<Shared>,
}

struct Shared {
    state: Mutex<State>,
    faults: Mutex<Vec<Fault>>,
    /// Every request: method, path and range.
    log: Mutex<Vec<String>>,
    endpoint: String,
    storage: String,
    /// The most bytes that a connection brings in a second; 0 for as many as it can.
    rate: AtomicU64,
    /// The most entries of a list that are in one answer.
    page: AtomicUsize,
}

impl LocalHub {
    /// Starts one on ports that are free.
    pub fn start() -> LocalHub {
        LocalHub::start_at(0)
    }

    /// Starts one on this port, and on another one for large files.
    pub fn start_at(port: u16) -> LocalHub {
        let api = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).unwrap();
        let storage = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let url = |listener: &TcpListener| format!("http://{}", listener.local_addr().unwrap());
        let hub = LocalHub {
            shared: Arc::new(Shared {
                state: Mutex::default(),
                faults: Mutex::default(),
                log: Mutex::default(),
                endpoint: url(&api),
                storage: url(&storage),
                rate: AtomicU64::new(0),
                page: AtomicUsize::new(3),
            }),
        };
        hub.serve(api, LocalHub::answer_api);
        hub.serve(storage, LocalHub::answer_storage);
        hub
    }

    fn serve(&self, listener: TcpListener, answer: fn(&LocalHub, &Request) -> Response) {
        let hub = self.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let hub = hub.clone();
                thread::spawn(move || {
                    http::serve(stream, &hub.shared.rate, |request| {
                        let range = request.header("range").map(|range| format!(" {range}")).unwrap_or_default();
                        hub.shared.log.lock().unwrap().push(format!("{} {}{range}", request.method, request.path));
                        let fault = hub.take_fault(request);
                        match &fault {
                            Some(Wrong::Status(code, name, value)) => {
                                return (Response::status(*code).with(name, *value), None);
                            }
                            Some(Wrong::Without(name)) => return (answer(&hub, request).without(name), None),
                            Some(Wrong::Before(happens)) => happens(&hub),
                            _ => {}
                        }
                        (answer(&hub, request), fault)
                    });
                });
            }
        });
    }

    /// Where it is.
    pub fn endpoint(&self) -> &str {
        &self.shared.endpoint
    }

    /// From now on no connection brings more than so many bytes in a second.
    pub fn set_rate(&self, bytes_per_second: u64) {
        self.shared.rate.store(bytes_per_second, Ordering::Relaxed);
    }

    /// From now on lists come so many entries at a time. Otherwise it is three, so that clients have to ask for the next ones.
    pub fn set_page(&self, entries: usize) {
        self.shared.page.store(entries, Ordering::Relaxed);
    }

    /// Lets something go wrong.
    pub fn fault(&self, method: &'static str, path: &'static str, times: usize, wrong: Wrong) {
        self.shared.faults.lock().unwrap().push(Fault { method, path, wrong, times });
    }

    /// Lets everything go well again.
    pub fn clear_faults(&self) {
        self.shared.faults.lock().unwrap().clear();
    }

    fn take_fault(&self, request: &Request) -> Option<Wrong> {
        let mut faults = self.shared.faults.lock().unwrap();
        let fits =
            |fault: &&mut Fault| fault.times > 0 && fault.method == request.method && request.path.contains(fault.path);
        let fault = faults.iter_mut().find(fits)?;
        fault.times -= 1;
        Some(fault.wrong.clone())
    }

    /// The requests so far whose method and path begin so.
    pub fn requests(&self, start: &str) -> Vec<String> {
        self.shared.log.lock().unwrap().iter().filter(|line| line.starts_with(start)).cloned().collect()
    }

    /// Forgets the requests so far.
    pub fn forget_requests(&self) {
        self.shared.log.lock().unwrap().clear();
    }
}
