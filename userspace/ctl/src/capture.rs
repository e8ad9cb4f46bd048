//! `oxbow capture`: packets with what became of them, as a pcapng file.

use crate::client::Client;
use crate::command_line::{CaptureArguments, Format};
use crate::listening;
use crate::pcapng::{Direction, Packet, Writer};
use anyhow::{Context as _, Result, bail};
use oxbow_report::events::{Event, FRAME_HEAD};
use serde::Serialize;
use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, IsTerminal as _, Write};
use std::path::Path;

/// `TC_ACT_SHOT` and `TC_ACT_REDIRECT` (linux/pkt_cls.h): what the programs return for a packet that is dropped, and for one that leaves.
const SHOT: u64 = 2;
const REDIRECT: u64 = 7;

/// What was captured.
#[derive(Debug, Default, Serialize)]
struct Summary {
    /// The file.
    file: String,
    /// Packets in it.
    packets: u64,
    /// Packets that were lost: more than `--rate`, or than could be fetched in time.
    lost: u64,
}

/// Captures until there were enough.
pub(crate) fn run(client: &mut Client, arguments: &CaptureArguments, format: Format) -> Result<bool> {
    let to_stdout = arguments.write == Path::new("-");
    let out: Box<dyn Write> = match to_stdout {
        true if io::stdout().is_terminal() => {
            bail!(
                "a capture is no text: write it into a file (`-w FILE`), or pipe it: `oxbow capture -w - | tcpdump -nr -`"
            )
        }
        true => Box::new(BufWriter::new(io::stdout())),
        false => Box::new(BufWriter::new(
            File::create(&arguments.write).with_context(|| format!("cannot write {}", arguments.write.display()))?,
        )),
    };
    let application = concat!("oxbow ", env!("CARGO_PKG_VERSION"));
    let file = Writer::new(out, application, FRAME_HEAD as u32)?;
    let mut capture = Capture::new(file, arguments.listen.port.clone())?;
    // Whoever reads a pipe sees at once that something is on its way.
    capture.file.flush()?;
    let mut summary = Summary { file: arguments.write.display().to_string(), ..Summary::default() };
    listening::listen(client, &arguments.listen, true, |news| {
        capture.unsaid += news.lost;
        summary.lost += news.lost;
        for event in &news.events {
            capture.write(event)?;
            summary.packets += 1;
        }
        Ok(capture.file.flush()?)
    })?;
    let text = match format {
        Format::Json => oxbow_report::json(&summary),
        Format::Table => format!("{}: {} packets, {} lost", summary.file, summary.packets, summary.lost),
    };
    if to_stdout {
        writeln!(io::stderr(), "{text}")?;
    } else {
        crate::say(&text)?;
    }
    Ok(true)
}

/// The file so far.
struct Capture<W> {
    file: Writer<W>,
    /// Numbers of the interfaces: one for each logical port that sends, by its name, empty where there is none.
    interfaces: HashMap<String, u32>,
    /// The port whose packets are captured, if there is one.
    port: Option<String>,
    /// Lost packets that no packet has told of yet.
    unsaid: u64,
}

impl<W: Write> Capture<W> {
    /// Begins with one interface: libpcap reads no file without.
    fn new(mut file: Writer<W>, port: Option<String>) -> Result<Self> {
        let (source, number) = match &port {
            Some(port) => (port.clone(), file.interface(port, "logical port")?),
            None => (String::new(), file.interface("unknown", "frames of no logical port")?),
        };
        Ok(Self { file, interfaces: HashMap::from([(source, number)]), port, unsaid: 0 })
    }

    fn interface(&mut self, event: &Event) -> Result<u32> {
        if let Some(number) = self.interfaces.get(&event.inport) {
            return Ok(*number);
        }
        let number = match event.inport.as_str() {
            "" => self.file.interface("unknown", "frames of no logical port")?,
            port => self.file.interface(port, &format!("logical port of {}", event.datapath))?,
        };
        self.interfaces.insert(event.inport.clone(), number);
        Ok(number)
    }

    fn write(&mut self, event: &Event) -> Result<()> {
        let interface = self.interface(event)?;
        let is = |name: &str| self.port.as_deref() == Some(name);
        let direction = match &event.outport {
            _ if is(&event.inport) => Direction::Inbound,
            Some(outport) if is(outport) => Direction::Outbound,
            _ => Direction::Unknown,
        };
        let text = event.frame.as_deref().unwrap_or_default();
        let bytes = bytes(text).with_context(|| format!("the daemon sent a frame that is none: {text}"))?;
        self.file.packet(&Packet {
            interface,
            at: (event.time * 1e9) as u64,
            bytes: &bytes,
            len: event.len,
            direction,
            comment: &event.fate(),
            verdict: if event.event == "drop" { SHOT } else { REDIRECT },
            lost: std::mem::take(&mut self.unsaid),
        })?;
        Ok(())
    }
}

/// Bytes of hexadecimal digits.
fn bytes(digits: &str) -> Option<Vec<u8>> {
    let pairs = (0..digits.len()).step_by(2).map(|at| digits.get(at..at + 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_source_is_an_interface_and_lost_packets_are_told_once() {
        let mut out = Vec::new();
        let file = Writer::new(&mut out, "oxbow", FRAME_HEAD as u32).unwrap();
        let mut capture = Capture::new(file, Some("vm1".to_owned())).unwrap();
        capture.unsaid = 5;
        let event = |inport: &str| Event {
            event: "drop".to_owned(),
            datapath: "sw0".to_owned(),
            inport: inport.to_owned(),
            reason: Some("same-port".to_owned()),
            frame: Some("0102".to_owned()),
            len: 60,
            ..Event::default()
        };
        for port in ["vm1", "vm2", "vm1", ""] {
            capture.write(&event(port)).unwrap();
        }
        assert_eq!((capture.interfaces.len(), capture.unsaid), (3, 0));
        let broken = Event { frame: Some("xy".to_owned()), ..event("vm1") };
        assert!(capture.write(&broken).unwrap_err().to_string().contains("xy"));
        assert_eq!(out.windows(9).filter(|part| *part == b"same-port").count(), 4);
        assert_eq!(bytes("00ff7"), None);
    }
}
