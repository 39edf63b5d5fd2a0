//! A read-only FUSE filesystem that shows containers as the files they were made from.
