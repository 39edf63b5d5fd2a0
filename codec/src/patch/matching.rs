//! Which parts of an original have something in a base that they can be coded against.

use super::model::{Model, ModelTensor};
use super::order::RowOrder;
use super::partners;
use crate::chunk::delta::convert;
use crate::diff::Tensor;
use crate::error::Result;
use crate::layout::{Content, Layout, SegmentLayout, TensorLayout};
use crate::original::Original;
use crate::split::Element;

/// What a segment is coded against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SegmentBase {
    /// Where it begins, counted in bytes over all tensors of the base that are used.
    pub(crate) offset: u64,
    /// What its elements are.
    pub(crate) element: Element,
}

/// An original, its segments cut so that each has a base or none.
#[derive(Debug)]
pub(crate) struct Matching {
    pub(crate) layout: Layout,
    /// That of each segment.
    pub(crate) bases: Vec<Option<SegmentBase>>,
    /// The numbers of the tensors of the model that are used, one behind the other, each with the order of its rows if that is not their own.
    pub(crate) used: Vec<(usize, Option<RowOrder>)>,
    /// Bytes of these.
    used_len: u64,
}

impl Matching {
    /// An original without a base.
    pub(crate) fn none(layout: Layout) -> Matching {
        Matching { bases: vec![None; layout.segments.len()], layout, used: Vec::new(), used_len: 0 }
    }

    /// Gives each tensor of `source`, which has this layout, its [partner](partners) in the model.
    ///
    /// # Errors
    /// Those of reading either, to see which tensors are one another's where they have other names.
    pub(crate) fn of(source: &dyn Original, layout: Layout, model: &Model) -> Result<Matching> {
        let tuned: Vec<Tensor<'_>> = layout.tensors.iter().map(|tensor| of_layout(tensor, source)).collect();
        let base: Vec<Tensor<'_>> = model.tensors().iter().map(|tensor| model.view(tensor)).collect();
        let mut partners = partners::find(&tuned, &base)?;
        let orders = partners::find_moved(&tuned, &base, &mut partners)?;
        drop(tuned);
        let partners: Vec<_> =
            partners.into_iter().zip(orders).map(|(partner, order)| Some((partner?, order))).collect();
        let Layout { segments, tensors } = layout;
        let empty = Layout { segments: Vec::new(), tensors: Vec::new() };
        let mut matching = Matching { layout: empty, bases: Vec::new(), used: Vec::new(), used_len: 0 };
        for segment in segments {
            if !matches!(segment.content, Content::Tensor | Content::TinyTensors) {
                matching.push(segment, None);
                continue;
            }
            // A segment of tiny tensors is cut wherever one has no base.
            let within = tensors.partition_point(|tensor| tensor.range.end <= segment.range.start);
            let inside = |tensor: &TensorLayout| tensor.range.start < segment.range.end;
            for (tensor, partner) in
                tensors[within..].iter().zip(&partners[within..]).take_while(|(tensor, _)| inside(tensor))
            {
                if !tensor.range.is_empty() {
                    matching.push_tensor(tensor, *partner, segment.content, model);
                }
            }
        }
        matching.layout.tensors = tensors;
        Ok(matching)
    }

    fn push_tensor(
        &mut self,
        tensor: &TensorLayout,
        partner: Option<(usize, Option<RowOrder>)>,
        content: Content,
        model: &Model,
    ) {
        let TensorLayout { range, element, .. } = tensor;
        let part = |range| SegmentLayout { range, element: *element, content };
        let common =
            partner.and_then(|(number, order)| Some((number, order, common(tensor, &model.tensors()[number])?)));
        let Some((number, order, elements)) = common else {
            return self.push(part(range.clone()), None);
        };
        let base_element = model.tensors()[number].element;
        let offset = self.used_len;
        self.used.push((number, order));
        self.used_len += model.tensors()[number].byte_len();
        let end = range.start + elements * element.size() as u64;
        self.push(part(range.start..end), Some(SegmentBase { offset, element: base_element }));
        if end < range.end {
            // What has been added behind the base's rows.
            self.push(part(end..range.end), None);
        }
    }

    /// Adds a segment, or makes the last one longer if both are of tiny tensors and so are their bases.
    fn push(&mut self, segment: SegmentLayout, base: Option<SegmentBase>) {
        if let (Some(last), Some(last_base)) = (self.layout.segments.last_mut(), self.bases.last()) {
            let elements = (last.range.end - last.range.start) / last.element.size() as u64;
            let follows = match (last_base, base) {
                (None, None) => true,
                (Some(last), Some(next)) => {
                    last.element == next.element && last.offset + elements * last.element.size() as u64 == next.offset
                }
                _ => false,
            };
            let tiny = last.content == Content::TinyTensors && segment.content == Content::TinyTensors;
            if tiny && follows && last.element == segment.element {
                last.range.end = segment.range.end;
                return;
            }
        }
        self.layout.segments.push(segment);
        self.bases.push(base);
    }
}

/// A tensor of `source`.
fn of_layout<'a>(tensor: &'a TensorLayout, source: &'a dyn Original) -> Tensor<'a> {
    Tensor {
        name: (&*tensor.name).into(),
        dtype: &tensor.dtype,
        shape: &tensor.shape,
        file: "",
        original: source,
        range: tensor.range.clone(),
        md5: None,
    }
}

/// How many elements of a tensor can be coded against its partner: the first ones.
fn common(tensor: &TensorLayout, base: &ModelTensor) -> Option<u64> {
    // Integers, quantised blocks too, are compared only if they mean the same.
    let same = tensor.element == base.element && tensor.dtype == base.dtype;
    if !same && !convert::is_possible(base.element, tensor.element)
        || !partners::has_rows_of(&tensor.shape, &base.shape)
    {
        return None;
    }
    let (elements, base_elements) = (
        (tensor.range.end - tensor.range.start) / tensor.element.size() as u64,
        base.byte_len() / base.element.size() as u64,
    );
    let elements = elements.min(base_elements);
    (elements > 0).then_some(elements)
}
