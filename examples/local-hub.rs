//! The Hub of the tests by itself, to try commands against and to measure them (`scripts/bench_hub.py`): `local-hub [PORT]`.

#[path = "../tests/hub/local/mod.rs"]
mod local;

fn main() {
    let port = std::env::args().nth(1).map_or(0, |port| port.parse().expect("PORT is a number"));
    let hub = local::LocalHub::start_at(port);
    println!("export HF_ENDPOINT={} HF_TOKEN={}", hub.endpoint(), local::TOKEN);
    loop {
        std::thread::park();
    }
}
