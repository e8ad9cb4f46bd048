//! Who listens to packets (`oxbow monitor`): several may, each with a filter and a place of its own.
//!
//! A listener asks again and again; between two questions what happens is kept here, numbered. Numbers of records that could not be told are left out,
//! so a listener sees by the gap how many it lost, whether the programs, the ring or this store was too small. A listener that asks no more is
//! forgotten after [`LEASE_MS`]; without listeners the programs tell nothing.

use crate::packet::Filter;
use oxbow_abi::monitor::{Listen as KernelListen, STATE_TELL_DROPS, STATE_TELL_FORWARDED};
use oxbow_abi::reason::Reason;
use oxbow_report::events::{Event, Events, Listen};
use std::collections::VecDeque;

/// Records kept.
const KEPT: usize = 16_384;
/// A listener asks again within this time, milliseconds.
const LEASE_MS: u64 = 5_000;
/// Longest wait for an event, milliseconds.
const LONGEST_WAIT_MS: u64 = 30_000;
/// Records per second and CPU unless a listener says otherwise.
const RATE: u32 = 1_000;
/// Most records in one answer.
const ANSWER: usize = 2_048;

/// A logical port as the programs know it: datapath, port, device.
pub type Place = (u32, u32, u32);

/// A listener's filter, as long as it is in force.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Lease {
    listen: Listen,
    place: Option<Place>,
    until_ms: u64,
}

/// A question that waits for events.
#[derive(Debug)]
pub struct Waiting<R> {
    listen: Listen,
    filter: Option<Filter>,
    cursor: u64,
    until_ms: u64,
    /// Where the answer goes.
    pub reply: R,
}

/// A packet that was told.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Told {
    /// What is said of it, without its bytes.
    pub event: Event,
    /// Its first bytes.
    pub head: Vec<u8>,
}

/// All who listen. `R` is the way to answer.
#[derive(Debug)]
pub struct Audience<R> {
    kept: VecDeque<(u64, Told)>,
    next: u64,
    leases: Vec<Lease>,
    waiting: Vec<Waiting<R>>,
}

impl<R> Default for Audience<R> {
    fn default() -> Self {
        Audience { kept: VecDeque::new(), next: 1, leases: Vec::new(), waiting: Vec::new() }
    }
}

impl<R> Audience<R> {
    /// Somebody asks; `filter` is the expression that the question has, if it has one. An answer that is due at once comes from the next
    /// [`Audience::answers`].
    pub fn ask(&mut self, listen: Listen, place: Option<Place>, filter: Option<Filter>, reply: R, now_ms: u64) {
        let wait = listen.wait_ms.min(LONGEST_WAIT_MS);
        let until_ms = now_ms + wait + LEASE_MS;
        let asked = Listen { cursor: None, wait_ms: 0, ..listen.clone() };
        match self.leases.iter_mut().find(|lease| lease.listen == asked) {
            Some(lease) => *lease = Lease { until_ms: lease.until_ms.max(until_ms), place, ..lease.clone() },
            None => self.leases.push(Lease { listen: asked, place, until_ms }),
        }
        let cursor = listen.cursor.unwrap_or(self.next);
        self.waiting.push(Waiting { listen, filter, cursor, until_ms: now_ms + wait, reply });
    }

    /// What the programs are to tell: `STATE_TELL_*` flags and the filter that all listeners have in common. (0, …) = nobody listens.
    pub fn wanted(&mut self, now_ms: u64) -> (u32, KernelListen) {
        self.leases.retain(|lease| lease.until_ms > now_ms);
        let mut flags = 0;
        let mut listen = KernelListen::default();
        for Lease { listen: one, .. } in &self.leases {
            if one.drops {
                flags |= STATE_TELL_DROPS;
                let reason = one.reason.as_deref().and_then(reason_of);
                listen.reasons |= reason.map_or(u64::MAX, |reason| 1 << reason as u32);
            }
            if one.verdicts {
                flags |= STATE_TELL_FORWARDED;
            }
            // Told by the tenth of a second.
            listen.pace = listen.pace.max(one.rate.unwrap_or(RATE).div_ceil(10));
        }
        // The programs can filter for one port; for several, this store does.
        if let [first, others @ ..] = self.leases.as_slice()
            && let Some((datapath, port, device)) = first.place
            && others.iter().all(|lease| lease.place == first.place)
        {
            (listen.datapath, listen.port, listen.device) = (datapath, port, device);
        }
        (flags, listen)
    }

    /// Keeps what was told, and that `lost` records were not.
    pub fn keep(&mut self, events: impl IntoIterator<Item = Told>, lost: u64) {
        for event in events {
            self.kept.push_back((self.next, event));
            self.next += 1;
        }
        self.next += lost;
        while self.kept.len() > KEPT {
            self.kept.pop_front();
        }
    }

    /// Answers that are due: there is something to say, or the time is over.
    pub fn answers(&mut self, now_ms: u64) -> Vec<(R, Events)> {
        let mut due = Vec::new();
        let mut still = Vec::new();
        for waiting in std::mem::take(&mut self.waiting) {
            let events = self.since(&waiting);
            if events.events.is_empty() && events.lost == 0 && waiting.until_ms > now_ms {
                still.push(waiting);
            } else {
                due.push((waiting.reply, events));
            }
        }
        self.waiting = still;
        due
    }

    /// When to look again though nothing is told: a question's end, or a lease's.
    pub fn wake_at_ms(&self) -> Option<u64> {
        let questions = self.waiting.iter().map(|waiting| waiting.until_ms);
        questions.chain(self.leases.iter().map(|lease| lease.until_ms)).min()
    }

    fn since(&self, waiting: &Waiting<R>) -> Events {
        let Waiting { listen, filter, cursor, .. } = waiting;
        let cursor = *cursor;
        let fresh = self.kept.iter().skip_while(|(number, _)| *number < cursor);
        let mut answer = Events { next: cursor, ..Events::default() };
        let mut seen = 0;
        for (number, told) in fresh {
            if answer.events.len() >= ANSWER {
                break;
            }
            seen += 1;
            answer.next = number + 1;
            if wants(listen, filter.as_ref(), told) {
                let frame = listen.frames.then(|| told.head.iter().map(|byte| format!("{byte:02x}")).collect());
                answer.events.push(Event { frame, ..told.event.clone() });
            }
        }
        if answer.events.len() < ANSWER {
            answer.next = self.next.max(cursor);
        }
        answer.lost = answer.next - cursor - seen;
        answer
    }
}

/// Whether a filter lets an event pass.
fn wants(listen: &Listen, filter: Option<&Filter>, Told { event, head }: &Told) -> bool {
    let kind = if event.event == "drop" { listen.drops } else { listen.verdicts };
    let port = listen.port.as_ref().is_none_or(|port| event.inport == *port || event.outport.as_ref() == Some(port));
    let reason = listen.reason.as_ref().is_none_or(|reason| event.reason.as_ref() == Some(reason));
    let outport = event.outport.as_deref().unwrap_or_default();
    let holds = || filter.is_none_or(|filter| filter.wants(head, event.len as usize, &event.inport, outport));
    kind && port && reason && holds()
}

/// A reason by its name.
pub fn reason_of(name: &str) -> Option<Reason> {
    Reason::ALL.iter().copied().find(|reason| reason.text() == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(kind: &str, inport: &str) -> Told {
        let event = Event { event: kind.to_owned(), inport: inport.to_owned(), ..Event::default() };
        Told { event, head: Vec::new() }
    }

    fn listen(port: Option<&str>) -> Listen {
        Listen { drops: true, verdicts: true, port: port.map(str::to_owned), wait_ms: 1000, ..Listen::default() }
    }

    #[test]
    fn two_listeners_see_all_that_each_asked_for() {
        let mut audience = Audience::default();
        audience.ask(listen(None), None, None, "all", 0);
        audience.ask(listen(Some("vm1")), Some((1, 2, 3)), None, "one", 0);
        assert!(audience.answers(0).is_empty(), "nothing has happened yet");
        audience.keep([event("drop", "vm1"), event("deliver", "vm2")], 0);
        let answers = audience.answers(1);
        let lengths: Vec<_> = answers.iter().map(|(who, events)| (*who, events.events.len(), events.lost)).collect();
        assert_eq!(lengths, [("all", 2, 0), ("one", 1, 0)]);
        // Both go on where they were.
        let next = answers[1].1.next;
        audience.ask(Listen { cursor: Some(next), ..listen(Some("vm1")) }, Some((1, 2, 3)), None, "one", 2);
        assert!(audience.answers(3).is_empty());
        assert_eq!(audience.answers(1500)[0].1, Events { next, ..Events::default() });
    }

    #[test]
    fn what_was_lost_is_counted_for_each_listener() {
        let mut audience = Audience::default();
        audience.ask(listen(None), None, None, 1, 0);
        audience.keep([event("drop", "vm1")], 3);
        let (_, events) = audience.answers(0).pop().unwrap();
        assert_eq!((events.events.len(), events.lost, events.next), (1, 3, 5));
        audience.keep((0..KEPT + 10).map(|_| event("drop", "vm1")), 0);
        audience.ask(Listen { cursor: Some(5), ..listen(None) }, None, None, 2, 1);
        let (_, events) = audience.answers(1).pop().unwrap();
        assert_eq!((events.events.len(), events.lost), (ANSWER, 10));
    }

    #[test]
    fn an_expression_chooses_and_bytes_come_when_they_are_asked_for() {
        let mut audience = Audience::default();
        let experimental = |last: u8| Told {
            event: Event { len: 15, ..event("deliver", "vm1").event },
            head: [&[2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, last], [0x88, 0xb5, 7].as_slice()].concat(),
        };
        let filter = |text: &str| Some(Filter::parse(text).unwrap());
        audience.ask(listen(None), None, filter("eth.src == 02:00:00:00:00:09"), "filtered", 0);
        audience.ask(Listen { frames: true, ..listen(None) }, None, filter("inport == \"vm1\""), "bytes", 0);
        audience.keep([experimental(1), experimental(9)], 0);
        let answers = audience.answers(1);
        let (_, filtered) = &answers[0];
        assert_eq!((filtered.events.len(), filtered.lost, filtered.events[0].frame.as_deref()), (1, 0, None));
        let (_, bytes) = &answers[1];
        let frames: Vec<_> = bytes.events.iter().filter_map(|event| event.frame.as_deref()).collect();
        assert_eq!(frames, ["02000000000202000000000188b507", "02000000000202000000000988b507"]);
    }

    #[test]
    fn the_programs_filter_what_all_agree_on_and_stop_when_nobody_asks_any_more() {
        let mut audience = Audience::default();
        assert_eq!(audience.wanted(0).0, 0);
        let only = Listen { verdicts: false, reason: Some("same-port".to_owned()), ..listen(Some("vm1")) };
        audience.ask(only.clone(), Some((1, 2, 3)), None, (), 0);
        let (flags, kernel) = audience.wanted(1);
        assert_eq!((flags, kernel.reasons), (STATE_TELL_DROPS, 1 << Reason::Loopback as u32));
        assert_eq!((kernel.datapath, kernel.port, kernel.device, kernel.pace), (1, 2, 3, 100));
        audience.ask(listen(None), None, None, (), 1);
        let (flags, kernel) = audience.wanted(2);
        assert_eq!((flags, kernel.datapath), (STATE_TELL_DROPS | STATE_TELL_FORWARDED, 0));
        assert_eq!(audience.wanted(10_000).0, 0);
    }
}
