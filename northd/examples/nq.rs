#![allow(missing_docs)]
use oxbow_northd::{Northd, profile};
use oxbow_ovsdb::{Client, ClientConfig, Event};
use oxbow_schema::{nb, sb};
fn now() -> i64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_millis() as i64
}
#[tokio::main(flavor = "current_thread")]
async fn main() {
    let nbdb = std::env::var("OVN_NB_DB").unwrap();
    let sbdb = std::env::var("OVN_SB_DB").unwrap();
    let mut c = ClientConfig::new(nb::DATABASE, nbdb);
    for t in Northd::nb_tables() {
        c = c.monitor(t);
    }
    let mut nbc = Client::start(c);
    let mut c = ClientConfig::new(sb::DATABASE, sbdb);
    for t in Northd::sb_tables() {
        c = c.monitor(t);
    }
    let mut sbc = Client::start(c);
    let mut n = Northd::new(&profile::V23_03);
    let (mut a, mut b) = (false, false);
    let pid = std::process::id();
    if let Ok(f) = std::env::var("NQ_PIDFILE") {
        std::fs::write(f, pid.to_string()).unwrap();
    }
    loop {
        tokio::select! {
            e = nbc.next() => match e {
                Event::Connected{..} => a = true,
                Event::Updates(u) => n.nb_changed(&u),
                Event::TransactionDone{outcome,..} => { if !outcome.is_committed() { eprintln!("nb {outcome:?}"); } n.nb_done(&outcome) }
                Event::Disconnected{reason,..} => eprintln!("nb {reason}"),
                _ => {}
            },
            e = sbc.next() => match e {
                Event::Connected{..} => b = true,
                Event::Updates(u) => n.sb_changed(&u),
                Event::TransactionDone{outcome,..} => { if !outcome.is_committed() { eprintln!("sb {outcome:?}"); tokio::time::sleep(std::time::Duration::from_millis(500)).await; } n.sb_done(&outcome, now()) }
                Event::Disconnected{reason,..} => eprintln!("sb {reason}"),
                _ => {}
            },
        }
        if a && b {
            let o = n.run(now());
            for r in o.reports {
                eprintln!("{r:?}");
            }
            if std::env::var("NQ_TRACE").is_ok() {
                eprintln!(
                    "computed {} sb {:?} nb {:?}",
                    o.computed,
                    o.sb.as_ref().map(|t| t.len()),
                    o.nb.as_ref().map(|t| t.len())
                );
            }
            if let Some(t) = o.sb {
                if std::env::var("NQ_TX").is_ok() {
                    eprintln!("{}", t.to_json());
                }
                sbc.transact(t);
            }
            if let Some(t) = o.nb {
                if std::env::var("NQ_TX").is_ok() {
                    eprintln!("{}", t.to_json());
                }
                nbc.transact(t);
            }
            if std::env::var("NQ_AUDIT").is_ok() {
                for d in n.audit() {
                    eprintln!("AUDIT {d}");
                }
            }
        }
    }
}
