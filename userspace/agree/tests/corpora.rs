//! The corpora of the fuzz targets, replayed; `OXBOW_RECORD=1` writes their beginnings anew.

use anyhow::{Context as _, Result, ensure};
use oxbow_agree::generator::Identity;
use oxbow_agree::hostile::options::{Path, around, options};
use oxbow_agree::{Generator, Random, Southbound, parsers};
use std::net::IpAddr;
use std::path::PathBuf;

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

fn tunnels() -> Vec<Vec<u8>> {
    let mut random = Random::new(6);
    let path = |n: usize| {
        let (from, to) = match n % 8 {
            0 => (IpAddr::from([198, 51, 100, 1]), IpAddr::from([192, 0, 2, 1])),
            1 => (IpAddr::from([192, 0, 2, 2]), IpAddr::from([198, 51, 100, 2])),
            2 | 3 => {
                let six = |last| IpAddr::from([0xfd, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, last]);
                (six(2), six(1))
            }
            _ => (IpAddr::from([192, 0, 2, 2]), IpAddr::from([192, 0, 2, 1])),
        };
        Path { from, to, network: 7, ports: 3 << 16 | 4 }
    };
    let inner = frames();
    (0..40).map(|n| around(path(n), &options(&mut random, 3 << 16 | 4), &inner[n])).collect()
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
    let places = |frames: Vec<Vec<u8>>, underlay: bool| -> Vec<Vec<u8>> {
        let at = |n: usize| if underlay { 0xff } else { n as u8 };
        frames.into_iter().enumerate().map(|(n, frame)| [vec![at(n)], frame].concat()).collect()
    };
    let seeds = corpus("programs", || [places(frames(), false), places(tunnels(), true)].concat())?;
    let mut entry = oxbow_agree::hostile::Entry::start(1)?;
    for seed in seeds {
        let wrong = entry.judge(&seed)?;
        ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
    Ok(())
}
