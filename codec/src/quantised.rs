//! The types of quantised tensors in GGUF files: *blocks* of elements that share a scale.

/// Makes the types of a list of them.
macro_rules! block_types {
    ($($name:ident = $number:literal: $elements:literal elements in $bytes:literal bytes,)*) => {
        /// A type of blocks that is taken apart to be coded. (Others are coded as bytes.)
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[repr(u8)]
        #[allow(missing_docs, non_camel_case_types, reason = "they are called what llama.cpp calls them")]
        pub enum BlockType {
            $($name = $number,)*
        }

        impl BlockType {
            /// All of them.
            pub(crate) const ALL: [BlockType; [$($number,)*].len()] = [$(BlockType::$name,)*];

            /// What llama.cpp calls it.
            pub fn name(self) -> &'static str {
                match self {
                    $(BlockType::$name => stringify!($name),)*
                }
            }

            /// Bytes of a block.
            pub const fn bytes(self) -> usize {
                match self {
                    $(BlockType::$name => $bytes,)*
                }
            }

            /// Elements of a block.
            pub const fn elements(self) -> usize {
                match self {
                    $(BlockType::$name => $elements,)*
                }
            }
        }
    };
}

block_types! {
    Q4_0 = 2: 32 elements in 18 bytes,
    Q4_1 = 3: 32 elements in 20 bytes,
    Q5_0 = 6: 32 elements in 22 bytes,
    Q5_1 = 7: 32 elements in 24 bytes,
    Q8_0 = 8: 32 elements in 34 bytes,
    Q2_K = 10: 256 elements in 84 bytes,
    Q3_K = 11: 256 elements in 110 bytes,
    Q4_K = 12: 256 elements in 144 bytes,
    Q5_K = 13: 256 elements in 176 bytes,
    Q6_K = 14: 256 elements in 210 bytes,
    IQ2_XXS = 16: 256 elements in 66 bytes,
    IQ2_XS = 17: 256 elements in 74 bytes,
    IQ3_XXS = 18: 256 elements in 98 bytes,
    IQ1_S = 19: 256 elements in 50 bytes,
    IQ4_NL = 20: 32 elements in 18 bytes,
    IQ3_S = 21: 256 elements in 110 bytes,
    IQ2_S = 22: 256 elements in 82 bytes,
    IQ4_XS = 23: 256 elements in 136 bytes,
    IQ1_M = 29: 256 elements in 56 bytes,
    TQ1_0 = 34: 256 elements in 54 bytes,
    TQ2_0 = 35: 256 elements in 66 bytes,
    MXFP4 = 39: 32 elements in 17 bytes,
    NVFP4 = 40: 64 elements in 36 bytes,
}

impl BlockType {
    /// The type that GGUF files give this number.
    pub(crate) fn of_number(number: u32) -> Option<BlockType> {
        BlockType::ALL.into_iter().find(|kind| u32::from(kind.number()) == number)
    }

    /// The number that GGUF files give it.
    pub(crate) const fn number(self) -> u8 {
        self as u8
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
