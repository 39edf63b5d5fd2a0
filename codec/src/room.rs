//! Memory that may not be there.

use std::io;

use crate::error::{Error, Result};

/// Makes `buffer` `len` bytes long. What is in it is of no account.
///
/// For buffers as large as a chunk, which a process that others depend on must be able to go without: `Vec::resize` ends
/// the process.
///
/// # Errors
/// [`ErrorKind::Io`](crate::ErrorKind::Io) when there is no memory; `buffer` is as it was.
pub fn make_room(buffer: &mut Vec<u8>, len: usize) -> Result<()> {
    buffer.try_reserve_exact(len.saturating_sub(buffer.len())).map_err(|_| {
        let why = io::Error::from(io::ErrorKind::OutOfMemory);
        Error::io(format_args!("no memory for {len} bytes"), why)
    })?;
    buffer.resize(len, 0);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_that_is_not_there_is_an_error() {
        let mut buffer = vec![7; 10];
        let error = make_room(&mut buffer, usize::MAX / 4).unwrap_err();
        assert_eq!(error.io_error().unwrap().kind(), io::ErrorKind::OutOfMemory);
        assert_eq!(buffer, [7; 10]);
        make_room(&mut buffer, 20).unwrap();
        assert_eq!(buffer.len(), 20);
        make_room(&mut buffer, 5).unwrap();
        assert_eq!(buffer.len(), 5);
    }
}
