//! The Hub of the tests by itself, to try commands against and to measure them (`scripts/bench_hub.py`): `local-hub [PORT [RATE]]`, with the
//! most bytes that a connection brings in a second.

#[path = "../tests/hub/local/mod.rs"]
mod local;

fn main() {
    let number = |position| std::env::args().nth(position).map_or(0, |text| text.parse::<u64>().expect("a number"));
    let hub = local::LocalHub::start_at(number(1).try_into().expect("a port"));
    hub.set_rate(number(2));
    // As the real one has it: a mirror may know nothing of further pages.
    hub.set_page(1000);
    println!("export HF_ENDPOINT={} HF_TOKEN={}", hub.endpoint(), local::TOKEN);
    loop {
        std::thread::park();
    }
}
