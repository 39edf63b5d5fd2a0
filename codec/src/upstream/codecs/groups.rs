//! `group_stream_v1`: several small tensors of one shape in one blob.

use std::collections::HashMap;

use serde_json::Value;

use super::{Expected, decode as decode_blob};
use crate::error::{Error, Result};
use crate::wire::Reader;

/// All members of a group together; `expected` is one of them, of which it has as many as it names.
pub(super) fn decode(extra: &Value, stored: &[u8], expected: &Expected) -> Result<Vec<u8>> {
    let members = member_names(extra)?.len();
    let bytes_of_one = expected.bytes / members.max(1);
    if members == 0 || bytes_of_one * members != expected.bytes {
        return Err(Error::corrupt(format!("{} bytes are not those of {members} members", expected.bytes)));
    }
    match extra.get("group_kind").and_then(Value::as_str) {
        Some("stack") => {
            let codec = plain_codec(extra.get("inner_codec"))?;
            decode_blob(codec, extra.get("inner_extras").unwrap_or(&Value::Null), stored, expected)
        }
        Some("chain") => chain(extra, stored, members, expected),
        kind => Err(Error::unsupported(format!("a group of kind {kind:?} is not known"))),
    }
}

/// Each member is the difference from the one before.
fn chain(extra: &Value, stored: &[u8], members: usize, expected: &Expected) -> Result<Vec<u8>> {
    let parts = extra.get("chain_parts").and_then(Value::as_array).filter(|parts| parts.len() == members);
    let parts = parts.ok_or_else(|| Error::corrupt("a chain does not have a part for each member"))?;
    let (elements, bytes) = (expected.elements / members, expected.bytes / members);
    let one = Expected { elements, bytes };
    let mut reader = Reader::new(stored);
    let mut all = super::reserve(expected.bytes)?;
    for part in parts {
        let len = part.get(2).and_then(Value::as_u64).and_then(|len| usize::try_from(len).ok());
        let len = len.ok_or_else(|| Error::corrupt("a part of a chain has no length"))?;
        let codec = plain_codec(part.get(0))?;
        let mut member = decode_blob(codec, part.get(1).unwrap_or(&Value::Null), reader.take(len)?, &one)?;
        if !all.is_empty() {
            let previous = &all[all.len() - bytes..];
            match bytes.checked_div(elements) {
                Some(2) => add::<2>(&mut member, previous, |a, b| {
                    u16::from_le_bytes(a).wrapping_add(u16::from_le_bytes(b)).to_le_bytes()
                }),
                Some(4) => add::<4>(&mut member, previous, |a, b| {
                    u32::from_le_bytes(a).wrapping_add(u32::from_le_bytes(b)).to_le_bytes()
                }),
                _ => return Err(Error::corrupt("a chain of elements that have neither 2 nor 4 bytes")),
            }
        }
        all.append(&mut member);
    }
    reader.finish()?;
    Ok(all)
}

fn add<const W: usize>(to: &mut [u8], other: &[u8], add: impl Fn([u8; W], [u8; W]) -> [u8; W]) {
    let (to, other) = (to.as_chunks_mut::<W>().0, other.as_chunks::<W>().0);
    to.iter_mut().zip(other).for_each(|(to, other)| *to = add(*to, *other));
}

/// The name of a codec within a group, which is not itself one of groups: that would have no end.
fn plain_codec(name: Option<&Value>) -> Result<&str> {
    match name.and_then(Value::as_str) {
        Some("group_stream_v1") => Err(Error::corrupt("a group within a group")),
        Some(name) => Ok(name),
        None => Err(Error::corrupt("a group without its codec")),
    }
}

fn member_names(extra: &Value) -> Result<&[Value]> {
    let members = extra.get("members").and_then(Value::as_array);
    members.map(Vec::as_slice).ok_or_else(|| Error::corrupt("a group does not name its members"))
}

/// The members of the group of `extra`, each with its number.
pub(in crate::upstream) fn group_members(extra: &Value) -> Result<HashMap<&str, usize>> {
    let names = member_names(extra)?;
    let members: HashMap<&str, usize> =
        names.iter().enumerate().filter_map(|(number, name)| Some((name.as_str()?, number))).collect();
    match members.len() == names.len() {
        true => Ok(members),
        false => Err(Error::corrupt("a group names a member twice, or not at all")),
    }
}
