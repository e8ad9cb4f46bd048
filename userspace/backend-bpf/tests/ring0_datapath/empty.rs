//! The empty program, by the bare system call: what BPF_PROG_TEST_RUN itself costs.

use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};

/// `bpf(2)` with an attribute block of words.
fn bpf(command: libc::c_long, attr: &mut [u64; 16]) -> i64 {
    // SAFETY: the block is larger than what the kernel reads of it (zero beyond what it knows), and every pointer in it outlives the call.
    unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) }
}

/// A loaded program that returns 0 and does nothing else.
pub(crate) struct Empty(OwnedFd);

impl Empty {
    /// Loads it.
    pub(crate) fn load() -> Self {
        // r0 = 0; exit
        let code: [u64; 2] = [0x0000_0000_0000_00b7, 0x0000_0000_0000_0095];
        let licence = c"GPL";
        let mut attr = [0u64; 16];
        // type (3 = SCHED_CLS) and number of instructions, code, licence
        attr[0] = 3 | 2 << 32;
        attr[1] = code.as_ptr() as u64;
        attr[2] = licence.as_ptr() as u64;
        let fd = bpf(5, &mut attr);
        assert!(fd >= 0, "cannot load the empty program: {}", std::io::Error::last_os_error());
        // SAFETY: a new file descriptor that nobody else knows.
        Self(unsafe { OwnedFd::from_raw_fd(fd as i32) })
    }

    /// Nanoseconds per run.
    pub(crate) fn ns(&self, frame: &[u8], repeat: u32) -> f64 {
        let mut attr = [0u64; 16];
        // prog_fd, retval | size_in, size_out | data_in | data_out | repeat, duration
        attr[0] = self.0.as_raw_fd() as u64;
        attr[1] = frame.len() as u64;
        attr[2] = frame.as_ptr() as u64;
        attr[4] = u64::from(repeat);
        let result = bpf(10, &mut attr);
        assert!(result >= 0, "cannot run the empty program: {}", std::io::Error::last_os_error());
        (attr[4] >> 32) as f64
    }
}
