//! Damage of every kind, up to what the parity bears and one block beyond.

use std::path::Path;

use proptest::prelude::*;

use super::*;
use crate::error::ErrorKind;
use crate::original::{Memory, Original};
use crate::output::{Attributes, Existing, NewFile};

/// Numbers that look random and are the same in every run.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut x = self.0;
        x = (x ^ x >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ x >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ x >> 31
    }

    fn below(&mut self, end: u64) -> u64 {
        self.next() % end
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }

    /// `count` different numbers below `end`.
    fn choose(&mut self, count: u64, end: u64) -> Vec<u64> {
        let mut numbers: Vec<u64> = (0..end).collect();
        for i in 0..count as usize {
            let other = i + self.below(end - i as u64) as usize;
            numbers.swap(i, other);
        }
        numbers.truncate(count as usize);
        numbers
    }
}

fn written(directory: &Path, write: impl FnOnce(&NewFile)) -> Vec<u8> {
    let path = directory.join("out");
    let file = NewFile::create(&path, Existing::Replace).unwrap();
    write(&file);
    file.commit(&Attributes::of(&std::fs::metadata(directory).unwrap())).unwrap();
    std::fs::read(path).unwrap()
}

fn sidecar_of(file: &[u8], percent: u32) -> Vec<u8> {
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), |out| {
        protect(&Memory::new(file.to_vec()), Share::percent(percent).unwrap(), out, &()).unwrap();
    })
}

fn mended(file: &[u8], sidecar: &[u8]) -> Result<Mended, crate::Error> {
    let sidecar = Sidecar::from_store(Box::new(Memory::new(sidecar.to_vec())))?;
    Mended::new(sidecar, vec![Box::new(Memory::new(file.to_vec()))])
}

/// What `repair` makes of a damaged file, and what `examine` says of it.
fn repaired(file: &[u8], sidecar: &[u8]) -> (Vec<u8>, Damage) {
    let directory = tempfile::tempdir().unwrap();
    let mended = mended(file, sidecar).unwrap();
    let damage = examine(&mended, file.len() as u64, &()).unwrap();
    let bytes = written(directory.path(), |out| {
        let rebuilt = repair(&mended, &damage, out, &()).unwrap();
        assert_eq!(damage.is_repairable(), rebuilt == damage.blocks.len() as u64);
    });
    (bytes, damage)
}

#[track_caller]
fn comes_back(original: &[u8], file: &[u8], sidecar: &[u8], what: &str) {
    let (bytes, damage) = repaired(file, sidecar);
    assert!(damage.is_repairable(), "{what}: {damage:?}");
    assert!(bytes == original, "{what}: other bytes came back");
    // Reading at any offset gives the same.
    let mended = mended(file, sidecar).unwrap();
    let mut read = vec![0; original.len()];
    mended.read_at(0, &mut read).unwrap();
    assert!(read == original, "{what}: reading gives other bytes");
}

/// A file of several stripes would take 16 MiB and more; this geometry has them in 200 kB.
fn small_stripes(file: &[u8]) -> Vec<u8> {
    let geometry = Geometry { file_len: file.len() as u64, block: 64, stripes: 0, data: 0, parity: 0 };
    let stripes = 8;
    let data = geometry.data_blocks().div_ceil(stripes);
    let geometry = Geometry { stripes, data, parity: data.div_ceil(10), ..geometry }.checked().unwrap();
    let directory = tempfile::tempdir().unwrap();
    written(directory.path(), |out| {
        protect::protect_as(&Memory::new(file.to_vec()), geometry, out, &()).unwrap();
    })
}

#[test]
fn sound_files_of_any_length_are_sound() {
    let mut random = Random(1);
    for len in [0, 1, 63, 64, 511, 512, 513, 1024, 100_000, 524_288, 524_289, 5_000_001] {
        let file = random.bytes(len);
        let sidecar = sidecar_of(&file, 10);
        let geometry = Geometry::choose(len as u64, Share::DEFAULT);
        assert_eq!(sidecar.len() as u64, geometry.sidecar_len());
        let (bytes, damage) = repaired(&file, &sidecar);
        assert!(bytes == file && damage.file_is_sound() && damage.sidecar_is_sound(), "{len}: {damage:?}");
        assert_eq!(sidecar, sidecar_of(&file, 10), "the same every time");
    }
}

#[test]
fn a_burst_of_the_parity_share_comes_back_wherever_it_is() {
    let mut random = Random(2);
    let original = random.bytes(200_000);
    let sidecar = small_stripes(&original);
    let geometry = *mended(&original, &sidecar).unwrap().sidecar().geometry();
    let burst = (geometry.parity * geometry.stripes * geometry.block) as usize;
    assert!(burst > original.len() / 10);
    for start in (0..original.len()).step_by(64 * 31) {
        let mut file = original.clone();
        let end = file.len().min(start + burst);
        file[start..end].fill(0xff);
        comes_back(&original, &file, &sidecar, &format!("a burst at {start}"));
    }
    comes_back(&original, &original[..original.len() - burst], &sidecar, "a lost tail");
    comes_back(&original, &[&original[..], b"more"].concat(), &sidecar, "something behind the end");
    let mut file = original.clone();
    file[..burst].fill(0);
    comes_back(&original, &file, &sidecar, "a lost beginning");
}

#[test]
fn scattered_damage_up_to_the_share_comes_back_and_one_block_more_is_refused() {
    let mut random = Random(3);
    let original = random.bytes(200_000);
    let sidecar = small_stripes(&original);
    let geometry = *mended(&original, &sidecar).unwrap().sidecar().geometry();
    for round in 0..20 {
        let (mut file, mut torn) = (original.clone(), sidecar.clone());
        let mut spare = Vec::new();
        for stripe in 0..geometry.stripes {
            let data: Vec<u64> = geometry.data_of(stripe).collect();
            let parity: Vec<u64> = geometry.parity_of(stripe).collect();
            let total = (data.len() + parity.len()) as u64;
            let mut chosen = random.choose(geometry.parity, total);
            // One more, of the data, is kept for later.
            spare
                .extend((0..data.len() as u64).find(|shard| !chosen.contains(shard)).map(|shard| data[shard as usize]));
            if !chosen.iter().any(|&shard| (shard as usize) < data.len()) {
                chosen[0] = 0;
            }
            for shard in chosen {
                let (bytes, range) = match data.get(shard as usize) {
                    Some(&number) => (&mut file, geometry.data_range(number)),
                    None => {
                        let start = geometry.parity_offset(parity[shard as usize - data.len()]);
                        (&mut torn, start..start + geometry.block)
                    }
                };
                bytes[(range.start + random.below(range.end - range.start)) as usize] ^= 1 << random.below(8);
            }
        }
        comes_back(&original, &file, &torn, &format!("round {round}"));

        let beyond = spare[random.below(spare.len() as u64) as usize];
        file[geometry.data_range(beyond).start as usize] ^= 1;
        let (bytes, damage) = repaired(&file, &torn);
        assert_eq!((damage.lost_stripes, damage.is_repairable()), (1, false));
        let stripe = geometry.stripe_of(beyond);
        for number in 0..geometry.data_blocks() {
            let range = geometry.data_range(number);
            let range = range.start as usize..range.end as usize;
            let lost = geometry.stripe_of(number) == stripe && damage.blocks.contains(&number);
            assert!(bytes[range.clone()] == if lost { &file } else { &original }[range]);
        }
        let mended = mended(&file, &torn).unwrap();
        let mut byte = [0];
        let error = mended.read_at(geometry.data_range(beyond).start, &mut byte).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Corrupt);
    }
}

#[test]
fn another_copy_is_used_before_the_parity() {
    let mut random = Random(4);
    let original = random.bytes(100_000);
    let sidecar = sidecar_of(&original, 5);
    let (mut first, mut second) = (original.clone(), original.clone());
    first[..50_000].fill(0);
    second[48_000..].fill(0);
    let copies: Vec<Box<dyn Original>> = vec![Box::new(Memory::new(first)), Box::new(Memory::new(second))];
    let mended = Mended::new(Sidecar::from_store(Box::new(Memory::new(sidecar))).unwrap(), copies).unwrap();
    let damage = examine(&mended, 100_000, &()).unwrap();
    assert!(damage.is_repairable() && damage.borrowed > 90 && damage.blocks.len() < 6, "{damage:?}");
    let mut read = vec![0; original.len()];
    mended.read_at(0, &mut read).unwrap();
    assert!(read == original);
}

/// The contract with a damaged sidecar: it is opened and all of it is right, or it is refused; damage is never unseen.
fn holds_with(original: &[u8], sidecar: &[u8], what: &str) {
    let mended = match mended(original, sidecar) {
        Ok(mended) => mended,
        Err(error) => {
            let kind = error.kind();
            assert!(matches!(kind, ErrorKind::Corrupt | ErrorKind::NotAContainer | ErrorKind::Unsupported), "{what}");
            return;
        }
    };
    let damage = examine(&mended, original.len() as u64, &()).unwrap();
    assert!(!damage.sidecar_is_sound(), "{what}: unseen");
    let mut read = vec![0; original.len()];
    if mended.read_at(0, &mut read).is_ok() {
        assert!(read == original, "{what}: wrong bytes");
    }
}

#[test]
fn every_flipped_bit_and_saturated_byte_of_a_sidecar_is_seen_and_borne() {
    let original = Random(5).bytes(3000);
    let sidecar = sidecar_of(&original, 10);
    for at in 0..sidecar.len() {
        let with = |value: u8| {
            let mut torn = sidecar.clone();
            torn[at] = value;
            torn
        };
        let values = (0..8).map(|bit| sidecar[at] ^ 1 << bit).chain([0, 0xff]);
        for value in values.filter(|&value| value != sidecar[at]) {
            let torn = with(value);
            holds_with(&original, &torn, &format!("byte {at} is {value}"));
            // A single wrong byte leaves one of everything that there are two of.
            assert!(mended(&original, &torn).is_ok(), "byte {at} is {value}");
        }
    }
    for len in 0..sidecar.len() {
        holds_with(&original, &sidecar[..len], &format!("cut to {len}"));
    }
}

#[test]
fn a_file_and_its_sidecar_may_both_lose_their_beginnings() {
    let mut random = Random(6);
    let original = random.bytes(300_000);
    let mut sidecar = small_stripes(&original);
    let mut file = original.clone();
    file[..9_000].fill(0);
    let geometry = *mended(&original, &sidecar).unwrap().sidecar().geometry();
    let table_end = geometry.parity_offset(0) as usize;
    sidecar[..table_end + 8_000].fill(0);
    comes_back(&original, &file, &sidecar, "beginnings");
}

#[test]
fn a_page_of_checksums_lost_twice_costs_only_its_blocks() {
    let original = Random(7).bytes(600_000);
    let mut sidecar = small_stripes(&original);
    let geometry = *mended(&original, &sidecar).unwrap().sidecar().geometry();
    for copy in [72, geometry.second_table() as usize] {
        sidecar[copy + 4096 + 100] ^= 0x10;
    }
    let (bytes, damage) = repaired(&original, &sidecar);
    assert_eq!((damage.sidecar.lost_pages, damage.sidecar.pages), (1, 2));
    assert_eq!(damage.blocks.len(), 511, "they cannot be told from damaged ones");
    assert!(damage.is_repairable() && bytes == original);
}

#[test]
fn the_code_is_the_one_that_the_format_defines() {
    // `docs/format.md`: interpolation and evaluation as they are defined, without any fast transform.
    let original = Random(8).bytes(64 * 10);
    let geometry = Geometry { file_len: 640, block: 64, stripes: 1, data: 10, parity: 3 };
    let directory = tempfile::tempdir().unwrap();
    let sidecar = written(directory.path(), |out| {
        protect::protect_as(&Memory::new(original.clone()), geometry, out, &()).unwrap();
    });
    let field = definition::Field::new();
    let data: Vec<&[u8]> = original.chunks(64).collect();
    for (number, parity) in definition::parity(&field, &data, 3).iter().enumerate() {
        let start = geometry.parity_offset(number as u64) as usize;
        assert_eq!(&sidecar[start..start + 64], &parity[..], "parity block {number}");
    }
}

/// The code by its definition.
mod definition {
    /// GF(2^16): elements are numbers in the Cantor basis.
    pub(super) struct Field {
        to_polynomial: Vec<u16>,
        from_polynomial: Vec<u16>,
    }

    const BASIS: [u16; 16] = [
        0x0001, 0xACCA, 0x3C0E, 0x163E, 0xC582, 0xED2E, 0x914C, 0x4012, 0x6C98, 0x10D8, 0x6A72, 0xB900, 0xFDB8, 0xFB34,
        0xFF38, 0x991E,
    ];

    impl Field {
        pub(super) fn new() -> Field {
            let to_polynomial: Vec<u16> = (0..=u16::MAX)
                .map(|x| (0..16).filter(|bit| x >> bit & 1 == 1).fold(0, |sum, bit| sum ^ BASIS[bit]))
                .collect();
            let mut from_polynomial = vec![0; 1 << 16];
            for (x, &y) in to_polynomial.iter().enumerate() {
                from_polynomial[y as usize] = x as u16;
            }
            Field { to_polynomial, from_polynomial }
        }

        pub(super) fn multiply(&self, a: u16, b: u16) -> u16 {
            let (a, b) = (self.to_polynomial[a as usize], self.to_polynomial[b as usize]);
            let mut product = (0..16).filter(|bit| b >> bit & 1 == 1).fold(0u32, |sum, bit| sum ^ u32::from(a) << bit);
            for bit in (16..31).rev() {
                if product >> bit & 1 == 1 {
                    product ^= 0x1_002D << (bit - 16);
                }
            }
            self.from_polynomial[product as usize]
        }

        fn invert(&self, a: u16) -> u16 {
            // a^(2^16 - 2)
            let (mut result, mut power) = (self.from_polynomial[1], a);
            for _ in 1..16 {
                power = self.multiply(power, power);
                result = self.multiply(result, power);
            }
            result
        }
    }

    /// Symbol `i` of a block: in each 64 bytes the low bytes of 32 symbols, then their high bytes.
    fn symbol(block: &[u8], i: usize) -> u16 {
        let at = i / 32 * 64 + i % 32;
        u16::from_le_bytes([block[at], block[at + 32]])
    }

    pub(super) fn parity(field: &Field, data: &[&[u8]], parity: usize) -> Vec<Vec<u8>> {
        let width = parity.next_power_of_two();
        let mut out = vec![vec![0; data[0].len()]; parity];
        for i in 0..data[0].len() / 2 {
            for (j, out) in out.iter_mut().enumerate() {
                let mut sum = 0;
                for (group, shards) in data.chunks(width).enumerate() {
                    let point = |shard: usize| ((group + 1) * width + shard) as u16;
                    for (shard, block) in shards.iter().enumerate() {
                        // Lagrange: the polynomial that is 1 at this shard's point and 0 at the group's others, at j.
                        let others = (0..width).filter(|&other| other != shard);
                        let term = others.fold(symbol(block, i), |term, other| {
                            let above = j as u16 ^ point(other);
                            let below = point(shard) ^ point(other);
                            field.multiply(term, field.multiply(above, field.invert(below)))
                        });
                        sum ^= term;
                    }
                }
                let at = i / 32 * 64 + i % 32;
                [out[at], out[at + 32]] = sum.to_le_bytes();
            }
        }
        out
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..400), header in any::<bool>()) {
        let mut bytes = bytes;
        if header && bytes.len() >= 72 {
            // Behind a right checksum, forged numbers get further.
            bytes[..16].copy_from_slice(b"\x89BSME\r\n\x1a\x01\0\0\0\x01\0\0\0");
            for at in [19, 22, 23, 26, 27, 28, 29, 30, 31, 36, 37, 38, 39, 44, 45, 46, 47] {
                bytes[at] = 0;
            }
            let sum = crate::checksum::checksum(&bytes[..64]);
            bytes[64..72].copy_from_slice(&sum.to_le_bytes());
        }
        let _ = Sidecar::from_store(Box::new(Memory::new(bytes)));
    }
}
