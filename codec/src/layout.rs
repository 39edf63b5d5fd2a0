//! How an original is cut into segments: its header, its tensors and whatever lies between and behind them.
//!
//! What a tensor is, each kind of file says in its own way ([`safetensors`](crate::safetensors), [`gguf`](crate::gguf)); all else
//! is the same for all. A file of no kind that is known is one segment.

use std::ops::Range;

use crate::error::Result;
use crate::original::Original;
use crate::split::Element;
use crate::{gguf, safetensors};

/// A shorter tensor is grouped with its neighbours of the same kind.
pub(crate) const TINY: u64 = 16 << 10;

/// A tensor that a header names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct TensorLayout {
    pub(crate) name: String,
    /// The dtype as the header spells it, or as its kind of file calls what it says.
    pub(crate) dtype: String,
    /// Its dimensions, those of the elements that lie side by side last.
    pub(crate) shape: Vec<u64>,
    /// Where its bytes lie in the file.
    pub(crate) range: Range<u64>,
    /// What its bytes are coded as.
    pub(crate) element: Element,
}

/// What a segment holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Content {
    /// The header, with all that belongs to it.
    Header,
    /// One tensor.
    Tensor,
    /// Several tiny tensors of one kind.
    TinyTensors,
    /// Bytes that belong to no tensor, or a file of another kind.
    Opaque,
}

/// A contiguous part of the file that is treated alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct SegmentLayout {
    pub(crate) range: Range<u64>,
    pub(crate) element: Element,
    pub(crate) content: Content,
}

impl SegmentLayout {
    /// The dimensions of the tensor that it is, one of `tensors`, or of some whole rows of that, the last one in elements of the
    /// segment; `None` when it is nothing like that.
    pub(crate) fn dims(&self, tensors: &[TensorLayout]) -> Option<Vec<u64>> {
        if self.content != Content::Tensor {
            return None;
        }
        // Empty ones may begin at the same place.
        let after = tensors.partition_point(|tensor| tensor.range.end <= self.range.start);
        let tensor = tensors.get(after)?;
        let mut dims = tensor.shape.clone();
        if tensor.range != self.range {
            // By far the most are whole.
            let row =
                dims.first().map_or(0, |&rows| (tensor.range.end - tensor.range.start).checked_div(rows).unwrap_or(0));
            let inside = tensor.range.start <= self.range.start && self.range.end <= tensor.range.end;
            let len = self.range.end - self.range.start;
            if !inside || row == 0 || !len.is_multiple_of(row) {
                return None;
            }
            dims[0] = len / row;
        }
        // An element of the tensor may be several of the segment.
        let elements = (self.range.end - self.range.start) / self.element.size() as u64;
        let items: u64 = dims.iter().product();
        if let (Some(last), Some(1..)) = (dims.last_mut(), elements.checked_div(items)) {
            *last *= elements / items;
        }
        Some(dims)
    }
}

/// What the header of a file says, as far as it can be relied on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Where it ends and the data of tensors begin.
    pub(crate) data: u64,
    /// The tensors, all of them at or behind `data` and inside the file, in any order.
    pub(crate) tensors: Vec<TensorLayout>,
}

/// The segments of a file, in order, without gaps and none empty, and the tensors by the position of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    pub(crate) segments: Vec<SegmentLayout>,
    pub(crate) tensors: Vec<TensorLayout>,
}

impl Layout {
    /// The layout of `source`. A file of no known kind, or one whose tensors overlap, lie outside of it or are not
    /// as long as their shape says, is one opaque segment.
    ///
    /// # Errors
    /// Only those of reading `source`.
    pub(crate) fn of(source: &dyn Original) -> Result<Layout> {
        let header = match gguf::read_header(source)? {
            None => safetensors::read_header(source)?,
            header => header,
        };
        let Some(Header { data, mut tensors }) = header else { return Ok(Layout::opaque(source.len())) };
        // Empty tensors before others at the same place, names last, so that the order is unique.
        tensors
            .sort_unstable_by(|a, b| (a.range.start, a.range.end, &a.name).cmp(&(b.range.start, b.range.end, &b.name)));
        let overlap = tensors.windows(2).any(|pair| pair[1].range.start < pair[0].range.end);
        Ok(if overlap { Layout::opaque(source.len()) } else { Layout::from_tensors(source.len(), data, tensors) })
    }

    fn opaque(len: u64) -> Layout {
        let mut layout = Layout { segments: Vec::new(), tensors: Vec::new() };
        layout.push(0..len, Element::Bytes(1), Content::Opaque);
        layout
    }

    /// The layout of a file of `len` bytes whose data begin at `data`; `tensors` are sorted and do not overlap.
    fn from_tensors(len: u64, data: u64, tensors: Vec<TensorLayout>) -> Layout {
        let mut layout = Layout { segments: Vec::new(), tensors: Vec::new() };
        layout.push(0..data, Element::Bytes(1), Content::Header);
        let mut end = data;
        for tensor in &tensors {
            layout.push(end..tensor.range.start, Element::Bytes(1), Content::Opaque);
            end = tensor.range.end;
            let element = tensor.element;
            let tiny = tensor.range.end - tensor.range.start < TINY;
            match layout.segments.last_mut() {
                Some(last) if tiny && last.content == Content::TinyTensors && last.element == element => {
                    last.range.end = tensor.range.end;
                }
                _ => layout.push(
                    tensor.range.clone(),
                    element,
                    if tiny { Content::TinyTensors } else { Content::Tensor },
                ),
            }
        }
        layout.push(end..len, Element::Bytes(1), Content::Opaque);
        layout.tensors = tensors;
        layout
    }

    fn push(&mut self, range: Range<u64>, element: Element, content: Content) {
        if !range.is_empty() {
            self.segments.push(SegmentLayout { range, element, content });
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::original::Memory;

    /// The layout of a file, which has each of its bytes in one segment.
    pub(crate) fn layout(file: &[u8]) -> Layout {
        let layout = Layout::of(&Memory::new(file.to_vec())).unwrap();
        let mut end = 0;
        for segment in &layout.segments {
            assert_eq!(segment.range.start, end);
            assert!(!segment.range.is_empty());
            end = segment.range.end;
        }
        assert_eq!(end, file.len() as u64);
        layout
    }

    /// Whether nothing is known of a file.
    pub(crate) fn is_opaque(file: &[u8]) -> bool {
        let layout = layout(file);
        layout.tensors.is_empty() && layout.segments.iter().all(|s| s.content == Content::Opaque)
    }
}
