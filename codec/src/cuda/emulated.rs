//! A driver without a device: kernels run on the processor, compiled by its C++ compiler with sanitizers, in a process of
//! their own.
//!
//! As a real one it does what it is given some time later, here when a stream is waited for; memory is checked to be what the caller says
//! at that time, and everything must have been given back when the driver goes.

use std::collections::{BTreeMap, HashMap};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{LazyLock, Mutex};

use super::driver::{Driver, StreamHandle};
use super::job::{Batch, DECODED, Job};
use super::shared::DeviceTable;
use crate::error::{Error, ErrorKind, Result};

/// The program that runs kernels.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let sources = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/cuda/emulator");
    // Beside the test program, which is where cargo keeps what it makes.
    let test = std::env::current_exe().unwrap();
    let program = test.with_file_name(format!("kernel-emulator-{}", std::process::id()));
    let compiled = Command::new(std::env::var_os("CXX").unwrap_or("c++".into()))
        .args([
            "-std=c++17",
            "-O2",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-Wno-unknown-pragmas",
            "-fno-strict-aliasing",
        ])
        .args(["-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-I"])
        .arg(&sources)
        .args([sources.join("main.cpp"), sources.join("fibres.cpp")])
        .arg("-o")
        .arg(&program)
        .output()
        .expect("a C++ compiler is needed to test the kernels: install g++, or set CXX");
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    program
});

/// What a batch came to: the statuses and the output.
pub(super) type Outcome = (Vec<u32>, Vec<u8>);

/// A batch with all that it needs.
#[derive(Clone, Copy, Debug)]
pub(super) struct Launch<'a> {
    pub(super) input: &'a [u8],
    /// What is in the output before.
    pub(super) output: &'a [u8],
    pub(super) jobs: &'a [u8],
    pub(super) tables: &'a [u8],
    pub(super) columns: &'a [u8],
    /// Decides in which order threads run.
    pub(super) seed: u64,
}

/// A process that runs kernels.
#[derive(Debug)]
pub(super) struct Emulator {
    process: Child,
    requests: Option<ChildStdin>,
    answers: ChildStdout,
}

impl Emulator {
    pub(super) fn start() -> Emulator {
        let mut process = Command::new(&*PROGRAM)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .env("ASAN_OPTIONS", "detect_stack_use_after_return=0")
            .spawn()
            .unwrap();
        let (requests, answers) = (process.stdin.take(), process.stdout.take().unwrap());
        Emulator { process, requests, answers }
    }

    /// # Panics
    /// When the kernel does what it may not.
    pub(super) fn run(&mut self, launch: Launch<'_>) -> Outcome {
        let Launch { input, output, jobs, tables, columns, seed } = launch;
        let job_count = jobs.len() / size_of::<Job>();
        let counts = [input.len(), output.len(), job_count, tables.len() / size_of::<DeviceTable>(), columns.len() / 2];
        let mut request: Vec<u8> = counts.iter().flat_map(|&count| (count as u64).to_le_bytes()).collect();
        request.extend(seed.to_le_bytes());
        let requests = self.requests.as_mut().expect("it is closed when this is dropped");
        let sent =
            [&request, input, output, jobs, tables, columns].iter().try_for_each(|part| requests.write_all(part));
        // That it has ended shows in its answer.
        let _ = sent.and_then(|()| requests.flush());
        let (mut statuses, mut output) = (vec![0; job_count * 4], vec![0; output.len()]);
        let answered = self.answers.read_exact(&mut statuses).and_then(|()| self.answers.read_exact(&mut output));
        if let Err(error) = answered {
            let mut said = String::new();
            let _ = self.process.stderr.take().map(|mut stderr| stderr.read_to_string(&mut said));
            panic!("the kernel does what it may not: {error}\n{said}");
        }
        (statuses.as_chunks().0.iter().map(|status| u32::from_le_bytes(*status)).collect(), output)
    }
}

impl Drop for Emulator {
    fn drop(&mut self) {
        drop(self.requests.take());
        let status = self.process.wait().unwrap();
        assert!(status.success() || std::thread::panicking(), "the emulator ended with {status}");
    }
}

/// Something that a stream was given. Addresses of the host are numbers, for they go to other threads.
#[derive(Debug)]
enum Operation {
    Upload { to: u64, from: usize, len: usize },
    Download { to: usize, from: u64, len: usize },
    Launch { batch: Batch, jobs: u32 },
}

#[derive(Debug)]
struct State {
    emulator: Emulator,
    memory: BTreeMap<u64, Vec<u8>>,
    pinned: HashMap<usize, usize>,
    streams: HashMap<usize, Vec<Operation>>,
    next: u64,
    launches: u64,
    decoded: u64,
}

/// A driver without a device.
#[derive(Debug)]
pub(super) struct EmulatedDriver {
    state: Mutex<State>,
    free_memory: u64,
    /// So many calls succeed.
    calls_left: AtomicU64,
}

impl EmulatedDriver {
    pub(super) fn new(free_memory: u64) -> EmulatedDriver {
        EmulatedDriver::failing_after(free_memory, u64::MAX)
    }

    /// One of which all calls fail but the first ones.
    pub(super) fn failing_after(free_memory: u64, calls: u64) -> EmulatedDriver {
        let state = State {
            emulator: Emulator::start(),
            memory: BTreeMap::new(),
            pinned: HashMap::new(),
            streams: HashMap::new(),
            next: 1 << 40,
            launches: 0,
            decoded: 0,
        };
        EmulatedDriver { state: Mutex::new(state), free_memory, calls_left: AtomicU64::new(calls) }
    }

    /// How many batches it was given, and how many chunks it has decoded.
    pub(super) fn done(&self) -> (u64, u64) {
        let state = self.state.lock().unwrap();
        (state.launches, state.decoded)
    }

    /// What is in its memory.
    pub(super) fn memory(&self, address: u64, len: usize) -> Vec<u8> {
        self.state.lock().unwrap().range(address, len).to_vec()
    }

    /// Memory that was taken and not given back: what is on the device, and what is pinned.
    pub(super) fn in_use(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.memory.len(), state.pinned.len() + state.streams.len())
    }

    fn call(&self) -> Result<()> {
        let left = self.calls_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1));
        left.map(drop).map_err(|_| Error::new(ErrorKind::Device, "the emulated driver has had enough"))
    }
}

impl State {
    /// `len` bytes of the device's memory.
    fn range(&mut self, address: u64, len: usize) -> &mut [u8] {
        let (start, memory) = self.memory.range_mut(..=address).next_back().expect("memory of the device");
        &mut memory[(address - start) as usize..][..len]
    }

    /// Asserts that memory of the host is pinned.
    fn assert_pinned(&self, start: usize, len: usize) {
        let inside = |(&from, &all): (&usize, &usize)| from <= start && start + len <= from + all;
        assert!(self.pinned.iter().any(inside), "the host's memory is not pinned");
    }

    fn perform(&mut self, operation: Operation) {
        match operation {
            Operation::Upload { to, from, len } => {
                self.assert_pinned(from, len);
                // SAFETY: it is pinned still, and the caller of `upload` promised that nobody writes to it.
                let bytes = unsafe { std::slice::from_raw_parts(from as *const u8, len) };
                self.range(to, len).copy_from_slice(bytes);
            }
            Operation::Download { to, from, len } => {
                self.assert_pinned(to, len);
                // SAFETY: as above, and nobody reads it.
                let bytes = unsafe { std::slice::from_raw_parts_mut(to as *mut u8, len) };
                bytes.copy_from_slice(self.range(from, len));
            }
            Operation::Launch { batch, jobs } => {
                let (input, output) = (batch.input_len as usize, batch.output_len as usize);
                let job_bytes = jobs as usize * size_of::<Job>();
                let table_bytes = batch.table_count as usize * size_of::<DeviceTable>();
                let launch = [
                    (batch.input, input),
                    (batch.output, output),
                    (batch.jobs, job_bytes),
                    (batch.tables, table_bytes),
                    (batch.columns, batch.column_count as usize * 2),
                ]
                .map(|(address, len)| self.range(address, len).to_vec());
                let [input, output, jobs, tables, columns] = launch.each_ref().map(Vec::as_slice);
                self.launches += 1;
                let launch = Launch { input, output, jobs, tables, columns, seed: self.launches };
                let (statuses, output) = self.emulator.run(launch);
                self.decoded += statuses.iter().filter(|&&status| status == DECODED).count() as u64;
                let statuses: Vec<u8> = statuses.into_iter().flat_map(u32::to_le_bytes).collect();
                self.range(batch.statuses, statuses.len()).copy_from_slice(&statuses);
                self.range(batch.output, output.len()).copy_from_slice(&output);
            }
        }
    }
}

// SAFETY: vectors are as long as they were made until they are dropped, and pinned ones are made of zeros.
unsafe impl Driver for EmulatedDriver {
    fn free_memory(&self) -> Result<u64> {
        self.call().map(|()| self.free_memory)
    }

    fn create_stream(&self) -> Result<StreamHandle> {
        self.call()?;
        let mut state = self.state.lock().unwrap();
        state.next += 1;
        let handle = state.next as usize;
        state.streams.insert(handle, Vec::new());
        Ok(StreamHandle(handle))
    }

    fn destroy_stream(&self, stream: StreamHandle) {
        let mut state = self.state.lock().unwrap();
        let operations = state.streams.remove(&stream.0).expect("a stream");
        operations.into_iter().for_each(|operation| state.perform(operation));
    }

    fn allocate(&self, len: usize) -> Result<u64> {
        self.call()?;
        assert!(len > 0);
        let mut state = self.state.lock().unwrap();
        let address = state.next.next_multiple_of(256);
        state.next = address + len as u64 + 1;
        state.memory.insert(address, vec![0xee; len]);
        Ok(address)
    }

    fn free(&self, address: u64) {
        self.state.lock().unwrap().memory.remove(&address).expect("memory of the device");
    }

    fn allocate_pinned(&self, len: usize) -> Result<NonNull<u8>> {
        self.call()?;
        let start = Box::leak(vec![0u8; len].into_boxed_slice());
        self.state.lock().unwrap().pinned.insert(start.as_ptr() as usize, len);
        Ok(NonNull::from(&mut start[0]))
    }

    fn free_pinned(&self, memory: NonNull<u8>, len: usize) {
        let start = memory.as_ptr();
        assert_eq!(self.state.lock().unwrap().pinned.remove(&(start as usize)), Some(len));
        // SAFETY: it is one of those that `allocate_pinned` leaked, as long as it was then, and not a second time.
        drop(unsafe { Box::from_raw(std::ptr::slice_from_raw_parts_mut(start, len)) });
    }

    unsafe fn upload(&self, stream: StreamHandle, to: u64, from: *const u8, len: usize) -> Result<()> {
        self.call()?;
        let operation = Operation::Upload { to, from: from as usize, len };
        self.state.lock().unwrap().streams.get_mut(&stream.0).expect("a stream").push(operation);
        Ok(())
    }

    unsafe fn download(&self, stream: StreamHandle, to: *mut u8, from: u64, len: usize) -> Result<()> {
        self.call()?;
        let operation = Operation::Download { to: to as usize, from, len };
        self.state.lock().unwrap().streams.get_mut(&stream.0).expect("a stream").push(operation);
        Ok(())
    }

    unsafe fn launch(&self, stream: StreamHandle, batch: &Batch, jobs: u32) -> Result<()> {
        self.call()?;
        let operation = Operation::Launch { batch: *batch, jobs };
        self.state.lock().unwrap().streams.get_mut(&stream.0).expect("a stream").push(operation);
        Ok(())
    }

    fn synchronise(&self, stream: StreamHandle) -> Result<()> {
        self.call()?;
        let mut state = self.state.lock().unwrap();
        let operations = std::mem::take(state.streams.get_mut(&stream.0).expect("a stream"));
        operations.into_iter().for_each(|operation| state.perform(operation));
        Ok(())
    }
}
