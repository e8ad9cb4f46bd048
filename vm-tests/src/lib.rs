//! Virtual machines for tests: Debian's kernel and an initramfs made here, under QEMU.
//!
//! A [`Machine`] is a guest on a tap of a hypervisor's namespace. It has busybox for a user space and takes shell commands from the
//! test through a second serial port. Nothing is installed: the kernel's package is unpacked below the target directory.
//!
//! ```text
//!  test ──unix socket──▶ ttyS1: commands, answers        ttyS0 ──▶ console.log
//!                              └── /init (busybox sh) ──┘
//!                                       eth0: virtio-net ── tap ── hypervisor
//! ```

pub mod accelerator;
pub mod initramfs;
pub mod kernel;
pub mod machine;

pub use accelerator::Accelerator;
pub use kernel::Kernel;
pub use machine::{GuestImage, Machine, MachineSpec};
