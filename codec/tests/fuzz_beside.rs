//! Mutation fuzzing of what lies beside containers: the journal of an unfinished one, our sidecars, and those of the Python package.
//!
//! Each is damaged, or forged with good checksums, and used with a file that may be damaged too. Contract: never a panic, never a hang,
//! and never wrong bytes that anything vouches for: a run that goes on writes the container that an undisturbed one does, or, if a journal was
//! forged, one of the same original; what is read through a sidecar that was not forged is an error or as it was; and what the MD5 of a
//! package's sidecar is said to hold is the file.
//!
//! `BIGSMALL_FUZZ_SECONDS` and `BIGSMALL_FUZZ_SEED` are as in `fuzz.rs`.

#[path = "support/fuzz.rs"]
mod fuzz;

use std::fs;
use std::path::{Path, PathBuf};

use bigsmall_codec::container::compress_file;
use bigsmall_codec::output::{Attributes, Existing, NewFile};
use bigsmall_codec::parity::{Mended, Share, Sidecar, examine, protect};
use bigsmall_codec::upstream::PackageParity;
use bigsmall_codec::{Container, Memory, Options, Original, PlainFile};
use fuzz::{Random, fuzz, mutate};
use tempfile::TempDir;

fn checksum(bytes: &[u8]) -> [u8; 8] {
    twox_hash::XxHash3_64::oneshot(bytes).to_le_bytes()
}

/// A directory in memory where there is such a thing: outputs are synced, which takes its time on a disk.
fn directory() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

/// Bytes that compress somewhat.
fn bytes(len: usize, random: &mut Random) -> Vec<u8> {
    (0..len).map(|at| if at % 2 == 0 { random.next() as u8 } else { 60 + random.below(4) as u8 }).collect()
}

/// Makes the container of `source` beside it, gone on with what lies there.
fn make(source: &Path) -> (Vec<u8>, Vec<u8>) {
    let target = source.with_extension("bs");
    let plain = PlainFile::open(source).unwrap();
    let mut file = NewFile::resume(&target, Existing::Replace).unwrap();
    // Windows of some chunks each.
    let options = Options { chunk_size: 64 << 10, ..Options::default() };
    compress_file(&plain, "model", &options, None, &mut file, &()).unwrap();
    let journal = file.commit_keeping_journal(&Attributes::of(&plain.file().metadata().unwrap())).unwrap().unwrap();
    (fs::read(&target).unwrap(), fs::read(journal.path()).unwrap())
}

/// Makes the checksum of each record of a journal good again, as far as there are records.
fn mend_journal(journal: &mut [u8]) {
    let mut rest = journal;
    while let Some((len, behind)) = rest.split_first_chunk_mut::<4>() {
        let len = u32::from_le_bytes(*len) as usize;
        if behind.len() < len.saturating_add(8) {
            return;
        }
        let (contents, behind) = behind.split_at_mut(len);
        let (sum, behind) = behind.split_at_mut(8);
        sum.copy_from_slice(&checksum(contents));
        rest = behind;
    }
}

#[test]
fn damaged_journals() {
    let directory = directory();
    // One window, which is quick, and a window and a bit.
    let unfinished: Vec<Unfinished> = [("short", 200_000), ("long", (4 << 20) + 200_000)]
        .map(|(name, len)| Unfinished::new(&directory, name, len))
        .into();
    fuzz("damaged journals", |random| {
        let Unfinished { name, original, container, journal } = &unfinished[usize::from(random.below(20) == 0)];
        let (mut left, mut forged) = (container.clone(), journal.clone());
        if random.below(3) == 0 {
            mutate(&mut left, random);
        }
        // What is recorded, more often than what it is recorded of.
        let header = 4 + u32::from_le_bytes(journal[..4].try_into().unwrap()) as usize + 8;
        let from = if random.below(5) == 0 { 0 } else { header };
        let mut records = forged.split_off(from);
        mutate(&mut records, random);
        forged.append(&mut records);
        let is_forged = random.below(2) == 0;
        if is_forged {
            mend_journal(&mut forged);
        }
        fs::write(directory.path().join(format!(".{name}.bs.aaaaaa.bigsmall-tmp")), left).unwrap();
        fs::write(directory.path().join(format!(".{name}.bs.aaaaaa.bigsmall-journal")), forged).unwrap();
        let (made, _) = make(&directory.path().join(name));
        assert!(is_forged || made == *container, "another container");
        let made = Container::from_store(Box::new(Memory::new(made))).unwrap();
        let mut decoded = vec![0; original.len()];
        made.read_at(0, &mut decoded).unwrap();
        assert!(decoded == *original, "another original");
    });
}

/// A file, its container and the journal of that.
struct Unfinished {
    name: &'static str,
    original: Vec<u8>,
    container: Vec<u8>,
    journal: Vec<u8>,
}

impl Unfinished {
    fn new(directory: &TempDir, name: &'static str, len: usize) -> Unfinished {
        let original = bytes(len, &mut Random(1));
        fs::write(directory.path().join(name), &original).unwrap();
        let (container, journal) = make(&directory.path().join(name));
        assert_eq!(journal[4..][..17], *b"bigsmall journal\n");
        let mut mended = journal.clone();
        mend_journal(&mut mended);
        assert!(mended == journal, "records are what they are taken for here");
        Unfinished { name, original, container, journal }
    }
}

#[test]
fn damaged_sidecars() {
    let directory = directory();
    let sound: Vec<(Vec<u8>, Vec<u8>)> = [0, 1, 700, 5000, 70_000, 600_000]
        .map(|len| {
            let file = bytes(len, &mut Random(len as u64));
            let share = Share::percent(1 + len as u32 % 40).unwrap();
            let out = NewFile::create(&directory.path().join("sidecar"), Existing::Replace).unwrap();
            protect(&Memory::new(file.clone()), share, &out, &()).unwrap();
            let mut sidecar = vec![0; out.contents().unwrap().len() as usize];
            out.contents().unwrap().read_at(0, &mut sidecar).unwrap();
            (file, sidecar)
        })
        .into();
    fuzz("damaged sidecars", |random| {
        let (file, mut sidecar) = sound[random.below(sound.len())].clone();
        let (len, is_forged) = (sidecar.len(), random.below(2) == 0);
        if random.below(3) > 0 {
            mutate(&mut sidecar, random);
        }
        if is_forged && sidecar.len() == len {
            // A header that says something else, twice, in a field behind the magic.
            let at = 8 + random.below(56);
            sidecar[at] ^= 1 << random.below(8);
            let sum = checksum(&sidecar[..64]);
            sidecar[64..72].copy_from_slice(&sum);
            sidecar.copy_within(..72, len - 72);
        }
        let mut damaged = file.clone();
        (0..random.below(4)).for_each(|_| mutate(&mut damaged, random));
        let damaged_len = damaged.len() as u64;
        let Ok(sidecar) = Sidecar::from_store(Box::new(Memory::new(sidecar))) else { return };
        let Ok(mended) = Mended::new(sidecar, vec![Box::new(Memory::new(damaged))]) else { return };
        let damage = examine(&mended, damaged_len, &()).unwrap();
        // A forged one may say that the file is as long as anything.
        let mut whole = vec![0; mended.len().min(1 << 20) as usize];
        let read = mended.read_at(0, &mut whole);
        if !is_forged {
            assert_eq!(mended.len(), file.len() as u64);
            // Nothing can be lost of no bytes.
            assert_eq!(read.is_ok(), damage.is_repairable() || file.is_empty(), "{damage:?}");
            assert!(read.is_err() || whole == file, "other bytes");
        }
    });
}

#[test]
fn damaged_sidecars_of_the_python_package() {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/upstream/ecc");
    let read = |name: &str| fs::read(fixtures.join(name)).unwrap();
    let (sound, sidecar) = (read("model.bs"), read("model.bs.ecc"));
    let directory = directory();
    let place = |name: &str| -> PathBuf { directory.path().join(name) };
    let open = |sidecar: &[u8]| {
        fs::write(place("model.bs.ecc"), sidecar).unwrap();
        PackageParity::open(&place("model.bs.ecc"))
    };
    assert!(open(&sidecar).unwrap().holds(&Memory::new(sound.clone()), &()).unwrap(), "the fixture is sound");
    fuzz("damaged sidecars of the Python package", |random| {
        let (mut file, mut sidecar) = (sound.clone(), sidecar.clone());
        if random.below(4) > 0 {
            mutate(&mut sidecar, random);
        }
        (0..random.below(4)).for_each(|_| mutate(&mut file, random));
        let Ok(parity) = open(&sidecar) else { return };
        let file = Memory::new(file);
        let examined = parity.examine(&file, &()).unwrap();
        let out = NewFile::create(&place("out"), Existing::Replace).unwrap();
        let Ok(repaired) = parity.repair(&file, &out, &()) else { return };
        assert_eq!(examined, repaired);
        let result = out.contents().unwrap();
        if parity.holds(&result, &()).unwrap() {
            let mut bytes = vec![0; result.len() as usize];
            result.read_at(0, &mut bytes).unwrap();
            assert!(bytes == sound, "other bytes");
        }
    });
}
