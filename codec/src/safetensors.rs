//! What the header of a safetensors file says of its tensors.
//!
//! The crate `safetensors` reads files that keep all the rules. An original may break some of them (gaps, odd order,
//! unknown dtypes, trailing bytes) and must still come back byte for byte and compress well, so the header is read
//! here without its checks of the layout; what a dtype is remains that crate's knowledge.

use safetensors::Dtype;
use serde_json::Value;

use crate::error::Result;
use crate::layout::{Header, TensorLayout};
use crate::original::Original;
use crate::split::Element;

/// Bytes of the header's length at the start of the file.
const LENGTH_BYTES: u64 = 8;

/// The longest header that is looked into; the crate `safetensors` has the same limit.
const LONGEST_HEADER: u64 = 100_000_000;

/// The header of a safetensors file; `None` when it is none, or cannot be relied on.
///
/// # Errors
/// Only those of reading `source`.
pub(crate) fn read_header(source: &dyn Original) -> Result<Option<Header>> {
    if source.len() < LENGTH_BYTES {
        return Ok(None);
    }
    let mut length = [0; LENGTH_BYTES as usize];
    source.read_at(0, &mut length)?;
    let length = u64::from_le_bytes(length);
    if length > LONGEST_HEADER || length > source.len() - LENGTH_BYTES {
        return Ok(None);
    }
    let mut header = vec![0; length as usize];
    source.read_at(LENGTH_BYTES, &mut header)?;
    let data = LENGTH_BYTES + length;
    Ok(parse_header(&header, data, source.len()).map(|tensors| Header { data, tensors }))
}

/// The tensors of a header; `None` when they cannot be relied on.
fn parse_header(header: &[u8], data: u64, len: u64) -> Option<Vec<TensorLayout>> {
    let Value::Object(entries) = serde_json::from_slice(header).ok()? else { return None };
    let tensors = entries.iter().filter(|(name, _)| *name != "__metadata__");
    tensors.map(|(name, entry)| parse_tensor(name, entry, data, len)).collect()
}

/// One entry of a header; `None` when it is not that of a tensor inside the file, as long as its shape says.
fn parse_tensor(name: &str, entry: &Value, data: u64, len: u64) -> Option<TensorLayout> {
    let dtype = entry.get("dtype")?.as_str()?.to_owned();
    let numbers = |key: &str| entry.get(key)?.as_array()?.iter().map(Value::as_u64).collect::<Option<Vec<u64>>>();
    let shape = numbers("shape")?;
    let [start, end] = numbers("data_offsets")?[..] else { return None };
    let range = data.checked_add(start)?..data.checked_add(end)?;
    if range.start > range.end || range.end > len {
        return None;
    }
    let elements = shape.iter().try_fold(1u64, |product, &dim| product.checked_mul(dim))?;
    if let Some(dtype) = known_dtype(&dtype) {
        let bits = elements.checked_mul(dtype.bitsize() as u64)?;
        if bits.div_ceil(8) != range.end - range.start {
            return None;
        }
    }
    let element = element_of(&dtype, range.end - range.start);
    Some(TensorLayout { name: name.to_owned(), dtype, shape, range, element })
}

/// The dtype that a header spells so, if the crate `safetensors` knows it.
fn known_dtype(spelling: &str) -> Option<Dtype> {
    serde_json::from_value(Value::String(spelling.to_owned())).ok()
}

/// The elements of a tensor of `len` bytes.
fn element_of(dtype: &str, len: u64) -> Element {
    let element = match dtype {
        "BF16" => Element::Bf16,
        "F16" => Element::F16,
        "F32" | "C64" => Element::F32,
        "F8_E4M3" => Element::F8E4M3,
        "F8_E5M2" => Element::F8E5M2,
        "I16" | "U16" => Element::Bytes(2),
        "I32" | "U32" => Element::Bytes(4),
        "I64" | "U64" | "F64" => Element::Bytes(8),
        _ => Element::Bytes(1),
    };
    if len.is_multiple_of(element.size() as u64) { element } else { Element::Bytes(1) }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::layout::Content;
    use crate::layout::tests::{is_opaque, layout};
    use proptest::prelude::*;

    /// A safetensors file with this header and so many bytes of data.
    pub(crate) fn file(header: &str, data: usize) -> Vec<u8> {
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend_from_slice(header.as_bytes());
        file.extend((0..data).map(|i| (i * 31 % 251) as u8));
        file
    }

    #[test]
    fn tensors_gaps_and_trailing_bytes_are_segments() {
        let header = r#"{"b":{"dtype":"F32","shape":[100,200],"data_offsets":[80010,160010]},
            "__metadata__":{"format":"pt"},"a":{"dtype":"BF16","shape":[40000],"data_offsets":[0,80000]},
            "empty":{"dtype":"F16","shape":[0,3],"data_offsets":[80000,80000]},
            "scalar":{"dtype":"I64","shape":[],"data_offsets":[160010,160018]}}"#;
        let layout = layout(&file(header, 160_030));
        let names: Vec<&str> = layout.tensors.iter().map(|t| t.name.as_str()).collect();
        assert_eq!(names, ["a", "empty", "b", "scalar"]);
        use Content::*;
        let contents: Vec<_> = layout.segments.iter().map(|s| (s.content, s.element)).collect();
        assert_eq!(
            contents,
            [
                (Header, Element::Bytes(1)),
                (Tensor, Element::Bf16),
                (Opaque, Element::Bytes(1)),
                (Tensor, Element::F32),
                (TinyTensors, Element::Bytes(8)),
                (Opaque, Element::Bytes(1)),
            ]
        );
    }

    #[test]
    fn neighbouring_tiny_tensors_of_one_kind_are_grouped() {
        let header = r#"{"a":{"dtype":"F32","shape":[10],"data_offsets":[0,40]},"b":{"dtype":"F32","shape":[],"data_offsets":[40,44]},
            "c":{"dtype":"F16","shape":[2],"data_offsets":[44,48]}}"#;
        assert_eq!(layout(&file(header, 48)).segments.len(), 3);
    }

    #[test]
    fn what_cannot_be_relied_on_is_opaque() {
        let tensor = |dtype: &str, shape: &str, offsets: &str| {
            format!(r#"{{"a":{{"dtype":"{dtype}","shape":{shape},"data_offsets":{offsets}}}}}"#)
        };
        assert!(!is_opaque(&file(&tensor("F32", "[2]", "[0,8]"), 8)));
        assert!(!is_opaque(&file(&tensor("NEW_DTYPE", "[2]", "[0,7]"), 8)), "an unknown dtype is a tensor of bytes");
        assert!(!is_opaque(&file(&tensor("F4", "[3,2]", "[0,3]"), 3)), "half bytes");
        assert!(is_opaque(&file(&tensor("F32", "[2]", "[0,12]"), 12)), "longer than its shape");
        assert!(is_opaque(&file(&tensor("F32", "[2]", "[8,0]"), 8)), "ends before it starts");
        assert!(is_opaque(&file(&tensor("F32", "[2]", "[4,12]"), 8)), "reaches beyond the file");
        assert!(is_opaque(&file(&tensor("F32", "[4294967296,4294967296]", "[0,8]"), 8)), "a shape that overflows");
        assert!(
            is_opaque(&file(&tensor("F32", "[2]", "[18446744073709551608,18446744073709551615]"), 8)),
            "offsets that overflow"
        );
        assert!(
            is_opaque(&file(
                r#"{"a":{"dtype":"I8","shape":[4],"data_offsets":[0,4]},"b":{"dtype":"I8","shape":[4],"data_offsets":[3,7]}}"#,
                8
            )),
            "overlap"
        );
        assert!(is_opaque(&file("[1,2]", 8)) && is_opaque(&file("{", 8)) && is_opaque(&file("", 0)));
        assert!(is_opaque(b"") && is_opaque(b"short") && is_opaque(&[0xff; 100]));
    }

    proptest! {
        #[test]
        fn any_bytes_have_a_layout(bytes: Vec<u8>, header: String) {
            layout(&bytes);
            layout(&file(&header, bytes.len()));
        }

        #[test]
        fn files_that_the_crate_accepts_have_the_same_tensors(shapes in prop::collection::vec(prop::collection::vec(0..40usize, 0..3), 0..8)) {
            let data = vec![7u8; 40 * 40 * 4];
            let views = shapes.iter().enumerate().map(|(i, shape)| {
                let len = shape.iter().product::<usize>() * 4;
                (format!("t{i}"), safetensors::tensor::TensorView::new(Dtype::F32, shape.clone(), &data[..len]).unwrap())
            });
            let bytes = safetensors::serialize(views, None).unwrap();
            let (header_len, metadata) = safetensors::SafeTensors::read_metadata(&bytes).unwrap();
            let ours = layout(&bytes);
            prop_assert_eq!(ours.tensors.len(), metadata.tensors().len());
            for tensor in &ours.tensors {
                let info = metadata.info(&tensor.name).unwrap();
                let data = LENGTH_BYTES as usize + header_len;
                prop_assert_eq!(tensor.range.start as usize - data, info.data_offsets.0);
                prop_assert_eq!(tensor.range.end as usize - data, info.data_offsets.1);
                prop_assert!(tensor.shape.iter().map(|&d| d as usize).eq(info.shape.iter().copied()));
            }
        }
    }
}
