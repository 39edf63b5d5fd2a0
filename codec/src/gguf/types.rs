//! What types of tensors there are in GGUF files.

use crate::quantised::BlockType;
use crate::split::Element;

/// The type of a tensor: elements, or *blocks* of elements that share their scale.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Type {
    /// What llama.cpp calls it.
    pub(super) name: &'static str,
    /// Elements of a block; 1 if there are no blocks.
    pub(super) elements: u64,
    /// Bytes of a block.
    pub(super) bytes: u64,
    /// What it is coded as.
    pub(super) element: Element,
}

/// The type with the number that files name it by.
pub(super) fn of_number(number: u32) -> Option<Type> {
    let plain = |name, element: Element| Type { name, elements: 1, bytes: element.size() as u64, element };
    let blocks = |name, elements, bytes| Type { name, elements, bytes, element: Element::Bytes(1) };
    if let Some(kind) = BlockType::of_number(number) {
        let (elements, bytes) = (kind.elements() as u64, kind.bytes() as u64);
        return Some(Type { name: kind.name(), elements, bytes, element: Element::Blocks(kind) });
    }
    Some(match number {
        0 => plain("F32", Element::F32),
        1 => plain("F16", Element::F16),
        9 => blocks("Q8_1", 32, 36),
        15 => blocks("Q8_K", 256, 292),
        24 => plain("I8", Element::Bytes(1)),
        25 => plain("I16", Element::Bytes(2)),
        26 => plain("I32", Element::Bytes(4)),
        27 => plain("I64", Element::Bytes(8)),
        28 => plain("F64", Element::Bytes(8)),
        30 => plain("BF16", Element::Bf16),
        41 => blocks("Q1_0", 128, 18),
        _ => return None,
    })
}
