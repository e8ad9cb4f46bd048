//! Virtual machines for tests: Debian's kernels and an initramfs made here, under QEMU.
//!
//! A [`Machine`] boots a [`GuestImage`]: a [`Kernel`] and a [`GuestRoot`], which holds busybox and whatever else is put into it (programs of
//! this machine come with their libraries). It takes shell commands from the test through a virtio serial port, which loses nothing however slow
//! the guest is. Nothing is installed: a kernel's package is unpacked below the target directory.
//!
//! ```text
//!  test ──unix socket──▶ vport0p1: commands, answers     ttyS0 ──▶ console
//!                               └── /init (busybox sh) ──┘
//!                                       eth0, …: virtio-net or e1000e ── tap of a namespace, or a wire to another guest
//! ```

pub mod accelerator;
pub mod apt;
pub mod image;
pub mod initramfs;
pub mod kernel;
pub mod machine;
pub mod nic;
pub mod root;

pub use accelerator::Accelerator;
pub use image::GuestImage;
pub use kernel::{Choice, Kernel};
pub use machine::{Machine, MachineSpec};
pub use nic::Nic;
pub use root::GuestRoot;
