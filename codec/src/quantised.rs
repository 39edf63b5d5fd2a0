//! The types of quantised tensors in GGUF files: *blocks* of elements that share a scale.

/// A type of blocks that is taken apart to be coded. (Others are coded as bytes.)
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
#[allow(missing_docs, non_camel_case_types, reason = "they are called what llama.cpp calls them")]
pub enum BlockType {
    Q4_0 = 2,
    Q4_1 = 3,
    Q5_0 = 6,
    Q5_1 = 7,
    Q8_0 = 8,
    Q2_K = 10,
    Q3_K = 11,
    Q4_K = 12,
    Q5_K = 13,
    Q6_K = 14,
    IQ2_XXS = 16,
    IQ2_XS = 17,
    IQ3_XXS = 18,
    IQ1_S = 19,
    IQ4_NL = 20,
    IQ3_S = 21,
    IQ2_S = 22,
    IQ4_XS = 23,
    IQ1_M = 29,
    TQ1_0 = 34,
    TQ2_0 = 35,
    MXFP4 = 39,
    NVFP4 = 40,
}

impl BlockType {
    /// All of them.
    pub(crate) const ALL: [BlockType; 23] = {
        use BlockType::*;
        [
            Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, IQ2_XXS, IQ2_XS, IQ3_XXS, IQ1_S, IQ4_NL, IQ3_S,
            IQ2_S, IQ4_XS, IQ1_M, TQ1_0, TQ2_0, MXFP4, NVFP4,
        ]
    };

    /// The type that GGUF files give this number.
    pub(crate) fn of_number(number: u32) -> Option<BlockType> {
        BlockType::ALL.into_iter().find(|kind| u32::from(kind.number()) == number)
    }

    /// The number that GGUF files give it.
    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    /// What llama.cpp calls it.
    pub fn name(self) -> &'static str {
        match self {
            BlockType::Q4_0 => "Q4_0",
            BlockType::Q4_1 => "Q4_1",
            BlockType::Q5_0 => "Q5_0",
            BlockType::Q5_1 => "Q5_1",
            BlockType::Q8_0 => "Q8_0",
            BlockType::Q2_K => "Q2_K",
            BlockType::Q3_K => "Q3_K",
            BlockType::Q4_K => "Q4_K",
            BlockType::Q5_K => "Q5_K",
            BlockType::Q6_K => "Q6_K",
            BlockType::IQ2_XXS => "IQ2_XXS",
            BlockType::IQ2_XS => "IQ2_XS",
            BlockType::IQ3_XXS => "IQ3_XXS",
            BlockType::IQ1_S => "IQ1_S",
            BlockType::IQ4_NL => "IQ4_NL",
            BlockType::IQ3_S => "IQ3_S",
            BlockType::IQ2_S => "IQ2_S",
            BlockType::IQ4_XS => "IQ4_XS",
            BlockType::IQ1_M => "IQ1_M",
            BlockType::TQ1_0 => "TQ1_0",
            BlockType::TQ2_0 => "TQ2_0",
            BlockType::MXFP4 => "MXFP4",
            BlockType::NVFP4 => "NVFP4",
        }
    }

    /// Bytes of a block.
    pub const fn bytes(self) -> usize {
        match self {
            BlockType::Q4_0 | BlockType::IQ4_NL => 18,
            BlockType::Q4_1 => 20,
            BlockType::Q5_0 => 22,
            BlockType::Q5_1 => 24,
            BlockType::Q8_0 => 34,
            BlockType::Q2_K => 84,
            BlockType::Q3_K | BlockType::IQ3_S => 110,
            BlockType::Q4_K => 144,
            BlockType::Q5_K => 176,
            BlockType::Q6_K => 210,
            BlockType::IQ2_XXS | BlockType::TQ2_0 => 66,
            BlockType::IQ2_XS => 74,
            BlockType::IQ3_XXS => 98,
            BlockType::IQ1_S => 50,
            BlockType::IQ2_S => 82,
            BlockType::IQ4_XS => 136,
            BlockType::IQ1_M => 56,
            BlockType::TQ1_0 => 54,
            BlockType::MXFP4 => 17,
            BlockType::NVFP4 => 36,
        }
    }

    /// Elements of a block.
    pub const fn elements(self) -> usize {
        match self {
            BlockType::Q4_0
            | BlockType::Q4_1
            | BlockType::Q5_0
            | BlockType::Q5_1
            | BlockType::Q8_0
            | BlockType::IQ4_NL
            | BlockType::MXFP4 => 32,
            BlockType::NVFP4 => 64,
            _ => 256,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_type_has_a_number_and_a_name_of_its_own() {
        for (at, kind) in BlockType::ALL.into_iter().enumerate() {
            assert_eq!(BlockType::of_number(u32::from(kind.number())), Some(kind));
            assert_eq!(format!("{kind:?}"), kind.name());
            assert!(BlockType::ALL[..at].iter().all(|&other| other < kind), "in the order of their numbers");
        }
        assert_eq!(BlockType::of_number(0), None);
        assert_eq!(BlockType::of_number(264), None, "as a byte it would be 8");
    }
}
