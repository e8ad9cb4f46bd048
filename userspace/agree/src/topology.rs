//! Random layer-2 networks, as ovn-nbctl commands.

use oxbow_testkit::random::Random;

/// A random network: commands for `ovn-nbctl`, one a line. Everything in it is valid and needs no conntrack.
///
/// One to three switches, each with two to six ports of every kind that a switch can have: addresses of one or both families or unknown, port
/// security of every form (no addresses, one or several, with and without masks, multicast, several elements), nested ports, localports, a localnet port, disabled ports; stateless ACLs on switches and port groups, with address
/// sets; VLAN passthrough and broadcast ARP options.
#[must_use]
pub fn random(seed: u64) -> String {
    let mut topology = Topology { random: Random::new(seed), lines: Vec::new(), ports: Vec::new() };
    let switches = 1 + topology.random.below(3);
    for switch in 0..switches {
        topology.switch(switch);
    }
    if topology.random.one_in(2) {
        topology.port_group();
    }
    topology.lines.join("\n")
}

struct Topology {
    random: Random,
    lines: Vec<String>,
    ports: Vec<String>,
}

impl Topology {
    fn say(&mut self, line: String) {
        self.lines.push(line);
    }

    fn switch(&mut self, n: usize) {
        let switch = format!("sw{n}");
        self.say(format!("ls-add {switch}"));
        // northd gives keys in the order of random row identifiers; with these the same seed is the same network.
        self.say(format!("set Logical_Switch {switch} other_config:requested-tnl-key={}", n + 1));
        if self.random.one_in(4) {
            self.say(format!("set Logical_Switch {switch} other_config:vlan-passthru=true"));
        }
        if self.random.one_in(4) {
            self.say(format!("set Logical_Switch {switch} other_config:broadcast-arps-to-all-routers=false"));
        }
        let ports = 2 + self.random.below(5);
        for port in 0..ports {
            self.port(&switch, n, port);
            self.say(format!("set Logical_Switch_Port {switch}p{port} options:requested-tnl-key={}", port + 1));
        }
        for acl in 0..self.random.below(4) {
            self.acl(&switch, n, acl);
        }
    }

    fn port(&mut self, switch: &str, n: usize, p: usize) {
        let port = format!("{switch}p{p}");
        // The same addresses in every switch: they must not meet.
        let mac = format!("00:00:00:00:00:{:02x}", p + 1);
        let (v4, v6) = (format!("10.0.0.{}", p + 1), format!("fd00::{:x}", p + 1));
        let ips = match self.random.below(4) {
            0 => String::new(),
            1 => format!(" {v4}"),
            2 => format!(" {v6}"),
            _ => format!(" {v4} {v6}"),
        };
        let nested = p > 0 && self.random.one_in(6);
        if nested {
            self.say(format!("lsp-add {switch} {port} {switch}p0 {}", 10 + p));
        } else {
            self.say(format!("lsp-add {switch} {port}"));
        }
        let kind = self.random.below(12);
        let addresses = match self.random.below(5) {
            0 => "unknown".to_owned(),
            1 => format!("'{mac}{ips}' unknown"),
            _ => format!("'{mac}{ips}'"),
        };
        match kind {
            0 if p > 1 && !nested => {
                self.say(format!("lsp-set-type {port} localnet"));
                self.say(format!("lsp-set-options {port} network_name=physnet{n}"));
                return self.say(format!("lsp-set-addresses {port} unknown"));
            }
            1 if p > 0 && !nested => {
                self.say(format!("lsp-set-type {port} localport"));
                return self.say(format!("lsp-set-addresses {port} '{mac}{ips}'"));
            }
            2 => self.say(format!("lsp-set-enabled {port} disabled")),
            _ => {}
        }
        self.say(format!("lsp-set-addresses {port} {addresses}"));
        if let Some(elements) = self.port_security(&mac, &ips, n, p) {
            self.say(format!("lsp-set-port-security {port} {elements}"));
        }
        self.ports.push(port);
    }

    /// Elements of port security of every form that ovn-nb(5) allows; none for half of the ports.
    fn port_security(&mut self, mac: &str, ips: &str, n: usize, p: usize) -> Option<String> {
        let (v4, v6) = (format!("10.0.0.{}", p + 1), format!("fd00::{:x}", p + 1));
        let second = format!("02:00:00:00:{n:02x}:{p:02x}");
        Some(match self.random.below(16) {
            0..=7 => return None,
            8 => format!("'{mac}{ips}'"),
            9 => format!("'{mac}{ips}' '{second} 10.0.2.{p} fd02::{p}'"),
            10 => mac.to_owned(),
            // A subnet, and an address with the size of its subnet.
            11 => format!("'{mac} 10.0.0.0/24 fd00::/64'"),
            12 => format!("'{mac} {v4}/29 {v6}/64'"),
            13 => format!("{mac} '{second} {v4}/24' '02:00:00:01:{n:02x}:{p:02x}{ips}'"),
            14 => format!("'{mac}, {v4}, {v6}'"),
            _ => format!("'{mac}{}' '{second}{}'", self.security_addresses(p), self.security_addresses(p)),
        })
    }

    /// One to four addresses of any kind, with and without masks.
    fn security_addresses(&mut self, p: usize) -> String {
        let k = p + 1;
        let pool = [
            format!("10.0.0.{k}"),
            format!("10.0.0.{k}/32"),
            format!("10.0.0.{}/31", k & !1),
            format!("10.0.0.{k}/255.255.255.0"),
            format!("10.0.{k}.0/255.255.255.0"),
            "10.0.0.4/30".to_owned(),
            "0.0.0.0/0".to_owned(),
            "224.0.0.1".to_owned(),
            "239.0.0.0/8".to_owned(),
            format!("fd00::{k:x}"),
            format!("fd00::{k:x}/128"),
            format!("fd00::{k:x}/120"),
            "fd00::4/126".to_owned(),
            "::/0".to_owned(),
            "ff02::1".to_owned(),
            "ff02::/16".to_owned(),
        ];
        (0..1 + self.random.below(4)).map(|_| format!(" {}", self.random.pick(&pool))).collect()
    }

    fn matching(&mut self, direction: &str, switch: &str) -> String {
        let side = if direction == "to-lport" { "outport" } else { "inport" };
        let hosts: Vec<String> = (0..3).map(|_| format!("10.0.0.{}", 1 + self.random.below(6))).collect();
        let port = *self.random.pick(&[53, 67, 80, 443, 547]);
        let p = self.random.below(3);
        self.random
            .pick(&[
                "ip4".to_owned(),
                "ip6 && icmp6.type == 128".to_owned(),
                "tcp || icmp".to_owned(),
                format!("ip4.src == {{{}}}", hosts.join(", ")),
                format!("ip4.dst == {} && udp.dst == {{53, {port}}}", hosts[0]),
                format!("ip4.src == 10.0.0.0/30 && tcp.dst >= {port}"),
                format!("ip6.src == fd00::/126 && tcp.dst != {port}"),
                format!("arp && arp.tpa == {}", hosts[0]),
                format!("{side} == \"{switch}p{p}\" && ip"),
                "ip.is_frag || vlan.present".to_owned(),
                format!("eth.src == 00:00:00:00:00:0{} && ip.ttl == 64", p + 1),
                "ip.dscp == 0 && eth.type == 0x800 && !ip.later_frag".to_owned(),
            ])
            .clone()
    }

    fn acl(&mut self, switch: &str, _: usize, n: usize) {
        let direction = *self.random.pick(&["from-lport", "to-lport"]);
        let matching = self.matching(direction, switch);
        let action = *self.random.pick(&["drop", "allow-stateless"]);
        let priority = 1000 + n * 7;
        self.say(format!("--may-exist acl-add {switch} {direction} {priority} '{matching}' {action}"));
    }

    fn port_group(&mut self) {
        let members: Vec<String> = self.ports.iter().step_by(2).cloned().collect();
        self.say("create Address_Set name=as1 'addresses=\"10.0.0.1\",\"10.0.0.4/31\"'".to_owned());
        self.say("create Address_Set name=as2 'addresses=\"fd00::1\",\"fd00::4/127\"'".to_owned());
        self.say(format!("pg-add pg1 {}", members.join(" ")));
        self.say("acl-add pg1 to-lport 2000 'outport == @pg1 && ip4.src == $as1' drop".to_owned());
        self.say("acl-add pg1 from-lport 2001 'inport == @pg1 && ip6.dst == $as2 && tcp' drop".to_owned());
        self.say(
            "acl-add pg1 to-lport 1990 'outport == @pg1 && ip4.src == $pg1_ip4 && ip4.dst == $pg1_ip4 && udp' drop"
                .to_owned(),
        );
    }
}
