//! The corpora of the fuzz targets, replayed; `OXBOW_RECORD=1` writes their beginnings anew.

use anyhow::{Context as _, Result, ensure};
use oxbow_agree::generator::Identity;
use oxbow_agree::hostile::options::{Path, around, options};
use oxbow_agree::hostile::{Entry, UNDERLAY_PLACE};
use oxbow_agree::{Generator, Random, Southbound, parsers};
use std::net::IpAddr;
use std::path::PathBuf;

/// Key of the multicast group of all ports of a datapath.
const FLOOD: u32 = 0x8000;

fn directory(target: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target)
}

/// Seeds of a target, written if asked for.
fn corpus(target: &str, make: impl FnOnce() -> Vec<Vec<u8>>) -> Result<Vec<Vec<u8>>> {
    let directory = directory(target);
    if std::env::var_os("OXBOW_RECORD").is_some() {
        for (n, bytes) in make().iter().enumerate() {
            std::fs::write(directory.join(format!("seed-{n:02}")), bytes)?;
        }
    }
    let entries = std::fs::read_dir(&directory).with_context(|| directory.display().to_string())?;
    let files = entries.map(|entry| Ok(std::fs::read(entry?.path())?)).collect::<Result<Vec<_>>>()?;
    ensure!(files.len() >= 20, "{} has {} files", directory.display(), files.len());
    Ok(files)
}

fn frames() -> Vec<Vec<u8>> {
    let mut generator = Generator::new(&Southbound::default(), 5);
    let identity = Identity::of(["00:00:00:00:00:01 10.0.0.1 fd00::1"]);
    (0..40).map(|_| generator.frame(&identity).bytes).collect()
}

/// Five in eight between the tunnel endpoints of two hypervisors (to the first), in its networks, to ports and to the flood group of them; what is
/// inside is a broadcast in every other.
fn tunnels() -> Vec<Vec<u8>> {
    let mut random = Random::new(6);
    let path = |n: usize| {
        let (from, to) = match n % 8 {
            0 => (IpAddr::from([198, 51, 100, 1]), IpAddr::from([192, 0, 2, 1])),
            1 => (IpAddr::from([192, 0, 2, 2]), IpAddr::from([198, 51, 100, 2])),
            2 => {
                let six = |last| IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
                (six(2), six(1))
            }
            _ => (IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 1])),
        };
        let outport = [FLOOD, 1, FLOOD, 2, FLOOD, 3][n / 3 % 6];
        Path { from, to, network: 1 + n as u32 % 3, ports: 2 << 16 | outport }
    };
    let inner = frames();
    let tunnel = |(n, inner): (usize, &Vec<u8>)| {
        let (path, mut inner) = (path(n), inner.clone());
        if n % 2 == 0 {
            inner[..6].fill(0xff);
        }
        around(path, &options(&mut random, path.ports), &inner)
    };
    inner.iter().enumerate().map(tunnel).collect()
}

#[test]
fn the_parsers_agree_about_frames() -> Result<()> {
    corpus("frames", frames)?.iter().for_each(|frame| parsers::frame(frame));
    frames().iter().for_each(|frame| (0..frame.len()).for_each(|end| parsers::frame(&frame[..end])));
    Ok(())
}

/// Random frames, and each with a byte changed: what fuzzing does, for a moment.
#[test]
fn the_parsers_agree_about_damaged_frames() {
    let mut generator = Generator::new(&Southbound::default(), 11);
    let identity = Identity::of(["00:00:00:00:00:01 10.0.0.1 fd00::1"]);
    for _ in 0..1500 {
        let frame = generator.frame(&identity).bytes;
        oxbow_agree::hostile::damage::Damage::untagged(&frame, 12)
            .for_each(|damage| parsers::frame(&damage.apply(&frame)));
    }
}

#[test]
fn the_parsers_agree_about_outer_headers() -> Result<()> {
    corpus("tunnels", tunnels)?.iter().for_each(|frame| parsers::tunnel(frame));
    tunnels().iter().for_each(|frame| (0..frame.len()).for_each(|end| parsers::tunnel(&frame[..end])));
    Ok(())
}

#[test]
fn the_programs_agree_with_the_reference() -> Result<()> {
    let places = |frames: Vec<Vec<u8>>, place: fn(usize) -> u8| -> Vec<Vec<u8>> {
        frames.into_iter().enumerate().map(|(n, frame)| [vec![place(n)], frame].concat()).collect()
    };
    let make = || [places(frames(), |n| n as u8), places(tunnels(), |_| UNDERLAY_PLACE)].concat();
    let seeds = corpus("programs", make)?;
    let mut entry = Entry::start(1)?;
    for seed in seeds {
        let wrong = entry.judge(&seed)?;
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    // Each half of the beginnings gets into its program, and something of it out again.
    let tally = entry.tally();
    let (vifs, tunnels) = (tally.delivered - tally.from_tunnels, tally.from_tunnels);
    ensure!(vifs >= 5 && tunnels >= 5, "came out of VIFs' frames {vifs}, of tunnels {tunnels}: {tally:?}");
    ensure!(tally.told >= 20, "the programs say of too few where they come out: {tally:?}");
    for reason in ["unknown-peer", "bad-tunnel-header"] {
        ensure!(tally.drops.contains_key(reason), "no frame is dropped for {reason}: {tally:?}");
    }
    Ok(())
}
