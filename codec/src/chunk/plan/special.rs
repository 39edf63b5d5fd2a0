//! Codings for what is no plain weight: few values, or one that is most frequent.
//!
//! Elements spread over the sample tell whether it is worth while to look closer, so that plain weights do not pay for it.

use super::{Best, Plan, PlannedCoding, Sample, plain, zstd_level};
use crate::chunk::palette::PalettePlan;
use crate::chunk::plane::PlanePlan;
use crate::chunk::sparse::{Filler, SparsePlan, Taken};
use crate::chunk::statistics::count_bytes;
use crate::container::Mode;
use crate::split::Element;

/// Elements that are looked at first.
const GLANCED_AT: usize = 2048;

/// The most values that a palette can have.
const MOST_VALUES: usize = 256;

/// What a glance at a segment tells.
struct Glance {
    /// Whether it may have few enough values for a palette.
    few_values: bool,
    /// The most frequent element, if it is frequent enough to be left out.
    filler: Option<Filler>,
}

/// Takes sparse and palette coding of a segment into account.
pub(super) fn consider(segment: &Sample<'_>, mode: Mode, best: &mut Best) {
    let Sample { element, bytes, len, chunk_size, .. } = *segment;
    let glance = glance(element, bytes);
    let scale = len as f64 / bytes.len() as f64;
    let level = zstd_level(mode);
    let palette = |bytes: &[u8], best: &mut Best| {
        if glance.few_values
            && (element.size() > 1 || is_palette_of_bytes(bytes, scale, best.bits))
            && let Some((plan, bits)) = PalettePlan::of(element.size(), bytes, scale, chunk_size, level)
        {
            best.consider(PlannedCoding::Palette(Box::new(plan)), bits);
        }
    };
    palette(bytes, best);
    if let Some(filler) = glance.filler {
        let mut taken = Taken::default();
        filler.take_out(bytes, &mut taken);
        let (mask, mask_bits) = PlanePlan::of(&taken.mask, scale, level);
        let mut of_kept = Best { coding: PlannedCoding::Raw, bits: 0.0 };
        if !taken.kept.is_empty() {
            let len = (taken.kept.len() as f64 * scale) as u64;
            of_kept = plain(&Sample { bytes: &taken.kept, len, shape: None, ..*segment }, mode, None);
            palette(&taken.kept, &mut of_kept);
        }
        let bits = mask_bits + taken.signs_bits() + of_kept.bits;
        let kept = Plan::new(of_kept.coding, level);
        best.consider(PlannedCoding::Sparse(Box::new(SparsePlan { filler, mask, kept })), bits);
    }
}

/// Whether bytes, which have few values anyway, take markedly fewer than so many bits as a palette: without one they are
/// decoded faster.
fn is_palette_of_bytes(bytes: &[u8], scale: f64, bits: f64) -> bool {
    let mut counts = count_bytes(bytes);
    counts.sort_unstable_by(|a, b| b.cmp(a));
    PlanePlan::of_counts(&counts, scale).1 < bits * 0.99
}

/// How often the most frequent of so many elements must be there to be worth a mask: the shorter they are, the more often
/// does any value come up by chance, and the less does leaving it out save.
fn worth_a_mask(size: usize, of: usize) -> usize {
    of / [16, 100, 200, 200][size.ilog2() as usize]
}

fn glance(element: Element, bytes: &[u8]) -> Glance {
    let size = element.size();
    let elements = bytes.len() / size;
    // An odd step, or the same few columns would be seen again and again.
    let step = (elements / GLANCED_AT) | 1;
    let sign = if element.float_split().is_some() { 1 << (8 * size - 1) } else { 0 };
    let mut values: Vec<u64> = (0..elements.min(GLANCED_AT))
        .map(|number| {
            let mut value = [0; 8];
            value[..size].copy_from_slice(&bytes[number * step % elements * size..][..size]);
            u64::from_le_bytes(value)
        })
        .collect();
    let seen = values.len();
    let negative_zeros = values.iter().filter(|&&value| sign != 0 && value == sign).count();
    values.iter_mut().filter(|value| **value == sign).for_each(|value| *value = 0);
    values.sort_unstable();
    let (mut distinct, mut most, mut filler) = (0, 0, 0);
    for equal in values.chunk_by(|a, b| a == b) {
        distinct += 1;
        if equal.len() > most {
            (most, filler) = (equal.len(), equal[0]);
        }
    }
    // Where they are rare it is cheaper to keep them: a sign for each zero costs as much as all of some.
    let signs = filler == 0 && negative_zeros * 8 * size > most;
    let worth = most > worth_a_mask(size, seen) && most > 1;
    Glance { few_values: distinct <= MOST_VALUES, filler: worth.then(|| Filler::new(element, filler, signs)) }
}
