//! Dynamic addresses (ovn-nb(5), "IP Address Assignment").

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, Ipv6Addr};

use oxbow_ovsdb::{MapView, Row, Text, Uuid};
use oxbow_schema::nb::{logical_switch, logical_switch_port as lsp};
use rustc_hash::FxHashMap;

use super::Dirty;
use crate::address::{DynamicRequest, Mac, PortAddresses, Printed6, parse_ipv4_cidr};
use crate::source::{IndexKey, Source};

/// What a switch offers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Pool {
    /// Network and broadcast address.
    subnet: Option<(u32, u32)>,
    excluded: Vec<(u32, u32)>,
    prefix6: Option<Ipv6Addr>,
    mac_only: bool,
}

impl Pool {
    fn read(config: MapView<'_, Text, Text>, refusals: &mut Vec<String>, switch: Uuid) -> Pool {
        let subnet = config.get("subnet").and_then(|text| {
            let (address, length) = parse_ipv4_cidr(text).filter(|(_, length)| *length < 32)?;
            let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
            let network = u32::from(address) & mask;
            Some((network, network | !mask))
        });
        let mut pool = Pool {
            subnet,
            excluded: Vec::new(),
            prefix6: config
                .get("ipv6_prefix")
                .and_then(|text| text.split_once('/').map_or(text.as_str(), |(prefix, _)| prefix).parse().ok()),
            mac_only: config.get_bool("mac_only", false),
        };
        let Some((network, broadcast)) = subnet else { return pool };
        for word in config.get("exclude_ips").map(Text::as_str).unwrap_or_default().split_ascii_whitespace() {
            let (first, last) = word.split_once("..").unwrap_or((word, word));
            match (first.parse::<Ipv4Addr>(), last.parse::<Ipv4Addr>()) {
                (Ok(first), Ok(last)) => {
                    let (first, last) = (u32::from(first), u32::from(last));
                    if first > last || last < network || first > broadcast {
                        refusals.push(format!("{switch}: bad exclude_ips (excluded addresses not in subnet)"));
                    } else {
                        pool.excluded.push((first, last));
                    }
                }
                _ => {
                    refusals.push(format!("{switch}: bad exclude_ips"));
                    break;
                }
            }
        }
        pool
    }

    fn offers(&self) -> bool {
        self.subnet.is_some() || self.prefix6.is_some() || self.mac_only
    }

    /// Whether an address may be given out at all: never the network's, the first, or the broadcast address.
    fn allows(&self, ip: u32) -> bool {
        self.subnet.is_some_and(|(network, broadcast)| ip > network + 1 && ip < broadcast)
            && !self.excluded.iter().any(|(first, last)| (*first..=*last).contains(&ip))
    }

    fn contains(&self, ip: u32) -> bool {
        self.subnet.is_some_and(|(network, broadcast)| ip > network && ip < broadcast)
    }
}

/// What a port has and what it wants.
#[derive(Clone, Debug, Default, PartialEq)]
struct PortState {
    switch: Option<Uuid>,
    fixed_ips: Vec<u32>,
    fixed_macs: Vec<u64>,
    request: Option<DynamicRequest>,
    assigned: Option<Assigned>,
}

/// What a port was given.
#[derive(Clone, Debug, PartialEq)]
struct Assigned {
    mac: Mac,
    ipv4: Option<u32>,
    ipv6: Option<Ipv6Addr>,
    text: Text,
}

/// What a port keeps of what it had; reserved for it.
#[derive(Clone, Copy, Debug, Default)]
struct Kept {
    mac: Option<Mac>,
    ipv4: Option<u32>,
    ipv6: Option<Ipv6Addr>,
}

/// The address allocator.
#[derive(Debug, Default)]
pub(crate) struct Ipam {
    pools: FxHashMap<Uuid, Pool>,
    ports: FxHashMap<Uuid, PortState>,
    /// Per switch: IPv4 addresses that ports have, counted.
    used_ips: FxHashMap<Uuid, BTreeMap<u32, u32>>,
    used_macs: FxHashMap<u64, u32>,
    dynamic: FxHashMap<Uuid, BTreeSet<Uuid>>,
    /// Ports that have not got what they asked for.
    starved: BTreeSet<Uuid>,
    /// What nobody has any more since this run began: addresses of switches, and Ethernet addresses.
    freed_ips: BTreeSet<(Uuid, u32)>,
    freed_macs: BTreeSet<u64>,
    again: bool,
}

impl Ipam {
    pub(crate) fn addresses(&self, port: Uuid) -> Option<&Text> {
        self.ports.get(&port)?.assigned.as_ref().map(|a| &a.text)
    }

    /// Every generated Ethernet address has to be looked at again.
    pub(crate) fn prefix_changed(&mut self) {
        self.again = true;
    }

    /// Looks at dirty switches and ports; returns the ports whose addresses are others now.
    pub(crate) fn update(
        &mut self,
        source: &Source,
        dirty: &Dirty,
        mac_prefix: &str,
        refusals: &mut Vec<String>,
    ) -> Vec<Uuid> {
        let mut pending: BTreeSet<Uuid> = BTreeSet::new();
        for &switch in &dirty.switches {
            let pool = match source.row(logical_switch::TABLE, switch) {
                Some(row) => Pool::read(row.get(logical_switch::OTHER_CONFIG), refusals, switch),
                None => Pool::default(),
            };
            if self.pools.get(&switch).is_none_or(|old| *old != pool) {
                pending.extend(self.dynamic.get(&switch).into_iter().flatten());
            }
            self.pools.insert(switch, pool);
            if source.row(logical_switch::TABLE, switch).is_none() {
                self.pools.remove(&switch);
            }
        }
        // Two rounds: everything fixed is known before anything is given out.
        let mut before: FxHashMap<Uuid, Option<Text>> = FxHashMap::default();
        for &port in &dirty.ports {
            before.insert(port, self.addresses(port).cloned());
            if self.refresh(source, port) {
                pending.insert(port);
            }
            // A fixed address takes precedence over the same one given out.
            pending.extend(self.robbed(port));
        }
        if std::mem::take(&mut self.again) {
            pending.extend(self.dynamic.values().flatten());
        }
        // A port that is tried again frees something only when it gets what it asked for; how often is counted all the same, for here nothing may go round.
        let mut tried: FxHashMap<Uuid, u8> = FxHashMap::default();
        loop {
            for &port in &pending {
                *tried.entry(port).or_default() += 1;
                before.entry(port).or_insert_with(|| self.addresses(port).cloned());
                self.starved.remove(&port);
            }
            // What is kept is reserved first, so that nobody new takes it.
            let kept: Vec<(Uuid, Kept)> =
                pending.iter().map(|&port| (port, self.release_and_keep(source, port, mac_prefix))).collect();
            for (port, kept) in kept {
                self.give(port, kept, mac_prefix, refusals);
            }
            pending = self.hopeful();
            pending.retain(|port| tried.get(port).is_none_or(|times| *times < 4));
            if pending.is_empty() {
                break;
            }
        }
        before.into_iter().filter(|(port, old)| self.addresses(*port) != old.as_ref()).map(|(port, _)| port).collect()
    }

    /// The ports that have not got what they asked for, and may get it now.
    fn hopeful(&mut self) -> BTreeSet<Uuid> {
        let (ips, macs) = (std::mem::take(&mut self.freed_ips), std::mem::take(&mut self.freed_macs));
        let hopeful = |port: &&Uuid| {
            let Some(state) = self.ports.get(port) else { return false };
            let (Some(switch), Some(request)) = (state.switch, state.request) else { return false };
            ips.range((switch, 0)..=(switch, u32::MAX)).next().is_some()
                || request.mac.is_some_and(|mac| macs.contains(&mac.as_u64()))
        };
        self.starved.iter().filter(hopeful).copied().collect()
    }

    /// Reads a port's fixed addresses and request again; true if it wants, or had, dynamic addresses.
    fn refresh(&mut self, source: &Source, port: Uuid) -> bool {
        let old = self.ports.remove(&port).unwrap_or_default();
        self.starved.remove(&port);
        if let Some(switch) = old.switch {
            for &ip in &old.fixed_ips {
                self.count_ip(switch, ip, false);
            }
            for &mac in &old.fixed_macs {
                self.count_mac(mac, false);
            }
            if let Some(set) = self.dynamic.get_mut(&switch) {
                set.remove(&port);
            }
        }
        let switch = source.members(&IndexKey::SwitchOfPort(port)).first().copied();
        let (Some(switch), Some(row)) = (switch, source.row(lsp::TABLE, port)) else {
            self.forget(old.switch, old.assigned);
            return false;
        };
        let mut new = fixed_and_wanted(row);
        new.switch = Some(switch);
        for &ip in &new.fixed_ips {
            self.count_ip(switch, ip, true);
        }
        for &mac in &new.fixed_macs {
            self.count_mac(mac, true);
        }
        let wants = new.request.is_some();
        if wants {
            self.dynamic.entry(switch).or_default().insert(port);
        }
        if old.switch == Some(switch) && wants {
            new.assigned = old.assigned;
        } else {
            self.forget(old.switch, old.assigned);
        }
        self.ports.insert(port, new);
        wants
    }

    /// The ports whose dynamic address is also a fixed address of `port`.
    fn robbed(&self, port: Uuid) -> Vec<Uuid> {
        let Some(state) = self.ports.get(&port) else { return Vec::new() };
        let Some(dynamic) = state.switch.and_then(|s| self.dynamic.get(&s)) else { return Vec::new() };
        if state.fixed_ips.is_empty() {
            return Vec::new();
        }
        let taken = |other: &Uuid| {
            let assigned = self.ports.get(other).and_then(|o| o.assigned.as_ref());
            assigned.and_then(|a| a.ipv4).is_some_and(|ip| state.fixed_ips.contains(&ip))
        };
        dynamic.iter().copied().filter(taken).collect()
    }

    /// Takes a port's addresses back, and reserves again those that it may keep.
    fn release_and_keep(&mut self, source: &Source, port: Uuid, mac_prefix: &str) -> Kept {
        let Some(state) = self.ports.get_mut(&port) else { return Kept::default() };
        let (switch, request) = (state.switch, state.request);
        let assigned = state.assigned.take();
        // At start, what the database holds counts as given out before.
        let stored = source
            .row(lsp::TABLE, port)
            .and_then(|row| row.get(lsp::DYNAMIC_ADDRESSES))
            .and_then(|text| PortAddresses::parse(text));
        let had = match &assigned {
            Some(a) => Some((a.mac, a.ipv4, a.ipv6)),
            None => stored.map(|s| (s.mac, s.ipv4.first().map(|ip| u32::from(*ip)), s.ipv6.first().copied())),
        };
        self.forget(switch, assigned);
        let (Some(switch), Some(request), Some((mac, ip, ipv6))) = (switch, request, had) else {
            return Kept::default();
        };
        let Some(pool) = self.pools.get(&switch).filter(|p| p.offers()) else { return Kept::default() };
        if self.wants_what_is_taken(&request) {
            return Kept::default();
        }
        let keep_mac = match request.mac {
            Some(wanted) => wanted == mac,
            None => mac.to_string().starts_with(&mac_prefix.to_ascii_lowercase()),
        } && !self.used_macs.contains_key(&mac.as_u64());
        let free = |ip: u32| !self.used_ips.get(&switch).is_some_and(|u| u.contains_key(&ip));
        let keep_ip = ip.filter(|&ip| {
            free(ip)
                && match request.ipv4.map(u32::from).filter(|w| pool.contains(*w)) {
                    Some(wanted) => wanted == ip || (!free(wanted) && pool.allows(ip)),
                    None => pool.allows(ip),
                }
        });
        let mac = keep_mac.then_some(mac);
        if let Some(mac) = mac {
            self.count_mac(mac.as_u64(), true);
        }
        if let Some(ip) = keep_ip {
            self.count_ip(switch, ip, true);
        }
        Kept { mac, ipv4: keep_ip, ipv6 }
    }

    /// Whether a port asks for an Ethernet address that another one has: it gets nothing then.
    fn wants_what_is_taken(&self, request: &DynamicRequest) -> bool {
        request.mac.is_some_and(|wanted| self.used_macs.contains_key(&wanted.as_u64()))
    }

    /// Gives a port what it lacks.
    fn give(&mut self, port: Uuid, kept: Kept, mac_prefix: &str, refusals: &mut Vec<String>) {
        let Some(state) = self.ports.get(&port) else { return };
        let (Some(switch), Some(request)) = (state.switch, state.request) else { return };
        let Some(pool) = self.pools.get(&switch).filter(|p| p.offers()).cloned() else { return };
        if kept.mac.is_none() && self.wants_what_is_taken(&request) {
            if let Some(ip) = kept.ipv4 {
                self.count_ip(switch, ip, false);
            }
            self.starved.insert(port);
            return;
        }
        let asked = request.ipv4.map(u32::from).filter(|w| pool.subnet.is_none() || pool.contains(*w));
        let ip = kept.ipv4.or_else(|| {
            pool.subnet?;
            if let Some(wanted) = asked
                && !self.used_ips.get(&switch).is_some_and(|u| u.contains_key(&wanted))
            {
                self.count_ip(switch, wanted, true);
                return Some(wanted);
            }
            let found = self.lowest_free(switch, &pool);
            match found {
                Some(ip) => self.count_ip(switch, ip, true),
                None => refusals.push(format!("{switch}: Subnet address space has been exhausted.")),
            }
            found
        });
        // The address asked for counts, even if another port has it or it is not in the subnet.
        let named = request.ipv4.map(u32::from).or(ip);
        let mac = kept.mac.or(request.mac).or_else(|| self.unused_mac(mac_prefix, named));
        let Some(mac) = mac else {
            // The prefix is exhausted: it gets nothing, and keeps nothing from others.
            if let Some(ip) = ip {
                self.count_ip(switch, ip, false);
            }
            return;
        };
        if kept.mac.is_none() {
            self.count_mac(mac.as_u64(), true);
        }
        if pool.subnet.is_some() && (ip.is_none() || asked.is_some_and(|wanted| ip != Some(wanted))) {
            self.starved.insert(port);
        }
        let mut text = mac.to_string();
        if let Some(ip) = ip {
            text.push_str(&format!(" {}", Ipv4Addr::from(ip)));
        }
        let ipv6 = pool.prefix6.map(|prefix| {
            let generated = mac.eui64(prefix);
            let (upper, lower) = (|a: Ipv6Addr| a.to_bits() >> 64, |a: Ipv6Addr| a.to_bits() as u64);
            // ovn-northd looks at the interface identifier alone, so an address outlives a change of the prefix.
            let requested = request.ipv6.filter(|a| upper(*a) == upper(prefix));
            requested.or(kept.ipv6.filter(|a| lower(*a) == lower(generated))).unwrap_or(generated)
        });
        if let Some(address) = ipv6 {
            text.push_str(&format!(" {}", Printed6(address)));
        }
        if let Some(state) = self.ports.get_mut(&port) {
            state.assigned = Some(Assigned { mac, ipv4: ip, ipv6, text: text.as_str().into() });
        }
    }

    fn lowest_free(&self, switch: Uuid, pool: &Pool) -> Option<u32> {
        let (network, broadcast) = pool.subnet?;
        let used = self.used_ips.get(&switch);
        let mut ip = network + 2;
        while ip < broadcast {
            if let Some((_, last)) = pool.excluded.iter().find(|(first, last)| (*first..=*last).contains(&ip)) {
                ip = last.checked_add(1)?;
            } else if used.is_some_and(|u| u.contains_key(&ip)) {
                ip += 1;
            } else {
                return Some(ip);
            }
        }
        None
    }

    /// The first unused address of the prefix, counted from the low 24 bits of the IPv4 address plus one.
    fn unused_mac(&self, mac_prefix: &str, ip: Option<u32>) -> Option<Mac> {
        const SUFFIXES: u64 = 0xff_fffe;
        let base = Mac::parse(&format!("{mac_prefix}:00:00:00"))?.as_u64();
        let start = u64::from(ip.unwrap_or(0) & 0xff_ffff);
        (0..SUFFIXES)
            .map(|i| base | ((start + i) % SUFFIXES + 1))
            .find(|mac| !self.used_macs.contains_key(mac))
            .map(Mac::from_u64)
    }

    fn forget(&mut self, switch: Option<Uuid>, assigned: Option<Assigned>) {
        let (Some(switch), Some(assigned)) = (switch, assigned) else { return };
        self.count_mac(assigned.mac.as_u64(), false);
        if let Some(ip) = assigned.ipv4 {
            self.count_ip(switch, ip, false);
        }
    }

    fn count_ip(&mut self, switch: Uuid, ip: u32, add: bool) {
        let used = self.used_ips.entry(switch).or_default();
        let count = used.entry(ip).or_insert(0);
        *count = if add { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            used.remove(&ip);
            self.freed_ips.insert((switch, ip));
        } else if add {
            self.freed_ips.remove(&(switch, ip));
        }
        if used.is_empty() {
            self.used_ips.remove(&switch);
        }
    }

    fn count_mac(&mut self, mac: u64, add: bool) {
        let count = self.used_macs.entry(mac).or_insert(0);
        *count = if add { *count + 1 } else { count.saturating_sub(1) };
        if *count == 0 {
            self.used_macs.remove(&mac);
            self.freed_macs.insert(mac);
        } else if add {
            self.freed_macs.remove(&mac);
        }
    }
}

fn fixed_and_wanted(row: &Row) -> PortState {
    let mut state = PortState::default();
    for element in row.get(lsp::ADDRESSES).iter() {
        if let Some(request) = DynamicRequest::parse(element) {
            state.request.get_or_insert(request);
        } else if let Some(fixed) = PortAddresses::parse(element) {
            state.fixed_macs.push(fixed.mac.as_u64());
            state.fixed_ips.extend(fixed.ipv4.iter().map(|ip| u32::from(*ip)));
        }
    }
    state
}
