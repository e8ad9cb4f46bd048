//! The "new ASCII" cpio format, which the kernel unpacks as its first file system (kernel documentation, "initramfs buffer format").

use std::io::{Result, Write};

/// File type bits of a mode, as in `stat(2)`.
const DIRECTORY: u32 = 0o040_000;
const REGULAR: u32 = 0o100_000;
const SYMLINK: u32 = 0o120_000;
const CHARACTER_DEVICE: u32 = 0o020_000;

/// Writes an archive, entry by entry. Parents come before their children; the kernel makes none by itself.
#[derive(Debug)]
pub struct Initramfs<W> {
    out: W,
    written: usize,
    inode: u32,
}

impl<W: Write> Initramfs<W> {
    /// An empty archive.
    pub fn new(out: W) -> Self {
        Self { out, written: 0, inode: 1 }
    }

    /// Adds a directory, e.g. `bin`; names have no leading slash.
    pub fn directory(&mut self, name: &str) -> Result<()> {
        self.entry(name, DIRECTORY | 0o755, (0, 0), &[])
    }

    /// Adds a file with these permission bits.
    pub fn file(&mut self, name: &str, permissions: u32, contents: &[u8]) -> Result<()> {
        self.entry(name, REGULAR | permissions, (0, 0), contents)
    }

    /// Adds a symbolic link.
    pub fn symlink(&mut self, name: &str, target: &str) -> Result<()> {
        self.entry(name, SYMLINK | 0o777, (0, 0), target.as_bytes())
    }

    /// Adds a character device by its numbers.
    pub fn character_device(&mut self, name: &str, major: u32, minor: u32) -> Result<()> {
        self.entry(name, CHARACTER_DEVICE | 0o600, (major, minor), &[])
    }

    /// Ends the archive and returns what it was written to.
    pub fn finish(mut self) -> Result<W> {
        self.inode = 0;
        self.entry("TRAILER!!!", 0, (0, 0), &[])?;
        self.out.flush()?;
        Ok(self.out)
    }

    fn entry(&mut self, name: &str, mode: u32, device: (u32, u32), contents: &[u8]) -> Result<()> {
        let too_big = |_| std::io::Error::other(format!("{name} is too big for an initramfs"));
        let size = u32::try_from(contents.len()).map_err(too_big)?;
        let name_size = u32::try_from(name.len() + 1).map_err(too_big)?;
        let links = if mode & DIRECTORY == DIRECTORY { 2 } else { 1 };
        // Magic, then 13 fields of 8 hexadecimal digits: inode, mode, user, group, links, time, size, device and special device
        // (major, minor), length of the name with its NUL, checksum (unused in this variant).
        let fields = [self.inode, mode, 0, 0, links, 0, size, 0, 0, device.0, device.1, name_size, 0];
        let mut header = String::from("070701");
        for field in fields {
            header.push_str(&format!("{field:08x}"));
        }
        self.write(header.as_bytes())?;
        self.write(name.as_bytes())?;
        self.write(&[0])?;
        self.pad()?;
        self.write(contents)?;
        self.pad()?;
        self.inode += 1;
        Ok(())
    }

    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.written += bytes.len();
        self.out.write_all(bytes)
    }

    /// Headers and contents begin at multiples of four bytes.
    fn pad(&mut self) -> Result<()> {
        let gap = self.written.next_multiple_of(4) - self.written;
        self.write(&[0; 3][..gap])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads an archive back: (name, mode, contents) of each entry before the trailer.
    fn read(archive: &[u8]) -> Vec<(String, u32, Vec<u8>)> {
        let mut entries = Vec::new();
        let mut at = 0;
        loop {
            assert_eq!(at % 4, 0, "a header begins at {at}");
            assert_eq!(&archive[at..at + 6], b"070701");
            let field = |index: usize| {
                let start = at + 6 + index * 8;
                u32::from_str_radix(std::str::from_utf8(&archive[start..start + 8]).unwrap(), 16).unwrap()
            };
            let (mode, size, name_size) = (field(1), field(6) as usize, field(11) as usize);
            let name_start = at + 110;
            let name = std::str::from_utf8(&archive[name_start..name_start + name_size - 1]).unwrap().to_owned();
            assert_eq!(archive[name_start + name_size - 1], 0);
            let start = (name_start + name_size).next_multiple_of(4);
            if name == "TRAILER!!!" {
                assert_eq!(archive.len(), start);
                return entries;
            }
            entries.push((name, mode, archive[start..start + size].to_vec()));
            at = (start + size).next_multiple_of(4);
        }
    }

    #[test]
    fn what_is_written_is_read_back() {
        let mut archive = Initramfs::new(Vec::new());
        archive.directory("bin").unwrap();
        for length in 0..9_u8 {
            archive.file(&format!("bin/{length}"), 0o755, &vec![length; length.into()]).unwrap();
        }
        archive.symlink("init", "bin/1").unwrap();
        archive.character_device("console", 5, 1).unwrap();
        let entries = read(&archive.finish().unwrap());
        assert_eq!(entries.len(), 12);
        assert_eq!(entries[0], ("bin".to_owned(), 0o040_755, Vec::new()));
        assert_eq!(entries[4], ("bin/3".to_owned(), 0o100_755, vec![3; 3]));
        assert_eq!(entries[10], ("init".to_owned(), 0o120_777, b"bin/1".to_vec()));
        assert_eq!(entries[11].1, 0o020_600);
    }
}
