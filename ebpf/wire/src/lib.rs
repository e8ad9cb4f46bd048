#![no_std]
#![forbid(unsafe_code)]
//! Headers on the wire: read into the field vector and the verdict key, written for tunnels.
//!
//! The same code runs in the kernel programs and on the host. It reads through [`Frame`], which a slice implements here and the socket buffer
//! in the programs; it never panics, never loops without a constant bound and never indexes by an unproven value, so that the
//! verifier accepts it and tests on the host prove what the kernel does.
//!
//! | module | what |
//! |---|---|
//! | [`frame`] | where bytes come from |
//! | [`parse`] | a frame into the field vector |
//! | [`key`] | a frame, or a vector, into the verdict key |
//! | [`tunnel`] | outer headers: Geneve read and written, VXLAN written |
//! | [`checksum`] | the Internet checksum (RFC 1071) |

pub mod checksum;
pub mod frame;
pub mod key;
pub mod parse;
pub mod tunnel;
