//! The dtypes as the Python package spells them, and as a safetensors file does.

use crate::error::{Error, Result};

/// A dtype: its spelling in safetensors, the bits of an element, its spelling in torch.
type Row = (&'static str, u32, &'static str);

/// What this dtype of torch holds in an element is two of safetensors'.
const PAIRS: &str = "float4_e2m1fn_x2";

/// The dtypes in the order in which a safetensors file has their tensors.
const DTYPES: [Row; 22] = [
    ("U64", 64, "uint64"),
    ("I64", 64, "int64"),
    ("F64", 64, "float64"),
    ("C64", 64, "complex64"),
    ("F32", 32, "float32"),
    ("U32", 32, "uint32"),
    ("I32", 32, "int32"),
    ("BF16", 16, "bfloat16"),
    ("F16", 16, "float16"),
    ("U16", 16, "uint16"),
    ("I16", 16, "int16"),
    ("F8_E5M2FNUZ", 8, "float8_e5m2fnuz"),
    ("F8_E4M3FNUZ", 8, "float8_e4m3fnuz"),
    ("F8_E8M0", 8, "float8_e8m0fnu"),
    ("F8_E4M3", 8, "float8_e4m3fn"),
    ("F8_E5M2", 8, "float8_e5m2"),
    ("I8", 8, "int8"),
    ("U8", 8, "uint8"),
    ("F6_E3M2", 6, "float6_e3m2"),
    ("F6_E2M3", 6, "float6_e2m3"),
    ("F4", 4, PAIRS),
    ("BOOL", 8, "bool"),
];

/// The dtype of a tensor.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Dtype {
    /// Its place in [`DTYPES`]: smaller ones come first in a file.
    rank: usize,
}

impl Dtype {
    /// The dtype that is `spelled` as torch or safetensors do, and whether an element of the shape is two.
    ///
    /// # Errors
    /// [`ErrorKind::Unsupported`](crate::ErrorKind::Unsupported) when there is none.
    pub(super) fn parse(spelled: &str) -> Result<(Dtype, bool)> {
        let is = |(safetensors, _, torch): &Row| *torch == spelled || safetensors.eq_ignore_ascii_case(spelled);
        match DTYPES.iter().position(is) {
            Some(rank) => Ok((Dtype { rank }, spelled == PAIRS)),
            None => Err(Error::unsupported(format!("the dtype {spelled:?} is not known"))),
        }
    }

    /// Its spelling in safetensors.
    pub(super) fn name(self) -> &'static str {
        DTYPES[self.rank].0
    }

    /// The bytes of `elements` elements; `None` when they are too many or do not fill their last byte.
    pub(super) fn bytes(self, elements: u64) -> Option<u64> {
        let bits = elements.checked_mul(u64::from(DTYPES[self.rank].1))?;
        bits.is_multiple_of(8).then_some(bits / 8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_spellings_are_known() {
        for (safetensors, _, torch) in DTYPES {
            let parsed = [safetensors, &safetensors.to_lowercase(), torch].map(|s| Dtype::parse(s).unwrap().0);
            assert!(parsed.iter().all(|dtype| dtype.name() == safetensors), "{safetensors}");
        }
        assert!(Dtype::parse("float128").is_err());
        assert_eq!(Dtype::parse("F4").unwrap(), (Dtype { rank: 20 }, false));
        assert_eq!(Dtype::parse("float4_e2m1fn_x2").unwrap(), (Dtype { rank: 20 }, true));
    }

    #[test]
    fn bytes_are_whole() {
        let (f4, _) = Dtype::parse("F4").unwrap();
        assert_eq!((f4.bytes(6), f4.bytes(7), f4.bytes(u64::MAX)), (Some(3), None, None));
    }

    #[test]
    fn tensors_are_ordered_as_the_crate_safetensors_orders_them() {
        let known: Vec<safetensors::Dtype> = DTYPES
            .iter()
            .filter_map(|row| serde_json::from_value(serde_json::Value::String(row.0.to_owned())).ok())
            .collect();
        assert!(known.len() >= 20, "{known:?}");
        assert!(known.is_sorted_by(|a, b| a > b), "{known:?}");
    }
}
