//! Writing a container to a new file so that a later run can go on with it when this one is killed: see [`super::journal`].

use std::io::BufWriter;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::time::Duration;

use super::Container;
use super::journal::{Journal, Making};
use super::writer::{self, Options, Out, Summary};
use crate::Progress;
use crate::error::{Error, Result};
use crate::original::Original;
use crate::output::{KeptJournal, NewFile, Syncer};
use crate::patch::Model;

/// How often what has been written is synced, so that a power cut costs no more than the work of this time. Nothing waits for
/// it, and it has to be written once anyway.
const SYNC_INTERVAL: Duration = Duration::from_secs(5);

/// Bytes that are written at a time.
const BUFFER: usize = 1 << 20;

/// As [`compress`](super::compress), or, with a `base`, as [`compress_patch`](super::compress_patch), to a new file, which keeps a
/// [journal](NewFile::journal) of what is done. If `file` was [resumed](NewFile::resume), what it holds already is taken over as far
/// as it is provably what would be written.
///
/// # Errors
/// As [`compress_patch`](super::compress_patch); those of `file` name it.
pub fn compress_file(
    source: &dyn Original,
    name: &str,
    options: &Options,
    base: Option<&Model>,
    file: &mut NewFile,
    progress: &dyn Progress,
) -> Result<Summary> {
    let making = Making::of(source, name, options, base)?;
    let cannot_keep = |target: &Path, e| Error::io("cannot keep a journal", e).in_file(target);
    let target = file.target().to_owned();
    let journal = file.journal()?.try_clone().map_err(|e| cannot_keep(&target, e))?;
    let container = file.file().try_clone().map_err(|e| cannot_keep(&target, e))?;
    let (journal, kept) = Journal::open(journal, container, &making).map_err(|e| cannot_keep(&target, e))?;
    let syncer = file.syncer()?;
    let (end, ended) = mpsc::channel();
    std::thread::scope(|scope| {
        let syncing = scope.spawn(move || sync_until(&ended, &syncer));
        let out = Out::File(BufWriter::with_capacity(BUFFER, &mut *file), journal);
        let summary = writer::write(source, name, options, base, out, Some(&kept), progress);
        drop(end);
        let synced = syncing.join().expect("syncing does not panic");
        let summary = summary.map_err(|e| file.name_failure(e))?;
        // Whoever syncs next would not be told of an error again.
        synced.map(|()| summary)
    })
}

/// Syncs every now and then until the other end is dropped.
fn sync_until(ended: &mpsc::Receiver<()>, syncer: &Syncer) -> Result<()> {
    while ended.recv_timeout(SYNC_INTERVAL) == Err(RecvTimeoutError::Timeout) {
        syncer.sync()?;
    }
    Ok(())
}

/// What [`compress_file`] said of the container at `place`, if that is what an earlier run, which left the `journal`, has made of the same
/// source and `base` in the same way, complete and undamaged.
pub fn finished(
    source: &dyn Original,
    name: &str,
    options: &Options,
    base: Option<&Model>,
    place: &Path,
    journal: &KeptJournal,
    progress: &dyn Progress,
) -> Option<Summary> {
    let making = Making::of(source, name, options, base).ok()?;
    let container = Some(place).filter(|_| making.is_that_of(journal.path())).and_then(|p| Container::open(p).ok())?;
    let is_sound = container.len() == source.len() && container.damaged_chunks(progress).ok()? == 0;
    is_sound.then(|| Summary {
        original_len: container.len(),
        stored_len: container.stored_len(),
        sha256: *container.sha256(),
        kept_len: container.len(),
        is_patch: container.base_record().is_some(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::tests::scaled_weights;
    use crate::original::{Memory, PlainFile};
    use crate::output::{Attributes, Existing};
    use crate::split::Element;
    use sha2::Digest;
    use std::fs;

    /// Makes the container of the file at `source` in the same directory, gone on with what lies there; gives it, its journal as it
    /// was in the end, and how many bytes were taken over.
    fn make(source: &Path) -> (Vec<u8>, Vec<u8>, u64) {
        make_over(source, None)
    }

    /// The same, as a patch if there is a base.
    fn make_over(source: &Path, base: Option<&Model>) -> (Vec<u8>, Vec<u8>, u64) {
        let target = source.with_extension("bs");
        let plain = PlainFile::open(source).unwrap();
        let mut file = NewFile::resume(&target, Existing::Replace).unwrap();
        let summary = compress_file(&plain, "model", &Options::default(), base, &mut file, &()).unwrap();
        let attributes = Attributes::of(&plain.file().metadata().unwrap());
        let journal = file.commit_keeping_journal(&attributes).unwrap().unwrap();
        (fs::read(&target).unwrap(), fs::read(journal.path()).unwrap(), summary.kept_len)
    }

    fn weights(seed: u64) -> Vec<u8> {
        scaled_weights(Element::Bf16, 300, 10_000, seed)
    }

    #[test]
    fn what_is_not_of_the_source_is_not_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("model.bin");
        let original = weights(1);
        fs::write(&source, &original).unwrap();
        let (container, journal, kept) = make(&source);
        assert_eq!(kept, 0);
        let leave = |container: &[u8], journal: &[u8]| {
            fs::write(directory.path().join(".model.bs.aaaaaa.bigsmall-tmp"), container).unwrap();
            fs::write(directory.path().join(".model.bs.aaaaaa.bigsmall-journal"), journal).unwrap();
        };
        leave(&container, &journal);
        assert_eq!(make(&source).2, original.len() as u64);

        // Another source, whose journal gets the header that the journal of the first has.
        let other = directory.path().join("other.bin");
        for (from, to) in [(0, 100), (original.len() / 2, original.len() / 2 + 1), (0, original.len())] {
            let mut changed = original.clone();
            changed[from..to].copy_from_slice(&weights(2)[from..to]);
            fs::write(&other, &changed).unwrap();
            let (_, other_journal, _) = make(&other);
            let header = journal_header(&other_journal);
            leave(&container, &[header, &journal[journal_header(&journal).len()..]].concat());
            for kind in ["tmp", "journal"] {
                let [from, to] = ["model", "other"].map(|name| format!(".{name}.bs.aaaaaa.bigsmall-{kind}"));
                fs::rename(directory.path().join(from), directory.path().join(to)).unwrap();
            }
            fs::remove_file(directory.path().join("other.bs")).unwrap();
            // It may be smaller or larger than it would be otherwise, but it is the source that it holds.
            let (made, _, kept) = make(&other);
            let container = Container::from_store(Box::new(Memory::new(made))).unwrap();
            let mut bytes = vec![0; changed.len()];
            container.read_at(0, &mut bytes).unwrap();
            assert!(bytes == changed && container.len() == changed.len() as u64, "bytes {from} to {to}");
            assert_eq!(container.sha256()[..], sha2::Sha256::digest(&changed)[..], "bytes {from} to {to}");
            assert!(kept < original.len() as u64, "bytes {from} to {to}");
        }
    }

    #[test]
    fn what_is_of_another_base_is_not_taken_over() {
        let directory = tempfile::tempdir().unwrap();
        let place = |name: &str| directory.path().join(name);
        let (source, elements) = (place("tuned"), 1_500_000);
        let header = format!(r#"{{"a":{{"dtype":"BF16","shape":[{elements}],"data_offsets":[0,{}]}}}}"#, elements * 2);
        let file = |weights: &[u8]| {
            [&(header.len() as u64).to_le_bytes()[..], header.as_bytes(), &weights[..elements * 2]].concat()
        };
        let tuned = weights(1);
        fs::write(&source, file(&tuned)).unwrap();
        // Bases of which some elements are other ones: many, or some in another place.
        let bases = [3, 5].map(|step| {
            let mut base = tuned.clone();
            base.iter_mut().step_by(2 * step).for_each(|byte| *byte ^= 1);
            let path = place(&format!("base{step}"));
            fs::write(&path, file(&base)).unwrap();
            let mut model = Model::new("base");
            model.add("base", std::sync::Arc::new(PlainFile::open(&path).unwrap())).unwrap();
            model
        });
        let (patch, journal, _) = make_over(&source, Some(&bases[0]));
        let leave = |patch: &[u8], journal: &[u8]| {
            fs::write(place(".tuned.bs.aaaaaa.bigsmall-tmp"), patch).unwrap();
            fs::write(place(".tuned.bs.aaaaaa.bigsmall-journal"), journal).unwrap();
        };
        leave(&patch, &journal);
        let (again, _, kept) = make_over(&source, Some(&bases[0]));
        assert!(again == patch && kept == file(&tuned).len() as u64);
        leave(&patch, &journal);
        let (other, other_journal, kept) = make_over(&source, Some(&bases[1]));
        assert_eq!(kept, 0);
        // A journal that says it is of the other base.
        let forged = [journal_header(&other_journal), &journal[journal_header(&journal).len()..]].concat();
        leave(&patch, &forged);
        let (made, _, kept) = make_over(&source, Some(&bases[1]));
        assert!(made == other && kept < 1000, "{kept} bytes were taken over");
    }

    /// The first record of a journal.
    fn journal_header(journal: &[u8]) -> &[u8] {
        let len = u32::from_le_bytes(journal[..4].try_into().unwrap()) as usize;
        &journal[..4 + len + 8]
    }

    #[test]
    fn no_bytes_make_the_journal_fail() {
        let directory = tempfile::tempdir().unwrap();
        let source = directory.path().join("model.bin");
        fs::write(&source, &weights(1)[..1 << 20]).unwrap();
        let (container, journal, _) = make(&source);
        for at in (0..journal.len()).step_by(5) {
            let mut torn = journal.clone();
            torn[at] = !torn[at];
            let torn = if at % 2 == 0 { &torn[..] } else { &journal[..at] };
            fs::write(directory.path().join(".model.bs.aaaaaa.bigsmall-tmp"), &container).unwrap();
            fs::write(directory.path().join(".model.bs.aaaaaa.bigsmall-journal"), torn).unwrap();
            assert!(make(&source).0 == container, "byte {at}");
        }
    }
}
