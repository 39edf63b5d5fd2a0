//! Little-endian numbers on the wire: a writer into a `Vec<u8>` and a reader that never reads beyond its input.

use crate::error::{Error, Result};

/// Appends numbers to a byte vector.
pub(crate) trait Put {
    fn put_u16(&mut self, value: u16);
    fn put_u32(&mut self, value: u32);
    fn put_u64(&mut self, value: u64);
    /// LEB128: seven bits a byte, low bits first, the top bit set on all bytes but the last.
    fn put_varint(&mut self, value: u64);
    /// A length as varint, then the bytes.
    fn put_bytes(&mut self, bytes: &[u8]);
}

impl Put for Vec<u8> {
    fn put_u16(&mut self, value: u16) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u32(&mut self, value: u32) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_u64(&mut self, value: u64) {
        self.extend_from_slice(&value.to_le_bytes());
    }

    fn put_varint(&mut self, mut value: u64) {
        while value >= 0x80 {
            self.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.push(value as u8);
    }

    fn put_bytes(&mut self, bytes: &[u8]) {
        self.put_varint(bytes.len() as u64);
        self.extend_from_slice(bytes);
    }
}

/// Takes numbers off the front of a byte slice; every method fails with
/// [`ErrorKind::Corrupt`](crate::ErrorKind::Corrupt) when too little is left.
#[derive(Clone, Debug)]
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Reader { rest: bytes }
    }

    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        match self.rest.split_at_checked(len) {
            Some((front, rest)) => {
                self.rest = rest;
                Ok(front)
            }
            None => Err(Error::corrupt(format!("{len} bytes expected, {} left", self.rest.len()))),
        }
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        Ok(self.take(N)?.try_into().expect("take gives the length that was asked for"))
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        Ok(self.array::<1>()?[0])
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn varint(&mut self) -> Result<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                if byte == 0 && shift > 0 {
                    return Err(Error::corrupt("a variable-length number has a superfluous zero byte"));
                }
                return Ok(value);
            }
        }
        Err(Error::corrupt("a variable-length number is longer than 64 bits"))
    }

    /// A varint that counts items which take at least `least` bytes each of what is left, so that a forged count
    /// cannot ask for memory that the input has not earned.
    pub(crate) fn count(&mut self, least: usize) -> Result<usize> {
        let count = self.varint()?;
        if count > (self.remaining() / least.max(1)) as u64 {
            return Err(Error::corrupt(format!("{count} items cannot fit in {} bytes", self.remaining())));
        }
        Ok(count as usize)
    }

    /// A varint that must be at most `max`.
    pub(crate) fn varint_up_to(&mut self, max: u64) -> Result<u64> {
        let value = self.varint()?;
        if value > max {
            return Err(Error::corrupt(format!("{value} is above the limit of {max}")));
        }
        Ok(value)
    }

    /// A length as varint, then so many bytes.
    pub(crate) fn bytes(&mut self) -> Result<&'a [u8]> {
        let len = self.count(1)?;
        self.take(len)
    }

    /// Fails unless everything has been taken.
    pub(crate) fn finish(self) -> Result<()> {
        if self.rest.is_empty() {
            return Ok(());
        }
        Err(Error::corrupt(format!("{} bytes too many", self.rest.len())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(a: u16, b: u32, c: u64, d: u64, bytes: Vec<u8>) {
            let mut wire = Vec::new();
            wire.put_u16(a);
            wire.put_u32(b);
            wire.put_u64(c);
            wire.put_varint(d);
            wire.put_bytes(&bytes);
            let mut reader = Reader::new(&wire);
            prop_assert_eq!(reader.u16().unwrap(), a);
            prop_assert_eq!(reader.u32().unwrap(), b);
            prop_assert_eq!(reader.u64().unwrap(), c);
            prop_assert_eq!(reader.varint().unwrap(), d);
            prop_assert_eq!(reader.bytes().unwrap(), &bytes[..]);
            reader.finish().unwrap();
        }
    }

    #[test]
    fn extremes_of_varints() {
        for value in [0, 1, 0x7f, 0x80, u64::from(u32::MAX), u64::MAX] {
            let mut wire = Vec::new();
            wire.put_varint(value);
            assert_eq!(Reader::new(&wire).varint().unwrap(), value);
        }
        assert!(Reader::new(&[0xff; 9]).varint().is_err(), "it never ends");
        assert!(
            Reader::new(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x02]).varint().is_err(),
            "65 bits"
        );
        assert!(Reader::new(&[0x80, 0x00]).varint().is_err(), "zero in two bytes");
    }

    #[test]
    fn a_count_must_be_earned() {
        let mut wire = Vec::new();
        wire.put_varint(1 << 40);
        wire.extend_from_slice(&[0; 100]);
        assert!(Reader::new(&wire).count(1).is_err());
    }

    #[test]
    fn leftovers_are_refused() {
        assert!(Reader::new(&[0]).finish().is_err());
        assert!(Reader::new(&[]).u8().is_err());
    }
}
