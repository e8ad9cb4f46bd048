//! OpenFlow port numbers: stable, unique on a bridge, `ofport_request` honoured (ovs-vswitchd.conf.db(5), Interface, `ofport`).

use crate::rows::{Interface, Uuid};
use std::collections::BTreeMap;

/// Number of a bridge's own port (OFPP_LOCAL).
pub const LOCAL_OFPORT: i64 = 65534;
/// Largest number that a port may have.
const MAX_OFPORT: i64 = 65279;

/// The numbers in use on one bridge.
#[derive(Debug, Default)]
pub struct Ofports {
    owner: BTreeMap<i64, Uuid>,
    /// Requests by interfaces that have not got their number yet: nobody else is given it.
    requested: BTreeMap<i64, Uuid>,
}

impl Ofports {
    /// The numbers that interfaces have in the database; of two with one number the first keeps it.
    pub fn of(interfaces: &[&Interface], bridge: &str) -> Self {
        let mut ofports = Ofports::default();
        for interface in interfaces.iter().filter(|interface| interface.name != bridge) {
            if let Some(number) = interface.ofport.filter(|number| (1..=MAX_OFPORT).contains(number)) {
                ofports.owner.entry(number).or_insert(interface.uuid);
            }
            if let Some(request) = interface.ofport_request {
                ofports.requested.entry(request).or_insert(interface.uuid);
            }
        }
        ofports
    }

    /// The number of an interface: the one it asks for if nobody has it, else the one it has, else the lowest free one.
    pub fn number(&mut self, interface: &Interface, bridge: &str) -> i64 {
        if interface.name == bridge {
            return LOCAL_OFPORT;
        }
        if let Some(request) = interface.ofport_request.filter(|number| (1..=MAX_OFPORT).contains(number)) {
            let holder = *self.owner.get(&request).unwrap_or(&interface.uuid);
            if holder == interface.uuid {
                self.release(interface);
                self.owner.insert(request, interface.uuid);
                return request;
            }
        }
        if let Some(number) = interface.ofport.filter(|number| self.owner.get(number) == Some(&interface.uuid)) {
            return number;
        }
        let free = (1..=MAX_OFPORT).find(|number| {
            !self.owner.contains_key(number) && self.requested.get(number).is_none_or(|owner| *owner == interface.uuid)
        });
        // 65,279 ports on one bridge: the number is then shared with nobody else's, it is simply not given.
        let Some(number) = free else { return -1 };
        self.owner.insert(number, interface.uuid);
        number
    }

    /// Frees the number of an interface that has no device.
    pub fn release(&mut self, interface: &Interface) {
        self.owner.retain(|_, owner| *owner != interface.uuid);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn interface(number: u128, ofport: Option<i64>, request: Option<i64>) -> Interface {
        Interface {
            uuid: Uuid::from_u128(number),
            name: format!("tap{number}"),
            ofport,
            ofport_request: request,
            ..Default::default()
        }
    }

    #[test]
    fn numbers_stay_and_new_ones_are_the_lowest_free() {
        let all = [
            interface(1, Some(1), None),
            interface(2, None, None),
            interface(3, Some(3), None),
            interface(4, Some(-1), None),
        ];
        let mut ofports = Ofports::of(&all.iter().collect::<Vec<_>>(), "br-int");
        let numbers: Vec<i64> = all.iter().map(|interface| ofports.number(interface, "br-int")).collect();
        assert_eq!(numbers, [1, 2, 3, 4]);
    }

    #[test]
    fn a_request_is_honoured_unless_another_has_the_number() {
        let all = [
            interface(1, None, None),
            interface(2, None, Some(1)),
            interface(3, Some(5), None),
            interface(4, Some(7), Some(5)),
        ];
        let mut ofports = Ofports::of(&all.iter().collect::<Vec<_>>(), "br-int");
        let numbers: Vec<i64> = all.iter().map(|interface| ofports.number(interface, "br-int")).collect();
        assert_eq!(numbers, [2, 1, 5, 7]);
        // The holder goes: the request is met at last.
        let left = [all[0].clone(), all[3].clone()];
        let mut ofports = Ofports::of(&left.iter().collect::<Vec<_>>(), "br-int");
        assert_eq!(ofports.number(&left[1], "br-int"), 5);
    }

    #[test]
    fn two_interfaces_never_share_a_number() {
        let all = [interface(1, Some(1), None), interface(2, Some(1), None)];
        let mut ofports = Ofports::of(&all.iter().collect::<Vec<_>>(), "br-int");
        assert_eq!((ofports.number(&all[0], "br-int"), ofports.number(&all[1], "br-int")), (1, 2));
    }

    #[test]
    fn the_bridge_itself_is_the_local_port() {
        let local = Interface { name: "br-int".into(), ..Default::default() };
        assert_eq!(Ofports::of(&[&local], "br-int").number(&local, "br-int"), LOCAL_OFPORT);
    }
}
