//! What types of tensors there are in GGUF files.

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
    Some(match number {
        0 => plain("F32", Element::F32),
        1 => plain("F16", Element::F16),
        2 => blocks("Q4_0", 32, 18),
        3 => blocks("Q4_1", 32, 20),
        6 => blocks("Q5_0", 32, 22),
        7 => blocks("Q5_1", 32, 24),
        8 => blocks("Q8_0", 32, 34),
        9 => blocks("Q8_1", 32, 36),
        10 => blocks("Q2_K", 256, 84),
        11 => blocks("Q3_K", 256, 110),
        12 => blocks("Q4_K", 256, 144),
        13 => blocks("Q5_K", 256, 176),
        14 => blocks("Q6_K", 256, 210),
        15 => blocks("Q8_K", 256, 292),
        16 => blocks("IQ2_XXS", 256, 66),
        17 => blocks("IQ2_XS", 256, 74),
        18 => blocks("IQ3_XXS", 256, 98),
        19 => blocks("IQ1_S", 256, 50),
        20 => blocks("IQ4_NL", 32, 18),
        21 => blocks("IQ3_S", 256, 110),
        22 => blocks("IQ2_S", 256, 82),
        23 => blocks("IQ4_XS", 256, 136),
        24 => plain("I8", Element::Bytes(1)),
        25 => plain("I16", Element::Bytes(2)),
        26 => plain("I32", Element::Bytes(4)),
        27 => plain("I64", Element::Bytes(8)),
        28 => plain("F64", Element::Bytes(8)),
        29 => blocks("IQ1_M", 256, 56),
        30 => plain("BF16", Element::Bf16),
        34 => blocks("TQ1_0", 256, 54),
        35 => blocks("TQ2_0", 256, 66),
        39 => blocks("MXFP4", 32, 17),
        _ => return None,
    })
}
