//! The system call itself, for what aya has no call for: programs of a few instructions written here, and runs of them.
//!
//! A BPF_PROG_TEST_RUN repeats on one buffer, so all its packets would be of one flow. The [`Driver`] is what makes them many: it writes the next
//! frame of a table into the buffer and goes on, by a tail call, to the program that is measured. The base of every ratio is the same driver in
//! front of a program that does nothing.

use anyhow::{Context as _, Result, bail};
use std::os::fd::{AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

/// Bytes of a frame that the driver writes: headers.
pub(crate) const HEAD: usize = 64;
/// `struct __sk_buff` (linux/bpf.h): its size, and where the interface index is.
const SKB_CONTEXT: usize = 192;
const SKB_IFINDEX: usize = 40;

/// Commands of bpf(2).
const MAP_CREATE: libc::c_long = 0;
const MAP_UPDATE: libc::c_long = 2;
const PROG_LOAD: libc::c_long = 5;
const PROG_TEST_RUN: libc::c_long = 10;
/// Map types.
const ARRAY: u64 = 2;
const PROG_ARRAY: u64 = 3;
/// Program type.
const SCHED_CLS: u64 = 3;

/// `bpf(2)` with an attribute block of words.
fn bpf(command: libc::c_long, attr: &mut [u64; 16]) -> std::io::Result<i64> {
    // SAFETY: the block is larger than what the kernel reads of it (zero beyond what it knows), and every pointer in it outlives the call.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, attr.as_mut_ptr(), size_of_val(attr)) };
    if result < 0 { Err(std::io::Error::last_os_error()) } else { Ok(result) }
}

fn owned(fd: i64) -> OwnedFd {
    // SAFETY: a new file descriptor that nobody else knows.
    unsafe { OwnedFd::from_raw_fd(fd as i32) }
}

fn map(kind: u64, value: usize, entries: usize) -> Result<OwnedFd> {
    let mut attr = [0u64; 16];
    // type, key size | value size, entries
    attr[0] = kind | 4 << 32;
    attr[1] = value as u64 | (entries as u64) << 32;
    bpf(MAP_CREATE, &mut attr).map(owned).context("cannot make a map")
}

fn update(map: &OwnedFd, index: u32, value: &[u8]) -> Result<()> {
    let mut attr = [0u64; 16];
    attr[0] = map.as_raw_fd() as u64;
    attr[1] = (&raw const index) as u64;
    attr[2] = value.as_ptr() as u64;
    bpf(MAP_UPDATE, &mut attr).map(drop).context("cannot write a map")
}

fn load(code: &[u64]) -> Result<OwnedFd> {
    let licence = c"GPL";
    let mut log = vec![0u8; 1 << 16];
    let mut attr = [0u64; 16];
    // type | number of instructions, code, licence, log level | log size, log
    attr[0] = SCHED_CLS | (code.len() as u64) << 32;
    attr[1] = code.as_ptr() as u64;
    attr[2] = licence.as_ptr() as u64;
    attr[3] = 1 | (log.len() as u64) << 32;
    attr[4] = log.as_mut_ptr() as u64;
    match bpf(PROG_LOAD, &mut attr) {
        Ok(fd) => Ok(owned(fd)),
        Err(error) => bail!("cannot load a program: {error}\n{}", String::from_utf8_lossy(&log)),
    }
}

/// What runs came to.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ran {
    /// Nanoseconds per run, as the kernel measured them (whole numbers).
    pub(crate) ns: u32,
}

/// Runs a program `repeat` times on one buffer, as if the frame had come by the device.
pub(crate) fn run(program: BorrowedFd<'_>, ifindex: u32, frame: &[u8], repeat: u32) -> Result<Ran> {
    let mut context = [0u8; SKB_CONTEXT];
    context[SKB_IFINDEX..SKB_IFINDEX + 4].copy_from_slice(&ifindex.to_ne_bytes());
    let mut attr = [0u64; 16];
    // prog_fd, retval | size_in, size_out | data_in | data_out | repeat, duration | ctx_size_in, ctx_size_out | ctx_in
    attr[0] = program.as_raw_fd() as u64;
    attr[1] = frame.len() as u64;
    attr[2] = frame.as_ptr() as u64;
    attr[4] = u64::from(repeat);
    attr[5] = SKB_CONTEXT as u64;
    attr[6] = context.as_ptr() as u64;
    bpf(PROG_TEST_RUN, &mut attr).context("BPF_PROG_TEST_RUN")?;
    Ok(Ran { ns: (attr[4] >> 32) as u32 })
}

/// The program that does nothing.
pub(crate) fn empty() -> Result<OwnedFd> {
    load(&[mov(0, 0), EXIT])
}

// Instructions (Documentation/bpf/standardization/instruction-set.rst): opcode, destination, source, offset, immediate.
const fn insn(code: u8, dst: u8, src: u8, off: i16, imm: i32) -> u64 {
    code as u64 | (dst as u64) << 8 | (src as u64) << 12 | (off as u16 as u64) << 16 | (imm as u32 as u64) << 32
}
const EXIT: u64 = insn(0x95, 0, 0, 0, 0);
const fn mov(dst: u8, imm: i32) -> u64 {
    insn(0xb7, dst, 0, 0, imm)
}
const fn copy(dst: u8, src: u8) -> u64 {
    insn(0xbf, dst, src, 0, 0)
}
const fn add(dst: u8, imm: i32) -> u64 {
    insn(0x07, dst, 0, 0, imm)
}
const fn add_reg(dst: u8, src: u8) -> u64 {
    insn(0x0f, dst, src, 0, 0)
}
const fn xor_reg(dst: u8, src: u8) -> u64 {
    insn(0xaf, dst, src, 0, 0)
}
const fn load4(dst: u8, src: u8, off: i16) -> u64 {
    insn(0x61, dst, src, off, 0)
}
const fn load8(dst: u8, src: u8, off: i16) -> u64 {
    insn(0x79, dst, src, off, 0)
}
const fn store4(dst: u8, off: i16, src: u8) -> u64 {
    insn(0x63, dst, src, off, 0)
}
const fn store8(dst: u8, off: i16, src: u8) -> u64 {
    insn(0x7b, dst, src, off, 0)
}
const fn call(helper: i32) -> u64 {
    insn(0x85, 0, 0, 0, helper)
}
const LOOKUP: i32 = 1;
const TAIL_CALL: i32 = 12;
const SMP_PROCESSOR_ID: i32 = 8;

/// Which program follows the driver: index into its program array.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// Nothing.
    Empty = 0,
    /// `oxbow_vif`.
    Vif = 1,
}

/// What one CPU's runs take from the table.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cursor {
    /// First frame.
    pub(crate) first: u32,
    /// How many frames, in turn.
    pub(crate) count: u32,
    /// Next frame, from `first`.
    pub(crate) next: u32,
    /// Added to `salt` at the end of each turn.
    pub(crate) step: u32,
    /// Xored into the ports of every frame: 0 = as in the table; else flows that were never there.
    pub(crate) salt: u32,
    /// [`Target`]
    pub(crate) target: u32,
}

/// Frames from a table, one after the other, into the program that is measured.
pub(crate) struct Driver {
    program: OwnedFd,
    cursors: OwnedFd,
    frames: OwnedFd,
    targets: OwnedFd,
}

/// CPUs with a cursor of their own.
const CPUS: usize = 256;
/// Bytes apart, so that CPUs do not share a cache line.
const STRIDE: usize = 128;

impl Driver {
    /// With room for so many frames.
    pub(crate) fn new(frames: usize) -> Result<Driver> {
        let cursors = map(ARRAY, STRIDE, CPUS)?;
        let frames = map(ARRAY, HEAD, frames)?;
        let targets = map(PROG_ARRAY, 4, 2)?;
        let program = load(&code(&cursors, &frames, &targets))?;
        Ok(Driver { program, cursors, frames, targets })
    }

    /// What `target` means.
    pub(crate) fn aim(&self, target: Target, program: BorrowedFd<'_>) -> Result<()> {
        update(&self.targets, target as u32, &program.as_raw_fd().to_ne_bytes())
    }

    /// Puts a frame into the table.
    pub(crate) fn frame(&self, index: u32, frame: &[u8]) -> Result<()> {
        let head = frame.get(..HEAD).context("a frame shorter than what the driver writes")?;
        update(&self.frames, index, head)
    }

    /// Sets what runs on a CPU take.
    pub(crate) fn cursor(&self, cpu: usize, cursor: Cursor) -> Result<()> {
        let mut value = [0u8; STRIDE];
        let words = [cursor.first, cursor.count, cursor.next, cursor.step, cursor.salt, cursor.target];
        for (n, word) in words.into_iter().enumerate() {
            value[n * 4..n * 4 + 4].copy_from_slice(&word.to_ne_bytes());
        }
        update(&self.cursors, cpu as u32, &value)
    }

    /// Runs it.
    pub(crate) fn run(&self, ifindex: u32, frame: &[u8], repeat: u32) -> Result<Ran> {
        use std::os::fd::AsFd as _;
        run(self.program.as_fd(), ifindex, frame, repeat)
    }
}

/// Offset of the ports in an untagged IPv4 frame without options.
const PORTS: i16 = 34;
/// Offsets of `data` and `data_end` in `struct __sk_buff`.
const DATA: i16 = 76;
const DATA_END: i16 = 80;

/// A jump to the end, whose distance is filled in later: where it stands, and the instruction without it.
type Out = (usize, u64);

fn code(cursors: &OwnedFd, frames: &OwnedFd, targets: &OwnedFd) -> Vec<u64> {
    let map = |dst: u8, fd: &OwnedFd| [insn(0x18, dst, 1, 0, fd.as_raw_fd()), 0];
    let mut outs: Vec<Out> = Vec::new();
    let mut code: Vec<u64> = Vec::new();
    let out_if = |code: &mut Vec<u64>, outs: &mut Vec<Out>, jump: u64| {
        outs.push((code.len(), jump));
        code.push(jump);
    };
    // r6 = context, r7 = this CPU's cursor.
    code.extend([copy(6, 1), call(SMP_PROCESSOR_ID), store4(10, -4, 0), copy(2, 10), add(2, -4)]);
    code.extend(map(1, cursors));
    code.push(call(LOOKUP));
    out_if(&mut code, &mut outs, insn(0x15, 0, 0, 0, 0));
    code.extend([copy(7, 0), load4(1, 7, 0), load4(2, 7, 8), add_reg(1, 2), store4(10, -4, 1)]);
    // next += 1; at the end of a turn next = 0 and salt += step.
    let end_of_turn = [mov(2, 0), load4(4, 7, 16), load4(5, 7, 12), add_reg(4, 5), store4(7, 16, 4)];
    code.extend([add(2, 1), load4(3, 7, 4), insn(0xad, 2, 3, end_of_turn.len() as i16, 0)]);
    code.extend(end_of_turn);
    code.extend([store4(7, 8, 2), copy(2, 10), add(2, -4)]);
    code.extend(map(1, frames));
    code.push(call(LOOKUP));
    out_if(&mut code, &mut outs, insn(0x15, 0, 0, 0, 0));
    // The frame into the packet.
    code.extend([load4(2, 6, DATA), load4(3, 6, DATA_END), copy(4, 2), add(4, HEAD as i32)]);
    out_if(&mut code, &mut outs, insn(0x2d, 4, 3, 0, 0));
    for n in 0..(HEAD as i16 / 8) {
        code.extend([load8(1, 0, n * 8), store8(2, n * 8, 1)]);
    }
    code.extend([load4(1, 2, PORTS), load4(3, 7, 16), xor_reg(1, 3), store4(2, PORTS, 1)]);
    code.push(copy(1, 6));
    code.extend(map(2, targets));
    code.extend([load4(3, 7, 20), call(TAIL_CALL)]);
    let end = code.len();
    code.extend([mov(0, -1), EXIT]);
    for (at, jump) in outs {
        code[at] = jump | ((end - at - 1) as u64) << 16;
    }
    code
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The instruction that a slot holds: opcode and jump distance.
    fn jump(code: &[u64], at: usize) -> Option<usize> {
        let (opcode, offset) = (code[at] as u8, (code[at] >> 16) as i16);
        (opcode & 7 == 5 && !matches!(opcode, 0x85 | 0x95)).then(|| at + 1 + offset as usize)
    }

    #[test]
    fn every_jump_of_the_driver_lands_on_an_instruction() {
        let file = || OwnedFd::from(std::fs::File::open("/dev/null").unwrap());
        let code = code(&file(), &file(), &file());
        // The second half of a map address is no instruction.
        let halves: Vec<usize> = (1..code.len()).filter(|&n| code[n - 1] as u8 == 0x18).collect();
        let targets: Vec<usize> =
            (0..code.len()).filter(|n| !halves.contains(n)).filter_map(|n| jump(&code, n)).collect();
        assert_eq!(targets.len(), 4);
        assert!(targets.iter().all(|to| *to < code.len() && !halves.contains(to)), "{targets:?} of {}", code.len());
    }
}
